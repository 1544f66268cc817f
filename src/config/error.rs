//! What can be wrong with a configuration: errors that stop the start, warnings that do not.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::value::{Source, one_line};

/// The configuration cannot be used. One line, which names the place, the key, the value and what is allowed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The folder that was asked for is not there.
    #[error("--config-dir {}: not a folder", one_line(&path.to_string_lossy()))]
    NoFolder {
        /// As given.
        path: PathBuf,
    },
    /// `--env` or `RTCSTATS_ENV` names no file.
    #[error(
        "{origin}: {env:?} is not a name of letters, digits, \"-\" and \"_\" other than \"default\" and \"local\""
    )]
    EnvName {
        /// Option or variable.
        origin: &'static str,
        /// As given.
        env: String,
    },
    /// A file is there but cannot be read.
    #[error("{}: cannot be read", one_line(&path.to_string_lossy()))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not TOML.
    #[error("{place}: not TOML: {message}")]
    Syntax {
        /// File and line.
        place: Source,
        /// What the parser expected.
        message: String,
    },
    /// A file sets a key that does not exist.
    #[error("{place}: {key} is not a known key{}", hint(suggestion.as_deref()))]
    UnknownKey {
        /// File and line.
        place: Source,
        /// `section.key`, or the section.
        key: String,
        /// The nearest key.
        suggestion: Option<String>,
    },
    /// The value is of the wrong type or out of range.
    #[error("{place}: {key} = {value} is not {allowed}")]
    BadValue {
        /// File and line, or variable.
        place: Source,
        /// `section.key`
        key: String,
        /// As found, cut when long.
        value: String,
        /// What would be right.
        allowed: String,
    },
    /// Two values, each possible by itself, exclude each other.
    #[error("{} and {}: {rule}", pair.0, pair.1)]
    Conflict {
        /// The two.
        pair: Box<(Named, Named)>,
        /// What must hold between them.
        rule: &'static str,
    },
}

/// A setting in an error: `key = value (origin)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// `section.key`
    pub key: &'static str,
    /// As TOML.
    pub value: String,
    /// Its layer.
    pub source: Source,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {} ({})", self.key, self.value, self.source)
    }
}

/// Something that looks like a mistake and stops nothing. Values are left out: they may be secrets of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// A variable `RTCSTATS_*` that sets no key.
    UnknownVariable {
        /// Its name.
        name: String,
        /// The nearest variable that sets one.
        suggestion: Option<String>,
    },
    /// A variable that Kubernetes sets for a service whose name begins like our variables.
    ServiceLink {
        /// Its name.
        name: String,
    },
    /// An environment was chosen, but the configuration folder has no file for it.
    NoEnvironmentFile {
        /// The environment.
        env: String,
        /// The file that was looked for; `None` when there is no configuration folder.
        path: Option<PathBuf>,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownVariable { name, suggestion } => {
                write!(f, "{} sets no key{}", one_line(name), hint(suggestion.as_deref()))
            }
            Self::ServiceLink { name } => {
                write!(f, "{} is ignored: it is a service link of Kubernetes", one_line(name))
            }
            Self::NoEnvironmentFile { env, path: Some(path) } => {
                write!(f, "environment {env}: there is no {}", one_line(&path.to_string_lossy()))
            }
            Self::NoEnvironmentFile { env, path: None } => {
                write!(f, "environment {env}: there is no configuration folder")
            }
        }
    }
}

fn hint(suggestion: Option<&str>) -> String {
    suggestion.map(|name| format!(", did you mean {name}?")).unwrap_or_default()
}

/// The candidate nearest to `name`, if one is near enough to be meant.
pub(super) fn nearest(name: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    let far = (name.len() / 4).clamp(2, 6);
    let distances = candidates.map(|candidate| (distance(name, &candidate), candidate));
    distances
        .filter(|(distance, _)| *distance <= far)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Edit distance (Levenshtein) in bytes; names longer than any of ours are far from all of them.
fn distance(left: &str, right: &str) -> usize {
    const NAME_BYTES_MAX: usize = 128;
    if left.len() > NAME_BYTES_MAX {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (line, from) in left.bytes().enumerate() {
        let mut diagonal = line;
        let mut before = line + 1;
        for (cell, to) in row.iter_mut().skip(1).zip(right.bytes()) {
            let substituted = diagonal + usize::from(from != to);
            diagonal = *cell;
            before = substituted.min(*cell + 1).min(before + 1);
            *cell = before;
        }
        if let Some(first) = row.first_mut() {
            *first = line + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_levenshtein() {
        let cases = [
            ("", "", 0),
            ("abc", "abc", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("flaw", "lawn", 2),
            ("server.prot", "server.port", 2),
        ];
        for (left, right, expected) in cases {
            assert_eq!(distance(left, right), expected, "{left} {right}");
            assert_eq!(distance(right, left), expected, "{right} {left}");
        }
    }

    #[test]
    fn only_near_names_are_suggested() {
        let names = || ["server.port", "server.metrics_port", "log.level"].into_iter().map(str::to_owned);
        assert_eq!(nearest("server.prot", names()).as_deref(), Some("server.port"));
        assert_eq!(nearest("log.levle", names()).as_deref(), Some("log.level"));
        assert_eq!(nearest("archive.bucket", names()), None);
        assert_eq!(nearest(&"x".repeat(100_000), names()), None);
    }
}
