//! From the socket to the archive: every line, in order, byte for byte.

use std::io::Write;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::archive::{ArchivedDump, file_names, plain_dumps_of};
use crate::support::client::GREETING;
use crate::support::script::{self, Script};
use crate::support::{Rng, Settings, TestServer, Upgrade, WsClient, frames, http};

/// How many sessions the big run has, at least.
const SESSIONS: usize = 1_000;
/// Sessions that share one bridge connection.
const BRIDGE_SESSIONS: usize = 40;

/// A thousand sessions, half of them interleaved on bridge connections, end in the archive: every line is there,
/// in order, byte for byte, and nothing else is.
#[test]
fn a_thousand_sessions_are_archived_line_by_line() {
    let server = TestServer::start();
    let seed = 0x5eed_0001;
    eprintln!("seed {seed:#x}");
    let mut rng = Rng::new(seed);
    let (mut browsers, mut bridges) = (Vec::new(), Vec::new());
    while browsers.len() + bridges.len() * BRIDGE_SESSIONS < SESSIONS {
        for _ in 0..BRIDGE_SESSIONS {
            let entries = rng.between(0, 30);
            browsers.push(Script::browser(&mut rng, entries));
        }
        let sessions = (0..BRIDGE_SESSIONS).map(|_| {
            let entries = rng.between(0, 12);
            Script::bridge(&mut rng, entries)
        });
        bridges.push(sessions.collect::<Vec<_>>());
    }
    let sessions: Vec<&Script> = browsers.iter().chain(bridges.iter().flatten()).collect();
    assert!(sessions.len() >= SESSIONS);

    std::thread::scope(|scope| {
        for (worker, chunk) in browsers.chunks(browsers.len().div_ceil(4)).enumerate() {
            let rng = Rng::new(seed + 1 + worker as u64);
            scope.spawn(move || run_browsers(server.ingest, chunk, rng));
        }
        for (worker, chunk) in bridges.chunks(bridges.len().div_ceil(2)).enumerate() {
            let mut rng = Rng::new(seed + 100 + worker as u64);
            scope.spawn(move || {
                chunk.iter().for_each(|sessions| run_bridge(server.ingest, sessions, &mut rng))
            });
        }
    });

    server.wait_until("all sessions are archived", || {
        (server.archive().count() >= sessions.len()).then_some(())
    });
    let archived = server.archive().dumps();
    assert_eq!(archived.len(), sessions.len(), "one dump per session");
    for script in sessions {
        let dump = archived.iter().find(|dump| dump.name == script.id).expect("the session has a dump");
        script.assert_recorded(&dump.body);
        assert!(dump.document["dumpMetadata"].is_object(), "{}", dump.document);
    }
    server.wait_until("the dump folders are empty", || {
        let left = file_names(&server.dump_path("finished"));
        left.is_empty().then_some(())
    });
    assert!(server.stop().status.success());
}

/// Opens all connections of one worker first, then lets them take turns.
fn run_browsers(address: SocketAddr, scripts: &[Script], mut rng: Rng) {
    let mut open: Vec<_> = scripts
        .iter()
        .map(|script| (WsClient::open(address, &Upgrade::browser(&script.id)), script.messages.as_slice()))
        .collect();
    while !open.is_empty() {
        let turn = rng.between(0, open.len() as u64 - 1) as usize;
        let (client, messages) = &mut open[turn];
        match messages.split_first() {
            Some((message, rest)) => {
                send_somehow(client, message, &mut rng);
                *messages = rest;
            }
            None => open.swap_remove(turn).0.close(3001),
        }
    }
}

/// One connection that carries all the sessions, interleaved at random.
fn run_bridge(address: SocketAddr, scripts: &[Script], rng: &mut Rng) {
    let mut client = WsClient::open(address, &Upgrade::back_end("3.0_JVB"));
    let mut waiting: Vec<&[String]> = scripts.iter().map(|script| script.messages.as_slice()).collect();
    while !waiting.is_empty() {
        let turn = rng.between(0, waiting.len() as u64 - 1) as usize;
        match waiting[turn].split_first() {
            Some((message, rest)) => {
                send_somehow(&mut client, message, rng);
                waiting[turn] = rest;
            }
            None => drop(waiting.swap_remove(turn)),
        }
    }
    client.close(1000);
}

/// As a text frame, a binary frame, in fragments, or in two writes.
fn send_somehow(client: &mut WsClient, message: &str, rng: &mut Rng) {
    let bytes = message.as_bytes();
    let cut = rng.between(1, bytes.len() as u64 - 1) as usize;
    match rng.between(0, 9) {
        0 => client.send_bytes(&frames::message(frames::BINARY, bytes)),
        1 => {
            client.send_bytes(&frames::masked(frames::TEXT, &bytes[..cut], [7, 0, 255, 1]));
            client.send_bytes(&frames::masked(0x80 | frames::CONTINUATION, &bytes[cut..], [0, 9, 9, 0]));
        }
        2 => {
            let frame = frames::message(frames::TEXT, bytes);
            client.send_bytes(&frame[..cut]);
            client.send_bytes(&frame[cut..]);
        }
        _ => client.send_text(message),
    }
}

/// The first line of a dump tells who connected: the documented keys, in their order.
#[test]
fn the_first_line_describes_the_connection() {
    let server = TestServer::start();
    let id = Rng::new(1).uuid();
    let upgrade = Upgrade::browser(&id)
        .target(&format!("/room?statsSessionId={id}&rtcstats-token=s3cret&isReconnect=false"));
    let mut client = WsClient::open(server.ingest, &upgrade);
    client.send_text(&script::entry_message(&id, r#"["a",null,1,1700000000000]"#));
    client.close(1000);

    let dump = archived(&server, &id, 1).remove(0);
    let info = dump.connection_info();
    let path = format!("/room?statsSessionId={id}&isReconnect=false");
    assert_eq!(info["path"], path);
    assert_eq!(info["origin"], "https://meet.example.org");
    assert_eq!(info["url"], format!("https://meet.example.org{path}"));
    assert_eq!(info["clientProtocol"], "3.1_STANDARD");
    assert_eq!(info["statsFormat"], "chrome_standard");
    assert_eq!(info["clientType"], "RTCSTATS_CLIENT");
    assert!(info["userAgent"].as_str().unwrap().contains("Chrome/138.0.0.0"));
    let keys = ["path", "origin", "url", "userAgent", "clientProtocol", "statsFormat", "clientType"];
    let at: Vec<usize> =
        keys.iter().map(|key| dump.first_line.find(&format!("\"{key}\":")).unwrap()).collect();
    assert!(at.is_sorted(), "the order of the keys: {}", dump.first_line);
    let line: Value = serde_json::from_str(&dump.first_line).unwrap();
    assert_eq!((&line[1], line.as_array().unwrap().len()), (&Value::Null, 4));
    assert!(!dump.first_line.contains("s3cret"), "a token must not be written");

    // The folder is the UTC date of that line's clock.
    let clock_ms = line[3].as_i64().unwrap();
    let date = time::OffsetDateTime::from_unix_timestamp(clock_ms / 1000).unwrap().date();
    assert_eq!(dump.day, date.to_string());
}

/// Bytes right behind the request head are the first frames, however the stream is cut.
#[test]
fn frames_behind_the_head_are_kept() {
    let server = TestServer::start();
    let mut rng = Rng::new(2);
    let head_bytes = Upgrade::browser(&rng.uuid()).head().len();
    for cut in (0..24).map(|step| head_bytes - 8 + step).chain([1, 2, head_bytes / 2]) {
        let id = rng.uuid();
        let line = format!(r#"["cut",null,{cut},1700000000000]"#);
        let mut bytes = Upgrade::browser(&id).head().into_bytes();
        bytes.extend(frames::message(frames::TEXT, script::entry_message(&id, &line).as_bytes()));
        bytes.extend(frames::close(Some(1000), ""));
        let mut stream = http::connect(server.ingest).unwrap();
        stream.write_all(&bytes[..cut]).unwrap();
        stream.write_all(&bytes[cut..]).unwrap();
        let mut client = WsClient::upgraded(stream).unwrap().expect("the upgrade is accepted");
        assert_eq!(client.expect_text(), GREETING);
        client.expect_close(1000);
        assert_eq!(archived(&server, &id, 1)[0].body, line + "\n", "cut at {cut}");
    }
}

/// Data that arrives together with the end of the stream is recorded before the end is handled.
#[test]
fn bytes_that_arrive_with_the_end_are_kept() {
    let server = TestServer::start();
    let id = Rng::new(3).uuid();
    let mut client = WsClient::open(server.ingest, &Upgrade::browser(&id));
    // A paused server finds data and end in one wake-up.
    server.pause();
    for number in 0..50 {
        client.send_text(&script::entry_message(&id, &format!(r#"["last",null,{number},1700000000000]"#)));
    }
    client.half_close();
    server.go_on();
    assert_eq!(archived(&server, &id, 1)[0].lines().len(), 50);
}

/// A reset ends the sessions of its connection; what was received before it is archived.
#[test]
fn a_reset_finishes_its_sessions() {
    let server = TestServer::start();
    let id = Rng::new(4).uuid();
    let mut client = WsClient::open(server.ingest, &Upgrade::browser(&id));
    client.send_text(&script::entry_message(&id, r#"["before",null,1,1700000000000]"#));
    client.round_trip();
    client.reset();
    assert_eq!(archived(&server, &id, 1)[0].lines(), [r#"["before",null,1,1700000000000]"#]);
    server.wait_for_metric("rtcstats_websocket_connection_error", 1.0);
}

/// After `close` the connection stays open and the same id starts another dump.
#[test]
fn after_close_the_id_starts_a_new_dump() {
    let server = TestServer::start();
    let id = Rng::new(5).uuid();
    let mut client = WsClient::open(server.ingest, &Upgrade::browser(&id));
    for part in 1..=3 {
        client.send_text(&script::entry_message(&id, &format!(r#"["part",null,{part},1700000000000]"#)));
        client.send_text(&script::message(&id, "close", None));
    }
    client.close(1000);
    let dumps = archived(&server, &id, 3);
    let parts: Vec<_> = dumps.iter().map(|dump| dump.body.as_str()).collect();
    assert_eq!(parts, [1, 2, 3].map(|part| format!("[\"part\",null,{part},1700000000000]\n")));
}

/// An entry is in the dump at the latest after the flush interval, while its session goes on.
#[test]
fn entries_are_flushed_in_time() {
    let server = Settings::new().set("dump.flush_interval_ms", 50).start();
    let id = Rng::new(6).uuid();
    let mut client = WsClient::open(server.ingest, &Upgrade::browser(&id));
    let line = r#"["soon",null,1,1700000000000]"#;
    client.send_text(&script::entry_message(&id, line));
    let dump = server.wait_until("the entry is in the dump", || {
        plain_dumps_of(&server.dump_path(""), &id).into_iter().find(|dump| dump.contains("soon"))
    });
    assert_eq!(dump.lines().nth(1), Some(line));
    assert!(dump.ends_with('\n'));
    client.close(1000);
}

/// Entries are appended when they have reached the flush size, however long the interval is.
#[test]
fn entries_are_flushed_by_size() {
    let server = Settings::new().set("dump.flush_interval_ms", 60_000).set("dump.flush_bytes", 4096).start();
    let id = Rng::new(7).uuid();
    let mut client = WsClient::open(server.ingest, &Upgrade::browser(&id));
    let line = format!(r#"["size",null,"{}",1700000000000]"#, "x".repeat(5000));
    client.send_text(&script::entry_message(&id, &line));
    server.wait_until("the entry is in the dump", || {
        plain_dumps_of(&server.dump_path(""), &id).into_iter().find(|dump| dump.contains(&line))
    });
    client.close(1000);
}

/// The memory in which lines are gathered is bounded for all sessions together: who gathers longest is written first.
#[test]
fn entries_are_flushed_when_all_together_are_too_many() {
    let mut settings = Settings::new().set("dump.flush_interval_ms", 60_000);
    for (key, value) in [("dump.flush_bytes", 1 << 20), ("dump.flush_total_bytes", 1 << 20)] {
        settings = settings.set(key, value);
    }
    let server = settings.start();
    let mut rng = Rng::new(71);
    let ids = [(); 5].map(|()| rng.uuid());
    let text = "x".repeat(300_000);
    let mut clients = Vec::new();
    for id in &ids {
        let mut client = WsClient::open(server.ingest, &Upgrade::browser(id));
        client.send_text(&script::entry_message(id, &format!(r#"["all",null,"{text}",1700000000000]"#)));
        clients.push(client);
    }
    server.wait_until("the first entry is in its dump", || {
        plain_dumps_of(&server.dump_path(""), &ids[0]).into_iter().find(|dump| dump.contains(&text))
    });
    for (client, id) in clients.into_iter().zip(&ids) {
        client.close(3001);
        archived(&server, id, 1);
    }
}

/// One listener serves both address families.
#[test]
fn both_address_families_are_served() {
    let server = Settings::new().set("server.address", "::").start();
    let mut rng = Rng::new(8);
    for host in ["127.0.0.1", "::1"] {
        let id = rng.uuid();
        let address = SocketAddr::new(host.parse().unwrap(), server.ingest.port());
        let mut client = WsClient::open(address, &Upgrade::browser(&id));
        client.send_text(&script::entry_message(&id, r#"["family",null,1,1700000000000]"#));
        client.close(1000);
        archived(&server, &id, 1);
    }
}

/// A processed dump leaves a document with its identities merged, whatever the family of the client.
#[test]
fn the_document_has_the_merged_identity() {
    let server = TestServer::start();
    let id = Rng::new(9).uuid();
    let mut client = WsClient::open(server.ingest, &Upgrade::browser(&id));
    for data in [
        json!({"confName": "Room@Conference.Example.org", "applicationName": "meet"}),
        json!({"displayName": "u-1"}),
    ] {
        let data = json!(["identity", null, data, 1_700_000_000_000_u64]);
        client.send_text(&script::message(&id, "identity", Some(&data)));
    }
    client.close(1000);
    let document = archived(&server, &id, 1).remove(0).document;
    let metadata = &document["dumpMetadata"];
    assert_eq!(metadata["dumpId"], format!("{id}.gz"), "{document}");
    assert_eq!(metadata["app"], "meet", "{document}");
    assert_eq!(metadata["userId"], "u-1", "{document}");
}

/// With the archive off a processed dump is removed.
#[test]
fn without_an_archive_processed_dumps_are_removed() {
    let server = Settings::new().set("archive.enabled", false).start();
    let id = Rng::new(10).uuid();
    let mut client = WsClient::open(server.ingest, &Upgrade::browser(&id));
    client.send_text(&script::entry_message(&id, r#"["gone",null,1,1700000000000]"#));
    client.close(1000);
    server.wait_for_metric("rtcstats_files_processed", 1.0);
    server.wait_until("the dump is removed", || {
        plain_dumps_of(&server.dump_path("finished"), &id).is_empty().then_some(())
    });
    assert_eq!(server.archive().count(), 0);
}

/// Waits for `count` archived dumps of a session.
pub(crate) fn archived(server: &TestServer, id: &str, count: usize) -> Vec<ArchivedDump> {
    server.wait_until(&format!("{count} dumps of {id}"), || {
        Some(server.archive().dumps_of(id)).filter(|dumps| dumps.len() >= count)
    })
}
