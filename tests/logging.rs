//! What a process writes to its standard error, in each shape: this test binary again, as the process that
//! logs.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panic, as tests do")]

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use log::{Level, LevelFilter, debug, error, info, warn};
use rtcstats_server::config::{LogConfig, LogFormat};
use rtcstats_server::logging::{self, value};

/// The target of the server's own lines.
const OURS: &str = "rtcstats_server::test";

/// The lines that the child logs, without what the test harness prints.
fn lines(format: &str, variable: Option<(&str, String)>) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stderr");
    let stderr = File::create(&path).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "--nocapture", "child_logs"]).env("CHILD_FORMAT", format);
    command.env_remove("JOURNAL_STREAM").env_remove("RUST_BACKTRACE");
    if let Some((name, value)) = variable {
        let stat = stderr.metadata().unwrap();
        command.env(name, value.replace("STDERR", &format!("{}:{}", stat.dev(), stat.ino())));
    }
    assert!(command.stdout(Stdio::null()).stderr(stderr).status().unwrap().success());
    let mut text = String::new();
    File::open(&path).unwrap().read_to_string(&mut text).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
#[ignore = "the process whose log the other tests read"]
fn child_logs() {
    let format =
        if std::env::var("CHILD_FORMAT").unwrap() == "json" { LogFormat::Json } else { LogFormat::Text };
    logging::init(&LogConfig { level: LevelFilter::Info, format }).unwrap();
    info!(target: OURS, "conn.open conn=17.3 agent={}", value("evil\nERROR x.y z=\"1\""));
    debug!(target: OURS, "conn.frame conn=17.3");
    logging::set_level(LevelFilter::Debug);
    debug!(target: OURS, "conn.frame conn=17.4");
    logging::set_level(LevelFilter::Error);
    warn!(target: OURS, "conn.close conn=17.4");
    logging::set_level(LevelFilter::Trace);
    error!(target: "tungstenite::protocol", "payload");
    error!(target: "mio::poll", "payload");
    info!(target: "rustls::server", "chatter");
    warn!(target: "rustls::server", "trouble ahead");
    let panicked =
        std::thread::Builder::new().name("worker-1".into()).spawn(|| panic!("it broke")).unwrap().join();
    assert!(panicked.is_err());
    assert!(logging::init(&LogConfig { level: LevelFilter::Info, format }).is_err());
}

/// Line by line: level and event, in the order in which the child logs.
const EXPECTED: [(Level, &str); 4] = [
    (Level::Info, r#"conn.open conn=17.3 agent="evil\nERROR x.y z=\"1\"""#),
    (Level::Debug, "conn.frame conn=17.4"),
    (Level::Warn, r#"library.message target=rustls::server text="trouble ahead""#),
    (Level::Error, "server.panic thread=worker-1 at=tests/logging.rs:"),
];

#[test]
fn a_file_gets_time_and_level() {
    // A stale JOURNAL_STREAM of a service that redirected its output must not count.
    for variable in [None, Some(("JOURNAL_STREAM", "8:12345".to_owned()))] {
        let lines = lines("text", variable);
        assert_eq!(lines.len(), EXPECTED.len(), "{lines:#?}");
        for (line, (level, text)) in lines.iter().zip(EXPECTED) {
            let (time, rest) = line.split_once(' ').unwrap();
            assert!(time.len() == "2026-11-23T14:03:07.125Z".len() && time.ends_with('Z'), "{line}");
            assert!(rest.starts_with(&format!("[{level:<5}] {text}")), "{line}");
        }
        assert!(lines[3].ends_with("err=\"it broke\""), "{}", lines[3]);
    }
}

#[test]
fn the_journal_gets_priorities() {
    let lines = lines("text", Some(("JOURNAL_STREAM", "STDERR".to_owned())));
    assert_eq!(lines.len(), EXPECTED.len(), "{lines:#?}");
    for (line, ((_, text), priority)) in lines.iter().zip(EXPECTED.into_iter().zip([6, 7, 4, 3])) {
        assert!(line.starts_with(&format!("<{priority}>{text}")), "{line}");
    }
}

#[test]
fn json_lines_have_the_same_keys() {
    let lines = lines("json", Some(("JOURNAL_STREAM", "STDERR".to_owned())));
    let objects: Vec<serde_json::Value> =
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects.len(), EXPECTED.len(), "{lines:#?}");
    for (object, (level, text)) in objects.iter().zip(EXPECTED) {
        assert_eq!(object["level"], level.as_str().to_lowercase());
        assert_eq!(object["event"], text.split(' ').next().unwrap());
        assert!(object["time"].as_str().unwrap().ends_with('Z'));
    }
    assert_eq!(objects[0]["conn"], "17.3");
    assert_eq!(objects[0]["agent"], "evil\nERROR x.y z=\"1\"");
    assert_eq!(objects[0].as_object().unwrap().len(), 5);
    assert_eq!(objects[3]["thread"], "worker-1");
    assert_eq!(objects[3]["err"], "it broke");
}
