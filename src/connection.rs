//! One socket: its phases, what it may cost, bytes in and out.
//!
//! A connection is in one of three phases: *head* (collecting the request head), *open* (upgraded: frames in, sessions
//! fed) and *closing* (the last bytes are out or on their way; what still comes is drained, so that no reset destroys
//! them). Generic over the transport, so that every split of the bytes can be played in a test; names no mio, no file.
//!
//! Memory: nothing but this struct while no head, message or answer is incomplete. All reads go into one buffer shared by
//! all connections.
//! Rules: RFC 6455 5.5, 7; our contract, section 5.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use log::Level;

use crate::auth::{Claims, Denied};
use crate::collector::{Collector, Ending, Feeder, LINES_PER_S, Now};
use crate::gate::Gate;
use crate::handshake::{self, Upgrade};
use crate::http::{self, HeadLimits, HeadStatus, Method, Route};
use crate::limited;
use crate::logging::{Peer, RateLimit, member, value};
use crate::metrics::{MessageKind, Tally};
use crate::moment::Moment;
use crate::reactor::slots::SlotId;
use crate::reasons::{CloseReason, Refusal};
use crate::session::Farewell;
use crate::websocket::{self, Decoder, Event, FrameLimits};

/// How long a peer may take to read our last bytes and close.
const CLOSING_TIME: Duration = Duration::from_secs(2);
/// How much of what a peer still sends is read while closing.
const DRAIN_BYTES_MAX: usize = 64 * 1024;
/// A read of at least so many bytes counts as a sign of life even when it completes no frame, so that a large message
/// may take its time on a slow link while a peer that drips single bytes may not.
const PROGRESS_BYTES_MIN: usize = 512;
/// Bytes that have left and are still held, at most.
const SENT_BYTES_MAX: usize = 64 * 1024;
/// The client closes with this code when it has left the conference for good.
const CODE_LEFT: u16 = 3001;

/// A byte stream that can be closed in one direction.
pub trait Transport: Read + Write {
    /// Tells the peer that nothing more will come.
    ///
    /// # Errors
    /// When the stream is not connected any more.
    fn finish_writing(&mut self) -> io::Result<()>;

    /// Says good-bye in the stream's own way, as far as it takes it at once; it is closed next.
    fn say_goodbye(&mut self) {}

    /// Whether another read has something to tell although it raises no event.
    fn has_more(&self) -> bool {
        false
    }

    /// Whether it holds bytes that the socket did not take yet; a flush tries again.
    fn wants_write(&self) -> bool {
        false
    }

    /// Whether what is written now reaches the peer.
    fn is_established(&self) -> bool {
        true
    }

    /// Whether the peer speaks without the encryption that this port demands.
    fn is_foreign(&self) -> bool {
        false
    }
}

/// What bounds and times a connection; see the configuration keys of the same names.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// Request head.
    pub head: HeadLimits,
    /// Time for a whole head.
    pub head_timeout: Duration,
    /// Frames and messages.
    pub frames: FrameLimits,
    /// Silence after which an open connection is closed.
    pub idle: Duration,
    /// Bytes queued towards the peer.
    pub outgoing_bytes_max: usize,
    /// Bytes held for incomplete messages of all connections.
    pub incomplete_bytes_max: usize,
}

/// What one turn of the loop lends to a connection.
#[derive(Debug)]
pub struct Turn<'a> {
    /// The shared read buffer; its length is a connection's budget of bytes per turn.
    pub buffer: &'a mut [u8],
    /// The record keeper.
    pub collector: &'a mut Collector,
    /// Counters.
    pub tally: &'a mut Tally,
    /// Bounds.
    pub limits: &'a ConnectionLimits,
    /// Why upgrades are refused at present, if they are.
    pub refusal: Option<Refusal>,
    /// Who is let in.
    pub gate: &'a mut Gate,
    /// Bytes held for incomplete messages of all connections.
    pub incomplete_bytes: &'a mut usize,
    /// Bounds of the log lines that peers can cause.
    pub lines: &'a mut ConnectionLines,
    /// The clocks.
    pub now: Now,
}

/// Bounds of the log lines of all connections, one per call site.
#[derive(Debug)]
pub struct ConnectionLines {
    open: RateLimit,
    close: RateLimit,
    refuse: RateLimit,
}

impl Default for ConnectionLines {
    fn default() -> Self {
        let line = || RateLimit::new(LINES_PER_S, Duration::from_secs(1));
        Self { open: line(), close: line(), refuse: line() }
    }
}

/// What the reactor does with a connection after a step.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing more until the next event.
    Park,
    /// The budget is spent; there may be more to read.
    Again,
    /// It is over: remove it.
    Gone,
}

/// Where a connection stands, and who it is, which in the open phase the feeder knows. Most are open.
#[derive(Debug)]
enum Phase {
    /// Collecting the request head.
    Head {
        who: Who,
        /// What has come so far when it was not all in one read; at most `limits.head_bytes`.
        received: Vec<u8>,
    },
    /// Upgraded.
    Open(OpenSocket),
    /// The last bytes are queued.
    Closing {
        who: Who,
        /// Whether the peer has closed, too: then all is over once our answer is out.
        is_agreed: bool,
        /// Whether our side is closed already.
        is_shut: bool,
        /// What was read and thrown away.
        drained_bytes: usize,
    },
}

/// Name and address of a connection.
#[derive(Debug, Clone, Copy)]
struct Who {
    id: SlotId,
    /// The other end of the socket; once upgraded, the client that a trusted proxy names.
    peer: IpAddr,
}

#[derive(Debug)]
struct OpenSocket {
    decoder: Decoder,
    feeder: Feeder,
}

/// Bytes towards the peer that the socket did not take yet.
#[derive(Debug, Default)]
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    /// The newest ping that came while bytes were waiting. Only it is answered (RFC 6455 5.5.3), so a peer that pings
    /// without reading costs nothing.
    late_pong: Option<Box<[u8]>>,
}

impl Outgoing {
    fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// So many bytes have left. What has left is let go of now and then, for a peer that always leaves a little.
    fn advance(&mut self, count: usize) {
        self.sent += count;
        if self.sent >= SENT_BYTES_MAX {
            self.bytes.drain(..self.sent.min(self.bytes.len()));
            self.sent = 0;
        }
    }
}

/// One socket.
#[derive(Debug)]
pub struct Connection<S> {
    stream: S,
    phase: Phase,
    /// While there is anything that the socket did not take yet.
    outgoing: Option<Box<Outgoing>>,
    /// When the peer last gave a sign of life; in the head phase, when it was accepted; in the closing one, when that began.
    last_heard: Moment,
    /// Whether half of the idle limit has passed since then.
    is_quiet: bool,
    is_counted_open: bool,
    /// Whether it counts for its peer in the limit of connections per address; the reactor gives it back at the end.
    pub is_counted: bool,
    /// The reactor's: whether it stands in the queue of those that have more to read.
    pub is_ready: bool,
    /// The reactor's: whether the end of the stream was signalled, so that it must be read to its end.
    pub is_read_closed: bool,
    /// The reactor's: whether writability is asked for.
    pub awaits_writable: bool,
}

impl<S: Transport> Connection<S> {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new(id: SlotId, stream: S, peer: IpAddr, now: Moment) -> Self {
        Self {
            stream,
            phase: Phase::Head { who: Who { id, peer }, received: Vec::new() },
            outgoing: None,
            last_heard: now,
            is_quiet: false,
            is_counted_open: false,
            is_counted: false,
            is_ready: false,
            is_read_closed: false,
            awaits_writable: false,
        }
    }

    /// The stream, for registration.
    pub fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    fn who(&self) -> Who {
        match &self.phase {
            Phase::Head { who, .. } | Phase::Closing { who, .. } => *who,
            Phase::Open(OpenSocket { feeder, .. }) => Who { id: feeder.connection, peer: feeder.address },
        }
    }

    /// The other end of the socket; once upgraded, the client that a trusted proxy names.
    #[must_use]
    pub fn peer(&self) -> IpAddr {
        self.who().peer
    }

    /// What is written next goes to the end of this.
    fn outgoing(&mut self) -> &mut Vec<u8> {
        &mut self.outgoing.get_or_insert_default().bytes
    }

    fn outgoing_bytes(&self) -> usize {
        self.outgoing.as_ref().map_or(0, |outgoing| outgoing.len())
    }

    /// Whether bytes wait for the socket to take them.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        self.outgoing.is_some() || self.stream.wants_write()
    }

    /// Whether it is upgraded and not yet closing.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    /// Whether it was upgraded at any time: what `rtcstats_websocket_connections` counts until it is gone.
    #[must_use]
    pub fn was_upgraded(&self) -> bool {
        self.is_counted_open
    }

    /// When [`Connection::expire`] is to be called.
    #[must_use]
    pub fn deadline(&self, limits: &ConnectionLimits) -> Moment {
        let time = match self.phase {
            Phase::Head { .. } => limits.head_timeout,
            Phase::Open(_) if self.is_quiet => limits.idle,
            Phase::Open(_) => limits.idle / 2,
            Phase::Closing { .. } => CLOSING_TIME,
        };
        self.last_heard + time
    }

    /// Reads once and handles what came.
    pub fn read(&mut self, turn: &mut Turn<'_>) -> Step {
        let count = loop {
            match self.stream.read(turn.buffer) {
                Ok(0) => return self.end_of_stream(turn),
                Ok(count) => break count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Step::Park,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.transport_failed(turn, &error),
            }
        };
        turn.tally.received_bytes += count as u64;
        // The buffer is lent out of the turn, so that the turn can be lent on beside it.
        let buffer = std::mem::take(&mut turn.buffer);
        let filled = count == buffer.len();
        if let Some(bytes) = buffer.get_mut(..count) {
            self.handle(bytes, turn);
        }
        turn.buffer = buffer;
        let step = self.write(turn);
        if step == Step::Gone {
            return step;
        }
        // A read that leaves room in the buffer has emptied the socket: the next bytes raise a new event.
        if filled || self.is_read_closed || self.stream.has_more() { Step::Again } else { Step::Park }
    }

    fn handle(&mut self, bytes: &mut [u8], turn: &mut Turn<'_>) {
        match &mut self.phase {
            Phase::Head { received, .. } => {
                if received.is_empty() {
                    self.head(bytes, turn);
                } else {
                    let mut all = std::mem::take(received);
                    all.extend_from_slice(bytes);
                    self.head(&mut all, turn);
                }
            }
            Phase::Open(_) => self.frames(bytes, turn),
            Phase::Closing { drained_bytes, .. } => *drained_bytes += bytes.len(),
        }
    }

    /// Looks at the head so far; `bytes` are all that have come.
    fn head(&mut self, bytes: &mut [u8], turn: &mut Turn<'_>) {
        if self.stream.is_foreign() {
            let text = "this port speaks TLS only: https:// or wss://";
            return self.refuse(Refusal::BadRequest, text, Method::Other, turn);
        }
        let (head_len, upgrade) = match http::parse_head(bytes, &turn.limits.head) {
            HeadStatus::Incomplete => {
                if let Phase::Head { received, .. } = &mut self.phase {
                    *received = bytes.to_vec();
                }
                return;
            }
            HeadStatus::TlsClientHello => {
                self.outgoing().extend_from_slice(&http::TLS_ALERT);
                return self.refused(Refusal::BadRequest, turn);
            }
            HeadStatus::Refused(fault) => {
                return self.refuse(fault.refusal(), &fault.to_string(), Method::Other, turn);
            }
            HeadStatus::Complete { head_len, head } => match http::route(&head) {
                Ok(Route::Health) => return self.health(head.method, turn),
                Ok(Route::Upgrade) => match handshake::accept(&head) {
                    Ok(upgrade) => (head_len, upgrade),
                    Err(fault) => return self.refuse(fault.refusal(), &fault.to_string(), head.method, turn),
                },
                Err(fault) => return self.refuse(fault.refusal(), &fault.to_string(), head.method, turn),
            },
        };
        if let Some(refusal) = turn.refusal {
            return self.refuse(refusal, refusal_text(refusal), Method::Get, turn);
        }
        if !turn.collector.has_room_for(upgrade.session_id.as_ref()) {
            return self.refuse(
                Refusal::TooManySessions,
                refusal_text(Refusal::TooManySessions),
                Method::Get,
                turn,
            );
        }
        let who = self.who();
        let client = match turn.gate.admit(who.peer, &upgrade.forwarding, &mut self.is_counted) {
            Ok(peer) => Who { peer, ..who },
            Err(refusal) => return self.refuse(refusal, refusal_text(refusal), Method::Get, turn),
        };
        let verdict = turn.gate.authorize(&upgrade, turn.now.wall);
        self.upgrade(client, &upgrade, verdict, turn);
        // A client may send frames right behind its head.
        if let (true, Some(frames)) = (self.is_open(), bytes.get_mut(head_len..))
            && !frames.is_empty()
        {
            self.frames(frames, turn);
        }
    }

    fn health(&mut self, method: Method, turn: &mut Turn<'_>) {
        if turn.refusal == Some(Refusal::Draining) {
            return self.refuse(Refusal::Draining, refusal_text(Refusal::Draining), method, turn);
        }
        http::write_ok(self.outgoing());
        self.start_closing(turn.now.instant);
    }

    /// Refuses a connection of which nothing was read yet.
    pub fn turn_away(&mut self, refusal: Refusal, turn: &mut Turn<'_>) -> Step {
        if !self.stream.is_established() {
            self.refused(refusal, turn);
            return Step::Gone;
        }
        self.refuse(refusal, refusal_text(refusal), Method::Get, turn);
        self.write(turn)
    }

    fn refuse(&mut self, refusal: Refusal, text: &str, method: Method, turn: &mut Turn<'_>) {
        http::write_refusal(self.outgoing(), refusal, text, method);
        self.refused(refusal, turn);
    }

    fn refused(&mut self, refusal: Refusal, turn: &mut Turn<'_>) {
        turn.tally.connections_refused.add_one(refusal);
        let Who { id, peer } = self.who();
        let (peer, reason) = (Peer(peer), refusal.label());
        limited!(
            turn.lines.refuse,
            turn.now.instant,
            Level::Info,
            "conn.refuse conn={id} peer={peer} reason={reason}"
        );
        self.start_closing(turn.now.instant);
    }

    /// Grants the upgrade. Whoever may not send is told so in a close frame: a browser's page learns no HTTP status.
    fn upgrade(
        &mut self,
        who: Who,
        upgrade: &Upgrade,
        verdict: Result<Option<Claims>, Denied>,
        turn: &mut Turn<'_>,
    ) {
        upgrade.write_response(self.outgoing());
        let stats_format = turn.collector.stats_format(&upgrade.user_agent);
        let mut info = upgrade.connection_info(stats_format);
        let denied = verdict.map(|claims| info.claims = claims.map(Rc::new)).err();
        let info = turn.collector.share(info);
        let mut feeder = Feeder::new(who.id, upgrade.client_type, who.peer, info);
        turn.tally.connections_upgraded += 1;
        self.is_counted_open = true;
        self.last_heard = turn.now.instant;
        let (id, peer, client) = (who.id, Peer(who.peer), upgrade.client_type.name());
        let session = member("session", upgrade.session_id.as_ref());
        limited!(
            turn.lines.open,
            turn.now.instant,
            Level::Info,
            "conn.open conn={id} peer={peer} client={client}{session}"
        );
        let greeted = match denied {
            None => turn.collector.arrive(&mut feeder, upgrade.is_reconnect, turn.tally, turn.now),
            Some(denied) => {
                Err(Ending { reason: CloseReason::Unauthorized, text: denied.to_string().into() })
            }
        };
        self.phase = Phase::Open(OpenSocket { decoder: Decoder::default(), feeder });
        match greeted {
            Ok(number) => {
                let greeting = format!(r#"{{"type":"sn","body":{{"value":{number},"state":"initial"}}}}"#);
                websocket::push_text(self.outgoing(), &greeting);
            }
            Err(ending) => self.close(&ending, turn),
        }
    }

    /// Handles all frames in `bytes`.
    fn frames(&mut self, bytes: &mut [u8], turn: &mut Turn<'_>) {
        let Phase::Open(socket) = &mut self.phase else { return };
        let held_before = socket.decoder.held_bytes();
        let mut heard = bytes.len() >= PROGRESS_BYTES_MIN;
        let mut input = bytes;
        let ending = loop {
            match socket.decoder.feed(&mut input, &turn.limits.frames) {
                Ok(None) => break None,
                Ok(Some(event)) => {
                    heard = true;
                    match event {
                        Event::Text(text) => {
                            turn.tally.messages.add_one(MessageKind::Text);
                            let taken = turn.collector.text(&mut socket.feeder, &text, turn.tally, turn.now);
                            if let Err(ending) = taken {
                                break Some(Ended::ByUs(ending));
                            }
                        }
                        Event::Binary(bytes) => {
                            turn.tally.messages.add_one(MessageKind::Binary);
                            let taken =
                                turn.collector.message(&mut socket.feeder, &bytes, turn.tally, turn.now);
                            if let Err(ending) = taken {
                                break Some(Ended::ByUs(ending));
                            }
                        }
                        Event::Ping(payload) => {
                            turn.tally.pings_received += 1;
                            match &mut self.outgoing {
                                Some(outgoing) => outgoing.late_pong = Some(payload.into_owned().into()),
                                None => {
                                    let outgoing = self.outgoing.get_or_insert_default();
                                    websocket::push_pong(&mut outgoing.bytes, &payload);
                                }
                            }
                        }
                        Event::Pong(_) => turn.tally.pongs_received += 1,
                        Event::Close { code, .. } => break Some(Ended::ByPeer(code)),
                    }
                }
                Err(violation) => {
                    let text = violation.to_string().into();
                    break Some(Ended::ByUs(Ending { reason: violation.close_reason(), text }));
                }
            }
        };
        let held = socket.decoder.held_bytes();
        *turn.incomplete_bytes = (*turn.incomplete_bytes + held).saturating_sub(held_before);
        if heard {
            self.last_heard = turn.now.instant;
            self.is_quiet = false;
        }
        match ending {
            Some(Ended::ByUs(ending)) => self.close(&ending, turn),
            Some(Ended::ByPeer(code)) => self.closed_by_peer(code, turn),
            None if *turn.incomplete_bytes > turn.limits.incomplete_bytes_max && held > held_before => {
                let text = format!(
                    "incomplete messages hold {} bytes, at most {} are allowed",
                    turn.incomplete_bytes, turn.limits.incomplete_bytes_max
                );
                self.close(&Ending { reason: CloseReason::Overload, text: text.into() }, turn);
            }
            None => {}
        }
    }

    /// The peer's close frame came: it is echoed.
    fn closed_by_peer(&mut self, code: Option<u16>, turn: &mut Turn<'_>) {
        let farewell = if code == Some(CODE_LEFT) { Farewell::ForGood } else { Farewell::MayReturn };
        self.leave(farewell, turn);
        websocket::push_close(self.outgoing(), code, "");
        self.ended(CloseReason::PeerClosed, &format!("code={}", code.unwrap_or(1005)), turn);
        self.start_closing(turn.now.instant);
        if let Phase::Closing { is_agreed, .. } = &mut self.phase {
            *is_agreed = true;
        }
    }

    /// Closes an upgraded connection from our side; has no effect on any other.
    pub fn close(&mut self, ending: &Ending, turn: &mut Turn<'_>) {
        let Phase::Open(socket) = &mut self.phase else { return };
        let mut reason = ending.reason;
        if matches!(reason, CloseReason::MessageTooBig | CloseReason::BadRequests) {
            reason = turn.collector.refused_for(reason, &mut socket.feeder, turn.tally, turn.now);
        }
        self.leave(Farewell::MayReturn, turn);
        if let Some(code) = reason.code() {
            websocket::push_close(self.outgoing(), Some(code), &ending.text);
        }
        self.ended(reason, &ending.text, turn);
        self.start_closing(turn.now.instant);
    }

    fn leave(&mut self, farewell: Farewell, turn: &mut Turn<'_>) {
        if let Phase::Open(socket) = &mut self.phase {
            *turn.incomplete_bytes = turn.incomplete_bytes.saturating_sub(socket.decoder.held_bytes());
            socket.decoder = Decoder::default();
            turn.collector.leave(&mut socket.feeder, farewell, turn.tally, turn.now);
        }
    }

    fn ended(&self, reason: CloseReason, detail: &str, turn: &mut Turn<'_>) {
        turn.tally.connections_closed.add_one(reason);
        let detail = member("detail", Some(detail).filter(|detail| !detail.is_empty()).map(value));
        let (id, reason) = (self.who().id, reason.label());
        limited!(
            turn.lines.close,
            turn.now.instant,
            Level::Info,
            "conn.close conn={id} reason={reason}{detail}"
        );
    }

    fn start_closing(&mut self, now: Moment) {
        self.phase = Phase::Closing { who: self.who(), is_agreed: false, is_shut: false, drained_bytes: 0 };
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.late_pong = None;
        }
        self.last_heard = now;
    }

    fn end_of_stream(&mut self, turn: &mut Turn<'_>) -> Step {
        match &self.phase {
            Phase::Head { .. } => turn.tally.connections_refused.add_one(Refusal::Vanished),
            Phase::Open(_) => {
                self.leave(Farewell::MayReturn, turn);
                self.ended(CloseReason::EndOfStream, "", turn);
            }
            Phase::Closing { .. } => {}
        }
        // The peer may read on although it writes no more: it is told that this is our end, too (RFC 8446 6.1).
        self.stream.say_goodbye();
        Step::Gone
    }

    fn transport_failed(&mut self, turn: &mut Turn<'_>, error: &io::Error) -> Step {
        match &self.phase {
            // An alert is on its way, which a reset would destroy.
            Phase::Head { .. } if error.kind() == io::ErrorKind::InvalidData => {
                self.refused(Refusal::Tls, turn);
                return self.write(turn);
            }
            Phase::Head { .. } => turn.tally.connections_refused.add_one(Refusal::Vanished),
            Phase::Open(_) => {
                self.leave(Farewell::MayReturn, turn);
                self.ended(CloseReason::TransportError, &error.kind().to_string(), turn);
            }
            Phase::Closing { .. } => {}
        }
        Step::Gone
    }

    /// Writes what is queued, as far as the socket takes it.
    pub fn write(&mut self, turn: &mut Turn<'_>) -> Step {
        while let Some(outgoing) = &mut self.outgoing {
            let rest = outgoing.bytes.get(outgoing.sent..).unwrap_or_default();
            if rest.is_empty() {
                match outgoing.late_pong.take() {
                    None => self.outgoing = None,
                    Some(payload) => {
                        **outgoing = Outgoing::default();
                        websocket::push_pong(&mut outgoing.bytes, &payload);
                    }
                }
                continue;
            }
            match self.stream.write(rest) {
                Ok(count) => outgoing.advance(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.transport_failed(turn, &error),
            }
        }
        if let Err(error) = self.stream.flush() {
            return self.transport_failed(turn, &error);
        }
        if self.outgoing_bytes() > turn.limits.outgoing_bytes_max {
            return self.too_slow(turn);
        }
        let waits = self.wants_write();
        if let Phase::Closing { is_agreed, is_shut, drained_bytes, .. } = &mut self.phase {
            if !waits && *is_agreed {
                // A server closes first (RFC 6455 7.1.1). Nothing may follow a close frame, so no answer is lost by it.
                self.stream.say_goodbye();
                return Step::Gone;
            }
            if !waits && !*is_shut {
                *is_shut = true;
                if self.stream.finish_writing().is_err() {
                    return Step::Gone;
                }
            }
            if *drained_bytes > DRAIN_BYTES_MAX {
                return Step::Gone;
            }
        }
        Step::Park
    }

    fn too_slow(&mut self, turn: &mut Turn<'_>) -> Step {
        if self.is_open() {
            let text = format!(
                "outgoing_bytes={} outgoing_bytes_max={}",
                self.outgoing_bytes(),
                turn.limits.outgoing_bytes_max
            );
            self.leave(Farewell::MayReturn, turn);
            self.ended(CloseReason::SlowReader, &text, turn);
        }
        Step::Gone
    }

    /// Queues and sends the acknowledgement of an entry; has no effect when not open.
    pub fn acknowledge(&mut self, number: u64) {
        if self.is_open() {
            let text = format!(r#"{{"type":"sn","body":{{"value":{number}}}}}"#);
            websocket::push_text(self.outgoing(), &text);
        }
    }

    /// One of the sessions is lost to it. Returns whether that was the last one.
    pub fn lose_session(&mut self, session: SlotId) -> bool {
        let Phase::Open(socket) = &mut self.phase else { return false };
        socket.feeder.carried.remove(session);
        socket.feeder.carried.is_empty()
    }

    /// The deadline has come.
    pub fn expire(&mut self, turn: &mut Turn<'_>) -> Step {
        match &self.phase {
            Phase::Head { .. } if !self.stream.is_established() => {
                self.refused(Refusal::HeadTimeout, turn);
                Step::Gone
            }
            Phase::Head { .. } => {
                let text =
                    format!("no complete request head within {} s", turn.limits.head_timeout.as_secs_f32());
                self.refuse(Refusal::HeadTimeout, &text, Method::Other, turn);
                self.write(turn)
            }
            Phase::Open(_) => self.silent(turn),
            Phase::Closing { .. } => Step::Gone,
        }
    }

    /// Half of the idle limit after the last sign of life the peer is pinged, after all of it the connection closed.
    fn silent(&mut self, turn: &mut Turn<'_>) -> Step {
        let (now, idle) = (turn.now.instant, turn.limits.idle);
        let silence = now.saturating_duration_since(self.last_heard);
        if silence >= idle {
            let text =
                format!("silent for {} s, at most {} s are allowed", silence.as_secs(), idle.as_secs());
            self.close(&Ending { reason: CloseReason::Idle, text: text.into() }, turn);
        } else if silence >= idle / 2 && !self.is_quiet {
            self.is_quiet = true;
            if self.outgoing.is_none() {
                turn.tally.pings_sent += 1;
                websocket::push_ping(self.outgoing(), b"");
            }
        }
        self.write(turn)
    }

    /// The server stops: an upgraded connection is closed with 1001, a head is refused.
    pub fn shut_down(&mut self, turn: &mut Turn<'_>) -> Step {
        match &self.phase {
            Phase::Head { .. } if !self.stream.is_established() => {
                self.refused(Refusal::Draining, turn);
                return Step::Gone;
            }
            Phase::Head { .. } => {
                self.refuse(Refusal::Draining, refusal_text(Refusal::Draining), Method::Get, turn);
            }
            Phase::Open(_) => self.close(&Ending::plain(CloseReason::Shutdown), turn),
            Phase::Closing { .. } => {}
        }
        self.write(turn)
    }
}

enum Ended {
    ByUs(Ending),
    ByPeer(Option<u16>),
}

/// The one line of text in an answer that does not depend on what was asked.
fn refusal_text(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Draining => "the server is shutting down",
        Refusal::DiskFull => "the disk is full",
        Refusal::DiskUnwritable => "the dump folder cannot be written",
        Refusal::TooManyConnections => "too many connections",
        Refusal::TooManySessions => "too many sessions",
        Refusal::TooManyRequests => {
            "too many connections or handshakes of this address, or in all, at present"
        }
        Refusal::NoDescriptors => "no descriptors left",
        Refusal::BadRequest
        | Refusal::NotFound
        | Refusal::MethodNotAllowed
        | Refusal::HeadTimeout
        | Refusal::UpgradeRequired
        | Refusal::HeadTooLarge
        | Refusal::Tls
        | Refusal::Vanished => refusal.label(),
    }
}
