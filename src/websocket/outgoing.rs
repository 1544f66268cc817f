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

#[cfg(test)]
mod tests {
    use super::*;

    fn text_header(len: usize) -> Vec<u8> {
        let mut out = Vec::new();
        push_text(&mut out, &"x".repeat(len));
        out.truncate(out.len() - len);
        out
    }

    /// The shortest form of each length, unmasked and final.
    #[test]
    fn headers() {
        assert_eq!(text_header(0), [0x81, 0]);
        assert_eq!(text_header(125), [0x81, 125]);
        assert_eq!(text_header(126), [0x81, 126, 0, 126]);
        assert_eq!(text_header(65535), [0x81, 126, 0xff, 0xff]);
        assert_eq!(text_header(65536), [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    /// Frames are appended behind what is there.
    #[test]
    fn frames_follow_each_other() {
        let mut out = b"101".to_vec();
        push_binary(&mut out, b"\xff");
        push_ping(&mut out, b"p");
        push_pong(&mut out, b"q");
        push_close(&mut out, Some(1001), "bye");
        push_close(&mut out, None, "never sent");
        assert_eq!(out, b"101\x82\x01\xff\x89\x01p\x8a\x01q\x88\x05\x03\xe9bye\x88\x00");
    }

    /// Control frames stay within 125 bytes; a reason is cut between two characters.
    #[test]
    fn control_frames_are_bounded() {
        let mut out = Vec::new();
        push_ping(&mut out, &[7; 126]);
        assert_eq!((out.len(), out[1]), (2 + 125, 125));
        for (reason, kept) in
            [("x".repeat(124), 123), ("\u{20ac}".repeat(42), 123), ("\u{e9}".repeat(62), 122)]
        {
            let mut out = Vec::new();
            push_close(&mut out, Some(1002), &reason);
            assert_eq!(std::str::from_utf8(&out[4..]).unwrap(), &reason[..kept]);
        }
    }

    /// A code that must not be sent is left out, and the reason with it, rather than sent.
    #[test]
    fn forbidden_codes_are_not_sent() {
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
            let mut out = Vec::new();
            push_close(&mut out, Some(code), "x");
            assert_eq!(out, [0x88, 0], "{code}");
        }
    }
}
