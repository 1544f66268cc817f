//! `dump.durability = "power"`: what is acknowledged survives a power cut.
//!
//! Owns the group commit: which sessions were appended since the last sync, the sync that is under way, and the thread
//! that does it. A sync takes milliseconds, or seconds, and all that is appended meanwhile shares the next one; so the
//! loop never waits, and the number of syncs depends on the disk, not on the number of clients. [`GroupCommit`] is
//! pure; the thread knows descriptors only. What a result means for a session is the collector's business.
//!
//! After a failed sync the kernel may have marked the pages as clean although they never reached the disk, so a second
//! attempt would report a success that means nothing. It is therefore never repeated: the sessions of the failed round
//! fall back to what the last good sync covered, their dumps are given to the workers, who read them (from memory,
//! most likely) and write them anew elsewhere, and their clients bring the rest again for a new part.
//! Where the file system, or the kernel, is not known to tell all failures of a sync of the whole, every dump in the folder
//! is synced by itself instead: slower, with as many calls as there are dumps, and as good.
//! Bounds: one round under way, one gathered; `FILES_PER_ROUND_MAX` descriptors each.
//! Rules: our contract, section 4.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};
use log::warn;
use rustix::fs::{Dir, OFlags, fdatasync, fsync, syncfs};

use crate::beneath::{self, Opened};
use crate::dump_folder::{DumpFolder, Place};
use crate::jobs::Wake;
use crate::logging::value;
use crate::reactor::slots::SlotId;
use crate::session::Mark;
use crate::whole_sync;

/// Dumps that are synced one by one by the descriptors of their appends; of more than these the whole file system is
/// synced, which then is cheaper, and holds no descriptors.
const FILES_PER_ROUND_MAX: usize = 64;

/// What one sync has to cover; `F` is an open dump.
#[derive(Debug)]
pub struct Round<F> {
    /// Dumps with new content; empty when the whole file system is to be synced.
    pub files: Vec<F>,
    /// Whether the folder has new names.
    pub has_new_names: bool,
    /// Whether everything on the file system is to be covered.
    pub is_whole: bool,
}

impl<F> Default for Round<F> {
    fn default() -> Self {
        Self { files: Vec::new(), has_new_names: false, is_whole: false }
    }
}

/// Which sessions wait for which sync. Pure.
#[derive(Debug)]
pub struct GroupCommit<F> {
    gathered: Round<F>,
    /// Sessions with something that the next round will cover.
    dirty: HashSet<SlotId>,
    /// Sessions of the round that is under way, and how far it covers them.
    under_way: Option<Vec<(SlotId, Mark)>>,
}

impl<F> Default for GroupCommit<F> {
    fn default() -> Self {
        Self { gathered: Round::default(), dirty: HashSet::new(), under_way: None }
    }
}

impl<F> GroupCommit<F> {
    /// `session` was appended to its dump `file`, which `is_new` since the last round. Without a file, or with too many,
    /// the next round covers the whole file system.
    pub fn appended(&mut self, session: SlotId, file: Option<F>, is_new: bool) {
        let is_known = !self.dirty.insert(session);
        let round = &mut self.gathered;
        round.has_new_names |= is_new;
        match file {
            Some(_) if round.is_whole || is_known => {}
            Some(file) if round.files.len() < FILES_PER_ROUND_MAX => round.files.push(file),
            Some(_) | None => {
                round.is_whole = true;
                round.files.clear();
            }
        }
    }

    /// Begins the next round unless one is under way or there is nothing to cover. `mark` says how far a session is
    /// appended now: that, and nothing later, is what the round covers.
    pub fn begin(&mut self, mark: impl Fn(SlotId) -> Option<Mark>) -> Option<Round<F>> {
        if self.under_way.is_some() || self.dirty.is_empty() {
            return None;
        }
        let covered = self.dirty.drain().filter_map(|session| Some((session, mark(session)?))).collect();
        self.under_way = Some(covered);
        Some(std::mem::take(&mut self.gathered))
    }

    /// The round that was under way has ended, well or not; what it was to cover.
    pub fn end(&mut self) -> Vec<(SlotId, Mark)> {
        self.under_way.take().unwrap_or_default()
    }
}

struct Order {
    round: Round<Arc<File>>,
    folder: Place,
}

/// The group commit and its thread, which ends when this is dropped.
#[derive(Debug)]
pub struct Durability {
    /// What is gathered and under way.
    pub commit: GroupCommit<Arc<File>>,
    folder: Arc<DumpFolder>,
    orders: Sender<Order>,
    results: Receiver<io::Result<()>>,
}

impl Durability {
    /// Starts the thread. `wake` is called when a sync has ended.
    ///
    /// # Errors
    /// When no thread can be started, or the file system cannot be asked.
    pub fn start(folder: Arc<DumpFolder>, wake: Wake) -> io::Result<Self> {
        if !whole_sync::is_trusted(folder.root())? {
            warn!(
                "durability.one_by_one path={}: not every failure of syncfs is told on this file system, or by this kernel, \
                 so many dumps at once are synced one by one",
                value(folder.path().display())
            );
        }
        // One round is under way at most, so neither side ever waits for room.
        let (orders, work) = bounded::<Order>(1);
        let (report, results) = bounded(1);
        thread::Builder::new().name("durability".to_owned()).spawn(move || {
            for order in work {
                if report.send(sync(&order)).is_err() {
                    return;
                }
                wake();
            }
        })?;
        Ok(Self { commit: GroupCommit::default(), folder, orders, results })
    }

    /// Begins a round if one is due.
    pub fn begin(&mut self, mark: impl Fn(SlotId) -> Option<Mark>) {
        let Some(round) = self.commit.begin(mark) else { return };
        let order = Order { round, folder: self.folder.root() };
        // The thread ends by a panic alone, of which there is no cause; then nothing is acknowledged any more.
        let _ = self.orders.try_send(order);
    }

    /// The result of the round under way, once there is one.
    pub fn result(&mut self) -> Option<io::Result<()>> {
        self.results.try_recv().ok()
    }
}

/// Contents first, then names: a name without content would be taken for a dump.
fn sync(order: &Order) -> io::Result<()> {
    if order.round.is_whole && whole_sync::is_trusted(&order.folder)? {
        return Ok(syncfs(&order.folder)?);
    }
    if order.round.is_whole {
        sync_each(&order.folder)?;
    }
    for file in &order.round.files {
        fdatasync(&**file)?;
    }
    if order.round.is_whole || order.round.has_new_names {
        fsync(&order.folder)?;
    }
    Ok(())
}

/// Syncs every dump in the folder, for want of better, one after the other. A failure that nobody was told of yet is told
/// here, though the file was written by another descriptor (`fsync(2)`, since Linux 4.17).
/// A dump that was finished meanwhile is in another folder, and nobody waits for it.
fn sync_each(folder: &Place) -> io::Result<()> {
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy();
        if matches!(&*name, "." | "..") || DumpFolder::is_own(&name) {
            continue;
        }
        match beneath::open_file(folder, &name, OFlags::RDONLY)? {
            Opened::File(file, _) => fdatasync(file)?,
            Opened::Absent | Opened::NotAFile => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Ledger;

    fn id(index: u32) -> SlotId {
        SlotId { index, generation: 1 }
    }

    #[test]
    fn a_round_covers_what_was_appended_before_it_began() {
        let mut commit = GroupCommit::default();
        let mark = |_| Some(Mark::default());
        assert!(commit.begin(mark).is_none(), "nothing to do");
        commit.appended(id(1), Some("one"), true);
        commit.appended(id(1), Some("one"), false);
        commit.appended(id(2), Some("two"), false);
        let round = commit.begin(mark).expect("two are due");
        assert_eq!((round.files, round.has_new_names, round.is_whole), (vec!["one", "two"], true, false));
        commit.appended(id(1), Some("one"), false);
        assert!(commit.begin(mark).is_none(), "one is under way");
        assert_eq!(commit.end().len(), 2);
        let round = commit.begin(mark).expect("one is due");
        assert_eq!((round.files, round.has_new_names), (vec!["one"], false));
    }

    #[test]
    fn many_dumps_are_synced_as_a_whole() {
        let mut commit = GroupCommit::default();
        (0..=u32::try_from(FILES_PER_ROUND_MAX).unwrap())
            .for_each(|n| commit.appended(id(n), Some(n), false));
        let round = commit.begin(|_| Some(Mark::default())).expect("due");
        assert!(round.is_whole && round.files.is_empty());
        assert_eq!(commit.end().len(), FILES_PER_ROUND_MAX + 1);
    }

    /// A disk that keeps what was synced, and of the rest whatever it likes.
    #[derive(Debug, Default)]
    struct Disk {
        /// Numbers in the dump, as the page cache has them.
        cached: Vec<u64>,
        /// How many of them are safe.
        safe: usize,
        /// How many the sync under way will make safe.
        syncing: usize,
        /// A sync has failed: nothing more of this dump ever becomes safe, whatever a later one reports.
        is_broken: bool,
    }

    fn below(state: &mut u64, n: u64) -> u64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) % n
    }

    /// One session over its ledger and the group commit. After every step, whatever was acknowledged, or named in a
    /// greeting, would survive a power cut at that moment.
    fn play(seed: u64) -> u64 {
        let mut dice = seed;
        let mut next = 1;
        let (mut ledger, mut commit, mut disk) =
            (Ledger::default(), GroupCommit::<()>::default(), Disk::default());
        let (mut stored, mut acknowledged) = (0, 0);
        let mut gathered: Vec<(u64, String)> = Vec::new();
        let mut acknowledgements = 0;
        for _ in 0..2_000 {
            match below(&mut dice, 12) {
                0..4 => {
                    for _ in 0..below(&mut dice, 90) {
                        let line = format!("[\"t\",null,null,1700000000000,{next}]");
                        ledger.take(next, line.as_bytes(), gathered.last().map(|(_, line)| line.as_bytes()));
                        gathered.push((next, line));
                        next += 1;
                    }
                }
                4..7 => {
                    ledger.append(gathered.last().map(|(_, line)| line.as_bytes()));
                    if !gathered.is_empty() {
                        let is_new = disk.cached.is_empty();
                        commit.appended(id(1), Some(()), is_new);
                    }
                    disk.cached.extend(gathered.drain(..).map(|(number, _)| number));
                }
                7 | 8 => {
                    if commit.begin(|_| Some(ledger.mark())).is_some() {
                        disk.syncing = disk.cached.len();
                    }
                }
                9 | 10 => {
                    let fails = below(&mut dice, 15) == 0;
                    let was_broken = disk.is_broken;
                    for (_, mark) in commit.end() {
                        assert!(!was_broken, "seed {seed}: a broken dump was synced again");
                        if fails {
                            disk.is_broken = true;
                            ledger.forget_unsynced();
                            assert!(
                                ledger.durable()
                                    <= disk
                                        .cached
                                        .get(..disk.safe)
                                        .map_or(0, |all| all.last().copied().unwrap_or(stored))
                            );
                        } else {
                            disk.safe = disk.safe.max(disk.syncing);
                            ledger.make_durable(mark);
                        }
                    }
                    if disk.is_broken {
                        // A new part; the client brings again what it was not told is safe.
                        stored = stored.max(
                            disk.cached.get(..disk.safe).and_then(|all| all.last().copied()).unwrap_or(0),
                        );
                        (disk, commit) = (Disk::default(), GroupCommit::default());
                        gathered.clear();
                        next = acknowledged.max(ledger.durable()) + 1;
                    }
                }
                _ => {
                    // The power goes: of what is not safe the disk keeps a part, or nothing.
                    let rest = (disk.cached.len() - disk.safe) as u64;
                    let kept = usize::try_from(below(&mut dice, rest + 1)).unwrap();
                    disk.cached.truncate(disk.safe + kept);
                    disk.safe = 0;
                    let last = disk.cached.last().copied().unwrap_or(stored);
                    assert!(
                        last >= acknowledged,
                        "seed {seed}: {acknowledged} was acknowledged, {last} is left"
                    );
                    (ledger, commit) = (Ledger::recovered(last), GroupCommit::default());
                    ledger.doubt();
                    assert_eq!(ledger.durable(), 0, "it is not known what of it is safe");
                    commit.appended(id(1), Some(()), false);
                    // The disk still has it; a sync after the start makes it safe.
                    disk.safe = disk.cached.iter().take_while(|number| **number <= acknowledged).count();
                    gathered.clear();
                    next = last + 1;
                }
            }
            ledger.take_acknowledgements(below(&mut dice, 2) == 0, |number| {
                acknowledged = acknowledged.max(number);
                acknowledgements += 1;
            });
            acknowledged = acknowledged.max(ledger.durable());
            let safe = disk
                .cached
                .get(..disk.safe)
                .and_then(|all| all.last().copied())
                .unwrap_or(stored)
                .max(stored);
            assert!(acknowledged <= safe, "seed {seed}: {acknowledged} was acknowledged, {safe} is safe");
        }
        acknowledgements
    }

    #[test]
    fn nothing_is_acknowledged_that_a_power_cut_could_take() {
        let acknowledgements: u64 = (1..200).map(play).sum();
        assert!(acknowledgements > 1_000, "only {acknowledgements} acknowledgements");
    }
}
