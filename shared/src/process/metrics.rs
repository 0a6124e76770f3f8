//! Metrics under names of our choice, in Prometheus' text form.

mod catalogue;
mod expiry;
mod fresh;
mod runtime;
mod series;

use prometheus::core::{Atomic, Collector, GenericCounter, GenericCounterVec, GenericGauge, GenericGaugeVec};
use prometheus::{Encoder as _, Histogram, HistogramVec, Registry, TextEncoder};

pub use self::catalogue::{Catalogue, Description};
pub use self::expiry::{InUse, expiry};
pub use self::fresh::Fresh;
pub use self::runtime::runtime;
pub use self::series::forget;

/// The content type of what [`render`] makes.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Limits of histograms of how long it takes until a change has arrived, in seconds: from what a stream that is open takes,
/// to what an agent takes that was away.
pub const LAG: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0];

/// Why a metric does not exist.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name is not a name.
    #[error("cannot make a metric: {0}")]
    Make(#[from] prometheus::Error),
    /// The name is taken.
    #[error("cannot register metric {name}: {source}")]
    Register {
        /// Which one.
        name: String,
        /// Why.
        source: prometheus::Error,
    },
    /// The values could not be written.
    #[error("cannot render metrics: {0}")]
    Render(#[source] prometheus::Error),
}

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// It counts values by their size.
    Histogram,
}

impl Type {
    /// Prometheus' word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A collector that knows what it collects.
pub trait Metric: Collector + Clone + 'static {
    /// What it collects.
    const TYPE: Type;
}

impl<P: Atomic + 'static> Metric for GenericCounter<P> {
    const TYPE: Type = Type::Counter;
}

impl<P: Atomic + 'static> Metric for GenericCounterVec<P> {
    const TYPE: Type = Type::Counter;
}

impl<P: Atomic + 'static> Metric for GenericGauge<P> {
    const TYPE: Type = Type::Gauge;
}

impl<P: Atomic + 'static> Metric for GenericGaugeVec<P> {
    const TYPE: Type = Type::Gauge;
}

impl Metric for Histogram {
    const TYPE: Type = Type::Histogram;
}

impl Metric for HistogramVec {
    const TYPE: Type = Type::Histogram;
}

/// Where metrics are registered: in a registry, to be read, or in a [`Catalogue`], to be described.
pub trait Register {
    /// Takes a collector of metrics of one type.
    ///
    /// # Errors
    /// [`Error::Register`] if its name is taken.
    fn take(&self, of: Type, collector: Box<dyn Collector>) -> Result<(), Error>;
}

impl Register for Registry {
    fn take(&self, _: Type, collector: Box<dyn Collector>) -> Result<(), Error> {
        add(self, collector)
    }
}

/// A registry with the process's own metrics (`process_resident_memory_bytes` and the like).
///
/// # Errors
/// [`Error::Register`].
pub fn registry() -> Result<Registry, Error> {
    let registry = Registry::new();
    #[cfg(target_os = "linux")]
    add(&registry, Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
    Ok(registry)
}

/// What is told of every process: what [`registry`] has in it, and figures of the runtime.
///
/// # Errors
/// [`Error`] if something cannot be made.
pub fn process() -> Result<Vec<Description>, Error> {
    let catalogue = Catalogue::default();
    runtime(&catalogue, None)?;
    #[cfg(target_os = "linux")]
    let collector = prometheus::process_collector::ProcessCollector::for_self();
    #[cfg(target_os = "linux")]
    let descriptions = collector.desc();
    #[cfg(not(target_os = "linux"))]
    let descriptions: Vec<&prometheus::core::Desc> = Vec::new();
    let describe = |desc: &prometheus::core::Desc| Description {
        name: desc.fq_name.clone(),
        of: if desc.fq_name.ends_with("_total") { Type::Counter } else { Type::Gauge },
        labels: desc.variable_labels.clone(),
        help: desc.help.clone(),
    };
    let mut described: Vec<_> =
        descriptions.into_iter().map(describe).chain(catalogue.into_descriptions()).collect();
    described.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(described)
}

/// Adds a collector, and returns it for use.
///
/// # Errors
/// [`Error::Register`] if its name is taken.
pub fn register<C: Metric>(registry: &impl Register, collector: C) -> Result<C, Error> {
    registry.take(C::TYPE, Box::new(collector.clone()))?;
    Ok(collector)
}

fn add(registry: &Registry, collector: Box<dyn Collector>) -> Result<(), Error> {
    let name = collector.desc().first().map(|desc| desc.fq_name.clone()).unwrap_or_default();
    registry.register(collector).map_err(|source| Error::Register { name, source })
}

/// All values of this moment as text.
///
/// # Errors
/// [`Error::Render`].
pub fn render(registry: &Registry) -> Result<String, Error> {
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text).map_err(Error::Render)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts};

    use super::*;

    #[test]
    fn names_are_written_as_they_were_given() {
        let registry = registry().unwrap();
        let events = IntCounter::new("principal_events_received", "events").unwrap();
        register(&registry, events).unwrap().inc_by(3);
        let errors = IntCounterVec::new(Opts::new("principal_errors", "errors"), &["kind"]).unwrap();
        register(&registry, errors).unwrap().with_label_values(&["x"]).inc();
        let text = render(&registry).unwrap();
        assert!(text.contains("\nprincipal_events_received 3\n"), "{text}");
        assert!(text.contains("principal_errors{kind=\"x\"} 1\n"), "{text}");
        assert!(text.contains("process_resident_memory_bytes"), "{text}");
    }

    #[test]
    fn a_name_that_is_taken_is_an_error_that_names_it() {
        let registry = Registry::new();
        let gauge = || IntGauge::new("twice", "x").unwrap();
        register(&registry, gauge()).unwrap();
        let error = register(&registry, gauge()).unwrap_err().to_string();
        assert!(error.contains("twice"), "{error}");
    }
}
