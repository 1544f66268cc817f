//! Any text with its addresses cut:
//!
//! - it is the same however it is fed, and has as many lines as before;
//! - a line of JSON is JSON with nothing changed outside of its strings;
//! - an address that is put anywhere into it, bare or with escapes, between two bytes that end a word, does not survive. Before
//!   it stands no quote, slash, backslash or percent sign, behind it no dot, colon or percent sign: what these make of it (a
//!   version, an escape, a longer number) is the matter of `src/privacy/tests.rs`;
//! - no word of letters, digits, dots and colons that is left is an address, and it stays the same when it is cut again: of lines
//!   without escapes and keys that spare versions, the latter where no word has two colons without being an address.
//!
//! `cargo +nightly fuzz run privacy fuzz/corpus/privacy fuzz/seeds/privacy`

#![no_main]

use std::convert::Infallible;
use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use rtcstats_server::privacy::{self, Cutter};

/// Addresses as they may be written, each with a part of it that tells its holder apart.
const ADDRESSES: [(&str, &str); 13] = [
    ("203.0.113.77", "113.77"),
    ("%10.20.30.47", "30.47"),
    (r"203\u002e0.113\u002E77", "77"),
    ("203%2E0%252e113%25252E77", "77"),
    ("2001:db8:1:2:3:4:5:6e7f", "6e7f"),
    ("fe80::1c2d", "1c2d"),
    ("fe80::1c2d:77%eth0", "1c2d"),
    ("%2001:db8:1:2::9e7f", "9e7f"),
    ("2001%3Adb8%3A1%3a2%3A%3A9e7f", "9e7f"),
    ("2001%253Adb8%25253A1%253a2%253A%253A9e7f", "9e7f"),
    ("::ffff:203.0.113.77", "113.77"),
    ("::FFFF:cb00:714d", "714d"),
    ("2002:cb00:714d::1", "714d"),
];
/// Bytes that end a word wherever they stand, those that no text has among them.
const BORDERS: &[u8] = b" \t\r\n,;=()[]{}<>'&?|@!*~^$#+-_\0\xff\xfe\x80\xe2";

fuzz_target!(|text: &[u8]| {
    let cut = privacy::cut(text);
    check_feeding(text, &cut);
    check_lines(text, &cut);
    if let [which, before, behind, high, low, text @ ..] = text {
        let at = usize::from(u16::from_be_bytes([*high, *low])) % (text.len() + 1);
        let border = |byte: u8| BORDERS[usize::from(byte) % BORDERS.len()];
        check_planted(text, at, border(*before), border(*behind), ADDRESSES[usize::from(*which) % ADDRESSES.len()]);
    }
});

fn check_feeding(text: &[u8], cut: &[u8]) {
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
}

fn check_lines(text: &[u8], cut: &[u8]) {
    let lines = |text: &[u8]| text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
    let (came, kept) = (lines(text), lines(cut));
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
                assert_eq!(privacy::cut(kept.as_bytes()), kept.as_bytes(), "cut again");
            }
        }
    }
}

/// Puts an address into `text`; unless that held the same part by itself, it is gone afterwards.
fn check_planted(text: &[u8], at: usize, before: u8, behind: u8, (address, part): (&str, &str)) {
    let holds_part = |text: &[u8]| text.windows(part.len()).any(|window| window == part.as_bytes());
    let (head, tail) = text.split_at(at);
    let planted = [head, &[before], address.as_bytes(), &[behind], tail].concat();
    let others = [head, &[before, behind], tail].concat();
    if !holds_part(&others) {
        let cut = privacy::cut(&planted);
        assert!(!holds_part(&cut), "{}\n{}", planted.escape_ascii(), cut.escape_ascii());
    }
}

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
    let is_whole = |word: &&str| match word.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V4(v4)) => v4.octets()[3] != 0 && !matches!(v4.octets()[0], 0 | 127),
        Ok(IpAddr::V6(v6)) => {
            let is_translated = v6.segments()[..2] == [0x64, 0xff9b];
            v6.segments()[3..] != [0; 5] && (v6.segments()[0] > 0xff || is_translated)
        }
        Err(_) => false,
    };
    words(text).filter(is_whole).collect()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == ':'))
}
