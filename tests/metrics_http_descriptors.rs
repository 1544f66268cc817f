//! The metrics port when the process has no descriptors left. Alone in its file: the limit is the process's.
#![allow(clippy::unwrap_used, reason = "a test helper fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "this test measures time and needs a real start")]

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rtcstats_server::metrics::Metrics;
use rtcstats_server::metrics::http::serve;
use rtcstats_server::moment::Moment;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap()
}

#[test]
fn without_descriptors_the_thread_neither_spins_nor_dies() {
    let metrics = Metrics::new(Moment::now(), SystemTime::now()).unwrap();
    let server = serve(TcpListener::bind("127.0.0.1:0").unwrap(), Arc::new(metrics)).unwrap();

    // The client's own socket is made first; then no descriptor is left for the other end of a connection.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), ..limit }).unwrap();
    let mut fillers: Vec<File> = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        fillers.push(file);
    }
    fillers.pop();
    let mut client = TcpStream::connect(server.address()).unwrap();
    assert_eq!(File::open("/dev/null").unwrap_err().raw_os_error(), Some(24), "EMFILE");
    client.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();

    // Nobody can answer; the thread has to wait for better times without burning the processor.
    let before = cpu_time();
    client.set_read_timeout(Some(Duration::from_millis(1_000))).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    let burnt = cpu_time() - before;
    println!("CPU time in a second without descriptors: {burnt:?}");
    assert!(burnt < Duration::from_millis(100), "{burnt:?}");

    drop(fillers);
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    server.stop();
}
