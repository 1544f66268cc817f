//! Sessions: who feeds them, which numbers they have, and how they end. Pure; told the time, does no I/O.
//!
//! A session is one `statsSessionId` and its dump. It is *open* while a connection feeds it and, when it has had
//! numbered entries, *waiting* after an unclean end, so that its client can come back. What has ended for good is
//! remembered for a while by id and last number. The caller ([`crate::collector`]) does what a transition asks
//! for: create, append, acknowledge, finish.
//!
//! Rules: our contract, sections 4 and 7; client: buffering, acknowledgement, reconnect.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::client::{ConnectionInfo, SessionId};
use crate::dump::DumpFile;
use crate::numbering;
use crate::reactor::slots::{SlotId, Slots};
use crate::rooms::{Kin, Rooms};

mod join;

/// One entry in so many is acknowledged as soon as it is durable. The client's buffer spans 1000 consecutive
/// entries and shrinks only when an acknowledged number is found in it, so this must be well below 1000.
const ENTRIES_PER_MILESTONE: u32 = 100;

/// Entries of the waiting queue that may be stale before it is cleaned: sessions that were resumed leave one each.
const WAITING_SLACK: usize = 1024;

/// The watermarks of a session and what is to be acknowledged. All numbers are the client's entry numbers;
/// 0 stands for none, and `received >= appended >= durable` always.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Highest number taken; duplicates are judged by it.
    received: u64,
    /// Highest number that is written to the dump.
    appended: u64,
    /// Highest number such that it and all before it are as safe as `dump.durability` promises.
    durable: u64,
    /// Numbers to be acknowledged once durable, in order of arrival. At most one per
    /// [`ENTRIES_PER_MILESTONE`] entries and one per gap between two flushes.
    milestones: Vec<u64>,
    /// Newest durable number that may be acknowledged and is not yet; 0 = none.
    newest: u64,
    /// Newest appended number that may be acknowledged once it is durable; 0 = none.
    newest_appended: u64,
    /// Numbered entries since the last milestone.
    since_milestone: u32,
    /// Numbers that were skipped by the client, in all.
    missing: u64,
}

/// How far a session was appended at some moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    appended: u64,
    /// The newest number up to there that may be acknowledged; 0 = none.
    newest: u64,
}

/// What a number means for the session it arrived in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The next one, or the first one.
    Next,
    /// Numbers before it were never received: so many.
    Gap(u64),
    /// Taken before.
    Duplicate,
}

impl Ledger {
    /// Highest number taken.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Highest durable number: what a greeting carries.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// What `number` would mean now.
    #[must_use]
    pub fn judge(&self, number: u64) -> Verdict {
        if number <= self.received {
            Verdict::Duplicate
        } else if self.received > 0 && number > self.received + 1 {
            Verdict::Gap(number - self.received - 1)
        } else {
            Verdict::Next
        }
    }

    /// Takes a new number. `line` is the entry's array, `previous` the last numbered one when it is not yet
    /// durable: it ends the run before a gap and is acknowledged for itself.
    pub(crate) fn take(&mut self, number: u64, line: &[u8], previous: Option<&[u8]>) -> Verdict {
        let verdict = self.judge(number);
        match verdict {
            Verdict::Duplicate => {
                if numbering::is_acknowledgeable(line) {
                    if number <= self.durable {
                        self.newest = number;
                    } else if number <= self.appended {
                        self.newest_appended = number;
                    }
                    self.count_towards_milestone(number, line);
                }
                return verdict;
            }
            Verdict::Gap(missing) => {
                self.missing += missing;
                let ends_run = previous.is_some_and(numbering::is_acknowledgeable);
                if ends_run || self.newest == self.received || self.newest_appended == self.received {
                    self.add_milestone(self.received);
                }
            }
            Verdict::Next => {}
        }
        self.received = number;
        self.count_towards_milestone(number, line);
        verdict
    }

    fn count_towards_milestone(&mut self, number: u64, line: &[u8]) {
        self.since_milestone += 1;
        if self.since_milestone >= ENTRIES_PER_MILESTONE && numbering::is_acknowledgeable(line) {
            self.add_milestone(number);
            self.since_milestone = 0;
        }
    }

    /// The end of a run before a gap may have been the hundredth entry, too.
    fn add_milestone(&mut self, number: u64) {
        if self.milestones.last() != Some(&number) {
            self.milestones.push(number);
        }
    }

    /// Everything received is written. `last` is the last numbered entry among what was written now.
    pub(crate) fn append(&mut self, last: Option<&[u8]>) {
        self.appended = self.received;
        if last.is_some_and(numbering::is_acknowledgeable) {
            self.newest_appended = self.received;
        }
    }

    /// How far it is written now.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark { appended: self.appended, newest: self.newest_appended }
    }

    /// What was written at `mark` is as safe as promised.
    pub fn make_durable(&mut self, mark: Mark) {
        self.durable = self.durable.max(mark.appended);
        if mark.newest != 0 {
            self.newest = mark.newest;
        }
        if self.newest_appended == mark.newest {
            self.newest_appended = 0;
        }
    }

    /// What was received but not written is lost; the client still has it.
    fn forget_unwritten(&mut self) {
        self.received = self.appended;
        self.restart_acknowledging();
    }

    /// What was written since the last good sync counts as lost; the client still has it.
    pub fn forget_unsynced(&mut self) {
        (self.received, self.appended) = (self.durable, self.durable);
        self.restart_acknowledging();
    }

    /// Of a session that had come to `last`, as far as its dump says.
    #[must_use]
    pub fn recovered(last: u64) -> Self {
        Self { received: last, appended: last, durable: last, ..Self::default() }
    }

    /// What is written may not be safe: nobody knows whether it was synced before the crash.
    pub fn doubt(&mut self) {
        self.durable = 0;
        self.newest = 0;
    }

    /// A new connection: nothing is known of what its client still buffers.
    fn restart_acknowledging(&mut self) {
        self.milestones = Vec::new();
        (self.newest, self.newest_appended) = (0, 0);
        self.since_milestone = 0;
    }

    /// Takes the acknowledgements that may be sent now, oldest first: every durable milestone and, when `with_newest`,
    /// the newest number.
    pub fn take_acknowledgements(&mut self, with_newest: bool, mut send: impl FnMut(u64)) {
        let durable = self.durable;
        let mut last = 0;
        self.milestones.retain(|number| {
            if *number <= durable {
                last = *number;
                send(*number);
            }
            *number > durable
        });
        if self.milestones.is_empty() {
            self.milestones = Vec::new();
        }
        // Only the last entry of an append is looked at, so an older one may have been left here. Numbers never go back,
        // and a newer one has just told the client all that this one could.
        if self.newest <= last {
            self.newest = 0;
        }
        if with_newest && self.newest != 0 && self.newest <= durable {
            send(self.newest);
            self.newest = 0;
        }
    }

    /// Whether something durable waits to be acknowledged.
    #[must_use]
    pub fn has_unacknowledged(&self) -> bool {
        self.newest != 0
    }
}

/// Who feeds a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// A connection does.
    Open(SlotId),
    /// Nobody does until its client comes back or `deadline` passes.
    Waiting {
        /// When it is finished without its client.
        deadline: Instant,
    },
    /// It has ended, and has last lines that could not be written. For its client and for everybody else it is finished.
    Held {
        /// When it is finished without these lines.
        deadline: Instant,
        /// Whether its client ended it.
        by_client: bool,
    },
}

impl State {
    /// When it is finished unless something happens before; `None` while it is open.
    #[must_use]
    pub fn deadline(self) -> Option<Instant> {
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
    /// The number before the first entry, when the dump does not start at 1.
    pub continues_from: Option<u64>,
    /// Lines that are not yet appended; bounded by `dump.flush_bytes` plus one line.
    pub buffer: Vec<u8>,
    /// Where in `buffer` the last numbered entry stands.
    last_numbered: Option<(u32, u32)>,
    /// The file, once the first entries were appended.
    pub dump: Option<DumpFile>,
    /// What the first line will say; `None` once it is written.
    pub info: Option<Rc<ConnectionInfo>>,
    /// Server clock of the first entry, ms since 1970.
    pub started_ms: u64,
    /// When the last entry came, for idle limits.
    pub last_entry: Instant,
    /// Which one it was among the entries of all sessions: tells apart what came in one turn of the loop.
    pub last_entry_order: u64,
    /// When the newest number was last acknowledged.
    pub acknowledged_at: Instant,
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

impl Session {
    fn new(
        id: SessionId,
        connection: SlotId,
        by_url: bool,
        info: Option<Rc<ConnectionInfo>>,
        now: Instant,
    ) -> Self {
        Self {
            id,
            state: State::Open(connection),
            last_connection: Some(connection),
            by_url,
            is_of_url: by_url,
            ledger: Ledger::default(),
            continues_from: None,
            buffer: Vec::new(),
            last_numbered: None,
            dump: None,
            info,
            started_ms: 0,
            last_entry: now,
            last_entry_order: 0,
            acknowledged_at: now,
            kin: None,
            has_parent: false,
            may_continue: false,
            flush_pending: false,
            acknowledge_pending: false,
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
        self.ledger.received > 0
    }

    /// Whether any entry was taken, written or not.
    #[must_use]
    pub fn has_entries(&self) -> bool {
        self.dump.is_some() || !self.buffer.is_empty()
    }

    /// Takes the line that was just put at the end of `buffer`, where it starts at `start`, for its number. A
    /// duplicate is removed from the buffer again.
    pub fn take_line(&mut self, start: usize) -> Verdict {
        let end = self.buffer.len().saturating_sub(1);
        let line = self.buffer.get(start..end).unwrap_or_default();
        let Some(number) = numbering::line_number(line) else { return Verdict::Next };
        if self.ledger.received == 0 && number > 1 && self.dump.is_none() && start == 0 {
            self.continues_from = Some(number - 1);
        }
        let previous = line_at(&self.buffer, self.last_numbered);
        let verdict = self.ledger.take(number, line, previous);
        if verdict == Verdict::Duplicate {
            self.buffer.truncate(start);
        } else {
            // A buffer is flushed long before it has 4 GiB; a line that began there would go unacknowledged.
            self.last_numbered = u32::try_from(start).ok().zip(u32::try_from(end).ok());
        }
        verdict
    }

    /// The buffer was appended; it is handed back empty for reuse. How safe that is, is for [`Ledger::make_durable`].
    pub fn append(&mut self) -> Vec<u8> {
        let last = line_at(&self.buffer, self.last_numbered.take());
        self.ledger.append(last);
        std::mem::take(&mut self.buffer)
    }

    /// The buffer could not be appended and is dropped. Returns the bytes that are lost unless the client sends
    /// them again.
    pub fn drop_buffer(&mut self) -> usize {
        self.last_numbered = None;
        self.ledger.forget_unwritten();
        std::mem::take(&mut self.buffer).len()
    }
}

fn line_at(buffer: &[u8], place: Option<(u32, u32)>) -> Option<&[u8]> {
    let (from, to) = place?;
    buffer.get(usize::try_from(from).ok()?..usize::try_from(to).ok()?)
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

#[derive(Debug, Clone, Copy)]
struct Ended {
    last: u64,
    by_client: bool,
    until: Instant,
}

/// All open and waiting sessions, and the memory of ended ones.
#[derive(Debug)]
pub struct Sessions {
    slots: Slots<Session>,
    /// The session that an id in a URL resumes or takes over.
    by_url: HashMap<SessionId, SlotId>,
    /// Those of breakout rooms.
    rooms: Rooms,
    /// Waiting sessions, and those that are held, by deadline. The grace is one constant, so the queue is in order; entries of sessions
    /// that were resumed meanwhile are stale and skipped.
    waiting: VecDeque<(Instant, SlotId)>,
    waiting_count: usize,
    /// Numbered ids that ended, bounded by `ended_max`.
    ended: HashMap<SessionId, Ended>,
    ended_order: VecDeque<(Instant, SessionId)>,
    grace: Duration,
    waiting_max: usize,
    ended_max: usize,
}

impl Sessions {
    /// No sessions. `grace`: how long an unclean end is waited out and an ended id is remembered.
    #[must_use]
    pub fn new(grace: Duration, waiting_max: usize, ended_max: usize) -> Self {
        Self {
            slots: Slots::default(),
            by_url: HashMap::new(),
            rooms: Rooms::default(),
            waiting: VecDeque::new(),
            waiting_count: 0,
            ended: HashMap::new(),
            ended_order: VecDeque::new(),
            grace,
            waiting_max,
            ended_max,
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
        self.by_url.contains_key(id)
    }

    /// Gives memory back that a crowd of sessions needed.
    pub fn shrink(&mut self) {
        if self.by_url.len() < self.by_url.capacity() / 8 {
            self.by_url.shrink_to_fit();
        }
        if self.waiting.len() < self.waiting.capacity() / 8 {
            self.waiting.shrink_to_fit();
        }
        if self.ended.len() < self.ended.capacity() / 8 {
            self.ended.shrink_to_fit();
            self.ended_order.shrink_to_fit();
        }
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
        if self.by_url.get(&found.id) == Some(&session) {
            self.by_url.remove(&found.id);
        }
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
        info: &Rc<ConnectionInfo>,
        now: Instant,
    ) -> Arrival {
        if let Some(&session) = self.by_url.get(id)
            && let Some(found) = self.slots.find_mut(session)
        {
            let before = std::mem::replace(&mut found.state, State::Open(connection));
            found.last_connection = Some(connection);
            found.by_url = true;
            found.is_of_url = true;
            found.acknowledged_at = now;
            found.ledger.restart_acknowledging();
            if found.dump.is_none() && found.info.is_none() {
                found.info = Some(Rc::clone(info));
            }
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
        let last = match self.ended.get(id).filter(|ended| is_reconnect && ended.until > now) {
            Some(ended) if ended.by_client => return Arrival::Ended,
            Some(ended) => ended.last,
            None => 0,
        };
        let session = self.open(connection, id.clone(), true, Rc::clone(info), now);
        if let Some(found) = self.slots.find_mut(session) {
            found.ledger = Ledger::recovered(last);
            found.continues_from = (last > 0).then_some(last);
            found.may_continue = is_reconnect && last == 0;
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
        info: Rc<ConnectionInfo>,
        now: Instant,
    ) -> SlotId {
        let key = by_url.then(|| id.clone());
        let session = self.slots.insert_with(|_| Session::new(id, connection, by_url, Some(info), now));
        if let Some(key) = key {
            self.by_url.insert(key, session);
        }
        session
    }

    /// The session that a connection with `id` in its URL would resume or take over.
    #[must_use]
    pub fn under(&self, id: &SessionId) -> Option<SlotId> {
        self.by_url.get(id).copied()
    }

    /// The waiting session of `id`, when there is one.
    #[must_use]
    pub fn waiting_under(&self, id: &SessionId) -> Option<SlotId> {
        let session = *self.by_url.get(id)?;
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
        deadline: Instant,
        now: Instant,
    ) -> Result<SlotId, DumpFile> {
        if last == 0 || self.by_url.contains_key(&id) || deadline <= now {
            return Err(dump);
        }
        let key = id.clone();
        let session = self.slots.insert_with(|slot| {
            let mut session = Session::new(id, slot, true, None, now);
            session.state = State::Waiting { deadline };
            session.last_connection = None;
            session.ledger = Ledger::recovered(last);
            session.dump = Some(dump);
            session
        });
        self.by_url.insert(key, session);
        self.queue_waiting(session, deadline);
        Ok(session)
    }

    fn queue_waiting(&mut self, session: SlotId, deadline: Instant) {
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
        now: Instant,
    ) -> Departure {
        let Some(found) = self.slots.find_mut(session) else { return Departure::NotTheirs };
        if found.state != State::Open(connection) {
            return Departure::NotTheirs;
        }
        let resumable = found.by_url || !self.by_url.contains_key(&found.id);
        let worth_waiting = found.is_numbered() && found.has_entries();
        if farewell == Farewell::ForGood || !worth_waiting || !resumable {
            return Departure::Finish;
        }
        let deadline = now + self.grace;
        found.state = State::Waiting { deadline };
        if !found.by_url {
            found.by_url = true;
            self.by_url.insert(found.id.clone(), session);
        }
        self.queue_waiting(session, deadline);
        Departure::Wait
    }

    /// A session that was fed until now is over, but for its last lines, which are held until `deadline`.
    pub fn hold(&mut self, session: SlotId, by_client: bool, deadline: Instant, now: Instant) {
        let Some(found) = self.slots.find_mut(session) else { return };
        if found.state.deadline().is_some() {
            // Its entry in the queue is stale now.
            self.waiting_count -= 1;
        }
        found.state = State::Held { deadline, by_client };
        let (id, last, kin) = (found.id.clone(), found.ledger.received, found.kin.take());
        if self.by_url.get(&id) == Some(&session) {
            self.by_url.remove(&id);
        }
        if let Some(kin) = kin {
            self.rooms.leave(kin, session);
        }
        if last > 0 {
            self.remember(id, last, by_client, now);
        }
        self.queue_waiting(session, deadline);
    }

    /// The next waiting session whose time is up at `now`, or the oldest one while there are more than allowed. The
    /// caller finishes it.
    pub fn expired(&mut self, now: Instant) -> Option<(SlotId, Expiry)> {
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
    pub fn next_expiry(&self) -> Option<Instant> {
        self.waiting.front().map(|(deadline, _)| *deadline)
    }

    /// Takes a session out for good and, when it was numbered, remembers its id and last number.
    pub fn finish(&mut self, session: SlotId, by_client: bool, now: Instant) -> Option<Session> {
        let found = self.forget(session)?;
        // One that was held is remembered since then.
        if found.is_numbered() && !found.is_held() {
            self.remember(found.id.clone(), found.ledger.received, by_client, now);
        }
        Some(found)
    }

    /// Remembers an ended id from before a restart for `rest`.
    pub fn remember_ended(
        &mut self,
        id: SessionId,
        last: u64,
        by_client: bool,
        rest: Duration,
        now: Instant,
    ) {
        self.remember_until(id, last, by_client, now + rest.min(self.grace), now);
    }

    /// The ended ids that are remembered, with last number, whether their client ended them, and until when.
    pub fn ended(&self) -> impl Iterator<Item = (&SessionId, u64, bool, Instant)> {
        self.ended.iter().map(|(id, ended)| (id, ended.last, ended.by_client, ended.until))
    }

    fn remember(&mut self, id: SessionId, last: u64, by_client: bool, now: Instant) {
        self.remember_until(id, last, by_client, now + self.grace, now);
    }

    fn remember_until(&mut self, id: SessionId, last: u64, by_client: bool, until: Instant, now: Instant) {
        while self.ended_order.len() >= self.ended_max.max(1)
            || self.ended_order.front().is_some_and(|(until, _)| *until <= now)
        {
            let Some((until, old)) = self.ended_order.pop_front() else { break };
            if self.ended.get(&old).is_some_and(|ended| ended.until == until) {
                self.ended.remove(&old);
            }
        }
        self.ended_order.push_back((until, id.clone()));
        self.ended.insert(id, Ended { last, by_client, until });
    }
}

/// What one connection feeds. Most feed one session; a bridge feeds thousands.
#[derive(Debug, Default)]
pub enum Carried {
    /// No session yet.
    #[default]
    None,
    /// One session.
    One(SlotId),
    /// Several, by id.
    Many(Box<HashMap<SessionId, SlotId>>),
}

impl Carried {
    /// Number of sessions.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(_) => 1,
            Self::Many(map) => map.len(),
        }
    }

    /// Whether no session is fed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The session of `id` on this connection.
    #[must_use]
    pub fn find(&self, id: &str, sessions: &Sessions) -> Option<SlotId> {
        match self {
            Self::None => None,
            Self::One(only) => {
                sessions.find(*only).is_some_and(|found| found.id.as_str() == id).then_some(*only)
            }
            Self::Many(map) => map.get(id).copied().filter(|key| sessions.find(*key).is_some()),
        }
    }

    /// Whether it carries one session, which is gone.
    #[must_use]
    pub fn is_only_gone(&self, sessions: &Sessions) -> bool {
        match self {
            Self::One(only) => sessions.find(*only).is_none(),
            Self::None | Self::Many(_) => false,
        }
    }

    /// Adds a session; an earlier one of the same id is replaced.
    pub fn add(&mut self, session: SlotId, sessions: &Sessions) {
        let Some(id) = sessions.find(session).map(|found| found.id.clone()) else { return };
        match self {
            Self::None => *self = Self::One(session),
            Self::One(only) => {
                let mut map = HashMap::new();
                if let Some(first) = sessions.find(*only) {
                    map.insert(first.id.clone(), *only);
                }
                map.insert(id, session);
                *self = Self::Many(Box::new(map));
            }
            Self::Many(map) => {
                map.insert(id, session);
            }
        }
    }

    /// Lets go of sessions that are no more.
    pub fn forget_gone(&mut self, sessions: &Sessions) {
        match self {
            Self::None => {}
            Self::One(only) if sessions.find(*only).is_some() => {}
            Self::One(_) => *self = Self::None,
            Self::Many(map) => map.retain(|_, key| sessions.find(*key).is_some()),
        }
    }

    /// Lets go of a session.
    pub fn remove(&mut self, session: SlotId) {
        match self {
            Self::None => {}
            Self::One(only) if *only == session => *self = Self::None,
            Self::One(_) => {}
            Self::Many(map) => map.retain(|_, other| *other != session),
        }
    }

    /// As [`Carried::remove`], by its id, which does not look at all the others.
    pub fn remove_named(&mut self, session: SlotId, id: &str) {
        match self {
            Self::None | Self::One(_) => self.remove(session),
            Self::Many(map) => {
                if map.get(id) == Some(&session) {
                    map.remove(id);
                }
            }
        }
    }

    /// All sessions.
    #[must_use]
    pub fn all(&self) -> Vec<SlotId> {
        match self {
            Self::None => Vec::new(),
            Self::One(only) => vec![*only],
            Self::Many(map) => map.values().copied().collect(),
        }
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
mod tests {
    use super::*;
    use crate::client::Agent;
    /// A seeded generator (SplitMix64), so that a failing run can be played again.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, n: u64) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)) % n
        }

        fn one_in(&mut self, n: u64) -> bool {
            self.below(n) == 0
        }
    }

    const GRACE: Duration = Duration::from_secs(600);

    fn start() -> Instant {
        #[expect(
            clippy::disallowed_methods,
            reason = "an Instant can be had from the clock only; tests add to it"
        )]
        Instant::now()
    }

    fn info() -> Rc<ConnectionInfo> {
        Rc::new(ConnectionInfo {
            path: "/".into(),
            agent: Rc::new(Agent {
                origin: "".into(),
                user_agent: "".into(),
                client_protocol: "3.1_STANDARD".into(),
                stats_format: "unsupported",
                client_type: "RTCSTATS_CLIENT",
            }),
            claims: None,
        })
    }

    fn id(text: &str) -> SessionId {
        SessionId::parse(text).expect("a valid id")
    }

    fn connection(index: u32) -> SlotId {
        SlotId { index, generation: 1 }
    }

    fn line(number: u64) -> String {
        format!("[\"t\",null,null,1700000000000,{number}]\n")
    }

    fn take(session: &mut Session, number: u64) -> Verdict {
        let at = session.buffer.len();
        session.buffer.extend_from_slice(line(number).as_bytes());
        session.take_line(at)
    }

    /// Appends as under `dump.durability = "process"`.
    fn settle(session: &mut Session) -> Vec<u8> {
        let buffer = session.append();
        session.ledger.make_durable(session.ledger.mark());
        buffer
    }

    fn acknowledged(session: &mut Session, with_newest: bool) -> Vec<u64> {
        let mut numbers = Vec::new();
        session.ledger.take_acknowledgements(with_newest, |number| numbers.push(number));
        numbers
    }

    #[test]
    fn every_hundredth_entry_is_acknowledged_once_durable() {
        let mut sessions = Sessions::new(GRACE, 10, 10);
        let key = sessions.open(connection(1), id("a"), true, info(), start());
        let session = sessions.find_mut(key).expect("open");
        for number in 1..=350 {
            assert_eq!(take(session, number), Verdict::Next);
        }
        assert_eq!(acknowledged(session, true), [0_u64; 0], "nothing is durable yet");
        settle(session);
        assert_eq!(acknowledged(session, false), [100, 200, 300]);
        assert_eq!(acknowledged(session, true), [350]);
        assert_eq!(acknowledged(session, true), [0_u64; 0]);
    }

    #[test]
    fn duplicates_are_dropped_and_acknowledged_again() {
        let mut sessions = Sessions::new(GRACE, 10, 10);
        let key = sessions.open(connection(1), id("a"), true, info(), start());
        let session = sessions.find_mut(key).expect("open");
        for number in 1..=300 {
            take(session, number);
        }
        let written = settle(session);
        acknowledged(session, true);
        for number in 51..=260 {
            assert_eq!(take(session, number), Verdict::Duplicate);
        }
        assert_eq!(session.buffer, b"");
        assert_eq!(acknowledged(session, true), [150, 250, 260]);
        assert_eq!(written.iter().filter(|byte| **byte == b'\n').count(), 300);
    }

    #[test]
    fn an_older_number_is_never_acknowledged_after_a_newer_one() {
        let mut sessions = Sessions::new(GRACE, 10, 10);
        let key = sessions.open(connection(1), id("a"), true, info(), start());
        let session = sessions.find_mut(key).expect("open");
        take(session, 1);
        settle(session);
        for number in 2..=150 {
            take(session, number);
        }
        // The last entry of the append cannot be acknowledged, so the newest number is still the one from before.
        let at = session.buffer.len();
        session.buffer.extend_from_slice(b"[\"t\",null,1700000000000,151]\n");
        session.take_line(at);
        settle(session);
        assert_eq!(acknowledged(session, true), [100]);
        assert_eq!(acknowledged(session, true), [0_u64; 0]);
    }

    #[test]
    fn a_milestone_before_a_gap_is_acknowledged_once() {
        let mut sessions = Sessions::new(GRACE, 10, 10);
        let key = sessions.open(connection(1), id("a"), true, info(), start());
        let session = sessions.find_mut(key).expect("open");
        for number in 1..=100 {
            take(session, number);
        }
        take(session, 200);
        settle(session);
        assert_eq!(acknowledged(session, true), [100, 200]);
    }

    #[test]
    fn before_a_gap_the_last_number_is_acknowledged() {
        let mut sessions = Sessions::new(GRACE, 10, 10);
        let key = sessions.open(connection(1), id("a"), true, info(), start());
        let session = sessions.find_mut(key).expect("open");
        take(session, 1);
        take(session, 2);
        assert_eq!(take(session, 10), Verdict::Gap(7));
        settle(session);
        assert_eq!(acknowledged(session, true), [2, 10]);
        // The same across a flush.
        assert_eq!(take(session, 20), Verdict::Gap(9));
        settle(session);
        assert_eq!(acknowledged(session, true), [20]);
        take(session, 21);
        settle(session);
        assert_eq!(take(session, 30), Verdict::Gap(8));
        settle(session);
        assert_eq!(acknowledged(session, true), [21, 30]);
    }

    #[test]
    fn an_entry_without_its_number_at_element_4_is_never_acknowledged() {
        let mut sessions = Sessions::new(GRACE, 10, 10);
        let key = sessions.open(connection(1), id("a"), true, info(), start());
        let session = sessions.find_mut(key).expect("open");
        for number in 1..=250_u64 {
            let at = session.buffer.len();
            session.buffer.extend_from_slice(format!("[\"t\",null,1700000000000,{number}]\n").as_bytes());
            assert_eq!(session.take_line(at), Verdict::Next);
        }
        settle(session);
        assert_eq!(acknowledged(session, true), [0_u64; 0]);
        assert_eq!(session.ledger.durable(), 250);
    }

    #[test]
    fn what_a_connection_with_an_id_finds() {
        let now = start();
        let mut sessions = Sessions::new(GRACE, 10, 10);
        let Arrival::Fresh(key) = sessions.arrive(connection(1), &id("a"), false, &info(), now) else {
            panic!("an unknown id is fresh");
        };
        take(sessions.find_mut(key).expect("open"), 1);
        let taken = sessions.arrive(connection(2), &id("a"), true, &info(), now);
        assert_eq!(taken, Arrival::TakenOver { session: key, from: connection(1) });
        assert_eq!(sessions.leave(key, connection(1), Farewell::MayReturn, now), Departure::NotTheirs);
        assert_eq!(sessions.leave(key, connection(2), Farewell::MayReturn, now), Departure::Wait);
        assert_eq!((sessions.open_count(), sessions.waiting_count()), (0, 1));
        assert_eq!(sessions.arrive(connection(3), &id("a"), true, &info(), now), Arrival::Resumed(key));
        assert_eq!(sessions.leave(key, connection(3), Farewell::ForGood, now), Departure::Finish);
        sessions.finish(key, true, now);
        assert_eq!(sessions.arrive(connection(4), &id("a"), true, &info(), now), Arrival::Ended);
        let later = now + GRACE;
        assert!(matches!(sessions.arrive(connection(4), &id("a"), true, &info(), later), Arrival::Fresh(_)));
    }

    #[test]
    fn a_client_that_comes_too_late_starts_where_it_was() {
        let now = start();
        let mut sessions = Sessions::new(GRACE, 10, 10);
        let Arrival::Fresh(key) = sessions.arrive(connection(1), &id("a"), false, &info(), now) else {
            panic!("an unknown id is fresh");
        };
        take(sessions.find_mut(key).expect("open"), 7);
        sessions.leave(key, connection(1), Farewell::MayReturn, now);
        assert_eq!(sessions.expired(now), None);
        assert_eq!(sessions.expired(now + GRACE), Some((key, Expiry::Grace)));
        sessions.finish(key, false, now + GRACE);
        let Arrival::Fresh(again) = sessions.arrive(connection(2), &id("a"), true, &info(), now + GRACE)
        else {
            panic!("it is a new session");
        };
        let session = sessions.find(again).expect("open");
        assert_eq!((session.ledger.durable(), session.continues_from), (7, Some(7)));
    }

    #[test]
    fn over_the_limit_the_oldest_waiting_session_ends_first() {
        let now = start();
        let mut sessions = Sessions::new(GRACE, 2, 10);
        let mut keys = Vec::new();
        for n in 0..3_u32 {
            let at = now + Duration::from_secs(u64::from(n));
            let key = sessions.open(connection(n), id(&format!("s{n}")), true, info(), at);
            take(sessions.find_mut(key).expect("open"), 1);
            sessions.leave(key, connection(n), Farewell::MayReturn, at);
            keys.push(key);
        }
        assert_eq!(sessions.expired(now + Duration::from_secs(3)), Some((keys[0], Expiry::Limit)));
        sessions.finish(keys[0], false, now);
        assert_eq!(sessions.expired(now + Duration::from_secs(3)), None);
    }

    /// The browser client as its rules say: numbers from 1, a replay buffer of 1000 that holds what was sent, too,
    /// and shrinks only when an acknowledged number is found in it.
    #[derive(Default)]
    struct Client {
        next: u64,
        buffer: VecDeque<u64>,
        may_send: bool,
        /// Traced while the buffer was full and the gate shut: nothing can bring them back.
        lost: Vec<u64>,
    }

    impl Client {
        fn trace(&mut self) -> Option<u64> {
            self.next += 1;
            if self.buffer.len() < 1000 {
                self.buffer.push_back(self.next);
            } else if !self.may_send {
                self.lost.push(self.next);
            }
            self.may_send.then_some(self.next)
        }

        fn hear(&mut self, value: u64, is_initial: bool) -> Vec<u64> {
            if let Some(at) = self.buffer.iter().position(|number| *number == value) {
                self.buffer.drain(..=at);
            }
            if !is_initial {
                return Vec::new();
            }
            self.may_send = true;
            self.buffer.iter().copied().collect()
        }
    }

    /// One client, one session, a network that cuts at any moment, a disk that forgets what was not appended when the
    /// server dies. After every step: the file holds rising numbers, and everything acknowledged is in it.
    fn play(seed: u64) {
        let mut dice = Dice(seed);
        let mut now = start();
        let mut sessions = Sessions::new(GRACE, 10, 10);
        let mut client = Client::default();
        let mut file: Vec<u64> = Vec::new();
        let mut wire: VecDeque<u64> = VecDeque::new();
        let mut unprotected: Vec<u64> = Vec::new();
        let mut at: Option<(SlotId, SlotId)> = None;
        let mut connections = 0;
        let quiet_from = 4_000;
        for step in 0..5_000 {
            let is_calm = step >= quiet_from;
            now += Duration::from_millis(dice.below(300));
            assert!(file.is_sorted_by(|a, b| a < b), "seed {seed}, step {step}: not in order, or twice");
            if at.is_none() && (is_calm || dice.one_in(10)) {
                connections += 1;
                let (connection, is_reconnect) = (connection(connections), connections > 1);
                let key = match sessions.arrive(connection, &id("a"), is_reconnect, &info(), now) {
                    Arrival::Fresh(key) | Arrival::Resumed(key) | Arrival::TakenOver { session: key, .. } => {
                        key
                    }
                    Arrival::Ended => panic!("seed {seed}: nobody ended it"),
                };
                let session = sessions.find_mut(key).expect("open");
                append(&mut file, &settle(session));
                let initial = session.ledger.durable();
                assert!(
                    initial == 0 || file.binary_search(&initial).is_ok(),
                    "seed {seed}: greeted with {initial}"
                );
                wire.extend(client.hear(initial, true));
                at = Some((connection, key));
            }
            match dice.below(if is_calm { 90 } else { 100 }) {
                0..50 if !is_calm => {
                    for _ in 0..=dice.below(3) {
                        let protected = client.buffer.len() < 1000;
                        let sent = client.trace();
                        wire.extend(sent);
                        if !protected {
                            unprotected.extend(sent);
                        }
                    }
                }
                0..80 => {
                    let Some((_, key)) = at else { continue };
                    for _ in 0..dice.below(200) {
                        let Some(number) = wire.pop_front() else { break };
                        take(sessions.find_mut(key).expect("open"), number);
                    }
                }
                80..90 => {
                    let Some((_, key)) = at else { continue };
                    let session = sessions.find_mut(key).expect("open");
                    append(&mut file, &settle(session));
                    for number in acknowledged(session, dice.one_in(2)) {
                        assert!(
                            file.binary_search(&number).is_ok(),
                            "seed {seed}: {number} was acknowledged and is not in the file"
                        );
                        client.hear(number, false);
                    }
                }
                90..95 => {
                    // The network cuts; the server may learn of it only when the client comes back.
                    wire.clear();
                    client.may_send = false;
                    let Some((connection, key)) = at.take() else { continue };
                    if dice.one_in(2)
                        && sessions.leave(key, connection, Farewell::MayReturn, now) == Departure::Wait
                    {
                        append(&mut file, &settle(sessions.find_mut(key).expect("waits")));
                    }
                }
                95 => {
                    // The server dies: what is in the file is all that is left.
                    wire.clear();
                    client.may_send = false;
                    at = None;
                    sessions = Sessions::new(GRACE, 10, 10);
                    if let Some(last) = file.last() {
                        let dump = DumpFile::found("a", 0, 0, (0, 0));
                        sessions.recover(id("a"), *last, dump, now + GRACE, now).expect("it waits");
                    }
                }
                _ => {}
            }
        }
        let (_, key) = at.expect("calm at the end");
        for number in wire {
            take(sessions.find_mut(key).expect("open"), number);
        }
        append(&mut file, &settle(sessions.find_mut(key).expect("open")));
        let missing: Vec<u64> = (1..=client.next)
            .filter(|number| file.binary_search(number).is_err())
            .filter(|number| !client.lost.contains(number) && !unprotected.contains(number))
            .collect();
        assert_eq!(missing, [0_u64; 0], "seed {seed}: the client could still have sent these");
    }

    fn append(file: &mut Vec<u64>, bytes: &[u8]) {
        let lines = std::str::from_utf8(bytes).expect("text").lines();
        file.extend(lines.map(|line| numbering::line_number(line.as_bytes()).expect("numbered")));
    }

    #[test]
    fn whatever_the_network_and_the_server_do_nothing_is_missing_twice_or_out_of_order() {
        for seed in 0..60 {
            play(seed);
        }
    }
}
