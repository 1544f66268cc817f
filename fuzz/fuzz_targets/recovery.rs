//! The end of a dump: the last number is the same in every window that holds it, and nothing in the first line panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rtcstats_server::numbering;
use rtcstats_server::recovery::first_line::FirstLine;
use rtcstats_server::recovery::tail::{self, Tail};

fuzz_target!(|dump: &[u8]| {
    let _ = FirstLine::parse(dump.split(|byte| *byte == b'\n').next().unwrap_or_default());
    let whole_len = dump.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let dump = &dump[..whole_len];
    let mut lines = dump.split_inclusive(|byte| *byte == b'\n').rev();
    let expected = lines.find_map(|line| numbering::line_number(&line[..line.len() - 1]));
    for start in 0..=dump.len() {
        match tail::last_number(&dump[start..], start == 0) {
            Tail::Number(number) => assert_eq!(Some(number), expected, "from {start}"),
            Tail::Unnumbered => assert!(start == 0 && expected.is_none(), "from {start}"),
            // What was looked at holds no number, and what was not ends with a line.
            Tail::Before(offset) => {
                let end = start + offset;
                assert!(start > 0 && (end == 0 || dump[end - 1] == b'\n'), "from {start}");
                let rest = tail::last_number(&dump[..end], true);
                assert_eq!(rest, expected.map_or(Tail::Unnumbered, Tail::Number), "from {start}");
            }
        }
    }
});
