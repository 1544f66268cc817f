//! Random networks: each client behind its own proxy, the server restarted in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::client::{Client, Leave, Plan, Whereabouts};
use crate::kills::{scaled, settle};
use crate::proxy::Proxy;
use crate::record::{Figures, Record};
use crate::support::Rng;
use crate::trace::{Habits, Trace};

/// Schedules that share a server.
const SCHEDULES_PER_BATCH: u64 = 10;

/// Whatever the network does, a client that gets through in the end has each of its entries in one dump once, in
/// order; and nothing that was acknowledged is missing, whoever gets through.
#[test]
fn networks_lose_nothing_that_a_client_could_send() {
    let batches = if crate::is_long() { 100 } else { 1 };
    let mut sum = Figures::default();
    for seed in 0..batches {
        if crate::only_seed().is_none_or(|only| only == seed) {
            let figures = batch(seed);
            assert_eq!(figures.defects(), 0, "seed {seed}:\n{figures}");
            sum.add(&figures);
        }
    }
    eprintln!("{} schedules: {sum}", batches * SCHEDULES_PER_BATCH);
    // A single batch may have been spared.
    let is_sample = crate::only_seed().is_some();
    assert!(is_sample || sum.connections > 2 * sum.sessions, "there were hardly any faults: {sum}");
}

fn batch(seed: u64) -> Figures {
    let mut rng = Rng::new(0xcab1_e000 + seed);
    let mut server = scaled().start();
    let whereabouts = Whereabouts::default();
    whereabouts.set(Some(server.ingest));
    let calm = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..SCHEDULES_PER_BATCH)
        .map(|_| {
            let (rng, server, calm) = (Rng::new(rng.next()), whereabouts.clone(), Arc::clone(&calm));
            std::thread::spawn(move || schedule(rng, server, calm))
        })
        .collect();
    let started = Instant::now();
    for _ in 0..rng.between(0, 3) {
        crate::pass(Duration::from_millis(rng.between(50, 700)));
        let settings = server.settings();
        whereabouts.set(None);
        if rng.one_in(3) {
            server.kill9();
        } else {
            assert!(server.stop().status.success());
        }
        server = settings.start();
        whereabouts.set(Some(server.ingest));
    }
    crate::pass(Duration::from_millis(1_500).saturating_sub(started.elapsed()));
    calm.store(true, Ordering::Relaxed);
    let records: Vec<Record> =
        clients.into_iter().map(|client| client.join().expect("a client keeps to its rules")).collect();
    settle(server, &records)
}

fn schedule(mut rng: Rng, server: Whereabouts, calm: Arc<AtomicBool>) -> Record {
    let faults = rng.between(1, 12);
    let proxy = Proxy::start(Rng::new(rng.next()), faults, server, Arc::clone(&calm));
    let leave = match rng.between(0, 9) {
        0 => Leave::Abruptly,
        1 => Leave::AsZombie,
        _ => Leave::Settled,
    };
    let (tracing_ms, burst_max) = (rng.between(200, 1_800), *rng.pick(&[2, 10, 30]));
    let plan = Plan::roll(&mut rng, tracing_ms, burst_max, leave);
    let habits = Habits {
        is_legacy: rng.one_in(6),
        odd_shapes: if rng.one_in(4) { 10 } else { 0 },
        giant: if rng.one_in(20) { rng.between(2, plan.entries) } else { 0 },
        is_in_breakout_room: false,
    };
    let trace = Trace::new(&mut rng, habits);
    let through = Whereabouts::default();
    through.set(Some(proxy.address));
    Client::new(trace, plan, Rng::new(rng.next()), through, calm).run()
}
