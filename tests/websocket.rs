//! The frame decoder under generated streams: whole messages whatever the cuts, and the same verdicts as tungstenite.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "in functions that build inputs a panic is a failing test, which clippy allows in tests only"
)]

mod frames;

use frames::{End, Seen, agree, ours, theirs};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// One frame as a client may send it, or nearly.
#[derive(Debug, Clone)]
struct Frame {
    first: u8,
    mask: Option<[u8; 4]>,
    form: LengthForm,
    payload: Vec<u8>,
}

/// How the length is spelled.
#[derive(Debug, Clone, Copy)]
enum LengthForm {
    Shortest,
    TwoBytes,
    EightBytes,
}

impl Frame {
    fn new(opcode: u8, is_final: bool, mask: [u8; 4], payload: &[u8]) -> Self {
        let first = opcode | if is_final { 0x80 } else { 0 };
        Self { first, mask: Some(mask), form: LengthForm::Shortest, payload: payload.to_vec() }
    }

    fn bytes(&self) -> Vec<u8> {
        let length = self.payload.len();
        let (code, extended) = match (self.form, length) {
            (LengthForm::Shortest, 0..=125) => (u8::try_from(length).unwrap(), vec![]),
            (LengthForm::Shortest | LengthForm::TwoBytes, 0..=65535) => {
                (126, u16::try_from(length).unwrap().to_be_bytes().to_vec())
            }
            (LengthForm::Shortest | LengthForm::TwoBytes | LengthForm::EightBytes, _) => {
                (127, (length as u64).to_be_bytes().to_vec())
            }
        };
        let mut bytes = vec![self.first, code | if self.mask.is_some() { 0x80 } else { 0 }];
        bytes.extend(extended);
        bytes.extend(self.mask.into_iter().flatten());
        let mask = self.mask.unwrap_or_default();
        bytes.extend(self.payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }
}

/// A legal message or control frame: its frames and what they stand for.
#[derive(Debug, Clone)]
struct Legal {
    frames: Vec<Frame>,
    seen: Vec<Seen>,
}

/// Text with code points of every length, and short enough for the limit.
fn text() -> impl Strategy<Value = String> {
    vec(prop_oneof![any::<char>(), Just('a'), Just('\u{e9}'), Just('\u{20ac}')], 0..60)
        .prop_map(|chars| chars.into_iter().collect())
}

fn control() -> impl Strategy<Value = (Frame, Seen)> {
    (any::<bool>(), any::<[u8; 4]>(), vec(any::<u8>(), 0..=125)).prop_map(|(is_ping, mask, payload)| {
        let frame = Frame::new(if is_ping { 9 } else { 10 }, true, mask, &payload);
        (frame, if is_ping { Seen::Ping(payload) } else { Seen::Pong(payload) })
    })
}

/// A message, in fragments that may end within a code point, with control frames between them.
fn message() -> impl Strategy<Value = Legal> {
    let content = prop_oneof![
        text().prop_map(|text| (1, text.clone().into_bytes(), Seen::Text(text))),
        vec(any::<u8>(), 0..=300).prop_map(|bytes| (2, bytes.clone(), Seen::Binary(bytes))),
    ];
    let cuts = vec((any::<Index>(), proptest::option::of(control())), 0..4);
    (content, cuts, any::<[u8; 4]>()).prop_map(|((opcode, bytes, message), cuts, mask)| {
        let mut positions: Vec<usize> = cuts.iter().map(|(at, _)| at.index(bytes.len() + 1)).collect();
        positions.sort_unstable();
        let mut legal = Legal { frames: vec![], seen: vec![] };
        let mut begin = 0;
        let mut opcode = opcode;
        for (end, (_, control)) in positions.iter().zip(cuts) {
            legal.frames.push(Frame::new(opcode, false, mask, &bytes[begin..*end]));
            (begin, opcode) = (*end, 0);
            if let Some((frame, seen)) = control {
                legal.frames.push(frame);
                legal.seen.push(seen);
            }
        }
        legal.frames.push(Frame::new(opcode, true, mask, &bytes[begin..]));
        legal.seen.push(message);
        legal
    })
}

fn legal() -> impl Strategy<Value = Legal> {
    prop_oneof![
        3 => message(),
        1 => control().prop_map(|(frame, seen)| Legal { frames: vec![frame], seen: vec![seen] }),
    ]
}

/// A frame of any kind, most of whose parts are right most of the time.
fn any_frame() -> impl Strategy<Value = Frame> {
    let opcode = prop_oneof![8 => 0_u8..=2, 4 => 8_u8..=10, 1 => 0_u8..=15];
    let high_bits =
        prop_oneof![6 => Just(0x80_u8), 3 => Just(0_u8), 1 => (0_u8..=15).prop_map(|bits| bits << 4)];
    let mask = prop_oneof![9 => any::<[u8; 4]>().prop_map(Some), 1 => Just(None)];
    let form = prop_oneof![
        8 => Just(LengthForm::Shortest),
        1 => Just(LengthForm::TwoBytes),
        1 => Just(LengthForm::EightBytes),
    ];
    let payload = prop_oneof![
        4 => text().prop_map(String::into_bytes),
        // Cut within a code point, more often than not.
        3 => (text(), any::<Index>()).prop_map(|(text, end)| {
            let mut bytes = text.into_bytes();
            bytes.truncate(end.index(bytes.len() + 1));
            bytes
        }),
        2 => vec(any::<u8>(), 0..10),
        1 => vec(any::<u8>(), 0..400),
        1 => (990_u16..1020, text()).prop_map(|(code, text)| [&code.to_be_bytes(), text.as_bytes()].concat()),
    ];
    (opcode, high_bits, mask, form, payload).prop_map(|(opcode, bits, mask, form, payload)| Frame {
        first: opcode | bits,
        mask,
        form,
        payload,
    })
}

fn bytes_of(frames: &[Frame]) -> Vec<u8> {
    frames.iter().flat_map(Frame::bytes).collect()
}

/// Sizes of the pieces into which a stream is cut.
fn pieces() -> impl Strategy<Value = Vec<usize>> {
    vec(prop_oneof![3 => 1_usize..20, 1 => 1_usize..600], 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// Legal messages come out as they were sent, in order, however they are cut, and leave nothing behind.
    #[test]
    fn legal_streams(stream in vec(legal(), 0..8), pieces in pieces()) {
        let bytes: Vec<u8> = stream.iter().flat_map(|legal| bytes_of(&legal.frames)).collect();
        let expected: Vec<Seen> = stream.into_iter().flat_map(|legal| legal.seen).collect();
        for cut in [[].as_slice(), &[1], &pieces] {
            let (seen, end) = ours(&bytes, cut);
            prop_assert_eq!(&seen, &expected);
            prop_assert_eq!(end, End::Open { held: false });
        }
        prop_assert_eq!(theirs(&bytes).0, expected);
    }

    /// Any sequence of frames, most of them nearly right, gets the same verdict as from tungstenite.
    #[test]
    fn nearly_legal_streams(frames in vec(any_frame(), 0..8), pieces in pieces()) {
        agree(&bytes_of(&frames), &pieces);
    }

    /// Legal streams with a few bytes changed, then cut off, get the same verdict as from tungstenite.
    #[test]
    fn mutated_streams(
        stream in vec(legal(), 1..8),
        changes in vec((any::<Index>(), any::<u8>()), 0..4),
        end in any::<Index>(),
        pieces in pieces(),
    ) {
        let mut bytes: Vec<u8> = stream.iter().flat_map(|legal| bytes_of(&legal.frames)).collect();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(end.index(bytes.len()) + 1);
        agree(&bytes, &pieces);
    }
}

/// A stream with every kind of frame, cut at every pair of positions.
#[test]
fn every_pair_of_split_points() {
    let mask = [1, 2, 3, 4];
    let long = "\u{20ac}".repeat(50);
    let frames = [
        Frame::new(1, true, mask, "a\u{20ac}".as_bytes()),
        Frame::new(2, false, mask, b"\xff"),
        Frame::new(9, true, mask, b"ping"),
        Frame::new(0, true, mask, b"\xfe"),
        Frame::new(1, true, mask, long.as_bytes()),
        Frame::new(10, true, mask, b""),
        Frame::new(8, true, mask, b"\x03\xe8bye"),
    ];
    let expected = vec![
        Seen::Text("a\u{20ac}".into()),
        Seen::Ping(b"ping".to_vec()),
        Seen::Binary(b"\xff\xfe".to_vec()),
        Seen::Text(long.clone()),
        Seen::Pong(vec![]),
        Seen::Close(Some((1000, "bye".into()))),
    ];
    let bytes = bytes_of(&frames);
    for first in 1..bytes.len() {
        for second in 1..=bytes.len() - first {
            let (seen, end) = ours(&bytes, &[first, second, bytes.len()]);
            assert_eq!((&seen, end), (&expected, End::Closed), "pieces of {first}, {second} and the rest");
        }
    }
    assert_eq!(theirs(&bytes).0, expected);
}
