//! The state machine of sessions, by cases and by seeded simulation.

use std::rc::Rc;

use super::*;
use crate::client::Agent;

/// A seeded generator (SplitMix64), so that a failing run can be played again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

const GRACE: Duration = Duration::from_secs(600);

fn start() -> Moment {
    Moment::at(1 << 40)
}

fn info() -> ConnectionInfo {
    let agent = Agent {
        origin: "".into(),
        user_agent: "".into(),
        client_protocol: "3.1_STANDARD".into(),
        stats_format: "unsupported",
        client_type: "RTCSTATS_CLIENT",
    };
    ConnectionInfo::new("/", None, Rc::new(agent))
}

fn id(text: &str) -> SessionId {
    SessionId::parse(text).expect("a valid id")
}

fn connection(index: u32) -> SlotId {
    SlotId { index, generation: 1 }
}

fn line(number: u64) -> String {
    format!("[\"t\",null,null,1700000000000,{number}]\n")
}

fn take(session: &mut Session, slabs: &mut Slabs, number: u64) -> Verdict {
    take_text(session, slabs, &line(number))
}

fn take_text(session: &mut Session, slabs: &mut Slabs, line: &str) -> Verdict {
    let at = session.lines.bytes();
    slabs.write(&mut session.lines, |out| out.extend_from_slice(line.as_bytes()));
    session.take_line(at, slabs)
}

/// Appends as under `dump.durability = "process"`.
fn settle(session: &mut Session, slabs: &mut Slabs) -> Vec<u8> {
    let written = slabs.copy(&session.lines);
    session.append(slabs);
    session.ledger.make_durable(session.ledger.mark());
    written
}

fn acknowledged(session: &mut Session, with_newest: bool) -> Vec<u64> {
    let mut numbers = Vec::new();
    session.ledger.take_acknowledgements(with_newest, |number| numbers.push(number));
    numbers
}

#[test]
fn every_hundredth_entry_is_acknowledged_once_durable() {
    let mut slabs = Slabs::default();
    let mut sessions = Sessions::new(GRACE, 10, 10);
    let key = sessions.open(connection(1), id("a"), true, info(), start());
    let session = sessions.find_mut(key).expect("open");
    for number in 1..=350 {
        assert_eq!(take(session, &mut slabs, number), Verdict::Next);
    }
    assert_eq!(acknowledged(session, true), [0_u64; 0], "nothing is durable yet");
    settle(session, &mut slabs);
    assert_eq!(acknowledged(session, false), [100, 200, 300]);
    assert_eq!(acknowledged(session, true), [350]);
    assert_eq!(acknowledged(session, true), [0_u64; 0]);
}

#[test]
fn duplicates_are_dropped_and_acknowledged_again() {
    let mut slabs = Slabs::default();
    let mut sessions = Sessions::new(GRACE, 10, 10);
    let key = sessions.open(connection(1), id("a"), true, info(), start());
    let session = sessions.find_mut(key).expect("open");
    for number in 1..=300 {
        take(session, &mut slabs, number);
    }
    let written = settle(session, &mut slabs);
    acknowledged(session, true);
    for number in 51..=260 {
        assert_eq!(take(session, &mut slabs, number), Verdict::Duplicate);
    }
    assert!(session.lines.is_empty());
    assert_eq!(acknowledged(session, true), [150, 250, 260]);
    assert_eq!(written.iter().filter(|byte| **byte == b'\n').count(), 300);
}

#[test]
fn an_older_number_is_never_acknowledged_after_a_newer_one() {
    let mut slabs = Slabs::default();
    let mut sessions = Sessions::new(GRACE, 10, 10);
    let key = sessions.open(connection(1), id("a"), true, info(), start());
    let session = sessions.find_mut(key).expect("open");
    take(session, &mut slabs, 1);
    settle(session, &mut slabs);
    for number in 2..=150 {
        take(session, &mut slabs, number);
    }
    // The last entry of the append cannot be acknowledged, so the newest number is still the one from before.
    take_text(session, &mut slabs, "[\"t\",null,1700000000000,151]\n");
    settle(session, &mut slabs);
    assert_eq!(acknowledged(session, true), [100]);
    assert_eq!(acknowledged(session, true), [0_u64; 0]);
}

#[test]
fn a_milestone_before_a_gap_is_acknowledged_once() {
    let mut slabs = Slabs::default();
    let mut sessions = Sessions::new(GRACE, 10, 10);
    let key = sessions.open(connection(1), id("a"), true, info(), start());
    let session = sessions.find_mut(key).expect("open");
    for number in 1..=100 {
        take(session, &mut slabs, number);
    }
    take(session, &mut slabs, 200);
    settle(session, &mut slabs);
    assert_eq!(acknowledged(session, true), [100, 200]);
}

#[test]
fn before_a_gap_the_last_number_is_acknowledged() {
    let mut slabs = Slabs::default();
    let mut sessions = Sessions::new(GRACE, 10, 10);
    let key = sessions.open(connection(1), id("a"), true, info(), start());
    let session = sessions.find_mut(key).expect("open");
    take(session, &mut slabs, 1);
    take(session, &mut slabs, 2);
    assert_eq!(take(session, &mut slabs, 10), Verdict::Gap(7));
    settle(session, &mut slabs);
    assert_eq!(acknowledged(session, true), [2, 10]);
    // The same across a flush.
    assert_eq!(take(session, &mut slabs, 20), Verdict::Gap(9));
    settle(session, &mut slabs);
    assert_eq!(acknowledged(session, true), [20]);
    take(session, &mut slabs, 21);
    settle(session, &mut slabs);
    assert_eq!(take(session, &mut slabs, 30), Verdict::Gap(8));
    settle(session, &mut slabs);
    assert_eq!(acknowledged(session, true), [21, 30]);
}

#[test]
fn an_entry_without_its_number_at_element_4_is_never_acknowledged() {
    let mut slabs = Slabs::default();
    let mut sessions = Sessions::new(GRACE, 10, 10);
    let key = sessions.open(connection(1), id("a"), true, info(), start());
    let session = sessions.find_mut(key).expect("open");
    for number in 1..=250_u64 {
        let line = format!("[\"t\",null,1700000000000,{number}]\n");
        assert_eq!(take_text(session, &mut slabs, &line), Verdict::Next);
    }
    settle(session, &mut slabs);
    assert_eq!(acknowledged(session, true), [0_u64; 0]);
    assert_eq!(session.ledger.durable(), 250);
}

#[test]
fn what_a_connection_with_an_id_finds() {
    let now = start();
    let mut slabs = Slabs::default();
    let mut sessions = Sessions::new(GRACE, 10, 10);
    let Arrival::Fresh(key) = sessions.arrive(connection(1), &id("a"), false, &info(), now) else {
        panic!("an unknown id is fresh");
    };
    take(sessions.find_mut(key).expect("open"), &mut slabs, 1);
    let taken = sessions.arrive(connection(2), &id("a"), true, &info(), now);
    assert_eq!(taken, Arrival::TakenOver { session: key, from: connection(1) });
    assert_eq!(sessions.leave(key, connection(1), Farewell::MayReturn, now), Departure::NotTheirs);
    assert_eq!(sessions.leave(key, connection(2), Farewell::MayReturn, now), Departure::Wait);
    assert_eq!((sessions.open_count(), sessions.waiting_count()), (0, 1));
    assert_eq!(sessions.arrive(connection(3), &id("a"), true, &info(), now), Arrival::Resumed(key));
    assert_eq!(sessions.leave(key, connection(3), Farewell::ForGood, now), Departure::Finish);
    sessions.finish(key, true, now);
    assert_eq!(sessions.arrive(connection(4), &id("a"), true, &info(), now), Arrival::Ended);
    let later = now + GRACE;
    assert!(matches!(sessions.arrive(connection(4), &id("a"), true, &info(), later), Arrival::Fresh(_)));
}

#[test]
fn a_client_that_comes_too_late_starts_where_it_was() {
    let now = start();
    let mut slabs = Slabs::default();
    let mut sessions = Sessions::new(GRACE, 10, 10);
    let Arrival::Fresh(key) = sessions.arrive(connection(1), &id("a"), false, &info(), now) else {
        panic!("an unknown id is fresh");
    };
    take(sessions.find_mut(key).expect("open"), &mut slabs, 7);
    sessions.leave(key, connection(1), Farewell::MayReturn, now);
    assert_eq!(sessions.expired(now), None);
    assert_eq!(sessions.expired(now + GRACE), Some((key, Expiry::Grace)));
    sessions.finish(key, false, now + GRACE);
    let Arrival::Fresh(again) = sessions.arrive(connection(2), &id("a"), true, &info(), now + GRACE) else {
        panic!("it is a new session");
    };
    let session = sessions.find(again).expect("open");
    let Record::Planned(beginning) = &session.record else { panic!("nothing is written yet") };
    assert_eq!((session.ledger.durable(), beginning.continues_from), (7, NonZeroU64::new(7)));
}

#[test]
fn over_the_limit_the_oldest_waiting_session_ends_first() {
    let now = start();
    let mut slabs = Slabs::default();
    let mut sessions = Sessions::new(GRACE, 2, 10);
    let mut keys = Vec::new();
    for n in 0..3_u32 {
        let at = now + Duration::from_secs(u64::from(n));
        let key = sessions.open(connection(n), id(&format!("s{n}")), true, info(), at);
        take(sessions.find_mut(key).expect("open"), &mut slabs, 1);
        sessions.leave(key, connection(n), Farewell::MayReturn, at);
        keys.push(key);
    }
    assert_eq!(sessions.expired(now + Duration::from_secs(3)), Some((keys[0], Expiry::Limit)));
    sessions.finish(keys[0], false, now);
    assert_eq!(sessions.expired(now + Duration::from_secs(3)), None);
}

/// The browser client as its rules say: numbers from 1, a replay buffer of 1000 that holds what was sent, too,
/// and shrinks only when an acknowledged number is found in it.
#[derive(Default)]
struct Client {
    next: u64,
    buffer: VecDeque<u64>,
    may_send: bool,
    /// Traced while the buffer was full and the gate shut: nothing can bring them back.
    lost: Vec<u64>,
}

impl Client {
    fn trace(&mut self) -> Option<u64> {
        self.next += 1;
        if self.buffer.len() < 1000 {
            self.buffer.push_back(self.next);
        } else if !self.may_send {
            self.lost.push(self.next);
        }
        self.may_send.then_some(self.next)
    }

    fn hear(&mut self, value: u64, is_initial: bool) -> Vec<u64> {
        if let Some(at) = self.buffer.iter().position(|number| *number == value) {
            self.buffer.drain(..=at);
        }
        if !is_initial {
            return Vec::new();
        }
        self.may_send = true;
        self.buffer.iter().copied().collect()
    }
}

/// One client, one session, a network that cuts at any moment, a disk that forgets what was not appended when the
/// server dies. After every step: the file holds rising numbers, and everything acknowledged is in it.
fn play(seed: u64) {
    let mut dice = Dice(seed);
    let mut now = start();
    let mut slabs = Slabs::default();
    let mut sessions = Sessions::new(GRACE, 10, 10);
    let mut client = Client::default();
    let mut file: Vec<u64> = Vec::new();
    let mut wire: VecDeque<u64> = VecDeque::new();
    let mut unprotected: Vec<u64> = Vec::new();
    let mut at: Option<(SlotId, SlotId)> = None;
    let mut connections = 0;
    let quiet_from = 4_000;
    for step in 0..5_000 {
        let is_calm = step >= quiet_from;
        now += Duration::from_millis(dice.below(300));
        assert!(file.is_sorted_by(|a, b| a < b), "seed {seed}, step {step}: not in order, or twice");
        if at.is_none() && (is_calm || dice.one_in(10)) {
            connections += 1;
            let (connection, is_reconnect) = (connection(connections), connections > 1);
            let key = match sessions.arrive(connection, &id("a"), is_reconnect, &info(), now) {
                Arrival::Fresh(key) | Arrival::Resumed(key) | Arrival::TakenOver { session: key, .. } => key,
                Arrival::Ended => panic!("seed {seed}: nobody ended it"),
            };
            let session = sessions.find_mut(key).expect("open");
            append(&mut file, &settle(session, &mut slabs));
            let initial = session.ledger.durable();
            assert!(
                initial == 0 || file.binary_search(&initial).is_ok(),
                "seed {seed}: greeted with {initial}"
            );
            wire.extend(client.hear(initial, true));
            at = Some((connection, key));
        }
        match dice.below(if is_calm { 90 } else { 100 }) {
            0..50 if !is_calm => {
                for _ in 0..=dice.below(3) {
                    let protected = client.buffer.len() < 1000;
                    let sent = client.trace();
                    wire.extend(sent);
                    if !protected {
                        unprotected.extend(sent);
                    }
                }
            }
            0..80 => {
                let Some((_, key)) = at else { continue };
                for _ in 0..dice.below(200) {
                    let Some(number) = wire.pop_front() else { break };
                    take(sessions.find_mut(key).expect("open"), &mut slabs, number);
                }
            }
            80..90 => {
                let Some((_, key)) = at else { continue };
                let session = sessions.find_mut(key).expect("open");
                append(&mut file, &settle(session, &mut slabs));
                for number in acknowledged(session, dice.one_in(2)) {
                    assert!(
                        file.binary_search(&number).is_ok(),
                        "seed {seed}: {number} was acknowledged and is not in the file"
                    );
                    client.hear(number, false);
                }
            }
            90..95 => {
                // The network cuts; the server may learn of it only when the client comes back.
                wire.clear();
                client.may_send = false;
                let Some((connection, key)) = at.take() else { continue };
                if dice.one_in(2)
                    && sessions.leave(key, connection, Farewell::MayReturn, now) == Departure::Wait
                {
                    append(&mut file, &settle(sessions.find_mut(key).expect("waits"), &mut slabs));
                }
            }
            95 => {
                // The server dies: what is in the file is all that is left.
                wire.clear();
                client.may_send = false;
                at = None;
                slabs = Slabs::default();
                sessions = Sessions::new(GRACE, 10, 10);
                if let Some(last) = file.last() {
                    let dump = DumpFile::found("a", 0, 0, (0, 0));
                    sessions.recover(id("a"), *last, dump, now + GRACE, now).expect("it waits");
                }
            }
            _ => {}
        }
    }
    let (_, key) = at.expect("calm at the end");
    for number in wire {
        take(sessions.find_mut(key).expect("open"), &mut slabs, number);
    }
    append(&mut file, &settle(sessions.find_mut(key).expect("open"), &mut slabs));
    let missing: Vec<u64> = (1..=client.next)
        .filter(|number| file.binary_search(number).is_err())
        .filter(|number| !client.lost.contains(number) && !unprotected.contains(number))
        .collect();
    assert_eq!(missing, [0_u64; 0], "seed {seed}: the client could still have sent these");
}

fn append(file: &mut Vec<u64>, bytes: &[u8]) {
    let lines = std::str::from_utf8(bytes).expect("text").lines();
    file.extend(lines.map(|line| numbering::line_number(line.as_bytes()).expect("numbered")));
}

#[test]
fn whatever_the_network_and_the_server_do_nothing_is_missing_twice_or_out_of_order() {
    for seed in 0..60 {
        play(seed);
    }
}

/// What a server keeps for each of its sessions while they are silent, beside the id and the index: `docs/performance.md`.
#[test]
fn a_silent_session_is_small() {
    assert!(size_of::<Session>() <= 168, "{}", size_of::<Session>());
}
