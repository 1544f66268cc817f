//! The whole server under load, beside a raw sink in the same run.
//!
//! ```text
//! cargo bench --bench end_to_end                        every scenario, 5 pairs of runs, then the table of goals
//! cargo bench --bench end_to_end -- saturate paced      some of them
//! cargo bench --bench end_to_end -- --pairs 9 churn     more pairs
//! cargo bench --bench end_to_end -- --smoke             does it work at all? for CI; the figures mean nothing
//! ```
//!
//! Each pair starts the release binary with its default settings, then the sink (see `load::sink`), in folders of their
//! own, on the first core; the clients are on the second. What was archived is compared line by line with what was sent, and a
//! run that lost anything fails. CPU time is what the kernel counted for the process, by `/proc/<pid>/task/*/schedstat`.
//! On loopback the receiving half of TCP mostly runs in the sender's time: ratios carry over to other machines,
//! microseconds do not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a bench that went wrong has no figure to give"
)]
#![allow(clippy::disallowed_methods, reason = "a bench keeps time and waits for processes")]
#![allow(clippy::cast_possible_truncation, reason = "counts of a bench are small")]
#![allow(clippy::print_stdout, reason = "the figures are the result")]

mod load;

use std::io;
use std::path::PathBuf;

use load::goals::{self, Results};
use load::mix::Mix;
use load::process::{self, Kind};
use load::report;
use load::rng::Rng;
use load::scenario::{Figures, Scenario};
use rustix::process::{Resource, getrlimit, setrlimit};

/// Seed of the message mix: every run sends the same bytes but for the session ids.
const MIX_SEED: u64 = 1;

/// What the command line asks for.
struct Options {
    smoke: bool,
    pairs: u64,
    names: Vec<String>,
    sink: Option<PathBuf>,
    by_name: bool,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = options()?;
    if let Some(folder) = options.sink {
        return Ok(load::sink::run(&folder, options.by_name)?);
    }
    raise_descriptor_limit()?;
    process::part_cores()?;
    let mix = Mix::generate(&mut Rng::new(MIX_SEED));
    let (scenarios, pairs) =
        if options.smoke { (Scenario::smoke(), 1) } else { (Scenario::all(), options.pairs) };
    let known: Vec<&str> = scenarios.iter().map(|scenario| scenario.name).collect();
    if let Some(unknown) = options.names.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(format!("there is no scenario {unknown}, only {}", known.join(", ")).into());
    }
    let mut results = Results::new();
    for scenario in &scenarios {
        if options.names.is_empty() || options.names.iter().any(|name| name == scenario.name) {
            results.insert(scenario.name, measure(scenario, &mix, pairs)?);
        }
    }
    goals::print(&results);
    Ok(())
}

fn measure(scenario: &Scenario, mix: &Mix, pairs: u64) -> io::Result<Vec<(Figures, Option<Figures>)>> {
    let mut results = Vec::new();
    for pair in 0..pairs {
        let server = scenario.run(Kind::Server, mix, pair)?;
        let sink = if scenario.has_sink { Some(scenario.run(Kind::Sink, mix, pair)?) } else { None };
        results.push((server, sink));
    }
    let runs = if scenario.has_sink { "pairs" } else { "runs" };
    report::print(&format!("{}; median of {pairs} {runs}", scenario.describe(mix)), &results);
    Ok(results)
}

fn options() -> Result<Options, lexopt::Error> {
    use lexopt::prelude::{Long, Value, ValueExt};
    let mut options = Options { smoke: false, pairs: 5, names: Vec::new(), sink: None, by_name: false };
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("smoke") => options.smoke = true,
            Long("pairs") => options.pairs = arguments.value()?.parse()?,
            // Cargo says what it runs this for.
            Long("bench") => {}
            // How this bench calls itself as the sink.
            Long("by-name") => options.by_name = true,
            Value(name) if name == "sink" => options.sink = Some(arguments.value()?.into()),
            Value(name) => options.names.push(name.string()?),
            other => return Err(other.unexpected()),
        }
    }
    Ok(options)
}

/// Takes all the descriptors that this process may have; the receivers inherit the limit.
fn raise_descriptor_limit() -> io::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}
