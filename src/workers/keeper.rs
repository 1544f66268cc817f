//! The thread that keeps the archive within its limits.
//!
//! Owns that it is done, at which pace, and what is told of it; `retention` says when and what. Each look measures the
//! days that have changed and removes what has to go. It works beside the jobs, not in their place: after a few
//! milliseconds of work it rests for as long, but for one slow call it does not rest longer than [`STEP_REST_MAX`]. A look
//! that panics is a look that failed. Never reads a file.
//! Rules: ours; our contract, section 3, on what is left alone.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use log::{Level, info, warn};

use super::Shared;
use crate::archive::ArchiveError;
use crate::archive::contents::{Attendant, Contents, Freed, Stamp};
use crate::archive::day::Day;
use crate::archive::retention::{self, Belief, ClockWatch, Limits, Pause, Removal};
use crate::limited;
use crate::logging::{RateLimit, chain, value};
use crate::moment::Moment;
use crate::reasons::RemovalReason;

/// Work between two rests: removing a file usually takes 10 to 100 us.
const STEP: Duration = Duration::from_millis(5);
/// Longest rest after a step: one huge file must not stop us for long.
const STEP_REST_MAX: Duration = Duration::from_millis(200);
/// A day in which nothing was changed for so long is not measured again until something is. Until then rows may follow
/// dumps, which changes a file and not the folder.
const SETTLED: Duration = Duration::from_secs(3600);
/// Lines of a kind in an hour: each may be due at every look.
const LINES: RateLimit = RateLimit::new(10, Duration::from_secs(3600));
/// Things that are not ours which are told, each once.
const FOREIGN_TOLD_MAX: usize = 100;

/// The thread.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    watch: ClockWatch,
    /// The days as they were measured last.
    sizes: BTreeMap<Day, Measured>,
    rounds: Rounds,
    cuts: RateLimit,
    excesses: RateLimit,
    doubts: RateLimit,
}

/// What a day was found to hold.
#[derive(Debug, Clone, Copy)]
struct Measured {
    bytes: u64,
    /// The folder's time at that time; `None` when it is to be measured again in any case.
    settled: Option<SystemTime>,
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let (wall, now) = clocks();
        let watch = ClockWatch::new(shared.upkeep.last_heartbeat(), wall);
        let rounds = Rounds::new(Arc::clone(&shared), now);
        Self { shared, watch, sizes: BTreeMap::new(), rounds, cuts: LINES, excesses: LINES, doubts: LINES }
    }

    /// Works until the workers are stopped.
    pub(super) fn run(mut self) {
        while !self.shared.is_stopping() {
            let begun = clocks().1;
            let is_flawed = self.look(Self::keep);
            let took = clocks().1.saturating_duration_since(begun);
            self.wait(retention::pause(took, is_flawed));
        }
    }

    /// Waits until somebody rings, within the bounds of `pause`.
    fn wait(&self, pause: Pause) {
        let begun = clocks().1;
        let mut has_rung = false;
        while !self.shared.is_stopping() {
            let goal = if has_rung { pause.least } else { pause.most };
            let left = goal.saturating_sub(clocks().1.saturating_duration_since(begun));
            if left.is_zero() {
                return;
            }
            has_rung |= self.shared.upkeep.listen(left);
        }
    }

    /// Has the archive kept once by `keep`. `true` when something failed.
    pub(super) fn look(&mut self, keep: impl FnOnce(&mut Self, Limits) -> Result<(), ArchiveError>) -> bool {
        self.rounds.begin(clocks().1);
        let limits = self.shared.upkeep.begin();
        // A panic leaves at worst a day measured too high or too low; that it is flawed brings the next look soon.
        match catch_unwind(AssertUnwindSafe(|| keep(self, limits))) {
            Ok(Ok(())) => self.show(limits.max_bytes),
            Ok(Err(error)) => self.rounds.failed(error),
            Err(_) => self.rounds.fault("looking at the archive panicked"),
        }
        let is_flawed = self.rounds.end();
        self.shared.upkeep.allow(retention::headroom(self.bytes(), limits.max_bytes, is_flawed));
        is_flawed
    }

    /// Looks at the archive and removes what has to go.
    pub(super) fn keep(&mut self, limits: Limits) -> Result<(), ArchiveError> {
        let shared = Arc::clone(&self.shared);
        let Some(contents) = shared.archive.contents()? else {
            self.sizes.clear();
            return Ok(());
        };
        let mut days = contents.days(&mut self.rounds)?;
        let wall = clocks().0;
        for day in self.expired(&days, limits.max_age_days, wall) {
            if self.remove_day(&contents, day, RemovalReason::Age) {
                days.remove(&day);
            }
        }
        self.sizes.retain(|day, _| days.contains_key(day));
        for (day, stamp) in days {
            self.measure(&contents, day, stamp, wall);
        }
        let sizes = self.sizes.iter().map(|(day, measured)| (*day, measured.bytes)).collect();
        for removal in retention::surplus(&sizes, Day::of_time(wall), limits.max_bytes) {
            self.remove(&contents, removal);
        }
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.sizes.values().map(|measured| measured.bytes).sum()
    }

    /// What was archived while this was found out may be in both parts of the sum; the next look puts that right.
    fn show(&mut self, bytes_max: u64) {
        if self.shared.is_stopping() {
            return;
        }
        let bytes = self.bytes();
        let grown = self.shared.upkeep.grown_bytes();
        self.shared.metrics.archive_measured(bytes.saturating_add(grown));
        if bytes_max > 0 && bytes > bytes_max {
            let now = clocks().1;
            limited!(
                self.excesses,
                now,
                Level::Warn,
                "archive.over bytes={bytes} bytes_max={bytes_max}: the rest is in use, or cannot be removed"
            );
        }
    }

    /// The days that are too old, oldest first, if the clock can be believed.
    fn expired(&mut self, days: &BTreeMap<Day, Stamp>, max_age_days: u32, wall: SystemTime) -> Vec<Day> {
        let today = Day::of_time(wall);
        let expired: Vec<Day> =
            days.keys().copied().filter(|day| retention::is_expired(*day, today, max_age_days)).collect();
        // Asked also when nothing is too old: the watch wants to see the clock move.
        let changes = days.values().map(|stamp| stamp.changed);
        let belief = self.watch.judge(changes, max_age_days, wall);
        let doubt = match belief {
            Belief::Doubted { after, rest } if !expired.is_empty() => {
                Some((Day::of_time(after), rest.as_secs()))
            }
            Belief::Believed | Belief::Doubted { .. } => None,
        };
        self.shared.metrics.archive_clock_doubted(doubt.is_some());
        let Some((after, hold_s)) = doubt else { return expired };
        let (days, now) = (expired.len(), clocks().1);
        limited!(
            self.doubts,
            now,
            Level::Error,
            "archive.clock today={today} nothing_known_since={after} hold_s={hold_s} days={days}: they are kept \
             until then; stop the server if the date is wrong"
        );
        Vec::new()
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

    fn remove(&mut self, contents: &Contents<'_>, removal: Removal) {
        match removal {
            Removal::Whole(day) => {
                self.remove_day(contents, day, RemovalReason::Size);
            }
            Removal::Oldest { day, bytes, is_over } => {
                let freed_bytes = self.remove_oldest(contents, day, bytes);
                if is_over && freed_bytes < bytes {
                    self.remove_day(contents, day, RemovalReason::Size);
                }
            }
        }
    }

    /// Gives the bytes that were freed.
    fn remove_oldest(&mut self, contents: &Contents<'_>, day: Day, wanted: u64) -> u64 {
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
        bytes
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
    step_begun: Moment,
    errors: RateLimit,
    ends: RateLimit,
}

impl Rounds {
    fn new(shared: Arc<Shared>, now: Moment) -> Self {
        Self { shared, told: HashSet::new(), failures: 0, step_begun: now, errors: LINES, ends: LINES }
    }

    fn begin(&mut self, now: Moment) {
        self.failures = 0;
        self.step_begun = now;
    }

    /// Whether something has failed.
    fn end(&mut self) -> bool {
        let failures = self.failures;
        if failures > 0 {
            let (now, retry_s) = (clocks().1, retention::RETRY.as_secs());
            limited!(
                self.ends,
                now,
                Level::Warn,
                "archive.unkept failures={failures} retry_after_s={retry_s}"
            );
        }
        failures > 0
    }

    /// The first failure of each look is told, the others are counted.
    fn fault(&mut self, error: impl Display) {
        self.shared.metrics.archive_removal_failed();
        self.failures += 1;
        if self.failures == 1 {
            let now = clocks().1;
            limited!(self.errors, now, Level::Warn, "archive.error err={}", value(error));
        }
    }
}

impl Attendant for Rounds {
    fn goes_on(&mut self) -> bool {
        if self.shared.is_stopping() {
            return false;
        }
        let took = clocks().1.saturating_duration_since(self.step_begun);
        if took >= STEP {
            rest(took.min(STEP_REST_MAX));
            self.step_begun = clocks().1;
        }
        true
    }

    fn foreign(&mut self, path: &str) {
        if self.told.len() < FOREIGN_TOLD_MAX && self.told.insert(path.to_owned()) {
            warn!("archive.foreign path={}: is not ours, left alone", value(path));
        }
    }

    fn failed(&mut self, error: ArchiveError) {
        self.fault(chain(&error));
    }
}

#[expect(clippy::disallowed_methods, reason = "an edge: nobody else on this thread asks for the time")]
fn clocks() -> (SystemTime, Moment) {
    (SystemTime::now(), Moment::now())
}

#[expect(
    clippy::disallowed_methods,
    reason = "not the loop, and no wait for anybody: the disk is left to the jobs"
)]
fn rest(duration: Duration) {
    std::thread::sleep(duration);
}
