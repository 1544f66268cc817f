//! Recorded frames through connection, decoder and collector into files, without sockets: the work of the loop per
//! message, for callgrind to count.
//!
//! ```text
//! cargo bench --bench replay -- ROUNDS     ROUNDS x 42,000 messages; says what it did
//! .ci/instructions                         instructions per message, beside those of before
//! ```
//!
//! Callgrind counts within [`replay_session`] only. Nothing in it depends on the time but how long a run takes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a bench that went wrong has no figure to give"
)]
#![allow(clippy::disallowed_methods, reason = "the clock is read once; time then goes on by itself")]
#![allow(clippy::cast_possible_truncation, reason = "counts of a bench are small")]
#![allow(clippy::print_stdout, reason = "what was done is the result")]

#[path = "../tests/support/frames.rs"]
#[allow(dead_code, reason = "shared with the tests, which also send what no client should")]
mod frames;
#[path = "load/mix.rs"]
#[allow(dead_code, reason = "shared with the end-to-end bench, which also checks what was archived")]
mod mix;
#[path = "../tests/support/rng.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod rng;

use rtcstats_server::moment::Moment;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mix::{Identity, Mix};
use rng::Rng;
use rtcstats_server::auth::Auth;
use rtcstats_server::collector::{Collector, Effect, Now};
use rtcstats_server::config::Config;
use rtcstats_server::connection::{Connection, ConnectionLimits, ConnectionLines, Step, Transport, Turn};
use rtcstats_server::dump::DumpStore;
use rtcstats_server::dump_folder::DumpFolder;
use rtcstats_server::gate::Gate;
use rtcstats_server::http::HeadLimits;
use rtcstats_server::metrics::Tally;
use rtcstats_server::reactor;
use rtcstats_server::reactor::slots::SlotId;
use rtcstats_server::websocket::FrameLimits;

/// Sessions, one after the other, in a round; each sends five cycles of the mix.
const SESSIONS_PER_ROUND: u64 = 100;
const MESSAGES_PER_SESSION: u64 = 420;
const READ_BUFFER_BYTES: usize = 1024 * 1024;

/// A peer whose bytes are all there from the start.
struct Recorded {
    bytes: Vec<u8>,
    read: usize,
}

impl Read for Recorded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = &self.bytes[self.read..];
        if rest.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.read += count;
        Ok(count)
    }
}

impl Write for Recorded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Transport for Recorded {
    fn finish_writing(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A session as it goes over the wire: head, messages, the request and the frame that end it.
fn record(mix: &Mix, rng: &mut Rng) -> Recorded {
    let identity = Identity::new(rng, 0);
    let mut bytes = format!(
        "GET /bench?statsSessionId={} HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: 3.1_STANDARD\r\n\r\n",
        identity.text
    )
    .into_bytes();
    for index in 0..MESSAGES_PER_SESSION {
        mix.push_frame(&mut bytes, &identity, index);
    }
    let request = format!("{{\"statsSessionId\":\"{}\",\"type\":\"close\"}}", identity.text);
    bytes.extend(frames::message(frames::TEXT, request.as_bytes()));
    bytes.extend(frames::close(Some(1000), ""));
    Recorded { bytes, read: 0 }
}

fn main() {
    let rounds: u64 = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(1);
    let memory = std::path::Path::new("/dev/shm");
    let below = if memory.is_dir() { memory } else { std::path::Path::new(env!("CARGO_TARGET_TMPDIR")) };
    let folder = tempfile::tempdir_in(below).unwrap();
    let (dump_folder, _) = DumpFolder::open(folder.path()).unwrap();
    let config = Config::built_in();
    let dumps = DumpStore::new(Arc::new(dump_folder), 64, None);
    let mut collector = Collector::new(reactor::collector_settings(&config), dumps, None);
    let mut tally = Tally::default();
    let mix = Mix::generate(&mut Rng::new(1));
    let mut rng = Rng::new(2);
    let mut now = Now { instant: Moment::at(1 << 40), wall: SystemTime::UNIX_EPOCH };
    let mut finished = 0;
    let mut buffer = vec![0; READ_BUFFER_BYTES];
    for session in 0..rounds * SESSIONS_PER_ROUND {
        let id = SlotId { index: session as u32, generation: 1 };
        replay_session(id, record(&mix, &mut rng), &mut buffer, &mut collector, &mut tally, &mut now);
        let mut effects = Vec::new();
        collector.take_effects(&mut effects);
        finished += effects.iter().filter(|effect| matches!(effect, Effect::Finished(_))).count() as u64;
    }
    let messages = rounds * SESSIONS_PER_ROUND * MESSAGES_PER_SESSION;
    assert_eq!(finished, rounds * SESSIONS_PER_ROUND, "every session is finished");
    assert_eq!(tally.entries_appended, messages, "every entry was taken");
    println!("messages {messages}");
}

/// What is counted: a function of its own, which callgrind finds by its name.
#[inline(never)]
fn replay_session(
    id: SlotId,
    recorded: Recorded,
    buffer: &mut [u8],
    collector: &mut Collector,
    tally: &mut Tally,
    now: &mut Now,
) {
    let limits = ConnectionLimits {
        head: HeadLimits { bytes_max: 8192, headers_max: 64 },
        head_timeout: Duration::from_secs(10),
        frames: FrameLimits { message_bytes_max: 4 << 20, message_fragments_max: 1024 },
        idle: Duration::from_secs(60),
        outgoing_bytes_max: 1 << 20,
        incomplete_bytes_max: 1 << 28,
    };
    let mut connection = Connection::new(id, recorded, IpAddr::from(Ipv4Addr::LOCALHOST), now.instant);
    let mut gate = Gate::new(&Config::built_in(), Auth::default(), now.instant);
    let (mut lines, mut incomplete_bytes) = (ConnectionLines::default(), 0);
    loop {
        now.instant += Duration::from_millis(1);
        let mut turn = Turn {
            buffer,
            collector,
            tally,
            limits: &limits,
            refusal: None,
            gate: &mut gate,
            lines: &mut lines,
            incomplete_bytes: &mut incomplete_bytes,
            now: *now,
        };
        let step = connection.read(&mut turn);
        collector.tick(tally, *now);
        match step {
            Step::Gone => return,
            Step::Again => {}
            // All that is left fits into the buffer, so only the end parks.
            Step::Park => assert!(!connection.is_open(), "the record goes on"),
        }
    }
}
