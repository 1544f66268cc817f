//! What may stand in a line: escaping. Pure.
//!
//! Escapes are those of JSON strings, so that [`super::json`] reads back exactly what was logged.

use std::error::Error;
use std::fmt::{self, Write as _};

/// A value is cut to this many characters: an error with a path fits, a payload does not.
const VALUE_CHARS_MAX: usize = 512;

/// Wraps whatever came from outside (an id, a header, an error) so that it can stand behind `key=`.
///
/// Plain words stay as they are. Everything else is quoted and escaped, also what would be read as a number,
/// so that a member of a JSON line has one type whatever a peer sends.
pub fn value<T: fmt::Display>(value: T) -> Value<T> {
    Value(value)
}

/// See [`value`].
#[derive(Debug, Clone, Copy)]
pub struct Value<T>(T);

impl<T: fmt::Display> fmt::Display for Value<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        if let Some((end, _)) = text.char_indices().nth(VALUE_CHARS_MAX) {
            text.truncate(end);
            text.push_str("...");
        }
        if is_word(&text) {
            return f.write_str(&text);
        }
        f.write_char('"')?;
        for character in text.chars() {
            match character {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                _ => escape(character, f)?,
            }
        }
        f.write_char('"')
    }
}

/// A member of a line that may be missing: prints as ` key=value`, and as nothing for `None`. What came from outside is
/// to be wrapped in [`value`] as everywhere.
pub fn member<T: fmt::Display>(key: &'static str, value: Option<T>) -> Member<T> {
    Member(key, value)
}

/// See [`member`].
#[derive(Debug, Clone, Copy)]
pub struct Member<T>(&'static str, Option<T>);

impl<T: fmt::Display> fmt::Display for Member<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.1 {
            Some(value) => write!(f, " {}={value}", self.0),
            None => Ok(()),
        }
    }
}

/// An error with its causes, on one line: `cannot read a.toml: permission denied`.
pub fn chain(error: &dyn Error) -> Chain<'_> {
    Chain(error)
}

/// See [`chain`].
#[derive(Debug, Clone, Copy)]
pub struct Chain<'a>(&'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Needs no quotes: visible ASCII that is no syntax of ours, and no literal of JSON.
fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'='))
        && !is_literal(text)
}

/// A bare value that stands in JSON as it is: a whole number that every reader can hold, or a truth value.
pub(super) fn is_literal(text: &str) -> bool {
    /// Below 2^53, where numbers of JavaScript are exact.
    const DIGITS_MAX: usize = 15;
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_number = !digits.is_empty()
        && digits.len() <= DIGITS_MAX
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && (digits == "0" || !digits.starts_with('0'));
    is_number || text == "true" || text == "false"
}

/// The text with everything escaped that could end, hide or recolour a line.
pub(super) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        // Writing to a string cannot fail.
        let _ = escape(character, &mut line);
    }
    line
}

fn escape(character: char, out: &mut impl fmt::Write) -> fmt::Result {
    match character {
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        _ if is_harmful(character) => write!(out, "\\u{:04x}", u32::from(character)),
        _ => out.write_char(character),
    }
}

/// Control characters, line separators, and what reorders text on a screen. All of them are in the first
/// plane.
fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{feff}')
        || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_bare_only_when_nothing_can_be_forged() {
        let cases = [
            ("chrome_standard", "chrome_standard"),
            ("17.3", "17.3"),
            ("203.0.113.0/24", "203.0.113.0/24"),
            ("[::1]:3000", "[::1]:3000"),
            ("9c93a447-af", "9c93a447-af"),
            ("", r#""""#),
            ("two words", r#""two words""#),
            ("x reason=forged", r#""x reason=forged""#),
            ("k=v", r#""k=v""#),
            ("say \"hi\"", r#""say \"hi\"""#),
            ("back\\slash", r#""back\\slash""#),
            ("a\nINFO b", r#""a\nINFO b""#),
            ("\u{1b}[31m\u{0}\u{7f}\u{85}", r#""\u001b[31m\u0000\u007f\u0085""#),
            ("\u{202e}txt\u{2028}", r#""\u202etxt\u2028""#),
            ("\u{e4}\u{1f600}", "\"\u{e4}\u{1f600}\""),
            ("123", r#""123""#),
            ("-5", r#""-5""#),
            ("true", r#""true""#),
            ("0123", "0123"),
        ];
        for (text, expected) in cases {
            assert_eq!(value(text).to_string(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_member_without_a_value_is_not_there() {
        for (found, expected) in [
            (member("conn", Some(value("17.3"))), "a.b conn=17.3 x=1"),
            (member("err", Some(value("two words"))), "a.b err=\"two words\" x=1"),
            (member("conn", None), "a.b x=1"),
        ] {
            assert_eq!(format!("a.b{found} x=1"), expected);
        }
    }

    #[test]
    fn a_quoted_value_is_a_json_string() {
        for text in ["\"\\\n\r\t\u{0}\u{1f}", "\u{202e}\u{2069}\u{feff}\u{85}", "plain text \u{1f600}"] {
            assert_eq!(serde_json::from_str::<String>(&value(text).to_string()).unwrap(), text);
        }
    }

    #[test]
    fn a_chain_names_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] std::io::Error);
        let error = Outer(std::io::Error::other("inner"));
        assert_eq!(chain(&error).to_string(), "outer: inner");
    }

    #[test]
    fn long_values_are_cut() {
        let shown = value("\u{e4}".repeat(5000)).to_string();
        assert_eq!(shown.chars().count(), VALUE_CHARS_MAX + "\"...\"".len());
        let exact = "x".repeat(VALUE_CHARS_MAX);
        assert_eq!(value(&exact).to_string(), exact);
    }
}
