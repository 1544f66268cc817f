//! The event loop: one thread, one `Poll`, every piece of live state.
//!
//! The only caller of `Poll::poll` on this thread and, with [`crate::signals`], the only place that names mio. It
//! reads the clocks, twice a turn, and hands `now` down. It decides nothing about bytes, requests or dumps: it moves
//! readiness to connections, what they cause to other connections, finished dumps to the workers, and buries the dead.
//!
//! Nothing here blocks, apart from the buffered append that [`crate::dump`] declares.

pub mod desk;
pub mod pacer;
pub mod slots;
pub mod socket;
pub mod timers;

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use log::{Level, info, warn};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustix::event::{PollFd, PollFlags};

use crate::auth::Auth;
use crate::collector::{Collector, Effect, Ending, Now};
use crate::config::Config;
use crate::connection::{Connection, ConnectionLimits, ConnectionLines, Step, Turn};
use crate::descriptors::{self, Shares};
use crate::gate::Gate;
use crate::limited;
use crate::logging::{RateLimit, chain, value};
use crate::metrics::{Gauges, Metrics, Tally};
use crate::moment::Moment;
use crate::reactor::desk::Desk;
use crate::reactor::pacer::{Pacer, Pause, TurnLoad};
use crate::reactor::slots::{SlotId, Slots};
use crate::reactor::socket::Socket;
use crate::reactor::timers::{TICK, Wheel};
use crate::reasons::{CloseReason, Refusal};
use crate::reload;
use crate::signals::{Signal, Signals};
use crate::systemd::Supervisor;
use crate::tls::Tls;
use crate::workers::Leftover;

/// Readiness events taken from the kernel at once: some 5 ms of work. More stay queued there; fewer would mean more system
/// calls.
const EVENTS_PER_POLL: usize = 512;
/// The read buffer that all connections share, and so the bytes that one connection may bring per turn: some 1.5 ms of work.
/// What a fast peer sends costs a sixth less per message than with 256 KiB: fewer and larger reads and appends.
const READ_BUFFER_BYTES: usize = 1024 * 1024;
/// When connections have brought so much in a turn, some 6 ms of work, the others' turn is the next one.
const READ_BYTES_PER_TURN: u64 = 4 * READ_BUFFER_BYTES as u64;
/// Connections accepted per turn, so that a storm of connects cannot hold up those that are open.
const ACCEPTS_PER_TURN: usize = 256;
/// Pause after the system had no descriptor for a connection: that edge does not come back by itself.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// At most one warning about it in this time.
const ACCEPT_WARNINGS: Duration = Duration::from_secs(10);
/// Rhythm of what is looked at from time to time: free space, heartbeat, gauges.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// A turn that takes longer is worth a warning.
const TURN_SLOW: Duration = Duration::from_millis(100);
/// How long peers may take to close when the server stops; a little more than a connection's own limit.
const FAREWELL_TIME: Duration = Duration::from_millis(2500);
/// Reads from each connection when the server stops, for what has arrived from clients that cannot send it again.
const LAST_READS: usize = 4;

/// Why the loop cannot go on. systemd restarts the process, and what is on disk is taken up again.
#[derive(Debug, thiserror::Error)]
pub enum ReactorError {
    /// The kernel refused to wait for events.
    #[error("cannot wait for events")]
    Poll(#[source] io::Error),
    /// A source could not be registered.
    #[error("cannot register the {what}")]
    Register {
        /// Which one.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What a token means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    IngestListener,
    Inbox,
    Signals,
    Connection(SlotId),
}

impl Source {
    /// Fixed sources have generation 0; connections start at 1.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "usize has 64 bits on every platform with epoll that we build for"
    )]
    fn token(self) -> Token {
        match self {
            Self::IngestListener => Token(0),
            Self::Inbox => Token(1),
            Self::Signals => Token(2),
            Self::Connection(id) => Token(id.pack() as usize),
        }
    }

    fn of(token: Token) -> Self {
        match token {
            Token(0) => Self::IngestListener,
            Token(1) => Self::Inbox,
            Token(2) => Self::Signals,
            Token(packed) => Self::Connection(SlotId::unpack(packed as u64)),
        }
    }
}

/// The waker's token, for whoever creates the [`mio::Waker`] before the reactor exists.
#[must_use]
pub fn inbox_token() -> Token {
    Source::Inbox.token()
}

/// Whether the loop goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Running,
    /// Stopping: nobody is let in.
    Draining {
        /// Until then peers may read our last bytes and close.
        farewell: Moment,
        /// Until then workers may go on.
        deadline: Moment,
    },
    /// Over; jobs that run may go on until then.
    Stopped(Moment),
}

/// What the reactor is made of; whoever starts the server puts it together.
#[expect(
    missing_debug_implementations,
    reason = "it is taken apart at once, and a closure has nothing to show"
)]
pub struct Parts {
    /// The effective configuration.
    pub config: Config,
    /// How many connections the descriptors allow.
    pub shares: Shares,
    /// Descriptors of dumps that may be cached when connections leave room for them.
    pub open_files_max: usize,
    /// Where the loop waits.
    pub poll: Poll,
    /// The listening socket.
    pub listener: std::net::TcpListener,
    /// Whether somebody else keeps it open, so that connections wait there for the next server.
    pub is_listener_passed: bool,
    /// Signals of the process.
    pub signals: Signals,
    /// The service manager.
    pub supervisor: Supervisor,
    /// The record keeper.
    pub collector: Collector,
    /// The workers' desk.
    pub desk: Desk,
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// Who may send.
    pub auth: Auth,
    /// The certificate, with TLS on.
    pub tls: Option<Tls>,
    /// Reads the configuration again.
    pub reload: Box<dyn FnMut() -> Option<Config>>,
}

impl std::fmt::Debug for Reactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reactor").field("flow", &self.flow).finish_non_exhaustive()
    }
}

/// The event loop.
pub struct Reactor {
    poll: Poll,
    events: Events,
    listener: TcpListener,
    is_listener_passed: bool,
    /// Set when the listener has, or may have, connections to accept.
    accept_pending: bool,
    accept_warnings: RateLimit,
    /// No accept before this time: no descriptors were left.
    accept_paused_until: Option<Moment>,
    signals: Signals,
    supervisor: Supervisor,
    /// When the watchdog is to be fed next; with no watchdog, a housekeeping turn like any other.
    watchdog_due: Moment,
    config: Config,
    limits: ConnectionLimits,
    shares: Shares,
    open_files_max: usize,
    /// All sockets, at most as many as its shares allow.
    connections: Slots<Connection<Socket>>,
    upgraded: usize,
    /// Connections that may have more to read; each at most once.
    ready: VecDeque<SlotId>,
    pacer: Pacer,
    /// Whether knocks were not heard for a while before this turn.
    was_deaf: bool,
    /// Connections accepted in this turn.
    knocks: usize,
    wheel: Wheel,
    expired: Vec<u32>,
    buffer: Vec<u8>,
    incomplete_bytes: usize,
    lines: ConnectionLines,
    gate: Gate,
    tls: Option<Tls>,
    collector: Collector,
    effects: Vec<Effect>,
    desk: Desk,
    metrics: Arc<Metrics>,
    tally: Tally,
    free_bytes: u64,
    /// How long the oldest finished dump had waited when it was last looked at.
    oldest_pending: Duration,
    housekeeping_due: Moment,
    more_due: bool,
    reload: Box<dyn FnMut() -> Option<Config>>,
    flow: Flow,
}

impl Reactor {
    /// Puts the parts together and registers the sources.
    ///
    /// # Errors
    /// When a source cannot be registered.
    pub fn new(parts: Parts) -> Result<Self, ReactorError> {
        let now = clocks();
        let Parts {
            config,
            shares,
            open_files_max,
            poll,
            listener,
            is_listener_passed,
            mut signals,
            supervisor,
            ..
        } = parts;
        let failed = |what| move |source| ReactorError::Register { what, source };
        listener.set_nonblocking(true).map_err(failed("listener"))?;
        let mut listener = TcpListener::from_std(listener);
        let registry = poll.registry();
        registry
            .register(&mut listener, Source::IngestListener.token(), Interest::READABLE)
            .map_err(failed("listener"))?;
        signals.register(registry, Source::Signals.token()).map_err(failed("signals"))?;
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS_PER_POLL),
            listener,
            is_listener_passed,
            accept_pending: true,
            accept_paused_until: None,
            accept_warnings: RateLimit::new(1, ACCEPT_WARNINGS),
            signals,
            supervisor,
            watchdog_due: now.instant,
            limits: connection_limits(&config),
            shares,
            open_files_max,
            connections: Slots::default(),
            upgraded: 0,
            ready: VecDeque::new(),
            pacer: Pacer::new(config.reactor.coalesce, now.instant),
            was_deaf: false,
            knocks: 0,
            wheel: Wheel::new(now.instant),
            expired: Vec::new(),
            buffer: vec![0; READ_BUFFER_BYTES],
            incomplete_bytes: 0,
            tls: parts.tls,
            lines: ConnectionLines::default(),
            gate: Gate::new(&config, parts.auth, now.instant),
            config,
            collector: parts.collector,
            effects: Vec::new(),
            desk: parts.desk,
            metrics: parts.metrics,
            tally: Tally::default(),
            free_bytes: 0,
            oldest_pending: Duration::ZERO,
            housekeeping_due: now.instant,
            more_due: true,
            reload: parts.reload,
            flow: Flow::Running,
        })
    }

    /// Runs until a signal stops it and everything is written.
    ///
    /// # Errors
    /// When the loop cannot go on.
    pub fn run(mut self) -> Result<(), ReactorError> {
        self.supervisor.ready();
        while !matches!(self.flow, Flow::Stopped(_)) {
            self.turn()?;
        }
        let now = clocks();
        self.tally_up(now);
        let deadline = match self.flow {
            Flow::Stopped(deadline) => deadline,
            Flow::Running | Flow::Draining { .. } => now.instant,
        };
        let Leftover { queued, in_work } = self.desk.shut_down(deadline);
        info!("server.stopped jobs_queued={queued} jobs_interrupted={in_work}");
        Ok(())
    }

    fn turn(&mut self) -> Result<(), ReactorError> {
        self.sleep_until_work()?;
        let now = clocks();
        self.gate.refill(now.instant);
        self.dispatch(now);
        self.accept(now);
        self.run_ready(now);
        self.fire_timers(now);
        self.more_due = self.collector.tick(&mut self.tally, now);
        self.carry_out_effects(now);
        self.more_due |= self.desk.pump(now.instant, &mut self.tally);
        self.housekeep(now);
        self.drain(now);
        self.tally_up(now);
        Ok(())
    }

    /// Waits for readiness, at most until the next deadline. An interrupted wait is an empty turn.
    fn sleep_until_work(&mut self) -> Result<(), ReactorError> {
        crate::logging::flush();
        let now = clocks().instant;
        let is_busy =
            !self.ready.is_empty() || self.more_due || (self.accept_pending && self.may_accept(now));
        let deadline = if is_busy { Some(Duration::ZERO) } else { self.next_deadline(now) };
        let pause = self.pacer.pause().filter(|_| !is_busy);
        self.was_deaf = pause.is_some_and(|pause| !pause.hears_knocks);
        let timeout = match pause {
            Some(pause) => {
                self.let_gather(pause, deadline);
                Some(Duration::ZERO)
            }
            None => deadline,
        };
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            Err(error) => Err(ReactorError::Poll(error)),
        }
    }

    /// Lets readiness gather, until the deadline at most.
    fn let_gather(&self, pause: Pause, deadline: Option<Duration>) {
        let time = deadline.map_or(pause.time, |deadline| deadline.min(pause.time));
        let Ok(time) = time.try_into() else { return };
        let knocks = PollFd::new(&self.listener, PollFlags::IN);
        // Who already waits for a place would end every pause.
        let is_watched = pause.hears_knocks && !self.accept_pending;
        let mut watched = if is_watched { vec![knocks] } else { Vec::new() };
        // An error or a signal only makes it shorter.
        let _ = rustix::event::poll(&mut watched, Some(&time));
    }

    fn next_deadline(&self, now: Moment) -> Option<Duration> {
        // A pause that is over must not wake us: what is waited for then is a connection that ends.
        let paused = self.accept_paused_until.filter(|until| self.accept_pending && *until > now);
        let instants = [
            Some(self.housekeeping_due),
            Some(self.watchdog_due),
            self.collector.next_deadline(),
            self.desk.next_deadline(),
            paused,
        ];
        let sleeps = instants.into_iter().flatten().map(|at| at.saturating_duration_since(now));
        sleeps.chain(self.wheel.sleep(now)).min()
    }

    /// Token -> source -> queues; nothing dies here.
    fn dispatch(&mut self, now: Now) {
        let mut writable = Vec::new();
        let mut signals = false;
        for event in &self.events {
            match Source::of(event.token()) {
                Source::IngestListener => self.accept_pending = true,
                // What has come is found by the tick and the desk, which look every turn.
                Source::Inbox => {}
                Source::Signals => signals = true,
                Source::Connection(id) => {
                    let Some(connection) = self.connections.find_mut(id) else {
                        self.tally.stale_events += 1;
                        continue;
                    };
                    connection.is_read_closed |= event.is_read_closed() || event.is_error();
                    if (event.is_readable() || connection.is_read_closed) && !connection.is_ready {
                        connection.is_ready = true;
                        self.ready.push_back(id);
                    }
                    if event.is_writable() && connection.wants_write() {
                        writable.push(id);
                    }
                }
            }
        }
        for id in writable {
            self.step(id, now, Connection::write);
        }
        if signals {
            self.take_signals(now);
        }
    }

    /// While stopping, a listener of our own is still served: its backlog ends with us, so whoever comes is told (503)
    /// instead of left waiting. One that was passed is left to the next server.
    fn may_accept(&self, now: Moment) -> bool {
        let is_served = match self.flow {
            Flow::Running => true,
            Flow::Draining { .. } => !self.is_listener_passed,
            Flow::Stopped(_) => false,
        };
        is_served
            && self.accept_paused_until.is_none_or(|until| until <= now)
            && self.connections.len() < self.shares.connections_max + self.shares.refusals_max
    }

    fn accept(&mut self, now: Now) {
        if !self.accept_pending {
            return;
        }
        self.share_descriptors();
        for _ in 0..ACCEPTS_PER_TURN {
            if !self.may_accept(now.instant) {
                return;
            }
            match self.listener.accept() {
                Ok((stream, peer)) => self.accepted(stream, peer.ip(), now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.accept_pending = false;
                    return;
                }
                Err(error) if is_of_the_peer(&error) => self.tally.accept_errors += 1,
                Err(error) => {
                    self.tally.accept_errors += 1;
                    self.accept_paused_until = Some(now.instant + ACCEPT_PAUSE);
                    let (count, max) = (self.connections.len(), self.shares.connections_max);
                    let instant = now.instant;
                    limited!(
                        self.accept_warnings,
                        instant,
                        Level::Warn,
                        "accept.error err={error:?} connections={count} connections_max={max}"
                    );
                    return;
                }
            }
        }
    }

    /// Dumps cache descriptors only as far as connections leave room: those can be had again, a refused peer cannot.
    fn share_descriptors(&mut self) {
        let left =
            (self.shares.connections_max + self.shares.open_dumps_min).saturating_sub(self.connections.len());
        self.collector.limit_open_files(self.open_files_max.min(left).max(self.shares.open_dumps_min));
    }

    fn accepted(&mut self, stream: TcpStream, peer: IpAddr, now: Now) {
        self.knocks += 1;
        self.tally.connections_accepted += 1;
        // TCP_NODELAY is not asked for: what a turn has for a peer goes out in one write, and that an acknowledgement may
        // wait for the one before it to arrive hurts nobody. It would be one system call more for each connection.
        let mut socket = match &self.tls {
            None => Socket::Plain(stream),
            Some(tls) => match tls.accept(stream) {
                Ok(stream) => Socket::Tls(Box::new(stream)),
                Err(error) => {
                    warn!("accept.error err={}", value(chain(&error)));
                    self.tally.accept_errors += 1;
                    return;
                }
            },
        };
        let registry = self.poll.registry();
        let mut registered = Ok(());
        let id = self.connections.insert_with(|id| {
            let token = Source::Connection(id).token();
            registered = registry.register(socket.tcp_mut(), token, Interest::READABLE);
            Connection::new(id, socket, peer, now.instant)
        });
        if let Err(error) = registered {
            warn!("accept.error conn={id} err={error:?}");
            self.tally.accept_errors += 1;
            self.connections.remove(id);
            return;
        }
        let Some(connection) = self.connections.find_mut(id) else { return };
        self.wheel.schedule(id.index, connection.deadline(&self.limits));
        match self.gate.accept(peer) {
            Ok(is_counted) => {
                connection.is_counted = is_counted;
                // Who was kept waiting has mostly sent its head meanwhile: it is read in this turn.
                if self.was_deaf {
                    connection.is_ready = true;
                    self.ready.push_back(id);
                }
            }
            Err(refusal) => self.step(id, now, |connection, turn| connection.turn_away(refusal, turn)),
        }
    }

    /// One read per connection that may have more; the budget of each is the read buffer. Who does not get its turn is the
    /// first in the next one.
    fn run_ready(&mut self, now: Now) {
        let enough = self.tally.received_bytes + READ_BYTES_PER_TURN;
        for _ in 0..self.ready.len() {
            if self.tally.received_bytes >= enough {
                break;
            }
            let Some(id) = self.ready.pop_front() else { break };
            if let Some(connection) = self.connections.find_mut(id) {
                connection.is_ready = false;
            }
            self.step(id, now, Connection::read);
        }
    }

    fn fire_timers(&mut self, now: Now) {
        let mut expired = std::mem::take(&mut self.expired);
        self.wheel.expire(now.instant, &mut expired);
        for number in expired.drain(..) {
            let Some(id) = self.connections.id_at(number) else { continue };
            if self
                .connections
                .find(id)
                .is_some_and(|connection| connection.deadline(&self.limits) <= now.instant)
            {
                self.step(id, now, Connection::expire);
            }
            if let Some(connection) = self.connections.find(id) {
                self.wheel.schedule(number, connection.deadline(&self.limits));
            }
        }
        self.expired = expired;
    }

    /// Lets one connection do something, and does what follows from it: the only place where a connection dies.
    fn step<F>(&mut self, id: SlotId, now: Now, action: F)
    where
        F: FnOnce(&mut Connection<Socket>, &mut Turn<'_>) -> Step,
    {
        let Some(connection) = self.connections.find_mut(id) else { return };
        let was_upgraded = connection.was_upgraded();
        let refusal = match self.flow {
            Flow::Draining { .. } | Flow::Stopped(_) => Some(Refusal::Draining),
            Flow::Running => {
                let is_full = self.upgraded >= self.shares.connections_max;
                self.collector.refusal().or(is_full.then_some(Refusal::TooManyConnections))
            }
        };
        let mut turn = Turn {
            buffer: &mut self.buffer,
            collector: &mut self.collector,
            tally: &mut self.tally,
            limits: &self.limits,
            refusal,
            gate: &mut self.gate,
            incomplete_bytes: &mut self.incomplete_bytes,
            lines: &mut self.lines,
            now,
        };
        let step = action(connection, &mut turn);
        if connection.was_upgraded() && !was_upgraded {
            self.upgraded += 1;
        }
        match step {
            Step::Gone => return self.bury(id),
            Step::Again if !connection.is_ready => {
                connection.is_ready = true;
                self.ready.push_back(id);
            }
            Step::Again | Step::Park => {}
        }
        self.wheel.bring_forward(id.index, connection.deadline(&self.limits));
        if connection.wants_write() != connection.awaits_writable {
            connection.awaits_writable = connection.wants_write();
            let interest = if connection.awaits_writable {
                Interest::READABLE | Interest::WRITABLE
            } else {
                Interest::READABLE
            };
            let registered = self.poll.registry().reregister(
                connection.stream_mut().tcp_mut(),
                Source::Connection(id).token(),
                interest,
            );
            if let Err(error) = registered {
                // Without it the queued bytes leave at the next occasion, or the deadline ends the connection.
                warn!("conn.register conn={id} err={error:?}");
            }
        }
    }

    fn bury(&mut self, id: SlotId) {
        let Some(connection) = self.connections.remove(id) else { return };
        self.wheel.cancel(id.index);
        if connection.was_upgraded() {
            self.upgraded -= 1;
        }
        if connection.is_counted {
            self.gate.leave(connection.peer());
        }
        // Closing the descriptor, which nobody else has, takes it out of the event queue.
        drop(connection);
    }

    /// What sessions cause beyond their own connection. Effects may cause effects; each closes something, so they end.
    fn carry_out_effects(&mut self, now: Now) {
        loop {
            let mut effects = std::mem::take(&mut self.effects);
            self.collector.take_effects(&mut effects);
            if effects.is_empty() {
                self.effects = effects;
                return;
            }
            let mut acknowledged = Vec::new();
            for effect in effects.drain(..) {
                match effect {
                    Effect::Acknowledge { connection, number } => {
                        if let Some(found) = self.connections.find_mut(connection) {
                            found.acknowledge(number);
                            if acknowledged.last() != Some(&connection) {
                                acknowledged.push(connection);
                            }
                        }
                    }
                    Effect::Replaced { connection } => {
                        self.close(connection, &Ending::plain(CloseReason::Replaced), now);
                    }
                    Effect::MovedOn { connection } => {
                        self.close(connection, &Ending::plain(CloseReason::MovedOn), now);
                    }
                    Effect::SessionFailed { connection, session, must_return } => {
                        self.session_failed(connection, session, must_return, now)
                    }
                    Effect::Finished(job) => self.desk.add(job, &mut self.tally),
                }
            }
            for connection in acknowledged {
                self.step(connection, now, Connection::write);
            }
            self.effects = effects;
        }
    }

    fn close(&mut self, id: SlotId, ending: &Ending, now: Now) {
        self.step(id, now, |connection, turn| {
            connection.close(ending, turn);
            connection.write(turn)
        });
    }

    fn session_failed(&mut self, id: SlotId, session: SlotId, must_return: bool, now: Now) {
        let was_the_last = self.connections.find_mut(id).is_some_and(|found| found.lose_session(session));
        if was_the_last || must_return {
            self.close(id, &Ending::storage(), now);
        }
    }

    fn take_signals(&mut self, now: Now) {
        let signals: Vec<Signal> = self.signals.pending().collect();
        for signal in signals {
            match signal {
                Signal::Stop => self.stop(now),
                Signal::Reload => self.reload(),
            }
        }
    }

    fn reload(&mut self) {
        if self.flow != Flow::Running {
            warn!("config.reload ignored=\"the server is stopping\"");
            return;
        }
        self.supervisor.reloading();
        if let Some(config) = (self.reload)() {
            self.limits = connection_limits(&config);
            let descriptors = descriptors::limit().soft;
            self.shares = Shares::divide(descriptors, config.limits.connections_max);
            self.gate.reconfigure(&config, reload::keys(&config.auth));
            self.collector.reconfigure(collector_settings(&config));
            self.pacer.reconfigure(config.reactor.coalesce);
            self.desk.limit_archive((&config.archive).into());
            self.config = config;
        }
        if let Some(tls) = &mut self.tls {
            reload::certificate(tls);
        }
        self.supervisor.ready();
    }

    /// Stops accepting, closes every connection and writes everything out. A second signal waits for nobody.
    fn stop(&mut self, now: Now) {
        if self.flow != Flow::Running {
            warn!("server.stop now=true jobs_undone={}", self.desk.undone());
            self.flow = Flow::Stopped(now.instant);
            return;
        }
        let (connections, timeout) = (self.connections.len(), self.config.server.shutdown_timeout);
        info!("server.draining connections={connections} timeout_s={}", timeout.as_secs());
        self.supervisor.stopping(timeout);
        let farewell = now.instant + FAREWELL_TIME.min(timeout);
        self.flow = Flow::Draining { farewell, deadline: now.instant + timeout };
        let ids: Vec<SlotId> = self.connections.ids().collect();
        for id in ids {
            // What has arrived is taken: back ends cannot send it again.
            for _ in 0..LAST_READS {
                if !self.connections.find(id).is_some_and(Connection::is_open) {
                    break;
                }
                let mut more = false;
                self.step(id, now, |connection, turn| {
                    let step = connection.read(turn);
                    more = step == Step::Again;
                    step
                });
                if !more {
                    break;
                }
            }
            self.step(id, now, Connection::shut_down);
        }
        self.collector.shut_down(&mut self.tally, now);
        self.carry_out_effects(now);
    }

    /// While stopping: the loop ends when all peers are gone and all jobs done, or when the time is up.
    fn drain(&mut self, now: Now) {
        let Flow::Draining { farewell, deadline } = self.flow else { return };
        let are_gone = self.connections.is_empty() || now.instant >= farewell;
        let is_done = are_gone && self.desk.undone() == 0;
        if is_done || now.instant >= deadline {
            self.flow = Flow::Stopped(deadline);
        }
        self.housekeeping_due = self.housekeeping_due.min(deadline).min(farewell.max(now.instant + TICK));
    }

    fn housekeep(&mut self, now: Now) {
        // The watchdog is fed by the loop itself: it proves that turns are made.
        if now.instant >= self.watchdog_due {
            self.watchdog_due = now.instant + self.supervisor.watchdog_interval().unwrap_or(HOUSEKEEPING);
            self.supervisor.feed_watchdog(now.instant);
        }
        if now.instant < self.housekeeping_due {
            return;
        }
        self.housekeeping_due = now.instant + HOUSEKEEPING;
        self.collector.finish_idle(&mut self.tally, now);
        self.collector.check_folder(&mut self.tally, now);
        self.collector.shrink();
        self.desk.shrink();
        if let Some(free_bytes) = self.collector.check_disk() {
            self.free_bytes = free_bytes;
        }
        if let Some(tls) = self.tls.as_mut().filter(|tls| tls.has_changed()) {
            reload::certificate(tls);
        }
        self.oldest_pending = self.desk.oldest_pending(now.wall);
    }

    /// The state of the loop; all of it is at hand.
    fn gauges(&self) -> Gauges {
        let sessions = self.collector.sessions();
        Gauges {
            connections: self.upgraded as u64,
            sessions_open: sessions.open_count() as u64,
            sessions_waiting: sessions.waiting_count() as u64,
            jobs_queued: self.desk.queued() as u64,
            jobs_in_work: self.desk.in_work() as u64,
            dump_bytes_on_disk: self.collector.bytes_in_progress() + self.desk.pending_bytes(),
            oldest_pending: self.oldest_pending,
            free_bytes: self.free_bytes,
            incomplete_bytes: self.incomplete_bytes as u64,
            open_dump_files: self.collector.dumps().open_files() as u64,
        }
    }

    /// Publishes what was counted, and how long the turn took.
    fn tally_up(&mut self, now: Now) {
        self.metrics.publish(&mut self.tally, now.instant);
        self.metrics.set(&self.gauges());
        let ended = clocks().instant;
        let took = ended.saturating_duration_since(now.instant);
        self.metrics.observe_turn(took);
        self.pacer.note(TurnLoad {
            events: self.events.iter().count(),
            knocks: std::mem::take(&mut self.knocks),
            began: now.instant,
            ended,
        });
        if took > TURN_SLOW {
            warn!("loop.slow turn_ms={} turn_ms_max={}", took.as_millis(), TURN_SLOW.as_millis());
        }
    }
}

/// The clocks; read twice a turn.
#[must_use]
fn clocks() -> Now {
    #[expect(clippy::disallowed_methods, reason = "the loop is the one place that reads the clocks")]
    Now { instant: Moment::now(), wall: SystemTime::now() }
}

/// Whether accepting failed for a reason of that one connection, which is gone.
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::TimedOut
    )
}

fn connection_limits(config: &Config) -> ConnectionLimits {
    let limits = &config.limits;
    ConnectionLimits {
        head: crate::http::HeadLimits {
            bytes_max: limits.head_bytes_max,
            headers_max: limits.head_headers_max,
        },
        head_timeout: limits.head_timeout,
        frames: crate::websocket::FrameLimits {
            message_bytes_max: limits.message_bytes_max,
            message_fragments_max: limits.message_fragments_max,
        },
        idle: limits.idle,
        outgoing_bytes_max: limits.outgoing_bytes_max,
        incomplete_bytes_max: limits.incomplete_bytes_max,
    }
}

/// The collector's share of the configuration.
#[must_use]
pub fn collector_settings(config: &Config) -> crate::collector::CollectorSettings {
    crate::collector::CollectorSettings {
        flush_interval: config.dump.flush_interval,
        flush_bytes: config.dump.flush_bytes,
        flush_total_bytes: config.dump.flush_total_bytes,
        min_free_bytes: config.dump.min_free_bytes,
        reconnect_grace: config.sessions.reconnect_grace,
        session_idle: config.sessions.idle,
        join_by_number: config.sessions.join_by_number,
        sessions_max: config.limits.sessions_max,
        waiting_sessions_max: config.limits.waiting_sessions_max,
        sessions_per_connection_max: config.limits.sessions_per_connection_max,
        sessions_per_backend_connection_max: config.limits.sessions_per_backend_connection_max,
        session_bytes_max: config.limits.session_bytes_max,
        bad_requests_per_minute_max: config.limits.bad_requests_per_minute_max,
    }
}
