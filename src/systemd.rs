//! The service manager: readiness, watchdog, passed sockets.
//!
//! Owns the socket to systemd and the protocol of `sd_notify(3)`, `sd_watchdog_enabled(3)` and
//! `sd_listen_fds(3)`. Reads the environment; without systemd every message is a no-op. Never decides when
//! something is ready, and never sends a watchdog message by itself: one from a thread of its own would prove
//! nothing about the loop.
//!
//! The one home of `unsafe` for passed descriptors, see [`passed_sockets`].

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::net::{AddressFamily, SendFlags, SocketType, sockopt};
use sd_notify::NotifyState;

use crate::moment::Moment;

/// How long a message that must arrive may wait for a place in systemd's queue.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// What a stop may take beyond the time that workers have: closing connections and writing out.
const STOP_MARGIN: Duration = Duration::from_secs(10);

/// Tells the service manager how we are.
///
/// A message that cannot be sent is logged, once until one arrives again, and otherwise without effect: the
/// manager draws its own conclusions.
#[derive(Debug)]
pub struct Supervisor {
    notifier: Notifier,
    /// What `systemctl status` shows.
    status: String,
    watchdog: Option<Watchdog>,
    /// The last message could not be sent.
    is_failing: bool,
}

/// The watchdog of the manager and what it was last told.
#[derive(Debug)]
struct Watchdog {
    interval: Duration,
    /// `None` before the first message.
    fed: Option<Moment>,
}

impl Supervisor {
    /// Connects to the manager that started this process, if one did and wants to be told.
    ///
    /// # Errors
    ///
    /// When the socket that `NOTIFY_SOCKET` names cannot be reached.
    pub fn from_env() -> io::Result<Self> {
        let watchdog = watchdog_interval().map(|interval| Watchdog { interval, fed: None });
        Ok(Self { notifier: Notifier::from_env()?, status: String::new(), watchdog, is_failing: false })
    }

    /// Sets the line that `systemctl status` shows; it goes out with the next [`Supervisor::ready`].
    pub fn set_status(&mut self, status: &str) {
        // A line feed would begin another assignment.
        self.status = status.replace(char::is_control, " ");
    }

    /// The server is ready: sockets listen, folders are locked. Also ends a reload.
    pub fn ready(&mut self) {
        let sent =
            self.notifier.send(&[NotifyState::Ready, NotifyState::Status(&self.status)], SendFlags::empty());
        self.note(sent);
    }

    /// The configuration is being read again; [`Supervisor::ready`] must follow.
    pub fn reloading(&mut self) {
        // Type=notify-reload insists on the time, by which it tells this reload from earlier ones.
        let sent = NotifyState::monotonic_usec_now()
            .and_then(|time| self.notifier.send(&[NotifyState::Reloading, time], SendFlags::empty()));
        self.note(sent);
    }

    /// The server is stopping, which may take `timeout` and a margin: the manager waits that long, even when
    /// its unit (`TimeoutStopSec`) was not told of a longer `server.shutdown_timeout_s`.
    pub fn stopping(&mut self, timeout: Duration) {
        let wait = u32::try_from(timeout.saturating_add(STOP_MARGIN).as_micros()).unwrap_or(u32::MAX);
        let states =
            [NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(wait), NotifyState::Status("stopping")];
        let sent = self.notifier.send(&states, SendFlags::empty());
        self.note(sent);
    }

    /// The loop is alive. To be called at least as often as [`Supervisor::watchdog_interval`] says; sends
    /// when that much time has passed. Dropped when the manager is behind: the next one comes in time.
    pub fn feed_watchdog(&mut self, now: Moment) {
        let Some(watchdog) = &mut self.watchdog else { return };
        if watchdog.fed.is_some_and(|fed| now.saturating_duration_since(fed) < watchdog.interval) {
            return;
        }
        watchdog.fed = Some(now);
        let sent = self.notifier.send(&[NotifyState::Watchdog], SendFlags::DONTWAIT);
        self.note(sent);
    }

    /// Half of the time after which the manager takes a silent loop for dead; `None` when it does not watch.
    #[must_use]
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.as_ref().map(|watchdog| watchdog.interval)
    }

    fn note(&mut self, sent: io::Result<()>) {
        let was_failing = std::mem::replace(&mut self.is_failing, sent.is_err());
        if let (Err(error), false) = (sent, was_failing) {
            log::warn!("systemd.notify_failed err={}", crate::logging::value(error));
        }
    }
}

/// Half of what the manager allows, if it watches this process.
fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2).filter(|interval| !interval.is_zero())
}

/// The socket to the manager.
///
/// It is opened once, at the start: a watchdog message must not need a descriptor when there is none left.
#[derive(Debug)]
struct Notifier(Option<UnixDatagram>);

impl Notifier {
    fn from_env() -> io::Result<Self> {
        match std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) {
            Some(path) => Self::connect(&path),
            None => Ok(Self(None)),
        }
    }

    /// Connects to a socket by its path, or by its abstract name with `@` in front.
    fn connect(path: &OsStr) -> io::Result<Self> {
        let address = match path.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(path)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        Ok(Self(Some(socket)))
    }

    fn send(&self, states: &[NotifyState<'_>], flags: SendFlags) -> io::Result<()> {
        let Some(socket) = &self.0 else { return Ok(()) };
        let mut message = String::new();
        for state in states {
            // Writing to a string cannot fail.
            let _ = writeln!(message, "{state}");
        }
        match rustix::net::send(socket, message.as_bytes(), flags | SendFlags::NOSIGNAL) {
            Ok(_) => Ok(()),
            Err(rustix::io::Errno::AGAIN) if flags.contains(SendFlags::DONTWAIT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Listening sockets that the manager holds for us, so that a restart refuses nobody.
#[derive(Debug, Default)]
pub struct PassedSockets {
    /// `FileDescriptorName=ingest`
    pub ingest: Option<TcpListener>,
    /// `FileDescriptorName=metrics`
    pub metrics: Option<TcpListener>,
}

/// A passed socket is not one that we can use. The unit is wrong, so this stops the start.
#[derive(Debug, thiserror::Error)]
pub enum PassedSocketError {
    /// `LISTEN_PID` or `LISTEN_FDS` is no number, or a descriptor is not open.
    #[error("passed sockets: LISTEN_PID and LISTEN_FDS do not tell which descriptors are ours")]
    Environment(#[source] io::Error),
    /// `LISTEN_FDNAMES` has more or fewer names than there are descriptors.
    #[error("passed sockets: {sockets} with {names} names in LISTEN_FDNAMES")]
    Names {
        /// Sockets that were passed.
        sockets: usize,
        /// Names.
        names: usize,
    },
    /// Called for a second time.
    #[error("passed sockets: taken already")]
    Taken,
    /// Neither `ingest` nor `metrics`. Without FileDescriptorName= systemd uses the name of the unit.
    #[error("passed socket {fd} is named {name:?}, not \"ingest\" or \"metrics\" (FileDescriptorName=)")]
    Name {
        /// Its number.
        fd: RawFd,
        /// Its name.
        name: String,
    },
    /// Two of one name, for instance by two `ListenStream=` in one unit.
    #[error("passed socket {fd} is a second one named {name:?}")]
    Twice {
        /// Its number.
        fd: RawFd,
        /// Its name.
        name: String,
    },
    /// Not a listening TCP socket.
    #[error("passed socket {fd} named {name:?} is no listening TCP socket: {fault}")]
    Kind {
        /// Its number.
        fd: RawFd,
        /// Its name.
        name: String,
        /// What it is instead.
        fault: &'static str,
    },
}

/// Takes the sockets that were passed to this process; none without `LISTEN_PID` and `LISTEN_FDS`.
///
/// They are blocking or not as the manager made them, and close on exec.
///
/// # Errors
///
/// When a socket has another name, comes twice, or does not listen for TCP; and at any call but the first.
pub fn passed_sockets() -> Result<PassedSockets, PassedSocketError> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Err(PassedSocketError::Taken);
    }
    let mut sockets = PassedSockets::default();
    let passed = sd_notify::listen_fds().map_err(PassedSocketError::Environment)?;
    // Names are looked at only when sockets are for us: others' may be left in an inherited environment.
    if passed.len() == 0 {
        return Ok(sockets);
    }
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let names: Vec<&str> = if names.is_empty() { Vec::new() } else { names.split(':').collect() };
    if names.len() != passed.len() {
        return Err(PassedSocketError::Names { sockets: passed.len(), names: names.len() });
    }
    for (fd, name) in passed.zip(names) {
        #[expect(unsafe_code, reason = "a descriptor that was passed by number has no safe constructor")]
        // SAFETY: `from_raw_fd` wants an open descriptor that nobody else closes. It is open: `listen_fds`
        // has just set its close-on-exec flag, and fails for one that is not. It is ours alone:
        // sd_listen_fds(3) hands descriptors 3 to 3 + LISTEN_FDS to the process LISTEN_PID, which it checks
        // is us; nothing in this process opens or takes them otherwise, because they were open before it
        // began; and `TAKEN` lets this line see each number once.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        sockets.take(fd, name.to_owned(), socket)?;
    }
    Ok(sockets)
}

impl PassedSockets {
    fn take(&mut self, fd: RawFd, name: String, socket: OwnedFd) -> Result<(), PassedSocketError> {
        let place = match name.as_str() {
            "ingest" => &mut self.ingest,
            "metrics" => &mut self.metrics,
            _ => return Err(PassedSocketError::Name { fd, name }),
        };
        if place.is_some() {
            return Err(PassedSocketError::Twice { fd, name });
        }
        if let Some(fault) = fault(&socket) {
            return Err(PassedSocketError::Kind { fd, name, fault });
        }
        *place = Some(TcpListener::from(socket));
        Ok(())
    }
}

/// Why this is no listening TCP socket.
fn fault(socket: &OwnedFd) -> Option<&'static str> {
    match (sockopt::socket_type(socket), sockopt::socket_domain(socket), sockopt::socket_acceptconn(socket)) {
        (Ok(SocketType::STREAM), Ok(AddressFamily::INET | AddressFamily::INET6), Ok(true)) => None,
        (Ok(SocketType::STREAM), Ok(AddressFamily::INET | AddressFamily::INET6), _) => {
            Some("it does not listen")
        }
        (Ok(SocketType::STREAM), _, _) => Some("its addresses are not of IPv4 or IPv6"),
        (Ok(_), _, _) => Some("it is no stream"),
        (Err(_), _, _) => Some("it is no socket"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpStream, UdpSocket};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_listening_tcp_sockets_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let cases: [(OwnedFd, Option<&str>); 6] = [
            (listener.into(), None),
            (TcpListener::bind("[::1]:0").unwrap().into(), None),
            (connected.into(), Some("it does not listen")),
            (UdpSocket::bind("127.0.0.1:0").unwrap().into(), Some("it is no stream")),
            (
                UnixListener::bind(folder.path().join("socket")).unwrap().into(),
                Some("its addresses are not of IPv4 or IPv6"),
            ),
            (tempfile::tempfile().unwrap().into(), Some("it is no socket")),
        ];
        for (socket, expected) in cases {
            assert_eq!(fault(&socket), expected, "{socket:?}");
        }
    }

    #[test]
    fn a_socket_is_known_by_its_name() {
        let socket = || OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
        let mut sockets = PassedSockets::default();
        sockets.take(3, "metrics".into(), socket()).unwrap();
        assert!(sockets.ingest.is_none() && sockets.metrics.is_some());
        let text = |result: Result<(), PassedSocketError>| result.unwrap_err().to_string();
        assert_eq!(
            text(sockets.take(4, "metrics".into(), socket())),
            "passed socket 4 is a second one named \"metrics\""
        );
        assert_eq!(
            text(sockets.take(5, "rtcstats-server.socket".into(), socket())),
            "passed socket 5 is named \"rtcstats-server.socket\", not \"ingest\" or \"metrics\" (FileDescriptorName=)"
        );
        assert_eq!(
            text(sockets.take(6, "ingest".into(), UdpSocket::bind("127.0.0.1:0").unwrap().into())),
            "passed socket 6 named \"ingest\" is no listening TCP socket: it is no stream"
        );
    }

    /// A manager with its socket, and a supervisor that is connected to it.
    fn manager(watchdog: Option<Duration>) -> (tempfile::TempDir, UnixDatagram, Supervisor) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let notifier = Notifier::connect(path.as_os_str()).unwrap();
        let watchdog = watchdog.map(|interval| Watchdog { interval, fed: None });
        (folder, manager, Supervisor { notifier, status: String::new(), watchdog, is_failing: false })
    }

    fn receive(manager: &UnixDatagram) -> String {
        let mut buffer = [0; 4096];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn messages_are_those_of_the_protocol() {
        let (_folder, manager, mut supervisor) = manager(None);
        supervisor.set_status("line\nWATCHDOG=trigger");
        supervisor.ready();
        assert_eq!(receive(&manager), "READY=1\nSTATUS=line WATCHDOG=trigger\n");
        supervisor.stopping(Duration::from_secs(20));
        assert_eq!(receive(&manager), "STOPPING=1\nEXTEND_TIMEOUT_USEC=30000000\nSTATUS=stopping\n");
        supervisor.stopping(Duration::MAX);
        assert_eq!(receive(&manager), "STOPPING=1\nEXTEND_TIMEOUT_USEC=4294967295\nSTATUS=stopping\n");
        supervisor.reloading();
        let message = receive(&manager);
        let time = message.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().trim_end();
        assert!(time.parse::<u64>().unwrap() > 0, "{message}");
        assert!(!supervisor.is_failing);
    }

    #[test]
    fn the_watchdog_is_fed_at_its_interval_and_only_when_wanted() {
        let start = Moment::at(1 << 40);
        let (_folder, manager, mut supervisor) = manager(Some(Duration::from_secs(15)));
        for second in 0..=45 {
            supervisor.feed_watchdog(start + Duration::from_secs(second));
        }
        manager.set_nonblocking(true).unwrap();
        let mut messages = 0;
        let mut buffer = [0; 64];
        while let Ok(length) = manager.recv(&mut buffer) {
            assert_eq!(&buffer[..length], b"WATCHDOG=1\n");
            messages += 1;
        }
        assert_eq!(messages, 4, "at 0, 15, 30 and 45 s");

        supervisor.watchdog = None;
        supervisor.feed_watchdog(start + Duration::from_secs(60));
        assert!(manager.recv(&mut buffer).is_err());
    }

    #[test]
    fn abstract_names_are_understood() {
        let name = format!("rtcstats-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let notifier = Notifier::connect(OsStr::new(&format!("@{name}"))).unwrap();
        notifier.send(&[NotifyState::Watchdog], SendFlags::DONTWAIT).unwrap();
        assert_eq!(receive(&manager), "WATCHDOG=1\n");
    }

    /// A manager that does not read costs the loop no time, and a manager that is gone is an error, not a
    /// signal.
    #[test]
    fn a_manager_that_is_behind_does_not_stop_the_loop() {
        let (_folder, manager, mut supervisor) = manager(Some(Duration::from_secs(1)));
        let start = Moment::at(1 << 40);
        // More than any queue of datagrams holds; blocking once would be a failure, after a second.
        for second in 0..10_000 {
            supervisor.feed_watchdog(start + Duration::from_secs(second));
        }
        assert!(!supervisor.is_failing);
        supervisor.ready();
        assert!(supervisor.is_failing, "this one must not be lost in silence");
        drop(manager);
        supervisor.is_failing = false;
        supervisor.feed_watchdog(start + Duration::from_secs(20_000));
        assert!(supervisor.is_failing);
    }

    #[test]
    fn without_a_manager_messages_go_nowhere() {
        let mut supervisor =
            Supervisor { notifier: Notifier(None), status: String::new(), watchdog: None, is_failing: false };
        supervisor.ready();
        supervisor.reloading();
        supervisor.stopping(Duration::ZERO);
        assert!(!supervisor.is_failing);
        assert!(Notifier::connect(OsStr::new("/nonexistent/notify")).is_err());
    }
}
