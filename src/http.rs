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
//! | `Content-Length` twice or no number, `Transfer-Encoding` with it, under 1.0, or not `chunked` alone | 400 | 9112 6.1, 6.3 |
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
    /// `PRI * HTTP/2.0`.
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
        Err(httparse::Error::Version) if request.method == Some("PRI") => return Err(HttpFault::Http2),
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
        Refusal::TooManyConnections | Refusal::NoDescriptors | Refusal::Draining | Refusal::DiskFull => {
            "Service Unavailable"
        }
        Refusal::Vanished => return None,
    };
    refusal.status().map(|status| (status, phrase))
}
