//! One test per row of `docs/limits.md`, "In the workers": what a dump over the limit loses, that its document says so with
//! the number of the limit, that the rest is derived and the whole is archived, and that the next dump is none the worse.

use std::fs;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::ingest::archived;
use crate::support::archive::ArchivedDump;
use crate::support::script::entry_message;
use crate::support::{Rng, Settings, TestServer, Upgrade, WsClient};

/// What a server writes first for the browser that sends the sessions here.
const FIRST_LINE: &str = r#"["connectionInfo",null,{"userAgent":"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36","clientProtocol":"3.1_STANDARD"},1700000000000]"#;

/// Sends these lines as one session and gives what was archived.
fn session(server: &TestServer, seed: u64, lines: &[String]) -> ArchivedDump {
    let id = Rng::new(seed).uuid();
    let mut client = WsClient::open(server.ingest, &Upgrade::browser(&id));
    for line in lines {
        client.send_text(&entry_message(&id, line));
    }
    client.close(1000);
    archived(server, &id, 1).remove(0)
}

/// Has a server with this limit process these lines, and compares what the document says of them; line 1 is the
/// connectionInfo. Gives the document's features.
fn check(key: &str, limit: usize, lines: &[String], problems: &[(usize, &str)]) -> Value {
    let server = Settings::new().set(key, limit).start();
    let dump = session(&server, 81, lines);
    let first: Vec<_> =
        problems.iter().map(|(line, error)| json!({ "line": line, "error": error })).collect();
    assert_eq!(dump.document["problems"], json!({ "total": problems.len(), "first": first }));
    assert_eq!(dump.lines(), lines, "the dump is archived whole");
    server.wait_for_metric("rtcstats_files_errored", 1.0);
    let next = session(&server, 82, &[stats(1, 1)]);
    assert_eq!(next.document.get("problems"), None);
    assert_eq!(next.document["features"]["metrics"]["statsRequestCount"], 1);
    server.wait_for_metric("rtcstats_files_processed", 1.0);
    assert_eq!(server.metric("rtcstats_files_errored"), 1.0);
    dump.document["features"].clone()
}

fn at(second: usize) -> u64 {
    1_700_000_000_000 + second as u64 * 1000
}

fn state(connection: usize, second: usize) -> String {
    format!("[\"onconnectionstatechange\",\"PC_{connection}\",\"connected\",{}]", at(second))
}

/// A statistics entry with so many tracks, one report each.
fn stats(tracks: usize, second: usize) -> String {
    let report = |ssrc: usize| {
        format!(
            "\"i{ssrc}\":{{\"type\":\"inbound-rtp\",\"kind\":\"audio\",\"ssrc\":{ssrc},\"packetsReceived\":9}}"
        )
    };
    let reports: Vec<_> = (1..=tracks).map(report).collect();
    format!("[\"getstats\",\"PC_0\",{{{}}},{}]", reports.join(","), at(second))
}

/// An entry that nests so deep, its own array included.
fn nested(depth: usize, second: usize) -> String {
    format!("[\"deep\",null,{}{},{}]", "[".repeat(depth - 1), "]".repeat(depth - 1), at(second))
}

fn ssrcs(features: &Value) -> Vec<u64> {
    let tracks = features["aggregates"]["PC_0"]["tracks"]["receiverTracks"].as_array().expect("tracks");
    tracks.iter().map(|track| track["ssrc"].as_u64().expect("a number")).collect()
}

#[test]
fn nesting() {
    let lines = [nested(16, 0), nested(17, 1), state(0, 2), nested(400, 3), nested(2, 4)];
    let error = "not JSON: nesting depth is above 16";
    let features = check("limits.nesting", 16, &lines, &[(3, error), (5, error)]);
    assert_eq!(features["metrics"]["sessionDurationMs"], 4000);
    assert!(features["aggregates"]["PC_0"].is_object());
}

#[test]
fn peer_connections() {
    let lines = [state(0, 0), state(1, 1), state(2, 2), state(1, 3), state(3, 4), stats(2, 5)];
    let error = "more than 2 peer connections";
    let features = check("limits.peer_connections", 2, &lines, &[(4, error), (6, error)]);
    let names: Vec<_> = features["aggregates"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["PC_0", "PC_1"]);
    assert_eq!(ssrcs(&features), [1, 2]);
}

#[test]
fn tracks() {
    let lines = [stats(2, 0), stats(4, 1), state(0, 2)];
    let error = "more than 2 tracks of a peer connection";
    let features = check("limits.tracks", 2, &lines, &[(3, error)]);
    assert_eq!(ssrcs(&features), [1, 2]);
    assert_eq!(features["metrics"]["sessionDurationMs"], 2000);
}

/// The entry is left out as a whole; what later ones say as a difference refers to the one before.
#[test]
fn reports() {
    let lines = [stats(3, 0), stats(5, 1), stats(4, 2)];
    let error = "more than 4 reports of a stats entry";
    let features = check("limits.reports", 4, &lines, &[(3, error)]);
    assert_eq!(features["metrics"]["statsRequestCount"], 2);
    assert_eq!(ssrcs(&features), [1, 2, 3, 4]);
}

/// What is taken can be read, so a line over the limit is one of an earlier server, with other limits or from elsewhere.
#[test]
fn line_bytes() {
    let settings = Settings::new().set("limits.line_bytes", 4096).set("limits.message_bytes", 4096);
    let finished = settings.root().join("temp/finished");
    fs::create_dir_all(&finished).unwrap();
    let filled = |bytes: usize, second: usize| {
        let empty = format!("[\"e\",null,\"\",{}]", at(second));
        empty.replace("\"\"", &format!("\"{}\"", "x".repeat(bytes - empty.len())))
    };
    let lines =
        [FIRST_LINE.to_owned(), stats(1, 0), filled(4096, 1), filled(4097, 2), state(0, 3), filled(9000, 4)];
    let dump = lines.each_ref().map(|line| format!("{line}\n")).concat();
    let id = Rng::new(83).uuid();
    fs::write(finished.join(&id), &dump).unwrap();
    let server = settings.start();
    let found = archived(&server, &id, 1).remove(0);
    let error = |bytes: usize| format!("line of {bytes} bytes is above 4096");
    let first = json!([{ "line": 4, "error": error(4097) }, { "line": 6, "error": error(9000) }]);
    assert_eq!(found.document["problems"], json!({ "total": 2, "first": first }));
    assert_eq!(found.lines(), lines[1..]);
    assert_eq!(found.document["features"]["metrics"]["sessionDurationMs"], 3000);
    assert_eq!(ssrcs(&found.document["features"]), [1]);
    server.wait_for_metric("rtcstats_files_errored", 1.0);
    assert_eq!(session(&server, 84, &[stats(1, 1)]).document.get("problems"), None);
}

/// The command that reads single files has the limits of the defaults, but for the length of a line, and no memory that a
/// dump could exhaust.
#[test]
fn the_command_tells_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dump");
    let binary = env!("CARGO_BIN_EXE_rtcstats-server");
    let extract = |arguments: &[&str]| {
        let mut command = Command::new(binary);
        command.current_dir(folder.path()).arg("extract").args(arguments).arg("dump").stdin(Stdio::null());
        command.output().unwrap()
    };
    let connections = |count: usize| (0..count).map(|number| state(number, number)).collect::<Vec<_>>();
    let long_names = |count: usize| {
        let name = |number: usize| format!("[\"x\",\"{number}{}\",1,{}]", "n".repeat(1 << 20), at(number));
        (0..count).map(|number| name(number).replacen('x', "onconnectionstatechange", 1)).collect::<Vec<_>>()
    };
    for (lines, error) in [
        (vec![nested(128, 0)], None),
        (vec![nested(129, 0)], Some((2, "not JSON: nesting depth is above 128"))),
        (connections(1000), None),
        (connections(1001), Some((1002, "more than 1000 peer connections"))),
        (vec![stats(10_000, 0)], None),
        (vec![stats(10_001, 0)], Some((2, "more than 10000 tracks of a peer connection"))),
        (vec![stats(20_001, 0)], Some((2, "more than 20000 reports of a stats entry"))),
        (long_names(7), None),
        (long_names(8), Some((9, " bytes of state are above 16777216"))),
    ] {
        let mut dump = format!("{FIRST_LINE}\n");
        lines.iter().for_each(|line| dump.extend([line, "\n"]));
        fs::write(&path, dump).unwrap();
        let output = extract(&[]);
        assert!(output.status.success(), "{error:?}: {}", String::from_utf8_lossy(&output.stderr));
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        let told = document["problems"]["first"][0]["error"].as_str().unwrap_or_default().to_owned();
        let expected =
            error.map(|(line, _)| json!({ "total": 1, "first": [{ "line": line, "error": told }] }));
        assert_eq!(document.get("problems"), expected.as_ref());
        assert!(told.ends_with(error.map_or("", |(_, error)| error)), "{told}");
        // In strict mode it is the end of the document, and told in the same words.
        let output = extract(&["--strict"]);
        assert_eq!(output.status.success(), error.is_none());
        if let Some((line, _)) = error {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.contains(&format!("dump:{line}: {told}")), "{said}");
        }
    }
    let file = fs::File::create(&path).unwrap();
    // Behind the first line a hole, which is read as zeros.
    let end = FIRST_LINE.len() as u64 + 1 + (64 << 20) + 1;
    file.write_all_at(format!("{FIRST_LINE}\n").as_bytes(), 0).unwrap();
    file.write_all_at(format!("\n{}\n", stats(1, 0)).as_bytes(), end).unwrap();
    let document: Value = serde_json::from_slice(&extract(&[]).stdout).unwrap();
    let problem = json!({ "line": 2, "error": "line of 67108865 bytes is above 67108864" });
    assert_eq!(document["problems"], json!({ "total": 1, "first": [problem] }));
    assert_eq!(ssrcs(&document["features"]), [1]);
}

/// Every key of the table of the workers has its test here.
#[test]
fn every_row_is_tested() {
    let table = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/limits.md")).unwrap();
    let table = table.split("## In the workers").nth(1).unwrap().split("\n## ").next().unwrap();
    let keys = table.lines().filter_map(|line| line.split("`limits.").nth(1)?.split('`').next());
    let tested = include_str!("worker_limits.rs");
    let keys: Vec<_> =
        keys.inspect(|key| assert!(tested.contains(&format!("\nfn {key}()")), "{key}")).collect();
    assert_eq!(keys.len(), 5, "{keys:?}");
}
