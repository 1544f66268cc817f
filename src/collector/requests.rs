//! What a client sends: each request finds or opens its session, which gathers its line.

use std::time::Duration;

use log::Level;

use super::{Collector, Ending, FLUSHES_PER_TURN, Feeder, Now};
use crate::client::{ClientType, SessionId};
use crate::limited;
use crate::metrics::Tally;
use crate::protocol::usual::UsualEntry;
use crate::protocol::{self, Request, RequestType};
use crate::reactor::slots::SlotId;
use crate::reasons::{CloseReason, RequestFault};
use crate::session::{Record, Session, State, Verdict};

/// A session with lines in so many pieces is appended at once: the kernel takes 1024 parts in one write.
const PIECES_MAX: usize = 1000;

/// What an id means on a connection.
#[derive(Debug)]
enum Meaning {
    /// A session that it feeds.
    Live(SlotId),
    /// One that it fed until now; why it is to be closed if it carries no other.
    Lost(Ending),
    /// None.
    Nothing,
}

/// The line that was put at the end of a session's buffer last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gathered {
    /// Where it starts.
    pub(super) start: usize,
    /// Whether it is the first entry of the session.
    pub(super) is_first: bool,
}

impl Collector {
    /// Takes all requests of a text message.
    ///
    /// # Errors
    /// Why the connection is to be closed.
    pub fn text(
        &mut self,
        feeder: &mut Feeder,
        text: &str,
        tally: &mut Tally,
        now: Now,
    ) -> Result<(), Ending> {
        match self.usual_entry(feeder, text, tally, now) {
            Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(fault))) => self.refuse(feeder, fault, tally, now),
            Some(Err(ending)) => Err(ending),
            None => self.message(feeder, text.as_bytes(), tally, now),
        }
    }

    /// Takes all requests of one message.
    ///
    /// # Errors
    /// Why the connection is to be closed.
    pub fn message(
        &mut self,
        feeder: &mut Feeder,
        data: &[u8],
        tally: &mut Tally,
        now: Now,
    ) -> Result<(), Ending> {
        for request in protocol::requests(data) {
            let taken = match request {
                Ok(request) => {
                    tally.request_received(request.whole.len());
                    self.request(feeder, &request, tally, now)?
                }
                Err(fault) => Err(fault),
            };
            if let Err(fault) = taken {
                self.refuse(feeder, fault, tally, now)?;
            }
        }
        Ok(())
    }

    /// A connection is to be closed for something that its client would send again: a message that is too big, too many
    /// bad requests. When its session was resumed and met the same refusal without any progress, that would go on for
    /// ever: the session is finished and the reason becomes [`CloseReason::Hopeless`].
    pub fn refused_for(
        &mut self,
        reason: CloseReason,
        feeder: &mut Feeder,
        tally: &mut Tally,
        now: Now,
    ) -> CloseReason {
        let Some(id) = feeder.info.session_id.clone() else { return reason };
        let session = feeder.carried.find(id.as_str(), &self.sessions);
        let received =
            session.and_then(|key| self.sessions.find(key)).map_or(0, |found| found.ledger.received());
        let name = self.refused_name(feeder, &id, session);
        if !self.refusals.is_repeated(&name, received, now.instant) {
            return reason;
        }
        if let Some(session) = session {
            feeder.carried.remove(session);
            self.finish(session, true, tally, now);
        }
        CloseReason::Hopeless
    }

    /// Takes an entry of the usual shape for a session that is fed already. `None`, and nothing has happened, when it
    /// is anything else: what opens a session may displace another one, so it has to be read to its end first.
    fn usual_entry(
        &mut self,
        feeder: &mut Feeder,
        text: &str,
        tally: &mut Tally,
        now: Now,
    ) -> Option<Result<Result<(), RequestFault>, Ending>> {
        if feeder.client != ClientType::Rtcstats {
            return None;
        }
        let entry = UsualEntry::of(text)?;
        let key = feeder.carried.find(entry.id, &self.sessions)?;
        let session = self.sessions.find_mut(key).filter(|found| found.is_fed_by(feeder.connection))?;
        let is_first = !session.has_entries();
        let start = session.lines.bytes();
        if !self.slabs.write_within(&mut session.lines, entry.room(), |space| entry.write_line(space)) {
            return None;
        }
        tally.request_received(text.len());
        Some(self.gathered(feeder, key, Gathered { start, is_first }, tally, now))
    }

    fn refuse(
        &mut self,
        feeder: &mut Feeder,
        fault: RequestFault,
        tally: &mut Tally,
        now: Now,
    ) -> Result<(), Ending> {
        tally.requests_refused.add_one(fault);
        limited!(
            self.log_limits.refused,
            now.instant,
            Level::Info,
            "request.refused conn={} reason={}",
            feeder.connection,
            fault.label()
        );
        if matches!(
            fault,
            RequestFault::SessionTooBig | RequestFault::StorageError | RequestFault::TooManySessions
        ) {
            // The request is good; that it could not be kept says nothing against its sender.
            return Ok(());
        }
        let (count, max) = (feeder.count_bad_request(now.instant), self.settings.bad_requests_per_minute_max);
        if count <= max {
            return Ok(());
        }
        let text = format!(
            "{count} bad requests in a minute, at most {max} are allowed; the last one: {}",
            fault.label()
        );
        Err(Ending { reason: CloseReason::BadRequests, text: text.into() })
    }

    fn request(
        &mut self,
        feeder: &mut Feeder,
        request: &Request<'_>,
        tally: &mut Tally,
        now: Now,
    ) -> Result<Result<(), RequestFault>, Ending> {
        match request.kind {
            RequestType::Keepalive => {}
            RequestType::Close => match self.meaning(feeder, &request.id) {
                Meaning::Live(session) => {
                    feeder.carried.remove_named(session, &request.id);
                    if self.sessions.find(session).is_some_and(|found| found.is_fed_by(feeder.connection)) {
                        self.finish_gone(session, true, tally, now);
                    }
                }
                Meaning::Lost(_) | Meaning::Nothing => {}
            },
            RequestType::Identity | RequestType::StatsEntry => {
                let session = match self.meaning(feeder, &request.id) {
                    Meaning::Live(session) => session,
                    // What comes after entries that were lost must not close up to those before them.
                    Meaning::Lost(ending) if feeder.carried.len() <= 1 => return Err(ending),
                    Meaning::Lost(_) => return Ok(Err(RequestFault::StorageError)),
                    Meaning::Nothing => match self.open_session(feeder, &request.id, tally, now) {
                        Ok(session) => session,
                        Err(fault) => return Ok(Err(fault)),
                    },
                };
                return self.entry(feeder, session, request, tally, now);
            }
        }
        Ok(Ok(()))
    }

    /// What `id` means on this connection. Until the end of the turn it may still bring entries of a session that
    /// failed, or went to another connection.
    fn meaning(&self, feeder: &Feeder, id: &str) -> Meaning {
        let Some(session) = feeder.carried.find(id, &self.sessions) else {
            let is_gone = feeder.carried.is_only_gone(&self.sessions);
            let is_by_url = feeder.info.session_id.as_ref().is_some_and(|by_url| by_url.as_str() == id);
            return match (is_by_url, is_gone) {
                (true, true) => Meaning::Lost(Ending::storage()),
                (true, false) if self.has_moved_on(feeder) => {
                    Meaning::Lost(Ending::plain(CloseReason::MovedOn))
                }
                (true | false, _) => Meaning::Nothing,
            };
        };
        let Some(found) = self.sessions.find(session) else { return Meaning::Nothing };
        match found.state {
            State::Open(connection) if connection == feeder.connection => Meaning::Live(session),
            State::Open(_) if found.id.as_str() == id => Meaning::Lost(Ending::plain(CloseReason::Replaced)),
            State::Open(_) => Meaning::Lost(Ending::plain(CloseReason::MovedOn)),
            State::Waiting { .. } => Meaning::Lost(Ending::storage()),
            State::Held { .. } => Meaning::Nothing,
        }
    }

    /// Whether the session of the URL goes on under another id, on another connection.
    fn has_moved_on(&self, feeder: &Feeder) -> bool {
        let is_elsewhere = |session: &Session| {
            session.is_of_url
                && matches!(session.state, State::Open(connection) if connection != feeder.connection)
        };
        let carried = feeder.carried.all();
        carried.into_iter().filter_map(|key| self.sessions.find(key)).any(is_elsewhere)
    }

    /// Opens a session of `id` on this connection.
    fn open_session(
        &mut self,
        feeder: &mut Feeder,
        id: &str,
        tally: &mut Tally,
        now: Now,
    ) -> Result<SlotId, RequestFault> {
        let id = SessionId::parse(id).ok_or(RequestFault::BadSessionId)?;
        let max = match feeder.client {
            ClientType::Rtcstats => self.settings.sessions_per_connection_max,
            ClientType::Jigasi
            | ClientType::Jicofo
            | ClientType::Jibri
            | ClientType::Jvb
            | ClientType::Unsupported => self.settings.sessions_per_backend_connection_max,
        };
        if feeder.carried.len() >= max {
            feeder.carried.forget_gone(&self.sessions);
        }
        if feeder.carried.len() >= max {
            self.finish_longest_idle(feeder, max, tally, now);
        }
        if self.is_full() {
            return Err(RequestFault::TooManySessions);
        }
        let by_url = feeder.info.session_id.as_ref() == Some(&id) && !self.sessions.is_open_or_waiting(&id);
        let session = self.sessions.open(feeder.connection, id, by_url, feeder.info.clone(), now.instant);
        feeder.carried.add(session, &self.sessions);
        Ok(session)
    }

    fn finish_longest_idle(&mut self, feeder: &mut Feeder, max: usize, tally: &mut Tally, now: Now) {
        let Some(session) = feeder.longest_idle(&self.sessions) else { return };
        tally.sessions_displaced += 1;
        if let Some(found) = self.sessions.find(session) {
            limited!(
                self.log_limits.displaced,
                now.instant,
                Level::Warn,
                "session.displaced conn={} session={} sessions_max={max}",
                feeder.connection,
                found.id
            );
            feeder.carried.remove_named(session, found.id.as_str());
        }
        self.finish(session, false, tally, now);
    }

    fn entry(
        &mut self,
        feeder: &mut Feeder,
        key: SlotId,
        request: &Request<'_>,
        tally: &mut Tally,
        now: Now,
    ) -> Result<Result<(), RequestFault>, Ending> {
        let Some(session) = self.sessions.find_mut(key) else { return Ok(Err(RequestFault::StorageError)) };
        if !session.is_fed_by(feeder.connection) {
            // Lost to a failed append or to a newer connection earlier in this turn. Taking more would leave a hole: the
            // client is told by the effect that waits, and sends it again.
            return Ok(Ok(()));
        }
        let start = session.lines.bytes();
        let is_first = !session.has_entries();
        let written = self.slabs.write(&mut session.lines, |out| {
            protocol::write_line(request, feeder.client, now.wall_ms(), out)
        });
        if let Err(fault) = written {
            return Ok(Err(fault));
        }
        self.gathered(feeder, key, Gathered { start, is_first }, tally, now)
    }

    /// A line was put at the end of a session's buffer.
    fn gathered(
        &mut self,
        feeder: &mut Feeder,
        key: SlotId,
        line: Gathered,
        tally: &mut Tally,
        now: Now,
    ) -> Result<Result<(), RequestFault>, Ending> {
        let (key, line) = self.place(feeder, key, line, tally, now);
        let Some(session) = self.sessions.find_mut(key) else { return Ok(Err(RequestFault::StorageError)) };
        let Gathered { start, is_first } = line;
        let added = session.lines.bytes() - start;
        let size = session.dump().map_or(0, |dump| dump.size_bytes) + session.lines.bytes() as u64;
        if size > self.settings.session_bytes_max {
            self.slabs.truncate(&mut session.lines, start);
            return self.session_too_big(feeder, key, size, tally, now);
        }
        self.last_entry = now.instant.max(self.last_entry + Duration::from_nanos(1));
        session.last_entry = self.last_entry;
        if is_first && let Record::Planned(beginning) = &mut session.record {
            beginning.started_ms = now.wall_ms();
        }
        let verdict = session.take_line(start, &mut self.slabs);
        match verdict {
            Verdict::Duplicate => tally.duplicates_dropped += 1,
            Verdict::Next | Verdict::Gap(_) => {
                tally.sessions_started += u64::from(is_first);
                tally.entries_appended += 1;
                tally.entries_appended_bytes += added as u64;
            }
        }
        if let Verdict::Gap(missing) = verdict {
            tally.missing_entries += missing;
            limited!(
                self.log_limits.gap,
                now.instant,
                Level::Warn,
                "session.gap conn={} session={} missing={missing}",
                feeder.connection,
                session.id
            );
        }
        let is_full =
            session.lines.bytes() >= self.settings.flush_bytes || session.lines.pieces() >= PIECES_MAX;
        if is_full {
            self.flush(key, tally, now);
        } else if !session.flush_pending {
            session.flush_pending = true;
            self.flush_queue.enqueue(key, now.instant + self.settings.flush_interval);
        }
        // A slab is free when the last of its lines is appended; the next entry goes on if these were not enough.
        for _ in 0..FLUSHES_PER_TURN {
            if self.slabs.bytes_in_use() <= self.settings.flush_total_bytes {
                break;
            }
            let Some(oldest) = self.flush_queue.take_oldest() else { break };
            self.flush_queued(oldest, tally, now);
        }
        Ok(Ok(()))
    }

    /// A session over its size: no replay can make it fit, so a client that carries only this one is told to stop.
    fn session_too_big(
        &mut self,
        feeder: &mut Feeder,
        key: SlotId,
        size: u64,
        tally: &mut Tally,
        now: Now,
    ) -> Result<Result<(), RequestFault>, Ending> {
        let max = self.settings.session_bytes_max;
        let only_one = feeder.carried.len() == 1 && self.sessions.find(key).is_some_and(|found| found.by_url);
        if !only_one {
            // Others on this connection must not suffer, and back ends cannot stop one session: it goes on in a new part.
            // The entry that did not fit is the last that is lost.
            feeder.carried.remove(key);
            self.finish(key, false, tally, now);
            return Ok(Err(RequestFault::SessionTooBig));
        }
        tally.requests_refused.add_one(RequestFault::SessionTooBig);
        feeder.carried.remove(key);
        self.finish(key, true, tally, now);
        let text = format!("session of {size} bytes is larger than {max} bytes");
        Err(Ending { reason: CloseReason::Hopeless, text: text.into() })
    }
}
