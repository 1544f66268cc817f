//! The first line of a dump, as far as anybody but the extraction needs it.
//!
//! Pure. Tolerant: whatever cannot be used is absent, for a dump that cannot be understood is kept all the same.
//! Rules: our contract, section 3; older dumps (reference, "dump files") hold the information as a JSON string.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::{RawValue, Value};

use crate::client::{ClientType, SessionId};

/// What the first line says of its dump.
#[derive(Debug, Clone, PartialEq)]
pub struct FirstLine {
    /// The family of the client.
    pub client: ClientType,
    /// Our clock when the dump was created, in ms since 1970.
    pub clock_ms: Option<u64>,
    /// What we had to say beyond the documented keys.
    pub server: ServerMember,
}

/// The member `server` of the first line; only what applies is there.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ServerMember {
    /// The session id, where it is not the name of the dump.
    pub id: Option<SessionId>,
    /// How many dumps of this id came before.
    pub part: Option<u32>,
    /// The number of the last entry that is not here but in an earlier dump.
    pub continues_from: Option<u64>,
    /// What a token said of the sender.
    pub claims: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Info {
    client_protocol: Option<String>,
    server: Value,
}

impl From<Value> for ServerMember {
    /// Each member by itself: one that cannot be used does not cost the others.
    fn from(mut server: Value) -> Self {
        let mut take = |name: &str| server.get_mut(name).map(Value::take).filter(|value| !value.is_null());
        Self {
            id: take("id").and_then(|id| SessionId::parse(id.as_str()?)),
            part: take("part").and_then(|part| part.as_u64()?.try_into().ok()),
            continues_from: take("continuesFrom").and_then(|number| number.as_u64()),
            claims: take("claims"),
        }
    }
}

impl FirstLine {
    /// Reads `line`, with or without its line feed; `None` when it is no first line of a dump.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Self> {
        let elements: Vec<&RawValue> = serde_json::from_slice(line).ok()?;
        let (kind, rest) = elements.split_first()?;
        if serde_json::from_str::<Cow<'_, str>>(kind.get()).ok()? != "connectionInfo" {
            return None;
        }
        let info = rest.get(1).map(|raw| info(raw.get())).unwrap_or_default();
        Some(Self {
            client: ClientType::of_protocol(info.client_protocol.as_deref().unwrap_or_default()),
            clock_ms: rest.get(2).and_then(|raw| clock_ms(raw.get())),
            server: info.server.into(),
        })
    }
}

fn info(raw: &str) -> Info {
    if raw.starts_with('"') {
        let text: String = serde_json::from_str(raw).unwrap_or_default();
        return serde_json::from_str(&text).unwrap_or_default();
    }
    serde_json::from_str(raw).unwrap_or_default()
}

fn clock_ms(raw: &str) -> Option<u64> {
    let clock: f64 = raw.parse().ok()?;
    // The comparison is false for what is no number; 10^16 ms is beyond the year 300,000.
    if !(0.0..1e16).contains(&clock) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range, fraction cut off")]
    Some(clock as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_as_we_write_it() {
        let line = br#"["connectionInfo",null,{"path":"/r","origin":"","url":"/r","userAgent":"","clientProtocol":"3.1_STANDARD","statsFormat":"unsupported","clientType":"RTCSTATS_CLIENT","server":{"id":"a_b","part":2,"continuesFrom":17,"claims":{"user":"u"}}},1700000000123]"#;
        let first = FirstLine::parse(line).unwrap();
        assert_eq!(first.client, ClientType::Rtcstats);
        assert_eq!(first.clock_ms, Some(1_700_000_000_123));
        assert_eq!(first.server.id.as_ref().map(SessionId::as_str), Some("a_b"));
        assert_eq!(first.server.part, Some(2));
        assert_eq!(first.server.continues_from, Some(17));
        assert_eq!(first.server.claims, Some(serde_json::json!({"user": "u"})));
    }

    #[test]
    fn what_cannot_be_used_is_absent() {
        type Expected = Option<(ClientType, Option<u64>)>;
        let cases: [(&str, Expected); 11] = [
            ("", None),
            ("{}", None),
            ("[]", None),
            (r#"["identity",null,{},1]"#, None),
            (r#"["connectionInfo",null,{},1700000000000"#, None),
            (r#"["connectionInfo"]"#, Some((ClientType::Unsupported, None))),
            (r#"["connectionInfo",null,null,null]"#, Some((ClientType::Unsupported, None))),
            (r#"["connectionInfo",null,{"server":5},-5]"#, Some((ClientType::Unsupported, None))),
            (
                r#"["connectionInfo",null,{"clientProtocol":"1.0_JICOFO"},1e400]"#,
                Some((ClientType::Jicofo, None)),
            ),
            (
                r#"["connectionInfo",null,"{\"clientProtocol\":\"3.0_JVB\"}",5.7]"#,
                Some((ClientType::Jvb, Some(5))),
            ),
            (r#"["connectionInfo",null,"{",5]"#, Some((ClientType::Unsupported, Some(5)))),
        ];
        for (line, expected) in cases {
            let found = FirstLine::parse(line.as_bytes()).map(|first| (first.client, first.clock_ms));
            assert_eq!(found, expected, "{line}");
        }
    }

    #[test]
    fn a_member_that_cannot_be_used_does_not_cost_the_others() {
        let line =
            br#"["connectionInfo",null,{"server":{"id":"s","part":-1,"continuesFrom":"x","claims":null}},1]"#;
        let server = FirstLine::parse(line).unwrap().server;
        assert_eq!(server, ServerMember { id: SessionId::parse("s"), ..ServerMember::default() });
    }

    #[test]
    fn an_id_that_could_leave_its_folder_is_not_believed() {
        for id in ["../x", "a/b", ".", "", "a\\u0000"] {
            let line = format!(r#"["connectionInfo",null,{{"server":{{"id":"{id}"}}}},1]"#);
            assert_eq!(FirstLine::parse(line.as_bytes()).unwrap().server.id, None, "{id:?}");
        }
    }
}
