//! How often a job has died: marks on disk, set before a job starts, taken back when it ends by itself.
//!
//! Owns `finished/<name>.attempt`, which counts the attempts that have begun and not ended: one without content, or with
//! one byte, is the first of them, and each further one makes it as many bytes as there are. A first attempt, which
//! nearly all are, so takes no space and no descriptor. A name of a dump never holds a dot. A mark survives what the job
//! does not: a panic, a stack overflow, the end of the process for want of memory.
//! Rules: our contract, section 3: a dump whose job died twice goes to quarantine; failed storage is no death. What
//! follows from a number of deaths is in `prepare` and `worker`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use log::warn;
use rustix::fs::{OFlags, Stat};

use crate::beneath::{self, Opened};
use crate::logging::value;

/// What a marker's name has behind that of its dump.
pub(super) const SUFFIX: &str = ".attempt";

/// An attempt that has begun.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    folder: BorrowedFd<'a>,
    dump: &'a str,
    is_marked: bool,
    deaths: u64,
}

impl<'a> Attempt<'a> {
    /// Marks the beginning of an attempt.
    ///
    /// # Errors
    /// Whatever the file system says. A full disk is none: the job goes on unmarked, for it is what frees the disk.
    pub(super) fn begin(folder: BorrowedFd<'a>, dump: &'a str) -> io::Result<Self> {
        match mark(folder, &marker(dump)) {
            Ok(deaths) => Ok(Self { folder, dump, is_marked: true, deaths }),
            Err(error) if is_full(&error) => {
                warn!("job.unmarked dump={dump} err={}", value(error));
                Ok(Self { folder, dump, is_marked: false, deaths: 0 })
            }
            Err(error) => Err(error),
        }
    }

    /// Attempts that died before this one.
    pub(super) fn deaths(&self) -> u64 {
        self.deaths
    }

    /// Takes the mark of this attempt back: it ended by itself, whatever came of it.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(super) fn end(self) -> io::Result<()> {
        if self.deaths > 0 { interrupted(self.folder, self.dump) } else { self.clear() }
    }

    /// Removes the marks of this attempt and of all before: the job is done.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(super) fn clear(self) -> io::Result<()> {
        if self.is_marked { forget(self.folder, self.dump) } else { Ok(()) }
    }
}

fn marker(dump: &str) -> String {
    format!("{dump}{SUFFIX}")
}

/// Adds a mark to the marker `name`; also gives how many it held before.
fn mark(folder: BorrowedFd<'_>, name: &str) -> io::Result<u64> {
    if beneath::create_empty(folder, name)? {
        return Ok(0);
    }
    let (marker, stat) = beneath::open_append(folder, name)?;
    let deaths = marks(&stat);
    marker.set_len(deaths + 1)?;
    Ok(deaths)
}

/// How many marks a marker holds.
fn marks(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0).max(1)
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// How many marks `dump` has.
///
/// # Errors
/// Whatever the file system says.
pub(super) fn count(folder: impl AsFd, dump: &str) -> io::Result<u64> {
    Ok(beneath::look(folder, &marker(dump))?.map_or(0, |stat| marks(&stat)))
}

/// Removes every mark of `dump`.
///
/// # Errors
/// Whatever the file system says.
pub(super) fn forget(folder: impl AsFd, dump: &str) -> io::Result<()> {
    beneath::remove(folder, &marker(dump)).map(drop)
}

/// Takes one mark of `dump` back on behalf of an attempt that the end of the server interrupts.
///
/// # Errors
/// Whatever the file system says.
pub(super) fn interrupted(folder: impl AsFd, dump: &str) -> io::Result<()> {
    match beneath::open_file(&folder, &marker(dump), OFlags::RDWR)? {
        Opened::File(marker, stat) => match marks(&stat) {
            1 => forget(folder, dump),
            count => marker.set_len(count - 1),
        },
        Opened::Absent | Opened::NotAFile => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_attempts_that_did_not_end_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let root = beneath::open_root(dir.path()).unwrap();
        let begin = || Attempt::begin(root.as_fd(), "x").unwrap();
        assert_eq!(begin().deaths(), 0);
        assert_eq!(
            std::fs::metadata(dir.path().join("x.attempt")).unwrap().len(),
            0,
            "the first takes no space"
        );
        begin().end().unwrap();
        assert_eq!(count(&root, "x").unwrap(), 1);
        assert_eq!(begin().deaths(), 1);
        assert_eq!(count(&root, "x").unwrap(), 2);
        interrupted(&root, "x").unwrap();
        let attempt = begin();
        assert_eq!(attempt.deaths(), 1);
        attempt.clear().unwrap();
        assert!(!dir.path().join("x.attempt").exists());
    }

    #[test]
    fn a_mark_of_one_byte_is_one_too() {
        let dir = tempfile::tempdir().unwrap();
        let root = beneath::open_root(dir.path()).unwrap();
        std::fs::write(dir.path().join("x.attempt"), "x").unwrap();
        assert_eq!(Attempt::begin(root.as_fd(), "x").unwrap().deaths(), 1);
        assert_eq!(count(&root, "x").unwrap(), 2);
    }

    #[test]
    fn an_attempt_that_ends_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let root = beneath::open_root(dir.path()).unwrap();
        Attempt::begin(root.as_fd(), "x").unwrap().end().unwrap();
        Attempt::begin(root.as_fd(), "x").unwrap();
        interrupted(&root, "x").unwrap();
        interrupted(&root, "x").unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_link_is_no_marker() {
        let dir = tempfile::tempdir().unwrap();
        let root = beneath::open_root(dir.path()).unwrap();
        std::os::unix::fs::symlink(dir.path().join("target"), dir.path().join("x.attempt")).unwrap();
        Attempt::begin(root.as_fd(), "x").unwrap_err();
        assert!(!dir.path().join("target").exists());
    }
}
