//! What goes from the archive, and when the clock may decide it: the decision, apart from doing it.
//!
//! Pure. Two limits, each looked at by itself: days older than `archive.max_age_days` go, and while the rest is larger
//! than `archive.max_bytes` the oldest days go. Days go whole; only the current day and the newest one lose their oldest
//! dumps instead, so that a limit that is too small for one day does not cost all of it at once.
//!
//! The age of a day is only as right as the clock. [`ClockWatch`] compares it with the times at which a server surely
//! ran: after a gap that nothing explains it withholds the date for a day, so that somebody can look.
//! Rules: ours; how a day is named: our contract, section 3.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use super::day::Day;
use crate::config::ArchiveConfig;

/// How much longer than a gap a clock is not believed: time enough for somebody to see the message and stop the server.
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
    },
}

/// Whether everything of `day` is older than may be kept: a dump of its last second has had all its days.
#[must_use]
pub fn is_expired(day: Day, today: Day, max_age_days: u32) -> bool {
    max_age_days > 0 && today.days_since(day) > i64::from(max_age_days)
}

/// What has to go, oldest first, so that all days together have at most `max_bytes`.
#[must_use]
pub fn surplus(sizes: &BTreeMap<Day, u64>, today: Day, max_bytes: u64) -> Vec<Removal> {
    let mut removals = Vec::new();
    if max_bytes == 0 {
        return removals;
    }
    let total = sizes.values().fold(0u64, |sum, bytes| sum.saturating_add(*bytes));
    let mut over = total.saturating_sub(max_bytes);
    let newest = sizes.keys().next_back().copied();
    for (&day, &bytes) in sizes.iter().filter(|(_, bytes)| **bytes > 0) {
        if over == 0 {
            break;
        }
        let is_over_for_good = day < today && Some(day) != newest;
        removals.push(if is_over_for_good {
            Removal::Whole(day)
        } else {
            Removal::Oldest { day, bytes: over.min(bytes) }
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
/// Nobody can tell from here; so ages are not judged until the server has run for a day behind the gap.
#[derive(Debug)]
pub struct ClockWatch {
    /// Proven times before this run, at most [`TIMES_MAX`].
    times: Vec<SystemTime>,
    /// Since when the clock has moved as the server waited.
    since: SystemTime,
    /// When it was looked at last.
    last: SystemTime,
    /// Since when there is a gap.
    doubted_since: Option<Instant>,
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
        Self { times: heartbeat.into_iter().collect(), since: now, last: now, doubted_since: None }
    }

    /// Judges the clock, which says `wall`. `changes`: when folders of the archive were changed. To be asked more often
    /// than once a day.
    pub fn judge(
        &mut self,
        changes: impl Iterator<Item = SystemTime>,
        max_age_days: u32,
        wall: SystemTime,
        now: Instant,
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
        let gap = proven.into_iter().rev().find(|time| {
            let found = is_gap(*time, until);
            until = *time;
            found
        });
        let Some(after) = gap else {
            self.doubted_since = None;
            return Belief::Believed;
        };
        let since = *self.doubted_since.get_or_insert(now);
        match HOLD.saturating_sub(now.saturating_duration_since(since)) {
            Duration::ZERO => Belief::Believed,
            rest => Belief::Doubted { after, rest },
        }
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
        self.doubted_since = None;
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
        let oldest = |day, bytes| Removal::Oldest { day, bytes };
        use Removal::Whole;
        for (max_bytes, today, expected) in [
            (0, c, vec![]),
            (60, c, vec![]),
            (100, c, vec![]),
            (59, c, vec![Whole(a)]),
            (50, c, vec![Whole(a)]),
            (49, c, vec![Whole(a), Whole(b)]),
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
        assert_eq!(surplus(&BTreeMap::from([(a, u64::MAX), (c, u64::MAX)]), c, u64::MAX), []);
    }

    proptest! {
        /// What is left fits; the days that go are the oldest; the last one was needed.
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
            let bytes_of = |removal: &Removal| match removal {
                Removal::Whole(day) => (*day, sizes[day], sizes[day]),
                Removal::Oldest { day, bytes } => (*day, *bytes, sizes[day]),
            };
            let mut left = total;
            let full: Vec<_> = sizes.iter().filter(|(_, bytes)| **bytes > 0).collect();
            for (index, removal) in removals.iter().enumerate() {
                let (day, bytes, whole) = bytes_of(removal);
                prop_assert!(left > max_bytes, "{removal:?} was not needed");
                prop_assert_eq!(day, *full[index].0, "the oldest first");
                prop_assert!(bytes <= whole);
                if matches!(removal, Removal::Whole(_)) {
                    prop_assert!(day < today && Some(&day) != sizes.keys().next_back());
                } else {
                    prop_assert!(bytes == whole || left - bytes == max_bytes, "a cut takes what it must");
                }
                left -= bytes;
            }
            prop_assert!(left <= max_bytes);
        }
    }

    /// Days after 2026-11-23.
    fn at(days: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs((20_780 + days) * DAY_S)
    }

    fn hours(count: u64) -> Duration {
        Duration::from_secs(count * 3600)
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do as the origin of made-up times")]
    fn origin() -> Instant {
        Instant::now()
    }

    /// What a server believes that was started at `start` and looks at the clock once.
    fn first_look(heartbeat: Option<SystemTime>, changes: &[u64], start: u64, max_age_days: u32) -> bool {
        let mut watch = ClockWatch::new(heartbeat, at(start));
        let belief = watch.judge(changes.iter().map(|days| at(*days)), max_age_days, at(start), origin());
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
            (None, &[10, 50, 99], 100, 90, false),
            // Restored, or put there by somebody, just now.
            (None, &[100], 100, 90, true),
            (Some(90), &[], 100, 90, true),
            (Some(90), &[], 100, 10, false),
            (Some(98), &[], 100, 1, false),
            (Some(99), &[], 100, 1, true),
            // Times in the future prove nothing, and do no harm.
            (Some(5000), &[5000], 100, 90, true),
            (Some(5000), &[5000, 10], 100, 90, false),
            // A server that ran with the wrong clock has left its times; the gap before them stays.
            (Some(3999), &[1, 2, 3, 3999, 4000], 4000, 90, false),
        ] {
            let found = first_look(heartbeat.map(at), changes, start, max_age_days);
            assert_eq!(found, believed, "{heartbeat:?} {changes:?} {start} {max_age_days}");
        }
    }

    #[test]
    fn a_jump_is_doubted_for_a_day_and_a_quiet_year_is_not() {
        let start = origin();
        let mut watch = ClockWatch::new(None, at(0));
        for hour in 0..24 * 400 {
            let wall = at(0) + hours(hour);
            let belief = watch.judge([at(0)].into_iter(), 90, wall, start + hours(hour));
            assert_eq!(belief, Belief::Believed, "hour {hour}");
        }
        let (wall, now) = (at(400 + 3650), start + hours(24 * 400));
        let after = at(400) - hours(1);
        for hour in 0..24 {
            let belief = watch.judge([at(0), wall].into_iter(), 90, wall + hours(hour), now + hours(hour));
            assert_eq!(belief, Belief::Doubted { after, rest: hours(24 - hour) });
        }
        let belief = watch.judge([at(0)].into_iter(), 90, wall + hours(24), now + hours(24));
        assert_eq!(belief, Belief::Believed, "nobody has objected");
        let belief = watch.judge([at(0)].into_iter(), 90, wall + hours(24 * 5000), now + hours(25));
        assert!(matches!(belief, Belief::Doubted { .. }), "another jump is another doubt");
    }

    #[test]
    fn a_clock_that_is_put_right_is_believed() {
        let start = origin();
        // Started with a clock that has lost its time, which then gets the right one.
        let mut watch = ClockWatch::new(Some(at(99)), at(0));
        let mut judge =
            |days, hour| watch.judge([at(98), at(99)].into_iter(), 90, at(days), start + hours(hour));
        assert_eq!(judge(0, 0), Belief::Believed);
        assert_eq!(judge(100, 1), Belief::Believed);
        // It jumps ahead, and is put back.
        assert!(matches!(judge(5000, 2), Belief::Doubted { .. }));
        assert_eq!(judge(100, 3), Belief::Believed);
    }
}
