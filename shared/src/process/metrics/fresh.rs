//! Gauges that are made anew whenever they are read, so that they tell of what is there and of nothing else.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::GaugeVec;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use super::{Error, Register, Type};

/// Sets the gauges, all of which are empty.
type Set = dyn Fn(&[GaugeVec]) + Send + Sync;

/// A group of gauges that are set together.
#[derive(Clone)]
pub struct Fresh {
    gauges: Arc<[GaugeVec]>,
    set: Arc<Set>,
    /// Two who read at once must not see the gauges while the other empties them.
    reading: Arc<Mutex<()>>,
}

impl Fresh {
    /// Registers `gauges`. `set` is called with them, in the same order, before they are read.
    ///
    /// # Errors
    /// [`Error::Register`] if a name is taken.
    pub fn register(
        registry: &impl Register,
        gauges: impl Into<Arc<[GaugeVec]>>,
        set: impl Fn(&[GaugeVec]) + Send + Sync + 'static,
    ) -> Result<(), Error> {
        let fresh = Self { gauges: gauges.into(), set: Arc::new(set), reading: Arc::default() };
        registry.take(Type::Gauge, Box::new(fresh))
    }
}

impl Collector for Fresh {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges.iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let _alone = self.reading.lock();
        self.gauges.iter().for_each(GaugeVec::reset);
        (self.set)(&self.gauges);
        self.gauges.iter().flat_map(Collector::collect).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use prometheus::{Opts, Registry};

    use super::super::render;
    use super::*;

    #[test]
    fn what_is_not_there_any_more_is_not_told() {
        let registry = Registry::new();
        let gauge = GaugeVec::new(Opts::new("there", "x"), &["who"]).unwrap();
        let reads = AtomicU32::new(0);
        Fresh::register(&registry, [gauge], move |gauges| {
            let who = reads.fetch_add(1, Ordering::Relaxed).to_string();
            gauges[0].with_label_values(&[&who]).set(1.0);
        })
        .unwrap();
        assert!(render(&registry).unwrap().contains("there{who=\"0\"} 1"));
        let second = render(&registry).unwrap();
        assert!(second.contains("there{who=\"1\"} 1") && !second.contains("who=\"0\""), "{second}");
    }
}
