//! The records tables: `<archive.path>/<day>/records/<table>.jsonl`, one row per line.
//!
//! Owns the open tables behind one lock, so that rows of two dumps never mix, and the rules that keep a table whole: one
//! write per table for all that is appended at a time (ours: the rows of a whole batch of dumps, where the contract has one
//! for each dump), a failed one is truncated back, a torn tail is cut when a table is opened. Never knows what is in a row
//! but its id.
//! Rules: our contract, sections 3 and 6. Rows of a dump that was begun before are looked up by their ids first.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use log::warn;

use crate::archive::day::Day;
use crate::archive::{DayFolder, TABLES};
use crate::beneath;
use crate::logging::value;
use crate::records::Rows;

/// Tables that are kept open: six a day, and leftovers may be of some days.
const OPEN_TABLES_MAX: usize = 32;
/// How the member that holds a row's id begins. Inside a string its quotes would be escaped.
const ID_MEMBER: &[u8] = br#""id":""#;
/// Longest id of a row: the column has 128 characters.
const ID_BYTES_MAX: usize = 256;
/// Bytes of a table that are searched in one go.
const SEARCH_BYTES: usize = 256 * 1024;

/// Whether rows of this dump may be in the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// Its job never got this far.
    Nothing,
    /// Its job may have been interrupted: every row is looked up before it is appended.
    Perhaps,
}

/// Why rows could not be stored.
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot {action}", path.display())]
pub struct RecordsError {
    /// What was tried.
    pub action: &'static str,
    /// On what.
    pub path: PathBuf,
    /// The cause.
    pub source: io::Error,
}

/// Tables that were appended to and may not be on the device yet.
#[derive(Debug, Default)]
pub struct Unsynced(Vec<(Arc<File>, PathBuf)>);

impl Unsynced {
    fn add(&mut self, table: &Table) {
        if !self.0.iter().any(|(file, _)| Arc::ptr_eq(file, &table.file)) {
            self.0.push((Arc::clone(&table.file), table.path.clone()));
        }
    }

    /// The tables.
    pub fn files(&self) -> impl Iterator<Item = &File> {
        self.0.iter().map(|(file, _)| file.as_ref())
    }

    /// Waits until everything is on the device.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn sync(self) -> Result<(), RecordsError> {
        for (file, path) in self.0 {
            file.sync_data().map_err(|source| RecordsError { action: "sync", path, source })?;
        }
        Ok(())
    }
}

/// The tables of the running server; shared by its workers.
#[derive(Debug, Default)]
pub struct RecordsStore {
    /// Least recently used first, at most [`OPEN_TABLES_MAX`].
    tables: Mutex<Vec<Table>>,
}

#[derive(Debug)]
struct Table {
    day: Day,
    name: &'static str,
    path: PathBuf,
    file: Arc<File>,
    /// As it was when it was last looked at.
    size_bytes: u64,
}

impl RecordsStore {
    /// Appends rows, each table at most once among them; they are stored once `unsynced` was synced. Gives the number of
    /// new rows.
    ///
    /// # Errors
    /// Whatever the file system says. Tables that were done before stay as they are, so the next attempt for a dump
    /// that had rows here must say [`Before::Perhaps`].
    pub fn append(
        &self,
        day: &DayFolder,
        rows: &[Rows],
        before: Before,
        unsynced: &mut Unsynced,
    ) -> Result<usize, RecordsError> {
        let mut count = 0;
        let mut tables = self.lock();
        for rows in rows {
            let table = open(&mut tables, day, rows.table.name())?;
            let (new, lines) = match before {
                Before::Nothing => (rows.ids.len(), Cow::Borrowed(rows.lines.as_slice())),
                Before::Perhaps => missing(rows, &table.known_ids(&rows.ids)?),
            };
            count += new;
            // Synced even if nothing is new: the attempt that wrote it may have died before it did.
            unsynced.add(table);
            if let Err(error) = table.append(&lines) {
                // Whatever state the file is in, opening it again makes it whole.
                tables.pop();
                return Err(error);
            }
        }
        Ok(count)
    }

    /// Closes every table, so that the next dump opens them again by their names.
    pub fn forget_tables(&self) {
        self.lock().clear();
    }

    /// Closes the tables of `day`, which were removed: an open file keeps its bytes on the disk.
    pub fn forget_day(&self, day: Day) {
        self.lock().retain(|table| table.day != day);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Table>> {
        self.tables.lock().unwrap_or_else(|poisoned| {
            // A panic in the middle of a write: opening the tables again makes them whole.
            let mut tables = PoisonError::into_inner(poisoned);
            tables.clear();
            self.tables.clear_poison();
            tables
        })
    }
}

/// The rows that are not known, as lines, and how many these are.
fn missing<'a>(rows: &'a Rows, known: &HashSet<&str>) -> (usize, Cow<'a, [u8]>) {
    let lines = rows.lines.split_inclusive(|byte| *byte == b'\n');
    let new = rows.ids.iter().zip(lines).filter(|(id, _)| !known.contains(id.as_str()));
    let mut count = 0;
    let mut text = Vec::new();
    for (_, line) in new {
        count += 1;
        text.extend_from_slice(line);
    }
    (count, Cow::Owned(text))
}

/// Gives the open table `name` of `day`, which is then the last in the list.
fn open<'a>(
    tables: &'a mut Vec<Table>,
    day: &DayFolder,
    name: &'static str,
) -> Result<&'a mut Table, RecordsError> {
    let known = tables.iter().position(|table| table.day == day.day() && table.name == name);
    let table = match known.and_then(|at| tables.remove(at).if_linked()) {
        Some(table) => table,
        None => Table::open(day, name)?,
    };
    if tables.len() >= OPEN_TABLES_MAX {
        tables.remove(0);
    }
    Ok(tables.push_mut(table))
}

impl Table {
    fn open(day: &DayFolder, name: &'static str) -> Result<Self, RecordsError> {
        let folder_path = day.path().join(TABLES);
        let path = folder_path.join(format!("{name}.jsonl"));
        let fail = |action, path: &PathBuf| {
            let path = path.clone();
            move |source| RecordsError { action, path, source }
        };
        let (folder, is_new) =
            beneath::open_folder(day, TABLES).map_err(fail("open the folder", &folder_path))?;
        if is_new {
            beneath::sync_folder(day).map_err(fail("sync the folder of", &folder_path))?;
        }
        let (file, stat) =
            beneath::open_append(&folder, &format!("{name}.jsonl")).map_err(fail("open", &path))?;
        let size_bytes = u64::try_from(stat.st_size).unwrap_or(0);
        if size_bytes == 0 {
            beneath::sync_folder(&folder).map_err(fail("sync", &folder_path))?;
        }
        let whole = beneath::whole_lines_len(&file, size_bytes, size_bytes)
            .map_err(fail("read", &path))?
            .unwrap_or(size_bytes);
        if whole < size_bytes {
            warn!("records.torn path={} cut_bytes={}", value(path.display()), size_bytes - whole);
            file.set_len(whole).map_err(fail("cut the torn end of", &path))?;
        }
        Ok(Self { day: day.day(), name, path, file: Arc::new(file), size_bytes: whole })
    }

    /// Itself, if the file still has a name: an operator may have removed it.
    fn if_linked(self) -> Option<Self> {
        let stat = rustix::fs::fstat(&self.file).ok().filter(|stat| stat.st_nlink > 0)?;
        Some(Self { size_bytes: u64::try_from(stat.st_size).ok()?, ..self })
    }

    /// Appends `lines` in one write, or nothing.
    fn append(&self, lines: &[u8]) -> Result<(), RecordsError> {
        if lines.is_empty() {
            return Ok(());
        }
        (&*self.file).write_all(lines).map_err(|error| {
            if let Err(error) = self.file.set_len(self.size_bytes) {
                warn!("records.torn path={} err={}", value(self.path.display()), value(error));
            }
            self.fail("append to", error)
        })
    }

    /// Which of `ids` are in the table.
    fn known_ids<'a>(&self, ids: &'a [String]) -> Result<HashSet<&'a str>, RecordsError> {
        let wanted: HashSet<&str> = ids.iter().map(String::as_str).collect();
        let mut known = HashSet::new();
        let mut buffer = vec![0; SEARCH_BYTES];
        let (mut offset, mut kept) = (0, 0);
        loop {
            let free = buffer.get_mut(kept..).unwrap_or_default();
            let count = self.file.read_at(free, offset).map_err(|error| self.fail("search", error))?;
            if count == 0 {
                return Ok(known);
            }
            offset += count as u64;
            let filled = buffer.get(..kept + count).unwrap_or_default();
            known.extend(ids_in(filled).filter_map(|id| wanted.get(id).copied()));
            // What may be the beginning of a member is looked at again with what follows.
            let start = filled.len().saturating_sub(ID_MEMBER.len() + ID_BYTES_MAX);
            kept = filled.len() - start;
            buffer.copy_within(start..start + kept, 0);
        }
    }

    fn fail(&self, action: &'static str, source: io::Error) -> RecordsError {
        RecordsError { action, path: self.path.clone(), source }
    }
}

/// The ids in a piece of a table.
fn ids_in(piece: &[u8]) -> impl Iterator<Item = &str> {
    let mut rest = piece;
    std::iter::from_fn(move || {
        loop {
            let quote = rest.iter().position(|byte| *byte == b'"')?;
            rest = rest.get(quote..)?;
            let Some(value) = rest.strip_prefix(ID_MEMBER) else {
                rest = rest.get(1..)?;
                continue;
            };
            let end = value.iter().position(|byte| *byte == b'"')?;
            let (id, behind) = value.split_at(end);
            rest = behind;
            if let Ok(id) = std::str::from_utf8(id) {
                return Some(id);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Archive;
    use crate::records::Table;
    use std::path::Path;

    struct Fixture {
        dir: tempfile::TempDir,
        store: RecordsStore,
        day: Arc<DayFolder>,
    }

    fn fixture() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let day = Archive::new(dir.path()).day(Day::of_clock(0).unwrap()).unwrap();
        Fixture { dir, store: RecordsStore::default(), day }
    }

    impl Fixture {
        fn path(&self, table: Table) -> PathBuf {
            self.dir.path().join(format!("1970-01-01/records/{}.jsonl", table.name()))
        }

        fn read(&self, table: Table) -> String {
            std::fs::read_to_string(self.path(table)).unwrap()
        }

        fn try_append(&self, dump: &[Rows], before: Before) -> Result<usize, RecordsError> {
            let mut unsynced = Unsynced::default();
            let count = self.store.append(&self.day, dump, before, &mut unsynced)?;
            unsynced.sync().map(|()| count)
        }

        fn append(&self, dump: &[Rows], before: Before) -> usize {
            self.try_append(dump, before).unwrap()
        }
    }

    const A: Table = Table::Meeting;
    const B: Table = Table::Track;

    fn line(id: &str) -> String {
        format!("{{\"pcname\":\"PC_\\\"id\\\":\\\"x\\\"\",\"id\":\"{id}\",\"n\":1}}\n")
    }

    fn rows(table: Table, ids: &[&str]) -> Rows {
        let lines = ids.iter().map(|id| line(id)).collect::<String>().into_bytes();
        Rows { table, lines, ids: ids.iter().map(|id| (*id).to_owned()).collect() }
    }

    #[test]
    fn rows_are_lines_of_their_table() {
        let fixture = fixture();
        assert_eq!(fixture.append(&[rows(A, &["1", "2"]), rows(B, &["3"])], Before::Nothing), 3);
        assert_eq!(fixture.append(&[rows(A, &["4"])], Before::Nothing), 1);
        assert_eq!(fixture.read(A), ["1", "2", "4"].map(line).concat());
        assert_eq!(fixture.read(B), line("3"));
    }

    #[test]
    fn a_dump_that_was_begun_before_adds_only_what_is_missing() {
        let fixture = fixture();
        fixture.append(&[rows(A, &["1", "2"])], Before::Nothing);
        assert_eq!(fixture.append(&[rows(A, &["1", "2", "3"]), rows(B, &["1"])], Before::Perhaps), 2);
        assert_eq!(fixture.append(&[rows(A, &["1", "2", "3"]), rows(B, &["1"])], Before::Perhaps), 0);
        assert_eq!(fixture.read(A).lines().count(), 3);
        assert_eq!(fixture.append(&[rows(A, &["x", "id"])], Before::Perhaps), 2, "not the ids of other rows");
    }

    #[test]
    fn ids_are_found_wherever_the_pieces_of_the_search_end() {
        let fixture = fixture();
        let row_bytes = line("00000").len();
        let count = SEARCH_BYTES * 3 / row_bytes;
        let names: Vec<String> = (0..count).map(|n| format!("{n:05}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        fixture.append(&[rows(A, &names)], Before::Nothing);
        assert_eq!(fixture.append(&[rows(A, &names)], Before::Perhaps), 0);
    }

    #[test]
    fn a_torn_tail_is_cut_when_the_table_is_opened() {
        let whole = fixture();
        whole.append(&[rows(A, &["1"])], Before::Nothing);
        let first = whole.read(A);
        for cut in 0..=first.len() {
            let fixture = fixture();
            std::fs::create_dir(fixture.path(A).parent().unwrap()).unwrap();
            std::fs::write(fixture.path(A), format!("{first}{}", &first[..cut])).unwrap();
            let new = fixture.append(&[rows(A, &["1", "2"])], Before::Perhaps);
            assert_eq!(new, 1);
            let twice = if cut == first.len() { first.as_str() } else { "" };
            assert_eq!(fixture.read(A), format!("{first}{twice}{}", line("2")), "cut at {cut}");
        }
    }

    #[test]
    fn a_table_that_was_moved_away_is_begun_anew() {
        let fixture = fixture();
        fixture.append(&[rows(A, &["1"])], Before::Nothing);
        std::fs::remove_file(fixture.path(A)).unwrap();
        fixture.append(&[rows(A, &["2"])], Before::Nothing);
        assert_eq!(fixture.read(A), line("2"));
    }

    #[test]
    fn links_are_not_followed() {
        for name in ["records", "records/rtcstats.jsonl"] {
            let fixture = fixture();
            let day = fixture.dir.path().join("1970-01-01");
            let target = tempfile::tempdir().unwrap();
            if name != "records" {
                std::fs::create_dir(day.join("records")).unwrap();
            }
            std::os::unix::fs::symlink(target.path().join("x"), day.join(name)).unwrap();
            let error = fixture.try_append(&[rows(A, &["1"])], Before::Nothing).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
            assert_eq!(std::fs::read_dir(target.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_failed_append_leaves_whole_lines_and_the_next_one_goes_on() {
        let fixture = fixture();
        fixture.append(&[rows(A, &["1"])], Before::Nothing);
        // A table whose file can only be read: the write fails, whoever runs this test.
        let unwritable = File::open(fixture.path(A)).unwrap();
        fixture.store.lock()[0].file = Arc::new(unwritable);
        let error = fixture.try_append(&[rows(A, &["2"])], Before::Nothing).unwrap_err();
        assert!(error.to_string().contains("cannot append"), "{error}");
        assert_eq!(fixture.append(&[rows(A, &["2"])], Before::Perhaps), 1);
        assert_eq!(fixture.read(A).lines().count(), 2);
    }

    #[test]
    fn few_tables_stay_open() {
        let dir = tempfile::tempdir().unwrap();
        let (archive, store) = (Archive::new(dir.path()), RecordsStore::default());
        for n in 0..OPEN_TABLES_MAX as u64 + 5 {
            let day = archive.day(Day::of_clock(n * 86_400_000).unwrap()).unwrap();
            store.append(&day, &[rows(A, &["1"])], Before::Nothing, &mut Unsynced::default()).unwrap();
        }
        assert_eq!(store.lock().len(), OPEN_TABLES_MAX);
        assert!(Path::new(dir.path()).join("1970-01-01/records/rtcstats.jsonl").exists());
        store.forget_tables();
        assert_eq!(store.lock().len(), 0);
    }
}
