//! What metrics cost: an observation, a turn's publication, a scrape.
//!
//! `cargo bench --bench summary`; figures are in `docs/metrics.md`.
#![allow(missing_docs, reason = "the macros of criterion declare public functions")]
#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use rtcstats_server::moment::Moment;
use std::hint::black_box;
use std::time::{Duration, SystemTime};

use criterion::{Criterion, criterion_group, criterion_main};
use rtcstats_server::client::ClientType;
use rtcstats_server::metrics::summary::{Summary, Window};
use rtcstats_server::metrics::{FeatureMetrics, JobReport, Metrics, Tally};

const WINDOW: Window = Window { max_age: Duration::from_secs(600), age_buckets: 5 };
const QUANTILES: &[f64] = &[0.1, 0.25, 0.5, 0.75, 0.9];

/// Sizes from 300 B to 1 MB, evenly over the logarithmic scale, from a fixed generator.
fn sizes() -> impl Iterator<Item = f64> {
    let mut state = 1_u64;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        #[expect(clippy::cast_precision_loss, reason = "53 bits are left")]
        let uniform = (state >> 11) as f64 / (1_u64 << 53) as f64;
        (300.0 * 3_333.0_f64.powf(uniform)).round()
    })
}

/// A summary that has seen this many values in each of its five periods.
fn summary(per_period: usize, start: Moment) -> Summary {
    let mut summary = Summary::windowed(WINDOW, start);
    let mut sizes = sizes();
    for period in 0..5 {
        let now = start + Duration::from_secs(period * 120 + 60);
        sizes.by_ref().take(per_period).for_each(|size| summary.observe(size, now));
    }
    summary
}

fn observe(c: &mut Criterion) {
    let start = Moment::at(1 << 40);
    let now = start + Duration::from_secs(590);
    for (name, per_period) in [("observe/100 held", 100), ("observe/50000 held", 50_000)] {
        let filled = summary(per_period, start);
        let values: Vec<f64> = sizes().skip(1_000_000).take(100).collect();
        c.bench_function(&format!("{name} (100 values)"), |b| {
            b.iter_batched_ref(
                || filled.clone(),
                |summary| values.iter().for_each(|value| summary.observe(black_box(*value), now)),
                criterion::BatchSize::LargeInput,
            );
        });
        c.bench_function(&format!("quantiles/{per_period} held per period"), |b| {
            b.iter(|| filled.quantiles(black_box(QUANTILES)));
        });
    }
}

fn publish(c: &mut Criterion) {
    let start = Moment::at(1 << 40);
    let metrics = Metrics::new(start, SystemTime::UNIX_EPOCH).unwrap();
    let mut tally = Tally::default();
    c.bench_function("publish/idle turn", |b| b.iter(|| metrics.publish(black_box(&mut tally), start)));
    let values: Vec<usize> = sizes().take(100_000).map(|size| format!("{size}").parse().unwrap()).collect();
    let mut values = values.iter().cycle();
    c.bench_function("publish/100 requests", |b| {
        b.iter(|| {
            for size in values.by_ref().take(100) {
                tally.request_received(*size);
                tally.received_bytes += *size as u64;
                tally.entries_appended += 1;
            }
            metrics.publish(black_box(&mut tally), start);
        });
    });
    c.bench_function("observe_append", |b| {
        b.iter(|| metrics.observe_append(black_box(Duration::from_micros(9))))
    });
}

fn render(c: &mut Criterion) {
    let start = Moment::at(1 << 40);
    let metrics = Metrics::new(start, SystemTime::UNIX_EPOCH).unwrap();
    c.bench_function("render/empty", |b| b.iter(|| metrics.render(start).unwrap()));
    let mut sizes = sizes().map(|size| format!("{size}").parse::<u64>().unwrap());
    let mut size = || sizes.next().unwrap();
    for second in 0..600 {
        for _ in 0..50 {
            let features = FeatureMetrics {
                stats_request_bytes: size(),
                sdp_request_bytes: size(),
                ds_request_bytes: size(),
                sentiment_request_bytes: size(),
                other_request_bytes: size(),
                session_duration_ms: 3_600.0,
                total_processed_bytes: size(),
                total_processed_count: size(),
            };
            let report = JobReport {
                client_type: ClientType::Rtcstats,
                dump_bytes: size(),
                processing: Duration::from_micros(size()),
                errored: false,
                features: Some(features),
            };
            metrics.job_done(&report, start + Duration::from_secs(second));
        }
    }
    let now = start + Duration::from_secs(599);
    c.bench_function("render/after 50 dumps a second", |b| b.iter(|| metrics.render(now).unwrap()));
}

criterion_group!(benches, observe, publish, render);
criterion_main!(benches);
