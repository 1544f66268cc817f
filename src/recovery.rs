//! What an earlier server left in the dump folder: dumps that were open or waited when it ended.
//!
//! Owns the look at each such file: a torn last line is cut off, the first line says whose it is, the last numbered
//! line how far it came. Each file costs a bounded number of bytes read. The scan runs on a thread of its own and
//! reports in chunks, so that it never delays the loop; the loop can look at a single file that it needs at once.
//! Never decides what becomes of a dump, and never touches what is no dump: links, folders, devices and files of
//! other names are left alone and reported.
//! Rules: our contract, sections 3, 4 and 7.

pub mod first_line;
pub mod tail;

use std::collections::HashSet;
use std::fs::{File, FileTimes};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::SystemTime;

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{info, warn};
use rustix::fs::{Dir, OFlags, Stat};

use crate::beneath::{self, Opened};
use crate::client::ClientType;
use crate::dump_folder::{self, DumpFolder, is_dump_name};
use crate::jobs::Wake;
use crate::logging::value;
use first_line::{FirstLine, ServerMember};
use tail::Tail;

/// Dumps in one chunk of the scan's report: enough that waking the loop costs nothing, few enough for one turn.
const CHUNK_DUMPS_MAX: usize = 256;
/// Chunks that wait for the loop; when they are full the scan pauses.
const CHUNKS_MAX: usize = 4;
/// Bytes from the end of a dump that are read at first. Most entries, and most dumps that were just begun, fit.
const WINDOW_BYTES: usize = 16 * 1024;
/// Bytes of a first line at most: a request head is at most 8 KiB, escaped and with claims it stays far below.
pub const FIRST_LINE_BYTES_MAX: usize = 64 * 1024;
/// How every dump begins, whoever wrote it.
const BEGINNING: &[u8] = br#"["connectionInfo""#;
/// Things that are no dumps which a scan reports one by one; the rest is counted.
const UNKNOWN_REPORTED_MAX: u64 = 20;

/// A dump that was open or waited for its client when the server before this one ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Recovered {
    /// File name of the dump.
    pub name: String,
    /// The session id: from the first line, else the name.
    pub id: String,
    /// The part: from the first line, else 0.
    pub part: u32,
    /// The family of the client; unsupported when the first line cannot be read.
    pub client: ClientType,
    /// Our clock when the dump was created, in ms since 1970.
    pub created_ms: Option<u64>,
    /// What else the first line holds of ours.
    pub server: ServerMember,
    /// Number of the last numbered entry; `None` when the session was not numbered.
    pub last_number: Option<u64>,
    /// Size, whole lines only.
    pub size_bytes: u64,
    /// Bytes of a torn last line that were cut off.
    pub torn_bytes: u64,
    /// Time of the last write.
    pub modified: SystemTime,
    /// Device of the file; with `inode` its identity when it is opened again.
    pub device: u64,
    /// Inode of the file.
    pub inode: u64,
}

/// What one name in the dump folder turned out to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Recovery {
    /// A dump.
    Dump(Box<Recovered>),
    /// The beginning of a dump without one whole line. It was removed.
    Empty,
    /// A link, folder, FIFO, socket or device. It was not touched.
    NotADump,
    /// Nothing of that name.
    Absent,
}

/// What the scan has found since its last chunk.
#[derive(Debug, Default)]
pub struct ScanChunk {
    /// Dumps, in no order.
    pub dumps: Vec<Recovered>,
    /// Set in the last chunk: what the whole scan saw.
    pub complete: Option<ScanSummary>,
}

/// What a scan saw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScanSummary {
    /// Dumps that were reported.
    pub dumps: u64,
    /// Dumps of which a torn last line was cut off.
    pub torn: u64,
    /// Files without one whole line, which were removed.
    pub empty: u64,
    /// Things that are no dumps, or cannot be read, and were left alone.
    pub unknown: u64,
}

/// Looks at the file `name` in the dump folder, cuts a torn last line off, and says what it is.
///
/// Reads at most about twice `line_bytes_max` bytes. Must not be called for a dump that is being written.
///
/// # Errors
/// Whatever the file system says; the file is then as it was.
pub fn recover_one(folder: &DumpFolder, name: &str, line_bytes_max: usize) -> io::Result<Recovery> {
    match beneath::open_file(folder.root(), name, OFlags::RDWR)? {
        Opened::Absent => Ok(Recovery::Absent),
        Opened::NotAFile => Ok(Recovery::NotADump),
        Opened::File(file, stat) => recover_file(folder, name, &file, &stat, line_bytes_max),
    }
}

fn recover_file(
    folder: &DumpFolder,
    name: &str,
    file: &File,
    stat: &Stat,
    line_bytes_max: usize,
) -> io::Result<Recovery> {
    let size_bytes = u64::try_from(stat.st_size).unwrap_or(0);
    let head = read_head(file, size_bytes)?;
    let modified = dump_folder::modified(stat).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut found = Recovered {
        name: name.to_owned(),
        id: name.to_owned(),
        part: 0,
        client: ClientType::Unsupported,
        created_ms: None,
        server: ServerMember::default(),
        last_number: None,
        size_bytes,
        torn_bytes: 0,
        modified,
        device: stat.st_dev,
        inode: stat.st_ino,
    };
    let shared = head.len().min(BEGINNING.len());
    if head.get(..shared) != BEGINNING.get(..shared) {
        // Not written by us: nothing of it is cut. It is kept as it is, like every dump that is not understood.
        return Ok(Recovery::Dump(Box::new(found)));
    }
    let search_bytes_max = line_bytes_max as u64 + WINDOW_BYTES as u64;
    match beneath::whole_lines_len(file, size_bytes, search_bytes_max)? {
        Some(0) => {
            beneath::remove(folder.root(), name)?;
            return Ok(Recovery::Empty);
        }
        Some(whole) => {
            cut(file, size_bytes, whole, modified)?;
            found.size_bytes = whole;
            found.torn_bytes = size_bytes - whole;
        }
        // Longer than any line of ours can be.
        None => return Ok(Recovery::Dump(Box::new(found))),
    }
    describe(&mut found, &head);
    found.last_number = last_number(file, found.size_bytes, search_bytes_max)?;
    Ok(Recovery::Dump(Box::new(found)))
}

/// Takes over what the first line says.
fn describe(found: &mut Recovered, head: &[u8]) {
    let first = head.split(|byte| *byte == b'\n').next().and_then(FirstLine::parse);
    if let Some(FirstLine { client, clock_ms, server }) = first {
        found.client = client;
        found.created_ms = clock_ms;
        found.part = server.part.unwrap_or(0);
        if let Some(id) = &server.id {
            id.as_str().clone_into(&mut found.id);
        }
        found.server = server;
    }
}

/// Reads the first line, or as much of it as a first line can be.
fn read_head(file: &File, size_bytes: u64) -> io::Result<Vec<u8>> {
    const HEAD_BYTES: usize = 4 * 1024;
    let mut head = Vec::new();
    for bytes in [HEAD_BYTES, FIRST_LINE_BYTES_MAX] {
        head.resize(usize::try_from(size_bytes).map_or(bytes, |size| size.min(bytes)), 0);
        file.read_exact_at(&mut head, 0)?;
        if head.len() < bytes || head.contains(&b'\n') {
            break;
        }
    }
    Ok(head)
}

/// Cuts `file` to `whole` bytes. The time of the last write stays what it was: the grace period counts from it.
fn cut(file: &File, size_bytes: u64, whole: u64, modified: SystemTime) -> io::Result<()> {
    if whole == size_bytes {
        return Ok(());
    }
    file.set_len(whole)?;
    file.set_times(FileTimes::new().set_modified(modified))
}

/// Searches the last numbered line within about `search_bytes_max` bytes before `end`, in growing windows.
fn last_number(file: &File, mut end: u64, search_bytes_max: u64) -> io::Result<Option<u64>> {
    let stop = end.saturating_sub(search_bytes_max);
    let mut bytes = WINDOW_BYTES as u64;
    let mut window = Vec::new();
    loop {
        let start = end.saturating_sub(bytes);
        window.resize(usize::try_from(end - start).unwrap_or(0), 0);
        file.read_exact_at(&mut window, start)?;
        match tail::last_number(&window, start == 0) {
            Tail::Number(number) => return Ok(Some(number)),
            Tail::Unnumbered => return Ok(None),
            Tail::Before(offset) => {
                if offset == window.len() {
                    bytes = bytes.saturating_mul(2);
                }
                end = start + offset as u64;
            }
        }
        if start <= stop {
            return Ok(None);
        }
    }
}

/// The scan of the dump folder at start, on a thread of its own. Dropping it ends the thread at its next chunk.
#[derive(Debug)]
pub struct Scan {
    chunks: Receiver<ScanChunk>,
    taken: Arc<Taken>,
}

impl Scan {
    /// Starts the scan. `wake` is called after each chunk; the last one has `complete` set.
    ///
    /// # Errors
    /// When no thread can be started, or the folder cannot be listed.
    pub fn start(folder: Arc<DumpFolder>, line_bytes_max: usize, wake: Wake) -> io::Result<Self> {
        let (sender, chunks) = bounded(CHUNKS_MAX);
        let taken = Arc::new(Taken::default());
        let names = Dir::read_from(folder.root())?;
        let run = Run {
            folder,
            line_bytes_max,
            taken: Arc::clone(&taken),
            chunk: ScanChunk::default(),
            summary: ScanSummary::default(),
            sender,
            wake,
        };
        thread::Builder::new().name("recovery".to_owned()).spawn(move || run.run(names))?;
        Ok(Self { chunks, taken })
    }

    /// What was found so far.
    #[must_use]
    pub fn chunks(&self) -> &Receiver<ScanChunk> {
        &self.chunks
    }

    /// Keeps the scan off the file `name` from now on. The loop calls it before it creates or opens that file, and
    /// from then on is responsible for it: if an old dump is there, it calls [`recover_one`] itself. A report of
    /// that name may still be on its way and then must be ignored.
    ///
    /// Waits while the scan looks at a file, at most for the time it takes to read a line of the largest size.
    pub fn take(&self, name: &str) {
        if let Some(names) = self.taken.lock().as_mut() {
            names.insert(name.to_owned());
        }
    }
}

/// Names that the loop has taken while the scan runs; `None` when it is over. The scan holds the lock while it looks
/// at one file.
#[derive(Debug)]
struct Taken(Mutex<Option<HashSet<String>>>);

impl Default for Taken {
    fn default() -> Self {
        Self(Mutex::new(Some(HashSet::new())))
    }
}

impl Taken {
    fn lock(&self) -> MutexGuard<'_, Option<HashSet<String>>> {
        // The set is whole after a panic: inserting is all that is ever done to it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The scan, seen from its own thread.
struct Run {
    folder: Arc<DumpFolder>,
    line_bytes_max: usize,
    taken: Arc<Taken>,
    chunk: ScanChunk,
    summary: ScanSummary,
    sender: Sender<ScanChunk>,
    wake: Wake,
}

impl Run {
    fn run(mut self, names: Dir) {
        for entry in names {
            let name = match entry {
                Ok(entry) => entry.file_name().to_string_lossy().into_owned(),
                Err(error) => {
                    let path = value(self.folder.path().display());
                    warn!("recovery.list path={path} err={}", value(error));
                    break;
                }
            };
            if matches!(name.as_str(), "." | "..") || DumpFolder::is_own(&name) {
                continue;
            }
            self.look_at(&name);
            if self.chunk.dumps.len() >= CHUNK_DUMPS_MAX && !self.report() {
                return;
            }
        }
        *self.taken.lock() = None;
        let ScanSummary { dumps, torn, empty, unknown } = self.summary;
        info!("recovery.complete dumps={dumps} torn={torn} empty={empty} unknown={unknown}");
        self.chunk.complete = Some(self.summary);
        self.report();
    }

    fn look_at(&mut self, name: &str) {
        if !is_dump_name(name) {
            return self.unknown(name, "is not the name of a dump");
        }
        let taken = self.taken.lock();
        if taken.as_ref().is_some_and(|names| names.contains(name)) {
            return;
        }
        let recovery = recover_one(&self.folder, name, self.line_bytes_max);
        drop(taken);
        match recovery {
            Ok(Recovery::Dump(found)) => {
                self.summary.dumps += 1;
                self.summary.torn += u64::from(found.torn_bytes > 0);
                self.chunk.dumps.push(*found);
            }
            Ok(Recovery::Empty) => self.summary.empty += 1,
            Ok(Recovery::NotADump) => self.unknown(name, "is no regular file"),
            Ok(Recovery::Absent) => {}
            Err(error) => self.unknown(name, &error.to_string()),
        }
    }

    fn unknown(&mut self, name: &str, why: &str) {
        self.summary.unknown += 1;
        if self.summary.unknown <= UNKNOWN_REPORTED_MAX {
            warn!("recovery.unknown name={} err={}: left alone", value(name), value(why));
        }
    }

    /// Hands the chunk over; `false` when nobody listens any more.
    fn report(&mut self) -> bool {
        let sent = self.sender.send(std::mem::take(&mut self.chunk)).is_ok();
        (self.wake)();
        sent
    }
}

#[cfg(test)]
mod tests;
