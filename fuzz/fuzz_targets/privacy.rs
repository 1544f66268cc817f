//! Any text with its addresses cut: the same however it is fed, as many lines as before, JSON with nothing changed outside of
//! its strings, no word left that is an address, and the same when it is cut again where every word is an address or none.
//!
//! `cargo +nightly fuzz run privacy fuzz/corpus/privacy fuzz/seeds/privacy`

#![no_main]

use std::convert::Infallible;
use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use rtcstats_server::privacy::{self, Cutter};

fuzz_target!(|text: &[u8]| {
    let cut = privacy::cut(text.to_vec());
    let size = usize::from(text.first().copied().unwrap_or(1)).max(1);
    let (mut cutter, mut fed) = (Cutter::default(), Vec::new());
    let mut sink = |piece: &[u8]| {
        fed.extend_from_slice(piece);
        Ok::<(), Infallible>(())
    };
    for piece in text.chunks(size) {
        cutter.feed(piece, &mut sink).expect("memory can be written");
    }
    cutter.end(&mut sink).expect("memory can be written");
    assert_eq!(fed, cut, "fed in pieces of {size}");

    let lines = |text: &[u8]| text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
    let (came, kept) = (lines(text), lines(&cut));
    assert_eq!(came.len(), kept.len());
    for (came, kept) in came.iter().zip(&kept) {
        let (Ok(came), Ok(kept)) = (str::from_utf8(came), str::from_utf8(kept)) else { continue };
        if serde_json::from_str::<serde::de::IgnoredAny>(came).is_ok() {
            assert!(serde_json::from_str::<serde::de::IgnoredAny>(kept).is_ok(), "{came}\n{kept}");
            assert_eq!(skeleton(came), skeleton(kept));
        }
        if !kept.contains(['\\', '%']) && !kept.contains("ersion\"") && !kept.contains("userAgent\"") {
            assert_eq!(whole_addresses(kept), [""; 0], "{came}");
            // Several addresses in one word are taken apart as far as they go, once.
            if words(came).all(|word| word.matches(':').count() < 2 || word.parse::<IpAddr>().is_ok()) {
                assert_eq!(privacy::cut(kept.into()), kept.as_bytes(), "cut again");
            }
        }
    }
});

/// JSON without the contents of its strings.
fn skeleton(json: &str) -> String {
    let (mut is_inside, mut is_escaped) = (false, false);
    let keep = |character: &char| {
        let was_inside = is_inside;
        if is_escaped {
            is_escaped = false;
        } else if is_inside && *character == '\\' {
            is_escaped = true;
        } else if *character == '"' {
            is_inside = !is_inside;
        }
        !was_inside || !is_inside
    };
    json.chars().filter(keep).collect()
}

/// The words that are addresses, and more than networks.
fn whole_addresses(text: &str) -> Vec<&str> {
    let is_whole = |word: &&str| match word.parse::<IpAddr>() {
        Ok(IpAddr::V4(v4)) => v4.octets()[3] != 0 && !matches!(v4.octets()[0], 0 | 127),
        Ok(IpAddr::V6(v6)) => v6.segments()[3..] != [0; 5] && v6.segments()[0] > 0xff,
        Err(_) => false,
    };
    words(text).filter(is_whole).collect()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == ':'))
}
