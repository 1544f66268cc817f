//! The disk fails: full, broken, read-only, removed, no descriptors. Nothing acknowledged is missing afterwards, the
//! process lives, tells its clients, and recovers by itself.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

use crate::client::{Client, Leave, Plan, Whereabouts};
use crate::kills::{scaled, settle};
use crate::power::wait_until_attached;
use crate::record::{Figures, Record};
use crate::support::frames;
use crate::support::{Rng, Settings, TestServer, Upgrade, WsClient};
use crate::trace::{Habits, Trace};

/// A file system in memory, unmounted when dropped.
pub(crate) struct Tmpfs(PathBuf);

impl Tmpfs {
    /// At the place of the dump folder; `None`, loudly, where that is not allowed.
    pub(crate) fn mount(settings: &Settings, size: &str) -> Option<Self> {
        let path = settings.root().join("temp");
        std::fs::create_dir(&path).unwrap();
        let options = format!("size={size}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&path).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(path)),
            other => {
                eprintln!("SKIPPED: a file system of its own cannot be mounted here: {other:?}");
                None
            }
        }
    }

    fn remount(&self, how: &str) -> bool {
        let options = format!("remount,{how}");
        let status = Command::new("mount").args(["-o", &options]).arg(&self.0).stderr(Stdio::null()).status();
        status.unwrap().success()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A disk of its own: ext4 in a file, unmounted when dropped.
struct Ext4 {
    image: PathBuf,
    path: PathBuf,
}

impl Ext4 {
    /// At the place of the dump folder; `None`, loudly, where that is not allowed.
    fn mount(settings: &Settings, size: u64) -> Option<Self> {
        let (image, path) = (settings.root().join("image"), settings.root().join("temp"));
        std::fs::create_dir(&path).unwrap();
        std::fs::File::create(&image).unwrap().set_len(size).unwrap();
        let made = Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image).output();
        let disk = Self { image, path };
        match made {
            Ok(output) if output.status.success() && disk.mount_again() => {
                // No dump of anybody.
                std::fs::remove_dir(disk.path.join("lost+found")).unwrap();
                Some(disk)
            }
            other => {
                eprintln!("SKIPPED: an ext4 of its own cannot be made or mounted here: {other:?}");
                None
            }
        }
    }

    fn mount_again(&self) -> bool {
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop,errors=remount-ro"]).arg(&self.image).arg(&self.path);
        mount.output().is_ok_and(|output| output.status.success())
    }

    /// The file system finds an error in itself, and lets nobody write any more, whoever has files open.
    fn fail(&self) -> bool {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let here = self.path.to_str().unwrap();
        let mount = mounts.lines().find(|line| line.split(' ').nth(1) == Some(here)).unwrap();
        let device = mount.split(' ').next().unwrap().trim_start_matches("/dev/");
        let failed = std::fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "1");
        failed.inspect_err(|error| eprintln!("SKIPPED: ext4 cannot be made to fail here: {error}")).is_ok()
    }

    fn unmount(&self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        self.unmount();
    }
}

/// Fills the file system of `folder` up to the last byte, or until so many are left; the file that did it.
fn fill(folder: &Path, left: u64) -> PathBuf {
    let path = folder.join(".filler");
    let mut file = std::fs::File::create(&path).unwrap();
    let free = || {
        let stat = rustix::fs::statvfs(folder).unwrap();
        stat.f_bavail * stat.f_frsize
    };
    while free() > left && file.write_all(&[7; 4096]).is_ok() {}
    path
}

/// Clients that trace for a while and then wait until all is well.
struct Crowd {
    calm: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Record>>,
}

impl Crowd {
    /// `count` clients, which begin one after the other, `apart_ms` apart.
    fn start(server: &TestServer, seed: u64, tracing_ms: u64, count: u64, apart_ms: u64) -> Self {
        let mut rng = Rng::new(seed);
        let whereabouts = Whereabouts::default();
        whereabouts.set(Some(server.ingest));
        let calm = Arc::new(AtomicBool::new(false));
        let one = |index: u64| {
            let plan = Plan::roll(&mut rng, tracing_ms, 6, Leave::Settled);
            let habits = Habits::default();
            let trace = Trace::new(&mut rng, habits);
            let (rng, calm) = (Rng::new(rng.next()), Arc::clone(&calm));
            let client = Client::new(trace, Plan { floods: 0, ..plan }, rng, whereabouts.clone(), calm);
            std::thread::spawn(move || {
                crate::pass(Duration::from_millis(index * apart_ms));
                client.run()
            })
        };
        let clients = (0..count).map(one).collect();
        Self { calm, clients }
    }

    fn end(self) -> Vec<Record> {
        self.calm.store(true, Ordering::Relaxed);
        self.clients.into_iter().map(|client| client.join().expect("a client keeps to its rules")).collect()
    }
}

fn check(server: TestServer, records: &[Record], what: &str) -> Figures {
    let figures = settle(server, records);
    assert_eq!(figures.defects(), 0, "{what}:\n{figures}");
    eprintln!("{what}: {figures}");
    figures
}

/// The disk is full, again and again, with no floor set: appends fail, clients are told with 1013, come back, and bring
/// everything again.
#[test]
fn a_full_disk_loses_nothing() {
    let settings = scaled();
    let Some(_disk) = Tmpfs::mount(&settings, "8m") else { return };
    fill_again_and_again(settings, 70);
}

/// The same on a file system that gives a file its blocks late, and with every acknowledgement behind a sync.
#[test]
fn a_full_ext4_loses_nothing_that_was_synced() {
    let settings = scaled().set("dump.durability", "power");
    let Some(_disk) = Ext4::mount(&settings, 24 << 20) else { return };
    fill_again_and_again(settings, 76);
}

fn fill_again_and_again(settings: Settings, seed: u64) {
    let server = settings.start();
    let crowd = Crowd::start(&server, seed, 1_500, 4, 0);
    let closed = "rtcstats_connections_closed_total{reason=\"storage_error\"}";
    for _ in 0..3 {
        crate::pass(Duration::from_millis(200));
        let filler = fill(&server.dump_path(""), 0);
        server.wait_for_metric(closed, 1.0);
        crate::pass(Duration::from_millis(150));
        std::fs::remove_file(filler).unwrap();
    }
    let records = crowd.end();
    assert!(server.metric("rtcstats_dump_write_errors_total") >= 1.0);
    check(server, &records, "full disk");
}

/// What comes together with the good-bye of a client while the disk is full is kept until there is room: nobody has it any
/// more. So is the rest of a back end that is gone.
#[test]
fn the_last_lines_of_a_client_that_leaves_are_kept_until_they_can_be_written() {
    let settings = scaled().set("sessions.reconnect_grace_s", 60).set("dump.flush_interval_ms", 1_000);
    let Some(_disk) = Tmpfs::mount(&settings, "8m") else { return };
    let server = settings.start();
    let (left, never_written, closed) = (Session::new("left"), Session::new("never"), Session::new("closed"));
    let mut socket = left.connect(&server, 0);
    (1..=5).for_each(|number| left.send(&mut socket, number));
    server.wait_until("it is written", || server.dump_path("left").is_file().then_some(()));
    let mut other_socket = never_written.connect(&server, 0);
    let mut back_end = WsClient::open(server.ingest, &Upgrade::back_end("3.1_STANDARD"));
    let filler = fill(&server.dump_path(""), 0);

    let good_bye = frames::close(Some(3001), "");
    socket.send_bytes(&[left.messages(6..=400), good_bye.clone()].concat());
    other_socket.send_bytes(&[never_written.messages(1..=400), good_bye].concat());
    let close = crate::support::script::message(&closed.id, "close", None);
    let close = frames::message(frames::TEXT, close.as_bytes());
    back_end.send_bytes(&[closed.messages(1..=400), close].concat());
    back_end.round_trip();
    socket.expect_close(3001);
    other_socket.expect_close(3001);
    server.wait_for_metric("rtcstats_dump_write_errors_total", 3.0);
    std::fs::remove_file(filler).unwrap();
    [left, never_written, closed].iter().for_each(|session| session.expect_archived(&server, 400));
    assert_eq!(server.metric("rtcstats_session_error_count"), 0.0);
}

/// There is a limit to what is kept: the session that waits longest is finished with what its dump has.
#[test]
fn of_too_many_last_lines_the_oldest_are_given_up() {
    let settings = scaled()
        .set("sessions.reconnect_grace_s", 60)
        .set("limits.waiting_sessions", 1)
        .set("dump.flush_interval_ms", 1_000);
    let Some(_disk) = Tmpfs::mount(&settings, "8m") else { return };
    let server = settings.start();
    let (first, second) = (Session::new("first"), Session::new("second"));
    let mut sockets = [&first, &second].map(|session| {
        let mut socket = session.connect(&server, 0);
        (1..=100).for_each(|number| session.send(&mut socket, number));
        socket
    });
    for socket in &mut sockets {
        assert_eq!(socket.expect_text(), r#"{"type":"sn","body":{"value":100}}"#);
    }
    let filler = fill(&server.dump_path(""), 0);
    for (session, socket) in [&first, &second].iter().zip(&mut sockets) {
        socket.send_bytes(&[session.messages(101..=400), frames::close(Some(3001), "")].concat());
        socket.expect_close(3001);
    }
    server.wait_for_metric("rtcstats_waiting_sessions_finished_total{reason=\"too_many\"}", 1.0);
    first.expect_archived(&server, 100);
    std::fs::remove_file(filler).unwrap();
    second.expect_archived(&server, 400);
    assert_eq!(server.metric("rtcstats_session_error_count"), 1.0);
}

/// For its client a session is over when it has said so, whatever is still held of it: who comes back is told that, and
/// takes nothing away.
#[test]
fn a_zombie_does_not_destroy_what_is_held() {
    let settings = scaled().set("sessions.reconnect_grace_s", 60).set("dump.flush_interval_ms", 1_000);
    let Some(_disk) = Tmpfs::mount(&settings, "8m") else { return };
    let server = settings.start();
    let (zombie, other) = (Session::new("zombie"), Session::new("other"));
    let mut socket = zombie.connect(&server, 0);
    (1..=5).for_each(|number| zombie.send(&mut socket, number));
    server.wait_until("it is written", || server.dump_path("zombie").is_file().then_some(()));
    let mut other_socket = other.connect(&server, 0);
    let filler = fill(&server.dump_path(""), 0);
    let good_bye = frames::close(Some(3001), "");
    socket.send_bytes(&[zombie.messages(6..=400), good_bye.clone()].concat());
    socket.expect_close(3001);
    other_socket.send_bytes(&[other.messages(1..=400), good_bye].concat());
    other_socket.expect_close(3001);
    server.wait_for_metric("rtcstats_dump_write_errors_total", 2.0);
    let mut back = WsClient::connect(server.ingest, &zombie.upgrade(true));
    back.expect_close(3001);
    // Without `isReconnect` it is another one that has the same id, and is let in.
    let mut stranger = WsClient::open(server.ingest, &other.upgrade(false));
    std::fs::remove_file(filler).unwrap();
    zombie.expect_archived(&server, 400);
    other.expect_archived(&server, 400);
    stranger.send_bytes(&other.messages(1..=3));
    stranger.close(3001);
    let dumps = server.wait_until("both are archived", || {
        Some(server.archive().dumps_of("other")).filter(|dumps| dumps.len() == 2)
    });
    assert_eq!(dumps.iter().map(|dump| dump.lines().len()).collect::<Vec<_>>(), [400, 3]);
    assert_eq!(server.metric("rtcstats_session_error_count"), 0.0);
}

/// What a client still has is not held for it: a session that waits with lines that could not be written drops them, says
/// so, and takes them again.
#[test]
fn a_session_that_waits_holds_nothing() {
    let settings = scaled().set("sessions.reconnect_grace_s", 60).set("dump.flush_interval_ms", 5_000);
    let Some(_disk) = Tmpfs::mount(&settings, "8m") else { return };
    let server = settings.start();
    let session = Session::new("parked");
    let mut socket = session.connect(&server, 0);
    let filler = fill(&server.dump_path(""), 0);
    socket.send_bytes(&session.messages(1..=100));
    socket.round_trip();
    socket.reset();
    server.wait_for_metric("rtcstats_dump_write_errors_total", 1.0);
    let line = server.expect_log("dump.error");
    assert!(line.contains("lost_bytes=") && !line.contains("held_bytes="), "{line}");
    server.wait_for_metric("rtcstats_sessions{state=\"waiting\"}", 1.0);
    std::fs::remove_file(filler).unwrap();
    let mut socket = session.connect(&server, 0);
    (1..=150).for_each(|number| session.send(&mut socket, number));
    socket.close(3001);
    session.expect_archived(&server, 150);
}

/// A server that holds the last lines of a session, because its disk is full.
struct Held {
    _disk: Tmpfs,
    server: TestServer,
    session: Session,
    /// What fills the disk.
    filler: PathBuf,
    /// The log line that tells of what is held.
    line: String,
}

/// A session with 100 entries in its dump, and 300 held since its client ended it; `None` where no disk can be mounted.
fn hold(name: &str) -> Option<Held> {
    let settings = scaled().set("sessions.reconnect_grace_s", 60).set("dump.flush_interval_ms", 1_000);
    let disk = Tmpfs::mount(&settings, "8m")?;
    let server = settings.start();
    let session = Session::new(name);
    let mut socket = session.connect(&server, 0);
    (1..=100).for_each(|number| session.send(&mut socket, number));
    assert_eq!(socket.expect_text(), r#"{"type":"sn","body":{"value":100}}"#);
    let filler = fill(&server.dump_path(""), 0);
    socket.send_bytes(&[session.messages(101..=400), frames::close(Some(3001), "")].concat());
    socket.expect_close(3001);
    let line = server.expect_log("held_bytes=");
    Some(Held { _disk: disk, server, session, filler, line })
}

/// Lines that are held do not outlive the server. It tries once more, and says what is lost.
#[test]
fn what_is_held_is_tried_once_more_at_the_stop() {
    let Some(Held { _disk, server, session, filler, line }) = hold("held") else { return };
    let held = line.rsplit_once("held_bytes=").unwrap().1.to_owned();
    let settings = server.settings();
    let exit = server.stop();
    assert!(exit.status.success());
    let lost = exit.log.iter().find(|line| line.contains("lost_bytes="));
    assert!(lost.is_some_and(|line| line.ends_with(&format!("lost_bytes={held}"))), "{:#?}", exit.log);
    std::fs::remove_file(filler).unwrap();
    let server = settings.start();
    session.expect_archived(&server, 100);
}

/// Lines are not held for a dump that is not there any more.
#[test]
fn a_dump_that_is_removed_takes_along_what_is_held_of_it() {
    let Some(Held { _disk, server, session: _, filler, line: _ }) = hold("removed") else { return };
    std::fs::remove_file(server.dump_path("removed")).unwrap();
    std::fs::remove_file(filler).unwrap();
    server.wait_for_metric("rtcstats_dumps_removed_total", 1.0);
    assert_eq!(server.metric("rtcstats_sessions{state=\"waiting\"}"), 0.0);
}

/// A folder in which nothing may be created is no full disk, and nobody is greeted for nothing.
#[test]
fn a_folder_that_may_not_be_written_is_told_apart_from_a_full_disk() {
    let Some(settings) = scaled().set("dump.min_free_bytes", 1).without_privileges() else { return };
    let server = settings.start();
    let temp = server.dump_path("");
    let session = Session::new("forbidden");
    drop(session.connect(&server, 0));
    let mode = |bits| std::fs::set_permissions(&temp, std::fs::Permissions::from_mode(bits)).unwrap();
    mode(0o550);
    let line = server.expect_log("disk.unwritable");
    assert!(line.contains("Permission denied"), "{line}");
    let answer = server.wait_until("it is refused", || {
        WsClient::try_connect(server.ingest, &session.upgrade(true)).unwrap().err()
    });
    assert_eq!((answer.status, answer.text().trim_end()), (503, "the dump folder cannot be written"));
    server.wait_for_metric("rtcstats_connections_refused_total{reason=\"disk_unwritable\"}", 1.0);
    mode(0o750);
    server.expect_log("disk.recovered");
    let mut socket = session.connect(&server, 0);
    session.send(&mut socket, 1);
    socket.close(3001);
    session.expect_archived(&server, 1);
}

/// The file system fails for good under open sessions: whatever still says that it can be written, nobody is greeted, and
/// on the next start everything is there that was acknowledged.
#[test]
fn a_file_system_that_fails_keeps_what_was_acknowledged() {
    let settings = scaled().set("sessions.reconnect_grace_s", 60);
    let Some(disk) = Ext4::mount(&settings, 24 << 20) else { return };
    let server = settings.start();
    let session = Session::new("failed");
    let mut socket = session.connect(&server, 0);
    (1..=100).for_each(|number| session.send(&mut socket, number));
    assert_eq!(socket.expect_text(), r#"{"type":"sn","body":{"value":100}}"#);
    // `process` says nothing about a disk that fails before it was written.
    assert!(Command::new("sync").arg("-f").arg(server.dump_path("")).status().unwrap().success());
    if !disk.fail() {
        return;
    }
    session.send(&mut socket, 101);
    socket.expect_close(1013);
    server.wait_until("it is refused", || {
        WsClient::try_connect(server.ingest, &session.upgrade(true))
            .unwrap()
            .err()
            .filter(|answer| answer.status == 503)
    });
    assert_eq!(crate::support::http::get(server.ingest, "/healthcheck").status, 200);
    let settings = server.settings();
    assert!(server.stop().status.success());
    disk.unmount();
    assert!(disk.mount_again());
    let server = settings.start();
    let mut socket = session.connect(&server, 100);
    session.send(&mut socket, 101);
    socket.close(3001);
    session.expect_archived(&server, 101);
}

/// Below the floor nobody new is let in, and nobody comes back, which would reset a client's patience; who is open goes
/// on. Above it all is well again by itself.
#[test]
fn below_the_floor_new_sessions_are_refused_and_open_ones_go_on() {
    let settings = scaled().set("dump.min_free_bytes", 2 << 20);
    let Some(_disk) = Tmpfs::mount(&settings, "8m") else { return };
    let server = settings.start();
    let (mut open, away) = (Session::new("open"), Session::new("away"));
    let mut open_socket = open.connect(&server, 0);
    let mut away_socket = away.connect(&server, 0);
    away.send(&mut away_socket, 1);
    away_socket.reset();
    server.wait_for_metric("rtcstats_sessions{state=\"waiting\"}", 1.0);
    let filler = fill(&server.dump_path(""), 1 << 20);
    let refusals = "rtcstats_connections_refused_total{reason=\"disk_full\"}";
    for session in [&Session::new("new"), &away] {
        server.wait_until("connections are refused", || {
            WsClient::try_connect(server.ingest, &session.upgrade(true))
                .unwrap()
                .err()
                .filter(|answer| answer.status == 503)
        });
    }
    server.wait_for_metric(refusals, 2.0);
    assert_eq!(crate::support::http::get(server.ingest, "/healthcheck").status, 200);
    open.count = 150;
    (1..=150).for_each(|number| open.send(&mut open_socket, number));
    assert_eq!(open_socket.expect_text(), r#"{"type":"sn","body":{"value":100}}"#);
    std::fs::remove_file(filler).unwrap();
    let mut back = server.wait_until("it is let in again", || {
        WsClient::try_connect(server.ingest, &away.upgrade(true)).unwrap().ok()
    });
    assert_eq!(back.expect_text(), r#"{"type":"sn","body":{"value":1,"state":"initial"}}"#);
    back.close(3001);
    open_socket.close(3001);
    open.expect_archived(&server, 150);
    away.expect_archived(&server, 1);
}

/// The file system becomes read-only under a waiting session: it is refused, not greeted, and goes on afterwards.
#[test]
fn a_read_only_file_system_is_survived() {
    let settings = scaled().set("dump.min_free_bytes", 1).set("sessions.reconnect_grace_s", 60);
    let Some(disk) = Tmpfs::mount(&settings, "8m") else { return };
    let server = settings.start();
    let session = Session::new("read-only");
    let mut socket = session.connect(&server, 0);
    (1..=5).for_each(|number| session.send(&mut socket, number));
    socket.reset();
    server.wait_for_metric("rtcstats_sessions{state=\"waiting\"}", 1.0);
    // A server without open sessions holds nothing open for writing.
    assert!(disk.remount("ro"), "the file system is busy");
    server.expect_log("disk.unwritable");
    server.wait_until("it is refused", || {
        WsClient::try_connect(server.ingest, &session.upgrade(true))
            .unwrap()
            .err()
            .filter(|answer| answer.status == 503)
    });
    assert!(disk.remount("rw"));
    let mut socket = server.wait_until("it is let in again", || {
        WsClient::try_connect(server.ingest, &session.upgrade(true)).unwrap().ok()
    });
    assert_eq!(socket.expect_text(), r#"{"type":"sn","body":{"value":5,"state":"initial"}}"#);
    session.send(&mut socket, 6);
    socket.close(3001);
    session.expect_archived(&server, 6);
}

/// A dump that cannot be moved to the finished ones is moved as soon as that is possible, without a restart.
#[test]
fn finishing_is_tried_again() {
    let settings = scaled().set("sessions.reconnect_grace_s", 1);
    let Some(disk) = Tmpfs::mount(&settings, "8m") else { return };
    let server = settings.start();
    let session = Session::new("unfinished");
    let mut socket = session.connect(&server, 0);
    session.send(&mut socket, 1);
    socket.reset();
    server.wait_for_metric("rtcstats_sessions{state=\"waiting\"}", 1.0);
    assert!(disk.remount("ro"), "the file system is busy");
    server.expect_log("cannot finish");
    assert!(disk.remount("rw"));
    session.expect_archived(&server, 1);
}

/// Every write to a dump fails for a while, in every way in which one can, and once so that it cannot even be cut back.
#[test]
fn write_errors_lose_nothing() {
    let server = scaled().start();
    let crowd = Crowd::start(&server, 71, 1_500, 4, 0);
    let calls =
        ["writev:error=EIO", "writev:error=EROFS", "writev:error=ENOSPC", "writev,ftruncate:error=EIO"];
    for fault in calls {
        crate::pass(Duration::from_millis(150));
        let Some(fault) = Fault::inject(&server, fault) else {
            drop(crowd.end());
            return;
        };
        crate::pass(Duration::from_millis(200));
        fault.end();
    }
    let records = crowd.end();
    assert!(server.metric("rtcstats_dump_write_errors_total") >= 1.0);
    check(server, &records, "write errors");
}

/// strace as a source of faults.
struct Fault(Child);

impl Fault {
    fn inject(server: &TestServer, what: &str) -> Option<Self> {
        let call = what.split(':').next().unwrap();
        let child = Command::new("strace")
            .args(["-f", "-p", &server.pid().to_string(), "-o", "/dev/null"])
            .args(["-e", &format!("trace={call}"), "-e", &format!("inject={what}")])
            .stderr(Stdio::piped())
            .stdin(Stdio::null())
            .spawn();
        let Ok(mut child) = child else {
            eprintln!("SKIPPED: there is no strace");
            return None;
        };
        match wait_until_attached(&mut child) {
            Ok(()) => Some(Self(child)),
            Err(said) => {
                eprintln!("SKIPPED: strace cannot attach: {said}");
                None
            }
        }
    }

    fn end(mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        self.0.wait().unwrap();
    }
}

/// No descriptor is left for a while: connections wait, dumps fail, and both go on afterwards.
#[test]
fn running_out_of_descriptors_loses_nothing() {
    let server = scaled().start();
    let crowd = Crowd::start(&server, 72, 300, 20, 40);
    let pid = Pid::from_raw(server.pid() as i32);
    let limit = rustix::process::getrlimit(Resource::Nofile);
    for _ in 0..4 {
        crate::pass(Duration::from_millis(150));
        let before =
            prlimit(pid, Resource::Nofile, Rlimit { current: Some(8), maximum: limit.maximum }).unwrap();
        // One that finds nothing left to be accepted with.
        let _waiting = crate::support::http::connect(server.ingest).unwrap();
        crate::pass(Duration::from_millis(150));
        prlimit(pid, Resource::Nofile, before).unwrap();
    }
    let records = crowd.end();
    assert!(server.metric("rtcstats_accept_errors_total") >= 1.0);
    check(server, &records, "no descriptors");
}

/// The dump folder is removed: noticed before the next acknowledgement, created again, its loss counted; clients are
/// sent back to what they still have, and no second server gets in.
#[test]
fn a_removed_dump_folder_is_created_again() {
    let server = scaled().set("sessions.reconnect_grace_s", 60).start();
    let (open, away) = (Session::new("was-open"), Session::new("was-away"));
    let mut open_socket = open.connect(&server, 0);
    (1..=5).for_each(|number| open.send(&mut open_socket, number));
    let mut away_socket = away.connect(&server, 0);
    (1..=3).for_each(|number| away.send(&mut away_socket, number));
    away_socket.reset();
    server.wait_for_metric("rtcstats_sessions{state=\"waiting\"}", 1.0);
    server.wait_until("it is written", || server.dump_path(&open.id).is_file().then_some(()));

    remove_all(&server.dump_path(""));
    open.send(&mut open_socket, 6);
    // Number 6 went the way of the others, so nothing is said of it but this.
    open_socket.expect_close(1013);
    let mut back = open.connect(&server, 0);
    (1..=6).for_each(|number| open.send(&mut back, number));
    back.close(3001);
    open.expect_archived(&server, 6);
    let mut back = away.connect(&server, 0);
    (2..=4).for_each(|number| away.send(&mut back, number));
    back.close(3001);
    let dumps = away.archived(&server);
    assert_eq!(dumps.connection_info()["server"]["continuesFrom"], 1, "{dumps:?}");

    server.wait_for_metric("rtcstats_dumps_removed_total", 2.0);
    assert!(server.dump_path(".lock").is_file() && server.dump_path("quarantine").is_dir());
    assert!(server.settings().try_start().is_err(), "the new folder is locked, too");
}

/// Of the folders only that of the finished dumps is removed: it is created again before anything is given up.
#[test]
fn a_removed_folder_of_finished_dumps_loses_nothing() {
    let server = scaled().set("sessions.reconnect_grace_s", 60).start();
    let session = Session::new("stays");
    let mut socket = session.connect(&server, 0);
    (1..=3).for_each(|number| session.send(&mut socket, number));
    server.wait_until("it is written", || server.dump_path(&session.id).is_file().then_some(()));
    remove_all(&server.dump_path("finished"));
    socket.close(3001);
    session.expect_archived(&server, 3);
    assert_eq!(server.metric("rtcstats_dumps_removed_total"), 0.0);
}

/// As before, under load: what is acknowledged after the folder is back is kept.
#[test]
fn removed_folders_under_load_are_survived() {
    let server = scaled().start();
    let before = Crowd::start(&server, 73, 1_000, 4, 0);
    for part in ["", "finished", ""] {
        crate::pass(Duration::from_millis(250));
        server.wait_until("it is there", || server.dump_path(part).is_dir().then_some(()));
        remove_all(&server.dump_path(part));
    }
    let lossy = before.end();
    server.wait_until("the folder is back", || server.dump_path("finished").is_dir().then_some(()));
    let after = Crowd::start(&server, 74, 300, 4, 0).end();
    let mut sum = settle_and_sum(server, &lossy, &after);
    assert_eq!(sum.1.defects(), 0, "{}", sum.1);
    // What was in the removed folders is gone, all else is as it should be.
    assert!(sum.0.acknowledged_and_lost > 0, "nothing was removed: {}", sum.0);
    (sum.0.acknowledged_and_lost, sum.0.missing, sum.0.split) = (0, 0, 0);
    assert_eq!(sum.0.defects(), 0, "{}", sum.0);
}

fn settle_and_sum(server: TestServer, first: &[Record], second: &[Record]) -> (Figures, Figures) {
    let (settings, sum) = (server.settings(), settle(server, first));
    let archive = crate::support::Archive::at(settings.root().join("archive"));
    let mut other = Figures::default();
    second.iter().for_each(|record| other.add(&record.check(&archive)));
    (sum, other)
}

/// Out of the way first, so that nothing is created in it while it is removed.
fn remove_all(folder: &Path) {
    let gone = folder.parent().unwrap().join("gone");
    let path = folder.components().as_path().to_owned();
    std::fs::rename(path, &gone).unwrap();
    std::fs::remove_dir_all(gone).unwrap();
}

/// A session by hand.
struct Session {
    id: String,
    count: u64,
}

impl Session {
    fn new(id: &str) -> Self {
        Self { id: id.into(), count: 0 }
    }

    fn upgrade(&self, is_reconnect: bool) -> Upgrade {
        Upgrade::browser(&self.id)
            .target(&format!("/room?statsSessionId={}&isReconnect={is_reconnect}", self.id))
    }

    /// Connects and is greeted with `value`.
    fn connect(&self, server: &TestServer, value: u64) -> WsClient {
        let mut socket = WsClient::connect(server.ingest, &self.upgrade(true));
        let greeting = format!(r#"{{"type":"sn","body":{{"value":{value},"state":"initial"}}}}"#);
        assert_eq!(socket.expect_text(), greeting);
        socket
    }

    fn line(number: u64) -> String {
        format!("[\"t\",null,{{}},{},{number}]", 1_700_000_000_000 + number)
    }

    fn send(&self, socket: &mut WsClient, number: u64) {
        socket.send_text(&crate::support::script::entry_message(&self.id, &Self::line(number)));
    }

    /// Entries in one piece, so that none is written before what follows them is read.
    fn messages(&self, numbers: std::ops::RangeInclusive<u64>) -> Vec<u8> {
        let entry = |number| crate::support::script::entry_message(&self.id, &Self::line(number));
        numbers.flat_map(|number| frames::message(frames::TEXT, entry(number).as_bytes())).collect()
    }

    /// Its only dump, once archived.
    fn archived(&self, server: &TestServer) -> crate::support::archive::ArchivedDump {
        let dumps = server.wait_until("it is archived", || {
            let dumps = server.archive().dumps_of(&self.id);
            (!dumps.is_empty()).then_some(dumps)
        });
        assert_eq!(dumps.len(), 1, "{dumps:?}");
        dumps.into_iter().next().unwrap()
    }

    fn expect_archived(&self, server: &TestServer, count: u64) {
        let lines: Vec<String> = (1..=count).map(Self::line).collect();
        assert_eq!(self.archived(server).lines(), lines);
    }
}
