//! Payload bytes: unmasking, and text that arrives in pieces.

use super::Violation;

/// Exclusive-ors the payload with the mask (RFC 6455 5.3), eight bytes at a time; the compiler makes vectors of it.
pub(super) fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let key = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ key).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= mask;
    }
}

/// Text that arrives in pieces, each checked as it comes.
#[derive(Debug, Default)]
pub(super) struct TextGatherer {
    text: String,
    /// The beginning of a code point whose end has not arrived: a valid prefix, at most three bytes.
    cut: Vec3,
}

impl TextGatherer {
    /// Takes the next bytes. `ahead` is how many more of this frame are announced: a bound for growth, not a promise.
    pub(super) fn push(&mut self, mut bytes: &[u8], ahead: u64) -> Result<(), Violation> {
        while let (true, Some((first, behind))) = (!self.cut.is_empty(), bytes.split_first()) {
            let (code_point, len) = self.cut.with(*first);
            bytes = behind;
            match std::str::from_utf8(code_point.get(..len).unwrap_or_default()) {
                Ok(whole) => {
                    self.text.push_str(whole);
                    self.cut = Vec3::default();
                }
                Err(error) if error.error_len().is_none() => self.cut = Vec3::of(&code_point, len),
                Err(_) => return Err(Violation::TextNotUtf8),
            }
        }
        let valid = match simdutf8::compat::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) if error.error_len().is_some() => return Err(Violation::TextNotUtf8),
            Err(error) => {
                let (valid, cut) = bytes.split_at(error.valid_up_to());
                self.cut = Vec3::of(cut, cut.len());
                // Checked by the line above; a second look at what is cut off once per read costs little.
                simdutf8::basic::from_utf8(valid).map_err(|_| Violation::TextNotUtf8)?
            }
        };
        self.text.reserve_exact(growth(self.text.len(), self.text.capacity(), valid.len(), ahead));
        self.text.push_str(valid);
        Ok(())
    }

    /// The whole text, if it does not end within a code point.
    pub(super) fn finish(self) -> Result<String, Violation> {
        if self.cut.is_empty() { Ok(self.text) } else { Err(Violation::TextNotUtf8) }
    }

    pub(super) fn capacity(&self) -> usize {
        self.text.capacity()
    }
}

/// How many bytes to reserve before `more` are appended: double, but never beyond what the frame announces, and never
/// on the announcement alone.
pub(super) fn growth(len: usize, capacity: usize, more: usize, ahead: u64) -> usize {
    if capacity - len >= more {
        return 0;
    }
    let ahead = usize::try_from(ahead).unwrap_or(usize::MAX);
    let announced = more.saturating_add(ahead);
    more.max(capacity.saturating_mul(2).saturating_sub(len).min(announced))
}

/// Up to three bytes.
#[derive(Debug, Default, Clone, Copy)]
struct Vec3 {
    bytes: [u8; 3],
    len: u8,
}

impl Vec3 {
    /// The first `len` bytes, of which there are at most three: a fourth would have completed the code point.
    fn of(bytes: &[u8], len: usize) -> Self {
        let mut this = Self::default();
        for (slot, byte) in this.bytes.iter_mut().zip(bytes.iter().take(len)) {
            *slot = *byte;
            this.len += 1;
        }
        this
    }

    fn is_empty(self) -> bool {
        self.len == 0
    }

    /// These bytes and one more, and how many there are then.
    fn with(self, next: u8) -> ([u8; 4], usize) {
        let [a, b, c] = self.bytes;
        let bytes = match self.len {
            0 => [next, 0, 0, 0],
            1 => [a, next, 0, 0],
            2 => [a, b, next, 0],
            _ => [a, b, c, next],
        };
        (bytes, usize::from(self.len) + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Unmasking agrees with the formula of RFC 6455 5.3 at every length and alignment.
    #[test]
    fn unmask_follows_the_formula() {
        let mask = [0x12, 0x34, 0x56, 0x78];
        let bytes: Vec<u8> = (0..100).collect();
        for start in 0..9 {
            for end in start..bytes.len() {
                let mut payload = bytes[start..end].to_vec();
                unmask(&mut payload, mask);
                let expected: Vec<u8> =
                    bytes[start..end].iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]).collect();
                assert_eq!(payload, expected);
            }
        }
    }

    /// Text cut at every pair of positions comes out whole, and no piece of a valid text is refused.
    #[test]
    fn text_survives_every_cut() {
        let text = "a\u{e9}\u{20ac}\u{10ffff}\u{d7ff}\u{e000}z";
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let mut gatherer = TextGatherer::default();
                let (head, tail) = text.as_bytes().split_at(first);
                let (middle, tail) = tail.split_at(second - first);
                for piece in [head, middle, tail] {
                    gatherer.push(piece, 0).unwrap();
                }
                assert_eq!(gatherer.finish().unwrap(), text);
            }
        }
    }

    /// A sequence that cannot become a code point any more is refused at its first impossible byte, however it is cut.
    #[test]
    fn impossible_sequences_are_refused_at_once() {
        let impossible: [&[u8]; 9] = [
            b"\x80",             // continuation without a start
            b"\xc0",             // overlong
            b"\xe0\x80",         // overlong
            b"\xed\xa0",         // surrogate
            b"\xf0\x80",         // overlong
            b"\xf4\x90",         // above U+10FFFF
            b"\xf5",             // never occurs
            b"\xe2\x82\x41",     // start of another character inside
            b"\xf0\x9f\x98\x41", // the same at the last byte
        ];
        for bytes in impossible {
            let (last, before) = bytes.split_last().unwrap();
            let mut gatherer = TextGatherer::default();
            gatherer.push(b"ok", 0).unwrap();
            for byte in before {
                gatherer.push(&[*byte], 0).unwrap();
            }
            assert_eq!(gatherer.push(&[*last], 0), Err(Violation::TextNotUtf8), "{bytes:x?} byte by byte");
            assert_eq!(
                TextGatherer::default().push(bytes, 0),
                Err(Violation::TextNotUtf8),
                "{bytes:x?} at once"
            );
        }
    }

    /// A text that ends within a code point is refused at its end, not before.
    #[test]
    fn text_must_end_with_a_whole_code_point() {
        let mut gatherer = TextGatherer::default();
        gatherer.push("\u{20ac}".as_bytes().split_at(2).0, 0).unwrap();
        assert_eq!(gatherer.finish(), Err(Violation::TextNotUtf8));
    }

    /// Growth doubles, stops at what is announced, and never reserves on the announcement alone.
    #[test]
    fn growth_is_bounded() {
        let cases = [
            // len, capacity, more, ahead -> reserve
            (0, 0, 10, u64::MAX, 10),
            (10, 10, 10, 1000, 10),
            (10, 10, 1, 1000, 10),
            (10, 10, 1, 3, 4),
            (10, 20, 10, 1000, 0),
            (100, 100, 500, 0, 500),
        ];
        for (len, capacity, more, ahead, reserve) in cases {
            assert_eq!(growth(len, capacity, more, ahead), reserve, "{len} {capacity} {more} {ahead}");
        }
    }
}
