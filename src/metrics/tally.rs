//! What the loop counts between two publications: plain integers, no atomics, no lock.
//!
//! Owns the shape of a tally and the way its counters get registered; the families themselves are listed in
//! [`crate::metrics`]. Pure.

use std::fmt;
use std::marker::PhantomData;

/// A closed set of label values.
pub trait Label: Copy + 'static {
    /// Every value; `value.index()` is its place in this list.
    const ALL: &'static [Self];

    /// The label as it is printed.
    fn label(self) -> &'static str;

    /// The place of this value in [`Label::ALL`].
    fn index(self) -> usize;
}

/// One counter per value of a label; `N` is `L::ALL.len()`.
#[derive(Clone, PartialEq, Eq)]
pub struct ByLabel<L, const N: usize> {
    counts: [u64; N],
    label: PhantomData<L>,
}

impl<L: Label, const N: usize> ByLabel<L, N> {
    /// Counts one more for this label.
    pub fn add_one(&mut self, label: L) {
        self.add(label, 1);
    }

    /// Counts `n` more for this label.
    pub fn add(&mut self, label: L, n: u64) {
        // An index is within `N` by construction of `Label`; `tests` below walks all of them.
        if let Some(count) = self.counts.get_mut(label.index()) {
            *count += n;
        }
    }

    /// The count of this label.
    #[must_use]
    pub fn of(&self, label: L) -> u64 {
        self.counts.get(label.index()).copied().unwrap_or(0)
    }

    /// All counts, in the order of [`Label::ALL`].
    pub(super) fn counts_mut(&mut self) -> impl Iterator<Item = &mut u64> {
        self.counts.iter_mut()
    }
}

impl<L, const N: usize> Default for ByLabel<L, N> {
    fn default() -> Self {
        Self { counts: [0; N], label: PhantomData }
    }
}

impl<L: Label, const N: usize> fmt::Debug for ByLabel<L, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(L::ALL.iter().map(|label| (label.label(), self.of(*label)))).finish()
    }
}

/// Sizes of the requests of a turn.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RequestSizes {
    /// At most [`REQUEST_SIZES_MAX`] sizes; those of further requests are in `bytes` and `count` alone.
    pub(super) sampled: Vec<u32>,
    pub(super) bytes: u64,
    pub(super) count: u64,
}

/// Request sizes that are kept for the quantiles between two publications: 64 KiB. Sum and count stay exact.
const REQUEST_SIZES_MAX: usize = 16_384;

impl RequestSizes {
    pub(super) fn add(&mut self, size_bytes: usize) {
        self.bytes += size_bytes as u64;
        self.count += 1;
        if self.sampled.len() < REQUEST_SIZES_MAX {
            self.sampled.push(u32::try_from(size_bytes).unwrap_or(u32::MAX));
        }
    }

    pub(super) fn clear(&mut self) {
        self.sampled.clear();
        (self.bytes, self.count) = (0, 0);
    }
}

/// Declares [`crate::metrics::Tally`] and the registered counters that it is published to, one line per
/// family: field, name, help.
macro_rules! tally {
    (
        plain { $($plain:ident = $plain_name:literal, $plain_help:literal;)+ }
        by label { $($by:ident: $label:ty, $key:literal = $by_name:literal, $by_help:literal;)+ }
    ) => {
        /// What the loop has counted since it last published; plain integers, so counting costs an addition.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Tally {
            $(#[doc = concat!("`", $plain_name, "`: ", $plain_help)] pub $plain: u64,)+
            $(
                #[doc = concat!("`", $by_name, "{", $key, "}`: ", $by_help)]
                pub $by: $crate::metrics::tally::ByLabel<$label, { <$label>::ALL.len() }>,
            )+
            request_sizes: $crate::metrics::tally::RequestSizes,
        }

        /// The registered counters behind a [`Tally`], field by field.
        #[derive(Debug)]
        struct TallyCounters {
            $($plain: prometheus::IntCounter,)+
            /// In the order of the label's values.
            $($by: Vec<prometheus::IntCounter>,)+
        }

        impl TallyCounters {
            fn register(registry: &prometheus::Registry) -> prometheus::Result<Self> {
                Ok(Self {
                    $($plain: counter(registry, $plain_name, $plain_help)?,)+
                    $($by: counters_by::<$label>(registry, $by_name, $by_help, $key)?,)+
                })
            }

            /// Adds what is not zero, and zeroes it.
            fn take(&self, tally: &mut Tally) {
                $(take(&self.$plain, &mut tally.$plain);)+
                $(for (counter, count) in self.$by.iter().zip(tally.$by.counts_mut()) {
                    take(counter, count);
                })+
            }
        }
    };
}
pub(super) use tally;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{MessageKind, SessionState, WaitingEnd};
    use crate::reasons::{CloseReason, JoinedBy, Refusal, RemovalReason, RequestFault};

    fn check_label<L: Label + std::fmt::Debug>() {
        for (index, label) in L::ALL.iter().enumerate() {
            assert_eq!(label.index(), index, "{label:?}");
            assert!(
                label.label().bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')),
                "{label:?}"
            );
        }
        let mut labels: Vec<_> = L::ALL.iter().map(|label| label.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), L::ALL.len(), "each label once");
    }

    #[test]
    fn every_label_value_has_its_own_place_and_word() {
        check_label::<CloseReason>();
        check_label::<JoinedBy>();
        check_label::<Refusal>();
        check_label::<RemovalReason>();
        check_label::<RequestFault>();
        check_label::<MessageKind>();
        check_label::<SessionState>();
        check_label::<WaitingEnd>();
    }

    #[test]
    fn request_sizes_are_bounded_and_their_sum_stays_exact() {
        let mut sizes = RequestSizes::default();
        (0..REQUEST_SIZES_MAX + 10).for_each(|_| sizes.add(3));
        assert_eq!((sizes.sampled.len(), sizes.bytes, sizes.count), (REQUEST_SIZES_MAX, 49_182, 16_394));
    }
}
