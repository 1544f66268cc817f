//! What is in the archive, and removing it.
//!
//! Owns which names in it are ours: folders of days; in them `<name>.gz` and `<name>.json` of any name that a dump can have,
//! our stale temporary files and `records/<table>.jsonl`. Only regular files of these names are counted and removed, whoever
//! wrote them. Everything else, links above all, is told to the [`Attendant`] and left alone, and so is a folder that holds
//! such a thing. No link is followed out of the root.
//! Decides nothing: what goes, and when, is up to the caller (`retention`).
//!
//! Of a dump the `.gz` goes first: what a crash leaves is then a document without its dump, which is what a crash before a
//! commit leaves, too. A name that a worker is filling is passed over, and so are the tables and the folder of a day in
//! which a job is at work, or of which a dump is left. Tables lose their names while no job can get at them, and their bytes
//! afterwards: that takes time.
//! Rules: our contract, section 3.

use std::collections::{BTreeMap, BinaryHeap};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{Dir, Stat};

use super::day::Day;
use super::{Archive, ArchiveError, Claim, DayFolder, TABLES, TEMPORARY_PREFIX, TEMPORARY_SUFFIX};
use crate::beneath;
use crate::dump_folder::{self, is_dump_name};
use crate::records::Table;

/// Days that are known at most, a hundred years. Later ones are not looked at.
const DAYS_MAX: usize = 36_600;
/// Dumps of which name and age are held at most while the oldest of a day are removed: about 1 MB.
const OLDEST_MAX: usize = 4096;
/// Failures after which the rest of a folder is left for the next time: it would fail likewise.
const FAILURES_MAX: u32 = 16;

/// Who asked, and is told on the way.
pub trait Attendant {
    /// One more thing was looked at or removed. May take its time. `false`: stop here.
    fn goes_on(&mut self) -> bool;

    /// Something that is not ours is there. `path` starts at the archive.
    fn foreign(&mut self, path: &str);

    /// Something could not be looked at or removed.
    fn failed(&mut self, error: ArchiveError);
}

/// The archive, open.
#[derive(Debug)]
pub struct Contents<'a> {
    archive: &'a Archive,
    root: OwnedFd,
}

/// When a day's folder was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// A name in it was added or removed.
    pub modified: SystemTime,
    /// The same, or something about the folder; nobody can set this time.
    pub changed: SystemTime,
}

/// What was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Freed {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What a name in a day's folder stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind<'a> {
    /// A compressed dump; without its ending.
    Packed(&'a str),
    /// A document; without its ending.
    Document(&'a str),
    Temporary,
    Tables,
    Foreign,
}

impl<'a> Kind<'a> {
    fn of(name: &'a str) -> Self {
        let dump = |suffix| name.strip_suffix(suffix).filter(|dump| is_dump_name(dump));
        if let Some(dump) = dump(".gz") {
            Self::Packed(dump)
        } else if let Some(dump) = dump(".json") {
            Self::Document(dump)
        } else if name.starts_with(TEMPORARY_PREFIX) && name.ends_with(TEMPORARY_SUFFIX) {
            Self::Temporary
        } else if name == TABLES {
            Self::Tables
        } else {
            Self::Foreign
        }
    }
}

impl Archive {
    /// Opens what there is; `None` when there is no archive.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn contents(&self) -> Result<Option<Contents<'_>>, ArchiveError> {
        let fail = |source| ArchiveError::Io { action: "open the archive", path: self.path.clone(), source };
        let root = beneath::find_root(&self.path).map_err(fail)?;
        Ok(root.map(|root| Contents { archive: self, root }))
    }
}

impl Contents<'_> {
    /// The days that have a folder. Not all of them when the attendant stops it.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn days(&self, attendant: &mut impl Attendant) -> Result<BTreeMap<Day, Stamp>, ArchiveError> {
        let mut days = BTreeMap::new();
        walk(&self.root, &self.archive.path, attendant, |attendant, name, stat| {
            match Day::parse(name).filter(|_| beneath::is_folder(stat)) {
                Some(day) => {
                    days.insert(day, Stamp::of(stat));
                    if days.len() > DAYS_MAX {
                        days.pop_last();
                    }
                }
                None => attendant.foreign(name),
            }
            Ok(())
        })?;
        Ok(days)
    }

    /// Bytes of our files in `day`, tables included. `None` when they were not all looked at.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn measure(&self, day: Day, attendant: &mut impl Attendant) -> Result<Option<u64>, ArchiveError> {
        let Some(folder) = self.find(day)? else { return Ok(Some(0)) };
        let mut sum = 0;
        let files = walk_day(&folder, attendant, |_, _, stat| {
            sum += size_of(stat);
            Ok(())
        })?;
        let tables = walk_tables(&folder, attendant, |_, _, stat| {
            sum += size_of(stat);
            Ok(())
        })?;
        Ok((files == Walked::Whole && tables == Walked::Whole).then_some(sum))
    }

    /// Removes everything of ours in `day`, and its folder when nothing else is in it: `true` when that is gone.
    /// `on_tables` is called before its tables go.
    ///
    /// # Errors
    /// Whatever the file system says. What was removed before counts in `freed`.
    pub fn remove_day(
        &self,
        day: Day,
        freed: &mut Freed,
        on_tables: impl FnOnce(),
        attendant: &mut impl Attendant,
    ) -> Result<bool, ArchiveError> {
        let Some(folder) = self.find(day)? else { return Ok(true) };
        let (mut has_temporaries, mut is_left) = (false, false);
        let files = walk_day(&folder, attendant, |_, kind, _| {
            match kind {
                Kind::Packed(dump) | Kind::Document(dump) => {
                    is_left |= !self.remove_dump(&folder, dump, freed)?;
                }
                Kind::Temporary => has_temporaries = true,
                Kind::Tables | Kind::Foreign => {}
            }
            Ok(())
        })?;
        if files != Walked::Whole || is_left {
            return Ok(false);
        }
        // Told before, because nobody should have to wait for it.
        walk_tables(&folder, attendant, |_, _, _| Ok(()))?;
        // Nobody gets the folder while its tables lose their names, so no rows are appended to one that has none.
        let taken = self.archive.retire(day, || {
            if has_temporaries {
                // Only now: a job of ours creates its file first and locks it then.
                folder.remove_stale();
            }
            on_tables();
            take_tables(&folder)
        });
        let Some(taken) = taken.transpose()? else { return Ok(false) };
        for name in taken {
            if !attendant.goes_on() {
                return Ok(false);
            }
            remove_file(&folder, &name, freed)?;
        }
        let removed = self.archive.retire(day, || beneath::remove_folder(&self.root, &day.to_string()));
        removed.unwrap_or(Ok(false)).map_err(|source| folder.fail("remove", ".", source))
    }

    /// Removes the oldest dumps of `day`, by the times of their `.gz`, until so many bytes are freed or none is left.
    ///
    /// # Errors
    /// Whatever the file system says. What was removed before counts in `freed`.
    pub fn remove_oldest(
        &self,
        day: Day,
        bytes: u64,
        freed: &mut Freed,
        attendant: &mut impl Attendant,
    ) -> Result<(), ArchiveError> {
        let Some(folder) = self.find(day)? else { return Ok(()) };
        let mut failures = 0;
        loop {
            let before = *freed;
            for (_, dump) in oldest(&folder, attendant)? {
                if freed.bytes >= bytes || failures >= FAILURES_MAX || !attendant.goes_on() {
                    return Ok(());
                }
                if let Err(error) = self.remove_dump(&folder, &dump, freed) {
                    attendant.failed(error);
                    failures += 1;
                }
            }
            if *freed == before {
                return Ok(());
            }
        }
    }

    fn find(&self, day: Day) -> Result<Option<DayFolder>, ArchiveError> {
        let name = day.to_string();
        let path = self.archive.path.join(&name);
        match beneath::find_folder(&self.root, &name) {
            Ok(folder) => Ok(folder.map(|folder| DayFolder { day, path, folder })),
            Err(source) => Err(ArchiveError::Io { action: "open the folder", path, source }),
        }
    }

    /// Removes a dump and its document. `false`, and both stay, while a worker is filling that name.
    fn remove_dump(&self, folder: &DayFolder, dump: &str, freed: &mut Freed) -> Result<bool, ArchiveError> {
        let Some(_claim) = Claim::new(&self.archive.claims, folder.day, dump.to_owned()) else {
            return Ok(false);
        };
        for name in [format!("{dump}.gz"), format!("{dump}.json")] {
            remove_file(folder, &name, freed)?;
        }
        Ok(true)
    }
}

/// Removes a regular file; what is anything else, or not there, stays.
fn remove_file(folder: &DayFolder, name: &str, freed: &mut Freed) -> Result<(), ArchiveError> {
    let fail = |source| folder.fail("remove", name, source);
    let Some(stat) = beneath::look(folder, name).map_err(fail)?.filter(beneath::is_regular) else {
        return Ok(());
    };
    if beneath::remove(folder, name).map_err(fail)? {
        freed.files += 1;
        freed.bytes += size_of(&stat);
    }
    Ok(())
}

/// Renames the tables of a day to temporary files, which a crash leaves to be removed, and removes their folder when nothing
/// else is in it. Gives the new names.
fn take_tables(folder: &DayFolder) -> Result<Vec<String>, ArchiveError> {
    let Some(tables) = open_tables(folder)? else { return Ok(Vec::new()) };
    let mut taken = Vec::new();
    for table in Table::ALL {
        let fail = |source| folder.fail("take away the table", table.name(), source);
        let name = format!("{}.jsonl", table.name());
        if beneath::look(&tables, &name).map_err(fail)?.is_some_and(|stat| beneath::is_regular(&stat)) {
            let temporary = format!("{TEMPORARY_PREFIX}{}{TEMPORARY_SUFFIX}", table.name());
            rustix::fs::renameat(&tables, &name, &folder.folder, &temporary)
                .map_err(|errno| fail(errno.into()))?;
            taken.push(temporary);
        }
    }
    let removed = beneath::remove_folder(&folder.folder, TABLES);
    removed.map(|_| taken).map_err(|source| folder.fail("remove", TABLES, source))
}

/// `None` when there is none, or something else has its name.
fn open_tables(folder: &DayFolder) -> Result<Option<OwnedFd>, ArchiveError> {
    let fail = |source| folder.fail("open", TABLES, source);
    match beneath::look(&folder.folder, TABLES).map_err(fail)? {
        Some(stat) if beneath::is_folder(&stat) => beneath::find_folder(&folder.folder, TABLES).map_err(fail),
        Some(_) | None => Ok(None),
    }
}

/// The oldest dumps of a day, oldest first, at most [`OLDEST_MAX`].
fn oldest(
    folder: &DayFolder,
    attendant: &mut impl Attendant,
) -> Result<Vec<(SystemTime, String)>, ArchiveError> {
    let mut oldest = BinaryHeap::new();
    walk_day(folder, attendant, |_, kind, stat| {
        if let Kind::Packed(dump) = kind {
            oldest.push((Stamp::of(stat).modified, dump.to_owned()));
            if oldest.len() > OLDEST_MAX {
                // The youngest of them.
                oldest.pop();
            }
        }
        Ok(())
    })?;
    Ok(oldest.into_sorted_vec())
}

/// How a walk through a folder ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Walked {
    /// Everything was looked at.
    Whole,
    /// Everything but what has failed.
    Flawed,
    /// The rest was left, because the attendant wanted it or too much has failed.
    Stopped,
}

/// Calls `each` for every file of ours in a day's folder.
fn walk_day<A: Attendant>(
    folder: &DayFolder,
    attendant: &mut A,
    mut each: impl FnMut(&str, Kind<'_>, &Stat) -> Result<(), ArchiveError>,
) -> Result<Walked, ArchiveError> {
    walk(&folder.folder, &folder.path, attendant, |attendant, name, stat| {
        let kind = Kind::of(name);
        let is_ours = match kind {
            Kind::Packed(_) | Kind::Document(_) | Kind::Temporary => beneath::is_regular(stat),
            Kind::Tables => beneath::is_folder(stat),
            Kind::Foreign => false,
        };
        match kind {
            _ if !is_ours => attendant.foreign(&format!("{}/{name}", folder.day)),
            Kind::Tables | Kind::Foreign => {}
            Kind::Packed(_) | Kind::Document(_) | Kind::Temporary => return each(name, kind, stat),
        }
        Ok(())
    })
}

/// Calls `each` with the folder of tables for every table of a day.
fn walk_tables<A: Attendant>(
    folder: &DayFolder,
    attendant: &mut A,
    mut each: impl FnMut(&OwnedFd, &str, &Stat) -> Result<(), ArchiveError>,
) -> Result<Walked, ArchiveError> {
    let Some(tables) = open_tables(folder)? else { return Ok(Walked::Whole) };
    walk(&tables, &folder.path.join(TABLES), attendant, |attendant, name, stat| {
        let table = name.strip_suffix(".jsonl");
        let is_table = table.is_some_and(|table| Table::ALL.iter().any(|known| known.name() == table));
        if is_table && beneath::is_regular(stat) {
            return each(&tables, name, stat);
        }
        attendant.foreign(&format!("{}/{TABLES}/{name}", folder.day));
        Ok(())
    })
}

/// Calls `each` for everything in a folder, links not followed. Errors of `each` are told, and the walk goes on.
fn walk<A: Attendant>(
    folder: &OwnedFd,
    path: &Path,
    attendant: &mut A,
    mut each: impl FnMut(&mut A, &str, &Stat) -> Result<(), ArchiveError>,
) -> Result<Walked, ArchiveError> {
    let fail = |source: io::Error| ArchiveError::Io { action: "list", path: path.to_owned(), source };
    let mut failures = 0;
    for entry in Dir::read_from(folder).map_err(|error| fail(error.into()))? {
        let entry = entry.map_err(|error| fail(error.into()))?;
        let name = entry.file_name().to_string_lossy();
        if matches!(name.as_ref(), "." | "..") {
            continue;
        }
        if !attendant.goes_on() {
            return Ok(Walked::Stopped);
        }
        let looked = match beneath::look(folder, &name) {
            Ok(Some(stat)) => each(attendant, &name, &stat),
            Ok(None) if entry.file_name().to_str().is_err() => {
                attendant.foreign(&name);
                Ok(())
            }
            // Removed meanwhile, perhaps by us with its dump.
            Ok(None) => Ok(()),
            Err(source) => {
                Err(ArchiveError::Io { action: "look at", path: path.join(name.as_ref()), source })
            }
        };
        if let Err(error) = looked {
            attendant.failed(error);
            failures += 1;
            if failures >= FAILURES_MAX {
                return Ok(Walked::Stopped);
            }
        }
    }
    Ok(if failures == 0 { Walked::Whole } else { Walked::Flawed })
}

impl Stamp {
    fn of(stat: &Stat) -> Self {
        let changed = u64::try_from(stat.st_ctime).ok().map(Duration::from_secs);
        let changed = changed.and_then(|since_1970| SystemTime::UNIX_EPOCH.checked_add(since_1970));
        Self {
            modified: dump_folder::modified(stat).unwrap_or(SystemTime::UNIX_EPOCH),
            changed: changed.unwrap_or(SystemTime::UNIX_EPOCH),
        }
    }
}

fn size_of(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::gzip::{Content, Gzip};
    use crate::archive::{Place, Search};
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    const DAY: &str = "2023-11-14";

    #[derive(Default)]
    struct Witness {
        foreign: Vec<String>,
        failures: u32,
        /// Things after which it wants to stop.
        patience: Option<u32>,
    }

    impl Attendant for Witness {
        fn goes_on(&mut self) -> bool {
            self.patience = self.patience.map(|left| left.saturating_sub(1));
            self.patience != Some(0)
        }

        fn foreign(&mut self, path: &str) {
            self.foreign.push(path.to_owned());
            self.foreign.sort();
        }

        fn failed(&mut self, _: ArchiveError) {
            self.failures += 1;
        }
    }

    struct Fixture {
        dir: tempfile::TempDir,
        archive: Archive,
        witness: Witness,
    }

    fn fixture() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let archive = Archive::new(&dir.path().join("archive"));
        fs::create_dir_all(dir.path().join("archive").join(DAY).join(TABLES)).unwrap();
        Fixture { dir, archive, witness: Witness::default() }
    }

    fn day() -> Day {
        Day::parse(DAY).unwrap()
    }

    impl Fixture {
        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join("archive").join(DAY).join(name)
        }

        /// A file of `bytes` bytes that was written `age_s` seconds after 1970.
        fn write(&self, name: &str, bytes: usize, written_s: u64) {
            fs::write(self.path(name), vec![b'x'; bytes]).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(written_s);
            fs::File::options().write(true).open(self.path(name)).unwrap().set_modified(time).unwrap();
        }

        fn dump(&self, name: &str, written_s: u64) {
            self.write(&format!("{name}.gz"), 10, written_s);
            self.write(&format!("{name}.json"), 5, written_s);
        }

        fn measure(&mut self) -> Option<u64> {
            let contents = self.archive.contents().unwrap().unwrap();
            contents.measure(day(), &mut self.witness).unwrap()
        }

        fn remove(&mut self) -> (Freed, bool) {
            let contents = self.archive.contents().unwrap().unwrap();
            let mut freed = Freed::default();
            let is_gone = contents.remove_day(day(), &mut freed, || (), &mut self.witness).unwrap();
            (freed, is_gone)
        }

        fn remove_oldest(&mut self, bytes: u64) -> Freed {
            let contents = self.archive.contents().unwrap().unwrap();
            let mut freed = Freed::default();
            contents.remove_oldest(day(), bytes, &mut freed, &mut self.witness).unwrap();
            freed
        }

        fn names(&self) -> Vec<String> {
            let mut names = Vec::new();
            let mut folders = vec![PathBuf::new()];
            while let Some(folder) = folders.pop() {
                let Ok(entries) = fs::read_dir(self.path("").join(&folder)) else { continue };
                for entry in entries {
                    let entry = entry.unwrap();
                    let name = folder.join(entry.file_name());
                    if entry.file_type().unwrap().is_dir() {
                        folders.push(name.clone());
                    }
                    names.push(name.to_str().unwrap().to_owned());
                }
            }
            names.sort();
            names
        }
    }

    #[test]
    fn names_of_ours() {
        for (name, expected) in [
            ("a.gz", Kind::Packed("a")),
            ("9c93-a_1.json", Kind::Document("9c93-a_1")),
            (".rtcstats-12-3.tmp", Kind::Temporary),
            ("records", Kind::Tables),
            (".gz", Kind::Foreign),
            ("a b.gz", Kind::Foreign),
            ("a.b.json", Kind::Foreign),
            ("a.jsonl", Kind::Foreign),
            ("a.gz.bak", Kind::Foreign),
            ("a", Kind::Foreign),
            ("Records", Kind::Foreign),
            (".rtcstats-12-3.tmp~", Kind::Foreign),
        ] {
            assert_eq!(Kind::of(name), expected, "{name}");
        }
    }

    #[test]
    fn a_day_goes_with_its_tables_and_folder() {
        let mut fixture = fixture();
        fixture.dump("a", 1);
        fixture.dump("b", 2);
        fixture.write("records/rtcstats.jsonl", 100, 1);
        fixture.write(".rtcstats-1-1.tmp", 7, 1);
        assert_eq!(fixture.measure(), Some(137));
        // Nobody holds the temporary file.
        assert_eq!(fixture.remove(), (Freed { files: 5, bytes: 130 }, true));
        assert!(!fixture.path("").exists());
        assert_eq!(fixture.remove(), (Freed::default(), true), "there is nothing left to do");
        assert_eq!(fixture.measure(), Some(0));
        assert_eq!((fixture.witness.foreign.len(), fixture.witness.failures), (0, 0));
        fs::remove_dir(fixture.dir.path().join("archive")).unwrap();
        assert!(fixture.archive.contents().unwrap().is_none());
    }

    #[test]
    fn what_is_not_ours_stays_and_is_told() {
        let mut fixture = fixture();
        let elsewhere = tempfile::tempdir().unwrap();
        let precious = elsewhere.path().join("precious.gz");
        fs::write(&precious, "x").unwrap();
        fixture.dump("a", 1);
        fs::write(fixture.path("notes.txt"), "x").unwrap();
        fs::write(fixture.path("records/export.csv"), "x").unwrap();
        fixture.write("records/rtcstats_e2e_ping.jsonl", 3, 1);
        symlink(&precious, fixture.path("link.gz")).unwrap();
        symlink(&precious, fixture.path("records/rtcstats.jsonl")).unwrap();
        fs::create_dir_all(fixture.path("folder.json")).unwrap();
        fs::create_dir_all(fixture.path("folder.gz/sub.gz")).unwrap();
        let stays = [
            "folder.gz",
            "folder.gz/sub.gz",
            "folder.json",
            "link.gz",
            "notes.txt",
            "records",
            "records/export.csv",
            "records/rtcstats.jsonl",
        ];
        let told = [
            "folder.gz",
            "folder.json",
            "link.gz",
            "notes.txt",
            "records/export.csv",
            "records/rtcstats.jsonl",
        ];
        let told = told.map(|name| format!("{DAY}/{name}"));
        assert_eq!(fixture.measure(), Some(18));
        assert_eq!(fixture.witness.foreign, told);
        fixture.witness.foreign.clear();
        assert_eq!(fixture.remove_oldest(1000), Freed { files: 2, bytes: 15 });
        fixture.witness.foreign.clear();
        assert_eq!(fixture.remove(), (Freed { files: 1, bytes: 3 }, false));
        assert_eq!(fixture.names(), stays);
        assert_eq!(fixture.witness.foreign, told);
        assert!(precious.exists());
        assert_eq!(fixture.witness.failures, 0);
    }

    #[test]
    fn only_real_folders_named_like_days_are_days() {
        let fixture = fixture();
        let root = fixture.dir.path().join("archive");
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("a.gz"), "x").unwrap();
        symlink(elsewhere.path(), root.join("2023-11-13")).unwrap();
        fs::write(root.join("2023-11-12"), "x").unwrap();
        fs::create_dir(root.join("lost+found")).unwrap();
        let mut witness = Witness::default();
        let contents = fixture.archive.contents().unwrap().unwrap();
        let days = contents.days(&mut witness).unwrap();
        assert_eq!(days.into_keys().collect::<Vec<_>>(), [day()]);
        assert_eq!(witness.foreign, ["2023-11-12", "2023-11-13", "lost+found"]);
        // Should a link have come between listing and removing.
        let linked = Day::parse("2023-11-13").unwrap();
        let mut freed = Freed::default();
        contents.remove_day(linked, &mut freed, || (), &mut witness).unwrap_err();
        contents.measure(linked, &mut witness).unwrap_err();
        assert!(elsewhere.path().join("a.gz").exists());
        assert_eq!(freed, Freed::default());
    }

    #[test]
    fn the_oldest_dumps_of_a_day_go_first() {
        let mut fixture = fixture();
        for (name, written_s) in [("c", 30), ("a", 10), ("d", 40), ("b", 20)] {
            fixture.dump(name, written_s);
        }
        fixture.write("records/rtcstats.jsonl", 100, 1);
        assert_eq!(fixture.remove_oldest(16), Freed { files: 4, bytes: 30 }, "whole dumps");
        assert_eq!(
            fixture.names(),
            ["c.gz", "c.json", "d.gz", "d.json", "records", "records/rtcstats.jsonl"]
        );
        assert_eq!(fixture.remove_oldest(1000), Freed { files: 4, bytes: 30 });
        assert_eq!(fixture.names(), ["records", "records/rtcstats.jsonl"], "tables stay with their day");
        assert_eq!(fixture.measure(), Some(100));
    }

    #[test]
    fn more_dumps_than_are_held_at_once() {
        let mut fixture = fixture();
        let count = OLDEST_MAX as u64 * 2 + 10;
        for number in 0..count {
            fixture.write(&format!("{number}.gz"), 1, 1_000_000 - number);
        }
        assert_eq!(fixture.remove_oldest(count - 3), Freed { files: count - 3, bytes: count - 3 });
        assert_eq!(fixture.names(), ["0.gz", "1.gz", "2.gz", "records"]);
    }

    #[test]
    fn a_name_that_is_being_filled_is_passed_over() {
        let mut fixture = fixture();
        let folder = fixture.archive.day(day()).unwrap();
        let content = Content::of_trailer([1, 2, 3, 4, 5, 0, 0, 0]);
        let place = fixture.archive.place(&folder, "x", "x", content, Search::FreeName).unwrap();
        let Place::Free(slot) = place else { panic!("{place:?}") };
        let mut document = slot.write_document(&fixture.archive, b"{}").unwrap();
        slot.publish_document(&mut document).unwrap();
        let packed = fixture.archive.temporary(&folder).unwrap();
        fixture.dump("y", 1);
        drop((document, folder));
        // The slot holds its day, so neither the document nor the folder goes; the temporary file is somebody's.
        assert_eq!(fixture.remove(), (Freed { files: 2, bytes: 15 }, false));
        assert_eq!(fixture.names(), [packed.name.as_str(), "records", "x.json"]);
        drop(packed);
        assert_eq!(fixture.remove(), (Freed::default(), false));
        drop(slot);
        assert_eq!(fixture.remove(), (Freed { files: 1, bytes: 2 }, true));
        let folder = fixture.archive.day(day()).unwrap();
        assert!(fixture.path("").exists(), "the next job gets a new folder");
        fixture.archive.temporary(&folder).unwrap();
    }

    /// Archives a dump as a worker does.
    fn store(archive: &Archive, name: &str) -> Result<(), ArchiveError> {
        let folder = archive.day(day())?;
        let mut packed = archive.temporary(&folder)?;
        let mut gzip = Gzip::new(1);
        gzip.begin();
        gzip.feed(name.as_bytes(), &mut packed).unwrap();
        let content = gzip.end(&mut packed).unwrap();
        let Place::Free(slot) = archive.place(&folder, name, name, content, Search::FreeName)? else {
            panic!("{name} is there already")
        };
        slot.publish_document(&mut slot.write_document(archive, b"{}")?)?;
        slot.commit(&mut packed)
    }

    /// No job fails because its day is removed at the same time, and nothing of what it stores is half removed.
    #[test]
    fn a_day_that_is_removed_again_and_again_can_be_archived_to() {
        const ROUNDS: u64 = 30;
        const DUMPS: u64 = 10;
        let mut fixture = fixture();
        let mut freed = Freed::default();
        for _ in 0..ROUNDS {
            let archive = &fixture.archive;
            std::thread::scope(|scope| {
                let workers = ["a", "b"].map(|worker| {
                    scope.spawn(move || {
                        (0..DUMPS).try_for_each(|number| store(archive, &format!("{worker}{number}")))
                    })
                });
                while !workers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                    let contents = archive.contents().unwrap().unwrap();
                    contents.remove_day(day(), &mut freed, || (), &mut fixture.witness).unwrap();
                }
                for worker in workers {
                    worker.join().unwrap().unwrap();
                }
            });
            let (left, is_gone) = fixture.remove();
            assert!(is_gone, "nobody is at work");
            freed.files += left.files;
        }
        assert_eq!(freed.files, ROUNDS * 2 * 2 * DUMPS);
        assert_eq!((fixture.witness.failures, fixture.witness.foreign.len()), (0, 0));
    }

    #[test]
    fn a_stop_leaves_whole_dumps() {
        let mut fixture = fixture();
        for number in 0..10 {
            fixture.dump(&number.to_string(), number);
        }
        fixture.witness.patience = Some(8);
        assert!(!fixture.remove().1);
        fixture.witness.patience = Some(2);
        fixture.remove_oldest(1000);
        let names = fixture.names();
        assert!(names.len() > 2, "{names:?}");
        for name in names.iter().filter_map(|name| name.strip_suffix(".gz")) {
            assert!(names.contains(&format!("{name}.json")), "{names:?}");
        }
        fixture.witness.patience = Some(3);
        assert_eq!(fixture.measure(), None);
    }

    /// A day of which a dump has to stay keeps its tables.
    #[test]
    fn tables_stay_with_a_dump_that_stays() {
        let mut fixture = fixture();
        fixture.dump("a", 1);
        fixture.dump("b", 2);
        fixture.write("records/rtcstats.jsonl", 100, 1);
        let claim = Claim::new(&fixture.archive.claims, day(), "a".to_owned()).unwrap();
        assert_eq!(fixture.remove(), (Freed { files: 2, bytes: 15 }, false));
        assert_eq!(fixture.names(), ["a.gz", "a.json", "records", "records/rtcstats.jsonl"]);
        drop(claim);
        assert_eq!(fixture.remove(), (Freed { files: 3, bytes: 115 }, true));
    }

    /// The oldest one stays, and the next ones go in its place.
    #[test]
    fn a_dump_that_cannot_be_removed_does_not_hold_up_the_others() {
        let mut fixture = fixture();
        for (name, written_s) in [("a", 1), ("b", 2), ("c", 3)] {
            fixture.dump(name, written_s);
        }
        let stuck = fixture.path("a.gz");
        let change = |flag| std::process::Command::new("chattr").arg(flag).arg(&stuck).status();
        if !change("+i").is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED: this user, or this file system, cannot make a file immutable");
            return;
        }
        let freed = fixture.remove_oldest(15);
        change("-i").unwrap();
        assert_eq!((freed, fixture.witness.failures), (Freed { files: 2, bytes: 15 }, 1));
        assert_eq!(fixture.names(), ["a.gz", "a.json", "c.gz", "c.json", "records"]);
    }

    /// What a crash leaves after the tables have lost their names.
    #[test]
    fn tables_that_were_taken_away_go_with_the_next_try() {
        let mut fixture = fixture();
        fixture.write("records/rtcstats.jsonl", 100, 1);
        let contents = fixture.archive.contents().unwrap().unwrap();
        let folder = contents.find(day()).unwrap().unwrap();
        assert_eq!(take_tables(&folder).unwrap(), [".rtcstats-rtcstats.tmp"]);
        assert_eq!(fixture.names(), [".rtcstats-rtcstats.tmp"]);
        assert_eq!(fixture.measure(), Some(100));
        assert!(fixture.remove().1);
        assert!(!fixture.path("").exists());
    }

    /// Against the real file system: `tests/server/retention.rs`.
    #[test]
    fn failures_are_told_and_too_many_end_it() {
        let mut fixture = fixture();
        fixture.dump("a", 1);
        fs::remove_dir(fixture.path(TABLES)).unwrap();
        let contents = fixture.archive.contents().unwrap().unwrap();
        let folder = contents.find(day()).unwrap().unwrap();
        let walked = walk(&folder.folder, &folder.path, &mut fixture.witness, |_, name, _| {
            Err(folder.fail("remove", name, io::ErrorKind::PermissionDenied.into()))
        });
        assert_eq!((walked.unwrap(), fixture.witness.failures), (Walked::Flawed, 2));
        for number in 0..50 {
            fixture.dump(&number.to_string(), number);
        }
        let folder = contents.find(day()).unwrap().unwrap();
        let walked = walk(&folder.folder, &folder.path, &mut fixture.witness, |_, name, _| {
            Err(folder.fail("remove", name, io::ErrorKind::PermissionDenied.into()))
        });
        assert_eq!((walked.unwrap(), fixture.witness.failures), (Walked::Stopped, 2 + FAILURES_MAX));
    }
}
