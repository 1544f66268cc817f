//! A figure counts only when nothing was lost: every line of every session, in order.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::fleet::Sent;
use super::mix::Mix;

/// The `.gz` files of an archive.
pub(crate) fn archived(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let Ok(days) = fs::read_dir(folder.join("archive")) else { return Ok(files) };
    for day in days {
        for file in fs::read_dir(day?.path())? {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "gz") {
                files.push(path);
            }
        }
    }
    Ok(files)
}

/// The dumps that are not processed yet, open ones included.
pub(crate) fn dumps(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for place in ["temp", "temp/finished", "temp/quarantine"] {
        for file in fs::read_dir(folder.join(place))? {
            let file = file?;
            if file.file_type()?.is_file() && !file.file_name().as_encoded_bytes().starts_with(b".") {
                files.push(file.path());
            }
        }
    }
    Ok(files)
}

/// Compares the archive with what was sent; the error names the first difference.
pub(crate) fn check_archive(folder: &Path, mix: &Mix, sessions: &[Sent]) -> io::Result<()> {
    let files = archived(folder)?;
    if files.len() != sessions.len() {
        return Err(wrong(format!("{} dumps for {} sessions", files.len(), sessions.len())));
    }
    let by_id: HashMap<_, _> =
        files.iter().filter_map(|path| Some((path.file_stem()?.to_str()?, path))).collect();
    for session in sessions {
        let path = by_id.get(session.identity.text.as_str());
        let path = path.ok_or_else(|| wrong(format!("no dump of {}", session.identity.text)))?;
        check_dump(path, mix, session)?;
    }
    Ok(())
}

fn check_dump(path: &Path, mix: &Mix, session: &Sent) -> io::Result<()> {
    let mut lines = BufReader::new(MultiGzDecoder::new(File::open(path)?)).lines();
    lines.next().transpose()?.ok_or_else(|| wrong(format!("{} is empty", path.display())))?;
    for index in 0..session.messages {
        let line = lines.next().transpose()?.unwrap_or_default();
        if !mix.matches(&session.identity, index, &line) {
            return Err(wrong(format!("{}: message {index} is {line:.200}", path.display())));
        }
    }
    match lines.next() {
        None => Ok(()),
        Some(line) => Err(wrong(format!("{}: one line too many: {:.200}", path.display(), line?))),
    }
}

/// Compares the sink's files with what was sent, by their sizes.
pub(crate) fn check_sink(folder: &Path, sessions: &[Sent]) -> io::Result<()> {
    for session in sessions {
        let size_bytes = fs::metadata(folder.join(&session.identity.text))?.len();
        if size_bytes != session.wire_bytes {
            let id = &session.identity.text;
            return Err(wrong(format!("{id}: {size_bytes} bytes of {}", session.wire_bytes)));
        }
    }
    Ok(())
}

fn wrong(what: String) -> io::Error {
    io::Error::other(format!("the run is void: {what}"))
}
