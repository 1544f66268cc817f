//! Holds rules about the sources that no compiler checks: each outside crate has its home, no line is overlong, nothing
//! that was left from debugging stays.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot read its input fails; the tests' allowance does not reach helper functions"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// Outside crates and the files (or folders) of `src/` that may name them. A crate that is not listed may not be named
/// anywhere, so that a new dependency is a decision that shows here.
const HOMES: &[(&str, &[&str])] = &[
    ("mio", &["reactor.rs", "reactor/", "signals.rs", "serve.rs"]),
    ("tungstenite", &["websocket.rs", "websocket/"]),
    ("httparse", &["http.rs", "metrics/http.rs"]),
    ("simdutf8", &["websocket/", "protocol.rs", "extract.rs", "extract/"]),
    ("wide", &["blocks.rs"]),
    ("memmap2", &["slabs.rs"]),
    ("hashbrown", &["session/by_url.rs"]),
    ("toml", &["config.rs", "config/"]),
    ("prometheus", &["metrics.rs", "metrics/"]),
    ("simplelog", &["logging.rs"]),
    ("crossbeam_channel", &["workers.rs", "workers/", "recovery.rs", "durability.rs"]),
    ("signal_hook", &["signals.rs"]),
    ("signal_hook_mio", &["signals.rs"]),
    ("sd_notify", &["systemd.rs"]),
    ("flate2", &["archive/", "cli/extract.rs"]),
    ("lexopt", &["cli.rs", "cli/"]),
    ("memchr", &["extract.rs", "extract/", "privacy.rs", "privacy/", "rooms.rs"]),
    ("sha1", &["records.rs", "records/"]),
    ("ring", &["auth.rs", "auth/", "tls.rs"]),
    ("rustls", &["auth.rs", "tls.rs", "reactor/"]),
    ("data_encoding", &["auth.rs", "auth/"]),
    (
        "rustix",
        &[
            "archive.rs",
            "archive/",
            "beneath.rs",
            "descriptors.rs",
            "dump.rs",
            "dump_folder.rs",
            "durability.rs",
            "ended.rs",
            "logging.rs",
            "metrics/",
            "moment.rs",
            "reactor.rs",
            "records_store.rs",
            "recovery.rs",
            "serve.rs",
            "signals.rs",
            "systemd.rs",
            "whole_sync.rs",
            "workers/",
        ],
    ),
];

/// Longest line of a source file; what rustfmt cannot break stays below it, too.
const COLUMNS_MAX: usize = 160;

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// Calls `check` with the path below `src/`, the number and the text of every line that is no test.
fn for_each_line(mut check: impl FnMut(&str, usize, &str)) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 20, "the sources were not found");
    for file in files {
        let name = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&file).unwrap();
        // Tests stand last, or in a file of their own, and may name what they like.
        let product =
            if name.ends_with("tests.rs") { "" } else { text.split("#[cfg(test)]\nmod ").next().unwrap() };
        for (index, line) in product.lines().enumerate() {
            check(&name, index + 1, line);
        }
    }
}

fn names(line: &str, krate: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    code.match_indices(krate).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let is_whole =
            !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '.' || c == '/');
        let is_text = code[..at].matches('"').count() % 2 == 1;
        is_whole && !is_text && code[at + krate.len()..].starts_with("::")
    })
}

#[test]
fn every_outside_crate_stays_in_its_home() {
    let mut strays = Vec::new();
    for_each_line(|file, number, line| {
        for (krate, homes) in HOMES {
            let is_home =
                homes.iter().any(|home| file == *home || (home.ends_with('/') && file.starts_with(home)));
            if !is_home && names(line, krate) {
                strays.push(format!("src/{file}:{number} names {krate}: {line}"));
            }
        }
    });
    assert_eq!(strays, [""; 0], "see the table of modules in src/lib.rs");
}

#[test]
fn lines_are_short_and_finished() {
    let mut findings = Vec::new();
    for_each_line(|file, number, line| {
        let columns = line.chars().count();
        if columns > COLUMNS_MAX {
            findings.push(format!("src/{file}:{number} has {columns} columns, at most {COLUMNS_MAX}"));
        }
        for word in ["dbg!(", "todo!(", "unimplemented!(", "FIXME"] {
            if line.contains(word) {
                findings.push(format!("src/{file}:{number} holds {word}"));
            }
        }
    });
    assert_eq!(findings, [""; 0]);
}

#[test]
fn no_runtime_is_named() {
    for_each_line(|file, number, line| {
        for krate in ["tokio", "async_std", "smol", "futures"] {
            assert!(!names(line, krate), "src/{file}:{number} names {krate}");
        }
        assert!(!line.contains("async fn"), "src/{file}:{number} is asynchronous");
    });
}
