//! The browser client's bookkeeping, to the letter of `protocol.md` section 6: numbers, the replay buffer, what an
//! acknowledgement trims, the reconnect delays. No socket, no clock.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::Rng;
use crate::support::script::{Line, message};

/// Entries that the client keeps at most for sending again.
const BUFFER_ENTRIES_MAX: usize = 1000;
/// Sum of the planned delays since the last `initial`, in the client's own time.
const RECONNECT_MS_MAX: u64 = 600_000;
/// How much faster than the real client the simulated one lives.
const TIME_SCALE: u64 = 100;
/// Clock of the first entry. Each entry's clock is this plus its number, so that a line can be made again.
const CLOCK: u64 = 1_700_000_000_000;

/// What became of an entry, as far as its client can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// In the replay buffer.
    Buffered,
    /// Was in the replay buffer until an acknowledgement trimmed it.
    Acknowledged,
    /// The buffer was full: sent once, never to be repeated.
    SentOnce,
    /// The buffer was full and the gate shut: nobody ever saw it.
    NeverSent,
}

/// What element 4 of an entry is, which is all that the client compares.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Element4 {
    Number(f64),
    /// Something else or nothing: equal to no number, and no comparison with it is true.
    Other,
}

impl Element4 {
    fn as_f64(self) -> f64 {
        match self {
            Self::Number(number) => number,
            Self::Other => f64::NAN,
        }
    }
}

#[derive(Debug)]
struct Kept {
    number: u64,
    element4: Element4,
}

/// What kind of client this is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Habits {
    /// `3.1_LEGACY`: whole requests are recorded.
    pub(crate) is_legacy: bool,
    /// Calls with more or fewer arguments than today's callers use, one in so many; 0 = never.
    pub(crate) odd_shapes: u64,
    /// Number of an entry that is larger than the server takes; 0 = none.
    pub(crate) giant: u64,
    /// 6.5: each connection has an id of its own.
    pub(crate) is_in_breakout_room: bool,
}

/// One `trace` object.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) id: String,
    /// The ids before it.
    former_ids: Vec<String>,
    pub(crate) habits: Habits,
    seed: u64,
    /// Numbers given out so far; the first one is 1.
    pub(crate) count: u64,
    buffer: VecDeque<Kept>,
    pub(crate) can_send: bool,
    attempts: u32,
    spent_ms: u64,
    /// By number - 1.
    pub(crate) fates: Vec<Fate>,
    /// Largest number that an acknowledgement named.
    pub(crate) acknowledged: u64,
}

/// What the client does after a message of the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reaction {
    Nothing,
    /// The gate is open: these requests are sent again, in order.
    Replay(Vec<String>),
    /// It closes with 3002 and gives up.
    GiveUp,
}

impl Trace {
    pub(crate) fn new(rng: &mut Rng, habits: Habits) -> Self {
        Self {
            id: rng.uuid(),
            former_ids: Vec::new(),
            habits,
            seed: rng.next(),
            count: 0,
            buffer: VecDeque::new(),
            can_send: false,
            attempts: 0,
            spent_ms: 0,
            fates: Vec::new(),
            acknowledged: 0,
        }
    }

    /// 6.1 and 6.2: one more entry; the request when it is to be sent now.
    pub(crate) fn entry(&mut self) -> Option<String> {
        self.count += 1;
        let number = self.count;
        let (element4, request) = self.request(number);
        let fate = if self.buffer.len() < BUFFER_ENTRIES_MAX {
            self.buffer.push_back(Kept { number, element4 });
            Fate::Buffered
        } else if self.can_send {
            Fate::SentOnce
        } else {
            Fate::NeverSent
        };
        self.fates.push(fate);
        self.can_send.then_some(request)
    }

    /// 6.3: `{"type":"sn","body":{"value":V,"state":S}}`.
    pub(crate) fn sn(&mut self, value: f64, is_initial: bool) -> Reaction {
        if let (Some(front), Some(back)) = (self.buffer.front(), self.buffer.back()) {
            let (first, last) = (front.element4.as_f64(), back.element4.as_f64());
            if value < first - 1.0 && value > last {
                return Reaction::GiveUp;
            }
            let found = self.buffer.iter().position(|kept| kept.element4 == Element4::Number(value));
            for kept in self.buffer.drain(..found.map_or(0, |at| at + 1)) {
                self.fates[kept.number as usize - 1] = Fate::Acknowledged;
                self.acknowledged = self.acknowledged.max(kept.number);
            }
        }
        if !is_initial {
            return Reaction::Nothing;
        }
        (self.attempts, self.spent_ms) = (0, 0);
        self.can_send = true;
        Reaction::Replay(self.buffer.iter().map(|kept| self.request(kept.number).1).collect())
    }

    /// 6.4: the connection is gone; after how long, in scaled time, the next one is tried. `None`: never.
    pub(crate) fn closed(&mut self, rng: &mut Rng) -> Option<Duration> {
        self.can_send = false;
        let left = RECONNECT_MS_MAX - self.spent_ms;
        if left == 0 {
            return None;
        }
        let delay_ms = ((1_u64 << self.attempts) * 1000 + rng.between(0, 9_999)).min(left);
        self.attempts += 1;
        self.spent_ms += delay_ms;
        Some(Duration::from_micros(delay_ms * 1000 / TIME_SCALE))
    }

    /// 6.5: what is in the buffer is addressed anew.
    pub(crate) fn take_new_id(&mut self, rng: &mut Rng) {
        self.former_ids.push(std::mem::replace(&mut self.id, rng.uuid()));
    }

    /// All ids that it has had.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &String> {
        self.former_ids.iter().chain([&self.id])
    }

    /// Entries that the client could still send again.
    pub(crate) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// The line that must come out of entry `number`.
    pub(crate) fn line(&self, number: u64) -> Line {
        let (array, _) = self.array(number);
        if self.habits.is_legacy { Line::Stamped(self.request(number).1) } else { Line::Verbatim(array) }
    }

    fn request(&self, number: u64) -> (Element4, String) {
        let (array, element4) = self.array(number);
        let request = if number == 1 {
            message(&self.id, "identity", Some(&serde_json::from_str(&array).unwrap()))
        } else {
            message(&self.id, "stats-entry", Some(&Value::from(array)))
        };
        (element4, request)
    }

    /// The array of entry `number` as text, and its element 4. Made from the seed, so that it can be made again.
    fn array(&self, number: u64) -> (String, Element4) {
        let mut rng = Rng::new(self.seed ^ number.wrapping_mul(0x9e37_79b9));
        let clock = CLOCK + number;
        if number == 1 {
            let mut identity = json!(["identity", null, {"confName": "room", "n": self.seed}, clock, 1]);
            if self.habits.is_in_breakout_room {
                identity[2]["parentStatsSessionId"] = self.seed.to_string().into();
            }
            return (identity.to_string(), Element4::Number(1.0));
        }
        let size = match rng.between(0, 99) {
            0 => rng.between(5_000, 40_000),
            1..5 => rng.between(500, 5_000),
            _ => rng.between(0, 120),
        };
        let size = if number == self.habits.giant { 200_000 } else { size };
        let pad = "é\"x,]\\".chars().cycle().take(size as usize).collect::<String>();
        let data = json!({"n": rng.next() >> 20, "pad": pad});
        if self.habits.odd_shapes > 0 && rng.one_in(self.habits.odd_shapes) {
            return match rng.between(0, 4) {
                0 => (format!("[\"t\",{clock},{number}]"), Element4::Other),
                1 => (format!("[\"t\",\"pc\",{clock},{number}]"), Element4::Other),
                2 => {
                    (format!("[\"t\",\"pc\",{data},\"b\",{clock},{number}]"), Element4::Number(clock as f64))
                }
                3 => (format!("[\"t\",\"pc\",{data},\"b\",\"c\",{clock},{number}]"), Element4::Other),
                _ => (format!("[\"t\",null,null,{clock},{number}]"), Element4::Number(number as f64)),
            };
        }
        (format!("[\"getstats\",\"PC_0\",{data},{clock},{number}]"), Element4::Number(number as f64))
    }
}

/// The examples of `protocol.md` 6.3, played on the simulated client itself.
#[test]
fn the_simulated_client_keeps_to_the_analysis() {
    let mut rng = Rng::new(1);
    let mut trace = Trace::new(&mut rng, Habits::default());
    assert_eq!(trace.entry(), None, "the gate is shut before `initial`");
    assert!(matches!(trace.sn(0.0, true), Reaction::Replay(all) if all.len() == 1));
    (1..1500).for_each(|_| assert!(trace.entry().is_some()));
    trace.sn(1500.0, false);
    assert_eq!(trace.buffered(), 1000, "1500 was not buffered: nothing is dropped");
    (1..=15).for_each(|hundred| assert_eq!(trace.sn(f64::from(hundred * 100), false), Reaction::Nothing));
    assert_eq!(trace.buffered(), 0);
    // Ten attempts at most, 600 s in all.
    let mut delays = Vec::new();
    while let Some(delay) = trace.closed(&mut rng) {
        delays.push(delay);
    }
    assert!((9..=10).contains(&delays.len()), "{delays:?}");
    assert_eq!(delays.iter().sum::<Duration>().as_millis(), 6_000);
}
