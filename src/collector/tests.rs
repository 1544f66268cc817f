//! The collector over a real folder, with a made-up clock and no sockets.

use std::rc::Rc;
use std::sync::Arc;

use super::*;
use crate::client::{Agent, ClientType};
use crate::dump_folder::DumpFolder;

struct Scene {
    folder: tempfile::TempDir,
    collector: Collector,
    tally: Tally,
    now: Now,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (dumps, _) = DumpFolder::open(&folder.path().join("temp")).unwrap();
        let settings = CollectorSettings {
            flush_interval: Duration::from_secs(1),
            flush_bytes: 65_536,
            flush_total_bytes: 16 << 20,
            min_free_bytes: 0,
            reconnect_grace: Duration::from_secs(660),
            session_idle: Duration::ZERO,
            join_by_number: true,
            sessions_max: 100_000,
            waiting_sessions_max: 50_000,
            sessions_per_connection_max: 256,
            sessions_per_backend_connection_max: 100_000,
            session_bytes_max: 1 << 30,
            bad_requests_per_minute_max: 100,
        };
        let collector = Collector::new(settings, DumpStore::new(Arc::new(dumps), 16, None), None);
        #[expect(clippy::disallowed_methods, reason = "an origin for made-up times")]
        let now = Now { instant: Moment::at(1 << 40), wall: SystemTime::now() };
        Self { folder, collector, tally: Tally::default(), now }
    }

    fn feeder(&mut self, client: ClientType) -> Feeder {
        let agent = Rc::new(Agent {
            origin: "".into(),
            user_agent: "".into(),
            client_protocol: "".into(),
            stats_format: "unsupported",
            client_type: client.name(),
        });
        let info = self.collector.share(ConnectionInfo::new("/", None, agent));
        let connection = SlotId { index: 7, generation: 1 };
        Feeder::new(connection, client, [192, 0, 2, 1].into(), info)
    }

    fn text(&mut self, feeder: &mut Feeder, text: &str) {
        self.collector.text(feeder, text, &mut self.tally, self.now).unwrap();
    }
}

/// Each session that cannot be written looks for the folder; none of them tries all the others again.
#[test]
fn many_sessions_are_held_while_the_folder_is_gone() {
    const SESSIONS: usize = 4_000;
    let mut scene = Scene::new();
    let mut back_end = scene.feeder(ClientType::Jvb);
    for n in 0..SESSIONS {
        let request = format!(r#"{{"statsSessionId":"s{n}","type":"stats-entry","data":"[1]"}}"#);
        scene.text(&mut back_end, &request);
    }
    // It cannot be created again either.
    let path = scene.folder.path().join("temp");
    std::fs::remove_dir_all(&path).unwrap();
    std::fs::write(&path, "in the way").unwrap();
    scene.collector.leave(&mut back_end, Farewell::MayReturn, &mut scene.tally, scene.now);
    assert_eq!(scene.collector.sessions().waiting_count(), SESSIONS, "all are held");
    assert_eq!(scene.collector.refusal(), Some(crate::reasons::Refusal::DiskUnwritable));
    scene.collector.check_folder(&mut scene.tally, scene.now);
    assert_eq!(scene.collector.sessions().waiting_count(), SESSIONS);

    std::fs::remove_file(&path).unwrap();
    for _ in 0..=SESSIONS / FLUSHES_PER_TURN {
        scene.collector.check_folder(&mut scene.tally, scene.now);
    }
    assert_eq!(scene.collector.sessions().waiting_count(), 0);
    let mut effects = Vec::new();
    scene.collector.take_effects(&mut effects);
    assert_eq!(effects.iter().filter(|effect| matches!(effect, Effect::Finished(_))).count(), SESSIONS);
    assert_eq!(scene.tally.session_errors, 0);
}

/// A session that was proven to be the rest of one whose old connection still looks alive: what comes there late is part of
/// neither dump.
#[test]
fn what_comes_on_the_old_connection_of_a_joined_session_is_not_taken() {
    let mut scene = Scene::new();
    let arrive = |scene: &mut Scene, index: u32, id: &str, is_reconnect: bool| {
        let mut feeder = scene.feeder(ClientType::Rtcstats);
        feeder.connection = SlotId { index, generation: 1 };
        feeder.info.session_id = SessionId::parse(id);
        scene.collector.arrive(&mut feeder, is_reconnect, &mut scene.tally, scene.now).unwrap();
        feeder
    };
    let entry = |id: &str, number: u32| {
        let line = match number {
            1 => r#"[\"identity\",null,{\"parentStatsSessionId\":\"p\"},1700000000000,1]"#.to_owned(),
            _ => format!(r#"[\"t\",null,{{\"n\":{number}}},1700000000000,{number}]"#),
        };
        format!(r#"{{"statsSessionId":"{id}","type":"stats-entry","data":"{line}"}}"#)
    };
    let mut old = arrive(&mut scene, 1, "old", false);
    for number in 1..=10 {
        scene.text(&mut old, &entry("old", number));
    }
    scene.now.instant += Duration::from_secs(2);
    scene.collector.tick(&mut scene.tally, scene.now);
    let mut new = arrive(&mut scene, 2, "new", true);
    scene.text(&mut new, &entry("new", 5));
    assert_eq!(scene.collector.sessions().open_count(), 1, "joined by proof");

    let late = scene.collector.text(&mut old, &entry("old", 11), &mut scene.tally, scene.now);
    assert_eq!(late.unwrap_err().reason, CloseReason::MovedOn);
    assert_eq!(scene.collector.sessions().open_count(), 1, "nothing was opened for it");
    scene.text(&mut new, &entry("new", 11));
    assert_eq!(scene.tally.missing_entries, 0);
}

/// A client that sends little hears of it eight seconds after it was appended, of a hundredth entry at once.
#[test]
fn entries_are_acknowledged_by_time_and_by_the_hundred() {
    let mut scene = Scene::new();
    let mut feeder = scene.feeder(ClientType::Rtcstats);
    feeder.info.session_id = SessionId::parse("s");
    scene.collector.arrive(&mut feeder, false, &mut scene.tally, scene.now).unwrap();
    let send = |scene: &mut Scene, feeder: &mut Feeder, number: u32| {
        let line = format!(r#"[\"t\",null,null,1700000000000,{number}]"#);
        scene.text(feeder, &format!(r#"{{"statsSessionId":"s","type":"stats-entry","data":"{line}"}}"#));
    };
    let heard_a_second_later = |scene: &mut Scene| {
        scene.now.instant += Duration::from_secs(1);
        scene.collector.tick(&mut scene.tally, scene.now);
        let mut effects = Vec::new();
        scene.collector.take_effects(&mut effects);
        let number = |effect: &Effect| {
            if let Effect::Acknowledge { number, .. } = effect { Some(*number) } else { None }
        };
        effects.iter().filter_map(number).collect::<Vec<u64>>()
    };
    send(&mut scene, &mut feeder, 1);
    for second in 1..=8 {
        assert_eq!(heard_a_second_later(&mut scene), [0; 0], "second {second}; appended in the first one");
    }
    assert_eq!(heard_a_second_later(&mut scene), [1]);
    (2..=150).for_each(|number| send(&mut scene, &mut feeder, number));
    assert_eq!(heard_a_second_later(&mut scene), [100]);
}
