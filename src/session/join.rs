//! Sessions that go on under a new id: what [`rooms`](crate::rooms) decides, done to the table of sessions.

use std::net::IpAddr;

use super::{Session, Sessions, State};
use crate::client::ConnectionInfo;
use crate::moment::Moment;
use crate::reactor::slots::SlotId;
use crate::rooms::{self, Decision, Evidence, Kin, Member};

impl Sessions {
    /// See [`rooms::Rooms::kin`].
    #[must_use]
    pub fn kin_of(&self, info: &ConnectionInfo, address: IpAddr) -> Kin {
        self.rooms.kin(info, address)
    }

    /// The client of `session` takes a new id for each connection: from now on its rest may come under another one.
    pub fn enter_room(&mut self, session: SlotId, kin: Kin) {
        let Some(found) = self.slots.find_mut(session) else { return };
        let before = found.kin.replace(kin);
        if before == Some(kin) {
            return;
        }
        if let Some(before) = before {
            // It came back by its id from elsewhere.
            self.rooms.leave(before, session);
        }
        self.rooms.enter(kin, session);
    }

    /// The sessions of `kin`: those that wait first.
    #[must_use]
    pub fn members_of(&self, kin: Kin) -> Vec<SlotId> {
        let is_waiting = |session: &SlotId| {
            self.slots.find(*session).is_some_and(|found| matches!(found.state, State::Waiting { .. }))
        };
        let mut all: Vec<_> = self.rooms.members(kin).take(rooms::MEMBERS_MAX + 1).collect();
        all.sort_by_key(|session| !is_waiting(session));
        all
    }

    /// Where a session of `kin` belongs that has nothing but its first entry, `number`. `evidence` says what the dump of
    /// another one holds of that entry; `None` when that dump is gone.
    pub fn continuation(
        &self,
        kin: Kin,
        number: u64,
        mut evidence: impl FnMut(&Session) -> Option<Evidence>,
    ) -> Decision {
        let all = self.members_of(kin);
        if all.len() > rooms::MEMBERS_MAX {
            return Decision::Doubtful;
        }
        let member = |session: SlotId| {
            let found = self.slots.find(session)?;
            let is_waiting = matches!(found.state, State::Waiting { .. })
                && found.dump().is_some()
                && found.lines.is_empty();
            Some(Member {
                session,
                is_waiting,
                received: found.ledger.received(),
                evidence: evidence(found)?,
                has_parent: found.has_parent,
            })
        };
        let members: Vec<_> = all.into_iter().filter_map(member).collect();
        rooms::decide(number, &members)
    }

    /// `fresh`, which has its first line and nothing else, is the rest of `into`, of which nothing waits to be appended: that
    /// one takes over its connection, its line, and its id, by which alone it is known from now on. Gives who fed `into`
    /// until now; `None` when it could not be done.
    pub fn join(&mut self, fresh: SlotId, into: SlotId, now: Moment) -> Option<State> {
        let can_be_joined = self.slots.find(into).is_some_and(|found| match found.state {
            State::Open(_) | State::Waiting { .. } => found.lines.is_empty(),
            State::Held { .. } => false,
        });
        let gone = can_be_joined.then(|| self.forget(fresh)).flatten()?;
        let found = self.slots.find_mut(into)?;
        let before = std::mem::replace(&mut found.state, gone.state);
        if before.deadline().is_some() {
            self.waiting_count -= 1;
        }
        self.by_url.remove(&found.id, into);
        found.id = gone.id;
        found.last_connection = gone.last_connection;
        found.by_url = true;
        found.is_of_url = true;
        found.lines.take_over(gone.lines);
        found.acknowledged_at = now;
        found.ledger.restart_acknowledging();
        self.by_url.insert(into, &self.slots);
        Some(before)
    }
}
