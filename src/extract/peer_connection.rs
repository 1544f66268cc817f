//! One peer connection: its events, and what all rules together make of it.
//!
//! Owns the connection's state (states of ICE and DTLS, failures, times) and the state of the families that live
//! per connection; the rules of those are in their own modules.
//! Rules: feature extraction 7 (events), 4.1 (end time), 8.2 (one stats entry), 9.3 (aggregates).

use serde::{Serialize, Serializer};

use super::budget::Budget;
use super::candidate_pair::{self, CandidatePair};
use super::clock::Clock;
use super::js;
use super::packets;
use super::problems::LineError;
use super::rtt;
use super::series::Series;
use super::stats::{Base, Delta, Field, Report, Reported};
use super::tracks::{Direction, Packets, TrackAllowance, TrackFeatures, Tracks, lost_percent};
use super::user_agent::StatsFormat;
use super::value::Value;
use super::video::{Bounds, InboundVideo, Video};

/// Everything that is derived for one peer connection.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerConnectionFeatures {
    /// Whether it connects two participants directly, as the client says; null when it does not.
    #[serde(rename = "isP2P")]
    pub is_p2p: Value,
    /// Whether the last selected candidate pair uses a relay; null without one.
    pub uses_relay: Option<bool>,
    /// DTLS errors.
    pub dtls_errors: u64,
    /// DTLS failures.
    pub dtls_failure: u64,
    /// Failures to create a description.
    pub sdp_create_failure: u64,
    /// Failures to set a description.
    pub sdp_set_failure: u64,
    /// Last time that ICE failed, in ms.
    #[serde(skip_serializing_if = "Clock::is_absent")]
    pub last_ice_failure: Clock,
    /// Last time that ICE was disconnected, in ms.
    #[serde(skip_serializing_if = "Clock::is_absent")]
    pub last_ice_disconnect: Clock,
    /// The last selected candidate pair; `{}` without one.
    #[serde(serialize_with = "serialize_pair")]
    pub candidate_pair_data: Option<CandidatePair>,
    /// The tracks.
    pub tracks: TrackLists,
    /// Sums over the tracks.
    pub track_aggregates: TrackAggregates,
    /// What concerns the transport.
    pub transport_aggregates: TransportAggregates,
    /// Connections after the first.
    pub ice_reconnects: u64,
    /// From the first connected state to the last entry, in ms.
    #[serde(serialize_with = "js::serialize_number")]
    pub pc_session_duration_ms: f64,
    /// Whether the connection state was ever `failed`.
    pub connection_failed: bool,
    /// Inbound video, if there was any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inbound_video_experience: Option<InboundVideo>,
}

/// Tracks by direction.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrackLists {
    /// What was received.
    pub receiver_tracks: Vec<TrackFeatures>,
    /// What was sent.
    pub sender_tracks: Vec<TrackFeatures>,
}

/// Sums of the last counter values over the tracks.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names say it")]
pub struct TrackAggregates {
    #[serde(serialize_with = "js::serialize_number")]
    pub total_sent_packets_lost: f64,
    #[serde(serialize_with = "js::serialize_number")]
    pub total_packets_sent: f64,
    #[serde(serialize_with = "js::serialize_number")]
    pub sent_packets_lost_pct: f64,
    #[serde(serialize_with = "js::serialize_number")]
    pub total_received_packets_lost: f64,
    #[serde(serialize_with = "js::serialize_number")]
    pub total_packets_received: f64,
    #[serde(serialize_with = "js::serialize_number")]
    pub received_packets_lost_pct: f64,
}

/// What concerns the transport.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TransportAggregates {
    /// Mean round-trip time in seconds (old Chrome: milliseconds).
    #[serde(serialize_with = "js::serialize_number")]
    pub mean_rtt: f64,
}

fn serialize_pair<S: Serializer>(pair: &Option<CandidatePair>, serializer: S) -> Result<S::Ok, S::Error> {
    match pair {
        Some(pair) => pair.serialize(serializer),
        None => serializer.collect_map(std::iter::empty::<((), ())>()),
    }
}

/// What the evaluation of a stats entry needs besides the connection.
#[derive(Debug)]
pub(super) struct Evaluation<'a> {
    pub(super) format: StatsFormat,
    pub(super) at: Clock,
    pub(super) tracks_max: usize,
    pub(super) budget: &'a mut Budget,
}

/// The state of a peer connection.
#[derive(Debug)]
pub(super) struct PeerConnection {
    is_p2p: Value,
    dtls_errors: u64,
    dtls_failures: u64,
    sdp_create_failures: u64,
    sdp_set_failures: u64,
    start: Clock,
    end: Clock,
    ice_disconnect: Clock,
    ice_failure: Clock,
    connected_states: u64,
    has_failed: bool,
    pair: Option<CandidatePair>,
    rtts: Series,
    video: Video,
    pub(super) tracks: Tracks,
    /// The reports after the last stats entry; `None` before the first.
    pub(super) base: Option<Base>,
}

impl Default for PeerConnection {
    fn default() -> Self {
        Self {
            is_p2p: Value::Null,
            dtls_errors: 0,
            dtls_failures: 0,
            sdp_create_failures: 0,
            sdp_set_failures: 0,
            start: Clock::At(0.0),
            end: Clock::At(0.0),
            ice_disconnect: Clock::At(0.0),
            ice_failure: Clock::At(0.0),
            connected_states: 0,
            has_failed: false,
            pair: None,
            rtts: Series::default(),
            video: Video::default(),
            tracks: Tracks::default(),
            base: None,
        }
    }
}

impl PeerConnection {
    /// An entry of this connection has been handled.
    pub(super) fn touch(&mut self, at: Clock) {
        if self.start.truthy().is_some() {
            self.end = at;
        }
    }

    /// `constraints`: whether it is peer to peer.
    ///
    /// # Errors
    ///
    /// When the data or its list is null, or an element of that; then nothing is taken.
    pub(super) fn constrain(&mut self, data: &Value) -> Result<(), LineError> {
        let fault = |fault| Err(LineError::BadData { entry: "constraints", fault });
        if data.is_nullish() {
            return Err(LineError::NoData { entry: "constraints" });
        }
        let optional = data.member("optional");
        if *optional == Value::Null {
            return fault("optional is null");
        }
        let Value::Array(optional) = optional else { return Ok(()) };
        if optional.contains(&Value::Null) {
            return fault("an element of optional is null");
        }
        let mut stated = optional.iter().rev().filter_map(|item| item.as_object()?.get("rtcStatsSFUP2P"));
        if let Some(last) = stated.next() {
            self.is_p2p = last.clone();
        }
        Ok(())
    }

    /// `onconnectionstatechange`
    pub(super) fn connection_state(&mut self, state: &Value, at: Clock) {
        let state = state.as_str();
        if matches!(state, Some("connected" | "completed")) && self.start.truthy().is_none() {
            self.start = at;
        }
        self.connected_states += u64::from(state == Some("connected"));
        self.has_failed |= state == Some("failed");
    }

    /// `oniceconnectionstatechange`
    pub(super) fn ice_state(&mut self, state: &Value, at: Clock) {
        match state.as_str() {
            Some("disconnected") => self.ice_disconnect = at,
            Some("failed") => self.ice_failure = at,
            Some(_) | None => {}
        }
    }

    /// `createAnswerOnFailure`, `createOfferOnFailure`
    pub(super) fn sdp_create_failed(&mut self) {
        self.sdp_create_failures += 1;
    }

    /// `setLocalDescriptionOnFailure`, `setRemoteDescriptionOnFailure`
    pub(super) fn sdp_set_failed(&mut self) {
        self.sdp_set_failures += 1;
    }

    /// `ondtlserror`
    pub(super) fn dtls_error(&mut self) {
        self.dtls_errors += 1;
    }

    /// `ondtlsstatechange`: Firefox reports a failure when ICE was lost, too.
    pub(super) fn dtls_state(&mut self, state: &Value, format: StatsFormat) {
        let is_ice_to_blame = format == StatsFormat::Firefox && self.ice_disconnect != Clock::At(0.0);
        if state.as_str() == Some("failed") && !is_ice_to_blame {
            self.dtls_failures += 1;
        }
    }

    /// `getstats`: applies the line to the base, and evaluates that.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong; everything else in the line is taken all the same.
    pub(super) fn report(
        &mut self,
        delta: &mut Delta,
        evaluation: &mut Evaluation<'_>,
    ) -> Result<(), LineError> {
        match (&mut self.base, delta.reported()) {
            (None, Reported::Nothing) => return Err(LineError::NoData { entry: "getstats" }),
            (None, Reported::Falsy) => return Ok(()),
            (Some(_), _) | (None, Reported::Reports) => {}
        }
        let applied = self.base.get_or_insert_default().apply(delta, evaluation.budget);
        applied.and(self.evaluate(evaluation))
    }

    /// The result.
    pub(super) fn finish(self) -> PeerConnectionFeatures {
        let mut tracks = TrackLists::default();
        let (mut sent, mut received) = ((0.0, 0.0), (0.0, 0.0));
        for track in self.tracks.into_ordered() {
            for (direction, list, sums) in [
                (Direction::Sent, &mut tracks.sender_tracks, &mut sent),
                (Direction::Received, &mut tracks.receiver_tracks, &mut received),
            ] {
                if let (Some(features), Some((packets, lost))) =
                    (track.features(direction), track.last(direction))
                {
                    list.push(features);
                    *sums = (sums.0 + packets, sums.1 + lost);
                }
            }
        }
        let duration = match (self.start.truthy(), self.end.truthy()) {
            (Some(start), Some(end)) if end > start => end - start,
            _ => 0.0,
        };
        PeerConnectionFeatures {
            is_p2p: self.is_p2p,
            uses_relay: self.pair.as_ref().map(|pair| pair.is_using_relay),
            dtls_errors: self.dtls_errors,
            dtls_failure: self.dtls_failures,
            sdp_create_failure: self.sdp_create_failures,
            sdp_set_failure: self.sdp_set_failures,
            last_ice_failure: self.ice_failure,
            last_ice_disconnect: self.ice_disconnect,
            candidate_pair_data: self.pair,
            tracks,
            track_aggregates: TrackAggregates {
                total_sent_packets_lost: sent.1,
                total_packets_sent: sent.0,
                sent_packets_lost_pct: lost_percent(sent.1, sent.0),
                total_received_packets_lost: received.1,
                total_packets_received: received.0,
                received_packets_lost_pct: lost_percent(received.1, received.0),
            },
            transport_aggregates: TransportAggregates { mean_rtt: js::round2(self.rtts.mean()) },
            ice_reconnects: self.connected_states.saturating_sub(1),
            pc_session_duration_ms: duration,
            connection_failed: self.has_failed,
            inbound_video_experience: self.video.means(),
        }
    }

    /// Evaluates the base as it stands now, report by report in key order.
    fn evaluate(&mut self, evaluation: &mut Evaluation<'_>) -> Result<(), LineError> {
        let Some(base) = &self.base else { return Ok(()) };
        let rules = match evaluation.format {
            StatsFormat::ChromeStandard | StatsFormat::Safari => Rules::Standard,
            StatsFormat::Firefox => Rules::Firefox,
            StatsFormat::Unsupported => return Ok(()),
        };
        let mut outcome = Ok(());
        let mut bounds = Bounds::default();
        for (place, report) in base.of_interest() {
            let (rtt, pair, sent) = match rules {
                Rules::Standard => (
                    rtt::standard(base, report),
                    candidate_pair::standard(base, report, place),
                    packets::sent_standard(base, report),
                ),
                Rules::Firefox => (
                    rtt::firefox(report),
                    candidate_pair::firefox(base, report, place),
                    packets::sent_firefox(report),
                ),
            };
            if let Some(rtt) = rtt {
                self.rtts.push(rtt, evaluation.budget);
            }
            match pair {
                Ok(Some(pair)) if self.pair.as_ref() != Some(&pair) => self.pair = Some(pair),
                Ok(_) => {}
                Err(error) => outcome = outcome.and(Err(error)),
            }
            let samples = if rules == Rules::Standard { packets::samples(report) } else { None };
            let readings = Readings { sent, received: packets::received(report), samples };
            outcome = outcome.and(readings.add_to(&mut self.tracks, report, evaluation));
            if rules == Rules::Standard {
                bounds.see(report);
            }
        }
        self.video.add(bounds, evaluation.budget);
        outcome
    }
}

/// Which rules a stats format is evaluated by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rules {
    Standard,
    Firefox,
}

/// What one report says of its track.
#[derive(Debug)]
struct Readings {
    sent: Option<Packets>,
    received: Option<Packets>,
    samples: Option<(f64, f64)>,
}

impl Readings {
    fn add_to(
        self,
        tracks: &mut Tracks,
        report: &Report,
        evaluation: &mut Evaluation<'_>,
    ) -> Result<(), LineError> {
        if self.sent.is_none() && self.received.is_none() && self.samples.is_none() {
            return Ok(());
        }
        let mut allowance =
            TrackAllowance { tracks_max: evaluation.tracks_max, budget: &mut *evaluation.budget };
        let track =
            tracks.find(report.field(Field::Ssrc), evaluation.at, &report.track_hint, &mut allowance)?;
        let media_type = packets::media_type(report);
        for (direction, reading) in [(Direction::Sent, self.sent), (Direction::Received, self.received)] {
            if let Some(reading) = reading {
                track.add_packets(direction, reading, media_type, evaluation.budget);
            }
        }
        if let Some((total, concealed)) = self.samples {
            track.add_samples(total, concealed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extract::json::Scanner;

    fn value(json: &str) -> Value {
        Value::read(&mut Scanner::new(json, 16)).unwrap()
    }

    #[test]
    fn it_lasts_from_the_first_connected_state_to_the_last_entry() {
        let mut connection = PeerConnection::default();
        for (state, at) in
            [("new", 1.0), ("connected", 5.0), ("disconnected", 6.0), ("connected", 7.0), ("failed", 9.0)]
        {
            connection.connection_state(&Value::text(state), Clock::At(at));
            connection.touch(Clock::At(at));
        }
        let features = connection.finish();
        assert_eq!(
            (features.pc_session_duration_ms, features.ice_reconnects, features.connection_failed),
            (4.0, 1, true)
        );
    }

    #[test]
    fn an_end_before_the_start_is_no_duration() {
        let mut connection = PeerConnection::default();
        connection.connection_state(&Value::text("completed"), Clock::At(5.0));
        connection.touch(Clock::At(3.0));
        let features = connection.finish();
        assert_eq!((features.pc_session_duration_ms, features.ice_reconnects), (0.0, 0));
    }

    #[test]
    fn firefox_blames_ice_for_later_dtls_failures() {
        for (format, failures) in [(StatsFormat::Firefox, 1), (StatsFormat::ChromeStandard, 2)] {
            let mut connection = PeerConnection::default();
            connection.dtls_state(&Value::text("failed"), format);
            connection.ice_state(&Value::text("disconnected"), Clock::At(5.0));
            connection.dtls_state(&Value::text("failed"), format);
            connection.dtls_state(&Value::text("connected"), format);
            assert_eq!(connection.finish().dtls_failure, failures, "{format:?}");
        }
    }

    #[test]
    fn the_last_constraint_tells_peer_to_peer() {
        let mut connection = PeerConnection::default();
        for data in [r#"{"optional":[{"rtcStatsSFUP2P":false},{"x":1},{"rtcStatsSFUP2P":true}]}"#, "{}", "5"]
        {
            assert_eq!(connection.constrain(&value(data)), Ok(()), "{data}");
        }
        for data in ["null", r#"{"optional":null}"#, r#"{"optional":[{"rtcStatsSFUP2P":false},null]}"#] {
            assert!(connection.constrain(&value(data)).is_err(), "{data}");
        }
        assert_eq!(connection.finish().is_p2p, Value::Bool(true));
    }

    #[test]
    fn untouched_it_has_the_defaults_of_the_reference() {
        let text = serde_json::to_string(&PeerConnection::default().finish()).unwrap();
        assert!(text.starts_with(concat!(
            r#"{"isP2P":null,"usesRelay":null,"dtlsErrors":0,"dtlsFailure":0,"sdpCreateFailure":0,"sdpSetFailure":0,"#,
            r#""lastIceFailure":0,"lastIceDisconnect":0,"candidatePairData":{},"tracks":{"receiverTracks":[],"senderTracks":[]},"#
        )), "{text}");
        assert!(
            text.ends_with(r#""iceReconnects":0,"pcSessionDurationMs":0,"connectionFailed":false}"#),
            "{text}"
        );
    }
}
