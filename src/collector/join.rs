//! A session that began in the middle, under an unknown id: looks for the one that it continues.

use std::sync::Arc;

use log::Level;

use super::requests::Gathered;
use super::{Collector, Effect, Feeder, Now};
use crate::client::{ClientType, SessionId};
use crate::limited;
use crate::metrics::Tally;
use crate::numbering;
use crate::reactor::slots::SlotId;
use crate::reasons::JoinedBy;
use crate::rooms::{self, Decision, Evidence};
use crate::session::{Record, Session, State};

impl Collector {
    /// The session that takes `line`, which stands in the buffer of `key`, and where it stands there: another one when
    /// `key` turns out to be the rest of it.
    pub(super) fn place(
        &mut self,
        feeder: &mut Feeder,
        key: SlotId,
        line: Gathered,
        tally: &mut Tally,
        now: Now,
    ) -> (SlotId, Gathered) {
        // Other dialects record their requests with the id in them, which in a joined dump would be a wrong one.
        let Some(session) = self.sessions.find_mut(key).filter(|_| feeder.client == ClientType::Rtcstats)
        else {
            return (key, line);
        };
        let may_continue = std::mem::take(&mut session.may_continue) && line.is_first;
        let names_parent = session.is_of_url
            && !session.has_parent
            && rooms::names_parent(self.slabs.slice(&session.lines, line.start, session.lines.bytes()));
        session.has_parent |= names_parent;
        if may_continue && let Some(joined) = self.join(feeder, key, tally, now) {
            return joined;
        }
        if names_parent {
            let kin = self.sessions.kin_of(&feeder.info, feeder.address);
            self.sessions.enter_room(key, kin);
        }
        (key, line)
    }

    /// The first line of `fresh`, whose client said that it comes back, has come. Returns the session that it is the rest
    /// of, with that line.
    fn join(
        &mut self,
        feeder: &mut Feeder,
        fresh: SlotId,
        tally: &mut Tally,
        now: Now,
    ) -> Option<(SlotId, Gathered)> {
        let session = self.sessions.find(fresh)?;
        let line = self.slabs.slice(&session.lines, 0, session.lines.bytes()).strip_suffix(b"\n")?;
        let number = numbering::entry_number(line)?;
        let kin = self.sessions.kin_of(&feeder.info, feeder.address);
        let mut left = rooms::PROOF_BYTES_IN_ALL_MAX;
        let evidence = |other: &Session| self.evidence(other, number, line, &mut left);
        let decision = match self.sessions.continuation(kin, number, evidence) {
            // Whoever else fits may be known to another server.
            Decision::Join(_, JoinedBy::Number) if !self.settings.join_by_number => Decision::Doubtful,
            decision @ (Decision::Join(..) | Decision::Alone | Decision::Doubtful) => decision,
        };
        if decision == Decision::Doubtful {
            tally.sessions_unjoined += 1;
            let (conn, id) = (feeder.connection, &session.id);
            limited!(
                self.log_limits.join,
                now.instant,
                Level::Info,
                "session.unjoined conn={conn} session={id} first={number}"
            );
        }
        let Decision::Join(into, by) = decision else {
            // Whoever begins in the middle under a new id will do so again.
            if number > 1 {
                self.sessions.enter_room(fresh, kin);
            }
            return None;
        };
        // The old connection may have brought something just before it broke.
        if !self.flush(into, tally, now) {
            return None;
        }
        let before = self.sessions.join(fresh, into, now.instant)?;
        if let State::Open(connection) = before {
            self.effects.push(Effect::MovedOn { connection });
        }
        feeder.carried.remove(fresh);
        feeder.carried.add(into, &self.sessions);
        tally.sessions_joined.add_one(by);
        let joined = self.sessions.find(into)?;
        limited!(
            self.log_limits.join,
            now.instant,
            Level::Info,
            "session.join conn={} session={} dump={} received={} first={number} by={}",
            feeder.connection,
            joined.id,
            joined.dump().map_or("", |dump| &*dump.name),
            joined.ledger.received(),
            by.label()
        );
        Some((into, Gathered { start: 0, is_first: false }))
    }

    /// What a session is known by when its client meets a refusal again, perhaps under another id: its dump, or, as long as
    /// it may be the rest of another one, what it has in common with that.
    pub(super) fn refused_name(&self, feeder: &Feeder, id: &SessionId, session: Option<SlotId>) -> Arc<str> {
        let found = session.and_then(|session| self.sessions.find(session));
        match found {
            Some(Session { record: Record::Written(dump), .. }) => Arc::clone(&dump.name),
            Some(found) if found.may_continue => {
                format!("{:?}", self.sessions.kin_of(&feeder.info, feeder.address)).into()
            }
            Some(_) | None => id.share(),
        }
    }

    /// What the dump of `other` says about entry `number`; `None` when it is gone. `left`: bytes that may still be read.
    fn evidence(&self, other: &Session, number: u64, line: &[u8], left: &mut u64) -> Option<Evidence> {
        let Some(dump) = other.dump() else { return Some(Evidence::Unknown) };
        if other.ledger.received() < number {
            return self.dumps.is_there(dump).then_some(Evidence::Unknown);
        }
        match rooms::search(|bytes_max| self.dumps.tail(dump, bytes_max), left, number, line)? {
            // What is gathered is not in the dump yet, and may be what is missing there.
            Evidence::Different if !other.lines.is_empty() => Some(Evidence::Unknown),
            told @ (Evidence::Same | Evidence::Different | Evidence::Unknown) => Some(told),
        }
    }
}
