//! Frame headers: parsed by tungstenite, held against the rules that need no payload.

use std::io::Cursor;

use tungstenite::error::ProtocolError;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::{CONTROL_BYTES_MAX, Violation};

/// Longest header of a frame: two bytes, eight of length, four of mask.
pub(super) const HEADER_BYTES_MAX: usize = 14;

/// What kind of frame it is, as far as it is allowed to be any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

/// A frame header that obeys every rule which can be checked without knowing the frames before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) is_final: bool,
    pub(super) mask: [u8; 4],
    pub(super) length: u64,
}

/// The header at the beginning of `bytes` and its size, `None` when it is cut off.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, Violation> {
    let mut cursor = Cursor::new(bytes);
    let (header, length) = match FrameHeader::parse(&mut cursor) {
        Ok(Some(parsed)) => parsed,
        Ok(None) => return Ok(None),
        Err(error) => return Err(violation_of(&error)),
    };
    // A slice is shorter than usize::MAX, and the cursor stays inside of it.
    let size = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
    if header.rsv1 || header.rsv2 || header.rsv3 {
        return Err(Violation::ReservedBits);
    }
    let kind = kind_of(header.opcode)?;
    let Some(mask) = header.mask else { return Err(Violation::Unmasked) };
    if length > i64::MAX.unsigned_abs() {
        return Err(Violation::LengthHighBit);
    }
    if header.len(length) != size {
        return Err(Violation::LongLength { size_bytes: length });
    }
    if matches!(kind, Kind::Close | Kind::Ping | Kind::Pong) {
        if !header.is_final {
            return Err(Violation::FragmentedControl);
        }
        if length > CONTROL_BYTES_MAX as u64 {
            return Err(Violation::ControlTooLong { size_bytes: length });
        }
    }
    Ok(Some((Header { kind, is_final: header.is_final, mask, length }, size)))
}

fn kind_of(opcode: OpCode) -> Result<Kind, Violation> {
    match opcode {
        OpCode::Data(Data::Continue) => Ok(Kind::Continuation),
        OpCode::Data(Data::Text) => Ok(Kind::Text),
        OpCode::Data(Data::Binary) => Ok(Kind::Binary),
        OpCode::Control(Control::Close) => Ok(Kind::Close),
        OpCode::Control(Control::Ping) => Ok(Kind::Ping),
        OpCode::Control(Control::Pong) => Ok(Kind::Pong),
        OpCode::Data(Data::Reserved(opcode)) | OpCode::Control(Control::Reserved(opcode)) => {
            Err(Violation::ReservedOpcode { opcode })
        }
    }
}

/// The one error that the parser has of its own is the reserved opcode; reading from a slice does not fail.
fn violation_of(error: &tungstenite::Error) -> Violation {
    if let tungstenite::Error::Protocol(ProtocolError::InvalidOpcode(opcode)) = error {
        Violation::ReservedOpcode { opcode: *opcode }
    } else {
        debug_assert!(false, "parsing a header from a slice failed: {error}");
        Violation::ReservedBits
    }
}
