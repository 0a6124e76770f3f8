//! Metrics described instead of counted: for the book.

use parking_lot::Mutex;
use prometheus::core::Collector;

use super::{Error, Register, Type};

/// What there is to know of a metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// What it is.
    pub of: Type,
    /// The labels of its series.
    pub labels: Vec<String>,
    /// What it says.
    pub help: String,
}

/// Takes metrics and remembers what they are.
#[derive(Debug, Default)]
pub struct Catalogue {
    descriptions: Mutex<Vec<Description>>,
}

impl Catalogue {
    /// What was registered, by name.
    pub fn into_descriptions(self) -> Vec<Description> {
        let mut descriptions = self.descriptions.into_inner();
        descriptions.sort_by(|a, b| a.name.cmp(&b.name));
        descriptions
    }
}

impl Register for Catalogue {
    fn take(&self, of: Type, collector: Box<dyn Collector>) -> Result<(), Error> {
        let described = collector.desc().into_iter().map(|desc| Description {
            name: desc.fq_name.clone(),
            of,
            labels: desc.variable_labels.clone(),
            help: desc.help.clone(),
        });
        self.descriptions.lock().extend(described);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{IntCounter, IntGaugeVec, Opts};

    use super::super::register;
    use super::*;

    #[test]
    fn what_is_registered_is_described_by_name() {
        let catalogue = Catalogue::default();
        register(&catalogue, IntGaugeVec::new(Opts::new("b", "how many"), &["of"]).unwrap()).unwrap();
        register(&catalogue, IntCounter::new("a", "so far").unwrap()).unwrap();
        let described = catalogue.into_descriptions();
        let names: Vec<_> = described.iter().map(|it| (it.name.as_str(), it.of.as_str())).collect();
        assert_eq!(names, [("a", "counter"), ("b", "gauge")]);
        assert_eq!(
            (described[1].labels.as_slice(), described[1].help.as_str()),
            (&["of".to_owned()][..], "how many")
        );
    }
}
