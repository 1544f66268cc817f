//! A line of text as one JSON object with the same keys. Pure.
//!
//! The text is the one truth: every call site writes it, and it is read back here. Bare whole numbers, `true`
//! and `false` become what they look like; all else becomes a string. Words that are no `key=value` are
//! gathered in `message`. A key that is taken, by us or by the same line, gets a `_` behind it, so no member
//! is ever there twice.

use std::borrow::Cow;

use log::Level;

use super::text::is_literal;

/// Members that the line itself has.
const OWN: [&str; 4] = ["time", "level", "event", "message"];

/// The event of text that does not begin with one.
const NO_EVENT: &str = "log.text";

/// One JSON object, without the line feed.
pub(super) fn line(time: &str, level: Level, text: &str) -> String {
    let (event, rest) = event_of(text);
    let mut object = String::with_capacity(2 * text.len() + 64);
    object.push('{');
    member(&mut object, "time", time);
    member(&mut object, "level", level.as_str().to_ascii_lowercase().as_str());
    member(&mut object, "event", event);
    let mut taken: Vec<Cow<'_, str>> = OWN.into_iter().map(Cow::Borrowed).collect();
    let mut message = String::new();
    let mut words = Words(rest);
    while let Some(word) = words.next() {
        match word {
            Word::Member(key, value) => {
                let mut key = Cow::Borrowed(key);
                while taken.contains(&key) {
                    key.to_mut().push('_');
                }
                raw(&mut object, &key, &value);
                taken.push(key);
            }
            Word::Text(word) => {
                if !message.is_empty() {
                    message.push(' ');
                }
                message.push_str(word);
            }
        }
    }
    if !message.is_empty() {
        member(&mut object, "message", &message);
    }
    object.push('}');
    object
}

/// `area.event` and the rest of the line.
fn event_of(text: &str) -> (&str, &str) {
    let (first, rest) = text.split_once(' ').unwrap_or((text, ""));
    let is_event = first.contains('.')
        && first
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_'));
    if is_event { (first, rest) } else { (NO_EVENT, text) }
}

enum Word<'a> {
    /// A key and its value as JSON.
    Member(&'a str, Cow<'a, str>),
    /// Anything else.
    Text(&'a str),
}

/// Cuts a line into `key=value`, `key="quoted value"` and other words.
struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<Word<'a>> {
        let rest = self.0.trim_start_matches(' ');
        if rest.is_empty() {
            return None;
        }
        if let Some((key, value)) = rest.split_once('=').filter(|(key, _)| is_key(key))
            && let Some((content, after)) = quoted(value)
        {
            self.0 = after;
            return Some(Word::Member(key, Cow::Owned(json(&content))));
        }
        let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
        self.0 = after;
        Some(match word.split_once('=').filter(|(key, _)| is_key(key)) {
            Some((key, value)) if is_literal(value) => Word::Member(key, Cow::Borrowed(value)),
            Some((key, value)) => Word::Member(key, Cow::Owned(json(value))),
            None => Word::Text(word),
        })
    }
}

fn is_key(key: &str) -> bool {
    !key.is_empty()
        && key
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'.'))
}

/// A JSON string at the start of `text` that ends a word, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let body = text.strip_prefix('"')?;
    let mut escaped = false;
    let end = body.bytes().position(|byte| {
        let is_end = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        is_end
    })?;
    // The quotes at both ends are one byte each.
    let (string, after) = text.split_at_checked(end + 2)?;
    if !(after.is_empty() || after.starts_with(' ')) {
        return None;
    }
    serde_json::from_str(string).ok().map(|content| (content, after))
}

fn member(object: &mut String, key: &str, text: &str) {
    raw(object, key, &json(text));
}

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn raw(object: &mut String, key: &str, json: &str) {
    if !object.ends_with('{') {
        object.push(',');
    }
    object.push('"');
    object.push_str(key);
    object.push_str("\":");
    object.push_str(json);
}

#[cfg(test)]
mod tests {
    use super::super::text::value;
    use super::*;

    fn check(text: &str, expected: &str) {
        let found = line("T", Level::Info, text);
        assert_eq!(found, format!(r#"{{"time":"T","level":"info",{expected}}}"#), "{text}");
        let parsed: serde_json::Value = serde_json::from_str(&found).unwrap();
        assert_eq!(
            parsed.as_object().unwrap().len(),
            found.matches("\":").count(),
            "a member is there twice: {found}"
        );
    }

    #[test]
    fn a_line_becomes_an_object_with_its_keys() {
        let cases = [
            ("server.ready", r#""event":"server.ready""#),
            (
                "conn.open conn=17.3 peer=203.0.113.0/24 client=rtcstats",
                r#""event":"conn.open","conn":"17.3","peer":"203.0.113.0/24","client":"rtcstats""#,
            ),
            ("a.b bytes=88213 open=true at=-3", r#""event":"a.b","bytes":88213,"open":true,"at":-3"#),
            (
                "a.b x=007 y=1234567890123456 z=1e5",
                r#""event":"a.b","x":"007","y":"1234567890123456","z":"1e5""#,
            ),
            (
                r#"job.failed err="line 88 is \"no\" JSON" kept=x"#,
                r#""event":"job.failed","err":"line 88 is \"no\" JSON","kept":"x""#,
            ),
            (r#"a.b session="123""#, r#""event":"a.b","session":"123""#),
            ("a.b some words x=1 more", r#""event":"a.b","x":1,"message":"some words more""#),
            ("no event here", r#""event":"log.text","message":"no event here""#),
            ("", r#""event":"log.text""#),
            (
                "a.b time=1 level=2 event=3 message=4 message_=5",
                r#""event":"a.b","time_":1,"level_":2,"event_":3,"message_":4,"message__":5"#,
            ),
            ("a.b x=1 x=2", r#""event":"a.b","x":1,"x_":2"#),
            ("a.b x= y=", r#""event":"a.b","x":"","y":"""#),
            ("a.b  x=1   y=2 ", r#""event":"a.b","x":1,"y":2"#),
            (r#"a.b x="open y=1"#, r#""event":"a.b","x":"\"open","y":1"#),
            (r#"a.b x="a"b y="\q""#, r#""event":"a.b","x":"\"a\"b","y":"\"\\q\"""#),
            ("a.b url=/x?y=z A=1", r#""event":"a.b","url":"/x?y=z","message":"A=1""#),
        ];
        for (text, expected) in cases {
            check(text, expected);
        }
    }

    /// Whatever a peer sends as a value comes back as that value, and adds no member.
    #[test]
    fn values_come_back_as_they_were() {
        let texts = [
            "",
            "plain",
            "two words",
            "\" level=\"error",
            "x\" forged=\"1",
            "\\",
            "\\\"",
            "a=b",
            "123",
            "true",
            "\n{}\n",
            "\u{202e}\u{0}\u{1f600}",
            "a.b x=\"y\"",
        ];
        for text in texts {
            let line = line("T", Level::Warn, &format!("a.b before=1 id={} after=2", value(text)));
            let object: serde_json::Value = serde_json::from_str(&line).unwrap();
            let expected = serde_json::json!({
                "time": "T", "level": "warn", "event": "a.b", "before": 1, "id": text, "after": 2,
            });
            assert_eq!(object, expected);
        }
    }
}
