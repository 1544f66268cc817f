//! MB/s of the frame decoder on masked text of the sizes that the traffic has, whole and cut.
//!
//! The stream is copied into the buffer for each pass, as a read would; that pass alone is measured as `copy`.
//! `cargo bench --bench frames`; every run checks that all messages and bytes came out.
#![expect(missing_docs, reason = "the macro that names the group writes a public function without any")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
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

criterion_group!(benches, frames);
criterion_main!(benches);
