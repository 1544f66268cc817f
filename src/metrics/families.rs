//! Makes families and registers them; no name of a metric is in here.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::metrics::tally::Label;

pub(super) fn counter(r: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounter> {
    let counter = IntCounter::new(name, help)?;
    r.register(Box::new(counter.clone()))?;
    Ok(counter)
}

/// One counter per value of the label, all of them present from the start.
pub(super) fn counters_by<L: Label>(
    r: &Registry,
    name: &str,
    help: &str,
    key: &str,
) -> prometheus::Result<Vec<IntCounter>> {
    let family = IntCounterVec::new(Opts::new(name, help), &[key])?;
    r.register(Box::new(family.clone()))?;
    Ok(L::ALL.iter().map(|label| family.with_label_values(&[label.label()])).collect())
}

pub(super) fn gauge(r: &Registry, name: &str, help: &str) -> prometheus::Result<IntGauge> {
    let gauge = IntGauge::new(name, help)?;
    r.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

pub(super) fn histogram(
    r: &Registry,
    name: &str,
    help: &str,
    buckets_s: &[f64],
) -> prometheus::Result<Histogram> {
    let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets_s.to_vec()))?;
    r.register(Box::new(histogram.clone()))?;
    Ok(histogram)
}

/// Moves a count into its counter.
pub(super) fn take(counter: &IntCounter, count: &mut u64) {
    if *count > 0 {
        counter.inc_by(std::mem::take(count));
    }
}

#[expect(clippy::cast_precision_loss, reason = "the text format knows floats only; exact up to 2^53")]
pub(super) fn as_f64(value: u64) -> f64 {
    value as f64
}

pub(super) fn as_i64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
