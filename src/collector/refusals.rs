//! Refusals that a client would meet again for ever, because it sends the same again. Pure; told the time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::moment::Moment;

/// Refusals that are remembered; beyond that the oldest is forgotten, and its client may come once more.
const REFUSALS_MAX: usize = 1_000;
/// How long one is remembered. A client that was greeted comes back within 11 s, and tries for 10 minutes in all; later it
/// is somebody else who has a name in common with it, as all behind one address in one room do.
const REMEMBERED_FOR: Duration = Duration::from_secs(660);

/// What sessions were sent away for, and may meet again.
#[derive(Debug, Default)]
pub(super) struct Refusals(VecDeque<Refused>);

#[derive(Debug)]
struct Refused {
    /// What the session is known by.
    name: Arc<str>,
    /// How far it had come.
    received: u64,
    until: Moment,
}

impl Refusals {
    /// Whether the session `name` was refused before and has come no further since; else it is remembered.
    pub(super) fn is_repeated(&mut self, name: &Arc<str>, received: u64, now: Moment) -> bool {
        while self.0.front().is_some_and(|oldest| oldest.until <= now) {
            self.0.pop_front();
        }
        if let Some(at) = self.0.iter().position(|other| other.name == *name && other.received == received) {
            self.0.remove(at);
            return true;
        }
        if self.0.len() >= REFUSALS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Refused { name: Arc::clone(name), received, until: now + REMEMBERED_FOR });
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_twice_is_told_apart_by_name_progress_and_time() {
        let start = Moment::at(1 << 40);
        let name = |text: &str| Arc::<str>::from(text);
        let mut refusals = Refusals::default();
        let mut check = |text: &str, received, after_s| {
            refusals.is_repeated(&name(text), received, start + Duration::from_secs(after_s))
        };
        assert!(!check("a", 0, 0), "the first time");
        assert!(!check("b", 0, 1), "somebody else");
        assert!(!check("a", 7, 2), "it has come further");
        assert!(check("a", 0, 3));
        assert!(!check("a", 0, 4), "it was told to stop; this is another one");
        assert!(check("a", 0, 663));
        assert!(!check("b", 0, 700), "long ago");
        assert!(!check("a", 7, 700), "long ago");
    }

    #[test]
    fn the_memory_of_refusals_is_bounded() {
        let start = Moment::at(1 << 40);
        let mut refusals = Refusals::default();
        (0..3 * REFUSALS_MAX).for_each(|n| {
            refusals.is_repeated(&n.to_string().into(), 0, start);
        });
        assert_eq!(refusals.0.len(), REFUSALS_MAX);
    }
}
