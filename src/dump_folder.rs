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
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use crate::beneath;

/// Longest name of a dump: an id of at most 128 characters and its part, with room to spare.
pub const NAME_BYTES_MAX: usize = 200;
/// Suffixes that are tried for a name that is taken, before the attempt fails.
const SUFFIX_MAX: u32 = 10_000;

const LOCK: &str = ".lock";
const FINISHED: &str = "finished";
const QUARANTINE: &str = "quarantine";

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
#[derive(Debug)]
pub struct DumpFolder {
    path: PathBuf,
    root: OwnedFd,
    finished: OwnedFd,
    quarantine: OwnedFd,
    lock: File,
}

impl DumpFolder {
    /// Creates what is missing and takes the lock. Also gives the last heartbeat of the server before this one.
    ///
    /// # Errors
    /// [`FolderError::InUse`] when another server has it; else whatever the file system says.
    pub fn open(path: &Path) -> Result<(Self, Option<SystemTime>), FolderError> {
        let fail = |action, path: PathBuf| move |source| FolderError::Io { action, path, source };
        let root = beneath::open_root(path).map_err(fail("open the dump folder", path.to_owned()))?;
        let lock_path = path.join(LOCK);
        let known = beneath::look(&root, LOCK).map_err(fail("look at the lock", lock_path.clone()))?;
        let (lock, _) =
            beneath::open_append(&root, LOCK).map_err(fail("open the lock", lock_path.clone()))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(FolderError::InUse { path: lock_path }),
            Err(error) => return Err(fail("take the lock", lock_path)(error.into())),
        }
        let sub = |name: &str| {
            beneath::open_folder(&root, name)
                .map(|(descriptor, _)| descriptor)
                .map_err(fail("open the folder", path.join(name)))
        };
        let (finished, quarantine) = (sub(FINISHED)?, sub(QUARANTINE)?);
        let heartbeat = known.as_ref().and_then(modified);
        Ok((Self { path: path.to_owned(), root, finished, quarantine, lock }, heartbeat))
    }

    /// The configured path, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of the dumps that are open or wait.
    #[must_use]
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The folder of the dumps that are jobs.
    #[must_use]
    pub fn finished(&self) -> BorrowedFd<'_> {
        self.finished.as_fd()
    }

    /// Sets the time of the lock to now: proof of life for the next start. One system call.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn beat(&self) -> io::Result<()> {
        let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
        Ok(rustix::fs::futimens(&self.lock, &Timestamps { last_access: now, last_modification: now })?)
    }

    /// Whether somebody removed the folder under the running server. What is written to it then is lost.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn is_removed(&self) -> io::Result<bool> {
        let linked = |folder: &OwnedFd| rustix::fs::fstat(folder).map(|stat| stat.st_nlink > 0);
        Ok(!(linked(&self.root)? && linked(&self.finished)?))
    }

    /// Whether a dump of this name still waits to be processed. A new dump must not get that name: its first line
    /// could not tell its id any more once [`finish`](Self::finish) has to rename it.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn is_waiting(&self, name: &str) -> io::Result<bool> {
        Ok(beneath::look(&self.finished, name)?.is_some())
    }

    /// Moves the dump `name` to the jobs and gives the name that it has there: with a suffix when a dump of that
    /// name still waits to be processed.
    ///
    /// # Errors
    /// Whatever the file system says; the dump then stays where it is.
    pub fn finish(&self, name: &str) -> io::Result<String> {
        move_to_free(&self.root, name, &self.finished)
    }

    /// Moves the job `name` to the quarantine and gives the name that it has there.
    ///
    /// # Errors
    /// Whatever the file system says; the dump then stays where it is.
    pub fn quarantine(&self, name: &str) -> io::Result<String> {
        move_to_free(&self.finished, name, &self.quarantine)
    }

    /// Whether `name` in the root is one of our own files and folders that are no dumps.
    pub(crate) fn is_own(name: &str) -> bool {
        matches!(name, LOCK | FINISHED | QUARANTINE)
    }
}

/// Modification time; `None` before 1970, which no dump is.
pub(crate) fn modified(stat: &Stat) -> Option<SystemTime> {
    let seconds = u64::try_from(stat.st_mtime).ok()?;
    let nanoseconds = u32::try_from(stat.st_mtime_nsec).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds))
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
        folder.lock.set_modified(old).unwrap();
        drop(folder);
        let (folder, heartbeat) = DumpFolder::open(dir.path()).unwrap();
        assert_eq!(heartbeat, Some(old));
        folder.beat().unwrap();
        let now = folder.lock.metadata().unwrap().modified().unwrap();
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
    }
}
