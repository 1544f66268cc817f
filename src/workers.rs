//! The worker threads: finished dumps in, outcomes out.
//!
//! Owns the threads, the bounded queue of jobs, the inbox of reports for the loop, and the list of what is in hand; and the
//! thread that keeps the archive within its limits (`keeper`, `upkeep`), which does no jobs.
//! The files in `finished/` are the truth: the queue only refers to them, so nothing is lost when it is full, when a
//! job panics or when the process ends. Submitting never blocks. A job in hand is never begun twice: submitted again
//! while it is in work, it is run once more afterwards (a new dump may have got the name of the one just removed).
//!
//! A job has two halves. The first (`prepare`) reads the dump and can die of it; the second (`commit`) stores what
//! came of it, and is done for several jobs at once, because waiting for the disk costs the same for one and for many. A
//! worker commits when its batch is full, or when nothing waits. The marks of attempts are in `attempts`.
//! Rules: our contract, sections 3 and 6.

mod attempts;
mod commit;
mod derive;
mod keeper;
mod prepare;
mod rescan;
mod source;
mod upkeep;
mod worker;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::SystemTime;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use log::warn;

use crate::archive::Archive;
use crate::archive::retention::Limits;
use crate::config::{ArchiveConfig, LimitsConfig, PrivacyConfig, RecordsConfig, WorkersConfig};
use crate::dump_folder::DumpFolder;
use crate::extract::ExtractLimits;
use crate::jobs::{Job, JobOutcome, Step, Wake};
use crate::logging::{chain, value};
use crate::metrics::Metrics;
use crate::moment::Moment;
use crate::records_store::RecordsStore;
use keeper::Keeper;
use upkeep::Upkeep;
use worker::Worker;

/// Reports that wait for the loop. When they are full the workers wait: the loop is then far behind anyway.
const REPORTS_MAX: usize = 256;

/// What the workers need to know.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// Threads and queue.
    pub workers: WorkersConfig,
    /// Where the dumps are.
    pub folder: Arc<DumpFolder>,
    /// Where they go.
    pub archive: ArchiveConfig,
    /// What is derived from them.
    pub records: RecordsConfig,
    /// What is cut from both.
    pub privacy: PrivacyConfig,
    /// What bounds reading them.
    pub limits: LimitsConfig,
    /// The last sign of life of the server before.
    pub last_heartbeat: Option<SystemTime>,
}

/// What a worker has for the loop.
#[derive(Debug)]
pub enum Report {
    /// A job ended.
    Job(JobOutcome),
    /// Dumps in `finished/` that are not in hand, some of all; to be submitted.
    Found(Vec<Job>),
    /// The listing of `finished/` is complete.
    RescanComplete {
        /// How many were found.
        jobs: u64,
    },
}

/// The ends of the channels that a thread holds.
struct Ends {
    tasks: Receiver<Task>,
    reports: Sender<Report>,
    wake: Wake,
    /// Gone with the thread.
    _alive: Sender<Infallible>,
}

/// What was not done when the workers were stopped. The files are still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leftover {
    /// Jobs that waited.
    pub queued: usize,
    /// Jobs that were still running at the deadline.
    pub in_work: usize,
}

enum Task {
    Process(Job),
    Rescan,
}

/// Where a job in hand is.
#[derive(Debug)]
enum InHand {
    Queued,
    Running,
    /// Running, and submitted again since: to be run once more.
    RunningAgain(Job),
}

/// What became of a job that was submitted.
#[derive(Debug, PartialEq, Eq)]
pub enum Submitted {
    /// A report will say what came of it.
    Accepted,
    /// Another job of its name waits, which does for both. No report will follow for this one.
    Merged(Job),
}

/// The worker threads, seen from the loop.
#[derive(Debug)]
pub struct Workers {
    /// `None` once no job is begun any more.
    tasks: Option<Sender<Task>>,
    /// The other end, to look at its length; nothing is taken from it here.
    queue: Receiver<Task>,
    reports: Receiver<Report>,
    /// Says nothing; closed when the last thread has ended.
    alive: Receiver<Infallible>,
    shared: Arc<Shared>,
}

/// What the threads share. Everything in it is guarded by itself.
struct Shared {
    folder: Arc<DumpFolder>,
    archive: Archive,
    upkeep: Upkeep,
    is_archiving: bool,
    records: RecordsStore,
    is_recording: bool,
    /// Whether addresses are cut from what is archived and recorded.
    is_cutting_addresses: bool,
    app_environment: String,
    gzip_level: u32,
    limits: ExtractLimits,
    metrics: Arc<Metrics>,
    /// At most the queue's length and one per thread.
    in_hand: Mutex<HashMap<String, InHand>>,
    threads: usize,
    in_work: AtomicUsize,
    /// Held while a dump is read of which an attempt has died, see `worker`.
    suspects: Mutex<()>,
    is_stopping: AtomicBool,
    is_rescan_wanted: AtomicBool,
    /// Lets tests interrupt a job.
    #[cfg(test)]
    interrupt: Option<tests::Interrupt>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").field("in_work", &self.in_work).finish_non_exhaustive()
    }
}

impl Workers {
    /// Starts the threads. The first thing they do is to look for jobs in `finished/`. `wake` is called after each
    /// report.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(settings: &WorkerSettings, metrics: Arc<Metrics>, wake: Wake) -> io::Result<Self> {
        Self::start_shared(Shared::new(settings, metrics), settings.workers.queue_jobs_max, wake)
    }

    fn start_shared(shared: Shared, queue_jobs_max: usize, wake: Wake) -> io::Result<Self> {
        let (tasks, queue) = bounded(queue_jobs_max.max(1));
        let (report, reports) = bounded(REPORTS_MAX);
        let (alive_token, alive) = bounded(0);
        let shared = Arc::new(shared);
        for number in 0..shared.threads {
            let ends = Ends {
                tasks: queue.clone(),
                reports: report.clone(),
                wake: Arc::clone(&wake),
                _alive: alive_token.clone(),
            };
            let worker = Worker::new(Arc::clone(&shared), ends);
            thread::Builder::new().name(format!("worker-{number}")).spawn(move || worker.run())?;
        }
        let keeper = Keeper::new(Arc::clone(&shared));
        thread::Builder::new().name("archive-keeper".to_owned()).spawn(move || {
            keeper.run();
            drop(alive_token);
        })?;
        let workers = Self { tasks: Some(tasks), queue, reports, alive, shared };
        workers.rescan();
        Ok(workers)
    }

    /// Queues `job`; never blocks. A job that waits already is not queued twice.
    ///
    /// # Errors
    /// Gives the job back when the queue is full or the workers are being stopped.
    pub fn submit(&self, job: Job) -> Result<Submitted, Job> {
        let Some(tasks) = &self.tasks else { return Err(job) };
        // Held while sending, so that no worker takes the job before it is in the list.
        let mut in_hand = self.shared.lock_in_hand();
        match in_hand.entry(job.name.clone()) {
            Entry::Occupied(mut state) => match state.get() {
                InHand::Running => {
                    state.insert(InHand::RunningAgain(job));
                    Ok(Submitted::Accepted)
                }
                InHand::Queued | InHand::RunningAgain(_) => Ok(Submitted::Merged(job)),
            },
            Entry::Vacant(place) => match tasks.try_send(Task::Process(job)) {
                Ok(()) => {
                    place.insert(InHand::Queued);
                    Ok(Submitted::Accepted)
                }
                Err(TrySendError::Full(task) | TrySendError::Disconnected(task)) => match task {
                    Task::Process(job) => Err(job),
                    Task::Rescan => Ok(Submitted::Accepted),
                },
            },
        }
    }

    /// Has the jobs in `finished/` listed and reported, as soon as a worker is free. Never blocks.
    pub fn rescan(&self) {
        self.shared.is_rescan_wanted.store(true, Ordering::Release);
        if let Some(tasks) = &self.tasks {
            // A full queue is as good: every worker looks at the wish before its next job.
            let _ = tasks.try_send(Task::Rescan);
        }
    }

    /// Bounds the archive otherwise from now on. Never blocks.
    pub fn limit_archive(&self, limits: Limits) {
        self.shared.upkeep.change(limits);
    }

    /// What the workers have for the loop.
    #[must_use]
    pub fn reports(&self) -> &Receiver<Report> {
        &self.reports
    }

    /// Jobs that wait in the queue.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Says how many jobs wait in the queue, from any thread, without blocking.
    pub fn queue_length(&self) -> impl Fn() -> usize + Send + Sync + 'static {
        let queue = self.queue.clone();
        move || queue.len()
    }

    /// Jobs that a worker has in hand.
    #[must_use]
    pub fn in_work(&self) -> usize {
        self.shared.in_work.load(Ordering::Relaxed)
    }

    /// Whether a job that is submitted now has to wait.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.queue.is_empty() || self.in_work() >= self.shared.threads
    }

    /// Begins no more jobs from now on; those that run go on. Never blocks.
    pub fn stop(&mut self) {
        self.shared.is_stopping.store(true, Ordering::Release);
        self.shared.upkeep.ring();
        self.tasks = None;
    }

    /// Whether every thread has ended after [`stop`](Self::stop).
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        matches!(self.alive.try_recv(), Err(crossbeam_channel::TryRecvError::Disconnected))
    }

    /// Stops and waits until the running jobs have ended, at most until `deadline`. A job that is still running then
    /// is left to itself, and its mark is taken back: that the server ends is no death of the job.
    #[must_use]
    pub fn shutdown(mut self, deadline: Moment) -> Leftover {
        self.stop();
        let timeout = crossbeam_channel::after(deadline.saturating_duration_since(worker::now()));
        let mut reports = self.reports.clone();
        loop {
            crossbeam_channel::select! {
                recv(self.alive) -> _ => break,
                // Nobody listens any more, but a full inbox would hold the threads up.
                recv(reports) -> report => if report.is_err() {
                    reports = crossbeam_channel::never();
                },
                recv(timeout) -> _ => break,
            }
        }
        let in_hand = self.shared.lock_in_hand();
        let mut leftover = Leftover { queued: 0, in_work: 0 };
        for (name, state) in in_hand.iter() {
            match state {
                InHand::Queued => leftover.queued += 1,
                InHand::Running | InHand::RunningAgain(_) => {
                    leftover.in_work += 1;
                    if let Err(error) = attempts::interrupted(self.shared.folder.finished(), name) {
                        warn!("job.unmark dump={name} err={}", value(error));
                    }
                }
            }
        }
        leftover
    }
}

impl Shared {
    fn new(settings: &WorkerSettings, metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            folder: Arc::clone(&settings.folder),
            archive: Archive::new(&settings.archive.path),
            upkeep: Upkeep::new(Limits::from(&settings.archive), settings.last_heartbeat),
            is_archiving: settings.archive.enabled,
            records: RecordsStore::default(),
            is_recording: settings.records.enabled,
            is_cutting_addresses: settings.privacy.obfuscate_ip,
            app_environment: settings.records.app_environment.clone(),
            gzip_level: settings.archive.gzip_level,
            limits: ExtractLimits::from(&settings.limits),
            in_hand: Mutex::default(),
            threads: settings.workers.threads.max(1),
            in_work: AtomicUsize::new(0),
            suspects: Mutex::default(),
            is_stopping: AtomicBool::new(false),
            is_rescan_wanted: AtomicBool::new(false),
            #[cfg(test)]
            interrupt: None,
        }
    }

    fn lock_in_hand(&self) -> MutexGuard<'_, HashMap<String, InHand>> {
        // Each change is one call of the map, so it is whole even after a panic.
        self.in_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A job begins.
    fn begin(&self, name: &str) {
        self.lock_in_hand().insert(name.to_owned(), InHand::Running);
        self.in_work.fetch_add(1, Ordering::Relaxed);
    }

    /// A job ends. When it was submitted again meanwhile the new job is given, still in hand.
    fn end(&self, name: &str) -> Option<Job> {
        self.in_work.fetch_sub(1, Ordering::Relaxed);
        let mut in_hand = self.lock_in_hand();
        match in_hand.remove(name) {
            Some(InHand::RunningAgain(job)) => {
                in_hand.insert(name.to_owned(), InHand::Queued);
                Some(job)
            }
            Some(InHand::Queued | InHand::Running) | None => None,
        }
    }

    /// Lets a test interrupt the job here.
    #[cfg(test)]
    fn pass(&self, job: &Job, point: Point) -> Result<(), Failure> {
        self.interrupt.as_ref().map_or(Ok(()), |interrupt| interrupt(job, point))
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "the shape of what tests have here")]
    fn pass(&self, _job: &Job, _point: Point) -> Result<(), Failure> {
        Ok(())
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }
}

/// Why a job has to be run again.
#[derive(Debug, Clone)]
struct Failure {
    step: Step,
    error: String,
}

impl Failure {
    /// A failure of `step`, told with all its causes.
    fn new(step: Step, error: &dyn Error) -> Self {
        Self { step, error: chain(error).to_string() }
    }

    /// A failure of `step` in the folder of jobs.
    fn of_job(step: Step, job: &Job, action: &str) -> impl FnOnce(io::Error) -> Self {
        let text = format!("finished/{}: cannot {action}", job.name);
        move |error| Self { step, error: format!("{text}: {error}") }
    }
}

/// A place in a job at which it can be interrupted. Only tests do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Point {
    /// The attempt is marked.
    Marked,
    /// The dump was read and copied.
    Extracted,
    /// The mark is gone.
    Unmarked,
    /// The document is published.
    DocumentPublished,
    /// The copy is published.
    Committed,
    /// The rows are appended.
    RowsAppended,
    /// The dump is removed.
    Removed,
}

#[cfg(test)]
mod tests;
