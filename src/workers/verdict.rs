//! What becomes of a job that has died before.
//!
//! A dump that kills its reader must not be read for ever, so after two deaths it goes to quarantine. Unless it is in the
//! archive already: then it was read to its end, the job died of something else (twice the server was killed at a bad
//! moment), and what remains is to append its rows. That is tried some more times; in the end the dump is given up,
//! which loses nothing but rows. Nothing is ever both in quarantine and in the archive.
//! Rules: our contract, section 3; ours for the dump that is archived.

use log::{error, info};
use rustix::fs::OFlags;

use super::Shared;
use super::attempts;
use super::run::{Done, Dump, Failure, Stored};
use super::source::{Source, SourceError};
use crate::archive::gzip::Content;
use crate::archive::{Place, Search};
use crate::beneath::{self, Opened};
use crate::client::ClientType;
use crate::jobs::{Job, Step};
use crate::recovery::first_line::FirstLine;

/// Deaths after which a dump that is not archived goes to quarantine.
const DEATHS_MAX: u64 = 2;
/// Deaths after which a dump that is archived is given up.
const DEATHS_ARCHIVED_MAX: u64 = 4;

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is run (again).
    TryAgain,
    /// Its dump is moved out of the way.
    Quarantine,
    /// Its dump is archived and is removed.
    GiveUp,
}

/// Decides about `job`, which has died `deaths` times. Reads the dump when that is needed, but does not look into it.
pub(super) fn of(shared: &Shared, job: &Job, deaths: u64) -> Result<Verdict, Failure> {
    if deaths < DEATHS_MAX {
        return Ok(Verdict::TryAgain);
    }
    if !is_archived(shared, job)? {
        return Ok(Verdict::Quarantine);
    }
    Ok(if deaths < DEATHS_ARCHIVED_MAX { Verdict::TryAgain } else { Verdict::GiveUp })
}

/// Does what was decided.
pub(super) fn execute(shared: &Shared, job: &Job, verdict: Verdict) -> Result<Option<Done>, Failure> {
    let fail = |action| Failure::of_job(Step::Unlink, job, action);
    let finished = shared.folder.finished();
    match verdict {
        Verdict::TryAgain => Ok(None),
        Verdict::Quarantine => {
            let name = shared.folder.quarantine(&job.name).map_err(fail("move it to quarantine"))?;
            attempts::forget(finished, &job.name).map_err(fail("unmark it"))?;
            info!("job.kept dump={} path=quarantine/{name} deaths_max={DEATHS_MAX}", job.name);
            Ok(Some(Done::Quarantined))
        }
        Verdict::GiveUp => {
            error!(
                "job.given_up dump={} deaths_max={DEATHS_ARCHIVED_MAX}: archived, rows may be missing",
                job.name
            );
            attempts::forget(finished, &job.name).map_err(fail("unmark it"))?;
            beneath::remove(finished, &job.name).map_err(fail("remove it"))?;
            let size_bytes = job.size_bytes;
            let client = ClientType::Unsupported;
            Ok(Some(Done::Stored(Stored { client, size_bytes, is_errored: true, features: None })))
        }
    }
}

/// Whether the archive holds the dump of `job`.
fn is_archived(shared: &Shared, job: &Job) -> Result<bool, Failure> {
    if !shared.is_archiving {
        return Ok(false);
    }
    let fail = |action| Failure::of_job(Step::Open, job, action);
    let opened = beneath::open_file(shared.folder.finished(), &job.name, OFlags::RDONLY);
    let Opened::File(file, stat) = opened.map_err(fail("open it"))? else { return Ok(false) };
    let mut buffer = vec![0; super::source::BUFFER_BYTES];
    let mut source = Source::new(&file, &mut buffer);
    let read_failure = |(SourceError::Read(error) | SourceError::Copy(error))| fail("read it")(error);
    let first = FirstLine::parse(source.first_line().map_err(read_failure)?);
    let dump = Dump::describe(job, &stat, first);
    let content = Content::of(&mut source).map_err(fail("read it"))?;
    let archive_failure = |error| Failure::new(Step::Archive, &error);
    let day = shared.archive.day(dump.day).map_err(archive_failure)?;
    let place = shared.archive.place(&day, &job.name, &dump.id, content, Search::Everywhere);
    Ok(matches!(place.map_err(archive_failure)?, Place::Archived(_)))
}
