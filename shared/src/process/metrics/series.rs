//! Series that nobody will add to any more.

use prometheus::core::{Collector as _, MetricVec, MetricVecBuilder};

/// Drops the series of `metrics` whose `label` has `value`.
pub fn forget<T: MetricVecBuilder>(metrics: &MetricVec<T>, label: &str, value: &str) {
    let families = metrics.collect();
    let descriptions = metrics.desc();
    let Some(names) = descriptions.first().map(|desc| &desc.variable_labels) else { return };
    for metric in families.iter().flat_map(|family| family.get_metric()) {
        let value_of = |name: &str| {
            let pair = metric.get_label().iter().find(|pair| pair.name() == name);
            pair.map_or("", |pair| pair.value())
        };
        if value_of(label) == value {
            let values: Vec<&str> = names.iter().map(|name| value_of(name)).collect();
            // Somebody else may have dropped it meanwhile.
            _ = metrics.remove_label_values(&values);
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{HistogramOpts, HistogramVec, Registry};

    use super::super::{register, render};
    use super::*;

    #[test]
    fn all_series_of_one_value_go_and_the_others_stay() {
        let registry = Registry::new();
        let options = HistogramOpts::new("took", "x");
        let took = register(&registry, HistogramVec::new(options, &["status", "agent"]).unwrap()).unwrap();
        for (status, agent) in [("good", "a"), ("bad", "a"), ("good", "b")] {
            took.with_label_values(&[status, agent]).observe(1.0);
        }
        forget(&took, "agent", "a");
        let text = render(&registry).unwrap();
        assert!(
            !text.contains("agent=\"a\"") && text.contains("took_count{agent=\"b\",status=\"good\"} 1"),
            "{text}"
        );
    }
}
