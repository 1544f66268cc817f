//! One job, step by step.
//!
//! Owns the order of the steps: mark the attempt, read the dump once (extraction and copy), publish the document, publish
//! the copy (which commits), append the rows, take the mark back, remove the dump. Each step is durable before the next
//! begins, and each can be repeated: a job that was interrupted anywhere is run again from the start and leaves the same.
//! Rules: our contract, sections 3 and 6.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::SystemTime;

use log::{error, warn};
use rustix::fs::{OFlags, Stat};

use super::Shared;
use super::attempts::{self, Attempt};
use super::derive::{Archived, Derived};
use super::source::{self, Copy, Source, SourceError};
use crate::archive::day::Day;
use crate::archive::gzip::{Content, Gzip};
use crate::archive::{ArchiveError, DayFolder, Place, Search, Temporary};
use crate::beneath::{self, Opened};
use crate::client::ClientType;
use crate::dump_folder;
use crate::jobs::{Job, Origin, Step};
use crate::metrics::FeatureMetrics;
use crate::records_store::Before;
use crate::recovery::first_line::FirstLine;

/// How a job ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Done {
    /// Archived, if that is wanted, and removed from the dump folder.
    Stored(Stored),
    /// Moved to the quarantine.
    Quarantined,
    /// Nothing to do.
    Gone,
    /// Died, and may be tried once more.
    Panicked,
}

/// What was learnt of a dump that was stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Stored {
    pub(super) client: ClientType,
    pub(super) size_bytes: u64,
    /// Whether the dump had problems.
    pub(super) is_errored: bool,
    pub(super) features: Option<FeatureMetrics>,
}

/// Why a job has to be run again.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) step: Step,
    pub(super) error: String,
}

/// A place in a job at which it can be interrupted. Only tests do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Point {
    Marked,
    Extracted,
    DocumentPublished,
    Committed,
    RowsAppended,
    Unmarked,
    Removed,
}

/// What a worker uses again for every job.
pub(super) struct Bench {
    gzip: Gzip,
    buffer: Vec<u8>,
}

impl Bench {
    pub(super) fn new(gzip_level: u32) -> Self {
        Self { gzip: Gzip::new(gzip_level), buffer: vec![0; source::BUFFER_BYTES] }
    }
}

impl Failure {
    /// A failure of `step`, told with all its causes.
    fn new(step: Step, error: &dyn std::error::Error) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        Self { step, error: text }
    }

    /// A failure of `step` in the folder of jobs.
    fn of_job(step: Step, job: &Job, action: &str) -> impl FnOnce(io::Error) -> Self {
        let text = format!("finished/{}: cannot {action}", job.name);
        move |error| Self { step, error: format!("{text}: {error}") }
    }
}

/// Runs `job` from the start.
pub(super) fn run(shared: &Shared, bench: &mut Bench, job: &Job) -> Result<Done, Failure> {
    let finished = shared.folder.finished();
    let fail = |action| Failure::of_job(Step::Open, job, action);
    // Looked at first, so that no mark is made for what is no dump.
    match beneath::look(&finished, &job.name).map_err(fail("look at it"))? {
        Some(stat) if beneath::is_regular(&stat) => {}
        Some(_) => {
            warn!("job.foreign name={:?} left alone: is no regular file", job.name);
            return Ok(Done::Gone);
        }
        None => return Ok(Done::Gone),
    }
    let Some(attempt) = Attempt::begin(finished.as_fd(), &job.name).map_err(fail("mark the attempt"))? else {
        return quarantine(shared, job);
    };
    shared.pass(job, Point::Marked)?;
    match process(shared, bench, job, &attempt) {
        Ok(Some(stored)) => {
            let fail = |action| Failure::of_job(Step::Unlink, job, action);
            attempt.clear().map_err(fail("unmark it"))?;
            shared.pass(job, Point::Unmarked)?;
            beneath::remove(finished, &job.name).map_err(fail("remove it"))?;
            shared.pass(job, Point::Removed)?;
            Ok(Done::Stored(stored))
        }
        Ok(None) => {
            attempt.end().map_err(fail("unmark it"))?;
            Ok(Done::Gone)
        }
        Err(failure) => {
            if let Err(error) = attempt.end() {
                warn!("job.unmark session={} err={error:?}", job.name);
            }
            // The disk may have gone and come back as another: open everything by its name next time.
            shared.archive.forget_folders();
            shared.records.forget_tables();
            Err(failure)
        }
    }
}

/// What becomes of a job that has just panicked; its mark says how often that was.
pub(super) fn after_panic(shared: &Shared, job: &Job) -> Result<Done, Failure> {
    let deaths = attempts::count(shared.folder.finished(), &job.name);
    let deaths = deaths.map_err(Failure::of_job(Step::Open, job, "count its attempts"))?;
    if deaths >= attempts::DEATHS_MAX { quarantine(shared, job) } else { Ok(Done::Panicked) }
}

/// Moves the dump of a job that has died too often out of the way.
fn quarantine(shared: &Shared, job: &Job) -> Result<Done, Failure> {
    let fail = |action| Failure::of_job(Step::Open, job, action);
    let name = shared.folder.quarantine(&job.name).map_err(fail("move it to quarantine"))?;
    error!("job.quarantined session={} kept=quarantine/{name} deaths={}", job.name, attempts::DEATHS_MAX);
    attempts::forget(shared.folder.finished(), &job.name).map_err(fail("unmark it"))?;
    Ok(Done::Quarantined)
}

/// Everything between the mark and its removal; `None` when the dump is not there.
fn process(
    shared: &Shared,
    bench: &mut Bench,
    job: &Job,
    attempt: &Attempt<'_>,
) -> Result<Option<Stored>, Failure> {
    let opened = beneath::open_file(shared.folder.finished(), &job.name, OFlags::RDONLY);
    let (file, stat) = match opened.map_err(Failure::of_job(Step::Open, job, "open it"))? {
        Opened::File(file, stat) => (file, stat),
        Opened::Absent | Opened::NotAFile => return Ok(None),
    };
    let source_failure = |error| match error {
        SourceError::Read(error) => Failure::of_job(Step::Extract, job, "read it")(error),
        SourceError::Copy(error) => Failure::of_job(Step::Archive, job, "write its copy")(error),
    };
    let archive_failure = |error: ArchiveError| Failure::new(Step::Archive, &error);

    let mut source = Source::new(&file, &mut bench.buffer);
    let first = FirstLine::parse(source.first_line().map_err(source_failure)?);
    let dump = Dump::describe(job, &stat, first);
    let day = shared.archive.day(dump.day).map_err(archive_failure)?;
    let mut packed =
        shared.is_archiving.then(|| shared.archive.temporary(&day)).transpose().map_err(archive_failure)?;
    if let Some(packed) = &mut packed {
        source.copy_to(Copy { gzip: &mut bench.gzip, file: packed.file() }).map_err(source_failure)?;
    }
    let derived = Derived::of(&mut source);
    let (content, size_bytes) = source.finish().map_err(source_failure)?;
    shared.pass(job, Point::Extracted)?;

    let was_begun = job.origin == Origin::Found || job.retries > 0 || attempt.deaths() > 0;
    let (name, before) = match packed.zip(content) {
        Some((packed, content)) => {
            let search = if was_begun { Search::Everywhere } else { Search::FreeName };
            archive(
                shared,
                &Work { job, dump: &dump, day: &day, derived: &derived },
                packed,
                content,
                search,
            )?
        }
        None => (job.name.clone(), if was_begun { Before::Perhaps } else { Before::Nothing }),
    };
    if shared.is_recording {
        let rows = derived.rows(&dump.archived(&name));
        shared.records.append(&day, &rows, before).map_err(|error| Failure::new(Step::Records, &error))?;
        shared.pass(job, Point::RowsAppended)?;
    }
    Ok(Some(Stored {
        client: dump.client,
        size_bytes,
        is_errored: derived.is_errored,
        features: derived.features,
    }))
}

/// A dump that has been read.
struct Work<'a> {
    job: &'a Job,
    dump: &'a Dump,
    day: &'a Arc<DayFolder>,
    derived: &'a Derived,
}

/// Publishes document and copy. Gives the name that the dump has in the archive, and whether an earlier attempt may
/// have appended rows: only one that got as far as the commit.
fn archive(
    shared: &Shared,
    work: &Work<'_>,
    mut packed: Temporary,
    content: Content,
    mut search: Search,
) -> Result<(String, Before), Failure> {
    let Work { job, dump, day, derived } = work;
    let fail = |error: ArchiveError| Failure::new(Step::Archive, &error);
    loop {
        let place = shared.archive.place(day, &job.name, &dump.id, content, search).map_err(fail)?;
        let slot = match place {
            Place::Archived(name) => return Ok((name, Before::Perhaps)),
            Place::Free(slot) => slot,
        };
        let document = derived.document(&dump.archived(slot.name()));
        slot.publish_document(&shared.archive, &document).map_err(fail)?;
        shared.pass(job, Point::DocumentPublished)?;
        if slot.commit(&mut packed).map_err(fail)? {
            shared.pass(job, Point::Committed)?;
            return Ok((slot.name().to_owned(), Before::Nothing));
        }
        // Somebody outside this process took the name: look again, it may even be the same dump.
        search = Search::Everywhere;
    }
}

/// What is known of a dump beside its content.
struct Dump {
    id: String,
    client: ClientType,
    day: Day,
    modified: SystemTime,
}

impl Dump {
    fn describe(job: &Job, stat: &Stat, first: Option<FirstLine>) -> Self {
        let modified = dump_folder::modified(stat).unwrap_or(SystemTime::UNIX_EPOCH);
        let clock = first.as_ref().and_then(|first| first.clock_ms);
        let day = clock.and_then(Day::of_clock).unwrap_or_else(|| Day::of_time(modified));
        let client = first.as_ref().map_or(ClientType::Unsupported, |first| first.client);
        let id = first.and_then(|first| first.server.id).unwrap_or_else(|| job.name.clone());
        Self { id, client, day, modified }
    }

    fn archived<'a>(&'a self, name: &'a str) -> Archived<'a> {
        let since = self.modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let modified_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Archived { name, id: &self.id, day: self.day.to_string(), modified_ms }
    }
}
