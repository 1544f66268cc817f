//! What the clients of a bench send: a generated session as a browser writes it, with the sizes of the field.
//!
//! One cycle is an identity, the events of a call being set up, session descriptions, and a row of delta compressed
//! statistics: 84 messages of 3.7 KB on average, from some 50 bytes to 20 KB. A session sends the identity once
//! and then goes round the rest; clock and number make every entry different, so that a lost, repeated or
//! swapped one shows.

use serde_json::{Map, Value, json};

use super::frames;
use super::rng::Rng;

/// Length of a session id.
pub(crate) const ID_BYTES: usize = 36;

/// Every frame is masked with the same key: unmasking costs the same whatever it is.
const MASK: [u8; 4] = [0x5b, 0xe1, 0x37, 0x8c];

/// What comes before the id in every request.
const HEAD: &str = "{\"statsSessionId\":\"";

/// The clock of the first entry, in milliseconds; 13 digits for as long as any run.
const CLOCK_MS: u64 = 1_750_000_000_000;

/// Statistics lines of one cycle; the first of them holds everything, the others what has changed.
const STATS_LINES: u64 = 34;

/// One kind of message, the same for every session but for id, clock and number.
#[derive(Debug)]
struct Template {
    /// The line up to its clock.
    line: String,
    /// The request between id and clock, masked for its place.
    middle: Vec<u8>,
    /// What follows the number.
    tail: &'static str,
}

/// The messages of a session, by index.
#[derive(Debug)]
pub(crate) struct Mix {
    identity: Template,
    entries: Vec<Template>,
}

/// A session's id, as it is and as it goes over the wire.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) text: String,
    masked: [u8; ID_BYTES],
    /// Where in the cycle the session begins after its identity.
    first: u64,
}

impl Identity {
    /// An id at random; the session goes through the cycle from `first` on.
    pub(crate) fn new(rng: &mut Rng, first: u64) -> Self {
        let text = rng.uuid();
        let mut masked: [u8; ID_BYTES] = text.as_bytes().try_into().expect("an id has 36 bytes");
        mask(&mut masked, HEAD.len());
        Self { text, masked, first }
    }
}

impl Mix {
    pub(crate) fn generate(rng: &mut Rng) -> Self {
        let identity = Template::identity(&identity(rng));
        let entries =
            events(rng).into_iter().chain(statistics(rng)).map(|line| Template::entry(line.as_str()));
        Self { identity, entries: entries.collect() }
    }

    /// Messages of one cycle.
    pub(crate) fn cycle(&self) -> u64 {
        1 + self.entries.len() as u64
    }

    /// Bytes of payload of one cycle.
    pub(crate) fn cycle_bytes(&self) -> u64 {
        let payload =
            |template: &Template| HEAD.len() + ID_BYTES + template.middle.len() + 15 + template.tail.len();
        std::iter::once(&self.identity).chain(&self.entries).map(|template| payload(template) as u64).sum()
    }

    /// Appends the frame of the session's message `index` to `out`.
    pub(crate) fn push_frame(&self, out: &mut Vec<u8>, identity: &Identity, index: u64) {
        let template = self.template(identity, index);
        let stamp = format!("{},{}{}", CLOCK_MS + index, index + 1, template.tail);
        let payload_bytes = HEAD.len() + ID_BYTES + template.middle.len() + stamp.len();
        frames::push_header(out, 0x80 | frames::TEXT, payload_bytes, MASK);
        let start = out.len();
        out.extend_from_slice(HEAD.as_bytes());
        mask(&mut out[start..], 0);
        out.extend_from_slice(&identity.masked);
        out.extend_from_slice(&template.middle);
        let end = out.len();
        out.extend_from_slice(stamp.as_bytes());
        mask(&mut out[end..], end - start);
    }

    /// The line that the session's message `index` must leave, compared without building it.
    pub(crate) fn matches(&self, identity: &Identity, index: u64, line: &str) -> bool {
        let stamp = format!("{},{}]", CLOCK_MS + index, index + 1);
        line.strip_prefix(self.template(identity, index).line.as_str()) == Some(&*stamp)
    }

    fn template(&self, identity: &Identity, index: u64) -> &Template {
        match index {
            0 => &self.identity,
            _ => &self.entries[((identity.first + index - 1) % self.entries.len() as u64) as usize],
        }
    }
}

impl Template {
    /// `data` is an array.
    fn identity(line: &str) -> Self {
        Self::new(line, &format!("\",\"type\":\"identity\",\"data\":{line}"), "]}")
    }

    /// `data` is a string that holds an array.
    fn entry(line: &str) -> Self {
        let quoted = Value::from(line).to_string();
        let open = quoted.strip_suffix('"').expect("a JSON string ends with a quote");
        Self::new(line, &format!("\",\"type\":\"stats-entry\",\"data\":{open}"), "]\"}")
    }

    fn new(line: &str, middle: &str, tail: &'static str) -> Self {
        let mut middle = middle.as_bytes().to_vec();
        mask(&mut middle, HEAD.len() + ID_BYTES);
        Self { line: line.to_owned(), middle, tail }
    }
}

/// Masks bytes that stand at `offset` of a payload.
fn mask(bytes: &mut [u8], offset: usize) {
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte ^= MASK[(offset + index) % 4];
    }
}

/// A line without its clock and number: everything up to the comma before them.
fn line(kind: &str, connection: Option<&str>, data: &Value) -> String {
    format!("[\"{kind}\",{},{data},", Value::from(connection))
}

fn identity(rng: &mut Rng) -> String {
    let flags: Map<String, Value> =
        (0..90).map(|n| (format!("config.flag{n}.{:x}", rng.next() >> 44), json!(rng.one_in(2)))).collect();
    let data = json!({
        "applicationName": "Jitsi Meet",
        "confName": "bench@conference.meet.example.org",
        "displayName": "Zoë",
        "endpointId": format!("{:08x}", rng.next() >> 32),
        "deploymentInfo": {"environment": "bench", "envType": "dev", "region": "eu-west-1", "shard": "s1"},
        "flags": flags,
    });
    line("identity", None, &data)
}

/// The small entries: 49 of them, three with a session description.
fn events(rng: &mut Rng) -> Vec<String> {
    let pc = Some("PC_0");
    let mut events = vec![
        line("create", pc, &json!({"iceServers": [], "bundlePolicy": "max-bundle", "browserType": "webkit"})),
        line("constraints", pc, &json!({"optional": [{"rtcStatsSFUP2P": false}]})),
        line("setRemoteDescription", pc, &description(rng, "offer", 34)),
        line("createAnswerOnSuccess", pc, &description(rng, "answer", 20)),
        line("setLocalDescription", pc, &description(rng, "answer", 26)),
    ];
    for n in 0..8 {
        let candidate =
            format!("candidate:{n} 1 udp 2122260223 x.x.x.x {} typ host generation 0", 50_000 + n);
        events.push(line(
            "onicecandidate",
            pc,
            &json!({"candidate": candidate, "sdpMid": "0", "sdpMLineIndex": 0}),
        ));
    }
    for n in 0..16 {
        let kind = if n % 2 == 0 { "audio" } else { "video" };
        events.push(line("ontrack", pc, &json!(format!("{kind}:{} stream:{}", rng.uuid(), rng.uuid()))));
    }
    for state in ["new", "checking", "connected", "completed", "stable"] {
        for kind in ["oniceconnectionstatechange", "onsignalingstatechange", "onconnectionstatechange", "x"] {
            events.push(line(kind, pc, &json!(state)));
        }
    }
    events
}

fn description(rng: &mut Rng, kind: &str, lines: u64) -> Value {
    let mut sdp = String::from("v=0\r\no=- 1923518516 2 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n");
    for n in 0..lines {
        sdp += &format!(
            "a=ssrc:{} cname:{}\r\na=rtcp-fb:{n} nack pli\r\na=rtpmap:{n} VP8/90000\r\n",
            rng.next() >> 32,
            rng.uuid()
        );
    }
    json!({"type": kind, "sdp": sdp})
}

/// The statistics of one peer connection, polled: first all of them, then what has changed.
fn statistics(rng: &mut Rng) -> Vec<String> {
    let streams: Vec<(String, &str, u64)> =
        (0..10).map(|n| (rng.uuid(), if n % 2 == 0 { "audio" } else { "video" }, rng.next() >> 32)).collect();
    (0..STATS_LINES).map(|tick| line("getstats", Some("PC_0"), &reports(rng, &streams, tick))).collect()
}

fn reports(rng: &mut Rng, streams: &[(String, &str, u64)], tick: u64) -> Value {
    let full = tick == 0;
    let mut reports = Map::new();
    let mut add = |id: String, fixed: Value, moving: Value| {
        let mut report = if full { fixed } else { json!({}) };
        let (Value::Object(report), Value::Object(moving)) = (&mut report, moving) else { unreachable!() };
        report.extend(moving);
        report.insert("timestamp".into(), json!(0));
        reports.insert(id, Value::Object(std::mem::take(report)));
    };
    for n in 0..40 {
        add(
            format!("RTCCodec_Inbound_{n}"),
            json!({"type": "codec", "payloadType": n, "mimeType": "video/VP8", "clockRate": 90_000,
                   "sdpFmtpLine": "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"}),
            json!({}),
        );
    }
    add(
        "RTCTransport_0_1".into(),
        json!({"type": "transport", "dtlsState": "connected", "selectedCandidatePairId": "RTCIceCandidatePair_a_b"}),
        json!({"bytesSent": tick * 99_871, "bytesReceived": tick * 1_288_003}),
    );
    add(
        "RTCIceCandidatePair_a_b".into(),
        json!({"type": "candidate-pair", "localCandidateId": "RTCIceCandidate_a", "remoteCandidateId": "RTCIceCandidate_b",
               "state": "succeeded", "nominated": true, "writable": true}),
        json!({"currentRoundTripTime": rng.between(20, 80) as f64 / 1000.0, "bytesSent": tick * 99_871,
               "availableOutgoingBitrate": rng.between(300_000, 2_500_000), "responsesReceived": tick}),
    );
    for (id, kind) in [("RTCIceCandidate_a", "local-candidate"), ("RTCIceCandidate_b", "remote-candidate")] {
        add(
            id.into(),
            json!({"type": kind, "candidateType": "host", "port": 10_000, "protocol": "udp"}),
            json!({}),
        );
    }
    for (track, kind, ssrc) in streams {
        add(
            format!("RTCInboundRTP_{kind}_{ssrc}"),
            json!({"type": "inbound-rtp", "ssrc": ssrc, "mediaType": kind, "kind": kind, "trackId": track,
                   "transportId": "RTCTransport_0_1", "codecId": "RTCCodec_Inbound_1"}),
            json!({"packetsReceived": tick * 431 + ssrc % 7, "packetsLost": tick / 9, "bytesReceived": tick * 188_331,
                   "headerBytesReceived": tick * 5_172, "jitter": rng.between(1, 90) as f64 / 1000.0,
                   "lastPacketReceivedTimestamp": 17_346.287 + tick as f64, "frameHeight": 360, "framesPerSecond": 30,
                   "framesDecoded": tick * 30, "keyFramesDecoded": 1 + tick / 10, "qpSum": tick * 911,
                   "totalDecodeTime": tick as f64 * 0.173, "totalInterFrameDelay": tick as f64 * 1.000_173}),
        );
        add(
            format!("RTCMediaStreamTrack_receiver_{track}"),
            json!({"type": "track", "trackIdentifier": track, "remoteSource": true, "ended": false, "kind": kind}),
            json!({"totalSamplesReceived": tick * 48_000 + 1, "concealedSamples": tick * 17 + 1, "audioLevel": 0.003_418,
                   "jitterBufferDelay": tick as f64 * 2_457.6, "jitterBufferEmittedCount": tick * 47_040}),
        );
    }
    Value::Object(reports)
}
