//! The clients of a bench: one thread, one epoll, thousands of connections with one session each.
//!
//! Never measured itself, but it must not be what is measured: frames are built once, copied and stamped per message,
//! and leave in bursts. A connection that is refused, closed early or reset ends the run: its figures would be wrong.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::frames;
use super::mix::{Identity, Mix};
use super::rng::Rng;

/// Bytes that one connection may send in its turn, so that all of them keep their server busy.
const BURST_BYTES: usize = 256 * 1024;
/// Handshakes under way at most.
const OPENING_MAX: usize = 64;
/// Connections to one address of the receiver. When half of the 28,000 ports that the kernel gives to clients are in use
/// towards an address, it looks at all of those for each further connection, which takes 5 ms.
const CONNECTIONS_PER_ADDRESS: usize = 10_000;
/// A run in which nothing moves for this long has failed.
const STALL: Duration = Duration::from_secs(60);
/// The sample nonce of RFC 6455.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// All connections of one run.
#[derive(Debug)]
pub(crate) struct Fleet<'a> {
    mix: &'a Mix,
    port: u16,
    poll: Poll,
    events: Events,
    connections: Vec<Connection>,
    /// Connections that may write and have something to write.
    ready: VecDeque<usize>,
    /// Handshakes under way.
    opening: usize,
    /// Connections whose end has been seen.
    ended: usize,
    moved_at: Instant,
    burst: Burst,
    /// Messages and bytes of frames that were handed to the kernel.
    pub(crate) messages: u64,
    pub(crate) wire_bytes: u64,
}

/// One client.
#[derive(Debug)]
struct Connection {
    /// Gone when the connection has ended, so that its descriptor can be used again.
    stream: Option<TcpStream>,
    phase: Phase,
    identity: Identity,
    /// Frames wholly sent, and how many may be: messages, then (when closing) the request and the frame that end it.
    sent: u64,
    due: u64,
    /// Bytes of the next frame that are already sent.
    partial: usize,
    /// The number of messages after which the session ends.
    closing: Option<u64>,
    writable: bool,
    queued: bool,
    inbox: Vec<u8>,
    wire_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The request head is not sent yet.
    Connecting,
    /// Waiting for the 101.
    Upgrading,
    /// Waiting for the first message.
    Greeting,
    Open,
    /// The server has answered our close frame.
    Closed,
    Ended,
}

/// What one session has sent.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) identity: Identity,
    pub(crate) messages: u64,
    pub(crate) wire_bytes: u64,
}

/// The frames that go out in one turn, and where each ends.
#[derive(Debug, Default)]
struct Burst {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl<'a> Fleet<'a> {
    /// Clients of a receiver that listens on all loopback addresses.
    pub(crate) fn new(mix: &'a Mix, port: u16) -> io::Result<Self> {
        Ok(Self {
            mix,
            port,
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            connections: Vec::new(),
            ready: VecDeque::new(),
            opening: 0,
            ended: 0,
            moved_at: Instant::now(),
            burst: Burst::default(),
            messages: 0,
            wire_bytes: 0,
        })
    }

    /// Opens connections until there are `total`; returns when all have been greeted.
    pub(crate) fn open(&mut self, total: usize, mut identity: impl FnMut() -> Identity) -> io::Result<()> {
        while self.connections.len() < total || self.opening > 0 {
            while self.connections.len() < total && self.opening < OPENING_MAX {
                self.connect(identity())?;
            }
            self.turn(None)?;
        }
        Ok(())
    }

    /// Opens `total` connections, one each `interval`; each sends `messages` as soon as it is greeted. Returns when all
    /// of that is with the kernel.
    pub(crate) fn open_paced(
        &mut self,
        total: u32,
        interval: Duration,
        messages: u64,
        mut identity: impl FnMut() -> Identity,
    ) -> io::Result<()> {
        let began = Instant::now();
        for number in 0..total {
            self.wait_for(began + interval * number)?;
            while self.opening >= OPENING_MAX {
                self.turn(None)?;
            }
            self.connect(identity())?;
            if let Some(newest) = self.connections.last_mut() {
                newest.due = messages;
            }
        }
        while self.opening > 0 || self.connections.iter().any(|connection| connection.sent < connection.due) {
            self.turn(None)?;
        }
        Ok(())
    }

    /// How many connections there have been.
    pub(crate) fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Every session sends `messages` more, as fast as its socket takes them; returns when all are with the kernel.
    pub(crate) fn send(&mut self, messages: u64) -> io::Result<()> {
        self.send_from(0, messages)
    }

    /// As [`Self::send`], for the connections from number `first` on.
    pub(crate) fn send_from(&mut self, first: usize, messages: u64) -> io::Result<()> {
        for index in first..self.connections.len() {
            self.connections[index].due += messages;
            self.queue(index);
        }
        while self.connections.iter().any(|connection| connection.sent < connection.due) {
            self.turn(None)?;
        }
        Ok(())
    }

    /// As [`Self::send`], and ends every session; returns when the server has closed all connections, having read
    /// everything.
    pub(crate) fn send_and_close(&mut self, messages: u64) -> io::Result<()> {
        for index in 0..self.connections.len() {
            self.connections[index].due += messages;
            self.close_when_sent(index);
        }
        while self.ended < self.connections.len() {
            self.turn(None)?;
        }
        Ok(())
    }

    /// A moment of the interval for each session, in order.
    pub(crate) fn phases(&self, interval: Duration, rng: &mut Rng) -> Vec<(Duration, usize)> {
        let mut order: Vec<(Duration, usize)> = (0..self.connections.len())
            .map(|index| (interval.mul_f64(rng.between(0, 1 << 30) as f64 / f64::from(1 << 30)), index))
            .collect();
        order.sort_unstable();
        order
    }

    /// Every session sends a message each `interval`, at its phase, `rounds` times; the first of each in a round of its own
    /// among the first `begin_within`.
    pub(crate) fn pace(
        &mut self,
        phases: &[(Duration, usize)],
        interval: Duration,
        rounds: u32,
        begin_within: usize,
    ) -> io::Result<()> {
        let began = Instant::now();
        for round in 0..rounds {
            for &(phase, index) in phases {
                if (round as usize) < index % begin_within {
                    continue;
                }
                let at = began + interval * round + phase;
                self.wait_for(at)?;
                self.connections[index].due += 1;
                self.queue(index);
                self.write_ready()?;
            }
        }
        self.wait_for(began + interval * rounds)
    }

    /// Sends nothing for a while; what comes is read and answered.
    pub(crate) fn rest(&mut self, time: Duration) -> io::Result<()> {
        self.wait_for(Instant::now() + time)
    }

    /// Runs `total` short sessions of `messages` each, at most `parallel` at a time.
    pub(crate) fn churn(
        &mut self,
        total: usize,
        parallel: usize,
        messages: u64,
        mut identity: impl FnMut() -> Identity,
    ) -> io::Result<()> {
        while self.ended < total {
            while self.connections.len() < total && self.connections.len() - self.ended < parallel {
                self.connect(identity())?;
                let index = self.connections.len() - 1;
                self.connections[index].due = messages;
                self.close_when_sent(index);
            }
            self.turn(None)?;
        }
        Ok(())
    }

    /// What every session has sent.
    pub(crate) fn into_sent(self) -> Vec<Sent> {
        let sent = |connection: Connection| Sent {
            messages: connection.closing.unwrap_or(connection.sent).min(connection.sent),
            identity: connection.identity,
            wire_bytes: connection.wire_bytes,
        };
        self.connections.into_iter().map(sent).collect()
    }

    /// Reads what comes until then. A poll ends on a whole millisecond, in which some messages would be sent together
    /// and cost their receiver one wake-up; so the rest is slept.
    fn wait_for(&mut self, at: Instant) -> io::Result<()> {
        loop {
            let left = at.saturating_duration_since(Instant::now());
            let whole = Duration::from_millis(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
            self.turn(Some(whole))?;
            if whole.is_zero() {
                std::thread::sleep(at.saturating_duration_since(Instant::now()));
                return Ok(());
            }
        }
    }

    fn connect(&mut self, identity: Identity) -> io::Result<()> {
        let number = self.connections.len();
        let address =
            Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + (number / CONNECTIONS_PER_ADDRESS) as u32);
        let mut stream = TcpStream::connect(SocketAddr::from((address, self.port)))?;
        let token = Token(number);
        self.poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        self.opening += 1;
        self.connections.push(Connection {
            stream: Some(stream),
            phase: Phase::Connecting,
            identity,
            sent: 0,
            due: 0,
            partial: 0,
            closing: None,
            writable: false,
            queued: false,
            inbox: Vec::new(),
            wire_bytes: 0,
        });
        Ok(())
    }

    fn close_when_sent(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        connection.closing = Some(connection.due);
        connection.due += 2;
        self.queue(index);
    }

    /// One wake-up: what arrived is read, what may leave is written. Waits at most `longest`.
    fn turn(&mut self, longest: Option<Duration>) -> io::Result<()> {
        let timeout = if self.ready.is_empty() { longest.unwrap_or(STALL) } else { Duration::ZERO };
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        let happened: Vec<_> = self
            .events
            .iter()
            .map(|event| {
                (event.token().0, event.is_readable() || event.is_read_closed(), event.is_writable())
            })
            .collect();
        if !happened.is_empty() {
            self.moved_at = Instant::now();
        }
        for (index, readable, writable) in happened {
            if writable {
                self.connections[index].writable = true;
                self.upgrade(index)?;
                self.queue(index);
            }
            if readable {
                self.read(index)?;
            }
        }
        self.write_ready()?;
        // Between paced messages silence is normal.
        if longest.is_none() && self.moved_at.elapsed() > STALL {
            return Err(failed("nothing has moved for a minute"));
        }
        Ok(())
    }

    fn queue(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        let has_work = connection.phase == Phase::Open && connection.sent < connection.due;
        if has_work && connection.writable && !connection.queued {
            connection.queued = true;
            self.ready.push_back(index);
        }
    }

    /// Gives each connection that may write one burst.
    fn write_ready(&mut self) -> io::Result<()> {
        for _ in 0..self.ready.len() {
            let Some(index) = self.ready.pop_front() else { break };
            self.connections[index].queued = false;
            self.write(index)?;
            self.queue(index);
        }
        Ok(())
    }

    fn write(&mut self, index: usize) -> io::Result<()> {
        let connection = &mut self.connections[index];
        self.burst.fill(self.mix, connection);
        let rest = &self.burst.bytes[connection.partial..];
        let count = match connection.stream()?.write(rest) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        connection.writable = count == rest.len();
        connection.wire_bytes += count as u64;
        self.wire_bytes += count as u64;
        self.moved_at = Instant::now();
        let reached = connection.partial + count;
        let whole = self.burst.ends.iter().take_while(|end| **end <= reached).count();
        connection.partial = reached - whole.checked_sub(1).map_or(0, |last| self.burst.ends[last]);
        for _ in 0..whole {
            self.messages += u64::from(connection.closing.is_none_or(|messages| connection.sent < messages));
            connection.sent += 1;
        }
        Ok(())
    }

    /// Sends the request head once the stream is connected.
    fn upgrade(&mut self, index: usize) -> io::Result<()> {
        let connection = &mut self.connections[index];
        if connection.phase != Phase::Connecting {
            return Ok(());
        }
        if let Some(error) = connection.stream()?.take_error()? {
            return Err(error);
        }
        connection.stream()?.set_nodelay(true)?;
        let head = format!(
            "GET /bench?statsSessionId={}&isReconnect=false HTTP/1.1\r\nHost: localhost:{}\r\nConnection: Upgrade\r\n\
             Pragma: no-cache\r\nCache-Control: no-cache\r\nUpgrade: websocket\r\n\
             User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 \
             Safari/537.36\r\nOrigin: https://meet.example.org\r\nSec-WebSocket-Version: 13\r\n\
             Accept-Encoding: gzip, deflate, br\r\nAccept-Language: en-US,en;q=0.9\r\nSec-WebSocket-Key: {KEY}\r\n\
             Sec-WebSocket-Protocol: 3.1_STANDARD\r\n\r\n",
            connection.identity.text, self.port
        );
        let count = connection.stream()?.write(head.as_bytes())?;
        assert_eq!(count, head.len(), "an empty socket takes a head at once");
        connection.phase = Phase::Upgrading;
        Ok(())
    }

    /// Reads until there is nothing more; the edge does not come again.
    fn read(&mut self, index: usize) -> io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        loop {
            let connection = &mut self.connections[index];
            if connection.phase == Phase::Ended {
                return Ok(());
            }
            let count = match connection.stream()?.read(&mut chunk) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            if count == 0 {
                if connection.phase != Phase::Closed {
                    return Err(failed(&format!("the server hung up in phase {:?}", connection.phase)));
                }
                connection.stream = None;
                connection.phase = Phase::Ended;
                self.ended += 1;
                return Ok(());
            }
            connection.inbox.extend_from_slice(&chunk[..count]);
            self.understand(index)?;
        }
    }

    fn understand(&mut self, index: usize) -> io::Result<()> {
        let connection = &mut self.connections[index];
        if connection.phase == Phase::Upgrading {
            let Some(end) = connection.inbox.windows(4).position(|four| four == b"\r\n\r\n") else {
                return Ok(());
            };
            if !connection.inbox.starts_with(b"HTTP/1.1 101 ") {
                return Err(failed(&String::from_utf8_lossy(&connection.inbox[..end])));
            }
            connection.inbox.drain(..end + 4);
            connection.phase = Phase::Greeting;
        }
        while let Some(frame) = frames::take(&mut connection.inbox) {
            match (frame.opcode, connection.phase) {
                (frames::TEXT, Phase::Greeting) => {
                    connection.phase = Phase::Open;
                    self.opening -= 1;
                }
                (frames::TEXT, Phase::Open) => {}
                (frames::PING, Phase::Open) => {
                    // A ping in the middle of a frame of ours is for the next one; none is sent by then in any run.
                    assert_eq!(connection.partial, 0, "a pong does not fit into a frame");
                    connection.stream()?.write_all(&frames::message(frames::PONG, &frame.payload))?;
                }
                (frames::CLOSE, Phase::Open)
                    if connection.sent == connection.due && connection.closing.is_some() =>
                {
                    connection.phase = Phase::Closed;
                }
                (opcode, phase) => return Err(failed(&format!("opcode {opcode:#x} in phase {phase:?}"))),
            }
        }
        if connection.inbox.is_empty() {
            connection.inbox = Vec::new();
        }
        self.queue(index);
        Ok(())
    }
}

impl Connection {
    fn stream(&mut self) -> io::Result<&mut TcpStream> {
        self.stream.as_mut().ok_or_else(|| failed("the connection has ended"))
    }
}

impl Burst {
    /// Builds the next frames of a connection, the one that is partly sent included.
    fn fill(&mut self, mix: &Mix, connection: &Connection) {
        self.bytes.clear();
        self.ends.clear();
        for index in connection.sent..connection.due {
            match connection.closing.map(|messages| index.checked_sub(messages)) {
                Some(Some(0)) => {
                    let request =
                        format!("{{\"statsSessionId\":\"{}\",\"type\":\"close\"}}", connection.identity.text);
                    self.bytes.extend(frames::message(frames::TEXT, request.as_bytes()));
                }
                Some(Some(_)) => self.bytes.extend(frames::close(Some(1000), "")),
                Some(None) | None => mix.push_frame(&mut self.bytes, &connection.identity, index),
            }
            self.ends.push(self.bytes.len());
            if self.bytes.len() >= BURST_BYTES {
                break;
            }
        }
    }
}

fn failed(what: &str) -> io::Error {
    io::Error::other(what.to_owned())
}
