//! Bytes of one connection -> events.

use std::borrow::Cow;
use std::mem;

use super::header::{self, HEADER_BYTES_MAX, Header, Kind};
use super::outgoing::is_sendable;
use super::payload::{TextGatherer, growth, unmask};
use super::{Event, FrameLimits, Violation};

/// The decoder of one connection: 8 bytes, and a heap block while something is incomplete: a header, a frame, a message; or
/// once it is closed.
#[derive(Debug, Default)]
pub struct Decoder(Option<Box<Partial>>);

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
        if self.is_closed() {
            *input = &mut [];
            return Ok(None);
        }
        let result = match self.0.take() {
            None => self.feed_idle(input, limits),
            Some(partial) => self.feed_partial(partial, input, limits),
        };
        if matches!(result, Err(_) | Ok(Some(Event::Close { .. }))) {
            self.0 = Some(Box::new(Partial { is_closed: true, ..Partial::default() }));
            *input = &mut [];
        }
        result
    }

    /// Bytes on the heap; 0 between two messages.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let partial = self.0.as_ref().filter(|partial| !partial.is_closed);
        partial.map_or(0, |partial| mem::size_of::<Partial>() + partial.buffer_bytes())
    }

    /// Whether a close frame or a violation has ended the stream.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.as_ref().is_some_and(|partial| partial.is_closed)
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
            self.0 = Some(partial);
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
    /// Whether a close frame or a violation was seen: there is nothing else then, and what comes is ignored.
    is_closed: bool,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reasons::CloseReason;

    const LIMITS: FrameLimits = FrameLimits { message_bytes_max: 1000, message_fragments_max: 4 };
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    /// A frame of a client: first byte, payload in its shortest form.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let length = match payload.len() {
            short @ 0..=125 => vec![0x80 | u8::try_from(short).unwrap()],
            long => [&[0x80 | 126], u16::try_from(long).unwrap().to_be_bytes().as_slice()].concat(),
        };
        let masked: Vec<u8> =
            payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        [&[first], length.as_slice(), &MASK, &masked].concat()
    }

    /// All events of one piece of input.
    fn events(decoder: &mut Decoder, bytes: &[u8]) -> Result<Vec<Event<'static>>, Violation> {
        let mut buffer = bytes.to_vec();
        let mut input = buffer.as_mut_slice();
        let mut events = Vec::new();
        while let Some(event) = decoder.feed(&mut input, &LIMITS)? {
            events.push(event.into_owned());
        }
        assert!(input.is_empty(), "None means that the input is used up");
        Ok(events)
    }

    fn violation(bytes: &[u8]) -> Option<Violation> {
        let mut decoder = Decoder::default();
        let result = events(&mut decoder, bytes).err();
        if result.is_some() {
            assert!(decoder.is_closed() && decoder.held_bytes() == 0, "a violation ends the stream");
            assert_eq!(events(&mut decoder, &frame(0x81, b"more")), Ok(vec![]));
        }
        result
    }

    fn text(text: &str) -> Event<'_> {
        Event::Text(text.into())
    }

    /// Rules that are told at the header, before any payload and so before it could cost anything.
    #[test]
    fn violations_of_headers() {
        let high = |length: u64| [&[0x82, 0xff], length.to_be_bytes().as_slice(), &MASK].concat();
        let too_big = |size_bytes| Violation::MessageTooBig { size_bytes, size_bytes_max: 1000 };
        let cases = [
            (vec![0x81, 0x05], Violation::Unmasked),
            (vec![0x88, 0x00], Violation::Unmasked),
            (frame(0xc1, b""), Violation::ReservedBits),
            (frame(0xa2, b""), Violation::ReservedBits),
            (frame(0x99, b""), Violation::ReservedBits),
            (frame(0x83, b""), Violation::ReservedOpcode { opcode: 3 }),
            (frame(0x07, b""), Violation::ReservedOpcode { opcode: 7 }),
            (frame(0x8b, b""), Violation::ReservedOpcode { opcode: 11 }),
            (frame(0x8f, b""), Violation::ReservedOpcode { opcode: 15 }),
            (frame(0x08, b""), Violation::FragmentedControl),
            (frame(0x09, b""), Violation::FragmentedControl),
            (frame(0x0a, b""), Violation::FragmentedControl),
            (vec![0x89, 0xfe, 0, 126, 1, 2, 3, 4], Violation::ControlTooLong { size_bytes: 126 }),
            (frame(0x80, b""), Violation::NothingToContinue),
            (frame(0x00, b""), Violation::NothingToContinue),
            ([frame(0x01, b"a"), frame(0x81, b"")].concat(), Violation::MessageInMessage),
            ([frame(0x02, b"a"), frame(0x01, b"")].concat(), Violation::MessageInMessage),
            (vec![0x82, 0xfe, 0, 125, 1, 2, 3, 4], Violation::LongLength { size_bytes: 125 }),
            (high(125), Violation::LongLength { size_bytes: 125 }),
            (high(65535), Violation::LongLength { size_bytes: 65535 }),
            (high(1 << 63), Violation::LengthHighBit),
            (high(u64::MAX), Violation::LengthHighBit),
            (high((1 << 63) - 1), too_big((1 << 63) - 1)),
            (high(65536), too_big(65536)),
            (vec![0x81, 0xfe, 0x03, 0xe9, 1, 2, 3, 4], too_big(1001)),
            ([frame(0x01, &[b'a'; 999]), vec![0x80, 0x82, 1, 2, 3, 4]].concat(), too_big(1001)),
            (
                [frame(0x01, b"a"), frame(0x00, b"").repeat(4)].concat(),
                Violation::TooManyFragments { fragments: 5, fragments_max: 4 },
            ),
        ];
        for (bytes, expected) in cases {
            assert_eq!(violation(&bytes), Some(expected), "{bytes:x?}");
            let (_, before) = bytes.split_last().unwrap();
            assert_eq!(violation(before), None, "one byte less of {bytes:x?}");
        }
    }

    /// Rules about payloads.
    #[test]
    fn violations_of_payloads() {
        let cases = [
            (frame(0x88, b"\x03"), Violation::HalfCloseCode),
            (frame(0x88, b"\x03\xe8\xff"), Violation::ReasonNotUtf8),
            (frame(0x88, b"\x03\xe8\xe2\x82"), Violation::ReasonNotUtf8),
            (frame(0x81, b"\xff"), Violation::TextNotUtf8),
            (frame(0x81, b"\xe2\x82"), Violation::TextNotUtf8),
            (frame(0x81, b"\xed\xa0\x80"), Violation::TextNotUtf8),
            ([frame(0x01, b"\xe2\x82"), frame(0x80, b"")].concat(), Violation::TextNotUtf8),
            ([frame(0x01, b"\xe2\x82"), frame(0x00, b"\x41")].concat(), Violation::TextNotUtf8),
        ];
        for (bytes, expected) in cases {
            assert_eq!(violation(&bytes), Some(expected), "{bytes:x?}");
        }
    }

    /// RFC 6455 7.4: which close codes may be sent.
    #[test]
    fn close_codes() {
        let good = (1000..=1003).chain(1007..=1013).chain([3000, 3001, 3002, 3999, 4000, 4999]);
        for code in good {
            let mut decoder = Decoder::default();
            let expected = Event::Close { code: Some(code), reason: "x".into() };
            let bytes = frame(0x88, &[&code.to_be_bytes(), b"x".as_slice()].concat());
            assert_eq!(events(&mut decoder, &bytes), Ok(vec![expected]), "{code}");
        }
        for code in [0_u16, 1, 999, 1004, 1005, 1006, 1014, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            assert_eq!(violation(&frame(0x88, &code.to_be_bytes())), Some(Violation::CloseCode { code }));
        }
    }

    /// Violations end with the codes of RFC 6455 7.4.1, and their texts fit into a close frame.
    #[test]
    fn violations_have_reasons() {
        let big = Violation::MessageTooBig { size_bytes: u64::MAX, size_bytes_max: usize::MAX };
        assert_eq!(big.close_reason(), CloseReason::MessageTooBig);
        assert!(big.to_string().len() <= super::super::REASON_BYTES_MAX, "{big}");
        assert_eq!(Violation::TextNotUtf8.close_reason(), CloseReason::InvalidUtf8);
        assert_eq!(Violation::Unmasked.close_reason(), CloseReason::ProtocolError);
        let counted = Violation::TooManyFragments { fragments: 5, fragments_max: 4 };
        assert_eq!(counted.to_string(), "message of 5 fragments or more is above 4");
    }

    /// What lies in the buffer as a whole is lent from there, so it costs neither a copy nor an allocation.
    #[test]
    fn complete_frames_are_lent() {
        let payloads: [(u8, &[u8]); 4] =
            [(0x81, "a\u{20ac}".as_bytes()), (0x82, b"\xff"), (0x89, b"p"), (0x8a, b"q")];
        let mut decoder = Decoder::default();
        for (first, payload) in payloads {
            let mut buffer = frame(first, payload);
            let range = buffer.as_ptr_range();
            let mut input = buffer.as_mut_slice();
            let lent = match decoder.feed(&mut input, &LIMITS) {
                Ok(Some(Event::Text(Cow::Borrowed(text)))) => text.as_bytes(),
                Ok(Some(
                    Event::Binary(Cow::Borrowed(bytes))
                    | Event::Ping(Cow::Borrowed(bytes))
                    | Event::Pong(Cow::Borrowed(bytes)),
                )) => bytes,
                other => panic!("{other:?}"),
            };
            assert_eq!(lent, payload);
            assert!(range.contains(&lent.as_ptr()));
            assert_eq!(decoder.held_bytes(), 0);
        }
    }

    /// An idle connection pays for a pointer; an incomplete header for one small block.
    #[test]
    fn sizes() {
        assert_eq!(mem::size_of::<Decoder>(), 8);
        assert!(mem::size_of::<Partial>() <= 128, "{}", mem::size_of::<Partial>());
    }

    /// Memory follows what has arrived, not what is announced, and is gone with the message.
    #[test]
    fn held_bytes_follow_what_arrived() {
        let limits = FrameLimits { message_bytes_max: 1 << 40, message_fragments_max: 1 };
        for first in [0x81, 0x82] {
            let mut decoder = Decoder::default();
            let mut bytes = [&[first, 0xff], (1_u64 << 20).to_be_bytes().as_slice(), &[0; 4]].concat();
            bytes.resize(14 + (1 << 20), b'x');
            let mut arrived = 0;
            for piece in bytes.chunks_mut(5000) {
                arrived += piece.len();
                let is_last = arrived == 14 + (1 << 20);
                let mut input = piece;
                let event = decoder.feed(&mut input, &limits).unwrap();
                assert_eq!(event.is_some(), is_last);
                drop(event);
                let held = decoder.held_bytes();
                assert!(if is_last { held == 0 } else { held <= 2 * arrived + 256 }, "{held} of {arrived}");
            }
        }
    }

    /// Text is refused at its first bad byte in the middle of a frame (Autobahn 6.4).
    #[test]
    fn text_fails_within_its_frame() {
        let mut decoder = Decoder::default();
        let mut bytes = frame(0x81, b"good \xed\xa0 and a long rest");
        bytes.truncate(6 + 6);
        assert_eq!(events(&mut decoder, &bytes), Ok(vec![]));
        let next = [0xa0 ^ MASK[2]];
        assert_eq!(events(&mut decoder, &next), Err(Violation::TextNotUtf8));
    }

    /// Control frames between the fragments of a message come first and leave it alone, cut or whole.
    #[test]
    fn control_frames_inside_a_message() {
        let stream = [
            frame(0x01, b"\xe2\x82"),
            frame(0x89, b"ping"),
            frame(0x00, b""),
            frame(0x8a, b""),
            frame(0x80, b"\xac!"),
        ]
        .concat();
        let expected = || vec![Event::Ping(b"ping".into()), Event::Pong(b"".into()), text("\u{20ac}!")];
        for end in 0..=stream.len() {
            let mut decoder = Decoder::default();
            let (head, tail) = stream.split_at(end);
            let mut seen = events(&mut decoder, head).unwrap();
            seen.extend(events(&mut decoder, tail).unwrap());
            assert_eq!(seen, expected(), "cut at {end}");
            assert_eq!(decoder.held_bytes(), 0);
        }
    }

    /// Behind a close frame everything is ignored, even what would be a violation; an unfinished message is released.
    #[test]
    fn nothing_follows_a_close_frame() {
        let mut decoder = Decoder::default();
        let stream = [frame(0x01, b"unfinished"), frame(0x88, b""), vec![0xff; 40]].concat();
        assert_eq!(events(&mut decoder, &stream), Ok(vec![Event::Close { code: None, reason: "".into() }]));
        assert_eq!(events(&mut decoder, b"\xff\xff"), Ok(vec![]));
        assert!(decoder.is_closed() && decoder.held_bytes() == 0);
    }
}
