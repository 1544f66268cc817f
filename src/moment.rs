//! Points in time, in half of what [`std::time::Instant`] takes: every connection and every session keeps several.

use std::num::NonZeroU64;
use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A point in time on the system's monotonic clock, to the nanosecond: 8 bytes, and no more inside an `Option`. It is
/// good for 584 years of uptime; what would lie outside is moved to the nearest end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(NonZeroU64);

impl Moment {
    /// The present one. Time is a parameter: only the edges may ask (`clippy.toml`).
    #[must_use]
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::Monotonic);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        Self::at(
            seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0)),
        )
    }

    /// So many nanoseconds after the clock began; 1 at least.
    #[must_use]
    pub const fn at(nanos: u64) -> Self {
        match NonZeroU64::new(nanos) {
            Some(nanos) => Self(nanos),
            None => Self(NonZeroU64::MIN),
        }
    }

    /// The time from `earlier` to this one; zero when that is not earlier.
    #[must_use]
    pub const fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.get().saturating_sub(earlier.0.get()))
    }

    /// The time from `earlier` to this one; `None` when that is later.
    #[must_use]
    pub fn checked_duration_since(self, earlier: Self) -> Option<Duration> {
        self.0.get().checked_sub(earlier.0.get()).map(Duration::from_nanos)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

impl AddAssign<Duration> for Moment {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self::at(self.0.get().saturating_sub(nanos(duration)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_small() {
        assert_eq!((size_of::<Moment>(), size_of::<Option<Moment>>()), (8, 8));
    }

    #[test]
    fn durations_lead_from_one_to_another() {
        let (first, hour) = (Moment::at(5), Duration::from_secs(3600));
        let later = first + hour;
        assert!(later > first);
        assert_eq!(later.saturating_duration_since(first), hour);
        assert_eq!(first.saturating_duration_since(later), Duration::ZERO);
        assert_eq!(
            (later.checked_duration_since(first), first.checked_duration_since(later)),
            (Some(hour), None)
        );
        assert_eq!(later - hour, first);
    }

    #[test]
    fn nothing_overflows() {
        let end = Moment::at(7) + Duration::MAX;
        assert_eq!(end, end + Duration::from_secs(1));
        assert_eq!(Moment::at(7) - Duration::MAX, Moment::at(0));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    fn the_clock_is_the_one_of_the_standard_library() {
        let (before, begun) = (Moment::now(), std::time::Instant::now());
        let (elapsed, after) = (begun.elapsed(), Moment::now());
        assert!(after.saturating_duration_since(before) >= elapsed);
    }
}
