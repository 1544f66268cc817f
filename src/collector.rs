//! The record keeper: takes the requests of all connections, keeps sessions and their dumps.
//!
//! Owns [`Sessions`] (who feeds what, numbers) and [`DumpStore`] (files) and does for the one what it needs of the
//! other. Names no socket: a connection is its slot id. What concerns the outside (acknowledge, close, a finished
//! dump) is left in [`Collector::take_effects`] for the reactor.
//!
//! Entries are gathered per session and appended at latest `dump.flush_interval_ms` after the first of them, at
//! `dump.flush_bytes`, and at once when the session ends or changes hands. What is not appended is not acknowledged,
//! so gathering costs a numbered client nothing; for others it is what a crash can lose.
//!
//! Bounds: sessions by `limits.*`; gathered bytes per session by `dump.flush_bytes` plus one message; what is held of
//! clients that are gone by a number of its own (`held`); the effects by what one turn of the loop can cause.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use log::{Level, debug, error, warn};
use serde::Serialize;

use crate::auth::Claims;
use crate::client::{Agents, ClientType, ConnectionInfo, SessionId};
use crate::dump::{AppendError, DumpFile, DumpStore};
use crate::durability::Durability;
use crate::ended::{EndedJournal, EndedSession};
use crate::jobs::Job;
use crate::leftovers::Leftovers;
use crate::limited;
use crate::logging::{RateLimit, chain, member, value};
use crate::metrics::{Tally, WaitingEnd};
use crate::protocol::usual::UsualEntry;
use crate::protocol::{self, Request, RequestType};
use crate::reactor::slots::SlotId;
use crate::reasons::{CloseReason, RequestFault};
use crate::recovery::Recovered;
use crate::session::{Arrival, Carried, Departure, Expiry, Farewell, Session, Sessions, State, Verdict};

mod disk;
mod held;
mod join;
mod refusals;

use disk::Disk;
use held::HeldSessions;
use refusals::Refusals;

/// The newest number of a session is acknowledged at least this often while there is anything new. Ours: "every few
/// seconds" (client: its buffer must not fill).
const ACKNOWLEDGE_INTERVAL: Duration = Duration::from_secs(3);
/// Sessions that are flushed or acknowledged in one turn at most, so that a thousand due at once (a flush costs about
/// 10 us) cannot hold up the sockets.
const FLUSHES_PER_TURN: usize = 128;
/// Sessions whose deadlines are as close as this are flushed together, at the last of them: so the loop wakes up once
/// for all, and the next line of a client that sends one each interval goes into the same append.
const FLUSH_GROUP: Duration = Duration::from_millis(20);
/// Dumps of an earlier server that are taken up in one turn at most; one that is finished at once costs about 100 us.
const LEFTOVERS_PER_TURN: usize = 64;
/// Places in queues that are kept when there is nothing in them.
const QUEUE_KEPT: usize = 256;
/// Free append buffers that are kept for reuse.
const SPARE_BUFFERS_MAX: usize = 64;
/// Largest append buffer that is kept for reuse.
const SPARE_BUFFER_BYTES_MAX: usize = 256 * 1024;
/// Lines of one kind that peers can cause per second. A busy server opens tens of sessions a second.
pub const LINES_PER_S: u32 = 100;
/// Dumps that wait to be moved to the jobs after a failure.
const UNFINISHED_MAX: usize = 10_000;
/// Ended ids that are remembered.
const REMEMBERED_MAX: usize = 100_000;

/// What bounds and times the collector; see the configuration keys of the same names.
#[derive(Debug, Clone)]
pub struct CollectorSettings {
    /// `dump.flush_interval_ms`
    pub flush_interval: Duration,
    /// `dump.flush_bytes`
    pub flush_bytes: usize,
    /// `dump.min_free_bytes`
    pub min_free_bytes: u64,
    /// `sessions.reconnect_grace_s`
    pub reconnect_grace: Duration,
    /// `sessions.idle_s`; zero = never.
    pub session_idle: Duration,
    /// `sessions.join_by_number`
    pub join_by_number: bool,
    /// `limits.sessions`
    pub sessions_max: usize,
    /// `limits.waiting_sessions`
    pub waiting_sessions_max: usize,
    /// `limits.sessions_per_connection`
    pub sessions_per_connection_max: usize,
    /// `limits.sessions_per_backend_connection`
    pub sessions_per_backend_connection_max: usize,
    /// `limits.session_bytes`
    pub session_bytes_max: u64,
    /// `limits.bad_requests`
    pub bad_requests_per_minute_max: u32,
}

/// The clocks of one turn of the loop.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For intervals.
    pub instant: Instant,
    /// For dates.
    pub wall: SystemTime,
}

impl Now {
    /// Milliseconds since 1970, as dumps have them.
    #[must_use]
    pub fn wall_ms(&self) -> u64 {
        let since = self.wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// What a connection brings along when it feeds sessions.
#[derive(Debug)]
pub struct Feeder {
    /// The connection.
    pub connection: SlotId,
    /// Its dialect, fixed at the upgrade.
    pub client: ClientType,
    /// Where it comes from: the client itself, whoever stands between.
    pub address: IpAddr,
    /// What it said about itself.
    pub info: Rc<ConnectionInfo>,
    /// The session id in its URL, when there is a valid one.
    pub url_id: Option<SessionId>,
    /// The sessions it feeds.
    pub carried: Carried,
    /// Made by the first one.
    bad_requests: Option<Box<BadRequests>>,
    /// Its sessions when they were last sorted, the longest idle one last. Whatever has had an entry since then is younger
    /// than all others in it, so sorting once serves for as many evictions as there are sessions.
    by_idleness: Vec<(u64, SlotId)>,
}

impl Feeder {
    /// A connection that feeds nothing yet.
    #[must_use]
    pub fn new(
        connection: SlotId,
        client: ClientType,
        address: IpAddr,
        info: Rc<ConnectionInfo>,
        url_id: Option<SessionId>,
    ) -> Self {
        let bad_requests = None;
        let by_idleness = Vec::new();
        Self { connection, client, address, info, url_id, carried: Carried::None, bad_requests, by_idleness }
    }

    /// The session without an entry for the longest time; the caller ends it.
    fn longest_idle(&mut self, sessions: &Sessions) -> Option<SlotId> {
        let order_of = |session: SlotId| sessions.find(session).map(|found| found.last_entry_order);
        for _ in 0..2 {
            while let Some((order, session)) = self.by_idleness.pop() {
                let is_fed =
                    sessions.find(session).is_some_and(|found| found.state == State::Open(self.connection));
                if is_fed && order_of(session) == Some(order) {
                    return Some(session);
                }
            }
            let all = self.carried.all().into_iter();
            self.by_idleness = all.filter_map(|session| Some((order_of(session)?, session))).collect();
            self.by_idleness.sort_unstable_by(|one, other| other.cmp(one));
        }
        None
    }
}

/// Bad requests of one connection in the current minute.
#[derive(Debug)]
struct BadRequests {
    since: Instant,
    count: u32,
}

impl BadRequests {
    /// Counts one more; returns how many the current minute has.
    fn count_one(&mut self, now: Instant) -> u32 {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(60) {
            *self = Self { since: now, count: 0 };
        }
        self.count += 1;
        self.count
    }
}

/// Something that concerns the outside, in the order in which it happened.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Tell the client on this connection that everything up to `number` is safe.
    Acknowledge {
        /// Where to.
        connection: SlotId,
        /// The entry number.
        number: u64,
    },
    /// Another connection has taken this one's session over.
    Replaced {
        /// The old connection.
        connection: SlotId,
    },
    /// The client of this connection has gone on with its session on another one, under another id.
    MovedOn {
        /// The old connection.
        connection: SlotId,
    },
    /// A session could not be written; the connection loses it.
    SessionFailed {
        /// Who fed it.
        connection: SlotId,
        /// The session.
        session: SlotId,
        /// Whether the connection must be closed for it, even when it carries others.
        must_return: bool,
    },
    /// A dump is a job now.
    Finished(Job),
}

/// Why a connection must end, in words for the close frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// The reason.
    pub reason: CloseReason,
    /// The text of the close frame; empty where the code says it all.
    pub text: Cow<'static, str>,
}

impl Ending {
    /// An ending without words.
    #[must_use]
    pub fn plain(reason: CloseReason) -> Self {
        Self { reason, text: Cow::Borrowed("") }
    }

    /// The ending of a connection whose only session cannot be written.
    #[must_use]
    pub fn storage() -> Self {
        let text = Cow::Borrowed("the dump cannot be written at present");
        Self { reason: CloseReason::StorageError, text }
    }
}

/// What was written of a session's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    /// Nothing: none were gathered.
    Nothing,
    /// More lines of its dump.
    More,
    /// The first lines of a dump that was not there before.
    NewDump,
}

/// What an id means on a connection.
#[derive(Debug)]
enum Held {
    /// A session that it feeds.
    Live(SlotId),
    /// One that it fed until now; why it is to be closed if it carries no other.
    Lost(Ending),
    /// None.
    Nothing,
}

/// The record keeper.
#[derive(Debug)]
pub struct Collector {
    settings: CollectorSettings,
    sessions: Sessions,
    agents: Agents,
    dumps: DumpStore,
    /// Sessions with gathered lines, by the time at which they are appended at latest. One constant interval, so in
    /// order; at most one entry per session.
    flush_queue: VecDeque<(Instant, SlotId)>,
    /// Sessions with an unacknowledged number, likewise.
    acknowledge_queue: VecDeque<(Instant, SlotId)>,
    effects: Vec<Effect>,
    spare: Vec<Vec<u8>>,
    /// What sessions were sent away for, and may meet again; bounded by number and time.
    refusals: Refusals,
    /// Dumps of ended sessions that could not be moved to the jobs, at most [`UNFINISHED_MAX`]; those beyond wait for the
    /// next start.
    unfinished: Vec<DumpFile>,
    /// Sessions that are over and whose last lines could not be written; bounded by their size and by time.
    held: HeldSessions,
    /// How the dump folder is, as far as it was looked at.
    disk: Disk,
    /// Under `dump.durability = "power"`: what makes appended entries durable. Else appending does.
    durability: Option<Durability>,
    /// The memory of ended sessions on disk.
    journal: EndedJournal,
    /// Entries taken so far.
    entries: u64,
    /// Bytes of the dumps that are open or wait.
    bytes_in_progress: u64,
    /// The last sign of life of the server before this one.
    last_heartbeat: Option<SystemTime>,
    lines: Lines,
}

/// Bounds of the log lines that peers can cause, one per call site.
#[derive(Debug)]
struct Lines {
    resume: RateLimit,
    join: RateLimit,
    refused: RateLimit,
    displaced: RateLimit,
    gap: RateLimit,
    wait: RateLimit,
    error: RateLimit,
    create: RateLimit,
    finish: RateLimit,
}

impl Lines {
    fn new() -> Self {
        let line = || RateLimit::new(LINES_PER_S, Duration::from_secs(1));
        Self {
            resume: line(),
            join: line(),
            refused: line(),
            displaced: line(),
            gap: line(),
            wait: line(),
            error: line(),
            create: line(),
            finish: line(),
        }
    }
}

impl Collector {
    /// A collector for the dumps of `dumps`.
    #[must_use]
    pub fn new(settings: CollectorSettings, dumps: DumpStore, last_heartbeat: Option<SystemTime>) -> Self {
        let sessions = Sessions::new(settings.reconnect_grace, settings.waiting_sessions_max, REMEMBERED_MAX);
        let journal = EndedJournal::new(dumps.folder());
        Self {
            settings,
            sessions,
            agents: Agents::default(),
            dumps,
            flush_queue: VecDeque::new(),
            acknowledge_queue: VecDeque::new(),
            effects: Vec::new(),
            spare: Vec::new(),
            refusals: Refusals::default(),
            unfinished: Vec::new(),
            held: HeldSessions::default(),
            disk: Disk::default(),
            durability: None,
            journal,
            entries: 0,
            bytes_in_progress: 0,
            last_heartbeat,
            lines: Lines::new(),
        }
    }

    /// What a connection said about itself, to be kept with as little memory as possible.
    #[must_use]
    pub fn share(&mut self, info: ConnectionInfo) -> Rc<ConnectionInfo> {
        let agent = self.agents.share(info.agent);
        Rc::new(ConnectionInfo { agent, ..info })
    }

    /// Nothing is acknowledged from now on before `durability` has synced it.
    #[must_use]
    pub fn with_durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// The sessions, to look at.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// The dump folder, to look at.
    #[must_use]
    pub fn dumps(&self) -> &DumpStore {
        &self.dumps
    }

    /// See [`DumpStore::limit_open_files`].
    pub fn limit_open_files(&mut self, open_files_max: usize) {
        self.dumps.limit_open_files(open_files_max);
    }

    /// Bytes of the dumps that are open or wait.
    #[must_use]
    pub fn bytes_in_progress(&self) -> u64 {
        self.bytes_in_progress
    }

    /// Takes over changed settings; sizes that bound what exists already act from the next use on.
    pub fn reconfigure(&mut self, settings: CollectorSettings) {
        self.sessions.reconfigure(settings.reconnect_grace, settings.waiting_sessions_max);
        self.settings = settings;
    }

    /// The dump of a session is gone. What was durable is gone with it; nobody may be told otherwise again, so the
    /// session is forgotten, and its client starts from what it still has.
    fn dump_removed(&mut self, key: SlotId, tally: &mut Tally) {
        let Some(gone) = self.sessions.forget(key) else { return };
        tally.dumps_removed += 1;
        if let State::Open(connection) = gone.state {
            let must_return = gone.must_return();
            self.effects.push(Effect::SessionFailed { connection, session: key, must_return });
        }
        let Some(dump) = &gone.dump else { return };
        let (conn, lost_bytes) = (member("conn", gone.last_connection), dump.size_bytes);
        error!("dump.removed{conn} session={} dump={} lost_bytes={lost_bytes}", gone.id, dump.name);
        self.dumps.release(key, dump);
        self.bytes_in_progress = self.bytes_in_progress.saturating_sub(dump.size_bytes);
    }

    /// Whether `limits.sessions` are open.
    fn is_full(&self) -> bool {
        self.sessions.open_count() >= self.settings.sessions_max
    }

    /// Whether a connection with that id in its URL can be given its session: one that exists always can be fed.
    #[must_use]
    pub fn has_room_for(&self, url_id: Option<&SessionId>) -> bool {
        !self.is_full() || url_id.is_none_or(|id| self.sessions.is_open_or_waiting(id))
    }

    /// Takes what concerns the outside since the last call.
    pub fn take_effects(&mut self, into: &mut Vec<Effect>) {
        into.append(&mut self.effects);
    }

    /// A connection was upgraded. Returns the number that its greeting carries.
    ///
    /// # Errors
    /// Why the connection is to be closed instead.
    pub fn arrive(
        &mut self,
        feeder: &mut Feeder,
        is_reconnect: bool,
        tally: &mut Tally,
        now: Now,
    ) -> Result<u64, Ending> {
        let Some(id) = feeder.url_id.clone() else { return Ok(0) };
        self.recover_before_scan(&id, tally, now);
        self.give_up_removed(&id, tally);
        let arrival = self.sessions.arrive(feeder.connection, &id, is_reconnect, &feeder.info, now.instant);
        let session = match arrival {
            Arrival::Ended => return Err(Ending::plain(CloseReason::EndedByClient)),
            Arrival::Fresh(session) => session,
            Arrival::Resumed(session) => {
                tally.sessions_resumed += 1;
                session
            }
            Arrival::TakenOver { session, from } => {
                tally.sessions_taken_over += 1;
                self.effects.push(Effect::Replaced { connection: from });
                session
            }
        };
        feeder.carried.add(session, &self.sessions);
        if matches!(arrival, Arrival::Fresh(_)) {
            self.doubt(session);
        }
        if !matches!(arrival, Arrival::Fresh(_)) {
            limited!(
                self.lines.resume,
                now.instant,
                Level::Info,
                "session.resume conn={} session={id}",
                feeder.connection
            );
            self.flush(session, tally, now);
        }
        match self.sessions.find(session) {
            Some(found) if found.state == State::Open(feeder.connection) => Ok(found.ledger.durable()),
            // It could not be written just now. A greeting would make the client believe that all is well.
            _ => Err(Ending::storage()),
        }
    }

    /// What a session takes over from before a restart, or from a dump that is finished, may never have been synced. It
    /// is not named in a greeting before the next sync, of everything; until then its client sends it again, in vain.
    fn doubt(&mut self, key: SlotId) {
        if let (Some(durability), Some(session)) = (&mut self.durability, self.sessions.find_mut(key))
            && session.is_numbered()
        {
            session.ledger.doubt();
            match &session.dump {
                Some(dump) => durability.commit.appended(key, &dump.name, None, true),
                None => durability.commit.continues_finished(key),
            }
        }
    }

    /// Takes the result of a sync, and begins the next.
    fn sync(&mut self, tally: &mut Tally, now: Now) {
        let Some(durability) = &mut self.durability else { return };
        match durability.result() {
            None => {}
            Some(Ok(())) => {
                for (key, mark) in durability.commit.end() {
                    if let Some(session) = self.sessions.find_mut(key) {
                        session.ledger.make_durable(mark);
                        self.acknowledge(key, tally, now);
                    }
                }
            }
            Some(Err(cause)) => {
                let lost = durability.commit.fail();
                error!("dump.error err={} sessions={}", value(format!("cannot sync: {cause}")), lost.len());
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
        session.ledger.forget_unsynced();
        let (was_numbered, must_return) = (session.is_numbered(), session.must_return());
        if let State::Open(connection) = session.state {
            self.effects.push(Effect::SessionFailed { connection, session: key, must_return });
        }
        let by_client = self.held_end(key).unwrap_or(false);
        let Some(session) = self.sessions.finish(key, by_client, now.instant) else { return };
        if was_numbered {
            self.note_ended(&session, by_client, now);
        }
        if let Some(dump) = &session.dump {
            self.finish_dump(key, dump, Some(&session), tally, now);
        }
    }

    /// The greeting names what is in the dump, so the dump must be there.
    fn give_up_removed(&mut self, id: &SessionId, tally: &mut Tally) {
        let Some(key) = self.sessions.under(id) else { return };
        let dump = self.sessions.find(key).and_then(|session| session.dump.as_ref());
        if dump.is_some_and(|dump| !self.dumps.is_there(dump)) {
            self.dump_removed(key, tally);
        }
    }

    /// While the dump folder is still being scanned, a client that comes back finds its own dump all the same.
    fn recover_before_scan(&mut self, id: &SessionId, tally: &mut Tally, now: Now) {
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

    fn rewrite_journal(&mut self, now: Now) {
        let all = self.sessions.ended().filter_map(|(id, last, by_client, until)| {
            let rest = until.checked_duration_since(now.instant)?;
            Some(EndedSession { id: id.clone(), last, by_client, until: now.wall + rest })
        });
        if let Err(cause) = self.journal.rewrite(all) {
            warn!("ended.write err={}: clients that come late may fill a second dump", value(cause));
        }
    }

    /// Takes up at most so many of the dumps that an earlier server left, as far as they are known by now. Returns
    /// whether there may be more.
    fn recover_leftovers(&mut self, dumps_max: usize, tally: &mut Tally, now: Now) -> bool {
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
            let part =
                self.sessions.find(other).and_then(|session| session.dump.as_ref()).map(|dump| dump.part);
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

    fn finish_leftover(&mut self, dump: &DumpFile, tally: &mut Tally, now: Now) {
        // It is in no slot, so it can have no descriptor.
        let owner = SlotId { index: u32::MAX, generation: 0 };
        self.finish_dump(owner, dump, None, tally, now);
    }

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
        if session.buffer.capacity() == 0 {
            session.buffer = self.spare.pop().unwrap_or_default();
        }
        let is_first = !session.has_entries();
        let start = session.buffer.len();
        if !entry.write_line(&mut session.buffer) {
            return None;
        }
        tally.request_received(text.len());
        Some(self.gathered(feeder, key, Gathered { start, is_first }, tally, now))
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

    fn refuse(
        &mut self,
        feeder: &mut Feeder,
        fault: RequestFault,
        tally: &mut Tally,
        now: Now,
    ) -> Result<(), Ending> {
        tally.requests_refused.add_one(fault);
        limited!(
            self.lines.refused,
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
        let bad_requests =
            feeder.bad_requests.get_or_insert_with(|| Box::new(BadRequests { since: now.instant, count: 0 }));
        let (count, max) = (bad_requests.count_one(now.instant), self.settings.bad_requests_per_minute_max);
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
            RequestType::Close => match self.held(feeder, &request.id) {
                Held::Live(session) => {
                    feeder.carried.remove_named(session, &request.id);
                    if self.sessions.find(session).is_some_and(|found| found.is_fed_by(feeder.connection)) {
                        self.finish_gone(session, true, tally, now);
                    }
                }
                Held::Lost(_) | Held::Nothing => {}
            },
            RequestType::Identity | RequestType::StatsEntry => {
                let session = match self.held(feeder, &request.id) {
                    Held::Live(session) => session,
                    // What comes after entries that were lost must not close up to those before them.
                    Held::Lost(ending) if feeder.carried.len() <= 1 => return Err(ending),
                    Held::Lost(_) => return Ok(Err(RequestFault::StorageError)),
                    Held::Nothing => match self.open_session(feeder, &request.id, tally, now) {
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
    fn held(&self, feeder: &Feeder, id: &str) -> Held {
        let Some(session) = feeder.carried.find(id, &self.sessions) else {
            let is_gone = feeder.carried.is_only_gone(&self.sessions);
            let is_by_url = feeder.url_id.as_ref().is_some_and(|by_url| by_url.as_str() == id);
            return if is_gone && is_by_url { Held::Lost(Ending::storage()) } else { Held::Nothing };
        };
        match self.sessions.find(session).map(|found| found.state) {
            Some(State::Open(connection)) if connection == feeder.connection => Held::Live(session),
            Some(State::Open(_)) => Held::Lost(Ending::plain(CloseReason::Replaced)),
            Some(State::Waiting { .. }) => Held::Lost(Ending::storage()),
            Some(State::Held { .. }) | None => Held::Nothing,
        }
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
        let by_url = feeder.url_id.as_ref() == Some(&id) && !self.sessions.is_open_or_waiting(&id);
        let session = self.sessions.open(feeder.connection, id, by_url, Rc::clone(&feeder.info), now.instant);
        feeder.carried.add(session, &self.sessions);
        Ok(session)
    }

    fn finish_longest_idle(&mut self, feeder: &mut Feeder, max: usize, tally: &mut Tally, now: Now) {
        let Some(session) = feeder.longest_idle(&self.sessions) else { return };
        tally.sessions_displaced += 1;
        if let Some(found) = self.sessions.find(session) {
            limited!(
                self.lines.displaced,
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
        if session.buffer.capacity() == 0 {
            session.buffer = self.spare.pop().unwrap_or_default();
        }
        let start = session.buffer.len();
        let is_first = !session.has_entries();
        if let Err(fault) = protocol::write_line(request, feeder.client, now.wall_ms(), &mut session.buffer) {
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
        let added = session.buffer.len() - start;
        let size = session.dump.as_ref().map_or(0, |dump| dump.size_bytes) + session.buffer.len() as u64;
        if size > self.settings.session_bytes_max {
            session.buffer.truncate(start);
            return self.session_too_big(feeder, key, size, tally, now);
        }
        session.last_entry = now.instant;
        self.entries += 1;
        session.last_entry_order = self.entries;
        if is_first {
            session.started_ms = now.wall_ms();
        }
        let verdict = session.take_line(start);
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
                self.lines.gap,
                now.instant,
                Level::Warn,
                "session.gap conn={} session={} missing={missing}",
                feeder.connection,
                session.id
            );
        }
        if session.buffer.len() >= self.settings.flush_bytes {
            self.flush(key, tally, now);
        } else if !session.flush_pending {
            session.flush_pending = true;
            // At latest after the interval: the group forms in the time before it ends.
            let latest = now.instant + self.settings.flush_interval;
            let due = match self.flush_queue.back() {
                Some((last, _)) if *last + FLUSH_GROUP >= latest => *last,
                Some(_) | None => latest,
            };
            self.flush_queue.push_back((due, key));
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
        let Some(id) = feeder.url_id.clone() else { return reason };
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

    /// A connection ended: its sessions wait for their clients or are finished.
    pub fn leave(&mut self, feeder: &mut Feeder, farewell: Farewell, tally: &mut Tally, now: Now) {
        for session in std::mem::take(&mut feeder.carried).all() {
            match self.sessions.leave(session, feeder.connection, farewell, now.instant) {
                Departure::Finish => self.finish_gone(session, farewell == Farewell::ForGood, tally, now),
                Departure::Wait => self.park(session, tally, now),
                Departure::NotTheirs => {}
            }
        }
    }

    /// Lets a waiting session use as little as possible: nothing gathered, no descriptor.
    fn park(&mut self, key: SlotId, tally: &mut Tally, now: Now) {
        self.flush(key, tally, now);
        let Some(session) = self.sessions.find(key) else { return };
        let conn = member("conn", session.last_connection);
        limited!(
            self.lines.wait,
            now.instant,
            Level::Info,
            "session.wait{conn} session={} received={}",
            session.id,
            session.ledger.received()
        );
        if let Some(dump) = &session.dump {
            self.dumps.release(key, dump);
        }
    }

    /// Does what is due: appends, acknowledgements, the end of waiting sessions. Returns whether more is due already.
    pub fn tick(&mut self, tally: &mut Tally, now: Now) -> bool {
        let has_leftovers = self.recover_leftovers(LEFTOVERS_PER_TURN, tally, now);
        let is_more_due = self.run_queues(tally, now) || has_leftovers;
        self.sync(tally, now);
        is_more_due
    }

    fn run_queues(&mut self, tally: &mut Tally, now: Now) -> bool {
        let mut budget = FLUSHES_PER_TURN;
        while let Some(&(deadline, key)) = self.flush_queue.front() {
            if deadline > now.instant {
                break;
            }
            if budget == 0 {
                return true;
            }
            budget -= 1;
            self.flush_queue.pop_front();
            if let Some(session) = self.sessions.find_mut(key) {
                session.flush_pending = false;
                self.flush(key, tally, now);
            }
        }
        while let Some(&(deadline, key)) = self.acknowledge_queue.front() {
            if deadline > now.instant {
                break;
            }
            self.acknowledge_queue.pop_front();
            if let Some(session) = self.sessions.find_mut(key) {
                session.acknowledge_pending = false;
                // It was written a while ago.
                let is_gone = session.dump.as_ref().is_some_and(|dump| !self.dumps.is_there(dump));
                if is_gone {
                    self.dump_removed(key, tally);
                } else {
                    self.acknowledge(key, tally, now);
                }
            }
        }
        while let Some((key, why)) =
            if budget > 0 { self.sessions.expired(now.instant) } else { return true }
        {
            budget -= 1;
            match why {
                Expiry::Grace => tally.waiting_finished.add_one(WaitingEnd::Expired),
                Expiry::Limit => tally.waiting_finished.add_one(WaitingEnd::TooMany),
            }
            self.finish_at_last(key, tally, now);
        }
        false
    }

    /// When [`Collector::tick`] has something to do next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let fronts = [
            self.flush_queue.front().map(|(deadline, _)| *deadline),
            self.acknowledge_queue.front().map(|(deadline, _)| *deadline),
            self.sessions.next_expiry(),
        ];
        fronts.into_iter().flatten().min()
    }

    /// Gives memory back that a crowd of sessions needed; called once a second.
    pub fn shrink(&mut self) {
        for queue in [&mut self.flush_queue, &mut self.acknowledge_queue] {
            if queue.len() < queue.capacity() / 8 {
                queue.shrink_to(QUEUE_KEPT);
            }
        }
        self.held.shrink();
        self.sessions.shrink();
    }

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

    /// Appends what is gathered for a session and acknowledges what has become durable. Returns whether that was
    /// possible; if not, the session has waited since, or is gone.
    fn flush(&mut self, key: SlotId, tally: &mut Tally, now: Now) -> bool {
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

    /// Appends what is gathered for a session; a failure leaves it there.
    fn append(&mut self, key: SlotId, tally: &mut Tally, now: Now) -> Result<(), AppendError> {
        let written = self.write_out(key, tally, now)?;
        let Some(session) = self.sessions.find_mut(key) else { return Ok(()) };
        let is_new = match written {
            Written::Nothing => return Ok(()),
            Written::More => false,
            Written::NewDump => true,
        };
        match (&mut self.durability, &session.dump) {
            (Some(durability), Some(dump)) => {
                let file = self.dumps.descriptor(key, dump);
                durability.commit.appended(key, &dump.name, file, is_new);
            }
            (None, _) | (_, None) => session.ledger.make_durable(session.ledger.mark()),
        }
        Ok(())
    }

    /// As [`Collector::append`], without a word to whoever makes it durable.
    fn write_out(&mut self, key: SlotId, tally: &mut Tally, now: Now) -> Result<Written, AppendError> {
        let needs_file =
            self.sessions.find(key).is_some_and(|found| found.dump.is_none() && !found.buffer.is_empty());
        if needs_file && self.dumps.is_folder_removed() {
            self.restore_folder(tally);
        }
        let Some(session) = self.sessions.find_mut(key) else { return Ok(Written::Nothing) };
        if session.buffer.is_empty() {
            // Duplicates were put into it and taken out again.
            let buffer = std::mem::take(&mut session.buffer);
            self.keep_spare(buffer);
            return Ok(Written::Nothing);
        }
        let written = match &mut session.dump {
            Some(dump) => {
                self.dumps.append(key, dump, &[&session.buffer])?;
                self.bytes_in_progress += session.buffer.len() as u64;
                Written::More
            }
            None => {
                self.bytes_in_progress += create_dump(&mut self.dumps, key, session)?;
                let (conn, id) = (member("conn", session.last_connection), &session.id);
                let name = session.dump.as_ref().map_or("", |dump| &*dump.name);
                limited!(
                    self.lines.create,
                    now.instant,
                    Level::Info,
                    "dump.create{conn} session={id} dump={name}"
                );
                Written::NewDump
            }
        };
        let buffer = session.append();
        self.keep_spare(buffer);
        Ok(written)
    }

    fn keep_spare(&mut self, mut buffer: Vec<u8>) {
        let is_useful = (1..=SPARE_BUFFER_BYTES_MAX).contains(&buffer.capacity());
        if is_useful && self.spare.len() < SPARE_BUFFERS_MAX {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    fn acknowledge(&mut self, key: SlotId, tally: &mut Tally, now: Now) {
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
    fn drop_lines(&mut self, key: SlotId, failure: &AppendError, tally: &mut Tally, now: Now) -> bool {
        let Some(session) = self.sessions.find_mut(key) else { return false };
        let (conn, lost_bytes) = (member("conn", session.last_connection), session.drop_buffer());
        tally.session_errors += 1;
        limited!(
            self.lines.error,
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

    /// Ends a session for good: its dump becomes a job. `by_client`: the client will not come back.
    fn finish(&mut self, key: SlotId, by_client: bool, tally: &mut Tally, now: Now) {
        if !self.flush(key, tally, now) {
            // It has been taken care of. If it waits now, its client may still bring again what could not be written.
            return;
        }
        let Some(session) = self.sessions.finish(key, by_client, now.instant) else { return };
        if session.is_numbered() {
            self.note_ended(&session, by_client, now);
        }
        if let Some(dump) = &session.dump {
            self.finish_dump(key, dump, Some(&session), tally, now);
        }
    }

    fn note_ended(&mut self, session: &Session, by_client: bool, now: Now) {
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
    fn finish_dump(
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
        match self.dumps.finish(owner, dump, now.wall) {
            Ok(job) => {
                limited!(
                    self.lines.finish,
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
                    self.lines.error,
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

/// The line that was put at the end of a session's buffer last.
#[derive(Debug, Clone, Copy)]
struct Gathered {
    /// Where it starts.
    start: usize,
    /// Whether it is the first entry of the session.
    is_first: bool,
}

/// Creates the file of a session and writes its first line and what is gathered. Returns the bytes written.
fn create_dump(dumps: &mut DumpStore, key: SlotId, session: &mut Session) -> Result<u64, AppendError> {
    let info = session.info.take();
    let first_line = |part: u32, out: &mut Vec<u8>| {
        if let Some(info) = &info {
            write_first_line(info, session, part, out);
        }
    };
    let created = dumps.create(key, &session.id, first_line, &session.buffer);
    match created {
        Ok(dump) => {
            let bytes = dump.size_bytes;
            session.dump = Some(dump);
            Ok(bytes)
        }
        Err(failure) => {
            session.info = info;
            Err(failure)
        }
    }
}

/// Appends `["connectionInfo",null,{...},<clock>]`: the documented members and, when there is something to say, one
/// more, `server` (our contract, section 3).
fn write_first_line(info: &ConnectionInfo, session: &Session, part: u32, out: &mut Vec<u8>) {
    #[derive(Serialize)]
    struct Server<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        part: Option<u32>,
        #[serde(rename = "continuesFrom", skip_serializing_if = "Option::is_none")]
        continues_from: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        claims: Option<&'a Claims>,
    }
    #[derive(Serialize)]
    struct Info<'a> {
        #[serde(flatten)]
        info: &'a ConnectionInfo,
        #[serde(skip_serializing_if = "Option::is_none")]
        server: Option<Server<'a>>,
    }
    let has_part = part > 0;
    let has_more = has_part || session.continues_from.is_some() || info.claims.is_some();
    let server = has_more.then(|| Server {
        id: has_part.then(|| session.id.as_str()),
        part: has_part.then_some(part),
        continues_from: session.continues_from,
        claims: info.claims.as_deref(),
    });
    let line = ("connectionInfo", (), Info { info, server }, session.started_ms);
    if let Err(failure) = serde_json::to_writer(&mut *out, &line) {
        // Writing plain strings and integers into memory has no way to fail.
        let conn = member("conn", session.last_connection);
        error!("dump.error{conn} session={} err={}", session.id, value(failure));
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests;
