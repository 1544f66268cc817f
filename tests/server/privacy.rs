//! Addresses of clients: cut in all that is kept where that is configured, untouched where it is not, in no log line ever.

use std::fs;

use serde_json::{Value, json};

use super::ingest::archived;
use crate::support::archive::plain_dumps_of;
use crate::support::script::{entry_message, message};
use crate::support::{Rng, Settings, TestServer, Upgrade, WsClient};

/// What the client's connection and its entries hold, and what becomes of it.
const ADDRESSES: [(&str, &str); 9] = [
    ("203.0.113.77", "203.0.113.0"),
    ("192.168.17.23", "192.168.17.0"),
    ("198.51.100.44", "198.51.100.0"),
    ("10.9.8.7", "10.9.8.0"),
    ("100.64.3.2", "100.64.3.0"),
    ("2001:db8:17:42:a:b:c:d", "2001:db8:17::"),
    ("fe80::1c2d:3e4f", "fe80::"),
    ("fd00:1:2:3::4", "fd00:1:2::"),
    ("::ffff:192.0.2.55", "::ffff:192.0.2.0"),
];
const FINGERPRINT: &str =
    "08:51:22:4F:74:30:FE:27:FE:87:2D:A4:4C:A9:E3:A9:DF:C6:A4:B8:88:4C:45:29:FF:63:2B:D1:84:6F:BB:78";
const USER_AGENT: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.6099.1 Safari/537.36 Teams/1.6.7.8";

/// The entries of a session: identity, candidates, a description, statistics that select a pair, and one that is no JSON.
fn entries() -> Vec<String> {
    let clock = 1_700_000_000_000_u64;
    let sdp = format!(
        "v=0\r\no=- 7435086536905726016 2 IN IP4 127.0.0.1\r\nc=IN IP4 203.0.113.77\r\nc=IN IP6 2001:db8:17:42:a:b:c:d\r\n\
         a=rtcp:9 IN IP4 0.0.0.0\r\na=candidate:1 1 udp 2122260223 192.168.17.23 51234 typ host\r\n\
         a=fingerprint:sha-256 {FINGERPRINT}\r\n"
    );
    let stats = json!({
        "t": {"type": "transport", "selectedCandidatePairId": "p", "localCertificateId": format!("CF{FINGERPRINT}")},
        "p": {"type": "candidate-pair", "localCandidateId": "l", "remoteCandidateId": "r", "currentRoundTripTime": 0.04},
        "l": {"type": "local-candidate", "candidateType": "relay", "address": "198.51.100.44", "ip": "198.51.100.44", "port": 3478,
              "protocol": "udp", "relayProtocol": "tls", "relatedAddress": "100.64.3.2", "url": "turn:198.51.100.44:3478"},
        "r": {"type": "remote-candidate", "candidateType": "srflx", "address": "2001:db8:17:42:a:b:c:d", "port": 10000, "protocol": "udp"},
        "v": {"type": "inbound-rtp", "ssrc": 2_946_271_033_u32, "kind": "video", "packetsReceived": 10, "packetsLost": 1},
    });
    let bodies: Vec<Value> = vec![
        json!(["create", "PC_0", {"iceServers": [{"urls": ["turn:198.51.100.44:3478", "stun:[fd00:1:2:3::4]:3478"]}]}]),
        json!(["onicecandidate", "PC_0", {"candidate": "candidate:1 1 udp 1677729535 203.0.113.77 51234 typ srflx raddr 192.168.17.23 rport 51234"}]),
        json!(["onicecandidate", "PC_0", {"candidate": "candidate:2 1 udp 2122262783 fe80::1c2d:3e4f 51235 typ host"}]),
        json!(["addIceCandidate", "PC_0", {"candidate": "candidate:3 1 udp 1 0f3f8c1e-6c5b-4a57-9f5e-0a1b2c3d4e5f.local 9 typ host"}]),
        json!(["setLocalDescription", "PC_0", {"type": "offer", "sdp": sdp}]),
        json!(["getstats", "PC_0", stats]),
        json!([
            "logs",
            null,
            json!({"text": "peer.example/10.9.8.7:10000 left\n::ffff:192.0.2.55 stays"}).to_string()
        ]),
    ];
    let numbered = bodies.into_iter().zip(2_u64..).map(|(mut entry, number)| {
        let items = entry.as_array_mut().unwrap();
        items.extend([json!(clock + number), json!(number)]);
        entry.to_string()
    });
    numbered.chain(["not JSON: 203.0.113.77, [2001:db8:17:42:a:b:c:d]:443".to_owned()]).collect()
}

fn identity() -> Value {
    let data = json!({"confName": "room", "confID": "https://198.51.100.44:8443/room", "displayName": "fe80::1c2d:3e4f",
        "deploymentInfo": {"shard": "10.9.8.7"}});
    json!(["identity", null, data, 1_700_000_000_001_u64, 1])
}

/// Runs one session from a client that a proxy names, and gives its lines as they were in the dump.
fn run(server: &TestServer, id: &str) -> String {
    let mut upgrade = Upgrade::browser(id)
        .target(&format!("/room?statsSessionId={id}&isReconnect=false&from=http%3A%2F%2F203.0.113.77%2F"));
    upgrade.headers = vec![
        ("Origin".into(), "https://198.51.100.44:8443".into()),
        ("User-Agent".into(), USER_AGENT.into()),
        ("X-Forwarded-For".into(), "203.0.113.77".into()),
    ];
    let mut client = WsClient::open(server.ingest, &upgrade);
    client.send_text(&message(id, "identity", Some(&identity())));
    let entries = entries();
    for entry in &entries {
        client.send_text(&entry_message(id, entry));
    }
    // It is on disk as it came: what a resumed session is compared with.
    let dump = server.wait_until("the dump has all lines", || {
        let dump = plain_dumps_of(&server.dump_path(""), id).pop()?;
        (dump.lines().count() == entries.len() + 2).then_some(dump)
    });
    let (first, rest) = dump.split_once('\n').unwrap();
    assert!(first.contains("203.0.113.77") && first.contains(USER_AGENT), "{first}");
    assert_eq!(rest, format!("{}\n{}\n", identity(), entries.join("\n")));
    client.close(3001);
    dump
}

/// All rows of all tables of a session.
fn records(server: &TestServer, day: &str) -> String {
    let folder = server.root().join("archive").join(day).join("records");
    let rows = |table: &str| fs::read_to_string(folder.join(format!("{table}.jsonl"))).unwrap_or_default();
    server.wait_until("the rows are there", || {
        let text = ["rtcstats", "rtcstats_pc_metrics", "rtcstats_track_metrics"].map(rows).concat();
        (text.lines().count() >= 3).then_some(text)
    })
}

fn settings() -> Settings {
    Settings::new().set("log.level", "trace").set("server.trusted_proxies", "127.0.0.0/8")
}

fn assert_no_address(what: &str, text: &str) {
    for (address, _) in ADDRESSES {
        assert!(!text.contains(address), "{address} in {what}: {text}");
    }
    // The mapped one without its prefix, too.
    assert!(!text.contains("192.0.2.55"), "{what}: {text}");
}

/// With the setting on, dump, document and rows have every address cut and are otherwise those that the setting off gives.
#[test]
fn addresses_are_cut_in_all_that_is_kept() {
    let id = Rng::new(90).uuid();
    let (plain, cut) = (settings().start(), settings().set("privacy.obfuscate_ip", true).start());
    let dump = run(&plain, &id);
    run(&cut, &id);
    let (kept, archived) = (archived(&plain, &id, 1).remove(0), archived(&cut, &id, 1).remove(0));

    assert_eq!(format!("{}\n{}", kept.first_line, kept.body), dump, "off: byte for byte");
    let rows = records(&plain, &kept.day);
    assert!(kept.document.to_string().contains("2001:db8:17:42:a:b:c:d"), "{}", kept.document);
    assert!(rows.contains("2001:db8:17:42:a:b:c:d") && rows.contains("198.51.100.44"), "{rows}");

    let lines = archived.lines();
    assert_eq!(lines.len(), entries().len() + 1);
    assert_no_address("first line", &archived.first_line);
    for (line, came) in lines.iter().zip(kept.lines()) {
        assert_no_address("dump", line);
        let mut expected = came.to_owned();
        for (address, cut) in ADDRESSES {
            expected = expected.replace(address, cut);
        }
        assert_eq!(*line, expected);
    }
    let info = archived.connection_info();
    assert_eq!(info["userAgent"], USER_AGENT);
    assert_eq!(info["origin"], "https://198.51.100.0:8443");
    assert!(info["url"].as_str().unwrap().contains("from=http%3A%2F%2F203.0.113.0%2F"), "{info}");
    assert!(archived.body.contains(FINGERPRINT) && archived.body.contains(".local 9"));

    let (document, rows) = (archived.document.to_string(), records(&cut, &archived.day));
    assert_no_address("document", &document);
    assert_no_address("rows", &rows);
    let pair = &archived.document["features"]["aggregates"]["PC_0"]["candidatePairData"];
    assert_eq!(
        (&pair["localAddress"], &pair["remoteAddress"]),
        (&json!("198.51.100.0"), &json!("2001:db8:17::"))
    );
    assert!(rows.contains("\"localAddress\":\"198.51.100.0\""), "{rows}");
    // Nothing else follows from the setting: sizes, relay, tracks, browser are those of the dump as it came.
    let mut expected = kept.document.to_string();
    for (address, cut) in ADDRESSES {
        expected = expected.replace(address, cut);
    }
    let mut expected: Value = serde_json::from_str(&expected).unwrap();
    assert_eq!(expected["features"]["aggregates"]["PC_0"]["usesRelay"], true);
    // Should midnight be between the two.
    expected["dumpMetadata"]["dumpPath"] = archived.document["dumpMetadata"]["dumpPath"].clone();
    assert_eq!(archived.document, expected);

    for server in [plain, cut] {
        let log = server.stop().log.join("\n");
        assert!(log.contains("peer=203.0.113.0/24"), "{log}");
        assert_no_address("log", &log);
    }
}

/// Without an archive only rows and metrics are left of a dump, and no address is in them.
#[test]
fn rows_and_metrics_without_an_archive_hold_no_address() {
    let id = Rng::new(92).uuid();
    let server = settings().set("privacy.obfuscate_ip", true).set("archive.enabled", false).start();
    run(&server, &id);
    // Because of the line that is no JSON.
    server.wait_for_metric("rtcstats_files_errored", 1.0);
    server.wait_until("the dump is gone", || {
        plain_dumps_of(&server.dump_path("finished"), &id).is_empty().then_some(())
    });
    let days: Vec<String> = fs::read_dir(server.root().join("archive"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let [day] = &days[..] else { panic!("{days:?}") };
    let rows = records(&server, day);
    assert_no_address("rows", &rows);
    assert!(rows.contains("\"localAddress\":\"198.51.100.0\",\"localCandidateType\":\"relay\""), "{rows}");
    assert!(rows.contains("\"remoteAddress\":\"2001:db8:17::\""), "{rows}");
    assert!(rows.contains("\"meetingUrl\":\"https://198.51.100.0:8443/room\""), "{rows}");
    assert_eq!(server.archive().count(), 0);
    assert_no_address("metrics", server.scrape().text());
    assert_no_address("log", &server.stop().log.join("\n"));
}

/// A server that was killed between the archive and the removal of the dump finds its cut copy again: nothing is stored twice.
#[test]
fn a_cut_dump_is_known_after_a_crash() {
    let id = Rng::new(91).uuid();
    let settings = || settings().set("privacy.obfuscate_ip", true);
    let server = settings().start();
    let dump = run(&server, &id);
    let first = archived(&server, &id, 1).remove(0);
    let rows = records(&server, &first.day);
    server.wait_until("the dump is gone", || {
        plain_dumps_of(&server.dump_path("finished"), &id).is_empty().then_some(())
    });
    let settings = server.kill9();
    // As if the last step had not been done.
    fs::write(settings.root().join("temp/finished").join(&id), dump).unwrap();
    let server = settings.start();
    server.wait_until("the dump is gone", || {
        plain_dumps_of(&server.dump_path("finished"), &id).is_empty().then_some(())
    });
    let again = archived(&server, &id, 1);
    assert_eq!(again.len(), 1, "one dump, one copy");
    assert_eq!(again[0].body, first.body);
    assert_eq!(records(&server, &first.day), rows);
}
