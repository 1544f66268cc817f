//! Whether the dump folder can take more: is it there, can it be written, is there space.
//!
//! Looked at once a second, and when something could not be written. As long as it cannot, new sessions and reconnects are
//! refused before any greeting; open sessions go on. What changes is told once. Nothing here appends to a dump: it is
//! called where an append has failed.

use std::io;

use log::{error, info};

use super::{Collector, Now};
use crate::logging::{chain, value};
use crate::metrics::Tally;
use crate::reasons::Refusal;

/// How the dump folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Disk {
    space: Space,
    /// The folder is gone and cannot be created again.
    is_folder_lost: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Space {
    #[default]
    Enough,
    /// Less than `dump.min_free_bytes`.
    Low,
    /// Nothing can be written, or the file system does not even tell how much.
    Unwritable,
}

impl Space {
    /// `written`: whether the folder could be written just now; `free_bytes`: what its file system says.
    fn of(written: &io::Result<()>, free_bytes: &io::Result<u64>, free_bytes_min: u64) -> Self {
        match (written, free_bytes) {
            (Err(_), _) | (_, Err(_)) => Self::Unwritable,
            (Ok(()), Ok(free)) if *free < free_bytes_min => Self::Low,
            (Ok(()), Ok(_)) => Self::Enough,
        }
    }
}

impl Collector {
    /// Why nobody can be let in, when the dump folder has not the space for it, cannot be written, or is gone.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        match self.disk {
            Disk { is_folder_lost: true, .. } | Disk { space: Space::Unwritable, .. } => {
                Some(Refusal::DiskUnwritable)
            }
            Disk { space: Space::Low, .. } => Some(Refusal::DiskFull),
            Disk { space: Space::Enough, .. } => None,
        }
    }

    /// Proves that the server lives, looks at the free space again and returns it. Called once a second.
    pub fn check_disk(&mut self) -> Option<u64> {
        let (written, free) = (self.dumps.beat(), self.dumps.free_bytes());
        let min = self.settings.min_free_bytes;
        let space = Space::of(&written, &free, min);
        if space != self.disk.space {
            self.disk.space = space;
            let bytes = free.as_ref().copied().unwrap_or(0);
            match space {
                Space::Enough => info!("disk.recovered free_bytes={bytes} free_bytes_min={min}"),
                Space::Low => {
                    error!("disk.low free_bytes={bytes} free_bytes_min={min}: new sessions are refused");
                }
                Space::Unwritable => {
                    let cause = written.as_ref().err().or(free.as_ref().err());
                    let cause = cause.map_or_else(String::new, io::Error::to_string);
                    error!("disk.unwritable err={}: new sessions are refused", value(cause));
                }
            }
        }
        free.ok()
    }

    /// Looks whether the dump folder was removed, and tries once more to write and to finish what could not be. Called once
    /// a second.
    pub fn check_folder(&mut self, tally: &mut Tally, now: Now) {
        self.restore_folder(tally);
        for dump in std::mem::take(&mut self.unfinished) {
            self.finish_leftover(&dump, tally, now);
        }
        self.retry_held(tally, now);
    }

    /// Creates the dump folder again when it, or a folder in it, was removed, and gives up the dumps that went with it. Also
    /// called when a dump cannot be created or finished for want of its folder.
    pub(super) fn restore_folder(&mut self, tally: &mut Tally) {
        match self.dumps.restore_folder() {
            Ok(false) => {}
            Ok(true) => {
                self.disk.is_folder_lost = false;
                self.journal.close();
                error!("disk.recreated: the dump folder was removed and is created again");
                for key in self.sessions.all() {
                    self.give_up_removed(key, tally);
                }
            }
            Err(cause) => {
                if !self.disk.is_folder_lost {
                    error!("disk.lost err={}: new sessions are refused", value(chain(&cause)));
                }
                self.disk.is_folder_lost = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_found_out_is_no_space() {
        let broken = || io::Error::from_raw_os_error(5);
        let cases = [
            (Ok(()), Ok(100), Space::Enough),
            (Ok(()), Ok(99), Space::Low),
            (Err(broken()), Ok(100), Space::Unwritable),
            (Ok(()), Err(broken()), Space::Unwritable),
            (Err(broken()), Err(broken()), Space::Unwritable),
            // A file system that is read-only has no space either; that is not what is wrong.
            (Err(broken()), Ok(0), Space::Unwritable),
        ];
        for (written, free, expected) in cases {
            assert_eq!(Space::of(&written, &free, 100), expected, "{written:?} {free:?}");
        }
    }
}
