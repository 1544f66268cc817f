//! Listing the jobs in `finished/`: at start, and when the loop could not keep all their names.
//!
//! Never reads or changes a dump. Removes marks whose dump is gone. Links, folders and files of other names are left
//! alone and reported.

use std::io;

use log::{info, warn};
use rustix::fs::Dir;

use super::{Report, Shared, attempts};
use crate::beneath;
use crate::dump_folder::{self, is_dump_name};
use crate::jobs::{Job, Origin};
use crate::logging::value;

/// Jobs in one report.
const CHUNK_JOBS_MAX: usize = 128;
/// Things that are no jobs which are reported one by one; the rest is counted.
const UNKNOWN_REPORTED_MAX: u64 = 20;

/// Which jobs are reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Those that have never died.
    Innocent,
    /// The others.
    Suspect,
}

/// Lists `finished/` and reports, in chunks, the jobs that are not in hand. Those that died before are the last, however
/// many there are: what was interrupted by the end of the server shall not be the first again when that ends once more.
pub(super) fn run(shared: &Shared, mut report: impl FnMut(Report)) {
    let (mut jobs, mut unknown) = (0, 0);
    for pass in [Pass::Innocent, Pass::Suspect] {
        let mut chunk = Vec::new();
        let listed = list(shared, pass, |found| match found {
            Found::Job(job) => {
                jobs += 1;
                chunk.push(job);
                if chunk.len() >= CHUNK_JOBS_MAX {
                    report(Report::Found(std::mem::take(&mut chunk)));
                }
            }
            Found::Unknown(name) => {
                unknown += 1;
                if unknown <= UNKNOWN_REPORTED_MAX {
                    warn!("rescan.unknown name={}: is no dump, left alone", value(name));
                }
            }
        });
        if let Err(error) = listed {
            warn!("rescan.list path={} err={}", value(shared.folder.path().display()), value(error));
        }
        if !chunk.is_empty() {
            report(Report::Found(chunk));
        }
    }
    info!("rescan.complete jobs={jobs} unknown={unknown}");
    report(Report::RescanComplete { jobs });
}

/// Tells what is there of this pass; what is no job is told in the first.
fn list(shared: &Shared, pass: Pass, mut tell: impl FnMut(Found<'_>)) -> io::Result<()> {
    let finished = shared.folder.finished();
    for entry in Dir::read_from(&finished)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy();
        let marked = name.strip_suffix(attempts::SUFFIX).filter(|dump| is_dump_name(dump));
        let found = match (pass, marked) {
            (Pass::Innocent, Some(dump)) => {
                remove_stray_mark(shared, dump);
                None
            }
            (Pass::Innocent, None) => look_at(shared, &name).filter(|found| match found {
                Found::Job(job) => !attempts::count(&finished, &job.name).is_ok_and(|deaths| deaths > 0),
                Found::Unknown(_) => true,
            }),
            (Pass::Suspect, Some(dump)) => look_at(shared, dump),
            (Pass::Suspect, None) => None,
        };
        found.into_iter().for_each(&mut tell);
    }
    Ok(())
}

fn remove_stray_mark(shared: &Shared, dump: &str) {
    let finished = shared.folder.finished();
    if matches!(beneath::look(&finished, dump), Ok(None))
        && let Err(error) = attempts::forget(&finished, dump)
    {
        warn!("rescan.unmark dump={dump} err={}", value(error));
    }
}

enum Found<'a> {
    Job(Job),
    Unknown(&'a str),
}

/// What has this name; `None` when that is nothing to tell of.
fn look_at<'a>(shared: &Shared, name: &'a str) -> Option<Found<'a>> {
    if matches!(name, "." | "..") {
        return None;
    }
    if !is_dump_name(name) {
        return Some(Found::Unknown(name));
    }
    match beneath::look(shared.folder.finished(), name) {
        Ok(None) => None,
        Ok(Some(stat)) if beneath::is_regular(&stat) => {
            let is_in_hand = shared.lock_in_hand().contains_key(name);
            (!is_in_hand).then(|| {
                Found::Job(Job {
                    name: name.to_owned(),
                    size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
                    finished_at: dump_folder::modified(&stat).unwrap_or(std::time::SystemTime::UNIX_EPOCH),
                    retries: 0,
                    origin: Origin::Found,
                })
            })
        }
        Ok(Some(_)) | Err(_) => Some(Found::Unknown(name)),
    }
}
