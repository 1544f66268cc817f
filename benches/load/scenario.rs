//! What a run does to its subject, and the figures that it gives.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::fleet::{Fleet, Sent};
use super::mix::{Identity, Mix};
use super::process::{Cpu, Kind, Setup, Subject};
use super::rng::Rng;
use super::verify;

/// After this every gathered entry has been appended (the default flush interval is a second).
const FLUSHED: Duration = Duration::from_millis(1_300);

/// One kind of load.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) load: Load,
    /// Whether files lie in memory: for loads that would measure the file system otherwise.
    pub(crate) in_memory: bool,
}

/// What the clients do.
#[derive(Debug, Clone)]
pub(crate) enum Load {
    /// Each connection sends its messages as fast as it can.
    Saturate { connections: usize, messages: u64 },
    /// Each connection sends a message an interval.
    Paced { connections: usize, interval: Duration, rounds: u32 },
    /// Connections that open and send two messages.
    Open { connections: usize },
    /// Connections with one session that say no more; measured at two numbers, for the slope.
    Idle { few: usize, many: usize },
    /// Short sessions, one after the other.
    Churn { sessions: usize, parallel: usize, messages: u64 },
}

/// A number of one run. Each has its own row in the table.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    pub(crate) what: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
}

/// The figures of one run.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) rows: Vec<Figure>,
    /// Share of the time in which the subject had work but no core.
    pub(crate) waiting: f64,
}

impl Figures {
    fn add(&mut self, what: &'static str, unit: &'static str, value: f64) {
        self.rows.push(Figure { what, unit, value });
    }

    fn add_us(&mut self, what: &'static str, ns: u64, count: u64) {
        self.add(what, "us", ns as f64 / 1000.0 / count as f64);
    }
}

impl Scenario {
    /// The full set, as a table in the README has it.
    pub(crate) fn all() -> Vec<Self> {
        let second = Duration::from_secs(1);
        let disk = |name, load| Self { name, load, in_memory: false };
        let memory = |name, load| Self { name, load, in_memory: true };
        vec![
            disk("saturate", Load::Saturate { connections: 50, messages: 3_000 }),
            disk("paced", Load::Paced { connections: 2_000, interval: second, rounds: 15 }),
            memory("open", Load::Open { connections: 5_000 }),
            disk("open-disk", Load::Open { connections: 5_000 }),
            memory("idle", Load::Idle { few: 5_000, many: 15_000 }),
            memory("churn", Load::Churn { sessions: 2_000, parallel: 50, messages: 10 }),
            disk("churn-disk", Load::Churn { sessions: 2_000, parallel: 50, messages: 10 }),
        ]
    }

    /// The same kinds, small enough for a check that everything works.
    pub(crate) fn smoke() -> Vec<Self> {
        let disk = |name, load| Self { name, load, in_memory: false };
        vec![
            disk("saturate", Load::Saturate { connections: 8, messages: 400 }),
            disk("paced", Load::Paced { connections: 100, interval: Duration::from_millis(250), rounds: 4 }),
            disk("open", Load::Open { connections: 100 }),
            disk("idle", Load::Idle { few: 50, many: 150 }),
            disk("churn", Load::Churn { sessions: 60, parallel: 10, messages: 10 }),
        ]
    }

    /// Whether the sink has a share in this. It keeps a file open for each connection, for which a process has not
    /// descriptors enough; and what it needs per connection is next to nothing anyway.
    pub(crate) fn is_for_sink(&self) -> bool {
        !matches!(self.load, Load::Idle { .. })
    }

    /// Runs the load once and checks what was recorded.
    pub(crate) fn run(&self, kind: Kind, mix: &Mix, seed: u64) -> io::Result<Figures> {
        let setup = Setup { kind, below: self.below(), env: Vec::new() };
        let mut run = Run {
            subject: Subject::start(&setup)?,
            mix,
            rng: Rng::new(seed),
            figures: Figures::default(),
            started: Cpu::default(),
        };
        run.started = run.subject.cpu()?;
        let sent = match self.load {
            Load::Saturate { connections, messages } => run.saturate(connections, messages)?,
            Load::Paced { connections, interval, rounds } => run.paced(connections, interval, rounds)?,
            Load::Open { connections } => run.open(connections)?,
            Load::Idle { few, many } => run.idle(few, many)?,
            Load::Churn { sessions, parallel, messages } => run.churn(sessions, parallel, messages)?,
        };
        run.check(&sent)
    }

    fn below(&self) -> PathBuf {
        let memory = PathBuf::from("/dev/shm");
        if self.in_memory && memory.is_dir() { memory } else { env!("CARGO_TARGET_TMPDIR").into() }
    }

    /// One line on what it does.
    pub(crate) fn describe(&self, mix: &Mix) -> String {
        let load = match &self.load {
            Load::Saturate { connections, messages } => {
                format!("{connections} connections send {messages} messages each as fast as they can")
            }
            Load::Paced { connections, interval, rounds } => {
                format!("{connections} connections send a message every {interval:?}, {rounds} times")
            }
            Load::Open { connections } => format!("{connections} connections open and send two messages"),
            Load::Idle { few, many } => {
                format!("{few}, then {many} connections with an open session that is silent")
            }
            Load::Churn { sessions, parallel, messages } => {
                format!(
                    "{sessions} sessions of {messages} messages, {parallel} at a time, from connect to archived"
                )
            }
        };
        let average = mix.cycle_bytes() / mix.cycle();
        let place = if self.in_memory { "files in memory" } else { "files on disk" };
        format!("{}: {load}; {average} bytes on average; {place}", self.name)
    }
}

struct Run<'a> {
    subject: Subject,
    mix: &'a Mix,
    rng: Rng,
    figures: Figures,
    started: Cpu,
}

impl<'a> Run<'a> {
    fn fleet(&self) -> io::Result<Fleet<'a>> {
        Fleet::new(self.mix, self.subject.address)
    }

    fn saturate(&mut self, connections: usize, messages: u64) -> io::Result<Vec<Sent>> {
        let mut fleet = self.fleet()?;
        fleet.open(connections, || Identity::new(&mut self.rng, 0))?;
        let before = self.subject.cpu()?;
        fleet.send_and_close(messages)?;
        let received = self.subject.cpu()?.since(before);
        self.figures.add_us("CPU per message, received", received.receiving_ns, fleet.messages);
        self.settle(fleet.connections())?;
        if self.subject.kind == Kind::Server {
            let all = self.subject.cpu()?.since(before);
            self.figures.add_us("CPU per message, archived", all.total_ns(), fleet.messages);
        }
        Ok(fleet.into_sent())
    }

    fn paced(&mut self, connections: usize, interval: Duration, rounds: u32) -> io::Result<Vec<Sent>> {
        let mut fleet = self.fleet()?;
        let cycle = self.mix.cycle() - 1;
        fleet.open(connections, || {
            let first = self.rng.between(0, cycle - 1);
            Identity::new(&mut self.rng, first)
        })?;
        // The first message makes the file; what follows is the steady state.
        fleet.send(1)?;
        fleet.rest(FLUSHED)?;
        let (before, messages) = (self.subject.cpu()?, fleet.messages);
        fleet.pace(interval, rounds, &mut self.rng)?;
        fleet.rest(FLUSHED)?;
        let used = self.subject.cpu()?.since(before);
        self.figures.add_us("CPU per message", used.total_ns(), fleet.messages - messages);
        fleet.send_and_close(0)?;
        self.settle(fleet.connections())?;
        Ok(fleet.into_sent())
    }

    fn open(&mut self, connections: usize) -> io::Result<Vec<Sent>> {
        let mut fleet = self.fleet()?;
        let before = self.subject.cpu()?;
        fleet.open(connections, || Identity::new(&mut self.rng, 0))?;
        fleet.send(2)?;
        fleet.rest(FLUSHED)?;
        let used = self.subject.cpu()?.since(before);
        self.figures.add_us("CPU per connection", used.total_ns(), connections as u64);
        fleet.send_and_close(0)?;
        self.settle(connections)?;
        Ok(fleet.into_sent())
    }

    fn idle(&mut self, few: usize, many: usize) -> io::Result<Vec<Sent>> {
        let mut fleet = self.fleet()?;
        let rss_start = self.subject.rss_bytes()?;
        let mut rss = Vec::new();
        for total in [few, many] {
            let opened = fleet.connections();
            fleet.open(total, || Identity::new(&mut self.rng, 0))?;
            fleet.send_from(opened, 2)?;
            fleet.rest(FLUSHED)?;
            rss.push(self.subject.rss_bytes()?);
        }
        let slope = (rss[1] as f64 - rss[0] as f64) / (many - few) as f64;
        self.figures.add("resident memory per connection", "B", slope);
        fleet.send_and_close(0)?;
        self.settle(many)?;
        let left = self.subject.rss_bytes()? as f64 - rss_start as f64;
        self.figures.add("resident memory over the start when all have gone", "KiB", left / 1024.0);
        Ok(fleet.into_sent())
    }

    fn churn(&mut self, sessions: usize, parallel: usize, messages: u64) -> io::Result<Vec<Sent>> {
        let mut fleet = self.fleet()?;
        let before = self.subject.cpu()?;
        fleet.churn(sessions, parallel, messages, || Identity::new(&mut self.rng, 0))?;
        let received = self.subject.cpu()?.since(before);
        self.figures.add_us("CPU per session, received", received.receiving_ns, sessions as u64);
        self.settle(sessions)?;
        if self.subject.kind == Kind::Server {
            let all = self.subject.cpu()?.since(before);
            self.figures.add_us("CPU per session, archived", all.total_ns(), sessions as u64);
        }
        Ok(fleet.into_sent())
    }

    /// Waits until the server has archived everything.
    fn settle(&mut self, sessions: usize) -> io::Result<()> {
        if self.subject.kind == Kind::Sink {
            return Ok(());
        }
        let folder = self.subject.folder.path().to_owned();
        self.subject.wait_until("all sessions are archived", || {
            verify::archived(&folder).is_ok_and(|files| files.len() >= sessions)
        })
    }

    fn check(mut self, sent: &[Sent]) -> io::Result<Figures> {
        let used = self.subject.cpu()?.since(self.started);
        self.figures.waiting = used.waiting_ns as f64 / (used.waiting_ns + used.total_ns()).max(1) as f64;
        self.subject.stop()?;
        let folder = self.subject.folder.path();
        match self.subject.kind {
            Kind::Server => verify::check_archive(folder, self.mix, sent)?,
            Kind::Sink => verify::check_sink(folder, sent)?,
        }
        Ok(self.figures)
    }
}
