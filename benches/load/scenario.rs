//! What a run does to its subject, and the figures that it gives.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

use super::fleet::{Fleet, Sent};
use super::mix::{Identity, Mix};
use super::process::{Cpu, Kind, Setup, Subject};
use super::rng::Rng;
use super::verify;
use super::yardstick::Yardstick;

/// After this, behind a flush interval, every gathered entry has been appended and every new file made, also on a
/// busy machine.
const APPENDED: Duration = Duration::from_millis(1_500);
/// Memory that was not needed for six rounds of housekeeping, one a second, is given back.
const GIVEN_BACK: Duration = Duration::from_millis(8_000);
/// Within so long all paced sessions begin: the longest flush interval, and the time within which a number is acknowledged.
const SPREAD: Duration = Duration::from_secs(5);
/// The default flush interval.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// What a receiver needs besides connections and their files.
const SPARE_DESCRIPTORS: u64 = 64;

// The rows.
pub(crate) const RECEIVED: &str = "CPU per message, received";
pub(crate) const PROCESSED: &str = "CPU per message, processed";
pub(crate) const PER_MESSAGE: &str = "CPU per message";
pub(crate) const TURN: &str = "99.9 % of the loop's turns took at most";
pub(crate) const MEMORY: &str = "resident memory per connection";
pub(crate) const MEMORY_LEFT: &str = "resident memory over the start when all have gone";
pub(crate) const PER_OPENING: &str = "CPU per connection opened, with two messages";
pub(crate) const SESSION_RECEIVED: &str = "CPU per session, received";
pub(crate) const SESSION_ARCHIVED: &str = "CPU per session, archived";

/// One kind of load.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) load: Load,
    /// Whether files lie in memory: for loads that would measure the file system otherwise.
    pub(crate) in_memory: bool,
    /// Whether the sink runs it, too.
    pub(crate) has_sink: bool,
    /// The flush interval of the server.
    flush_interval: Duration,
    /// Whether the server archives; if not, dumps are removed once processed and only their number can be checked.
    archives: bool,
}

/// What the clients do.
#[derive(Debug, Clone)]
pub(crate) enum Load {
    /// Each connection sends its messages as fast as it can.
    Saturate { connections: usize, messages: u64 },
    /// Each connection sends a message an interval: some rounds of it to warm up, then those that are measured.
    Paced { connections: usize, interval: Duration, warm_up: u32, rounds: u32 },
    /// Connections with one session that say no more; measured at two numbers, for the slope.
    Idle { few: usize, many: usize },
    /// Connections with one session each, of two messages: one each `interval`, or as fast as they come.
    Open { connections: u32, interval: Option<Duration> },
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
    /// What the core was worth just before.
    pub(crate) yardstick: Yardstick,
}

impl Figures {
    fn add(&mut self, what: &'static str, unit: &'static str, value: f64) {
        self.rows.push(Figure { what, unit, value });
    }

    /// The figure of this row.
    pub(crate) fn value(&self, what: &str) -> Option<f64> {
        self.rows.iter().find(|row| row.what == what).map(|row| row.value)
    }

    fn add_us(&mut self, what: &'static str, ns: u64, count: u64) {
        self.add(what, "us", ns as f64 / 1000.0 / count as f64);
    }
}

impl Scenario {
    /// The full set, as the table of goals needs it.
    pub(crate) fn all() -> Vec<Self> {
        let second = Duration::from_secs(1);
        let saturate = Load::Saturate { connections: 50, messages: 3_000 };
        let paced = Load::Paced { connections: 2_000, interval: second, warm_up: 8, rounds: 12 };
        let churn = Load::Churn { sessions: 2_000, parallel: 50, messages: 10 };
        // 5,000 messages a second in both.
        let few = Load::Paced { connections: 500, interval: second / 10, warm_up: 80, rounds: 120 };
        let many = Load::Paced { connections: 19_500, interval: second * 39 / 10, warm_up: 2, rounds: 4 };
        vec![
            Self::new("saturate", saturate.clone()),
            Self { archives: false, has_sink: false, ..Self::new("saturate-unarchived", saturate) },
            Self::new("paced", paced.clone()),
            Self { flush_interval: second * 5, ..Self::new("paced-flush-5s", paced) },
            Self::new("idle", Load::Idle { few: 5_000, many: 15_000 }).in_memory().without_sink(),
            // The rate at which the reference was measured: each connection finds the loop asleep.
            Self::new("open", Load::Open { connections: 5_000, interval: Some(second / 1_000) }).in_memory(),
            Self::new("open-flood", Load::Open { connections: 5_000, interval: None }).in_memory(),
            Self::new("churn", churn.clone()).in_memory(),
            Self::new("churn-disk", churn),
            Self::new("few-busy", few).in_memory(),
            Self::new("many-calm", many).in_memory(),
        ]
    }

    /// The same kinds, small enough for a check that everything works.
    pub(crate) fn smoke() -> Vec<Self> {
        let quarter = Duration::from_millis(250);
        let saturate = Load::Saturate { connections: 8, messages: 400 };
        let paced = Load::Paced { connections: 100, interval: quarter, warm_up: 2, rounds: 4 };
        let churn = Load::Churn { sessions: 60, parallel: 10, messages: 10 };
        vec![
            Self::new("saturate", saturate.clone()),
            Self { archives: false, has_sink: false, ..Self::new("saturate-unarchived", saturate) },
            Self::new("paced", paced.clone()),
            Self { flush_interval: quarter * 8, ..Self::new("paced-flush-5s", paced) },
            Self::new("idle", Load::Idle { few: 50, many: 150 }).in_memory().without_sink(),
            Self::new("open", Load::Open { connections: 200, interval: Some(quarter / 250) }).in_memory(),
            Self::new("open-flood", Load::Open { connections: 50, interval: None }).in_memory(),
            Self::new("churn", churn.clone()).in_memory(),
            Self::new("churn-disk", churn),
            Self::new(
                "few-busy",
                Load::Paced { connections: 50, interval: quarter / 10, warm_up: 10, rounds: 40 },
            ),
            Self::new(
                "many-calm",
                Load::Paced { connections: 500, interval: quarter, warm_up: 2, rounds: 4 },
            ),
        ]
    }

    fn new(name: &'static str, load: Load) -> Self {
        Self { name, load, in_memory: false, has_sink: true, flush_interval: FLUSH_INTERVAL, archives: true }
    }

    fn in_memory(self) -> Self {
        Self { in_memory: true, ..self }
    }

    fn without_sink(self) -> Self {
        Self { has_sink: false, ..self }
    }

    /// Runs the load once and checks what was recorded.
    pub(crate) fn run(&self, kind: Kind, mix: &Mix, seed: u64) -> io::Result<Figures> {
        let env = vec![
            ("RTCSTATS_DUMP_FLUSH_INTERVAL_MS", self.flush_interval.as_millis().to_string()),
            ("RTCSTATS_ARCHIVE_ENABLED", self.archives.to_string()),
            // A fleet that opens as fast as it can is no flood.
            ("RTCSTATS_LIMITS_HANDSHAKES_PER_S", "100000".into()),
        ];
        let setup = Setup { kind, by_name: self.lacks_descriptors(), below: self.below(), env };
        let yardstick = Yardstick::take();
        let mut run = Run {
            scenario: self,
            subject: Subject::start(&setup)?,
            mix,
            rng: Rng::new(seed),
            figures: Figures { yardstick, ..Figures::default() },
            started: Cpu::default(),
        };
        run.started = run.subject.cpu()?;
        let sent = match self.load {
            Load::Saturate { connections, messages } => run.saturate(connections, messages)?,
            Load::Paced { connections, interval, warm_up, rounds } => {
                run.paced(connections, interval, warm_up, rounds)?
            }
            Load::Idle { few, many } => run.idle(few, many)?,
            Load::Open { connections, interval } => run.open(connections, interval)?,
            Load::Churn { sessions, parallel, messages } => run.churn(sessions, parallel, messages)?,
        };
        run.check(&sent)
    }

    /// Whether there are too few descriptors for all connections with a file each.
    fn lacks_descriptors(&self) -> bool {
        let connections = match self.load {
            Load::Paced { connections, .. } => connections as u64,
            Load::Open { connections, .. } => connections.into(),
            Load::Saturate { .. } | Load::Idle { .. } | Load::Churn { .. } => return false,
        };
        getrlimit(Resource::Nofile).current.is_some_and(|limit| 2 * connections + SPARE_DESCRIPTORS > limit)
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
            Load::Paced { connections, interval, warm_up, rounds } => {
                format!(
                    "{connections} connections send a message every {interval:?}, {rounds} times after {warm_up}"
                )
            }
            Load::Idle { few, many } => {
                format!("{few}, then {many} connections with an open session that is silent")
            }
            Load::Open { connections, interval } => {
                let pace = interval.map_or("as fast as they come".into(), |one| format!("one every {one:?}"));
                format!("{connections} connections open, {pace}, each with two messages")
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
    scenario: &'a Scenario,
    subject: Subject,
    mix: &'a Mix,
    rng: Rng,
    figures: Figures,
    started: Cpu,
}

impl<'a> Run<'a> {
    fn flushed(&self) -> Duration {
        self.scenario.flush_interval + APPENDED
    }

    fn fleet(&self) -> io::Result<Fleet<'a>> {
        Fleet::new(self.mix, self.subject.address.port())
    }

    fn saturate(&mut self, connections: usize, messages: u64) -> io::Result<Vec<Sent>> {
        let mut fleet = self.fleet()?;
        fleet.open(connections, || Identity::new(&mut self.rng, 0))?;
        let before = self.subject.cpu()?;
        fleet.send_and_close(messages)?;
        let received = self.subject.cpu()?.since(before);
        self.figures.add_us(RECEIVED, received.receiving_ns, fleet.messages);
        self.settle(fleet.connections())?;
        if self.subject.kind == Kind::Server {
            let all = self.subject.cpu()?.since(before);
            self.figures.add_us(PROCESSED, all.total_ns(), fleet.messages);
        }
        Ok(fleet.into_sent())
    }

    fn paced(
        &mut self,
        connections: usize,
        interval: Duration,
        warm_up: u32,
        rounds: u32,
    ) -> io::Result<Vec<Sent>> {
        let mut fleet = self.fleet()?;
        let rss_start = self.subject.rss_bytes()?;
        let cycle = self.mix.cycle() - 1;
        fleet.open(connections, || {
            let first = self.rng.between(0, cycle - 1);
            Identity::new(&mut self.rng, first)
        })?;
        // The first message makes the file. Where thousands of files were removed lately, as after another run, ext4 takes a
        // millisecond to make one.
        fleet.send(1)?;
        fleet.rest(self.flushed())?;
        self.wait_for_dumps(connections)?;
        let phases = fleet.phases(interval, &mut self.rng);
        // Sessions begin one after the other, so that not all of them append and are acknowledged at the same time.
        let begin_within = SPREAD.as_nanos().div_ceil(interval.as_nanos()) as usize;
        fleet.pace(&phases, interval, warm_up, begin_within)?;
        // As much waits to be appended and acknowledged at the end of the window as at its beginning.
        let (before, messages) = (self.subject.cpu()?, fleet.messages);
        let turns = self.subject.turns()?;
        fleet.pace(&phases, interval, rounds, 1)?;
        let used = self.subject.cpu()?.since(before);
        self.figures.add_us(PER_MESSAGE, used.total_ns(), fleet.messages - messages);
        if let (Some(before), Some(after)) = (turns, self.subject.turns()?) {
            self.figures.add(TURN, "ms", after.since(&before).percentile(0.999) * 1000.0);
        }
        fleet.send_and_close(0)?;
        self.settle(fleet.connections())?;
        std::thread::sleep(GIVEN_BACK);
        let left = self.subject.rss_bytes()? as f64 - rss_start as f64;
        self.figures.add(MEMORY_LEFT, "KiB", left / 1024.0);
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
            fleet.rest(self.flushed() + GIVEN_BACK)?;
            rss.push(self.subject.rss_bytes()?);
        }
        let slope = (rss[1] as f64 - rss[0] as f64) / (many - few) as f64;
        self.figures.add(MEMORY, "B", slope);
        fleet.send_and_close(0)?;
        self.settle(many)?;
        std::thread::sleep(GIVEN_BACK);
        let left = self.subject.rss_bytes()? as f64 - rss_start as f64;
        self.figures.add(MEMORY_LEFT, "KiB", left / 1024.0);
        Ok(fleet.into_sent())
    }

    fn open(&mut self, connections: u32, interval: Option<Duration>) -> io::Result<Vec<Sent>> {
        let mut fleet = self.fleet()?;
        let before = self.subject.cpu()?;
        let interval = interval.unwrap_or(Duration::ZERO);
        fleet.open_paced(connections, interval, 2, || Identity::new(&mut self.rng, 0))?;
        fleet.rest(self.flushed())?;
        let opened = self.subject.cpu()?.since(before);
        self.figures.add_us(PER_OPENING, opened.total_ns(), u64::from(connections));
        fleet.send_and_close(0)?;
        self.settle(fleet.connections())?;
        Ok(fleet.into_sent())
    }

    fn churn(&mut self, sessions: usize, parallel: usize, messages: u64) -> io::Result<Vec<Sent>> {
        let mut fleet = self.fleet()?;
        let before = self.subject.cpu()?;
        fleet.churn(sessions, parallel, messages, || Identity::new(&mut self.rng, 0))?;
        let received = self.subject.cpu()?.since(before);
        self.figures.add_us(SESSION_RECEIVED, received.receiving_ns, sessions as u64);
        self.settle(sessions)?;
        if self.subject.kind == Kind::Server {
            let all = self.subject.cpu()?.since(before);
            self.figures.add_us(SESSION_ARCHIVED, all.total_ns(), sessions as u64);
        }
        Ok(fleet.into_sent())
    }

    /// Waits until each session has its file; those of the sink are made when they open.
    fn wait_for_dumps(&mut self, sessions: usize) -> io::Result<()> {
        if self.subject.kind == Kind::Sink {
            return Ok(());
        }
        let folder = self.subject.folder.path().to_owned();
        self.subject.wait_until("all dumps are made", || {
            verify::dumps(&folder).is_ok_and(|files| files.len() >= sessions)
        })
    }

    /// Waits until the server has archived everything.
    fn settle(&mut self, sessions: usize) -> io::Result<()> {
        if self.subject.kind == Kind::Sink {
            return Ok(());
        }
        let folder = self.subject.folder.path().to_owned();
        let archives = self.scenario.archives;
        self.subject.wait_until("all sessions are processed", || {
            if archives {
                verify::archived(&folder).is_ok_and(|files| files.len() >= sessions)
            } else {
                verify::dumps(&folder).is_ok_and(|files| files.is_empty())
            }
        })
    }

    fn check(mut self, sent: &[Sent]) -> io::Result<Figures> {
        let used = self.subject.cpu()?.since(self.started);
        self.figures.waiting = used.waiting_ns as f64 / (used.waiting_ns + used.total_ns()).max(1) as f64;
        self.subject.stop()?;
        let folder = self.subject.folder.path();
        match self.subject.kind {
            Kind::Server if self.scenario.archives => verify::check_archive(folder, self.mix, sent)?,
            Kind::Server => assert_eq!(verify::dumps(folder)?.len(), 0, "every dump was processed"),
            Kind::Sink => verify::check_sink(folder, sent)?,
        }
        Ok(self.figures)
    }
}
