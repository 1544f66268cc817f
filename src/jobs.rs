//! What crosses the line between the loop and the worker threads: plain data, owned by value.
//!
//! A job is a finished dump. Its steps are ordered and each is durable once done, so that a job that is
//! interrupted anywhere can be run again from the start: archive (document, then `.gz`, which commits),
//! records, unlink. The files are the truth; a [`Job`] only refers to one.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Makes the loop look at what a thread has for it. May be called at any time, from any thread, too often.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// One finished dump, at `<temp_path>/finished/<name>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// File name of the dump, `<id>` or `<id>_<n>`.
    pub name: String,
    /// Size of the dump in bytes when it was finished.
    pub size_bytes: u64,
    /// When the dump was finished (for leftovers: its modification time).
    pub finished_at: SystemTime,
    /// How often storing it has failed so far; sets the backoff.
    pub retries: u32,
    /// How it came to be known.
    pub origin: Origin,
}

/// How a job came to be known. It decides whether somebody may have begun it before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The loop has just finished the session.
    Finished,
    /// The dump was found in `finished/`, where an earlier attempt, or an earlier server, may have left it.
    Found,
}

/// The step at which a job stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Mark the attempt on disk and open the dump.
    Open,
    /// Read the dump and derive the document.
    Extract,
    /// Publish the document and the compressed dump.
    Archive,
    /// Append the rows to the records tables.
    Records,
    /// Remove the dump.
    Unlink,
}

/// What became of a job.
#[derive(Debug)]
pub enum JobOutcome {
    /// Archived (or, with the archive off, dropped) and removed from the dump folder.
    Stored {
        /// The job.
        job: Job,
        /// Whether the dump had problems (counted as errored).
        errored: bool,
    },
    /// Storing failed: disk, permissions. The dump is still there; run the job again after `retry_after`.
    Failed {
        /// The job, its `retries` already raised.
        job: Job,
        /// Where it stopped.
        step: Step,
        /// The cause, with path.
        error: String,
        /// Backoff, 1 s to 5 min.
        retry_after: Duration,
    },
    /// The job died twice; the dump is in `quarantine/`.
    Quarantined {
        /// The job.
        job: Job,
    },
    /// The job panicked for the first time; the dump is still there, marked.
    Panicked {
        /// The job.
        job: Job,
    },
    /// The dump is not there (any more), or is no plain file; nothing to do.
    Gone {
        /// The job.
        job: Job,
    },
}
