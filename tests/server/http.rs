//! The request head: health checks, refusals, and which upgrades are taken.

use std::io::{Read, Write};

use crate::support::client::KEY;
use crate::support::http::{exchange, get, read_answer};
use crate::support::{Settings, TestServer, Upgrade, WsClient, http};

/// Both health checks answer 200 without a body, with and without a query, also to the simplest of clients.
#[test]
fn health_checks() {
    let server = TestServer::start();
    for target in ["/healthcheck", "/bindcheck", "/healthcheck?x=1", "/bindcheck?"] {
        for request in [
            format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"),
            format!("GET {target} HTTP/1.1\r\n\r\n"),
            format!("GET {target} HTTP/1.0\r\n\r\n"),
            format!("HEAD {target} HTTP/1.1\r\nHost: h\r\n\r\n"),
        ] {
            let answer = exchange(server.ingest, request.as_bytes());
            assert_eq!(answer.status, 200, "{request}");
            assert_eq!(answer.header("content-length"), Some("0"), "{request}");
            assert!(answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")));
            assert!(answer.body.is_empty());
        }
    }
}

/// What is no upgrade and no health check is refused with the right status.
#[test]
fn plain_requests_are_refused_by_rule() {
    let server = TestServer::start();
    let long = "x".repeat(9 * 1024);
    let many: String = (0..70).map(|n| format!("X-{n}: y\r\n")).collect();
    for (status, request) in [
        (404, "GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned()),
        (404, "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n".to_owned()),
        (404, "GET /healthcheckx HTTP/1.1\r\nHost: h\r\n\r\n".to_owned()),
        (405, "POST /healthcheck HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n".to_owned()),
        (405, "DELETE /bindcheck?x HTTP/1.1\r\nHost: h\r\n\r\n".to_owned()),
        (400, "NONSENSE\r\n\r\n".to_owned()),
        (400, "GET /\u{7f} HTTP/1.1\r\nHost: h\r\n\r\n".to_owned()),
        (400, "GET / HTTP/1.1\r\nno colon\r\n\r\n".to_owned()),
        (431, format!("GET /{long} HTTP/1.1\r\nHost: h\r\n\r\n")),
        (431, format!("GET / HTTP/1.1\r\nHost: h\r\nX: {long}\r\n\r\n")),
        (431, format!("GET / HTTP/1.1\r\nHost: h\r\n{many}\r\n")),
    ] {
        let answer = exchange(server.ingest, request.as_bytes());
        assert_eq!(answer.status, status, "{request:.80}");
        assert_eq!(answer.header("content-length").unwrap_or("0"), answer.body.len().to_string());
    }
}

/// A faulty upgrade gets 400; another version than 13 gets 426 and is told the right one.
#[test]
fn faulty_upgrades_are_refused() {
    let server = TestServer::start();
    let head = Upgrade::browser("abc").head();
    for (status, from, to) in [
        (426, "Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8"),
        (426, "Sec-WebSocket-Version: 13\r\n", ""),
        (400, &*format!("Sec-WebSocket-Key: {KEY}\r\n"), ""),
        (400, KEY, "c2hvcnQ="),
        (400, KEY, "!!!!!!!!!!!!!!!!!!!!!!=="),
        (400, "GET /", "POST /"),
        (400, "HTTP/1.1", "HTTP/1.0"),
    ] {
        let request = head.replace(from, to);
        assert_ne!(request, head);
        let answer = exchange(server.ingest, request.as_bytes());
        assert_eq!(answer.status, status, "{from} -> {to}");
        if status == 426 {
            assert_eq!(answer.header("sec-websocket-version"), Some("13"));
        }
    }
}

/// Every path takes an upgrade, header names and values may have any case, and a list in `Connection` is fine.
#[test]
fn upgrades_are_taken_on_every_path() {
    let server = TestServer::start();
    for target in ["/", "/a/b/c?d=e", "/healthcheck", "/%F0%9F%8E%99?statsSessionId=x", "/?statsSessionId="] {
        WsClient::open(server.ingest, &Upgrade::back_end("3.0_JVB").target(target)).close(1000);
    }
    let odd = Upgrade::browser("odd-case")
        .head()
        .replace("Upgrade: websocket", "uPgRaDe: WebSocket")
        .replace("Connection: Upgrade", "connection: keep-alive, upgrade");
    let mut stream = http::connect(server.ingest).unwrap();
    stream.write_all(odd.as_bytes()).unwrap();
    WsClient::upgraded(stream).unwrap().expect("the upgrade is accepted").close(1000);
}

/// The first offered subprotocol is echoed; none is fine.
#[test]
fn the_first_subprotocol_is_echoed() {
    let server = TestServer::start();
    for (offered, echoed) in [
        ("3.1_STANDARD", Some("3.1_STANDARD")),
        ("3.1_LEGACY, 3.1_STANDARD", Some("3.1_LEGACY")),
        ("unheard-of", Some("unheard-of")),
        ("", None),
    ] {
        let client = WsClient::connect(server.ingest, &Upgrade::back_end(offered));
        assert_eq!(client.answer.header("sec-websocket-protocol"), echoed, "{offered:?}");
        client.close(1000);
    }
}

/// A head may arrive byte by byte.
#[test]
fn a_head_may_come_in_pieces() {
    let server = TestServer::start();
    let mut stream = http::connect(server.ingest).unwrap();
    for byte in Upgrade::browser("in-pieces").head().as_bytes() {
        stream.write_all(&[*byte]).unwrap();
    }
    WsClient::upgraded(stream).unwrap().expect("the upgrade is accepted").close(1000);
}

/// A head that does not come to an end is answered with 408 at its time limit; so is silence.
#[test]
fn a_slow_head_times_out() {
    let server = Settings::new().set("limits.head_timeout_s", 1).start();
    for part in ["", "GET / HTTP/1.1\r\nHost: h\r\n"] {
        let mut stream = http::connect(server.ingest).unwrap();
        stream.write_all(part.as_bytes()).unwrap();
        assert_eq!(read_answer(&mut stream).status, 408, "{part:?}");
    }
}

/// A refusal is delivered although the client has sent more than was read.
#[test]
fn a_refusal_outlives_an_unread_body() {
    let server = TestServer::start();
    let mut request = b"POST /upload HTTP/1.1\r\nHost: h\r\nContent-Length: 40000\r\n\r\n".to_vec();
    request.resize(request.len() + 40_000, b'x');
    for _ in 0..20 {
        assert_eq!(exchange(server.ingest, &request).status, 404);
    }
}

/// A peer that leaves within its head costs nothing and is no error of an open connection.
#[test]
fn a_peer_may_vanish_within_its_head() {
    let server = TestServer::start();
    for _ in 0..20 {
        let mut stream = http::connect(server.ingest).unwrap();
        stream.write_all(b"GET / HT").unwrap();
    }
    assert_eq!(get(server.ingest, "/healthcheck").status, 200);
    assert_eq!(server.metric("rtcstats_websocket_connections"), 0.0);
    assert_eq!(server.metric("rtcstats_websocket_connection_error"), 0.0);
}

/// An id in the URL that breaks the rule never becomes a path.
#[test]
fn an_invalid_id_in_the_url_touches_no_file() {
    let server = TestServer::start();
    let too_long = "a".repeat(129);
    for id in ["../../escaped", "..%2F..%2Fescaped", ".lock", "%00", "a.b", "a/b", &too_long] {
        let upgrade = Upgrade::browser(id);
        // Whether the connection itself is taken is not the point.
        if let Ok(client) = WsClient::try_connect(server.ingest, &upgrade).unwrap() {
            drop(client);
        }
    }
    assert_eq!(get(server.ingest, "/healthcheck").status, 200);
    assert!(!server.root().join("escaped").exists());
    let below = crate::support::archive::file_names(&server.dump_path(""));
    assert!(
        below.iter().all(|name| [".lock", "finished", "quarantine"].contains(&name.as_str())),
        "{below:?}"
    );
}

/// The metrics port serves `/metrics` and nothing else, and no stalled scraper can hold it.
#[test]
fn the_metrics_port() {
    let server = TestServer::start();
    let mut stalled: Vec<_> = (0..8).map(|_| http::connect(server.metrics).unwrap()).collect();
    for stream in &mut stalled {
        stream.write_all(b"GET /metr").unwrap();
    }
    let answer = server.scrape();
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(get(server.metrics, "/").status, 404);
    assert_eq!(get(server.metrics, "/healthcheck").status, 404);
    for mut stream in stalled {
        // It is sent away, with or without an answer.
        let _ = stream.read_to_end(&mut Vec::new());
    }
}
