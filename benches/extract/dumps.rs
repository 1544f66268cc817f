//! Dumps as the four kinds of senders write them, made up: sizes, names and delta compression are as in real ones,
//! the values come from a counter with a seed.

use std::fmt::Write;

/// First clock of every dump, in ms.
const START_MS: u64 = 1_700_000_000_000;
/// Time between two stats entries, in ms.
const INTERVAL_MS: u64 = 10_000;

const CHROME: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36";
const FIREFOX: &str = "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:119.0) Gecko/20100101 Firefox/119.0";
const SAFARI: &str = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.1 Safari/605.1.15";

/// A report of a simulated peer connection.
struct Report {
    id: String,
    /// Members that never change.
    fixed: String,
    /// Counters: name, value, step, and decimal places.
    counters: Vec<(&'static str, f64, f64, usize)>,
    /// Members that are sent every time.
    repeated: String,
}

impl Report {
    fn new(id: String, fixed: String) -> Self {
        Self { id, fixed, counters: Vec::new(), repeated: String::new() }
    }

    fn counting(mut self, counters: &[(&'static str, f64, f64, usize)]) -> Self {
        self.counters.extend_from_slice(counters);
        self
    }

    fn repeating(mut self, members: &str) -> Self {
        members.clone_into(&mut self.repeated);
        self
    }
}

/// A small generator of numbers (xorshift), the same for the same seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn hex(&mut self) -> String {
        format!("{:08x}", self.below(1 << 32))
    }
}

/// A dump of Chrome in a call with `participants` others.
pub(crate) fn chrome(entries: u64, participants: u64) -> String {
    client(CHROME, entries, chrome_reports(participants))
}

/// A dump of Safari: the same reports, fewer of them moving.
pub(crate) fn safari(entries: u64, participants: u64) -> String {
    let mut reports = chrome_reports(participants);
    for report in reports.iter_mut().filter(|report| !report.id.starts_with("RTCInbound")) {
        report.counters.truncate(2);
    }
    client(SAFARI, entries, reports)
}

/// A dump of Firefox: other names, shorter ids.
pub(crate) fn firefox(entries: u64, participants: u64) -> String {
    client(FIREFOX, entries, firefox_reports(participants))
}

/// A dump of a bridge: large objects as JSON inside a string.
pub(crate) fn jvb(entries: u64) -> String {
    let mut numbers = Numbers(7);
    let mut out = first_line("Node v16.20.0", "3.0_JVB");
    for entry in 0..entries {
        let mut data =
            String::from("{\"endpoints\":{\"92aac468\":{\"transceiver\":{\"RTP receiver 92aac468\":{");
        for node in 0..16 {
            let _ = write!(
                data,
                "{}\"Node Packet filter {node} {}\":{{\"num_input_packets\":{},\"num_output_packets\":{},\
                 \"total_time_spent_ns\":{},\"duration_ms\":{},\"average_time_per_packet_ns\":{}.4112517916866,\
                 \"throughput_mbps\":0.0025039170282{}}}",
                if node == 0 { "" } else { "," },
                numbers.below(1 << 31),
                entry * 28 + numbers.below(28),
                entry * 28,
                entry * 91_731 + numbers.below(90_000),
                entry * 5_000,
                numbers.below(9_000),
                numbers.below(100_000),
            );
        }
        data.push_str("}}}}}");
        let _ = writeln!(
            out,
            "{{\"statsSessionId\":\"sid\",\"type\":\"stats-entry\",\"data\":{},\"timestamp\":{}}}",
            quoted(&data),
            START_MS + entry * 5_000,
        );
    }
    out
}

fn first_line(user_agent: &str, protocol: &str) -> String {
    format!(
        "[\"connectionInfo\",null,{{\"path\":\"/room\",\"origin\":\"https://meet.example\",\"url\":\"https://meet.example/room\",\
         \"userAgent\":\"{user_agent}\",\"clientProtocol\":\"{protocol}\"}},{START_MS}]\n"
    )
}

/// A text of printable characters as a JSON string.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn client(user_agent: &str, entries: u64, mut reports: Vec<Report>) -> String {
    let mut numbers = Numbers(3);
    let mut out = first_line(user_agent, "3.1_STANDARD");
    let mut sequence = 0;
    let mut line = |out: &mut String, kind: &str, pc: &str, data: &str, at: u64| {
        sequence += 1;
        let _ = writeln!(out, "[\"{kind}\",{pc},{data},{},{sequence}]", START_MS + at);
    };
    let identity = "{\"endpointId\":\"me\",\"confName\":\"room\",\"confID\":\"https://meet.example/room\",\
                    \"deploymentInfo\":{\"region\":\"eu\",\"shard\":\"s1\"}}";
    line(&mut out, "identity", "null", identity, 5);
    line(&mut out, "create", "\"PC_0\"", "{\"iceServers\":[]}", 10);
    for (at, kind) in (20..).zip(["setRemoteDescription", "createAnswerOnSuccess", "setLocalDescription"]) {
        line(&mut out, kind, "\"PC_0\"", &description(), at);
    }
    line(&mut out, "onconnectionstatechange", "\"PC_0\"", "\"connected\"", 100);
    for entry in 0..entries {
        let stats = stats(&mut reports, entry, &mut numbers);
        line(&mut out, "getstats", "\"PC_0\"", &stats, 1_000 + entry * INTERVAL_MS);
        if entry % 4 == 1 {
            let speaker = if entry % 8 == 1 { "me" } else { "other" };
            let data = format!("{{\"dominantSpeakerEndpoint\":\"{speaker}\"}}");
            line(&mut out, "dominantSpeaker", "null", &data, 1_500 + entry * INTERVAL_MS);
        }
    }
    out
}

/// A session description, as a line of JSON.
fn description() -> String {
    let mut sdp =
        String::from("v=0\\r\\no=- 5277541483886514861 2 IN IP4 127.0.0.1\\r\\ns=-\\r\\nt=0 0\\r\\n");
    for payload in 96..127 {
        let _ = write!(
            sdp,
            "a=rtpmap:{payload} H264/90000\\r\\na=rtcp-fb:{payload} nack pli\\r\\n\
             a=fmtp:{payload} level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f\\r\\n"
        );
    }
    format!("{{\"type\":\"answer\",\"sdp\":\"{sdp}\"}}")
}

/// One entry's reports: everything at first, then what changed.
fn stats(reports: &mut [Report], entry: u64, numbers: &mut Numbers) -> String {
    let mut out = String::from("{");
    for (at, report) in reports.iter_mut().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let _ = write!(out, "{comma}\"{}\":{{\"timestamp\":0", report.id);
        if entry == 0 {
            out.push_str(&report.fixed);
        }
        for (name, value, step, places) in &mut report.counters {
            // One in eight does not move.
            if entry == 0 || numbers.below(8) > 0 {
                *value += *step;
                let _ = write!(out, ",\"{name}\":{value:.places$}", places = *places);
            }
        }
        out.push_str(&report.repeated);
        out.push('}');
    }
    out.push('}');
    out
}

fn chrome_reports(participants: u64) -> Vec<Report> {
    let mut reports = Vec::new();
    for direction in ["Inbound", "Outbound"] {
        for payload in 96..127 {
            let fixed = format!(
                ",\"type\":\"codec\",\"payloadType\":{payload},\"clockRate\":90000,\"mimeType\":\"video/H264\""
            );
            reports.push(Report::new(format!("RTCCodec_video_{direction}_{payload}"), fixed));
        }
    }
    for (id, kind) in
        [("RTCIceCandidate_local", "local-candidate"), ("RTCIceCandidate_remote", "remote-candidate")]
    {
        let fixed = format!(
            ",\"type\":\"{kind}\",\"candidateType\":\"host\",\"address\":\"x.x.x.x\",\"port\":10000,\"protocol\":\"udp\""
        );
        reports.push(Report::new(id.to_owned(), fixed));
    }
    let pair = ",\"type\":\"candidate-pair\",\"localCandidateId\":\"RTCIceCandidate_local\",\
                \"remoteCandidateId\":\"RTCIceCandidate_remote\",\"state\":\"succeeded\"";
    reports.push(Report::new("RTCIceCandidatePair_a_b".to_owned(), pair.to_owned()).counting(&[
        ("bytesSent", 0.0, 120_000.0, 0),
        ("bytesReceived", 0.0, 800_000.0, 0),
        ("totalRoundTripTime", 0.0, 0.031, 3),
        ("currentRoundTripTime", 0.03, 0.0, 3),
        ("availableOutgoingBitrate", 300_000.0, 17.0, 0),
    ]));
    for participant in 0..participants {
        let ssrc = 1_000_000_000 + participant * 7_919_000;
        let audio =
            format!(",\"type\":\"inbound-rtp\",\"ssrc\":{ssrc},\"kind\":\"audio\",\"mediaType\":\"audio\"");
        reports.push(Report::new(format!("RTCInboundRTPAudioStream_{ssrc}"), audio).counting(&[
            ("packetsReceived", 0.0, 500.0, 0),
            ("packetsLost", 0.0, 1.0, 0),
            ("bytesReceived", 0.0, 40_123.0, 0),
            ("jitter", 0.004, 0.0, 3),
            ("lastPacketReceivedTimestamp", 276_000.6, 10_000.1, 1),
            ("totalSamplesReceived", 0.0, 480_000.0, 0),
            ("concealedSamples", 0.0, 320.0, 0),
        ]));
        let ssrc = ssrc + 1;
        let video =
            format!(",\"type\":\"inbound-rtp\",\"ssrc\":{ssrc},\"kind\":\"video\",\"frameHeight\":360");
        reports.push(Report::new(format!("RTCInboundRTPVideoStream_{ssrc}"), video).counting(&[
            ("qpSum", 0.0, 75_171.0, 0),
            ("packetsReceived", 0.0, 2_501.0, 0),
            ("packetsLost", 0.0, 2.0, 0),
            ("bytesReceived", 0.0, 2_332_774.0, 0),
            ("headerBytesReceived", 0.0, 60_024.0, 0),
            ("framesDecoded", 0.0, 1_058.0, 0),
            ("framesPerSecond", 30.0, 0.0, 0),
            ("totalDecodeTime", 0.0, 1.881, 3),
            ("totalInterFrameDelay", 0.0, 36.828_000_000_000_02, 14),
            ("totalSquaredInterFrameDelay", 0.0, 1.580_415_999_999_999, 15),
        ]));
        let track = ",\"type\":\"track\",\"kind\":\"video\",\"detached\":false";
        let track = Report::new(format!("RTCMediaStreamTrack_receiver_{participant}"), track.to_owned());
        reports.push(
            track.counting(&[("jitterBufferDelay", 0.0, 52.879, 3), ("framesReceived", 0.0, 1_074.0, 0)]),
        );
        let stream = Report::new(
            format!("RTCMediaStream_23083ecf-438f-c740-a83a-{ssrc}"),
            ",\"type\":\"stream\"".to_owned(),
        );
        reports.push(
            stream.repeating(&format!(",\"trackIds\":[\"RTCMediaStreamTrack_receiver_{participant}\"]")),
        );
    }
    for layer in 0..3 {
        let ssrc = 2_000_000_000_u64 + layer;
        let outbound = format!(
            ",\"type\":\"outbound-rtp\",\"ssrc\":{ssrc},\"kind\":\"video\",\"remoteId\":\"RTCRemoteInboundRtp_{ssrc}\""
        );
        reports.push(Report::new(format!("RTCOutboundRTPVideoStream_{ssrc}"), outbound).counting(&[
            ("packetsSent", 0.0, 900.0, 0),
            ("bytesSent", 0.0, 900_000.0, 0),
            ("framesEncoded", 0.0, 300.0, 0),
        ]));
        let remote = format!(",\"type\":\"remote-inbound-rtp\",\"ssrc\":{ssrc},\"kind\":\"video\"");
        let remote = Report::new(format!("RTCRemoteInboundRtp_{ssrc}"), remote);
        reports.push(remote.counting(&[("packetsLost", 0.0, 3.0, 0), ("roundTripTime", 0.03, 0.0, 3)]));
    }
    let transport = ",\"type\":\"transport\",\"selectedCandidatePairId\":\"RTCIceCandidatePair_a_b\",\"dtlsState\":\"connected\"";
    let transport = Report::new("RTCTransport_audio_1".to_owned(), transport.to_owned());
    reports
        .push(transport.counting(&[("bytesSent", 0.0, 120_000.0, 0), ("bytesReceived", 0.0, 800_000.0, 0)]));
    reports
}

fn firefox_reports(participants: u64) -> Vec<Report> {
    let mut numbers = Numbers(11);
    let mut reports = Vec::new();
    let (local, remote) = (numbers.hex(), numbers.hex());
    for (id, kind) in [(&local, "local-candidate"), (&remote, "remote-candidate")] {
        let fixed = format!(
            ",\"type\":\"{kind}\",\"candidateType\":\"host\",\"address\":\"x.x.x.x\",\"port\":9,\"protocol\":\"udp\""
        );
        reports.push(Report::new(id.clone(), fixed));
    }
    let pair = format!(
        ",\"type\":\"candidate-pair\",\"localCandidateId\":\"{local}\",\"remoteCandidateId\":\"{remote}\",\"selected\":true"
    );
    reports.push(Report::new(numbers.hex(), pair).counting(&[("bytesSent", 0.0, 9_000.0, 0)]));
    for participant in 0..participants {
        let ssrc = 2_555_995_057 + participant;
        let inbound =
            format!(",\"type\":\"inbound-rtp\",\"kind\":\"video\",\"mediaType\":\"video\",\"ssrc\":{ssrc}");
        reports.push(Report::new(numbers.hex(), inbound).counting(&[
            ("packetsLost", 0.0, 1.0, 0),
            ("packetsReceived", 0.0, 1_609.0, 0),
            ("bytesReceived", 0.0, 1_726_370.0, 0),
            ("framesDecoded", 0.0, 282.0, 0),
        ]));
        let outbound = format!(
            ",\"type\":\"remote-inbound-rtp\",\"kind\":\"video\",\"mediaType\":\"video\",\"ssrc\":{}",
            ssrc + 500
        );
        let outbound = Report::new(numbers.hex(), outbound);
        reports.push(outbound.counting(&[("packetsLost", 0.0, 2.0, 0), ("roundTripTime", 0.04, 0.0, 3)]));
    }
    reports
}
