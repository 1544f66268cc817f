//! May this head become a WebSocket? The 101 and what the connection said about itself, or a typed refusal.
//!
//! Pure: one complete [`Head`] in, values out. Knows the URL parameters of jitsi/rtcstats; never decides who may send
//! (it hands over origin and token) nor which session goes on (it hands over the id).
//!
//! Rules: RFC 6455 4.2, our contract 3 and 5, protocol of the reference server, section "connection set-up". Choices:
//!
//! - A body, announced in either way, is 400: its bytes would be read as frames by us and as a body by a proxy.
//! - Fields that decide something (`Host`, `Origin`, `Authorization`, key, version) may occur once; of two `User-Agent`
//!   the first counts.
//! - The key is 24 characters of Base64 for 16 bytes; that the last character's unused bits are zero is not asked.
//! - `Sec-WebSocket-Protocol` is a list over all its fields. The first element is selected, whatever it is, as the
//!   reference does; one that is no token refuses the whole upgrade, so nothing else is ever echoed. Elements that
//!   occur twice are harmless. A field without elements counts as no field.
//! - `Sec-WebSocket-Extensions` is ignored: none is negotiated, so reserved bits stay forbidden.
//! - HTTP/1.0 is 400 and not, as RFC 9110 7.8 would have it, an answer without regard to `Upgrade`: the cause is a
//!   proxy that forgot to speak 1.1, and its operator should be told so.

use std::borrow::Cow;
use std::fmt;
use std::rc::Rc;

use crate::client::{Agent, ClientType, ConnectionInfo, SessionId};
use crate::http::{Body, Head, Method, Version, lacks_host};
use crate::reasons::Refusal;
use crate::websocket;

/// The query parameter that carries a token; it is removed from everything that is kept.
const TOKEN_PARAMETER: &str = "rtcstats-token";

/// Why an upgrade is refused. The text is the body of the answer: it never repeats what the peer sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeFault {
    /// RFC 6455 4.1, 1.
    #[error("a WebSocket upgrade is a GET")]
    Method,
    /// RFC 6455 4.1, 2.
    #[error("a WebSocket upgrade needs HTTP/1.1 (does a proxy speak HTTP/1.0?)")]
    Version,
    /// RFC 6455 4.2.1, 2.
    #[error("Host is missing")]
    Host,
    /// A request body, announced by length or as chunks.
    #[error("a WebSocket upgrade has no body")]
    Body,
    /// RFC 6455 4.2.1, 3.
    #[error("Upgrade: websocket is missing (does a proxy drop it?)")]
    UpgradeField,
    /// RFC 6455 4.2.1, 4.
    #[error("Connection: Upgrade is missing (does a proxy drop it?)")]
    ConnectionField,
    /// RFC 6455 4.2.1, 6.
    #[error("Sec-WebSocket-Version is missing")]
    ProtocolVersionMissing,
    /// RFC 6455 4.2.2, 4.
    #[error("Sec-WebSocket-Version is not 13")]
    ProtocolVersion,
    /// RFC 6455 4.2.1, 5.
    #[error("Sec-WebSocket-Key is missing or not 16 bytes in Base64")]
    Key,
    /// RFC 6455 4.1, 10.
    #[error("Sec-WebSocket-Protocol is not a list of tokens")]
    Protocol,
    /// A field that decides something occurs twice.
    #[error("{field} occurs more than once")]
    Twice {
        /// Name of the field.
        field: &'static str,
    },
}

impl UpgradeFault {
    /// The refusal as which this fault is answered and counted.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        match self {
            // Who names no version is told ours, too.
            Self::ProtocolVersionMissing | Self::ProtocolVersion => Refusal::UpgradeRequired,
            Self::Method
            | Self::Version
            | Self::Host
            | Self::Body
            | Self::UpgradeField
            | Self::ConnectionField
            | Self::Key
            | Self::Protocol
            | Self::Twice { .. } => Refusal::BadRequest,
        }
    }
}

/// A secret of the peer. Its `Debug` form shows that it is there, nothing else.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Box<str>);

impl Token {
    /// The secret itself: for verification only, never for a log, a dump or an answer.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

/// What proxies say about the client, exactly as it was sent: believed only when the peer is a trusted proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forwarding {
    /// All `X-Forwarded-For` fields, joined by `, `.
    pub x_forwarded_for: Option<String>,
    /// All `Forwarded` fields (RFC 7239), joined by `, `.
    pub forwarded: Option<String>,
}

/// An upgrade that may be granted. All texts are without control characters; what is not UTF-8 is replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// Path and query without the token.
    pub target: String,
    /// `Origin`, or empty.
    pub origin: String,
    /// The first `User-Agent`, or empty.
    pub user_agent: String,
    /// The selected subprotocol: the first offered, a token; empty when none was.
    pub protocol: String,
    /// The dialect that follows from the subprotocol.
    pub client_type: ClientType,
    /// First query parameter `statsSessionId`; `None` also when it is not a valid id.
    pub session_id: Option<SessionId>,
    /// Whether the first query parameter `isReconnect` is exactly `true`.
    pub is_reconnect: bool,
    /// `Authorization: Bearer`, else the first query parameter `rtcstats-token`.
    pub token: Option<Token>,
    /// What proxies say about the client.
    pub forwarding: Forwarding,
    accept_key: String,
}

impl Upgrade {
    /// Appends the 101 that grants the upgrade; frames follow it.
    pub fn write_response(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(
            b"HTTP/1.1 101 Switching Protocols\r\n\
              Upgrade: websocket\r\n\
              Connection: Upgrade\r\n\
              Sec-WebSocket-Accept: ",
        );
        out.extend_from_slice(self.accept_key.as_bytes());
        if !self.protocol.is_empty() {
            out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
            out.extend_from_slice(self.protocol.as_bytes());
        }
        out.extend_from_slice(b"\r\n\r\n");
    }

    /// The members of a dump's first line. `stats_format` follows from [`Self::user_agent`] by rules of the extraction.
    #[must_use]
    pub fn connection_info(&self, stats_format: &'static str) -> ConnectionInfo {
        let agent = Agent {
            origin: self.origin.as_str().into(),
            user_agent: self.user_agent.as_str().into(),
            client_protocol: self.protocol.as_str().into(),
            stats_format,
            client_type: self.client_type.name(),
        };
        ConnectionInfo::new(&self.target, self.session_id.clone(), Rc::new(agent))
    }
}

/// Decides whether a head that [`crate::http::route`] took for an upgrade may become a WebSocket.
///
/// # Errors
/// The first fault in the order of [`UpgradeFault`]; the version goes before the key, so that a client of another
/// version, which may have no key, learns ours.
pub fn accept(head: &Head<'_>) -> Result<Upgrade, UpgradeFault> {
    check_request(head)?;
    let accept_key = accept_key(head)?;
    let protocol = first_protocol(head)?;
    let origin = single(head, "Origin")?.map(text_of).unwrap_or_default();
    let bearer = single(head, "Authorization")?.and_then(bearer_token);
    let query = Query::read(&head.target);
    Ok(Upgrade {
        origin,
        user_agent: head.field("user-agent").map(text_of).unwrap_or_default(),
        client_type: ClientType::of_protocol(protocol),
        protocol: protocol.to_owned(),
        session_id: query.session_id.as_deref().and_then(SessionId::parse),
        is_reconnect: query.is_reconnect.as_deref() == Some("true"),
        token: bearer.or(query.token.map(|token| Token(token.into()))),
        forwarding: Forwarding {
            x_forwarded_for: joined(head, "x-forwarded-for"),
            forwarded: joined(head, "forwarded"),
        },
        target: query.target,
        accept_key,
    })
}

/// What can be said without looking into a value of ours.
fn check_request(head: &Head<'_>) -> Result<(), UpgradeFault> {
    if head.method != Method::Get {
        return Err(UpgradeFault::Method);
    }
    if head.version != Version::Http11 {
        return Err(UpgradeFault::Version);
    }
    if lacks_host(head) {
        return Err(UpgradeFault::Host);
    }
    if head.body != Body::None {
        return Err(UpgradeFault::Body);
    }
    if !head.lists("upgrade", "websocket") {
        return Err(UpgradeFault::UpgradeField);
    }
    if !head.lists("connection", "upgrade") {
        return Err(UpgradeFault::ConnectionField);
    }
    match single(head, "Sec-WebSocket-Version")? {
        None => Err(UpgradeFault::ProtocolVersionMissing),
        Some(b"13") => Ok(()),
        Some(_) => Err(UpgradeFault::ProtocolVersion),
    }
}

/// The answer to the key, when that is 16 bytes in Base64.
fn accept_key(head: &Head<'_>) -> Result<String, UpgradeFault> {
    let key = single(head, "Sec-WebSocket-Key")?.ok_or(UpgradeFault::Key)?;
    let digits = key.strip_suffix(b"==").ok_or(UpgradeFault::Key)?;
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    if digits.len() == 22 && digits.iter().all(is_base64) {
        Ok(websocket::accept_key(key))
    } else {
        Err(UpgradeFault::Key)
    }
}

/// The subprotocol that is selected; empty when none is offered.
fn first_protocol<'b>(head: &Head<'b>) -> Result<&'b str, UpgradeFault> {
    let mut first = None;
    for element in head.elements("sec-websocket-protocol") {
        let token = token_of(element).ok_or(UpgradeFault::Protocol)?;
        first.get_or_insert(token);
    }
    Ok(first.unwrap_or_default())
}

/// The text of a `token` (RFC 9110 5.6.2).
fn token_of(bytes: &[u8]) -> Option<&str> {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    if bytes.iter().all(is_token) { std::str::from_utf8(bytes).ok() } else { None }
}

/// The value of a field that may occur once.
fn single<'b>(head: &Head<'b>, field: &'static str) -> Result<Option<&'b [u8]>, UpgradeFault> {
    let mut values = head.fields(field);
    let first = values.next();
    if values.next().is_some() { Err(UpgradeFault::Twice { field }) } else { Ok(first) }
}

/// All values of a list field, in order (RFC 9110 5.3).
fn joined(head: &Head<'_>, field: &str) -> Option<String> {
    let values: Vec<String> = head.fields(field).map(text_of).collect();
    if values.is_empty() { None } else { Some(values.join(", ")) }
}

/// A field value as text: replacement characters for what is not UTF-8, blanks for control characters (of which the
/// head lets only the tab pass, and those above U+007F).
fn text_of(value: &[u8]) -> String {
    without_controls(&String::from_utf8_lossy(value))
}

fn without_controls(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The secret of `Authorization: Bearer secret`; another scheme is none of our business.
fn bearer_token(value: &[u8]) -> Option<Token> {
    let text = std::str::from_utf8(value).ok()?;
    let (scheme, secret) = text.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| Token(secret.trim().into()))
}

/// What the query of a request target says, and the target without the secret in it.
struct Query {
    target: String,
    session_id: Option<String>,
    is_reconnect: Option<String>,
    token: Option<String>,
}

impl Query {
    /// Reads the query of the request target alone: unlike in the reference, nothing here needs an absolute URL.
    fn read(target: &str) -> Self {
        let mut read = Self { target: String::new(), session_id: None, is_reconnect: None, token: None };
        let Some((path, query)) = target.split_once('?') else {
            target.clone_into(&mut read.target);
            return read;
        };
        let mut kept = Vec::new();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decoded(name);
            let slot = match name.as_ref() {
                "statsSessionId" => &mut read.session_id,
                "isReconnect" => &mut read.is_reconnect,
                TOKEN_PARAMETER => &mut read.token,
                _ => {
                    kept.push(pair);
                    continue;
                }
            };
            slot.get_or_insert_with(|| decoded(value).into_owned());
            if name != TOKEN_PARAMETER {
                kept.push(pair);
            }
        }
        path.clone_into(&mut read.target);
        // `/path?` without parameters stays as it is, `/path?rtcstats-token=x` becomes `/path`.
        if !kept.is_empty() {
            read.target.push('?');
            read.target.push_str(&kept.join("&"));
        }
        read
    }
}

/// A name or value of a query, decoded as browsers' `URLSearchParams` does: `+` is a blank, `%` without two hexadecimal
/// digits is itself, what is not UTF-8 is replaced.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let escaped = match (first, behind) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)),
            _ => None,
        };
        if let Some((high, low)) = escaped {
            bytes.push(high << 4 | low);
            rest = behind.get(2..).unwrap_or_default();
        } else {
            bytes.push(if *first == b'+' { b' ' } else { *first });
            rest = behind;
        }
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{HeadLimits, HeadStatus, parse_head};

    /// A good upgrade, field by field; a case replaces, removes or adds some.
    const FIELDS: [(&str, &str); 6] = [
        ("Host", "h"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Origin", "https://meet.example"),
    ];

    fn check(line: &str, fields: &[(&str, &[u8])]) -> Result<Upgrade, UpgradeFault> {
        let mut bytes = format!("{line}\r\n").into_bytes();
        for (name, value) in fields {
            bytes.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        bytes.extend_from_slice(b"\r\n");
        let status = parse_head(&bytes, &HeadLimits { bytes_max: 8192, headers_max: 64 });
        let HeadStatus::Complete { head, .. } = status else { panic!("no head: {status:?}") };
        accept(&head)
    }

    fn good_fields() -> Vec<(&'static str, &'static [u8])> {
        FIELDS.iter().map(|(name, value)| (*name, value.as_bytes())).collect()
    }

    /// A good upgrade of that target with more fields.
    fn upgrade(target: &str, more: &[(&str, &[u8])]) -> Upgrade {
        let mut fields: Vec<(&str, &[u8])> = good_fields();
        fields.extend_from_slice(more);
        check(&format!("GET {target} HTTP/1.1"), &fields).unwrap()
    }

    fn response(upgrade: &Upgrade) -> String {
        let mut out = Vec::new();
        upgrade.write_response(&mut out);
        String::from_utf8(out).unwrap()
    }

    /// The example of RFC 6455 1.3, with the first of two subprotocols.
    #[test]
    fn response_bytes() {
        let plain = upgrade("/chat", &[]);
        assert_eq!(
            response(&plain),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
        let chosen = upgrade("/chat", &[("Sec-WebSocket-Protocol", b"3.1_LEGACY, 3.1_STANDARD")]);
        assert!(response(&chosen).ends_with("xOo=\r\nSec-WebSocket-Protocol: 3.1_LEGACY\r\n\r\n"));
        assert_eq!(chosen.client_type, ClientType::Unsupported);
    }

    /// Each rule of RFC 6455 4.2.1 by the head that breaks only it.
    #[test]
    fn faulty_upgrades() {
        let replaced = |name: &str, value: Option<&'static str>| -> Vec<(&str, &[u8])> {
            let mut fields = good_fields();
            fields.retain(|(found, _)| *found != name);
            let name = FIELDS.iter().find(|(found, _)| *found == name).unwrap().0;
            fields.extend(value.map(|value| (name, value.as_bytes())));
            fields
        };
        let with = |name: &'static str, value: &'static str| -> Vec<(&str, &[u8])> {
            let mut fields = good_fields();
            fields.push((name, value.as_bytes()));
            fields
        };
        let get = "GET / HTTP/1.1";
        let twice = |field| UpgradeFault::Twice { field };
        let cases = [
            ("POST / HTTP/1.1", good_fields(), UpgradeFault::Method),
            ("HEAD / HTTP/1.1", good_fields(), UpgradeFault::Method),
            ("GET / HTTP/1.0", good_fields(), UpgradeFault::Version),
            (get, replaced("Host", None), UpgradeFault::Host),
            (get, with("Content-Length", "1"), UpgradeFault::Body),
            (get, with("Transfer-Encoding", "chunked"), UpgradeFault::Body),
            (get, replaced("Upgrade", None), UpgradeFault::UpgradeField),
            (get, replaced("Upgrade", Some("websockets")), UpgradeFault::UpgradeField),
            (get, replaced("Connection", None), UpgradeFault::ConnectionField),
            (get, replaced("Connection", Some("keep-alive")), UpgradeFault::ConnectionField),
            (get, replaced("Sec-WebSocket-Version", None), UpgradeFault::ProtocolVersionMissing),
            (get, replaced("Sec-WebSocket-Version", Some("8")), UpgradeFault::ProtocolVersion),
            (get, replaced("Sec-WebSocket-Version", Some("13, 8")), UpgradeFault::ProtocolVersion),
            (get, replaced("Sec-WebSocket-Version", Some("013")), UpgradeFault::ProtocolVersion),
            (get, with("Sec-WebSocket-Version", "13"), twice("Sec-WebSocket-Version")),
            (get, replaced("Sec-WebSocket-Key", None), UpgradeFault::Key),
            (get, replaced("Sec-WebSocket-Key", Some("")), UpgradeFault::Key),
            (get, replaced("Sec-WebSocket-Key", Some("dGhlIHNhbXBsZSBub25jZQ=")), UpgradeFault::Key),
            (get, replaced("Sec-WebSocket-Key", Some("dGhlIHNhbXBsZSBub25jZQAA==")), UpgradeFault::Key),
            (get, replaced("Sec-WebSocket-Key", Some("dGhl-HNhbXBsZSBub25jZQ==")), UpgradeFault::Key),
            (get, with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="), twice("Sec-WebSocket-Key")),
            (get, with("Origin", "https://evil.example"), twice("Origin")),
            (get, with("Sec-WebSocket-Protocol", "a b"), UpgradeFault::Protocol),
            (get, with("Sec-WebSocket-Protocol", "ok, no/token"), UpgradeFault::Protocol),
            (get, with("Sec-WebSocket-Protocol", "\u{e4}"), UpgradeFault::Protocol),
            (get, with("Sec-WebSocket-Protocol", "a\tX: y"), UpgradeFault::Protocol),
        ];
        for (line, fields, expected) in cases {
            let shown = format!("{line} {fields:?}");
            assert_eq!(check(line, &fields).unwrap_err(), expected, "{shown}");
        }
        assert_eq!(UpgradeFault::ProtocolVersion.refusal(), Refusal::UpgradeRequired);
        assert_eq!(UpgradeFault::Key.refusal(), Refusal::BadRequest);
    }

    /// What real peers and proxies send in other forms is granted all the same.
    #[test]
    fn tolerated_upgrades() {
        let cases: [&[(&str, &[u8])]; 6] = [
            &[("Connection", b"keep-alive"), ("Upgrade", b"h2c")],
            &[("Content-Length", b"0")],
            &[("Sec-WebSocket-Protocol", b"")],
            &[("Sec-WebSocket-Protocol", b" , a,,a")],
            &[("Sec-WebSocket-Extensions", b"permessage-deflate; client_max_window_bits")],
            &[("User-Agent", b"one"), ("User-Agent", b"two")],
        ];
        for more in cases {
            let granted = upgrade("/", more);
            assert!(!response(&granted).contains("xtensions"));
        }
        let key: (&str, &[u8]) = ("Sec-WebSocket-Key", b"abcdefghijklmnopqrstuv==");
        let mut fields = good_fields();
        fields.retain(|(name, _)| *name != key.0);
        fields.push(key);
        assert!(check("GET / HTTP/1.1", &fields).is_ok(), "unused bits of the key's last digit are set");
    }

    /// The first offered protocol decides the dialect, whatever stands behind it.
    #[test]
    fn protocols() {
        let cases: [(&[&[u8]], &str, ClientType); 5] = [
            (&[], "", ClientType::Unsupported),
            (&[b"3.1_STANDARD"], "3.1_STANDARD", ClientType::Rtcstats),
            (&[b"3.0_JVB , 3.1_STANDARD"], "3.0_JVB", ClientType::Jvb),
            (&[b",", b"1.0_JICOFO", b"3.1_STANDARD"], "1.0_JICOFO", ClientType::Jicofo),
            (&[b"!#$%&'*+-.^_`|~09azAZ"], "!#$%&'*+-.^_`|~09azAZ", ClientType::Unsupported),
        ];
        for (offered, protocol, client_type) in cases {
            let more: Vec<(&str, &[u8])> =
                offered.iter().map(|offer| ("Sec-WebSocket-Protocol", *offer)).collect();
            let granted = upgrade("/", &more);
            assert_eq!((granted.protocol.as_str(), granted.client_type), (protocol, client_type));
        }
    }

    /// Session, reconnect flag and token are read from the query; the token is in nothing that is kept.
    #[test]
    fn queries() {
        // target -> what is kept of it, id, isReconnect, token
        let cases = [
            ("/", "/", None, false, None),
            ("/room?", "/room?", None, false, None),
            (
                "/r?statsSessionId=a-1_B&isReconnect=true",
                "/r?statsSessionId=a-1_B&isReconnect=true",
                Some("a-1_B"),
                true,
                None,
            ),
            (
                "/r?isReconnect=false&statsSessionId=a",
                "/r?isReconnect=false&statsSessionId=a",
                Some("a"),
                false,
                None,
            ),
            ("/r?isReconnect=TRUE", "/r?isReconnect=TRUE", None, false, None),
            ("/r?isReconnect=true+", "/r?isReconnect=true+", None, false, None),
            ("/r?isReconnect=%74rue", "/r?isReconnect=%74rue", None, true, None),
            ("/r?stats%53essionId=%61", "/r?stats%53essionId=%61", Some("a"), false, None),
            (
                "/r?statsSessionId=a&statsSessionId=b",
                "/r?statsSessionId=a&statsSessionId=b",
                Some("a"),
                false,
                None,
            ),
            ("/r?statsSessionId=..%2Fa", "/r?statsSessionId=..%2Fa", None, false, None),
            ("/r?statsSessionId=a%00", "/r?statsSessionId=a%00", None, false, None),
            ("/r?statsSessionId=", "/r?statsSessionId=", None, false, None),
            ("/r?x?statsSessionId=a", "/r?x?statsSessionId=a", None, false, None),
            ("/r?a=%zz&b=%4&c=%", "/r?a=%zz&b=%4&c=%", None, false, None),
            ("/r?rtcstats-token=x.y-z", "/r", None, false, Some("x.y-z")),
            ("/r?a=1&rtcstats%2Dtoken=x%2By&&b=2&rtcstats-token=q", "/r?a=1&&b=2", None, false, Some("x+y")),
            ("ws://h?rtcstats-token=x", "/", None, false, Some("x")),
        ];
        for (target, kept, id, is_reconnect, token) in cases {
            let granted = upgrade(target, &[]);
            assert_eq!(granted.target, kept, "{target}");
            assert_eq!(granted.session_id.as_ref().map(SessionId::as_str), id, "{target}");
            assert_eq!(granted.is_reconnect, is_reconnect, "{target}");
            assert_eq!(granted.token.as_ref().map(Token::reveal), token, "{target}");
            assert_eq!(granted.connection_info("").path(), kept);
        }
    }

    /// The header's token wins over the URL's, other schemes are no tokens, and no `Debug` form shows one.
    #[test]
    fn bearer_tokens() {
        let token = |more: &[(&str, &[u8])], target| upgrade(target, more).token;
        let revealed = |token: Option<Token>| token.map(|token| token.reveal().to_owned());
        assert_eq!(
            revealed(token(&[("Authorization", b"bearer  s3cret")], "/?rtcstats-token=url")),
            Some("s3cret".into())
        );
        assert_eq!(
            revealed(token(&[("Authorization", b"Basic s3cret")], "/?rtcstats-token=url")),
            Some("url".into())
        );
        assert_eq!(token(&[("Authorization", b"Bearer")], "/"), None);
        let shown = format!("{:?}", upgrade("/?rtcstats-token=s3cret&a=b", &[]));
        assert!(shown.contains("Token(***)") && !shown.contains("s3cret"), "{shown}");
    }

    /// Texts of the peer lose control characters and nothing readable; forwarding fields are handed on as they are.
    #[test]
    fn texts_of_the_peer() {
        let granted = upgrade(
            "/r?a",
            &[
                ("User-Agent", b"M\xfcller\t\xc2\x85\xe2\x82\xac"),
                ("X-Forwarded-For", b"203.0.113.7, 10.0.0.1"),
                ("X-Forwarded-For", b"10.0.0.2"),
                ("Forwarded", b"for=\"[2001:db8::1]:4711\""),
            ],
        );
        assert_eq!(granted.user_agent, "M\u{fffd}ller  \u{20ac}");
        assert_eq!(granted.forwarding.x_forwarded_for.as_deref(), Some("203.0.113.7, 10.0.0.1, 10.0.0.2"));
        assert_eq!(granted.forwarding.forwarded.as_deref(), Some("for=\"[2001:db8::1]:4711\""));
        let info = granted.connection_info("safari");
        assert_eq!(info.path(), "/r?a");
        assert_eq!((info.agent.stats_format, info.agent.client_type), ("safari", "UNSUPPORTED_CLIENT"));
    }
}
