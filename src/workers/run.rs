//! One job, step by step.
//!
//! Owns the order of the steps: mark the attempt, read the dump once (extraction and copy), publish the document, publish
//! the copy (which commits), append the rows, take the mark back, remove the dump. Each step is durable before the next
//! begins, and each can be repeated: a job that was interrupted anywhere is run again from the start and leaves the same.
//! Rules: our contract, sections 3 and 6.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use log::warn;
use rustix::fs::{OFlags, Stat};

use super::Shared;
use super::attempts::{self, Attempt};
use super::derive::{self, Known};
use super::source::{self, Copy, Source, SourceError};
use super::verdict;
use crate::archive::day::Day;
use crate::archive::gzip::{Content, Gzip};
use crate::archive::{ArchiveError, DayFolder, Place, Search, Temporary};
use crate::beneath::{self, Opened};
use crate::client::{ClientType, SessionId};
use crate::dump_folder;
use crate::extract::Document;
use crate::jobs::{Job, Origin, Step};
use crate::logging::{chain, value};
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
    pub(super) fn new(step: Step, error: &dyn std::error::Error) -> Self {
        Self { step, error: chain(error).to_string() }
    }

    /// A failure of `step` in the folder of jobs.
    pub(super) fn of_job(step: Step, job: &Job, action: &str) -> impl FnOnce(io::Error) -> Self {
        let text = format!("finished/{}: cannot {action}", job.name);
        move |error| Self { step, error: format!("{text}: {error}") }
    }
}

/// Runs `job` from the start.
pub(super) fn run(shared: &Shared, bench: &mut Bench, job: &Job) -> Result<Done, Failure> {
    let finished = shared.folder.finished();
    let fail = |action| Failure::of_job(Step::Open, job, action);
    // Looked at first, so that no mark is made for what is no dump.
    match beneath::look(finished, &job.name).map_err(fail("look at it"))? {
        Some(stat) if beneath::is_regular(&stat) => {}
        Some(_) => {
            warn!("job.foreign dump={}: is no regular file, left alone", job.name);
            return Ok(Done::Gone);
        }
        None => return Ok(Done::Gone),
    }
    let attempt = Attempt::begin(finished, &job.name).map_err(fail("mark the attempt"))?;
    let verdict = verdict::of(shared, job, attempt.deaths());
    match verdict.and_then(|verdict| verdict::execute(shared, job, verdict)) {
        Ok(None) => {}
        Ok(Some(done)) => return Ok(done),
        Err(failure) => return Err(give_back(shared, attempt, failure)),
    }
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
        Err(failure) => Err(give_back(shared, attempt, failure)),
    }
}

/// After a failure: takes the mark back, and has everything opened by its name next time, for the disk may have gone and
/// come back as another.
fn give_back(shared: &Shared, attempt: Attempt<'_>, failure: Failure) -> Failure {
    if let Err(error) = attempt.end() {
        warn!("job.unmark err={}", value(error));
    }
    shared.archive.forget_folders();
    shared.records.forget_tables();
    failure
}

/// What becomes of a job that has just panicked; its mark says how often that was.
pub(super) fn after_panic(shared: &Shared, job: &Job) -> Result<Done, Failure> {
    let deaths = attempts::count(shared.folder.finished(), &job.name);
    let deaths = deaths.map_err(Failure::of_job(Step::Open, job, "count its attempts"))?;
    let verdict = verdict::of(shared, job, deaths)?;
    Ok(verdict::execute(shared, job, verdict)?.unwrap_or(Done::Panicked))
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
    let mut packed = None;
    if shared.is_archiving {
        let packed = packed.insert(shared.archive.temporary(&day).map_err(archive_failure)?);
        source.copy_to(Copy { gzip: &mut bench.gzip, file: packed.file() }).map_err(source_failure)?;
    }
    let document = derive::read(&mut source, dump.known(job), shared.limits);
    // First what went wrong underneath: it is why the extraction could not go on.
    let (content, size_bytes) = source.finish().map_err(source_failure)?;
    let mut document = document.map_err(|error| Failure::new(Step::Extract, &error))?;
    shared.pass(job, Point::Extracted)?;

    let was_begun = job.origin == Origin::Found || job.retries > 0 || attempt.deaths() > 0;
    let before = match packed.zip(content) {
        Some((packed, content)) => {
            let work = Work { shared, job, dump: &dump, day: &day };
            let search = if was_begun { Search::Everywhere } else { Search::FreeName };
            archive(&work, packed, content, search, &mut document)?
        }
        None => {
            derive::locate(&mut document, dump.known(job), dump.day, &job.name);
            if was_begun { Before::Perhaps } else { Before::Nothing }
        }
    };
    if shared.is_recording {
        let rows = derive::rows(&document, dump.known(job), &shared.app_environment);
        shared.records.append(&day, &rows, before).map_err(|error| Failure::new(Step::Records, &error))?;
        shared.pass(job, Point::RowsAppended)?;
    }
    Ok(Some(Stored {
        client: dump.client,
        size_bytes,
        is_errored: document.problems().total() > 0,
        features: derive::feature_metrics(&document),
    }))
}

/// What publishing a dump needs beside its content.
struct Work<'a> {
    shared: &'a Shared,
    job: &'a Job,
    dump: &'a Dump,
    day: &'a Arc<DayFolder>,
}

/// Publishes document and copy, and completes `document` with where that is. Says whether an earlier attempt may have
/// appended rows: only one that got as far as the commit.
fn archive(
    work: &Work<'_>,
    mut packed: Temporary,
    content: Content,
    mut search: Search,
    document: &mut Document,
) -> Result<Before, Failure> {
    let Work { shared, job, dump, day } = work;
    let fail = |error: ArchiveError| Failure::new(Step::Archive, &error);
    let mut locate = |name: &str| {
        derive::locate(document, dump.known(job), dump.day, name);
        serde_json::to_vec(document).map_err(|error| Failure::new(Step::Extract, &error))
    };
    loop {
        let slot = match shared.archive.place(day, &job.name, &dump.id, content, search).map_err(fail)? {
            Place::Archived(name) => return locate(&name).map(|_| Before::Perhaps),
            Place::Free(slot) => slot,
        };
        slot.publish_document(&shared.archive, &locate(slot.name())?).map_err(fail)?;
        shared.pass(job, Point::DocumentPublished)?;
        if slot.commit(&mut packed).map_err(fail)? {
            shared.pass(job, Point::Committed)?;
            return Ok(Before::Nothing);
        }
        // Somebody outside this process took the name: look again, it may even be the same dump.
        search = Search::Everywhere;
    }
}

/// What is known of a dump beside its content.
pub(super) struct Dump {
    pub(super) id: String,
    client: ClientType,
    pub(super) day: Day,
    written_ms: f64,
}

impl Dump {
    pub(super) fn describe(job: &Job, stat: &Stat, first: Option<FirstLine>) -> Self {
        let written = dump_folder::modified(stat).unwrap_or(SystemTime::UNIX_EPOCH);
        let since_1970 = written.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let clock = first.as_ref().and_then(|first| first.clock_ms);
        let id = first.as_ref().and_then(|first| first.server.id.as_ref());
        Self {
            id: id.map_or(job.name.as_str(), SessionId::as_str).to_owned(),
            client: first.as_ref().map_or(ClientType::Unsupported, |first| first.client),
            day: clock.and_then(Day::of_clock).unwrap_or_else(|| Day::of_time(written)),
            written_ms: (since_1970.as_secs_f64() * 1e3).floor(),
        }
    }

    fn known<'a>(&'a self, job: &'a Job) -> Known<'a> {
        Known { name: &job.name, id: &self.id, written_ms: self.written_ms }
    }
}
