//! The second half of jobs, several at a time: publish, append; then remove.
//!
//! Owns the order: documents on the device and published, copies published (which commits), rows appended; each step is
//! durable before the next begins, and then the dumps may be removed. Waiting for the device is most of what a job costs, so it is done once
//! for a whole batch. A job that fails here leaves the batch; the others go on.
//! Rules: our contract, sections 3 and 6.

use std::error::Error;
use std::sync::Arc;

use super::prepare::{Bench, Prepared, Publication};
use super::{Failure, Point, Shared};
use crate::archive::{ArchiveError, DayFolder, Disk, Temporary};
use crate::beneath;
use crate::jobs::{Job, Step};
use crate::records_store::Unsynced;

/// Publications from which on the whole disk is synced instead of each file. The disk may hold much that is not ours, so
/// one or two dumps do not make it write all of that.
const SYNC_DISK_MIN: usize = 3;

/// Days whose disks stay open for the next batch. More than one is rare; each costs a descriptor.
const DISKS_KEPT_MAX: usize = 2;

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

struct Commit<'a> {
    shared: &'a Shared,
    entries: Vec<Entry>,
}

impl Commit<'_> {
    fn run(&mut self, bench: &Bench) {
        let shared = self.shared;
        self.each(Step::Archive, |entry| {
            if let Some(publication) = &entry.prepared.publication {
                let document = publication.slot.write_document(&shared.archive, &publication.document)?;
                entry.document = Some(document);
            }
            Ok::<_, ArchiveError>(())
        });
        self.sync_contents(bench);
        self.publish(Point::DocumentPublished, |publication, document| {
            publication.slot.publish_document(document)
        });
        self.publish(Point::Committed, |publication, _| publication.slot.commit(&mut publication.packed));
        for entry in &mut self.entries {
            // From here on the name is taken by what is on disk, and the descriptors can go.
            entry.document = None;
            entry.prepared.publication = None;
        }
        self.append_rows();
    }

    /// Waits until what was written under temporary names is on the device.
    fn sync_contents(&mut self, bench: &Bench) {
        let disk_of = |day: &Arc<DayFolder>| bench.disks.iter().find(|disk| disk.is_of(day));
        let days = self.days();
        let count = self.good().filter(|entry| entry.prepared.publication.is_some()).count();
        if count >= SYNC_DISK_MIN && days.iter().all(|day| disk_of(day).is_some()) {
            return self.each_day(|day| disk_of(day).map_or(Ok(()), Disk::sync));
        }
        self.each(Step::Archive, |entry| {
            let packed = entry.prepared.publication.as_ref().map(|publication| &publication.packed);
            entry.document.iter().chain(packed).try_for_each(Temporary::sync)
        });
    }

    /// Takes one step towards publication for every job that is to be published, and makes it durable.
    fn publish(
        &mut self,
        point: Point,
        mut step: impl FnMut(&mut Publication, &mut Temporary) -> Result<(), ArchiveError>,
    ) {
        self.each(Step::Archive, |entry| match (&mut entry.prepared.publication, &mut entry.document) {
            (Some(publication), Some(document)) => step(publication, document),
            (Some(_) | None, _) => Ok(()),
        });
        self.each_day(|day| day.sync());
        self.pass(point);
    }

    fn append_rows(&mut self) {
        let shared = self.shared;
        let mut unsynced = Unsynced::default();
        self.each(Step::Records, |entry| {
            let Prepared { day, rows, before, .. } = &entry.prepared;
            shared.records.append(day, rows, *before, &mut unsynced).map(drop)
        });
        if let Err(error) = unsynced.sync() {
            // Whose rows it was is not told, and does not matter: those that are there are found again.
            for entry in self.good().filter(|entry| !entry.prepared.rows.is_empty()) {
                entry.failure = Some(Failure::new(Step::Records, &error));
            }
        }
        self.pass(Point::RowsAppended);
    }

    /// The jobs that have not failed.
    fn good(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut().filter(|entry| entry.failure.is_none())
    }

    /// Does something for every job that has not failed.
    fn each<E: Error>(&mut self, step: Step, mut act: impl FnMut(&mut Entry) -> Result<(), E>) {
        for entry in self.good() {
            if let Err(error) = act(entry) {
                entry.failure = Some(Failure::new(step, &error));
            }
        }
    }

    /// The days into which something is to be published.
    fn days(&mut self) -> Vec<Arc<DayFolder>> {
        let mut days: Vec<Arc<DayFolder>> = Vec::new();
        for entry in self.good().filter(|entry| entry.prepared.publication.is_some()) {
            if !days.iter().any(|day| Arc::ptr_eq(day, &entry.prepared.day)) {
                days.push(Arc::clone(&entry.prepared.day));
            }
        }
        days
    }

    /// Does something for every day into which something is to be published; where it fails, all its jobs do.
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
        for entry in self.good() {
            if let Err(failure) = shared.pass(&entry.prepared.job, point) {
                entry.failure = Some(failure);
            }
        }
    }
}
