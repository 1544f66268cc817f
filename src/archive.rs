//! The local archive: `<archive.path>/<day>/<name>.json` and `<name>.gz`.
//!
//! Owns the folders of the archive, the names in them, and the order in which a dump's two files appear: the document
//! first, the compressed dump last, which commits. Each is written under a temporary name in the same folder and
//! published without replacing. Never reads a dump and never knows what is in a document. Whoever publishes waits for the
//! device, for many dumps at once: `workers::commit`.
//!
//! A name is taken when a different dump has it that day; then `<id>_1`, `<id>_2`, ... is tried. The same dump is
//! known by the CRC32 and length at the end of its `.gz`. Names that are being filled are claimed, so that two
//! workers of this process never want the same one. A document without its dump is left from a crash and is replaced.
//! A temporary file is locked by its writer: one that nobody holds is left from a crash and is removed.
//!
//! What is to be removed is decided in `retention`, and found and removed in `contents`.
//! Rules: our contract, section 3.

pub mod contents;
pub mod day;
pub mod disk;
pub mod gzip;
pub mod retention;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use log::{info, warn};
use rustix::fs::{Dir, FlockOperation, OFlags};

use crate::beneath::{self, Opened};
use crate::logging::value;
use day::Day;
use gzip::Content;

/// Folders of days that are kept open. Most jobs are of today; after a long stop leftovers are of a few days.
const OPEN_DAYS_MAX: usize = 16;
/// Names that are tried for one dump.
const TRIES_MAX: u32 = 100_000;
/// Free names in a row behind which a dump that may be in the archive is not looked for any further. A hole is left
/// where a worker had claimed a name and failed, or where an operator has removed a dump.
const GAP_MAX: u32 = 16;
/// Parts from which on the highest one is remembered: one peer that uses an id again and again would otherwise make
/// us look at every name it has, each time.
const HIGH_PART_MIN: u32 = 16;
/// Ids of which the highest part is remembered.
const HIGH_PARTS_MAX: usize = 1024;
/// Temporary names that are tried for one file; a taken one is left from a crash of a process with our id.
const TEMPORARY_TRIES_MAX: u32 = 1_000;
/// Folder of the records tables in a day's folder.
pub(crate) const TABLES: &str = "records";
const TEMPORARY_PREFIX: &str = ".rtcstats-";
const TEMPORARY_SUFFIX: &str = ".tmp";

/// Why something could not be archived.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file system refuses.
    #[error("{}: cannot {action}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The name was free and is not any more.
    #[error("{}: taken by another process", path.display())]
    NameTaken {
        /// The file.
        path: PathBuf,
    },
    /// Every name that may be tried is taken by a different dump.
    #[error("{}: no free name for {name:?} after {tries} tries", path.display())]
    NoFreeName {
        /// The folder of the day.
        path: PathBuf,
        /// The name that was wanted.
        name: String,
        /// How many were looked at.
        tries: u32,
    },
}

/// The archive of the running server; shared by its workers.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    folders: Mutex<Folders>,
    claims: Arc<Mutex<Claims>>,
    process_id: u32,
    temporary_count: AtomicU64,
}

#[derive(Debug, Default)]
struct Folders {
    root: Option<OwnedFd>,
    /// Least recently used first, at most [`OPEN_DAYS_MAX`].
    days: Vec<Arc<DayFolder>>,
}

/// The open folder of one day.
#[derive(Debug)]
pub struct DayFolder {
    day: Day,
    path: PathBuf,
    folder: OwnedFd,
}

/// Where a dump belongs.
#[derive(Debug)]
pub enum Place {
    /// It is in the archive already, under this name.
    Archived(Slot),
    /// This name is ours to fill.
    Free(Slot),
}

/// Which names have to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search {
    /// The dump may be in the archive already, under any of them.
    Everywhere,
    /// It cannot be there. Names that this process has seen to be taken are skipped.
    FreeName,
}

/// A name in the archive, claimed until this value goes.
#[derive(Debug)]
pub struct Slot {
    day: Arc<DayFolder>,
    claim: Claim,
}

impl Archive {
    /// The archive below `path`. Nothing is opened before it is needed, and again after an error: the disk of an
    /// archive may come and go while the server runs.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            folders: Mutex::default(),
            claims: Arc::default(),
            process_id: std::process::id(),
            temporary_count: AtomicU64::new(0),
        }
    }

    /// Opens the folder of `day`, creates what is missing, and removes what a crash left in it.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn day(&self, day: Day) -> Result<Arc<DayFolder>, ArchiveError> {
        let mut folders = self.lock_folders();
        if let Some(at) = folders.days.iter().position(|open| open.day == day) {
            // The most used one is the last; moving it there is free when it is already.
            let open = folders.days.remove(at);
            folders.days.push(Arc::clone(&open));
            return Ok(open);
        }
        let opened = Arc::new(self.open_day(&mut folders.root, day)?);
        opened.remove_stale();
        if folders.days.len() >= OPEN_DAYS_MAX {
            // One that no job holds, if there is any: `retire` knows only what is listed.
            let idle = folders.days.iter().position(|open| Arc::strong_count(open) == 1);
            folders.days.remove(idle.unwrap_or(0));
        }
        folders.days.push(Arc::clone(&opened));
        Ok(opened)
    }

    /// Closes every folder, so that the next job opens them again by their names. For after an error: the folder may
    /// have been removed or replaced under us.
    pub fn forget_folders(&self) {
        *self.lock_folders() = Folders::default();
    }

    /// Does something short to the folder of `day` that no job may see half done: nobody gets any folder meanwhile, and
    /// afterwards this one is opened by its name again. `None`, and nothing was done, while a job holds it.
    ///
    /// A job that opened it before an error had all folders closed is not known here. Should it meet this, it fails and
    /// is run again.
    fn retire<T>(&self, day: Day, change: impl FnOnce() -> T) -> Option<T> {
        let mut folders = self.lock_folders();
        if let Some(at) = folders.days.iter().position(|open| open.day == day) {
            if folders.days.get(at).is_some_and(|open| Arc::strong_count(open) > 1) {
                return None;
            }
            folders.days.remove(at);
        }
        Some(change())
    }

    /// Creates a file for content that gets its name later.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn temporary(&self, day: &Arc<DayFolder>) -> Result<Temporary, ArchiveError> {
        for _ in 0..TEMPORARY_TRIES_MAX {
            let count = self.temporary_count.fetch_add(1, Ordering::Relaxed);
            let name = format!("{TEMPORARY_PREFIX}{}-{count}{TEMPORARY_SUFFIX}", self.process_id);
            match beneath::create_new(&day.folder, &name) {
                Ok(file) => {
                    let temporary =
                        Temporary { day: Arc::clone(day), name, file, size_bytes: 0, is_published: false };
                    rustix::fs::flock(&temporary.file, FlockOperation::NonBlockingLockExclusive)
                        .map_err(|error| temporary.fail("lock", error.into()))?;
                    return Ok(temporary);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(day.fail("create", &name, error)),
            }
        }
        Err(day.fail("create a temporary file in", ".", io::ErrorKind::AlreadyExists.into()))
    }

    /// Finds out where a dump with this content belongs: `name` when that is free, else the first free `<id>_<n>`.
    ///
    /// # Errors
    /// Whatever the file system says; [`ArchiveError::NoFreeName`].
    pub fn place(
        &self,
        day: &Arc<DayFolder>,
        name: &str,
        id: &str,
        content: Content,
        search: Search,
    ) -> Result<Place, ArchiveError> {
        let (first_part, free_max) = match search {
            Search::Everywhere => (1, GAP_MAX),
            Search::FreeName => (self.lock_claims().part_from(day.day, id), 1),
        };
        let parts = first_part..first_part.saturating_add(TRIES_MAX);
        let suffixed = parts.map(|part| (part, format!("{id}_{part}"))).filter(|(_, other)| other != name);
        let (mut free, mut free_count) = (None, 0);
        for (part, candidate) in std::iter::once((0, name.to_owned())).chain(suffixed) {
            match self.try_name(day, candidate, content)? {
                Some(Place::Archived(slot)) => return Ok(Place::Archived(slot)),
                Some(Place::Free(slot)) => {
                    free_count += 1;
                    free.get_or_insert((part, slot));
                }
                None => free_count = 0,
            }
            if free_count == free_max {
                break;
            }
        }
        match free {
            Some((part, slot)) => {
                self.lock_claims().remember(day.day, id, part);
                Ok(Place::Free(slot))
            }
            None => {
                let (path, name) = (day.path.clone(), name.to_owned());
                Err(ArchiveError::NoFreeName { path, name, tries: TRIES_MAX })
            }
        }
    }

    /// `None` when a different dump has the name, or is about to get it.
    fn try_name(
        &self,
        day: &Arc<DayFolder>,
        name: String,
        content: Content,
    ) -> Result<Option<Place>, ArchiveError> {
        let Some(claim) = Claim::new(&self.claims, day.day, name) else { return Ok(None) };
        let slot = Slot { day: Arc::clone(day), claim };
        Ok(match day.look(slot.name(), content)? {
            Holder::Nobody => Some(Place::Free(slot)),
            Holder::Same => Some(Place::Archived(slot)),
            Holder::Other => None,
        })
    }

    fn lock_claims(&self) -> MutexGuard<'_, Claims> {
        lock(&self.claims)
    }

    fn lock_folders(&self) -> MutexGuard<'_, Folders> {
        lock(&self.folders)
    }

    fn open_day(&self, root: &mut Option<OwnedFd>, day: Day) -> Result<DayFolder, ArchiveError> {
        let fail = |action, path: &Path| {
            let path = path.to_owned();
            move |source| ArchiveError::Io { action, path, source }
        };
        let root = match root {
            Some(root) => root,
            None => {
                root.insert(beneath::open_root(&self.path).map_err(fail("open the archive", &self.path))?)
            }
        };
        let name = day.to_string();
        let path = self.path.join(&name);
        let (folder, is_new) = beneath::open_folder(&*root, &name).map_err(fail("open the folder", &path))?;
        if is_new {
            beneath::sync_folder(root).map_err(fail("sync the archive", &self.path))?;
        }
        Ok(DayFolder { day, path, folder })
    }
}

/// Who has a name in the archive.
enum Holder {
    Nobody,
    Same,
    Other,
}

impl DayFolder {
    /// The day.
    #[must_use]
    pub fn day(&self) -> Day {
        self.day
    }

    /// Its path, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until names that were published are on the device.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn sync(&self) -> Result<(), ArchiveError> {
        beneath::sync_folder(&self.folder).map_err(|error| self.fail("sync", ".", error))
    }

    fn look(&self, name: &str, content: Content) -> Result<Holder, ArchiveError> {
        let packed = format!("{name}.gz");
        let fail = |source| self.fail("read", &packed, source);
        match beneath::open_file(&self.folder, &packed, OFlags::RDONLY).map_err(fail)? {
            Opened::NotAFile => Ok(Holder::Other),
            Opened::File(file, stat) => {
                let size_bytes = u64::try_from(stat.st_size).unwrap_or(0);
                let found = trailer(&file, size_bytes).map_err(fail)?;
                Ok(if found == Some(content) { Holder::Same } else { Holder::Other })
            }
            Opened::Absent => {
                let document = format!("{name}.json");
                let there = beneath::look(&self.folder, &document)
                    .map_err(|source| self.fail("look at", &document, source))?;
                // A regular file is the document of a job that did not get to its commit.
                let is_free = there.is_none_or(|stat| beneath::is_regular(&stat));
                Ok(if is_free { Holder::Nobody } else { Holder::Other })
            }
        }
    }

    /// Removes temporary files that no process holds.
    fn remove_stale(&self) {
        let removed = Dir::read_from(&self.folder).map(|names| {
            let stale = names.filter_map(Result::ok).filter(|entry| {
                let name = entry.file_name().to_bytes();
                name.starts_with(TEMPORARY_PREFIX.as_bytes()) && name.ends_with(TEMPORARY_SUFFIX.as_bytes())
            });
            stale
                .filter(|entry| entry.file_name().to_str().is_ok_and(|name| self.remove_if_stale(name)))
                .count()
        });
        match removed {
            Ok(0) => {}
            Ok(count) => info!("archive.stale removed={count} path={}", value(self.path.display())),
            // Nothing depends on it: what is left is tried again at the next start.
            Err(error) => warn!("archive.stale path={} err={}", value(self.path.display()), value(error)),
        }
    }

    fn remove_if_stale(&self, name: &str) -> bool {
        let Ok(Opened::File(file, _)) = beneath::open_file(&self.folder, name, OFlags::RDONLY) else {
            return false;
        };
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
            && beneath::remove(&self.folder, name).is_ok_and(|was_there| was_there)
    }

    fn fail(&self, action: &'static str, name: &str, source: io::Error) -> ArchiveError {
        ArchiveError::Io { action, path: self.path.join(name), source }
    }
}

impl AsFd for DayFolder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

impl Slot {
    /// The name, without `.gz`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.claim.key.1
    }

    /// Whether the document is missing.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn lacks_document(&self) -> Result<bool, ArchiveError> {
        let name = format!("{}.json", self.name());
        let there = beneath::look(&self.day.folder, &name);
        Ok(there.map_err(|source| self.day.fail("look at", &name, source))?.is_none())
    }

    /// Writes the document under a temporary name.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn write_document(&self, archive: &Archive, document: &[u8]) -> Result<Temporary, ArchiveError> {
        let mut temporary = archive.temporary(&self.day)?;
        temporary.write_all(document).map_err(|error| temporary.fail("write", error))?;
        Ok(temporary)
    }

    /// Publishes the document; one without its dump is replaced. It must be synced before its dump is there.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn publish_document(&self, document: &mut Temporary) -> Result<(), ArchiveError> {
        let name = format!("{}.json", self.name());
        if !document.publish(&name)? {
            // Only an orphan can be here (see `place`). A link would be replaced, not followed.
            rustix::fs::renameat(&self.day.folder, &document.name, &self.day.folder, &name)
                .map_err(|error| self.day.fail("replace", &name, error.into()))?;
            document.is_published = true;
        }
        Ok(())
    }

    /// Publishes the compressed dump; this commits. It must be synced, and its document with its name.
    ///
    /// # Errors
    /// [`ArchiveError::NameTaken`] when somebody outside this process took the name meanwhile; whatever the file
    /// system says.
    pub fn commit(&self, packed: &mut Temporary) -> Result<(), ArchiveError> {
        let name = format!("{}.gz", self.name());
        let is_ours = packed.publish(&name)?;
        if is_ours { Ok(()) } else { Err(ArchiveError::NameTaken { path: self.day.path.join(name) }) }
    }
}

/// A file that has no name yet which anybody would look for. Removed when it goes without having been published.
#[derive(Debug)]
pub struct Temporary {
    day: Arc<DayFolder>,
    name: String,
    file: File,
    size_bytes: u64,
    is_published: bool,
}

impl Write for Temporary {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.size_bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Temporary {
    /// What was written so far.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Error of an operation on this file.
    #[must_use]
    pub fn fail(&self, action: &'static str, source: io::Error) -> ArchiveError {
        self.day.fail(action, &self.name, source)
    }

    /// Waits until what was written is on the device.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn sync(&self) -> Result<(), ArchiveError> {
        rustix::fs::fsync(&self.file).map_err(|error| self.fail("sync", error.into()))
    }

    /// Gives the file its name; `false` when that is taken.
    fn publish(&mut self, name: &str) -> Result<bool, ArchiveError> {
        match beneath::publish(&self.day.folder, &self.name, &self.day.folder, name) {
            Ok(()) => {
                self.is_published = true;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(self.day.fail("publish", name, error)),
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.is_published {
            // If it stays, the lock is gone with us and the next start removes it.
            let _ = beneath::remove(&self.day.folder, &self.name);
        }
    }
}

/// Names that are taken though nothing on disk says so yet, and names that are known to be taken.
#[derive(Debug, Default)]
struct Claims {
    /// What workers are filling at this moment: at most one name each.
    filling: HashSet<(Day, String)>,
    /// The highest part that an id got on a day, where it is high enough to matter. At most [`HIGH_PARTS_MAX`]; when
    /// there are more all are forgotten, which costs time and nothing else.
    high_parts: HashMap<(Day, String), u32>,
}

impl Claims {
    fn part_from(&self, day: Day, id: &str) -> u32 {
        self.high_parts.get(&(day, id.to_owned())).map_or(1, |part| part.saturating_add(1))
    }

    fn remember(&mut self, day: Day, id: &str, part: u32) {
        if part < HIGH_PART_MIN {
            return;
        }
        if self.high_parts.len() >= HIGH_PARTS_MAX {
            self.high_parts.clear();
        }
        let known = self.high_parts.entry((day, id.to_owned())).or_default();
        *known = part.max(*known);
    }
}

/// A name among those that are being filled.
#[derive(Debug)]
struct Claim {
    claims: Arc<Mutex<Claims>>,
    key: (Day, String),
}

impl Claim {
    /// `None` when another worker has it.
    fn new(claims: &Arc<Mutex<Claims>>, day: Day, name: String) -> Option<Self> {
        let key = (day, name);
        let is_new = lock(claims).filling.insert(key.clone());
        is_new.then(|| Self { claims: Arc::clone(claims), key })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.claims).filling.remove(&self.key);
    }
}

/// Every change is one call of a collection, so what a panic leaves is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the end of a `.gz` says of its content; `None` when it is too short to be one.
fn trailer(file: &File, size_bytes: u64) -> io::Result<Option<Content>> {
    if size_bytes < gzip::MEMBER_BYTES_MIN {
        return Ok(None);
    }
    let mut trailer = [0; gzip::TRAILER_BYTES];
    file.read_exact_at(&mut trailer, size_bytes - gzip::TRAILER_BYTES as u64)?;
    Ok(Some(Content::of_trailer(trailer)))
}

#[cfg(test)]
mod tests;
