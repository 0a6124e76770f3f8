//! What a process tells over HTTP.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};

use super::query::Query;

/// Labels that Prometheus itself puts to what it reads.
const ADDED: [&str; 3] = ["job", "instance", "namespace"];

/// Status and body of a page on loopback.
pub(super) fn get(port: u16, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

/// The labels of the series of each metric, with their values.
#[derive(Debug, Default)]
pub(super) struct Scrape {
    metrics: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
}

impl Scrape {
    /// Reads Prometheus' text form.
    pub(super) fn parse(text: &str) -> Self {
        let mut scrape = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let (series, _value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let known = scrape.metrics.entry(name.to_owned()).or_default();
            for label in labels.trim_end_matches('}').split("\",").filter(|label| !label.is_empty()) {
                let (label, value) = label.split_once("=\"").unwrap();
                known.entry(label.to_owned()).or_default().insert(value.trim_end_matches('"').to_owned());
            }
        }
        scrape
    }

    /// What a query asks for, or a text shows, that nobody has told.
    pub(super) fn missing(&self, query: &Query, shown: &BTreeSet<String>) -> Vec<String> {
        let mut missing = Vec::new();
        let mut there: BTreeSet<&str> = ADDED.into();
        for selector in &query.selectors {
            let metric = &selector.metric;
            let Some(labels) = self.metrics.get(metric) else {
                missing.push(format!("no metric {metric}"));
                continue;
            };
            there.extend(labels.keys().map(String::as_str));
            for (label, value) in &selector.labels {
                match (labels.get(label), value) {
                    (None, _) => missing.push(format!("{metric} has no label {label}")),
                    (Some(values), Some(value)) if !values.contains(value) => {
                        missing.push(format!("{metric} has no {label}={value}, only {values:?}"));
                    }
                    _ => {}
                }
            }
        }
        let named = query.labels.iter().chain(shown).filter(|label| !there.contains(label.as_str()));
        missing.extend(named.map(|label| format!("nothing has the label {label}")));
        missing
    }
}
