//! What a dump may keep in memory while it is read.
//!
//! Everything that lives longer than its line is paid for here: reports of the delta compression, tracks, texts
//! of the result. Without it a dump could be built whose state grows with its size. Rules: our contract 6.

use super::problems::LineError;

/// Bytes of state per dump. A peer connection of a call with 100 others takes about 0.1 MiB, so this is room for
/// some 150 of those; what the allocator adds has been measured with dumps made for it (`benches/extract.rs`).
const STATE_BYTES_MAX: usize = 16 << 20;
/// Values kept in series per dump, 8 bytes each; beyond, series go on as running sums. Our contract 6.
const SERIES_VALUES_MAX: usize = 1_000_000;
/// Elements of one array of the result. Our contract 6.
pub(super) const ELEMENTS_MAX: usize = 100_000;

/// What is left of the allowances of one dump.
#[derive(Debug)]
pub(super) struct Budget {
    state_bytes: usize,
    series_values: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { state_bytes: STATE_BYTES_MAX, series_values: SERIES_VALUES_MAX }
    }
}

impl Budget {
    /// Pays for `bytes` of state.
    ///
    /// # Errors
    ///
    /// [`LineError::TooMuchState`] when they are not left; then nothing is taken.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), LineError> {
        let taken_bytes = STATE_BYTES_MAX - self.state_bytes;
        let left = self.state_bytes.checked_sub(bytes);
        self.state_bytes = left.ok_or(LineError::TooMuchState {
            state_bytes: taken_bytes.saturating_add(bytes),
            state_bytes_max: STATE_BYTES_MAX,
        })?;
        Ok(())
    }

    /// Takes back what state that is gone had cost.
    pub(super) fn give_back(&mut self, bytes: usize) {
        self.state_bytes = (self.state_bytes + bytes).min(STATE_BYTES_MAX);
    }

    /// Whether one more value may be kept in a series.
    pub(super) fn take_series_value(&mut self) -> bool {
        let left = self.series_values.checked_sub(1);
        self.series_values = left.unwrap_or(0);
        left.is_some()
    }
}

/// The error for an array of the result that is full.
pub(super) fn check_elements(what: &'static str, count: usize) -> Result<(), LineError> {
    if count < ELEMENTS_MAX { Ok(()) } else { Err(LineError::TooMany { what, count_max: ELEMENTS_MAX }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let mut budget = Budget::default();
        assert_eq!(budget.take(STATE_BYTES_MAX), Ok(()));
        let error = budget.take(1).unwrap_err();
        assert_eq!(error.to_string(), "16777217 bytes of state are above 16777216");
        budget.give_back(10);
        assert_eq!(budget.take(10), Ok(()));
        budget.give_back(usize::MAX / 2);
        assert!(budget.take(STATE_BYTES_MAX + 1).is_err());
    }

    #[test]
    fn series_values_run_out() {
        let mut budget = Budget { state_bytes: 0, series_values: 1 };
        assert!(budget.take_series_value());
        assert!(!budget.take_series_value());
        assert!(!budget.take_series_value());
    }
}
