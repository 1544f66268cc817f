//! What bounds a peer: sessions per connection, silence, and that one peer's excess is its own.

use std::time::{Duration, Instant};

use super::ingest::archived;
use crate::support::client::Incoming;
use crate::support::script::entry_message;
use crate::support::{Rng, Settings, TestServer, Upgrade, WsClient, frames};

/// At the limit of sessions on a connection the longest idle one is finished and the new one is taken.
#[test]
fn the_longest_idle_session_makes_room() {
    let server = Settings::new().set("limits.sessions_per_connection", 3).start();
    let mut client = WsClient::open(server.ingest, &Upgrade::back_end("3.1_STANDARD"));
    for id in ["a", "b", "c", "a", "d"] {
        client.send_text(&entry_message(id, &format!("[\"{id}\"]")));
        // What comes within one turn of the loop has the same age.
        client.round_trip();
    }
    // `b` is the longest idle when `d` comes; the connection is still open.
    assert_eq!(archived(&server, "b", 1)[0].body, "[\"b\"]\n");
    assert_eq!(server.archive().count(), 1);
    client.send_text(&entry_message("a", "[\"a\"]"));
    client.close(1000);
    assert_eq!(archived(&server, "a", 1)[0].body, "[\"a\"]\n".repeat(3));
    for id in ["c", "d"] {
        archived(&server, id, 1);
    }
}

/// A back end may carry many sessions, a browser connection 256, unless configured otherwise.
#[test]
fn the_documented_session_limits() {
    let server = TestServer::start();
    let run = |upgrade: &Upgrade, prefix: &str| {
        let mut client = WsClient::open(server.ingest, upgrade);
        for n in 0..257 {
            client.send_text(&entry_message(&format!("{prefix}{n}"), "[1]"));
        }
        client.round_trip();
        client
    };
    let back_end = run(&Upgrade::back_end("3.0_JVB"), "bridge");
    let browser = run(&Upgrade::back_end("3.1_STANDARD"), "browser");
    archived(&server, "browser0", 1);
    assert_eq!(server.archive().count(), 1, "only the first session of the browser made room");
    drop((back_end, browser));
}

/// A peer that answers pings stays; one that is silent is closed at the idle limit, which runs from the upgrade on.
#[test]
fn only_silent_peers_are_closed() {
    let limit = Duration::from_secs(2);
    let server = Settings::new().set("limits.idle_s", limit.as_secs()).start();
    let started = Instant::now();
    let id = Rng::new(40).uuid();
    let mut silent = WsClient::open(server.ingest, &Upgrade::browser(&id));
    let mut never_spoke = WsClient::open(server.ingest, &Upgrade::back_end(""));
    let mut polite = WsClient::open(server.ingest, &Upgrade::back_end(""));
    silent.send_text(&entry_message(&id, "[1]"));

    let answering = std::thread::spawn(move || {
        let mut pings = 0;
        while started.elapsed() < 3 * limit {
            match polite.receive() {
                Incoming::Ping(payload) => {
                    pings += 1;
                    polite.send_bytes(&frames::message(frames::PONG, &payload));
                }
                other => panic!("{other:?} instead of a ping"),
            }
        }
        polite.close(1000);
        pings
    });
    for client in [&mut silent, &mut never_spoke] {
        let mut pings = 0;
        let code = loop {
            match client.receive() {
                Incoming::Ping(_) => pings += 1,
                Incoming::Close { code, .. } => break code,
                other => panic!("{other:?} instead of ping or close"),
            }
        };
        assert_eq!(code, Some(1001));
        assert!(pings >= 1, "the server asks before it gives up");
        assert!(started.elapsed() >= limit, "closed after {:?}", started.elapsed());
    }
    assert!(started.elapsed() < 3 * limit, "closed only after {:?}", started.elapsed());
    assert_eq!(archived(&server, &id, 1)[0].body, "[1]\n");
    assert!(answering.join().expect("the polite client stays open") >= 2);
    server.wait_for_metric("rtcstats_websocket_connection_error", 2.0);
}

/// A message as large as allowed is recorded, over the default limits.
#[test]
fn a_message_may_be_four_mebibytes() {
    let server = TestServer::start();
    let id = Rng::new(41).uuid();
    let mut client = WsClient::open(server.ingest, &Upgrade::browser(&id));
    let frame_bytes = 4 * 1024 * 1024;
    let around = entry_message(&id, "[\"\"]").len();
    let line = format!("[\"{}\"]", "m".repeat(frame_bytes - around));
    let request = entry_message(&id, &line);
    assert_eq!(request.len(), frame_bytes);
    client.send_text(&request);
    client.close(1000);
    assert_eq!(archived(&server, &id, 1)[0].body, line + "\n");
}

/// A peer that floods does not keep others waiting for their turn.
#[test]
fn a_flood_does_not_starve_others() {
    let server = TestServer::start();
    let mut rng = Rng::new(42);
    let (flood_id, calm_id) = (rng.uuid(), rng.uuid());
    let mut calm = WsClient::open(server.ingest, &Upgrade::browser(&calm_id));
    let mut flood = WsClient::open(server.ingest, &Upgrade::browser(&flood_id));
    let line = format!("[\"{}\"]", "f".repeat(4000));
    let batch = frames::message(frames::TEXT, entry_message(&flood_id, &line).as_bytes()).repeat(200);
    std::thread::scope(|scope| {
        let flooding = scope.spawn(move || {
            for _ in 0..25 {
                flood.send_bytes(&batch);
            }
            flood.close(1000);
        });
        let mut round_trips = 0;
        while !flooding.is_finished() {
            calm.round_trip();
            round_trips += 1;
        }
        assert!(round_trips > 0);
        flooding.join().unwrap();
    });
    calm.close(1000);
    assert_eq!(archived(&server, &flood_id, 1)[0].lines().len(), 5000);
}
