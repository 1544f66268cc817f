//! What an earlier server left: dumps that wait for their clients or become jobs, and the memory of ended sessions.
//!
//! The folder is scanned by a thread of its own ([`crate::leftovers`]); what it has found is taken up here, a part per
//! turn, or at once when its client is back before. Rules: our contract, section 4.

use std::time::{Duration, SystemTime};

use log::{debug, warn};

use super::{Collector, Now};
use crate::client::SessionId;
use crate::dump::DumpFile;
use crate::ended::EndedSession;
use crate::leftovers::Leftovers;
use crate::logging::value;
use crate::metrics::Tally;
use crate::reactor::slots::SlotId;
use crate::recovery::Recovered;
use crate::session::Session;

/// Dumps of an earlier server that are taken up in one turn at most; one that is finished at once costs about 100 us.
pub(super) const LEFTOVERS_PER_TURN: usize = 64;

impl Collector {
    /// Remembers the sessions that ended under an earlier server, as it would. Called once, before the first client.
    pub fn remember_ended(&mut self, now: Now) {
        let ended = self.journal.read(now.wall).unwrap_or_else(|cause| {
            warn!("ended.read err={}: clients that come late may fill a second dump", value(cause));
            Vec::new()
        });
        for EndedSession { id, last, by_client, until } in ended {
            let rest = until.duration_since(now.wall).unwrap_or_default();
            self.sessions.remember_ended(id, last, by_client, rest, now.instant);
        }
        if !self.journal.is_empty() {
            self.rewrite_journal(now);
        }
    }

    pub(super) fn rewrite_journal(&mut self, now: Now) {
        let all = self.sessions.ended().filter_map(|(id, last, by_client, until)| {
            let rest = until.checked_duration_since(now.instant)?;
            Some(EndedSession { id: id.clone(), last, by_client, until: now.wall + rest })
        });
        if let Err(cause) = self.journal.rewrite(all) {
            warn!("ended.write err={}: clients that come late may fill a second dump", value(cause));
        }
    }

    /// While the dump folder is still being scanned, a client that comes back finds its own dump all the same.
    pub(super) fn recover_before_scan(&mut self, id: &SessionId, tally: &mut Tally, now: Now) {
        if self.sessions.is_open_or_waiting(id) {
            return;
        }
        if let Some(leftovers) = self.dumps.leftovers_mut() {
            for dump in leftovers.claim_session(id) {
                tally.orphans_recovered += 1;
                self.recover(dump, tally, now);
            }
        }
    }

    /// Takes up at most so many of the dumps that an earlier server left, as far as they are known by now. Returns
    /// whether there may be more.
    pub(super) fn recover_leftovers(&mut self, dumps_max: usize, tally: &mut Tally, now: Now) -> bool {
        for _ in 0..dumps_max {
            let Some(dump) = self.dumps.leftovers_mut().and_then(Leftovers::take_next) else { return false };
            tally.orphans_recovered += 1;
            self.recover(dump, tally, now);
        }
        true
    }

    /// A dump of an earlier server: waits for its client when that can still come back, else it is finished.
    fn recover(&mut self, found: Recovered, tally: &mut Tally, now: Now) {
        let dump = DumpFile::found(&found.name, found.part, found.size_bytes, (found.device, found.inode));
        self.bytes_in_progress += found.size_bytes;
        let rest =
            rest_of_grace(self.settings.reconnect_grace, found.modified, self.last_heartbeat, now.wall);
        let number = found.last_number.unwrap_or(0);
        let Some(id) = SessionId::parse(&found.id) else {
            return self.finish_leftover(&dump, tally, now);
        };
        if let Some(other) = self.sessions.waiting_under(&id) {
            // Only the newest part of a session can go on.
            let part = self.sessions.find(other).and_then(Session::dump).map(|dump| dump.part);
            if number > 0 && part < Some(found.part) {
                self.finish(other, false, tally, now);
            }
        }
        match self.sessions.recover(id, number, dump, now.instant + rest, now.instant) {
            Ok(session) => {
                debug!("session.recover session={session} received={number} rest_s={}", rest.as_secs());
                self.doubt(session);
            }
            Err(dump) => self.finish_leftover(&dump, tally, now),
        }
    }

    pub(super) fn finish_leftover(&mut self, dump: &DumpFile, tally: &mut Tally, now: Now) {
        // It is in no slot, so it can have no descriptor.
        let owner = SlotId { index: u32::MAX, generation: 0 };
        self.finish_dump(owner, dump, None, tally, now);
    }
}

/// How much longer a dump waits for its client after a restart (our contract, section 4): the grace counts from its
/// last write or the server's last sign of life, whichever is later, and ends at the latest four times the grace after
/// the last write. A clock that was set back cannot make it longer than the whole grace.
fn rest_of_grace(
    grace: Duration,
    last_write: SystemTime,
    last_heartbeat: Option<SystemTime>,
    now: SystemTime,
) -> Duration {
    let since = |time: SystemTime| now.duration_since(time).unwrap_or_default();
    let waited = last_heartbeat.map_or(since(last_write), |beat| since(beat).min(since(last_write)));
    grace.saturating_sub(waited).min((grace * 4).saturating_sub(since(last_write)))
}
