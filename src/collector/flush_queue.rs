//! Which sessions have gathered lines, and when each is due to be appended.
//!
//! Sessions are due in the order in which they began to gather, because the interval is the same for all.
//! Bounds: at most one place per session, which the session itself remembers.

use std::collections::VecDeque;
use std::time::Duration;

use super::shrink_queue;
use crate::moment::Moment;
use crate::reactor::slots::SlotId;

/// Sessions whose deadlines are as close as this are flushed together, at the last of them: so the loop wakes up once
/// for all, and the next line of a client that sends one each interval goes into the same append.
const FLUSH_GROUP: Duration = Duration::from_millis(20);
/// Sessions with gathered lines.
#[derive(Debug, Default)]
pub(super) struct FlushQueue {
    queue: VecDeque<(Moment, SlotId)>,
}

impl FlushQueue {
    /// A session that was in no place gathers: it is due at `latest`, and not before the last in the queue.
    pub(super) fn enqueue(&mut self, session: SlotId, latest: Moment) {
        let due = match self.queue.back() {
            Some((last, _)) if *last + FLUSH_GROUP >= latest => *last,
            Some(_) | None => latest,
        };
        self.queue.push_back((due, session));
    }

    /// Takes the next session that is due.
    pub(super) fn take_due(&mut self, now: Moment) -> Option<SlotId> {
        self.queue.pop_front_if(|(due, _)| *due <= now).map(|(_, session)| session)
    }

    /// Takes the session that gathers longest.
    pub(super) fn take_oldest(&mut self) -> Option<SlotId> {
        self.queue.pop_front().map(|(_, session)| session)
    }

    /// When the next session is due.
    pub(super) fn next_deadline(&self) -> Option<Moment> {
        self.queue.front().map(|(due, _)| *due)
    }

    /// Gives memory back that a crowd of sessions needed.
    pub(super) fn shrink(&mut self) {
        shrink_queue(&mut self.queue);
    }
}
