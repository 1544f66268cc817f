//! Sessions that go on under a new id: what [`rooms`](crate::rooms) decides, done to the table of sessions.

use std::net::IpAddr;
use std::time::Instant;

use super::{Session, Sessions, State};
use crate::client::ConnectionInfo;
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
        if found.kin.replace(kin).is_none() {
            self.rooms.enter(kin, session);
        }
    }

    /// Where a session of `kin` belongs that has nothing but its first entry, `number`. `evidence` says what the dump of
    /// another one holds of that entry; `None` when that dump is gone.
    pub fn continuation(
        &self,
        kin: Kin,
        number: u64,
        evidence: impl Fn(&Session) -> Option<Evidence>,
    ) -> Decision {
        let all: Vec<_> = self.rooms.members(kin).take(rooms::MEMBERS_MAX + 1).collect();
        if all.len() > rooms::MEMBERS_MAX {
            return Decision::Doubtful;
        }
        let member = |session: SlotId| {
            let found = self.slots.find(session)?;
            let is_waiting = matches!(found.state, State::Waiting { .. })
                && found.dump.is_some()
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

    /// `fresh`, which has its first line and nothing else, is the rest of `into`, which waits: that one takes over its
    /// connection, its line, and its id, by which alone it is known from now on. Whether it could be done.
    pub fn join(&mut self, fresh: SlotId, into: SlotId, now: Instant) -> bool {
        let can_be_joined =
            self.slots.find(into).is_some_and(|found| matches!(found.state, State::Waiting { .. }));
        let Some(gone) = can_be_joined.then(|| self.forget(fresh)).flatten() else { return false };
        let Some(found) = self.slots.find_mut(into) else { return false };
        self.waiting_count -= 1;
        if self.by_url.get(&found.id) == Some(&into) {
            self.by_url.remove(&found.id);
        }
        self.by_url.insert(gone.id.clone(), into);
        found.id = gone.id;
        found.last_connection = gone.last_connection;
        found.state = gone.state;
        found.by_url = true;
        found.is_of_url = true;
        found.lines.take_over(gone.lines);
        found.acknowledged_at = now;
        found.ledger.restart_acknowledging();
        true
    }
}
