//! Holds README.md to the code: dependencies, configuration keys, log events, metrics, links. What it names must exist;
//! what must be named there is.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot read its input fails; the tests' allowance does not reach helper functions"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

fn toml(path: &str) -> toml::Table {
    read(path).parse().unwrap()
}

/// The pages that a reader meets: those of the root and of `docs/`, as paths from the root.
fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for folder in ["", "docs"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let name = PathBuf::from(folder).join(entry.unwrap().file_name());
            if name.extension().is_some_and(|extension| extension == "md") {
                pages.push(name);
            }
        }
    }
    pages
}

/// The text of the section under `## title`.
fn section<'a>(text: &'a str, title: &str) -> &'a str {
    let heading = format!("\n## {title}\n");
    let start = text.find(&heading).unwrap_or_else(|| panic!("no section {title}")) + heading.len();
    let rest = &text[start..];
    &rest[..rest.find("\n## ").unwrap_or(rest.len())]
}

/// A page without its code blocks.
fn prose(text: &str) -> String {
    let mut in_block = false;
    let keep = |line: &&str| {
        let is_fence = line.starts_with("```");
        in_block ^= is_fence;
        !in_block && !is_fence
    };
    text.lines().filter(keep).collect::<Vec<_>>().join("\n")
}

/// What stands between backticks, outside of code blocks.
fn code_spans(text: &str) -> Vec<String> {
    prose(text)
        .lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

/// Targets of the links of a page, without code blocks.
fn links(text: &str) -> Vec<String> {
    prose(text).split("](").skip(1).map(|rest| rest[..rest.find(')').unwrap()].to_owned()).collect()
}

/// The anchors of a page's headings, as the usual hosts make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let anchor = |heading: &str| {
        let kept = |c: char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        heading.to_lowercase().chars().filter(|&c| kept(c)).collect::<String>().replace(' ', "-")
    };
    let headings = prose(text);
    let headings = headings.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
}

/// Words made of lower case letters, digits and underscores.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'))
}

fn sources(folder: &Path, into: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

/// The table of dependencies names exactly the direct ones.
#[test]
fn every_dependency_has_its_reason() {
    let manifest = toml("Cargo.toml");
    let direct: BTreeSet<String> = ["dependencies", "dev-dependencies"]
        .iter()
        .flat_map(|kind| manifest[*kind].as_table().unwrap().keys().cloned())
        .collect();
    let readme = read("README.md");
    let rows = section(&readme, "Dependencies").lines().filter(|line| line.starts_with("| `"));
    let named: BTreeSet<String> = rows.flat_map(|row| code_spans(row.split('|').nth(1).unwrap())).collect();
    assert_eq!(named, direct, "left: README.md, right: Cargo.toml");
}

/// What looks like `section.name` is a key of the configuration or an event of the log.
#[test]
fn every_key_and_every_log_event_exists() {
    let defaults = toml("config/default.toml");
    let mut code = String::new();
    sources(&root().join("src"), &mut code);
    let mut keys = 0;
    for span in code_spans(&read("README.md")) {
        let name = span.split([' ', '=']).next().unwrap();
        let Some((section, key)) = name.split_once('.') else { continue };
        if section.is_empty()
            || !words(section).eq([section])
            || !words(key).eq([key])
            || ["toml", "rs", "js"].contains(&key)
        {
            continue;
        }
        let is_key = defaults.get(section).is_some_and(|section| section.get(key).is_some());
        // Its members follow, of which the first may be missing.
        let is_event = [' ', '{'].iter().any(|next| code.contains(&format!("\"{name}{next}")));
        assert!(
            is_key || is_event,
            "README.md names `{name}`: no key of config/default.toml, no event of the log"
        );
        keys += usize::from(is_key);
    }
    assert!(keys > 20, "only {keys} keys were found in README.md: does the test still read it?");
}

/// Environment variables are those of keys, or the few that are none.
#[test]
fn every_variable_exists() {
    let defaults = toml("config/default.toml");
    let mut known =
        BTreeSet::from(["RTCSTATS_ENV", "RTCSTATS_LOG_LEVEL", "RTCSTATS_ENVIRONMENT"].map(str::to_owned));
    for (section, keys) in &defaults {
        known.extend(
            keys.as_table().unwrap().keys().map(|key| format!("RTCSTATS_{section}_{key}").to_uppercase()),
        );
    }
    let readme = read("README.md").replace("RTCSTATS_CLIENT", "").replace("RTCSTATS_<SECTION>_<KEY>", "");
    for word in readme.split(|c: char| !(c.is_ascii_uppercase() || c == '_')) {
        assert!(
            !word.starts_with("RTCSTATS_") || known.contains(word),
            "README.md names {word}, which is no variable"
        );
    }
}

/// Each metric is described in docs/metrics.md.
#[test]
fn every_metric_is_documented() {
    let documented = read("docs/metrics.md");
    let documented: BTreeSet<&str> = words(&documented).collect();
    let readme = read("README.md");
    let prefixes = ["rtcstats_", "process_", "jvb_", "jicofo_", "jibri_", "jigasi_", "unknown_"];
    let metrics: Vec<&str> = words(&readme)
        .filter(|word| prefixes.iter().any(|prefix| word.len() > prefix.len() && word.starts_with(prefix)))
        .collect();
    assert!(metrics.len() > 10, "only {metrics:?} were found in README.md: does the test still read it?");
    for metric in metrics {
        assert!(documented.contains(metric), "README.md names {metric}, docs/metrics.md does not");
    }
}

/// Links between the pages, and to files, lead somewhere.
#[test]
fn every_relative_link_resolves() {
    for page in pages() {
        let text = fs::read_to_string(root().join(&page)).unwrap();
        for link in links(&text).iter().filter(|link| !link.contains("://")) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() {
                root().join(&page)
            } else {
                root().join(&page).parent().unwrap().join(path)
            };
            assert!(target.exists(), "{}: {link} leads nowhere", page.display());
            if !anchor.is_empty() && target.extension().is_some_and(|extension| extension == "md") {
                let anchors = anchors(&fs::read_to_string(&target).unwrap());
                assert!(
                    anchors.contains(anchor),
                    "{}: {link} has no such heading, only {anchors:?}",
                    page.display()
                );
            }
        }
    }
}

/// A page that README does not lead to is not found by anybody.
#[test]
fn every_page_is_linked() {
    let links = links(&read("README.md"));
    for page in pages() {
        let page = page.to_str().unwrap();
        assert!(
            page == "README.md" || links.iter().any(|link| link == page),
            "README.md has no link to {page}"
        );
    }
}
