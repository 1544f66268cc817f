//! The day under which a dump is archived.
//!
//! Pure. Rule: our contract, section 3: the UTC date of the clock in the dump's first line, else of the file's time.

use std::fmt;
use std::time::SystemTime;

use time::{Date, Month, OffsetDateTime};

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

    /// The day whose folder has this name; `None` when none of ours has it.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let mut parts = name.splitn(3, '-');
        let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
        let month = Month::try_from(month.parse::<u8>().ok()?).ok()?;
        let parsed = Self(Date::from_calendar_date(year.parse().ok()?, month, day.parse().ok()?).ok()?);
        let is_ours = parsed.0 >= OffsetDateTime::UNIX_EPOCH.date() && parsed.to_string() == name;
        is_ours.then_some(parsed)
    }

    /// Days from `other` to this one; negative when it is later.
    #[must_use]
    pub fn days_since(self, other: Self) -> i64 {
        (self.0 - other.0).whole_days()
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

    #[test]
    fn only_names_that_we_give_are_days() {
        for name in ["1970-01-01", "2024-02-29", "2026-11-23", "9999-12-31"] {
            assert_eq!(Day::parse(name).unwrap().to_string(), name);
        }
        for name in [
            "",
            "2026",
            "2026-11",
            "2026-11-",
            "2026-11-31",
            "2025-02-29",
            "2026-13-01",
            "2026-00-01",
            "2026-11-00",
            "2026-1-23",
            "26-11-23",
            "+026-11-23",
            "2026-11-+3",
            " 2026-11-23",
            "2026-11-23 ",
            "2026-11-23-1",
            "20261123",
            "1969-12-31",
            "0001-01-01",
            "-001-01-01",
            "10000-01-01",
            "2026-11-23.bak",
            "records",
        ] {
            assert_eq!(Day::parse(name), None, "{name:?}");
        }
        let day = |name| Day::parse(name).unwrap();
        assert_eq!(day("2024-03-01").days_since(day("2024-02-28")), 2);
        assert_eq!(day("2024-02-28").days_since(day("2024-03-01")), -2);
    }
}
