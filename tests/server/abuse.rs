//! What misbehaving in bulk costs: memory and processor time of the real server, printed, for `docs/limits.md`.
//!
//! `cargo test --release --test server -- --nocapture --test-threads 1 abuse` prints the figures.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::archive::plain_dumps_of;
use crate::support::process::Usage;
use crate::support::script::entry_message;
use crate::support::{Rng, Settings, TestServer, Upgrade, WsClient, frames, http};

const RSS_GROWTH_BYTES_MAX: u64 = 50 * 1024 * 1024;
/// What an idle server may use of a core: the loop wakes once a second, a scrape costs some milliseconds.
const IDLE_SHARE_MAX: f64 = 0.05;
/// How long the idle server is watched. Long against the 10 ms in which the kernel counts.
const IDLE_TIME: Duration = Duration::from_secs(2);

/// A server with a session on it that goes on, and what it used before the abuse.
struct Watch {
    server: TestServer,
    bystander: WsClient,
    before: Usage,
    what: &'static str,
    began: Instant,
}

impl Watch {
    fn set(what: &'static str, settings: Settings) -> Self {
        let server = settings.start();
        let mut bystander = WsClient::open(server.ingest, &Upgrade::browser("bystander"));
        bystander.send_text(&entry_message("bystander", "[1]"));
        bystander.round_trip();
        let before = server.usage();
        Self { server, bystander, before, what, began: Instant::now() }
    }

    /// Measures at the height of the abuse: the bystander is served, and nothing spins.
    fn judge(&mut self) {
        self.bystander.round_trip();
        let took = self.began.elapsed();
        let height = self.server.usage();
        let idle_share = self.idle_share();
        let grown = height.rss_bytes.saturating_sub(self.before.rss_bytes);
        eprintln!(
            "{}: {:.1} MiB more, {} ms of processor time within {} ms, then {:.1} % of a core",
            self.what,
            grown as f64 / 1_048_576.0,
            (height.cpu - self.before.cpu).as_millis(),
            took.as_millis(),
            idle_share * 100.0
        );
        assert!(grown < RSS_GROWTH_BYTES_MAX, "{}: {grown} bytes more", self.what);
        assert!(idle_share < IDLE_SHARE_MAX, "{}: idle at {idle_share} of a core", self.what);
    }

    /// The share of a core that is used while nothing happens. What is still under way is waited for.
    fn idle_share(&self) -> f64 {
        let mut share = 1.0;
        let deadline = Instant::now() + 4 * crate::support::DEADLINE;
        while share >= IDLE_SHARE_MAX && Instant::now() < deadline {
            let (from, cpu) = (Instant::now(), self.server.usage().cpu);
            self.server.watch_for(IDLE_TIME);
            share = (self.server.usage().cpu - cpu).as_secs_f64() / from.elapsed().as_secs_f64();
        }
        share
    }

    /// After the abuse all sockets are back and the bystander is complete.
    fn close(mut self) {
        self.server.wait_until("all other sockets are closed", || {
            (self.server.usage().sockets <= self.before.sockets).then_some(())
        });
        self.bystander.send_text(&entry_message("bystander", "[2]"));
        self.bystander.close(1000);
        // It may stand in line behind thousands of dumps for the archive, but nothing is missing in it.
        let finished = self.server.dump_path("finished");
        self.server.wait_until("the bystander's dump is finished", || {
            let mut bodies = plain_dumps_of(&finished, "bystander");
            bodies.extend(self.server.archive().dumps_of("bystander").into_iter().map(|dump| dump.body));
            bodies.iter().any(|body| body.ends_with("[1]\n[2]\n")).then_some(())
        });
    }
}

fn connect_all(server: &TestServer, count: usize, first: &[u8]) -> Vec<TcpStream> {
    let connect = |_| {
        let mut stream = http::connect(server.ingest).unwrap();
        stream.write_all(first).unwrap();
        stream
    };
    (0..count).map(connect).collect()
}

#[test]
fn three_hundred_slow_handshakes() {
    let mut watch = Watch::set("300 slow handshakes", Settings::new());
    let mut peers = connect_all(&watch.server, 300, b"");
    for byte in b"GET / HTTP/1.1\r\nHost: h\r\n" {
        for peer in &mut peers {
            peer.write_all(&[*byte]).unwrap();
        }
    }
    watch.judge();
    drop(peers);
    watch.close();
}

#[test]
fn three_hundred_silent_connections() {
    let mut watch = Watch::set("300 silent connections", Settings::new());
    let peers = connect_all(&watch.server, 300, b"");
    watch.judge();
    drop(peers);
    watch.close();
}

/// They are told nothing they would not read, and are given up when nothing moves any more.
#[test]
fn ten_peers_that_ping_and_never_read() {
    let mut watch = Watch::set("10 peers that ping without reading", Settings::new());
    let ping = frames::message(frames::PING, &[b'p'; 125]);
    let batch = ping.repeat(500);
    let mut peers: Vec<WsClient> =
        (0..10).map(|_| WsClient::open(watch.server.ingest, &Upgrade::back_end("3.0_JVB"))).collect();
    for _ in 0..40 {
        for peer in &mut peers {
            peer.send_bytes(&batch);
        }
    }
    watch.server.wait_for_metric("rtcstats_pings_received_total", 200_000.0);
    watch.judge();
    drop(peers);
    watch.close();
}

#[test]
fn fifty_thousand_pings() {
    let mut watch = Watch::set("50,000 pings on one connection", Settings::new());
    let mut peer = WsClient::open(watch.server.ingest, &Upgrade::back_end("3.0_JVB"));
    let batch = frames::message(frames::PING, b"are you there").repeat(1000);
    for _ in 0..50 {
        peer.send_bytes(&batch);
        peer.round_trip();
    }
    assert!(watch.server.wait_for_metric("rtcstats_pings_received_total", 50_000.0) >= 50_000.0);
    watch.judge();
    peer.close(1000);
    watch.close();
}

#[test]
fn twenty_thousand_sessions_on_one_connection() {
    let mut watch = Watch::set("20,000 sessions on one connection", Settings::new());
    let mut peer = WsClient::open(watch.server.ingest, &Upgrade::back_end("3.0_JVB"));
    for thousand in 0..20 {
        for n in 0..1000 {
            peer.send_text(&entry_message(&format!("s{thousand}-{n}"), "[1]"));
        }
        peer.round_trip();
    }
    watch.server.wait_for_metric("rtcstats_sessions_displaced_total", 20_000.0 - 4096.0);
    watch.judge();
    peer.close(1000);
    watch.close();
}

#[test]
fn two_thousand_resets() {
    let mut watch = Watch::set("2,000 connections dropped by a reset", Settings::new());
    let mut rng = Rng::new(80);
    for n in 0..2000 {
        if n % 2 == 0 {
            let id = rng.uuid();
            let mut peer = WsClient::open(watch.server.ingest, &Upgrade::browser(&id));
            peer.send_text(&entry_message(&id, "[1]"));
            peer.reset();
        } else {
            let peer = http::connect(watch.server.ingest).unwrap();
            rustix::net::sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).unwrap();
        }
    }
    watch.server.wait_for_metric("rtcstats_connections_accepted_total", 1900.0);
    watch.judge();
    watch.close();
}

/// More connections than descriptors: those over the limit are refused or wait in the backlog, the loop does not spin,
/// and as soon as there is room it goes on.
#[test]
fn a_hundred_connections_over_the_descriptor_limit() {
    let descriptors = 600;
    let settings = Settings::new().descriptors(descriptors).set("limits.head_timeout_s", 3600);
    let mut watch = Watch::set("100 connections over the descriptor limit", settings);
    // They never finish their heads, so that each of them holds what it was given.
    let peers = connect_all(&watch.server, descriptors as usize + 100, b"GET /");
    watch.judge();
    assert!(watch.server.usage().sockets < descriptors as usize);
    drop(peers);
    watch.server.wait_until("newcomers are let in again", || {
        let mut newcomer = WsClient::try_connect(watch.server.ingest, &Upgrade::back_end("")).ok()?.ok()?;
        newcomer.round_trip();
        newcomer.close(1000);
        Some(())
    });
    watch.close();
}

/// Far fewer descriptors than the loop would like to keep back: what is let in is still written, archived and measured.
#[test]
fn very_few_descriptors() {
    let mut watch = Watch::set("64 descriptors in all", Settings::new().descriptors(64));
    let peers = connect_all(&watch.server, 150, b"GET /");
    watch.judge();
    drop(peers);
    watch.server.wait_for_metric("rtcstats_entries_appended_total", 1.0);
    assert_eq!(watch.server.metric("rtcstats_dump_write_errors_total"), 0.0);
    watch.close();
}
