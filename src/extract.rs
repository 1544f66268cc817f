//! Feature extraction: dump in, [`Document`] out.
//!
//! Pure: reads any `BufRead`, line by line, in bounded memory; knows no files, no clock (the time is a parameter)
//! and no configuration beyond its limits. One module per feature family, each a function or a small state from
//! parsed entries to values; `standard` hands the entries out. [`js`] holds JavaScript's rules for numbers and
//! keys, [`json`] the scanner that checks everything and builds only what a rule reads.
//!
//! Two modes. Strict is the reference's: any error aborts. Tolerant is what the server uses: a line that is not
//! JSON is skipped, unusable data cost only the rule that needed them, and [`Problems`] tells. Without problems both
//! give the same document.
//!
//! Rules: feature extraction (the reference's behaviour, sections cited in each module); our contract 6 and 7.

mod backend;
mod budget;
mod candidate_pair;
mod clock;
mod connection_info;
mod document;
mod entry;
mod face;
mod features;
mod identity;
pub mod js;
pub mod json;
mod keyed;
mod lines;
mod packets;
mod peer_connection;
mod pings;
mod problems;
mod requests;
mod rtt;
mod sequence;
mod series;
mod speaker;
mod standard;
mod stats;
mod tracks;
pub mod user_agent;
mod value;
mod video;

use std::borrow::Cow;
use std::io::BufRead;

pub use candidate_pair::{Candidate, CandidatePair};
pub use clock::Clock;
pub use connection_info::ServerInfo;
pub use document::{ArchiveKeys, Document, DocumentFeatures, Facts};
pub use face::{FaceLandmarks, SENTIMENTS, Sentiment};
pub use features::{Features, Metrics};
pub use peer_connection::{PeerConnectionFeatures, TrackAggregates, TrackLists, TransportAggregates};
pub use pings::Ping;
pub use problems::{ExtractError, LineError, Problem, Problems};
pub use requests::{RequestCounts, Requests};
pub use sequence::Missing;
pub use speaker::SpeakerEvent;
pub use tracks::TrackFeatures;
pub use user_agent::KnownAgents;
pub use value::{Object, Value};
pub use video::{InboundVideo, VideoMeans};

use crate::client::ClientType;
use crate::config::LimitsConfig;
use backend::Backend;
use connection_info::ConnectionInfo;
use entry::{Entry, EntryType};
use identity::{Given, Identity};
use lines::RawLine;
use standard::Standard;
use user_agent::StatsFormat;

/// What bounds the extraction of one dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtractLimits {
    /// Bytes of one line.
    pub line_bytes_max: usize,
    /// Containers inside each other in one line.
    pub nesting_max: usize,
    /// Peer connections of one dump.
    pub peer_connections_max: usize,
    /// Tracks of one peer connection.
    pub tracks_max: usize,
    /// Reports of one stats entry.
    pub reports_max: usize,
}

/// Far above what clients send; for runs without a configuration.
impl Default for ExtractLimits {
    fn default() -> Self {
        Self {
            line_bytes_max: 64 << 20,
            nesting_max: 128,
            peer_connections_max: 1000,
            tracks_max: 10_000,
            reports_max: 20_000,
        }
    }
}

impl From<&LimitsConfig> for ExtractLimits {
    fn from(limits: &LimitsConfig) -> Self {
        Self {
            line_bytes_max: limits.line_bytes_max,
            nesting_max: limits.nesting_max,
            peer_connections_max: limits.peer_connections_max,
            tracks_max: limits.tracks_max,
            reports_max: limits.reports_max,
        }
    }
}

/// Nesting that is never exceeded, whatever is configured: values that are kept are built by recursion.
pub const NESTING_CEILING: usize = 512;

/// How a dump is to be read.
#[derive(Debug, Clone)]
pub struct Options {
    /// The reference's rule: any error aborts.
    pub strict: bool,
    /// Session id, as it goes into the metadata.
    pub client_id: String,
    /// Path, as it goes into the metadata.
    pub dump_path: String,
    /// The time, in ms since 1970, for what the reference fills in with it.
    pub now_ms: f64,
    /// Bounds.
    pub limits: ExtractLimits,
}

/// Derives the document of a dump.
///
/// # Errors
///
/// [`ExtractError::Read`] when `input` fails; [`ExtractError::Line`] in strict mode, at the first bad line.
pub fn extract<R: BufRead>(input: R, options: &Options) -> Result<Document, ExtractError> {
    extract_knowing(&mut KnownAgents::default(), input, options)
}

/// As [`extract`], for whoever reads one dump after the other.
///
/// # Errors
///
/// As [`extract`].
pub fn extract_knowing<R: BufRead>(
    agents: &mut KnownAgents,
    input: R,
    options: &Options,
) -> Result<Document, ExtractError> {
    let mut extraction = Extraction::new(agents, options);
    let line_bytes_max = options.limits.line_bytes_max;
    lines::for_each_line(input, line_bytes_max, |line| {
        extraction.facts.lines += 1;
        let outcome = match line {
            RawLine::Bytes(bytes) => extraction.line(bytes),
            RawLine::TooLong { bytes: line_bytes } => Err(LineError::TooLong { line_bytes, line_bytes_max }),
        };
        match outcome {
            Ok(()) => Ok(()),
            Err(reason) => extraction.fail(extraction.facts.lines, reason),
        }
    })?;
    extraction.finish()
}

/// The name of the stats format that a user agent's statistics have.
#[must_use]
pub fn stats_format(user_agent: &str) -> &'static str {
    StatsFormat::of(user_agent).name()
}

/// A dump being read.
struct Extraction<'a> {
    agents: &'a mut KnownAgents,
    options: &'a Options,
    limits: ExtractLimits,
    state: State,
    stats_format: StatsFormat,
    facts: Facts,
    problems: Problems,
}

/// What the first line has decided.
enum State {
    /// There was none yet.
    Start,
    /// It could not be used; the rest is only counted.
    Unusable,
    Rtcstats(Box<Standard>),
    Backend(Box<Backend>),
}

impl<'a> Extraction<'a> {
    fn new(agents: &'a mut KnownAgents, options: &'a Options) -> Self {
        let nesting_max = options.limits.nesting_max.min(NESTING_CEILING);
        Self {
            agents,
            options,
            limits: ExtractLimits { nesting_max, ..options.limits },
            state: State::Start,
            stats_format: StatsFormat::Unsupported,
            facts: Facts::default(),
            problems: Problems::default(),
        }
    }

    fn line(&mut self, bytes: &[u8]) -> Result<(), LineError> {
        let text = text_of(bytes);
        let number = self.facts.lines;
        if matches!(self.state, State::Start) {
            self.start(&text)?;
        }
        match &mut self.state {
            State::Start | State::Unusable => Ok(()),
            State::Rtcstats(standard) => standard.line(&text, 2 * js::utf16_len(&text) as u64, number),
            State::Backend(_) if number == 1 => Ok(()),
            State::Backend(backend) => backend.line(&text, number, self.limits.nesting_max),
        }
    }

    /// Decides by the first line how the dump is to be read.
    fn start(&mut self, line: &str) -> Result<(), LineError> {
        self.state = State::Unusable;
        let entry = Entry::read(line, self.limits.nesting_max, |_, scanner| Ok(scanner.skip_value()?));
        let entry = match entry {
            Err(LineError::NoEntry) => return Err(LineError::NoConnectionInfo),
            entry => entry?,
        };
        if entry.kind != EntryType::ConnectionInfo {
            return Err(LineError::NoConnectionInfo);
        }
        let info = ConnectionInfo::of(&entry.data)?;
        self.facts.client_type = Some(info.client_type);
        self.facts.first_clock_ms = entry.clock.truthy();
        self.facts.server = info.server;
        let agent = self.agents.look(&info.user_agent);
        self.stats_format = agent.format;
        let is_numbered = !self.options.strict;
        self.state = match info.client_type {
            ClientType::Rtcstats => {
                State::Rtcstats(Box::new(Standard::new(self.limits, self.options.now_ms, agent, is_numbered)))
            }
            ClientType::Jigasi
            | ClientType::Jicofo
            | ClientType::Jibri
            | ClientType::Jvb
            | ClientType::Unsupported => State::Backend(Box::new(Backend::new(is_numbered))),
        };
        Ok(())
    }

    /// A line is bad: the end in strict mode, an account of it otherwise.
    fn fail(&mut self, line: u64, reason: LineError) -> Result<(), ExtractError> {
        if self.options.strict {
            return Err(ExtractError::Line { line, reason });
        }
        if matches!(self.state, State::Start) {
            self.state = State::Unusable;
        }
        self.problems.add(line, reason);
        Ok(())
    }

    fn finish(mut self) -> Result<Document, ExtractError> {
        let now_ms = self.options.now_ms;
        let continues_from = self.facts.server.continues_from;
        let given = Given {
            client_id: &self.options.client_id,
            dump_path: &self.options.dump_path,
            client_type: self.facts.client_type.map_or("", ClientType::name),
            stats_format: self.stats_format.name(),
        };
        let (mut metadata, features, sequence) = match std::mem::replace(&mut self.state, State::Start) {
            State::Start | State::Unusable => (Identity::no_metadata(given), DocumentFeatures::None, None),
            State::Backend(backend) => {
                let or_now = |ms: f64| if js::is_truthy(ms) { ms } else { now_ms };
                let features = DocumentFeatures::Backend {
                    session_start_time: or_now(backend.times.start),
                    session_end_time: or_now(backend.times.end),
                };
                (backend.identity.backend_metadata(given), features, backend.sequence)
            }
            State::Rtcstats(standard) => {
                let finished = standard.finish(given);
                if let Some((line, reason)) = finished.late_error {
                    self.fail(line, reason)?;
                }
                (
                    finished.metadata,
                    DocumentFeatures::Rtcstats(Box::new(finished.features)),
                    finished.sequence,
                )
            }
        };
        let mut missing = Missing::default();
        if !self.options.strict {
            missing =
                sequence.map_or_else(Missing::default, |seen| seen.missing(continues_from.unwrap_or(0)));
            if let Some(number) = continues_from {
                #[expect(clippy::cast_precision_loss, reason = "below 9e15")]
                metadata.set("continuesFrom", Value::Number(number as f64));
            }
        }
        Ok(Document { metadata, features, problems: self.problems, missing, facts: self.facts })
    }
}

/// A line as text; invalid UTF-8 becomes U+FFFD.
fn text_of(bytes: &[u8]) -> Cow<'_, str> {
    match simdutf8::basic::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(bytes),
    }
}
