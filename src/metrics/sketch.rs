//! A bag of numbers that answers quantiles: exact while it holds few distinct values, within 1 % beyond.
//!
//! Owns the interpolation rule and its own memory bound. Never looks at a clock, knows no window.
//! Rule: our metrics specification, "semantics of a summary" (prom-client 11.5.3, a t-digest): each distinct
//! value is a centroid of weight w at position (weight before it + w / 2), the target of a quantile q is at
//! position n * q, linear between neighbouring centroids, the end value beyond the ends.
//!
//! Values are kept in sorted bins. A bin is a stretch of the number line; it knows how many values it holds,
//! its smallest and largest value, and how often those two occur. Up to [`EXACT_VALUES_MAX`] distinct values
//! each has its own bin and the rule is followed to the letter. Beyond, every power of two is cut into 100
//! equal stretches. Then both ends of each bin still sit exactly where the rule puts them, so a gap between
//! two bins, however wide, is crossed as the rule crosses it, and only inside a bin is something forgotten;
//! there the true answer and ours both lie between the bin's ends, which are less than 1 % apart. This is why
//! no sketch from a library is used: those answer with a nearest rank and would jump where the documented
//! rule interpolates. (Below 2.2e-308 the stretches no longer shrink: no unit of ours gets there.)

/// Distinct values up to which every quantile is exact.
pub const EXACT_VALUES_MAX: usize = 1_000;

/// Bins kept at most, 32 bytes each: 128 KiB with the one that is taken before they are thinned. Only values
/// that fill more than 40 powers of two without a gap need more; then neighbours are joined and the bound is
/// 2 %.
const BINS_MAX: usize = 4_095;

/// Stretches per power of two: the first and widest is 1/100 of the value where it begins.
const STEPS_PER_OCTAVE: i64 = 100;

/// Sorted bins of finite numbers.
#[derive(Debug, Clone, Default)]
pub struct Sketch {
    /// Ascending, disjoint; at most [`EXACT_VALUES_MAX`] or [`BINS_MAX`], see `resolution`.
    bins: Vec<Bin>,
    /// How much of the number line shares a bin.
    resolution: Resolution,
    /// Values held, the sum of all `bins[..].count`.
    count: u64,
}

/// How much of the number line shares a bin; each variant nests inside the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
enum Resolution {
    /// Each distinct value has its own bin.
    #[default]
    Exact,
    /// `1 << joined` stretches of the logarithmic scale share a bin.
    Logarithmic {
        /// How often neighbours were joined.
        joined: u32,
    },
}

/// A stretch of the number line that holds at least one value.
#[derive(Debug, Clone, Copy)]
struct Bin {
    count: u64,
    min: f64,
    max: f64,
    /// How often `min` occurs (saturating: beyond 4 billion ties the position of an end is approximate).
    min_count: u32,
    /// How often `max` occurs; when `min == max` both equal `count` and are not looked at.
    max_count: u32,
}

impl Sketch {
    /// Takes one value. Anything that is not finite is ignored.
    pub fn insert(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        // Adding zero turns -0 into 0, so that both are one value.
        self.absorb(Bin::of(value + 0.0));
    }

    /// Takes all that `other` holds.
    pub fn merge(&mut self, other: &Self) {
        self.coarsen_to(self.resolution.max(other.resolution));
        for bin in &other.bins {
            self.absorb(*bin);
        }
    }

    /// How many values are held.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Forgets everything and gives the memory back.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The value at quantile `q` (0 to 1); 0 when nothing is held.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "beyond 2^53 values a position may be off by one")]
    pub fn quantile(&self, q: f64) -> f64 {
        let target = self.count as f64 * q;
        let mut before = 0_u64;
        // The last knot of the curve (position, value) that is not behind the target.
        let mut left: Option<(f64, f64)> = None;
        for bin in &self.bins {
            for (position, value) in bin.knots(before) {
                if position > target {
                    return left.map_or(value, |(at, from)| {
                        from + (value - from) * ((target - at) / (position - at))
                    });
                }
                left = Some((position, value));
            }
            before += bin.count;
        }
        left.map_or(0.0, |(_, value)| value)
    }

    /// Adds a bin that is no wider than this sketch's resolution.
    fn absorb(&mut self, bin: Bin) {
        self.count += bin.count;
        // The bin that this one belongs to, if there is one, is the last that begins at or before it, or the
        // next.
        let next = self.bins.partition_point(|held| held.min <= bin.min);
        let key = self.resolution.key(bin.min);
        for index in next.checked_sub(1).into_iter().chain([next]) {
            if let Some(held) = self.bins.get_mut(index)
                && self.resolution.key(held.min) == key
            {
                held.join(&bin);
                return;
            }
        }
        self.bins.insert(next, bin);
        while self.bins.len() > self.resolution.bins_max() {
            self.coarsen_to(self.resolution.next());
        }
    }

    /// Joins the bins that share a stretch under a coarser resolution.
    fn coarsen_to(&mut self, resolution: Resolution) {
        if resolution == self.resolution {
            return;
        }
        self.resolution = resolution;
        self.bins.dedup_by(|next, held| {
            let same = resolution.key(next.min) == resolution.key(held.min);
            if same {
                held.join(next);
            }
            same
        });
    }
}

impl Resolution {
    /// The number of the stretch that holds `value`; grows with it.
    fn key(self, value: f64) -> i64 {
        // The bits of a number order like the number, once those of the negative ones are turned around
        // (IEEE 754 totalOrder, as in `f64::total_cmp`).
        #[expect(clippy::cast_possible_wrap, reason = "a reinterpretation of the bits is what is wanted")]
        let bits = value.to_bits() as i64;
        let ordered = if bits < 0 { bits ^ i64::MAX } else { bits };
        match self {
            Self::Exact => ordered,
            // Exponent and leading mantissa bits are a fixed-point logarithm, linear within an octave.
            Self::Logarithmic { joined } => ((ordered >> 20) * STEPS_PER_OCTAVE) >> (32 + joined),
        }
    }

    fn bins_max(self) -> usize {
        match self {
            Self::Exact => EXACT_VALUES_MAX,
            Self::Logarithmic { .. } => BINS_MAX,
        }
    }

    fn next(self) -> Self {
        match self {
            Self::Exact => Self::Logarithmic { joined: 0 },
            Self::Logarithmic { joined } => Self::Logarithmic { joined: joined + 1 },
        }
    }
}

impl Bin {
    fn of(value: f64) -> Self {
        Self { count: 1, min: value, max: value, min_count: 1, max_count: 1 }
    }

    /// Where the curve of the rule passes: one point for a bin of a single distinct value, else both ends.
    #[expect(clippy::cast_precision_loss, reason = "beyond 2^53 values a position may be off by one")]
    fn knots(&self, before: u64) -> impl Iterator<Item = (f64, f64)> {
        let start = before as f64;
        let end = (before + self.count) as f64;
        let (first, last) = if self.min < self.max {
            let left = (start + f64::from(self.min_count) / 2.0, self.min);
            let right = (end - f64::from(self.max_count) / 2.0, self.max);
            (left, Some(right))
        } else {
            ((start.midpoint(end), self.min), None)
        };
        std::iter::once(first).chain(last)
    }

    fn join(&mut self, other: &Self) {
        self.count += other.count;
        if other.min < self.min {
            (self.min, self.min_count) = (other.min, other.min_count);
        } else if other.min <= self.min {
            self.min_count = self.min_count.saturating_add(other.min_count);
        }
        if other.max > self.max {
            (self.max, self.max_count) = (other.max, other.max_count);
        } else if other.max >= self.max {
            self.max_count = self.max_count.saturating_add(other.max_count);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUANTILES: [f64; 10] = [0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999];

    fn sketch(values: &[f64]) -> Sketch {
        let mut sketch = Sketch::default();
        values.iter().for_each(|value| sketch.insert(*value));
        sketch
    }

    /// The rule of the specification, written down as it reads: no bins, no limits.
    struct Rule {
        /// Value and weight, ascending.
        centroids: Vec<(f64, f64)>,
        count: f64,
    }

    impl Rule {
        fn new(values: &[f64]) -> Self {
            let mut sorted = values.to_vec();
            sorted.sort_by(f64::total_cmp);
            let equal = sorted.chunk_by(|a, b| a == b);
            Self {
                centroids: equal.map(|values| (values[0], values.len() as f64)).collect(),
                count: values.len() as f64,
            }
        }

        fn quantile(&self, q: f64) -> f64 {
            let target = self.count * q;
            let mut before = 0.0;
            let mut previous = None;
            for (value, weight) in &self.centroids {
                let position = before + weight / 2.0;
                if position >= target {
                    return match previous {
                        None => *value,
                        Some((at, from)) => from + (value - from) * (target - at) / (position - at),
                    };
                }
                previous = Some((position, *value));
                before += weight;
            }
            previous.map_or(0.0, |(_, value)| value)
        }
    }

    fn check_vector(values: &[f64], expected: [f64; 5]) {
        let sketch = sketch(values);
        let got = [0.1, 0.25, 0.5, 0.75, 0.9].map(|q| sketch.quantile(q));
        assert_eq!(got, expected, "quantiles of {values:?}");
    }

    #[test]
    fn the_vectors_of_the_specification_hold_to_the_bit() {
        check_vector(&[], [0.0; 5]);
        check_vector(&[1., 2., 3., 4., 5., 6., 7., 8., 9., 10.], [1.5, 3.0, 5.5, 8.0, 9.5]);
        check_vector(&[10., 20., 30.], [10.0, 12.5, 20.0, 27.5, 30.0]);
        check_vector(&[0., 5.], [0.0, 0.0, 2.5, 5.0, 5.0]);
        check_vector(&[7.], [7.0; 5]);
        check_vector(&[7.; 40], [7.0; 5]);
    }

    #[test]
    fn zero_negative_and_unordered_values_are_ordinary_values() {
        check_vector(&[30., 10., 20.], [10.0, 12.5, 20.0, 27.5, 30.0]);
        check_vector(&[-10., -30., -20.], [-30.0, -27.5, -20.0, -12.5, -10.0]);
        check_vector(&[-5., 5.], [-5.0, -5.0, 0.0, 5.0, 5.0]);
        // Both zeros are one value: a centroid of weight 2 at position 1; the 4 is at position 2.5.
        check_vector(&[-0.0, 4., 0.0], [0.0, 0.0, 4.0 * (0.5 / 1.5), 4.0 * (1.25 / 1.5), 4.0]);
    }

    #[test]
    fn what_is_not_finite_is_not_taken() {
        let sketch = sketch(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 3.0]);
        assert_eq!((sketch.count(), sketch.quantile(0.5)), (1, 3.0));
    }

    #[test]
    fn a_thousand_distinct_values_are_exact_and_ties_do_not_count_against_them() {
        let mut values: Vec<f64> = (0..EXACT_VALUES_MAX).map(|i| (i as f64).powi(3)).collect();
        values.extend_from_within(..700);
        values.extend_from_within(..300);
        let sketch = sketch(&values);
        assert_eq!(sketch.resolution, Resolution::Exact);
        let rule = Rule::new(&values);
        for q in QUANTILES {
            let expected = rule.quantile(q);
            assert!((sketch.quantile(q) - expected).abs() <= expected * 1e-12, "q={q}");
        }
    }

    /// Numbers with a heavy tail on both sides of zero, from a fixed linear congruential generator.
    fn spread(count: usize, seed: u64) -> Vec<f64> {
        let mut state = seed;
        let mut uniform = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        (0..count)
            .map(|_| (uniform() * 30.0 - 8.0).exp() * if uniform() < 0.3 { -1.0 } else { 1.0 })
            .collect()
    }

    fn assert_within_one_percent(sketch: &Sketch, rule: &Rule, q: f64) {
        let expected = rule.quantile(q);
        let error = (sketch.quantile(q) - expected).abs();
        // 1e-9: rounding where a steep ramp between two far values is crossed near zero.
        assert!(error <= expected.abs() * 0.01 + 1e-9, "q={q} {} for {expected}", sketch.quantile(q));
    }

    #[test]
    fn beyond_a_thousand_values_the_error_stays_within_one_percent() {
        let log_normal_like: Vec<f64> =
            spread(150_000, 1).chunks(3).map(|v| v.iter().map(|x| x.abs()).product()).collect();
        // Two far heaps: a sketch that spreads a bin's mass over the gap would be off by a factor.
        let heaps: Vec<f64> =
            (0..1_500).map(|i| if i % 2 == 0 { 10.0 } else { 1e6 } + f64::from(i) / 1e4).collect();
        // Half of all values tie, in the middle of a crowd.
        let ties: Vec<f64> =
            (0..4_000).map(|i| if i % 2 == 0 { 500.0 } else { f64::from(i) / 4.0 }).collect();
        for values in [spread(50_000, 7), log_normal_like, heaps, ties] {
            let (sketch, rule) = (sketch(&values), Rule::new(&values));
            assert_ne!(sketch.resolution, Resolution::Exact);
            (1..200).for_each(|i| assert_within_one_percent(&sketch, &rule, f64::from(i) / 200.0));
        }
    }

    #[test]
    fn memory_is_bounded_whatever_comes() {
        let mut sketch = Sketch::default();
        let mut bits = 1_u64;
        for _ in 0..300_000 {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            sketch.insert(f64::from_bits(bits));
        }
        assert_eq!(size_of::<Bin>(), 32);
        assert!(sketch.bins.capacity() <= BINS_MAX + 1, "{} bins", sketch.bins.capacity());
        assert!(sketch.bins.is_sorted_by(|a, b| a.max < b.min));
        assert_eq!(sketch.count(), sketch.bins.iter().map(|bin| bin.count).sum::<u64>());
        sketch.clear();
        assert_eq!(sketch.bins.capacity(), 0);
    }

    #[test]
    fn a_realistic_spread_needs_no_joined_bins() {
        // 100 bytes to 10 GB, every size equally likely on the logarithmic scale: more than dumps ever do.
        let mut state = 3_u64;
        let mut sketch = Sketch::default();
        for _ in 0..300_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            sketch.insert((100.0 * 1e8_f64.powf((state >> 11) as f64 / (1_u64 << 53) as f64)).round());
        }
        assert_eq!(sketch.resolution, Resolution::Logarithmic { joined: 0 });
    }

    proptest! {
        #[test]
        fn merging_parts_equals_inserting_the_whole(
            values in prop::collection::vec(prop_oneof![-50_i32..50, -1_000_000_i32..1_000_000], 0..3_000),
            parts in 1_usize..6,
        ) {
            let values: Vec<f64> = values.into_iter().map(|value| f64::from(value) / 8.0).collect();
            let whole = sketch(&values);
            let mut merged = Sketch::default();
            for part in 0..parts {
                let own: Vec<f64> = values.iter().copied().skip(part).step_by(parts).collect();
                merged.merge(&sketch(&own));
            }
            prop_assert_eq!(merged.count(), whole.count());
            let rule = Rule::new(&values);
            for q in QUANTILES {
                prop_assert_eq!(merged.quantile(q), whole.quantile(q));
                assert_within_one_percent(&merged, &rule, q);
            }
        }
    }
}
