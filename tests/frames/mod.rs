//! The frame decoder against tungstenite's `WebSocket` over the same bytes. Shared by `tests/websocket.rs` and by the
//! fuzz target `frames`, which includes this file.

use std::io::{self, Read, Write};

use rtcstats_server::websocket::{Decoder, Event, FrameLimits, Violation};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

/// Small, so that short inputs reach it; above 125, because tungstenite applies its frame limit to control frames too.
/// tungstenite does not count fragments.
pub(crate) const LIMITS: FrameLimits =
    FrameLimits { message_bytes_max: 300, message_fragments_max: u32::MAX };

/// An event in a form that can be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

/// How our decoder ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// All bytes taken; `held` of them, and what they cost, wait for more.
    Open {
        held: bool,
    },
    /// A close frame.
    Closed,
    Failed(Violation),
}

/// Runs our decoder over `bytes` in pieces of these sizes, the last of which repeats; each has a buffer of its own.
///
/// # Panics
/// When more memory is held than what arrived accounts for, or input is left over.
pub(crate) fn ours(bytes: &[u8], pieces: &[usize]) -> (Vec<Seen>, End) {
    let mut decoder = Decoder::default();
    let mut seen = Vec::new();
    let mut rest = bytes;
    let mut arrived_since_idle = 0;
    let mut pieces = pieces.iter().copied();
    let mut size = bytes.len().max(1);
    while !rest.is_empty() {
        size = pieces.next().unwrap_or(size).clamp(1, rest.len());
        let (piece, behind) = rest.split_at(size);
        rest = behind;
        arrived_since_idle += size;
        let mut buffer = piece.to_vec();
        let mut input = buffer.as_mut_slice();
        loop {
            match decoder.feed(&mut input, &LIMITS) {
                Ok(Some(event)) => seen.push(seen_of(event)),
                Ok(None) => break,
                Err(violation) => {
                    assert_eq!(decoder.held_bytes(), 0, "memory is held behind a violation");
                    return (seen, End::Failed(violation));
                }
            }
        }
        assert!(input.is_empty(), "None with {} bytes left", input.len());
        let held = decoder.held_bytes();
        assert!(held <= 256 + 2 * arrived_since_idle, "{held} bytes held for {arrived_since_idle}");
        if held == 0 {
            arrived_since_idle = 0;
        }
    }
    if decoder.is_closed() {
        assert_eq!(decoder.held_bytes(), 0, "memory is held behind a close frame");
        return (seen, End::Closed);
    }
    (seen, End::Open { held: decoder.held_bytes() > 0 })
}

fn seen_of(event: Event<'_>) -> Seen {
    match event {
        Event::Text(text) => Seen::Text(text.into_owned()),
        Event::Binary(bytes) => Seen::Binary(bytes.into_owned()),
        Event::Ping(bytes) => Seen::Ping(bytes.into_owned()),
        Event::Pong(bytes) => Seen::Pong(bytes.into_owned()),
        Event::Close { code, reason } => Seen::Close(code.map(|code| (code, reason.into_owned()))),
    }
}

/// How tungstenite ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TheirEnd {
    /// It waits for more.
    Open,
    /// A close frame.
    Closed,
    /// A protocol error.
    Protocol,
    /// Bad UTF-8.
    Utf8,
    /// Over a limit.
    Capacity,
}

/// What a peer sent and then closed its side; what is sent to it is dropped.
struct Sent<'b>(&'b [u8]);

impl Read for Sent<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Sent<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs tungstenite, as a server, over the same bytes.
///
/// # Panics
/// When it ends in a way that it does not document.
pub(crate) fn theirs(bytes: &[u8]) -> (Vec<Seen>, TheirEnd) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(LIMITS.message_bytes_max))
        .max_frame_size(Some(LIMITS.message_bytes_max));
    let mut socket = WebSocket::from_raw_socket(Sent(bytes), Role::Server, Some(config));
    let mut seen = Vec::new();
    let end = loop {
        match socket.read() {
            Ok(Message::Text(text)) => seen.push(Seen::Text(text.as_str().to_owned())),
            Ok(Message::Binary(bytes)) => seen.push(Seen::Binary(bytes.to_vec())),
            Ok(Message::Ping(bytes)) => seen.push(Seen::Ping(bytes.to_vec())),
            Ok(Message::Pong(bytes)) => seen.push(Seen::Pong(bytes.to_vec())),
            Ok(Message::Close(frame)) => {
                seen.push(Seen::Close(
                    frame.map(|frame| (frame.code.into(), frame.reason.as_str().to_owned())),
                ));
                break TheirEnd::Closed;
            }
            Err(Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake)) => {
                break TheirEnd::Open;
            }
            Err(Error::Protocol(_)) => break TheirEnd::Protocol,
            Err(Error::Utf8(_)) => break TheirEnd::Utf8,
            Err(Error::Capacity(_)) => break TheirEnd::Capacity,
            other => panic!("tungstenite: {other:?}"),
        }
    };
    (seen, end)
}

/// Demands that our decoder, however the bytes are cut, says what tungstenite says, but for the differences listed in
/// docs/conformance.md, in all of which we refuse and tungstenite does not, or not yet.
///
/// # Panics
/// When they disagree.
pub(crate) fn agree(bytes: &[u8], pieces: &[usize]) {
    let (ours_seen, ours_end) = ours(bytes, &[]);
    for cut in [&[1], pieces] {
        let (cut_seen, cut_end) = ours(bytes, cut);
        assert_eq!((&cut_seen, cut_end), (&ours_seen, ours_end), "cut into {cut:?}");
    }
    let (theirs_seen, theirs_end) = theirs(bytes);
    let in_step = theirs_seen == ours_seen;
    let may_be = |ends: &[TheirEnd]| in_step && (theirs_end == TheirEnd::Open || ends.contains(&theirs_end));
    let agreed = match ours_end {
        End::Open { .. } => in_step && theirs_end == TheirEnd::Open,
        End::Closed => in_step && theirs_end == TheirEnd::Closed,
        End::Failed(violation) => match violation {
            // Rules that tungstenite does not have: it goes on, so it may see more.
            Violation::LongLength { .. } | Violation::LengthHighBit | Violation::CloseCode { .. } => {
                theirs_seen.starts_with(&ours_seen)
            }
            // Rules that it has too, but applies when the payload is there.
            Violation::TextNotUtf8 | Violation::ReasonNotUtf8 => may_be(&[TheirEnd::Utf8]),
            Violation::MessageTooBig { .. } => may_be(&[TheirEnd::Capacity]),
            // The same, and of two faults in one header it looks at the size first.
            Violation::Unmasked
            | Violation::ReservedBits
            | Violation::ReservedOpcode { .. }
            | Violation::FragmentedControl
            | Violation::ControlTooLong { .. }
            | Violation::NothingToContinue
            | Violation::MessageInMessage
            | Violation::HalfCloseCode => may_be(&[TheirEnd::Protocol, TheirEnd::Capacity]),
            Violation::TooManyFragments { .. } => false,
        },
    };
    assert!(
        agreed,
        "ours: {ours_end:?} after {ours_seen:?}\ntheirs: {theirs_end:?} after {theirs_seen:?}\nbytes: {bytes:x?}"
    );
}
