//! Between the loop and the workers: finished dumps wait here for a free place in the workers' queue.
//!
//! The files in `finished/` are the truth; what is kept here only refers to them. So the list is bounded: what does
//! not fit is left to a later listing of the folder, which a worker makes. A job that could not be stored comes back
//! after its pause. Never blocks and never touches a file.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, SystemTime};

use log::{Level, debug, error, info, warn};

use crate::archive::retention::Limits;
use crate::collector::LINES_PER_S;
use crate::jobs::{Job, JobOutcome, Origin};
use crate::limited;
use crate::logging::{RateLimit, value};
use crate::metrics::Tally;
use crate::moment::Moment;
use crate::workers::{Leftover, Report, Submitted, Workers};

/// Jobs that are known here at most, about 200 bytes each; further ones are found again by listing their folder.
const JOBS_MAX: usize = 20_000;
/// Places for jobs that are kept when there are none.
const JOBS_KEPT: usize = 256;
/// Reports that are handled in one turn at most, so that a fast pool cannot hold up the sockets.
const REPORTS_PER_TURN: usize = 256;

/// The desk.
#[derive(Debug)]
pub struct Desk {
    workers: Workers,
    /// Every dump of which a job is listed, paused or with the workers, by its name.
    known: HashMap<String, Known>,
    /// The sum of their bytes.
    pending_bytes: u64,
    /// The sum of their jobs.
    jobs: usize,
    /// Jobs for which the queue had no place, oldest first; all of them are known.
    backlog: VecDeque<Job>,
    /// Jobs that failed, with the time at which they are tried again; all of them are known.
    paused: Vec<(Moment, Job)>,
    /// Finished dumps that are in the folder and not known here.
    unlisted: usize,
    /// Whether the folder is being listed; it is at start.
    is_listing: bool,
    /// Bounds the line about a job that is done, which follows each session of a peer.
    lines: RateLimit,
}

/// What is known of a dump.
#[derive(Debug)]
struct Known {
    finished_at: SystemTime,
    size_bytes: u64,
    /// Jobs of this name that are not over. More than one when a name was used again: the dump that had it before is
    /// gone, and its worker's report is not read yet.
    jobs: usize,
}

impl Desk {
    /// A desk in front of these workers, which begin by listing what an earlier server left.
    #[must_use]
    pub fn new(workers: Workers) -> Self {
        Self {
            workers,
            known: HashMap::new(),
            pending_bytes: 0,
            jobs: 0,
            lines: RateLimit::new(LINES_PER_S, Duration::from_secs(1)),
            backlog: VecDeque::new(),
            paused: Vec::new(),
            unlisted: 0,
            is_listing: true,
        }
    }

    /// A dump was finished.
    pub fn add(&mut self, job: Job, tally: &mut Tally) {
        if !self.backlog.is_empty() || self.workers.is_busy() {
            tally.queued_dumps += 1;
        }
        self.list(job);
    }

    /// Puts a job at the end of the list.
    fn list(&mut self, job: Job) {
        let new = Known { finished_at: job.finished_at, size_bytes: job.size_bytes, jobs: 1 };
        let is_full = self.known.len() >= JOBS_MAX;
        match self.known.get_mut(&job.name) {
            // A listing may tell of what is known.
            Some(_) if job.origin == Origin::Found => return,
            // The loop has just finished it under this name, so the dump that had it before is gone.
            Some(known) => {
                self.pending_bytes = self.pending_bytes.saturating_sub(known.size_bytes);
                *known = Known { jobs: known.jobs + 1, ..new };
            }
            None if is_full => {
                self.unlisted += 1;
                return;
            }
            None => {
                self.known.insert(job.name.clone(), new);
            }
        }
        self.pending_bytes += job.size_bytes;
        self.jobs += 1;
        self.backlog.push_back(job);
    }

    /// Hands over as many jobs as the queue takes. Returns whether more reports wait.
    pub fn pump(&mut self, now: Moment, tally: &mut Tally) -> bool {
        let more = self.take_reports(now, tally);
        let due = self.paused.extract_if(.., |(at, _)| *at <= now);
        self.backlog.extend(due.map(|(_, job)| job));
        while let Some(job) = self.backlog.pop_front() {
            match self.workers.submit(job) {
                Ok(Submitted::Accepted) => {}
                Ok(Submitted::Merged(job)) => self.forget(&job.name),
                Err(job) => {
                    self.backlog.push_front(job);
                    break;
                }
            }
        }
        if self.unlisted > 0 && !self.is_listing && self.known.len() <= JOBS_MAX / 2 {
            debug!("jobs.list unlisted={}", self.unlisted);
            self.unlisted = 0;
            self.is_listing = true;
            self.workers.rescan();
        }
        more
    }

    fn take_reports(&mut self, now: Moment, tally: &mut Tally) -> bool {
        for _ in 0..REPORTS_PER_TURN {
            match self.workers.reports().try_recv() {
                Ok(Report::Job(outcome)) => self.take_outcome(outcome, now),
                Ok(Report::Found(jobs)) => {
                    for job in jobs {
                        tally.orphans_recovered += u64::from(!self.known.contains_key(&job.name));
                        self.list(job);
                    }
                }
                Ok(Report::RescanComplete { jobs }) => {
                    info!("jobs.listed jobs={jobs}");
                    self.is_listing = false;
                }
                Err(_) => return false,
            }
        }
        true
    }

    fn take_outcome(&mut self, outcome: JobOutcome, now: Moment) {
        match outcome {
            JobOutcome::Stored { job, errored } => {
                let Job { name, size_bytes, .. } = &job;
                limited!(
                    self.lines,
                    now,
                    Level::Info,
                    "job.done dump={name} bytes={size_bytes} errored={errored}"
                );
                self.forget(&job.name);
            }
            JobOutcome::Failed { job, step, error, retry_after } => {
                let (name, retries, pause_s) = (&job.name, job.retries, retry_after.as_secs_f32());
                let err = value(error);
                warn!(
                    "job.failed dump={name} step={step:?} err={err} retries={retries} retry_after_s={pause_s}"
                );
                self.paused.push((now + retry_after, job));
            }
            JobOutcome::Panicked { job } => {
                error!("job.panicked dump={}: it is tried once more", job.name);
                self.backlog.push_back(job);
            }
            JobOutcome::Quarantined { job } => {
                error!("job.quarantined dump={}: its job died twice", job.name);
                self.forget(&job.name);
            }
            JobOutcome::Gone { job } => {
                warn!("job.gone dump={}: somebody removed it", job.name);
                self.forget(&job.name);
            }
        }
    }

    /// A job of this name is over.
    fn forget(&mut self, name: &str) {
        let Some(known) = self.known.get_mut(name) else { return };
        known.jobs -= 1;
        self.jobs -= 1;
        if known.jobs == 0 {
            self.pending_bytes = self.pending_bytes.saturating_sub(known.size_bytes);
            self.known.remove(name);
        }
    }

    /// Bounds the archive otherwise from now on.
    pub fn limit_archive(&self, limits: Limits) {
        self.workers.limit_archive(limits);
    }

    /// When a paused job is tried again.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        self.paused.iter().map(|(at, _)| *at).min()
    }

    /// Jobs that no worker has taken yet.
    #[must_use]
    pub fn queued(&self) -> usize {
        (self.jobs + self.unlisted).saturating_sub(self.workers.in_work())
    }

    /// Jobs that a worker has in hand.
    #[must_use]
    pub fn in_work(&self) -> usize {
        self.workers.in_work()
    }

    /// Jobs that could be done now: all but those that pause after a failure.
    #[must_use]
    pub fn undone(&self) -> usize {
        self.jobs + self.unlisted - self.paused.len()
    }

    /// Bytes of the finished dumps that are known here.
    #[must_use]
    pub fn pending_bytes(&self) -> u64 {
        self.pending_bytes
    }

    /// Gives memory back that a crowd of jobs needed; called once a second.
    pub fn shrink(&mut self) {
        if self.known.len() < self.known.capacity() / 8 {
            self.known.shrink_to(JOBS_KEPT);
            self.backlog.shrink_to(JOBS_KEPT);
        }
    }

    /// How long the oldest finished dump has waited; zero when there is none.
    #[must_use]
    pub fn oldest_pending(&self, now: SystemTime) -> Duration {
        let oldest = self.known.values().map(|known| known.finished_at).min();
        oldest.and_then(|at| now.duration_since(at).ok()).unwrap_or_default()
    }

    /// Begins no more jobs and waits for those that run, at most until `deadline`.
    #[must_use]
    pub fn shut_down(self, deadline: Moment) -> Leftover {
        self.workers.shutdown(deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::dump_folder::DumpFolder;
    use crate::metrics::Metrics;
    use crate::workers::WorkerSettings;
    use std::path::Path;
    use std::sync::Arc;

    /// No test waits longer for a thread than this before it fails.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[expect(clippy::disallowed_methods, reason = "a test is an edge")]
    fn now() -> Moment {
        Moment::now()
    }

    /// A desk, and what says that its workers have reported.
    fn desk(path: &Path) -> (Desk, Arc<DumpFolder>, crossbeam_channel::Receiver<()>) {
        let (folder, _) = DumpFolder::open(&path.join("temp")).unwrap();
        let folder = Arc::new(folder);
        let mut config = Config::built_in();
        config.archive.path = path.join("archive");
        let settings = WorkerSettings {
            workers: config.workers,
            folder: Arc::clone(&folder),
            archive: config.archive,
            records: config.records,
            privacy: config.privacy,
            limits: config.limits,
            last_heartbeat: None,
        };
        let (woken, wakes) = crossbeam_channel::unbounded();
        let metrics = Arc::new(Metrics::new(now(), SystemTime::UNIX_EPOCH).unwrap());
        let wake = Arc::new(move || woken.send(()).unwrap_or(()));
        let mut desk = Desk::new(Workers::start(&settings, metrics, wake).unwrap());
        while desk.is_listing {
            wakes.recv_timeout(PATIENCE).unwrap();
            desk.pump(now(), &mut Tally::default());
        }
        (desk, folder, wakes)
    }

    fn finish(path: &Path, folder: &DumpFolder, name: &str, content: &str) -> Job {
        std::fs::write(path.join("temp").join(name), content).unwrap();
        let name = folder.finish(name).unwrap();
        let (finished_at, size_bytes) = (SystemTime::UNIX_EPOCH, content.len() as u64);
        Job { name, size_bytes, finished_at, retries: 0, origin: Origin::Finished }
    }

    /// The worker has removed the dump, and its report is not read yet: the name is free, but known.
    #[test]
    fn a_dump_that_gets_the_name_of_the_one_just_stored_is_not_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let (mut desk, folder, wakes) = desk(dir.path());
        let mut tally = Tally::default();
        for (content, jobs) in [("first", 1), ("second, and longer", 2), ("third", 2)] {
            let job = finish(dir.path(), &folder, "s", content);
            assert_eq!(job.name, "s");
            desk.add(job, &mut tally);
            assert_eq!((desk.undone(), desk.pending_bytes()), (jobs, content.len() as u64));
            desk.pump(now(), &mut tally);
            assert_eq!(desk.undone(), 1, "{content}");
            wakes.recv_timeout(PATIENCE).unwrap();
        }
        // A listing may tell of a dump that is known; it is one job all the same.
        let fourth = finish(dir.path(), &folder, "t", "fourth");
        desk.add(fourth.clone(), &mut tally);
        desk.list(Job { origin: Origin::Found, ..fourth });
        assert_eq!(desk.undone(), 2);
        while desk.undone() > 0 {
            desk.pump(now(), &mut tally);
            if desk.undone() > 0 {
                wakes.recv_timeout(PATIENCE).unwrap();
            }
        }
        assert_eq!((desk.pending_bytes(), desk.queued()), (0, 0));
        assert_eq!(std::fs::read_dir(dir.path().join("temp/finished")).unwrap().count(), 0);
        let day = std::fs::read_dir(dir.path().join("archive")).unwrap().next().unwrap().unwrap().path();
        let archived = std::fs::read_dir(day).unwrap().filter(|entry| {
            entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "gz")
        });
        assert_eq!(archived.count(), 4);
    }
}
