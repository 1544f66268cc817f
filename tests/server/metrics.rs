//! The scrape of a running server moves with what happens. What it looks like is tested with the module itself.

use super::ingest::archived;
use crate::support::script::{entry_message, message};
use crate::support::{Rng, TestServer, Upgrade, WsClient};

/// A session moves what it should move, and nothing stays up when it has gone.
#[test]
fn a_session_shows_in_the_metrics() {
    let server = TestServer::start();
    let id = Rng::new(70).uuid();
    let mut client = WsClient::open(server.ingest, &Upgrade::browser(&id));
    server.wait_for_metric("rtcstats_websocket_connections", 1.0);
    client.send_text(&entry_message(&id, "[1]"));
    client.send_text(&message(&id, "close", None));
    client.close(1000);
    archived(&server, &id, 1);
    for (series, value) in [
        ("rtcstats_session_count", 1.0),
        ("rtcstats_files_processed", 1.0),
        ("rtcstats_dump_size_count", 1.0),
        ("rtcstats_processing_time_count", 1.0),
        ("rtcstats_connections_upgraded_total", 1.0),
        ("rtcstats_connections_closed_total{reason=\"peer_closed\"}", 1.0),
        ("rtcstats_messages_received_total{type=\"text\"}", 2.0),
        ("rtcstats_entries_appended_total", 1.0),
    ] {
        server.wait_for_metric(series, value);
        assert_eq!(server.metric(series), value, "{series}");
    }
    server.wait_until("the gauges fall back", || {
        let gone = ["rtcstats_websocket_connections", "rtcstats_queue_size", "rtcstats_disk_queue_size"];
        gone.iter().all(|gauge| server.metric(gauge) == 0.0).then_some(())
    });
    assert_eq!(server.metric("rtcstats_files_errored"), 0.0);
    assert_eq!(server.metric("rtcstats_websocket_connection_error"), 0.0);
}

/// Bad requests are counted by reason.
#[test]
fn bad_requests_are_counted_by_reason() {
    let server = TestServer::start();
    let mut client = WsClient::open(server.ingest, &Upgrade::browser("bad-requests"));
    for (reason, request) in [
        ("not_json", "{"),
        ("not_object", "[]"),
        ("not_object", "5"),
        ("bad_session_id", r#"{"statsSessionId":"a/b","type":"stats-entry","data":"[1]"}"#),
        ("bad_session_id", r#"{"type":"stats-entry","data":"[1]"}"#),
        ("unknown_type", r#"{"statsSessionId":"a","type":"unheard-of"}"#),
        ("unknown_type", r#"{"statsSessionId":"a","data":"[1]"}"#),
        ("missing_data", r#"{"statsSessionId":"a","type":"stats-entry"}"#),
        ("bad_data", r#"{"statsSessionId":"a","type":"stats-entry","data":5}"#),
        ("bad_data", r#"{"statsSessionId":"a","type":"stats-entry","data":"1\n2"}"#),
    ] {
        let series = format!("rtcstats_requests_refused_total{{reason=\"{reason}\"}}");
        let before = server.metric(&series);
        client.send_text(request);
        client.round_trip();
        server.wait_for_metric(&series, before + 1.0);
        assert_eq!(server.metric(&series), before + 1.0, "{request}");
    }
    client.close(1000);
    assert_eq!(server.metric("rtcstats_session_count"), 0.0);
}
