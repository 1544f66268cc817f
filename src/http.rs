//! The bounded request head and the small fixed answers.
//!
//! Owns what is HTTP before (or instead of) a WebSocket: one head on httparse, where it leads, the bytes of health
//! answers and refusals. Pure: never reads a socket, never waits; how long a head may take is the caller's business.
//! A connection carries one request: each answer says `Connection: close`, so bytes behind a refused head mean nothing.
//!
//! Rules: RFC 9110, RFC 9112, our contract 5. Where they leave a choice, or a lenient reading is usual, we are strict,
//! because a proxy in front of us may read the same bytes differently (request smuggling):
//!
//! | in the head | answer | rule |
//! |---|---|---|
//! | empty lines in front of the request line | skipped, counted as head bytes | 9112 2.2 |
//! | a line that ends in LF alone, a CR alone, NUL, another control character | 400 | 9112 2.2, 9110 5.5 |
//! | folded header line, blank in front of the colon, field name that is no token | 400 | 9112 5.1, 5.2 |
//! | method above [`METHOD_BYTES_MAX`], HTTP/0.9, HTTP/2 preface, any version but 1.0 and 1.1 | 400, at once | ours |
//! | target `http://host/path` (absolute-form) | taken as `/path` | 9112 3.2.2 |
//! | target `*` with another method than OPTIONS, `host:port`, one with `#` or a control character | 400 | 9112 3.2 |
//! | raw UTF-8 in the target | taken, as the reference does | ours |
//! | two `Host` fields, a malformed one | 400 | 9112 3.2 |
//! | no `Host` under HTTP/1.1 | 400, but not for the two health checks | 9112 3.2, contract 5 |
//! | `Content-Length` twice or no number | 400 | 9112 6.3 |
//! | `Transfer-Encoding` beside it, under HTTP/1.0, or not `chunked` alone | 400 | 9112 6.1, 6.3 |
//! | more bytes or header fields than allowed | 431 | RFC 6585 5 |
//! | TLS ClientHello | [`HeadStatus::TlsClientHello`] | ours |

use std::borrow::Cow;
use std::mem::MaybeUninit;

use crate::reasons::Refusal;

/// Longest method taken. The longest registered one has 17 bytes; without a limit a peer that sends letters only would
/// look like the beginning of a request until its head is too large.
pub const METHOD_BYTES_MAX: usize = 20;

/// Most header fields that [`HeadLimits::headers_max`] can allow (the parser's table is on the stack).
pub const HEADERS_CEILING: usize = 256;

/// A fatal `handshake_failure` alert: the answer to a TLS ClientHello on a port that does not speak TLS (RFC 8446 6.2).
pub const TLS_ALERT: [u8; 7] = [0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x28];

/// What bounds a request head.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// Bytes up to and including the empty line.
    pub bytes_max: usize,
    /// Header fields; above [`HEADERS_CEILING`] that one counts.
    pub headers_max: usize,
}

/// What the bytes received so far are.
#[derive(Debug)]
pub enum HeadStatus<'b> {
    /// The beginning of an acceptable head: read on.
    Incomplete,
    /// A whole head. The bytes behind it belong to whatever comes next, usually the first frame.
    Complete {
        /// Bytes of the head in the input.
        head_len: usize,
        /// What it says.
        head: Head<'b>,
    },
    /// Not HTTP but the beginning of TLS: answer with [`TLS_ALERT`], counted as [`Refusal::BadRequest`].
    TlsClientHello,
    /// No head that we take, whatever follows.
    Refused(HttpFault),
}

/// Why a head gets no 2xx and no upgrade. The text is the body of the answer: it never repeats what the peer sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HttpFault {
    /// httparse gave up.
    #[error("request head is malformed: {0}")]
    Malformed(#[from] httparse::Error),
    /// LF without CR.
    #[error("request head is malformed: a line ends without carriage return")]
    BareLineFeed,
    /// See [`METHOD_BYTES_MAX`].
    #[error("request method is longer than {METHOD_BYTES_MAX} bytes")]
    MethodTooLong,
    /// The method that is reserved for the preface `PRI * HTTP/2.0` (RFC 9113 3.4).
    #[error("HTTP/2 is not spoken here, only HTTP/1.1 and WebSocket over it")]
    Http2,
    /// Neither origin-form nor absolute-form.
    #[error("request target is not a path")]
    Target,
    /// RFC 9112 3.2.
    #[error("Host is missing")]
    HostMissing,
    /// RFC 9112 3.2.
    #[error("Host occurs more than once")]
    HostTwice,
    /// RFC 9112 3.2.
    #[error("Host is malformed")]
    HostMalformed,
    /// It cannot be told where the request ends.
    #[error("Content-Length or Transfer-Encoding is ambiguous or malformed")]
    BodyFraming,
    /// More bytes than allowed without an end.
    #[error("request head is longer than {head_bytes_max} bytes")]
    TooLong {
        /// The limit.
        head_bytes_max: usize,
    },
    /// More header fields than allowed.
    #[error("request head has more than {headers_max} header fields")]
    TooManyHeaders {
        /// The limit.
        headers_max: usize,
    },
    /// No such resource, and no upgrade.
    #[error("nothing here but a WebSocket endpoint, /healthcheck and /bindcheck")]
    NotFound,
    /// A health check by another method.
    #[error("health checks are GET or HEAD")]
    MethodNotAllowed,
}

impl HttpFault {
    /// The refusal as which this fault is answered and counted.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Malformed(_)
            | Self::BareLineFeed
            | Self::MethodTooLong
            | Self::Http2
            | Self::Target
            | Self::HostMissing
            | Self::HostTwice
            | Self::HostMalformed
            | Self::BodyFraming => Refusal::BadRequest,
            Self::TooLong { .. } | Self::TooManyHeaders { .. } => Refusal::HeadTooLarge,
            Self::NotFound => Refusal::NotFound,
            Self::MethodNotAllowed => Refusal::MethodNotAllowed,
        }
    }
}

/// The method, as far as anything here depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`: every answer goes without its body.
    Head,
    /// `OPTIONS`
    Options,
    /// Any other, or none because there was no head.
    Other,
}

/// HTTP version of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// What follows the head of a request, as announced. Nothing reads bodies yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// Nothing, or zero bytes.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// A whole, well-formed request head, borrowed from the bytes it was parsed from.
#[derive(Debug)]
pub struct Head<'b> {
    /// The method.
    pub method: Method,
    /// Path and query, in origin-form whatever form it was sent in; `*` for `OPTIONS *`. No control characters.
    pub target: Cow<'b, str>,
    /// The version.
    pub version: Version,
    /// What follows.
    pub body: Body,
    headers: Vec<httparse::Header<'b>>,
}

impl<'b> Head<'b> {
    /// The values of all fields of that name, in order; blanks around them are gone, bytes above 0x7f are possible.
    pub fn fields<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'b [u8]> + 'h {
        self.headers
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
    }

    /// The value of the first field of that name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'b [u8]> {
        self.fields(name).next()
    }

    /// The elements of a comma-separated list, over all fields of that name; empty ones are skipped (RFC 9110 5.6.1).
    pub fn elements<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'b [u8]> + 'h {
        self.fields(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|element| !element.is_empty())
    }

    /// Whether a list field has that element; case does not count.
    #[must_use]
    pub fn lists(&self, name: &str, element: &str) -> bool {
        self.elements(name).any(|found| found.eq_ignore_ascii_case(element.as_bytes()))
    }

    /// The path of the target, without its query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target.split_once('?').map_or(&self.target, |(path, _)| path)
    }
}

/// Where a head leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// It wants to become a WebSocket, on whatever path: for `handshake`.
    Upgrade,
    /// A health check: [`write_ok`], or a refusal while draining.
    Health,
}

/// Looks at the bytes that a connection has sent so far.
///
/// The result does not depend on how the bytes were cut, but for one thing: a fault is told as soon as its bytes are
/// there. Parsing starts over at each call; a peer that sends byte by byte costs at most `bytes_max` per byte, about
/// as much as the system call that brought it.
#[must_use]
pub fn parse_head<'b>(bytes: &'b [u8], limits: &HeadLimits) -> HeadStatus<'b> {
    match bytes {
        [0x16] => return HeadStatus::Incomplete,
        [0x16, 0x03, ..] => return HeadStatus::TlsClientHello,
        [b'P', b'R', b'I', b' ', ..] => return HeadStatus::Refused(HttpFault::Http2),
        _ => {}
    }
    let within = bytes.get(..limits.bytes_max).unwrap_or(bytes);
    match parse_within(within, limits) {
        Ok(Some((head_len, head))) => HeadStatus::Complete { head_len, head },
        Ok(None) if bytes.len() >= limits.bytes_max => {
            HeadStatus::Refused(HttpFault::TooLong { head_bytes_max: limits.bytes_max })
        }
        Ok(None) => HeadStatus::Incomplete,
        Err(fault) => HeadStatus::Refused(fault),
    }
}

/// [`parse_head`] on bytes within the limit; `None` when the end is not there yet.
fn parse_within<'b>(bytes: &'b [u8], limits: &HeadLimits) -> Result<Option<(usize, Head<'b>)>, HttpFault> {
    let mut table = [const { MaybeUninit::uninit() }; HEADERS_CEILING];
    let headers_max = limits.headers_max.min(HEADERS_CEILING);
    let mut request = httparse::Request::new(&mut []);
    let parsed = request.parse_with_uninit_headers(bytes, table.get_mut(..headers_max).unwrap_or_default());
    let head_len = match parsed {
        Ok(httparse::Status::Complete(head_len)) => Some(head_len),
        Ok(httparse::Status::Partial) => None,
        Err(httparse::Error::TooManyHeaders) => return Err(HttpFault::TooManyHeaders { headers_max }),
        Err(error) => return Err(HttpFault::Malformed(error)),
    };
    let head_bytes = head_len.and_then(|len| bytes.get(..len)).unwrap_or(bytes);
    refuse_bare_line_feed(head_bytes)?;
    // httparse tells the method and the target as soon as they are complete, so they need not wait for the rest.
    let method = match request.method {
        Some(name) => method_of(name)?,
        None => method_so_far(head_bytes)?,
    };
    let target = request.path.map(|target| origin_form(method, target)).transpose()?;
    let (Some(head_len), Some(target)) = (head_len, target) else { return Ok(None) };
    let version = if request.version == Some(0) { Version::Http10 } else { Version::Http11 };
    let mut head = Head { method, target, version, body: Body::None, headers: request.headers.to_vec() };
    check_host(&head)?;
    head.body = body_framing(&head)?;
    Ok(Some((head_len, head)))
}

/// httparse takes LF alone as the end of a line; see the table above.
fn refuse_bare_line_feed(head: &[u8]) -> Result<(), HttpFault> {
    let mut before = 0;
    for byte in head {
        if *byte == b'\n' && before != b'\r' {
            return Err(HttpFault::BareLineFeed);
        }
        before = *byte;
    }
    Ok(())
}

fn method_of(name: &str) -> Result<Method, HttpFault> {
    match name {
        "GET" => Ok(Method::Get),
        "HEAD" => Ok(Method::Head),
        "OPTIONS" => Ok(Method::Options),
        other if other.len() > METHOD_BYTES_MAX => Err(HttpFault::MethodTooLong),
        _ => Ok(Method::Other),
    }
}

/// Checks the length of a method whose end has not arrived.
fn method_so_far(bytes: &[u8]) -> Result<Method, HttpFault> {
    let empty_lines = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    if bytes.len() - empty_lines > METHOD_BYTES_MAX {
        Err(HttpFault::MethodTooLong)
    } else {
        Ok(Method::Other)
    }
}

/// The path and query of a request target.
fn origin_form(method: Method, target: &str) -> Result<Cow<'_, str>, HttpFault> {
    if target.chars().any(|c| c == '#' || c.is_control()) {
        return Err(HttpFault::Target);
    }
    if target.starts_with('/') || (target == "*" && method == Method::Options) {
        return Ok(Cow::Borrowed(target));
    }
    let (scheme, rest) = target.split_once("://").ok_or(HttpFault::Target)?;
    if !["http", "https", "ws", "wss"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Err(HttpFault::Target);
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if authority.is_empty() || !is_host(authority.as_bytes()) {
        return Err(HttpFault::Target);
    }
    Ok(match path {
        "" => Cow::Borrowed("/"),
        path if path.starts_with('?') => Cow::Owned(format!("/{path}")),
        path => Cow::Borrowed(path),
    })
}

/// Refuses two `Host` fields and a malformed one; a missing one is the matter of those who need it.
fn check_host(head: &Head<'_>) -> Result<(), HttpFault> {
    let mut hosts = head.fields("host");
    let first = hosts.next();
    if hosts.next().is_some() {
        return Err(HttpFault::HostTwice);
    }
    if first.is_some_and(|host| !is_host(host)) { Err(HttpFault::HostMalformed) } else { Ok(()) }
}

/// Whether these are the characters of `uri-host [":" port]` (RFC 3986 3.2.2); user information is not among them.
fn is_host(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(byte))
}

/// How the end of the request is found (RFC 9112 6.3); anything that two readers could see differently is a fault.
fn body_framing(head: &Head<'_>) -> Result<Body, HttpFault> {
    let mut lengths = head.fields("content-length");
    let mut codings = head.fields("transfer-encoding");
    match (lengths.next(), codings.next()) {
        (None, None) => Ok(Body::None),
        (Some(length), None) if lengths.next().is_none() => match decimal(length) {
            Some(0) => Ok(Body::None),
            Some(length) => Ok(Body::Length(length)),
            None => Err(HttpFault::BodyFraming),
        },
        (None, Some(coding))
            if codings.next().is_none()
                && head.version == Version::Http11
                && coding.eq_ignore_ascii_case(b"chunked") =>
        {
            Ok(Body::Chunked)
        }
        _ => Err(HttpFault::BodyFraming),
    }
}

/// `1*DIGIT`; no sign and no blanks, which `str::parse` would let pass.
fn decimal(digits: &[u8]) -> Option<u64> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Decides where a head leads.
///
/// An upgrade is what lists `websocket` under `Upgrade`, or has a `Sec-WebSocket-Key`: the latter alone is what is left
/// when a proxy drops hop-by-hop fields, and deserves a better answer than 404. Another `Upgrade` (`h2c`) is ignored,
/// as RFC 9110 7.8 allows.
///
/// # Errors
/// [`HttpFault::MethodNotAllowed`] for a health check by another method than GET and HEAD, [`HttpFault::HostMissing`]
/// (RFC 9112 3.2) and [`HttpFault::NotFound`] for everything else that is no upgrade.
pub fn route(head: &Head<'_>) -> Result<Route, HttpFault> {
    if head.lists("upgrade", "websocket") || head.field("sec-websocket-key").is_some() {
        return Ok(Route::Upgrade);
    }
    if matches!(head.path(), "/healthcheck" | "/bindcheck") {
        return match head.method {
            Method::Get | Method::Head => Ok(Route::Health),
            Method::Options | Method::Other => Err(HttpFault::MethodNotAllowed),
        };
    }
    if lacks_host(head) { Err(HttpFault::HostMissing) } else { Err(HttpFault::NotFound) }
}

/// Whether a field is missing without which a request of HTTP/1.1 is faulty (RFC 9112 3.2).
#[must_use]
pub fn lacks_host(head: &Head<'_>) -> bool {
    head.version == Version::Http11 && head.field("host").is_none()
}

/// Appends the answer to a health check.
pub fn write_ok(out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
}

/// Appends the answer for a refusal, with `reason` as its one line of text; nothing for [`Refusal::Vanished`].
///
/// `method` is [`Method::Other`] when no head came that far.
pub fn write_refusal(out: &mut Vec<u8>, refusal: Refusal, reason: &str, method: Method) {
    let Some((status, phrase)) = status_line(refusal) else { return };
    // One line, whatever the reason was made of.
    let text: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).chain(['\n']).collect();
    let head = format!(
        "HTTP/1.1 {status} {phrase}\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\n",
        text.len()
    );
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(match status {
        405 => b"Connection: close\r\nAllow: GET, HEAD\r\n\r\n",
        // `Upgrade` is a must for 426, and whoever sends it lists it as a connection option (RFC 9110 7.8, 15.5.22).
        426 => b"Connection: close, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n",
        429 | 503 => b"Connection: close\r\nRetry-After: 5\r\n\r\n",
        _ => b"Connection: close\r\n\r\n".as_slice(),
    });
    if method != Method::Head {
        out.extend_from_slice(text.as_bytes());
    }
}

/// Status and its phrase (RFC 9110 15, RFC 6585).
fn status_line(refusal: Refusal) -> Option<(u16, &'static str)> {
    let phrase = match refusal {
        Refusal::BadRequest => "Bad Request",
        Refusal::NotFound => "Not Found",
        Refusal::MethodNotAllowed => "Method Not Allowed",
        Refusal::HeadTimeout => "Request Timeout",
        Refusal::UpgradeRequired => "Upgrade Required",
        Refusal::TooManyRequests => "Too Many Requests",
        Refusal::HeadTooLarge => "Request Header Fields Too Large",
        Refusal::TooManyConnections
        | Refusal::TooManySessions
        | Refusal::NoDescriptors
        | Refusal::Draining
        | Refusal::DiskFull
        | Refusal::DiskUnwritable => "Service Unavailable",
        Refusal::Tls | Refusal::Vanished => return None,
    };
    refusal.status().map(|status| (status, phrase))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes_max: 512, headers_max: 8 };

    /// The result of [`parse_head`] in a form that can be compared.
    #[derive(Debug, PartialEq, Eq)]
    enum Seen {
        Incomplete,
        Complete { head_len: usize, method: Method, target: String, body: Body },
        Tls,
        Refused(HttpFault),
    }

    fn check(bytes: &[u8]) -> Seen {
        match parse_head(bytes, &LIMITS) {
            HeadStatus::Incomplete => Seen::Incomplete,
            HeadStatus::Complete { head_len, head } => Seen::Complete {
                head_len,
                method: head.method,
                target: head.target.into_owned(),
                body: head.body,
            },
            HeadStatus::TlsClientHello => Seen::Tls,
            HeadStatus::Refused(fault) => Seen::Refused(fault),
        }
    }

    /// A head of these lines, the empty one added.
    fn head(lines: &[&str]) -> Vec<u8> {
        lines.iter().chain([&""]).flat_map(|line| [line, "\r\n"]).collect::<String>().into_bytes()
    }

    /// Every proper prefix of a good head is incomplete, and bytes behind it change nothing.
    #[test]
    fn every_split_point_of_a_head() {
        let good = head(&["", "GET /a?b=c HTTP/1.1", "Host: h", "X:", "User-Agent: \u{fc} \u{20ac}"]);
        for end in 0..good.len() {
            assert_eq!(check(&good[..end]), Seen::Incomplete, "{end}");
        }
        for tail in [b"".as_slice(), b"\x81\x80mask", b"\r\n", b"\0\n\0", &[b'x'; 1000]] {
            let expected = Seen::Complete {
                head_len: good.len(),
                method: Method::Get,
                target: "/a?b=c".into(),
                body: Body::None,
            };
            assert_eq!(check(&[&good, tail].concat()), expected);
        }
    }

    /// What is no head is refused when its first impossible byte arrives, not when the head should end.
    #[test]
    fn garbage_is_refused_at_once() {
        use httparse::Error::{HeaderName, HeaderValue, NewLine, Token, Version};
        let malformed = |error| Seen::Refused(HttpFault::Malformed(error));
        let cases: [(&[u8], Seen); 20] = [
            (b"\0", malformed(Token)),
            (b"hello\r", malformed(Token)),
            (b"{", malformed(Token)),
            (b"\x80", malformed(Token)),
            (b" ", malformed(Token)),
            (b"GET  ", malformed(Token)),
            (b"GET /\r", malformed(Token)),
            (b"GET /a b", malformed(Version)),
            (b"GET / HTTP/2", malformed(Version)),
            (b"GET / HTTP/1.2", malformed(Version)),
            (b"GET / h", malformed(Version)),
            (b"GET / HTTP/1.1\rX", malformed(NewLine)),
            (b"GET / HTTP/1.1\n", Seen::Refused(HttpFault::BareLineFeed)),
            (b"GET / HTTP/1.1\r\nHost: h\n", Seen::Refused(HttpFault::BareLineFeed)),
            (b"\n", Seen::Refused(HttpFault::BareLineFeed)),
            (b"GET / HTTP/1.1\r\nHost ", malformed(HeaderName)),
            (b"GET / HTTP/1.1\r\nA: b\r\n ", malformed(HeaderName)),
            (b"GET / HTTP/1.1\r\nA: b\0", malformed(HeaderValue)),
            (b"GET / HTTP/1.1\r\nA: b\rX", malformed(HeaderValue)),
            (b"PRI ", Seen::Refused(HttpFault::Http2)),
        ];
        for (bytes, expected) in cases {
            assert_eq!(check(bytes), expected, "{:?}", bytes.escape_ascii().to_string());
            let (_, before) = bytes.split_last().unwrap();
            assert_eq!(
                check(before),
                Seen::Incomplete,
                "one byte less of {:?}",
                bytes.escape_ascii().to_string()
            );
        }
    }

    /// A method that never ends is refused before the head is too large, after empty lines too.
    #[test]
    fn endless_method() {
        let letters = "A".repeat(METHOD_BYTES_MAX);
        assert_eq!(check(letters.as_bytes()), Seen::Incomplete);
        for long in [format!("{letters}A"), format!("\r\n{letters}A"), format!("{letters}A / HTTP/1.1\r\n")] {
            assert_eq!(check(long.as_bytes()), Seen::Refused(HttpFault::MethodTooLong), "{long:?}");
        }
    }

    /// The first bytes of TLS are told apart from garbage; one byte decides nothing.
    #[test]
    fn tls_is_recognised() {
        assert_eq!(check(b"\x16"), Seen::Incomplete);
        assert_eq!(check(b"\x16\x03"), Seen::Tls);
        assert_eq!(check(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"), Seen::Tls);
        assert_eq!(check(b"\x16\x04"), Seen::Refused(HttpFault::Malformed(httparse::Error::Token)));
    }

    /// Exactly the allowed number of bytes and fields passes, wherever the input is cut; one more is refused.
    #[test]
    fn limits_are_exact() {
        let sized = |size: usize| {
            let empty = head(&["GET / HTTP/1.1", "Host: h", "A: "]).len();
            head(&["GET / HTTP/1.1", "Host: h", &format!("A: {}", "x".repeat(size - empty))])
        };
        let too_long = Seen::Refused(HttpFault::TooLong { head_bytes_max: LIMITS.bytes_max });
        assert!(matches!(check(&sized(LIMITS.bytes_max)), Seen::Complete { head_len: 512, .. }));
        assert_eq!(check(&sized(LIMITS.bytes_max + 1)), too_long);
        assert_eq!(check(&sized(LIMITS.bytes_max + 1)[..LIMITS.bytes_max]), too_long);
        assert_eq!(check(&sized(LIMITS.bytes_max + 1)[..LIMITS.bytes_max - 1]), Seen::Incomplete);
        assert_eq!(check("\r\n".repeat(LIMITS.bytes_max).as_bytes()), too_long);

        let mut lines = vec!["GET / HTTP/1.1", "Host: h"];
        lines.resize(1 + LIMITS.headers_max, "A: b");
        assert!(matches!(check(&head(&lines)), Seen::Complete { .. }));
        lines.push("A: b");
        assert_eq!(
            check(&head(&lines)),
            Seen::Refused(HttpFault::TooManyHeaders { headers_max: LIMITS.headers_max })
        );
    }

    /// The forms of a request target (RFC 9112 3.2).
    #[test]
    fn targets() {
        let cases = [
            ("GET", "/", Ok("/")),
            ("GET", "//a/../b?x=%00&y", Ok("//a/../b?x=%00&y")),
            ("GET", "/caf\u{e9}|^`{}", Ok("/caf\u{e9}|^`{}")),
            ("GET", "http://host:80/a?b", Ok("/a?b")),
            ("GET", "WSS://[::1]:80", Ok("/")),
            ("GET", "http://host?b", Ok("/?b")),
            ("OPTIONS", "*", Ok("*")),
            ("GET", "*", Err(HttpFault::Target)),
            ("CONNECT", "host:443", Err(HttpFault::Target)),
            ("GET", "a", Err(HttpFault::Target)),
            ("GET", "ftp://host/", Err(HttpFault::Target)),
            ("GET", "http:///a", Err(HttpFault::Target)),
            ("GET", "http://user@host/a", Err(HttpFault::Target)),
            ("GET", "/a#b", Err(HttpFault::Target)),
            ("GET", "/a\u{85}b", Err(HttpFault::Target)),
        ];
        for (method, target, expected) in cases {
            let seen = check(&head(&[&format!("{method} {target} HTTP/1.1"), "Host: h"]));
            match (seen, expected) {
                (Seen::Complete { target: seen, .. }, Ok(expected)) => assert_eq!(seen, expected),
                (Seen::Refused(fault), Err(expected)) => assert_eq!(fault, expected, "{target}"),
                (seen, expected) => panic!("{method} {target}: {seen:?} instead of {expected:?}"),
            }
        }
        // Known as soon as the target is complete.
        assert_eq!(check(b"GET a HTTP/1."), Seen::Refused(HttpFault::Target));
    }

    /// Fields that two readers could understand differently are refused; the others are not.
    #[test]
    fn host_and_body_framing() {
        let cases: [(&[&str], Result<Body, HttpFault>); 21] = [
            (&["Host: h"], Ok(Body::None)),
            (&["hOST:h:80"], Ok(Body::None)),
            (&["Host:"], Ok(Body::None)),
            (&[], Ok(Body::None)),
            (&["Host: h", "Host: h"], Err(HttpFault::HostTwice)),
            (&["Host: a, b"], Err(HttpFault::HostMalformed)),
            (&["Host: a/b"], Err(HttpFault::HostMalformed)),
            (&["Host: a@b"], Err(HttpFault::HostMalformed)),
            (&["Content-Length: 0"], Ok(Body::None)),
            (&["Content-Length: 5"], Ok(Body::Length(5))),
            (&["Content-Length: 5", "Content-Length: 5"], Err(HttpFault::BodyFraming)),
            (&["Content-Length: 5, 5"], Err(HttpFault::BodyFraming)),
            (&["Content-Length: +5"], Err(HttpFault::BodyFraming)),
            (&["Content-Length: -1"], Err(HttpFault::BodyFraming)),
            (&["Content-Length:"], Err(HttpFault::BodyFraming)),
            (&["Content-Length: 18446744073709551616"], Err(HttpFault::BodyFraming)),
            (&["Transfer-Encoding: Chunked"], Ok(Body::Chunked)),
            (&["Transfer-Encoding: gzip, chunked"], Err(HttpFault::BodyFraming)),
            (&["Transfer-Encoding: identity"], Err(HttpFault::BodyFraming)),
            (&["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], Err(HttpFault::BodyFraming)),
            (&["Transfer-Encoding: chunked", "Content-Length: 0"], Err(HttpFault::BodyFraming)),
        ];
        for (fields, expected) in cases {
            let seen = check(&head(&[&["POST / HTTP/1.1"], fields].concat()));
            match (seen, expected) {
                (Seen::Complete { body, .. }, Ok(expected)) => assert_eq!(body, expected, "{fields:?}"),
                (Seen::Refused(fault), Err(expected)) => assert_eq!(fault, expected, "{fields:?}"),
                (seen, expected) => panic!("{fields:?}: {seen:?} instead of {expected:?}"),
            }
        }
        assert_eq!(
            check(&head(&["POST / HTTP/1.0", "Transfer-Encoding: chunked"])),
            Seen::Refused(HttpFault::BodyFraming)
        );
    }

    /// List fields are read over all their lines, without regard to case, blanks and empty elements.
    #[test]
    fn list_elements() {
        let bytes = head(&[
            "GET / HTTP/1.1",
            "Connection: keep-alive ,, UPGRADE\t",
            "connection:",
            "CONNECTION: x y",
        ]);
        let HeadStatus::Complete { head, .. } = parse_head(&bytes, &LIMITS) else { panic!("incomplete") };
        let elements: Vec<&[u8]> = head.elements("connection").collect();
        assert_eq!(elements, [b"keep-alive".as_slice(), b"UPGRADE", b"x y"]);
        assert!(head.lists("connection", "upgrade") && !head.lists("connection", "x"));
    }

    /// Where heads lead (issue "a session", contract 5).
    #[test]
    fn routes() {
        const UPGRADE: &str = "Upgrade: WebSocket";
        const KEY: &str = "Sec-WebSocket-Key: x";
        let cases: [(&str, &[&str], Result<Route, HttpFault>); 17] = [
            ("GET /healthcheck HTTP/1.1", &["Host: h"], Ok(Route::Health)),
            ("HEAD /bindcheck?x=1 HTTP/1.1", &["Host: h"], Ok(Route::Health)),
            ("GET /healthcheck HTTP/1.1", &[], Ok(Route::Health)),
            ("GET /bindcheck HTTP/1.0", &[], Ok(Route::Health)),
            ("GET /healthcheck HTTP/1.1", &["Upgrade: h2c"], Ok(Route::Health)),
            ("POST /healthcheck HTTP/1.1", &["Host: h"], Err(HttpFault::MethodNotAllowed)),
            ("OPTIONS /bindcheck HTTP/1.1", &["Host: h"], Err(HttpFault::MethodNotAllowed)),
            ("get /bindcheck HTTP/1.1", &["Host: h"], Err(HttpFault::MethodNotAllowed)),
            ("GET /healthcheck/ HTTP/1.1", &["Host: h"], Err(HttpFault::NotFound)),
            ("GET / HTTP/1.1", &["Host: h"], Err(HttpFault::NotFound)),
            ("POST / HTTP/1.0", &[], Err(HttpFault::NotFound)),
            ("OPTIONS * HTTP/1.1", &["Host: h"], Err(HttpFault::NotFound)),
            ("GET / HTTP/1.1", &[], Err(HttpFault::HostMissing)),
            ("GET / HTTP/1.1", &[UPGRADE], Ok(Route::Upgrade)),
            ("GET /healthcheck HTTP/1.1", &["Upgrade: h2c, websocket"], Ok(Route::Upgrade)),
            ("POST / HTTP/1.1", &[UPGRADE], Ok(Route::Upgrade)),
            ("GET / HTTP/1.1", &[KEY], Ok(Route::Upgrade)),
        ];
        for (line, fields, expected) in cases {
            let bytes = head(&[&[line], fields].concat());
            let HeadStatus::Complete { head, .. } = parse_head(&bytes, &LIMITS) else { panic!("{line}") };
            assert_eq!(route(&head), expected, "{line} {fields:?}");
        }
    }

    fn refusal(refusal: Refusal, reason: &str, method: Method) -> String {
        let mut out = Vec::new();
        write_refusal(&mut out, refusal, reason, method);
        String::from_utf8(out).unwrap()
    }

    /// The answers, byte for byte.
    #[test]
    fn answers() {
        let mut ok = Vec::new();
        write_ok(&mut ok);
        assert_eq!(ok, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        assert_eq!(
            refusal(Refusal::NotFound, "no", Method::Get),
            "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 3\r\n\
             Connection: close\r\n\r\nno\n"
        );
        assert_eq!(
            refusal(Refusal::MethodNotAllowed, "no", Method::Head),
            "HTTP/1.1 405 Method Not Allowed\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 3\r\n\
             Connection: close\r\nAllow: GET, HEAD\r\n\r\n"
        );
        assert_eq!(
            refusal(Refusal::UpgradeRequired, "no", Method::Get),
            "HTTP/1.1 426 Upgrade Required\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 3\r\n\
             Connection: close, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\nno\n"
        );
        for limited in [Refusal::TooManyRequests, Refusal::Draining, Refusal::DiskFull] {
            assert!(refusal(limited, "no", Method::Other).contains("\r\nRetry-After: 5\r\n"));
        }
        assert_eq!(refusal(Refusal::Vanished, "no", Method::Other), "");
    }

    /// A reason stays one line, and its length is counted in bytes.
    #[test]
    fn reasons_cannot_split_an_answer() {
        let answer = refusal(Refusal::BadRequest, "a\r\nX: y\u{85}\u{20ac}", Method::Other);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, "a  X: y \u{20ac}\n");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
    }

    /// Every refusal is answered with the status that is counted for it.
    #[test]
    fn every_refusal_has_its_status_line() {
        for one in Refusal::ALL {
            let answer = refusal(*one, "no", Method::Other);
            match one.status() {
                Some(status) => assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}"),
                None => assert_eq!(answer, ""),
            }
        }
    }
}
