//! Frames of ours, appended to a buffer. A server does not mask (RFC 6455 5.1) and has no reason to fragment.

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

/// Longest payload of a control frame (RFC 6455 5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// Longest reason of a close frame: what the code leaves of a control frame.
pub const REASON_BYTES_MAX: usize = CONTROL_BYTES_MAX - 2;

/// Appends a text message of one frame.
pub fn push_text(out: &mut Vec<u8>, text: &str) {
    push_frame(out, OpCode::Data(Data::Text), text.as_bytes());
}

/// Appends a binary message of one frame.
pub fn push_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    push_frame(out, OpCode::Data(Data::Binary), bytes);
}

/// Appends a ping; of a payload above [`CONTROL_BYTES_MAX`] only so much.
pub fn push_ping(out: &mut Vec<u8>, payload: &[u8]) {
    push_frame(out, OpCode::Control(Control::Ping), payload.get(..CONTROL_BYTES_MAX).unwrap_or(payload));
}

/// Appends the answer to a ping of that payload.
pub fn push_pong(out: &mut Vec<u8>, payload: &[u8]) {
    push_frame(out, OpCode::Control(Control::Pong), payload.get(..CONTROL_BYTES_MAX).unwrap_or(payload));
}

/// Appends a close frame; without a code, or with one that must not be sent (RFC 6455 7.4), an empty one.
///
/// The reason is cut to [`REASON_BYTES_MAX`] bytes, between two characters.
pub fn push_close(out: &mut Vec<u8>, code: Option<u16>, reason: &str) {
    let mut payload = Vec::with_capacity(CONTROL_BYTES_MAX);
    if let Some(code) = code.filter(|code| is_sendable(*code)) {
        payload.extend_from_slice(&code.to_be_bytes());
        let (reason, _) = reason.split_at(reason.floor_char_boundary(REASON_BYTES_MAX));
        payload.extend_from_slice(reason.as_bytes());
    }
    push_frame(out, OpCode::Control(Control::Close), &payload);
}

/// Whether a code may stand in a close frame (RFC 6455 7.4, as far as tungstenite's table knows the registry).
pub(super) fn is_sendable(code: u16) -> bool {
    CloseCode::from(code).is_allowed()
}

fn push_frame(out: &mut Vec<u8>, opcode: OpCode, payload: &[u8]) {
    let header = FrameHeader { is_final: true, opcode, ..FrameHeader::default() };
    #[expect(clippy::expect_used, reason = "the only error is one of the writer, and a Vec has none")]
    header.format(payload.len() as u64, out).expect("writing to a Vec does not fail");
    out.extend_from_slice(payload);
}
