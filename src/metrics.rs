//! Every metric of the program: name, help text, label set, and where its value comes from.
//!
//! Owns the registry. Never asks for the time: whoever observes or renders says what time it is. Nothing that
//! a peer sends becomes a label; label values come from enums. Every family is there from the first scrape
//! on, with zeros for every label value.
//!
//! Three ways in. The loop counts in a [`Tally`] of plain integers and publishes it once a turn, and sets its
//! [`Gauges`] from the truth. A worker reports each dump once, with a [`JobReport`]. The queue is asked for
//! its length at the scrape. One way out: [`Metrics::render`], called by the thread of [`http`].
//!
//! Rules: our metrics specification. The families under "contract" keep names, types, help texts, quantiles
//! and windows of the reference server, because existing dashboards and alerts rest on them; everything else
//! is ours: base units, counters that end in `_total`, histograms for what is added up over instances.

mod archive;
pub mod collector;
mod families;
pub mod http;
mod report;
pub mod sketch;
pub mod summary;
mod tally;

use std::time::{Duration, SystemTime};

use prometheus::{Histogram, IntCounter, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

pub use crate::metrics::report::{FeatureMetrics, Gauges, JobReport, MessageKind, SessionState, WaitingEnd};
pub use crate::metrics::tally::{ByLabel, Label};

use crate::client::ClientType;
use crate::metrics::archive::ArchiveMetrics;
use crate::metrics::collector::{Process, QueueSize, SharedSummary};
use crate::metrics::families::{as_f64, as_i64, counter, counters_by, gauge, histogram, take};
use crate::metrics::summary::Window;
use crate::metrics::tally::tally;
use crate::moment::Moment;
use crate::reasons::{CloseReason, JoinedBy, Refusal, RemovalReason, RequestFault};

/// The window of every summary that has one (contract).
const WINDOW: Window = Window { max_age: Duration::from_secs(600), age_buckets: 5 };
/// The quantiles of a summary with a window (contract).
const WINDOW_QUANTILES: &[f64] = &[0.1, 0.25, 0.5, 0.75, 0.9];
/// The quantiles of a summary over the whole life of the process (contract).
const LIFETIME_QUANTILES: &[f64] = &[0.01, 0.05, 0.5, 0.9, 0.95, 0.99, 0.999];

/// A good turn takes well below a millisecond, 5 ms is our limit for the 99.9th percentile, a second is a
/// defect.
const TURN_BUCKETS_S: &[f64] =
    &[0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];
/// An append into the page cache takes about 10 us; tens of milliseconds mean that the disk throttles
/// writers.
const APPEND_BUCKETS_S: &[f64] =
    &[0.000_005, 0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.005, 0.025, 0.1, 0.5];

// `rtcstats_websocket_connection_error` (contract) is not here: it follows from `connections_closed`.
tally! {
    plain {
        // Contract.
        sessions_started = "rtcstats_session_count",
            "number of total sessions received over the websocket endpoint";
        session_errors = "rtcstats_session_error_count",
            "number of total sessions that failed for various reasons";
        queued_dumps = "rtcstats_queued_dumps",
            "Number of rtcstats dumps queued up for future processing";
        // Ours.
        received_bytes = "rtcstats_received_bytes_total",
            "Bytes read from ingest connections";
        entries_appended = "rtcstats_entries_appended_total",
            "Entries appended to dumps";
        entries_appended_bytes = "rtcstats_entries_appended_bytes_total",
            "Bytes of the entries appended to dumps, line breaks included";
        duplicates_dropped = "rtcstats_duplicate_entries_total",
            "Numbered entries that were dropped because they had been received before";
        missing_entries = "rtcstats_missing_entries_total",
            "Entry numbers that a client skipped, so that they are in no dump";
        acknowledgements_sent = "rtcstats_acknowledgements_sent_total",
            "Acknowledgements sent to clients";
        connections_accepted = "rtcstats_connections_accepted_total",
            "Ingest connections accepted";
        connections_upgraded = "rtcstats_connections_upgraded_total",
            "Connections that became a WebSocket";
        sessions_resumed = "rtcstats_sessions_resumed_total",
            "Waiting sessions whose client came back";
        sessions_taken_over = "rtcstats_sessions_taken_over_total",
            "Open sessions that moved to a newer connection of their client";
        sessions_unjoined = "rtcstats_sessions_unjoined_total",
            "Sessions that may be the rest of another one (breakout rooms), without anything to be sure by";
        sessions_displaced = "rtcstats_sessions_displaced_total",
            "Idle sessions finished because a limit on open sessions left no room for a new one";
        orphans_recovered = "rtcstats_orphans_recovered_total",
            "Dumps of an earlier run that were found at start and taken up again";
        dump_write_errors = "rtcstats_dump_write_errors_total",
            "Appends to a dump that failed";
        dump_sync_errors = "rtcstats_dump_sync_errors_total",
            "Dumps that ended because they could not be synced (dump.durability = power)";
        dumps_removed = "rtcstats_dumps_removed_total",
            "Dumps in progress that somebody removed or replaced, so that what was in them is lost";
        accept_errors = "rtcstats_accept_errors_total",
            "Connections that could not be accepted";
        stale_events = "rtcstats_stale_events_total",
            "Readiness events for connections that were gone already";
        pings_sent = "rtcstats_pings_sent_total",
            "Pings sent to silent peers";
        pings_received = "rtcstats_pings_received_total",
            "Pings received from peers";
        pongs_received = "rtcstats_pongs_received_total",
            "Pongs received from peers";
    }
    by label {
        messages: MessageKind, "type" = "rtcstats_messages_received_total",
            "Complete WebSocket messages received, by type";
        requests_refused: RequestFault, "reason" = "rtcstats_requests_refused_total",
            "Requests inside messages that were not taken, by reason";
        connections_refused: Refusal, "reason" = "rtcstats_connections_refused_total",
            "Connections that did not become a WebSocket, by reason";
        connections_closed: CloseReason, "reason" = "rtcstats_connections_closed_total",
            "WebSocket connections that ended, by reason";
        sessions_joined: JoinedBy, "by" = "rtcstats_sessions_joined_total",
            "Sessions whose client came back under a new id (breakout rooms), by how that was known";
        waiting_finished: WaitingEnd, "reason" = "rtcstats_waiting_sessions_finished_total",
            "Waiting sessions that were finished without their client, by reason";
    }
}

impl Tally {
    /// Counts one well-formed request (keepalives included) by the size of its JSON text.
    pub fn request_received(&mut self, size_bytes: usize) {
        self.request_sizes.add(size_bytes);
    }

    /// Ended connections that count in `rtcstats_websocket_connection_error`.
    fn connection_errors(&self) -> u64 {
        let errors = CloseReason::ALL.iter().filter(|reason| reason.is_error());
        errors.map(|reason| self.connections_closed.of(*reason)).sum()
    }
}

/// All metrics of the process; shared by `Arc` between the loop, the workers and the metrics thread.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    tally: TallyCounters,
    connection_errors: IntCounter,
    gauges: LoopGauges,
    turn: Histogram,
    append: Histogram,
    request_sizes: SharedSummary,
    jobs: JobMetrics,
    archive: ArchiveMetrics,
    queue: QueueSize,
    /// Every summary with a window, to be moved on before a scrape.
    windows: Vec<SharedSummary>,
}

/// The metrics cannot be set up or shown.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// A name or label is invalid or taken twice: a defect of the tables in this file.
    #[error("metric family cannot be registered")]
    Register(#[source] prometheus::Error),
    /// The families cannot be written as text.
    #[error("metrics cannot be encoded")]
    Encode(#[source] prometheus::Error),
}

impl Metrics {
    /// Registers every family at zero. Windows begin at `now`; `created` is the wall clock of the same
    /// moment.
    ///
    /// # Errors
    /// [`MetricsError::Register`] when the tables in this module contradict each other.
    pub fn new(now: Moment, created: SystemTime) -> Result<Self, MetricsError> {
        Self::register(now, created).map_err(MetricsError::Register)
    }

    fn register(now: Moment, created: SystemTime) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let r = &registry;
        Process::register(r, created)?;
        let build = Opts::new("rtcstats_build_info", "Version of the running server; the value is always 1");
        let build = IntGauge::with_opts(build.const_label("version", env!("CARGO_PKG_VERSION")))?;
        build.set(1);
        r.register(Box::new(build))?;

        let queue =
            QueueSize::register(r, "rtcstats_queue_size", "Number of dumps currently queued for processing")?;
        let request_sizes =
            windowed(r, now)("rtcstats_requests_size_bytes", "Summary for inbound request size in bytes")?;
        let jobs = JobMetrics::register(r, now)?;
        Ok(Self {
            tally: TallyCounters::register(r)?,
            connection_errors: counter(
                r,
                "rtcstats_websocket_connection_error",
                "number of open websocket connections that failed with an error",
            )?,
            gauges: LoopGauges::register(r)?,
            turn: histogram(
                r,
                "rtcstats_loop_turn_seconds",
                "Time that the event loop worked between two polls",
                TURN_BUCKETS_S,
            )?,
            append: histogram(
                r,
                "rtcstats_dump_append_seconds",
                "Time that an append to a dump file took",
                APPEND_BUCKETS_S,
            )?,
            windows: jobs.windows().cloned().chain([request_sizes.clone()]).collect(),
            request_sizes,
            jobs,
            archive: ArchiveMetrics::register(r)?,
            queue,
            registry,
        })
    }

    /// Adds everything that the loop has counted, and zeroes the tally. Once a turn. Never waits: request
    /// sizes stay in the tally for the next turn while a scrape reads their summary.
    pub fn publish(&self, tally: &mut Tally, now: Moment) {
        let mut errors = tally.connection_errors();
        take(&self.connection_errors, &mut errors);
        self.tally.take(tally);
        let sizes = &mut tally.request_sizes;
        if sizes.count > 0 {
            let sampled = sizes.sampled.iter().map(|size| f64::from(*size));
            if self.request_sizes.try_observe_batch(sampled, as_f64(sizes.bytes), sizes.count, now) {
                sizes.clear();
            }
        }
    }

    /// Shows the state of the loop. Once a turn, or less often for what is dear to find out.
    pub fn set(&self, gauges: &Gauges) {
        self.gauges.set(gauges);
        self.queue.publish(gauges.jobs_queued);
    }

    /// How long the loop worked between two polls.
    pub fn observe_turn(&self, took: Duration) {
        self.turn.observe(took.as_secs_f64());
    }

    /// How long an append took.
    pub fn observe_append(&self, took: Duration) {
        self.append.observe(took.as_secs_f64());
    }

    /// From now on `rtcstats_queue_size` is what `length` says at the scrape; it is called on the metrics
    /// thread and must not block. Until this is called the last [`Gauges::jobs_queued`] is shown.
    pub fn read_queue_size_from(&self, length: impl Fn() -> usize + Send + Sync + 'static) {
        self.queue.read_from(Box::new(length));
    }

    /// A worker has finished a dump.
    pub fn job_done(&self, report: &JobReport, now: Moment) {
        self.jobs.done(report, now);
    }

    /// Storing a dump failed; its job will be tried again.
    pub fn storage_error(&self) {
        self.jobs.storage_errors.inc();
    }

    /// A dump whose job died twice went to quarantine; it counts as a file with errors, too.
    pub fn quarantined(&self) {
        self.jobs.quarantined.inc();
        self.jobs.count_error();
    }

    /// The archive was looked at: our files in it have so many bytes.
    pub fn archive_measured(&self, bytes: u64) {
        self.archive.measured(bytes);
    }

    /// A worker has added so many bytes to the archive.
    pub fn archive_grew(&self, bytes: u64) {
        self.archive.grew(bytes);
    }

    /// Files were removed from the archive.
    pub fn archive_removed(&self, reason: RemovalReason, files: u64, bytes: u64) {
        self.archive.removed(reason, files, bytes);
    }

    /// Something in the archive could not be looked at or removed.
    pub fn archive_removal_failed(&self) {
        self.archive.failed();
    }

    /// Whether days that are too old are kept because the clock is doubted.
    pub fn archive_clock_doubted(&self, is_doubted: bool) {
        self.archive.clock_doubted(is_doubted);
    }

    /// All families in the Prometheus text format 0.0.4, sorted by name, with windows as they stand at `now`.
    ///
    /// # Errors
    /// [`MetricsError::Encode`] when the text encoder refuses a family.
    pub fn render(&self, now: Moment) -> Result<String, MetricsError> {
        self.windows.iter().for_each(|summary| summary.advance(now));
        TextEncoder::new().encode_to_string(&self.registry.gather()).map_err(MetricsError::Encode)
    }
}

/// What workers record.
#[derive(Debug)]
struct JobMetrics {
    processed: IntCounter,
    /// Two names of one fact, always equal: what the README of the reference says, and what its code exports.
    errored: [IntCounter; 2],
    storage_errors: IntCounter,
    quarantined: IntCounter,
    /// In seconds. (The reference declares this one and never observes it, so no unit was ever in use.)
    processing_time: SharedSummary,
    dump_size: SharedSummary,
    /// One per client type, without a window.
    dump_size_by_client: Vec<(ClientType, SharedSummary)>,
    stats_size: SharedSummary,
    sdp_size: SharedSummary,
    ds_size: SharedSummary,
    sentiment_size: SharedSummary,
    other_size: SharedSummary,
    session_duration_ms: SharedSummary,
    total_bytes: SharedSummary,
    total_count: SharedSummary,
}

impl JobMetrics {
    fn register(r: &Registry, now: Moment) -> prometheus::Result<Self> {
        let summary = windowed(r, now);
        let errored = "number of files with errors during processing";
        let by_client = |client: ClientType| {
            let (name, kind) = client_dump_size(client);
            let help = format!("Size of processed dumps sent by {kind} clients");
            Ok((client, SharedSummary::lifetime(r, (name, &help), LIFETIME_QUANTILES)?))
        };
        Ok(Self {
            processed: counter(r, "rtcstats_files_processed", "number of files processed")?,
            errored: [
                counter(r, "rtcstats_files_errored", errored)?,
                counter(r, "rtcstats_process_error_count", errored)?,
            ],
            storage_errors: counter(
                r,
                "rtcstats_storage_error_count",
                "number of failed dump storage attempts",
            )?,
            quarantined: counter(
                r,
                "rtcstats_dumps_quarantined_total",
                "Dumps put aside because processing them died twice",
            )?,
            processing_time: summary("rtcstats_processing_time", "Processing time for a request")?,
            dump_size: summary("rtcstats_dump_size", "Size of processed rtcstats dumps")?,
            dump_size_by_client: ClientType::ALL
                .into_iter()
                .map(by_client)
                .collect::<prometheus::Result<_>>()?,
            stats_size: summary(
                "rtcstats_stats_request_size_bytes",
                "Summary for inbound stats request size in bytes",
            )?,
            sdp_size: summary(
                "rtcstats_sdp_request_size_bytes",
                "Summary for inbound sdp request size in bytes",
            )?,
            ds_size: summary(
                "rtcstats_ds_request_size_bytes",
                "Summary for inbound dominant speaker request size in bytes",
            )?,
            sentiment_size: summary(
                "rtcstats_sentiment_request_size_bytes",
                "Summary for inbound sentiment request size in bytes",
            )?,
            other_size: summary(
                "rtcstats_other_request_size_bytes",
                "Summary for inbound other request size in bytes",
            )?,
            session_duration_ms: summary(
                "rtcstats_session_duration_ms",
                "Summary for session duration in ms",
            )?,
            total_bytes: summary(
                "rtcstats_total_processed_bytes",
                "Bytes per dump that feature extraction has counted",
            )?,
            total_count: summary(
                "rtcstats_total_processed_count",
                "Entries per dump that feature extraction has counted",
            )?,
        })
    }

    fn done(&self, report: &JobReport, now: Moment) {
        if report.errored {
            self.count_error();
        } else {
            self.processed.inc();
        }
        let dump_bytes = as_f64(report.dump_bytes);
        self.processing_time.observe(report.processing.as_secs_f64(), now);
        self.dump_size.observe(dump_bytes, now);
        for (client, summary) in &self.dump_size_by_client {
            if *client == report.client_type {
                summary.observe(dump_bytes, now);
            }
        }
        let Some(features) = &report.features else { return };
        self.stats_size.observe(as_f64(features.stats_request_bytes), now);
        self.sdp_size.observe(as_f64(features.sdp_request_bytes), now);
        self.ds_size.observe(as_f64(features.ds_request_bytes), now);
        self.sentiment_size.observe(as_f64(features.sentiment_request_bytes), now);
        self.other_size.observe(as_f64(features.other_request_bytes), now);
        self.session_duration_ms.observe(features.session_duration_ms, now);
        self.total_bytes.observe(as_f64(features.total_processed_bytes), now);
        self.total_count.observe(as_f64(features.total_processed_count), now);
    }

    fn count_error(&self) {
        self.errored.iter().for_each(IntCounter::inc);
    }

    fn windows(&self) -> impl Iterator<Item = &SharedSummary> {
        [
            &self.processing_time,
            &self.dump_size,
            &self.stats_size,
            &self.sdp_size,
            &self.ds_size,
            &self.sentiment_size,
            &self.other_size,
            &self.session_duration_ms,
            &self.total_bytes,
            &self.total_count,
        ]
        .into_iter()
    }
}

/// Name of the family of dump sizes of this client type, and the word for it in the help text.
fn client_dump_size(client: ClientType) -> (&'static str, &'static str) {
    match client {
        ClientType::Rtcstats => ("rtcstats_dump_size_bytes", "rtcstats"),
        ClientType::Jvb => ("jvb_dump_size_bytes", "jvb"),
        ClientType::Jicofo => ("jicofo_dump_size_bytes", "jicofo"),
        ClientType::Jibri => ("jibri_dump_size_bytes", "jibri"),
        ClientType::Jigasi => ("jigasi_dump_size_bytes", "jigasi"),
        ClientType::Unsupported => ("unknown_dump_size_bytes", "unknown"),
    }
}

/// The registered gauges behind [`Gauges`].
#[derive(Debug)]
struct LoopGauges {
    connections: IntGauge,
    disk_queue_size: IntGauge,
    /// In the order of [`SessionState::ALL`].
    sessions: Vec<(SessionState, IntGauge)>,
    oldest_pending: prometheus::Gauge,
    free_bytes: IntGauge,
    incomplete_bytes: IntGauge,
    open_dump_files: IntGauge,
}

impl LoopGauges {
    fn register(r: &Registry) -> prometheus::Result<Self> {
        let oldest_pending = prometheus::Gauge::new(
            "rtcstats_oldest_pending_dump_seconds",
            "Age of the oldest finished dump that is not yet processed, 0 when there is none",
        )?;
        r.register(Box::new(oldest_pending.clone()))?;
        let sessions = Opts::new("rtcstats_sessions", "Sessions on their way to the archive, by state");
        let sessions = IntGaugeVec::new(sessions, &["state"])?;
        r.register(Box::new(sessions.clone()))?;
        let sessions =
            SessionState::ALL.iter().map(|state| (*state, sessions.with_label_values(&[state.label()])));
        Ok(Self {
            connections: gauge(r, "rtcstats_websocket_connections", "number of open websocket connections")?,
            disk_queue_size: gauge(r, "rtcstats_disk_queue_size", "Size occupied on disk by queued dumps")?,
            sessions: sessions.collect(),
            oldest_pending,
            free_bytes: gauge(
                r,
                "rtcstats_dump_filesystem_free_bytes",
                "Bytes that the file system of the dump folder has left",
            )?,
            incomplete_bytes: gauge(
                r,
                "rtcstats_incomplete_message_bytes",
                "Bytes held in memory for incomplete messages",
            )?,
            open_dump_files: gauge(r, "rtcstats_open_dump_files", "Dump files that are held open")?,
        })
    }

    fn set(&self, gauges: &Gauges) {
        self.connections.set(as_i64(gauges.connections));
        self.disk_queue_size.set(as_i64(gauges.dump_bytes_on_disk));
        for (state, gauge) in &self.sessions {
            gauge.set(as_i64(match state {
                SessionState::Open => gauges.sessions_open,
                SessionState::Waiting => gauges.sessions_waiting,
                SessionState::Queued => gauges.jobs_queued,
                SessionState::InWork => gauges.jobs_in_work,
            }));
        }
        self.oldest_pending.set(gauges.oldest_pending.as_secs_f64());
        self.free_bytes.set(as_i64(gauges.free_bytes));
        self.incomplete_bytes.set(as_i64(gauges.incomplete_bytes));
        self.open_dump_files.set(as_i64(gauges.open_dump_files));
    }
}

/// Makes summaries with the window and the quantiles of the contract.
fn windowed(r: &Registry, now: Moment) -> impl Fn(&str, &str) -> prometheus::Result<SharedSummary> {
    move |name, help| SharedSummary::windowed(r, (name, help), WINDOW_QUANTILES, WINDOW, now)
}
