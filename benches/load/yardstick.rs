//! How fast the receivers' core is just now, by fixed work of our own. It shows what other guests of the host take from
//! the core and its caches, which no counter inside the guest does. Microseconds of two runs can be compared only when
//! these figures agree.

use std::hint::black_box;
use std::sync::OnceLock;
use std::time::Instant;

use super::process;
use super::rng::Rng;

/// Taken before each run.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Yardstick {
    /// How fast the core works: by a chain of operations, each of which needs the one before.
    pub(crate) ghz: f64,
    /// What a read costs somewhere in 4 MiB, each of which needs the one before: beyond the second cache, within a third.
    pub(crate) read_ns: f64,
}

impl Yardstick {
    pub(crate) fn take() -> Self {
        process::on_receivers_core(|| Self { ghz: ghz(), read_ns: read_ns() })
    }
}

fn ghz() -> f64 {
    const STEPS: u32 = 20_000_000;
    /// Three shifts and three exclusive-ors, of one cycle each, on x86-64 processors that eliminate moves; elsewhere the
    /// figure only tells runs on one machine apart.
    const CYCLES_PER_STEP: f64 = 6.0;
    let (began, mut x) = (Instant::now(), black_box(1_u64));
    for _ in 0..STEPS {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    black_box(x);
    f64::from(STEPS) * CYCLES_PER_STEP / began.elapsed().as_nanos() as f64
}

fn read_ns() -> f64 {
    /// Each entry is the place of the next one; all are on one way round.
    static WAY: OnceLock<Vec<u32>> = OnceLock::new();
    const PLACES: u32 = (4 << 20) / 4;
    let way = WAY.get_or_init(|| {
        let (mut way, mut rng): (Vec<u32>, _) = ((0..PLACES).collect(), Rng::new(1));
        for last in (1..PLACES as usize).rev() {
            way.swap(last, rng.between(0, last as u64 - 1) as usize);
        }
        way
    });
    let round = || {
        let (began, mut at) = (Instant::now(), black_box(0));
        for _ in 0..PLACES {
            at = way[at as usize];
        }
        black_box(at);
        began.elapsed().as_nanos() as f64 / f64::from(PLACES)
    };
    // The first round brings it into the cache, from where the second one reads.
    round();
    round()
}
