//! One thread of the pool: takes jobs, prepares them one by one, commits them together.
//!
//! Owns the batch, and what becomes of a job that fails or panics. Reports every outcome and wakes the loop.
//!
//! A dump of which an attempt has died is suspect. Only one of these is read at a time in the whole process, for two that
//! are marked when it dies are two that are blamed. Together with their place at the end of a listing (see `rescan`) this
//! leaves every death but the first with the dump that caused it.
//! Rules: our contract, section 3.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::prepare::{self, Bench, Learnt, Preparation, Prepared};
use super::{Ends, Failure, Report, Shared, Task, attempts, commit, rescan};
use crate::jobs::{Job, JobOutcome, Step};
use crate::metrics::JobReport;
use crate::moment::Moment;

/// Jobs that one worker commits together at most.
pub(super) const BATCH_JOBS_MAX: usize = 16;
/// Bytes of documents and rows that a worker holds until it commits.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A dump of this size takes a tenth of a second or more: what was prepared before is committed first.
const BIG_DUMP_BYTES: u64 = 8 * 1024 * 1024;
/// Wait before a failed job is run again for the first time; it doubles from there.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest wait before a failed job is run again.
const RETRY_LAST: Duration = Duration::from_secs(300);

/// Descriptors that all workers together hold for what they have not committed: two per job.
const BATCH_DESCRIPTORS_MAX: usize = 256;

/// One thread.
pub(super) struct Worker {
    shared: Arc<Shared>,
    ends: Ends,
    bench: Bench,
    /// What is to be committed together, and how long its first half took. At most `batch_jobs_max`.
    batch: Vec<(Prepared, Duration)>,
    batch_jobs_max: usize,
    /// Jobs that were submitted again while they were in work, to be begun next; at most one per job of the batch.
    again: Vec<Job>,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, ends: Ends) -> Self {
        let bench = Bench::new(shared.gzip_level);
        let batch_jobs_max = (BATCH_DESCRIPTORS_MAX / 2 / shared.threads).clamp(1, BATCH_JOBS_MAX);
        Self { shared, ends, bench, batch: Vec::new(), batch_jobs_max, again: Vec::new() }
    }

    /// Works until the loop lets go of its end.
    pub(super) fn run(mut self) {
        while let Some(task) = self.next_task() {
            if self.shared.is_stopping() {
                break;
            }
            if self.shared.is_rescan_wanted.swap(false, Ordering::AcqRel) {
                rescan::run(&self.shared, |report| self.report(report));
            }
            match task {
                Task::Process(job) => self.take(job),
                Task::Rescan => {}
            }
        }
        self.commit();
    }

    /// Waits for a task, but not with something to commit in hand.
    fn next_task(&mut self) -> Option<Task> {
        if let Some(job) = self.again.pop() {
            return Some(Task::Process(job));
        }
        if let Ok(task) = self.ends.tasks.try_recv() {
            return Some(task);
        }
        self.commit();
        if let Some(job) = self.again.pop() {
            return Some(Task::Process(job));
        }
        self.ends.tasks.recv().ok()
    }

    /// Does the first half of `job`, and the second of all that are in hand when these are enough.
    fn take(&mut self, job: Job) {
        let is_big = job.size_bytes >= BIG_DUMP_BYTES;
        let is_suspect = self.is_suspect(&job);
        if is_big || is_suspect {
            self.commit();
        }
        let shared = Arc::clone(&self.shared);
        let turn = is_suspect.then(|| shared.suspects.lock().unwrap_or_else(PoisonError::into_inner));
        // The wait for the turn may have been long.
        if is_suspect && shared.is_stopping() {
            return;
        }
        shared.begin(&job.name);
        self.prepare(job);
        drop(turn);
        let held_bytes: usize = self.batch.iter().map(|(prepared, _)| prepared.held_bytes()).sum();
        if is_big || self.batch.len() >= self.batch_jobs_max || held_bytes >= BATCH_BYTES_MAX {
            self.commit();
        }
    }

    /// Whether an attempt for `job` has died. When that cannot be found out the attempt itself will say why.
    fn is_suspect(&self, job: &Job) -> bool {
        attempts::count(self.shared.folder.finished(), &job.name).is_ok_and(|deaths| deaths > 0)
    }

    fn prepare(&mut self, job: Job) {
        let Self { bench, shared, .. } = self;
        let begun = now();
        let result = catch_unwind(AssertUnwindSafe(|| prepare::prepare(shared, bench, &job)));
        match result {
            Ok(Ok(Preparation::Ready(prepared))) => {
                self.batch.push((*prepared, now().saturating_duration_since(begun)))
            }
            Ok(Ok(Preparation::Quarantined)) => self.quarantined(job),
            Ok(Ok(Preparation::Gone)) => self.end(JobOutcome::Gone { job }),
            Ok(Err(failure)) => self.failed(job, failure),
            Err(_) => {
                self.bench.renew(self.shared.gzip_level);
                match prepare::after_panic(&self.shared, &job) {
                    Ok(true) => self.quarantined(job),
                    Ok(false) => self.end(JobOutcome::Panicked { job }),
                    Err(failure) => self.failed(job, failure),
                }
            }
        }
    }

    /// Does the second half of every job in hand.
    fn commit(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let begun = now();
        let (batch, preparing): (Vec<_>, Vec<_>) = std::mem::take(&mut self.batch).into_iter().unzip();
        let jobs: Vec<Job> = batch.iter().map(|prepared| prepared.job.clone()).collect();
        let Self { bench, shared, .. } = self;
        let Ok(entries) = catch_unwind(AssertUnwindSafe(|| commit::commit(shared, bench, batch))) else {
            // Not the fault of a dump: nobody looks into them here. So they are tried again, and more and more seldom.
            self.bench.renew(self.shared.gzip_level);
            for job in jobs {
                let error = format!("finished/{}: storing it panicked", job.name);
                self.failed(job, Failure { step: Step::Archive, error });
            }
            return;
        };
        let share = now().saturating_duration_since(begun) / u32::try_from(entries.len()).unwrap_or(1).max(1);
        for (entry, preparing) in entries.into_iter().zip(preparing) {
            let Prepared { job, learnt, .. } = entry.prepared;
            let stored = entry.failure.map_or_else(|| commit::remove(&self.shared, &job), Err);
            match stored {
                Ok(()) => self.stored(job, learnt, preparing + share),
                Err(failure) => self.failed(job, failure),
            }
        }
    }

    fn stored(&mut self, job: Job, learnt: Learnt, processing: Duration) {
        let Learnt { client, size_bytes, is_errored, features } = learnt;
        let report = JobReport {
            client_type: client,
            dump_bytes: size_bytes,
            processing,
            errored: is_errored,
            features,
        };
        self.shared.metrics.job_done(&report, now());
        self.end(JobOutcome::Stored { job, errored: is_errored });
    }

    fn quarantined(&mut self, job: Job) {
        self.shared.metrics.quarantined();
        self.end(JobOutcome::Quarantined { job });
    }

    fn failed(&mut self, job: Job, failure: Failure) {
        self.shared.metrics.storage_error();
        let Failure { step, error } = failure;
        let retry_after = retry_after(job.retries);
        let job = Job { retries: job.retries.saturating_add(1), ..job };
        self.end(JobOutcome::Failed { job, step, error, retry_after });
    }

    /// A job ended. If it was submitted again meanwhile it is begun once more.
    fn end(&mut self, outcome: JobOutcome) {
        let (JobOutcome::Stored { job, .. }
        | JobOutcome::Quarantined { job }
        | JobOutcome::Gone { job }
        | JobOutcome::Failed { job, .. }
        | JobOutcome::Panicked { job }) = &outcome;
        self.again.extend(self.shared.end(&job.name));
        self.report(Report::Job(outcome));
    }

    fn report(&self, report: Report) {
        // Nobody listens any more only when the server ends; the files tell the next one.
        let _ = self.ends.reports.send(report);
        (self.ends.wake)();
    }
}

#[expect(clippy::disallowed_methods, reason = "an edge: how long a job takes concerns nobody's logic")]
pub(super) fn now() -> Moment {
    Moment::now()
}

/// 1 s, 2 s, 4 s, ... 5 min.
fn retry_after(retries: u32) -> Duration {
    let factor = 1u32.checked_shl(retries).unwrap_or(u32::MAX);
    RETRY_FIRST.saturating_mul(factor).min(RETRY_LAST)
}
