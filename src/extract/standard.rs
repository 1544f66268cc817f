//! An RTCSTATS dump: entry by entry to the family that knows its type, and at the end the features.
//!
//! Owns the order of things: an entry's handler runs first, then what all entries have in common. An entry whose
//! data cannot be used costs only the rule that needed them; its clock, connection and number count.
//! Rules: feature extraction 4, 7.0, 10.

use super::ExtractLimits;
use super::budget::Budget;
use super::clock::{self, Clock, SessionTimes};
use super::connection_info::ConnectionInfo;
use super::entry::{Entry, EntryType};
use super::face::Face;
use super::features::{Extra, Features, Metrics};
use super::identity::{Given, Identity};
use super::keyed::{Key, Keyed};
use super::peer_connection::{Evaluation, PeerConnection};
use super::pings::Pings;
use super::problems::LineError;
use super::requests::RequestCounts;
use super::sequence::Sequence;
use super::speaker::{self, Speaker};
use super::stats::{Delta, Reported};
use super::tracks::TrackAllowance;
use super::user_agent::{Agent, BrowserInfo, StatsFormat};
use super::value::{Object, Value};

/// What an RTCSTATS dump has told so far.
#[derive(Debug)]
pub(super) struct Standard {
    limits: ExtractLimits,
    now_ms: f64,
    format: StatsFormat,
    times: SessionTimes,
    conference_start: f64,
    requests: RequestCounts,
    identity: Identity,
    speaker: Speaker,
    face: Face,
    pings: Pings,
    /// What the first line says.
    first_browser: Option<BrowserInfo>,
    browser: Option<BrowserInfo>,
    /// Optional members of the features, in the order in which the dump told of them.
    extras: Vec<Extra>,
    connections: Keyed<PeerConnection>,
    /// Connections whose stats were seen although their format is not known: those have a base.
    unread_bases: Keyed<()>,
    delta: Delta,
    /// `None` in strict mode: the reference knows no numbers.
    sequence: Option<Sequence>,
    budget: Budget,
}

/// What is left when the last line has been read.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) metadata: Object,
    pub(super) features: Features,
    pub(super) sequence: Option<Sequence>,
    /// An error that only shows at the end, and the line that it came from.
    pub(super) late_error: Option<(u64, LineError)>,
}

impl Standard {
    /// `agent`: that of the first line.
    pub(super) fn new(limits: ExtractLimits, now_ms: f64, agent: Agent, is_numbered: bool) -> Self {
        Self {
            limits,
            now_ms,
            format: agent.format,
            first_browser: agent.browser,
            times: SessionTimes::default(),
            conference_start: 0.0,
            requests: RequestCounts::default(),
            identity: Identity::default(),
            speaker: Speaker::default(),
            face: Face::default(),
            pings: Pings::default(),
            browser: None,
            extras: Vec::new(),
            connections: Keyed::default(),
            unread_bases: Keyed::default(),
            delta: Delta::default(),
            sequence: is_numbered.then(Sequence::default),
            budget: Budget::default(),
        }
    }

    /// Takes a line; its size is that of feature extraction 2.
    ///
    /// # Errors
    ///
    /// What is wrong with the line. A line that is not JSON has changed nothing; of any other all that could be
    /// used has been.
    pub(super) fn line(&mut self, line: &str, size: u64, number: u64) -> Result<(), LineError> {
        let Self { delta, connections, limits, .. } = self;
        delta.clear();
        let entry = Entry::read(line, limits.nesting_max, |pc, scanner| {
            let place = connections.place(&Key::of(pc));
            let base = place.and_then(|place| connections.at_mut(place)).and_then(|pc| pc.base.as_mut());
            delta.read(scanner, base, limits.reports_max)
        })?;
        let numbered = self.see_number(&entry);
        let handled = self.handle(&entry, size, number);
        let seen = self.see(&entry);
        handled.and(seen).and(numbered)
    }

    /// The metadata and features.
    pub(super) fn finish(mut self, given: Given<'_>) -> Finished {
        let (metadata, late_error) = self.identity.metadata(given);
        let (events, speaker) = self.speaker.finish(self.times.end);
        let aggregates = self.connections.into_ordered();
        let features = Features {
            conference_start_time: self.conference_start,
            session_start_time: self.times.start,
            session_end_time: self.times.end,
            dominant_speaker_changes: speaker.changes,
            speaker_time: speaker.time_ms,
            sentiment: self.face.sentiment,
            face_landmarks: self.face.landmarks,
            dominant_speaker_events: events,
            metrics: Metrics {
                requests: self.requests,
                conference_duration_ms: self.times.duration_since(self.conference_start),
                session_duration_ms: self.times.duration(),
            },
            browser_info: self.browser,
            deployment_info: self.identity.take_deployment(),
            e2e_pings: self.pings.finish(),
            extras: self.extras,
            aggregates: aggregates.into_iter().map(|(key, pc)| (key.text(), pc.finish())).collect(),
        };
        Finished { metadata, features, sequence: self.sequence, late_error }
    }

    /// The handler of the entry's type.
    fn handle(&mut self, entry: &Entry, size: u64, line: u64) -> Result<(), LineError> {
        let (data, at) = (&entry.data, entry.clock);
        match entry.kind {
            EntryType::ConnectionInfo => self.connection_info(data),
            EntryType::Identity => self.identify(data, line),
            EntryType::ConferenceStart => {
                if let Some(start) = clock::conference_start(data, self.now_ms) {
                    self.conference_start = start;
                }
                Ok(())
            }
            EntryType::Create => {
                self.connection(&entry.pc)?;
                check_create(data)
            }
            EntryType::Constraints => self.connection(&entry.pc)?.constrain(data),
            EntryType::ConnectionState => {
                self.connection(&entry.pc)?.connection_state(data, at);
                Ok(())
            }
            EntryType::IceState => {
                self.connection(&entry.pc)?.ice_state(data, at);
                Ok(())
            }
            EntryType::SdpCreateFailure => {
                self.connection(&entry.pc)?.sdp_create_failed();
                Ok(())
            }
            EntryType::SdpSetFailure => {
                self.connection(&entry.pc)?.sdp_set_failed();
                Ok(())
            }
            EntryType::DtlsError => {
                self.connection(&entry.pc)?.dtls_error();
                Ok(())
            }
            EntryType::DtlsState => {
                let format = self.format;
                self.connection(&entry.pc)?.dtls_state(data, format);
                Ok(())
            }
            EntryType::Sdp => {
                self.requests.sdp.add(size);
                Ok(())
            }
            EntryType::DominantSpeaker => {
                let now_ms = speaker::event_time(at)?;
                self.requests.speaker.add(size);
                self.speaker.change(data, now_ms, &mut self.budget)
            }
            EntryType::FaceLandmarks => {
                self.requests.sentiment.add(size);
                self.face.see(data, &mut self.budget)
            }
            EntryType::EndToEndRtt => {
                self.pings.see(data, &mut self.budget)?;
                self.note(Extra::E2ePings);
                Ok(())
            }
            EntryType::SetVideoType => self.set_video_type(data, at),
            EntryType::GetStats => {
                self.requests.stats.add(size);
                self.stats(entry)
            }
            EntryType::Other => {
                self.requests.other.add(size);
                Ok(())
            }
        }
    }

    /// What all entries have in common.
    fn see(&mut self, entry: &Entry) -> Result<(), LineError> {
        if !matches!(entry.kind, EntryType::ConnectionInfo | EntryType::Identity) {
            self.times.see(entry.clock);
        }
        if entry.pc.is_truthy() {
            self.connection(&entry.pc)?.touch(entry.clock);
        }
        Ok(())
    }

    fn see_number(&mut self, entry: &Entry) -> Result<(), LineError> {
        match (&mut self.sequence, entry.number) {
            (Some(sequence), Some(number)) => sequence.see(number),
            (None, _) | (_, None) => Ok(()),
        }
    }

    fn connection_info(&mut self, data: &Value) -> Result<(), LineError> {
        let info = ConnectionInfo::of(data)?;
        // A client that comes back says the same again.
        let first = self.first_browser.as_ref().filter(|first| *first.user_agent == *info.user_agent);
        if let Some(browser) = first.cloned().or_else(|| BrowserInfo::of(&info.user_agent)) {
            self.browser = Some(browser);
            self.note(Extra::BrowserInfo);
        }
        Ok(())
    }

    fn identify(&mut self, data: &Value, line: u64) -> Result<(), LineError> {
        if data.is_nullish() {
            return Err(LineError::NoData { entry: "identity" });
        }
        self.speaker.identify(data.member("endpointId"));
        self.note(Extra::DeploymentInfo);
        self.identity.merge(data, line, &mut self.budget)
    }

    fn set_video_type(&mut self, data: &Value, at: Clock) -> Result<(), LineError> {
        if data.is_nullish() {
            return Err(LineError::NoData { entry: "setVideoType" });
        }
        let (ssrc, video_type) = (data.member("ssrc"), data.member("videoType"));
        let mut outcome = Ok(());
        for (key, connection) in self.connections.iter_mut() {
            if matches!(key, Key::Name(name) if name.starts_with("PC_")) {
                let mut allowance =
                    TrackAllowance { tracks_max: self.limits.tracks_max, budget: &mut self.budget };
                outcome = outcome.and(connection.tracks.set_video_type(ssrc, video_type, at, &mut allowance));
            }
        }
        outcome
    }

    fn stats(&mut self, entry: &Entry) -> Result<(), LineError> {
        if self.format == StatsFormat::Unsupported {
            return self.unread_stats(&entry.pc);
        }
        let place = self.connection_place(&entry.pc)?;
        let mut evaluation = Evaluation {
            format: self.format,
            at: entry.clock,
            tracks_max: self.limits.tracks_max,
            budget: &mut self.budget,
        };
        match self.connections.at_mut(place) {
            Some(connection) => connection.report(&mut self.delta, &mut evaluation),
            None => Ok(()),
        }
    }

    /// Stats of an unknown format are decompressed, which can fail, but not looked at.
    fn unread_stats(&mut self, pc: &Value) -> Result<(), LineError> {
        let key = Key::of(pc);
        let has_base = self.unread_bases.place(&key).is_some();
        match self.delta.reported() {
            Reported::Nothing if has_base => Err(LineError::NoData { entry: "getstats" }),
            Reported::Reports if has_base && self.delta.has_null_report() => {
                Err(LineError::BadData { entry: "getstats", fault: "a report is null" })
            }
            Reported::Reports if !has_base => {
                self.budget.take(96 + 2 * key.heap_bytes())?;
                self.unread_bases.add(key, ());
                Ok(())
            }
            Reported::Nothing | Reported::Falsy | Reported::Reports => Ok(()),
        }
    }

    /// The connection of that name, made if it is new.
    fn connection(&mut self, name: &Value) -> Result<&mut PeerConnection, LineError> {
        let place = self.connection_place(name)?;
        let count_max = self.limits.peer_connections_max;
        self.connections.at_mut(place).ok_or(too_many_connections(count_max))
    }

    fn connection_place(&mut self, name: &Value) -> Result<usize, LineError> {
        let key = Key::of(name);
        if let Some(place) = self.connections.place(&key) {
            return Ok(place);
        }
        if self.connections.len() >= self.limits.peer_connections_max {
            return Err(too_many_connections(self.limits.peer_connections_max));
        }
        self.budget.take(size_of::<PeerConnection>() + 64 + 2 * key.heap_bytes())?;
        Ok(self.connections.add(key, PeerConnection::default()))
    }

    fn note(&mut self, extra: Extra) {
        if !self.extras.contains(&extra) {
            self.extras.push(extra);
        }
    }
}

/// `create`: nothing is taken from it, but the reference trips over these.
fn check_create(data: &Value) -> Result<(), LineError> {
    let fault = |fault| Err(LineError::BadData { entry: "create", fault });
    if data.is_nullish() {
        return Err(LineError::NoData { entry: "create" });
    }
    let servers = data.member("iceServers");
    if !servers.is_truthy() {
        return Ok(());
    }
    let Value::Array(servers) = servers else { return fault("iceServers is no array") };
    for server in servers {
        if server.is_nullish() {
            return fault("an ICE server is null");
        }
        let urls = server.member("urls");
        if matches!(urls, Value::Null | Value::Object(_)) {
            return fault("urls of an ICE server is null or an object");
        }
        if let Value::Array(urls) = urls
            && !urls.iter().all(|url| matches!(url, Value::Text(_) | Value::Array(_)))
        {
            return fault("a URL of an ICE server is no string");
        }
    }
    Ok(())
}

fn too_many_connections(count_max: usize) -> LineError {
    LineError::TooMany { what: "peer connections", count_max }
}
