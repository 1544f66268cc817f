//! Listing the jobs in `finished/`: at start, and when the loop could not keep all their names.
//!
//! Never reads or changes a dump. Removes marks whose dump is gone. Links, folders and files of other names are left
//! alone and reported.

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

/// Lists `finished/` and reports, in chunks, the jobs that are not in hand.
pub(super) fn run(shared: &Shared, mut report: impl FnMut(Report)) {
    let finished = shared.folder.finished();
    let (mut jobs, mut unknown) = (0, 0u64);
    let mut chunk = Vec::new();
    let names = match Dir::read_from(finished) {
        Ok(names) => names,
        Err(error) => {
            warn!("rescan.list path={} err={}", value(shared.folder.path().display()), value(error));
            return report(Report::RescanComplete { jobs });
        }
    };
    for entry in names.map_while(Result::ok) {
        let name = entry.file_name().to_string_lossy();
        match look_at(shared, &name) {
            Found::Job(job) => {
                jobs += 1;
                chunk.push(job);
            }
            Found::Nothing => {}
            Found::Unknown => {
                unknown += 1;
                if unknown <= UNKNOWN_REPORTED_MAX {
                    warn!("rescan.unknown name={}: is no dump, left alone", value(&name));
                }
            }
        }
        if chunk.len() >= CHUNK_JOBS_MAX {
            report(Report::Found(std::mem::take(&mut chunk)));
        }
    }
    if !chunk.is_empty() {
        report(Report::Found(chunk));
    }
    info!("rescan.complete jobs={jobs} unknown={unknown}");
    report(Report::RescanComplete { jobs });
}

enum Found {
    Job(Job),
    Nothing,
    Unknown,
}

fn look_at(shared: &Shared, name: &str) -> Found {
    let finished = shared.folder.finished();
    if matches!(name, "." | "..") {
        return Found::Nothing;
    }
    if let Some(dump) = name.strip_suffix(attempts::SUFFIX).filter(|dump| is_dump_name(dump)) {
        if matches!(beneath::look(&finished, dump), Ok(None))
            && let Err(error) = attempts::forget(&finished, dump)
        {
            warn!("rescan.unmark dump={dump} err={}", value(error));
        }
        return Found::Nothing;
    }
    if !is_dump_name(name) {
        return Found::Unknown;
    }
    match beneath::look(&finished, name) {
        Ok(None) => Found::Nothing,
        Ok(Some(stat)) if beneath::is_regular(&stat) => {
            if shared.lock_in_hand().contains_key(name) {
                return Found::Nothing;
            }
            Found::Job(Job {
                name: name.to_owned(),
                size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
                finished_at: dump_folder::modified(&stat).unwrap_or(std::time::SystemTime::UNIX_EPOCH),
                retries: 0,
                origin: Origin::Found,
            })
        }
        Ok(Some(_)) | Err(_) => Found::Unknown,
    }
}
