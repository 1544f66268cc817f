//! The real binary in a temporary folder: started on port 0, watched, stopped, killed, restarted.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::http::{self, Response};
use super::process::Usage;
use super::{Archive, DEADLINE};

/// How often a condition is looked at when the server has logged nothing in between.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Turns its standard input and output into the descriptors 3 and 4 that systemd would pass, as the
/// process that they are meant for.
const PASS_SOCKETS: &str = r#"exec 3<&0 4<&1 </dev/null >/dev/null; LISTEN_PID=$$ exec "$@""#;

/// Lowers its limit of descriptors for good, as a unit's `LimitNOFILE` does.
const LIMIT_DESCRIPTORS: &str = r#"ulimit -n "$1" || exit; shift; exec "$@""#;

/// Takes these bits from the mode of whatever is created.
const CHANGE_MASK: &str = r#"umask "$1" || exit; shift; exec "$@""#;

/// Shows it of `/proc` what is there of processes alone, as a unit's `ProcSubset=pid` does.
const HIDE_SYSTEM_FILES: &str =
    r#"shift; exec unshare --mount sh -c 'mount -t proc -o subset=pid proc /proc && exec "$@"' sh "$@""#;

/// Becomes somebody who may do nothing in particular. The binary is opened before, wherever it is.
const DROP_PRIVILEGES: &str = r#"id=$1; shift; exec 9<"$1"; shift; exec setpriv --reuid "$id" --regid "$id" --clear-groups /proc/self/fd/9 "$@""#;
/// Its number.
const NOBODY: u32 = 65_534;

/// How to start a server.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    root: Arc<TempDir>,
    env: BTreeMap<String, OsString>,
    sockets: Option<(Arc<TcpListener>, Arc<TcpListener>)>,
    /// A line of shell that changes the process before the server takes its place, and its argument.
    prepared: Option<(&'static str, String)>,
}

impl Settings {
    /// Defaults but for what a test needs: loopback, any port, a folder of its own, no minimum of free space,
    /// and no waiting for clients that will not come back.
    pub(crate) fn new() -> Self {
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix("rtcstats-test-");
        // In memory where there is room for it: every archived dump is synced several times, and how long a busy
        // disk takes for that is not what is tested.
        let folder = std::env::var_os("TEST_SERVER_FOLDER").unwrap_or_else(|| "/dev/shm".into());
        let root = builder.tempdir_in(folder).or_else(|_| builder.tempdir()).expect("a temporary folder");
        Self { root: Arc::new(root), env: BTreeMap::new(), sockets: None, prepared: None }
            .set("server.address", "127.0.0.1")
            .set("server.port", 0)
            .set("server.metrics_address", "127.0.0.1")
            .set("server.metrics_port", 0)
            .set("dump.min_free_bytes", 0)
            .set("sessions.reconnect_grace_s", 0)
    }

    /// Sets a configuration key through its environment variable.
    pub(crate) fn set(self, key: &str, value: impl ToString) -> Self {
        let name = format!("RTCSTATS_{}", key.replace('.', "_").to_uppercase());
        self.env(&name, value.to_string())
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.insert(name.into(), value.as_ref().into());
        self
    }

    /// Hands over listening sockets as systemd does; they stay open in this process, too.
    pub(crate) fn sockets(mut self, ingest: Arc<TcpListener>, metrics: Arc<TcpListener>) -> Self {
        self.sockets = Some((ingest, metrics));
        self.env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", "ingest:metrics")
    }

    /// Lets the server have so many descriptors, soft and hard limit.
    pub(crate) fn descriptors(mut self, descriptors: u64) -> Self {
        self.prepared = Some((LIMIT_DESCRIPTORS, descriptors.to_string()));
        self
    }

    /// Starts the server with this umask, in octal.
    pub(crate) fn mask(mut self, mask: &str) -> Self {
        self.prepared = Some((CHANGE_MASK, mask.to_owned()));
        self
    }

    /// Starts the server as nobody in particular; `None`, loudly, where that is not possible.
    #[allow(dead_code, reason = "not every test binary needs it")]
    pub(crate) fn without_privileges(mut self) -> Option<Self> {
        let is_possible = rustix::process::geteuid().is_root()
            && Command::new("setpriv").arg("--version").output().is_ok_and(|output| output.status.success());
        if !is_possible {
            eprintln!("SKIPPED: only root, with setpriv, can start a server as somebody else");
            return None;
        }
        std::os::unix::fs::chown(self.root(), Some(NOBODY), Some(NOBODY)).unwrap();
        self.prepared = Some((DROP_PRIVILEGES, NOBODY.to_string()));
        Some(self)
    }

    /// Starts the server where `/proc` has processes and nothing else. It does not start where that cannot be mounted.
    #[allow(dead_code, reason = "not every test binary needs it")]
    pub(crate) fn without_system_files(mut self) -> Self {
        self.prepared = Some((HIDE_SYSTEM_FILES, String::new()));
        self
    }

    /// The folder in which the server runs.
    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// Starts the server and waits until it is ready.
    pub(crate) fn start(self) -> TestServer {
        match self.try_start() {
            Ok(server) => server,
            Err(exit) => panic!("the server did not start: {}\n{}", exit.status, exit.log.join("\n")),
        }
    }

    /// Starts the server; an exit before the ready line is the error.
    pub(crate) fn try_start(self) -> Result<TestServer, Exit> {
        let mut child = self.command().spawn().expect("the server can be executed");
        let log = Log::follow(child.stderr.take().expect("stderr is a pipe"));
        // From here on the child is killed whatever happens.
        let mut server = TestServer { settings: self, child, log, ingest: UNSET, metrics: UNSET };
        let Some(ready) = server.log.wait_for("server.ready") else {
            return Err(server.exit());
        };
        server.ingest = address_in(&ready, "ingest=");
        server.metrics = address_in(&ready, "metrics=");
        Ok(server)
    }

    fn command(&self) -> Command {
        // Another build, a release for instance, can be put to the same tests.
        let binary = std::env::var_os("TEST_SERVER_BINARY")
            .unwrap_or_else(|| env!("CARGO_BIN_EXE_rtcstats-server").into());
        let mut command = match (&self.sockets, &self.prepared) {
            (None, None) => Command::new(binary),
            (None, Some((script, argument))) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", script, "sh", argument]).arg(binary);
                shell
            }
            (Some((ingest, metrics)), _) => {
                let descriptor =
                    |socket: &TcpListener| OwnedFd::from(socket.try_clone().expect("a free descriptor"));
                let mut shell = Command::new("sh");
                shell.args(["-c", PASS_SOCKETS, "sh"]).arg(binary);
                shell.stdin(Stdio::from(descriptor(ingest))).stdout(Stdio::from(descriptor(metrics)));
                shell
            }
        };
        if self.sockets.is_none() {
            command.stdin(Stdio::null()).stdout(Stdio::null());
        }
        // What was meant for us, or for whoever runs the tests, is not meant for the server.
        for (name, _) in std::env::vars_os() {
            let foreign = ["RTCSTATS_", "LISTEN_", "NOTIFY_", "WATCHDOG_", "JOURNAL_"];
            if foreign.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command.current_dir(self.root()).envs(&self.env).stderr(Stdio::piped());
        command
    }
}

/// Stands for an address until the ready line has told it.
const UNSET: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

fn address_in(line: &str, key: &str) -> SocketAddr {
    let value = line.split_whitespace().find_map(|word| word.strip_prefix(key));
    let value = value.unwrap_or_else(|| panic!("no {key} in the ready line: {line}"));
    value.parse().unwrap_or_else(|error| panic!("{key}{value} is no address: {error}"))
}

/// How a server ended.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) status: ExitStatus,
    pub(crate) log: Vec<String>,
}

/// A running server. Killed when dropped; its log is printed when the test fails.
#[derive(Debug)]
pub(crate) struct TestServer {
    settings: Settings,
    child: Child,
    log: Log,
    /// Where clients connect.
    pub(crate) ingest: SocketAddr,
    /// Where `/metrics` is.
    pub(crate) metrics: SocketAddr,
}

impl TestServer {
    /// A server with [`Settings::new`].
    pub(crate) fn start() -> Self {
        Settings::new().start()
    }

    pub(crate) fn root(&self) -> &Path {
        self.settings.root()
    }

    /// A path below the dump folder.
    pub(crate) fn dump_path(&self, name: &str) -> PathBuf {
        self.root().join("temp").join(name)
    }

    pub(crate) fn archive(&self) -> Archive {
        Archive::at(self.root().join("archive"))
    }

    #[allow(dead_code, reason = "not every test binary needs it")]
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    pub(crate) fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    pub(crate) fn hangup(&self) {
        self.signal(Signal::HUP);
    }

    /// SIGSTOP and SIGCONT: a process that gets no core.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGKILL; returns when the process is gone.
    pub(crate) fn kill9(self) -> Settings {
        self.signal(Signal::KILL);
        let settings = self.settings.clone();
        self.exit();
        settings
    }

    /// Asks the server to stop, waits until it has, and returns how.
    pub(crate) fn stop(self) -> Exit {
        self.terminate();
        self.exit()
    }

    /// Stops the server, which must succeed, and starts it anew in the same folder.
    pub(crate) fn restart(self) -> Self {
        let settings = self.settings.clone();
        let exit = self.stop();
        assert!(exit.status.success(), "{}\n{}", exit.status, exit.log.join("\n"));
        settings.start()
    }

    /// Waits until the server has ended by itself.
    pub(crate) fn exit(mut self) -> Exit {
        assert!(self.log.wait_for_end(), "the server still runs at the deadline");
        let status = self.child.wait().expect("the child is ours");
        Exit { status, log: self.log.lines() }
    }

    /// All settings of this server, for another one in the same folder.
    pub(crate) fn settings(&self) -> Settings {
        self.settings.clone()
    }

    /// The first log line that contains `part`, waited for.
    pub(crate) fn expect_log(&self, part: &str) -> String {
        self.log.wait_for(part).unwrap_or_else(|| panic!("no {part:?} in the log"))
    }

    /// Waits until `look` finds something. It is looked at whenever the server logs a line, and at short
    /// intervals for what leaves no line.
    pub(crate) fn wait_until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(Instant::now() < deadline, "not until the deadline: {what}");
            self.log.wait_for_news(POLL_INTERVAL);
        }
    }

    /// A scrape of the metrics port.
    pub(crate) fn scrape(&self) -> Response {
        let answer = http::get(self.metrics, "/metrics");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer
    }

    /// The value of one series, written as in the scrape: name and labels.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let scrape = self.scrape();
        let line = scrape.text().lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        let value = line.unwrap_or_else(|| panic!("no series {series} in\n{}", scrape.text()));
        value.parse().expect("a sample is a number")
    }

    /// Waits until a series has a value of at least `least`.
    pub(crate) fn wait_for_metric(&self, series: &str, least: f64) -> f64 {
        self.wait_until(&format!("{series} >= {least}"), || {
            Some(self.metric(series)).filter(|value| *value >= least)
        })
    }

    /// Lets so much time pass.
    pub(crate) fn watch_for(&self, time: Duration) {
        let until = Instant::now() + time;
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.log.wait_for_news(left);
        }
    }

    /// What the process uses at present.
    pub(crate) fn usage(&self) -> Usage {
        Usage::of(self.child.id())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the child is ours");
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        // Both fail only when the child was already waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the server in {}", self.root().display());
            for line in self.log.lines() {
                eprintln!("{line}");
            }
        }
    }
}

/// Collects what the server writes to standard error.
#[derive(Debug, Clone)]
struct Log(Arc<(Mutex<Collected>, Condvar)>);

#[derive(Debug, Default)]
struct Collected {
    lines: Vec<String>,
    ended: bool,
}

impl Log {
    fn follow(stderr: impl std::io::Read + Send + 'static) -> Self {
        let log = Self(Arc::default());
        let shared = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                let Ok(line) = line else { break };
                shared.change(|collected| collected.lines.push(line));
            }
            shared.change(|collected| collected.ended = true);
        });
        log
    }

    fn change(&self, change: impl FnOnce(&mut Collected)) {
        change(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
    }

    fn lines(&self) -> Vec<String> {
        self.0.0.lock().unwrap().lines.clone()
    }

    /// The first line with `part` in it; `None` when the log ends, or the deadline passes, without one.
    fn wait_for(&self, part: &str) -> Option<String> {
        self.wait(|collected| {
            let found = collected.lines.iter().find(|line| line.contains(part)).cloned();
            if found.is_some() || collected.ended { Some(found) } else { None }
        })
        .flatten()
    }

    /// Whether the process has closed its standard error, which is when it ends.
    fn wait_for_end(&self) -> bool {
        self.wait(|collected| collected.ended.then_some(())).is_some()
    }

    /// Returns at the next line, or after `longest`.
    fn wait_for_news(&self, longest: Duration) {
        let collected = self.0.0.lock().unwrap();
        drop(self.0.1.wait_timeout(collected, longest).unwrap());
    }

    fn wait<T>(&self, look: impl Fn(&Collected) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + DEADLINE;
        let mut collected = self.0.0.lock().unwrap();
        loop {
            if let Some(found) = look(&collected) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            collected = self.0.1.wait_timeout(collected, left).unwrap().0;
        }
    }
}
