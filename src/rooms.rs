//! Breakout rooms: is a session that begins in the middle the rest of one that was cut off?
//!
//! In a breakout room the client takes a new id for every connection. What comes back after a drop has the numbers of
//! the old session and its old lines, but no other link to it, so where it belongs is found by looking: same room, same
//! client address, same browser, and numbers that fit. Owns the index of the sessions that may be continued, and the
//! decision. Pure: what a dump holds is read by the caller, and of addresses and browsers only a hash is kept, with a key
//! of this process.
//!
//! Nothing may be joined wrongly: a dump of its own for the rest is a flaw, two people in one dump a defect. A client
//! sends again what was not acknowledged, bit for bit, so mostly its first entry is in the right dump already, and that
//! decides; also when the old connection still looks open, as it does for a minute when a network is gone without a word.
//! Where all was acknowledged nothing proves anything; then its identity must have named a parent, the next number must be
//! exactly the one that comes, the session must wait, and no other one be in question. Another one that looks open may be
//! somebody else's, and is a reason to join nothing. So is one that itself began in the middle under a new id; it can be
//! continued where that is proven.
//!
//! Rules: client: breakout rooms. Ours: the proof; that an open session counts; that entry 1 may continue where it is
//! proven; that what a token says must be the same.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::io;
use std::net::IpAddr;
use std::num::NonZeroU64;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::client::ConnectionInfo;
use crate::numbering::line_number;
use crate::reactor::slots::SlotId;
use crate::reasons::JoinedBy;

/// Sessions that are looked at for one continuation. A group of more behind one address, with one browser, in one room is
/// not told apart.
pub const MEMBERS_MAX: usize = 16;

/// Bytes at the end of a dump in which an entry that comes again is looked for. A client sends again what was not
/// acknowledged: a hundred entries, or what it traced in eight seconds, rarely more.
const PROOF_BYTES_MAX: u64 = 512 * 1024;
/// Bytes that are read first, then four times as many: mostly it stands near the end.
const PROOF_BYTES_FIRST: u64 = 32 * 1024;
/// Bytes that are read in all for one continuation, of whatever dumps: 200 us from the page cache.
pub const PROOF_BYTES_IN_ALL_MAX: u64 = 1024 * 1024;

/// Room, client address, browser and token, as one number that means nothing outside of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kin(NonZeroU64);

/// The sessions of breakout rooms, open and waiting, by their kin. Bounded by the limits of sessions: each is in it once.
#[derive(Debug, Default)]
pub struct Rooms {
    key: RandomState,
    members: BTreeSet<(Kin, SlotId)>,
}

impl Rooms {
    /// What sessions that may continue each other have in common.
    #[must_use]
    pub fn kin(&self, info: &ConnectionInfo, address: IpAddr) -> Kin {
        let mut hasher = self.key.build_hasher();
        let path = info.path();
        let room = path.split('?').next().unwrap_or_default();
        (room, &info.agent.user_agent, address).hash(&mut hasher);
        // Plain values in memory have no way to fail; no claims at all are `null`, which no claims are.
        serde_json::to_vec(&info.claims.as_deref()).unwrap_or_default().hash(&mut hasher);
        Kin(NonZeroU64::new(hasher.finish()).unwrap_or(NonZeroU64::MIN))
    }

    /// `session` has named its parent.
    pub fn enter(&mut self, kin: Kin, session: SlotId) {
        self.members.insert((kin, session));
    }

    /// `session` is no more.
    pub fn leave(&mut self, kin: Kin, session: SlotId) {
        self.members.remove(&(kin, session));
    }

    /// The sessions of `kin`.
    pub fn members(&self, kin: Kin) -> impl Iterator<Item = SlotId> {
        let (first, last) =
            (SlotId { index: 0, generation: 0 }, SlotId { index: u32::MAX, generation: u32::MAX });
        self.members.range((kin, first)..=(kin, last)).map(|(_, session)| *session)
    }
}

/// Whether `line` is the identity of a client in a breakout room: one that names a parent.
#[must_use]
pub fn names_parent(line: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Identity {
        #[serde(rename = "parentStatsSessionId")]
        parent: String,
    }
    type Entry = (IgnoredAny, IgnoredAny, Identity, IgnoredAny, IgnoredAny);
    // Few do, and clients write names of members as they are: the others need not be read.
    line.starts_with(br#"["identity","#)
        && memchr::memmem::find(line, br#""parentStatsSessionId""#).is_some()
        && serde_json::from_slice::<Entry>(line)
            .is_ok_and(|(_, _, identity, _, _)| !identity.parent.is_empty())
}

/// What a dump says about an entry that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// It holds the same line.
    Same,
    /// It holds another line of that number, or none where it would have to be.
    Different,
    /// What was looked at does not reach that far.
    Unknown,
}

/// Looks for entry `number` in `window`, whole lines up to the end of a dump, the first of which may lack its beginning
/// unless the window `is_whole`.
#[must_use]
pub fn compare(window: &[u8], is_whole: bool, number: u64, line: &[u8]) -> Evidence {
    let mut rest = window;
    while let Some((_, lines)) = rest.split_last() {
        let start = lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if start == 0 && !is_whole {
            return Evidence::Unknown;
        }
        let (before, found) = lines.split_at(start);
        match line_number(found) {
            Some(other) if other == number && found == line => return Evidence::Same,
            // Numbers rise, so it does not stand further up.
            Some(other) if other <= number => return Evidence::Different,
            Some(_) | None => rest = before,
        }
    }
    if is_whole { Evidence::Different } else { Evidence::Unknown }
}

/// Looks for entry `number`, which came as `line`, in the end of a dump, of which `tail` reads at most so many bytes and
/// says whether they are all; it knows nothing of a dump that is gone. `None` then, too. `left` is what may still be read for
/// this continuation.
pub fn search(
    mut tail: impl FnMut(u64) -> io::Result<Option<(Vec<u8>, bool)>>,
    left: &mut u64,
    number: u64,
    line: &[u8],
) -> Option<Evidence> {
    let mut window = PROOF_BYTES_FIRST;
    loop {
        let size = window.min(*left);
        if size == 0 {
            return Some(Evidence::Unknown);
        }
        let Ok(read) = tail(size) else { return Some(Evidence::Unknown) };
        let (bytes, is_whole) = read?;
        *left = left.saturating_sub(bytes.len() as u64);
        match compare(&bytes, is_whole, number, line) {
            Evidence::Unknown if window < PROOF_BYTES_MAX => window *= 4,
            told @ (Evidence::Same | Evidence::Different | Evidence::Unknown) => return Some(told),
        }
    }
}

/// A session in question.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// It.
    pub session: SlotId,
    /// Whether it waits for its client, with all it has in its dump.
    pub is_waiting: bool,
    /// Whether its identity named a parent.
    pub has_parent: bool,
    /// Its highest number.
    pub received: u64,
    /// What its dump says about the entry that came.
    pub evidence: Evidence,
}

impl Member {
    fn is_proven(&self) -> bool {
        self.evidence == Evidence::Same
    }

    /// Without a proof the whole rule must hold.
    fn is_exactly_before(&self, number: u64) -> bool {
        self.is_waiting && self.has_parent && self.received + 1 == number
    }

    /// Whether `number` can be the next thing that its client sends.
    fn is_in_question(&self, number: u64) -> bool {
        number > 1 && number <= self.received + 1 && self.evidence != Evidence::Different
    }
}

/// Where a session belongs whose first entry has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is a session of its own.
    Alone,
    /// It is the rest of this one.
    Join(SlotId, JoinedBy),
    /// There is one it may belong to, and nothing to be sure by: it stays alone.
    Doubtful,
}

/// Decides by its first entry's `number` which of `members`, all of its kin, a session continues.
#[must_use]
pub fn decide(number: u64, members: &[Member]) -> Decision {
    // Two can only hold the same entry when an earlier rest was not joined. The one that goes further lacks less.
    if let Some(proven) = members.iter().filter(|member| member.is_proven()).max_by_key(|one| one.received) {
        return Decision::Join(proven.session, JoinedBy::Proof);
    }
    let mut in_question = members.iter().filter(|member| member.is_in_question(number));
    match (in_question.next(), in_question.next()) {
        (None, _) => Decision::Alone,
        (Some(only), None) if only.is_exactly_before(number) => {
            Decision::Join(only.session, JoinedBy::Number)
        }
        (Some(_), _) => Decision::Doubtful,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, VecDeque};
    use std::rc::Rc;
    use std::time::Duration;

    use super::*;
    use crate::auth::Claims;
    use crate::client::{Agent, SessionId};
    use crate::dump::DumpFile;
    use crate::moment::Moment;
    use crate::session::{Arrival, Departure, Farewell, Record, Session, Sessions, State};
    use crate::slabs::Slabs;

    fn slot(index: u32) -> SlotId {
        SlotId { index, generation: 1 }
    }

    /// Waiting, with a parent, at `received`.
    fn member(index: u32, received: u64, evidence: Evidence) -> Member {
        Member { session: slot(index), is_waiting: true, has_parent: true, received, evidence }
    }

    #[test]
    fn what_continues_what() {
        use Decision::{Alone, Doubtful};
        use Evidence::{Different, Same, Unknown};
        let by_number = |index| Decision::Join(slot(index), JoinedBy::Number);
        let by_proof = |index| Decision::Join(slot(index), JoinedBy::Proof);
        let open = |member: Member| Member { is_waiting: false, ..member };
        let orphan = |member: Member| Member { has_parent: false, ..member };
        let cases: Vec<(&str, u64, Vec<Member>, Decision)> = vec![
            ("nobody is there", 8, vec![], Alone),
            ("exactly the next number", 8, vec![member(1, 7, Unknown)], by_number(1)),
            ("a gap", 9, vec![member(1, 7, Unknown)], Alone),
            ("without a parent", 8, vec![orphan(member(1, 7, Unknown))], Doubtful),
            ("two of them fit", 8, vec![member(1, 7, Unknown), member(2, 7, Unknown)], Doubtful),
            ("only one of them fits", 8, vec![member(1, 7, Unknown), member(2, 6, Unknown)], by_number(1)),
            (
                "the other one has another entry 8",
                8,
                vec![member(1, 7, Unknown), member(2, 9, Different)],
                by_number(1),
            ),
            ("the other one may have it", 8, vec![member(1, 7, Unknown), member(2, 9, Unknown)], Doubtful),
            ("the other one is open", 8, vec![member(1, 7, Unknown), open(member(2, 7, Unknown))], Doubtful),
            ("it is open itself", 8, vec![open(member(1, 7, Unknown))], Doubtful),
            ("it is proven and open", 8, vec![open(member(1, 9, Same))], by_proof(1)),
            (
                "proven and open among others",
                8,
                vec![open(member(1, 9, Same)), member(2, 7, Unknown)],
                by_proof(1),
            ),
            ("proven", 8, vec![member(1, 9, Same)], by_proof(1)),
            ("proven, without a parent", 8, vec![orphan(member(1, 9, Same))], by_proof(1)),
            ("proven among others", 8, vec![member(1, 9, Same), member(2, 7, Unknown)], by_proof(1)),
            ("proven twice", 8, vec![member(1, 9, Same), member(2, 12, Same)], by_proof(2)),
            ("not reached by what was looked at", 8, vec![member(1, 9, Unknown)], Doubtful),
            ("another one's entry", 8, vec![member(1, 9, Different)], Alone),
            ("the whole session again", 1, vec![member(1, 9, Same)], by_proof(1)),
            ("a new session", 1, vec![member(1, 9, Different), open(member(2, 3, Unknown))], Alone),
            ("a new session beside an empty one", 1, vec![member(1, 0, Unknown)], Alone),
        ];
        for (what, number, members, expected) in cases {
            assert_eq!(decide(number, &members), expected, "{what}");
        }
    }

    #[test]
    fn a_parent_is_named_by_an_identity_alone() {
        for (line, expected) in [
            (r#"["identity",null,{"confName":"r","parentStatsSessionId":"p"},1700000000000,1]"#, true),
            (r#"["identity",null,{"parentStatsSessionId":""},1700000000000,1]"#, false),
            (r#"["identity",null,{"parentStatsSessionId":null},1700000000000,1]"#, false),
            (r#"["identity",null,{"confName":"\"parentStatsSessionId\":\"p\""},1700000000000,1]"#, false),
            (r#"["identity",null,{"inner":{"parentStatsSessionId":"p"}},1700000000000,1]"#, false),
            (r#"["t",null,{"parentStatsSessionId":"p"},1700000000000,1]"#, false),
            (r#"["identity",null,{"parentStatsSessionId":"p"},1700000000000]"#, false),
            (r#"["identity",null,"#, false),
        ] {
            assert_eq!(names_parent(line.as_bytes()), expected, "{line}");
            assert_eq!(names_parent(format!("{line}\n").as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn a_dump_is_asked_for_an_entry() {
        let entry = |number: u64, text: &str| format!("[\"{text}\",null,null,1700000000000,{number}]");
        let lines = [entry(3, "a"), entry(4, "b"), "[\"unnumbered\"]".into(), entry(6, "c")];
        let dump = format!("first\n{}\n", lines.join("\n"));
        for (number, text, expected) in [
            (6, "c", Evidence::Same),
            (6, "b", Evidence::Different),
            (5, "c", Evidence::Different),
            (4, "b", Evidence::Same),
            (3, "a", Evidence::Same),
            (2, "a", Evidence::Different),
        ] {
            let line = entry(number, text);
            assert_eq!(compare(dump.as_bytes(), true, number, line.as_bytes()), expected, "{line}");
            // A shorter window tells the same, or nothing.
            for from in 1..dump.len() {
                let told = compare(&dump.as_bytes()[from..], false, number, line.as_bytes());
                assert!(told == expected || told == Evidence::Unknown, "{line} from {from}: {told:?}");
            }
        }
    }

    /// Mostly little is read; never more than is allowed for all dumps together, however many are asked and however long
    /// their lines are.
    #[test]
    fn looking_for_a_proof_has_a_bound() {
        let entry = |number: u64| format!("[\"t\",null,\"{}\",1700000000000,{number}]", "x".repeat(1000));
        let dump: String = (1..=1_000).map(|number| entry(number) + "\n").collect();
        let reads = std::cell::Cell::new((0, 0));
        let tail = |size: u64| {
            let size = usize::try_from(size).unwrap().min(dump.len());
            reads.set((reads.get().0 + 1, reads.get().1 + size as u64));
            Ok(Some((dump.as_bytes()[dump.len() - size..].to_vec(), size == dump.len())))
        };
        for (number, expected, most) in [
            (1_000, Evidence::Same, PROOF_BYTES_FIRST),
            (980, Evidence::Same, PROOF_BYTES_FIRST),
            (600, Evidence::Same, PROOF_BYTES_IN_ALL_MAX),
            (10, Evidence::Unknown, PROOF_BYTES_IN_ALL_MAX),
        ] {
            reads.set((0, 0));
            let mut left = PROOF_BYTES_IN_ALL_MAX;
            assert_eq!(search(tail, &mut left, number, entry(number).as_bytes()), Some(expected), "{number}");
            assert!(reads.get().1 <= most, "{number}: {:?}", reads.get());
        }
        reads.set((0, 0));
        let mut left = PROOF_BYTES_IN_ALL_MAX;
        for _ in 0..MEMBERS_MAX {
            assert_eq!(search(tail, &mut left, 10, b"[]"), Some(Evidence::Unknown));
        }
        assert_eq!(reads.get().1, PROOF_BYTES_IN_ALL_MAX, "in {} reads", reads.get().0);
        assert_eq!(search(|_| Ok(None), &mut 1, 10, b"[]"), None, "it is gone");
        let broken = |_| Err(io::Error::from_raw_os_error(5));
        assert_eq!(search(broken, &mut 1, 10, b"[]"), Some(Evidence::Unknown));
    }

    /// A session that is found to be in another room, or behind another address, than before is in one place only, and in
    /// none when it is gone.
    #[test]
    fn a_session_is_in_one_room_at_most() {
        let now = Moment::at(1 << 40);
        let mut sessions = Sessions::new(Duration::from_secs(600), 100, 100);
        let here = info("/room", "b", None);
        let kin = [1, 2].map(|host| sessions.kin_of(&here, [192, 0, 2, host].into()));
        let id = SessionId::parse("moves").expect("an id");
        let key = sessions.open(slot(1), id, true, here.clone(), now);
        let alike = |sessions: &Sessions| kin.map(|kin| sessions.members_of(kin));
        sessions.enter_room(key, kin[0]);
        sessions.enter_room(key, kin[0]);
        assert_eq!(alike(&sessions), [vec![key], vec![]]);
        sessions.enter_room(key, kin[1]);
        assert_eq!(alike(&sessions), [vec![], vec![key]]);
        sessions.finish(key, false, now);
        assert_eq!(alike(&sessions), [vec![], vec![]]);
    }

    fn info(path: &str, user_agent: &str, claims: Option<Claims>) -> ConnectionInfo {
        let agent = Agent {
            origin: "".into(),
            user_agent: user_agent.into(),
            client_protocol: "3.1_STANDARD".into(),
            stats_format: "unsupported",
            client_type: "RTCSTATS_CLIENT",
        };
        let mut info = ConnectionInfo::new(path, None, Rc::new(agent));
        info.claims = claims.map(Rc::new);
        info
    }

    #[test]
    fn kin_share_room_address_browser_and_token() {
        let rooms = Rooms::default();
        let address: IpAddr = [192, 0, 2, 1].into();
        let base = rooms.kin(&info("/t/room?statsSessionId=a&isReconnect=false", "b", None), address);
        assert_eq!(rooms.kin(&info("/t/room?statsSessionId=z&isReconnect=true", "b", None), address), base);
        for other in [
            rooms.kin(&info("/t/room2?statsSessionId=a", "b", None), address),
            rooms.kin(&info("/t/room?statsSessionId=a", "c", None), address),
            rooms.kin(&info("/t/room?statsSessionId=a", "b", Some(Claims::default())), address),
            rooms.kin(&info("/t/room?statsSessionId=a", "b", None), [192, 0, 2, 2].into()),
            Rooms::default().kin(&info("/t/room?statsSessionId=a", "b", None), address),
        ] {
            assert_ne!(other, base);
        }
    }

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
    }

    /// A client in a breakout room, as its rules say: a new id for each connection, numbers that run on, and everything
    /// again that was not acknowledged.
    struct Client {
        name: u64,
        count: u64,
        unacknowledged: VecDeque<(u64, String)>,
        wire: VecDeque<String>,
        connections: u64,
        at: Option<(SlotId, SlotId)>,
    }

    impl Client {
        fn trace(&mut self, clock: u64) {
            self.count += 1;
            let (name, number) = (self.name, self.count);
            let line = match number {
                1 => format!(
                    "[\"identity\",null,{{\"parentStatsSessionId\":\"p{name}\"}},{},1]\n",
                    1_700_000_000_000 + clock
                ),
                _ => format!("[\"t\",null,{{\"c\":{name}}},{},{number}]\n", 1_700_000_000_000 + clock),
            };
            if self.at.is_some() {
                self.wire.push_back(line.clone());
            }
            self.unacknowledged.push_back((number, line));
        }
    }

    /// The server's side, with dumps in memory, by the name that they got with their first id.
    struct World {
        sessions: Sessions,
        slabs: Slabs,
        dumps: BTreeMap<String, String>,
        names: BTreeMap<SlotId, String>,
        info: ConnectionInfo,
        address: IpAddr,
        joined: u64,
        joined_open: u64,
        doubtful: u64,
    }

    impl World {
        fn take(&mut self, client: &mut Client, line: &str, now: Moment) {
            let (connection, mut key) = client.at.expect("connected");
            let kin = self.sessions.kin_of(&self.info, self.address);
            let session = self.sessions.find_mut(key).expect("open");
            assert!(session.is_fed_by(connection));
            let mut start = session.lines.bytes();
            self.slabs.write(&mut session.lines, |out| out.extend_from_slice(line.as_bytes()));
            let number = line_number(line.trim_end().as_bytes()).expect("numbered");
            if std::mem::take(&mut session.may_continue) {
                let dumps = &self.dumps;
                let evidence = |other: &Session| {
                    let Some(dump) = other.dump() else { return Some(Evidence::Unknown) };
                    let text = dumps.get(&*dump.name).map_or("", String::as_str);
                    let told = compare(text.as_bytes(), true, number, line.trim_end().as_bytes());
                    let is_sure = other.lines.is_empty() && number <= other.ledger.received();
                    Some(if is_sure || told == Evidence::Same { told } else { Evidence::Unknown })
                };
                match self.sessions.continuation(kin, number, evidence) {
                    Decision::Join(into, by) => {
                        if matches!(self.sessions.find(into).map(|found| found.state), Some(State::Open(_))) {
                            assert_eq!(by, JoinedBy::Proof);
                            self.flush(into);
                            self.joined_open += 1;
                        }
                        assert!(self.sessions.join(key, into, now).is_some());
                        self.joined += 1;
                        (key, start) = (into, 0);
                        client.at = Some((connection, into));
                    }
                    decision @ (Decision::Alone | Decision::Doubtful) => {
                        self.doubtful += u64::from(decision == Decision::Doubtful);
                        if number > 1 {
                            self.sessions.enter_room(key, kin);
                        }
                    }
                }
            }
            let session = self.sessions.find_mut(key).expect("open");
            if names_parent(line.as_bytes()) {
                session.has_parent = true;
                self.sessions.enter_room(key, kin);
            }
            self.sessions.find_mut(key).expect("open").take_line(start, &mut self.slabs);
        }

        fn flush(&mut self, key: SlotId) -> Vec<u64> {
            let Some(session) = self.sessions.find_mut(key) else { return Vec::new() };
            let name = self.names.entry(key).or_insert_with(|| session.id.to_string()).clone();
            if session.dump().is_none() && !session.lines.is_empty() {
                session.record = Record::Written(DumpFile::found(&name, 0, 0, (0, 0)));
            }
            let bytes = self.slabs.copy(&session.lines);
            session.append(&mut self.slabs);
            session.ledger.make_durable(session.ledger.mark());
            self.dumps.entry(name).or_default().push_str(std::str::from_utf8(&bytes).expect("text"));
            let mut numbers = Vec::new();
            session.ledger.take_acknowledgements(true, |number| numbers.push(number));
            numbers
        }

        /// Each dump holds one client's entries, once and in order.
        fn check(&self, seed: u64) {
            for (name, text) in &self.dumps {
                let owner = name.split('-').next().expect("a name");
                let mut last = 0;
                for line in text.lines() {
                    let of_owner =
                        line.contains(&format!("\"c\":{owner}}}")) || line.contains(&format!("\"p{owner}\""));
                    assert!(of_owner, "seed {seed}: {name} holds {line}");
                    let number = line_number(line.as_bytes()).expect("numbered");
                    assert!(number > last, "seed {seed}: {number} behind {last} in {name}");
                    last = number;
                }
            }
        }
    }

    /// Some clients in one room, behind one address, with one browser; connections break at any moment, and the server
    /// may learn of it late.
    fn play(seed: u64) -> (u64, u64, u64) {
        let now = Moment::at(1 << 40);
        let mut dice = Dice(seed);
        let mut world = World {
            slabs: Slabs::default(),
            sessions: Sessions::new(Duration::from_secs(600), 100, 100),
            dumps: BTreeMap::new(),
            names: BTreeMap::new(),
            info: info("/room", "b", None),
            address: [192, 0, 2, 1].into(),
            joined: 0,
            joined_open: 0,
            doubtful: 0,
        };
        let mut clients: Vec<_> = (0..=dice.below(3))
            .map(|name| Client {
                name,
                count: 0,
                unacknowledged: VecDeque::new(),
                wire: VecDeque::new(),
                connections: 0,
                at: None,
            })
            .collect();
        // Connections that their clients have given up and the server has not yet.
        let mut half_open: Vec<(SlotId, SlotId)> = Vec::new();
        let mut connections = 0;
        for clock in 0..600 {
            let index = usize::try_from(dice.below(clients.len() as u64)).expect("few");
            let client = &mut clients[index];
            match (dice.below(12), client.at) {
                (0..3, _) => client.trace(clock),
                (3..6, None) => {
                    connections += 1;
                    let id =
                        SessionId::parse(&format!("{}-{}", client.name, client.connections)).expect("an id");
                    let info = world.info.clone();
                    let is_reconnect = client.connections > 0;
                    let arrival = world.sessions.arrive(slot(connections), &id, is_reconnect, &info, now);
                    let Arrival::Fresh(key) = arrival else { panic!("seed {seed}: {id} is new") };
                    client.connections += 1;
                    client.at = Some((slot(connections), key));
                    client.wire = client.unacknowledged.iter().map(|(_, line)| line.clone()).collect();
                }
                (3..8, Some(_)) => {
                    for _ in 0..=dice.below(6) {
                        let Some(line) = client.wire.pop_front() else { break };
                        world.take(client, &line, now);
                    }
                }
                (8..10, Some((_, key))) => {
                    for number in world.flush(key) {
                        while client.unacknowledged.front().is_some_and(|(first, _)| *first <= number) {
                            client.unacknowledged.pop_front();
                        }
                    }
                }
                (10, Some(at)) => {
                    client.wire.clear();
                    client.at = None;
                    half_open.push(at);
                    if dice.below(3) > 0 {
                        notice(&mut world, &mut half_open, now);
                    }
                }
                _ => notice(&mut world, &mut half_open, now),
            }
        }
        // What was once written stays, so that the end tells of all steps.
        world.check(seed);
        (world.joined, world.joined_open, world.doubtful)
    }

    /// The server learns that connections are gone.
    fn notice(world: &mut World, half_open: &mut Vec<(SlotId, SlotId)>, now: Moment) {
        for (connection, key) in half_open.drain(..) {
            world.flush(key);
            if world.sessions.leave(key, connection, Farewell::MayReturn, now) == Departure::Finish {
                world.sessions.finish(key, false, now);
            }
        }
    }

    #[test]
    fn no_two_clients_ever_share_a_dump() {
        let (mut joined, mut joined_open, mut doubtful) = (0, 0, 0);
        for seed in 0..300 {
            let played = play(seed);
            joined += played.0;
            joined_open += played.1;
            doubtful += played.2;
        }
        let figures = format!("{joined} joined, {joined_open} of them open, {doubtful} doubtful");
        assert!(joined > 1_000 && joined_open > 100 && doubtful > 100, "{figures}");
    }
}
