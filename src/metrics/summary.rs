//! A summary: quantiles over a sliding window, sum and count over the whole life of the process.
//!
//! Owns the window. Pure: the time is a parameter. Rule: our metrics specification, "semantics of a summary".
//!
//! The rule describes a ring of `age_buckets` sketches: each value goes into every one, the oldest is
//! replaced by an empty one as soon as strictly more than `max_age / age_buckets` has passed since the last
//! replacement, and quantiles are read from the oldest survivor. That survivor holds exactly the values of
//! the last `age_buckets` periods, so this module stores each value once, in the slot of its period, and
//! joins the slots when quantiles are asked for: the same answers (a test compares both), a fifth of the
//! memory, and an observation costs one insertion instead of five. A slot takes 32 bytes per distinct value,
//! at most 128 KiB; nothing while it is empty.

use std::collections::VecDeque;
use std::time::Duration;

use crate::metrics::sketch::Sketch;
use crate::moment::Moment;

/// The sliding window of a summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// How long a value can stay visible.
    pub max_age: Duration,
    /// In how many steps the window moves, at least 1.
    pub age_buckets: u32,
}

/// Values seen so far, with quantiles over a window or over all of them.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Oldest period first; the last one takes new values. Never empty, never grows.
    slots: VecDeque<Sketch>,
    /// Length of a period and when the present one began; `None` without a window.
    period: Option<(Duration, Moment)>,
    sum: f64,
    count: u64,
}

impl Summary {
    /// A summary whose quantiles cover a sliding window that begins at `now`.
    #[must_use]
    pub fn windowed(window: Window, now: Moment) -> Self {
        let slots = window.age_buckets.max(1);
        Self {
            slots: (0..slots).map(|_| Sketch::default()).collect(),
            period: Some((window.max_age / slots, now)),
            sum: 0.0,
            count: 0,
        }
    }

    /// A summary whose quantiles cover everything ever observed.
    #[must_use]
    pub fn lifetime() -> Self {
        Self { slots: VecDeque::from([Sketch::default()]), period: None, sum: 0.0, count: 0 }
    }

    /// Takes one value. Anything that is not finite is ignored.
    pub fn observe(&mut self, value: f64, now: Moment) {
        if !value.is_finite() {
            return;
        }
        self.observe_batch(std::iter::once(value), value, 1, now);
    }

    /// Takes `count` finite values that add up to `sum`, given by those (all, or a sample) that the quantiles
    /// are to know.
    pub fn observe_batch(&mut self, sampled: impl Iterator<Item = f64>, sum: f64, count: u64, now: Moment) {
        self.advance(now);
        self.sum += sum;
        self.count += count;
        if let Some(youngest) = self.slots.back_mut() {
            sampled.for_each(|value| youngest.insert(value));
        }
    }

    /// Moves the window up to `now`; a time before that of an earlier call changes nothing.
    pub fn advance(&mut self, now: Moment) {
        let Some((length, began)) = &mut self.period else { return };
        // A length of zero would never be caught up with.
        while !length.is_zero() && now.saturating_duration_since(*began) > *length {
            *began += *length;
            self.slots.rotate_left(1);
            if let Some(oldest) = self.slots.back_mut() {
                oldest.clear();
            }
        }
    }

    /// The values at these quantiles as the window stood at the last `observe` or `advance`; 0 when it is
    /// empty.
    #[must_use]
    pub fn quantiles(&self, quantiles: &[f64]) -> Vec<f64> {
        let mut window = Sketch::default();
        let mut held = self.slots.iter().filter(|slot| slot.count() > 0);
        let sketch = match (held.next(), held.next()) {
            // The usual case of a quiet server, and the only one without a window: nothing to join.
            (Some(only), None) => only,
            _ => {
                self.slots.iter().for_each(|slot| window.merge(slot));
                &window
            }
        };
        quantiles.iter().map(|q| sketch.quantile(*q)).collect()
    }

    /// Sum of all values since the start.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// Number of values since the start.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUANTILES: [f64; 5] = [0.1, 0.25, 0.5, 0.75, 0.9];
    const WINDOW: Window = Window { max_age: Duration::from_secs(600), age_buckets: 5 };

    fn start() -> Moment {
        Moment::at(1 << 40)
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// Median, sum and count at a time after the start.
    fn at(summary: &mut Summary, start: Moment, after: Duration) -> (f64, f64, u64) {
        summary.advance(start + after);
        (summary.quantiles(&[0.5])[0], summary.sum(), summary.count())
    }

    #[test]
    fn an_empty_window_prints_zeros() {
        let summary = Summary::windowed(WINDOW, start());
        assert_eq!(summary.quantiles(&QUANTILES), [0.0; 5]);
        assert_eq!(Summary::lifetime().quantiles(&QUANTILES), [0.0; 5]);
    }

    #[test]
    fn the_vectors_of_the_specification_hold_across_slots() {
        let start = start();
        let mut summary = Summary::windowed(WINDOW, start);
        for i in 1_u32..=10 {
            // One value every 55 s: they lie in all five slots.
            summary.observe(f64::from(i), start + ms(55_000) * i);
        }
        assert_eq!(summary.quantiles(&QUANTILES), [1.5, 3.0, 5.5, 8.0, 9.5]);
        assert_eq!((summary.sum(), summary.count()), (55.0, 10));
    }

    #[test]
    fn a_value_observed_at_the_start_is_visible_for_600_s() {
        let start = start();
        let mut summary = Summary::windowed(WINDOW, start);
        summary.observe(7.0, start);
        assert_eq!(
            at(&mut summary, start, ms(600_000)),
            (7.0, 7.0, 1),
            "exactly five periods are not more than five"
        );
        assert_eq!(at(&mut summary, start, ms(600_001)), (0.0, 7.0, 1), "sum and count stay");
    }

    #[test]
    fn a_value_observed_at_the_end_of_a_period_is_visible_for_480_s() {
        let start = start();
        let mut summary = Summary::windowed(WINDOW, start);
        summary.observe(7.0, start + ms(120_000));
        assert_eq!(at(&mut summary, start, ms(120_000 + 480_000)).0, 7.0);
        assert_eq!(at(&mut summary, start, ms(120_000 + 480_001)).0, 0.0);
    }

    #[test]
    fn rotation_is_strictly_after_a_period_and_catches_up_several() {
        let start = start();
        let mut summary = Summary::windowed(WINDOW, start);
        for (second, value) in [(0, 1.0), (121, 2.0), (241, 3.0), (361, 4.0), (481, 5.0)] {
            summary.observe(value, start + Duration::from_secs(second));
        }
        // Nothing is called in between: the window catches up in one go, and the phase does not drift.
        assert_eq!(at(&mut summary, start, ms(600_000)).0, 3.0);
        assert_eq!(at(&mut summary, start, ms(840_000)).0, 4.0, "two periods later 1 and 2 are gone");
        assert_eq!(at(&mut summary, start, ms(840_001)).0, 4.5);
        assert_eq!(at(&mut summary, start, ms(1_080_001)).0, 0.0);
        summary.observe(9.0, start + Duration::from_secs(100_000));
        assert_eq!(at(&mut summary, start, Duration::from_secs(100_000)), (9.0, 24.0, 6));
    }

    #[test]
    fn a_time_that_runs_backwards_changes_nothing() {
        let start = start();
        let mut summary = Summary::windowed(WINDOW, start + ms(500_000));
        summary.observe(7.0, start);
        assert_eq!(at(&mut summary, start, ms(0)), (7.0, 7.0, 1));
    }

    #[test]
    fn without_a_window_nothing_is_forgotten() {
        let start = start();
        let mut summary = Summary::lifetime();
        summary.observe(10.0, start);
        summary.observe(20.0, start + Duration::from_secs(1_000_000));
        assert_eq!(at(&mut summary, start, Duration::from_secs(9_000_000)), (15.0, 30.0, 2));
    }

    #[test]
    fn values_that_are_not_finite_are_never_observed() {
        let start = start();
        let mut summary = Summary::windowed(WINDOW, start);
        [f64::NAN, f64::INFINITY, f64::NEG_INFINITY]
            .into_iter()
            .for_each(|value| summary.observe(value, start));
        assert_eq!(at(&mut summary, start, ms(0)), (0.0, 0.0, 0));
    }

    /// The ring as the specification words it: each value into every sketch, quantiles from the oldest
    /// survivor.
    struct Ring {
        sketches: Vec<Sketch>,
        oldest: usize,
        rotated_ms: u64,
    }

    impl Ring {
        fn rotate(&mut self, now_ms: u64) {
            while now_ms - self.rotated_ms > 120_000 {
                self.sketches[self.oldest].clear();
                self.oldest = (self.oldest + 1) % self.sketches.len();
                self.rotated_ms += 120_000;
            }
        }
    }

    proptest! {
        #[test]
        fn slots_of_one_period_answer_as_the_ring_of_the_specification(
            steps in prop::collection::vec((0_u64..400_000, prop::option::of(-1_000_i32..100_000)), 1..200),
        ) {
            let start = start();
            let mut summary = Summary::windowed(WINDOW, start);
            let mut ring = Ring { sketches: vec![Sketch::default(); 5], oldest: 0, rotated_ms: 0 };
            let mut now_ms = 0;
            for (pause, value) in steps {
                // Mostly short pauses, so that windows fill; some land exactly on the edge of a period.
                now_ms = match pause % 10 {
                    0 => now_ms + pause,
                    1 => now_ms.next_multiple_of(120_000),
                    _ => now_ms + pause / 40,
                };
                ring.rotate(now_ms);
                match value {
                    Some(value) => {
                        summary.observe(f64::from(value), start + ms(now_ms));
                        ring.sketches.iter_mut().for_each(|sketch| sketch.insert(f64::from(value)));
                    }
                    None => summary.advance(start + ms(now_ms)),
                }
                let expected = QUANTILES.map(|q| ring.sketches[ring.oldest].quantile(q));
                prop_assert_eq!(summary.quantiles(&QUANTILES), expected);
            }
        }
    }
}
