//! The command line: which command, with which options, and what its end means to the shell.
//!
//! Owns the help text and the exit codes. Results go to standard output, everything else to standard error.
//! No rule of the business lives here. Rules: our contract, section 1.

pub mod extract;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use lexopt::prelude::*;

use crate::config::{self, Inputs, Loaded, ReloadSource};
use crate::extract::ExtractLimits;
use crate::logging::{self, chain, value};

const NAME: &str = env!("CARGO_PKG_NAME");
const VERSION: &str = env!("CARGO_PKG_VERSION");

const HELP: &str = "\
Collects the WebRTC statistics of Jitsi clients and back ends: one dump per session,
features, metrics, archive.

Usage:
  rtcstats-server [serve] [OPTIONS]          run the server
  rtcstats-server check-config [OPTIONS]     print the effective configuration as TOML, each
                                             value with where it came from
  rtcstats-server extract [--strict] [--pretty] [--client-id ID] FILE...
                                             print one JSON document with the features of each
                                             dump, plain or .gz, - for standard input
  rtcstats-server --version | --help

Options of serve and check-config:
  --config-dir DIR   folder of the configuration files; without it ./config if it is there,
                     else /etc/rtcstats-server
  --env NAME         also read NAME.toml of that folder; without it the variable RTCSTATS_ENV

Options of extract:
  --strict           only what the reference server would print: no problems, nothing missing
  --pretty           indented
  --client-id ID     id of the session; without it the name of the file without .gz.
                     Only with a single FILE

Configuration, later wins: built-in defaults; default.toml, NAME.toml, local.toml of the
configuration folder; environment variables RTCSTATS_<SECTION>_<KEY>, for instance
RTCSTATS_SERVER_PORT=3001. check-config lists all keys.

Signals: SIGTERM and SIGINT stop in order, the same one again stops at once; SIGHUP reads
the configuration files again.

Exit codes:
  0  done
  1  the configuration is wrong, or extract failed for a file
  2  the command line is wrong
  3  the server cannot start: address in use, folder locked or not writable, ...
  4  the server stopped because of an internal error
";

/// What the end of a command means to the shell. The numbers are in the help text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done,
    /// A wrong configuration, or a file that `extract` could not read.
    Failed,
    /// A wrong command line.
    Usage,
    /// The server could not start.
    CannotStart,
    /// The server, or a command, met what should not be.
    Internal,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::CannotStart => 3,
            Exit::Internal => 4,
        })
    }
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let exit = match parse(lexopt::Parser::from_env()) {
        Ok(Command::Serve(options)) => serve(options),
        Ok(Command::CheckConfig(options)) => check_config(options),
        Ok(Command::Extract(arguments)) => return extract(arguments),
        Ok(Command::Version) => print(&format!("{NAME} {VERSION}\n")),
        Ok(Command::Help) => print(HELP),
        Err(error) => {
            complain(format_args!("{error}; see {NAME} --help"));
            Exit::Usage
        }
    };
    logging::flush();
    exit.into()
}

/// A command line that was understood.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    Serve(Options),
    CheckConfig(Options),
    /// The arguments behind the word, for [`extract`] to read.
    Extract(Vec<OsString>),
    Version,
    Help,
}

/// Options of `serve` and `check-config`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    config_dir: Option<PathBuf>,
    env: Option<String>,
}

fn parse(mut parser: lexopt::Parser) -> Result<Command, lexopt::Error> {
    let mut options = Options::default();
    let mut command: Option<fn(Options) -> Command> = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Help),
            Short('V') | Long("version") => return Ok(Command::Version),
            Long("config-dir") => options.config_dir = Some(parser.value()?.into()),
            Long("env") => options.env = Some(parser.value()?.string()?),
            Value(word) if command.is_none() => match word.to_str() {
                Some("serve") => command = Some(Command::Serve),
                Some("check-config") => command = Some(Command::CheckConfig),
                Some("extract") if options == Options::default() => {
                    return Ok(Command::Extract(parser.raw_args()?.collect()));
                }
                Some("extract") => {
                    return Err("extract reads no configuration: --config-dir and --env".into());
                }
                _ => return Err(format!("unknown command {word:?}").into()),
            },
            Short(_) | Long(_) | Value(_) => return Err(argument.unexpected()),
        }
    }
    Ok(command.unwrap_or(Command::Serve)(options))
}

fn serve(options: Options) -> Exit {
    let inputs = inputs(options);
    let Loaded { config, settings, warnings, files } = match config::load(&inputs) {
        Ok(loaded) => loaded,
        Err(error) => {
            complain(chain(&error));
            return Exit::Failed;
        }
    };
    if let Err(error) = logging::init(&config.log) {
        complain(chain(&error));
        return Exit::Internal;
    }
    for file in files {
        log::info!("config.read path={}", value(file.display()));
    }
    for warning in warnings {
        log::warn!("config.warning text={}", value(warning));
    }
    match crate::serve::run(config, ReloadSource::new(inputs, settings)) {
        Ok(()) => Exit::Done,
        Err(error) => {
            log::error!("server.failed err={}", value(chain(&error)));
            Exit::CannotStart
        }
    }
}

fn check_config(options: Options) -> Exit {
    match config::load(&inputs(options)) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                complain(format_args!("warning: {warning}"));
            }
            print(&loaded.settings.render())
        }
        Err(error) => {
            complain(chain(&error));
            Exit::Failed
        }
    }
}

/// The arguments behind the word are those of another parser.
fn extract(arguments: Vec<OsString>) -> ExitCode {
    #[expect(clippy::disallowed_methods, reason = "an edge: the time is a parameter further in")]
    let now = SystemTime::now();
    let now_ms = now.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64() * 1e3).floor();
    let limits = ExtractLimits::default();
    extract::run(arguments, limits, now_ms, &mut io::stdout().lock(), &mut io::stderr().lock())
}

/// What the process brings along for the configuration.
fn inputs(options: Options) -> Inputs {
    Inputs {
        config_dir: options.config_dir,
        env: options.env,
        variables: std::env::vars_os().collect(),
        usual_dirs: vec![PathBuf::from("config"), PathBuf::from("/etc/rtcstats-server")],
        // A removed working directory has no path; then folders are compared as they were written.
        working_dir: std::env::current_dir().unwrap_or_default(),
        cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
    }
}

/// Writes a result to standard output. A reader that has seen enough (`| head`) is no failure.
fn print(text: &str) -> Exit {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Exit::Done,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => {
            complain(format_args!("standard output: {error}"));
            Exit::Failed
        }
    }
}

/// Writes one line to standard error; where that is closed nobody wants to know.
fn complain(line: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{NAME}: {line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &str) -> Result<Command, String> {
        let arguments = line.split_whitespace().map(OsString::from);
        parse(lexopt::Parser::from_args(arguments)).map_err(|error| error.to_string())
    }

    fn options(config_dir: Option<&str>, env: Option<&str>) -> Options {
        Options { config_dir: config_dir.map(PathBuf::from), env: env.map(str::to_owned) }
    }

    #[test]
    fn commands_are_understood() {
        let cases = [
            ("", Command::Serve(Options::default())),
            ("serve", Command::Serve(Options::default())),
            ("--env blue", Command::Serve(options(None, Some("blue")))),
            ("--env=blue serve --config-dir /c", Command::Serve(options(Some("/c"), Some("blue")))),
            ("--env a --env b", Command::Serve(options(None, Some("b")))),
            ("check-config --config-dir=/c", Command::CheckConfig(options(Some("/c"), None))),
            ("extract", Command::Extract(vec![])),
            (
                "extract --pretty -- -x --env",
                Command::Extract(["--pretty", "--", "-x", "--env"].map(Into::into).into()),
            ),
            ("--version", Command::Version),
            ("-V", Command::Version),
            ("serve --help", Command::Help),
            ("-h", Command::Help),
        ];
        for (line, expected) in cases {
            assert_eq!(command(line), Ok(expected), "{line:?}");
        }
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let cases = [
            ("srve", "unknown command \"srve\""),
            ("serve now", "unexpected argument \"now\""),
            ("--port 1", "invalid option '--port'"),
            ("-x", "invalid option '-x'"),
            ("--env", "missing argument for option '--env'"),
            ("--config-dir", "missing argument for option '--config-dir'"),
            ("--env a extract f", "extract reads no configuration: --config-dir and --env"),
        ];
        for (line, expected) in cases {
            let result = command(line);
            assert_eq!(result, Err(expected.to_owned()), "{line:?}");
        }
    }
}
