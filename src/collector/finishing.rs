//! The end of a session: its dump becomes a job, its id a memory.

use std::io::ErrorKind;

use log::{Level, debug, error};

use super::{Collector, Effect, Now};
use crate::dump::DumpFile;
use crate::ended::EndedSession;
use crate::limited;
use crate::logging::{member, value};
use crate::metrics::Tally;
use crate::reactor::slots::SlotId;
use crate::session::{Session, State};

/// Dumps that wait to be moved to the jobs after a failure.
const UNFINISHED_MAX: usize = 10_000;

impl Collector {
    /// Finishes sessions without an entry for `sessions.idle_s`. Called every few seconds.
    pub fn finish_idle(&mut self, tally: &mut Tally, now: Now) {
        let idle = self.settings.session_idle;
        if idle.is_zero() {
            return;
        }
        for key in self.sessions.all() {
            let Some(session) = self.sessions.find(key) else { continue };
            let is_open = matches!(session.state, State::Open(_));
            if is_open
                && session.has_entries()
                && now.instant.saturating_duration_since(session.last_entry) >= idle
            {
                self.finish(key, false, tally, now);
            }
        }
    }

    /// The process is going to stop: everything is appended. Sessions that can be resumed stay where they are for the
    /// next start, all others are finished; of those that are held with what can be written now.
    pub fn shut_down(&mut self, tally: &mut Tally, now: Now) {
        for key in self.sessions.all() {
            let Some(session) = self.sessions.find(key) else { continue };
            if session.is_held() {
                self.finish_at_last(key, tally, now);
            } else if session.is_numbered() {
                self.flush(key, tally, now);
            } else {
                self.finish(key, false, tally, now);
            }
        }
    }

    /// Ends a session for good: its dump becomes a job. `by_client`: the client will not come back.
    pub(super) fn finish(&mut self, key: SlotId, by_client: bool, tally: &mut Tally, now: Now) {
        if !self.flush(key, tally, now) {
            // It has been taken care of. If it waits now, its client may still bring again what could not be written.
            return;
        }
        let Some(session) = self.sessions.finish(key, by_client, now.instant) else { return };
        if session.is_numbered() {
            self.note_ended(&session, by_client, now);
        }
        if let Some(dump) = session.dump() {
            self.finish_dump(key, dump, Some(&session), tally, now);
        }
    }

    pub(super) fn note_ended(&mut self, session: &Session, by_client: bool, now: Now) {
        let (id, last) = (session.id.clone(), session.ledger.received());
        let ended = EndedSession { id, last, by_client, until: now.wall + self.settings.reconnect_grace };
        if let Err(cause) = self.journal.append(&ended) {
            debug!("ended.write session={} err={cause:?}", session.id);
        }
        if self.journal.is_long() {
            self.rewrite_journal(now);
        }
    }

    /// `session`: whose dump it was, if that is known.
    pub(super) fn finish_dump(
        &mut self,
        owner: SlotId,
        dump: &DumpFile,
        session: Option<&Session>,
        tally: &mut Tally,
        now: Now,
    ) {
        let (size_bytes, name) = (dump.size_bytes, &dump.name);
        let conn = member("conn", session.and_then(|session| session.last_connection));
        let session = member("session", session.map(|session| &session.id));
        let mut finished = self.dumps.finish(owner, dump, now.wall);
        if finished.as_ref().is_err_and(|cause| cause.kind() == ErrorKind::NotFound)
            && self.dumps.is_there(dump)
        {
            // It is the folder of the finished ones that was removed.
            self.restore_folder(tally);
            finished = self.dumps.finish(owner, dump, now.wall);
        }
        match finished {
            Ok(job) => {
                limited!(
                    self.log_limits.finish,
                    now.instant,
                    Level::Info,
                    "dump.finish{conn}{session} dump={name} bytes={size_bytes}"
                );
                self.bytes_in_progress = self.bytes_in_progress.saturating_sub(size_bytes);
                self.effects.push(Effect::Finished(job));
            }
            Err(cause) if cause.kind() == ErrorKind::NotFound => {
                tally.dumps_removed += 1;
                error!("dump.removed{conn}{session} dump={name} lost_bytes={size_bytes}");
                self.bytes_in_progress = self.bytes_in_progress.saturating_sub(size_bytes);
            }
            Err(cause) => {
                tally.session_errors += 1;
                let err = value(format!("cannot finish: {cause}"));
                limited!(
                    self.log_limits.error,
                    now.instant,
                    Level::Error,
                    "dump.error{conn}{session} dump={name} err={err}"
                );
                if self.unfinished.len() < UNFINISHED_MAX && !self.unfinished.contains(dump) {
                    self.unfinished.push(dump.clone());
                }
            }
        }
    }
}
