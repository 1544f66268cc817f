//! `dump.durability = "power"`: the order of system calls, failing syncs, and restarts.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::disk::Tmpfs;
use crate::kills::{scaled, settle};
use crate::support::client::Incoming;
use crate::support::script::entry_message;
use crate::support::{Settings, TestServer, Upgrade, WsClient};

/// strace, attached to a server until dropped or ended.
struct Tracer(Child);

impl Tracer {
    /// `None`, loudly, where there is none or it may not.
    fn attach(server: &TestServer, arguments: &[&str], output: &Path) -> Option<Self> {
        let child = Command::new("strace")
            .args(["-f", "-p", &server.pid().to_string(), "-o"])
            .arg(output)
            .args(arguments)
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

/// Waits until strace has its process; else what it said. It says more with each thread that the process starts, and would
/// end if nobody read that.
pub(crate) fn wait_until_attached(strace: &mut Child) -> Result<(), String> {
    let mut lines = BufReader::new(strace.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut said = String::new();
    for line in &mut lines {
        if line.contains("attached") {
            std::thread::spawn(move || lines.for_each(drop));
            return Ok(());
        }
        said += &line;
    }
    Err(said)
}

fn upgrade(id: &str) -> Upgrade {
    Upgrade::browser(id).target(&format!("/room?statsSessionId={id}&isReconnect=true"))
}

fn send(client: &mut WsClient, id: &str, number: u64) {
    let line = format!("[\"t\",null,{{}},{},{number}]", 1_700_000_000_000 + number);
    client.send_text(&entry_message(id, &line));
}

/// Acknowledgements up to `last`.
fn expect_acknowledged(client: &mut WsClient, last: u64) {
    while client.expect_text() != format!(r#"{{"type":"sn","body":{{"value":{last}}}}}"#) {}
}

/// No acknowledgement leaves before a sync that began behind the write of its entry has ended; and the name of a new
/// dump is synced with it.
#[test]
fn acknowledgements_come_behind_the_sync_that_covers_them() {
    let server = scaled().set("dump.durability", "power").start();
    let trace = server.root().join("trace");
    let calls = "trace=writev,write,sendto,fdatasync,fsync,syncfs";
    let Some(tracer) = Tracer::attach(&server, &["-s", "100000", "-e", calls], &trace) else { return };
    let mut client = WsClient::open(server.ingest, &upgrade("order"));
    for hundred in 1..=8 {
        (1..=100).for_each(|n| send(&mut client, "order", (hundred - 1) * 100 + n));
        expect_acknowledged(&mut client, hundred * 100);
    }
    tracer.end();
    let text = std::fs::read_to_string(trace).unwrap();
    let order = Order::of(&text);
    assert_eq!((order.written, order.acknowledged), (800, 8), "{order:?} in {text:.2000}");
    assert!(order.folder_syncs >= 1 && order.syncs >= 8, "{order:?}");
    eprintln!("{order:?}");
}

/// What a trace of system calls tells.
#[derive(Debug, Default)]
struct Order {
    /// Highest number whose write has ended, and of those whose write has not.
    written: u64,
    being_written: u64,
    /// Highest number written when the sync under way began, and when the last one that ended did.
    syncing: u64,
    durable: u64,
    syncs: u64,
    folder_syncs: u64,
    acknowledged: u64,
}

impl Order {
    fn of(trace: &str) -> Self {
        let mut order = Self::default();
        for line in trace.lines() {
            let has_begun = |call: &str| line.contains(&format!(" {call}("));
            let has_ended = |call: &str| {
                line.contains(&format!("<... {call} resumed>"))
                    || (has_begun(call) && !line.contains("<unfinished"))
            };
            if has_begun("writev") {
                order.being_written = numbers(line).max().unwrap_or(order.being_written);
            }
            if has_ended("writev") {
                order.written = order.written.max(order.being_written);
            }
            for call in ["fdatasync", "syncfs"] {
                if has_begun(call) {
                    order.syncing = order.written;
                }
                if has_ended(call) {
                    assert!(line.contains("= 0"), "{line}");
                    order.durable = order.syncing;
                    order.syncs += 1;
                }
            }
            order.folder_syncs += u64::from(has_ended("fsync"));
            if let Some((_, value)) = line.split_once(r#"{\"type\":\"sn\",\"body\":{\"value\":"#) {
                let value: u64 = value.split(['}', ',']).next().unwrap().parse().unwrap();
                assert!(value <= order.durable, "{value} is acknowledged behind {order:?}");
                assert!(
                    value == 0 || order.folder_syncs > 0,
                    "the name of the dump was not synced: {order:?}"
                );
                order.acknowledged += u64::from(value > 0);
            }
        }
        order
    }
}

/// The numbers at the ends of the entries in a traced write.
fn numbers(line: &str) -> impl Iterator<Item = u64> {
    let numbers = line.split(r"]\n").filter_map(move |entry| entry.rsplit_once(',')?.1.parse().ok());
    // The first line of a dump ends in a clock.
    numbers.filter(|number| *number < 100_000_000_000)
}

/// After a failed sync nothing of it is ever acknowledged: the client is sent away, begins a new part where the last
/// good sync ended, and what the old one holds beyond is not believed.
#[test]
fn a_failed_sync_is_never_a_success_later() {
    let server = scaled().set("dump.durability", "power").start();
    let mut client = WsClient::open(server.ingest, &upgrade("failed"));
    (1..=100).for_each(|number| send(&mut client, "failed", number));
    expect_acknowledged(&mut client, 100);
    let arguments = ["-e", "trace=fdatasync,syncfs", "-e", "inject=fdatasync,syncfs:error=EIO"];
    let Some(tracer) = Tracer::attach(&server, &arguments, Path::new("/dev/null")) else { return };
    (101..=300).for_each(|number| send(&mut client, "failed", number));
    match client.receive() {
        Incoming::Close { code, .. } => assert_eq!(code, Some(1013)),
        other => panic!("{other:?} instead of a close frame"),
    }
    server.wait_for_metric("rtcstats_dump_sync_errors_total", 1.0);
    tracer.end();
    // The number in the memory of ended sessions is doubted, too, until everything has been synced.
    let mut client = WsClient::open(server.ingest, &upgrade("failed"));
    (1..=300).for_each(|number| send(&mut client, "failed", number));
    expect_acknowledged(&mut client, 300);
    client.close(3001);
    let dumps = server.wait_until("both parts are archived", || {
        Some(server.archive().dumps_of("failed")).filter(|dumps| dumps.len() == 2)
    });
    assert_eq!(dumps[1].connection_info()["server"]["continuesFrom"], 100);
    assert_eq!(dumps[1].lines().len(), 200, "101 to 300");
    assert!(dumps[0].lines().len() >= 100);
}

/// A sync fails while nothing more can be written either: what was written before it is no better for that.
#[test]
fn a_failed_sync_is_one_also_when_the_next_lines_cannot_be_written() {
    let settings = scaled().set("dump.durability", "power").set("sessions.reconnect_grace_s", 60);
    let server = settings.set("dump.flush_interval_ms", 10_000).set("dump.flush_bytes", 4_096).start();
    let mut client = WsClient::open(server.ingest, &upgrade("twice"));
    (1..=200).for_each(|number| send(&mut client, "twice", number));
    expect_acknowledged(&mut client, 100);
    // The first lines from here on are written, and their sync fails while the next ones are being gathered.
    let faults = [
        ["-e", "inject=fdatasync,syncfs:error=EIO:delay_enter=1000000"],
        ["-e", "inject=writev:error=EIO:when=2+"],
    ];
    let arguments = [&["-e", "trace=fdatasync,syncfs,writev"][..], &faults.concat()].concat();
    let Some(tracer) = Tracer::attach(&server, &arguments, Path::new("/dev/null")) else { return };
    (201..=310).for_each(|number| send(&mut client, "twice", number));
    loop {
        match client.receive() {
            Incoming::Close { code, .. } => break assert_eq!(code, Some(1013)),
            Incoming::Text(_) => {}
            other => panic!("{other:?} instead of a close frame"),
        }
    }
    tracer.end();
    let mut client = WsClient::open(server.ingest, &upgrade("twice"));
    (101..=400).for_each(|number| send(&mut client, "twice", number));
    client.close(3001);
    let dumps = server.wait_until("both parts are archived", || {
        Some(server.archive().dumps_of("twice")).filter(|dumps| dumps.len() == 2)
    });
    let from = dumps[1].connection_info()["server"]["continuesFrom"].as_u64().unwrap();
    assert!((100..=200).contains(&from), "{from} was the last number that a good sync covered");
    assert_eq!(dumps[1].lines().len() as u64, 400 - from);
}

/// The kernel's version is known also where a sandbox hides everything in `/proc` but processes, as the unit does.
#[test]
fn a_sandbox_does_not_make_syncs_slow() {
    let settings = scaled().set("dump.durability", "power").without_system_files();
    match settings.try_start() {
        Ok(server) => {
            let log = server.stop().log;
            assert!(!log.iter().any(|line| line.contains("durability.one_by_one")), "{log:#?}");
        }
        Err(exit) if exit.log.iter().any(|line| line.contains("unshare:") || line.contains("mount:")) => {
            eprintln!("SKIPPED: nothing can be mounted here: {:?}", exit.log);
        }
        Err(exit) => panic!("{exit:?}"),
    }
}

/// A file system that nothing is known of, unmounted when dropped: syncing it as a whole is not to be relied on.
struct Overlay(PathBuf);

impl Overlay {
    /// At the place of the dump folder; `None`, loudly, where that is not allowed.
    fn mount(settings: &Settings) -> Option<Self> {
        let [path, lower, upper, work] =
            ["temp", "lower", "upper", "work"].map(|name| settings.root().join(name));
        [&path, &lower, &upper, &work].into_iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
        let options =
            format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
        let mounted =
            Command::new("mount").args(["-t", "overlay", "-o", &options, "overlay"]).arg(&path).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(path)),
            other => {
                eprintln!("SKIPPED: a file system of its own cannot be mounted here: {other:?}");
                None
            }
        }
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Many dumps are synced by one call where that call is known to tell the truth, elsewhere each by itself.
#[test]
fn many_dumps_are_synced_as_a_whole_only_where_that_can_be_trusted() {
    const SESSIONS: usize = 80;
    let settings = scaled().set("dump.durability", "power").set("dump.flush_interval_ms", 100);
    let Some(_overlay) = Overlay::mount(&settings) else { return };
    let server = settings.start();
    server.expect_log("durability.one_by_one");
    // Dumps that nothing happens to, and that are not taken for those of an earlier server: none of them is looked at.
    server.expect_log("recovery.complete");
    (0..300).for_each(|n| std::fs::write(server.dump_path(&format!("other-{n}")), "other").unwrap());
    let Some(trace) = sync_many(&server, SESSIONS) else { return };
    assert!(!trace.contains("syncfs("), "{trace:.2000}");
    let dumps = trace.matches("fdatasync(").count();
    assert!(dumps >= SESSIONS && !trace.contains("other-"), "{dumps} {trace:.2000}");

    let settings = scaled().set("dump.durability", "power").set("dump.flush_interval_ms", 100);
    let Some(_tmpfs) = Tmpfs::mount(&settings, "32m") else { return };
    let server = settings.start();
    let Some(trace) = sync_many(&server, SESSIONS) else { return };
    assert!(trace.contains("syncfs("), "{trace:.2000}");
    assert!(trace.matches("fdatasync(").count() < SESSIONS, "{trace:.2000}");
}

/// So many sessions get a hundred entries in the same turn. What is synced until they are acknowledged.
fn sync_many(server: &TestServer, sessions: usize) -> Option<String> {
    let trace = server.root().join("trace");
    // With the paths behind descriptors.
    let tracer = Tracer::attach(server, &["-y", "-e", "trace=fdatasync,fsync,syncfs"], &trace)?;
    let ids: Vec<String> = (0..sessions).map(|n| format!("many-{n}")).collect();
    let mut clients: Vec<_> = ids.iter().map(|id| WsClient::open(server.ingest, &upgrade(id))).collect();
    server.pause();
    for (client, id) in clients.iter_mut().zip(&ids) {
        (1..=100).for_each(|number| send(client, id, number));
    }
    server.go_on();
    clients.iter_mut().for_each(|client| expect_acknowledged(client, 100));
    tracer.end();
    Some(std::fs::read_to_string(trace).unwrap())
}

/// A server that is killed does not know what of its dumps was synced: it greets with 0 until it has made sure.
#[test]
fn a_killed_server_greets_with_nothing_it_cannot_promise() {
    let server = scaled().set("dump.durability", "power").set("sessions.reconnect_grace_s", 60).start();
    let mut client = WsClient::open(server.ingest, &upgrade("killed"));
    (1..=150).for_each(|number| send(&mut client, "killed", number));
    expect_acknowledged(&mut client, 100);
    let server = server.kill9().start();
    let mut client = WsClient::connect(server.ingest, &upgrade("killed"));
    let greeting = client.expect_text();
    let greetings =
        [0, 150, 100].map(|n| format!(r#"{{"type":"sn","body":{{"value":{n},"state":"initial"}}}}"#));
    assert!(greetings.contains(&greeting), "{greeting}");
    (101..=300).for_each(|number| send(&mut client, "killed", number));
    expect_acknowledged(&mut client, 300);
    client.close(3001);
    assert_eq!(settle(server, &[]).defects(), 0);
}
