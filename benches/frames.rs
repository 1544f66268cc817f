//! MB/s of the frame decoder on masked text of the sizes that the traffic has, whole and cut, and of the whole way from
//! the frame to the line of the dump: by the scanner for requests of the usual shape, and by the parser for all others.
//!
//! The stream is copied into the buffer for each pass, as a read would; that pass alone is measured as `copy`.
//! `cargo bench --bench frames`; every run checks that all messages and bytes came out.
#![expect(missing_docs, reason = "the macro that names the group writes a public function without any")]
#![allow(clippy::expect_used, reason = "a bench that measures something else than it says must fail")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rtcstats_server::client::ClientType;
use rtcstats_server::protocol::usual::UsualEntry;
use rtcstats_server::protocol::{self, write_line};
use rtcstats_server::websocket::{Decoder, Event, FrameLimits};

const LIMITS: FrameLimits = FrameLimits { message_bytes_max: 4 << 20, message_fragments_max: 1024 };

/// Bytes of one pass, about a shared read buffer.
const PASS_BYTES: usize = 256 << 10;

/// A masked text frame of a client.
fn frame(payload: &str) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = match u16::try_from(payload.len()) {
        Ok(long) if long > 125 => [&[0x81, 0xfe], long.to_be_bytes().as_slice()].concat(),
        Ok(short) => vec![0x81, 0x80 | short.to_be_bytes()[1]],
        Err(_) => [&[0x81, 0xff], (payload.len() as u64).to_be_bytes().as_slice()].concat(),
    };
    bytes.extend(mask);
    bytes.extend(payload.bytes().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// Decodes what lies in the buffer: messages and their bytes.
fn decode(decoder: &mut Decoder, mut input: &mut [u8]) -> (usize, usize) {
    let mut counts = (0, 0);
    loop {
        match decoder.feed(&mut input, &LIMITS) {
            Ok(Some(Event::Text(text))) => {
                counts.0 += 1;
                counts.1 += black_box(text.as_bytes()).len();
            }
            Ok(None) => return counts,
            other => panic!("not a text message: {other:?}"),
        }
    }
}

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frames");
    for (name, size) in [("200 B", 200), ("4 KB", 4 << 10), ("60 KB", 60 << 10)] {
        // Real entries are ASCII but for display names.
        let payload = format!("{}{}", "\u{e9}", r#"["getstats","0",{\"a\":1}]"#.repeat(size / 20))
            .split_at(size - 1)
            .0
            .to_owned();
        let count = PASS_BYTES / size;
        let stream = frame(&payload).repeat(count);
        let expected = (count, count * payload.len());
        let mut buffer = vec![0; stream.len()];
        group.throughput(Throughput::BytesDecimal(expected.1 as u64));
        group.bench_function(format!("copy/{name}"), |bencher| {
            bencher.iter(|| black_box(&mut buffer).copy_from_slice(&stream));
        });
        group.bench_function(format!("whole/{name}"), |bencher| {
            let mut decoder = Decoder::default();
            bencher.iter(|| {
                buffer.copy_from_slice(&stream);
                assert_eq!(decode(&mut decoder, &mut buffer), expected);
            });
        });
        group.bench_function(format!("cut every 5000 B/{name}"), |bencher| {
            let mut decoder = Decoder::default();
            bencher.iter(|| {
                buffer.copy_from_slice(&stream);
                let counts = buffer.chunks_mut(5000).map(|piece| decode(&mut decoder, piece));
                assert_eq!(counts.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1)), expected);
            });
        });
    }
    group.finish();
}

/// Appends the line of a request of the usual shape.
fn scanned(text: &str, lines: &mut Vec<u8>) {
    let entry = UsualEntry::of(text).expect("the usual shape");
    let start = lines.len();
    lines.resize(start + entry.room(), 0);
    let space = lines.get_mut(start..).expect("just made");
    let length = entry.write_line(space).expect("one line");
    lines.truncate(start + length);
}

/// Appends the line of any request.
fn parsed(text: &str, lines: &mut Vec<u8>) {
    for request in protocol::requests(text.as_bytes()) {
        write_line(&request.expect("a request"), ClientType::Rtcstats, 0, lines).expect("one line");
    }
}

fn lines(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame to line");
    for (name, size) in [("200 B", 200), ("4 KB", 4 << 10), ("60 KB", 60 << 10)] {
        // Entries are dense with quotes, each escaped once more in the request.
        let reports =
            r#"{\"type\":\"inbound-rtp\",\"packetsReceived\":1234,\"kind\":\"video\"},"#.repeat(size / 80);
        let data = format!(r#"[\"getstats\",\"PC_0\",[{reports}0],1700000000000,7]"#);
        let id = "9c93a447-c9f8-489d-87ca-21263dec0642";
        let payload = format!(r#"{{"statsSessionId":"{id}","type":"stats-entry","data":"{data}"}}"#);
        let line_bytes = data.replace('\\', "").len() + 1;
        let count = PASS_BYTES / payload.len();
        let stream = frame(&payload).repeat(count);
        let (mut buffer, mut out) = (vec![0; stream.len()], Vec::with_capacity(stream.len()));
        group.throughput(Throughput::BytesDecimal((count * payload.len()) as u64));
        for (way, take) in [("scanned", scanned as fn(&str, &mut Vec<u8>)), ("parsed", parsed)] {
            group.bench_function(format!("{way}/{name}"), |bencher| {
                let mut decoder = Decoder::default();
                bencher.iter(|| {
                    buffer.copy_from_slice(&stream);
                    out.clear();
                    let mut input = buffer.as_mut_slice();
                    while let Some(event) = decoder.feed(&mut input, &LIMITS).expect("sound frames") {
                        let Event::Text(text) = event else { panic!("not a text message: {event:?}") };
                        take(&text, &mut out);
                    }
                    assert_eq!(out.len(), count * line_bytes);
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, frames, lines);
criterion_main!(benches);
