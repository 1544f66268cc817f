//! The usual request, taken without a JSON parser: `{"statsSessionId":"..","type":"stats-entry","data":".."}`, just so.
//!
//! Nearly every message of a browser is one. Its `data` is a string in a string: all that is escaped in it are quotes
//! and backslashes. So the line is what stands there less some backslashes, and goes in one pass from the read buffer
//! to where the session gathers its lines. Whatever looks any different, be it right or wrong, is left to the
//! general way, [`super::requests`] and [`super::write_line`]; where this way has an answer it is the same one, which
//! a property test and a fuzz target hold it to. Pure.

use crate::blocks::{BLOCK_BYTES, Bytes, Escapes};
use crate::client::SessionId;

const BEFORE_ID: &str = r#"{"statsSessionId":""#;
const BETWEEN: &str = r#"","type":"stats-entry","data":""#;
const AFTER: &str = r#""}"#;

/// Bytes that are copied at once: most runs between two backslashes are shorter, and a copy of a fixed size is a few
/// instructions.
const STRIDE: usize = 32;

/// A block and what a copy that begins within it may read beyond it.
type Window = [u8; BLOCK_BYTES + STRIDE];

/// What may be such a request: its ends are right, what is between was not looked at.
#[derive(Debug, Clone, Copy)]
pub struct UsualEntry<'a> {
    /// Whom it is about.
    pub id: &'a str,
    /// The content of the string `data`, still escaped.
    data: &'a [u8],
}

impl<'a> UsualEntry<'a> {
    /// The whole of `message` as such a request.
    #[must_use]
    pub fn of(message: &'a str) -> Option<Self> {
        let rest = message.strip_prefix(BEFORE_ID)?;
        // No id holds a quote, so the first one ends it.
        let window = rest.as_bytes().get(..=SessionId::BYTES_MAX).unwrap_or(rest.as_bytes());
        let (id, rest) = rest.split_at_checked(window.iter().position(|byte| *byte == b'"')?)?;
        let data = rest.strip_prefix(BETWEEN)?.strip_suffix(AFTER)?;
        (SessionId::is_valid(id) && !data.is_empty()).then_some(Self { id, data: data.as_bytes() })
    }

    /// Bytes that [`UsualEntry::write_line`] needs: those of the line, and a block.
    #[must_use]
    pub fn room(&self) -> usize {
        self.data.len() + size_of::<Window>()
    }

    /// Writes the line with its `\n` to the front of `out`, and says how long it is; some bytes of no meaning follow. `None`
    /// when the string holds anything but plain bytes, `\"` and `\\`, or `out` is shorter than [`UsualEntry::room`].
    #[must_use]
    pub fn write_line(&self, out: &mut [u8]) -> Option<usize> {
        let end = unescape(self.data, out)?;
        *out.get_mut(end)? = b'\n';
        Some(end + 1)
    }
}

/// Writes the content of a JSON string to the front of `out`.
fn unescape(text: &[u8], out: &mut [u8]) -> Option<usize> {
    let mut end = 0;
    let mut escapes = Escapes::default();
    let mut rest = text;
    while let Some(window) = rest.first_chunk() {
        end += unescape_block(window, BLOCK_BYTES, &mut escapes, out.get_mut(end..)?.first_chunk_mut()?)?;
        rest = rest.get(BLOCK_BYTES..)?;
    }
    for chunk in rest.chunks(BLOCK_BYTES) {
        let mut window: Window = [b' '; BLOCK_BYTES + STRIDE];
        window.get_mut(..chunk.len())?.copy_from_slice(chunk);
        end += unescape_block(&window, chunk.len(), &mut escapes, out.get_mut(end..)?.first_chunk_mut()?)?;
    }
    // A backslash at the end of a block that is not full escapes a space, which is odd.
    (!escapes.is_open()).then_some(end)
}

/// Writes the first `length` bytes of the block, without the backslashes that escape something, and returns how many.
#[inline]
fn unescape_block(window: &Window, length: usize, escapes: &mut Escapes, out: &mut Window) -> Option<usize> {
    let bytes = Bytes::of(window.first_chunk()?);
    let (backslashes, quotes) = (bytes.equal(b'\\'), bytes.equal(b'"'));
    let escaped = escapes.next(backslashes);
    // A bare quote ends the string, and what is escaped but a quote or a backslash is something else.
    let odd = (quotes & !escaped) | (escaped & !quotes & !backslashes) | bytes.below(0x20);
    if odd != 0 {
        return None;
    }
    let mut dropped = backslashes & !escaped;
    let (mut from, mut end) = (0, 0);
    while dropped != 0 {
        let at = dropped.trailing_zeros() as usize;
        copy(window, from, out, end, at - from);
        (from, end) = (at + 1, end + at - from);
        dropped &= dropped - 1;
    }
    let rest = length.saturating_sub(from);
    copy(window, from, out, end, rest);
    Some(end + rest)
}

/// Copies `count` bytes of the block, and more behind them, which the next copy overwrites.
#[inline]
fn copy(window: &Window, from: usize, out: &mut Window, to: usize, count: usize) {
    const { assert!(BLOCK_BYTES <= 2 * STRIDE, "two copies are enough") };
    copy_stride(window, from, out, to);
    if count > STRIDE {
        copy_stride(window, from + STRIDE, out, to + STRIDE);
    }
}

/// Copies a stride. Both places lie within the block as long as there is anything to copy, so that the remainders change
/// nothing; they tell the compiler that the windows are long enough.
#[inline]
fn copy_stride(window: &Window, from: usize, out: &mut Window, to: usize) {
    let (from, to) = (from % BLOCK_BYTES, to % BLOCK_BYTES);
    if let (Some(source), Some(target)) = (window.get(from..from + STRIDE), out.get_mut(to..to + STRIDE)) {
        target.copy_from_slice(source);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{requests, write_line};
    use super::*;
    use crate::client::ClientType;
    use proptest::prelude::*;

    /// What the general way makes of a message of one request.
    fn general(message: &str) -> Option<(String, Vec<u8>)> {
        let mut requests = requests(message.as_bytes());
        let request = requests.next()?.ok()?;
        let mut out = b"before\n".to_vec();
        write_line(&request, ClientType::Rtcstats, 0, &mut out).ok()?;
        requests.next().is_none().then_some((request.id.into_owned(), out))
    }

    /// Whether this way took it; what it made of it is what the general way makes of it.
    fn taken(message: &str) -> bool {
        let Some(entry) = UsualEntry::of(message) else { return false };
        let mut space = vec![b'?'; entry.room()];
        let Some(length) = entry.write_line(&mut space) else { return false };
        let out = [b"before\n", &space[..length]].concat();
        assert_eq!(general(message), Some((entry.id.to_owned(), out)), "{message}");
        true
    }

    fn message(id: &str, data: &str) -> String {
        format!("{BEFORE_ID}{id}{BETWEEN}{data}{AFTER}")
    }

    #[test]
    fn what_browsers_send_is_taken_and_nothing_odd_is() {
        let longest = "a".repeat(SessionId::BYTES_MAX);
        let long_plain = "x".repeat(1000);
        let usual = [
            r#"[\"getstats\",\"PC_0\",{\"a\":\"\\\\u00e9\\n\"},1,2]"#,
            "not json, but one line",
            "\u{2028}\u{2029}\u{85}\u{7f}\u{1f600}",
            "x",
            &long_plain,
        ];
        for data in usual {
            assert!(taken(&message("a-1_Z", data)), "{data}");
            assert!(taken(&message(&longest, data)), "{data}");
        }
        let odd =
            ["", r"\n", r"a\/b", r"\u0041", "\t", r"\", r#"a"b"#, r#"","x":""#, r"\x", r#"a","data":"b"#];
        for data in odd {
            assert!(!taken(&message("a", data)), "{data}");
        }
        for id in ["", "a/b", "a\\u002d", &"a".repeat(SessionId::BYTES_MAX + 1)] {
            assert!(!taken(&message(id, "x")), "{id}");
        }
        let whole = message("a", "x");
        for odd in [format!(" {whole}"), format!("{whole} "), format!("{whole}{whole}"), String::new()] {
            assert!(!taken(&odd), "{odd}");
        }
    }

    /// A backslash, and what it escapes, at every place of a block.
    #[test]
    fn escapes_are_taken_wherever_they_stand() {
        for before in 0..3 * BLOCK_BYTES {
            for after in [0, 1, STRIDE, BLOCK_BYTES] {
                for escape in [r#"\""#, r"\\", r#"\\\""#, r#"\"\"\\"#] {
                    let data = format!("{}{escape}{}", "b".repeat(before), "e".repeat(after));
                    assert!(taken(&message("a", &data)), "{data}");
                }
                for odd in [r#"""#, "\u{1}", r"\n", r#"\\""#] {
                    let data = format!("{}{odd}{}", "b".repeat(before), "e".repeat(after));
                    assert!(!taken(&message("a", &data)), "{data}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn both_ways_agree_on_whatever_text(data in "([\"\\\\/nu0a-z\u{0}-\u{ff}]|\\\\\"|.){0,300}") {
            taken(&message("a", &data));
        }

        #[test]
        fn every_text_without_control_characters_is_taken(data in "[^\u{0}-\u{1f}]{1,300}") {
            let quoted = serde_json::to_string(&data).expect("a string");
            let escaped = &quoted[1..quoted.len() - 1];
            prop_assert!(taken(&message("a", escaped)));
        }
    }
}
