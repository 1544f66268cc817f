//! What goes from the archive, and when the clock may decide it: the decision, apart from doing it.
//!
//! Pure. Two limits, each looked at by itself: days older than `archive.max_age_days` go, and once the rest is larger
//! than `archive.max_bytes` the oldest days go until it is a hundredth below. Days go whole where that costs little more than
//! it must. The current day, the newest one, and a day of which only a part has to go lose their oldest dumps instead, so
//! that a limit that is too small for some days does not cost all of a day at once.
//!
//! The archive is looked at when a server starts, every hour, when it may have outgrown its limit, and some minutes after
//! something could not be removed.
//!
//! The age of a day is only as right as the clock. [`ClockWatch`] compares it with the times at which a server surely
//! ran: after a gap that nothing explains it withholds the date for a day, so that somebody can look. More it cannot know.
//! Rules: ours; how a day is named: our contract, section 3.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::day::Day;
use crate::config::ArchiveConfig;

/// Rhythm of looking at the archive when nothing makes it urgent: a day is over once a day.
const INTERVAL: Duration = Duration::from_secs(3600);
/// After something failed. Also the longest time that a change of the limits has to wait.
pub const RETRY: Duration = Duration::from_secs(300);
/// Shortest rest between two looks, however fast the archive grows.
const REST_MIN: Duration = Duration::from_secs(1);
/// The same, as a multiple of what the last look took.
const REST_FACTOR: u32 = 20;
/// An archive that is too large is brought this share of its limit below it, so that this is not to be done all the time.
const SLACK_DIVISOR: u64 = 100;
/// A day goes whole when that removes at most this share of the limit more than has to go.
const EXCESS_DIVISOR: u64 = 10;
/// How long after a gap a clock is not believed: time enough for somebody to see the message and stop the server.
const HOLD: Duration = Duration::from_secs(24 * 3600);
/// Gaps in what is known of the past that are never doubted, however long days are kept.
const GAP_MIN: Duration = Duration::from_secs(24 * 3600);
/// Gaps that are always doubted.
const GAP_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// Times before the present run that are remembered beside those on disk: the heartbeat of the server before, and the
/// ends of runs that a step of the clock ended.
const TIMES_MAX: usize = 8;

/// What bounds the archive; 0 is no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Days that a dump is kept after its own.
    pub max_age_days: u32,
    /// Bytes of all files of ours.
    pub max_bytes: u64,
}

impl From<&ArchiveConfig> for Limits {
    fn from(config: &ArchiveConfig) -> Self {
        Self { max_age_days: config.max_age_days, max_bytes: config.max_bytes }
    }
}

/// Something that is to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// The whole day.
    Whole(Day),
    /// The oldest dumps of a day.
    Oldest {
        /// The day.
        day: Day,
        /// How many bytes at least.
        bytes: u64,
        /// Whether the rest of the day, its tables, goes too when its dumps are not enough.
        is_over: bool,
    },
}

/// Bounds of the time between two looks at the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// Not earlier, whatever happens.
    pub least: Duration,
    /// Not later, also when nothing happens.
    pub most: Duration,
}

/// How long to wait after a look that took so long.
#[must_use]
pub fn pause(took: Duration, is_flawed: bool) -> Pause {
    let least = took.saturating_mul(REST_FACTOR).clamp(REST_MIN, RETRY);
    Pause { least, most: if is_flawed { RETRY } else { INTERVAL } }
}

/// By how much an archive of `bytes` may grow before it has to be looked at again.
#[must_use]
pub fn headroom(bytes: u64, max_bytes: u64, is_flawed: bool) -> u64 {
    if max_bytes == 0 || is_flawed {
        // What could not be removed cannot be removed a second later, either.
        return u64::MAX;
    }
    // One that is still too large holds tables in use: by and by dumps come that can go.
    max_bytes.checked_sub(bytes).unwrap_or(max_bytes / SLACK_DIVISOR)
}

/// Whether everything of `day` is older than may be kept: a dump of its last second has had all its days.
#[must_use]
pub fn is_expired(day: Day, today: Day, max_age_days: u32) -> bool {
    max_age_days > 0 && today.days_since(day) > i64::from(max_age_days)
}

/// What has to go, oldest first, so that all days together have at most `max_bytes`, and a bit less.
#[must_use]
pub fn surplus(sizes: &BTreeMap<Day, u64>, today: Day, max_bytes: u64) -> Vec<Removal> {
    let mut removals = Vec::new();
    let total = sizes.values().fold(0u64, |sum, bytes| sum.saturating_add(*bytes));
    if max_bytes == 0 || total <= max_bytes {
        return removals;
    }
    let mut over = total - (max_bytes - max_bytes / SLACK_DIVISOR);
    let newest = sizes.keys().next_back().copied();
    for (&day, &bytes) in sizes.iter().filter(|(_, bytes)| **bytes > 0) {
        if over == 0 {
            break;
        }
        let is_over = day < today && Some(day) != newest;
        let is_little_more = bytes.saturating_sub(over) <= max_bytes / EXCESS_DIVISOR;
        removals.push(if is_over && is_little_more {
            Removal::Whole(day)
        } else {
            Removal::Oldest { day, bytes: over.min(bytes), is_over }
        });
        over = over.saturating_sub(bytes);
    }
    removals
}

/// Whether the clock can be believed when it says that a day is old.
///
/// A server that runs proves its time: the clock moves as it waits. What proves the time before are its heartbeats and the
/// times at which folders were changed. A gap in all of this, longer than half the age that is kept (but a day at least and
/// 30 at most), may be a server that was switched off for long, or a clock that jumped ahead and would make everything old.
/// Nobody can tell from here; so ages are not judged until a day after the first time that is known behind the gap. That
/// is a time of the clock, so that a server which is started every day believes it, too.
#[derive(Debug)]
pub struct ClockWatch {
    /// Proven times before this run, at most [`TIMES_MAX`].
    times: Vec<SystemTime>,
    /// Since when the clock has moved as the server waited.
    since: SystemTime,
    /// When it was looked at last.
    last: SystemTime,
}

/// What the clock is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Belief {
    /// It may decide.
    Believed,
    /// It may not yet.
    Doubted {
        /// The gap begins at this time.
        after: SystemTime,
        /// How long it is doubted from now on.
        rest: Duration,
    },
}

impl ClockWatch {
    /// Begins a run. `heartbeat`: the last sign of life of the server before.
    #[must_use]
    pub fn new(heartbeat: Option<SystemTime>, now: SystemTime) -> Self {
        Self { times: heartbeat.into_iter().collect(), since: now, last: now }
    }

    /// Judges the clock, which says `wall`. `changes`: when folders of the archive were changed. To be asked more often
    /// than once a day.
    pub fn judge(
        &mut self,
        changes: impl Iterator<Item = SystemTime>,
        max_age_days: u32,
        wall: SystemTime,
    ) -> Belief {
        let half = Duration::from_secs(u64::from(max_age_days) * 24 * 3600 / 2);
        let gap_max = half.clamp(GAP_MIN, GAP_MAX);
        let is_gap =
            |from: SystemTime, to: SystemTime| to.duration_since(from).is_ok_and(|gap| gap > gap_max);
        if is_gap(self.last, wall) || wall < self.since {
            self.begin_run(wall);
        }
        self.last = wall;
        let mut proven: Vec<SystemTime> =
            changes.chain(self.times.iter().copied()).filter(|time| *time < self.since).collect();
        proven.sort_unstable();
        let mut until = self.since;
        for after in proven.into_iter().rev() {
            if is_gap(after, until) {
                let since = wall.duration_since(until).unwrap_or_default();
                return match HOLD.saturating_sub(since) {
                    Duration::ZERO => Belief::Believed,
                    rest => Belief::Doubted { after, rest },
                };
            }
            until = after;
        }
        Belief::Believed
    }

    /// The clock made a step to `wall`.
    fn begin_run(&mut self, wall: SystemTime) {
        // Before a clock was set that had lost its time, it proved nothing: there are later times.
        if self.times.iter().all(|time| *time <= self.last) {
            if self.times.len() >= TIMES_MAX {
                self.times.remove(0);
            }
            self.times.push(self.last);
        }
        self.since = wall;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY_S: u64 = 24 * 3600;

    fn day(text: &str) -> Day {
        Day::parse(text).unwrap()
    }

    #[test]
    fn a_day_goes_when_its_last_second_is_old_enough() {
        for (max_age_days, expired) in
            [(0, [false; 4]), (1, [false, false, true, true]), (2, [false, false, false, true])]
        {
            let days = ["2026-11-23", "2026-11-22", "2026-11-21", "2026-11-20"].map(day);
            let found = days.map(|other| is_expired(other, days[0], max_age_days));
            assert_eq!(found, expired, "{max_age_days}");
        }
        assert!(!is_expired(day("9999-12-31"), day("2026-11-23"), 1), "the future is not old");
        assert!(is_expired(day("1970-01-01"), day("2026-11-23"), 20_000));
        assert!(is_expired(day("2024-02-28"), day("2024-03-01"), 1), "a leap day counts");
        assert!(!is_expired(day("2024-02-29"), day("2024-03-01"), 1));
    }

    #[test]
    fn the_oldest_days_go_until_the_rest_fits() {
        let (a, b, c) = (day("2026-11-20"), day("2026-11-22"), day("2026-11-23"));
        let sizes = BTreeMap::from([(a, 10), (b, 20), (c, 30)]);
        let oldest = |day, bytes| Removal::Oldest { day, bytes, is_over: false };
        let part = |day, bytes| Removal::Oldest { day, bytes, is_over: true };
        use Removal::Whole;
        for (max_bytes, today, expected) in [
            (0, c, vec![]),
            (60, c, vec![]),
            (100, c, vec![]),
            // A day goes whole where that is at most a tenth of the limit too much.
            (59, c, vec![part(a, 1)]),
            (55, c, vec![Whole(a)]),
            (50, c, vec![Whole(a)]),
            (49, c, vec![Whole(a), part(b, 1)]),
            (32, c, vec![Whole(a), Whole(b)]),
            (30, c, vec![Whole(a), Whole(b)]),
            (29, c, vec![Whole(a), Whole(b), oldest(c, 1)]),
            (1, c, vec![Whole(a), Whole(b), oldest(c, 29)]),
            // The newest day is cut also when nothing is archived today.
            (29, day("2026-12-01"), vec![Whole(a), Whole(b), oldest(c, 1)]),
            // One dump with a clock in the future does not make the current day an old one.
            (45, b, vec![Whole(a), oldest(b, 5)]),
            // A clock that is too slow: every day is cut, the oldest first.
            (25, day("1970-01-01"), vec![oldest(a, 10), oldest(b, 20), oldest(c, 5)]),
        ] {
            assert_eq!(surplus(&sizes, today, max_bytes), expected, "{max_bytes} on {today}");
        }
        let empty = BTreeMap::from([(a, 0), (c, 5)]);
        assert_eq!(surplus(&empty, c, 1), [oldest(c, 4)], "a folder without files of ours is left");
        let large = BTreeMap::from([(a, 200), (b, 300), (c, 501)]);
        assert_eq!(surplus(&large, c, 1001), [], "the limit itself is allowed");
        assert_eq!(surplus(&large, c, 1000), [part(a, 11)], "what goes makes some room");
        assert_eq!(surplus(&BTreeMap::from([(a, u64::MAX), (c, u64::MAX)]), c, u64::MAX), []);
    }

    proptest! {
        /// What is left fits, with the room that is wanted; the days that go are the oldest; the last one was needed.
        #[test]
        fn no_more_goes_than_must(
            sizes in proptest::collection::btree_map(0u64..3000, 0u64..1000, 0..40),
            today in 0u64..3000,
            max_bytes in 1u64..20_000,
        ) {
            let sizes: BTreeMap<Day, u64> = sizes
                .into_iter()
                .map(|(number, bytes)| (Day::of_clock(number * DAY_S * 1000).unwrap(), bytes))
                .collect();
            let today = Day::of_clock(today * DAY_S * 1000).unwrap();
            let removals = surplus(&sizes, today, max_bytes);
            let total: u64 = sizes.values().sum();
            prop_assert_eq!(removals.is_empty(), total <= max_bytes);
            let goal = max_bytes - max_bytes / 100;
            let mut left = total;
            let full: Vec<_> = sizes.iter().filter(|(_, bytes)| **bytes > 0).collect();
            for (index, removal) in removals.iter().enumerate() {
                prop_assert!(left > goal, "{removal:?} was not needed");
                let (day, whole) = full[index];
                let may_go_whole = *day < today && Some(day) != sizes.keys().next_back();
                match *removal {
                    Removal::Whole(found) => {
                        prop_assert_eq!(found, *day, "the oldest first");
                        prop_assert!(may_go_whole);
                        left -= whole;
                        prop_assert!(left + max_bytes / 10 >= goal, "far too much went");
                    }
                    Removal::Oldest { day: found, bytes, is_over } => {
                        prop_assert_eq!(found, *day, "the oldest first");
                        prop_assert_eq!(is_over, may_go_whole);
                        left -= bytes;
                        prop_assert!(bytes == *whole || left == goal, "a cut takes what it must");
                    }
                }
            }
            prop_assert!(removals.is_empty() || left <= goal);
        }
    }

    #[test]
    fn the_next_look_is_neither_at_once_nor_far_away() {
        let ms = Duration::from_millis;
        let hour = Duration::from_secs(3600);
        for (took, is_flawed, least, most) in [
            (ms(0), false, ms(1000), hour),
            (ms(50), false, ms(1000), hour),
            (ms(1000), false, ms(20_000), hour),
            (ms(1000), true, ms(20_000), RETRY),
            // A look of half an hour does not keep a change of the limits waiting for ten hours.
            (hour / 2, false, RETRY, hour),
            (hour / 2, true, RETRY, RETRY),
            (Duration::MAX, true, RETRY, RETRY),
        ] {
            assert_eq!(pause(took, is_flawed), Pause { least, most }, "{took:?} {is_flawed}");
        }
    }

    #[test]
    fn an_archive_may_grow_up_to_its_limit() {
        for (bytes, max_bytes, is_flawed, expected) in [
            (0, 0, false, u64::MAX),
            (5000, 0, false, u64::MAX),
            // There is no archive yet.
            (0, 1000, false, 1000),
            (400, 1000, false, 600),
            (999, 1000, false, 1),
            (1000, 1000, false, 0),
            (1001, 1000, false, 10),
            (u64::MAX, 1000, false, 10),
            (400, 1000, true, u64::MAX),
            (5000, 1000, true, u64::MAX),
        ] {
            assert_eq!(headroom(bytes, max_bytes, is_flawed), expected, "{bytes} {max_bytes} {is_flawed}");
        }
    }

    /// Days after 2026-11-23.
    fn at(days: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs((20_780 + days) * DAY_S)
    }

    fn hours(count: u64) -> Duration {
        Duration::from_secs(count * 3600)
    }

    /// What a server believes that was started at `start` and looks at the clock once.
    fn first_look(heartbeat: Option<SystemTime>, changes: &[u64], start: u64, max_age_days: u32) -> bool {
        let mut watch = ClockWatch::new(heartbeat, at(start));
        let belief = watch.judge(changes.iter().map(|days| at(*days)), max_age_days, at(start));
        belief == Belief::Believed
    }

    #[test]
    fn a_clock_is_believed_at_the_start_when_nothing_contradicts_it() {
        for (heartbeat, changes, start, max_age_days, believed) in [
            (None, &[][..], 100, 90, true),
            (Some(99), &[], 100, 90, true),
            (Some(10), &[], 100, 90, false),
            (None, &[10], 100, 90, false),
            (None, &[10, 40, 70, 99], 100, 90, true),
            (None, &[10, 50], 50, 90, false),
            // Another server has run behind the gap for a day, or was there for a moment a day ago.
            (None, &[10, 50], 51, 90, true),
            (None, &[10, 50, 99], 100, 90, true),
            // Restored, or put there by somebody, just now.
            (None, &[100], 100, 90, true),
            (Some(90), &[], 100, 90, true),
            (Some(90), &[], 100, 10, false),
            (Some(98), &[], 100, 1, false),
            (Some(99), &[], 100, 1, true),
            // Times in the future prove nothing, and do no harm.
            (Some(5000), &[5000], 100, 90, true),
            (Some(5000), &[5000, 10], 100, 90, false),
            // A server that ran with the wrong clock has left its times; the gap before them stays, for a day.
            (Some(4000), &[1, 2, 3], 4000, 90, false),
            (Some(3999), &[1, 2, 3, 3999, 4000], 4000, 90, true),
        ] {
            let found = first_look(heartbeat.map(at), changes, start, max_age_days);
            assert_eq!(found, believed, "{heartbeat:?} {changes:?} {start} {max_age_days}");
        }
    }

    #[test]
    fn a_jump_is_doubted_for_a_day_and_a_quiet_year_is_not() {
        let mut watch = ClockWatch::new(None, at(0));
        for hour in 0..24 * 400 {
            let belief = watch.judge([at(0)].into_iter(), 90, at(0) + hours(hour));
            assert_eq!(belief, Belief::Believed, "hour {hour}");
        }
        let wall = at(400 + 3650);
        let after = at(400) - hours(1);
        for hour in 0..24 {
            let belief = watch.judge([at(0), wall].into_iter(), 90, wall + hours(hour));
            assert_eq!(belief, Belief::Doubted { after, rest: hours(24 - hour) });
        }
        let belief = watch.judge([at(0)].into_iter(), 90, wall + hours(24));
        assert_eq!(belief, Belief::Believed, "nobody has objected");
        let belief = watch.judge([at(0)].into_iter(), 90, wall + hours(24 * 5000));
        assert!(matches!(belief, Belief::Doubted { .. }), "another jump is another doubt");
    }

    /// What was archived behind the gap proves when it ended, whoever runs now.
    #[test]
    fn a_server_that_is_restarted_every_day_believes_the_clock_after_two() {
        let (before, after) = (at(0), at(400));
        let mut changes = vec![before];
        for (started, believed) in [(0, false), (12, false), (20, false), (36, true), (60, true)] {
            let now = after + hours(started);
            let heartbeat = if started == 0 { before } else { now - hours(1) };
            let mut watch = ClockWatch::new(Some(heartbeat), now);
            let belief = watch.judge(changes.iter().copied(), 90, now);
            assert_eq!(belief == Belief::Believed, believed, "{started} h: {belief:?}");
            if started == 0 {
                // The folder of the first day, which no job changes any more.
                changes.push(now + hours(1));
            }
        }
    }

    #[test]
    fn a_clock_that_is_put_right_is_believed() {
        // Started with a clock that has lost its time, which then gets the right one.
        let mut watch = ClockWatch::new(Some(at(99)), at(0));
        let mut judge = |days| watch.judge([at(98), at(99)].into_iter(), 90, at(days));
        assert_eq!(judge(0), Belief::Believed);
        assert_eq!(judge(100), Belief::Believed);
        // It jumps ahead, and is put back.
        assert!(matches!(judge(5000), Belief::Doubted { .. }));
        assert_eq!(judge(100), Belief::Believed);
    }
}
