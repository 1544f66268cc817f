//! No entry lost: a simulated client that keeps to the real one's rules, the real binary, and everything that can go
//! wrong between and below them.
//!
//! `trace` is the client's bookkeeping, to the letter and without a socket; `client` runs it over TCP; `proxy` is the
//! network; `record` compares what a client did with what was archived. The other modules are one promise each.
//! Times of the client are scaled by 1/100. The short form runs with the other tests; `RTCSTATS_LONG=1` runs a
//! thousand kills and a thousand schedules (see `docs/resume.md`). `RTCSTATS_SEED` repeats one round or batch.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]
#![allow(clippy::disallowed_methods, reason = "deadlines and simulated networks need the clock")]
#![allow(clippy::wildcard_enum_match_arm, reason = "whatever else comes is what the test reports")]
#![allow(clippy::cast_possible_truncation, reason = "the numbers of a test are small")]
#![allow(dead_code, reason = "the support modules serve other test binaries, too")]

#[path = "../support/mod.rs"]
mod support;

mod client;
mod disk;
mod kills;
mod power;
mod proxy;
mod record;
mod rooms;
mod scale;
mod schedules;
mod sockets;
mod trace;

use std::time::Duration;

/// Whether the long form was asked for.
fn is_long() -> bool {
    std::env::var_os("RTCSTATS_LONG").is_some_and(|value| value != "0")
}

/// One seed instead of all, to repeat what failed.
fn only_seed() -> Option<u64> {
    std::env::var("RTCSTATS_SEED").ok()?.parse().ok()
}

/// Lets simulated time pass. Nothing is awaited by it: it is when things happen.
fn pass(time: Duration) {
    std::thread::sleep(time);
}
