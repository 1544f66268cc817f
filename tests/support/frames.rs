//! WebSocket frames as a client writes and reads them (RFC 6455 5.2), written without the server's code.

pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xa;

/// A masked client frame. `first_byte` is FIN, the reserved bits and the opcode.
pub(crate) fn masked(first_byte: u8, payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 14);
    push_header(&mut frame, first_byte, payload.len(), key);
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// Appends the header of a masked frame with `payload_bytes` of payload.
pub(crate) fn push_header(out: &mut Vec<u8>, first_byte: u8, payload_bytes: usize, key: [u8; 4]) {
    out.push(first_byte);
    match payload_bytes {
        short @ 0..=125 => out.push(0x80 | short as u8),
        medium @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&key);
}

/// A whole message in one masked frame.
pub(crate) fn message(opcode: u8, payload: &[u8]) -> Vec<u8> {
    masked(0x80 | opcode, payload, [0x3a, 0x91, 0x07, 0xe4])
}

/// A masked close frame; no code means an empty payload.
pub(crate) fn close(code: Option<u16>, reason: &str) -> Vec<u8> {
    let mut payload = Vec::new();
    if let Some(code) = code {
        payload.extend_from_slice(&code.to_be_bytes());
        payload.extend_from_slice(reason.as_bytes());
    }
    message(CLOSE, &payload)
}

/// A frame that came from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

/// Takes one whole server frame from the front of `bytes`, if there is one.
///
/// # Panics
///
/// Panics on what a server must never send: fragments, reserved bits, a mask, a long control frame.
pub(crate) fn take(bytes: &mut Vec<u8>) -> Option<Frame> {
    let (&first, rest) = bytes.split_first()?;
    let &second = rest.first()?;
    assert_eq!(first & 0x70, 0, "the server set reserved bits: {first:#x}");
    assert_eq!(first & 0x80, 0x80, "the server sent a fragment: {first:#x}");
    assert_eq!(second & 0x80, 0, "the server masked a frame");
    let (header_bytes, payload_bytes) = match second {
        126 => (4, u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?).into()),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize),
        short => (2, usize::from(short)),
    };
    assert!(first & 0x8 == 0 || payload_bytes <= 125, "a control frame of {payload_bytes} bytes");
    let payload = bytes.get(header_bytes..header_bytes + payload_bytes)?.to_vec();
    bytes.drain(..header_bytes + payload_bytes);
    Some(Frame { opcode: first & 0xf, payload })
}
