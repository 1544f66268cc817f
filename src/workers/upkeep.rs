//! What the keeper of the archive is told by the loop (limits, the end) and by the workers (growth), and its bell.
//!
//! Owns the limits as they are now, and when growth makes another look necessary. Never waits but in [`Upkeep::listen`],
//! never looks at the archive.
//! Rules: ours; `archive::retention` says how much growth may wait.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::archive::retention::Limits;
use crate::metrics::Metrics;

/// What the workers and the loop tell the keeper.
#[derive(Debug)]
pub(super) struct Upkeep {
    limits: Mutex<Limits>,
    /// Bytes that were archived since the keeper last began to look.
    grown_bytes: AtomicU64,
    /// How much it may be before the keeper has to look again. Unbounded until it has looked for the first time.
    headroom_bytes: AtomicU64,
    /// Wakes the keeper. One ring does for many.
    bell: (Sender<()>, Receiver<()>),
    /// The last sign of life of the server before.
    last_heartbeat: Option<SystemTime>,
}

impl Upkeep {
    pub(super) fn new(limits: Limits, last_heartbeat: Option<SystemTime>) -> Self {
        Self {
            limits: Mutex::new(limits),
            grown_bytes: AtomicU64::new(0),
            headroom_bytes: AtomicU64::new(u64::MAX),
            bell: bounded(1),
            last_heartbeat,
        }
    }

    /// Other limits hold from now on.
    pub(super) fn change(&self, limits: Limits) {
        let mut current = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        if *current != limits {
            *current = limits;
            self.ring();
        }
    }

    /// So many bytes were added to the archive.
    pub(super) fn grown(&self, bytes: u64, metrics: &Metrics) {
        metrics.archive_grew(bytes);
        let grown = self.grown_bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if grown > self.headroom_bytes.load(Ordering::Relaxed) {
            self.ring();
        }
    }

    /// Has the keeper look at everything: limits, size, whether it is to end.
    pub(super) fn ring(&self) {
        // A full bell rings already.
        let _ = self.bell.0.try_send(());
    }

    /// Whether dumps may go before their day does: their rows are then still there.
    pub(super) fn may_cut(&self) -> bool {
        self.limits().max_bytes > 0
    }

    /// A look begins; what is archived from now on it may not see.
    pub(super) fn begin(&self) -> Limits {
        self.grown_bytes.store(0, Ordering::Relaxed);
        self.limits()
    }

    /// A look has ended: the archive may grow by so many bytes until the next one.
    pub(super) fn allow(&self, headroom_bytes: u64) {
        self.headroom_bytes.store(headroom_bytes, Ordering::Relaxed);
        if self.grown_bytes.load(Ordering::Relaxed) > headroom_bytes {
            self.ring();
        }
    }

    /// Waits for the bell; `false` when nobody rings in time.
    pub(super) fn listen(&self, patience: Duration) -> bool {
        self.bell.1.recv_timeout(patience).is_ok()
    }

    /// Bytes that were archived since the last look began.
    pub(super) fn grown_bytes(&self) -> u64 {
        self.grown_bytes.load(Ordering::Relaxed)
    }

    /// The last sign of life of the server before.
    pub(super) fn last_heartbeat(&self) -> Option<SystemTime> {
        self.last_heartbeat
    }

    fn limits(&self) -> Limits {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::retention::headroom;
    use crate::moment::Moment;

    fn metrics() -> Metrics {
        Metrics::new(Moment::at(1 << 40), SystemTime::UNIX_EPOCH).unwrap()
    }

    /// Whether it rings after an archive of `bytes` bytes has grown by so many, while it is looked at and afterwards.
    fn rings(bytes: u64, during: u64, after: u64, is_flawed: bool) -> bool {
        let (metrics, limits) = (metrics(), Limits { max_age_days: 0, max_bytes: 1000 });
        let upkeep = Upkeep::new(limits, None);
        upkeep.grown(5000, &metrics);
        assert_eq!(upkeep.begin(), limits);
        upkeep.grown(during, &metrics);
        upkeep.allow(headroom(bytes, limits.max_bytes, is_flawed));
        upkeep.grown(after, &metrics);
        upkeep.listen(Duration::ZERO)
    }

    #[test]
    fn growth_over_the_limit_rings() {
        for (bytes, during, after, is_flawed, expected) in [
            (0, 0, 1000, false, false),
            (0, 0, 1001, false, true),
            (0, 1001, 0, false, true),
            (900, 50, 50, false, false),
            (900, 50, 51, false, true),
            (1000, 0, 0, false, false),
            (1000, 0, 1, false, true),
            (2000, 0, 10, false, false),
            (2000, 0, 11, false, true),
            (2000, 0, 5000, true, false),
        ] {
            let found = rings(bytes, during, after, is_flawed);
            assert_eq!(found, expected, "{bytes} {during} {after} {is_flawed}");
        }
    }

    #[test]
    fn other_limits_ring_and_the_same_do_not() {
        let limits = Limits { max_age_days: 3, max_bytes: 1000 };
        let upkeep = Upkeep::new(limits, None);
        upkeep.change(limits);
        assert!(!upkeep.listen(Duration::ZERO));
        upkeep.change(Limits { max_age_days: 4, ..limits });
        assert!(upkeep.listen(Duration::ZERO));
        assert_eq!(upkeep.begin().max_age_days, 4);
    }
}
