//! The result of a dump as it is published, and what only this process wants to know of it.
//!
//! Rules: our contract 6; feature extraction 1.

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::connection_info::ServerInfo;
use super::features::{Features, Metrics};
use super::problems::Problems;
use super::sequence::Missing;
use super::value::{Object, Value};
use crate::client::ClientType;

/// What was made of a dump. Serialises as `{dumpMetadata, features, problems, missing}`, the last two only when
/// there is something to say.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    pub(super) metadata: Object,
    pub(super) features: DocumentFeatures,
    pub(super) problems: Problems,
    pub(super) missing: Missing,
    pub(super) facts: Facts,
}

/// The features, as far as a client type has any.
#[derive(Debug, Clone, PartialEq)]
pub enum DocumentFeatures {
    /// The dump has no usable first line, or no line at all.
    None,
    /// A back end's: its times only, in ms.
    Backend {
        /// First time in the dump.
        session_start_time: f64,
        /// Largest time in the dump.
        session_end_time: f64,
    },
    /// A client's.
    Rtcstats(Box<Features>),
}

/// What is known of a dump besides its document.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// Who sent it; `None` without a usable first line.
    pub client_type: Option<ClientType>,
    /// The server's clock in the first line, in ms; decides the archive day.
    pub first_clock_ms: Option<f64>,
    /// What the server wrote into the first line.
    pub server: ServerInfo,
    /// Lines, bad ones included.
    pub lines: u64,
}

/// What an archived document says in addition (our contract 6).
#[derive(Debug, Clone, Copy)]
pub struct ArchiveKeys<'a> {
    /// Path of the `.gz`, relative to the archive.
    pub dump_path: &'a str,
    /// `<name>.gz`
    pub dump_id: &'a str,
    /// The session id without the number of a part.
    pub base_dump_id: &'a str,
    /// Stands in for session start and end where the dump has none: its last write, in ms.
    pub fallback_ms: f64,
}

impl Document {
    /// The metadata.
    #[must_use]
    pub fn metadata(&self) -> &Object {
        &self.metadata
    }

    /// The features.
    #[must_use]
    pub fn features(&self) -> &DocumentFeatures {
        &self.features
    }

    /// What was wrong with the dump; a dump with problems counts as errored.
    #[must_use]
    pub fn problems(&self) -> &Problems {
        &self.problems
    }

    /// The sequence numbers that are not in the dump.
    #[must_use]
    pub fn missing(&self) -> &Missing {
        &self.missing
    }

    /// What is known besides.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Counts and durations; `None` for dumps that are not a client's.
    #[must_use]
    pub fn metrics(&self) -> Option<&Metrics> {
        match &self.features {
            DocumentFeatures::Rtcstats(features) => Some(&features.metrics),
            DocumentFeatures::None | DocumentFeatures::Backend { .. } => None,
        }
    }

    /// Adds what an archived document says of where it is; sets `dumpPath`.
    pub fn set_archive_keys(&mut self, keys: &ArchiveKeys<'_>) {
        let (start, end) = match &self.features {
            DocumentFeatures::None => (0.0, 0.0),
            DocumentFeatures::Backend { session_start_time, session_end_time } => {
                (*session_start_time, *session_end_time)
            }
            DocumentFeatures::Rtcstats(features) => (features.session_start_time, features.session_end_time),
        };
        let or_fallback = |ms: f64| Value::Number(if ms == 0.0 { keys.fallback_ms } else { ms });
        self.metadata.set("dumpPath", Value::text(keys.dump_path));
        self.metadata.set("dumpId", Value::text(keys.dump_id));
        self.metadata.set("baseDumpId", Value::text(keys.base_dump_id));
        self.metadata.set("startDate", or_fallback(start));
        self.metadata.set("endDate", or_fallback(end));
    }
}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_map(None)?;
        out.serialize_entry("dumpMetadata", &self.metadata)?;
        match &self.features {
            DocumentFeatures::None => out.serialize_entry("features", &Object::default())?,
            DocumentFeatures::Backend { session_start_time, session_end_time } => {
                let times =
                    [("sessionStartTime", *session_start_time), ("sessionEndTime", *session_end_time)];
                let times = times.map(|(name, ms)| (Box::from(name), Value::Number(ms)));
                out.serialize_entry("features", &Object::from_iter(times))?;
            }
            DocumentFeatures::Rtcstats(features) => out.serialize_entry("features", features)?,
        }
        if self.problems.total() > 0 {
            out.serialize_entry("problems", &self.problems)?;
        }
        if self.missing.total() > 0 {
            out.serialize_entry("missing", &self.missing)?;
        }
        out.end()
    }
}
