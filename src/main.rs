//! Arguments -> configuration -> logging -> reactor -> exit code. No rule of the business lives here.

fn main() -> std::process::ExitCode {
    rtcstats_server::cli::main()
}
