//! Log lines that belong together can be tied, and say nothing of who was there.

use super::ingest::archived;
use crate::support::script::entry_message;
use crate::support::{Rng, Settings, Upgrade, WsClient};

/// The value of a member of a line.
fn member<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

/// The event of a line; behind time and level.
fn event(line: &str) -> &str {
    line.split("] ").nth(1).and_then(|text| text.split(' ').next()).unwrap_or_default()
}

/// All lines of a connection, in their order, as their events.
fn events_of<'a>(log: &'a [String], conn: &str) -> Vec<&'a str> {
    log.iter().filter(|line| member(line, "conn") == Some(conn)).map(|line| event(line)).collect()
}

/// The connection that carried a session is in every line about its dump, and the session in every line of it.
#[test]
fn a_connection_and_its_dump_have_one_number() {
    let server = Settings::new().set("log.level", "debug").set("sessions.reconnect_grace_s", 600).start();
    let ids = [71, 72].map(|seed| Rng::new(seed).uuid());
    // At once, so that the numbers differ.
    let mut clients = [0, 1].map(|at| WsClient::open(server.ingest, &Upgrade::browser(&ids[at])));
    for (client, id) in clients.iter_mut().zip(&ids) {
        client.send_text(&entry_message(id, "[\"e\",null,1,1700000000001,1]"));
        client.round_trip();
    }
    let [first, second] = clients;
    // The first one loses its network and comes back on another connection.
    first.reset();
    server.expect_log("session.wait");
    let again = Upgrade::browser(&ids[0]).target(&format!("/?statsSessionId={}&isReconnect=true", ids[0]));
    let mut back = WsClient::connect(server.ingest, &again);
    assert!(back.expect_text().contains("\"value\":1,"));
    back.close(3001);
    second.close(3001);
    for id in &ids {
        archived(&server, id, 1);
    }
    let log = server.stop().log;
    let opened: Vec<_> = log.iter().filter(|line| event(line) == "conn.open").collect();
    assert_eq!(opened.len(), 3, "{log:#?}");
    let conns: Vec<_> = opened.iter().map(|line| member(line, "conn").expect("a number")).collect();
    let sessions: Vec<_> = opened.iter().map(|line| member(line, "session").expect("a session")).collect();
    assert_eq!(sessions, [&ids[0], &ids[1], &ids[0]]);
    assert_eq!(events_of(&log, conns[0]), ["conn.open", "dump.create", "session.wait", "conn.close"]);
    assert_eq!(events_of(&log, conns[1]), ["conn.open", "dump.create", "dump.finish", "conn.close"]);
    assert_eq!(events_of(&log, conns[2]), ["conn.open", "session.resume", "dump.finish", "conn.close"]);
    for line in log.iter().filter(|line| event(line).starts_with("dump.")) {
        assert!(member(line, "session").is_some_and(|id| ids.iter().any(|known| known == id)), "{line}");
        assert_eq!(member(line, "session"), member(line, "dump"), "{line}");
    }
}

/// A dump that is finished long after its connection still names it; one of an earlier server names none. What is empty
/// is left out; nothing personal is in any line.
#[test]
fn what_is_not_there_is_not_in_a_line() {
    let server = Settings::new().set("log.level", "debug").set("limits.waiting_sessions", 0);
    let server = server.set("sessions.reconnect_grace_s", 600).start();
    let id = Rng::new(73).uuid();
    let mut upgrade = Upgrade::browser(&id);
    upgrade.headers.push(("X-Forwarded-For".into(), "198.51.100.77".into()));
    let mut client = WsClient::open(server.ingest, &upgrade);
    let identity = "[\"identity\",null,{\"displayName\":\"Erika Mustermann\"},1700000000001,1]";
    client.send_text(&entry_message(&id, identity));
    client.round_trip();
    // An end of the stream has no more to say; the session waits, and there is no room to.
    client.half_close();
    client.expect_end();
    archived(&server, &id, 1);
    let waiting = Rng::new(74).uuid();
    let first_line = "[\"connectionInfo\",null,{},1700000000000]";
    let dump = format!("{first_line}\n[\"e\",null,1,1700000000001,1]\n");
    let settings = server.settings();
    let mut log = server.stop().log;
    std::fs::write(settings.root().join("temp").join(&waiting), dump).unwrap();
    let server = settings.start();
    server.wait_until("the dump of before is archived", || server.archive().dumps_of(&waiting).pop());
    log.extend(server.stop().log);
    let close = log.iter().find(|line| event(line) == "conn.close").expect("it was closed");
    assert!(close.ends_with(" reason=end_of_stream"), "{close}");
    let finish = log.iter().find(|line| event(line) == "dump.finish").expect("it was finished");
    assert_eq!(member(finish, "conn"), member(close, "conn"), "{finish}");
    assert_eq!(member(finish, "session"), Some(id.as_str()), "{finish}");
    let finish = log.iter().rfind(|line| event(line) == "dump.finish").expect("it was finished");
    assert_eq!((member(finish, "conn"), member(finish, "dump")), (None, Some(waiting.as_str())), "{finish}");
    for line in &log {
        assert!(!line.contains("=\"\"") && !line.ends_with('=') && !line.contains("= "), "{line}");
        for personal in ["Mustermann", "198.51.100", "127.0.0.1 ", "Mozilla", "meet.example.org"] {
            assert!(!line.contains(personal), "{line}");
        }
    }
}
