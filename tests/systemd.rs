//! Sockets, watchdog and limits as the service manager hands them to a new process.
//!
//! Each test plays the manager: it holds the listening socket, sets the environment and starts a process,
//! which is this test binary again with one of the ignored tests below.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panic, as tests do")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rtcstats_server::descriptors;
use rtcstats_server::systemd::{Supervisor, passed_sockets};

/// Long enough for any machine; only a failing test waits for it.
const DEADLINE: Duration = Duration::from_secs(30);

/// Turns standard input and output into descriptors 3 and 4, and names the new process as their receiver.
const PASS_TWO: &str = r#"exec 3<&0 4<&1 1>&2 </dev/null; LISTEN_PID=$$ exec "$@""#;

/// This test binary, running one of the tests that are a process of their own. Its output is on standard
/// error.
fn child(script: &str, test: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "--nocapture", test]).stderr(Stdio::piped());
    for name in
        ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"]
    {
        command.env_remove(name);
    }
    command
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn copy(listener: &TcpListener) -> Stdio {
    Stdio::from(OwnedFd::from(listener.try_clone().unwrap()))
}

fn output_of(mut command: Command) -> String {
    let Output { stderr, .. } = command.output().unwrap();
    String::from_utf8_lossy(&stderr).into_owned()
}

/// The sockets that were held all the time serve the connections of the process that they were passed to.
#[test]
fn passed_sockets_are_taken_by_name() {
    let (ingest, metrics) = (listener(), listener());
    // Connected before the process exists: a restart refuses nobody.
    let mut waiting = TcpStream::connect(ingest.local_addr().unwrap()).unwrap();
    // In the other order than the names in the program.
    let mut process = child(PASS_TWO, "child_answers_on_both_sockets")
        .env("LISTEN_FDS", "2")
        .env("LISTEN_FDNAMES", "metrics:ingest")
        .stdin(copy(&metrics))
        .stdout(copy(&ingest))
        .spawn()
        .unwrap();
    waiting.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "ingest");
    answer.clear();
    let mut scrape = TcpStream::connect(metrics.local_addr().unwrap()).unwrap();
    scrape.set_read_timeout(Some(DEADLINE)).unwrap();
    scrape.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "metrics");
    assert!(process.wait().unwrap().success());
}

#[test]
#[ignore = "the process that passed_sockets_are_taken_by_name starts"]
fn child_answers_on_both_sockets() {
    let sockets = passed_sockets().unwrap();
    for (listener, text) in [(sockets.ingest, "ingest"), (sockets.metrics, "metrics")] {
        let (mut stream, _) = listener.unwrap().accept().unwrap();
        stream.write_all(text.as_bytes()).unwrap();
    }
    assert_eq!(passed_sockets().unwrap_err().to_string(), "passed sockets: taken already");
}

/// A unit that passes something else stops the start with the reason.
#[test]
fn wrong_sockets_are_reported() {
    let run = |names: &str, first: Stdio, second: Stdio| {
        let mut command = child(PASS_TWO, "child_shows_its_sockets");
        command.env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", names).stdin(first).stdout(second);
        output_of(command)
    };
    let (one, other) = (listener(), listener());
    let cases = [
        (
            run("ingest:http", copy(&one), copy(&other)),
            "passed socket 4 is named \"http\", not \"ingest\" or \"metrics\"",
        ),
        (run("ingest:ingest", copy(&one), copy(&other)), "passed socket 4 is a second one named \"ingest\""),
        (run("ingest", copy(&one), copy(&other)), "passed sockets: 2 with 1 names in LISTEN_FDNAMES"),
        (run("", copy(&one), copy(&other)), "passed sockets: 2 with 0 names in LISTEN_FDNAMES"),
        (
            run("ingest:metrics", Stdio::null(), copy(&other)),
            "passed socket 3 named \"ingest\" is no listening TCP socket: it is no socket",
        ),
    ];
    for (output, expected) in cases {
        assert!(output.contains(expected), "{expected}\nis missing in\n{output}");
    }
    // More were announced than are open.
    let mut command = child(PASS_TWO, "child_shows_its_sockets");
    command.env("LISTEN_FDS", "100").stdin(copy(&one)).stdout(copy(&other));
    assert!(output_of(command).contains("LISTEN_FDS do not tell which descriptors are ours"));
}

/// Sockets that were meant for the process before us, which left its environment, are not ours.
#[test]
fn sockets_of_another_process_are_left_alone() {
    let (one, other) = (listener(), listener());
    let mut command = child(r#"exec 3<&0 4<&1 1>&2; LISTEN_PID=1 exec "$@""#, "child_shows_its_sockets");
    command
        .env("LISTEN_FDS", "2")
        .env("LISTEN_FDNAMES", "ingest:metrics")
        .stdin(copy(&one))
        .stdout(copy(&other));
    let output = output_of(command);
    assert!(output.contains("sockets: PassedSockets { ingest: None, metrics: None }"), "{output}");
}

#[test]
#[ignore = "the process that the tests of wrong sockets start"]
fn child_shows_its_sockets() {
    match passed_sockets() {
        Ok(sockets) => eprintln!("sockets: {sockets:?}"),
        Err(error) => eprintln!("error: {error}"),
    }
}

/// A process that is watched says so, on the socket of its manager.
#[test]
fn the_manager_hears_of_readiness_and_life() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut process = child(r#"WATCHDOG_PID=$$ exec "$@""#, "child_notifies")
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "30000000")
        .spawn()
        .unwrap();
    let mut received = Vec::new();
    let mut buffer = [0; 256];
    while received.len() < 3 {
        let length = manager.recv(&mut buffer).unwrap();
        received.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    assert_eq!(
        received,
        [
            "READY=1\nSTATUS=interval Some(15s)\n",
            "WATCHDOG=1\n",
            "STOPPING=1\nEXTEND_TIMEOUT_USEC=15000000\nSTATUS=stopping\n"
        ]
    );
    assert!(process.wait().unwrap().success());
}

/// Another process is watched, or none: no messages that nobody wants.
#[test]
fn an_unwatched_process_is_not_fed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    for (script, time) in [(r#"WATCHDOG_PID=1 exec "$@""#, "30000000"), (r#"WATCHDOG_PID=$$ exec "$@""#, "0")]
    {
        let manager = UnixDatagram::bind(&path).unwrap();
        let output = output_of({
            let mut command = child(script, "child_notifies");
            command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", time).stdout(Stdio::null());
            command
        });
        manager.set_nonblocking(true).unwrap();
        let mut buffer = [0; 256];
        let mut received = Vec::new();
        while let Ok(length) = manager.recv(&mut buffer) {
            received.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        assert_eq!(received.len(), 2, "ready and stopping: {received:?}\n{output}");
        assert_eq!(received[0], "READY=1\nSTATUS=interval None\n");
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
#[ignore = "the process that the tests of the manager's messages start"]
#[expect(clippy::disallowed_methods, reason = "the supervisor is told the time, and this is its loop")]
fn child_notifies() {
    let mut supervisor = Supervisor::from_env().unwrap();
    supervisor.set_status(&format!("interval {:?}", supervisor.watchdog_interval()));
    supervisor.ready();
    supervisor.feed_watchdog(rtcstats_server::moment::Moment::now());
    supervisor.feed_watchdog(rtcstats_server::moment::Moment::now());
    supervisor.stopping(Duration::from_secs(5));
}

/// The soft limit becomes the hard one, and no limit is ever lowered.
#[test]
fn the_descriptor_limit_is_raised() {
    for (script, expected) in [
        (r#"ulimit -Sn 64; ulimit -Hn 128; exec "$@""#, "before: 64, soft: 128, hard: 128"),
        (r#"ulimit -Sn 128; ulimit -Hn 128; exec "$@""#, "before: 128, soft: 128, hard: 128"),
    ] {
        let mut command = child(script, "child_raises_its_limit");
        command.stdout(Stdio::null());
        let output = output_of(command);
        assert!(output.contains(expected), "{output}");
    }
}

#[test]
#[ignore = "the process that the_descriptor_limit_is_raised starts"]
fn child_raises_its_limit() {
    let limit = descriptors::raise_limit().unwrap();
    assert_eq!(descriptors::limit().soft, limit.soft);
    eprintln!("{limit:?}");
}

/// The start-up code of Rust ignores SIGPIPE, on which every write to a socket here relies.
#[test]
fn sigpipe_is_ignored() {
    const SIGPIPE: u32 = 13;
    let status = std::fs::File::open("/proc/self/status").unwrap();
    let ignored = BufReader::new(status).lines().map_while(Result::ok).find_map(|line| {
        line.strip_prefix("SigIgn:").map(|mask| u64::from_str_radix(mask.trim(), 16).unwrap())
    });
    assert_ne!(ignored.unwrap() & (1 << (SIGPIPE - 1)), 0);
}
