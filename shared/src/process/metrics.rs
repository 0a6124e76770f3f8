//! Metrics under names of our choice, in Prometheus' text form.

use prometheus::core::Collector;
use prometheus::{Encoder as _, Registry, TextEncoder};

/// The content type of what [`render`] makes.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

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

/// Adds a collector, and returns it for use.
///
/// # Errors
/// [`Error::Register`] if its name is taken.
pub fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C, Error> {
    add(registry, Box::new(collector.clone()))?;
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
