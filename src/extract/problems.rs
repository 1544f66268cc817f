//! What is wrong with a dump: the reasons, and the account of them that goes into the document.
//!
//! Reasons are texts without anything that a peer sent, so that they can be logged and published.
//! Rules: feature extraction 12 (what the reference aborts on); our contract 6 (`problems`).

use std::io;

use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

use super::json::JsonError;

/// Problems that are kept with line and reason; the others are only counted.
const PROBLEMS_KEPT_MAX: usize = 20;

/// Why a dump gave no document.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The input could not be read to its end.
    #[error("cannot be read")]
    Read(#[from] io::Error),
    /// Strict mode: a line is not as the reference needs it.
    #[error("line {line}: {reason}")]
    Line {
        /// Number of the line, from 1.
        line: u64,
        /// What is wrong with it.
        reason: LineError,
    },
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// It is no JSON document.
    #[error("not JSON: {0}")]
    NotJson(JsonError),
    /// It is longer than allowed.
    #[error("line of {line_bytes} bytes is above {line_bytes_max}")]
    TooLong {
        /// Its length.
        line_bytes: u64,
        /// The limit.
        line_bytes_max: usize,
    },
    /// The first line is not `["connectionInfo", ...]`.
    #[error("first line is no connectionInfo entry")]
    NoConnectionInfo,
    /// The connection info cannot be used.
    #[error("connection info: {0}")]
    BadConnectionInfo(&'static str),
    /// It is neither an array nor a string, so it cannot be taken apart as an entry.
    #[error("entry is no array")]
    NoEntry,
    /// A back end's line is `null`.
    #[error("entry is null")]
    NullEntry,
    /// An entry whose type needs data has none.
    #[error("{entry}: data is null or missing")]
    NoData {
        /// The entry's type.
        entry: &'static str,
    },
    /// Data of a shape that its entry type does not allow.
    #[error("{entry}: {fault}")]
    BadData {
        /// The entry's type.
        entry: &'static str,
        /// What is wrong.
        fault: &'static str,
    },
    /// `confID` is null or no string.
    #[error("identity: confID is no string")]
    BadConferenceUrl,
    /// What would be kept of it is more than may be kept of a dump.
    #[error("{state_bytes} bytes of state are above {state_bytes_max}")]
    TooMuchState {
        /// What is kept, and would be.
        state_bytes: usize,
        /// The limit.
        state_bytes_max: usize,
    },
    /// More of something than is kept; what is over the limit is left out. How much there is would take reading on.
    #[error("more than {count_max} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        count_max: usize,
    },
}

impl From<JsonError> for LineError {
    fn from(error: JsonError) -> Self {
        Self::NotJson(error)
    }
}

/// One problem of a dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Number of the line, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub error: LineError,
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Problem", 2)?;
        out.serialize_field("line", &self.line)?;
        out.serialize_field("error", &format_args!("{}", self.error))?;
        out.end()
    }
}

/// The problems of a dump.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Problems {
    total: u64,
    first: Vec<Problem>,
}

impl Problems {
    /// How many there are.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The first of them, at most 20, in the order of the dump.
    #[must_use]
    pub fn first(&self) -> &[Problem] {
        &self.first
    }

    pub(super) fn add(&mut self, line: u64, error: LineError) {
        self.total += 1;
        if self.first.len() < PROBLEMS_KEPT_MAX {
            self.first.push(Problem { line, error });
        }
    }
}
