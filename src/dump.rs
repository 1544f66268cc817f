//! Dump files in progress: create, append, finish.
//!
//! Owns naming and descriptors below `temp_path`. Never parses a line, never talks to a socket.
//! Blocking: `append` is one `write(2)` into the page cache and an `fstat(2)`: behind it, for a file that was removed, or before
//! it, for one that was opened anew (9 us with the descriptor held, 13 us with open and close, measured for 3.75 KB); `create`
//! and `finish` change one directory entry each, and a failed `create` takes its own back. `tail` reads the end of a dump, 100
//! us for half a MiB from the page cache; for a client in a breakout room that comes back the ends of several, 1 MiB in all at
//! most ([`crate::rooms::search`]). Nothing here syncs. While the folder is still being scanned after a start, `create` may also
//! wait for the scan to let go of one file and look at it ([`crate::leftovers`]).
//!
//! Everything is done relative to descriptors of the folders, and no link below them is followed. A dump owns no
//! descriptor between appends: open ones are a bounded cache, and a reopened file must be the same file.
//! Rules: our contract, section 3; reference: a taken name gets `_1`, `_2`, ..., the first free one wins.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::SystemTime;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;

use crate::beneath::{self, Opened};
use crate::client::SessionId;
use crate::dump_folder::{DumpFolder, FolderError};
use crate::jobs::{Job, Origin};
use crate::leftovers::Leftovers;
use crate::reactor::slots::SlotId;

/// Names that are tried in order before the rest of the numbers is searched from a counter; so a client that
/// opens and closes one id in a loop costs a bounded number of system calls each time.
const PARTS_IN_ORDER: u32 = 8;
/// Numbers tried from the counter before giving up.
const PARTS_FROM_COUNTER: u32 = 64;

/// No place in the cache of descriptors.
const NOWHERE: u32 = u32::MAX;

/// One dump on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpFile {
    /// File name, `<id>` (then shared with it) or `<id>_<part>`.
    pub name: Arc<str>,
    /// 0, or the number behind the id.
    pub part: u32,
    /// Bytes in the file: whole lines only.
    pub size_bytes: u64,
    /// Device and inode, so that a reopened file is known to be the same.
    pub identity: (u64, u64),
    /// Its place in the cache of descriptors, as a hint.
    cached: u32,
}

impl DumpFile {
    /// A dump that was found at start or when its client came back.
    #[must_use]
    pub fn found(name: &str, part: u32, size_bytes: u64, identity: (u64, u64)) -> Self {
        Self { name: name.into(), part, size_bytes, identity, cached: NOWHERE }
    }
}

/// Why lines could not be appended. The file then ends where it ended before.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The file is not the one that was written before, or is gone.
    #[error("dump {name} was replaced or removed")]
    Replaced {
        /// Its name.
        name: Arc<str>,
    },
    /// The system refused.
    #[error("cannot append to dump {name}")]
    Io {
        /// Its name.
        name: Arc<str>,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The dump folder with its cache of open descriptors.
#[derive(Debug)]
pub struct DumpStore {
    folder: Arc<DumpFolder>,
    open: OpenFiles,
    next_part: u32,
    /// What an earlier server left, as long as it is being looked at.
    leftovers: Option<Leftovers>,
}

impl DumpStore {
    /// A store in this folder; `open_files_max` bounds the cached descriptors. `leftovers`: the scan for what an earlier
    /// server left, as long as it runs.
    #[must_use]
    pub fn new(folder: Arc<DumpFolder>, open_files_max: usize, leftovers: Option<Leftovers>) -> Self {
        Self { folder, open: OpenFiles::new(open_files_max), next_part: PARTS_IN_ORDER, leftovers }
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> Arc<DumpFolder> {
        Arc::clone(&self.folder)
    }

    /// The scan for what an earlier server left; `None` when it is over.
    pub fn leftovers_mut(&mut self) -> Option<&mut Leftovers> {
        if self.leftovers.as_ref().is_some_and(Leftovers::is_complete) {
            self.leftovers = None;
        }
        self.leftovers.as_mut()
    }

    /// Changes how many descriptors are cached; those over it are closed now, the least used ones first.
    pub fn limit_open_files(&mut self, open_files_max: usize) {
        self.open.limit(open_files_max);
    }

    /// Descriptors held at present.
    #[must_use]
    pub fn open_files(&self) -> usize {
        self.open.len()
    }

    /// Free bytes of the file system, as an unprivileged process sees them; 0 when it is read-only.
    ///
    /// # Errors
    /// When the file system cannot be asked.
    pub fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(self.folder.root())?;
        let is_read_only = stat.f_flag.contains(StatVfsMountFlags::RDONLY);
        Ok(if is_read_only { 0 } else { stat.f_bavail.saturating_mul(stat.f_frsize) })
    }

    /// See [`DumpFolder::beat`]. A file system that cannot be written refuses it, also when it still calls itself writable,
    /// as ext4 does after an error.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn beat(&self) -> io::Result<()> {
        self.folder.beat()
    }

    /// Creates the file for a new dump of `id` under the first free name and writes `first_line` and `lines` to it.
    ///
    /// `first_line` is told the part number, because the line names it. When writing fails nothing stays behind.
    ///
    /// # Errors
    /// When no name is free, or the system refuses.
    pub fn create(
        &mut self,
        owner: SlotId,
        id: &SessionId,
        first_line: impl FnOnce(u32, &mut Vec<u8>),
        lines: Vec<IoSlice<'_>>,
    ) -> Result<DumpFile, AppendError> {
        let failed = |source: io::Error| AppendError::Io { name: id.share(), source };
        let (name, part, file) = self.create_free_name(id).map_err(failed)?;
        let stat = rustix::fs::fstat(&file).map_err(|errno| failed(errno.into()))?;
        let mut dump =
            DumpFile { name, part, size_bytes: 0, identity: (stat.st_dev, stat.st_ino), cached: NOWHERE };
        self.open.put(owner, &mut dump, file);
        let mut first = Vec::with_capacity(512);
        first_line(part, &mut first);
        let parts = std::iter::once(IoSlice::new(&first)).chain(lines).collect();
        match self.write(owner, &dump, parts) {
            Ok(written) => dump.size_bytes = written,
            Err(error) => {
                self.open.forget(owner, &dump);
                // Nothing useful is in it; a failure to remove it leaves an empty file that the next start removes.
                let _ = rustix::fs::unlinkat(self.folder.root(), &*dump.name, AtFlags::empty());
                return Err(error);
            }
        }
        Ok(dump)
    }

    fn create_free_name(&mut self, id: &SessionId) -> io::Result<(Arc<str>, u32, File)> {
        for part in 0..PARTS_IN_ORDER {
            if let Some((name, file)) = self.try_create(id, part)? {
                return Ok((name, part, file));
            }
        }
        for _ in 0..PARTS_FROM_COUNTER {
            let part = self.next_part;
            self.next_part = part.checked_add(1).unwrap_or(PARTS_IN_ORDER);
            if let Some((name, file)) = self.try_create(id, part)? {
                return Ok((name, part, file));
            }
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, "no free name was found for the dump"))
    }

    fn try_create(&mut self, id: &SessionId, part: u32) -> io::Result<Option<(Arc<str>, File)>> {
        let name: Arc<str> = if part == 0 { id.share() } else { format!("{id}_{part}").into() };
        if let Some(leftovers) = &mut self.leftovers {
            // From here on the scan keeps off this name; a dump of an earlier server under it is ours to look at.
            leftovers.claim(&name);
        }
        if self.folder.is_waiting(&name)? {
            return Ok(None);
        }
        let flags = OFlags::WRONLY
            | OFlags::APPEND
            | OFlags::CREATE
            | OFlags::EXCL
            | OFlags::NOFOLLOW
            | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP;
        match rustix::fs::openat(self.folder.root(), &*name, flags, mode) {
            Ok(file) => Ok(Some((name, File::from(file)))),
            Err(Errno::EXIST) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Appends whole lines, their text in parts, in one write. A short write is cut back to the end of the last full line that was there
    /// before.
    ///
    /// # Errors
    /// The file then has the size it had; the caller decides whether to try again.
    pub fn append(
        &mut self,
        owner: SlotId,
        dump: &mut DumpFile,
        parts: Vec<IoSlice<'_>>,
    ) -> Result<(), AppendError> {
        let is_found_by_name = self.open.find(owner, dump).is_none();
        if is_found_by_name {
            let file = self.reopen(dump)?;
            self.open.put(owner, dump, file);
        }
        let written = self.write(owner, dump, parts)?;
        // What went into a file without a name is gone with it.
        if !is_found_by_name && self.is_nameless(owner, dump) {
            self.open.forget(owner, dump);
            return Err(AppendError::Replaced { name: dump.name.clone() });
        }
        dump.size_bytes += written;
        Ok(())
    }

    /// Writes to the end of a dump that is open. Returns how much.
    fn write(
        &mut self,
        owner: SlotId,
        dump: &DumpFile,
        mut parts: Vec<IoSlice<'_>>,
    ) -> Result<u64, AppendError> {
        let failed = |source| AppendError::Io { name: dump.name.clone(), source };
        let Some(file) = self.open.find(owner, dump) else {
            return Err(failed(io::ErrorKind::NotFound.into()));
        };
        let total = parts.iter().map(|part| part.len() as u64).sum();
        match write_all_at_once(file, &mut parts) {
            Ok(()) => Ok(total),
            Err(error) => {
                let restored = file.set_len(dump.size_bytes);
                let error = restored.err().unwrap_or(error);
                self.open.forget(owner, dump);
                Err(failed(error))
            }
        }
    }

    /// Whether the file of a dump that is open was removed.
    fn is_nameless(&mut self, owner: SlotId, dump: &DumpFile) -> bool {
        let file = self.open.find(owner, dump);
        file.is_some_and(|file| rustix::fs::fstat(file).is_ok_and(|stat| stat.st_nlink == 0))
    }

    fn reopen(&self, dump: &DumpFile) -> Result<File, AppendError> {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let replaced = || AppendError::Replaced { name: dump.name.clone() };
        let file = match rustix::fs::openat(self.folder.root(), &*dump.name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Err(replaced()),
            Err(errno) => return Err(AppendError::Io { name: dump.name.clone(), source: errno.into() }),
        };
        let stat = rustix::fs::fstat(&file)
            .map_err(|errno| AppendError::Io { name: dump.name.clone(), source: errno.into() })?;
        let same = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && (stat.st_dev, stat.st_ino) == dump.identity;
        let size_bytes = u64::try_from(stat.st_size).unwrap_or(0);
        if !same || size_bytes < dump.size_bytes {
            return Err(replaced());
        }
        if size_bytes > dump.size_bytes {
            // The torn end of a short write that could not be cut back at once.
            file.set_len(dump.size_bytes)
                .map_err(|source| AppendError::Io { name: dump.name.clone(), source })?;
        }
        Ok(file)
    }

    /// Whether the file of `dump` is still where it was. What cannot be found out counts as there.
    #[must_use]
    pub fn is_there(&self, dump: &DumpFile) -> bool {
        match rustix::fs::statat(self.folder.root(), &*dump.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => (stat.st_dev, stat.st_ino) == dump.identity,
            Err(errno) => errno != Errno::NOENT,
        }
    }

    /// At most `bytes_max` bytes from the end of a dump, and whether that is all of it; `None` when it is gone.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn tail(&self, dump: &DumpFile, bytes_max: u64) -> io::Result<Option<(Vec<u8>, bool)>> {
        let file = match beneath::open_file(self.folder.root(), &dump.name, OFlags::RDONLY)? {
            Opened::File(file, stat) if (stat.st_dev, stat.st_ino) == dump.identity => file,
            Opened::File(..) | Opened::Absent | Opened::NotAFile => return Ok(None),
        };
        let length = dump.size_bytes.min(bytes_max);
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, dump.size_bytes - length)?;
        Ok(Some((bytes, length == dump.size_bytes)))
    }

    /// The descriptor of a dump, when it is cached, as it is just behind an append.
    pub fn descriptor(&mut self, owner: SlotId, dump: &DumpFile) -> Option<Arc<File>> {
        self.open.find(owner, dump).map(Arc::clone)
    }

    /// Creates the dump folder again when it, or one of the folders in it, was removed; whether it was.
    ///
    /// # Errors
    /// When that cannot be done; nothing can be written then.
    pub fn restore_folder(&mut self) -> Result<bool, FolderError> {
        // What cannot be looked at is not known to be removed.
        if !self.folder.is_removed().unwrap_or(false) {
            return Ok(false);
        }
        self.folder.recreate()?;
        Ok(true)
    }

    /// Moves a dump to the finished ones: from now on it is a job, also after a crash.
    ///
    /// # Errors
    /// The dump then stays where it is; the next start finds it.
    pub fn finish(&mut self, owner: SlotId, dump: &DumpFile, now: SystemTime) -> io::Result<Job> {
        self.open.forget(owner, dump);
        let name = self.folder.finish(&dump.name)?;
        Ok(Job { name, size_bytes: dump.size_bytes, finished_at: now, retries: 0, origin: Origin::Finished })
    }

    /// Lets go of the descriptor of a dump whose session waits.
    pub fn release(&mut self, owner: SlotId, dump: &DumpFile) {
        self.open.forget(owner, dump);
    }
}

/// One `writev`; a short one is an error of the file system being full, found by writing the rest.
fn write_all_at_once(mut file: &File, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    while slices.iter().any(|slice| !slice.is_empty()) {
        match file.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[derive(Debug)]
struct OpenFile {
    owner: SlotId,
    file: Arc<File>,
    used: bool,
}

/// Descriptors of dumps, at most `max`; the one not used for longest (by the clock algorithm) makes room.
#[derive(Debug)]
struct OpenFiles {
    places: Vec<Option<OpenFile>>,
    free: Vec<u32>,
    hand: u32,
    max: usize,
}

impl OpenFiles {
    fn new(max: usize) -> Self {
        Self { places: Vec::new(), free: Vec::new(), hand: 0, max: max.max(1) }
    }

    fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// There are never more than descriptors, so it is exact.
    fn places_len(&self) -> u32 {
        u32::try_from(self.places.len()).unwrap_or(NOWHERE)
    }

    fn find(&mut self, owner: SlotId, dump: &DumpFile) -> Option<&Arc<File>> {
        let place =
            self.places.get_mut(dump.cached as usize)?.as_mut().filter(|place| place.owner == owner)?;
        place.used = true;
        Some(&place.file)
    }

    fn put(&mut self, owner: SlotId, dump: &mut DumpFile, file: File) {
        let index = self.make_room();
        if let Some(place) = self.places.get_mut(index as usize) {
            *place = Some(OpenFile { owner, file: Arc::new(file), used: true });
            dump.cached = index;
        }
    }

    /// An empty place.
    fn make_room(&mut self) -> u32 {
        if self.len() >= self.max {
            self.evict();
        }
        self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places_len() - 1
        })
    }

    fn limit(&mut self, max: usize) {
        self.max = max.max(1);
        while self.len() > self.max {
            self.evict();
        }
    }

    /// Closes one that was not used since the hand last passed it. There is one, because passing clears the mark.
    fn evict(&mut self) {
        while self.len() > 0 {
            self.hand = (self.hand + 1) % self.places_len();
            match self.places.get_mut(self.hand as usize) {
                Some(Some(place)) if place.used => place.used = false,
                Some(place @ Some(_)) => {
                    *place = None;
                    self.free.push(self.hand);
                    return;
                }
                Some(None) | None => {}
            }
        }
    }

    fn forget(&mut self, owner: SlotId, dump: &DumpFile) {
        let Some(place) = self.places.get_mut(dump.cached as usize) else { return };
        if place.as_ref().is_some_and(|open| open.owner == owner) {
            *place = None;
            self.free.push(dump.cached);
        }
    }
}
