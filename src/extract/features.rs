//! The features of a dump: what every family derived, in the order of the reference's JSON.
//!
//! Plain data; the families own the rules. Rules: feature extraction 10.2, 11.

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::face::{FaceLandmarks, Sentiment};
use super::peer_connection::PeerConnectionFeatures;
use super::pings::Ping;
use super::requests::RequestCounts;
use super::speaker::SpeakerEvent;
use super::user_agent::BrowserInfo;
use super::value::{Object, Value};

/// The features of an RTCSTATS dump. Times are in ms since 1970, 0 when unknown.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    /// When the conference began.
    pub conference_start_time: f64,
    /// First time in the dump.
    pub session_start_time: f64,
    /// Largest time in the dump.
    pub session_end_time: f64,
    /// How often this participant became the dominant speaker.
    pub dominant_speaker_changes: f64,
    /// For how long, in ms.
    pub speaker_time: f64,
    /// Sums of the durations of each sentiment.
    pub sentiment: Sentiment,
    /// Expressions as they were seen.
    pub face_landmarks: Vec<FaceLandmarks>,
    /// When this participant began and ceased to be the dominant speaker.
    pub dominant_speaker_events: Vec<SpeakerEvent>,
    /// Counts and durations.
    pub metrics: Metrics,
    /// Who sent the dump.
    pub browser_info: Option<BrowserInfo>,
    /// Where it was sent from; free members.
    pub deployment_info: Option<Object>,
    /// Pings by endpoint.
    pub e2e_pings: Option<Vec<(Box<str>, Ping)>>,
    /// Which of the three before came first.
    pub(super) extras: Vec<Extra>,
    /// Everything about each peer connection, by its name.
    pub aggregates: Vec<(Box<str>, PeerConnectionFeatures)>,
}

/// A member of the features that only some dumps have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extra {
    BrowserInfo,
    DeploymentInfo,
    E2ePings,
}

/// Counts and durations of a dump.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Metrics {
    /// Entries by kind.
    pub requests: RequestCounts,
    /// From the start of the conference to the end of the session, in ms.
    pub conference_duration_ms: f64,
    /// Length of the session, in ms.
    pub session_duration_ms: f64,
}

impl Serialize for Features {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_map(None)?;
        for (name, value) in [
            ("conferenceStartTime", self.conference_start_time),
            ("sessionStartTime", self.session_start_time),
            ("sessionEndTime", self.session_end_time),
            ("dominantSpeakerChanges", self.dominant_speaker_changes),
            ("speakerTime", self.speaker_time),
        ] {
            out.serialize_entry(name, &Value::Number(value))?;
        }
        out.serialize_entry("sentiment", &self.sentiment)?;
        out.serialize_entry("faceLandmarksTimestamps", &self.face_landmarks)?;
        out.serialize_entry("dominantSpeakerEvents", &self.dominant_speaker_events)?;
        out.serialize_entry("metrics", &self.metrics)?;
        for extra in &self.extras {
            match extra {
                Extra::BrowserInfo => out.serialize_entry("browserInfo", &self.browser_info)?,
                Extra::DeploymentInfo => out.serialize_entry("deploymentInfo", &self.deployment_info)?,
                Extra::E2ePings => {
                    out.serialize_entry("e2epings", &ByName(self.e2e_pings.as_deref().unwrap_or_default()))?
                }
            }
        }
        out.serialize_entry("aggregates", &ByName(&self.aggregates))?;
        out.end()
    }
}

impl Serialize for Metrics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_map(None)?;
        let requests = &self.requests;
        for (bytes, count, kind) in [
            ("statsRequestBytes", "statsRequestCount", requests.stats),
            ("otherRequestBytes", "otherRequestCount", requests.other),
            ("sdpRequestBytes", "sdpRequestCount", requests.sdp),
            ("dsRequestBytes", "dsRequestCount", requests.speaker),
            ("totalProcessedBytes", "totalProcessedCount", requests.total()),
            ("sentimentRequestBytes", "sentimentRequestCount", requests.sentiment),
        ] {
            out.serialize_entry(bytes, &kind.bytes)?;
            out.serialize_entry(count, &kind.count)?;
        }
        out.serialize_entry("conferenceDurationMs", &Value::Number(self.conference_duration_ms))?;
        out.serialize_entry("sessionDurationMs", &Value::Number(self.session_duration_ms))?;
        out.end()
    }
}

/// Pairs of name and value as an object.
struct ByName<'a, V>(&'a [(Box<str>, V)]);

impl<V: Serialize> Serialize for ByName<'_, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (&**name, value)))
    }
}
