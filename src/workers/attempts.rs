//! How often a job has died: marks on disk, set before a job starts, taken back when it ends by itself.
//!
//! Owns `finished/<name>.attempt`, one byte per attempt that has begun and not ended. A name of a dump never holds a
//! dot. A mark survives what the job does not: a panic, a stack overflow, the end of the process for want of memory.
//! Rules: our contract, section 3: a dump whose job died twice goes to quarantine; failed storage is no death. What
//! follows from a number of deaths is in `prepare` and `worker`.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};

use log::warn;
use rustix::fs::OFlags;

use crate::beneath::{self, Opened};
use crate::logging::value;

/// What a marker's name has behind that of its dump.
pub(super) const SUFFIX: &str = ".attempt";

/// An attempt that has begun.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    folder: BorrowedFd<'a>,
    name: String,
    marker: Option<File>,
    deaths: u64,
}

impl<'a> Attempt<'a> {
    /// Marks the beginning of an attempt.
    ///
    /// # Errors
    /// Whatever the file system says. A full disk is none: the job goes on unmarked, for it is what frees the disk.
    pub(super) fn begin(folder: BorrowedFd<'a>, dump: &str) -> io::Result<Self> {
        let name = format!("{dump}{SUFFIX}");
        match mark(folder, &name) {
            Ok((marker, deaths)) => Ok(Self { folder, name, marker: Some(marker), deaths }),
            Err(error) if is_full(&error) => {
                warn!("job.unmarked dump={dump} err={}", value(error));
                Ok(Self { folder, name, marker: None, deaths: 0 })
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
        match self.marker {
            Some(marker) if self.deaths > 0 => marker.set_len(self.deaths),
            Some(_) => beneath::remove(self.folder, &self.name).map(drop),
            None => Ok(()),
        }
    }

    /// Removes the marks of this attempt and of all before: the job is done.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(super) fn clear(self) -> io::Result<()> {
        if self.marker.is_some() { beneath::remove(self.folder, &self.name).map(drop) } else { Ok(()) }
    }
}

/// Adds a mark to the marker; also gives how many it held before.
fn mark(folder: BorrowedFd<'_>, name: &str) -> io::Result<(File, u64)> {
    let (mut marker, stat) = beneath::open_append(folder, name)?;
    let deaths = u64::try_from(stat.st_size).unwrap_or(0);
    marker.write_all(b"x")?;
    Ok((marker, deaths))
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// How many marks `dump` has.
///
/// # Errors
/// Whatever the file system says.
pub(super) fn count(folder: impl AsFd, dump: &str) -> io::Result<u64> {
    let stat = beneath::look(folder, &format!("{dump}{SUFFIX}"))?;
    Ok(stat.map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0)))
}

/// Removes every mark of `dump`.
///
/// # Errors
/// Whatever the file system says.
pub(super) fn forget(folder: impl AsFd, dump: &str) -> io::Result<()> {
    beneath::remove(folder, &format!("{dump}{SUFFIX}")).map(drop)
}

/// Takes one mark of `dump` back on behalf of an attempt that the end of the server interrupts.
///
/// # Errors
/// Whatever the file system says.
pub(super) fn interrupted(folder: impl AsFd, dump: &str) -> io::Result<()> {
    match beneath::open_file(&folder, &format!("{dump}{SUFFIX}"), OFlags::RDWR)? {
        Opened::File(_, stat) if stat.st_size <= 1 => forget(folder, dump),
        Opened::File(marker, stat) => marker.set_len(u64::try_from(stat.st_size - 1).unwrap_or(0)),
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
        begin().end().unwrap();
        assert_eq!(std::fs::read(dir.path().join("x.attempt")).unwrap(), b"x");
        assert_eq!(begin().deaths(), 1);
        assert_eq!(count(&root, "x").unwrap(), 2);
        interrupted(&root, "x").unwrap();
        let attempt = begin();
        assert_eq!(attempt.deaths(), 1);
        attempt.clear().unwrap();
        assert!(!dir.path().join("x.attempt").exists());
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
