//! How many entries of each kind a dump holds, and how large their lines are.
//!
//! Rules: feature extraction 2 (size of a line), 4 (which entries count), 10.2.

/// Entries of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requests {
    /// Sum of the line sizes: two bytes per UTF-16 code unit.
    pub bytes: u64,
    /// How many.
    pub count: u64,
}

impl Requests {
    /// Counts one entry with a line of that size.
    pub(super) fn add(&mut self, line_size: u64) {
        self.bytes += line_size;
        self.count += 1;
    }
}

/// Entries by kind; those whose type is counted nowhere are in none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestCounts {
    /// `getstats`.
    pub stats: Requests,
    /// Types that no rule knows.
    pub other: Requests,
    /// Session descriptions.
    pub sdp: Requests,
    /// `dominantSpeaker`.
    pub speaker: Requests,
    /// `faceLandmarks`.
    pub sentiment: Requests,
}

impl RequestCounts {
    /// The sum that the reference calls total: without sentiment.
    #[must_use]
    pub fn total(&self) -> Requests {
        let parts = [self.sdp, self.speaker, self.stats, self.other];
        Requests {
            bytes: parts.iter().map(|part| part.bytes).sum(),
            count: parts.iter().map(|part| part.count).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_leaves_sentiment_out() {
        let mut counts = RequestCounts::default();
        for kind in [
            &mut counts.stats,
            &mut counts.other,
            &mut counts.sdp,
            &mut counts.speaker,
            &mut counts.sentiment,
        ] {
            kind.add(10);
            kind.add(4);
        }
        assert_eq!(counts.total(), Requests { bytes: 56, count: 8 });
    }
}
