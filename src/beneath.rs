//! Files below a configured root: opened relative to the descriptor of their folder, never through a link.
//!
//! Owns the flags and modes with which the dump folder and the archive touch the disk. Knows no name and no format.
//! Configured roots may be links; nothing below them is followed, and only regular files are opened: a FIFO or a
//! device of the right name could hang or do harm by being opened at all.
//! Rules: our contract, section 3.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

/// Every file that the server creates: read and write for its user, read for its group.
pub const FILE_MODE: Mode = Mode::from_bits_truncate(0o640);
/// Every folder that the server creates.
pub const FOLDER_MODE: Mode = Mode::from_bits_truncate(0o750);

/// Makes these modes come out as they stand, whatever mask this process was started with.
pub fn set_mask() {
    let all = Mode::RWXU | Mode::RWXG | Mode::RWXO;
    rustix::process::umask(all - FOLDER_MODE);
}

/// How a file that is opened here never behaves: it is no link, blocks nobody, and no child inherits it.
const CAREFUL: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);
/// Bytes that are looked at in one go when the last line of a file is searched.
const TAIL_CHUNK_BYTES: u64 = 16 * 1024;

/// Opens the folder `path`, a configured root, and creates it with its parents when it is missing.
///
/// # Errors
/// Whatever the file system says; `ENOTDIR` when something else has the name.
pub fn open_root(path: &Path) -> io::Result<OwnedFd> {
    use std::os::unix::fs::DirBuilderExt;
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
        Err(Errno::NOENT) => {
            std::fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE.bits()).create(path)?;
            Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
        }
        other => Ok(other?),
    }
}

/// Opens the folder `name` in `parent`, and creates it when it is missing; `true` when it was created.
///
/// # Errors
/// Whatever the file system says; `ELOOP` or `ENOTDIR` when the name is a link or another thing.
pub fn open_folder(parent: impl AsFd, name: &str) -> io::Result<(OwnedFd, bool)> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | CAREFUL;
    match rustix::fs::openat(&parent, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => {}
        other => return Ok((other?, false)),
    }
    match rustix::fs::mkdirat(&parent, name, FOLDER_MODE) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    Ok((rustix::fs::openat(&parent, name, flags, Mode::empty())?, true))
}

/// Opens the folder `path`, a configured root; `None` when there is none.
///
/// # Errors
/// Whatever the file system says but `ENOENT`; `ENOTDIR` when something else has the name.
pub fn find_root(path: &Path) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    there(rustix::fs::openat(CWD, path, flags, Mode::empty()))
}

/// Opens the folder `name` in `parent`; `None` when there is none.
///
/// # Errors
/// Whatever the file system says but `ENOENT`; `ELOOP` or `ENOTDIR` when the name is a link or another thing.
pub fn find_folder(parent: impl AsFd, name: &str) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | CAREFUL;
    there(rustix::fs::openat(parent, name, flags, Mode::empty()))
}

fn there<T>(found: Result<T, Errno>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What is at `name` in `folder`, links not followed; `None` when nothing is.
///
/// # Errors
/// Whatever the file system says but `ENOENT`.
pub fn look(folder: impl AsFd, name: &str) -> io::Result<Option<Stat>> {
    there(rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW))
}

/// Whether `stat` is that of a regular file.
#[must_use]
pub fn is_regular(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

/// Whether `stat` is that of a folder.
#[must_use]
pub fn is_folder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// What opening an existing file found.
#[derive(Debug)]
pub enum Opened {
    /// A regular file, and what the kernel says of it.
    File(File, Stat),
    /// Nothing of that name.
    Absent,
    /// A link, folder, FIFO, socket or device. It was not opened.
    NotAFile,
}

/// Opens the regular file `name` in `folder` for reading, with `more` for anything else.
///
/// # Errors
/// Whatever the file system says but `ENOENT` and `ELOOP`.
pub fn open_file(folder: impl AsFd, name: &str, more: OFlags) -> io::Result<Opened> {
    // Looked at before it is opened: opening a device can already do something.
    match look(&folder, name)? {
        None => return Ok(Opened::Absent),
        Some(stat) if !is_regular(&stat) => return Ok(Opened::NotAFile),
        Some(_) => {}
    }
    match rustix::fs::openat(folder, name, CAREFUL | more, Mode::empty()) {
        Ok(descriptor) => {
            let stat = rustix::fs::fstat(&descriptor)?;
            if is_regular(&stat) { Ok(Opened::File(descriptor.into(), stat)) } else { Ok(Opened::NotAFile) }
        }
        Err(Errno::NOENT) => Ok(Opened::Absent),
        Err(Errno::LOOP) => Ok(Opened::NotAFile),
        Err(error) => Err(error.into()),
    }
}

/// Creates the file `name` in `folder` for writing; it must not be there yet.
///
/// # Errors
/// `EEXIST` when anything of that name is there; whatever else the file system says.
pub fn create_new(folder: impl AsFd, name: &str) -> io::Result<File> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | CAREFUL;
    Ok(rustix::fs::openat(folder, name, flags, FILE_MODE)?.into())
}

/// Creates the empty file `name` in `folder`, without opening it; `false` when anything of that name is there.
///
/// # Errors
/// Whatever the file system says but `EEXIST`.
pub fn create_empty(folder: impl AsFd, name: &str) -> io::Result<bool> {
    match rustix::fs::mknodat(folder, name, FileType::RegularFile, FILE_MODE, 0) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Opens the file `name` in `folder` for reading and appending, and creates it when it is missing.
///
/// # Errors
/// `EINVAL` for anything that is no regular file; whatever else the file system says.
pub fn open_append(folder: impl AsFd, name: &str) -> io::Result<(File, Stat)> {
    if look(&folder, name)?.is_some_and(|stat| !is_regular(&stat)) {
        return Err(Errno::INVAL.into());
    }
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::APPEND | CAREFUL;
    let file: File = rustix::fs::openat(folder, name, flags, FILE_MODE)?.into();
    let stat = rustix::fs::fstat(&file)?;
    if is_regular(&stat) { Ok((file, stat)) } else { Err(Errno::INVAL.into()) }
}

/// Opens the file `name` in `folder` for reading alone, and creates it when it is missing: something to lock.
///
/// # Errors
/// `EINVAL` for anything that is no regular file; whatever else the file system says.
pub fn open_lock(folder: impl AsFd, name: &str) -> io::Result<File> {
    if look(&folder, name)?.is_some_and(|stat| !is_regular(&stat)) {
        return Err(Errno::INVAL.into());
    }
    let flags = OFlags::CREATE | OFlags::RDONLY | CAREFUL;
    let file: File = rustix::fs::openat(folder, name, flags, FILE_MODE)?.into();
    if is_regular(&rustix::fs::fstat(&file)?) { Ok(file) } else { Err(Errno::INVAL.into()) }
}

/// Gives `from` in `source` the name `to` in `target`, never replacing anything.
///
/// # Errors
/// `EEXIST` when the name is taken; whatever else the file system says.
pub fn publish(source: impl AsFd, from: &str, target: impl AsFd, to: &str) -> io::Result<()> {
    match rustix::fs::renameat_with(&source, from, &target, to, RenameFlags::NOREPLACE) {
        // Some network and user-space file systems cannot rename like this; they can link.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            rustix::fs::linkat(&source, from, &target, to, AtFlags::empty())?;
            Ok(rustix::fs::unlinkat(&source, from, AtFlags::empty())?)
        }
        other => Ok(other?),
    }
}

/// Removes the file `name` from `folder`; `false` when it was not there.
///
/// # Errors
/// Whatever the file system says but `ENOENT`.
pub fn remove(folder: impl AsFd, name: &str) -> io::Result<bool> {
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Removes the folder `name` from `parent`; `false` when it still holds something. One that is not there is removed.
///
/// # Errors
/// Whatever the file system says but `ENOENT` and `ENOTEMPTY`.
pub fn remove_folder(parent: impl AsFd, name: &str) -> io::Result<bool> {
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        // Either one, says unlink(3p).
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Waits until names that were changed in `folder` are on the device.
///
/// # Errors
/// Whatever the file system says.
pub fn sync_folder(folder: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::fsync(folder)?)
}

/// Length of `file` up to and with its last line feed, 0 when it has none. `size_bytes` is its size. `None` when
/// there is none among the last `search_bytes_max` bytes.
///
/// # Errors
/// Whatever reading says.
pub fn whole_lines_len(file: &File, size_bytes: u64, search_bytes_max: u64) -> io::Result<Option<u64>> {
    let mut chunk = Vec::new();
    let mut end = size_bytes;
    let last = size_bytes.saturating_sub(search_bytes_max);
    while end > last {
        let start = end.saturating_sub(TAIL_CHUNK_BYTES).max(last);
        chunk.resize(usize::try_from(end - start).unwrap_or(0), 0);
        file.read_exact_at(&mut chunk, start)?;
        if let Some(at) = chunk.iter().rposition(|byte| *byte == b'\n') {
            return Ok(Some(start + at as u64 + 1));
        }
        end = start;
    }
    Ok((end == 0).then_some(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn folder() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        let descriptor = open_root(dir.path()).unwrap();
        (dir, descriptor)
    }

    #[test]
    fn a_missing_root_is_created_and_a_linked_one_is_followed() {
        let (dir, _) = folder();
        open_root(&dir.path().join("a/b")).unwrap();
        let mode = std::fs::metadata(dir.path().join("a/b")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777 & !0o750, 0, "mode {mode:o}");
        symlink(dir.path().join("a"), dir.path().join("link")).unwrap();
        open_root(&dir.path().join("link/b")).unwrap();
        std::fs::write(dir.path().join("file"), b"").unwrap();
        open_root(&dir.path().join("file")).unwrap_err();
    }

    #[test]
    fn a_link_in_place_of_a_folder_is_refused() {
        let (dir, root) = folder();
        std::fs::create_dir(dir.path().join("real")).unwrap();
        symlink(dir.path().join("real"), dir.path().join("link")).unwrap();
        assert!(!open_folder(&root, "real").unwrap().1);
        assert!(open_folder(&root, "new").unwrap().1);
        open_folder(&root, "link").unwrap_err();
        find_folder(&root, "link").unwrap_err();
        assert!(find_folder(&root, "real").unwrap().is_some());
        assert!(find_folder(&root, "none").unwrap().is_none());
        assert!(!dir.path().join("none").exists(), "only looked for");
        assert!(find_root(&dir.path().join("none")).unwrap().is_none());
        assert!(find_root(&dir.path().join("link")).unwrap().is_some(), "a root may be a link");
    }

    #[test]
    fn only_empty_folders_are_removed() {
        let (dir, root) = folder();
        std::fs::create_dir_all(dir.path().join("full/x")).unwrap();
        std::fs::create_dir(dir.path().join("empty")).unwrap();
        symlink(dir.path().join("empty"), dir.path().join("link")).unwrap();
        assert!(!remove_folder(&root, "full").unwrap());
        remove_folder(&root, "link").unwrap_err();
        assert!(remove_folder(&root, "empty").unwrap());
        assert!(remove_folder(&root, "empty").unwrap(), "it is gone");
        assert!(dir.path().join("full/x").exists());
    }

    #[test]
    fn only_regular_files_are_opened() {
        let (dir, root) = folder();
        std::fs::write(dir.path().join("file"), b"x").unwrap();
        symlink(dir.path().join("file"), dir.path().join("link")).unwrap();
        rustix::fs::mknodat(&root, "fifo", FileType::Fifo, FILE_MODE, 0).unwrap();
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        for (name, expected) in
            [("file", "file"), ("link", "not"), ("fifo", "not"), ("folder", "not"), ("none", "absent")]
        {
            let found = match open_file(&root, name, OFlags::RDONLY).unwrap() {
                Opened::File(..) => "file",
                Opened::Absent => "absent",
                Opened::NotAFile => "not",
            };
            assert_eq!(found, expected, "{name}");
        }
        open_append(&root, "link").unwrap_err();
        open_append(&root, "fifo").unwrap_err();
    }

    #[test]
    fn publishing_never_replaces() {
        let (dir, root) = folder();
        std::fs::write(dir.path().join("new"), b"new").unwrap();
        std::fs::write(dir.path().join("old"), b"old").unwrap();
        let error = publish(&root, "new", &root, "old").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(dir.path().join("old")).unwrap(), b"old");
        publish(&root, "new", &root, "free").unwrap();
        assert!(!dir.path().join("new").exists());
        assert_eq!(std::fs::read(dir.path().join("free")).unwrap(), b"new");
    }

    #[test]
    fn the_end_of_the_last_whole_line_is_found_at_any_distance() {
        let (dir, _) = folder();
        for (whole, torn) in [(0, 0), (0, 5), (1, 0), (7, 3), (40_000, 20_000), (16_384, 16_384), (1, 16_383)]
        {
            let path = dir.path().join("lines");
            let mut content = vec![b'a'; whole];
            if let Some(last) = content.last_mut() {
                *last = b'\n';
            }
            content.extend(std::iter::repeat_n(b'b', torn));
            std::fs::write(&path, &content).unwrap();
            let file = File::open(&path).unwrap();
            let size = content.len() as u64;
            assert_eq!(whole_lines_len(&file, size, size).unwrap(), Some(whole as u64), "{whole}+{torn}");
            let near = whole_lines_len(&file, size, torn as u64).unwrap();
            assert_eq!(near, (whole == 0).then_some(0), "{whole}+{torn}, stopped just before");
        }
    }
}
