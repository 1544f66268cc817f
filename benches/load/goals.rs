//! The table of goals: what was measured, beside what it is measured against.

use std::collections::HashMap;

use super::report::{machine, median};
use super::scenario::{
    Figures, MEMORY, MEMORY_LEFT, PER_MESSAGE, PER_OPENING, PROCESSED, RECEIVED, SESSION_ARCHIVED, TURN,
};

/// What jitsi/rtcstats-server needs for a message in a saturated run, processing included, in microseconds; measured
/// on a machine of the same kind (2 virtual cores). The other figures of it stand in `docs/performance.md`.
const REFERENCE_PROCESSED_US: f64 = 97.0;

/// All runs of each scenario: ours, and the sink's where it has one.
pub(crate) type Results = HashMap<&'static str, Vec<(Figures, Option<Figures>)>>;

/// Prints the table, as far as its scenarios were run.
pub(crate) fn print(results: &Results) {
    let goals: [(&str, Option<f64>, &str, &str); 15] = [
        ("1  saturated: CPU per message / raw sink", ratio(results, "saturate", RECEIVED), "2.0", "2.5"),
        (
            "2a processed, no archive: / reference's 97 us",
            reference(results, "saturate-unarchived"),
            "0.100",
            "0.125",
        ),
        ("2b processed and archived: / reference's 97 us", reference(results, "saturate"), "0.20", "0.25"),
        ("3a 2,000 x 1/s: CPU per message / raw sink", ratio(results, "paced", PER_MESSAGE), "0.5", "0.9"),
        ("3b the same, flushed every 5 s", ratio(results, "paced-flush-5s", PER_MESSAGE), "0.4", "0.7"),
        ("4  B of memory per idle connection and session", ours(results, "idle", MEMORY), "300", "512"),
        ("5  MiB over the start after 19,500 connections", mib_left(results), "10", "10"),
        ("6a opening at 1,000/s, tmpfs / raw sink", ratio(results, "open", PER_OPENING), "1.1", "1.3"),
        ("6b us per session of 10 messages, tmpfs", ours(results, "churn", SESSION_ARCHIVED), "200", "300"),
        ("6c the same, disk", ours(results, "churn-disk", SESSION_ARCHIVED), "-", "-"),
        ("7a 5,000/s: 19,500 connections / 500", many_to_few(results, ours), "1.1", "1.3"),
        ("7a for the sink, by name where files lack", many_to_few(results, sinks), "-", "-"),
        ("7b ms, 99.9 % of turns, 19,500 connections", ours(results, "many-calm", TURN), "5", "10"),
        ("7c the same, 500 connections", ours(results, "few-busy", TURN), "5", "10"),
        ("8  instructions per message, as recorded", recorded_instructions(), "falling", "+ 5 %"),
    ];
    println!("\n  {:<50} {:>10} {:>7} {:>7}", "goal", "measured", "aim", "bar");
    for (what, value, aim, bar) in goals {
        let value = value.map_or("not run".to_owned(), |value| {
            if value < 10.0 { format!("{value:.3}") } else { format!("{value:.0}") }
        });
        println!("  {what:<50} {value:>10} {aim:>7} {bar:>7}");
    }
    println!(
        "  Microseconds depend on the machine. Measured before each run: {}.",
        machine(results.values().flatten())
    );
}

fn ours(results: &Results, scenario: &str, what: &str) -> Option<f64> {
    median_of(results, scenario, |(ours, _)| ours.value(what))
}

fn sinks(results: &Results, scenario: &str, what: &str) -> Option<f64> {
    median_of(results, scenario, |(_, sink)| sink.as_ref()?.value(what))
}

/// Median of what `value` says of the pairs that have it.
fn median_of(
    results: &Results,
    scenario: &str,
    value: impl Fn(&(Figures, Option<Figures>)) -> Option<f64>,
) -> Option<f64> {
    let values: Vec<f64> = results.get(scenario)?.iter().filter_map(value).collect();
    (!values.is_empty()).then(|| median(&values))
}

/// The figure that `.ci/instructions` holds each change against.
fn recorded_instructions() -> Option<f64> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/instructions.txt")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("instructions per message")?.trim().parse().ok())
}

/// Median of the ratios of the pairs.
fn ratio(results: &Results, scenario: &str, what: &str) -> Option<f64> {
    median_of(results, scenario, |(ours, sink)| Some(ours.value(what)? / sink.as_ref()?.value(what)?))
}

fn reference(results: &Results, scenario: &str) -> Option<f64> {
    Some(ours(results, scenario, PROCESSED)? / REFERENCE_PROCESSED_US)
}

fn mib_left(results: &Results) -> Option<f64> {
    Some(ours(results, "many-calm", MEMORY_LEFT)? / 1024.0)
}

/// `one`: [`ours`] or [`sinks`].
fn many_to_few(results: &Results, one: fn(&Results, &str, &str) -> Option<f64>) -> Option<f64> {
    Some(one(results, "many-calm", PER_MESSAGE)? / one(results, "few-busy", PER_MESSAGE)?)
}
