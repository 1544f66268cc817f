//! The simulated client on a socket: what a browser's WebSocket does, driven by [`Trace`].

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::record::{Ending, Record};
use crate::support::frames;
use crate::support::http::Response;
use crate::support::{DEADLINE, Rng, Upgrade};
use crate::trace::{Reaction, Trace};

/// Where the server is at present, when it is anywhere.
#[derive(Debug, Clone, Default)]
pub(crate) struct Whereabouts(Arc<Mutex<Option<SocketAddr>>>);

impl Whereabouts {
    pub(crate) fn set(&self, address: Option<SocketAddr>) {
        *self.0.lock().unwrap() = address;
    }

    pub(crate) fn now(&self) -> Option<SocketAddr> {
        *self.0.lock().unwrap()
    }
}

/// How a client is to end its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leave {
    /// When everything is sent, with 3001.
    Settled,
    /// At once, with 3001, whatever is still unsent.
    Abruptly,
    /// As a zombie: it left while a reconnect was pending, comes back, sends everything again, and vanishes.
    AsZombie,
}

/// What a client does apart from its rules.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Entries to be traced.
    pub(crate) entries: u64,
    /// Most entries of an ordinary burst, and most time between two.
    pub(crate) burst_max: u64,
    pub(crate) pause_us_max: u64,
    /// A burst that overflows the replay buffer, one burst in so many; 0 = never.
    pub(crate) floods: u64,
    pub(crate) leave: Leave,
}

impl Plan {
    /// Traces for about as long as `tracing_ms` says.
    pub(crate) fn roll(rng: &mut Rng, tracing_ms: u64, burst_max: u64, leave: Leave) -> Self {
        let pause_us_max = *rng.pick(&[3_000, 10_000, 40_000]);
        let bursts = tracing_ms * 1000 / (pause_us_max / 2);
        let entries = (bursts * (1 + burst_max) / 2).clamp(20, 5_000);
        let floods = if rng.one_in(3) { bursts.max(2) } else { 0 };
        Self { entries, burst_max, pause_us_max, floods, leave }
    }
}

/// A socket as a browser has it: everything that is sent is queued without a bound.
#[derive(Debug)]
struct Socket {
    stream: TcpStream,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    sent: usize,
    is_upgraded: bool,
    was_greeted: bool,
    /// Newest acknowledgement on this connection.
    last_value: Option<f64>,
    is_closing: bool,
}

/// One client for one session.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) trace: Trace,
    plan: Plan,
    rng: Rng,
    server: Whereabouts,
    /// Set when the network is well again and the client may end its session.
    calm: Arc<AtomicBool>,
    socket: Option<Socket>,
    connections: u64,
    reconnect_at: Option<Instant>,
    burst_at: Instant,
    ending: Option<Ending>,
}

impl Client {
    pub(crate) fn new(
        trace: Trace,
        plan: Plan,
        rng: Rng,
        server: Whereabouts,
        calm: Arc<AtomicBool>,
    ) -> Self {
        let now = Instant::now();
        Self {
            trace,
            plan,
            rng,
            server,
            calm,
            socket: None,
            connections: 0,
            reconnect_at: Some(now),
            burst_at: now,
            ending: None,
        }
    }

    /// Lives until the session is over.
    pub(crate) fn run(mut self) -> Record {
        let mut deadline = None;
        while self.ending.is_none() {
            let now = Instant::now();
            if self.calm.load(Ordering::Relaxed) && self.is_done() {
                let deadline = *deadline.get_or_insert(now + DEADLINE);
                assert!(now < deadline, "the session does not end: {self:#?}");
            }
            if self.reconnect_at.is_some_and(|at| at <= now) {
                self.reconnect_at = None;
                self.connect();
            }
            if self.burst_at <= now {
                self.burst(now);
            }
            self.exchange();
            self.leave();
            self.wait();
        }
        let ending = self.ending.unwrap();
        Record { trace: self.trace, ending, connections: self.connections }
    }

    fn is_done(&self) -> bool {
        self.trace.count >= self.plan.entries
    }

    fn burst(&mut self, now: Instant) {
        self.burst_at = now + Duration::from_micros(self.rng.between(100, self.plan.pause_us_max));
        let flood = self.plan.floods > 0 && self.rng.one_in(self.plan.floods);
        let count =
            if flood { self.rng.between(300, 1_400) } else { self.rng.between(1, self.plan.burst_max) };
        for _ in 0..count {
            if self.is_done() {
                self.burst_at = now + Duration::from_secs(3600);
                return;
            }
            if let Some(request) = self.trace.entry() {
                self.send(&request);
            }
            // Keepalives carry no number and are not buffered.
            if self.trace.can_send && self.rng.one_in(200) {
                let keepalive = format!(r#"{{"statsSessionId":"{}","type":"keepalive"}}"#, self.trace.id);
                self.send(&keepalive);
            }
        }
    }

    fn send(&mut self, request: &str) {
        if let Some(socket) = &mut self.socket
            && !socket.is_closing
        {
            socket.outbox.extend_from_slice(&frames::message(frames::TEXT, request.as_bytes()));
        }
    }

    fn connect(&mut self) {
        let is_reconnect = self.connections > 0;
        if is_reconnect && self.trace.habits.is_in_breakout_room {
            self.trace.take_new_id(&mut self.rng);
        }
        self.connections += 1;
        let stream = self.server.now().and_then(|address| TcpStream::connect(address).ok());
        let Some(stream) = stream else { return self.closed(1006) };
        stream.set_nonblocking(true).unwrap();
        stream.set_nodelay(true).unwrap();
        let id = &self.trace.id;
        let mut upgrade = Upgrade::browser(id)
            .target(&format!("/example/room?statsSessionId={id}&isReconnect={is_reconnect}"));
        if self.trace.habits.is_legacy {
            upgrade.protocols = "3.1_LEGACY".into();
        }
        self.socket = Some(Socket {
            stream,
            inbox: Vec::new(),
            outbox: upgrade.head().into_bytes(),
            sent: 0,
            is_upgraded: false,
            was_greeted: false,
            last_value: None,
            is_closing: false,
        });
    }

    /// The close event.
    fn closed(&mut self, code: u16) {
        self.socket = None;
        if matches!(code, 3001 | 3002) {
            self.trace.can_send = false;
            self.ending = Some(if code == 3001 { Ending::ToldToLeave } else { Ending::Refused });
            return;
        }
        match self.trace.closed(&mut self.rng) {
            Some(delay) => self.reconnect_at = Some(Instant::now() + delay),
            None => self.ending = Some(Ending::OutOfAttempts),
        }
    }

    /// Writes and reads what is possible.
    fn exchange(&mut self) {
        let Some(socket) = &mut self.socket else { return };
        let mut is_broken = false;
        while socket.sent < socket.outbox.len() {
            match socket.stream.write(&socket.outbox[socket.sent..]) {
                Ok(count) => socket.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    is_broken = true;
                    break;
                }
            }
        }
        if socket.sent == socket.outbox.len() {
            socket.outbox.clear();
            socket.sent = 0;
        }
        let mut chunk = [0; 16 * 1024];
        loop {
            match socket.stream.read(&mut chunk) {
                Ok(0) => {
                    is_broken = true;
                    break;
                }
                Ok(count) => socket.inbox.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    is_broken = true;
                    break;
                }
            }
        }
        self.understand();
        if is_broken && self.socket.is_some() {
            self.closed(1006);
        }
    }

    fn understand(&mut self) {
        loop {
            let Some(socket) = &mut self.socket else { return };
            if !socket.is_upgraded {
                let Some(mut answer) = Response::parse(&socket.inbox) else { return };
                if answer.status != 101 {
                    return self.closed(1006);
                }
                socket.is_upgraded = true;
                socket.inbox = std::mem::take(&mut answer.body);
            }
            let Some(frame) = frames::take(&mut socket.inbox) else { return };
            match frame.opcode {
                frames::TEXT => self.sn(&frame.payload),
                frames::PING => {
                    let pong = frames::message(frames::PONG, &frame.payload);
                    socket.outbox.extend_from_slice(&pong);
                }
                frames::CLOSE => {
                    let code = frame.payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                    // Ours, echoed; any other came before it, and is a reason to come back.
                    if socket.is_closing && code == 3001 {
                        self.socket = None;
                        self.ending = Some(Ending::of(self.plan.leave));
                        return;
                    }
                    // The browser answers and closes.
                    let _ = socket.stream.write(&frames::close(Some(code), ""));
                    return self.closed(code);
                }
                other => panic!("an unexpected frame of opcode {other}"),
            }
        }
    }

    fn sn(&mut self, payload: &[u8]) {
        let message: serde_json::Value = serde_json::from_slice(payload).expect("JSON");
        assert_eq!(message["type"], "sn");
        let value = message["body"]["value"].as_f64().expect("the value is a number");
        let is_initial = message["body"]["state"] == "initial";
        let socket = self.socket.as_mut().unwrap();
        assert_eq!(is_initial, !socket.was_greeted, "`initial` comes first, and once");
        assert!(value as u64 <= self.trace.count, "{value} was never sent");
        if is_initial {
            socket.was_greeted = true;
        } else {
            assert!(value > 0.0, "0 is no entry");
            assert!(socket.last_value < Some(value), "{value} after {:?}", socket.last_value);
            socket.last_value = Some(value);
        }
        match self.trace.sn(value, is_initial) {
            Reaction::Nothing => {}
            Reaction::Replay(requests) => requests.iter().for_each(|request| self.send(request)),
            Reaction::GiveUp => {
                self.socket = None;
                self.trace.can_send = false;
                self.ending = Some(Ending::GaveUp);
            }
        }
    }

    /// Ends the session when it is time.
    fn leave(&mut self) {
        if self.ending.is_some() || !self.is_done() {
            return;
        }
        let is_calm = self.calm.load(Ordering::Relaxed);
        let can_send = self.trace.can_send;
        let is_settled = self.socket.as_ref().is_some_and(|socket| socket.outbox.is_empty()) && can_send;
        let Some(socket) = &mut self.socket else { return };
        if socket.is_closing {
            return;
        }
        let is_time = match self.plan.leave {
            Leave::Settled => is_settled && is_calm,
            Leave::Abruptly => can_send,
            Leave::AsZombie => is_settled && is_calm && self.trace.buffered() < 100,
        };
        if !is_time {
            return;
        }
        if self.plan.leave == Leave::AsZombie {
            self.socket = None;
            self.ending = Some(Ending::Vanished);
            return;
        }
        socket.is_closing = true;
        socket.outbox.extend_from_slice(&frames::close(Some(3001), ""));
    }

    /// Waits for the socket or the next thing to do.
    fn wait(&self) {
        let now = Instant::now();
        let next = self.reconnect_at.map_or(self.burst_at, |at| at.min(self.burst_at));
        let time = next.saturating_duration_since(now).min(Duration::from_millis(5));
        let Some(socket) = &self.socket else { return crate::pass(time) };
        let mut flags = PollFlags::IN;
        if !socket.outbox.is_empty() {
            flags |= PollFlags::OUT;
        }
        let timeout = Timespec { tv_sec: 0, tv_nsec: time.as_nanos() as i64 };
        let _ = poll(&mut [PollFd::new(&socket.stream, flags)], Some(&timeout));
    }
}
