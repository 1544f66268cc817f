//! The command line.

pub mod extract;

use std::time::{SystemTime, UNIX_EPOCH};

/// Runs the command line of this process.
#[must_use]
pub fn main() -> std::process::ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_none_or(|name| name != "extract") {
        return std::process::ExitCode::FAILURE;
    }
    #[expect(clippy::disallowed_methods, reason = "an edge: the time is a parameter further in")]
    let now_ms =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64() * 1e3).floor();
    let limits = crate::extract::ExtractLimits::default();
    extract::run(arguments, limits, now_ms, &mut std::io::stdout().lock(), &mut std::io::stderr().lock())
}
