//! The day under which a dump is archived.
//!
//! Pure. Rule: our contract, section 3: the UTC date of the clock in the dump's first line, else of the file's time.

use std::fmt;
use std::time::SystemTime;

use time::{Date, OffsetDateTime};

/// A UTC date between the years 0 and 9999; its text, `2026-11-23`, names a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(Date);

impl Day {
    /// The day of `clock_ms` since 1970; `None` beyond the year 9999.
    #[must_use]
    pub fn of_clock(clock_ms: u64) -> Option<Self> {
        let seconds = i64::try_from(clock_ms / 1000).ok()?;
        Some(Self(OffsetDateTime::from_unix_timestamp(seconds).ok()?.date()))
    }

    /// The day of `time`; 1970-01-01 for what lies before.
    #[must_use]
    pub fn of_time(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let clock_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Self::of_clock(clock_ms).unwrap_or(Self(OffsetDateTime::UNIX_EPOCH.date()))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.0.to_calendar_date();
        write!(formatter, "{year:04}-{:02}-{day:02}", u8::from(month))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn days_are_utc_dates() {
        for (clock_ms, expected) in [
            (0, Some("1970-01-01")),
            (86_399_999, Some("1970-01-01")),
            (86_400_000, Some("1970-01-02")),
            (1_709_164_800_000, Some("2024-02-29")),
            (1_700_000_000_123, Some("2023-11-14")),
            (253_402_300_799_999, Some("9999-12-31")),
            (253_402_300_800_000, None),
            (u64::MAX, None),
        ] {
            let day = Day::of_clock(clock_ms).map(|day| day.to_string());
            assert_eq!(day.as_deref(), expected, "{clock_ms}");
        }
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_709_164_800);
        assert_eq!(Day::of_time(time).to_string(), "2024-02-29");
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(5);
        assert_eq!(Day::of_time(before).to_string(), "1970-01-01");
    }
}
