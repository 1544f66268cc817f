//! The limits of the archive, `archive.max_age_days` and `archive.max_bytes`: what goes and what stays, in a folder that
//! somebody else has filled, too.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::ingest::archived;
use crate::support::script::entry_message;
use crate::support::{Rng, Settings, TestServer, Upgrade, WsClient};

const DAY_S: u64 = 24 * 3600;

/// The name of the day so many days ago, by the system's own calendar.
fn days_ago(days: u64) -> String {
    let date = std::process::Command::new("date")
        .args(["--utc", "+%F", &format!("--date=-{days} days")])
        .output()
        .expect("date can be executed");
    String::from_utf8(date.stdout).unwrap().trim().to_owned()
}

/// An archive before the server starts.
struct Prepared {
    settings: Settings,
    root: PathBuf,
}

fn prepare() -> Prepared {
    let settings = Settings::new();
    let root = settings.root().join("archive");
    fs::create_dir(&root).unwrap();
    Prepared { settings, root }
}

impl Prepared {
    fn set(mut self, key: &str, value: impl ToString) -> Self {
        self.settings = self.settings.set(key, value);
        self
    }

    /// A file of `bytes` bytes, written when it was that day.
    fn file(&self, days_ago: u64, path: &str, bytes: usize) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, vec![b'x'; bytes]).unwrap();
        let time = SystemTime::now() - Duration::from_secs(days_ago * DAY_S);
        fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }

    /// A day with two dumps and a table: 1200 bytes.
    fn day(&self, ago: u64) -> String {
        let day = days_ago(ago);
        for name in ["first", "second_1"] {
            self.file(ago, &format!("{day}/{name}.gz"), 400);
            self.file(ago, &format!("{day}/{name}.json"), 100);
        }
        self.file(ago, &format!("{day}/records/rtcstats.jsonl"), 200);
        day
    }

    fn names(&self) -> Vec<String> {
        names(&self.root)
    }
}

/// Everything in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A folder in which nothing can be changed, not by root either.
struct Locked<'a>(&'a Path);

impl<'a> Locked<'a> {
    /// `None` when that is not possible here.
    fn new(folder: &'a Path) -> Option<Self> {
        let locked = Self(folder);
        fs::set_permissions(folder, fs::Permissions::from_mode(0o500)).unwrap();
        let probe = folder.join("probe");
        let is_writable = || fs::write(&probe, "").is_ok() && fs::remove_file(&probe).is_ok();
        let is_locked = !is_writable() || (locked.chattr("+i") && !is_writable());
        is_locked.then_some(locked)
    }

    fn chattr(&self, change: &str) -> bool {
        let status = std::process::Command::new("chattr").arg(change).arg(self.0).status();
        status.is_ok_and(|status| status.success())
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.chattr("-i");
        // So that the temporary folder can be removed.
        let _ = fs::set_permissions(self.0, fs::Permissions::from_mode(0o750));
    }
}

fn removed(what: &str, reason: &str) -> String {
    format!("rtcstats_archive_removed_{what}_total{{reason=\"{reason}\"}}")
}

/// A session that ends and is archived.
fn archive_session(server: &TestServer, seed: u64) -> String {
    let id = end_session(server, seed);
    archived(server, &id, 1);
    id
}

/// A session that ends; when it is archived it may be removed again at once.
fn end_session(server: &TestServer, seed: u64) -> String {
    let id = Rng::new(seed).uuid();
    let mut client = WsClient::open(server.ingest, &Upgrade::browser(&id));
    client.send_text(&entry_message(&id, "[1]"));
    client.close(1000);
    id
}

#[test]
fn days_that_are_too_old_go() {
    let prepared = prepare().set("archive.max_age_days", 30);
    let old = [400, 100, 31].map(|ago| prepared.day(ago));
    let kept = [29, 1].map(|ago| prepared.day(ago));
    let server = prepared.settings.clone().start();
    server.wait_for_metric(&removed("files", "age"), 15.0);
    assert_eq!(server.metric(&removed("bytes", "age")), 3600.0);
    server.wait_until("the old days are gone", || (prepared.names() == kept).then_some(()));
    for day in &kept {
        assert_eq!(names(&prepared.root.join(day)).len(), 5);
    }
    for day in &old {
        let line = server.expect_log(&format!("archive.removed day={day}"));
        assert!(line.ends_with("reason=age files=5 bytes=1200 folder_gone=true"), "{line}");
    }
    server.wait_for_metric("rtcstats_archive_bytes", 2400.0);
    // A dump of today is not concerned, and counts.
    archive_session(&server, 61);
    assert!(server.metric("rtcstats_archive_bytes") > 2400.0);
    assert_eq!(server.metric(&removed("bytes", "size")), 0.0);
    assert_eq!(server.metric("rtcstats_archive_removal_errors_total"), 0.0);
}

/// Without limits, and with limits that are not reached, everything stays, and is measured.
#[test]
fn nothing_goes_without_need() {
    for (max_age_days, max_bytes) in [(0, 0), (1000, 3600)] {
        let prepared =
            prepare().set("archive.max_age_days", max_age_days).set("archive.max_bytes", max_bytes);
        let days = [900, 400, 1].map(|ago| prepared.day(ago));
        let server = prepared.settings.clone().start();
        server.wait_for_metric("rtcstats_archive_bytes", 3600.0);
        assert_eq!(prepared.names(), days);
        assert_eq!(server.stop().log.iter().filter(|line| line.contains("archive.")).count(), 0);
    }
}

#[test]
fn the_oldest_days_go_while_the_archive_is_too_large() {
    let prepared = prepare().set("archive.max_bytes", 2500);
    for ago in [500, 400, 10] {
        prepared.day(ago);
    }
    let kept = [3, 1].map(|ago| prepared.day(ago));
    let server = prepared.settings.clone().start();
    server.wait_for_metric(&removed("bytes", "size"), 3600.0);
    server.wait_until("the old days are gone", || (prepared.names() == kept).then_some(()));
    server.wait_for_metric("rtcstats_archive_bytes", 2400.0);
    assert_eq!(server.metric(&removed("files", "age")), 0.0);
}

/// A limit that one day exceeds: its oldest dumps go, and the archive stays usable.
#[test]
fn one_day_that_is_too_large_loses_its_oldest_dumps() {
    let prepared = prepare().set("archive.max_bytes", 2500);
    let today = days_ago(0);
    prepared.day(5);
    // Older ones are written first, but their names sort last.
    for (age, name) in ["e", "d", "c", "b", "a"].into_iter().enumerate() {
        prepared.file(4 - age as u64, &format!("{today}/{name}.gz"), 700);
        prepared.file(4 - age as u64, &format!("{today}/{name}.json"), 300);
    }
    let server = prepared.settings.clone().start();
    server.wait_for_metric(&removed("bytes", "size"), 1200.0 + 3000.0);
    server.expect_log(&format!("archive.cut day={today} reason=size files=6 bytes=3000"));
    let left = names(&prepared.root.join(&today));
    assert_eq!(left, ["a.gz", "a.json", "b.gz", "b.json"]);
    assert_eq!(prepared.names(), [today]);
}

/// A day of which a part has to go, as that of yesterday at midnight, loses no more than that part, and its tables last.
#[test]
fn a_day_that_is_over_does_not_go_at_once() {
    let prepared = prepare().set("archive.max_bytes", 4000);
    let (yesterday, today) = (prepared.day(1), prepared.day(0));
    for (minute, name) in ["c", "b", "a"].into_iter().enumerate() {
        prepared.file(1, &format!("{yesterday}/{name}.gz"), 900);
        let time = SystemTime::now() - Duration::from_secs(DAY_S / 2 - 60 * minute as u64);
        let file =
            fs::File::options().write(true).open(prepared.root.join(&yesterday).join(format!("{name}.gz")));
        file.unwrap().set_modified(time).unwrap();
    }
    let server = prepared.settings.clone().start();
    // 5100 bytes, of which 1140 have to go: the two dumps of 500, and one of 900.
    server.wait_for_metric(&removed("bytes", "size"), 1900.0);
    server.wait_for_metric("rtcstats_archive_bytes", 3200.0);
    assert_eq!(names(&prepared.root.join(&yesterday)), ["a.gz", "b.gz", "records"]);
    assert_eq!(names(&prepared.root.join(&today)).len(), 5);
    assert_eq!(prepared.names(), [yesterday, today]);
}

/// Where the dumps of a day that is over are not enough, its tables go with it.
#[test]
fn tables_of_a_day_that_is_over_go_after_its_dumps() {
    let prepared = prepare().set("archive.max_bytes", 5000);
    let old = prepared.day(2);
    prepared.file(2, &format!("{old}/records/rtcstats.jsonl"), 4000);
    let today = prepared.day(0);
    let server = prepared.settings.clone().start();
    server.wait_for_metric(&removed("bytes", "size"), 5000.0);
    server.wait_until("the old day is gone", || (prepared.names() == [today.clone()]).then_some(()));
}

/// At first there is no folder to look at; that it is limited holds from the first dump on.
#[test]
fn an_archive_that_is_not_there_yet_is_limited() {
    let settings = Settings::new().set("archive.max_bytes", 20_000);
    let root = settings.root().join("archive");
    assert!(!root.exists());
    let server = settings.clone().start();
    let mut rng = Rng::new(70);
    server.wait_until("something had to go", || {
        end_session(&server, rng.next());
        (server.metric(&removed("files", "size")) > 0.0).then_some(())
    });
    assert_eq!(server.metric(&removed("files", "age")), 0.0);
}

/// The tables of a day that is not over are in use: they stay, and it is told that the limit is too small for them.
#[test]
fn tables_in_use_are_kept_over_any_limit() {
    let prepared = prepare().set("archive.max_bytes", 150);
    let today = prepared.day(0);
    let server = prepared.settings.clone().start();
    server.expect_log("archive.over bytes=200 bytes_max=150");
    assert_eq!(names(&prepared.root.join(&today)), ["records"]);
    // Archived, and cut again at once.
    let mut client = WsClient::open(server.ingest, &Upgrade::browser(&Rng::new(69).uuid()));
    client.send_text(&entry_message(&Rng::new(69).uuid(), "[1]"));
    client.close(1000);
    server.wait_for_metric("rtcstats_files_processed", 1.0);
    server.wait_for_metric(&removed("files", "size"), 6.0);
    assert_eq!(server.metric("rtcstats_archive_removal_errors_total"), 0.0);
}

/// Growth is noticed when it happens, not at the next regular look.
#[test]
fn what_grows_over_the_limit_is_cut_at_once() {
    let prepared = prepare().set("archive.max_bytes", 2_000_000);
    let old = prepared.day(2);
    prepared.file(2, &format!("{old}/big.gz"), 1_998_000);
    let server = prepared.settings.clone().start();
    server.wait_for_metric("rtcstats_archive_bytes", 1_999_200.0);
    let mut rng = Rng::new(62);
    server.wait_until("the old day has made room", || {
        archive_session(&server, rng.next());
        (server.metric(&removed("bytes", "size")) > 0.0).then_some(())
    });
    server.wait_for_metric(&removed("files", "size"), 5.0);
    assert_eq!(names(&prepared.root.join(&old)), ["records"]);
}

/// Links and files of others are never followed or removed; they are told once, and their folders stay.
#[test]
fn what_is_not_ours_is_left_alone() {
    let prepared = prepare().set("archive.max_age_days", 7).set("archive.max_bytes", 100_000);
    let elsewhere = prepared.settings.root().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("precious.gz"), "x").unwrap();
    let day = prepared.day(100);
    let folder = prepared.root.join(&day);
    symlink(elsewhere.join("precious.gz"), folder.join("link.gz")).unwrap();
    symlink("/nowhere", folder.join("dangling.json")).unwrap();
    symlink(&elsewhere, prepared.root.join(days_ago(200))).unwrap();
    fs::write(folder.join("notes.txt"), "x").unwrap();
    fs::write(folder.join("records/ours.csv"), "x").unwrap();
    fs::create_dir(folder.join("sub.gz")).unwrap();
    fs::create_dir(prepared.root.join("lost+found")).unwrap();
    fs::write(prepared.root.join(days_ago(300)), "a file").unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        folder.join("pipe.gz"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let clean = prepared.day(50);
    let server = prepared.settings.clone().start();
    server.wait_for_metric(&removed("files", "age"), 10.0);
    server.expect_log(&format!("archive.removed day={clean} reason=age files=5 bytes=1200 folder_gone=true"));
    let line = server.expect_log(&format!("archive.removed day={day}"));
    assert!(line.ends_with("files=5 bytes=1200 folder_gone=false"), "{line}");
    let stays = ["dangling.json", "link.gz", "notes.txt", "pipe.gz", "records", "sub.gz"];
    assert_eq!(names(&folder), stays);
    assert_eq!(names(&folder.join("records")), ["ours.csv"]);
    assert_eq!(names(&elsewhere), ["precious.gz"]);
    let mut left = vec![days_ago(300), days_ago(200), day.clone(), "lost+found".to_owned()];
    assert_eq!(prepared.names(), left);
    left.remove(2);
    left.extend(["records/ours.csv"].iter().chain(&stays).map(|name| format!("{day}/{name}")));
    left.retain(|path| !path.ends_with("/records"));
    let exit = server.stop();
    for path in &left {
        let line = format!("archive.foreign path={path}: ");
        let told = exit.log.iter().filter(|found| found.contains(&line)).count();
        assert_eq!(told, 1, "{line:?} in\n{}", exit.log.join("\n"));
    }
}

/// What cannot be removed is counted and left for later; nothing newer has to go in its place, and jobs go on.
#[test]
fn a_folder_that_cannot_be_changed_is_tried_again_later() {
    let prepared = prepare().set("archive.max_age_days", 30).set("archive.max_bytes", 10_000);
    let stuck = prepared.day(100);
    prepared.file(100, &format!("{stuck}/big.gz"), 20_000);
    let young = prepared.day(3);
    let folder = prepared.root.join(&stuck);
    let Some(locked) = Locked::new(&folder) else {
        eprintln!("SKIPPED: this user may write into any folder, and this file system knows no `chattr +i`");
        return;
    };
    let started = SystemTime::now();
    let server = prepared.settings.clone().start();
    server.expect_log("archive.unkept");
    let failures = server.metric("rtcstats_archive_removal_errors_total");
    assert!(failures >= 1.0);
    for seed in 63..66 {
        archive_session(&server, seed);
    }
    assert_eq!(names(&prepared.root.join(&young)).len(), 5, "the young are not made to pay");
    assert_eq!(names(&folder).len(), 6);
    let lines = server.stop().log;
    drop(locked);
    let tries = lines.iter().filter(|line| line.contains("archive.unkept")).count();
    // However slow this machine is: every five minutes.
    let tries_max = 1 + started.elapsed().unwrap().as_secs() / 300;
    assert!(tries as u64 <= tries_max, "it does not spin: {lines:#?}");
}

/// Both limits can be changed without a restart.
#[test]
fn a_reload_changes_the_limits() {
    let prepared = prepare();
    let days = [100, 10].map(|ago| prepared.day(ago));
    fs::create_dir(prepared.settings.root().join("config")).unwrap();
    let file = prepared.settings.root().join("config/local.toml");
    fs::write(&file, "").unwrap();
    let server = prepared.settings.clone().start();
    server.wait_for_metric("rtcstats_archive_bytes", 2400.0);
    fs::write(&file, "[archive]\nmax_age_days = 50\n").unwrap();
    server.hangup();
    server.wait_for_metric(&removed("files", "age"), 5.0);
    server.wait_until("the old day is gone", || (prepared.names() == days[1..]).then_some(()));
    fs::write(&file, "[archive]\nmax_bytes = 800\n").unwrap();
    server.hangup();
    server.wait_for_metric(&removed("bytes", "size"), 500.0);
}

/// A server that was away for long, or a clock that is wrong: nobody can tell, so nothing goes by its age for a day.
#[test]
fn a_clock_that_seems_to_have_jumped_removes_nothing_by_age() {
    let prepared = prepare().set("archive.max_age_days", 30);
    let day = prepared.day(1000);
    // The heartbeat of a server, long ago. Times of folders cannot be set, so this one stands for all of them.
    let lock = prepared.settings.root().join("temp/.lock");
    fs::create_dir(lock.parent().unwrap()).unwrap();
    fs::write(&lock, "").unwrap();
    let last = SystemTime::now() - Duration::from_secs(900 * DAY_S);
    fs::File::options().write(true).open(&lock).unwrap().set_modified(last).unwrap();
    let server = prepared.settings.clone().start();
    let line = server.expect_log("archive.clock");
    assert!(line.contains(&format!("nothing_known_since={} hold_s=86", days_ago(900))), "{line}");
    server.wait_for_metric("rtcstats_archive_bytes", 1200.0);
    assert_eq!(prepared.names(), [day]);
    assert_eq!(server.metric("rtcstats_archive_clock_doubted"), 1.0);
}
