//! The number of the last numbered entry of a dump, read from its end.
//!
//! Pure: works on a window of bytes that somebody else has read. Lines are looked at from the last to the first.
//! A line's number is read from its last bytes; only of a back end's line, a whole request, the value of `data` is
//! looked up first.
//! Rules: our contract, section 7: an entry is numbered when its array ends in a clock, which is above 10^11,
//! followed by a smaller positive integer. (Reference client: `trace`, every entry gets both.)

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// What is not above this is no clock in ms (it would be in 1973) but may be a number.
const CLOCK_MS_MIN: f64 = 1e11;
/// The largest integer that a JavaScript client can count to: 2^53 - 1.
const NUMBER_MAX: f64 = 9_007_199_254_740_991.0;

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
        if let Some(number) = entry_number(line) {
            return Tail::Number(number);
        }
        rest = before;
    }
    if is_whole { Tail::Unnumbered } else { Tail::Before(0) }
}

/// The number of the entry on `line`, which is an array or a back end's request; `None` when it has none.
#[must_use]
pub fn entry_number(line: &[u8]) -> Option<u64> {
    match line.trim_ascii_start().first()? {
        b'[' => array_number(line),
        b'{' => {
            let text = std::str::from_utf8(line).ok()?;
            match request_data(text)?.get().as_bytes() {
                // Digits, commas and brackets stand in a string as they are, so nothing has to be unescaped.
                [b'"', array @ .., b'"'] if array.first() == Some(&b'[') => array_number(array),
                array @ [b'[', ..] => array_number(array),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The number at the end of an array's text. Bytes before the last two elements are not looked at: an element that
/// is bare digits between a comma and the bracket that ends a valid array cannot be inside a string.
fn array_number(array: &[u8]) -> Option<u64> {
    let rest = array.trim_ascii_end().strip_suffix(b"]")?;
    let (rest, number) = trailing_number(rest)?;
    let rest = rest.strip_suffix(b",")?;
    let (rest, clock) = trailing_number(rest)?;
    let is_element = matches!(rest.last()?, b',' | b'[');
    let is_number = number > 0.0 && number <= NUMBER_MAX && number.fract() == 0.0;
    if !(is_element && is_number && clock > CLOCK_MS_MIN && number < clock) {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a positive integer below 2^53"
    )]
    Some(number as u64)
}

/// Splits a JSON number and the blanks around it off the end of `text`.
fn trailing_number(text: &[u8]) -> Option<(&[u8], f64)> {
    let text = text.trim_ascii_end();
    let is_part = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'+' | b'e' | b'E');
    let start = text.iter().rposition(|byte| !is_part(byte)).map_or(0, |at| at + 1);
    let (rest, number) = text.split_at(start);
    Some((rest.trim_ascii_end(), serde_json::from_slice(number).ok()?))
}

/// The last `data` of a request, as it is written; `None` when it has none or is no object.
fn request_data(text: &str) -> Option<&RawValue> {
    serde_json::Deserializer::from_str(text).deserialize_map(DataVisitor).ok().flatten()
}

struct DataVisitor;

impl<'de> Visitor<'de> for DataVisitor {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a request")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut data = None;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if key == "data" {
                // As in JavaScript the last of several wins.
                data = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_lines() {
        let cases: [(&str, Option<u64>); 26] = [
            (r#"["identity",null,{"a":1},1700000000000,1]"#, Some(1)),
            (r#"["t","PC_0",null,1700000000000,42]"#, Some(42)),
            (r#"["t",1700000000000,7]"#, Some(7)),
            (r#"["t","pc",1700000000000,8]"#, Some(8)),
            (r#"["t","pc",1,2,3,1700000000000,9]"#, Some(9)),
            (r#" [ "t" , null , {} , 1700000000000 , 10 ] "#, Some(10)),
            (r#"["t",null,{},1.7e12,1e2]"#, Some(100)),
            (r#"["t",null,{},1700000000000]"#, None),
            (r#"["connectionInfo",null,{},1700000000000]"#, None),
            (r#"["t",null,5,1700000000000]"#, None),
            (r#"["t",null,{},1700000000000,0]"#, None),
            (r#"["t",null,{},1700000000000,-1]"#, None),
            (r#"["t",null,{},1700000000000,1.5]"#, None),
            (r#"["t",null,{},100000000000,5]"#, None),
            (r#"["t",null,{},1700000000000,1700000000001]"#, None),
            (r#"["t",null,{},1700000000000,"5"]"#, None),
            (r#"["t",null,{},[1700000000000,5]]"#, None),
            (r#"["t",null,{},",1700000000000,5]"]"#, None),
            (r#"["t"1700000000000,5]"#, None),
            ("", None),
            ("[", None),
            ("]", None),
            (
                r#"{"statsSessionId":"x","type":"stats-entry","data":"[\"t\",null,{},1700000000000,5]","timestamp":1}"#,
                Some(5),
            ),
            (
                r#"{"type":"identity","data":["identity",null,{"data":[1,2]},1700000000000,6],"timestamp":1}"#,
                Some(6),
            ),
            (r#"{"data":"[1700000000000,6]","data":{"x":1}}"#, None),
            (r#"{"statsSessionId":"x","type":"stats-entry","data":"x,1700000000000,5]"}"#, None),
        ];
        for (line, expected) in cases {
            assert_eq!(entry_number(line.as_bytes()), expected, "{line}");
        }
    }

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
