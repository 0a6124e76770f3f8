//! Counters, gauges and histograms under names of our choice, in Prometheus' text form.

use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, TextEncoder,
};

/// The content type of [`Registry::render`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Why a metric does not exist.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name is taken or not a name.
    #[error("cannot register metric {name}: {source}")]
    Register {
        /// Which one.
        name: String,
        /// Why.
        source: prometheus::Error,
    },
    /// The values could not be written.
    #[error("cannot render metrics: {0}")]
    Render(prometheus::Error),
}

/// The metrics of one process, or of one of several in one process. Clones share them.
#[derive(Clone, Debug)]
pub struct Registry {
    inner: prometheus::Registry,
}

impl Registry {
    /// With the process's own metrics (`process_resident_memory_bytes` and the like).
    pub fn new() -> Result<Self, Error> {
        let registry = Self::empty();
        #[cfg(target_os = "linux")]
        registry.register("process", prometheus::process_collector::ProcessCollector::for_self())?;
        Ok(registry)
    }

    /// Without any metrics: for the second and further sides that run in one process.
    pub fn empty() -> Self {
        Self { inner: prometheus::Registry::new() }
    }

    /// Adds a collector that was made elsewhere.
    pub fn register<C: Collector + 'static>(&self, name: &str, collector: C) -> Result<(), Error> {
        self.inner
            .register(Box::new(collector))
            .map_err(|source| Error::Register { name: name.into(), source })
    }

    fn add<C: Collector + Clone + 'static>(
        &self,
        name: &str,
        made: Result<C, prometheus::Error>,
    ) -> Result<C, Error> {
        let collector = made.map_err(|source| Error::Register { name: name.into(), source })?;
        self.register(name, collector.clone())?;
        Ok(collector)
    }

    /// A counter.
    pub fn counter(&self, name: &str, help: &str) -> Result<IntCounter, Error> {
        self.add(name, IntCounter::new(name, help))
    }

    /// Counters told apart by labels.
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, Error> {
        self.add(name, IntCounterVec::new(Opts::new(name, help), labels))
    }

    /// A gauge of whole numbers.
    pub fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, Error> {
        self.add(name, IntGauge::new(name, help))
    }

    /// Gauges of whole numbers told apart by labels.
    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, Error> {
        self.add(name, IntGaugeVec::new(Opts::new(name, help), labels))
    }

    /// A gauge of fractions.
    pub fn float_gauge(&self, name: &str, help: &str) -> Result<Gauge, Error> {
        self.add(name, Gauge::new(name, help))
    }

    /// Gauges of fractions told apart by labels.
    pub fn float_gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, Error> {
        self.add(name, GaugeVec::new(Opts::new(name, help), labels))
    }

    /// A histogram with upper bounds `buckets`.
    pub fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, Error> {
        self.add(name, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
    }

    /// Histograms told apart by labels.
    pub fn histograms(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
        labels: &[&str],
    ) -> Result<HistogramVec, Error> {
        self.add(name, HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels))
    }

    /// All values of this moment as text.
    pub fn render(&self) -> Result<String, Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.inner.gather(), &mut text).map_err(Error::Render)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_they_were_given() {
        let registry = Registry::new().unwrap();
        registry.counter("principal_events_received", "events").unwrap().inc_by(3);
        registry.counters("principal_errors", "errors", &["kind"]).unwrap().with_label_values(&["x"]).inc();
        let text = registry.render().unwrap();
        assert!(text.contains("\nprincipal_events_received 3\n"), "{text}");
        assert!(text.contains("principal_errors{kind=\"x\"} 1\n"), "{text}");
        assert!(text.contains("process_resident_memory_bytes"), "{text}");
    }

    #[test]
    fn a_name_that_is_taken_is_an_error_that_names_it() {
        let registry = Registry::empty();
        registry.gauge("twice", "x").unwrap();
        let error = registry.gauge("twice", "x").unwrap_err().to_string();
        assert!(error.contains("twice"), "{error}");
    }
}
