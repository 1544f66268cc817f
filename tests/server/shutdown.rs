//! Signals and start-up: nothing is lost at a stop, leftovers are found at a start, two servers never share a folder.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::ingest::archived;
use crate::support::http;
use crate::support::script::{Script, entry_message};
use crate::support::{Rng, Settings, TestServer, Upgrade, WsClient};

/// SIGTERM and SIGINT close every connection with 1001, write everything out, and end with success.
#[test]
fn a_stop_signal_loses_nothing() {
    for signal in [TestServer::terminate, TestServer::interrupt] {
        // Nothing but the stop itself can write the entries out.
        let server = Settings::new().set("dump.flush_interval_ms", 60_000).start();
        let mut rng = Rng::new(50);
        let scripts: Vec<Script> = (0..40).map(|_| Script::browser(&mut rng, 20)).collect();
        let mut clients: Vec<WsClient> = scripts
            .iter()
            .map(|script| {
                let mut client = WsClient::open(server.ingest, &Upgrade::browser(&script.id));
                let (_close, messages) = script.messages.split_last().unwrap();
                messages.iter().for_each(|message| client.send_text(message));
                client.round_trip();
                client
            })
            .collect();
        let mut in_head = http::connect(server.ingest).unwrap();
        in_head.write_all(b"GET / HTTP/1.1\r\n").unwrap();
        signal(&server);
        for client in &mut clients {
            client.expect_close(1001);
        }
        let (archive, settings) = (server.archive(), server.settings());
        let exit = server.exit();
        assert!(exit.status.success(), "{}", exit.status);
        assert_eq!(archive.count(), scripts.len());
        for script in &scripts {
            script.assert_recorded(&archive.dumps_of(&script.id)[0].body);
        }
        drop(settings);
    }
}

/// A second server on the same dump folder refuses to start, says why, and leaves the first one alone.
#[test]
fn two_servers_never_share_a_dump_folder() {
    let first = TestServer::start();
    let exit = first.settings().try_start().expect_err("the folder is taken");
    assert!(!exit.status.success());
    assert!(exit.log.iter().any(|line| line.contains("temp")), "{:?}", exit.log);
    let id = Rng::new(51).uuid();
    let mut client = WsClient::open(first.ingest, &Upgrade::browser(&id));
    client.send_text(&entry_message(&id, "[1]"));
    client.close(1000);
    archived(&first, &id, 1);
    // The lock ends with its holder.
    let second = first.restart();
    assert_eq!(http::get(second.ingest, "/healthcheck").status, 200);
}

/// Dumps that an earlier process left behind, open or finished, whole or not, are archived as they are.
#[test]
fn leftovers_are_jobs_at_start() {
    let settings = Settings::new();
    let temp = settings.root().join("temp");
    fs::create_dir_all(temp.join("finished")).unwrap();
    let first_line = r#"["connectionInfo",null,{"path":"/","origin":"","url":"/","userAgent":"","clientProtocol":"3.1_STANDARD","statsFormat":"unsupported","clientType":"RTCSTATS_CLIENT"},1700000000000]"#;
    let whole = format!("{first_line}\n[\"a\",null,1,1700000000001]\n");
    fs::write(temp.join("open"), &whole).unwrap();
    fs::write(temp.join("finished").join("finished-before"), &whole).unwrap();
    fs::write(temp.join("finished").join("no-dump-at-all"), "what is this\n").unwrap();
    fs::write(temp.join("finished").join("empty"), "").unwrap();
    // What is no dump stays where it is.
    fs::create_dir(temp.join("folder")).unwrap();
    fs::write(temp.join("not a name"), "x").unwrap();
    symlink("/etc/passwd", temp.join("link")).unwrap();

    let server = settings.start();
    server.wait_until("the leftovers are gone", || {
        let gone = |name: &str| !temp.join(name).exists() && !temp.join("finished").join(name).exists();
        (gone("open") && gone("finished-before") && gone("no-dump-at-all") && gone("empty")).then_some(())
    });
    let archive = server.archive();
    for name in ["open", "finished-before"] {
        let dump = &archive.dumps_of(name)[0];
        assert_eq!(format!("{}\n{}", dump.first_line, dump.body), whole, "{name}");
        assert_eq!(dump.day, "2023-11-14", "{name}: the day of the first line, not of today");
    }
    assert_eq!(archive.dumps_of("no-dump-at-all")[0].first_line, "what is this");
    assert!(server.metric("rtcstats_files_errored") >= 1.0);
    assert!(temp.join("folder").is_dir() && temp.join("not a name").is_file());
    assert!(fs::symlink_metadata(temp.join("link")).unwrap().is_symlink());
    assert!(Path::new("/etc/passwd").is_file());
}

/// A job whose storing fails is kept, counted and tried again; the dump is never dropped.
#[test]
fn an_archive_that_cannot_be_written_keeps_its_dumps() {
    let settings = Settings::new();
    // Something in the way of the archive, which not even root can write below.
    fs::write(settings.root().join("archive"), "in the way").unwrap();
    let id = Rng::new(52).uuid();
    let server = settings.start();
    let mut client = WsClient::open(server.ingest, &Upgrade::browser(&id));
    client.send_text(&entry_message(&id, "[1]"));
    client.close(1000);
    server.wait_for_metric("rtcstats_storage_error_count", 1.0);
    assert!(server.dump_path("finished").join(&id).is_file());
    fs::remove_file(server.root().join("archive")).unwrap();
    assert_eq!(archived(&server, &id, 1)[0].body, "[1]\n");
}

/// SIGHUP with a bad configuration reports it and goes on with the old one.
#[test]
fn a_bad_configuration_is_reported_at_hangup() {
    let settings = Settings::new();
    let folder = settings.root().join("config");
    fs::create_dir(&folder).unwrap();
    let file = folder.join("local.toml");
    fs::write(&file, "[limits]\nsessions_per_connection = 2\n").unwrap();
    let server = settings.start();
    fs::write(&file, "[limits]\nsessions_per_conection_max = 3\n").unwrap();
    server.hangup();
    let line = server.expect_log("sessions_per_conection_max");
    assert!(line.contains("local.toml"), "{line}");
    WsClient::open(server.ingest, &Upgrade::back_end("")).close(1000);

    // A good one is taken over.
    fs::write(&file, "[limits]\nmessage_bytes = 2000\n").unwrap();
    server.hangup();
    server.expect_log("config.reloaded");
    let mut client = WsClient::open(server.ingest, &Upgrade::back_end(""));
    client.send_text(&" ".repeat(3000));
    client.expect_close(1009);
}

/// A bad configuration stops the start with one line that names file and key.
#[test]
fn a_bad_configuration_stops_the_start() {
    let settings = Settings::new();
    fs::create_dir(settings.root().join("config")).unwrap();
    fs::write(settings.root().join("config/local.toml"), "[server]\nprot = 1\n").unwrap();
    let exit = settings.try_start().expect_err("a key is unknown");
    assert!(!exit.status.success());
    let lines: Vec<_> = exit.log.iter().filter(|line| line.contains("prot")).collect();
    assert_eq!(lines.len(), 1, "{:?}", exit.log);
    assert!(lines[0].contains("local.toml"), "{lines:?}");
}
