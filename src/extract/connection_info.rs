//! The connectionInfo entry: who sent the dump, and what the server added about it.
//!
//! Rules: feature extraction 3, 5.1; our contract 3 for the member `server`.

use super::json::Scanner;
use super::problems::LineError;
use super::value::{Object, Value};
use crate::client::ClientType;

/// Nesting of connection info inside a string.
const NESTING_MAX: usize = 64;

/// What the server wrote about the session when it made the dump.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ServerInfo {
    /// The session id; the dump's name may have a suffix.
    pub id: Option<String>,
    /// Which part of that session the dump is.
    pub part: Option<u64>,
    /// Last sequence number before this part.
    pub continues_from: Option<u64>,
    /// Claims of the sender's token.
    pub claims: Option<Object>,
}

/// The connection info of an entry.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ConnectionInfo {
    pub(super) client_type: ClientType,
    /// Empty when absent or null.
    pub(super) user_agent: Box<str>,
    pub(super) server: ServerInfo,
}

impl ConnectionInfo {
    /// Reads an entry's third element: an object, or the JSON of one.
    ///
    /// # Errors
    ///
    /// When it is of another type, `null`, no JSON, or has members that cannot be used.
    pub(super) fn of(data: &Value) -> Result<Self, LineError> {
        match data {
            Value::Text(text) => Self::of_members(&parse(text)?),
            Value::Object(_) | Value::Array(_) => Self::of_members(data),
            Value::Null => Err(LineError::BadConnectionInfo("is null")),
            Value::Absent | Value::Bool(_) | Value::Number(_) => {
                Err(LineError::BadConnectionInfo("is neither an object nor a string"))
            }
        }
    }

    fn of_members(info: &Value) -> Result<Self, LineError> {
        if info.is_nullish() {
            return Err(LineError::BadConnectionInfo("is null"));
        }
        let user_agent = info.member("userAgent");
        if user_agent.is_truthy() && user_agent.as_str().is_none() {
            return Err(LineError::BadConnectionInfo("userAgent is no string"));
        }
        let user_agent = user_agent.as_str().unwrap_or_default().into();
        Ok(Self {
            client_type: client_type(info.member("clientProtocol"))?,
            user_agent,
            server: server_info(info.member("server")),
        })
    }
}

fn parse(text: &str) -> Result<Value, LineError> {
    let mut scanner = Scanner::new(text, NESTING_MAX);
    Value::read(&mut scanner)
        .and_then(|value| scanner.end().map(|()| value))
        .map_err(|_| LineError::BadConnectionInfo("string is not JSON"))
}

fn client_type(protocol: &Value) -> Result<ClientType, LineError> {
    if let Value::Array(items) = protocol {
        // `includes` of an array looks for a whole element.
        const NAMES: [&str; 5] = ["3.1_STANDARD", "JIGASI", "JICOFO", "JIBRI", "JVB"];
        let named = NAMES.iter().find(|name| items.iter().any(|item| item.as_str() == Some(name)));
        return Ok(ClientType::of_protocol(named.copied().unwrap_or_default()));
    }
    if protocol.is_truthy() && protocol.as_str().is_none() {
        return Err(LineError::BadConnectionInfo("clientProtocol is no string"));
    }
    Ok(ClientType::of_protocol(protocol.as_str().unwrap_or_default()))
}

/// The member `server`; what has an unexpected type counts as absent.
fn server_info(server: &Value) -> ServerInfo {
    ServerInfo {
        id: server.member("id").as_str().map(str::to_owned),
        part: count(server.member("part")),
        continues_from: count(server.member("continuesFrom")),
        claims: server.member("claims").as_object().cloned(),
    }
}

fn count(value: &Value) -> Option<u64> {
    let number = value.as_number().filter(|x| (0.0..9e15).contains(x) && x.fract() == 0.0)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
    Some(number as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Result<ConnectionInfo, LineError> {
        ConnectionInfo::of(&Value::read(&mut Scanner::new(json, 16)).unwrap())
    }

    #[test]
    fn objects_and_their_json_are_read() {
        for json in [
            r#"{"clientProtocol":"3.1_STANDARD","userAgent":"x"}"#,
            r#""{\"clientProtocol\":\"3.1_STANDARD\",\"userAgent\":\"x\"}""#,
            r#"{"clientProtocol":["a","3.1_STANDARD","JVB"],"userAgent":"x"}"#,
        ] {
            let info = of(json).unwrap();
            assert_eq!((info.client_type, &*info.user_agent), (ClientType::Rtcstats, "x"), "{json}");
        }
        assert_eq!(of("{}").unwrap().client_type, ClientType::Unsupported);
        assert_eq!(of("[]").unwrap().client_type, ClientType::Unsupported);
        assert_eq!(of(r#"{"userAgent":null,"clientProtocol":0}"#).unwrap().user_agent, "".into());
    }

    #[test]
    fn other_types_are_refused() {
        for json in [
            "null",
            "5",
            "true",
            r#""{x}""#,
            r#""null""#,
            r#"{"userAgent":5}"#,
            r#"{"clientProtocol":{}}"#,
            r#"{"userAgent":["x"]}"#,
        ] {
            assert!(matches!(of(json), Err(LineError::BadConnectionInfo(_))), "{json}");
        }
    }

    #[test]
    fn the_server_member_is_read() {
        let server =
            of(r#"{"server":{"id":"s_1","part":2,"continuesFrom":17,"claims":{"sub":"x"}}}"#).unwrap().server;
        assert_eq!(
            (server.id.as_deref(), server.part, server.continues_from),
            (Some("s_1"), Some(2), Some(17))
        );
        assert!(server.claims.is_some());
        let odd = of(r#"{"server":{"id":5,"part":-1,"continuesFrom":1.5,"claims":[]}}"#).unwrap().server;
        assert_eq!(odd, ServerInfo::default());
    }
}
