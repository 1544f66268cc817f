//! Sessions: who feeds them, which numbers they have, and how they end. Pure; told the time, does no I/O.
//!
//! A session is one `statsSessionId` and its dump. It is *open* while a connection feeds it and, when it has had
//! numbered entries, *waiting* after an unclean end, so that its client can come back. What has ended for good is
//! remembered for a while by id and last number. The caller ([`crate::collector`]) does what a transition asks
//! for: create, append, acknowledge, finish.
//!
//! Rules: our contract, sections 4 and 7; client: buffering, acknowledgement, reconnect.

use std::collections::{BTreeSet, VecDeque};
use std::num::NonZeroU64;
use std::time::Duration;

use crate::client::{ConnectionInfo, SessionId};
use crate::dump::DumpFile;
use crate::moment::Moment;
use crate::numbering;
use crate::reactor::slots::{SlotId, Slots};
use crate::rooms::{Kin, Rooms};
use crate::slabs::{Lines, Slabs};

mod by_url;
mod carried;
mod ended;
mod join;
mod ledger;

pub use carried::Carried;
pub use ledger::{Ledger, Mark, Verdict};

use by_url::ByUrl;
use ended::{Ended, EndedIds};

/// Entries of the waiting queue that may be stale before it is cleaned: sessions that were resumed leave one each.
const WAITING_SLACK: usize = 1024;

/// Who feeds a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// A connection does.
    Open(SlotId),
    /// Nobody does until its client comes back or `deadline` passes.
    Waiting {
        /// When it is finished without its client.
        deadline: Moment,
    },
    /// It has ended, and has last lines that could not be written. For its client and for everybody else it is finished.
    Held {
        /// When it is finished without these lines.
        deadline: Moment,
        /// Whether its client ended it.
        by_client: bool,
    },
}

impl State {
    /// When it is finished unless something happens before; `None` while it is open.
    #[must_use]
    pub fn deadline(self) -> Option<Moment> {
        match self {
            Self::Open(_) => None,
            Self::Waiting { deadline } | Self::Held { deadline, .. } => Some(deadline),
        }
    }
}

/// One session.
#[derive(Debug)]
pub struct Session {
    /// Its id: the one that its client uses now.
    pub id: SessionId,
    /// Who feeds it.
    pub state: State,
    /// Who feeds it, or did so last under this server: ties its log lines to those of the connection.
    pub last_connection: Option<SlotId>,
    /// Whether the id of a connection's URL named it, so that another such connection resumes it.
    pub by_url: bool,
    /// Whether it is the one session of its connection's URL, whose numbers are acknowledged there.
    pub is_of_url: bool,
    /// Its numbers.
    pub ledger: Ledger,
    /// Lines that are not yet appended; bounded by `dump.flush_bytes` plus one line. The last numbered entry in them is noted.
    pub lines: Lines,
    /// Its file, or what the first line there will say.
    pub record: Record,
    /// When the last entry came, for idle limits. Those of one turn of the loop are nanoseconds apart, so it also tells
    /// which one came first.
    pub last_entry: Moment,
    /// When the newest number was last acknowledged.
    pub acknowledged_at: Moment,
    /// Set when its rest may come under another id.
    kin: Option<Kin>,
    /// Whether its identity named a parent, as it does in breakout rooms.
    pub has_parent: bool,
    /// Whether its client said that it comes back, with an id that nobody knew, and has sent nothing yet.
    pub may_continue: bool,
    /// Whether it stands in the collector's queue of sessions to be flushed.
    pub flush_pending: bool,
    /// Whether it stands in the collector's queue of sessions to be acknowledged.
    pub acknowledge_pending: bool,
}

/// What a session has on disk.
#[derive(Debug)]
pub enum Record {
    /// Nothing: its file is made when the first entries are appended.
    Planned(Beginning),
    /// Its dump.
    Written(DumpFile),
}

/// What the first line of a dump says, as long as it is not written.
#[derive(Debug)]
pub struct Beginning {
    /// What its connection said about itself.
    pub info: ConnectionInfo,
    /// Server clock of the first entry, ms since 1970.
    pub started_ms: u64,
    /// The number before the first entry, when the dump does not start at 1.
    pub continues_from: Option<NonZeroU64>,
}

impl Beginning {
    fn new(info: ConnectionInfo) -> Self {
        Self { info, started_ms: 0, continues_from: None }
    }
}

impl Session {
    fn new(id: SessionId, connection: SlotId, by_url: bool, record: Record, now: Moment) -> Self {
        Self {
            id,
            state: State::Open(connection),
            last_connection: Some(connection),
            by_url,
            is_of_url: by_url,
            ledger: Ledger::default(),
            lines: Lines::default(),
            record,
            last_entry: now,
            acknowledged_at: now,
            kin: None,
            has_parent: false,
            may_continue: false,
            flush_pending: false,
            acknowledge_pending: false,
        }
    }

    /// The file, once the first entries were appended.
    #[must_use]
    pub fn dump(&self) -> Option<&DumpFile> {
        match &self.record {
            Record::Written(dump) => Some(dump),
            Record::Planned(_) => None,
        }
    }

    /// Whether this connection feeds it.
    #[must_use]
    pub fn is_fed_by(&self, connection: SlotId) -> bool {
        self.state == State::Open(connection)
    }

    /// Whether its connection must be closed when entries of it are lost, even when it carries others: a client whose
    /// numbers are acknowledged has to come back for them.
    #[must_use]
    pub fn must_return(&self) -> bool {
        self.is_of_url && self.is_numbered()
    }

    /// Whether it has ended and its last lines could not be written.
    #[must_use]
    pub fn is_held(&self) -> bool {
        matches!(self.state, State::Held { .. })
    }

    /// Whether it has had a numbered entry.
    #[must_use]
    pub fn is_numbered(&self) -> bool {
        self.ledger.received() > 0
    }

    /// Whether any entry was taken, written or not.
    #[must_use]
    pub fn has_entries(&self) -> bool {
        self.dump().is_some() || !self.lines.is_empty()
    }

    /// Takes the line that was just put at the end of `lines`, where it starts at `start`, for its number. A
    /// duplicate is taken out again.
    pub fn take_line(&mut self, start: usize, slabs: &mut Slabs) -> Verdict {
        let end = self.lines.bytes().saturating_sub(1);
        let line = slabs.slice(&self.lines, start, end);
        let Some(number) = numbering::line_number(line) else { return Verdict::Next };
        if self.ledger.received() == 0
            && number > 1
            && start == 0
            && let Record::Planned(beginning) = &mut self.record
        {
            beginning.continues_from = NonZeroU64::new(number - 1);
        }
        let previous = self.lines.noted().map(|(start, end)| slabs.slice(&self.lines, start, end));
        let verdict = self.ledger.take(number, line, previous);
        if verdict == Verdict::Duplicate {
            slabs.truncate(&mut self.lines, start);
        } else {
            self.lines.note((start, end));
        }
        verdict
    }

    /// The lines were appended. How safe that is, is for [`Ledger::make_durable`].
    pub fn append(&mut self, slabs: &mut Slabs) {
        let last = self.lines.noted().map(|(start, end)| slabs.slice(&self.lines, start, end));
        self.ledger.append(last);
        slabs.release(&mut self.lines);
    }

    /// The lines could not be appended and are dropped. Returns the bytes that are lost unless the client sends
    /// them again.
    pub fn drop_lines(&mut self, slabs: &mut Slabs) -> usize {
        self.ledger.forget_unwritten();
        slabs.release(&mut self.lines)
    }
}

/// What a connection with an id in its URL finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// Nothing known: a new session without a dump.
    Fresh(SlotId),
    /// A session that waited for its client.
    Resumed(SlotId),
    /// A session that another connection fed until now.
    TakenOver {
        /// The session.
        session: SlotId,
        /// The connection that is replaced.
        from: SlotId,
    },
    /// Its client had ended it; a reconnect is told to stop.
    Ended,
}

/// What becomes of a session that its connection left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// It is finished now.
    Finish,
    /// It waits.
    Wait,
    /// The connection does not feed it any more, or never did.
    NotTheirs,
}

/// How a connection let go of its sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// The client said that it will not come back: close code 3001.
    ForGood,
    /// Anything else.
    MayReturn,
}

/// All open and waiting sessions, and the memory of ended ones.
#[derive(Debug)]
pub struct Sessions {
    slots: Slots<Session>,
    /// The session that an id in a URL resumes or takes over.
    by_url: ByUrl,
    /// Those of breakout rooms.
    rooms: Rooms,
    /// Waiting sessions, and those that are held, by deadline. The grace is one constant, so the queue is in order; entries of sessions
    /// that were resumed meanwhile are stale and skipped.
    waiting: VecDeque<(Moment, SlotId)>,
    waiting_count: usize,
    /// Numbered ids that ended, for the grace period; bounded by a number of its own.
    ended: EndedIds,
    grace: Duration,
    waiting_max: usize,
}

impl Sessions {
    /// No sessions. `grace`: how long an unclean end is waited out and an ended id is remembered.
    #[must_use]
    pub fn new(grace: Duration, waiting_max: usize, ended_max: usize) -> Self {
        Self {
            slots: Slots::default(),
            by_url: ByUrl::default(),
            rooms: Rooms::default(),
            waiting: VecDeque::new(),
            waiting_count: 0,
            ended: EndedIds::new(ended_max),
            grace,
            waiting_max,
        }
    }

    /// Open sessions.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.slots.len() - self.waiting_count
    }

    /// Waiting sessions, those that are held among them.
    #[must_use]
    pub fn waiting_count(&self) -> usize {
        self.waiting_count
    }

    /// A session.
    #[must_use]
    pub fn find(&self, id: SlotId) -> Option<&Session> {
        self.slots.find(id)
    }

    /// A session, to change it.
    pub fn find_mut(&mut self, id: SlotId) -> Option<&mut Session> {
        self.slots.find_mut(id)
    }

    /// The ids of all sessions.
    #[must_use]
    pub fn all(&self) -> Vec<SlotId> {
        self.slots.ids().collect()
    }

    /// Whether a session of `id` is open or waiting under the id of a URL.
    #[must_use]
    pub fn is_open_or_waiting(&self, id: &SessionId) -> bool {
        self.under(id).is_some()
    }

    /// Gives memory back that a crowd of sessions needed.
    pub fn shrink(&mut self) {
        self.by_url.shrink(&self.slots);
        if self.waiting.len() < self.waiting.capacity() / 8 {
            self.waiting.shrink_to_fit();
        }
        self.ended.shrink();
    }

    /// Takes over changed settings for what happens from now on.
    pub fn reconfigure(&mut self, grace: Duration, waiting_max: usize) {
        self.grace = grace;
        self.waiting_max = waiting_max;
    }

    /// Takes a session out without remembering it.
    pub fn forget(&mut self, session: SlotId) -> Option<Session> {
        let found = self.slots.remove(session)?;
        if found.state.deadline().is_some() {
            self.waiting_count -= 1;
        }
        self.by_url.remove(&found.id, session);
        if let Some(kin) = found.kin {
            self.rooms.leave(kin, session);
        }
        Some(found)
    }

    /// A connection with `id` in its URL was upgraded.
    pub fn arrive(
        &mut self,
        connection: SlotId,
        id: &SessionId,
        is_reconnect: bool,
        info: &ConnectionInfo,
        now: Moment,
    ) -> Arrival {
        if let Some(session) = self.under(id)
            && let Some(found) = self.slots.find_mut(session)
        {
            let before = std::mem::replace(&mut found.state, State::Open(connection));
            found.last_connection = Some(connection);
            found.by_url = true;
            found.is_of_url = true;
            found.acknowledged_at = now;
            found.ledger.restart_acknowledging();
            return match before {
                State::Open(from) => Arrival::TakenOver { session, from },
                // One that is held is under no id of a URL any more.
                State::Waiting { .. } | State::Held { .. } => {
                    self.waiting_count -= 1;
                    Arrival::Resumed(session)
                }
            };
        }
        // Without `isReconnect` it is another client, or page, that happens to use the id again.
        let last = match self.ended.find(id, now).filter(|_| is_reconnect) {
            Some(ended) if ended.by_client => return Arrival::Ended,
            Some(ended) => ended.last,
            None => 0,
        };
        let session = self.open(connection, id.clone(), true, info.clone(), now);
        if let Some(found) = self.slots.find_mut(session) {
            found.ledger = Ledger::recovered(last);
            found.may_continue = is_reconnect && last == 0;
            if let Record::Planned(beginning) = &mut found.record {
                beginning.continues_from = NonZeroU64::new(last);
            }
        }
        Arrival::Fresh(session)
    }

    /// Opens a new session on `connection`: for an id that occurs in a message (`by_url` false), or for the id of the
    /// connection's URL.
    pub fn open(
        &mut self,
        connection: SlotId,
        id: SessionId,
        by_url: bool,
        info: ConnectionInfo,
        now: Moment,
    ) -> SlotId {
        let record = Record::Planned(Beginning::new(info));
        let session = self.slots.insert_with(|_| Session::new(id, connection, by_url, record, now));
        if by_url {
            self.by_url.insert(session, &self.slots);
        }
        session
    }

    /// The session that a connection with `id` in its URL would resume or take over.
    #[must_use]
    pub fn under(&self, id: &SessionId) -> Option<SlotId> {
        self.by_url.get(id, &self.slots)
    }

    /// The waiting session of `id`, when there is one.
    #[must_use]
    pub fn waiting_under(&self, id: &SessionId) -> Option<SlotId> {
        let session = self.under(id)?;
        matches!(self.slots.find(session)?.state, State::Waiting { .. }).then_some(session)
    }

    /// A dump from before a restart, with its last number, waits until `deadline`. Returns the dump when nobody can
    /// come back to it, or the id is taken by a newer session: it is to be finished.
    ///
    /// # Errors
    /// The dump, handed back.
    pub fn recover(
        &mut self,
        id: SessionId,
        last: u64,
        dump: DumpFile,
        deadline: Moment,
        now: Moment,
    ) -> Result<SlotId, DumpFile> {
        if last == 0 || self.is_open_or_waiting(&id) || deadline <= now {
            return Err(dump);
        }
        let session = self.slots.insert_with(|slot| {
            let mut session = Session::new(id, slot, true, Record::Written(dump), now);
            session.state = State::Waiting { deadline };
            session.last_connection = None;
            session.ledger = Ledger::recovered(last);
            session
        });
        self.by_url.insert(session, &self.slots);
        self.queue_waiting(session, deadline);
        Ok(session)
    }

    fn queue_waiting(&mut self, session: SlotId, deadline: Moment) {
        self.waiting_count += 1;
        if self.waiting.len() > 2 * self.waiting_count + WAITING_SLACK {
            let slots = &self.slots;
            self.waiting.retain(|(deadline, session)| {
                slots.find(*session).is_some_and(|found| found.state.deadline() == Some(*deadline))
            });
        }
        let at = self.waiting.partition_point(|(other, _)| *other <= deadline);
        self.waiting.insert(at, (deadline, session));
    }

    /// `connection` ended, or lets go of this session.
    pub fn leave(
        &mut self,
        session: SlotId,
        connection: SlotId,
        farewell: Farewell,
        now: Moment,
    ) -> Departure {
        let Some(found) = self.slots.find(session).filter(|found| found.is_fed_by(connection)) else {
            return Departure::NotTheirs;
        };
        let resumable = found.by_url || !self.is_open_or_waiting(&found.id);
        let worth_waiting = found.is_numbered() && found.has_entries();
        if farewell == Farewell::ForGood || !worth_waiting || !resumable {
            return Departure::Finish;
        }
        let deadline = now + self.grace;
        if let Some(found) = self.slots.find_mut(session) {
            found.state = State::Waiting { deadline };
            if !std::mem::replace(&mut found.by_url, true) {
                self.by_url.insert(session, &self.slots);
            }
        }
        self.queue_waiting(session, deadline);
        Departure::Wait
    }

    /// A session that was fed until now is over, but for its last lines, which are held until `deadline`.
    pub fn hold(&mut self, session: SlotId, by_client: bool, deadline: Moment, now: Moment) {
        let Some(found) = self.slots.find_mut(session) else { return };
        if found.state.deadline().is_some() {
            // Its entry in the queue is stale now.
            self.waiting_count -= 1;
        }
        found.state = State::Held { deadline, by_client };
        let (id, last, kin) = (found.id.clone(), found.ledger.received(), found.kin.take());
        self.by_url.remove(&id, session);
        if let Some(kin) = kin {
            self.rooms.leave(kin, session);
        }
        if last > 0 {
            self.remember(id, session, last, by_client, now);
        }
        self.queue_waiting(session, deadline);
    }

    /// The next waiting session whose time is up at `now`, or the oldest one while there are more than allowed. The
    /// caller finishes it.
    pub fn expired(&mut self, now: Moment) -> Option<(SlotId, Expiry)> {
        while let Some(&(deadline, session)) = self.waiting.front() {
            let waits =
                self.slots.find(session).is_some_and(|found| found.state.deadline() == Some(deadline));
            let why = if deadline <= now { Expiry::Grace } else { Expiry::Limit };
            if waits && deadline > now && self.waiting_count <= self.waiting_max {
                return None;
            }
            self.waiting.pop_front();
            if waits {
                return Some((session, why));
            }
        }
        None
    }

    /// When the next waiting session expires.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Moment> {
        self.waiting.front().map(|(deadline, _)| *deadline)
    }

    /// Takes a session out for good and, when it was numbered, remembers its id and last number.
    pub fn finish(&mut self, session: SlotId, by_client: bool, now: Moment) -> Option<Session> {
        let found = self.forget(session)?;
        // One that was held is remembered since then.
        if found.is_numbered() && !found.is_held() {
            self.remember(found.id.clone(), session, found.ledger.received(), by_client, now);
        }
        Some(found)
    }

    /// Remembers an ended id from before a restart for `rest`.
    pub fn remember_ended(&mut self, id: SessionId, last: u64, by_client: bool, rest: Duration, now: Moment) {
        let until = now + rest.min(self.grace);
        self.ended.remember(id, Ended { last, by_client, until, session: None }, now);
    }

    /// The ended ids that are remembered, with last number, whether their client ended them, and until when.
    pub fn ended(&self) -> impl Iterator<Item = (&SessionId, u64, bool, Moment)> {
        self.ended.all().map(|(id, ended)| (id, ended.last, ended.by_client, ended.until))
    }

    fn remember(&mut self, id: SessionId, session: SlotId, last: u64, by_client: bool, now: Moment) {
        let until = now + self.grace;
        self.ended.remember(id, Ended { last, by_client, until, session: Some(session) }, now);
    }

    /// These sessions have ended, or what they continue has, and nobody knows how far that is safe: who comes back begins
    /// anew. Whether any of it was remembered.
    pub fn forget_ended(&mut self, sessions: &BTreeSet<SlotId>) -> bool {
        let mut any = self.ended.forget_sessions(sessions);
        for session in sessions {
            if let Some(found) = self.slots.find(*session) {
                any |= self.ended.forget(&found.id);
            }
        }
        any
    }
}

/// Why a waiting session is finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// Its client did not come back in time.
    Grace,
    /// Too many wait.
    Limit,
}

#[cfg(test)]
mod tests;
