//! Bytes of one connection -> events.

use std::borrow::Cow;
use std::mem;

use super::header::{self, HEADER_BYTES_MAX, Header, Kind};
use super::outgoing::is_sendable;
use super::payload::{TextGatherer, growth, unmask};
use super::{Event, FrameLimits, Violation};

/// The decoder of one connection: 16 bytes, and a heap block only while something is incomplete.
#[derive(Debug, Default)]
pub struct Decoder(State);

#[derive(Debug, Default)]
enum State {
    /// Between two messages.
    #[default]
    Idle,
    /// Something is incomplete: a header, a frame, a message.
    Partial(Box<Partial>),
    /// A close frame or a violation was seen: the rest is ignored.
    Closed,
}

impl Decoder {
    /// Decodes up to the next event and takes its bytes, header included, from the front of `input`.
    ///
    /// Called again until it returns `None`, which means that the input is used up. Payloads are unmasked in place, so
    /// bytes that were taken are no longer what was received.
    ///
    /// # Errors
    /// The first [`Violation`]; afterwards all input is ignored, as it is behind a close frame.
    pub fn feed<'e, 'i: 'e>(
        &mut self,
        input: &mut &'i mut [u8],
        limits: &FrameLimits,
    ) -> Result<Option<Event<'e>>, Violation> {
        let result = match mem::take(&mut self.0) {
            State::Idle => self.feed_idle(input, limits),
            State::Partial(partial) => self.feed_partial(partial, input, limits),
            State::Closed => {
                self.0 = State::Closed;
                Ok(None)
            }
        };
        if matches!(result, Err(_) | Ok(Some(Event::Close { .. }))) {
            self.0 = State::Closed;
        }
        if matches!(self.0, State::Closed) {
            *input = &mut [];
        }
        result
    }

    /// Bytes on the heap; 0 between two messages.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        match &self.0 {
            State::Idle | State::Closed => 0,
            State::Partial(partial) => mem::size_of::<Partial>() + partial.buffer_bytes(),
        }
    }

    /// Whether a close frame or a violation has ended the stream.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.0, State::Closed)
    }

    /// The usual case: a whole message, or a whole control frame, lies in the buffer.
    fn feed_idle<'e, 'i: 'e>(
        &mut self,
        input: &mut &'i mut [u8],
        limits: &FrameLimits,
    ) -> Result<Option<Event<'e>>, Violation> {
        if input.is_empty() {
            return Ok(None);
        }
        if let Some((header, header_size)) = header::parse(input)? {
            check_in_context(&header, None, limits)?;
            if header.is_final
                && let Some(payload) = take_frame(input, header_size, header.length)
            {
                unmask(payload, header.mask);
                return lent(header.kind, payload).map(Some);
            }
        }
        self.feed_partial(Box::default(), input, limits)
    }

    /// The general case. What stays incomplete goes back into the state; everything else is released here.
    fn feed_partial<'e, 'i: 'e>(
        &mut self,
        mut partial: Box<Partial>,
        input: &mut &'i mut [u8],
        limits: &FrameLimits,
    ) -> Result<Option<Event<'e>>, Violation> {
        let event = partial.advance(input, limits)?;
        if !partial.is_empty() {
            self.0 = State::Partial(partial);
        }
        Ok(event)
    }
}

/// What of a connection is incomplete.
#[derive(Debug, Default)]
struct Partial {
    stage: Stage,
    /// The message whose last frame has not been received.
    message: Option<Message>,
    /// The bytes so far of a control frame, which may come between the fragments of a message.
    control: Vec<u8>,
}

#[derive(Debug)]
enum Stage {
    /// Within a header, or in front of one.
    Header { bytes: [u8; HEADER_BYTES_MAX], len: u8 },
    /// Within the payload of this frame: its `length` is what is missing, its `mask` begins at the next byte.
    Payload(Header),
}

impl Default for Stage {
    fn default() -> Self {
        Self::Header { bytes: [0; HEADER_BYTES_MAX], len: 0 }
    }
}

/// A message in progress.
#[derive(Debug)]
struct Message {
    content: Content,
    /// Payload bytes received and announced by its frames so far.
    size_bytes: u64,
    /// Frames so far.
    fragments: u32,
}

#[derive(Debug)]
enum Content {
    Text(TextGatherer),
    Binary(Vec<u8>),
}

impl Partial {
    fn is_empty(&self) -> bool {
        self.message.is_none() && matches!(self.stage, Stage::Header { len: 0, .. })
    }

    fn buffer_bytes(&self) -> usize {
        let message = self.message.as_ref().map_or(0, |message| match &message.content {
            Content::Text(text) => text.capacity(),
            Content::Binary(bytes) => bytes.capacity(),
        });
        message + self.control.capacity()
    }

    /// Takes headers and payloads from the input until a message or a control frame is whole, or the input is used up.
    fn advance<'e>(
        &mut self,
        input: &mut &mut [u8],
        limits: &FrameLimits,
    ) -> Result<Option<Event<'e>>, Violation> {
        loop {
            let Some(header) = self.next_header(input, limits)? else { return Ok(None) };
            let Some(frame) = self.take_payload(header, input)? else { return Ok(None) };
            if let Some(event) = self.finish_frame(frame)? {
                return Ok(Some(event));
            }
        }
    }

    /// The header of the current frame, new or from before; `None` when it is cut off.
    fn next_header(
        &mut self,
        input: &mut &mut [u8],
        limits: &FrameLimits,
    ) -> Result<Option<Header>, Violation> {
        let (mut bytes, len) = match self.stage {
            Stage::Payload(header) => return Ok(Some(header)),
            Stage::Header { bytes, len } => (bytes, usize::from(len)),
        };
        // As many bytes behind those from before as a header can have; the parser says how many of them it needed.
        let mut filled = len;
        for (slot, byte) in bytes.iter_mut().skip(len).zip(input.iter()) {
            *slot = *byte;
            filled += 1;
        }
        let Some((header, size)) = header::parse(bytes.get(..filled).unwrap_or_default())? else {
            skip(input, filled - len);
            // At most 14.
            self.stage = Stage::Header { bytes, len: u8::try_from(filled).unwrap_or(u8::MAX) };
            return Ok(None);
        };
        skip(input, size - len);
        check_in_context(&header, self.message.as_ref(), limits)?;
        self.begin_frame(&header);
        Ok(Some(header))
    }

    /// Notes a new data frame with its message.
    fn begin_frame(&mut self, header: &Header) {
        let content = match header.kind {
            Kind::Text => Content::Text(TextGatherer::default()),
            Kind::Binary => Content::Binary(Vec::new()),
            Kind::Continuation => {
                if let Some(message) = &mut self.message {
                    message.size_bytes += header.length;
                    message.fragments += 1;
                }
                return;
            }
            Kind::Close | Kind::Ping | Kind::Pong => return,
        };
        self.message = Some(Message { content, size_bytes: header.length, fragments: 1 });
    }

    /// Takes what is there of a frame's payload. The frame when that was the rest of it; otherwise it is remembered.
    fn take_payload(
        &mut self,
        mut header: Header,
        input: &mut &mut [u8],
    ) -> Result<Option<Header>, Violation> {
        let there = usize::try_from(header.length).unwrap_or(usize::MAX).min(input.len());
        let piece = skip(input, there);
        unmask(piece, header.mask);
        header.length -= piece.len() as u64;
        header.mask.rotate_left(piece.len() % 4);
        self.gather(&header, piece)?;
        if header.length > 0 {
            self.stage = Stage::Payload(header);
            return Ok(None);
        }
        self.stage = Stage::default();
        Ok(Some(header))
    }

    /// Adds unmasked bytes to what they are part of.
    fn gather(&mut self, header: &Header, piece: &[u8]) -> Result<(), Violation> {
        let ahead = header.length;
        match (header.kind, &mut self.message) {
            (Kind::Close | Kind::Ping | Kind::Pong, _) => self.control.extend_from_slice(piece),
            (_, Some(Message { content: Content::Text(text), .. })) => text.push(piece, ahead)?,
            (_, Some(Message { content: Content::Binary(bytes), .. })) => {
                bytes.reserve_exact(growth(bytes.len(), bytes.capacity(), piece.len(), ahead));
                bytes.extend_from_slice(piece);
            }
            (Kind::Text | Kind::Binary | Kind::Continuation, None) => {
                debug_assert!(false, "a data frame without its message");
            }
        }
        Ok(())
    }

    /// What a frame that is complete now stands for: nothing when its message goes on.
    fn finish_frame<'e>(&mut self, frame: Header) -> Result<Option<Event<'e>>, Violation> {
        match frame.kind {
            Kind::Close => close_of(&mem::take(&mut self.control)).map(|event| Some(event.into_owned())),
            Kind::Ping => Ok(Some(Event::Ping(mem::take(&mut self.control).into()))),
            Kind::Pong => Ok(Some(Event::Pong(mem::take(&mut self.control).into()))),
            Kind::Text | Kind::Binary | Kind::Continuation if !frame.is_final => Ok(None),
            Kind::Text | Kind::Binary | Kind::Continuation => match self.message.take() {
                Some(Message { content: Content::Text(text), .. }) => {
                    Ok(Some(Event::Text(text.finish()?.into())))
                }
                Some(Message { content: Content::Binary(bytes), .. }) => {
                    Ok(Some(Event::Binary(bytes.into())))
                }
                None => Ok(None),
            },
        }
    }
}

impl Event<'_> {
    fn into_owned<'e>(self) -> Event<'e> {
        match self {
            Self::Text(text) => Event::Text(text.into_owned().into()),
            Self::Binary(bytes) => Event::Binary(bytes.into_owned().into()),
            Self::Ping(bytes) => Event::Ping(bytes.into_owned().into()),
            Self::Pong(bytes) => Event::Pong(bytes.into_owned().into()),
            Self::Close { code, reason } => Event::Close { code, reason: reason.into_owned().into() },
        }
    }
}

/// The rules that need the message in progress, and its limits (RFC 6455 5.4; sizes before any payload).
fn check_in_context(
    header: &Header,
    message: Option<&Message>,
    limits: &FrameLimits,
) -> Result<(), Violation> {
    let (size_before, fragments_before) = match (header.kind, message) {
        (Kind::Close | Kind::Ping | Kind::Pong, _) => return Ok(()),
        (Kind::Continuation, None) => return Err(Violation::NothingToContinue),
        (Kind::Text | Kind::Binary, Some(_)) => return Err(Violation::MessageInMessage),
        (Kind::Text | Kind::Binary, None) => (0, 0),
        (Kind::Continuation, Some(message)) => (message.size_bytes, message.fragments),
    };
    let size_bytes = size_before.saturating_add(header.length);
    if size_bytes > limits.message_bytes_max as u64 {
        return Err(Violation::MessageTooBig { size_bytes, size_bytes_max: limits.message_bytes_max });
    }
    let fragments = fragments_before.saturating_add(1);
    if fragments > limits.message_fragments_max {
        return Err(Violation::TooManyFragments { fragments, fragments_max: limits.message_fragments_max });
    }
    Ok(())
}

/// The event of a final frame whose unmasked payload is whole.
fn lent(kind: Kind, payload: &[u8]) -> Result<Event<'_>, Violation> {
    match kind {
        Kind::Text => simdutf8::basic::from_utf8(payload)
            .map(|text| Event::Text(text.into()))
            .map_err(|_| Violation::TextNotUtf8),
        Kind::Binary => Ok(Event::Binary(payload.into())),
        Kind::Close => close_of(payload),
        Kind::Ping => Ok(Event::Ping(payload.into())),
        Kind::Pong => Ok(Event::Pong(payload.into())),
        Kind::Continuation => Err(Violation::NothingToContinue),
    }
}

/// The event of a close frame (RFC 6455 5.5.1, 7.4).
fn close_of(payload: &[u8]) -> Result<Event<'_>, Violation> {
    let (code, reason) = match payload {
        [] => return Ok(Event::Close { code: None, reason: Cow::Borrowed("") }),
        [_] => return Err(Violation::HalfCloseCode),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    if !is_sendable(code) {
        return Err(Violation::CloseCode { code });
    }
    let reason = std::str::from_utf8(reason).map_err(|_| Violation::ReasonNotUtf8)?;
    Ok(Event::Close { code: Some(code), reason: reason.into() })
}

/// Takes a frame from the front of the input if all of it is there, and returns its payload.
fn take_frame<'i>(input: &mut &'i mut [u8], header_size: usize, length: u64) -> Option<&'i mut [u8]> {
    let end = header_size.checked_add(usize::try_from(length).ok()?)?;
    if end > input.len() {
        return None;
    }
    skip(input, header_size);
    Some(skip(input, end - header_size))
}

/// Takes so many bytes, or all there are, from the front of the input.
fn skip<'i>(input: &mut &'i mut [u8], count: usize) -> &'i mut [u8] {
    input.split_off_mut(..count.min(input.len())).unwrap_or_default()
}
