//! Requests inside messages: what becomes a line, what is dropped, and that a bad one harms nobody else.

use serde_json::Value;

use super::ingest::archived;
use crate::support::client::Incoming;
use crate::support::script::{Line, entry_message, message};
use crate::support::{Rng, Settings, TestServer, Upgrade, WsClient, frames};

/// Sends each message on one connection, `$` standing for an id of its own, and compares the lines of each
/// id's dump; no lines means no dump.
fn check_lines(upgrade: &Upgrade, cases: &[(&str, &[Line])]) {
    let server = Settings::new().set("limits.bad_requests", 1000).start();
    let mut client = WsClient::open(server.ingest, upgrade);
    for (index, (text, _)) in cases.iter().enumerate() {
        client.send_text(&text.replace('$', &format!("case-{index}")));
    }
    // A session of its own shows that the connection is still good.
    client.send_text(&message("last", "stats-entry", Some(&Value::from("[\"still\",null,1]"))));
    client.close(1000);
    archived(&server, "last", 1);
    let expected = cases.iter().filter(|(_, lines)| !lines.is_empty()).count() + 1;
    server.wait_until("the cases are archived", || (server.archive().count() >= expected).then_some(()));
    for (index, (text, expected)) in cases.iter().enumerate() {
        let id = format!("case-{index}");
        let dumps = server.archive().dumps_of(&id);
        let lines: Vec<&str> = dumps.iter().flat_map(|dump| dump.body.lines()).collect();
        assert_eq!(lines.len(), expected.len(), "{text:.200} gave {lines:?}");
        for (line, expected) in lines.iter().zip(*expected) {
            assert!(expected.matches(&line.replace(&id, "$")), "{text:.200} gave {line:.200}");
        }
    }
    assert_eq!(server.archive().count(), expected);
    assert!(server.stop().status.success());
}

fn line(text: &str) -> Line {
    Line::Verbatim(text.into())
}

/// What a browser client's requests become.
#[test]
fn lines_of_a_browser_client() {
    let deep = format!("{}1{}", "[".repeat(20_000), "]".repeat(20_000));
    let deep_text = entry_message("$", &deep);
    let long = format!("[\"long\",null,\"{}\",1]", "é".repeat(700_000));
    let long_text = entry_message("$", &long);
    check_lines(
        &Upgrade::browser("url-session"),
        &[
            // A string is appended as it is, spaces and all.
            (
                r#"{"statsSessionId":"$","type":"stats-entry","data":"[\"a\",null,{\"b\":1},2]"}"#,
                &[line(r#"["a",null,{"b":1},2]"#)],
            ),
            (
                r#"{"statsSessionId":"$","type":"stats-entry","data":"[ 1 ,  2.0e0 ]"}"#,
                &[line("[ 1 ,  2.0e0 ]")],
            ),
            (
                r#" { "type" : "stats-entry" , "data" : "[1]" , "statsSessionId" : "$" , "more" : {} } "#,
                &[line("[1]")],
            ),
            (r#"{"statsSessionId":"$","typ\u0065":"stats-entry","data":"[\u0031]"}"#, &[line("[1]")]),
            // U+2028 is no line break to us; it stays, raw or escaped.
            (
                "{\"statsSessionId\":\"$\",\"type\":\"stats-entry\",\"data\":\"[\\\"\u{2028}\\\\u2029\\\"]\"}",
                &[line("[\"\u{2028}\\u2029\"]")],
            ),
            (
                r#"{"statsSessionId":"$","type":"stats-entry","data":"[\"\u2028\"]"}"#,
                &[line("[\"\u{2028}\"]")],
            ),
            // Line breaks and other control characters: parsed and written as one compact line.
            (
                r#"{"statsSessionId":"$","type":"stats-entry","data":"[\"a\",\n null,\r\n\t{\"b\" : 1} ]"}"#,
                &[line(r#"["a",null,{"b":1}]"#)],
            ),
            (r#"{"statsSessionId":"$","type":"stats-entry","data":"[1]\n"}"#, &[line("[1]")]),
            // A forged second line is no JSON document.
            (r#"{"statsSessionId":"$","type":"stats-entry","data":"[1]\n[2]"}"#, &[]),
            (r#"{"statsSessionId":"$","type":"stats-entry","data":"a\nb"}"#, &[]),
            (r#"{"statsSessionId":"$","type":"stats-entry","data":"[\"a\u0000b\"]"}"#, &[]),
            // Objects and arrays are written compact, in their order, numbers as they came.
            (
                r#"{"statsSessionId":"$","type":"stats-entry","data":{"z" : [ 1.50, -0 ], "a":"b\nc"}}"#,
                &[line(r#"{"z":[1.50,-0],"a":"b\nc"}"#)],
            ),
            (
                r#"{"statsSessionId":"$","type":"stats-entry","data":[ "a" , null ]}"#,
                &[line(r#"["a",null]"#)],
            ),
            (
                r#"{"statsSessionId":"$","type":"stats-entry","data":[1e400,123456789012345678901234567890]}"#,
                &[line("[1e400,123456789012345678901234567890]")],
            ),
            // Anything else is no entry.
            (r#"{"statsSessionId":"$","type":"stats-entry","data":5}"#, &[]),
            (r#"{"statsSessionId":"$","type":"stats-entry","data":true}"#, &[]),
            (r#"{"statsSessionId":"$","type":"stats-entry","data":null}"#, &[]),
            (r#"{"statsSessionId":"$","type":"stats-entry","data":""}"#, &[]),
            (r#"{"statsSessionId":"$","type":"stats-entry"}"#, &[]),
            // Lone surrogates: escaped twice they stay, escaped once they become the replacement character.
            (
                r#"{"statsSessionId":"$","type":"stats-entry","data":"[\"\\ud800\"]"}"#,
                &[line(r#"["\ud800"]"#)],
            ),
            (
                r#"{"statsSessionId":"$","type":"stats-entry","data":"[\"\ud800\"]"}"#,
                &[line("[\"\u{fffd}\"]")],
            ),
            (
                r#"{"statsSessionId":"$","type":"stats-entry","data":"[\"\ud83d\ude00\"]"}"#,
                &[line("[\"\u{1f600}\"]")],
            ),
            // The last of two equal keys counts, as in JavaScript.
            (
                r#"{"statsSessionId":"no","type":"keepalive","statsSessionId":"$","type":"stats-entry","data":"[1]","data":"[2]"}"#,
                &[line("[2]")],
            ),
            (&deep_text, &[line(&deep)]),
            (&long_text, &[line(&long)]),
            // Identities.
            (
                r#"{"statsSessionId":"$","type":"identity","data":["identity", null, {"b":1,"a":[ ]}, 5, 1]}"#,
                &[line(r#"["identity",null,{"b":1,"a":[]},5,1]"#)],
            ),
            (
                r#"{"statsSessionId":"$","type":"identity","data":{"displayName" : "Zoë"}}"#,
                &[line(r#"{"displayName":"Zoë"}"#)],
            ),
            (r#"{"statsSessionId":"$","type":"identity"}"#, &[]),
            // These never make a dump.
            (r#"{"statsSessionId":"$","type":"keepalive"}"#, &[]),
            (r#"{"statsSessionId":"$","type":"close"}"#, &[]),
            (r#"{"statsSessionId":"$","type":"unheard-of","data":"[1]"}"#, &[]),
            (r#"{"statsSessionId":"$","type":5,"data":"[1]"}"#, &[]),
            (r#"{"statsSessionId":"$","data":"[1]"}"#, &[]),
            // Several requests in one message.
            (
                r#"{"statsSessionId":"$","type":"stats-entry","data":"[1]"}{"statsSessionId":"$","type":"stats-entry","data":"[2]"}
               {"statsSessionId":"$","type":"keepalive"} {"statsSessionId":"$","type":"stats-entry","data":"[3]"}"#,
                &[line("[1]"), line("[2]"), line("[3]")],
            ),
            (r#"{"statsSessionId":"$","type":"stats-entry","data":"[1]"}{"statsSessionId":"#, &[line("[1]")]),
            (r#"[{"statsSessionId":"$","type":"stats-entry","data":"[1]"}]"#, &[]),
        ],
    );
}

/// A back end's requests are recorded whole, compact, with the server's clock.
#[test]
fn lines_of_a_back_end() {
    let stamped = |text: &str| Line::Stamped(text.into());
    check_lines(
        &Upgrade::back_end("3.0_JVB"),
        &[
            (
                r#"{ "statsSessionId" : "$", "type" : "stats-entry", "data" : { "a" : [ 1.0 ] } }"#,
                &[stamped(r#"{"statsSessionId":"$","type":"stats-entry","data":{"a":[1.0]}}"#)],
            ),
            (
                r#"{"type":"stats-entry","data":"two\nlines","statsSessionId":"$","x":null}"#,
                &[stamped(r#"{"type":"stats-entry","data":"two\nlines","statsSessionId":"$","x":null}"#)],
            ),
            (
                r#"{"statsSessionId":"$","type":"identity","data":{"displayName":"bridge"}}"#,
                &[stamped(r#"{"statsSessionId":"$","type":"identity","data":{"displayName":"bridge"}}"#)],
            ),
            (
                r#"{"statsSessionId":"$","type":"stats-entry","data":[1]}{"statsSessionId":"$","type":"stats-entry","data":[2]}"#,
                &[
                    stamped(r#"{"statsSessionId":"$","type":"stats-entry","data":[1]}"#),
                    stamped(r#"{"statsSessionId":"$","type":"stats-entry","data":[2]}"#),
                ],
            ),
            (r#"{"statsSessionId":"$","type":"keepalive"}"#, &[]),
            (r#"{"statsSessionId":"$","type":"close"}"#, &[]),
        ],
    );
}

/// A `timestamp` of the request gives way to ours and keeps its place.
#[test]
fn a_back_end_cannot_set_the_timestamp() {
    let server = TestServer::start();
    let mut client = WsClient::open(server.ingest, &Upgrade::back_end("1.0_JIGASI"));
    client.send_text(r#"{"statsSessionId":"stamp","timestamp":7,"type":"stats-entry","data":[1]}"#);
    client.close(1000);
    let dump = archived(&server, "stamp", 1).remove(0);
    let request: Value = serde_json::from_str(dump.body.trim_end()).unwrap();
    assert!(request["timestamp"].as_u64().unwrap() > 1_700_000_000_000, "{}", dump.body);
    assert_eq!(dump.body.matches("timestamp").count(), 1, "{}", dump.body);
}

/// Ids that break the rule are bad requests; the longest legal one is fine.
#[test]
fn session_ids_obey_the_rule() {
    let server = Settings::new().set("limits.bad_requests", 1000).start();
    let mut client = WsClient::open(server.ingest, &Upgrade::back_end("3.1_STANDARD"));
    let longest = "a".repeat(128);
    let long = "a".repeat(129);
    let bad = ["", "..", "../../x", "a/b", "a.b", "a b", "ü", "a\\u0000", long.as_str()];
    for id in bad {
        client.send_text(&format!(r#"{{"statsSessionId":"{id}","type":"stats-entry","data":"[1]"}}"#));
    }
    for id in ["5", "null", "{}", "[\"a\"]"] {
        client.send_text(&format!(r#"{{"statsSessionId":{id},"type":"stats-entry","data":"[1]"}}"#));
    }
    for good in ["A_b-9", "_1", longest.as_str()] {
        client.send_text(&entry_message(good, "[1]"));
    }
    client.close(1000);
    server.wait_until("the good ones are archived", || (server.archive().count() == 3).then_some(()));
    archived(&server, &longest, 1);
    assert_eq!(server.archive().count(), 3);
}

/// Too many bad requests close the connection with 1008 and a reason in words; what it recorded is archived, and
/// other connections go on.
#[test]
fn too_many_bad_requests_close_the_connection() {
    let server = TestServer::start();
    let mut rng = Rng::new(20);
    let (bad_id, good_id) = (rng.uuid(), rng.uuid());
    let mut good = WsClient::open(server.ingest, &Upgrade::browser(&good_id));
    let mut bad = WsClient::open(server.ingest, &Upgrade::browser(&bad_id));
    good.send_text(&entry_message(&good_id, "[1]"));
    bad.send_text(&entry_message(&bad_id, "[1]"));
    // The documented limit is 100 in a minute: so many are borne.
    for _ in 0..100 {
        bad.send_text("{");
    }
    bad.round_trip();
    bad.send_text("{");
    let reason = bad.expect_close(1008);
    assert!(reason.contains(' '), "{reason:?} is no reason in words");
    assert_eq!(archived(&server, &bad_id, 1)[0].body, "[1]\n");

    good.send_text(&entry_message(&good_id, "[2]"));
    good.close(1000);
    assert_eq!(archived(&server, &good_id, 1)[0].body, "[1]\n[2]\n");
}

/// An object that is split over two messages is two bad requests.
#[test]
fn a_request_does_not_span_messages() {
    let server = TestServer::start();
    let id = Rng::new(21).uuid();
    let mut client = WsClient::open(server.ingest, &Upgrade::browser(&id));
    let whole = entry_message(&id, "[1]");
    client.send_text(&whole[..20]);
    client.send_text(&whole[20..]);
    client.send_text(&entry_message(&id, "[2]"));
    client.close(1000);
    assert_eq!(archived(&server, &id, 1)[0].body, "[2]\n");
}

/// The server sends its greeting and nothing else to a session whose entries have no numbers.
#[test]
fn unnumbered_entries_are_not_acknowledged() {
    let server = TestServer::start();
    let id = Rng::new(22).uuid();
    let mut client = WsClient::open(server.ingest, &Upgrade::browser(&id));
    for _ in 0..300 {
        client.send_text(&entry_message(&id, r#"["a",null,1,1700000000000]"#));
    }
    client.send_bytes(&frames::message(frames::PING, b"end"));
    assert_eq!(client.receive(), Incoming::Pong(b"end".to_vec()));
    client.close(1000);
}
