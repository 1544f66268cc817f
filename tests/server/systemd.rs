//! What systemd sees: the notify socket, the watchdog, and sockets that are handed over.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ingest::archived;
use crate::support::script::entry_message;
use crate::support::{DEADLINE, Rng, Settings, Upgrade, WsClient, http};

/// The supervisor's end of a notify socket.
struct Supervisor(UnixDatagram);

impl Supervisor {
    fn new(settings: &Settings) -> (Self, std::path::PathBuf) {
        let path = settings.root().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        (Self(socket), path)
    }

    /// The next message.
    fn next(&self) -> String {
        let mut buffer = [0; 4096];
        let count = self.0.recv(&mut buffer).expect("the service reports");
        String::from_utf8(buffer[..count].to_vec()).unwrap()
    }

    /// The next message with this assignment; others are passed over.
    fn expect(&self, assignment: &str) -> String {
        loop {
            let message = self.next();
            if message.lines().any(|line| line == assignment) {
                return message;
            }
        }
    }
}

/// The service reports ready with its addresses, feeds the watchdog in time, and reports its stop.
#[test]
fn the_supervisor_is_told() {
    let settings = Settings::new();
    let (supervisor, path) = Supervisor::new(&settings);
    let watchdog = Duration::from_millis(400);
    let server =
        settings.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", watchdog.as_micros().to_string()).start();
    let ready = supervisor.expect("READY=1");
    let status = ready.lines().find(|line| line.starts_with("STATUS=")).expect("a status");
    assert!(status.contains(&format!("ingest={}", server.ingest)), "{status}");

    let mut fed_at = Instant::now();
    for _ in 0..5 {
        supervisor.expect("WATCHDOG=1");
        // systemd would kill at the whole interval; half of it is what it asks for. The rest is for a busy machine.
        assert!(fed_at.elapsed() < watchdog, "fed only after {:?}", fed_at.elapsed());
        fed_at = Instant::now();
    }

    server.terminate();
    supervisor.expect("STOPPING=1");
    assert!(server.exit().status.success());
}

/// A loop that stands still does not feed the watchdog.
#[test]
fn the_watchdog_is_fed_by_the_loop_itself() {
    let settings = Settings::new();
    let (supervisor, path) = Supervisor::new(&settings);
    let server = settings.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000").start();
    supervisor.expect("WATCHDOG=1");
    server.pause();
    supervisor.0.set_nonblocking(true).unwrap();
    while supervisor.0.recv(&mut [0; 256]).is_ok() {}
    supervisor.0.set_nonblocking(false).unwrap();
    supervisor.0.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    assert!(supervisor.0.recv(&mut [0; 256]).is_err(), "somebody else feeds the watchdog");
    server.go_on();
    supervisor.0.set_read_timeout(Some(DEADLINE)).unwrap();
    supervisor.expect("WATCHDOG=1");
}

/// Passed sockets win over addresses and ports, and outlive the server: a client that connects between two servers is
/// served by the second.
#[test]
fn passed_sockets_survive_a_restart() {
    let socket = || Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
    let (ingest, metrics) = (socket(), socket());
    let mut server =
        Settings::new().set("server.port", 1).sockets(Arc::clone(&ingest), Arc::clone(&metrics)).start();
    assert_eq!(server.ingest, ingest.local_addr().unwrap());
    assert_eq!(server.metrics, metrics.local_addr().unwrap());
    let mut rng = Rng::new(60);
    for _ in 0..3 {
        let settings = server.settings();
        assert!(server.stop().status.success());
        let id = rng.uuid();
        let upgrade = Upgrade::browser(&id);
        let mut stream = http::connect(ingest.local_addr().unwrap()).expect("the socket still listens");
        stream.write_all(upgrade.head().as_bytes()).unwrap();
        server = settings.start();
        let mut client = WsClient::upgraded(stream).unwrap().expect("the upgrade is accepted");
        client.expect_text();
        client.send_text(&entry_message(&id, "[1]"));
        client.close(1000);
        archived(&server, &id, 1);
        assert_eq!(server.scrape().status, 200);
    }
}
