//! Breakout rooms: a client that takes a new id for each connection is still in one dump, and nobody else is.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::client::{Client, Leave, Plan, Whereabouts};
use crate::kills::{scaled, wait_until_archived};
use crate::proxy::Proxy;
use crate::record::Record;
use crate::support::client::Incoming;
use crate::support::frames;
use crate::support::script::{entry_message, message};
use crate::support::{Archive, Rng, TestServer, Upgrade, WsClient};
use crate::trace::{Fate, Habits, Trace};

const UNJOINED: &str = "rtcstats_sessions_unjoined_total";
const WAITING: &str = "rtcstats_sessions{state=\"waiting\"}";

/// Sessions joined, by a proof and by their numbers alone.
fn joined(server: &TestServer) -> [f64; 2] {
    ["proof", "number"].map(|by| server.metric(&format!("rtcstats_sessions_joined_total{{by=\"{by}\"}}")))
}

fn wait_for_joined(server: &TestServer, expected: [f64; 2]) {
    server.wait_until("sessions are joined", || Some(joined(server)).filter(|found| *found == expected));
}

/// A client in a breakout room, by hand.
#[derive(Debug, Clone)]
struct Guest {
    name: String,
    room: String,
    user_agent: String,
    address: String,
    has_parent: bool,
    protocol: String,
    /// Told apart from the entries of others by this.
    content: String,
    connections: u32,
}

impl Guest {
    fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            room: format!("/tenant/{name}"),
            user_agent: "a browser".into(),
            address: "192.0.2.7".into(),
            has_parent: true,
            protocol: "3.1_STANDARD".into(),
            content: name.into(),
            connections: 0,
        }
    }

    /// The id of the connection that was opened last.
    fn id(&self) -> String {
        format!("{}-{}", self.name, self.connections)
    }

    fn upgrade(&self, is_reconnect: bool) -> Upgrade {
        let id = self.id();
        let mut upgrade = Upgrade::browser(&id)
            .target(&format!("{}?statsSessionId={id}&isReconnect={is_reconnect}", self.room));
        upgrade.protocols.clone_from(&self.protocol);
        upgrade.headers = vec![
            ("User-Agent".into(), self.user_agent.clone()),
            ("X-Forwarded-For".into(), self.address.clone()),
        ];
        upgrade
    }

    /// Connects under a new id.
    fn connect(&mut self, server: &TestServer, is_reconnect: bool) -> WsClient {
        self.connections += 1;
        WsClient::open(server.ingest, &self.upgrade(is_reconnect))
    }

    fn line(&self, number: u64) -> String {
        let (clock, content) = (1_700_000_000_000 + number, &self.content);
        match (number, self.has_parent) {
            (1, true) => {
                format!(
                    r#"["identity",null,{{"confName":"{content}","parentStatsSessionId":"p"}},{clock},1]"#
                )
            }
            (1, false) => format!(r#"["identity",null,{{"confName":"{content}"}},{clock},1]"#),
            _ => format!(r#"["t",null,{{"c":"{content}"}},{clock},{number}]"#),
        }
    }

    fn send(&self, socket: &mut WsClient, numbers: std::ops::RangeInclusive<u64>) {
        for number in numbers {
            let line = self.line(number);
            let request = match number {
                1 => message(&self.id(), "identity", Some(&serde_json::from_str(&line).unwrap())),
                _ => entry_message(&self.id(), &line),
            };
            socket.send_text(&request);
        }
    }

    fn lines(&self, numbers: std::ops::RangeInclusive<u64>) -> Vec<String> {
        numbers.map(|number| self.line(number)).collect()
    }
}

/// Sends the first entries on a new connection, and drops it once they are in the dump.
fn drop_out(server: &TestServer, guest: &mut Guest, last: u64) {
    let waiting = server.metric(WAITING);
    let mut socket = guest.connect(server, false);
    guest.send(&mut socket, 1..=last);
    socket.round_trip();
    socket.reset();
    server.wait_for_metric(WAITING, waiting + 1.0);
}

/// Lets those become jobs whose clients did not end them. The files are gone with the server that is returned.
fn settle(server: TestServer) -> (TestServer, Archive) {
    let settings = server.settings();
    assert!(server.stop().status.success());
    let server = settings.set("sessions.reconnect_grace_s", 0).start();
    let archive = wait_until_archived(&server);
    (server, archive)
}

fn settings() -> crate::support::Settings {
    scaled().set("sessions.reconnect_grace_s", 60).set("server.trusted_proxies", "127.0.0.1")
}

/// The archived dumps whose names begin with `name`, with their lines.
fn dumps_of(archive: &Archive, name: &str) -> Vec<(String, Vec<String>)> {
    let dumps = archive.dumps().into_iter().filter(|dump| dump.name.starts_with(&format!("{name}-")));
    dumps
        .map(|dump| (dump.name.clone(), dump.lines().iter().map(|line| (*line).to_owned()).collect()))
        .collect()
}

fn acknowledgement(number: u64) -> String {
    format!(r#"{{"type":"sn","body":{{"value":{number}}}}}"#)
}

/// The dump goes on under its first name; acknowledgements, take-overs, the end, and the memory of it follow the new id.
#[test]
fn a_continuation_goes_into_the_dump_of_its_session() {
    let server = settings().start();
    let mut guest = Guest::new("guest");
    drop_out(&server, &mut guest, 150);
    let mut socket = guest.connect(&server, true);
    guest.send(&mut socket, 101..=200);
    assert_eq!(socket.expect_text(), acknowledgement(200), "a hundred came again and anew");
    wait_for_joined(&server, [1.0, 0.0]);
    let line = server.expect_log("session.join");
    assert!(line.contains("session=guest-2 dump=guest-1 received=150 first=101 by=proof"), "{line}");

    // The same id again: a half-open connection is replaced, as for any session.
    let mut newer = WsClient::connect(server.ingest, &guest.upgrade(true));
    assert_eq!(newer.expect_text(), r#"{"type":"sn","body":{"value":200,"state":"initial"}}"#);
    socket.expect_close(3001);
    guest.send(&mut newer, 201..=210);
    newer.round_trip();
    newer.reset();
    server.wait_for_metric(WAITING, 1.0);

    // And a third id. All that came was in the dump, so nothing comes again.
    let mut socket = guest.connect(&server, true);
    guest.send(&mut socket, 211..=212);
    socket.close(3001);
    WsClient::connect(server.ingest, &guest.upgrade(true)).expect_close(3001);
    let archive = wait_until_archived(&server);
    assert_eq!(dumps_of(&archive, "guest"), [("guest-1".to_owned(), guest.lines(1..=212))]);
    wait_for_joined(&server, [1.0, 1.0]);
    assert_eq!((server.metric(UNJOINED), server.metric("rtcstats_session_count")), (0.0, 1.0));
    assert_eq!(server.metric("rtcstats_missing_entries_total"), 0.0);
}

/// A client that heard no acknowledgement sends everything again, its identity, too.
#[test]
fn a_session_that_comes_as_a_whole_is_joined() {
    let server = settings().start();
    let mut guest = Guest::new("whole");
    drop_out(&server, &mut guest, 5);
    let mut socket = guest.connect(&server, true);
    guest.send(&mut socket, 1..=8);
    socket.close(3001);
    let archive = wait_until_archived(&server);
    assert_eq!(dumps_of(&archive, "whole"), [("whole-1".to_owned(), guest.lines(1..=8))]);
}

/// Whatever does not fit stays apart.
#[test]
fn what_may_be_somebody_else_is_not_joined() {
    type Change = fn(&mut Guest);
    let cases: [(&str, u64, bool, Change); 10] = [
        ("room", 11, true, |guest| guest.room.push('x')),
        ("browser", 11, true, |guest| guest.user_agent.push('x')),
        ("address", 11, true, |guest| guest.address = "192.0.2.8".into()),
        ("no-reconnect", 11, false, |_| {}),
        ("gap", 12, true, |_| {}),
        ("other-entries", 9, true, |guest| guest.content.push('x')),
        ("other-start", 1, true, |guest| guest.content.push('x')),
        ("no-parent", 11, true, |_| {}),
        // Its lines would tell another id.
        ("legacy", 11, true, |_| {}),
        ("known-id", 11, true, |guest| guest.connections = 0),
    ];
    let server = settings().start();
    for (name, first, is_reconnect, change) in cases {
        let mut guest = Guest::new(name);
        guest.has_parent = name != "no-parent";
        if name == "legacy" {
            guest.protocol = "3.1_LEGACY".into();
        }
        drop_out(&server, &mut guest, 10);
        let mut other = guest.clone();
        change(&mut other);
        if name == "known-id" {
            // The id of the URL says where it belongs.
            other.connections = 1;
            let mut socket = WsClient::connect(server.ingest, &other.upgrade(true));
            assert_eq!(socket.expect_text(), r#"{"type":"sn","body":{"value":10,"state":"initial"}}"#);
            other.send(&mut socket, 11..=12);
            socket.close(3001);
            continue;
        }
        let mut socket = other.connect(&server, is_reconnect);
        other.send(&mut socket, first..=first + 2);
        socket.close(3001);
    }
    assert_eq!(joined(&server), [0.0, 0.0]);
    let (_server, archive) = settle(server);
    for (name, ..) in cases {
        let dumps = dumps_of(&archive, name);
        let expected = if name == "known-id" { 1 } else { 2 };
        assert_eq!(dumps.len(), expected, "{name}: {dumps:?}");
        assert!(name == "known-id" || dumps[0].1.len() == 10, "{name}: {dumps:?}");
    }
}

/// A message that is too big comes again under each new id; there is an end to that all the same.
#[test]
fn a_message_that_is_too_big_does_not_come_for_ever() {
    let server = settings().start();
    let giant = |guest: &Guest| entry_message(&guest.id(), &format!("[\"{}\"]", "x".repeat(200_000)));
    // Behind entries that tell whose it is, and as the first one.
    for (name, again) in [("behind", 10), ("first", 11)] {
        let mut guest = Guest::new(name);
        drop_out(&server, &mut guest, 10);
        let mut codes = Vec::new();
        while codes.last() != Some(&3002) {
            let mut socket = guest.connect(&server, true);
            guest.send(&mut socket, again..=10);
            // The server does not wait for the rest of it.
            let _ = socket.try_send_bytes(&frames::message(frames::TEXT, giant(&guest).as_bytes()));
            let code = loop {
                match socket.receive() {
                    Incoming::Close { code, .. } => break code.unwrap(),
                    Incoming::Text(_) => {}
                    other => panic!("{other:?} instead of a close frame"),
                }
            };
            codes.push(code);
            assert!(codes.len() < 4, "{name}: {codes:?}");
        }
        assert_eq!(codes, [1009, 3002], "{name}");
    }
}

/// Two who were alike until they dropped: nothing says whose rest it is, unless an entry comes again.
#[test]
fn of_two_that_fit_none_is_joined_without_a_proof() {
    let server = settings().start();
    let (mut one, mut two) = (Guest::new("one"), Guest::new("two"));
    two.room.clone_from(&one.room);
    drop_out(&server, &mut one, 10);
    drop_out(&server, &mut two, 10);
    let mut socket = one.connect(&server, true);
    one.send(&mut socket, 11..=12);
    server.wait_for_metric(UNJOINED, 1.0);
    assert_eq!(joined(&server), [0.0, 0.0]);
    socket.close(3001);
    let mut socket = two.connect(&server, true);
    two.send(&mut socket, 10..=12);
    socket.close(3001);
    wait_for_joined(&server, [1.0, 0.0]);
    assert_eq!(server.metric(UNJOINED), 1.0);
    let (_server, archive) = settle(server);
    assert_eq!(dumps_of(&archive, "two"), [("two-1".to_owned(), two.lines(1..=12))]);
    let of_one = [("one-1".to_owned(), one.lines(1..=10)), ("one-2".to_owned(), one.lines(11..=12))];
    assert_eq!(dumps_of(&archive, "one"), of_one);
}

/// Where another server may know of somebody else who fits, a number tells nothing; an entry that comes again does.
#[test]
fn without_joining_by_number_only_a_proof_joins() {
    let server = settings().set("sessions.join_by_number", false).start();
    let mut guest = Guest::new("proof");
    drop_out(&server, &mut guest, 10);
    let mut other = guest.clone();
    other.connections = 10;
    let mut socket = other.connect(&server, true);
    other.send(&mut socket, 11..=12);
    server.wait_for_metric(UNJOINED, 1.0);
    socket.close(3001);
    let mut socket = guest.connect(&server, true);
    guest.send(&mut socket, 10..=12);
    socket.close(3001);
    wait_for_joined(&server, [1.0, 0.0]);
    let archive = wait_until_archived(&server);
    let both = [("proof-1".to_owned(), guest.lines(1..=12)), ("proof-11".to_owned(), other.lines(11..=12))];
    assert_eq!(dumps_of(&archive, "proof"), both);
}

/// A connection that still looks alive may be somebody else's: it keeps its session, and a rest that may be its own
/// stays apart.
#[test]
fn an_open_session_is_not_continued_without_a_proof() {
    let server = settings().start();
    let mut guest = Guest::new("open");
    let mut old = guest.connect(&server, false);
    guest.send(&mut old, 1..=10);
    old.round_trip();
    let mut after = guest.clone();
    let mut socket = after.connect(&server, true);
    after.send(&mut socket, 11..=12);
    server.wait_for_metric(UNJOINED, 1.0);
    assert_eq!(joined(&server), [0.0, 0.0]);
    guest.send(&mut old, 11..=11);
    old.close(3001);
    socket.close(3001);
    let archive = wait_until_archived(&server);
    let both = [("open-1".to_owned(), guest.lines(1..=11)), ("open-2".to_owned(), guest.lines(11..=12))];
    assert_eq!(dumps_of(&archive, "open"), both);
}

/// A network that is gone without a word leaves a connection that looks alive for a minute. Its client is back before that,
/// and what it sends again tells whose it is.
#[test]
fn a_half_open_session_is_continued_where_that_is_proven() {
    let server = settings().start();
    let mut guest = Guest::new("half-open");
    let mut old = guest.connect(&server, false);
    guest.send(&mut old, 1..=10);
    old.round_trip();
    server.wait_until("it is written", || {
        let dump = std::fs::read_to_string(server.dump_path("half-open-1")).ok()?;
        dump.ends_with(&format!("{}\n", guest.line(10))).then_some(())
    });
    let mut socket = guest.connect(&server, true);
    guest.send(&mut socket, 8..=12);
    wait_for_joined(&server, [1.0, 0.0]);
    // Whoever is there all the same may come back, as 3001 would not let it.
    expect_sent_away(&mut old, 1001);
    server.wait_for_metric("rtcstats_connections_closed_total{reason=\"moved_on\"}", 1.0);
    guest.send(&mut socket, 13..=13);
    socket.close(3001);
    let archive = wait_until_archived(&server);
    assert_eq!(dumps_of(&archive, "half-open"), [("half-open-1".to_owned(), guest.lines(1..=13))]);
    assert_eq!(server.metric(UNJOINED), 0.0);
}

/// Acknowledgements, then a close frame.
fn expect_sent_away(socket: &mut WsClient, expected: u16) {
    loop {
        match socket.receive() {
            Incoming::Close { code, .. } => break assert_eq!(code, Some(expected)),
            Incoming::Text(_) => {}
            other => panic!("{other:?} instead of a close frame"),
        }
    }
}

/// Nothing is known any more of whom a dump belongs to; what begins after the restart is joined again.
#[test]
fn a_restart_is_not_crossed() {
    let server = settings().start();
    let mut guest = Guest::new("restart");
    drop_out(&server, &mut guest, 10);
    let server = server.restart();
    server.wait_for_metric(WAITING, 1.0);
    let mut socket = guest.connect(&server, true);
    guest.send(&mut socket, 9..=12);
    socket.round_trip();
    socket.reset();
    server.wait_for_metric(WAITING, 2.0);
    assert_eq!(joined(&server), [0.0, 0.0]);
    // Without a parent, but the same entries.
    let mut socket = guest.connect(&server, true);
    guest.send(&mut socket, 12..=13);
    socket.close(3001);
    wait_for_joined(&server, [1.0, 0.0]);
    let (_server, archive) = settle(server);
    let both = [("restart-1".to_owned(), guest.lines(1..=10)), ("restart-2".to_owned(), guest.lines(9..=13))];
    assert_eq!(dumps_of(&archive, "restart"), both);
}

/// A class in one room behind one address, with the same browser, and networks that break: everything that a client
/// could send is there, each dump is of one client, in order, and hardly anybody has more than one.
#[test]
fn a_room_full_of_guests_loses_nothing_and_mixes_nothing() {
    let server = scaled().start();
    let whereabouts = Whereabouts::default();
    whereabouts.set(Some(server.ingest));
    let mut rng = Rng::new(75);
    let calm = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..6)
        .map(|_| {
            let habits = Habits { is_in_breakout_room: true, ..Habits::default() };
            let plan = Plan { floods: 0, ..Plan::roll(&mut rng, 1_000, 6, Leave::Settled) };
            let trace = Trace::new(&mut rng, habits);
            let proxy = Proxy::start_cutting(Rng::new(rng.next()), 4, whereabouts.clone(), Arc::clone(&calm));
            let (rng, calm) = (Rng::new(rng.next()), Arc::clone(&calm));
            std::thread::spawn(move || {
                let proxy = proxy;
                let through = Whereabouts::default();
                through.set(Some(proxy.address));
                Client::new(trace, plan, rng, through, calm).run()
            })
        })
        .collect();
    crate::pass(Duration::from_millis(1_200));
    calm.store(true, Ordering::Relaxed);
    let records: Vec<Record> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    let (joined, unjoined) = (joined(&server).iter().sum::<f64>(), server.metric(UNJOINED));
    let archive = wait_until_archived(&server);
    let mut dumps_in_all = 0;
    for Record { trace, connections, .. } in &records {
        let dumps: Vec<_> = trace.ids().flat_map(|id| archive.dumps_of(id)).collect();
        dumps_in_all += dumps.len();
        let mut seen = HashSet::new();
        for dump in &dumps {
            let mut last = 0;
            for line in dump.lines() {
                let number = line.strip_suffix(']').unwrap().rsplit_once(',').unwrap().1.parse().unwrap();
                assert!(trace.line(number).matches(line), "{}: {line:.200} is not its own", dump.name);
                assert!(number > last, "{}: {number} behind {last}", dump.name);
                last = number;
                seen.insert(number);
            }
        }
        let could_come =
            |number: u64| !matches!(trace.fates[number as usize - 1], Fate::NeverSent | Fate::SentOnce);
        let is_absent = |number: &u64| !seen.contains(number) && could_come(*number);
        let absent: Vec<u64> = (1..=trace.count).filter(is_absent).collect();
        assert_eq!(absent, [0_u64; 0], "{} connections", connections);
    }
    eprintln!(
        "{} clients, {dumps_in_all} dumps, {joined} continuations joined, {unjoined} in doubt",
        records.len()
    );
    assert!(joined >= records.len() as f64, "hardly anything was joined: {joined}");
}
