//! What the keeper of the archive and the workers tell of it.

use prometheus::{IntCounter, IntGauge, Registry};

use crate::metrics::families::{as_i64, counter, counters_by, gauge};
use crate::metrics::tally::Label;
use crate::reasons::RemovalReason;

/// The families of the archive.
#[derive(Debug)]
pub(super) struct ArchiveMetrics {
    bytes: IntGauge,
    /// In the order of [`RemovalReason::ALL`].
    removed_files: Vec<IntCounter>,
    removed_bytes: Vec<IntCounter>,
    errors: IntCounter,
    clock_doubted: IntGauge,
}

impl ArchiveMetrics {
    pub(super) fn register(r: &Registry) -> prometheus::Result<Self> {
        let by_reason = |name, help| counters_by::<RemovalReason>(r, name, help, "reason");
        Ok(Self {
            bytes: gauge(
                r,
                "rtcstats_archive_bytes",
                "Bytes of our files in the archive: what was last measured, and what was archived since",
            )?,
            removed_files: by_reason(
                "rtcstats_archive_removed_files_total",
                "Files removed from the archive because of a limit, by reason",
            )?,
            removed_bytes: by_reason(
                "rtcstats_archive_removed_bytes_total",
                "Bytes of the files removed from the archive, by reason",
            )?,
            errors: counter(
                r,
                "rtcstats_archive_removal_errors_total",
                "Things in the archive that could not be looked at or removed",
            )?,
            clock_doubted: gauge(
                r,
                "rtcstats_archive_clock_doubted",
                "1 while days that are too old are kept because the date may be wrong",
            )?,
        })
    }

    pub(super) fn measured(&self, bytes: u64) {
        self.bytes.set(as_i64(bytes));
    }

    pub(super) fn grew(&self, bytes: u64) {
        self.bytes.add(as_i64(bytes));
    }

    pub(super) fn removed(&self, reason: RemovalReason, files: u64, bytes: u64) {
        for (counters, count) in [(&self.removed_files, files), (&self.removed_bytes, bytes)] {
            if let Some(counter) = counters.get(reason.index()) {
                counter.inc_by(count);
            }
        }
    }

    pub(super) fn failed(&self) {
        self.errors.inc();
    }

    pub(super) fn clock_doubted(&self, is_doubted: bool) {
        self.clock_doubted.set(i64::from(is_doubted));
    }
}
