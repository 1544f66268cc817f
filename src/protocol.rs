//! One WebSocket message -> requests -> the line each adds to its dump. Pure.
//!
//! A message holds any number of JSON documents, each one request `{statsSessionId, type, data}`. A document that
//! is no request is reported by reason and the next one is looked at; only broken JSON ends a message, because
//! nobody can say where the next document would start.
//!
//! What is written is what was sent: numbers, escapes, repeated keys and the order of keys are kept, only white
//! space between tokens goes. So the line says the same as `JSON.stringify(JSON.parse(text))` of the reference
//! without its losses (big numbers, `1e400`).
//! Rules: reference, "messages from the client"; ours where the reference is odd (see the crate docs).

pub mod usual;

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::client::{ClientType, SessionId};
use crate::reasons::RequestFault;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestType {
    /// Who is in which conference.
    Identity,
    /// One entry of the session.
    StatsEntry,
    /// The session is over.
    Close,
    /// Nothing; the connection lives.
    Keepalive,
}

impl RequestType {
    fn parse(name: &[u8]) -> Option<Self> {
        match name {
            b"identity" => Some(Self::Identity),
            b"stats-entry" => Some(Self::StatsEntry),
            b"close" => Some(Self::Close),
            b"keepalive" => Some(Self::Keepalive),
            _ => None,
        }
    }
}

/// One well-formed request. `data` and `whole` are JSON text as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// Whom it is about: `^[A-Za-z0-9_-]{1,128}$`.
    pub id: Cow<'a, str>,
    /// What it asks for.
    pub kind: RequestType,
    /// The member `data`, when present.
    pub data: Option<&'a str>,
    /// The whole document.
    pub whole: &'a str,
}

/// Iterates over the requests of one message.
pub fn requests(message: &[u8]) -> Requests<'_> {
    // A text message is UTF-8 already; a binary one need not be.
    let text = simdutf8::basic::from_utf8(message);
    Requests { rest: text.unwrap_or_default(), is_broken: text.is_err() }
}

/// Iterator of [`requests`].
#[derive(Debug)]
pub struct Requests<'a> {
    rest: &'a str,
    /// What is left cannot be read: still to be told.
    is_broken: bool,
}

impl<'a> Iterator for Requests<'a> {
    type Item = Result<Request<'a>, RequestFault>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = std::mem::take(&mut self.rest).trim_start_matches(is_json_space);
        if std::mem::take(&mut self.is_broken) {
            return Some(Err(RequestFault::NotJson));
        }
        if rest.is_empty() {
            return None;
        }
        let mut deserializer = serde_json::Deserializer::from_str(rest);
        deserializer.disable_recursion_limit();
        let mut documents = deserializer.into_iter::<Document<'_>>();
        let Some(Ok(document)) = documents.next() else { return Some(Err(RequestFault::NotJson)) };
        let (whole, after) = rest.split_at_checked(documents.byte_offset()).unwrap_or((rest, ""));
        self.rest = after;
        Some(document.into_request(whole))
    }
}

/// The members of one document that matter; the last of repeated keys wins, as in JavaScript.
enum Document<'a> {
    Object { id: Option<&'a str>, kind: Option<&'a str>, data: Option<&'a str> },
    Other,
}

impl<'a> Document<'a> {
    fn into_request(self, whole: &'a str) -> Result<Request<'a>, RequestFault> {
        let Self::Object { id, kind, data } = self else { return Err(RequestFault::NotObject) };
        let id = id.and_then(decoded_id).ok_or(RequestFault::BadSessionId)?;
        let kind = kind
            .and_then(decoded_string)
            .and_then(|name| RequestType::parse(&name))
            .ok_or(RequestFault::UnknownType)?;
        Ok(Request { id, kind, data, whole })
    }
}

impl<'de> Deserialize<'de> for Document<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DocumentVisitor;
        impl<'de> Visitor<'de> for DocumentVisitor {
            type Value = Document<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON document")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut id, mut kind, mut data) = (None, None, None);
                // Keys as they stand: unlike one that is decoded to bytes, such a key holds no raw control character.
                while let Some(key) = map.next_key::<&'de RawValue>()? {
                    let value: &'de RawValue = map.next_value()?;
                    match decoded_string(key.get()).as_deref() {
                        Some(b"statsSessionId") => id = Some(value.get()),
                        Some(b"type") => kind = Some(value.get()),
                        Some(b"data") => data = Some(value.get()),
                        Some(_) | None => {}
                    }
                }
                Ok(Document::Object { id, kind, data })
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Document::Other)
            }
            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(Document::Other)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok(Document::Other)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
                Ok(Document::Other)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(Document::Other)
            }
            fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
                Ok(Document::Other)
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Document::Other)
            }
        }
        deserializer.deserialize_any(DocumentVisitor)
    }
}

/// A string as bytes: serde_json decodes it so even where it holds a lone surrogate.
fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'de, [u8]>, D::Error> {
    struct BytesVisitor;
    impl<'de> Visitor<'de> for BytesVisitor {
        type Value = Cow<'de, [u8]>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }
        fn visit_borrowed_bytes<E>(self, value: &'de [u8]) -> Result<Self::Value, E> {
            Ok(Cow::Borrowed(value))
        }
        fn visit_bytes<E>(self, value: &[u8]) -> Result<Self::Value, E> {
            Ok(Cow::Owned(value.to_vec()))
        }
    }
    deserializer.deserialize_bytes(BytesVisitor)
}

fn decoded_id(json: &str) -> Option<Cow<'_, str>> {
    let id = match decoded_string(json)? {
        Cow::Borrowed(bytes) => Cow::Borrowed(std::str::from_utf8(bytes).ok()?),
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8(bytes).ok()?),
    };
    SessionId::is_valid(&id).then_some(id)
}

/// The bytes of a JSON string: UTF-8, except that a lone surrogate stands as three bytes of its own.
fn decoded_string(json: &str) -> Option<Cow<'_, [u8]>> {
    if !json.starts_with('"') {
        return None;
    }
    bytes(&mut serde_json::Deserializer::from_str(json)).ok()
}

fn is_json_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

/// Appends the line of an `identity` or `stats-entry` request to `out`, with its `\n`.
///
/// `now_ms` is the server's clock, in milliseconds since 1970, for clients whose whole request is recorded.
///
/// # Errors
/// The fault; `out` then is as it was.
pub fn write_line(
    request: &Request<'_>,
    client: ClientType,
    now_ms: u64,
    out: &mut Vec<u8>,
) -> Result<(), RequestFault> {
    let start = out.len();
    let written = match client {
        ClientType::Rtcstats => write_client_line(request, out),
        ClientType::Jigasi
        | ClientType::Jicofo
        | ClientType::Jibri
        | ClientType::Jvb
        | ClientType::Unsupported => {
            write_with_timestamp(request.whole, now_ms, out);
            Ok(())
        }
    };
    if written.is_ok() {
        out.push(b'\n');
    } else {
        out.truncate(start);
    }
    written
}

fn write_client_line(request: &Request<'_>, out: &mut Vec<u8>) -> Result<(), RequestFault> {
    let data = request.data.ok_or(RequestFault::MissingData)?;
    match data.as_bytes().first() {
        Some(b'{' | b'[') => write_compact(data, out),
        Some(b'"') if request.kind == RequestType::Identity => write_compact(data, out),
        Some(b'"') => write_string_as_line(data, out)?,
        Some(b'n') => return Err(RequestFault::MissingData),
        _ => return Err(RequestFault::BadData),
    }
    Ok(())
}

/// `data` is a string that holds one line. It is appended verbatim, unless it holds control characters: then it
/// is taken apart as JSON, so that no client can forge a second line.
fn write_string_as_line(data: &str, out: &mut Vec<u8>) -> Result<(), RequestFault> {
    let decoded = decoded_string(data).ok_or(RequestFault::BadData)?;
    if decoded.is_empty() {
        return Err(RequestFault::MissingData);
    }
    let start = out.len();
    push_without_surrogates(&decoded, out);
    let line = out.get(start..).unwrap_or_default();
    if line.iter().any(|byte| *byte < 0x20) {
        let text = std::str::from_utf8(line).map_err(|_| RequestFault::BadData)?.to_owned();
        out.truncate(start);
        let mut deserializer = serde_json::Deserializer::from_str(&text);
        deserializer.disable_recursion_limit();
        IgnoredAny::deserialize(&mut deserializer).map_err(|_| RequestFault::BadData)?;
        deserializer.end().map_err(|_| RequestFault::BadData)?;
        write_compact(&text, out);
    }
    Ok(())
}

/// UTF-8 has no lone surrogates; each becomes U+FFFD, which is what the reference writes.
fn push_without_surrogates(decoded: &[u8], out: &mut Vec<u8>) {
    let mut rest = decoded;
    while !rest.is_empty() {
        match simdutf8::compat::from_utf8(rest) {
            Ok(_) => {
                out.extend_from_slice(rest);
                return;
            }
            Err(error) => {
                let (good, bad) = rest.split_at_checked(error.valid_up_to()).unwrap_or((rest, &[]));
                out.extend_from_slice(good);
                out.extend_from_slice("\u{fffd}".as_bytes());
                // A surrogate encoded like UTF-8 is three bytes long and starts with 0xED.
                rest = bad.get(3..).unwrap_or_default();
            }
        }
    }
}

/// Appends valid JSON text without the white space between its tokens.
fn write_compact(json: &str, out: &mut Vec<u8>) {
    let mut rest = json.as_bytes();
    while let Some(at) = rest.iter().position(|b| matches!(b, b'"' | b' ' | b'\t' | b'\n' | b'\r')) {
        let (before, from) = rest.split_at_checked(at).unwrap_or((rest, &[]));
        out.extend_from_slice(before);
        let taken = if from.first() == Some(&b'"') {
            let length = string_length(from);
            out.extend_from_slice(from.get(..length).unwrap_or(from));
            length
        } else {
            1
        };
        rest = from.get(taken..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
}

/// The length of the JSON string at the start of `json`, quotes included.
fn string_length(json: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    json.len()
}

/// Appends a valid JSON object, compact, with its member `timestamp` set: in place where there is one, else last
/// (reference: what is stored for clients that are not RTCSTATS).
fn write_with_timestamp(object: &str, now_ms: u64, out: &mut Vec<u8>) {
    let start = out.len();
    write_compact(object, out);
    let compact = out.split_off(start);
    let (mut copied, mut at, mut depth) = (0, 0, 0_u32);
    let mut found = false;
    let stamp = now_ms.to_string();
    while let Some(byte) = compact.get(at) {
        match byte {
            b'"' => {
                let end = at + string_length(compact.get(at..).unwrap_or_default());
                if depth == 1 && compact.get(end) == Some(&b':') && is_timestamp(compact.get(at..end)) {
                    let value = end + 1;
                    out.extend_from_slice(compact.get(copied..value).unwrap_or_default());
                    out.extend_from_slice(stamp.as_bytes());
                    at = value + value_length(compact.get(value..).unwrap_or_default());
                    (copied, found) = (at, true);
                } else {
                    at = end;
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    out.extend_from_slice(compact.get(copied..).unwrap_or_default());
    if !found {
        out.pop();
        if out.last() != Some(&b'{') {
            out.push(b',');
        }
        out.extend_from_slice(b"\"timestamp\":");
        out.extend_from_slice(stamp.as_bytes());
        out.push(b'}');
    }
}

fn is_timestamp(key: Option<&[u8]>) -> bool {
    let Some(key) = key.and_then(|key| std::str::from_utf8(key).ok()) else { return false };
    decoded_string(key).is_some_and(|key| key.as_ref() == b"timestamp")
}

/// The length of the value at the start of `json`, which goes on with `,` or `}` on the value's own level.
fn value_length(json: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0_u32);
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => {
                at += string_length(json.get(at..).unwrap_or_default());
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' | b',' if depth == 0 => return at,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    json.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What each document of a message gives: the line it adds, `-` for a request without one, or the fault.
    fn lines(client: ClientType, message: &[u8]) -> Vec<Result<String, RequestFault>> {
        requests(message)
            .map(|request| {
                let request = request?;
                if matches!(request.kind, RequestType::Close | RequestType::Keepalive) {
                    return Ok("-".to_owned());
                }
                let mut out = b"before\n".to_vec();
                let written = write_line(&request, client, 1_700_000_000_123, &mut out);
                let text = String::from_utf8(out).expect("a dump is UTF-8");
                let line = text.strip_prefix("before\n").expect("what was there stays");
                if let Err(fault) = written {
                    assert_eq!(line, "", "nothing is left of a refused line");
                    return Err(fault);
                }
                let line = line.strip_suffix('\n').expect("a line ends");
                assert!(!line.contains(['\n', '\r']), "one line: {line}");
                Ok(line.to_owned())
            })
            .collect()
    }

    fn entry(data: &str) -> String {
        format!(r#"{{"statsSessionId":"a-1_Z","type":"stats-entry","data":{data}}}"#)
    }

    #[test]
    fn what_a_browser_client_sends_becomes_its_line() {
        use RequestFault::{BadData, MissingData};
        let cases: [(String, Result<&str, RequestFault>); 25] = [
            (entry(r#""[\"getstats\",\"PC_0\",{\"a\":\"\\u00e9\\n\"},1,2]""#), Ok(r#"["getstats","PC_0",{"a":"\u00e9\n"},1,2]"#)),
            (entry(r#""not json, but one line""#), Ok("not json, but one line")),
            (entry(r#""[1,\n 2]""#), Ok("[1,2]")),
            (entry(r#""[1]\n[2]""#), Err(BadData)),
            (entry(r#""a\u0000b""#), Err(BadData)),
            (entry(r#""[\"a\tb\"]""#), Err(BadData)),
            (entry(r#""\n""#), Err(BadData)),
            (entry(r#""[1,2]\r\n""#), Ok("[1,2]")),
            (entry("\"\u{2028}\u{2029}\u{85}\u{7f}\""), Ok("\u{2028}\u{2029}\u{85}\u{7f}")),
            (entry(r#""[\"\ud83d\ude00\"]""#), Ok("[\"\u{1f600}\"]")),
            (entry(r#""[\"\ud800\"]""#), Ok("[\"\u{fffd}\"]")),
            (entry(r#""[\"\udc00\ud800x\"]""#), Ok("[\"\u{fffd}\u{fffd}x\"]")),
            (entry(r#""[\"\\ud800\"]""#), Ok(r#"["\ud800"]"#)),
            (entry(r#"[ "getstats" , null, {"a" : 1.0, "a": 1e400} , 12345678901234567890 ]"#), Ok(r#"["getstats",null,{"a":1.0,"a":1e400},12345678901234567890]"#)),
            (entry("{\n\"a b\" : \" c \"\n}"), Ok(r#"{"a b":" c "}"#)),
            (entry(r#"["\ud800","\n"]"#), Ok(r#"["\ud800","\n"]"#)),
            (entry(r#""""#), Err(MissingData)),
            (entry("null"), Err(MissingData)),
            (entry("5"), Err(BadData)),
            (entry("true"), Err(BadData)),
            (r#"{"statsSessionId":"a","type":"stats-entry"}"#.into(), Err(MissingData)),
            (r#"{"statsSessionId":"a","type":"identity"}"#.into(), Err(MissingData)),
            (r#"{"statsSessionId":"a","type":"identity","data":["identity", null, {"x" : 1}, 5, 1]}"#.into(), Ok(r#"["identity",null,{"x":1},5,1]"#)),
            (r#"{"statsSessionId":"a","type":"identity","data":"text"}"#.into(), Ok(r#""text""#)),
            (r#"{"data":"first","statsSessionId":"a","type":"keepalive","type":"stats\u002dentry","d\u0061ta":"last"}"#.into(), Ok("last")),
        ];
        for (message, expected) in cases {
            let expected = expected.map(str::to_owned);
            assert_eq!(lines(ClientType::Rtcstats, message.as_bytes()), [expected], "{message}");
        }
    }

    #[test]
    fn what_others_send_is_recorded_whole_with_our_clock() {
        let cases = [
            (
                r#"{"statsSessionId":"a","type":"identity"}"#,
                r#"{"statsSessionId":"a","type":"identity","timestamp":1700000000123}"#,
            ),
            (
                r#"{ "timestamp" : {"x":[1,"}"]} , "statsSessionId":"a","type":"stats-entry","data":{"timestamp":7}}"#,
                r#"{"timestamp":1700000000123,"statsSessionId":"a","type":"stats-entry","data":{"timestamp":7}}"#,
            ),
            (
                r#"{"statsSessionId":"a","type":"stats-entry","t\u0069mestamp":1,"data":"\"timestamp\":"}"#,
                r#"{"statsSessionId":"a","type":"stats-entry","t\u0069mestamp":1700000000123,"data":"\"timestamp\":"}"#,
            ),
        ];
        for (message, expected) in cases {
            assert_eq!(lines(ClientType::Jvb, message.as_bytes()), [Ok(expected.to_owned())], "{message}");
        }
    }

    #[test]
    fn what_is_no_request_is_told_by_reason_and_the_next_one_is_taken() {
        use RequestFault::{BadSessionId, NotJson, NotObject, UnknownType};
        let long = "a".repeat(129);
        let cases: [(String, &[Result<&str, RequestFault>]); 22] = [
            (
                r#"{"statsSessionId":"a","type":"close"}{"statsSessionId":"a","type":"keepalive"} "#.into(),
                &[Ok("-"), Ok("-")],
            ),
            (
                r#"[{}] {} "x" null {"statsSessionId":"a","type":"close"}"#.into(),
                &[Err(NotObject), Err(BadSessionId), Err(NotObject), Err(NotObject), Ok("-")],
            ),
            ("5 true".into(), &[Err(NotObject), Err(NotObject)]),
            ("-5 0.5 1e3".into(), &[Err(NotObject), Err(NotObject), Err(NotObject)]),
            ("".into(), &[]),
            (" \n".into(), &[]),
            ("garbage".into(), &[Err(NotJson)]),
            (
                r#"{"statsSessionId":"a","type":"close"}}{"statsSessionId":"a","type":"close"}"#.into(),
                &[Ok("-"), Err(NotJson)],
            ),
            (r#"{"statsSessionId":"a","type":"close""#.into(), &[Err(NotJson)]),
            (r#"{"statsSessionId":"a","type":"close",}"#.into(), &[Err(NotJson)]),
            (r#"{"statsSessionId":"a/b","type":"close"}"#.into(), &[Err(BadSessionId)]),
            (r#"{"statsSessionId":"..","type":"close"}"#.into(), &[Err(BadSessionId)]),
            (r#"{"statsSessionId":"","type":"close"}"#.into(), &[Err(BadSessionId)]),
            (r#"{"statsSessionId":7,"type":"close"}"#.into(), &[Err(BadSessionId)]),
            (format!(r#"{{"statsSessionId":"{long}","type":"close"}}"#), &[Err(BadSessionId)]),
            (r#"{"statsSessionId":"a\u002d1","type":"close"}"#.into(), &[Ok("-")]),
            (r#"{"statsSessionId":"a","type":"CLOSE"}"#.into(), &[Err(UnknownType)]),
            (r#"{"statsSessionId":"a","type":["close"]}"#.into(), &[Err(UnknownType)]),
            (r#"{"statsSessionId":"a"}"#.into(), &[Err(UnknownType)]),
            ("{\"statsSessionId\":\"a\",\"type\":\"close\",\"\nx\":1}".into(), &[Err(NotJson)]),
            (r#"{"statsSessionId":"a","type":"close","\ud800":1,"n":1e999,"m":-0}"#.into(), &[Ok("-")]),
            ("\u{feff}{}".into(), &[Err(NotJson)]),
        ];
        for (message, expected) in cases {
            let expected: Vec<_> = expected.iter().map(|result| result.map(str::to_owned)).collect();
            assert_eq!(lines(ClientType::Rtcstats, message.as_bytes()), expected, "{message}");
        }
        assert_eq!(lines(ClientType::Rtcstats, b"{\"statsSessionId\":\"a\xff\"}"), [Err(NotJson)]);
    }

    #[test]
    fn nesting_is_limited_by_nothing_but_the_message() {
        let (depth, id) = (500_000, r#""statsSessionId":"a","type":"identity""#);
        let nested = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let message = format!(r#"{{{id},"data":{nested}}}{{{id},"x":{nested},"data":[1]}}{nested}"#);
        let expected = [Ok(nested), Ok("[1]".into()), Err(RequestFault::NotObject)];
        assert!(lines(ClientType::Rtcstats, message.as_bytes()) == expected);
    }

    proptest! {
        #[test]
        fn nothing_that_is_sent_breaks_the_line_or_the_server(message in proptest::collection::vec(any::<u8>(), 0..400)) {
            for client in ClientType::ALL {
                lines(client, &message);
            }
        }

        #[test]
        fn any_text_in_an_entry_is_one_line_or_refused(text in ".{0,80}", client in 0_usize..6) {
            let data = serde_json::to_string(&text).expect("a string");
            for result in lines(ClientType::ALL[client], entry(&data).as_bytes()) {
                if client == 0 && !text.is_empty() && !text.chars().any(|c| u32::from(c) < 0x20) {
                    prop_assert_eq!(result, Ok(text.clone()));
                }
            }
        }
    }
}
