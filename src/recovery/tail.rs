//! The number of the last numbered line of a dump, read from its end.
//!
//! Pure: works on a window of bytes that somebody else has read. Lines are looked at from the last to the first; which
//! of them are numbered is the business of [`numbering`](crate::numbering).
//! Rules: our contract, sections 4 and 7.

use crate::numbering::line_number;

/// What a window of whole lines holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// The number of the last numbered line.
    Number(u64),
    /// No line of the window is numbered, and there is nothing before it.
    Unnumbered,
    /// No line of which the beginning is inside is numbered; what ends at this offset was not looked at.
    Before(usize),
}

/// Searches `window`, which ends behind a line feed. `is_whole` says that it begins where the dump begins.
#[must_use]
pub fn last_number(window: &[u8], is_whole: bool) -> Tail {
    let mut rest = window;
    while let Some((_, lines)) = rest.split_last() {
        let start = lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if start == 0 && !is_whole {
            return Tail::Before(rest.len());
        }
        let (before, line) = lines.split_at(start);
        if let Some(number) = line_number(line) {
            return Tail::Number(number);
        }
        rest = before;
    }
    if is_whole { Tail::Unnumbered } else { Tail::Before(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_numbered_line_counts() {
        let dump = "first\n[1,1700000000000,3]\n[1,1700000000000,4]\n[\"unnumbered\"]\n";
        assert_eq!(last_number(dump.as_bytes(), true), Tail::Number(4));
        assert_eq!(last_number(b"first\nsecond\n", true), Tail::Unnumbered);
        assert_eq!(last_number(b"", true), Tail::Unnumbered);
        assert_eq!(last_number(b"", false), Tail::Before(0));
    }

    #[test]
    fn every_window_tells_the_same() {
        let dump = b"first\n[1,1700000000000,3]\n[1,1700000000000,4]\nunnumbered\n";
        for from in 0..dump.len() {
            match last_number(&dump[from..], from == 0) {
                Tail::Number(number) => assert_eq!(number, 4, "from {from}"),
                Tail::Before(end) => {
                    assert!(from >= 26, "the line of 4 begins at 26, the window at {from}");
                    assert!(end == 0 || dump[from + end - 1] == b'\n');
                }
                Tail::Unnumbered => panic!("from {from}"),
            }
        }
    }
}
