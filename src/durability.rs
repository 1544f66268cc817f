//! `dump.durability = "power"`: what is acknowledged survives a power cut.
//!
//! Owns the group commit: which sessions were appended since the last sync, the sync that is under way, and the thread
//! that does it. A sync takes milliseconds, or seconds, and all that is appended meanwhile shares the next one; so the
//! loop never waits, and the number of syncs depends on the disk, not on the number of clients. [`GroupCommit`] is
//! pure; the thread knows descriptors only. What a result means for a session is the collector's business.
//!
//! After a failed sync the kernel may have marked the pages as clean although they never reached the disk, so a second
//! attempt would report a success that means nothing. It is therefore never repeated: the sessions of the failed round, and
//! those that were appended since it began, whose pages it may have been told about as well, fall back to what the last good
//! sync covered, their dumps are given to the workers, who read them (from memory, most likely) and write them anew elsewhere,
//! and their clients bring the rest again for a new part.
//! Where the file system, or the kernel, is not known to tell all failures of a sync of the whole, the dumps of the round are
//! synced one after the other instead: slower, and as good.
//! Bounds: one round under way, one gathered; `FILES_PER_ROUND_MAX` descriptors and a name per session each.
//! Rules: our contract, section 4.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use log::warn;
use rustix::fs::{Dir, OFlags, fdatasync, fsync, syncfs};
use rustix::io::Errno;

use crate::beneath::{self, Opened};
use crate::dump_folder::{DumpFolder, Folders, Place};
use crate::jobs::Wake;
use crate::logging::value;
use crate::reactor::slots::SlotId;
use crate::session::Mark;
use crate::whole_sync;

/// Dumps that are synced by the descriptors of their appends. Those beyond are synced by name, or with the whole file system,
/// which then is cheaper, and hold no descriptors.
const FILES_PER_ROUND_MAX: usize = 64;
/// Pause before a round is tried again that found no descriptor left to open a dump with.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

/// What one sync has to cover; `F` is an open dump.
#[derive(Debug)]
pub struct Round<F> {
    /// Dumps with new content.
    pub files: Vec<F>,
    /// Names of further ones.
    pub names: Vec<Arc<str>>,
    /// Whether the folder has new names.
    pub has_new_names: bool,
    /// Whether dumps that are finished are to be covered, too.
    pub covers_finished: bool,
}

impl<F> Default for Round<F> {
    fn default() -> Self {
        Self { files: Vec::new(), names: Vec::new(), has_new_names: false, covers_finished: false }
    }
}

/// Which sessions wait for which sync. Pure.
#[derive(Debug)]
pub struct GroupCommit<F> {
    gathered: Round<F>,
    /// Sessions with something that the next round will cover, and whether it has their dump.
    dirty: HashMap<SlotId, bool>,
    /// Sessions of the round that is under way, and how far it covers them.
    under_way: Option<Vec<(SlotId, Mark)>>,
}

impl<F> Default for GroupCommit<F> {
    fn default() -> Self {
        Self { gathered: Round::default(), dirty: HashMap::new(), under_way: None }
    }
}

impl<F> GroupCommit<F> {
    /// `session` was appended to its dump of this name, or found there, `file` when it is open; `is_new` when the name may
    /// never have been synced.
    pub fn appended(&mut self, session: SlotId, name: &Arc<str>, file: Option<F>, is_new: bool) {
        let round = &mut self.gathered;
        round.has_new_names |= is_new;
        if self.dirty.insert(session, true) == Some(true) {
            return;
        }
        match file {
            Some(file) if round.files.len() < FILES_PER_ROUND_MAX => round.files.push(file),
            Some(_) | None => round.names.push(Arc::clone(name)),
        }
    }

    /// `session` goes on where a dump ends that is finished.
    pub fn continues_finished(&mut self, session: SlotId) {
        self.dirty.entry(session).or_insert(false);
        self.gathered.covers_finished = true;
    }

    /// Begins the next round unless one is under way or there is nothing to cover. `mark` says how far a session is
    /// appended now: that, and nothing later, is what the round covers.
    pub fn begin(&mut self, mark: impl Fn(SlotId) -> Option<Mark>) -> Option<Round<F>> {
        if self.under_way.is_some() || self.dirty.is_empty() {
            return None;
        }
        let covered = self.dirty.drain().filter_map(|(session, _)| Some((session, mark(session)?))).collect();
        self.under_way = Some(covered);
        Some(std::mem::take(&mut self.gathered))
    }

    /// The round that was under way has ended well; what it has covered.
    pub fn end(&mut self) -> Vec<(SlotId, Mark)> {
        self.under_way.take().unwrap_or_default()
    }

    /// The round that was under way has failed. No later one can make up for it: of whatever was written and not covered
    /// by an earlier one nobody knows where it is. The sessions that this concerns, of which nothing is gathered any more.
    pub fn fail(&mut self) -> BTreeSet<SlotId> {
        self.gathered = Round::default();
        let under_way = self.end().into_iter().map(|(session, _)| session);
        under_way.chain(self.dirty.drain().map(|(session, _)| session)).collect()
    }
}

struct Order {
    round: Round<Arc<File>>,
    folders: Folders,
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
        let mut trust = Trust::ask(folder.folders().root, folder.path().to_owned())?;
        // One round is under way at most, so neither side ever waits for room.
        let (orders, work) = bounded::<Order>(1);
        let (report, results) = bounded(1);
        thread::Builder::new().name("durability".to_owned()).spawn(move || {
            while let Ok(order) = work.recv() {
                let Some(result) = carry_out(&order, &mut trust, &work) else { return };
                if report.send(result).is_err() {
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
        let order = Order { round, folders: self.folder.folders() };
        // The thread ends by a panic alone, of which there is no cause; then nothing is acknowledged any more.
        let _ = self.orders.try_send(order);
    }

    /// The result of the round under way, once there is one.
    pub fn result(&mut self) -> Option<io::Result<()>> {
        self.results.try_recv().ok()
    }
}

/// Whether `syncfs` is relied on in a dump folder: asked once for each, as the answer hangs on its device and the kernel.
#[derive(Debug)]
struct Trust {
    root: Place,
    path: PathBuf,
    is_trusted: bool,
}

impl Trust {
    fn ask(root: Place, path: PathBuf) -> io::Result<Self> {
        let is_trusted = whole_sync::is_trusted(&root)?;
        let trust = Self { root, path, is_trusted };
        trust.tell();
        Ok(trust)
    }

    /// Whether it is relied on in `root`, which is another folder than before when the last one was removed.
    fn holds_in(&mut self, root: &Place) -> bool {
        if !self.root.is_same(root) {
            // What cannot be asked is not trusted; that is no failure of anything that was written.
            self.is_trusted = whole_sync::is_trusted(root).unwrap_or(false);
            self.root = root.clone();
            self.tell();
        }
        self.is_trusted
    }

    fn tell(&self) {
        if !self.is_trusted {
            warn!(
                "durability.one_by_one path={}: not every failure of syncfs is told on this file system, or by this kernel, \
                 so many dumps at once are synced one by one",
                value(self.path.display())
            );
        }
    }
}

/// Syncs, and waits for descriptors when there are none to do it with; `None` when nobody waits for the result any more.
fn carry_out(order: &Order, trust: &mut Trust, work: &Receiver<Order>) -> Option<io::Result<()>> {
    loop {
        let is_trusted = trust.holds_in(&order.folders.root);
        match sync(order, is_trusted) {
            // No file was asked about what was written to it, so nothing has failed. No other order comes meanwhile.
            Err(cause) if is_shortage(&cause) => match work.recv_timeout(SHORTAGE_PAUSE) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(_) | Err(RecvTimeoutError::Disconnected) => return None,
            },
            result => return Some(result),
        }
    }
}

/// Whether it says that a file could not be opened for want of descriptors, which no sync says.
fn is_shortage(cause: &io::Error) -> bool {
    matches!(Errno::from_io_error(cause), Some(Errno::MFILE | Errno::NFILE))
}

fn sync(order: &Order, is_trusted: bool) -> io::Result<()> {
    if is_trusted && (!order.round.names.is_empty() || order.round.covers_finished) {
        return Ok(syncfs(&order.folders.root)?);
    }
    sync_one_by_one(order, &mut |_, file| Ok(fdatasync(file)?))
}

/// Contents first, then names: a name without content would be taken for a dump. `sync` is told the name of a dump that was
/// opened for it.
///
/// A failure that nobody was told of yet is told to a new descriptor as well, though the file was written by another one
/// (`fsync(2)`, since Linux 4.17).
fn sync_one_by_one(order: &Order, sync: &mut dyn FnMut(&str, &File) -> io::Result<()>) -> io::Result<()> {
    let Order { round, folders } = order;
    for file in &round.files {
        sync("", file)?;
    }
    for name in &round.names {
        sync_named(&folders.root, name, sync)?;
    }
    if round.covers_finished {
        for folder in [&folders.finished, &folders.quarantine] {
            sync_each(folder, sync)?;
        }
    }
    if round.has_new_names {
        fsync(&folders.root)?;
    }
    Ok(())
}

/// One that is not there was finished meanwhile, and nobody waits for it.
fn sync_named(
    folder: &Place,
    name: &str,
    sync: &mut dyn FnMut(&str, &File) -> io::Result<()>,
) -> io::Result<()> {
    match beneath::open_file(folder, name, OFlags::RDONLY)? {
        Opened::File(file, _) => sync(name, &file),
        Opened::Absent | Opened::NotAFile => Ok(()),
    }
}

/// Every dump in a folder of those that are over, and their names: which of them a session goes on from is not known. What
/// may not be opened is none of ours; a worker could do nothing with it either.
fn sync_each(folder: &Place, sync: &mut dyn FnMut(&str, &File) -> io::Result<()>) -> io::Result<()> {
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        match sync_named(folder, &entry.file_name().to_string_lossy(), sync) {
            Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied => {}
            result => result?,
        }
    }
    Ok(fsync(folder)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Ledger;

    fn id(index: u32) -> SlotId {
        SlotId { index, generation: 1 }
    }

    fn name(text: &str) -> Arc<str> {
        text.into()
    }

    #[test]
    fn a_round_covers_what_was_appended_before_it_began() {
        let mut commit = GroupCommit::default();
        let mark = |_| Some(Mark::default());
        assert!(commit.begin(mark).is_none(), "nothing to do");
        commit.appended(id(1), &name("a"), Some("one"), true);
        commit.appended(id(1), &name("a"), Some("one"), false);
        commit.appended(id(2), &name("b"), Some("two"), false);
        let round = commit.begin(mark).expect("two are due");
        assert_eq!((round.files, round.names.len(), round.has_new_names), (vec!["one", "two"], 0, true));
        commit.appended(id(1), &name("a"), Some("one"), false);
        assert!(commit.begin(mark).is_none(), "one is under way");
        assert_eq!(commit.end().len(), 2);
        let round = commit.begin(mark).expect("one is due");
        assert_eq!((round.files, round.has_new_names), (vec!["one"], false));
    }

    #[test]
    fn of_many_dumps_the_names_are_gathered() {
        let mut commit = GroupCommit::default();
        (0..=u32::try_from(FILES_PER_ROUND_MAX).unwrap())
            .for_each(|n| commit.appended(id(n), &name(&n.to_string()), Some(n), false));
        let round = commit.begin(|_| Some(Mark::default())).expect("due");
        assert_eq!((round.files.len(), round.names), (FILES_PER_ROUND_MAX, vec![name("64")]));
        assert_eq!(commit.end().len(), FILES_PER_ROUND_MAX + 1);
    }

    /// A session that goes on where a finished dump ends gets a dump of its own in the same round.
    #[test]
    fn a_new_dump_is_covered_beside_the_finished_one() {
        let mut commit = GroupCommit::default();
        commit.continues_finished(id(1));
        commit.appended(id(1), &name("a_1"), Some("one"), true);
        commit.continues_finished(id(1));
        commit.appended(id(1), &name("a_1"), Some("one"), false);
        let round = commit.begin(|_| Some(Mark::default())).expect("due");
        assert_eq!((round.files, round.covers_finished, round.has_new_names), (vec!["one"], true, true));
    }

    /// The kernel may have told of the failure of what was written since the round began, too.
    #[test]
    fn a_failed_round_takes_along_what_was_appended_since_it_began() {
        let mut commit = GroupCommit::default();
        let mark = |_| Some(Mark::default());
        commit.appended(id(1), &name("a"), Some("one"), true);
        commit.appended(id(2), &name("b"), Some("two"), true);
        commit.begin(mark).expect("due");
        commit.appended(id(2), &name("b"), Some("two"), false);
        commit.appended(id(3), &name("c"), Some("three"), true);
        assert!(commit.fail().into_iter().eq([id(1), id(2), id(3)]));
        assert!(commit.begin(mark).is_none(), "nothing of it is left");
        commit.appended(id(4), &name("d"), Some("four"), false);
        let round = commit.begin(mark).expect("due");
        assert_eq!((round.files, round.has_new_names), (vec!["four"], false));
    }

    /// What may hold entries of a session that goes on: its own dump by name, and any that is over. Nothing else in the
    /// folder is opened.
    #[test]
    fn one_by_one_only_what_is_asked_for_is_synced() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, _) = DumpFolder::open(dir.path()).unwrap();
        std::fs::write(dir.path().join("mine"), b"x").unwrap();
        std::fs::write(dir.path().join("finished/over"), b"x").unwrap();
        std::fs::write(dir.path().join("quarantine/died"), b"x").unwrap();
        std::fs::write(dir.path().join("foreign"), b"x").unwrap();
        let cases: [(&[&str], bool, &[&str]); 3] = [
            (&["mine", "gone"], false, &["mine"]),
            (&[], true, &["over", "died"]),
            (&["mine"], true, &["mine", "over", "died"]),
        ];
        for (names, covers_finished, expected) in cases {
            let names = names.iter().map(|text| name(text)).collect();
            let round = Round { names, covers_finished, ..Round::default() };
            let order = Order { round, folders: folder.folders() };
            let mut synced = Vec::new();
            sync_one_by_one(&order, &mut |name, _| {
                synced.push(name.to_owned());
                Ok(())
            })
            .unwrap();
            assert_eq!(synced, expected);
        }
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
        /// A sync has failed with something of this dump unwritten: nothing more of it ever becomes safe, whatever a later
        /// one reports.
        is_broken: bool,
    }

    impl Disk {
        fn last_safe(&self) -> Option<u64> {
            self.cached.get(..self.safe)?.last().copied()
        }
    }

    fn below(state: &mut u64, n: u64) -> u64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) % n
    }

    /// One session: its client's numbers, its ledger, its dump.
    #[derive(Debug)]
    struct Side {
        ledger: Ledger,
        disk: Disk,
        gathered: Vec<(u64, String)>,
        /// The client's next number.
        next: u64,
        /// What is safe in parts before this one.
        stored: u64,
        acknowledged: u64,
    }

    impl Side {
        fn new() -> Self {
            Self {
                ledger: Ledger::default(),
                disk: Disk::default(),
                gathered: Vec::new(),
                next: 1,
                stored: 0,
                acknowledged: 0,
            }
        }

        fn take(&mut self, count: u64) {
            for _ in 0..count {
                let line = format!("[\"t\",null,null,1700000000000,{}]", self.next);
                let previous = self.gathered.last().map(|(_, line)| line.as_bytes());
                self.ledger.take(self.next, line.as_bytes(), previous);
                self.gathered.push((self.next, line));
                self.next += 1;
            }
        }

        fn append(&mut self) {
            self.ledger.append(self.gathered.last().map(|(_, line)| line.as_bytes()));
            self.disk.cached.extend(self.gathered.drain(..).map(|(number, _)| number));
        }

        /// The session ends; its client brings again what it was not told is safe, for a new part.
        fn begin_new_part(&mut self) {
            self.ledger.forget_unsynced();
            let safe = self.disk.last_safe().unwrap_or(self.stored);
            assert!(self.ledger.durable() <= safe.max(self.stored));
            self.stored = self.stored.max(safe);
            self.disk = Disk::default();
            self.gathered.clear();
            self.next = self.acknowledged.max(self.ledger.durable()) + 1;
        }

        /// The power goes: of what is not safe the disk keeps a part, or nothing.
        fn lose_power(&mut self, dice: &mut u64, seed: u64) {
            let rest = (self.disk.cached.len() - self.disk.safe) as u64;
            let kept = usize::try_from(below(dice, rest + 1)).unwrap();
            self.disk.cached.truncate(self.disk.safe + kept);
            let last = self.disk.cached.last().copied().unwrap_or(self.stored);
            let acknowledged = self.acknowledged;
            assert!(last >= acknowledged, "seed {seed}: {acknowledged} was acknowledged, {last} is left");
            self.ledger = Ledger::recovered(last);
            self.ledger.doubt();
            assert_eq!(self.ledger.durable(), 0, "it is not known what of it is safe");
            // The disk still has it; a sync after the start makes it safe.
            let numbers = self.disk.cached.iter();
            self.disk.safe = numbers.take_while(|number| **number <= acknowledged).count();
            (self.disk.syncing, self.disk.is_broken) = (0, false);
            self.gathered.clear();
            self.next = last + 1;
        }
    }

    /// Two sessions over their ledgers and one group commit. After every step, whatever was acknowledged, or named in a
    /// greeting, would survive a power cut at that moment.
    fn play(seed: u64) -> u64 {
        let mut dice = seed;
        let mut sides = [Side::new(), Side::new()];
        let mut commit = GroupCommit::<()>::default();
        let mut acknowledgements = 0;
        for _ in 0..4_000 {
            let at = usize::try_from(below(&mut dice, 2)).unwrap();
            let key = id(u32::try_from(at).unwrap());
            match below(&mut dice, 12) {
                0..4 => sides[at].take(below(&mut dice, 90)),
                4..7 => {
                    if !sides[at].gathered.is_empty() {
                        let is_new = sides[at].disk.cached.is_empty();
                        commit.appended(key, &name("x"), Some(()), is_new);
                    }
                    sides[at].append();
                }
                7 | 8 => {
                    let marks = |key: SlotId| Some(sides[key.index as usize].ledger.mark());
                    if commit.begin(marks).is_some() {
                        sides.iter_mut().for_each(|side| side.disk.syncing = side.disk.cached.len());
                    }
                }
                9 | 10 if commit.under_way.is_none() => {}
                9 | 10 if below(&mut dice, 15) == 0 => {
                    // The whole file system was told of it, and keeps no page that it could not write.
                    for side in &mut sides {
                        side.disk.is_broken |= side.disk.safe < side.disk.cached.len();
                    }
                    commit.fail().into_iter().for_each(|key| sides[key.index as usize].begin_new_part());
                }
                9 | 10 => {
                    for side in sides.iter_mut().filter(|side| !side.disk.is_broken) {
                        side.disk.safe = side.disk.safe.max(side.disk.syncing);
                    }
                    for (key, mark) in commit.end() {
                        sides[key.index as usize].ledger.make_durable(mark);
                    }
                }
                _ => {
                    commit = GroupCommit::default();
                    for (side, index) in sides.iter_mut().zip(0..) {
                        side.lose_power(&mut dice, seed);
                        commit.appended(id(index), &name("x"), None, true);
                    }
                }
            }
            for side in &mut sides {
                let acknowledged = &mut side.acknowledged;
                side.ledger.take_acknowledgements(below(&mut dice, 2) == 0, |number| {
                    *acknowledged = number.max(*acknowledged);
                    acknowledgements += 1;
                });
                side.acknowledged = side.acknowledged.max(side.ledger.durable());
                let safe = side.disk.last_safe().unwrap_or(side.stored).max(side.stored);
                let acknowledged = side.acknowledged;
                assert!(acknowledged <= safe, "seed {seed}: {acknowledged} was acknowledged, {safe} is safe");
            }
        }
        acknowledgements
    }

    #[test]
    fn nothing_is_acknowledged_that_a_power_cut_could_take() {
        let acknowledgements: u64 = (1..200).map(play).sum();
        assert!(acknowledgements > 1_000, "only {acknowledgements} acknowledgements");
    }
}
