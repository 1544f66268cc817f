//! Scripted sessions: what a client sends, and the lines that must come out of it.

use serde_json::{Value, json};

use super::rng::Rng;

/// One session: its messages in order, and what its dump must hold after the first line.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    pub(crate) id: String,
    pub(crate) messages: Vec<String>,
    pub(crate) lines: Vec<Line>,
}

/// What is expected of one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line {
    /// These bytes.
    Verbatim(String),
    /// This request, compact, with a `timestamp` of the server's clock as its last member.
    Stamped(String),
}

impl Line {
    /// Whether `line` is what was expected.
    pub(crate) fn matches(&self, line: &str) -> bool {
        match self {
            Self::Verbatim(expected) => line == expected,
            Self::Stamped(request) => {
                let stamp = request.strip_suffix('}').and_then(|open| {
                    line.strip_prefix(open)?.strip_prefix(",\"timestamp\":")?.strip_suffix('}')
                });
                stamp.is_some_and(|digits| digits.len() == 13 && digits.bytes().all(|b| b.is_ascii_digit()))
            }
        }
    }
}

impl Script {
    /// A browser session as the present client writes it: an identity, `entries` numbered entries of mixed
    /// sizes, keepalives in between, `close` at the end.
    pub(crate) fn browser(rng: &mut Rng, entries: u64) -> Self {
        let mut script = Self::empty(rng.uuid());
        let mut clock = 1_700_000_000_000 + rng.between(0, 1_000_000);
        for number in 1..=entries + 1 {
            clock += rng.between(1, 900);
            if number == 1 {
                script.identity(&json!(["identity", null, identity(rng), clock, number]));
            } else {
                let line = format!("{}{clock},{number}]", entry(rng, number));
                script.entry(line);
            }
            if rng.one_in(9) {
                script.send("keepalive", None);
            }
        }
        script.send("close", None);
        script
    }

    /// A session of a bridge: whole requests are recorded, entries are objects and strings.
    pub(crate) fn bridge(rng: &mut Rng, entries: u64) -> Self {
        let mut script = Self::empty(format!("jvb-{}", rng.uuid()));
        script.request(
            "identity",
            &json!({"displayName": "jvb-4", "confID": format!("conf{}", rng.between(1, 99))}),
        );
        for number in 0..entries {
            let samples: Vec<u64> = (0..rng.between(1, 60)).map(|_| rng.next() >> 40).collect();
            if rng.one_in(2) {
                script.request("stats-entry", &json!({"endpoint": number, "samples": samples}));
            } else {
                script.request("stats-entry", &Value::from(format!("[\"bwe\",null,{samples:?}]")));
            }
            if rng.one_in(9) {
                script.send("keepalive", None);
            }
        }
        script.send("close", None);
        script
    }

    fn empty(id: String) -> Self {
        Self { id, messages: Vec::new(), lines: Vec::new() }
    }

    fn identity(&mut self, data: &Value) {
        self.send("identity", Some(data));
        self.lines.push(Line::Verbatim(data.to_string()));
    }

    fn entry(&mut self, line: String) {
        self.send("stats-entry", Some(&Value::from(line.as_str())));
        self.lines.push(Line::Verbatim(line));
    }

    fn request(&mut self, kind: &str, data: &Value) {
        self.send(kind, Some(data));
        self.lines.push(Line::Stamped(message(&self.id, kind, Some(data))));
    }

    fn send(&mut self, kind: &str, data: Option<&Value>) {
        self.messages.push(message(&self.id, kind, data));
    }

    /// Panics with the first difference between the dump's lines and this script.
    pub(crate) fn assert_recorded(&self, body: &str) {
        assert!(body.is_empty() || body.ends_with('\n'), "{}: the last line is torn", self.id);
        let recorded: Vec<&str> = body.lines().collect();
        for (index, (expected, line)) in self.lines.iter().zip(&recorded).enumerate() {
            assert!(expected.matches(line), "{}: line {index}:\n{line}\nexpected {expected:?}", self.id);
        }
        assert_eq!(recorded.len(), self.lines.len(), "{}: number of lines", self.id);
    }
}

/// A request as a client serialises it.
pub(crate) fn message(id: &str, kind: &str, data: Option<&Value>) -> String {
    let data = data.map_or(String::new(), |data| format!(",\"data\":{data}"));
    format!("{{\"statsSessionId\":\"{id}\",\"type\":\"{kind}\"{data}}}")
}

/// A `stats-entry` request with `line` as its string.
pub(crate) fn entry_message(id: &str, line: &str) -> String {
    message(id, "stats-entry", Some(&Value::from(line)))
}

fn identity(rng: &mut Rng) -> Value {
    json!({
        "confName": format!("room{}@conference.meet.example.org", rng.between(1, 40)),
        "applicationName": "Jitsi Meet",
        "endpointId": format!("{:08x}", rng.next() >> 32),
        "displayName": "Zoë \u{1f399} \"Q\" \\",
    })
}

/// The head of an entry, up to the comma before the clock. Sizes and escapes are those of the field: mostly a
/// few kilobytes of quoted JSON, now and then something tiny or large.
fn entry(rng: &mut Rng, number: u64) -> String {
    let connection = format!("PC_{}", rng.between(0, 2));
    let data = match rng.between(0, 9) {
        0 => Value::Null,
        1 => json!("checking"),
        2 => json!({"sdpMid": "0", "candidate": "candidate:1 1 udp 2122260223 x.x.x.x 51000 typ host"}),
        3 => {
            json!({"type": "offer", "sdp": "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\n".repeat(rng.between(1, 60) as usize)})
        }
        4 => json!(["Ünïcödé", "\u{1f600}\u{2028}\u{2029}", "tab\tnul\u{0}"]),
        _ => {
            let reports: serde_json::Map<String, Value> = (0..rng.between(1, 24))
                .map(|index| {
                    let report = json!({
                        "type": "inbound-rtp", "bytesReceived": rng.next() >> 20, "packetsLost": -1,
                        "jitter": 0.004, "framesPerSecond": 29.97, "timestamp": number,
                    });
                    (format!("RTCInboundRTPVideoStream_{}_{index}", rng.next() >> 32), report)
                })
                .collect();
            Value::Object(reports)
        }
    };
    let kind = rng.pick(&["getstats", "onicecandidate", "setLocalDescription", "dominantSpeaker"]);
    format!("[\"{kind}\",\"{connection}\",{data},")
}
