//! The memory of ended sessions on disk, so that it survives a restart and a crash.
//!
//! Owns `<temp_path>/.ended`: one line per numbered session that was finished, `<id> <last number> <by client: 0|1>
//! <until, ms since 1970>`. A client that did not hear the answer to its last close comes back, and after a crash only
//! this file knows that all it has to send is stored already. Without it such a client would fill a second dump with
//! what is in the first.
//!
//! A line is appended before its dump is moved to the finished ones. A crash in between leaves both, and the dump in
//! progress is the one that is believed. The file stays open between sessions that end within a second, and no longer
//! ([`EndedJournal::close`]), so that no descriptor outlives a removed folder by more than that. It is never synced: what a
//! power cut takes from it is a second copy of entries, never an entry.
//! Bounded: rewritten at start, and when it has grown to `BYTES_MAX`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::OFlags;

use crate::beneath::{self, Opened};
use crate::client::SessionId;
use crate::dump_folder::{DumpFolder, ENDED, ENDED_NEW};

/// Size at which the file is rewritten without what is out of date: a hundred thousand lines of the usual 60 bytes,
/// and as many that are not needed any more.
const BYTES_MAX: u64 = 12 * 1024 * 1024;

/// A session that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedSession {
    /// Its id.
    pub id: SessionId,
    /// Its last number.
    pub last: u64,
    /// Whether its client ended it, and is to be told so when it comes back.
    pub by_client: bool,
    /// Until when it is remembered.
    pub until: SystemTime,
}

impl EndedSession {
    fn write_line(&self, out: &mut Vec<u8>) {
        let until_ms = self.until.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let line = format!("{} {} {} {until_ms}\n", self.id, self.last, u8::from(self.by_client));
        out.extend_from_slice(line.as_bytes());
    }

    /// `None` for what we did not write, or not wholly.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let id = SessionId::parse(words.next()?)?;
        let last = words.next()?.parse().ok()?;
        let by_client = match words.next()? {
            "0" => false,
            "1" => true,
            _ => return None,
        };
        let until = UNIX_EPOCH.checked_add(Duration::from_millis(words.next()?.parse().ok()?))?;
        words.next().is_none().then_some(Self { id, last, by_client, until })
    }
}

/// The file.
#[derive(Debug)]
pub struct EndedJournal {
    folder: Arc<DumpFolder>,
    bytes: u64,
    /// The file, with `bytes` bytes, since a line was appended.
    file: Option<File>,
}

impl EndedJournal {
    /// The file in `folder`.
    #[must_use]
    pub fn new(folder: Arc<DumpFolder>) -> Self {
        Self { folder, bytes: 0, file: None }
    }

    /// What an earlier server remembered and is not out of date, oldest first.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn read(&mut self, now: SystemTime) -> io::Result<Vec<EndedSession>> {
        let Opened::File(file, _) = beneath::open_file(self.folder.root(), ENDED, OFlags::RDONLY)? else {
            return Ok(Vec::new());
        };
        let mut bytes = Vec::new();
        // Twice the bound is more than there can be; a larger file is not ours.
        file.take(2 * BYTES_MAX).read_to_end(&mut bytes)?;
        self.bytes = bytes.len() as u64;
        // What follows the last line feed is torn.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let text = String::from_utf8_lossy(bytes.get(..whole).unwrap_or_default());
        Ok(text.lines().filter_map(EndedSession::parse).filter(|ended| ended.until > now).collect())
    }

    /// Whether the file was empty, or not there, when it was last touched.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Whether [`EndedJournal::rewrite`] is due.
    #[must_use]
    pub fn is_long(&self) -> bool {
        self.bytes > BYTES_MAX
    }

    /// Replaces the file by one that holds `all`.
    ///
    /// # Errors
    /// Whatever the file system says; the old file is still there then.
    pub fn rewrite(&mut self, all: impl Iterator<Item = EndedSession>) -> io::Result<()> {
        let mut bytes = Vec::new();
        all.for_each(|ended| ended.write_line(&mut bytes));
        let root = self.folder.root();
        self.close();
        beneath::remove(&root, ENDED_NEW)?;
        beneath::create_new(&root, ENDED_NEW)?.write_all(&bytes)?;
        rustix::fs::renameat(&root, ENDED_NEW, &root, ENDED)?;
        self.bytes = bytes.len() as u64;
        Ok(())
    }

    /// Adds one session.
    ///
    /// # Errors
    /// Whatever the file system says; the file then ends where it ended before.
    pub fn append(&mut self, ended: &EndedSession) -> io::Result<()> {
        let mut line = Vec::with_capacity(80);
        ended.write_line(&mut line);
        let mut file = match self.file.take() {
            Some(file) => file,
            None => {
                let (file, stat) = beneath::open_append(self.folder.root(), ENDED)?;
                self.bytes = u64::try_from(stat.st_size).unwrap_or(0);
                file
            }
        };
        if let Err(error) = file.write_all(&line) {
            file.set_len(self.bytes)?;
            return Err(error);
        }
        self.bytes += line.len() as u64;
        self.file = Some(file);
        Ok(())
    }

    /// Closes the file until the next session ends. Called once a second, and when the folder was removed.
    pub fn close(&mut self) {
        self.file = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(id: &str, last: u64, until_s: u64) -> EndedSession {
        let until = UNIX_EPOCH + Duration::from_secs(until_s);
        EndedSession { id: SessionId::parse(id).unwrap(), last, by_client: last % 2 == 1, until }
    }

    #[test]
    fn what_was_remembered_is_read_back_and_what_is_torn_or_old_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, _) = DumpFolder::open(dir.path()).unwrap();
        let mut journal = EndedJournal::new(Arc::new(folder));
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        assert_eq!(journal.read(now).unwrap(), []);
        let (old, one, two) = (ended("old", 1, 999), ended("one", 8, 1_001), ended("two-2_", 9, 2_000));
        for ended in [&old, &one, &two] {
            journal.append(ended).unwrap();
            if ended == &one {
                journal.close();
            }
        }
        let path = dir.path().join(ENDED);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend_from_slice(b"torn 5 1 20000");
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(journal.read(now).unwrap(), [one.clone(), two.clone()]);
        journal.append(&two).unwrap();
        journal.rewrite([one.clone()].into_iter()).unwrap();
        assert_eq!(journal.read(now).unwrap(), std::slice::from_ref(&one));
        journal.append(&two).unwrap();
        assert_eq!(journal.read(now).unwrap(), [one, two], "the new file goes on, not the one that was open");
        assert!(!journal.is_long());
    }

    #[test]
    fn what_is_not_ours_is_passed_over() {
        for line in ["", "a", "a 1 1", "a 1 2 5", "a x 1 5", "../a 1 1 5", "a 1 1 5 6", "a 1 1 -5"] {
            assert_eq!(EndedSession::parse(line), None, "{line:?}");
        }
    }
}
