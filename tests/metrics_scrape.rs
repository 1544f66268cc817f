//! The text of a scrape: golden files, the contract's names, types, help texts and quantiles, and promtool.
//!
//! `UPDATE_GOLDEN=1 cargo test --test metrics_scrape` writes the golden files anew; a change in them is a
//! change of what operators see, and wants a commit that explains it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test helper fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    reason = "it says in metrics when they began; only that it is there matters"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use rtcstats_server::client::ClientType;
use rtcstats_server::metrics::{FeatureMetrics, Gauges, JobReport, MessageKind, Metrics, Tally, WaitingEnd};
use rtcstats_server::moment::Moment;
use rtcstats_server::reasons::{CloseReason, JoinedBy, Refusal, RemovalReason, RequestFault};

const SECOND: Duration = Duration::from_secs(1);

fn metrics(start: Moment) -> Metrics {
    Metrics::new(start, SystemTime::now()).unwrap()
}

/// A scrape of a process that has done nothing.
fn empty() -> String {
    let start = Moment::at(1 << 40);
    metrics(start).render(start).unwrap()
}

/// One of everything, each with a number of its own, so that a mix-up shows.
fn tally() -> Tally {
    let mut tally = Tally::default();
    tally.sessions_started = 101;
    tally.session_errors = 102;
    tally.queued_dumps = 103;
    tally.received_bytes = 104_000;
    tally.entries_appended = 105;
    tally.entries_appended_bytes = 106_000;
    tally.duplicates_dropped = 107;
    tally.missing_entries = 108;
    tally.acknowledgements_sent = 109;
    tally.connections_accepted = 110;
    tally.connections_upgraded = 111;
    tally.sessions_resumed = 112;
    tally.sessions_taken_over = 113;
    tally.sessions_unjoined = 125;
    tally.sessions_displaced = 114;
    tally.orphans_recovered = 115;
    tally.dump_write_errors = 116;
    tally.dumps_removed = 122;
    tally.dump_sync_errors = 123;
    tally.accept_errors = 117;
    tally.stale_events = 118;
    tally.pings_sent = 119;
    tally.pings_received = 120;
    tally.pongs_received = 121;
    let mut next = 200..;
    let mut n = || next.next().unwrap();
    MessageKind::ALL.iter().for_each(|kind| tally.messages.add(*kind, n()));
    RequestFault::ALL.iter().for_each(|fault| tally.requests_refused.add(*fault, n()));
    Refusal::ALL.iter().for_each(|refusal| tally.connections_refused.add(*refusal, n()));
    CloseReason::ALL.iter().for_each(|reason| tally.connections_closed.add(*reason, n()));
    JoinedBy::ALL.iter().for_each(|by| tally.sessions_joined.add(*by, n()));
    WaitingEnd::ALL.iter().for_each(|end| tally.waiting_finished.add(*end, n()));
    [100, 300, 200].into_iter().for_each(|size_bytes| tally.request_received(size_bytes));
    tally
}

fn report(client_type: ClientType, dump_bytes: u64, processing_ms: u64) -> JobReport {
    JobReport {
        client_type,
        dump_bytes,
        processing: Duration::from_millis(processing_ms),
        errored: false,
        features: None,
    }
}

fn features(scale: u64) -> FeatureMetrics {
    FeatureMetrics {
        stats_request_bytes: scale,
        sdp_request_bytes: 2 * scale,
        ds_request_bytes: 3 * scale,
        sentiment_request_bytes: 4 * scale,
        other_request_bytes: 5 * scale,
        session_duration_ms: 6.5 * f64::from(u32::try_from(scale).unwrap()),
        total_processed_bytes: 7 * scale,
        total_processed_count: 8 * scale,
    }
}

/// A scrape with a value in every family, at 700 s: what was observed at the start has left the windows.
fn filled() -> String {
    let start = Moment::at(1 << 40);
    let metrics = metrics(start);
    let late = start + 700 * SECOND;
    metrics.job_done(&report(ClientType::Rtcstats, 999_999, 9_000), start);
    for (dump, client) in (1..).zip(ClientType::ALL) {
        metrics.job_done(&report(client, dump * 1_000, dump * 100), late);
    }
    for scale in 1..=10 {
        let done = report(ClientType::Rtcstats, 10_000 * scale, 2_000);
        let errored = scale % 5 == 0;
        metrics.job_done(&JobReport { errored, features: Some(features(scale)), ..done }, late);
    }
    metrics.storage_error();
    metrics.quarantined();
    metrics.archive_measured(30_000);
    metrics.archive_grew(31);
    metrics.archive_removed(RemovalReason::Age, 32, 33_000);
    metrics.archive_removed(RemovalReason::Size, 34, 35_000);
    metrics.archive_removal_failed();
    metrics.archive_clock_doubted(true);
    let mut tally = tally();
    metrics.publish(&mut tally, late);
    assert_eq!(tally, Tally::default(), "publishing zeroes the tally");
    metrics.publish(&mut tally, late);
    metrics.set(&Gauges {
        connections: 1,
        sessions_open: 2,
        sessions_waiting: 3,
        jobs_queued: 4,
        jobs_in_work: 5,
        dump_bytes_on_disk: 6_000,
        oldest_pending: Duration::from_millis(7_500),
        free_bytes: 8_000_000,
        incomplete_bytes: 9_000,
        open_dump_files: 10,
    });
    metrics.observe_turn(Duration::from_micros(300));
    metrics.observe_turn(Duration::from_millis(1_500));
    metrics.observe_append(Duration::from_micros(9));
    metrics.render(late).unwrap()
}

/// Hides what differs from run to run: the figures of the process, and the version.
fn masked(scrape: &str) -> String {
    let mask = |line: &str| match line.split_once(' ') {
        Some((name, _)) if name.starts_with("process_") => format!("{name} <masked>\n"),
        _ => format!("{line}\n").replace(env!("CARGO_PKG_VERSION"), "<version>"),
    };
    scrape.lines().map(mask).collect()
}

fn check_golden(name: &str, scrape: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let text = masked(scrape);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    for (number, (now, then)) in text.lines().zip(golden.lines()).enumerate() {
        assert_eq!(now, then, "{}:{}", path.display(), number + 1);
    }
    assert_eq!(text, golden, "{}", path.display());
}

#[test]
fn an_empty_scrape_is_as_documented() {
    check_golden("metrics_empty.txt", &empty());
}

#[test]
fn a_filled_scrape_is_as_documented() {
    check_golden("metrics_filled.txt", &filled());
}

/// Help and type of every family, and all samples, by name.
struct Scrape {
    families: BTreeMap<String, (String, String)>,
    samples: BTreeMap<String, f64>,
}

impl Scrape {
    fn parse(text: &str) -> Self {
        let mut families: BTreeMap<String, (String, String)> = BTreeMap::new();
        let mut samples = BTreeMap::new();
        for line in text.lines() {
            if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
                families.entry(name.to_owned()).or_default().0 = help.to_owned();
            } else if let Some((name, kind)) =
                line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
            {
                families.entry(name.to_owned()).or_default().1 = kind.to_owned();
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let before = samples.insert(series.to_owned(), value.parse().unwrap());
                assert_eq!(before, None, "{series} is there twice");
            }
        }
        Self { families, samples }
    }

    fn value(&self, series: &str) -> f64 {
        *self.samples.get(series).unwrap_or_else(|| panic!("{series} is missing"))
    }

    fn check_family(&self, name: &str, kind: &str, help: &str) {
        let family = self.families.get(name).unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!((family.1.as_str(), family.0.as_str()), (kind, help), "{name}");
    }

    fn check_summary(&self, name: &str, help: &str, quantiles: &[&str]) {
        self.check_family(name, "summary", help);
        let prefix = format!("{name}{{quantile=\"");
        let found =
            self.samples.keys().filter_map(|series| series.strip_prefix(&prefix)?.strip_suffix("\"}"));
        assert_eq!(found.collect::<BTreeSet<_>>(), quantiles.iter().copied().collect(), "{name}");
        self.value(&format!("{name}_sum"));
        self.value(&format!("{name}_count"));
    }
}

/// The contract, section 1 and 2 of the metrics specification: written down here a second time, from there.
#[test]
fn every_contract_family_has_its_documented_name_type_help_and_quantiles() {
    const WINDOW: [&str; 5] = ["0.1", "0.25", "0.5", "0.75", "0.9"];
    const LIFE: [&str; 7] = ["0.01", "0.05", "0.5", "0.9", "0.95", "0.99", "0.999"];
    for text in [empty(), filled()] {
        let scrape = Scrape::parse(&text);
        for (name, kind, help) in [
            ("rtcstats_websocket_connections", "gauge", "number of open websocket connections"),
            (
                "rtcstats_websocket_connection_error",
                "counter",
                "number of open websocket connections that failed with an error",
            ),
            ("rtcstats_queued_dumps", "counter", "Number of rtcstats dumps queued up for future processing"),
            ("rtcstats_queue_size", "gauge", "Number of dumps currently queued for processing"),
            ("rtcstats_disk_queue_size", "gauge", "Size occupied on disk by queued dumps"),
            ("rtcstats_files_processed", "counter", "number of files processed"),
            ("rtcstats_files_errored", "counter", "number of files with errors during processing"),
            (
                "rtcstats_session_count",
                "counter",
                "number of total sessions received over the websocket endpoint",
            ),
            (
                "rtcstats_session_error_count",
                "counter",
                "number of total sessions that failed for various reasons",
            ),
            ("rtcstats_process_error_count", "counter", "number of files with errors during processing"),
            ("rtcstats_storage_error_count", "counter", "number of failed dump storage attempts"),
        ] {
            scrape.check_family(name, kind, help);
            scrape.value(name);
        }
        scrape.check_summary("rtcstats_processing_time", "Processing time for a request", &WINDOW);
        scrape.check_summary("rtcstats_dump_size", "Size of processed rtcstats dumps", &WINDOW);
        scrape.check_summary(
            "rtcstats_requests_size_bytes",
            "Summary for inbound request size in bytes",
            &WINDOW,
        );
        for (name, help) in [
            ("rtcstats_sentiment_request_size_bytes", "Summary for inbound sentiment request size in bytes"),
            ("rtcstats_stats_request_size_bytes", "Summary for inbound stats request size in bytes"),
            ("rtcstats_other_request_size_bytes", "Summary for inbound other request size in bytes"),
            ("rtcstats_sdp_request_size_bytes", "Summary for inbound sdp request size in bytes"),
            ("rtcstats_ds_request_size_bytes", "Summary for inbound dominant speaker request size in bytes"),
            ("rtcstats_session_duration_ms", "Summary for session duration in ms"),
            ("rtcstats_total_processed_bytes", "Bytes per dump that feature extraction has counted"),
            ("rtcstats_total_processed_count", "Entries per dump that feature extraction has counted"),
        ] {
            scrape.check_summary(name, help, &WINDOW);
        }
        for (prefix, kind) in [
            ("rtcstats", "rtcstats"),
            ("jvb", "jvb"),
            ("jicofo", "jicofo"),
            ("jibri", "jibri"),
            ("jigasi", "jigasi"),
            ("unknown", "unknown"),
        ] {
            let help = format!("Size of processed dumps sent by {kind} clients");
            scrape.check_summary(&format!("{prefix}_dump_size_bytes"), &help, &LIFE);
        }
    }
}

#[test]
fn every_family_and_series_is_there_from_the_first_scrape_on() {
    let (empty, filled) = (Scrape::parse(&empty()), Scrape::parse(&filled()));
    assert_eq!(empty.families, filled.families);
    assert_eq!(empty.samples.keys().collect::<Vec<_>>(), filled.samples.keys().collect::<Vec<_>>());
    for (series, value) in &empty.samples {
        let is_constant = series.starts_with("process_") || series.starts_with("rtcstats_build_info");
        assert!(is_constant || *value == 0.0, "{series} {value}");
    }
}

#[test]
fn process_figures_are_true() {
    let before = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    let scrape = Scrape::parse(&empty());
    let again = Scrape::parse(&empty());
    let cpu = scrape.value("process_cpu_seconds_total");
    assert!(cpu > 0.0 && cpu < again.value("process_cpu_seconds_total"), "{cpu}: a clock, not whole seconds");
    let started = scrape.value("process_start_time_seconds");
    assert!((before - started).abs() < 60.0, "started at {started}, now {before}");
    let open = scrape.value("process_open_fds");
    assert!(open >= 3.0 && open < scrape.value("process_max_fds"), "{open}");
    let resident = scrape.value("process_resident_memory_bytes");
    assert!(resident > 1e6 && resident < scrape.value("process_virtual_memory_bytes"), "{resident}");
}

#[test]
fn both_names_of_the_error_counter_are_always_equal() {
    let scrape = Scrape::parse(&filled());
    // Two of ten dumps with problems, and one in quarantine.
    assert_eq!(scrape.value("rtcstats_files_errored"), 3.0);
    assert_eq!(scrape.value("rtcstats_process_error_count"), 3.0);
    assert_eq!(scrape.value("rtcstats_files_processed"), 15.0);
}

#[test]
fn connection_errors_follow_from_the_reasons_of_the_closed_connections() {
    let start = Moment::at(1 << 40);
    let metrics = metrics(start);
    let mut tally = Tally::default();
    CloseReason::ALL.iter().for_each(|reason| tally.connections_closed.add_one(*reason));
    metrics.publish(&mut tally, start);
    let errors = CloseReason::ALL.iter().filter(|reason| reason.is_error()).count();
    let scrape = Scrape::parse(&metrics.render(start).unwrap());
    assert_eq!(
        scrape.value("rtcstats_websocket_connection_error"),
        f64::from(u32::try_from(errors).unwrap())
    );
}

#[test]
fn every_window_empties_by_itself_and_sums_stay() {
    let start = Moment::at(1 << 40);
    let metrics = metrics(start);
    let done = JobReport { features: Some(features(1_000)), ..report(ClientType::Jvb, 1_000, 1_000) };
    metrics.job_done(&done, start);
    let mut tally = tally();
    metrics.publish(&mut tally, start);
    let full = Scrape::parse(&metrics.render(start + 600 * SECOND).unwrap());
    let empty = Scrape::parse(&metrics.render(start + 601 * SECOND).unwrap());
    let mut quartiles = 0;
    for series in full.samples.keys().filter(|series| series.contains("quantile=\"0.25\"")) {
        quartiles += 1;
        assert!(full.value(series) > 0.0, "{series}");
        assert_eq!(empty.value(series), 0.0, "{series}");
        let sum = format!("{}_sum", series.split('{').next().unwrap());
        assert!(empty.value(&sum) > 0.0, "{sum}");
    }
    assert_eq!(quartiles, 11, "as many summaries have a window");
    assert_eq!(
        empty.value("jvb_dump_size_bytes{quantile=\"0.5\"}"),
        1_000.0,
        "without a window nothing is forgotten"
    );
}

#[test]
fn the_queue_size_is_read_at_the_scrape() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    let start = Moment::at(1 << 40);
    let metrics = metrics(start);
    let queue_size = || Scrape::parse(&metrics.render(start).unwrap()).value("rtcstats_queue_size");
    metrics.set(&Gauges { jobs_queued: 3, ..Gauges::default() });
    assert_eq!(queue_size(), 3.0, "the published length, as long as there is no source");
    let queue = Arc::new(AtomicUsize::new(7));
    let source = Arc::clone(&queue);
    metrics.read_queue_size_from(move || source.load(Ordering::Relaxed));
    assert_eq!(queue_size(), 7.0);
    queue.store(8, Ordering::Relaxed);
    assert_eq!(queue_size(), 8.0, "nothing was published in between");
}

/// What promtool says about names that are a contract; about every other family it must say nothing.
const LINT_REMARKS: &[(&str, &str)] = &[
    ("rtcstats_files_errored", NO_TOTAL),
    ("rtcstats_files_processed", NO_TOTAL),
    ("rtcstats_process_error_count", NO_TOTAL),
    ("rtcstats_process_error_count", COUNT),
    ("rtcstats_queued_dumps", NO_TOTAL),
    ("rtcstats_session_count", NO_TOTAL),
    ("rtcstats_session_count", COUNT),
    ("rtcstats_session_duration_ms", ABBREVIATED),
    ("rtcstats_session_error_count", NO_TOTAL),
    ("rtcstats_session_error_count", COUNT),
    ("rtcstats_storage_error_count", NO_TOTAL),
    ("rtcstats_storage_error_count", COUNT),
    ("rtcstats_websocket_connection_error", NO_TOTAL),
];
const NO_TOTAL: &str = "counter metrics should have \"_total\" suffix";
const COUNT: &str = "non-histogram and non-summary metrics should not have \"_count\" suffix";
const ABBREVIATED: &str = "metric names should not contain abbreviated units";

/// Runs promtool with this on its standard input; `None`, and a loud word, when there is no promtool.
fn promtool(arguments: &[&str], input: &str) -> Option<(Option<i32>, String)> {
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = match command.spawn() {
        Ok(promtool) => promtool,
        Err(error) => {
            // Not `eprintln!`, which the test harness swallows.
            let skipped = format!("SKIPPED: no promtool ({error}); it is in the Debian package prometheus\n");
            std::io::stderr().write_all(skipped.as_bytes()).unwrap();
            return None;
        }
    };
    promtool.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    Some((output.status.code(), String::from_utf8(said).unwrap()))
}

#[test]
fn promtool_parses_a_scrape_and_objects_to_contract_names_alone() {
    for scrape in [empty(), filled()] {
        let Some((code, said)) = promtool(&["check", "metrics"], &scrape) else { return };
        // 3 says: parsed, with remarks. 1 would be: not parsed.
        assert_eq!(code, Some(3), "{said}");
        let remarks: BTreeSet<(&str, &str)> =
            said.lines().map(|line| line.split_once(' ').unwrap()).collect();
        assert_eq!(remarks, LINT_REMARKS.iter().copied().collect(), "{said}");
    }
}

const DOCUMENT: &str = include_str!("../docs/metrics.md");

#[test]
fn the_document_lists_every_family_with_its_type_and_no_other() {
    let scrape = Scrape::parse(&empty());
    let mut documented = BTreeMap::new();
    for row in DOCUMENT.lines().filter(|line| line.starts_with("| `")) {
        let mut cells = row.split(" | ");
        let names = cells.next().unwrap().trim_start_matches("| ");
        let kind = cells.next().unwrap();
        names.split(", ").for_each(|name| {
            documented.insert(name.trim_matches('`').to_owned(), kind.to_owned());
        });
    }
    let families = scrape.families.into_iter().map(|(name, (_, kind))| (name, kind));
    assert_eq!(documented, families.collect());
}

#[test]
fn the_documented_alert_rules_are_valid() {
    let rules = DOCUMENT.split("```yaml\n").nth(2).and_then(|rest| rest.split("```").next()).unwrap();
    assert!(rules.starts_with("groups:"));
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(rules.as_bytes()).unwrap();
    let Some((code, said)) = promtool(&["check", "rules", file.path().to_str().unwrap()], "") else { return };
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("SUCCESS: 11 rules found"), "{said}");
    let scrape = Scrape::parse(&empty());
    for word in rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
        if word.starts_with("rtcstats_") {
            let family = word.strip_suffix("_bucket").unwrap_or(word);
            assert!(scrape.families.contains_key(family), "{word} is no family");
        }
    }
}
