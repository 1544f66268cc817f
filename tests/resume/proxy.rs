//! The network: a TCP proxy that does to each connection what its seed says.
//!
//! What happens is planned per connection, in bytes, so that a schedule can be played again; how far the two ends have
//! come by then is left to the machine.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::client::Whereabouts;
use crate::support::Rng;

/// Bytes under way in one direction at most.
const UNDER_WAY_MAX: usize = 128 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Reset before a byte has passed.
    Refuse,
    /// Both ends are reset.
    Cut,
    /// Nothing passes for a while; then it goes on.
    Stall,
    /// Nothing passes for a while; then both ends are reset.
    StallAndCut,
    /// The server sees the end of the stream.
    HalfCloseUp,
    /// The client sees the end of the stream.
    HalfCloseDown,
    /// The client is reset, the server learns nothing; what was under way may arrive much later.
    HalfOpen {
        late: bool,
    },
    /// Every piece takes its time.
    Delay,
    /// A few bytes at a time.
    Split,
}

#[derive(Debug, Clone, Copy)]
struct Schedule {
    fault: Fault,
    /// Bytes after which it happens, counted from the client when `upwards`.
    after: usize,
    upwards: bool,
    time: Duration,
}

impl Schedule {
    fn roll(rng: &mut Rng) -> Self {
        let fault = match rng.between(0, 11) {
            0 => Fault::Refuse,
            1..=3 => Fault::Cut,
            4 => Fault::Stall,
            5 => Fault::StallAndCut,
            6 => Fault::HalfCloseUp,
            7 => Fault::HalfCloseDown,
            8 => Fault::HalfOpen { late: true },
            9 => Fault::HalfOpen { late: false },
            10 => Fault::Delay,
            _ => Fault::Split,
        };
        // Now and then in the head already, mostly somewhere among the entries and acknowledgements.
        let upwards = rng.one_in(2);
        let after = match (rng.between(0, 4), upwards) {
            (0, _) => rng.between(0, 500),
            (_, true) => rng.between(500, 200_000),
            (_, false) => rng.between(200, 1_500),
        };
        let time = Duration::from_micros(rng.between(500, 250_000));
        Self { fault, after: after as usize, upwards, time }
    }
}

/// A proxy; it ends when dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    is_over: Arc<AtomicBool>,
}

impl Proxy {
    /// `faults`: so many connections are treated badly, the rest, and all once `calm` is set, are left alone.
    pub(crate) fn start(rng: Rng, faults: u64, server: Whereabouts, calm: Arc<AtomicBool>) -> Self {
        Self::start_with(Schedule::roll, rng, faults, server, calm)
    }

    /// As [`Proxy::start`], with both ends reset as the only fault, somewhere among the entries.
    pub(crate) fn start_cutting(rng: Rng, faults: u64, server: Whereabouts, calm: Arc<AtomicBool>) -> Self {
        let cut = |rng: &mut Rng| {
            let after = rng.between(500, 60_000) as usize;
            Schedule { fault: Fault::Cut, after, upwards: true, time: Duration::ZERO }
        };
        Self::start_with(cut, rng, faults, server, calm)
    }

    fn start_with(
        roll: impl Fn(&mut Rng) -> Schedule + Send + 'static,
        mut rng: Rng,
        faults: u64,
        server: Whereabouts,
        calm: Arc<AtomicBool>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        std::thread::spawn(move || {
            for index in 0.. {
                let Ok((client, _)) = listener.accept() else { break };
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let mut schedule = roll(&mut rng);
                if index >= faults || calm.load(Ordering::Relaxed) {
                    schedule.fault = Fault::None;
                }
                let (server, calm) = (server.clone(), Arc::clone(&calm));
                std::thread::spawn(move || carry(client, &server, schedule, &calm));
            }
        });
        Self { address, is_over }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // Wakes the thread.
        let _ = TcpStream::connect(self.address);
    }
}

fn carry(client: TcpStream, server: &Whereabouts, schedule: Schedule, calm: &AtomicBool) {
    let up = server.now().and_then(|address| TcpStream::connect(address).ok());
    let Some(up) = up.filter(|_| schedule.fault != Fault::Refuse) else { return reset(client) };
    let mut pair =
        Pair { client: End::new(client), server: End::new(up), schedule, paused_until: None, passed: [0, 0] };
    while pair.turn(calm) {}
}

fn reset(stream: TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
}

#[derive(Debug)]
struct End {
    stream: Option<TcpStream>,
    /// Bytes on their way to it.
    under_way: Vec<u8>,
    /// It has sent its last byte.
    is_at_end: bool,
    /// The other one's last byte has been passed on.
    is_shut: bool,
}

impl End {
    fn new(stream: TcpStream) -> Self {
        stream.set_nonblocking(true).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: Some(stream), under_way: Vec::new(), is_at_end: false, is_shut: false }
    }
}

#[derive(Debug)]
struct Pair {
    client: End,
    server: End,
    schedule: Schedule,
    paused_until: Option<Instant>,
    /// Bytes from the client and from the server.
    passed: [usize; 2],
}

impl Pair {
    /// Returns whether it goes on.
    fn turn(&mut self, calm: &AtomicBool) -> bool {
        let now = Instant::now();
        let is_calm = calm.load(Ordering::Relaxed);
        if let Some(until) = self.paused_until
            && now < until
            && !is_calm
        {
            crate::pass((until - now).min(Duration::from_millis(5)));
            return true;
        }
        if self.paused_until.take().is_some() && self.schedule.fault == Fault::StallAndCut && !is_calm {
            return self.cut();
        }
        if is_calm && self.client.stream.is_some() && self.schedule.fault != Fault::StallAndCut {
            self.schedule.fault = Fault::None;
        }
        let limit = self.chunk_limit();
        let Some(from_client) = move_bytes(&mut self.client, &mut self.server, limit) else {
            return self.ended();
        };
        let Some(from_server) = move_bytes(&mut self.server, &mut self.client, limit) else {
            return self.ended();
        };
        self.passed[0] += from_client;
        self.passed[1] += from_server;
        let passed = self.passed[usize::from(!self.schedule.upwards)];
        if passed >= self.schedule.after && !self.happen(now, from_client + from_server) {
            return false;
        }
        if self.client.is_shut && self.server.is_shut {
            return false;
        }
        self.wait();
        true
    }

    /// One stream is gone; so is the other, unless the server is to know nothing of it.
    fn ended(&mut self) -> bool {
        self.cut()
    }

    fn cut(&mut self) -> bool {
        for end in [&mut self.client, &mut self.server] {
            if let Some(stream) = end.stream.take() {
                reset(stream);
            }
        }
        false
    }

    fn chunk_limit(&self) -> usize {
        let is_split = self.schedule.fault == Fault::Split && self.passed[0] < 20_000;
        if is_split { 1 + self.passed[0] % 97 } else { UNDER_WAY_MAX }
    }

    /// The planned moment has come, or is over; returns whether the connection goes on.
    fn happen(&mut self, now: Instant, moved: usize) -> bool {
        match self.schedule.fault {
            Fault::None | Fault::Refuse | Fault::Split => {}
            Fault::Cut => return self.cut(),
            Fault::Stall => {
                self.paused_until = Some(now + self.schedule.time);
                self.schedule.fault = Fault::None;
            }
            Fault::StallAndCut => self.paused_until = Some(now + self.schedule.time),
            Fault::HalfCloseUp => self.half_close(true),
            Fault::HalfCloseDown => self.half_close(false),
            Fault::HalfOpen { late } => return self.leave_half_open(late),
            Fault::Delay => {
                if moved > 0 {
                    self.paused_until = Some(now + self.schedule.time / 20);
                }
            }
        }
        true
    }

    fn half_close(&mut self, upwards: bool) {
        let end = if upwards { &mut self.server } else { &mut self.client };
        if let Some(stream) = &end.stream {
            let _ = stream.shutdown(Shutdown::Write);
        }
        end.is_shut = true;
        end.under_way.clear();
        self.schedule.fault = Fault::None;
    }

    /// The client is reset. The server's end stays as it is for a while, longer than the client needs to come back;
    /// what the client had sent may still arrive then.
    fn leave_half_open(&mut self, late: bool) -> bool {
        let Some(client) = self.client.stream.take() else { return self.cut() };
        let mut rest = vec![0; UNDER_WAY_MAX];
        let count = (&client).read(&mut rest).unwrap_or(0);
        reset(client);
        let mut late_bytes = std::mem::take(&mut self.server.under_way);
        late_bytes.extend_from_slice(&rest[..count]);
        crate::pass(self.schedule.time);
        if let Some(stream) = &mut self.server.stream
            && late
        {
            // Whatever the server's buffers take; it may have closed already.
            let _ = stream.write(&late_bytes);
            crate::pass(self.schedule.time / 4);
        }
        self.cut()
    }

    fn wait(&self) {
        let mut fds = Vec::new();
        for (end, other) in [(&self.client, &self.server), (&self.server, &self.client)] {
            let Some(stream) = &end.stream else { continue };
            let mut flags = PollFlags::empty();
            if !end.is_at_end && other.under_way.len() < UNDER_WAY_MAX {
                flags |= PollFlags::IN;
            }
            if !end.under_way.is_empty() {
                flags |= PollFlags::OUT;
            }
            if !flags.is_empty() {
                fds.push(PollFd::new(stream, flags));
            }
        }
        let _ = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 5_000_000 }));
    }
}

/// Moves what is there from one end to the other; how many bytes were read, `None` when a stream is broken.
fn move_bytes(from: &mut End, to: &mut End, limit: usize) -> Option<usize> {
    let mut moved = 0;
    if !from.is_at_end && to.under_way.len() < UNDER_WAY_MAX {
        let mut chunk = vec![0; limit.min(64 * 1024)];
        match from.stream.as_mut()?.read(&mut chunk) {
            Ok(0) => from.is_at_end = true,
            Ok(count) => {
                moved = count;
                if !to.is_shut {
                    to.under_way.extend_from_slice(&chunk[..count]);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
    }
    let stream = to.stream.as_mut()?;
    if !to.under_way.is_empty() {
        match stream.write(&to.under_way) {
            Ok(count) => drop(to.under_way.drain(..count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
    }
    if from.is_at_end && to.under_way.is_empty() && !to.is_shut {
        to.is_shut = true;
        let _ = stream.shutdown(Shutdown::Write);
    }
    Some(moved)
}
