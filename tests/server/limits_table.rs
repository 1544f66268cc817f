//! One test per row of `docs/limits.md`: what the peer over the limit sees, that the metric of the row moved, that a
//! session on another connection noticed nothing, and that sockets and memory came back.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use super::ingest::archived;
use crate::support::client::Incoming;
use crate::support::http::{self, exchange, read_answer};
use crate::support::process::Usage;
use crate::support::script::entry_message;
use crate::support::{Rng, Settings, TestServer, Upgrade, WsClient, frames};

/// How much more a server may hold after an excess than before it.
const RSS_GROWTH_BYTES_MAX: u64 = 50 * 1024 * 1024;

/// A server with one well-behaved session on it, which lasts from before to after the excess.
pub(crate) struct Scene {
    pub(crate) server: TestServer,
    bystander: WsClient,
    id: String,
    before: Usage,
}

impl Scene {
    pub(crate) fn set(settings: Settings) -> Self {
        let server = settings.start();
        let id = Rng::new(0x11).uuid();
        let mut bystander = WsClient::open(server.ingest, &Upgrade::browser(&id));
        bystander.send_text(&entry_message(&id, "[1]"));
        bystander.round_trip();
        let before = server.usage();
        Self { server, bystander, id, before }
    }

    /// Sends an entry of the bystander; it is answered as if it were alone.
    pub(crate) fn bystander_goes_on(&mut self) {
        self.bystander.send_text(&entry_message(&self.id, "[2]"));
        self.bystander.round_trip();
    }

    /// The peers over the limit are gone: `series` has moved, the bystander is complete, everything is back.
    pub(crate) fn close(mut self, series: &str, least: f64) {
        self.server.wait_for_metric(series, least);
        self.bystander_goes_on();
        self.server.wait_until("all other sockets are closed", || {
            (self.server.usage().sockets <= self.before.sockets).then_some(())
        });
        let grown = self.server.usage().rss_bytes.saturating_sub(self.before.rss_bytes);
        assert!(
            grown < RSS_GROWTH_BYTES_MAX,
            "{grown} bytes more than before, at most {RSS_GROWTH_BYTES_MAX}"
        );
        self.bystander.close(1000);
        let body = archived(&self.server, &self.id, 1)[0].body.clone();
        assert!(body.starts_with("[1]\n[2]\n"), "{body:?}");
        assert!(body.lines().skip(2).all(|line| line == "[2]"), "{body:?}");
    }
}

fn refused(reason: &str) -> String {
    format!("rtcstats_connections_refused_total{{reason=\"{reason}\"}}")
}

fn closed(reason: &str) -> String {
    format!("rtcstats_connections_closed_total{{reason=\"{reason}\"}}")
}

fn not_taken(reason: &str) -> String {
    format!("rtcstats_requests_refused_total{{reason=\"{reason}\"}}")
}

/// The status with which an upgrade is refused.
fn refusal_of(server: &TestServer, upgrade: &Upgrade) -> u16 {
    match WsClient::try_connect(server.ingest, upgrade).expect("a refusal is delivered") {
        Ok(_) => 101,
        Err(answer) => answer.status,
    }
}

fn back_end() -> Upgrade {
    Upgrade::back_end("3.0_JVB")
}

#[test]
fn connections() {
    let scene = Scene::set(Settings::new().set("limits.connections", 3));
    let others = [(); 2].map(|()| WsClient::open(scene.server.ingest, &back_end()));
    assert_eq!(refusal_of(&scene.server, &back_end()), 503);
    let [leaves, stays] = others;
    leaves.close(1000);
    let next = scene.server.wait_until("there is room again", || {
        WsClient::try_connect(scene.server.ingest, &back_end()).unwrap().ok()
    });
    drop((stays, next));
    scene.close(&refused("too_many_connections"), 1.0);
}

/// Behind a trusted proxy the client counts that the proxy names; another one, and loopback itself, are not concerned.
#[test]
fn connections_per_address() {
    let scene = Scene::set(
        Settings::new().set("limits.connections_per_address", 2).set("server.trusted_proxies", "127.0.0.0/8"),
    );
    let behind = |name: &str, value: &str| {
        let mut upgrade = back_end();
        upgrade.headers.push((name.to_owned(), value.to_owned()));
        upgrade
    };
    let client = behind("X-Forwarded-For", "6.6.6.6, 203.0.113.7");
    let inside = [(); 2].map(|()| WsClient::open(scene.server.ingest, &client));
    assert_eq!(refusal_of(&scene.server, &client), 429);
    // The client's own words stand left of the proxy's.
    assert_eq!(refusal_of(&scene.server, &behind("X-Forwarded-For", "8.8.8.8, 203.0.113.7")), 429);
    assert_eq!(refusal_of(&scene.server, &behind("Forwarded", "for=\"203.0.113.7:1234\";proto=https")), 429);
    let another = WsClient::open(scene.server.ingest, &behind("Forwarded", "for=203.0.113.8"));
    let loopback = [(); 5].map(|()| WsClient::open(scene.server.ingest, &back_end()));
    let [leaves, stays] = inside;
    leaves.close(1000);
    let next = scene.server.wait_until("there is room again", || {
        WsClient::try_connect(scene.server.ingest, &client).unwrap().ok()
    });
    drop((stays, another, loopback, next));
    scene.close(&refused("too_many_requests"), 3.0);
}

#[test]
fn handshakes_per_second() {
    let scene = Scene::set(Settings::new().set("limits.handshakes_per_s", 1));
    let statuses: Vec<u16> = (0..20).map(|_| refusal_of(&scene.server, &back_end())).collect();
    assert!(statuses.iter().all(|status| [101, 429].contains(status)), "{statuses:?}");
    let admitted = scene.server.wait_until("a second later the next one comes in", || {
        WsClient::try_connect(scene.server.ingest, &back_end()).unwrap().ok()
    });
    admitted.close(1000);
    // The machine may be slow, but twenty upgrades do not take twenty seconds.
    scene.close(&refused("too_many_requests"), 1.0);
}

#[test]
fn head_bytes_and_headers() {
    let scene = Scene::set(Settings::new().set("limits.head_bytes", 2048).set("limits.head_headers", 8));
    let mut long = back_end();
    long.headers.push(("X-Long".into(), "x".repeat(2048)));
    assert_eq!(refusal_of(&scene.server, &long), 431);
    let mut many = back_end();
    many.headers.extend((0..9).map(|n| (format!("X-{n}"), String::new())));
    assert_eq!(refusal_of(&scene.server, &many), 431);
    let without_end = vec![b'x'; 4096];
    let answer = exchange(scene.server.ingest, &[b"GET /".as_slice(), &without_end].concat());
    assert_eq!(answer.status, 431);
    scene.close(&refused("head_too_large"), 3.0);
}

#[test]
fn head_time() {
    let scene = Scene::set(Settings::new().set("limits.head_timeout_s", 1));
    let mut slow: Vec<TcpStream> =
        (0..20).map(|_| http::connect(scene.server.ingest).expect("the port accepts")).collect();
    for stream in &mut slow {
        stream.write_all(b"GET / HTTP/1.1\r\nHost:").unwrap();
    }
    for stream in &mut slow {
        assert_eq!(read_answer(stream).status, 408);
    }
    drop(slow);
    scene.close(&refused("head_timeout"), 20.0);
}

/// A peer that neither sends nor answers pings is asked once and then told to go; so is one that answers nothing but
/// keeps dripping bytes that complete no frame.
#[test]
fn silence_and_unanswered_pings() {
    let mut scene = Scene::set(Settings::new().set("limits.idle_s", 2));
    let mut silent = WsClient::open(scene.server.ingest, &back_end());
    let mut dripping = WsClient::open(scene.server.ingest, &back_end());
    let frame = frames::message(frames::TEXT, &[b' '; 4000]);
    let mut bytes = frame.chunks(1);
    let mut pings = 0;
    let mut take = |client: &mut WsClient| match client.receive() {
        Incoming::Ping(_) => {
            pings += 1;
            None
        }
        Incoming::Close { code, .. } => Some(code),
        other => panic!("{other:?} instead of ping or close"),
    };
    // The bystander's own silence is ended by what it sends.
    assert_eq!(take(&mut silent), None);
    dripping.send_bytes(bytes.next().unwrap());
    scene.bystander_goes_on();
    assert_eq!(take(&mut dripping), None);
    dripping.send_bytes(bytes.next().unwrap());
    assert_eq!(take(&mut silent), Some(Some(1001)));
    scene.bystander_goes_on();
    assert_eq!(take(&mut dripping), Some(Some(1001)));
    drop((silent, dripping));
    scene.bystander_goes_on();
    assert_eq!(pings, 2);
    scene.server.wait_for_metric("rtcstats_pings_sent_total", 2.0);
    scene.close(&closed("idle"), 2.0);
}

/// A message that is too big is refused at its announcement. A resumed session whose client sends it again is over.
#[test]
fn message_bytes() {
    let scene = Scene::set(
        Settings::new().set("limits.message_bytes", 65_536).set("sessions.reconnect_grace_s", 600),
    );
    let id = Rng::new(51).uuid();
    let numbered = "[\"e\",null,1,1700000000001,1]";
    let mut huge = Vec::new();
    frames::push_header(&mut huge, 0x80 | frames::TEXT, 65_537, [0; 4]);
    let mut client = WsClient::open(scene.server.ingest, &Upgrade::browser(&id));
    client.send_text(&entry_message(&id, numbered));
    client.send_bytes(&huge);
    client.expect_close(1009);
    let again = Upgrade::browser(&id).target(&format!("/?statsSessionId={id}&isReconnect=true"));
    let mut client = WsClient::connect(scene.server.ingest, &again);
    assert!(client.expect_text().contains("\"value\":1,"));
    client.send_bytes(&huge);
    client.expect_close(3002);
    assert_eq!(archived(&scene.server, &id, 1)[0].body, format!("{numbered}\n"));
    scene.server.wait_for_metric(&closed("message_too_big"), 1.0);
    scene.close(&closed("hopeless"), 1.0);
}

#[test]
fn message_fragments() {
    let scene = Scene::set(Settings::new().set("limits.message_fragments", 16));
    let mut client = WsClient::open(scene.server.ingest, &back_end());
    client.send_bytes(&frames::masked(frames::TEXT, b"", [0; 4]));
    client.send_bytes(&frames::masked(frames::CONTINUATION, b"", [0; 4]).repeat(16));
    client.expect_close(1009);
    scene.close(&closed("message_too_big"), 1.0);
}

/// Whoever goes over the common memory for incomplete messages is told to come back later; the others keep theirs.
#[test]
fn incomplete_bytes() {
    let limit = 4 * 1024 * 1024;
    let scene = Scene::set(Settings::new().set("limits.incomplete_bytes", limit));
    let begun = frames::masked(frames::TEXT, &vec![b' '; limit / 4 - 1024], [0; 4]);
    let hold = |client: &mut WsClient| {
        client.send_bytes(&begun);
        client.round_trip();
    };
    let mut first = WsClient::open(scene.server.ingest, &back_end());
    hold(&mut first);
    let gauge = "rtcstats_incomplete_message_bytes";
    scene.server.wait_for_metric(gauge, (limit / 4 - 1024) as f64);
    let mut others: Vec<WsClient> = Vec::new();
    let refused = loop {
        let mut next = WsClient::open(scene.server.ingest, &back_end());
        assert!(others.len() < 5, "the limit was not noticed");
        next.send_bytes(&begun);
        match next.try_round_trip() {
            Ok(()) => others.push(next),
            Err(_) => break others.len(),
        }
    };
    assert_eq!(refused, 3, "with the first one, four hold a quarter each at most");
    first.send_bytes(&frames::masked(0x80 | frames::CONTINUATION, b"", [0; 4]));
    first.round_trip();
    drop((first, others));
    scene.server.wait_until("the memory is given back", || (scene.server.metric(gauge) == 0.0).then_some(()));
    scene.close(&closed("overload"), 1.0);
}

/// What is only announced reserves nothing.
#[test]
fn announced_bytes() {
    let scene = Scene::set(Settings::new());
    let mut header = Vec::new();
    frames::push_header(&mut header, 0x80 | frames::TEXT, 4 * 1024 * 1024, [0; 4]);
    let mut clients: Vec<WsClient> =
        (0..100).map(|_| WsClient::open(scene.server.ingest, &back_end())).collect();
    for client in &mut clients {
        client.send_bytes(&header);
    }
    // 400 MiB are announced; the first bytes of each are there when the gauge shows them.
    for client in &mut clients {
        client.send_bytes(b"{\"");
    }
    scene.server.wait_for_metric("rtcstats_incomplete_message_bytes", 200.0);
    let rss = scene.server.usage().rss_bytes;
    let grown = rss.saturating_sub(scene.before.rss_bytes);
    assert!(grown < 20 * 1024 * 1024, "{grown} bytes more than before");
    drop(clients);
    scene.close(&closed("end_of_stream"), 100.0);
}

/// Some 16 KB of entries each, and 7 KB of acknowledgements.
const BATCHES_MAX: usize = 10_000;

/// A peer that does not read what it asks for is dropped without a word: it would not read that either.
#[test]
fn outgoing_bytes() {
    // What the kernel takes is not ours to bound; so that it takes little, accepted sockets inherit a small send buffer.
    let ingest = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::sockopt::set_socket_send_buffer_size(&ingest, 1).unwrap();
    let metrics = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
    let settings = Settings::new().set("limits.outgoing_bytes", 1024).set("dump.flush_interval_ms", 0);
    // A full window makes TCP wait for tens of seconds; whoever looks on must not be silent for too long.
    let settings = settings.set("limits.idle_s", 600);
    let scene = Scene::set(settings.sockets(Arc::new(ingest), metrics));
    // A short id, so that much fits into what is under way when the window closes.
    let id = "s";
    let mut stream = http::connect_with_little_room(scene.server.ingest).unwrap();
    stream.write_all(Upgrade::browser(id).head().as_bytes()).unwrap();
    let mut client = WsClient::upgraded(stream).unwrap().expect("the upgrade is accepted");
    // Before every entry one is missing, so each ends a run and earns an acknowledgement of its own. Without gaps it would
    // be one for a hundred, or for a turn, and the queue would fill only behind tens of megabytes.
    let mut numbers = (1u64..).step_by(2);
    let mut batch = || {
        let entries = numbers.by_ref().take(200);
        let text: String =
            entries.map(|number| entry_message(id, &format!("[0,0,0,1700000000001,{number}]"))).collect();
        frames::message(frames::TEXT, text.as_bytes())
    };
    let sent = (0..BATCHES_MAX).take_while(|_| client.try_send_bytes(&batch()).is_ok()).count();
    assert!(sent < BATCHES_MAX, "the server did not mind");
    scene.server.wait_for_metric(&closed("slow_reader"), 1.0);
    drop(client);
    scene.close(&closed("slow_reader"), 1.0);
}

#[test]
fn sessions_per_connection() {
    for (client, key) in [
        ("3.1_STANDARD", "limits.sessions_per_connection"),
        ("3.0_JVB", "limits.sessions_per_backend_connection"),
    ] {
        let scene = Scene::set(Settings::new().set(key, 2));
        let mut feeder = WsClient::open(scene.server.ingest, &Upgrade::back_end(client));
        for id in ["a", "b", "c", "d"] {
            feeder.send_text(&entry_message(id, "[1]"));
        }
        feeder.round_trip();
        for id in ["a", "b"] {
            archived(&scene.server, id, 1);
        }
        feeder.close(1000);
        scene.close("rtcstats_sessions_displaced_total", 2.0);
    }
}

/// Over the number of open sessions a new one is refused, on an open connection as at an upgrade; those that exist go
/// on, and one that ended makes room.
#[test]
fn sessions_in_all() {
    let scene = Scene::set(
        Settings::new()
            .set("limits.sessions", 3)
            .set("limits.sessions_per_connection", 3)
            .set("limits.bad_requests", 0),
    );
    let mut feeder = WsClient::open(scene.server.ingest, &back_end());
    for id in ["a", "b", "c", "a"] {
        feeder.send_text(&entry_message(id, "[1]"));
    }
    feeder.round_trip();
    let taken = scene.server.wait_for_metric(&not_taken("too_many_sessions"), 1.0);
    assert_eq!(taken, 1.0, "`c`, and nobody else");
    let newcomer = Rng::new(53).uuid();
    assert_eq!(refusal_of(&scene.server, &Upgrade::browser(&newcomer)), 503);
    scene.server.wait_for_metric(&refused("too_many_sessions"), 1.0);
    feeder.send_text("{\"statsSessionId\":\"a\",\"type\":\"close\"}");
    feeder.send_text(&entry_message("c", "[1]"));
    feeder.close(1000);
    for id in ["a", "b", "c"] {
        archived(&scene.server, id, 1);
    }
    WsClient::open(scene.server.ingest, &Upgrade::browser(&newcomer)).close(1000);
    scene.close(&not_taken("too_many_sessions"), 1.0);
}

/// Over the number of waiting sessions the one that has waited longest is archived without its client.
#[test]
fn waiting_sessions() {
    let scene =
        Scene::set(Settings::new().set("limits.waiting_sessions", 1).set("sessions.reconnect_grace_s", 600));
    let mut rng = Rng::new(54);
    let ids = [rng.uuid(), rng.uuid()];
    for (index, id) in ids.iter().enumerate() {
        let mut client = WsClient::open(scene.server.ingest, &Upgrade::browser(id));
        client.send_text(&entry_message(id, "[\"e\",null,1,1700000000001,1]"));
        client.round_trip();
        client.reset();
        scene.server.wait_for_metric(&closed("transport_error"), index as f64 + 1.0);
    }
    archived(&scene.server, &ids[0], 1);
    assert_eq!(scene.server.archive().dumps_of(&ids[1]).len(), 0);
    scene.close("rtcstats_waiting_sessions_finished_total{reason=\"too_many\"}", 1.0);
}

/// A session over its size: a connection that carries this one alone is told to stop, on a shared one the request is
/// refused. What is within the size is archived.
#[test]
fn session_bytes() {
    let scene = Scene::set(
        Settings::new()
            .set("limits.session_bytes", 8192)
            .set("limits.message_bytes", 4096)
            .set("dump.flush_bytes", 1024),
    );
    let id = Rng::new(55).uuid();
    let line = format!("[\"{}\"]", "x".repeat(3000));
    let mut client = WsClient::open(scene.server.ingest, &Upgrade::browser(&id));
    for _ in 0..3 {
        client.send_text(&entry_message(&id, &line));
    }
    client.expect_close(3002);
    assert_eq!(archived(&scene.server, &id, 1)[0].lines(), [&line, &line]);
    let mut shared = WsClient::open(scene.server.ingest, &Upgrade::back_end("3.1_STANDARD"));
    shared.send_text(&entry_message("other", "[1]"));
    for _ in 0..3 {
        shared.send_text(&entry_message("big", &line));
    }
    shared.send_text(&entry_message("other", "[1]"));
    shared.close(1000);
    assert_eq!(archived(&scene.server, "big", 1)[0].lines().len(), 2);
    assert_eq!(archived(&scene.server, "other", 1)[0].lines().len(), 2);
    scene.server.wait_for_metric(&closed("hopeless"), 1.0);
    scene.close(&not_taken("session_too_big"), 2.0);
}

#[test]
fn bad_requests() {
    let scene = Scene::set(Settings::new().set("limits.bad_requests", 5));
    let mut client = WsClient::open(scene.server.ingest, &back_end());
    for _ in 0..5 {
        client.send_text("nonsense");
    }
    client.round_trip();
    client.send_text("nonsense");
    let reason = client.expect_close(1008);
    assert!(reason.contains("6 bad requests"), "{reason}");
    scene.server.wait_for_metric(&closed("bad_requests"), 1.0);
    scene.close(&not_taken("not_json"), 6.0);
}

/// Below the floor of free space nobody is let in, but health checks go on.
#[test]
fn free_space() {
    let server = Settings::new().set("dump.min_free_bytes", i64::MAX).start();
    let answer = server.wait_until("the disk was looked at", || {
        WsClient::try_connect(server.ingest, &Upgrade::browser("a")).unwrap().err()
    });
    assert_eq!(answer.status, 503);
    assert_eq!(http::get(server.ingest, "/healthcheck").status, 200);
    server.wait_for_metric(&refused("disk_full"), 1.0);
}

/// Every key of the section is in the table.
#[test]
fn the_table_has_every_limit() {
    let folder = env!("CARGO_MANIFEST_DIR");
    let table = std::fs::read_to_string(format!("{folder}/docs/limits.md")).unwrap();
    let defaults: toml::Table =
        std::fs::read_to_string(format!("{folder}/config/default.toml")).unwrap().parse().unwrap();
    for (key, default) in defaults["limits"].as_table().unwrap() {
        let row =
            table.lines().find(|line| line.starts_with('|') && line.contains(&format!("`limits.{key}`")));
        let row = row.unwrap_or_else(|| panic!("no row for limits.{key}"));
        assert!(row.contains(&format!("| {default} |")), "{row} has not the default {default}");
    }
}

/// Somebody takes a plain port for one with TLS.
#[test]
fn a_tls_hello_on_a_plain_port() {
    let scene = Scene::set(Settings::new());
    let mut stream = http::connect(scene.server.ingest).unwrap();
    stream.write_all(&[0x16, 0x03, 0x01, 0x00, 0x05, 1, 0, 0, 1, 3]).unwrap();
    let mut alert = Vec::new();
    stream.read_to_end(&mut alert).unwrap();
    assert_eq!(alert, [0x15, 3, 1, 0, 2, 2, 40], "a fatal handshake_failure");
    drop(stream);
    scene.close(&refused("bad_request"), 1.0);
}
