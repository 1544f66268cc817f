//! The memory of sessions that have ended, by id. Pure; told the time.
//!
//! A client that comes late goes on behind the last number, and one that had said good-bye is told to stop. Bounded by
//! number: the oldest is forgotten first, and its client, if it comes at all, fills a second dump.

use std::collections::{BTreeSet, HashMap, VecDeque};

use crate::client::SessionId;
use crate::moment::Moment;
use crate::reactor::slots::SlotId;

/// How a session ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    /// Its last number.
    pub(super) last: u64,
    /// Whether its client ended it.
    pub(super) by_client: bool,
    /// How long it is remembered.
    pub(super) until: Moment,
    /// Which session it was, unless that was before a restart.
    pub(super) session: Option<SlotId>,
}

/// Ids of sessions that have ended.
#[derive(Debug)]
pub(super) struct EndedIds {
    by_id: HashMap<SessionId, Ended>,
    /// In the order in which they ended. Who ended again since stands in it twice, and is known by its time.
    order: VecDeque<(Moment, SessionId)>,
    max: usize,
}

impl EndedIds {
    pub(super) fn new(max: usize) -> Self {
        Self { by_id: HashMap::new(), order: VecDeque::new(), max: max.max(1) }
    }

    /// How the session `id` ended, unless it is too long ago.
    pub(super) fn find(&self, id: &SessionId, now: Moment) -> Option<&Ended> {
        self.by_id.get(id).filter(|ended| ended.until > now)
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = (&SessionId, &Ended)> {
        self.by_id.iter()
    }

    /// Remembers how `id` ended, and forgets what is out of date or too much.
    pub(super) fn remember(&mut self, id: SessionId, ended: Ended, now: Moment) {
        while self.order.len() >= self.max || self.order.front().is_some_and(|(until, _)| *until <= now) {
            let Some((until, old)) = self.order.pop_front() else { break };
            if self.by_id.get(&old).is_some_and(|ended| ended.until == until) {
                self.by_id.remove(&old);
            }
        }
        self.order.push_back((ended.until, id.clone()));
        self.by_id.insert(id, ended);
    }

    /// Forgets how `id` ended; whether it was known.
    pub(super) fn forget(&mut self, id: &SessionId) -> bool {
        // Its place in the order is known to be stale by then.
        self.by_id.remove(id).is_some()
    }

    /// Forgets how these sessions ended; whether any of them was known.
    pub(super) fn forget_sessions(&mut self, sessions: &BTreeSet<SlotId>) -> bool {
        let before = self.by_id.len();
        self.by_id.retain(|_, ended| ended.session.is_none_or(|session| !sessions.contains(&session)));
        self.by_id.len() < before
    }

    /// Gives memory back that a crowd of them needed.
    pub(super) fn shrink(&mut self) {
        if self.by_id.len() < self.by_id.capacity() / 8 {
            self.by_id.shrink_to_fit();
            self.order.shrink_to_fit();
        }
    }
}
