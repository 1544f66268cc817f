//! The binary's command line: output, exit codes, errors of one line.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A command in an empty folder, without the variables of whoever runs the tests.
fn server(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rtcstats-server"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RTCSTATS_") {
            command.env_remove(name);
        }
    }
    command.current_dir(folder).args(arguments).stdin(Stdio::null());
    command
}

#[track_caller]
fn check(output: &Output, code: i32, stdout: &str, stderr: &str) {
    assert_eq!(String::from_utf8_lossy(&output.stderr), stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), stdout);
    assert_eq!(output.status.code(), Some(code));
}

#[test]
fn version_and_help_are_results() {
    let folder = tempfile::tempdir().unwrap();
    let output = server(folder.path(), &["--version"]).output().unwrap();
    check(&output, 0, concat!("rtcstats-server ", env!("CARGO_PKG_VERSION"), "\n"), "");
    let output = server(folder.path(), &["--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for part in [
        "check-config",
        "extract",
        "--config-dir DIR",
        "--env NAME",
        "--client-id ID",
        "Exit codes:",
        "  4  ",
    ] {
        assert!(help.contains(part), "{part} is missing in\n{help}");
    }
    assert!(help.lines().all(|line| line.len() <= 100), "{help}");
}

#[test]
fn a_wrong_command_line_is_one_line_and_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, message) in [
        (&["frobnicate"][..], "unknown command \"frobnicate\""),
        (&["--port", "1"], "invalid option '--port'"),
        (&["serve", "--env"], "missing argument for option '--env'"),
        (&["check-config", "extra"], "unexpected argument \"extra\""),
    ] {
        let output = server(folder.path(), arguments).output().unwrap();
        check(&output, 2, "", &format!("rtcstats-server: {message}; see rtcstats-server --help\n"));
    }
}

/// What is printed is the effective configuration, and loading it gives the same one.
#[test]
fn check_config_prints_what_can_be_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config");
    fs::create_dir(&config).unwrap();
    fs::write(config.join("local.toml"), "[server]\nport = 4000\n").unwrap();
    let output = server(folder.path(), &["check-config"])
        .env("RTCSTATS_LOG_LEVEL", "debug")
        .env("RTCSTATS_SERVER_PRT", "1")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "rtcstats-server: warning: RTCSTATS_SERVER_PRT sets no key, did you mean RTCSTATS_SERVER_PORT?\n"
    );
    let origin = |start: &str| {
        let line = text.lines().find(|line| line.starts_with(start));
        line.and_then(|line| line.split_once(" # ")).unwrap_or_else(|| panic!("no {start} in\n{text}")).1
    };
    assert_eq!(origin("port = 4000 "), "config/local.toml:2");
    assert_eq!(origin("level = \"debug\" "), "RTCSTATS_LOG_LEVEL");
    assert_eq!(origin("metrics_port = 8095 "), "built-in default");

    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("default.toml"), &text).unwrap();
    let again = server(folder.path(), &["--config-dir", "other", "check-config"]).output().unwrap();
    let again = String::from_utf8(again.stdout).unwrap();
    let values = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split(" # ").next().unwrap_or_default().trim_end().to_owned()).collect()
    };
    assert_eq!(values(&again), values(&text));
}

#[test]
fn a_wrong_configuration_is_one_line_and_exit_code_1() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["check-config", "serve"] {
        let output =
            server(folder.path(), &[command]).env("RTCSTATS_SERVER_METRICS_PORT", "70000").output().unwrap();
        check(
            &output,
            1,
            "",
            "rtcstats-server: RTCSTATS_SERVER_METRICS_PORT: server.metrics_port = \"70000\" is not an integer from 0 \
             to 65535\n",
        );
    }
    let output = server(folder.path(), &["--config-dir", "nowhere"]).output().unwrap();
    check(&output, 1, "", "rtcstats-server: --config-dir nowhere: not a folder\n");
    fs::create_dir_all(folder.path().join("config/local.toml")).unwrap();
    let output = server(folder.path(), &["check-config"]).output().unwrap();
    check(
        &output,
        1,
        "",
        "rtcstats-server: config/local.toml: cannot be read: Is a directory (os error 21)\n",
    );
}

/// A reader that stops early, as `| head` does, is neither a panic nor a failure.
#[test]
fn a_closed_standard_output_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["--help", "check-config"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output =
            server(folder.path(), &[command]).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        check(&output, 0, "", "");
    }
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = server(folder.path(), &["--help"]).stdout(full).stderr(Stdio::piped()).output().unwrap();
    check(&output, 1, "", "rtcstats-server: standard output: No space left on device (os error 28)\n");
}

/// A closed standard error does not keep a command from its exit code.
#[test]
fn a_closed_standard_error_is_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status =
        server(folder.path(), &["frobnicate"]).stdout(Stdio::null()).stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(2));
}
