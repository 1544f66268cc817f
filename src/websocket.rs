//! WebSocket frames over one read buffer that all connections share.
//!
//! Owns RFC 6455 on the server's side: [`Decoder`] turns received bytes into [`Event`]s, the `push_` functions append
//! frames to what goes out. Pure: no socket, no clock; answering a ping or a close is the connection's business.
//! This module and its children are the only ones that name tungstenite, which supplies the frame header, the table of
//! close codes and the handshake's digest.
//!
//! - **Complete frames are lent, not copied.** A message that lies in the read buffer as a whole is unmasked in place
//!   and borrowed from there; nothing is allocated.
//! - **A connection owns memory only while something is incomplete**: the cut header, the cut message. It grows as
//!   bytes arrive; what is only announced reserves nothing. [`Decoder::held_bytes`] tells how much it is.
//! - **Violations are told as early as their bytes allow**: a size at the frame header, text in the middle of a frame.
//!
//! Stricter than tungstenite's own `WebSocket`: lengths must be in their shortest form (RFC 6455 5.2), close codes must
//! be ones that may be sent (7.4), text is checked before its frame is complete (8.1), fragments are counted. No
//! extension is ever negotiated, so reserved bits are always a violation.

mod decoder;
mod header;
mod outgoing;
mod payload;

use std::borrow::Cow;

use crate::reasons::CloseReason;

pub use decoder::Decoder;
pub use outgoing::{
    CONTROL_BYTES_MAX, REASON_BYTES_MAX, push_binary, push_close, push_ping, push_pong, push_text,
};

/// What bounds a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    /// Bytes of one message, summed over its fragments; checked at each frame header, before its payload.
    pub message_bytes_max: usize,
    /// Frames of one message; at least 1.
    pub message_fragments_max: u32,
}

/// Something that a peer sent, whole. Lent from the read buffer, or owned when it came in pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// A text message.
    Text(Cow<'a, str>),
    /// A binary message.
    Binary(Cow<'a, [u8]>),
    /// A ping, to be answered with [`push_pong`] of the same bytes (at most [`CONTROL_BYTES_MAX`]).
    Ping(Cow<'a, [u8]>),
    /// A pong, asked for or not.
    Pong(Cow<'a, [u8]>),
    /// A close frame; whatever comes behind it is ignored. To be answered with [`push_close`] of the same code.
    Close {
        /// The code, one that may be sent; `None` when the frame was empty.
        code: Option<u16>,
        /// The peer's words, possibly none.
        reason: Cow<'a, str>,
    },
}

/// How a peer broke the rules. Nothing more is decoded behind one.
///
/// The text fits into a close frame and never repeats what the peer sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// RFC 6455 5.1.
    #[error("frame is not masked")]
    Unmasked,
    /// RFC 6455 5.2: no extension was negotiated.
    #[error("frame has reserved bits set")]
    ReservedBits,
    /// RFC 6455 5.2.
    #[error("opcode {opcode} is reserved")]
    ReservedOpcode {
        /// 3 to 7 or 11 to 15.
        opcode: u8,
    },
    /// RFC 6455 5.2: the shortest form must be used.
    #[error("frame length {size_bytes} is not in its shortest form")]
    LongLength {
        /// The length that was spelled too long.
        size_bytes: u64,
    },
    /// RFC 6455 5.2: the most significant bit must be 0.
    #[error("frame length has its highest bit set")]
    LengthHighBit,
    /// RFC 6455 5.5.
    #[error("control frame is fragmented")]
    FragmentedControl,
    /// RFC 6455 5.5.
    #[error("control frame of {size_bytes} bytes is above {CONTROL_BYTES_MAX}")]
    ControlTooLong {
        /// Announced length.
        size_bytes: u64,
    },
    /// RFC 6455 5.4.
    #[error("continuation frame without a message to continue")]
    NothingToContinue,
    /// RFC 6455 5.4.
    #[error("new message inside a fragmented one")]
    MessageInMessage,
    /// RFC 6455 5.5.1: a code has two bytes.
    #[error("close frame has a single byte")]
    HalfCloseCode,
    /// RFC 6455 7.4.
    #[error("close code {code} must not be sent")]
    CloseCode {
        /// The code.
        code: u16,
    },
    /// RFC 6455 8.1.
    #[error("text is not UTF-8")]
    TextNotUtf8,
    /// RFC 6455 5.5.1, 8.1.
    #[error("close reason is not UTF-8")]
    ReasonNotUtf8,
    /// Ours.
    #[error("message of {size_bytes} bytes or more is above {size_bytes_max}")]
    MessageTooBig {
        /// What was received and announced so far.
        size_bytes: u64,
        /// [`FrameLimits::message_bytes_max`].
        size_bytes_max: usize,
    },
    /// Ours.
    #[error("message of {fragments} fragments or more is above {fragments_max}")]
    TooManyFragments {
        /// Frames so far.
        fragments: u32,
        /// [`FrameLimits::message_fragments_max`].
        fragments_max: u32,
    },
}

impl Violation {
    /// The reason with which the connection ends; its code goes into the close frame.
    #[must_use]
    pub fn close_reason(&self) -> CloseReason {
        match self {
            Self::TextNotUtf8 | Self::ReasonNotUtf8 => CloseReason::InvalidUtf8,
            Self::MessageTooBig { .. } | Self::TooManyFragments { .. } => CloseReason::MessageTooBig,
            Self::Unmasked
            | Self::ReservedBits
            | Self::ReservedOpcode { .. }
            | Self::LongLength { .. }
            | Self::LengthHighBit
            | Self::FragmentedControl
            | Self::ControlTooLong { .. }
            | Self::NothingToContinue
            | Self::MessageInMessage
            | Self::HalfCloseCode
            | Self::CloseCode { .. } => CloseReason::ProtocolError,
        }
    }
}

/// The `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key` (RFC 6455 4.2.2, 5.4).
#[must_use]
pub fn accept_key(key: &[u8]) -> String {
    tungstenite::handshake::derive_accept_key(key)
}
