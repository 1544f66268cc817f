//! Sequence numbers: which entries of a numbered session are not in the dump.
//!
//! Decided per entry by content: an array that ends in a clock followed by a smaller positive integer carries that
//! integer as its number, whatever its length. Rules: our contract 6 and 7, protocol 6.1.

use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::problems::LineError;

/// A clock in ms is above this (1973), a number never is.
const CLOCK_MIN: f64 = 1e11;
/// Ranges of seen numbers that are kept; a session that loses entries in more places than this is not told apart
/// from one with larger gaps.
const RANGES_MAX: usize = 10_000;

/// The number that an entry carries, given its last two elements.
pub(super) fn number_of(before_last: Option<f64>, last: Option<f64>) -> Option<u64> {
    let (clock, number) = (before_last?, last?);
    let is_number = clock > CLOCK_MIN && (1.0..=CLOCK_MIN).contains(&number) && number.fract() == 0.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an integer from 1 to 10^11")]
    is_number.then_some(number as u64)
}

/// The numbers of a dump.
#[derive(Debug, Default)]
pub(super) struct Sequence {
    /// Seen numbers as ranges `[first, last]`, ascending, not touching each other.
    seen: Vec<(u64, u64)>,
}

impl Sequence {
    /// Takes a number.
    ///
    /// # Errors
    ///
    /// When there are too many gaps to tell it apart; then it was not taken.
    pub(super) fn see(&mut self, number: u64) -> Result<(), LineError> {
        if let Some((_, last)) = self.seen.last_mut() {
            if number == *last + 1 {
                *last = number;
                return Ok(());
            }
            if number > *last {
                return self.insert(self.seen.len(), number);
            }
        }
        let at = self.seen.partition_point(|(_, last)| *last + 1 < number);
        match self.seen.get_mut(at) {
            Some((first, last)) if (*first..=*last).contains(&number) => return Ok(()),
            Some((first, _)) if *first == number + 1 => *first = number,
            Some((_, last)) if *last + 1 == number => *last = number,
            Some(_) | None => return self.insert(at, number),
        }
        self.join(at);
        Ok(())
    }

    /// The numbers above `continues_from` and below the highest that were not seen.
    pub(super) fn missing(&self, continues_from: u64) -> Missing {
        let mut missing = Missing::default();
        let mut next = continues_from + 1;
        for (first, last) in &self.seen {
            if *first > next {
                missing.total += *first - next;
                missing.ranges.push((next, *first - 1));
            }
            next = next.max(*last + 1);
        }
        missing
    }

    fn insert(&mut self, at: usize, number: u64) -> Result<(), LineError> {
        if self.seen.len() >= RANGES_MAX {
            return Err(LineError::TooMany { what: "gaps in the sequence numbers", count_max: RANGES_MAX });
        }
        self.seen.insert(at, (number, number));
        Ok(())
    }

    /// Joins the range at `at` with the one behind it if they touch now.
    fn join(&mut self, at: usize) {
        let (Some((_, last)), Some((next_first, next_last))) =
            (self.seen.get(at).copied(), self.seen.get(at + 1).copied())
        else {
            return;
        };
        if last + 1 == next_first {
            self.seen.remove(at + 1);
            if let Some(range) = self.seen.get_mut(at) {
                range.1 = next_last;
            }
        }
    }
}

/// Numbers that are not in the dump.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Missing {
    total: u64,
    ranges: Vec<(u64, u64)>,
}

impl Missing {
    /// How many.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Which: first and last of each gap, ascending.
    #[must_use]
    pub fn ranges(&self) -> &[(u64, u64)] {
        &self.ranges
    }
}

impl Serialize for Missing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Missing", 2)?;
        out.serialize_field("total", &self.total)?;
        out.serialize_field("ranges", &self.ranges)?;
        out.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_a_small_integer_behind_a_clock() {
        let clock = Some(1.7e12);
        let cases = [
            (clock, Some(1.0), Some(1)),
            (clock, Some(123_456.0), Some(123_456)),
            (clock, Some(0.0), None),
            (clock, Some(-1.0), None),
            (clock, Some(1.5), None),
            (clock, Some(1.69e12), None),
            (clock, None, None),
            (Some(5.0), Some(3.0), None),
            (None, Some(3.0), None),
        ];
        for (before_last, last, number) in cases {
            assert_eq!(number_of(before_last, last), number, "{before_last:?} {last:?}");
        }
    }

    #[test]
    fn gaps_are_what_was_not_seen_in_whatever_order() {
        type Case = (&'static [u64], u64, &'static [(u64, u64)]);
        let cases: [Case; 8] = [
            (&[], 0, &[]),
            (&[1, 2, 3], 0, &[]),
            (&[1, 2, 5, 6, 9], 0, &[(3, 4), (7, 8)]),
            (&[5, 6], 0, &[(1, 4)]),
            (&[5, 6], 4, &[]),
            (&[5, 6, 8], 6, &[(7, 7)]),
            (&[9, 1, 5, 3, 2, 4, 2, 8, 6, 7], 0, &[]),
            (&[10, 8, 6, 4, 2], 0, &[(1, 1), (3, 3), (5, 5), (7, 7), (9, 9)]),
        ];
        for (numbers, continues_from, ranges) in cases {
            let mut sequence = Sequence::default();
            numbers.iter().try_for_each(|number| sequence.see(*number)).unwrap();
            let missing = sequence.missing(continues_from);
            assert_eq!(missing.ranges(), ranges, "{numbers:?} from {continues_from}");
            assert_eq!(missing.total(), ranges.iter().map(|(a, b)| b - a + 1).sum::<u64>());
        }
    }

    #[test]
    fn the_ranges_are_bounded() {
        let mut sequence = Sequence::default();
        let taken = (0..20_000).filter(|i| sequence.see(2 * i + 1).is_ok()).count();
        assert_eq!(taken, RANGES_MAX);
        sequence.see(2).expect("it joins two ranges");
        sequence.see(1_000_000_000).expect("there is room for one");
    }
}
