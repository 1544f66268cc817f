//! Sessions and the group commit of `dump.durability = "power"`: what a sync that has ended means for them.

use log::error;

use super::{Collector, Effect, Now};
use crate::logging::value;
use crate::metrics::Tally;
use crate::reactor::slots::SlotId;
use crate::session::State;

impl Collector {
    /// What a session takes over from before a restart, or from a dump that is finished, may never have been synced. It
    /// is not named in a greeting before a sync that covers it; until then its client sends it again, in vain.
    pub(super) fn doubt(&mut self, key: SlotId) {
        if let (Some(durability), Some(session)) = (&mut self.durability, self.sessions.find_mut(key))
            && session.is_numbered()
        {
            session.ledger.doubt();
            match session.dump() {
                Some(dump) => durability.commit.appended(key, &dump.name, None, true),
                None => durability.commit.continues_finished(key),
            }
        }
    }

    /// Takes the result of a sync, and begins the next.
    pub(super) fn sync(&mut self, tally: &mut Tally, now: Now) {
        let Some(durability) = &mut self.durability else { return };
        match durability.result() {
            None => {}
            Some(Ok(())) => {
                for (key, mark) in durability.commit.end() {
                    // What was removed meanwhile was synced all the same.
                    self.give_up_removed(key, tally);
                    if let Some(session) = self.sessions.find_mut(key) {
                        session.ledger.make_durable(mark);
                        self.acknowledge(key, tally, now);
                    }
                }
            }
            Some(Err(cause)) => {
                let lost = durability.commit.fail();
                error!("dump.error err={} sessions={}", value(format!("cannot sync: {cause}")), lost.len());
                if self.sessions.forget_ended(&lost) {
                    self.rewrite_journal(now);
                }
                lost.into_iter().for_each(|key| self.sync_failed(key, tally, now));
            }
        }
        if let Some(durability) = &mut self.durability {
            let sessions = &self.sessions;
            durability.begin(|key| sessions.find(key).map(|session| session.ledger.mark()));
        }
    }

    /// The dump ends as it is: what was not synced is still in memory, and a worker that writes it elsewhere saves it if
    /// anybody can. A numbered client brings everything behind the last good sync again, for a new part, whose
    /// `continuesFrom` tells where the proven part of the old one ends.
    fn sync_failed(&mut self, key: SlotId, tally: &mut Tally, now: Now) {
        if self.sessions.find(key).is_none() {
            return;
        }
        tally.dump_sync_errors += 1;
        // No sync is to cover these lines any more.
        match self.write_out(key, tally, now) {
            Ok(_) => tally.session_errors += 1,
            Err(failure) => {
                tally.dump_write_errors += 1;
                if !self.drop_lines(key, &failure, tally, now) {
                    return;
                }
            }
        }
        let Some(session) = self.sessions.find_mut(key) else { return };
        let must_return = session.must_return();
        session.ledger.forget_unsynced();
        let was_numbered = session.is_numbered();
        if let State::Open(connection) = session.state {
            self.effects.push(Effect::SessionFailed { connection, session: key, must_return });
        }
        let by_client = self.held_end(key).unwrap_or(false);
        let Some(session) = self.sessions.finish(key, by_client, now.instant) else { return };
        if was_numbered {
            self.note_ended(&session, by_client, now);
        }
        if let Some(dump) = session.dump() {
            self.finish_dump(key, dump, Some(&session), tally, now);
        }
    }
}
