//! The dump folder: its lock, its heartbeat, and the ways of a dump through its three places.
//!
//! Owns the descriptors of `<temp_path>`, `finished/` and `quarantine/`. A dump that is open or waits is in the
//! first; the loop moves it to the second when it is finished, by rename, and there it is a job; a worker moves it
//! to the third when its job has died twice. Never reads or writes a dump.
//! Rules: our contract, section 3.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustix::fs::{Access, AtFlags, FlockOperation, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use crate::beneath;

/// Longest name of a dump: an id of at most 128 characters and its part, with room to spare.
pub const NAME_BYTES_MAX: usize = 200;
/// Suffixes that are tried for a name that is taken, before the attempt fails.
const SUFFIX_MAX: u32 = 10_000;

const LOCK: &str = ".lock";
const FINISHED: &str = "finished";
const QUARANTINE: &str = "quarantine";
/// The memory of ended sessions, see [`crate::ended`].
pub(crate) const ENDED: &str = ".ended";
/// The same while it is rewritten.
pub(crate) const ENDED_NEW: &str = ".ended.new";

/// Whether a file of this name can be a dump: `^[A-Za-z0-9_-]{1,200}$`.
#[must_use]
pub fn is_dump_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// Why the dump folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another process holds the lock.
    #[error("{}: another server uses this dump folder", path.display())]
    InUse {
        /// The lock file.
        path: PathBuf,
    },
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
}

/// The dump folder of the running server, locked as long as this value lives.
///
/// Whoever works in one of its folders holds a [`Place`], so that the folders can be replaced when somebody has
/// removed them: what is under way then goes on in the old one, and fails or is lost with it.
#[derive(Debug)]
pub struct DumpFolder {
    path: PathBuf,
    /// Changed by [`DumpFolder::recreate`] alone; held for the time of a clone.
    places: RwLock<Arc<Places>>,
}

#[derive(Debug)]
struct Places {
    root: Arc<OwnedFd>,
    finished: Arc<OwnedFd>,
    quarantine: Arc<OwnedFd>,
    lock: Arc<File>,
}

/// One of the folders, open.
#[derive(Debug, Clone)]
pub struct Place(Arc<OwnedFd>);

/// All of them, as they are at one moment.
#[derive(Debug, Clone)]
pub struct Folders {
    /// Dumps that are open or wait.
    pub root: Place,
    /// Dumps that are jobs.
    pub finished: Place,
    /// Dumps whose jobs died twice.
    pub quarantine: Place,
}

impl Place {
    /// Whether both are one opening of one folder; what was removed and created again is another one.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl AsFd for Place {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl DumpFolder {
    /// Creates what is missing and takes the lock. Also gives the last heartbeat of the server before this one.
    ///
    /// # Errors
    /// [`FolderError::InUse`] when another server has it; else whatever the file system says.
    pub fn open(path: &Path) -> Result<(Self, Option<SystemTime>), FolderError> {
        let fail = |action, path: PathBuf| move |source| FolderError::Io { action, path, source };
        let root = beneath::open_root(path).map_err(fail("open the dump folder", path.to_owned()))?;
        let known = beneath::look(&root, LOCK).map_err(fail("look at the lock", path.join(LOCK)))?;
        let lock = take_lock(&root, path)?;
        let sub = |name: &str| open_sub(&root, name, path);
        let (finished, quarantine) = (sub(FINISHED)?, sub(QUARANTINE)?);
        let heartbeat = known.as_ref().and_then(modified);
        let places = Places { root: Arc::new(root), finished, quarantine, lock: Arc::new(lock) };
        Ok((Self { path: path.to_owned(), places: RwLock::new(Arc::new(places)) }, heartbeat))
    }

    /// The configured path, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of the dumps that are open or wait.
    #[must_use]
    pub fn root(&self) -> Place {
        Place(Arc::clone(&self.places().root))
    }

    /// The folder of the dumps that are jobs.
    #[must_use]
    pub fn finished(&self) -> Place {
        Place(Arc::clone(&self.places().finished))
    }

    /// All folders.
    #[must_use]
    pub fn folders(&self) -> Folders {
        let places = self.places();
        let place = |folder| Place(Arc::clone(folder));
        Folders {
            root: place(&places.root),
            finished: place(&places.finished),
            quarantine: place(&places.quarantine),
        }
    }

    fn places(&self) -> Arc<Places> {
        // A panic cannot leave it half changed: one pointer is all that is ever written.
        Arc::clone(&self.places.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sets the time of the lock to now: proof of life for the next start, and of a file system that can be written. Two
    /// system calls.
    ///
    /// # Errors
    /// Whatever the file system says, also when nothing may be created in the folder.
    pub fn beat(&self) -> io::Result<()> {
        let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
        let places = self.places();
        rustix::fs::futimens(&*places.lock, &Timestamps { last_access: now, last_modification: now })?;
        Ok(rustix::fs::accessat(&places.root, ".", Access::WRITE_OK, AtFlags::empty())?)
    }

    /// Whether somebody removed the folder under the running server, or one of ours in it. What is written to it then
    /// is lost.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn is_removed(&self) -> io::Result<bool> {
        let places = self.places();
        let Places { root, finished, quarantine, lock } = &*places;
        Ok(!(is_linked(root)? && is_linked(finished)? && is_linked(quarantine)? && is_linked(lock)?))
    }

    /// Creates again what was removed. What is still there is kept, the lock above all: it is ours already, and a new
    /// one is taken only where the old one is gone, so that no second server can believe the folder its own.
    ///
    /// # Errors
    /// As [`DumpFolder::open`]; nothing has changed then.
    pub fn recreate(&self) -> Result<(), FolderError> {
        let path = &self.path;
        let fail = |source| FolderError::Io { action: "look at the dump folder", path: path.clone(), source };
        let old = self.places();
        let has_root = is_linked(&old.root).map_err(fail)?;
        let root = if has_root {
            Arc::clone(&old.root)
        } else {
            let opened = beneath::open_root(path);
            let cause =
                |source| FolderError::Io { action: "create the dump folder", path: path.clone(), source };
            Arc::new(opened.map_err(cause)?)
        };
        let lock = if has_root && is_linked(&old.lock).map_err(fail)? {
            Arc::clone(&old.lock)
        } else {
            Arc::new(take_lock(&root, path)?)
        };
        let sub = |old: &Arc<OwnedFd>, name| {
            if has_root && is_linked(old).map_err(fail)? {
                Ok(Arc::clone(old))
            } else {
                open_sub(&root, name, path)
            }
        };
        let (finished, quarantine) = (sub(&old.finished, FINISHED)?, sub(&old.quarantine, QUARANTINE)?);
        let new = Arc::new(Places { root, finished, quarantine, lock });
        *self.places.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// Whether a dump of this name still waits to be processed. A new dump must not get that name: its first line
    /// could not tell its id any more once [`finish`](Self::finish) has to rename it.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn is_waiting(&self, name: &str) -> io::Result<bool> {
        Ok(beneath::look(self.finished(), name)?.is_some())
    }

    /// Moves the dump `name` to the jobs and gives the name that it has there: with a suffix when a dump of that
    /// name still waits to be processed.
    ///
    /// # Errors
    /// Whatever the file system says; the dump then stays where it is.
    pub fn finish(&self, name: &str) -> io::Result<String> {
        let places = self.places();
        move_to_free(&places.root, name, &places.finished)
    }

    /// Moves the job `name` to the quarantine and gives the name that it has there.
    ///
    /// # Errors
    /// Whatever the file system says; the dump then stays where it is.
    pub fn quarantine(&self, name: &str) -> io::Result<String> {
        let places = self.places();
        move_to_free(&places.finished, name, &places.quarantine)
    }

    /// Whether `name` in the root is one of our own files and folders that are no dumps.
    pub(crate) fn is_own(name: &str) -> bool {
        matches!(name, LOCK | FINISHED | QUARANTINE | ENDED | ENDED_NEW)
    }
}

/// Modification time; `None` before 1970, which no dump is.
pub(crate) fn modified(stat: &Stat) -> Option<SystemTime> {
    let seconds = u64::try_from(stat.st_mtime).ok()?;
    let nanoseconds = u32::try_from(stat.st_mtime_nsec).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds))
}

/// Takes the lock in the folder `root`, which is `path`. The file is opened for reading alone: an open descriptor for
/// writing would keep an administrator from remounting the file system read-only, and nothing is ever written to it.
fn take_lock(root: &OwnedFd, path: &Path) -> Result<File, FolderError> {
    let path = path.join(LOCK);
    let fail = |action| {
        let path = path.clone();
        move |source| FolderError::Io { action, path, source }
    };
    let lock = beneath::open_lock(root, LOCK).map_err(fail("open the lock"))?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(Errno::WOULDBLOCK) => Err(FolderError::InUse { path }),
        Err(error) => Err(fail("take the lock")(error.into())),
    }
}

fn open_sub(root: &OwnedFd, name: &str, path: &Path) -> Result<Arc<OwnedFd>, FolderError> {
    let opened = beneath::open_folder(root, name).map(|(descriptor, _)| Arc::new(descriptor));
    opened.map_err(|source| FolderError::Io { action: "open the folder", path: path.join(name), source })
}

fn is_linked(file: impl AsFd) -> io::Result<bool> {
    Ok(rustix::fs::fstat(file)?.st_nlink > 0)
}

fn move_to_free(from: &OwnedFd, name: &str, to: &OwnedFd) -> io::Result<String> {
    let mut free = name.to_owned();
    for suffix in 1..=SUFFIX_MAX {
        match beneath::publish(from, name, to, &free) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => free = format!("{name}_{suffix}"),
            other => return other.map(|()| free),
        }
    }
    Err(Errno::EXIST.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn names_of_dumps() {
        for (name, expected) in [
            ("a", true),
            ("9c93a447-c9f8_1", true),
            ("", false),
            (".lock", false),
            ("a.attempt", false),
            ("a b", false),
            ("lost+found", false),
            ("ä", false),
        ] {
            assert_eq!(is_dump_name(name), expected, "{name:?}");
        }
        assert!(is_dump_name(&"x".repeat(NAME_BYTES_MAX)));
        assert!(!is_dump_name(&"x".repeat(NAME_BYTES_MAX + 1)));
    }

    #[test]
    fn a_second_server_on_one_folder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("temp");
        let (first, heartbeat) = DumpFolder::open(&path).unwrap();
        assert_eq!(heartbeat, None, "nobody was here before");
        let refused = DumpFolder::open(&path).unwrap_err();
        assert!(matches!(refused, FolderError::InUse { .. }), "{refused}");
        drop(first);
        let (_, heartbeat) = DumpFolder::open(&path).unwrap();
        assert!(heartbeat.is_some());
    }

    #[test]
    fn the_heartbeat_of_the_server_before_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, _) = DumpFolder::open(dir.path()).unwrap();
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        File::options().write(true).open(dir.path().join(LOCK)).unwrap().set_modified(old).unwrap();
        drop(folder);
        let (folder, heartbeat) = DumpFolder::open(dir.path()).unwrap();
        assert_eq!(heartbeat, Some(old));
        folder.beat().unwrap();
        let now = folder.places().lock.metadata().unwrap().modified().unwrap();
        assert!(now > old, "the heartbeat moved");
    }

    #[test]
    fn a_link_in_place_of_our_folders_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        symlink(elsewhere.path(), dir.path().join(FINISHED)).unwrap();
        let error = DumpFolder::open(dir.path()).unwrap_err();
        assert!(matches!(error, FolderError::Io { .. }), "{error}");
    }

    #[test]
    fn a_finished_dump_never_replaces_one_that_still_waits() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, _) = DumpFolder::open(dir.path()).unwrap();
        for (content, expected) in [("one", "x"), ("two", "x_1"), ("three", "x_2")] {
            assert_eq!(folder.is_waiting("x").unwrap(), content != "one");
            std::fs::write(dir.path().join("x"), content).unwrap();
            assert_eq!(folder.finish("x").unwrap(), expected);
            assert_eq!(std::fs::read_to_string(dir.path().join(FINISHED).join(expected)).unwrap(), content);
        }
        assert_eq!(folder.quarantine("x_2").unwrap(), "x_2");
        assert_eq!(folder.finish("x").unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_removed_folder_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("temp");
        let (folder, _) = DumpFolder::open(&path).unwrap();
        assert!(!folder.is_removed().unwrap());
        std::fs::remove_dir_all(&path).unwrap();
        assert!(folder.is_removed().unwrap());
        folder.recreate().unwrap();
        assert!(!folder.is_removed().unwrap());
        assert!(
            matches!(DumpFolder::open(&path), Err(FolderError::InUse { .. })),
            "the new lock is held, too"
        );
        std::fs::write(path.join("x"), "one").unwrap();
        assert_eq!(folder.finish("x").unwrap(), "x");
    }

    #[test]
    fn what_was_not_removed_is_kept() {
        for gone in [LOCK, FINISHED, QUARANTINE] {
            let dir = tempfile::tempdir().unwrap();
            let (folder, _) = DumpFolder::open(dir.path()).unwrap();
            let path = dir.path().join(gone);
            if gone == LOCK { std::fs::remove_file(&path) } else { std::fs::remove_dir(&path) }.unwrap();
            assert!(folder.is_removed().unwrap(), "{gone}");
            folder.recreate().unwrap();
            assert!(path.exists() && !folder.is_removed().unwrap(), "{gone}");
            assert!(matches!(DumpFolder::open(dir.path()), Err(FolderError::InUse { .. })), "{gone}");
        }
    }

    #[test]
    fn a_folder_that_another_server_has_created_meanwhile_is_left_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("temp");
        let (folder, _) = DumpFolder::open(&path).unwrap();
        std::fs::remove_dir_all(&path).unwrap();
        let (_other, _) = DumpFolder::open(&path).unwrap();
        assert!(matches!(folder.recreate(), Err(FolderError::InUse { .. })));
        assert!(folder.is_removed().unwrap());
    }
}
