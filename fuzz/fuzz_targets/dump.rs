//! A whole dump, in both modes: no panic, a document that can be written, and no difference between the modes
//! without problems. Where strict accepts a line, serde_json does, too.
//!
//! `cargo +nightly fuzz run dump fuzz/corpus/dump fuzz/seeds/dump`

#![no_main]

use libfuzzer_sys::fuzz_target;
use rtcstats_server::extract::{ExtractLimits, Options, extract};
use rtcstats_server::records::{RecordsContext, rows};

fuzz_target!(|dump: &[u8]| {
    let options = |strict| Options {
        strict,
        client_id: "id".to_owned(),
        dump_path: "path".to_owned(),
        now_ms: 1.7e12,
        limits: ExtractLimits {
            line_bytes_max: 1 << 16,
            nesting_max: 64,
            peer_connections_max: 8,
            tracks_max: 32,
            reports_max: 64,
        },
    };
    let tolerant = extract(dump, &options(false)).expect("memory can be read");
    let text = serde_json::to_string(&tolerant).expect("a document can be written");
    let context = RecordsContext { app_environment: "", dump_id: "id.gz", last_write_ms: 1.7e12 };
    for table in rows(&tolerant, &context, None) {
        let lines = table.lines.split_inclusive(|byte| *byte == b'\n');
        let ids = lines.map(|line| serde_json::from_slice::<serde_json::Value>(line).expect("a row is JSON"));
        assert!(ids.map(|row| row["id"].clone()).eq(table.ids.iter().map(String::as_str)), "{:?}", table.ids);
    }
    let Ok(strict) = extract(dump, &options(true)) else {
        assert!(tolerant.problems().total() > 0, "strict found an error that tolerant did not");
        return;
    };
    assert_eq!(tolerant.problems().total(), 0);
    if tolerant.missing().total() == 0 && tolerant.facts().server.continues_from.is_none() {
        assert_eq!(serde_json::to_string(&strict).expect("a document can be written"), text);
    }
    if let Ok(dump) = std::str::from_utf8(dump) {
        for line in dump.lines().filter(|line| !line.contains('\r')) {
            // serde_json knows no lone surrogates, and no numbers above a double's range; JSON.parse does.
            if !line.contains("\\u") && !line.contains(['e', 'E']) && line.len() < 300 {
                assert!(serde_json::from_str::<serde::de::IgnoredAny>(line).is_ok(), "{line}");
            }
        }
    }
});
