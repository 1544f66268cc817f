//! The inside of JSON strings: passing over them eight bytes at a time (SWAR), and resolving their escapes.

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Offset of the first `"`, `\` or control character at or behind `at`, else the length.
#[inline]
pub(super) fn special_byte(bytes: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let quote = word ^ (LOW * b'"' as u64);
        let backslash = word ^ (LOW * b'\\' as u64);
        // A byte's high bit is set where it is zero, or below 0x20; exact for the lowest such byte of the word.
        let hits = (quote.wrapping_sub(LOW) & !quote)
            | (backslash.wrapping_sub(LOW) & !backslash)
            | (word.wrapping_sub(LOW * 0x20) & !word);
        let hits = hits & HIGH;
        if hits != 0 {
            return at + (hits.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|b| !matches!(b, b'"' | b'\\' | 0..=0x1f)) {
        at += 1;
    }
    at
}

/// Passes over text whose only escapes are `\"`, as JSON inside a string has them, eight bytes at a time: offset
/// behind it, never inside an escape. `at` is not inside one either.
#[inline]
pub(super) fn behind_escaped_quotes(bytes: &[u8], mut at: usize) -> usize {
    // The lowest byte's high bit, when the byte before the word was a backslash.
    let mut carried = 0;
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let control = word.wrapping_sub(LOW * 0x20) & !word & HIGH;
        let quotes = zero_bytes(word ^ (LOW * u64::from(b'"')));
        let backslashes = zero_bytes(word ^ (LOW * u64::from(b'\\')));
        let escaped = (backslashes << 8) | carried;
        // All that is escaped is a quote, and all quotes are escaped.
        if control != 0 || escaped != quotes {
            break;
        }
        carried = backslashes >> 56;
        at += 8;
    }
    if carried == 0 { at } else { at - 1 }
}

/// The high bit of each byte that is zero.
#[inline]
fn zero_bytes(word: u64) -> u64 {
    !(((word & !HIGH) + !HIGH) | word | !HIGH)
}

/// Resolves the escapes of a string that was checked before.
pub(super) fn unescape(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((plain, escape)) = rest.split_once('\\') {
        out.push_str(plain);
        let mut chars = escape.chars();
        let resolved = match chars.next() {
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => {
                let (c, length) = unicode_escape(escape);
                out.push(c);
                rest = escape.get(length..).unwrap_or_default();
                continue;
            }
            Some(c) => c,
            None => char::REPLACEMENT_CHARACTER,
        };
        out.push(resolved);
        rest = chars.as_str();
    }
    out.push_str(rest);
    out
}

/// The character of `uXXXX`, or of two such escapes that are a surrogate pair, and the length of all that.
fn unicode_escape(escape: &str) -> (char, usize) {
    let unit = |text: Option<&str>| text.and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let Some(first) = unit(escape.get(1..5)) else { return (char::REPLACEMENT_CHARACTER, 1) };
    if (0xD800..0xDC00).contains(&first)
        && escape.get(5..7) == Some("\\u")
        && let Some(second @ 0xDC00..0xE000) = unit(escape.get(7..11))
    {
        let code = 0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00);
        return (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 11);
    }
    (char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), 5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_bytes_are_found_at_every_offset() {
        for special in [b'"', b'\\', 0, 0x1f, b'\n'] {
            for length in 0..40 {
                for at in 0..length {
                    let mut bytes = vec![0x80 + 0x21; length];
                    bytes[at] = special;
                    assert_eq!(special_byte(&bytes, 0), at);
                }
                assert_eq!(special_byte(&vec![b' '; length], 0), length);
            }
        }
    }

    #[test]
    fn escaped_quotes_are_passed_over_at_every_offset() {
        // Against the plain way, for all short texts of four bytes and for JSON in JSON.
        let alphabet = [b'a', b'"', b'\\', b'\n'];
        for code in 0..4_usize.pow(9) {
            let text: Vec<u8> = (0..9).map(|place| alphabet[code / 4_usize.pow(place) % 4]).collect();
            let behind = behind_escaped_quotes(&text, 0);
            let mut at = 0;
            while at < behind {
                at += match &text[at..] {
                    [b'\\', b'"', ..] => 2,
                    [b'a', ..] => 1,
                    other => panic!("{other:?} in {text:?}"),
                };
            }
            assert_eq!(at, behind, "{text:?}");
        }
    }
}
