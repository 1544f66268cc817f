//! The metrics port over real sockets: what it answers, and that nobody can hold it up.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test helper fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "these tests measure how long a scrape takes")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rtcstats_server::metrics::Metrics;
use rtcstats_server::metrics::http::{MetricsServer, serve};
use rtcstats_server::moment::Moment;

const SCRAPE: &str =
    "GET /metrics HTTP/1.1\r\nHost: localhost\r\nUser-Agent: Prometheus/2.42.0\r\nAccept: */*\r\n\r\n";

fn start(address: &str) -> MetricsServer {
    let metrics = Metrics::new(Moment::now(), SystemTime::now()).unwrap();
    serve(TcpListener::bind(address).unwrap(), Arc::new(metrics)).unwrap()
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    // No test waits for ever.
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// Sends the bytes, and reads until the server closes.
fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = connect(address);
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Checks status line, framing and end of an answer; returns its body.
fn check_answer(answer: &str, status: &str) -> String {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(head.lines().next().unwrap(), format!("HTTP/1.1 {status}"));
    assert!(head.contains("\r\nConnection: close"), "{head}");
    body.to_owned()
}

fn content_length(answer: &str) -> usize {
    let value = answer.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
    value.parse().unwrap()
}

#[test]
fn a_scrape_is_answered_on_ipv4_and_ipv6() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let server = start(address);
        let answer = exchange(server.address(), SCRAPE.as_bytes());
        let body = check_answer(&answer, "200 OK");
        assert!(
            answer.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"),
            "{answer}"
        );
        assert_eq!(content_length(&answer), body.len());
        assert!(body.contains("\nrtcstats_websocket_connections 0\n"));
        assert!(body.ends_with('\n'));
        server.stop();
    }
}

#[test]
fn head_has_the_same_head_and_no_body() {
    let server = start("127.0.0.1:0");
    let answer = exchange(server.address(), b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(check_answer(&answer, "200 OK"), "");
    assert!(content_length(&answer) > 10_000);
}

#[test]
fn what_is_no_scrape_is_refused_with_the_right_status() {
    let server = start("127.0.0.1:0");
    let check = |request: &[u8], status: &str| {
        let answer = exchange(server.address(), request);
        assert_eq!(check_answer(&answer, status), "");
        assert_eq!(content_length(&answer), 0);
        answer
    };
    check(b"GET / HTTP/1.1\r\n\r\n", "404 Not Found");
    check(b"GET /healthcheck HTTP/1.1\r\n\r\n", "404 Not Found");
    let refused = check(b"DELETE /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed");
    assert!(refused.contains("\r\nAllow: GET, HEAD\r\n"));
    check(b"\x16\x03\x01\x02\x00\n", "400 Bad Request");
    let endless = vec![b'a'; 64 << 10];
    check(&endless, "431 Request Header Fields Too Large");
    let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(100));
    check(many.as_bytes(), "431 Request Header Fields Too Large");
}

#[test]
fn half_a_head_and_then_the_end_is_a_bad_request() {
    let server = start("127.0.0.1:0");
    let mut stream = connect(server.address());
    stream.write_all(b"GET /metrics HT").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    check_answer(&answer, "400 Bad Request");
}

#[test]
fn a_scrape_in_single_bytes_is_answered() {
    let server = start("127.0.0.1:0");
    let mut stream = connect(server.address());
    stream.set_nodelay(true).unwrap();
    SCRAPE.bytes().for_each(|byte| stream.write_all(&[byte]).unwrap());
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    check_answer(&answer, "200 OK");
}

/// Opens that many connections, each of which has sent this much and then stalls.
fn stall(address: SocketAddr, count: usize, sent: &[u8]) -> Vec<TcpStream> {
    let open = || {
        let mut stream = connect(address);
        stream.write_all(sent).unwrap();
        stream
    };
    (0..count).map(|_| open()).collect()
}

/// How long a scrape takes; it must be a good one.
fn scrape(address: SocketAddr) -> Duration {
    let start = Instant::now();
    check_answer(&exchange(address, SCRAPE.as_bytes()), "200 OK");
    start.elapsed()
}

#[test]
fn stalled_connections_delay_no_scrape() {
    let server = start("127.0.0.1:0");
    let address = server.address();
    // 50 fit beside a scraper, 200 do not. The deadline of a head is a second: a scrape that waited for one
    // stalled connection alone would take longer than the limit here, which leaves room for a slow machine.
    for count in [50, 200] {
        let stalled = stall(address, count, b"GET /metrics HTTP/1.1\r\nHost:");
        let took = scrape(address);
        println!("scrape beside {count} stalled connections: {took:?}");
        assert!(took < Duration::from_millis(700), "{took:?} beside {count}");
        drop(stalled);
    }
}

#[test]
fn a_stalled_connection_is_ended_at_its_deadline() {
    let server = start("127.0.0.1:0");
    let start = Instant::now();
    let mut stalled = stall(server.address(), 1, b"GET /metrics HTTP/1.1\r\nHost:");
    let mut answer = String::new();
    stalled[0].read_to_string(&mut answer).unwrap();
    check_answer(&answer, "408 Request Timeout");
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(990) && took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn the_thread_stops_at_once_and_frees_the_port() {
    let server = start("127.0.0.1:0");
    let address = server.address();
    let mut stalled = stall(address, 3, b"GET /met");
    scrape(address);
    let start = Instant::now();
    server.stop();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    for stream in &mut stalled {
        // A plain close, or a reset where the thread had not yet read what was sent.
        let end = stream.read(&mut [0]);
        let is_reset = end.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset);
        assert!(is_reset || matches!(end, Ok(0)), "{end:?}");
    }
}

#[test]
fn a_dropped_handle_stops_the_thread_too() {
    let server = start("127.0.0.1:0");
    let mut open = stall(server.address(), 1, b"GET /met");
    scrape(server.address());
    drop(server);
    // The end of the thread closes this connection, well before its deadline would with an answer of 408.
    let mut rest = Vec::new();
    let ended = open[0].read_to_end(&mut rest);
    assert!(rest.is_empty(), "{ended:?} {rest:?}");
}
