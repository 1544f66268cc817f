//! The first half of a job: read the dump, derive everything, write the copy.
//!
//! Owns what can kill a worker: only here is a dump looked into. So an attempt is marked on disk before and unmarked at
//! the end of this half; what follows (see `commit`) moves bytes that are already there, and its failures are no
//! deaths. Nothing is published here, so this half can be repeated at will.
//! Rules: our contract, sections 3 and 6.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::SystemTime;

use log::{info, warn};
use rustix::fs::{OFlags, Stat};

use super::Shared;
use super::attempts::{self, Attempt};
use super::derive::{self, Known};
use super::source::{self, DumpCopy, Source, SourceError};
use super::{Failure, Point};
use crate::archive::day::Day;
use crate::archive::disk::Disk;
use crate::archive::gzip::{Content, Gzip};
use crate::archive::{ArchiveError, DayFolder, Place, Search, Slot, Temporary};
use crate::beneath::{self, Opened};
use crate::client::{ClientType, SessionId};
use crate::dump_folder;
use crate::extract::{Document, KnownAgents};
use crate::jobs::{Job, Origin, Step};
use crate::logging::value;
use crate::metrics::FeatureMetrics;
use crate::privacy::Cutter;
use crate::records::Rows;
use crate::records_store::Before;
use crate::recovery::first_line::FirstLine;

/// Attempts that may die before a dump goes to quarantine.
const DEATHS_MAX: u64 = 2;

/// What a worker uses again for every job.
pub(super) struct Bench {
    gzip: Gzip,
    buffer: Vec<u8>,
    agents: KnownAgents,
    /// Takes memory once it is used.
    cutter: Cutter,
    /// The disks of the days of the batch, each opened before anything was written to it: at most one per job.
    pub(super) disks: Vec<Disk>,
}

impl Bench {
    pub(super) fn new(gzip_level: u32) -> Self {
        let buffer = vec![0; source::BUFFER_BYTES];
        Self {
            gzip: Gzip::new(gzip_level),
            buffer,
            agents: KnownAgents::default(),
            cutter: Cutter::default(),
            disks: Vec::new(),
        }
    }

    /// Makes everything anew that a panic may have left in any state.
    pub(super) fn renew(&mut self, gzip_level: u32) {
        let disks = std::mem::take(&mut self.disks);
        *self = Self { disks, ..Self::new(gzip_level) };
    }
}

/// Sees to it that the disk of `day` is open.
fn open_disk(disks: &mut Vec<Disk>, day: &Arc<DayFolder>) -> Result<(), ArchiveError> {
    if !disks.iter().any(|disk| disk.is_of(day)) {
        disks.push(day.disk()?);
    }
    Ok(())
}

/// How the first half ended.
pub(super) enum Preparation {
    /// Ready for the second.
    Ready(Box<Prepared>),
    /// Moved to the quarantine.
    Quarantined,
    /// There is nothing to do.
    Gone,
}

/// A dump of which everything was derived.
pub(super) struct Prepared {
    pub(super) job: Job,
    pub(super) day: Arc<DayFolder>,
    /// What is to be published; `None` when all of it is in the archive already, or none is kept.
    pub(super) publication: Option<Publication>,
    pub(super) rows: Vec<Rows>,
    /// Whether an earlier attempt may have appended rows.
    pub(super) before: Before,
    pub(super) learnt: Learnt,
}

impl Prepared {
    /// Bytes that are held until it is stored.
    pub(super) fn held_bytes(&self) -> usize {
        let document = self.publication.as_ref().map_or(0, |publication| publication.document.len());
        document + self.rows.iter().map(|rows| rows.lines.len()).sum::<usize>()
    }

    /// About how many bytes it adds to the archive: its rows may be there already.
    pub(super) fn archived_bytes(&self) -> u64 {
        let packed = self.publication.as_ref().and_then(|publication| publication.packed.as_ref());
        packed.map_or(0, Temporary::size_bytes) + self.held_bytes() as u64
    }
}

/// A dump on its way into the archive.
pub(super) struct Publication {
    pub(super) slot: Slot,
    /// The copy; `None` when that is in the archive already, without its document.
    pub(super) packed: Option<Temporary>,
    pub(super) document: Vec<u8>,
}

/// What the metrics are told of a dump.
#[derive(Debug, Clone, Copy)]
pub(super) struct Learnt {
    pub(super) client: ClientType,
    pub(super) size_bytes: u64,
    /// Whether the dump had problems.
    pub(super) is_errored: bool,
    pub(super) features: Option<FeatureMetrics>,
}

/// Runs the first half of `job`.
pub(super) fn prepare(shared: &Shared, bench: &mut Bench, job: &Job) -> Result<Preparation, Failure> {
    let finished = shared.folder.finished();
    let fail = |action| Failure::of_job(Step::Open, job, action);
    // Opened first, so that no mark is made for what is no dump.
    let (file, stat) =
        match beneath::open_file(&finished, &job.name, OFlags::RDONLY).map_err(fail("open it"))? {
            Opened::File(file, stat) => (file, stat),
            Opened::NotAFile => {
                warn!("job.foreign dump={}: is no regular file, left alone", job.name);
                return Ok(Preparation::Gone);
            }
            Opened::Absent => return Ok(Preparation::Gone),
        };
    let attempt = Attempt::begin(finished.as_fd(), &job.name).map_err(fail("mark the attempt"))?;
    if attempt.deaths() >= DEATHS_MAX {
        return quarantine(shared, job).map(|()| Preparation::Quarantined);
    }
    shared.pass(job, Point::Marked)?;
    let prepared = read(shared, bench, job, (&file, &stat), &attempt);
    // Whatever came of it: it ended by itself.
    let unmarked = if prepared.is_ok() { attempt.clear() } else { attempt.end() };
    let prepared = prepared?;
    unmarked.map_err(fail("unmark the attempt"))?;
    shared.pass(job, Point::Unmarked)?;
    Ok(Preparation::Ready(Box::new(prepared)))
}

/// After a job has panicked in its first half: `true` when that was once too often and its dump is in quarantine.
pub(super) fn after_panic(shared: &Shared, job: &Job) -> Result<bool, Failure> {
    let deaths = attempts::count(shared.folder.finished(), &job.name);
    let deaths = deaths.map_err(Failure::of_job(Step::Open, job, "count its attempts"))?;
    let is_enough = deaths >= DEATHS_MAX;
    if is_enough {
        quarantine(shared, job)?;
    }
    Ok(is_enough)
}

/// Moves the dump of a job that has died too often out of the way.
fn quarantine(shared: &Shared, job: &Job) -> Result<(), Failure> {
    let fail = |action| Failure::of_job(Step::Open, job, action);
    let name = shared.folder.quarantine(&job.name).map_err(fail("move it to quarantine"))?;
    info!("job.kept dump={} path=quarantine/{} deaths_max={DEATHS_MAX}", job.name, value(name));
    attempts::forget(shared.folder.finished(), &job.name).map_err(fail("unmark it"))
}

/// Everything between the mark and its removal.
fn read(
    shared: &Shared,
    bench: &mut Bench,
    job: &Job,
    (file, stat): (&File, &Stat),
    attempt: &Attempt<'_>,
) -> Result<Prepared, Failure> {
    let source_failure = |error| match error {
        SourceError::Read(error) => Failure::of_job(Step::Extract, job, "read it")(error),
        SourceError::Copy(error) => Failure::of_job(Step::Archive, job, "write its copy")(error),
    };
    let archive_failure = |error: ArchiveError| Failure::new(Step::Archive, &error);

    let Bench { gzip, buffer, agents, cutter, disks } = bench;
    let mut source = Source::new(file, buffer);
    let first = FirstLine::parse(source.first_line().map_err(source_failure)?);
    let dump = Dump::describe(job, stat, first);
    let day = shared.archive.day(dump.day).map_err(archive_failure)?;
    let mut packed = None;
    if shared.is_archiving {
        open_disk(disks, &day).map_err(archive_failure)?;
        let packed = packed.insert(shared.archive.temporary(&day).map_err(archive_failure)?);
        let cutter = shared.is_cutting_addresses.then_some(&mut *cutter);
        source.copy_to(DumpCopy { gzip, file: packed, cutter }).map_err(source_failure)?;
    }
    let document = derive::read(agents, &mut source, dump.known(job), shared.limits);
    // First what went wrong underneath: it is why the extraction could not go on.
    let (content, size_bytes) = source.finish().map_err(source_failure)?;
    if u64::try_from(stat.st_size) != Ok(size_bytes) {
        // A finished dump does not change. Whatever this is, it is not all that will be removed.
        let error = format!("finished/{}: read {size_bytes} of {} bytes", job.name, stat.st_size);
        return Err(Failure { step: Step::Extract, error });
    }
    let document = document.map_err(|error| Failure::new(Step::Extract, &error))?;
    shared.pass(job, Point::Extracted)?;

    let was_begun = job.origin == Origin::Found || job.retries > 0 || attempt.deaths() > 0;
    let learnt = Learnt {
        client: dump.client,
        size_bytes,
        is_errored: document.problems().total() > 0,
        features: derive::feature_metrics(&document),
    };
    let cutter = shared.is_cutting_addresses.then_some(cutter);
    let mut dump = Read { shared, job, dump, day, document, was_begun, cutter };
    let (publication, rows, before) = dump.place(packed.zip(content))?;
    let Read { job, day, .. } = dump;
    Ok(Prepared { job: job.clone(), day, publication, rows, before, learnt })
}

/// A dump that was read.
struct Read<'a> {
    shared: &'a Shared,
    job: &'a Job,
    dump: Dump,
    day: Arc<DayFolder>,
    document: Document,
    was_begun: bool,
    /// The document has the addresses of the dump, so what is written down of it goes through this, if addresses are to be cut.
    cutter: Option<&'a mut Cutter>,
}

impl Read<'_> {
    /// Finds the place of the dump in the archive; only then can its document and its rows be written down.
    fn place(
        &mut self,
        copy: Option<(Temporary, Content)>,
    ) -> Result<(Option<Publication>, Vec<Rows>, Before), Failure> {
        let Self { shared, job, dump, day, document, was_begun, cutter } = self;
        let known = dump.known(job);
        let rows = |document: &Document, cutter: Option<&mut Cutter>| {
            if !shared.is_recording {
                return Vec::new();
            }
            derive::rows(document, known, &shared.app_environment, cutter)
        };
        let Some((packed, content)) = copy else {
            derive::locate(document, known, dump.day, &job.name);
            let before = if *was_begun { Before::Perhaps } else { Before::Nothing };
            return Ok((None, rows(document, cutter.as_deref_mut()), before));
        };
        let search = if *was_begun { Search::Everywhere } else { Search::FreeName };
        let place = shared.archive.place(day, &job.name, &dump.id, content, search);
        let fail = |error: ArchiveError| Failure::new(Step::Archive, &error);
        let (slot, packed) = match place.map_err(fail)? {
            Place::Archived(slot) => (slot, None),
            Place::Free(slot) => (slot, Some(packed)),
        };
        derive::locate(document, known, dump.day, slot.name());
        // Rows come after the commit, so without it there are none; but what was committed may have gone since, to make
        // room, and its rows stay with their day.
        let may_be_cut = *was_begun && shared.upkeep.may_cut();
        let before = if packed.is_none() || may_be_cut { Before::Perhaps } else { Before::Nothing };
        if packed.is_none() && !slot.lacks_document().map_err(fail)? {
            return Ok((None, rows(document, cutter.as_deref_mut()), before));
        }
        let text = derive::text(document, cutter.as_deref_mut());
        let text = text.map_err(|error| Failure::new(Step::Extract, &error))?;
        let publication = Publication { slot, packed, document: text };
        Ok((Some(publication), rows(document, cutter.as_deref_mut()), before))
    }
}

/// What is known of a dump beside its content.
struct Dump {
    id: String,
    client: ClientType,
    day: Day,
    written_ms: f64,
}

impl Dump {
    fn describe(job: &Job, stat: &Stat, first: Option<FirstLine>) -> Self {
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
