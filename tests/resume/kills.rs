//! SIGKILL at random moments under load, again and again in the same folder.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::client::{Client, Leave, Plan, Whereabouts};
use crate::record::{Figures, Record};
use crate::support::archive::file_names;
use crate::support::{Rng, Settings, TestServer};
use crate::trace::{Habits, Trace};

const CLIENTS: usize = 5;

/// Settings of a server that lives a hundred times as fast as a real one.
pub(crate) fn scaled() -> Settings {
    Settings::new()
        .set("dump.flush_interval_ms", 10)
        // The client's budget is 600 s, here 6 s.
        .set("sessions.reconnect_grace_s", 8)
        .set("limits.message_bytes", 131_072)
        .set("log.level", "info")
}

/// After every kill the clients come back and go on; in the end each session is in one dump, whole and in order.
#[test]
fn kills_lose_nothing_that_a_client_could_send() {
    let (rounds, kills) = if crate::is_long() { (40, 25) } else { (1, 14) };
    let mut sum = Figures::default();
    for seed in 0..rounds {
        if crate::only_seed().is_none_or(|only| only == seed) {
            let figures = round(seed, kills, scaled());
            assert_eq!(figures.defects(), 0, "seed {seed}:\n{figures}");
            sum.add(&figures);
        }
    }
    eprintln!("{} kills in {rounds} rounds of {CLIENTS} clients: {sum}", rounds * kills);
    assert!(sum.archived > 1_000, "too little was archived to prove anything: {sum}");
}

/// The same with `dump.durability = "power"`: more is sent again, nothing is lost or stored twice.
#[test]
fn kills_lose_nothing_when_acknowledgements_wait_for_the_disk() {
    let (rounds, kills) = if crate::is_long() { (4, 25) } else { (1, 6) };
    let mut sum = Figures::default();
    for seed in 0..rounds {
        let figures = round(seed, kills, scaled().set("dump.durability", "power"));
        assert_eq!(figures.defects(), 0, "seed {seed}:\n{figures}");
        sum.add(&figures);
    }
    eprintln!("{} kills in {rounds} rounds of {CLIENTS} clients, synced: {sum}", rounds * kills);
    assert!(sum.acknowledged > 100, "hardly anything was acknowledged: {sum}");
}

fn round(seed: u64, kills: u64, settings: Settings) -> Figures {
    let mut rng = Rng::new(0xdead_0000 + seed);
    let mut server = settings.start();
    let whereabouts = Whereabouts::default();
    whereabouts.set(Some(server.ingest));
    let calm = Arc::new(AtomicBool::new(false));
    let clients: Vec<JoinHandle<Vec<Record>>> = (0..CLIENTS)
        .map(|_| {
            let (rng, server, calm) = (Rng::new(rng.next()), whereabouts.clone(), Arc::clone(&calm));
            std::thread::spawn(move || live(rng, &server, &calm))
        })
        .collect();
    for _ in 0..kills {
        // Now and then at once, while it still reads what its predecessor left.
        let moment_ms = if rng.one_in(5) { rng.between(0, 10) } else { rng.between(20, 350) };
        crate::pass(Duration::from_millis(moment_ms));
        whereabouts.set(None);
        let settings = server.kill9();
        server = settings.start();
        whereabouts.set(Some(server.ingest));
    }
    calm.store(true, Ordering::Relaxed);
    let records: Vec<Record> =
        clients.into_iter().flat_map(|client| client.join().expect("a client keeps to its rules")).collect();
    settle(server, &records)
}

/// Lets everything become a job, and compares.
pub(crate) fn settle(server: TestServer, records: &[Record]) -> Figures {
    let settings = server.settings();
    let (finished, quarantine) = (server.dump_path("finished"), server.dump_path("quarantine"));
    assert!(server.stop().status.success());
    // A job that was killed twice is set aside, as it should be. An operator gives it another chance.
    for name in file_names(&quarantine) {
        std::fs::rename(quarantine.join(&name), finished.join(&name)).unwrap();
    }
    // Sessions whose clients did not end them are not waited for any more.
    let server = settings.set("sessions.reconnect_grace_s", 0).start();
    let archive = wait_until_archived(&server);
    let mut sum = Figures::default();
    records.iter().for_each(|record| sum.add(&record.check(&archive)));
    sum
}

/// Waits until no dump is left that is not in the archive.
pub(crate) fn wait_until_archived(server: &TestServer) -> crate::support::Archive {
    server.wait_until("all dumps are archived", || {
        let is_dump = |name: &String| !name.starts_with('.') && name != "finished" && name != "quarantine";
        let open = file_names(&server.dump_path("")).iter().any(is_dump);
        let jobs = file_names(&server.dump_path("finished")).iter().any(is_dump);
        (!open && !jobs).then_some(())
    });
    server.archive()
}

/// One client after the other until the network is calm.
fn live(mut rng: Rng, server: &Whereabouts, calm: &Arc<AtomicBool>) -> Vec<Record> {
    let mut records = Vec::new();
    while records.is_empty() || !calm.load(Ordering::Relaxed) {
        let (is_legacy, odd_shapes) = (rng.one_in(5), if rng.one_in(4) { 10 } else { 0 });
        let habits = Habits { is_legacy, odd_shapes, ..Habits::default() };
        let (tracing_ms, burst_max) = (rng.between(100, 2_500), *rng.pick(&[2, 6, 15]));
        let plan = Plan::roll(&mut rng, tracing_ms, burst_max, Leave::Settled);
        let trace = Trace::new(&mut rng, habits);
        // The network has no faults of its own here: whoever has sent everything may leave.
        let always = Arc::new(AtomicBool::new(true));
        records.push(Client::new(trace, plan, Rng::new(rng.next()), server.clone(), always).run());
    }
    records
}
