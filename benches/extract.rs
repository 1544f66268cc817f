//! How fast dumps become documents, how fast they become gzip, how fast addresses are cut, and how much memory that takes.
//!
//! `cargo bench --bench extract [-- speed|gzip|privacy|memory|NAME]`: all of it, or one part, or the speed of the dumps
//! whose name contains NAME. Speed is MB of dump per CPU second of one thread, strict, warm, from memory; the best
//! of ten rounds. On dumps that are made here, and on the conformance dumps (a folder `shared` beside the
//! repository, or the one that `RTCSTATS_SHARED` names) where they are.
//!
//! `cargo test --bench extract` runs all of it once and small: it shows that it works, the figures mean nothing.

#![expect(clippy::print_stdout, reason = "the tables are the result")]
#![expect(clippy::expect_used, reason = "a bench that cannot run ends")]

#[path = "extract/dumps.rs"]
mod dumps;

use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use rtcstats_server::extract::{ExtractLimits, Options, extract};
use rtcstats_server::privacy::Cutter;
use rustix::time::{ClockId, clock_gettime};

/// How much is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Effort {
    /// Dump bytes that a round of measuring goes through at least.
    round_bytes: usize,
    rounds: usize,
    /// The same for one level of gzip; slow levels need no ten rounds of twenty megabytes.
    gzip_bytes: usize,
    gzip_levels: &'static [u32],
    /// Size of the dump whose memory is measured.
    large_bytes: u64,
}

const MEASURE: Effort = Effort {
    round_bytes: 20_000_000,
    rounds: 10,
    gzip_bytes: 3_000_000,
    gzip_levels: &[1, 2, 3, 4, 5, 6, 7, 8, 9],
    large_bytes: 1 << 30,
};
const SMOKE: Effort =
    Effort { round_bytes: 1, rounds: 1, gzip_bytes: 1, gzip_levels: &[5], large_bytes: 1 << 20 };

/// The level that is the default of the server.
const GZIP_LEVEL: u32 = 5;

/// Cargo passes it when a figure is wanted, and not when benches run as tests.
const BENCH_ARGUMENT: &str = "--bench";
/// What that may take beyond the longest line.
const MEMORY_BYTES_MAX: u64 = 64 << 20;

/// Names the one kind of dump whose memory this process measures.
const MEMORY_KIND: &str = "RTCSTATS_BENCH_MEMORY_KIND";

/// Conformance dumps with what the reference reaches on them, warm and from memory, in MB per CPU second.
const CONFORMANCE: [(&str, f64); 5] = [
    ("google-standard-stats-sfu", 45.0),
    ("google-standard-stats-p2p", 58.0),
    ("chrome-standard-multiple-p2p", 51.0),
    ("safari-standard-stats", 79.0),
    ("jvb-sample.gz", 318.0),
];

fn main() {
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let part = wanted.as_deref().unwrap_or("all");
    let effort = if std::env::args().any(|argument| argument == BENCH_ARGUMENT) { MEASURE } else { SMOKE };
    if !matches!(part, "gzip" | "privacy" | "memory") {
        speed(effort, wanted.as_deref().filter(|part| !matches!(*part, "all" | "speed")).unwrap_or_default());
    }
    if matches!(part, "all" | "gzip") {
        gzip(effort);
    }
    if matches!(part, "all" | "privacy") {
        privacy(effort);
    }
    if matches!(part, "all" | "memory") {
        memory(effort);
    }
}

fn made() -> Vec<(String, Vec<u8>)> {
    [
        ("made chrome, 4 participants", dumps::chrome(60, 4)),
        ("made chrome, 40 participants", dumps::chrome(60, 40)),
        ("made safari, 10 participants", dumps::safari(60, 10)),
        ("made firefox, 10 participants", dumps::firefox(200, 10)),
        ("made jvb", dumps::jvb(500)),
    ]
    .map(|(name, dump)| (name.to_owned(), dump.into_bytes()))
    .into()
}

/// The conformance dumps that are there, with the reference's figure.
fn conformance() -> Vec<(String, Vec<u8>, f64)> {
    let shared = std::env::var_os("RTCSTATS_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let folder = shared.join("conformance/dumps");
    if !folder.is_dir() {
        println!("no conformance dumps at {}", folder.display());
        return Vec::new();
    }
    let read = |name: &str| {
        let bytes = std::fs::read(folder.join(name)).expect("a dump can be read");
        if !name.ends_with(".gz") {
            return bytes;
        }
        let mut dump = Vec::new();
        flate2::read::GzDecoder::new(&*bytes).read_to_end(&mut dump).expect("a dump can be unpacked");
        dump
    };
    CONFORMANCE.iter().map(|(name, reference)| ((*name).to_owned(), read(name), *reference)).collect()
}

fn options() -> Options {
    Options {
        strict: true,
        client_id: "id".to_owned(),
        dump_path: "path".to_owned(),
        now_ms: 1.0,
        limits: ExtractLimits::default(),
    }
}

/// MB per CPU second of the best round.
fn rate(effort: Effort, bytes: usize, mut work: impl FnMut()) -> f64 {
    let times = effort.round_bytes.div_ceil(bytes.max(1));
    let rounds = (0..effort.rounds).map(|_| {
        let start = cpu_seconds();
        (0..times).for_each(|_| work());
        (bytes * times) as f64 / 1e6 / (cpu_seconds() - start)
    });
    rounds.fold(0.0, f64::max)
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn speed(effort: Effort, name_contains: &str) {
    println!("| dump | size | lines | MB per CPU s | reference | times |");
    println!("|---|---|---|---|---|---|");
    let made = made().into_iter().map(|(name, dump)| (name, dump, f64::NAN));
    for (name, dump, reference) in made.chain(conformance()).filter(|(name, ..)| name.contains(name_contains))
    {
        let options = options();
        let document = extract(&*dump, &options).expect("the dump is good");
        let lines = document.facts().lines;
        let rate = rate(effort, dump.len(), || {
            std::hint::black_box(extract(&*dump, &options).expect("the dump is good"));
        });
        let compared = if reference.is_nan() {
            "- | -".to_owned()
        } else {
            format!("{reference} | {:.1}", rate / reference)
        };
        println!("| {name} | {} | {lines} | {rate:.0} | {compared} |", dump.len());
    }
}

fn privacy(effort: Effort) {
    println!("\n| dump | MB per CPU s | us per MiB | of extraction and gzip {GZIP_LEVEL} | bytes cut off |");
    println!("|---|---|---|---|---|");
    let conformance = conformance().into_iter().map(|(name, dump, _)| (name, dump));
    for (name, dump) in made().into_iter().chain(conformance) {
        let mut cutter = Cutter::default();
        let mut kept = 0;
        let rate = rate(effort, dump.len(), || {
            kept = 0;
            let mut sink = |piece: &[u8]| {
                kept += std::hint::black_box(piece).len();
                Ok::<(), std::convert::Infallible>(())
            };
            cutter.begin();
            // As a worker reads it.
            for bytes in dump.chunks(256 * 1024) {
                cutter.feed(bytes, &mut sink).expect("nothing can fail");
            }
            cutter.end(&mut sink).expect("nothing can fail");
        });
        let options = options();
        let rate_without = self::rate(effort, dump.len(), || {
            std::hint::black_box(extract(&*dump, &options).expect("the dump is good"));
            std::hint::black_box(pack(&dump, GZIP_LEVEL));
        });
        let (us_per_mib, percent) = ((1_u64 << 20) as f64 / rate, 100.0 * rate_without / rate);
        println!("| {name} | {rate:.0} | {us_per_mib:.0} | {percent:.1} % | {} |", dump.len() - kept);
    }
}

fn gzip(effort: Effort) {
    println!("\n| dump | level | MB per CPU s | ratio |");
    println!("|---|---|---|---|");
    let conformance = conformance().into_iter().map(|(name, dump, _)| (name, dump));
    for (name, dump) in made().into_iter().chain(conformance) {
        for &level in effort.gzip_levels {
            let packed = pack(&dump, level).len();
            let start = cpu_seconds();
            let times = effort.gzip_bytes.div_ceil(dump.len());
            for _ in 0..times {
                std::hint::black_box(pack(&dump, level));
            }
            let rate = (dump.len() * times) as f64 / 1e6 / (cpu_seconds() - start);
            println!("| {name} | {level} | {rate:.0} | {:.1} |", dump.len() as f64 / packed as f64);
        }
    }
}

fn pack(dump: &[u8], level: u32) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::with_capacity(dump.len() / 4), Compression::new(level));
    packer.write_all(dump).and_then(|()| packer.finish()).expect("memory can be written")
}

fn memory(effort: Effort) {
    let only = std::env::var(MEMORY_KIND).ok();
    if only.is_none() {
        println!(
            "\n| dump of {} bytes | longest line | MB per CPU s | peak memory beyond that line |",
            effort.large_bytes
        );
        println!("|---|---|---|---|");
    }
    type Line = fn(u64) -> String;
    let kinds: [(&str, Line); 7] = [
        ("ordinary stats", |at| {
            static DUMP: std::sync::OnceLock<Vec<String>> = std::sync::OnceLock::new();
            let lines =
                DUMP.get_or_init(|| dumps::chrome(60, 40).lines().skip(1).map(str::to_owned).collect());
            lines.get(usize::try_from(at).unwrap_or(0) % lines.len()).cloned().unwrap_or_default()
        }),
        ("ever new reports", |at| {
            let report = |n: u64| {
                format!("\"r{at}_{n}\":{{\"type\":\"inbound-rtp\",\"ssrc\":{n},\"mediaType\":\"{at}\"}}")
            };
            let reports: Vec<String> = (0..1000).map(report).collect();
            format!("[\"getstats\",\"PC_{}\",{{{}}},{at}]", at % 1000, reports.join(","))
        }),
        ("ever new tracks", |at| {
            format!(
                "[\"getstats\",\"PC_{}\",{{\"a\":{{\"type\":\"inbound-rtp\",\"ssrc\":{at},\"packetsReceived\":5,\"kind\":\"audio\"}}}},{at}]",
                at % 1000
            )
        }),
        ("ever new speakers", |at| {
            format!("[\"dominantSpeaker\",null,{{\"dominantSpeakerEndpoint\":\"speaker {at}\"}},{at}]")
        }),
        ("long expressions", |at| {
            format!(
                "[\"faceLandmarks\",null,{{\"faceLandmarks\":\"{}{at}\",\"duration\":1}},{at}]",
                "x".repeat(2_000)
            )
        }),
        ("every other number", |at| format!("[\"x\",null,null,1700000000000,{}]", 2 * at + 1)),
        ("deep deployment info", |at| {
            format!(
                "[\"identity\",null,{{\"deploymentInfo\":{{\"key{at}\":[{}]}}}},{at}]",
                "[],".repeat(1_000) + "0"
            )
        }),
    ];
    // Each in a process of its own: what an allocator keeps would hide in the next one's figure.
    for (name, line) in kinds {
        match &only {
            Some(only) if only == name => measure_memory(effort, name, line),
            Some(_) => {}
            None => {
                let program = std::env::current_exe().expect("a process knows its program");
                let mut child = Command::new(program);
                child.arg("memory").env(MEMORY_KIND, name);
                if effort == MEASURE {
                    child.arg(BENCH_ARGUMENT);
                }
                let child = child.status();
                assert!(child.expect("it starts").success(), "{name} failed");
            }
        }
    }
}

fn measure_memory(effort: Effort, name: &str, line: impl FnMut(u64) -> String) {
    let first = "[\"connectionInfo\",null,{\"clientProtocol\":\"3.1_STANDARD\",\"userAgent\":\"Chrome/120.0 Safari/1\"},1]\n";
    let mut input = Endless {
        line,
        at: 0,
        rest: first.as_bytes().to_vec(),
        used: 0,
        left: effort.large_bytes,
        longest: 0,
    };
    let before = status("VmHWM:");
    let start = cpu_seconds();
    let document =
        extract(BufReader::with_capacity(128 << 10, &mut input), &Options { strict: false, ..options() })
            .expect("memory can be read");
    let rate = effort.large_bytes as f64 / 1e6 / (cpu_seconds() - start);
    let peak = status("VmHWM:").saturating_sub(before);
    let beyond = peak.saturating_sub(input.longest);
    println!("| {name} | {} | {rate:.0} | {:.1} MiB |", input.longest, beyond as f64 / f64::from(1 << 20));
    assert!(beyond <= MEMORY_BYTES_MAX, "{name}: {beyond} bytes are above {MEMORY_BYTES_MAX}");
    assert!(document.facts().lines > 1, "{name}: nothing was read");
}

/// A dump that is made while it is read.
struct Endless<F> {
    line: F,
    at: u64,
    rest: Vec<u8>,
    used: usize,
    left: u64,
    longest: u64,
}

impl<F: FnMut(u64) -> String> Read for Endless<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.used == self.rest.len() {
            self.at += 1;
            self.rest = (self.line)(self.at).into_bytes();
            self.longest = self.longest.max(self.rest.len() as u64);
            self.rest.push(b'\n');
            self.used = 0;
        }
        let rest = self.rest.get(self.used..).unwrap_or_default();
        let length = rest.len().min(buffer.len()).min(usize::try_from(self.left).unwrap_or(usize::MAX));
        for (to, from) in buffer.iter_mut().zip(rest.iter().take(length)) {
            *to = *from;
        }
        self.used += length;
        self.left -= length as u64;
        Ok(length)
    }
}

/// A line of `/proc/self/status`, in bytes.
fn status(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("this is Linux");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel tells it");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") * 1024
}
