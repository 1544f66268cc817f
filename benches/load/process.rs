//! The process under test: started on a core of its own, and what `/proc` says about it.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tempfile::TempDir;

/// Which program receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The server, release build, default settings but for the ports.
    Server,
    /// The raw sink of this bench.
    Sink,
}

/// How to start it.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) kind: Kind,
    /// Whether the sink opens a file for each write: there are too few descriptors for all.
    pub(crate) by_name: bool,
    /// Where its folder is made.
    pub(crate) below: PathBuf,
    /// Configuration of the server, as environment variables.
    pub(crate) env: Vec<(&'static str, String)>,
}

/// A running receiver. Killed, and its folder removed, when dropped.
#[derive(Debug)]
pub(crate) struct Subject {
    child: Child,
    pub(crate) folder: TempDir,
    pub(crate) address: SocketAddr,
    /// Where the server tells its metrics.
    metrics: Option<SocketAddr>,
    pub(crate) kind: Kind,
}

/// CPU time since the start, in nanoseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cpu {
    /// Of all threads but the workers.
    pub(crate) receiving_ns: u64,
    /// Of the workers, which process finished dumps.
    pub(crate) workers_ns: u64,
    /// Time in which a thread could have run but had no core: how busy the machine was with other things.
    pub(crate) waiting_ns: u64,
}

impl Cpu {
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            receiving_ns: self.receiving_ns - earlier.receiving_ns,
            workers_ns: self.workers_ns - earlier.workers_ns,
            waiting_ns: self.waiting_ns - earlier.waiting_ns,
        }
    }

    pub(crate) fn total_ns(self) -> u64 {
        self.receiving_ns + self.workers_ns
    }
}

/// How many turns took at most so many seconds, by bucket.
#[derive(Debug)]
pub(crate) struct Turns(Vec<(f64, u64)>);

impl Turns {
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self(self.0.iter().zip(&earlier.0).map(|((bound, now), (_, then))| (*bound, now - then)).collect())
    }

    /// The bound of the bucket in which this share of the turns is reached.
    pub(crate) fn percentile(&self, share: f64) -> f64 {
        let all = self.0.last().map_or(0, |(_, count)| *count) as f64;
        self.0
            .iter()
            .find(|(_, count)| *count as f64 >= all * share)
            .map_or(f64::INFINITY, |(bound, _)| *bound)
    }
}

impl Subject {
    pub(crate) fn start(setup: &Setup) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(&setup.below)?;
        let mut command = match setup.kind {
            Kind::Server => on_its_core(&server_binary()),
            Kind::Sink => on_its_core(&std::env::current_exe()?),
        };
        match setup.kind {
            Kind::Server => {
                command.stdout(Stdio::null()).stderr(Stdio::piped());
                // All loopback addresses: see `Fleet::connect`.
                command.env("RTCSTATS_SERVER_ADDRESS", "0.0.0.0").env("RTCSTATS_SERVER_PORT", "0");
                command
                    .env("RTCSTATS_SERVER_METRICS_ADDRESS", "127.0.0.1")
                    .env("RTCSTATS_SERVER_METRICS_PORT", "0");
                command.envs(setup.env.iter().map(|(name, value)| (name, value)));
            }
            Kind::Sink => {
                command.arg("sink").arg(folder.path()).stdout(Stdio::piped());
                if setup.by_name {
                    command.arg("--by-name");
                }
            }
        }
        let mut child = command.current_dir(folder.path()).stdin(Stdio::null()).spawn()?;
        let output: Box<dyn io::Read + Send> = match (child.stdout.take(), child.stderr.take()) {
            (Some(stdout), _) => Box::new(stdout),
            (None, Some(stderr)) => Box::new(stderr),
            (None, None) => return Err(io::Error::other("the child has no output")),
        };
        let mut output = BufReader::new(output);
        let (address, metrics) = ready_addresses(&mut output)?;
        // The log goes on being read, so that nobody waits for it.
        std::thread::spawn(move || io::copy(&mut output, &mut io::sink()));
        Ok(Self { child, folder, address, metrics, kind: setup.kind })
    }

    pub(crate) fn cpu(&self) -> io::Result<Cpu> {
        let mut cpu = Cpu::default();
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let task = task?.path();
            // A thread that ends while it is looked at has had next to nothing.
            let Ok(schedule) = fs::read_to_string(task.join("schedstat")) else { continue };
            let mut numbers = schedule.split_whitespace().map(|number| number.parse::<u64>().unwrap_or(0));
            let (running, waiting) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
            cpu.waiting_ns += waiting;
            if fs::read_to_string(task.join("comm")).is_ok_and(|name| name.starts_with("worker")) {
                cpu.workers_ns += running;
            } else {
                cpu.receiving_ns += running;
            }
        }
        Ok(cpu)
    }

    /// The loop's turns so far, as the server's metrics tell; the sink has none.
    pub(crate) fn turns(&self) -> io::Result<Option<Turns>> {
        let Some(metrics) = self.metrics else { return Ok(None) };
        let mut stream = TcpStream::connect(metrics)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let bucket = |line: &str| {
            let (bound, count) =
                line.strip_prefix("rtcstats_loop_turn_seconds_bucket{le=\"")?.split_once("\"} ")?;
            Some((bound.replace("+Inf", "inf").parse().ok()?, count.trim().parse().ok()?))
        };
        Ok(Some(Turns(text.lines().filter_map(bucket).collect())))
    }

    /// Resident memory.
    pub(crate) fn rss_bytes(&self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        Ok(kib.ok_or_else(|| io::Error::other("no VmRSS in /proc"))? * 1024)
    }

    /// Waits until `done` says so, which may take as long as the workers need.
    pub(crate) fn wait_until(&mut self, what: &str, mut done: impl FnMut() -> bool) -> io::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(300);
        while !done() {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("the process ended with {status} before {what}")));
            }
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("not within five minutes: {what}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Stops the server in order; the folder stays until the subject is dropped.
    pub(crate) fn stop(&mut self) -> io::Result<()> {
        let signal = match self.kind {
            Kind::Server => Signal::TERM,
            Kind::Sink => Signal::KILL,
        };
        kill_process(Pid::from_child(&self.child), signal)?;
        let status = self.child.wait()?;
        if self.kind == Kind::Server && !status.success() {
            return Err(io::Error::other(format!("the server ended with {status}")));
        }
        Ok(())
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // Both fail only when it has already been stopped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The release build of this package, or another one to compare it with.
fn server_binary() -> PathBuf {
    std::env::var_os("TEST_SERVER_BINARY")
        .map_or_else(|| env!("CARGO_BIN_EXE_rtcstats-server").into(), PathBuf::from)
}

/// The command, bound to the receiver's core.
fn on_its_core(program: &Path) -> Command {
    match RECEIVERS_CORE.get().copied().flatten() {
        Some(core) => {
            let mut command = Command::new("taskset");
            command.arg("-c").arg(core.to_string()).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// The core that receivers are bound to, set once the sender has left it; `None` where there is one core only.
static RECEIVERS_CORE: OnceLock<Option<usize>> = OnceLock::new();

/// Binds this process, which is the sender, to a core of its own, so that no receiver shares one with it: what shares
/// a core with its sender is never woken from idleness, and that is most of what a single message costs.
pub(crate) fn part_cores() -> io::Result<()> {
    let allowed = sched_getaffinity(None)?;
    let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
    let (receivers, senders) = (cores.next(), cores.next());
    let Some(core) = senders else {
        eprintln!("note: there is one core only, receiver and sender share it");
        return Ok(());
    };
    bind_to(core)?;
    let _ = RECEIVERS_CORE.set(receivers);
    Ok(())
}

/// Binds this thread to one core.
fn bind_to(core: usize) -> io::Result<()> {
    let mut only = CpuSet::new();
    only.set(core);
    Ok(sched_setaffinity(None, &only)?)
}

/// Does some work on the receivers' core.
pub(crate) fn on_receivers_core<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let bound = || {
        if let Some(core) = RECEIVERS_CORE.get().copied().flatten() {
            // Where it is refused, it is done on the sender's.
            let _ = bind_to(core);
        }
        work()
    };
    std::thread::spawn(bound).join().expect("it only computes")
}

fn ready_addresses(output: &mut impl BufRead) -> io::Result<(SocketAddr, Option<SocketAddr>)> {
    let mut log = String::new();
    loop {
        let start = log.len();
        if output.read_line(&mut log)? == 0 {
            return Err(io::Error::other(format!("it did not become ready:\n{log}")));
        }
        let line = &log[start..];
        if line.contains(".ready ") {
            let address =
                |key| line.split_whitespace().find_map(|word: &str| word.strip_prefix(key)?.parse().ok());
            let ingest =
                address("ingest=").ok_or_else(|| io::Error::other(format!("no address in {line}")))?;
            return Ok((ingest, address("metrics=")));
        }
    }
}
