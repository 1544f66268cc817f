//! The metrics port: one thread that answers `GET /metrics`.
//!
//! Owns its listener and its connections, and blocks in `poll(2)` only. Never touches the loop: what it shows
//! is what the loop and the workers have published. An edge: it reads the clock and hands the time down.
//!
//! A scraper that stalls, drips its request byte by byte or does not read its answer costs one place of
//! `CONNECTIONS_MAX` until its deadline, and delays nobody: a poll serves whoever is ready. When all places
//! are taken, the connection that has kept its place longest gives it up, so even a flood of silent
//! connections cannot keep a scraper out that sends its request.
//!
//! Rules: our metrics specification (`/metrics`, content type, 404); ours: `GET` and `HEAD`, else 405, a bad
//! head 400, a head over `HEAD_BYTES_MAX` 431, a head that takes longer than `HEAD_TIME_MAX` 408. Every
//! answer closes its connection, and is delivered: writing side shut down, what still arrives is read and
//! dropped, then closed.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::metrics::Metrics;
use crate::moment::Moment;

/// Connections served at the same time; an operator has one to three scrapers.
const CONNECTIONS_MAX: usize = 64;
/// Connections accepted before those that are open get their turn.
const ACCEPTS_PER_TURN: usize = 16;
/// Bytes of a request head; Prometheus sends about 300.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Header fields of a request head.
const HEAD_FIELDS_MAX: usize = 64;
/// Time for a whole request head, from the connection's acceptance on.
const HEAD_TIME_MAX: Duration = Duration::from_secs(1);
/// Time for a whole answer (about 30 KB, which the socket usually takes at once).
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);
/// Time and bytes to wait for a peer to close after it has been answered.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(1);
const DRAIN_BYTES_MAX: usize = 64 * 1024;
/// Pause after a failed accept: with no descriptors left the listener stays readable, and polling it would
/// spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const TYPE_METRICS: &str = "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n";

/// A running metrics thread; dropping it stops the thread without waiting for it.
#[derive(Debug)]
pub struct MetricsServer {
    address: SocketAddr,
    /// Its other end is polled by the thread: closing this one is the order to stop.
    stop: UnixStream,
    thread: JoinHandle<()>,
}

impl MetricsServer {
    /// The address on which metrics are served, with the real port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops the thread and waits for it; that takes as long as one scrape at most. Open connections are
    /// dropped.
    pub fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            log::error!("metrics.thread_panicked");
        }
    }
}

/// Serves `metrics` on a listener that is bound already (by us or by systemd), in a thread of its own.
///
/// # Errors
/// When the listener cannot be made non-blocking, or no thread or socket pair can be had.
pub fn serve(listener: TcpListener, metrics: Arc<Metrics>) -> io::Result<MetricsServer> {
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let (stop, stopped) = UnixStream::pair()?;
    let server = Server { listener, stopped, metrics, exchanges: Vec::new(), accept_from: None };
    let thread = thread::Builder::new().name("metrics".to_owned()).spawn(move || server.run())?;
    Ok(MetricsServer { address, stop, thread })
}

#[expect(
    clippy::disallowed_methods,
    reason = "this thread is an edge with its own poll, it has to read the clock"
)]
fn clock() -> Moment {
    Moment::now()
}

/// The thread's state.
struct Server {
    listener: TcpListener,
    /// Becomes readable (end of stream) when the server is to stop.
    stopped: UnixStream,
    metrics: Arc<Metrics>,
    /// Oldest first; at most [`CONNECTIONS_MAX`].
    exchanges: Vec<Exchange>,
    /// Set after a failed accept: no further attempt before this time.
    accept_from: Option<Moment>,
}

/// What a poll found.
struct Ready {
    stop: bool,
    listener: bool,
    /// In the order of `Server::exchanges`.
    exchanges: Vec<bool>,
}

impl Server {
    fn run(mut self) {
        loop {
            let ready = match self.sleep_until_work(clock()) {
                Ok(ready) => ready,
                Err(error) => {
                    // EINVAL, EFAULT or ENOMEM: nothing that a further poll would mend at once.
                    log::error!("metrics.poll_failed err=\"{error}\"");
                    return;
                }
            };
            if ready.stop {
                return;
            }
            let now = clock();
            self.serve_ready(&ready.exchanges, now);
            if ready.listener {
                self.accept(now);
            }
        }
    }

    /// Polls until something is ready or a deadline has come; an interrupted poll is an empty turn.
    fn sleep_until_work(&self, now: Moment) -> io::Result<Ready> {
        let accepts = self.accept_from.is_none_or(|from| from <= now);
        let mut polled = vec![PollFd::new(&self.stopped, PollFlags::IN)];
        polled
            .extend(self.exchanges.iter().map(|exchange| PollFd::new(&exchange.stream, exchange.interest())));
        if accepts {
            polled.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        match poll(&mut polled, self.timeout(now).as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => polled.iter_mut().for_each(PollFd::clear_revents),
            Err(error) => return Err(error.into()),
        }
        let mut ready = polled.iter().map(|fd| !fd.revents().is_empty());
        Ok(Ready {
            stop: ready.next().unwrap_or(true),
            exchanges: ready.by_ref().take(self.exchanges.len()).collect(),
            listener: ready.next().unwrap_or(false),
        })
    }

    /// Time until the first deadline; `None` sleeps until something happens.
    fn timeout(&self, now: Moment) -> Option<Timespec> {
        let pause = self.accept_from.filter(|from| *from > now);
        let first = self.exchanges.iter().map(|exchange| exchange.deadline).chain(pause).min()?;
        // At most seconds from now, so the conversion cannot fail.
        Timespec::try_from(first.saturating_duration_since(now)).ok()
    }

    /// Serves the connections that are ready, and ends those that are done or too late.
    fn serve_ready(&mut self, ready: &[bool], now: Moment) {
        let metrics = &self.metrics;
        let mut ready = ready.iter();
        self.exchanges.retain_mut(|exchange| {
            let step = match ready.next() {
                Some(true) => exchange.step(metrics, now),
                _ => Step::Park,
            };
            match step {
                Step::Done => false,
                Step::Park => now < exchange.deadline || exchange.is_granted_more(now),
            }
        });
    }

    fn accept(&mut self, now: Moment) {
        for _ in 0..ACCEPTS_PER_TURN {
            match self.listener.accept().and_then(|(stream, _)| Exchange::open(stream, now)) {
                Ok(exchange) => {
                    self.accept_from = None;
                    self.make_room();
                    self.exchanges.push(exchange);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.accept_from = None;
                    return;
                }
                // The peer was gone before its turn came, or a signal came: the next one.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    // Once per time of need, not per attempt.
                    if self.accept_from.is_none() {
                        log::warn!(
                            "metrics.accept_failed err=\"{error}\" retry_ms={}",
                            ACCEPT_PAUSE.as_millis()
                        );
                    }
                    self.accept_from = Some(now + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    /// When all places are taken, ends the oldest connection that is not being answered, else the oldest.
    fn make_room(&mut self) {
        if self.exchanges.len() >= CONNECTIONS_MAX {
            let idle =
                self.exchanges.iter().position(|exchange| !matches!(exchange.phase, Phase::Answer { .. }));
            self.exchanges.remove(idle.unwrap_or(0));
        }
    }
}

/// One connection: one request, one answer.
struct Exchange {
    stream: TcpStream,
    phase: Phase,
    /// When the present phase ends, however busy the peer is.
    deadline: Moment,
}

enum Phase {
    /// Collecting the request head; holds at most [`HEAD_BYTES_MAX`] bytes.
    Head(Vec<u8>),
    /// The answer, of which `sent` bytes are out.
    Answer { bytes: Vec<u8>, sent: usize },
    /// Everything is sent; `left` more bytes of the peer's are dropped before the connection is.
    Drain { left: usize },
}

/// What a connection wants next.
#[must_use]
enum Step {
    /// To be polled again.
    Park,
    /// To be dropped.
    Done,
}

impl Exchange {
    fn open(stream: TcpStream, now: Moment) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, phase: Phase::Head(Vec::new()), deadline: now + HEAD_TIME_MAX })
    }

    fn interest(&self) -> PollFlags {
        match self.phase {
            Phase::Head(_) | Phase::Drain { .. } => PollFlags::IN,
            Phase::Answer { .. } => PollFlags::OUT,
        }
    }

    /// Goes on as far as the socket lets it.
    fn step(&mut self, metrics: &Metrics, now: Moment) -> Step {
        let step = match &mut self.phase {
            Phase::Head(_) => self.read_head(metrics, now),
            Phase::Answer { .. } => self.write_answer(now),
            Phase::Drain { .. } => self.drain(),
        };
        // A peer that resets its connection, or any other failure of it, concerns nobody else.
        step.unwrap_or_else(|error| {
            let is_momentary = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted);
            if is_momentary { Step::Park } else { Step::Done }
        })
    }

    /// At its deadline: a peer that was slow with its head is told so, if it takes it at once. Anything else
    /// ends.
    fn is_granted_more(&mut self, now: Moment) -> bool {
        matches!(self.phase, Phase::Head(_))
            && matches!(self.answer(Answer::HeadTimeout.bytes(), now), Ok(Step::Park))
            && matches!(self.phase, Phase::Drain { .. })
    }

    fn read_head(&mut self, metrics: &Metrics, now: Moment) -> io::Result<Step> {
        let Phase::Head(head) = &mut self.phase else { return Ok(Step::Park) };
        let mut chunk = [0; 2048];
        loop {
            let read = self.stream.read(&mut chunk)?;
            let chunk = chunk.get(..read).unwrap_or_default();
            head.extend_from_slice(chunk);
            let answer = if read == 0 {
                // The peer has finished sending. Nothing at all is no request, half a head is a bad one.
                if head.is_empty() {
                    return Ok(Step::Done);
                }
                Some(Answer::BadRequest)
            } else {
                // A head ends with a line; a peer that drips single bytes does not make us parse at each of
                // them.
                chunk.contains(&b'\n').then(|| Answer::to(head)).flatten()
            };
            let answer = answer.or_else(|| (head.len() > HEAD_BYTES_MAX).then_some(Answer::HeadTooLarge));
            if let Some(answer) = answer {
                return self.answer(answer.render(metrics, now), now);
            }
        }
    }

    fn answer(&mut self, bytes: Vec<u8>, now: Moment) -> io::Result<Step> {
        self.phase = Phase::Answer { bytes, sent: 0 };
        self.deadline = now + ANSWER_TIME_MAX;
        self.write_answer(now)
    }

    fn write_answer(&mut self, now: Moment) -> io::Result<Step> {
        let Phase::Answer { bytes, sent } = &mut self.phase else { return Ok(Step::Park) };
        while let Some(rest) = bytes.get(*sent..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest)? {
                0 => return Ok(Step::Done),
                written => *sent += written,
            }
        }
        self.stream.shutdown(Shutdown::Write)?;
        self.phase = Phase::Drain { left: DRAIN_BYTES_MAX };
        self.deadline = now + DRAIN_TIME_MAX;
        Ok(Step::Park)
    }

    /// Reads until the peer closes: closing with unread bytes would reset the connection and destroy the
    /// answer.
    fn drain(&mut self) -> io::Result<Step> {
        let Phase::Drain { left } = &mut self.phase else { return Ok(Step::Park) };
        let mut chunk = [0; 2048];
        loop {
            let read = self.stream.read(&mut chunk)?;
            if read == 0 || read > *left {
                return Ok(Step::Done);
            }
            *left -= read;
        }
    }
}

/// What a request is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// 200 with the metrics.
    Metrics,
    /// 200 with the same head and no body.
    MetricsHead,
    BadRequest,
    NotFound,
    MethodNotAllowed,
    HeadTimeout,
    HeadTooLarge,
    Internal,
}

impl Answer {
    /// The answer to what has arrived so far; `None` when the head is not complete.
    fn to(head: &[u8]) -> Option<Self> {
        let mut fields = [httparse::EMPTY_HEADER; HEAD_FIELDS_MAX];
        let mut request = httparse::Request::new(&mut fields);
        match request.parse(head) {
            Ok(httparse::Status::Partial) => None,
            Ok(httparse::Status::Complete(length)) if length > HEAD_BYTES_MAX => Some(Self::HeadTooLarge),
            Ok(httparse::Status::Complete(_)) => {
                let target = request.path.unwrap_or_default();
                let path = target.split_once('?').map_or(target, |(path, _)| path);
                Some(match (path, request.method.unwrap_or_default()) {
                    ("/metrics", "GET") => Self::Metrics,
                    ("/metrics", "HEAD") => Self::MetricsHead,
                    ("/metrics", _) => Self::MethodNotAllowed,
                    _ => Self::NotFound,
                })
            }
            Err(httparse::Error::TooManyHeaders) => Some(Self::HeadTooLarge),
            Err(_) => Some(Self::BadRequest),
        }
    }

    /// The whole answer, as it goes out.
    fn render(self, metrics: &Metrics, now: Moment) -> Vec<u8> {
        if !matches!(self, Self::Metrics | Self::MetricsHead) {
            return self.bytes();
        }
        match metrics.render(now) {
            Ok(body) => {
                let mut out = self.head(TYPE_METRICS, body.len());
                if self == Self::Metrics {
                    out.push_str(&body);
                }
                out.into_bytes()
            }
            Err(error) => {
                log::error!("metrics.render_failed err=\"{error}\"");
                Self::Internal.bytes()
            }
        }
    }

    /// An answer without a body.
    fn bytes(self) -> Vec<u8> {
        let extra = if self == Self::MethodNotAllowed { "Allow: GET, HEAD\r\n" } else { "" };
        self.head(extra, 0).into_bytes()
    }

    fn head(self, extra: &str, length: usize) -> String {
        let status = match self {
            Self::Metrics | Self::MetricsHead => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::HeadTimeout => "408 Request Timeout",
            Self::HeadTooLarge => "431 Request Header Fields Too Large",
            Self::Internal => "500 Internal Server Error",
        };
        format!("HTTP/1.1 {status}\r\n{extra}Content-Length: {length}\r\nConnection: close\r\n\r\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain\r\n\r\n";

    fn check(head: &str, expected: Option<Answer>) {
        assert_eq!(Answer::to(head.as_bytes()), expected, "{head:?}");
    }

    #[test]
    fn a_request_is_answered_by_path_then_method() {
        check("GET /metrics HTTP/1.1\r\n\r\n", Some(Answer::Metrics));
        check("GET /metrics HTTP/1.0\r\n\r\n", Some(Answer::Metrics));
        check("GET /metrics?name[]=up HTTP/1.1\r\n\r\n", Some(Answer::Metrics));
        check("HEAD /metrics HTTP/1.1\r\n\r\n", Some(Answer::MetricsHead));
        check("POST /metrics HTTP/1.1\r\n\r\n", Some(Answer::MethodNotAllowed));
        check("get /metrics HTTP/1.1\r\n\r\n", Some(Answer::MethodNotAllowed));
        check("GET / HTTP/1.1\r\n\r\n", Some(Answer::NotFound));
        check("GET /metrics/ HTTP/1.1\r\n\r\n", Some(Answer::NotFound));
        check("GET /Metrics HTTP/1.1\r\n\r\n", Some(Answer::NotFound));
        check("POST /other HTTP/1.1\r\n\r\n", Some(Answer::NotFound));
    }

    #[test]
    fn a_bad_head_is_told_from_an_incomplete_one() {
        check("", None);
        check("GET /metrics", None);
        check("GET /metrics HTTP/1.1\r\nHost: x\r\n", None);
        check("GET /metrics HTTP/2.0\r\n\r\n", Some(Answer::BadRequest));
        check("\0\0\0\n", Some(Answer::BadRequest));
        check("GET /metrics HTTP/1.1\r\nno colon\r\n\r\n", Some(Answer::BadRequest));
        check(&format!("GET /metrics HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(65)), Some(Answer::HeadTooLarge));
        let long = format!("GET /metrics HTTP/1.1\r\nA: {}\r\n\r\n", "b".repeat(HEAD_BYTES_MAX));
        check(&long, Some(Answer::HeadTooLarge));
    }

    #[test]
    fn a_head_is_complete_at_its_last_byte_and_no_earlier() {
        for length in 0..HEAD.len() {
            assert_eq!(Answer::to(&HEAD[..length]), None, "{length} bytes");
        }
        assert_eq!(Answer::to(HEAD), Some(Answer::Metrics));
    }

    /// A server that is driven by hand, so that the time can be injected, and one of its connections.
    struct Bench {
        server: Server,
        client: TcpStream,
        /// When the connection was accepted.
        start: Moment,
        _stop: UnixStream,
    }

    impl Bench {
        fn new() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (stop, stopped) = UnixStream::pair().unwrap();
            let start = clock();
            let metrics = Arc::new(Metrics::new(start, std::time::SystemTime::UNIX_EPOCH).unwrap());
            let mut server = Server { listener, stopped, metrics, exchanges: Vec::new(), accept_from: None };
            server.listener.set_nonblocking(true).unwrap();
            server.accept(start);
            Self { server, client, start, _stop: stop }
        }

        fn turn(&mut self, after: Duration) {
            let ready = vec![true; self.server.exchanges.len()];
            self.server.serve_ready(&ready, self.start + after);
        }

        /// All that the client is sent until the connection ends.
        fn received(&mut self) -> String {
            let mut text = String::new();
            self.client.read_to_string(&mut text).unwrap();
            text
        }
    }

    #[test]
    fn a_head_that_drips_ends_at_its_deadline_however_busy_it_is() {
        let mut bench = Bench::new();
        for (byte, at_ms) in HEAD.iter().take(40).zip((0..).step_by(24)) {
            bench.client.write_all(&[*byte]).unwrap();
            bench.turn(Duration::from_millis(at_ms));
            assert_eq!(bench.server.exchanges.len(), 1, "at {at_ms} ms");
        }
        bench.turn(HEAD_TIME_MAX);
        assert!(matches!(bench.server.exchanges[0].phase, Phase::Drain { .. }));
        bench.turn(HEAD_TIME_MAX + DRAIN_TIME_MAX);
        assert!(bench.server.exchanges.is_empty());
        assert!(bench.received().starts_with("HTTP/1.1 408 "));
    }

    #[test]
    fn an_answer_that_is_not_read_ends_at_its_deadline() {
        let mut bench = Bench::new();
        let bytes = vec![b'x'; 64 << 20];
        let _ = bench.server.exchanges[0].answer(bytes, bench.start);
        bench.turn(ANSWER_TIME_MAX - Duration::from_millis(1));
        assert!(matches!(bench.server.exchanges[0].phase, Phase::Answer { sent, .. } if sent > 0));
        bench.turn(ANSWER_TIME_MAX);
        assert!(bench.server.exchanges.is_empty());
    }

    #[test]
    fn a_peer_that_goes_on_sending_after_its_answer_is_dropped_after_64_kib() {
        let mut bench = Bench::new();
        bench.client.write_all(b"GET /nothing HTTP/1.1\r\n\r\n").unwrap();
        let mut turns = 0;
        // Until the server has closed, which the client sees as a failed write.
        while bench.client.write_all(&[b'x'; 4096]).is_ok() {
            bench.turn(Duration::ZERO);
            turns += 1;
            assert!(turns < 1000, "never dropped");
        }
        assert!(bench.server.exchanges.is_empty());
    }

    #[test]
    fn a_full_house_gives_up_its_oldest_silent_connection() {
        let mut bench = Bench::new();
        let address = bench.server.listener.local_addr().unwrap();
        bench.server.exchanges[0].phase = Phase::Answer { bytes: vec![b'x'], sent: 0 };
        let mut clients = Vec::new();
        while bench.server.exchanges.len() < CONNECTIONS_MAX {
            clients.push(TcpStream::connect(address).unwrap());
            bench.server.accept(bench.start);
        }
        let newest = TcpStream::connect(address).unwrap();
        bench.server.accept(bench.start);
        assert_eq!(bench.server.exchanges.len(), CONNECTIONS_MAX);
        assert!(
            matches!(bench.server.exchanges[0].phase, Phase::Answer { .. }),
            "the one being answered stays"
        );
        assert_eq!(clients[0].read(&mut [0]).unwrap(), 0, "the oldest silent one has been closed");
        let last = bench.server.exchanges.last().unwrap();
        assert_eq!(last.stream.peer_addr().unwrap(), newest.local_addr().unwrap());
    }
}
