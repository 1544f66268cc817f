//! What the other parts tell the metrics, and the label sets that are not theirs: plain data.

use std::time::Duration;

use crate::client::ClientType;
use crate::metrics::tally::Label;
use crate::reasons::{CloseReason, JoinedBy, Refusal, RemovalReason, RequestFault, labelled};

/// State of the loop, read from the truth once a turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Upgraded WebSocket connections.
    pub connections: u64,
    /// Sessions that take entries.
    pub sessions_open: u64,
    /// Sessions that wait for their client to come back.
    pub sessions_waiting: u64,
    /// Finished dumps that no worker has taken yet.
    pub jobs_queued: u64,
    /// Dumps that a worker has in hand.
    pub jobs_in_work: u64,
    /// Bytes of all files in the dump folder: open, waiting, finished and in work.
    pub dump_bytes_on_disk: u64,
    /// Age of the oldest finished dump that is not yet processed; zero when there is none.
    pub oldest_pending: Duration,
    /// Bytes that the dump file system has left for us.
    pub free_bytes: u64,
    /// Bytes held for incomplete messages of all connections.
    pub incomplete_bytes: u64,
    /// Dump files that are held open.
    pub open_dump_files: u64,
}

/// What a worker says about a dump it has finished, well or not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JobReport {
    /// Who wrote the dump.
    pub client_type: ClientType,
    /// Size of the dump, uncompressed.
    pub dump_bytes: u64,
    /// Time from taking the job to its last step.
    pub processing: Duration,
    /// Whether the dump had problems.
    pub errored: bool,
    /// Totals of the extraction; the reference observes them for clients of type RTCSTATS alone.
    pub features: Option<FeatureMetrics>,
}

/// The part of the features that the summaries are made of: the block `metrics` of a result document.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct FeatureMetrics {
    /// `statsRequestBytes`
    pub stats_request_bytes: u64,
    /// `sdpRequestBytes`
    pub sdp_request_bytes: u64,
    /// `dsRequestBytes`
    pub ds_request_bytes: u64,
    /// `sentimentRequestBytes`
    pub sentiment_request_bytes: u64,
    /// `otherRequestBytes`
    pub other_request_bytes: u64,
    /// `sessionDurationMs`
    pub session_duration_ms: f64,
    /// `totalProcessedBytes`
    pub total_processed_bytes: u64,
    /// `totalProcessedCount`
    pub total_processed_count: u64,
}

labelled! {
    /// Kind of a complete WebSocket message.
    MessageKind {
        /// UTF-8 text.
        Text => "text",
        /// Bytes.
        Binary => "binary",
    }
}

labelled! {
    /// Where a session is on its way from the first entry to the archive.
    SessionState {
        /// It takes entries.
        Open => "open",
        /// Its client is gone and may come back.
        Waiting => "waiting",
        /// Finished; no worker has taken it yet.
        Queued => "queued",
        /// A worker has it in hand.
        InWork => "in_work",
    }
}

labelled! {
    /// Why a session that waited for its client was finished without it.
    WaitingEnd {
        /// The client did not come back in time.
        Expired => "expired",
        /// Too many sessions waited; the oldest was finished early.
        TooMany => "too_many",
    }
}

/// Connects the inherent list and word of an enum with [`Label`].
macro_rules! impl_label {
    ($($name:ty),+) => {
        $(impl Label for $name {
            const ALL: &'static [Self] = <$name>::ALL;

            fn label(self) -> &'static str {
                <$name>::label(self)
            }

            fn index(self) -> usize {
                self as usize
            }
        })+
    };
}

impl_label!(
    CloseReason,
    JoinedBy,
    Refusal,
    RemovalReason,
    RequestFault,
    MessageKind,
    SessionState,
    WaitingEnd
);
