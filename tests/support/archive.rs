//! Reads dumps back: every `.gz` of an archive with its document, and plain files of the dump folder.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use serde_json::Value;

/// One archived dump.
#[derive(Debug, Clone)]
pub(crate) struct ArchivedDump {
    /// The file name without `.gz`.
    pub(crate) name: String,
    /// The folder it is in, a date.
    pub(crate) day: String,
    /// The `connectionInfo` line.
    pub(crate) first_line: String,
    /// All other lines, joined by `\n`, as they are.
    pub(crate) body: String,
    /// The `.json` beside it.
    pub(crate) document: Value,
}

impl ArchivedDump {
    pub(crate) fn lines(&self) -> Vec<&str> {
        self.body.lines().collect()
    }

    /// The object in the first line.
    pub(crate) fn connection_info(&self) -> Value {
        let line: Value = serde_json::from_str(&self.first_line).expect("the first line is JSON");
        assert_eq!(line[0], "connectionInfo", "{}", self.first_line);
        line[2].clone()
    }

    /// 1 for the first dump of a session, 2 for `<id>_1`, and so on.
    fn part(&self, id: &str) -> Option<u32> {
        part_of(&self.name, id)
    }
}

/// The archive of a server, as files.
#[derive(Debug, Clone)]
pub(crate) struct Archive {
    root: PathBuf,
}

impl Archive {
    pub(crate) fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// Every dump, decompressed, ordered by name.
    pub(crate) fn dumps(&self) -> Vec<ArchivedDump> {
        self.select(|_| true)
    }

    /// The dumps of one session, first part first.
    pub(crate) fn dumps_of(&self, id: &str) -> Vec<ArchivedDump> {
        let mut dumps = self.select(|name| part_of(name, id).is_some());
        dumps.sort_by_key(|dump| dump.part(id));
        dumps
    }

    /// How many dumps there are.
    pub(crate) fn count(&self) -> usize {
        self.names().len()
    }

    fn select(&self, wanted: impl Fn(&str) -> bool) -> Vec<ArchivedDump> {
        let mut dumps: Vec<_> = self
            .names()
            .into_iter()
            .filter(|(_, name)| wanted(name))
            .map(|(day, name)| self.read(day, name))
            .collect();
        dumps.sort_by(|a, b| a.name.cmp(&b.name));
        dumps
    }

    /// Day and name of every committed dump.
    fn names(&self) -> Vec<(String, String)> {
        let mut names = Vec::new();
        for day in file_names(&self.root) {
            for file in file_names(&self.root.join(&day)) {
                if let Some(name) = file.strip_suffix(".gz") {
                    names.push((day.clone(), name.to_owned()));
                }
            }
        }
        names
    }

    fn read(&self, day: String, name: String) -> ArchivedDump {
        let path = self.root.join(&day).join(format!("{name}.gz"));
        let file = fs::File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut text = String::new();
        MultiGzDecoder::new(file)
            .read_to_string(&mut text)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let document = fs::read(path.with_extension("json"))
            .unwrap_or_else(|error| panic!("{}: no document: {error}", path.display()));
        let (first_line, body) = text.split_once('\n').unwrap_or((&text, ""));
        ArchivedDump {
            day,
            first_line: first_line.to_owned(),
            body: body.to_owned(),
            document: serde_json::from_slice(&document).expect("the document is JSON"),
            name,
        }
    }
}

/// The part that a file name stands for when it is a dump of the session `id`.
pub(crate) fn part_of(name: &str, id: &str) -> Option<u32> {
    match name.strip_prefix(id)? {
        "" => Some(1),
        suffix => Some(suffix.strip_prefix('_')?.parse::<u32>().ok()? + 1),
    }
}

/// The plain files of a folder that are dumps of the session `id`, first part first; a folder that is
/// not there has none.
pub(crate) fn plain_dumps_of(folder: &Path, id: &str) -> Vec<String> {
    let mut found: Vec<_> =
        file_names(folder).into_iter().filter_map(|name| Some((part_of(&name, id)?, name))).collect();
    found.sort();
    // A file may be moved or archived between listing and reading.
    found.into_iter().filter_map(|(_, name)| fs::read_to_string(folder.join(name)).ok()).collect()
}

/// The names in a folder; none when it is not there.
pub(crate) fn file_names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
