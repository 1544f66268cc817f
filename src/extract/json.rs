//! A pull scanner over one line of JSON: complete validation, nothing built that nobody asked for.
//!
//! Owns the grammar (RFC 8259): the caller walks objects and arrays and either takes a value or skips it; both
//! check every byte, so that a line whose end was reached is JSON. Skipping does not recurse. Strings are found
//! eight bytes at a time (SWAR), without unsafe code.
//!
//! Never interprets a member: repeated keys, key order and numbers as text are the caller's business.
//! A lone surrogate in an escape is accepted, as `JSON.parse` does, and read as U+FFFD.

mod strings;

use std::borrow::Cow;

use strings::{behind_escaped_quotes, special_byte, unescape};

/// Why a text is not the JSON that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The text ends inside a value.
    #[error("ends inside a value")]
    Truncated,
    /// A byte that cannot stand there.
    #[error("unexpected byte 0x{byte:02x} at offset {offset}")]
    Unexpected {
        /// The byte.
        byte: u8,
        /// Its offset in the line.
        offset: usize,
    },
    /// More containers inside each other than allowed; how many more would take reading on.
    #[error("nesting depth is above {depth_max}")]
    TooDeep {
        /// The limit.
        depth_max: usize,
    },
    /// A value that is to be kept has more parts than allowed; how many more would take reading on.
    #[error("a value to be kept has more than {parts_max} parts")]
    TooManyParts {
        /// The limit.
        parts_max: usize,
    },
}

type Result<T> = std::result::Result<T, JsonError>;

/// A string as it stands in the line, without its quotes; already checked.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a> {
    raw: &'a str,
    escaped: bool,
}

impl<'a> Text<'a> {
    /// The text with its escapes resolved.
    #[must_use]
    pub fn decoded(self) -> Cow<'a, str> {
        if self.escaped { Cow::Owned(unescape(self.raw)) } else { Cow::Borrowed(self.raw) }
    }

    /// The text as it stands in the line, and whether it contains escapes.
    #[must_use]
    pub fn raw(self) -> (&'a str, bool) {
        (self.raw, self.escaped)
    }
}

/// What the next value is, by its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `{`
    Object,
    /// `[`
    Array,
    /// `"`
    String,
    /// `-` or a digit
    Number,
    /// `true`
    True,
    /// `false`
    False,
    /// `null`
    Null,
}

/// The scanner: a position in a line.
#[derive(Debug)]
pub struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    depth: usize,
    depth_max: usize,
}

impl<'a> Scanner<'a> {
    /// A scanner at the start of `text` that refuses more than `depth_max` containers inside each other.
    #[must_use]
    pub fn new(text: &'a str, depth_max: usize) -> Self {
        Self { text, bytes: text.as_bytes(), at: 0, depth: 0, depth_max }
    }

    /// Offset of the next byte.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.at
    }

    /// A scanner over a part of the same text, for a value that was skipped before.
    #[must_use]
    pub fn again(&self, from: usize) -> Self {
        Self { text: self.text, bytes: self.bytes, at: from, depth: self.depth, depth_max: self.depth_max }
    }

    /// The text of the next value, which was skipped before and so is JSON.
    #[must_use]
    pub fn rest_of_value(&mut self) -> Option<&'a str> {
        let start = self.at;
        self.skip_value().ok()?;
        self.text.get(start..self.at)
    }

    /// What comes next.
    ///
    /// # Errors
    ///
    /// When no value starts here.
    #[inline]
    pub fn kind(&mut self) -> Result<Kind> {
        self.skip_space();
        match self.bytes.get(self.at) {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::String),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't') => Ok(Kind::True),
            Some(b'f') => Ok(Kind::False),
            Some(b'n') => Ok(Kind::Null),
            _ => Err(self.unexpected()),
        }
    }

    /// Enters an object.
    ///
    /// # Errors
    ///
    /// When the next value is none, or lies too deep.
    #[inline]
    pub fn begin_object(&mut self) -> Result<()> {
        self.skip_space();
        self.byte(b'{')?;
        self.enter()
    }

    /// The next key of the object that was entered, its colon consumed; `None` at the end. `first` starts as true.
    ///
    /// # Errors
    ///
    /// When neither comes next.
    #[inline]
    pub fn next_key(&mut self, first: &mut bool) -> Result<Option<Text<'a>>> {
        if !self.next_item(first, b'}')? {
            return Ok(None);
        }
        let key = self.string()?;
        self.colon()?;
        Ok(Some(key))
    }

    /// Whether the next key is exactly `key` followed by a colon; consumes both if so. A cheap guess: on false,
    /// [`Self::next_key_after`] reads whatever key is there.
    #[inline]
    pub fn take_known_key(&mut self, key: &str) -> bool {
        let Some(rest) = self.bytes.get(self.at + 1..) else { return false };
        let length = key.len();
        let hit = rest.get(..length) == Some(key.as_bytes())
            && rest.get(length) == Some(&b'"')
            && rest.get(length + 1) == Some(&b':')
            && self.bytes.get(self.at) == Some(&b'"');
        if hit {
            self.at += length + 3;
        }
        hit
    }

    /// Whether the object goes on with another key, which is then to be read with [`Self::next_key_after`].
    ///
    /// # Errors
    ///
    /// When it neither goes on nor ends here.
    #[inline]
    pub fn has_key(&mut self, first: &mut bool) -> Result<bool> {
        self.next_item(first, b'}')
    }

    /// The key that [`Self::has_key`] announced, its colon consumed.
    ///
    /// # Errors
    ///
    /// When there is none.
    #[inline]
    pub fn next_key_after(&mut self) -> Result<Text<'a>> {
        let key = self.string()?;
        self.colon()?;
        Ok(key)
    }

    /// Enters an array.
    ///
    /// # Errors
    ///
    /// When the next value is none, or lies too deep.
    pub fn begin_array(&mut self) -> Result<()> {
        self.skip_space();
        self.byte(b'[')?;
        self.enter()
    }

    /// Whether the array that was entered has another element, which then comes next. `first` starts as true.
    ///
    /// # Errors
    ///
    /// When it neither goes on nor ends here.
    pub fn next_element(&mut self, first: &mut bool) -> Result<bool> {
        self.next_item(first, b']')
    }

    /// Skips the whole `literal` if it comes next.
    #[inline]
    pub fn take_literal(&mut self, literal: &[u8]) -> bool {
        let hit = self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(literal));
        if hit {
            self.at += literal.len();
        }
        hit
    }

    /// The string that comes next.
    ///
    /// # Errors
    ///
    /// When none does, or it is malformed.
    #[inline]
    pub fn string(&mut self) -> Result<Text<'a>> {
        self.skip_space();
        self.byte(b'"')?;
        let start = self.at;
        let escaped = self.string_end()?;
        // Both ends lie beside an ASCII quote, so they are character boundaries.
        let raw = self.text.get(start..self.at - 1).unwrap_or_default();
        Ok(Text { raw, escaped })
    }

    /// The number that comes next, read as a double.
    ///
    /// # Errors
    ///
    /// When none does, or it is malformed.
    #[inline]
    pub fn number(&mut self) -> Result<f64> {
        self.skip_space();
        let start = self.at;
        if let Some(integer) = self.short_integer() {
            return Ok(integer);
        }
        self.at = start;
        self.skip_number()?;
        // The grammar of JSON is part of what Rust reads; too large ones become infinite, as in JavaScript.
        Ok(self.text.get(start..self.at).and_then(|text| text.parse().ok()).unwrap_or(f64::NAN))
    }

    /// Skips the next value, whatever it is, without recursion.
    ///
    /// # Errors
    ///
    /// When it is not JSON, or nests too deep.
    pub fn skip_value(&mut self) -> Result<()> {
        let mut open = OpenContainers::default();
        let depth = self.depth;
        loop {
            // A value starts here.
            self.skip_space();
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    self.string_end()?;
                }
                Some(b'{') => {
                    self.at += 1;
                    self.enter()?;
                    self.skip_space();
                    if self.bytes.get(self.at) == Some(&b'}') {
                        self.at += 1;
                        self.depth -= 1;
                    } else {
                        open.push(true);
                        self.skip_key()?;
                        continue;
                    }
                }
                Some(b'[') => {
                    self.at += 1;
                    self.enter()?;
                    self.skip_space();
                    if self.bytes.get(self.at) == Some(&b']') {
                        self.at += 1;
                        self.depth -= 1;
                    } else {
                        open.push(false);
                        continue;
                    }
                }
                Some(b'-' | b'0'..=b'9') => self.skip_number()?,
                _ => self.skip_word()?,
            }
            // A value has ended here.
            loop {
                if self.depth == depth {
                    return Ok(());
                }
                self.skip_space();
                match (self.bytes.get(self.at), open.is_object()) {
                    (Some(b','), true) => {
                        self.at += 1;
                        self.skip_key()?;
                        break;
                    }
                    (Some(b','), false) => {
                        self.at += 1;
                        break;
                    }
                    (Some(b'}'), true) | (Some(b']'), false) => {
                        self.at += 1;
                        self.depth -= 1;
                        open.pop();
                    }
                    _ => return Err(self.unexpected()),
                }
            }
        }
    }

    /// Reads `null`, `true` or `false`.
    ///
    /// # Errors
    ///
    /// When none of them comes next.
    pub fn skip_word(&mut self) -> Result<()> {
        self.skip_space();
        let word: &[u8] = match self.bytes.get(self.at) {
            Some(b'n') => b"null",
            Some(b't') => b"true",
            Some(b'f') => b"false",
            _ => return Err(self.unexpected()),
        };
        word.iter().try_for_each(|expected| self.byte(*expected))
    }

    /// Checks that nothing but white space is left.
    ///
    /// # Errors
    ///
    /// When there is.
    pub fn end(&mut self) -> Result<()> {
        self.skip_space();
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.unexpected()) }
    }

    #[inline]
    fn next_item(&mut self, first: &mut bool, close: u8) -> Result<bool> {
        self.skip_space();
        match self.bytes.get(self.at) {
            Some(b) if *b == close => {
                self.at += 1;
                self.depth -= 1;
                return Ok(false);
            }
            Some(b',') if !*first => self.at += 1,
            Some(_) if *first => {}
            _ => return Err(self.unexpected()),
        }
        *first = false;
        self.skip_space();
        Ok(true)
    }

    #[inline]
    fn colon(&mut self) -> Result<()> {
        if self.bytes.get(self.at) == Some(&b':') {
            self.at += 1;
            return Ok(());
        }
        self.skip_space();
        self.byte(b':')
    }

    #[inline]
    fn skip_key(&mut self) -> Result<()> {
        self.skip_space();
        self.byte(b'"')?;
        self.string_end()?;
        self.colon()
    }

    #[inline]
    fn enter(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > self.depth_max {
            return Err(JsonError::TooDeep { depth_max: self.depth_max });
        }
        Ok(())
    }

    #[inline]
    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    #[inline]
    fn byte(&mut self, expected: u8) -> Result<()> {
        if self.bytes.get(self.at) != Some(&expected) {
            return Err(self.unexpected());
        }
        self.at += 1;
        Ok(())
    }

    #[cold]
    fn unexpected(&self) -> JsonError {
        match self.bytes.get(self.at) {
            Some(byte) => JsonError::Unexpected { byte: *byte, offset: self.at },
            None => JsonError::Truncated,
        }
    }

    /// Goes behind the closing quote of a string; whether there were escapes.
    #[inline]
    fn string_end(&mut self) -> Result<bool> {
        let mut escaped = false;
        loop {
            self.at = special_byte(self.bytes, self.at);
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.at = behind_escaped_quotes(self.bytes, self.at);
                    if self.bytes.get(self.at) == Some(&b'\\') {
                        self.at += 1;
                        self.skip_escape()?;
                    }
                }
                _ => return Err(self.unexpected()),
            }
        }
    }

    #[inline]
    fn skip_escape(&mut self) -> Result<()> {
        match self.bytes.get(self.at) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    match self.bytes.get(self.at) {
                        Some(b) if b.is_ascii_hexdigit() => self.at += 1,
                        _ => return Err(self.unexpected()),
                    }
                }
            }
            _ => return Err(self.unexpected()),
        }
        Ok(())
    }

    /// An integer of at most 15 digits that is followed by the end of its value; it is exact as a double.
    #[inline]
    fn short_integer(&mut self) -> Option<f64> {
        let negative = self.bytes.get(self.at) == Some(&b'-');
        self.at += usize::from(negative);
        let start = self.at;
        let mut value = 0_i64;
        while let Some(b @ b'0'..=b'9') = self.bytes.get(self.at) {
            value = value.wrapping_mul(10).wrapping_add(i64::from(*b - b'0'));
            self.at += 1;
        }
        let digits = self.at - start;
        let leading_zero = digits > 1 && self.bytes.get(start) == Some(&b'0');
        if digits == 0
            || digits > 15
            || leading_zero
            || !matches!(self.bytes.get(self.at), Some(b',' | b'}' | b']') | None)
        {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "at most 15 digits are below 2^53")]
        let value = value as f64;
        Some(if negative { -value } else { value })
    }

    #[inline]
    fn skip_number(&mut self) -> Result<()> {
        if self.bytes.get(self.at) == Some(&b'-') {
            self.at += 1;
        }
        match self.bytes.get(self.at) {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.skip_digits(),
            _ => return Err(self.unexpected()),
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.bytes.get(self.at) {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Ok(())
    }

    #[inline]
    fn some_digits(&mut self) -> Result<()> {
        if !self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            return Err(self.unexpected());
        }
        self.skip_digits();
        Ok(())
    }

    #[inline]
    fn skip_digits(&mut self) {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }
}

/// Which of the containers that are open are objects: one bit each, the innermost in the lowest place.
#[derive(Debug, Default)]
struct OpenContainers {
    bits: u64,
    count: usize,
    outer: Vec<u64>,
}

impl OpenContainers {
    #[inline]
    fn push(&mut self, object: bool) {
        if self.count == 64 {
            self.outer.push(self.bits);
            self.count = 0;
        }
        self.bits = (self.bits << 1) | u64::from(object);
        self.count += 1;
    }

    #[inline]
    fn pop(&mut self) {
        self.bits >>= 1;
        self.count -= 1;
        if self.count == 0
            && let Some(bits) = self.outer.pop()
        {
            self.bits = bits;
            self.count = 64;
        }
    }

    #[inline]
    fn is_object(&self) -> bool {
        self.bits & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skip(text: &str) -> Result<()> {
        let mut scanner = Scanner::new(text, 200);
        scanner.skip_value()?;
        scanner.end()
    }

    #[test]
    fn skipping_accepts_exactly_what_serde_json_accepts() {
        let good = [
            "null",
            "true",
            "false",
            "0",
            "-0",
            "1",
            "10.5",
            "1e5",
            "1E+5",
            "-1.25e-7",
            r#""""#,
            r#""a\"b""#,
            r#""\u00e9\ud83e\udd80""#,
            "[]",
            "{}",
            " [ 1 , 2 ] ",
            r#"{"a":{"b":[{},[],null]},"c":"d"}"#,
            "\"é🦀\"",
            r#"{"a" : 1 ,"a":2}"#,
            r#""12345678\\""#,
            r#""1234567\"""#,
            "[[[[[]]]]]",
        ];
        for text in good {
            assert_eq!(skip(text), Ok(()), "{text}");
            assert!(serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok(), "{text}");
        }
        let bad = [
            "",
            " ",
            "nul",
            "nulll",
            "tru",
            "01",
            "-",
            "-01",
            "1.",
            ".5",
            "1e",
            "1e+",
            "+1",
            "1 2",
            "\"",
            "\"\\",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\\u12\"",
            "\"a\nb\"",
            "\"12345678\u{1}\"",
            "[",
            "]",
            "[1",
            "[1,",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{",
            "}",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":1",
            "{\"a\":1,",
            "{\"a\":1,}",
            "{a:1}",
            "{1:1}",
            "{\"a\" 1}",
            "[}",
            "{]",
            "[{]}",
            "NaN",
            "Infinity",
            "\u{feff}1",
            "'a'",
            "[1]]",
            "{\"a\":1}}",
        ];
        for text in bad {
            assert!(skip(text).is_err(), "{text}");
            assert!(serde_json::from_str::<serde::de::IgnoredAny>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn nesting_is_limited_and_costs_no_stack() {
        let text = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(skip(&text(200)), Ok(()));
        assert_eq!(skip(&text(201)), Err(JsonError::TooDeep { depth_max: 200 }));
        let deep = 2_000_000;
        let mut scanner = Scanner::new("", deep);
        let text = "{\"a\":[".repeat(deep / 2) + &"]}".repeat(deep / 2);
        (scanner.text, scanner.bytes) = (&text, text.as_bytes());
        assert_eq!(scanner.skip_value(), Ok(()));
    }

    #[test]
    fn strings_are_decoded() {
        let cases = [
            (r#""plain""#, "plain"),
            (r#""\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{c}\n\r\t"),
            (r#""\u00e9A""#, "éA"),
            (r#""\ud83e\udd80!""#, "🦀!"),
            (r#""\ud83e!""#, "\u{fffd}!"),
            (r#""\udd80\ud83e""#, "\u{fffd}\u{fffd}"),
            (r#""\ud83eA""#, "\u{fffd}A"),
            (r#""é\n🦀""#, "é\n🦀"),
        ];
        for (json, text) in cases {
            assert_eq!(Scanner::new(json, 1).string().unwrap().decoded(), text, "{json}");
        }
    }

    #[test]
    fn numbers_are_read_as_doubles() {
        let cases = [
            ("0", 0.0),
            ("-7", -7.0),
            ("1700000000000", 1_700_000_000_000.0),
            ("1700000000000.75", 1_700_000_000_000.75),
            ("9007199254740993", 9_007_199_254_740_992.0),
            ("12345678901234567890", 12_345_678_901_234_567_000.0),
            ("1e400", f64::INFINITY),
            ("5e-324", 5e-324),
            ("123456789012345", 123_456_789_012_345.0),
        ];
        for (json, number) in cases {
            assert_eq!(Scanner::new(json, 1).number(), Ok(number), "{json}");
        }
        assert!(Scanner::new("-0", 1).number().is_ok_and(f64::is_sign_negative));
        for json in ["-", "01", "00", "1.", "1e"] {
            let mut scanner = Scanner::new(json, 1);
            assert!(scanner.number().and_then(|_| scanner.end()).is_err(), "{json}");
        }
    }

    #[test]
    fn json_in_json_is_skipped() {
        let inner = serde_json::to_string(&vec!["some \"text\"", "\\"]).unwrap();
        for pad in 0..9 {
            let text = serde_json::to_string(&("x".repeat(pad) + &inner.repeat(5))).unwrap();
            assert_eq!(skip(&text), Ok(()));
            assert_eq!(
                skip(&format!("{}\n\"", text.trim_end_matches('"'))),
                Err(JsonError::Unexpected { byte: b'\n', offset: text.len() - 1 })
            );
        }
    }

    #[test]
    fn walking_an_object_sees_each_member() {
        let mut scanner = Scanner::new(r#"{"a":1,"b\n":"x", "c" : [1,{}] ,"d":{}}"#, 5);
        scanner.begin_object().unwrap();
        let (mut first, mut keys) = (true, Vec::new());
        while let Some(key) = scanner.next_key(&mut first).unwrap() {
            keys.push(key.decoded().into_owned());
            scanner.skip_value().unwrap();
        }
        scanner.end().unwrap();
        assert_eq!(keys, ["a", "b\n", "c", "d"]);
    }
}
