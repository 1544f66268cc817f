//! What waiting sessions cost, and how soon those of an earlier server are known.

use std::time::Instant;

use serde_json::json;

use crate::support::script::message;
use crate::support::{Settings, TestServer, Upgrade, WsClient};

/// Issue: ten thousand cost less than 10 MiB.
const WAITING_BYTES_MAX: f64 = 10.0 * 1024.0 * 1024.0 / 10_000.0;

/// Waiting sessions are cheap; and after a crash all of them are known again soon.
#[test]
fn waiting_sessions_are_cheap_and_found_again() {
    let (first, all) = if crate::is_long() { (2_000, 12_000) } else { (500, 2_500) };
    let settings = Settings::new().set("sessions.reconnect_grace_s", 600).set("dump.flush_interval_ms", 10);
    // A release build on an idle machine has more in a second than are let in.
    let server = settings.set("limits.handshakes_per_s", 100_000).start();
    // The first ones fill what the process needs anyway.
    leave_waiting(&server, 0..first);
    let before = resident_bytes(&server);
    leave_waiting(&server, first..all);
    let each = (resident_bytes(&server) - before) / (all - first) as f64;
    eprintln!("a waiting session costs {each:.0} bytes of resident memory");
    assert!(each < WAITING_BYTES_MAX, "{each:.0} bytes each, at most {WAITING_BYTES_MAX:.0}");

    let settings = server.kill9();
    let started = Instant::now();
    let server = settings.start();
    let ready = started.elapsed();
    server.expect_log("recovery.complete");
    let scanned = started.elapsed();
    server.wait_for_metric("rtcstats_sessions{state=\"waiting\"}", all as f64);
    eprintln!(
        "{all} unfinished dumps: ready after {ready:?}, scanned after {scanned:?}, all waiting {:?}",
        started.elapsed()
    );
}

/// Clients that work at the same time. The server gathers what is ready for some milliseconds when little is to be done,
/// so one client after the other would mostly wait.
const AT_ONCE: usize = 16;

fn leave_waiting(server: &TestServer, numbers: std::ops::Range<usize>) {
    let end = numbers.end as f64;
    std::thread::scope(|scope| {
        for first in 0..AT_ONCE {
            let numbers = numbers.clone().skip(first).step_by(AT_ONCE);
            scope.spawn(move || numbers.for_each(|number| leave_one_waiting(server, number)));
        }
    });
    server.wait_for_metric("rtcstats_sessions{state=\"waiting\"}", end);
}

fn leave_one_waiting(server: &TestServer, number: usize) {
    let id = format!("{number:08x}-c9f8-489d-87ca-21263dec0642");
    let mut client = WsClient::open(server.ingest, &Upgrade::browser(&id));
    // The dearest kind: one that may go on under another id.
    let identity = json!(["identity", null, {"parentStatsSessionId": "p"}, 1_700_000_000_000_u64, 1]);
    client.send_text(&message(&id, "identity", Some(&identity)));
    client.round_trip();
    client.reset();
}

fn resident_bytes(server: &TestServer) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
}
