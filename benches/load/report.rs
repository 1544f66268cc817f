//! Two columns of figures and what one is of the other.

use super::scenario::Figures;
use super::yardstick::Yardstick;

/// Prints the table of one scenario. A ratio is the median of the ratios of the pairs, which were run in turn.
pub(crate) fn print(title: &str, pairs: &[(Figures, Option<Figures>)]) {
    println!("\n{title}");
    println!("  {:<52} {:>26} {:>26} {:>7}", "", "server", "raw sink", "ratio");
    let Some((first, _)) = pairs.first() else { return };
    for (row, figure) in first.rows.iter().enumerate() {
        let ours: Vec<f64> = pairs.iter().filter_map(|(server, _)| server.value(figure.what)).collect();
        let sinks: Vec<f64> =
            pairs.iter().filter_map(|(_, sink)| sink.as_ref()?.value(figure.what)).collect();
        let ratios: Vec<f64> = ours.iter().zip(&sinks).map(|(ours, sink)| ours / sink).collect();
        // A ratio of memory to none is no figure.
        let ratio = if figure.unit == "us" && !ratios.is_empty() {
            format!("{:.2}", median(&ratios))
        } else {
            "-".into()
        };
        println!(
            "  {:<52} {:>26} {:>26} {:>7}",
            first.rows[row].what,
            range(&ours, figure.unit),
            range(&sinks, figure.unit),
            ratio
        );
    }
    let waiting = pairs
        .iter()
        .flat_map(|(server, sink)| [server.waiting, sink.as_ref().map_or(0.0, |sink| sink.waiting)])
        .fold(0.0, f64::max);
    println!("  (no core for at most {:.0} % of its busy time; {})", waiting * 100.0, machine(pairs));
}

/// What the core was worth before each run.
pub(crate) fn machine<'a>(pairs: impl IntoIterator<Item = &'a (Figures, Option<Figures>)>) -> String {
    let both = |(server, sink): &'a (Figures, Option<Figures>)| {
        [Some(server.yardstick), sink.as_ref().map(|sink| sink.yardstick)]
    };
    let all: Vec<Yardstick> = pairs.into_iter().flat_map(both).flatten().collect();
    let [ghz, read_ns] = [|one: &Yardstick| one.ghz, |one: &Yardstick| one.read_ns]
        .map(|value| all.iter().map(value).collect::<Vec<f64>>());
    format!("the core at {}, {} for a read in 4 MiB", range(&ghz, "GHz"), range(&read_ns, "ns"))
}

/// Median with lowest and highest.
fn range(values: &[f64], unit: &str) -> String {
    if values.is_empty() {
        return "-".into();
    }
    let places = match unit {
        "GHz" => 2,
        "ns" => 1,
        "us" if median(values) < 100.0 => 2,
        _ => 0,
    };
    let (low, high) =
        values.iter().fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(*value), high.max(*value)));
    format!("{:.places$} {unit} ({low:.places$} .. {high:.places$})", median(values))
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
}
