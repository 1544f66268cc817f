//! RFC 6455 as seen from outside. The Autobahn suite is the thorough test; these are the rules that end
//! sessions, and so must also leave a whole archive.

use super::ingest::archived;
use crate::support::client::Incoming;
use crate::support::script::entry_message;
use crate::support::{Rng, Settings, TestServer, Upgrade, WsClient, frames};

/// Control frames between the fragments of a message are answered at once, the message stays whole.
#[test]
fn control_frames_interleave_with_fragments() {
    let server = TestServer::start();
    let id = Rng::new(30).uuid();
    let mut client = WsClient::open(server.ingest, &Upgrade::browser(&id));
    let request = entry_message(&id, r#"["frägment",null,1]"#);
    let mut first_byte = frames::TEXT;
    for part in request.as_bytes().chunks(3) {
        client.send_bytes(&frames::masked(first_byte, part, [1, 2, 3, 4]));
        client.round_trip();
        first_byte = frames::CONTINUATION;
    }
    client.send_bytes(&frames::masked(0x80 | frames::CONTINUATION, b"", [1, 2, 3, 4]));
    client.close(1000);
    assert_eq!(archived(&server, &id, 1)[0].body, "[\"frägment\",null,1]\n");
}

/// A ping is answered with its own payload.
#[test]
fn pings_are_answered() {
    let server = TestServer::start();
    let mut client = WsClient::open(server.ingest, &Upgrade::back_end(""));
    for payload in [b"".as_slice(), b"x", &[0xff; 125]] {
        client.send_bytes(&frames::message(frames::PING, payload));
        assert_eq!(client.receive(), Incoming::Pong(payload.to_vec()));
    }
    client.close(1000);
}

/// The peer's close code is echoed; none is answered with none.
#[test]
fn close_codes_are_echoed() {
    let server = TestServer::start();
    for code in [1000, 1001, 3000, 3001, 4999] {
        WsClient::open(server.ingest, &Upgrade::back_end("")).close(code);
    }
    let mut client = WsClient::open(server.ingest, &Upgrade::back_end(""));
    client.send_bytes(&frames::close(None, ""));
    assert!(matches!(client.receive(), Incoming::Close { code: None | Some(1000), .. }));
    client.expect_end();
    assert_eq!(server.metric("rtcstats_websocket_connection_error"), 0.0);
}

/// Each violation ends the connection with its code and keeps what came before it.
#[test]
fn violations_end_the_connection_with_their_code() {
    let server = Settings::new().set("limits.message_bytes", 65_536).start();
    let mut rng = Rng::new(31);
    let mut unmasked = frames::message(frames::TEXT, b"{}");
    unmasked[1] &= 0x7f;
    let huge = {
        let mut frame = frames::message(frames::TEXT, &vec![b' '; 70_000]);
        frame.truncate(14);
        frame
    };
    let half = vec![b' '; 40_000];
    let cases: Vec<(&str, u16, Vec<u8>)> = vec![
        ("unmasked", 1002, unmasked),
        ("reserved bit", 1002, frames::masked(0xc1, b"{}", [0; 4])),
        ("reserved opcode", 1002, frames::message(0x3, b"")),
        ("reserved control opcode", 1002, frames::message(0xb, b"")),
        ("fragmented ping", 1002, frames::masked(frames::PING, b"", [0; 4])),
        ("long ping", 1002, frames::message(frames::PING, &[0; 126])),
        ("continuation of nothing", 1002, frames::message(frames::CONTINUATION, b"")),
        (
            "two messages at once",
            1002,
            [frames::masked(frames::TEXT, b"{", [0; 4]), frames::message(frames::TEXT, b"}")].concat(),
        ),
        ("one byte of close code", 1002, frames::message(frames::CLOSE, &[3])),
        ("close code 1005", 1002, frames::close(Some(1005), "")),
        ("not UTF-8", 1007, frames::message(frames::TEXT, b"{\"a\":\"\xff\"}")),
        (
            "not UTF-8 over fragments",
            1007,
            [
                frames::masked(frames::TEXT, b"\"\xe2\x82", [0; 4]),
                frames::message(frames::CONTINUATION, b"\""),
            ]
            .concat(),
        ),
        ("close reason not UTF-8", 1007, frames::message(frames::CLOSE, b"\x03\xe8\xff")),
        ("announces too much", 1009, huge),
        (
            "too much in fragments",
            1009,
            [frames::masked(frames::TEXT, &half, [0; 4]), frames::message(frames::CONTINUATION, &half)]
                .concat(),
        ),
    ];
    for (what, code, bytes) in &cases {
        let id = rng.uuid();
        let mut client = WsClient::open(server.ingest, &Upgrade::browser(&id));
        client.send_text(&entry_message(&id, "[1]"));
        // The server may close before it has taken all of it.
        let _ = client.try_send_bytes(bytes);
        match client.receive() {
            Incoming::Close { code: got, .. } => assert_eq!(got, Some(*code), "{what}"),
            other => panic!("{what}: {other:?}"),
        }
        assert_eq!(archived(&server, &id, 1)[0].body, "[1]\n", "{what}");
    }
    server.wait_for_metric("rtcstats_websocket_connection_error", cases.len() as f64);
}
