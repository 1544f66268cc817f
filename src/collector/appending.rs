//! From what sessions have gathered into the dumps, what that allows to acknowledge, and what happens when it fails.

use std::io::ErrorKind;
use std::time::Duration;

use log::Level;

use super::first_line::create_dump;
use super::{Collector, Effect, Now};
use crate::dump::AppendError;
use crate::limited;
use crate::logging::{chain, member, value};
use crate::metrics::Tally;
use crate::reactor::slots::SlotId;
use crate::session::{Departure, Farewell, Record, State};

/// An entry is acknowledged at most this long after it was appended, if no hundredth one is before that. Ours: "every few
/// seconds" (client: its buffer must not fill). Each acknowledgement costs more than receiving the entry did, and a client that
/// sends so little that this decides is far from the end of its buffer.
const ACKNOWLEDGE_INTERVAL: Duration = Duration::from_secs(8);

/// What was written of a session's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// Nothing: none were gathered.
    Nothing,
    /// More lines of its dump.
    More,
    /// The first lines of a dump that was not there before.
    NewDump,
}

impl Collector {
    /// Appends what is gathered for a session and acknowledges what has become durable. Returns whether that was
    /// possible; if not, the session has waited since, or is gone.
    pub(super) fn flush(&mut self, key: SlotId, tally: &mut Tally, now: Now) -> bool {
        if self.sessions.find(key).is_none() {
            return false;
        }
        match self.append(key, tally, now) {
            Ok(()) => {
                self.acknowledge(key, tally, now);
                true
            }
            Err(failure) => {
                self.append_failed(key, &failure, tally, now);
                false
            }
        }
    }

    /// As [`Collector::flush`], of a session that was just taken out of the queue.
    pub(super) fn flush_queued(&mut self, key: SlotId, tally: &mut Tally, now: Now) {
        if let Some(session) = self.sessions.find_mut(key) {
            session.flush_pending = false;
            self.flush(key, tally, now);
        }
    }

    /// Appends what is gathered for a session; a failure leaves it there.
    pub(super) fn append(&mut self, key: SlotId, tally: &mut Tally, now: Now) -> Result<(), AppendError> {
        let written = self.write_out(key, tally, now)?;
        let Some(session) = self.sessions.find_mut(key) else { return Ok(()) };
        let is_new = match written {
            Written::Nothing => return Ok(()),
            Written::More => false,
            Written::NewDump => true,
        };
        match (&mut self.durability, session.dump()) {
            (Some(durability), Some(dump)) => {
                let file = self.dumps.descriptor(key, dump);
                durability.commit.appended(key, &dump.name, file, is_new);
            }
            (None, _) | (_, None) => session.ledger.make_durable(session.ledger.mark()),
        }
        Ok(())
    }

    /// As [`Collector::append`], without a word to whoever makes it durable.
    pub(super) fn write_out(
        &mut self,
        key: SlotId,
        tally: &mut Tally,
        now: Now,
    ) -> Result<Written, AppendError> {
        let Some(session) = self.sessions.find_mut(key) else { return Ok(Written::Nothing) };
        if session.lines.is_empty() {
            return Ok(Written::Nothing);
        }
        let written = match &mut session.record {
            Record::Written(dump) => {
                self.dumps.append(key, dump, self.slabs.slices(&session.lines))?;
                self.bytes_in_progress += session.lines.bytes() as u64;
                Written::More
            }
            Record::Planned(_) => {
                self.create(key, tally, now)?;
                Written::NewDump
            }
        };
        if let Some(session) = self.sessions.find_mut(key) {
            session.append(&mut self.slabs);
        }
        Ok(written)
    }

    /// Creates the dump of a session, with what is gathered.
    fn create(&mut self, key: SlotId, tally: &mut Tally, now: Now) -> Result<(), AppendError> {
        self.bytes_in_progress += match self.try_to_create(key) {
            // The folder was removed, which is looked for once a second.
            Err(AppendError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                self.restore_folder(tally);
                self.try_to_create(key)?
            }
            other => other?,
        };
        let Some(session) = self.sessions.find(key) else { return Ok(()) };
        let (conn, id) = (member("conn", session.last_connection), &session.id);
        let name = session.dump().map_or("", |dump| &*dump.name);
        limited!(
            self.log_limits.create,
            now.instant,
            Level::Info,
            "dump.create{conn} session={id} dump={name}"
        );
        Ok(())
    }

    /// Returns the bytes written.
    fn try_to_create(&mut self, key: SlotId) -> Result<u64, AppendError> {
        let Some(session) = self.sessions.find_mut(key) else { return Ok(0) };
        create_dump(&mut self.dumps, &self.slabs, key, session)
    }

    pub(super) fn acknowledge(&mut self, key: SlotId, tally: &mut Tally, now: Now) {
        let Some(session) = self.sessions.find_mut(key) else { return };
        // What is said concerns the one session of the URL: the client knows no other by its numbers.
        let State::Open(connection) = session.state else { return };
        if !session.is_of_url {
            return;
        }
        let due = now.instant.saturating_duration_since(session.acknowledged_at) >= ACKNOWLEDGE_INTERVAL;
        let effects = &mut self.effects;
        let before = effects.len();
        session
            .ledger
            .take_acknowledgements(due, |number| effects.push(Effect::Acknowledge { connection, number }));
        let sent = effects.len() - before;
        tally.acknowledgements_sent += sent as u64;
        if sent > 0 {
            session.acknowledged_at = now.instant;
        }
        if session.ledger.has_unacknowledged() && !session.acknowledge_pending {
            session.acknowledge_pending = true;
            self.acknowledge_queue
                .push_back((session.acknowledged_at.max(now.instant) + ACKNOWLEDGE_INTERVAL, key));
        }
    }

    /// The file keeps what it had. A numbered client still has what is lost here, so its session waits for it; of
    /// others the gathered lines are gone and the rest of the dump becomes a job.
    fn append_failed(&mut self, key: SlotId, failure: &AppendError, tally: &mut Tally, now: Now) {
        let Some(session) = self.sessions.find(key) else { return };
        if session.is_held() {
            // It is tried again every second.
            return;
        }
        tally.dump_write_errors += 1;
        if !self.drop_lines(key, failure, tally, now) {
            return;
        }
        let Some(session) = self.sessions.find_mut(key) else { return };
        if let State::Open(connection) = session.state {
            let must_return = session.must_return();
            self.effects.push(Effect::SessionFailed { connection, session: key, must_return });
            let departure = self.sessions.leave(key, connection, Farewell::MayReturn, now.instant);
            if departure == Departure::Finish {
                self.finish(key, false, tally, now);
            }
        }
    }

    /// Drops the gathered lines of a session, which cannot be written. Whether the session is still there: with its dump it
    /// is gone, too.
    pub(super) fn drop_lines(
        &mut self,
        key: SlotId,
        failure: &AppendError,
        tally: &mut Tally,
        now: Now,
    ) -> bool {
        let Some(session) = self.sessions.find_mut(key) else { return false };
        let (conn, lost_bytes) =
            (member("conn", session.last_connection), session.drop_lines(&mut self.slabs));
        tally.session_errors += 1;
        limited!(
            self.log_limits.error,
            now.instant,
            Level::Error,
            "dump.error{conn} session={} err={} lost_bytes={lost_bytes}",
            session.id,
            value(chain(failure))
        );
        let AppendError::Io { source, .. } = failure else {
            self.dump_removed(key, tally);
            return false;
        };
        if matches!(
            source.kind(),
            ErrorKind::StorageFull | ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied
        ) {
            // Whoever comes back is refused before its greeting if nothing can be written for it.
            self.check_disk();
        }
        true
    }
}
