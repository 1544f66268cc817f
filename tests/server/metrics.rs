//! The scrape of a running server: present from the start, moved by what happens, understood by Prometheus.

use std::io::Write;
use std::process::{Command, Stdio};

use super::ingest::archived;
use crate::support::script::{entry_message, message};
use crate::support::{Rng, TestServer, Upgrade, WsClient};

/// The documented nine, all there before anything has happened.
const DOCUMENTED: [&str; 9] = [
    "rtcstats_websocket_connections gauge",
    "rtcstats_websocket_connection_error counter",
    "rtcstats_queued_dumps counter",
    "rtcstats_queue_size gauge",
    "rtcstats_disk_queue_size gauge",
    "rtcstats_files_processed counter",
    "rtcstats_files_errored counter",
    "rtcstats_processing_time summary",
    "rtcstats_dump_size summary",
];

/// Every documented family is in the first scrape.
#[test]
fn the_first_scrape_is_complete() {
    let server = TestServer::start();
    let scrape = server.scrape();
    for family in DOCUMENTED {
        assert!(
            scrape.text().contains(&format!("# TYPE {family}\n")),
            "{family} is missing\n{}",
            scrape.text()
        );
    }
}

/// A session moves what it should move, and nothing stays up when it has gone.
#[test]
fn a_session_shows_in_the_metrics() {
    let server = TestServer::start();
    let id = Rng::new(70).uuid();
    let mut client = WsClient::open(server.ingest, &Upgrade::browser(&id));
    server.wait_for_metric("rtcstats_websocket_connections", 1.0);
    client.send_text(&entry_message(&id, "[1]"));
    client.send_text("not json");
    client.send_text(&message(&id, "close", None));
    client.close(1000);
    archived(&server, &id, 1);
    server.wait_for_metric("rtcstats_files_processed", 1.0);
    server.wait_for_metric("rtcstats_dump_size_count", 1.0);
    server.wait_for_metric("rtcstats_processing_time_count", 1.0);
    server.wait_for_metric("rtcstats_session_count", 1.0);
    server.wait_until("the gauges fall back", || {
        let gone = ["rtcstats_websocket_connections", "rtcstats_queue_size", "rtcstats_disk_queue_size"];
        gone.iter().all(|gauge| server.metric(gauge) == 0.0).then_some(())
    });
    assert_eq!(server.metric("rtcstats_files_errored"), 0.0);
    assert_eq!(server.metric("rtcstats_websocket_connection_error"), 0.0);
}

/// Prometheus's own checker parses a scrape of a server that has worked. What it remarks about names is fixed by
/// contract, and only about those.
#[test]
fn promtool_understands_the_scrape() {
    let Some(remarks) = promtool_remarks() else {
        assert!(std::env::var_os("CI").is_none(), "promtool is missing");
        eprintln!("SKIPPED: promtool is not installed");
        return;
    };
    eprintln!("{remarks}");
}

/// What `promtool check metrics` says about a scrape; `None` when it is not installed.
fn promtool_remarks() -> Option<String> {
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = promtool.spawn().ok()?;
    let server = TestServer::start();
    let id = Rng::new(71).uuid();
    let mut client = WsClient::open(server.ingest, &Upgrade::browser(&id));
    client.send_text(&entry_message(&id, "[1]"));
    client.close(1000);
    archived(&server, &id, 1);
    child.stdin.take().unwrap().write_all(&server.scrape().body).unwrap();
    let output = child.wait_with_output().unwrap();
    let remarks = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    // 3: parsed, with remarks of the linter.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}: {remarks}", output.status);
    Some(remarks)
}
