//! What the `prometheus` crate cannot show by itself: summaries, a value read at the scrape, true process
//! figures.
//!
//! Its API has no summary type, but its data model and text encoder have one: a [`Collector`] that fills a
//! family of type SUMMARY is printed correctly (`name{quantile="0.1"} v`, `name_sum v`, `name_count v`).

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError};
use std::time::{Duration, SystemTime};

use prometheus::core::{Collector, Desc};
use prometheus::process_collector::ProcessCollector;
use prometheus::{PullingGauge, Registry, proto};
use rustix::time::{ClockId, clock_gettime};

use crate::metrics::families::as_f64;
use crate::metrics::summary::{Summary, Window};
use crate::moment::Moment;

/// A summary that several threads observe and the scrape reads. Clones share their values.
#[derive(Debug, Clone)]
pub struct SharedSummary(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    desc: Desc,
    quantiles: &'static [f64],
    /// Held for one insertion, or while the slots are joined at a scrape (below a millisecond).
    summary: Mutex<Summary>,
}

impl SharedSummary {
    /// Creates and registers a summary over a sliding window.
    ///
    /// # Errors
    /// When the name is invalid or taken.
    pub fn windowed(
        registry: &Registry,
        (name, help): (&str, &str),
        quantiles: &'static [f64],
        window: Window,
        now: Moment,
    ) -> prometheus::Result<Self> {
        Self::register(registry, (name, help), quantiles, Summary::windowed(window, now))
    }

    /// Creates and registers a summary over the whole life of the process.
    ///
    /// # Errors
    /// When the name is invalid or taken.
    pub fn lifetime(
        registry: &Registry,
        (name, help): (&str, &str),
        quantiles: &'static [f64],
    ) -> prometheus::Result<Self> {
        Self::register(registry, (name, help), quantiles, Summary::lifetime())
    }

    fn register(
        registry: &Registry,
        (name, help): (&str, &str),
        quantiles: &'static [f64],
        summary: Summary,
    ) -> prometheus::Result<Self> {
        let desc = Desc::new(name.to_owned(), help.to_owned(), Vec::new(), HashMap::new())?;
        let shared = Self(Arc::new(Inner { desc, quantiles, summary: Mutex::new(summary) }));
        registry.register(Box::new(shared.clone()))?;
        Ok(shared)
    }

    /// Takes one value; see [`Summary::observe`].
    pub fn observe(&self, value: f64, now: Moment) {
        self.lock().observe(value, now);
    }

    /// Takes several values, see [`Summary::observe_batch`], unless a scrape has the summary in hand just
    /// now: then nothing is taken and the answer is `false`. For the loop, which must not wait.
    #[must_use]
    pub fn try_observe_batch(
        &self,
        sampled: impl Iterator<Item = f64>,
        sum: f64,
        count: u64,
        now: Moment,
    ) -> bool {
        let mut summary = match self.0.summary.try_lock() {
            Ok(summary) => summary,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        summary.observe_batch(sampled, sum, count, now);
        true
    }

    /// Moves the window; see [`Summary::advance`].
    pub fn advance(&self, now: Moment) {
        self.lock().advance(now);
    }

    /// A thread that panicked while it held the lock left a summary that is at worst short of one value.
    fn lock(&self) -> MutexGuard<'_, Summary> {
        self.0.summary.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for SharedSummary {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.desc]
    }

    /// Shows the window as it stood at the last `observe` or `advance`: a collector is not told the time.
    fn collect(&self) -> Vec<proto::MetricFamily> {
        let mut sample = proto::Summary::default();
        {
            let summary = self.lock();
            let values = summary.quantiles(self.0.quantiles);
            sample.set_quantile(self.0.quantiles.iter().zip(values).map(quantile).collect());
            sample.set_sample_sum(summary.sum());
            sample.set_sample_count(summary.count());
        }
        let mut metric = proto::Metric::default();
        metric.set_summary(sample);
        let mut family = proto::MetricFamily::default();
        family.set_name(self.0.desc.fq_name.clone());
        family.set_help(self.0.desc.help.clone());
        family.set_field_type(proto::MetricType::SUMMARY);
        family.set_metric(vec![metric]);
        vec![family]
    }
}

fn quantile((q, value): (&f64, f64)) -> proto::Quantile {
    let mut quantile = proto::Quantile::default();
    quantile.set_quantile(*q);
    quantile.set_value(value);
    quantile
}

/// A queue length that is read at the scrape.
pub struct QueueSize(Arc<QueueSource>);

/// Tells the length of the queue; called on the metrics thread.
pub type QueueLength = Box<dyn Fn() -> usize + Send + Sync>;

#[derive(Default)]
struct QueueSource {
    length: RwLock<Option<QueueLength>>,
    /// Shown until there is a source.
    published: AtomicU64,
}

impl QueueSize {
    /// Creates and registers the gauge.
    ///
    /// # Errors
    /// When the name is invalid or taken.
    pub fn register(registry: &Registry, name: &str, help: &str) -> prometheus::Result<Self> {
        let source = Arc::new(QueueSource::default());
        let read = Arc::clone(&source);
        registry.register(Box::new(PullingGauge::new(name, help, Box::new(move || read.read()))?))?;
        Ok(Self(source))
    }

    /// From now on the gauge shows what `length` says.
    pub fn read_from(&self, length: QueueLength) {
        *self.0.length.write().unwrap_or_else(PoisonError::into_inner) = Some(length);
    }

    /// What to show as long as there is no source.
    pub fn publish(&self, length: u64) {
        self.0.published.store(length, Ordering::Relaxed);
    }
}

impl QueueSource {
    fn read(&self) -> f64 {
        match &*self.length.read().unwrap_or_else(PoisonError::into_inner) {
            Some(length) => as_f64(length() as u64),
            None => as_f64(self.published.load(Ordering::Relaxed)),
        }
    }
}

impl fmt::Debug for QueueSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueSize").field("length", &self.0.read()).finish()
    }
}

/// The `process_*` families: those of the `prometheus` crate, with two of its figures made true.
///
/// It counts CPU time in whole seconds, too coarse for the rate of a server that needs a percent of a core:
/// here it comes from the process's CPU clock. And it finds no start time where only the process part of
/// `/proc` is mounted (systemd's `ProcSubset=pid`): then the time of this collector's creation is shown,
/// milliseconds after it.
#[derive(Debug)]
pub struct Process {
    figures: ProcessCollector,
    created_s: f64,
}

impl Process {
    /// Creates and registers the collector; `created` is the present wall clock.
    ///
    /// # Errors
    /// When one of the names is taken.
    pub fn register(registry: &Registry, created: SystemTime) -> prometheus::Result<()> {
        let since_epoch = created.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let figures = ProcessCollector::for_self();
        registry.register(Box::new(Self { figures, created_s: since_epoch.as_secs_f64() }))
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.figures.desc()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let mut families = self.figures.collect();
        families.iter_mut().for_each(|family| self.make_true(family));
        families
    }
}

impl Process {
    fn make_true(&self, family: &mut proto::MetricFamily) {
        let is_cpu = family.name() == "process_cpu_seconds_total";
        let is_start = family.name() == "process_start_time_seconds";
        for metric in family.mut_metric() {
            if is_cpu {
                let mut counter = proto::Counter::default();
                counter.set_value(cpu_time().as_secs_f64());
                metric.set_counter(counter);
            } else if is_start && metric.get_gauge().get_value() <= 0.0 {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(self.created_s);
                metric.set_gauge(gauge);
            }
        }
    }
}

/// User and system time of all threads so far.
fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_in_progress_makes_nobody_on_the_loop_wait() {
        let now = Moment::at(1 << 40);
        let summary = SharedSummary::lifetime(&Registry::new(), ("x", "x"), &[0.5]).unwrap();
        let scrape = summary.lock();
        assert!(!summary.try_observe_batch([1.0].into_iter(), 1.0, 1, now));
        drop(scrape);
        assert!(summary.try_observe_batch([1.0].into_iter(), 1.0, 1, now));
        assert_eq!(summary.lock().count(), 1);
    }

    fn start_time(shown: f64) -> f64 {
        let process = Process { figures: ProcessCollector::for_self(), created_s: 1_700_000_000.5 };
        let gauge = prometheus::Gauge::new("process_start_time_seconds", "x").unwrap();
        gauge.set(shown);
        let mut family = gauge.collect().remove(0);
        process.make_true(&mut family);
        family.get_metric()[0].get_gauge().get_value()
    }

    #[test]
    fn a_start_time_that_cannot_be_read_is_that_of_the_collector() {
        assert_eq!(start_time(0.0), 1_700_000_000.5);
        assert_eq!(start_time(1_699_999_999.0), 1_699_999_999.0, "a true one is left alone");
    }
}
