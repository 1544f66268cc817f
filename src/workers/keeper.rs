//! The thread that keeps the archive within its limits.
//!
//! Owns when that is done, how fast, and what is told of it. At the start, every hour, and whenever the archive may have
//! outgrown `archive.max_bytes`, it looks at the days, measures those that have changed, and removes what `retention`
//! says. What could not be removed is tried again after some minutes, never at once. It works beside the jobs, not in
//! their place: after each small step it rests for as long as the step took, so the disk is theirs half of the time at
//! least. Never reads a file.
//! Rules: ours; our contract, section 3, on what is left alone.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{Level, error, info, warn};

use super::Shared;
use crate::archive::ArchiveError;
use crate::archive::contents::{Attendant, Contents, Freed, Stamp};
use crate::archive::day::Day;
use crate::archive::retention::{self, Belief, ClockWatch, Limits, Removal};
use crate::limited;
use crate::logging::{RateLimit, chain, value};
use crate::metrics::Metrics;
use crate::reasons::RemovalReason;

/// Rhythm of looking at the archive when nothing makes it urgent: a day is over once a day.
const INTERVAL: Duration = Duration::from_secs(3600);
/// After something could not be removed.
const RETRY: Duration = Duration::from_secs(300);
/// Shortest rest between two looks, however fast the archive grows.
const REST_MIN: Duration = Duration::from_secs(1);
/// The same, as a multiple of what the last look took.
const REST_FACTOR: u32 = 20;
/// Things that are looked at or removed in one step. Removing one usually takes 10 to 100 us.
const STEP: u32 = 128;
/// Longest rest after a step: one huge file must not stop us for long.
const STEP_REST_MAX: Duration = Duration::from_millis(200);
/// A day in which nothing was changed for so long is not measured again until something is. Until then rows may follow
/// dumps, which changes a file and not the folder.
const SETTLED: Duration = Duration::from_secs(3600);
/// The archive is looked at again at the latest when it has grown by this share of what it may have.
const SLACK_DIVISOR: u64 = 100;
/// Lines in an hour about an archive that is cut, or cannot be cut enough: it may be so whenever it grows.
const CUTS_TOLD_MAX: u32 = 10;
/// Things that are not ours which are told, each once.
const FOREIGN_TOLD_MAX: usize = 100;

/// What the workers tell the keeper, and the loop.
#[derive(Debug)]
pub(super) struct Upkeep {
    limits: Mutex<Limits>,
    /// Bytes that were archived since the keeper last began to look.
    grown_bytes: AtomicU64,
    /// How much it may be before the keeper has to look again.
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

    fn limits(&self) -> Limits {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    watch: ClockWatch,
    /// The days as they were measured last.
    sizes: BTreeMap<Day, Measured>,
    rounds: Rounds,
    cuts: RateLimit,
    excesses: RateLimit,
}

/// What a day was found to hold.
#[derive(Debug, Clone, Copy)]
struct Measured {
    bytes: u64,
    /// The folder's time at that time; `None` when it is to be measured again in any case.
    settled: Option<SystemTime>,
}

/// How a look at the archive ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Good,
    /// Something failed.
    Flawed,
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let (wall, now) = clocks();
        let watch = ClockWatch::new(shared.upkeep.last_heartbeat, wall);
        let rounds = Rounds::new(Arc::clone(&shared), now);
        let lines = RateLimit::new(CUTS_TOLD_MAX, INTERVAL);
        Self { shared, watch, sizes: BTreeMap::new(), rounds, cuts: lines.clone(), excesses: lines }
    }

    /// Works until the workers are stopped.
    pub(super) fn run(mut self) {
        while !self.shared.is_stopping() {
            let begun = clocks().1;
            let look = self.look();
            let took = clocks().1.duration_since(begun);
            let rest = REST_MIN.max(took * REST_FACTOR);
            let pause = match look {
                Look::Good => INTERVAL,
                Look::Flawed => RETRY,
            };
            self.wait(rest, pause.max(rest));
        }
    }

    /// Waits until somebody rings, but not less than `shortest`, and at most `longest`.
    fn wait(&self, shortest: Duration, longest: Duration) {
        let begun = clocks().1;
        let mut has_rung = false;
        while !self.shared.is_stopping() {
            let goal = if has_rung { shortest } else { longest };
            let left = goal.saturating_sub(clocks().1.duration_since(begun));
            if left.is_zero() {
                return;
            }
            has_rung |= self.shared.upkeep.bell.1.recv_timeout(left).is_ok();
        }
    }

    /// Looks at the archive once and removes what has to go.
    fn look(&mut self) -> Look {
        self.rounds.begin(clocks().1);
        let shared = Arc::clone(&self.shared);
        shared.upkeep.grown_bytes.store(0, Ordering::Relaxed);
        match shared.archive.contents() {
            Ok(Some(contents)) => self.keep(&contents),
            Ok(None) => self.show(0),
            Err(error) => self.rounds.failed(error),
        }
        self.rounds.end()
    }

    fn keep(&mut self, contents: &Contents<'_>) {
        let limits = self.shared.upkeep.limits();
        let mut days = match contents.days(&mut self.rounds) {
            Ok(days) => days,
            Err(error) => return self.rounds.failed(error),
        };
        let wall = clocks().0;
        for day in self.expired(&days, limits.max_age_days, wall) {
            if self.remove_day(contents, day, RemovalReason::Age) {
                days.remove(&day);
            }
        }
        self.sizes.retain(|day, _| days.contains_key(day));
        for (day, stamp) in days {
            self.measure(contents, day, stamp, wall);
        }
        let sizes = self.sizes.iter().map(|(day, measured)| (*day, measured.bytes)).collect();
        for removal in retention::surplus(&sizes, Day::of_time(wall), limits.max_bytes) {
            match removal {
                Removal::Whole(day) => drop(self.remove_day(contents, day, RemovalReason::Size)),
                Removal::Oldest { day, bytes } => self.remove_oldest(contents, day, bytes),
            }
        }
        if self.shared.is_stopping() {
            return;
        }
        let bytes = self.sizes.values().map(|measured| measured.bytes).sum();
        self.show(bytes);
        let headroom = match limits.max_bytes {
            0 => u64::MAX,
            max => max.saturating_sub(bytes).max(max / SLACK_DIVISOR),
        };
        if headroom < u64::MAX && bytes > limits.max_bytes {
            let (bytes_max, now) = (limits.max_bytes, clocks().1);
            limited!(
                self.excesses,
                now,
                Level::Warn,
                "archive.over bytes={bytes} bytes_max={bytes_max}: the rest is in use, or cannot be removed"
            );
        }
        self.shared.upkeep.headroom_bytes.store(headroom, Ordering::Relaxed);
    }

    /// What was archived while this was found out may be in both parts of the sum; the next look puts that right.
    fn show(&self, bytes: u64) {
        let grown = self.shared.upkeep.grown_bytes.load(Ordering::Relaxed);
        self.shared.metrics.archive_measured(bytes.saturating_add(grown));
    }

    /// The days that are too old, oldest first, if the clock can be believed.
    fn expired(&mut self, days: &BTreeMap<Day, Stamp>, max_age_days: u32, wall: SystemTime) -> Vec<Day> {
        let today = Day::of_time(wall);
        let expired: Vec<Day> =
            days.keys().copied().filter(|day| retention::is_expired(*day, today, max_age_days)).collect();
        // Asked also when nothing is too old: the watch wants to see the clock move.
        let changes = days.values().map(|stamp| stamp.changed);
        match self.watch.judge(changes, max_age_days, wall, clocks().1) {
            Belief::Doubted { after, rest } if !expired.is_empty() => {
                let (days, after, hold_s) = (expired.len(), Day::of_time(after), rest.as_secs());
                error!(
                    "archive.clock today={today} nothing_known_since={after} hold_s={hold_s} days={days}: they are kept \
                     until then; stop the server if the date is wrong"
                );
                Vec::new()
            }
            Belief::Believed | Belief::Doubted { .. } => expired,
        }
    }

    fn measure(&mut self, contents: &Contents<'_>, day: Day, stamp: Stamp, wall: SystemTime) {
        let known = self.sizes.get(&day).and_then(|measured| measured.settled);
        if known == Some(stamp.modified) || self.shared.is_stopping() {
            return;
        }
        match contents.measure(day, &mut self.rounds) {
            Ok(Some(bytes)) => {
                let is_settled = wall.duration_since(stamp.modified).is_ok_and(|age| age > SETTLED);
                let settled = is_settled.then_some(stamp.modified);
                self.sizes.insert(day, Measured { bytes, settled });
            }
            // What was known before is better than a part.
            Ok(None) => {}
            Err(error) => self.rounds.failed(error),
        }
    }

    /// Removes a day. `true` when its folder is gone.
    fn remove_day(&mut self, contents: &Contents<'_>, day: Day, reason: RemovalReason) -> bool {
        let mut freed = Freed::default();
        let shared = Arc::clone(&self.shared);
        let removed =
            contents.remove_day(day, &mut freed, || shared.records.forget_day(day), &mut self.rounds);
        let is_gone = removed.unwrap_or_else(|error| {
            self.rounds.failed(error);
            false
        });
        self.account(day, freed, reason);
        if is_gone {
            self.sizes.remove(&day);
        }
        if is_gone || freed != Freed::default() {
            let Freed { files, bytes } = freed;
            let reason = reason.label();
            info!(
                "archive.removed day={day} reason={reason} files={files} bytes={bytes} folder_gone={is_gone}"
            );
        }
        is_gone
    }

    fn remove_oldest(&mut self, contents: &Contents<'_>, day: Day, wanted: u64) {
        let mut freed = Freed::default();
        if let Err(error) = contents.remove_oldest(day, wanted, &mut freed, &mut self.rounds) {
            self.rounds.failed(error);
        }
        self.account(day, freed, RemovalReason::Size);
        let Freed { files, bytes } = freed;
        if files > 0 {
            let now = clocks().1;
            limited!(
                self.cuts,
                now,
                Level::Warn,
                "archive.cut day={day} reason=size files={files} bytes={bytes} bytes_wanted={wanted}"
            );
        }
    }

    fn account(&mut self, day: Day, freed: Freed, reason: RemovalReason) {
        self.shared.metrics.archive_removed(reason, freed.files, freed.bytes);
        if let Some(measured) = self.sizes.get_mut(&day) {
            measured.bytes = measured.bytes.saturating_sub(freed.bytes);
            measured.settled = None;
        }
    }
}

/// Goes along while the archive is looked at: sets the pace, tells what is not ours, counts what fails.
struct Rounds {
    shared: Arc<Shared>,
    /// Paths that were told; at most [`FOREIGN_TOLD_MAX`].
    told: HashSet<String>,
    /// What failed since this look began.
    failures: u64,
    /// Things done since `step_begun`.
    done: u32,
    step_begun: Instant,
}

impl Rounds {
    fn new(shared: Arc<Shared>, now: Instant) -> Self {
        Self { shared, told: HashSet::new(), failures: 0, done: 0, step_begun: now }
    }

    fn begin(&mut self, now: Instant) {
        self.failures = 0;
        self.done = 0;
        self.step_begun = now;
    }

    fn end(&self) -> Look {
        match self.failures {
            0 => Look::Good,
            failures => {
                warn!("archive.unkept failures={failures} retry_after_s={}", RETRY.as_secs());
                Look::Flawed
            }
        }
    }
}

impl Attendant for Rounds {
    fn goes_on(&mut self) -> bool {
        if self.shared.is_stopping() {
            return false;
        }
        self.done += 1;
        if self.done >= STEP {
            let took = clocks().1.duration_since(self.step_begun);
            rest(took.min(STEP_REST_MAX));
            self.done = 0;
            self.step_begun = clocks().1;
        }
        true
    }

    fn foreign(&mut self, path: &str) {
        if self.told.len() < FOREIGN_TOLD_MAX && self.told.insert(path.to_owned()) {
            warn!("archive.foreign path={}: is not ours, left alone", value(path));
        }
    }

    /// The first failure of each look is told, the others are counted.
    fn failed(&mut self, error: ArchiveError) {
        self.shared.metrics.archive_removal_failed();
        self.failures += 1;
        if self.failures == 1 {
            warn!("archive.error err={}", value(chain(&error)));
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "an edge: nobody else on this thread asks for the time")]
fn clocks() -> (SystemTime, Instant) {
    (SystemTime::now(), Instant::now())
}

#[expect(
    clippy::disallowed_methods,
    reason = "not the loop, and no wait for anybody: the disk is left to the jobs"
)]
fn rest(duration: Duration) {
    std::thread::sleep(duration);
}
