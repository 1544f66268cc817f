//! The second half of jobs, several at a time: publish, append; then remove.
//!
//! Owns the order of the steps. Each line is done for every job before the next begins:
//!
//! ```text
//! publish    each job: its document
//! sync       documents and copies, and the names of the documents
//! commit     each job: publish its copy
//! sync       the names of the copies: one folder for each day
//! append     rows: those of each table together
//! sync       the tables that were written
//! ```
//!
//! Then the dumps may be removed. Waiting for the device is most of what a job costs, so it is done once for a whole batch,
//! and what was promised for one dump holds for each: nothing is committed before document and copy are on the device
//! under names that lead to them, no rows are appended for what is not committed for good, and no dump is removed before
//! its rows are there. So a crash at any point, also of the power, leaves of a dump: itself, and perhaps parts that are
//! replaced (before its commit); itself and its archive (until it is removed); or its archive. Should a file system keep less
//! than it has promised, and the `.gz` be there without its document, that is published again, synced first.
//!
//! A job that fails or panics in a step of its own leaves the batch; the others go on. What fails for several is a failure of
//! each of them, and so is a panic there: nobody knows what was written, so all is written anew.
//! Rules: our contract, sections 3 and 6.

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::prepare::{Bench, Prepared};
use super::{Failure, Point, Shared};
use crate::archive::disk::Disk;
use crate::archive::{ArchiveError, DayFolder, Temporary};
use crate::beneath;
use crate::jobs::{Job, Step};
use crate::records::Rows;
use crate::records_store::{Before, Unsynced};

/// Jobs, and tables, from which on the whole disk is synced instead of each file. The disk may hold much that is not ours,
/// so one or two dumps do not make it write all of that.
const SYNC_DISK_MIN: usize = 3;

/// Days whose disks stay open for the next batch. More than one is rare; each costs a descriptor.
const DISKS_KEPT_MAX: usize = 2;

/// Moves rows of a dump behind those of others in the same table.
fn gather(tables: &mut Vec<Rows>, rows: &mut Rows) {
    let (lines, ids) = (std::mem::take(&mut rows.lines), std::mem::take(&mut rows.ids));
    match tables.iter_mut().find(|table| table.table == rows.table) {
        Some(table) => {
            table.lines.extend_from_slice(&lines);
            table.ids.extend(ids);
        }
        None => tables.push(Rows { table: rows.table, lines, ids }),
    }
}

/// A job in its second half.
pub(super) struct Entry {
    pub(super) prepared: Prepared,
    document: Option<Temporary>,
    pub(super) failure: Option<Failure>,
}

/// Stores what was prepared. Gives every job back, with its failure if it has one.
pub(super) fn commit(shared: &Shared, bench: &mut Bench, batch: Vec<Prepared>) -> Vec<Entry> {
    let entries = batch.into_iter().map(|prepared| Entry { prepared, document: None, failure: None });
    let mut commit = Commit { shared, entries: entries.collect() };
    commit.run(bench);
    if commit.entries.iter().any(|entry| entry.failure.is_some()) {
        // The disk may have gone and come back as another: open everything by its name next time.
        shared.archive.forget_folders();
        shared.records.forget_tables();
        bench.disks.clear();
    }
    let surplus = bench.disks.len().saturating_sub(DISKS_KEPT_MAX);
    bench.disks.drain(..surplus);
    commit.entries
}

/// Removes the dump of a job that was stored.
pub(super) fn remove(shared: &Shared, job: &Job) -> Result<(), Failure> {
    let fail = Failure::of_job(Step::Unlink, job, "remove it");
    beneath::remove(shared.folder.finished(), &job.name).map_err(fail)?;
    shared.pass(job, Point::Removed)
}

/// The disk of `day`, if it is open.
fn disk_of<'a>(bench: &'a Bench, day: &Arc<DayFolder>) -> Option<&'a Disk> {
    bench.disks.iter().find(|disk| disk.is_of(day))
}

struct Commit<'a> {
    shared: &'a Shared,
    entries: Vec<Entry>,
}

impl Commit<'_> {
    fn run(&mut self, bench: &Bench) {
        let shared = self.shared;
        self.each(Step::Archive, |entry| {
            let Some(publication) = &entry.prepared.publication else { return Ok(()) };
            let slot = &publication.slot;
            let document =
                entry.document.insert(slot.write_document(&shared.archive, &publication.document)?);
            if publication.packed.is_none() {
                // Its dump is there, so whatever has the name of the document is believed.
                document.sync()?;
            }
            slot.publish_document(document)
        });
        self.pass(Point::DocumentPublished);
        self.sync_contents(bench);
        self.each(Step::Archive, |entry| match &mut entry.prepared.publication {
            Some(publication) => match &mut publication.packed {
                Some(packed) => publication.slot.commit(packed),
                None => Ok(()),
            },
            None => Ok(()),
        });
        if shared.is_archiving {
            // Also where nothing was published: who did may have died before this.
            self.each_day(|day| day.sync());
        }
        self.pass(Point::Committed);
        let grown_bytes = self.good().map(|entry| entry.prepared.archived_bytes()).sum();
        shared.upkeep.grown(grown_bytes, &shared.metrics);
        for entry in &mut self.entries {
            // From here on the name is taken by what is on disk, and the descriptors can go.
            entry.document = None;
            entry.prepared.publication = None;
        }
        self.append_rows(bench);
    }

    /// Waits until documents and copies, and the names of the documents, are on the device.
    fn sync_contents(&mut self, bench: &Bench) {
        let count = self.good().filter(|entry| entry.prepared.publication.is_some()).count();
        if count == 0 {
            return;
        }
        let days = self.days();
        let are_covered =
            days.iter().all(|day| disk_of(bench, day).is_some_and(|disk| disk.covers(day.as_ref())));
        if count >= SYNC_DISK_MIN && are_covered {
            return self.each_day(|day| disk_of(bench, day).map_or(Ok(()), |disk| disk.sync().map(drop)));
        }
        self.each(Step::Archive, |entry| {
            let packed =
                entry.prepared.publication.as_ref().and_then(|publication| publication.packed.as_ref());
            entry.document.iter().chain(packed).try_for_each(Temporary::sync)
        });
        self.each_day(|day| day.sync());
    }

    fn append_rows(&mut self, bench: &Bench) {
        let shared = self.shared;
        let mut unsynced = Unsynced::default();
        for day in self.days() {
            let mut tables = Vec::new();
            for entry in self.new_in(&day) {
                entry.prepared.rows.iter_mut().for_each(|rows| gather(&mut tables, rows));
            }
            if let Err(error) = shared.records.append(&day, &tables, Before::Nothing, &mut unsynced) {
                let failure = Failure::new(Step::Records, &error);
                self.new_in(&day).for_each(|entry| entry.failure = Some(failure.clone()));
            }
        }
        self.each(Step::Records, |entry| match &entry.prepared {
            Prepared { before: Before::Nothing, .. } => Ok(()),
            Prepared { day, rows, before, .. } => {
                shared.records.append(day, rows, *before, &mut unsynced).map(drop)
            }
        });
        if let Err(failure) = self.sync_tables(bench, unsynced) {
            // Whose rows it was is not told, and does not matter: those that are there are found again.
            for entry in self.good().filter(|entry| !entry.prepared.rows.is_empty()) {
                entry.failure = Some(failure.clone());
            }
        }
        self.pass(Point::RowsAppended);
    }

    /// The jobs of `day` that have not failed and of which no row can be in the tables.
    fn new_in(&mut self, day: &Arc<DayFolder>) -> impl Iterator<Item = &mut Entry> {
        let is_new = |entry: &&mut Entry| entry.prepared.before == Before::Nothing;
        self.good().filter(is_new).filter(|entry| Arc::ptr_eq(&entry.prepared.day, day))
    }

    /// Waits until these tables are on the device.
    fn sync_tables(&mut self, bench: &Bench, unsynced: Unsynced) -> Result<(), Failure> {
        let count = unsynced.files().count().min(self.entries.len());
        let days = self.days();
        let disks: Vec<&Disk> = days.iter().filter_map(|day| disk_of(bench, day)).collect();
        let are_covered = unsynced.files().all(|file| disks.iter().any(|disk| disk.covers(file)));
        if count >= SYNC_DISK_MIN && are_covered {
            let synced = disks.iter().try_for_each(|disk| disk.sync().map(drop));
            return synced.map_err(|error| Failure::new(Step::Records, &error));
        }
        unsynced.sync().map_err(|error| Failure::new(Step::Records, &error))
    }

    /// The jobs that have not failed.
    fn good(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut().filter(|entry| entry.failure.is_none())
    }

    /// Does something for every job that has not failed.
    fn each<E: Error>(&mut self, step: Step, mut act: impl FnMut(&mut Entry) -> Result<(), E>) {
        self.apart(step, |entry| act(entry).map_err(|error| Failure::new(step, &error)));
    }

    /// Does something for every job that has not failed; a panic is a failure of that job alone.
    fn apart(&mut self, step: Step, mut act: impl FnMut(&mut Entry) -> Result<(), Failure>) {
        for entry in self.good() {
            let acted = catch_unwind(AssertUnwindSafe(|| act(entry)));
            let acted = acted.unwrap_or_else(|_| {
                let error = format!("finished/{}: storing it panicked", entry.prepared.job.name);
                Err(Failure { step, error })
            });
            entry.failure = acted.err();
        }
    }

    /// The days of the jobs that have not failed.
    fn days(&mut self) -> Vec<Arc<DayFolder>> {
        let mut days: Vec<Arc<DayFolder>> = Vec::new();
        for entry in self.good() {
            if !days.iter().any(|day| Arc::ptr_eq(day, &entry.prepared.day)) {
                days.push(Arc::clone(&entry.prepared.day));
            }
        }
        days
    }

    /// Does something for every day; where it fails, all its jobs do.
    fn each_day(&mut self, act: impl Fn(&Arc<DayFolder>) -> Result<(), ArchiveError>) {
        for day in self.days() {
            if let Err(error) = act(&day) {
                for entry in self.good().filter(|entry| Arc::ptr_eq(&entry.prepared.day, &day)) {
                    entry.failure = Some(Failure::new(Step::Archive, &error));
                }
            }
        }
    }

    /// Lets a test interrupt the jobs that have come this far.
    fn pass(&mut self, point: Point) {
        let shared = self.shared;
        self.apart(Step::Archive, |entry| shared.pass(&entry.prepared.job, point));
    }
}
