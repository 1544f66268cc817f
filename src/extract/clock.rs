//! The clock of an entry, and the times of the session that follow from it.
//!
//! Rules: feature extraction 4.1, 6.1, 6.2, 11.

use serde::{Serialize, Serializer};

use super::js;
use super::value::Value;

/// A time in ms as an entry states it; it need not.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Clock {
    /// Not stated, or not as a number.
    #[default]
    Absent,
    /// Stated as `null`.
    Null,
    /// Stated in ms since 1970; NaN where one was computed from an absent time.
    At(f64),
}

impl Clock {
    /// The clock that a value is; texts and the like are none.
    #[must_use]
    pub fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Number(x) => Self::At(*x),
            Value::Absent | Value::Bool(_) | Value::Text(_) | Value::Array(_) | Value::Object(_) => {
                Self::Absent
            }
        }
    }

    /// Whether nothing was stated.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// The time, unless it is missing, `null`, 0 or NaN.
    #[must_use]
    pub fn truthy(self) -> Option<f64> {
        match self {
            Self::At(ms) if js::is_truthy(ms) => Some(ms),
            Self::At(_) | Self::Absent | Self::Null => None,
        }
    }

    /// JavaScript's `Math.max(self, ms)`: NaN with an absent time, and `null` counts as 0.
    #[must_use]
    pub fn max(self, ms: f64) -> Self {
        match self {
            Self::Absent => Self::At(f64::NAN),
            Self::Null => Self::At(ms.max(0.0)),
            Self::At(own) if own.is_nan() || ms.is_nan() => Self::At(f64::NAN),
            Self::At(own) => Self::At(own.max(ms)),
        }
    }
}

impl From<Clock> for Value {
    fn from(clock: Clock) -> Self {
        match clock {
            Clock::Absent => Self::Absent,
            Clock::Null => Self::Null,
            Clock::At(ms) => Self::Number(ms),
        }
    }
}

impl Serialize for Clock {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Absent | Self::Null => serializer.serialize_unit(),
            Self::At(ms) => js::serialize_number(ms, serializer),
        }
    }
}

/// Start and end of the session: the first time in the order of the dump and the largest, 0 without any.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct SessionTimes {
    pub(super) start: f64,
    pub(super) end: f64,
}

impl SessionTimes {
    /// Takes an entry's clock into account.
    pub(super) fn see(&mut self, clock: Clock) {
        let Clock::At(ms) = clock else { return };
        if !js::is_truthy(self.start) && js::is_truthy(ms) {
            self.start = ms;
        }
        if ms > self.end {
            self.end = ms;
        }
    }

    /// Length of the session in ms.
    pub(super) fn duration(&self) -> f64 {
        if self.end > self.start { self.end - self.start } else { 0.0 }
    }

    /// Length of the conference up to the end of the session, in ms.
    pub(super) fn duration_since(&self, conference_start: f64) -> f64 {
        if js::is_truthy(conference_start) && conference_start < self.end {
            self.end - conference_start
        } else {
            0.0
        }
    }
}

/// The start of the conference that an entry states (6.2); `None` leaves the one known before.
pub(super) fn conference_start(data: &Value, now_ms: f64) -> Option<f64> {
    let stated = match data {
        Value::Number(x) => *x,
        Value::Text(text) => js::text_number(text),
        Value::Absent | Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => f64::NAN,
    };
    if stated == 0.0 {
        return None;
    }
    Some(if stated.is_nan() { now_ms } else { stated })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_is_the_first_time_and_end_the_largest() {
        let cases: [(&[Clock], f64, f64, f64); 5] = [
            (&[], 0.0, 0.0, 0.0),
            (&[Clock::At(5.0), Clock::At(9.0), Clock::At(3.0)], 5.0, 9.0, 4.0),
            (&[Clock::Absent, Clock::Null, Clock::At(0.0), Clock::At(-50.0)], -50.0, 0.0, 50.0),
            (&[Clock::At(9.0), Clock::At(3.0)], 9.0, 9.0, 0.0),
            (&[Clock::At(f64::NAN), Clock::At(2.0)], 2.0, 2.0, 0.0),
        ];
        for (clocks, start, end, duration) in cases {
            let mut times = SessionTimes::default();
            clocks.iter().for_each(|clock| times.see(*clock));
            assert_eq!((times.start, times.end, times.duration()), (start, end, duration), "{clocks:?}");
        }
    }

    #[test]
    fn conference_start_tells_zero_from_unusable() {
        let cases = [
            (Value::Number(7.0), Some(7.0)),
            (Value::Number(0.0), None),
            (Value::text(""), None),
            (Value::text(" 0x10 "), Some(16.0)),
            (Value::text("soon"), Some(99.0)),
            (Value::Null, Some(99.0)),
            (Value::Absent, Some(99.0)),
            (Value::Bool(false), Some(99.0)),
        ];
        for (data, start) in cases {
            assert_eq!(conference_start(&data, 99.0), start, "{data:?}");
        }
    }

    #[test]
    fn the_larger_of_two_times_follows_math_max() {
        assert_eq!(Clock::At(5.0).max(3.0), Clock::At(5.0));
        assert_eq!(Clock::Null.max(3.0), Clock::At(3.0));
        assert!(matches!(Clock::Absent.max(3.0), Clock::At(x) if x.is_nan()));
    }
}
