//! JavaScript's rules for numbers and property keys, as far as they show in a result.
//!
//! Owns: number <-> text, rounding to two places, the order of property keys, lengths in UTF-16 code units.
//! Pure functions over plain values; knows nothing of dumps. Rules: ECMA-262 `Number::toString`,
//! `StringToNumber`, `Math.round`, `OrdinaryOwnPropertyKeys`; feature extraction 2 and 9.1.

use serde::Serializer;
use serde::ser::Error as _;

/// From here on JavaScript writes a number with an exponent, and `round2` gives NaN.
const EXPONENT_FROM: f64 = 1e21;
/// Below this (and not 0) JavaScript writes a number with an exponent, and `round2` gives NaN.
const EXPONENT_BELOW: f64 = 1e-6;
/// Integers up to here are exact, and are written without going through text.
const EXACT_INTEGER_MAX: f64 = 9_007_199_254_740_992.0;

/// The text of a number as JavaScript's `String(x)` gives it.
#[must_use]
pub fn number_text(x: f64) -> String {
    if x.is_nan() {
        return "NaN".to_owned();
    }
    if x.is_infinite() {
        return if x > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    if x == 0.0 {
        return "0".to_owned();
    }
    let magnitude = x.abs();
    if (EXPONENT_BELOW..EXPONENT_FROM).contains(&magnitude) {
        // Rust, too, prints the shortest digits that read back as the same double, here without exponent.
        return format!("{x}");
    }
    let scientific = format!("{x:e}");
    match scientific.split_once('e') {
        Some((digits, exponent)) if !exponent.starts_with('-') => format!("{digits}e+{exponent}"),
        Some(_) | None => scientific,
    }
}

/// The number that JavaScript's `Number(text)` gives; NaN where the text is none.
#[must_use]
pub fn text_number(text: &str) -> f64 {
    let text = text.trim_matches(is_space);
    if text.is_empty() {
        return 0.0;
    }
    if let Some((radix, digits)) = radix_prefix(text) {
        return radix_number(digits, radix);
    }
    match text.strip_prefix(['+', '-']).unwrap_or(text) {
        "Infinity" if text.starts_with('-') => f64::NEG_INFINITY,
        "Infinity" => f64::INFINITY,
        // Rust would also read `inf` and `nan`.
        digits if digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-')) => {
            text.parse().unwrap_or(f64::NAN)
        }
        _ => f64::NAN,
    }
}

/// White space and line ends of ECMA-262, which `StringToNumber` strips.
fn is_space(c: char) -> bool {
    matches!(
        c,
        '\t' | '\n' | '\u{b}' | '\u{c}' | '\r' | ' ' | '\u{a0}' | '\u{1680}' | '\u{2000}'
            ..='\u{200a}' | '\u{2028}' | '\u{2029}' | '\u{202f}' | '\u{205f}' | '\u{3000}' | '\u{feff}'
    )
}

fn radix_prefix(text: &str) -> Option<(u32, &str)> {
    const PREFIXES: [(&str, u32); 6] = [("0x", 16), ("0X", 16), ("0o", 8), ("0O", 8), ("0b", 2), ("0B", 2)];
    PREFIXES.iter().find_map(|(prefix, radix)| Some((*radix, text.strip_prefix(prefix)?)))
}

fn radix_number(digits: &str, radix: u32) -> f64 {
    if digits.is_empty() {
        return f64::NAN;
    }
    let mut value = 0.0_f64;
    for c in digits.chars() {
        match c.to_digit(radix) {
            Some(digit) => value = value.mul_add(f64::from(radix), f64::from(digit)),
            None => return f64::NAN,
        }
    }
    value
}

/// JavaScript's `Math.round`: to the nearest integer, halves towards plus infinity.
#[must_use]
pub fn round_half_up(x: f64) -> f64 {
    let floor = x.floor();
    if x - floor >= 0.5 { floor + 1.0 } else { floor }
}

/// Rounds to two places by moving the point in the decimal text (9.1); NaN where that text has an exponent.
#[must_use]
pub fn round2(x: f64) -> f64 {
    shift_point(round_half_up(shift_point(x, 2)), -2)
}

/// Reads `x` again with `e<places>` behind its decimal text, as `Number(x + 'e2')` does.
fn shift_point(x: f64, places: i32) -> f64 {
    if x == 0.0 {
        return 0.0;
    }
    let magnitude = x.abs();
    if !(EXPONENT_BELOW..EXPONENT_FROM).contains(&magnitude) {
        return f64::NAN;
    }
    if magnitude < EXACT_INTEGER_MAX && x.fract() == 0.0 {
        // Exact operands and one correctly rounded operation: the same double as the text gives.
        if places == 2 && magnitude < EXACT_INTEGER_MAX / 128.0 {
            return x * 100.0;
        }
        if places == -2 {
            return x / 100.0;
        }
    }
    format!("{x}e{places}").parse().unwrap_or(f64::NAN)
}

/// `part` in percent of `whole`, rounded; nothing without a whole (9.1).
#[must_use]
pub fn percent(part: f64, whole: f64) -> Option<f64> {
    if is_truthy(whole) { Some(round2(part / whole * 100.0)) } else { None }
}

/// Whether a number counts as true: neither 0 nor NaN.
#[must_use]
pub fn is_truthy(x: f64) -> bool {
    x != 0.0 && !x.is_nan()
}

/// The array index that a property key is, if it is a canonical one: such keys come first, in numeric order.
#[must_use]
pub fn array_index(key: &str) -> Option<u32> {
    let bytes = key.as_bytes();
    match bytes {
        [b'0'] => return Some(0),
        [b'1'..=b'9', ..] if bytes.len() <= 10 => {}
        _ => return None,
    }
    key.parse::<u32>().ok().filter(|index| *index != u32::MAX)
}

/// Length of a text in UTF-16 code units.
#[must_use]
pub fn utf16_len(text: &str) -> usize {
    if text.is_ascii() {
        return text.len();
    }
    // One unit per character, that is per byte which does not continue one, and one more above U+FFFF.
    text.bytes().filter(|b| (*b & 0xC0) != 0x80).count() + text.bytes().filter(|b| *b >= 0xF0).count()
}

/// Writes a number as `JSON.stringify` does: NaN and infinities as `null`, -0 as `0`.
///
/// # Errors
///
/// Those of the serializer.
pub fn serialize_number<S: Serializer>(x: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if !x.is_finite() {
        return serializer.serialize_unit();
    }
    if x.fract() == 0.0 && x.abs() < EXACT_INTEGER_MAX {
        #[expect(clippy::cast_possible_truncation, reason = "an integer below 2^53")]
        return serializer.serialize_i64(*x as i64);
    }
    let text = serde_json::value::RawValue::from_string(number_text(*x)).map_err(S::Error::custom)?;
    serde::Serialize::serialize(&text, serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_javascript_does() {
        let cases = [
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (0.1, "0.1"),
            (1e21, "1e+21"),
            (1.5e21, "1.5e+21"),
            (123_456_789_012_345_680_000.0, "123456789012345680000"),
            (0.000_001, "0.000001"),
            (0.000_000_1, "1e-7"),
            (-1.25e-9, "-1.25e-9"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ];
        for (number, text) in cases {
            assert_eq!(number_text(number), text);
        }
    }

    #[test]
    fn texts_are_read_as_javascript_does() {
        let cases = [
            ("", 0.0),
            (" \t\n\u{feff}\u{a0}", 0.0),
            (" 12 ", 12.0),
            ("0x1F", 31.0),
            ("0b101", 5.0),
            ("0o17", 15.0),
            ("-5.5e1", -55.0),
            ("+.5", 0.5),
            ("5.", 5.0),
            ("Infinity", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
            ("1e400", f64::INFINITY),
        ];
        for (text, number) in cases {
            assert_eq!(text_number(text), number, "{text:?}");
        }
        for text in ["abc", "inf", "nan", "infinity", "1_0", "0x", "-0x10", "1 2", ".", "e5", "12px", "0b2"] {
            assert!(text_number(text).is_nan(), "{text:?}");
        }
    }

    #[test]
    fn rounding_moves_the_point_in_the_text() {
        let cases = [
            (1.005, 1.01),
            (-1.005, -1.0),
            (2.675, 2.68),
            (33.333_333, 33.33),
            (0.004_999, 0.0),
            (0.000_001, 0.0),
            (8.0, 8.0),
            (1234.5, 1234.5),
            (9e15, 9e15),
        ];
        for (x, rounded) in cases {
            assert_eq!(round2(x), rounded, "{x}");
        }
        for x in [f64::NAN, f64::INFINITY, 1e21, 1e-7, -9.9e-7, 1e20] {
            assert!(round2(x).is_nan(), "{x}");
        }
        assert_eq!(round_half_up(2.5), 3.0);
        assert_eq!(round_half_up(-2.5), -2.0);
        assert_eq!(round_half_up(0.499_999_999_999_999_94), 0.0);
    }

    #[test]
    fn the_short_way_of_shifting_agrees_with_the_text() {
        // 7,919 is a prime, so that the walk meets many last digits.
        for step in 0..20_000_u32 {
            let x = f64::from(step) * 7919.0 - 50_000_000.0;
            let text: f64 = format!("{x}e-2").parse().unwrap();
            assert_eq!(shift_point(x, -2), text, "{x}");
            let text: f64 = format!("{x}e2").parse().unwrap();
            assert_eq!(shift_point(x, 2), text, "{x}");
        }
    }

    #[test]
    fn only_canonical_indices_sort_as_numbers() {
        for (key, index) in [("0", 0), ("7", 7), ("10", 10), ("4294967294", 4_294_967_294)] {
            assert_eq!(array_index(key), Some(index));
        }
        for key in ["", "00", "01", "-1", "+1", "1.5", "4294967295", "99999999999", " 1", "a"] {
            assert_eq!(array_index(key), None, "{key:?}");
        }
    }

    #[test]
    fn utf16_counts_two_units_above_the_basic_plane() {
        for text in ["", "abc", "é", "\u{ffff}", "🦀x", "a\u{10000}\u{fffd}"] {
            assert_eq!(utf16_len(text), text.encode_utf16().count(), "{text:?}");
        }
    }

    #[test]
    fn percent_needs_a_whole() {
        assert_eq!(percent(1.0, 3.0), Some(33.33));
        assert_eq!(percent(1.0, 0.0), None);
        assert_eq!(percent(1.0, f64::NAN), None);
    }
}
