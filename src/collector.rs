//! The record keeper: takes the requests of all connections, keeps sessions and their dumps.
//!
//! Owns [`Sessions`] (who feeds what, numbers) and [`DumpStore`] (files) and does for the one what it needs of the
//! other. Names no socket: a connection is its slot id. What concerns the outside (acknowledge, close, a finished
//! dump) is left in [`Collector::take_effects`] for the reactor.
//!
//! Here stand the table of its state, what connections do to sessions, and what is due when; the parts are modules of
//! their own: `requests` (from a message to a gathered line), `flush_queue` (whose is due), `appending` (into the dump),
//! `syncing` (onto the disk), `finishing` (the end of a session), `held` (an end that cannot be written), `join` (breakout
//! rooms), `earlier` (what an earlier server left), `disk` (whether there is room).
//!
//! Entries are gathered per session and appended at latest `dump.flush_interval_ms` after the first of them, at
//! `dump.flush_bytes`, and at once when the session ends or changes hands. What is not appended is not acknowledged,
//! so gathering costs a numbered client nothing; for others it is what a crash can lose.
//!
//! Bounds: sessions by `limits.*`; gathered bytes per session by `dump.flush_bytes` plus one message, and of all by
//! `dump.flush_total_bytes` plus one message (`slabs`); what is held of clients that are gone by a number of its own (`held`); the
//! effects by what one turn of the loop can cause.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use log::{Level, error};

use crate::client::{Common, ConnectionInfo, SessionId};
use crate::dump::{DumpFile, DumpStore};
use crate::durability::Durability;
use crate::ended::EndedJournal;
use crate::extract;
use crate::jobs::Job;
use crate::limited;
use crate::logging::{RateLimit, member};
use crate::metrics::{Tally, WaitingEnd};
use crate::moment::Moment;
use crate::reactor::slots::SlotId;
use crate::reasons::CloseReason;
use crate::session::{Arrival, Departure, Expiry, Farewell, Session, Sessions, State};
use crate::slabs::Slabs;

mod appending;
mod disk;
mod earlier;
mod feeder;
mod finishing;
mod first_line;
mod flush_queue;
mod held;
mod join;
mod refusals;
mod requests;
mod syncing;

pub use feeder::Feeder;

use disk::Disk;
use earlier::LEFTOVERS_PER_TURN;
use flush_queue::FlushQueue;
use held::HeldSessions;
use refusals::Refusals;

/// Sessions that are flushed or acknowledged in one turn at most, so that a thousand due at once (a flush of one line costs
/// about 10 us) cannot hold up the sockets.
const FLUSHES_PER_TURN: usize = 128;
/// What is due is appended until it is so much in one turn: some 5 ms of work.
const FLUSHED_BYTES_PER_TURN: u64 = 4 << 20;
/// Places in queues that are kept when there is nothing in them.
const QUEUE_KEPT: usize = 256;
/// Lines of one kind that peers can cause per second. A busy server opens tens of sessions a second.
pub const LINES_PER_S: u32 = 100;
/// Ended ids that are remembered.
const REMEMBERED_MAX: usize = 100_000;

/// What bounds and times the collector; see the configuration keys of the same names.
#[derive(Debug, Clone)]
pub struct CollectorSettings {
    /// `dump.flush_interval_ms`
    pub flush_interval: Duration,
    /// `dump.flush_bytes`
    pub flush_bytes: usize,
    /// `dump.flush_total_bytes`
    pub flush_total_bytes: usize,
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
    pub instant: Moment,
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

/// The record keeper.
#[derive(Debug)]
pub struct Collector {
    settings: CollectorSettings,
    sessions: Sessions,
    common: Common,
    dumps: DumpStore,
    /// Sessions with gathered lines; at most one place per session.
    flush_queue: FlushQueue,
    /// What they have gathered.
    slabs: Slabs,
    /// Sessions with an unacknowledged number, by the time at which it is acknowledged at latest. One constant interval, so
    /// in order; at most one entry per session.
    acknowledge_queue: VecDeque<(Moment, SlotId)>,
    effects: Vec<Effect>,
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
    /// When the last entry came, but at least a nanosecond after the one before, so that no two are equal.
    last_entry: Moment,
    /// Bytes of the dumps that are open or wait.
    bytes_in_progress: u64,
    /// The last sign of life of the server before this one.
    last_heartbeat: Option<SystemTime>,
    log_limits: LogLimits,
}

/// Bounds of the log lines that peers can cause, one per call site.
#[derive(Debug)]
struct LogLimits {
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

impl LogLimits {
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
            common: Common::default(),
            dumps,
            flush_queue: FlushQueue::default(),
            slabs: Slabs::default(),
            acknowledge_queue: VecDeque::new(),
            effects: Vec::new(),
            refusals: Refusals::default(),
            unfinished: Vec::new(),
            held: HeldSessions::default(),
            disk: Disk::default(),
            durability: None,
            journal,
            last_entry: Moment::at(0),
            bytes_in_progress: 0,
            last_heartbeat,
            log_limits: LogLimits::new(),
        }
    }

    /// What a connection said about itself, to be kept with as little memory as possible.
    #[must_use]
    pub fn share(&mut self, info: ConnectionInfo) -> ConnectionInfo {
        self.common.share(info)
    }

    /// The format in which a user agent sends its statistics, by the rules of the extraction.
    #[must_use]
    pub fn stats_format(&mut self, user_agent: &str) -> &'static str {
        self.common.stats_format(user_agent, extract::stats_format)
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
        let Some(mut gone) = self.sessions.forget(key) else { return };
        self.slabs.release(&mut gone.lines);
        tally.dumps_removed += 1;
        if let State::Open(connection) = gone.state {
            let must_return = gone.must_return();
            self.effects.push(Effect::SessionFailed { connection, session: key, must_return });
        }
        let Some(dump) = gone.dump() else { return };
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
        let Some(id) = feeder.info.session_id.clone() else { return Ok(0) };
        self.recover_before_scan(&id, tally, now);
        // The greeting names what is in the dump, so the dump must be there.
        if let Some(known) = self.sessions.under(&id) {
            self.give_up_removed(known, tally);
        }
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
        } else {
            limited!(
                self.log_limits.resume,
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

    /// Gives a session up if its dump was removed; whether it was.
    fn give_up_removed(&mut self, key: SlotId, tally: &mut Tally) -> bool {
        let dump = self.sessions.find(key).and_then(Session::dump);
        let is_removed = dump.is_some_and(|dump| !self.dumps.is_there(dump));
        if is_removed {
            self.dump_removed(key, tally);
        }
        is_removed
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
            self.log_limits.wait,
            now.instant,
            Level::Info,
            "session.wait{conn} session={} received={}",
            session.id,
            session.ledger.received()
        );
        if let Some(dump) = session.dump() {
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
        let enough = self.bytes_in_progress + FLUSHED_BYTES_PER_TURN;
        while budget > 0
            && self.bytes_in_progress < enough
            && let Some(key) = self.flush_queue.take_due(now.instant)
        {
            budget -= 1;
            self.flush_queued(key, tally, now);
        }
        if budget == 0 || self.bytes_in_progress >= enough {
            return true;
        }
        while let Some(&(deadline, key)) = self.acknowledge_queue.front() {
            if deadline > now.instant {
                break;
            }
            self.acknowledge_queue.pop_front();
            if let Some(session) = self.sessions.find_mut(key) {
                session.acknowledge_pending = false;
                // It was written a while ago.
                if session.ledger.has_unacknowledged() && !self.give_up_removed(key, tally) {
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
    pub fn next_deadline(&self) -> Option<Moment> {
        let fronts = [
            self.flush_queue.next_deadline(),
            self.acknowledge_queue.front().map(|(deadline, _)| *deadline),
            self.sessions.next_expiry(),
        ];
        fronts.into_iter().flatten().min()
    }

    /// Gives memory back that a crowd of sessions needed, and a descriptor; called once a second.
    pub fn shrink(&mut self) {
        self.journal.close();
        self.flush_queue.shrink();
        self.slabs.shrink();
        debug_assert_eq!(self.slabs.live_bytes(), self.count_gathered(), "all sessions together");
        shrink_queue(&mut self.acknowledge_queue);
        self.held.shrink();
        self.sessions.shrink();
        self.common.shrink(self.sessions.open_count());
    }

    fn count_gathered(&self) -> usize {
        let found = self.sessions.all().into_iter().filter_map(|key| self.sessions.find(key));
        found.map(|session| session.lines.bytes()).sum()
    }
}

/// Gives memory back that a crowd in a queue needed.
fn shrink_queue<T>(queue: &mut VecDeque<T>) {
    if queue.len() < queue.capacity() / 8 {
        queue.shrink_to(QUEUE_KEPT);
    }
}

#[cfg(test)]
mod tests;
