//! Series of numbers and what the aggregates make of them: mean and variance.
//!
//! Exact, in the reference's order of operations, as long as the dump's allowance of values lasts; values beyond
//! it only move running sums. Rules: feature extraction 9.1, our contract 6.

use super::budget::Budget;

/// A series.
#[derive(Debug, Default)]
pub(super) struct Series {
    kept: Vec<f64>,
    beyond: Running,
}

/// Count, mean and sum of squared distances from it, moved by one value at a time (Welford).
#[derive(Debug, Clone, Copy, Default)]
struct Running {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Running {
    fn push(&mut self, value: f64) {
        self.count += 1.0;
        let distance = value - self.mean;
        self.mean += distance / self.count;
        self.squares += distance * (value - self.mean);
    }

    /// Both together (Chan).
    fn join(self, other: Self) -> Self {
        let count = self.count + other.count;
        let distance = other.mean - self.mean;
        Self {
            count,
            mean: self.mean + distance * (other.count / count),
            squares: self.squares + other.squares + distance * distance * (self.count * other.count / count),
        }
    }
}

impl Series {
    pub(super) fn push(&mut self, value: f64, budget: &mut Budget) {
        if budget.take_series_value() {
            self.kept.push(value);
        } else {
            self.beyond.push(value);
        }
    }

    /// Sum of value / n from left to right; 0 without any.
    pub(super) fn mean(&self) -> f64 {
        if self.beyond.count > 0.0 {
            return self.joined().mean;
        }
        let count = self.kept_count();
        self.kept.iter().fold(0.0, |sum, value| sum + value / count)
    }

    /// Population variance; 0 without any.
    pub(super) fn variance(&self) -> f64 {
        if self.beyond.count > 0.0 {
            let joined = self.joined();
            return joined.squares / joined.count;
        }
        let count = self.kept_count().max(1.0);
        let mean = self.kept.iter().fold(0.0, |sum, value| sum + value) / count;
        self.kept.iter().fold(0.0, |sum, value| sum + (value - mean) * (value - mean)) / count
    }

    fn joined(&self) -> Running {
        if self.kept.is_empty() {
            return self.beyond;
        }
        let count = self.kept_count();
        let mean = self.kept.iter().sum::<f64>() / count;
        let squares = self.kept.iter().map(|value| (value - mean) * (value - mean)).sum();
        Running { count, mean, squares }.join(self.beyond)
    }

    #[expect(clippy::cast_precision_loss, reason = "at most a million values are kept")]
    fn kept_count(&self) -> f64 {
        self.kept.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: &[f64]) -> Series {
        let mut budget = Budget::default();
        let mut series = Series::default();
        values.iter().for_each(|value| series.push(*value, &mut budget));
        series
    }

    #[test]
    fn mean_and_variance_of_small_series() {
        let cases: [(&[f64], f64, f64); 4] = [
            (&[], 0.0, 0.0),
            (&[3.0], 3.0, 0.0),
            (&[1.0, 3.0], 2.0, 1.0),
            (&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0], 5.0, 4.0),
        ];
        for (values, mean, variance) in cases {
            assert_eq!((series(values).mean(), series(values).variance()), (mean, variance), "{values:?}");
        }
        assert!(series(&[1.0, f64::NAN]).variance().is_nan());
    }

    #[test]
    fn running_sums_go_on_where_the_allowance_ends() {
        let values: Vec<f64> = (0..1_200_000_u32).map(|i| f64::from(i % 7919 % 1000)).collect();
        let long = series(&values);
        assert_eq!(long.kept.len(), 1_000_000);
        let count = 1_200_000.0;
        let mean = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / count;
        assert!((long.mean() - mean).abs() < 1e-9 * mean);
        assert!((long.variance() - variance).abs() < 1e-9 * variance);
    }
}
