//! How much is logged, and in which form.

use std::collections::BTreeMap;

use clap::ValueEnum;
use tracing::level_filters::LevelFilter;

use super::Problems;
use super::value::Invalid;

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line, for machines.
    Json,
}

/// What to log: one level for everything and levels for single components.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLevels {
    /// Level of whatever is not named.
    pub default: LevelFilter,
    /// Level by component.
    pub components: BTreeMap<String, LevelFilter>,
}

/// Logging as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logging {
    /// Form of a line.
    pub format: LogFormat,
    /// Which lines.
    pub levels: LogLevels,
}

impl Logging {
    /// Logging by the entries of `--log-level` and the form of `--log-format`.
    ///
    /// # Errors
    /// Every entry that is no level.
    pub fn new(levels: &[String], format: LogFormat) -> Result<Self, Problems> {
        let levels = LogLevels::new(levels.iter().map(String::as_str)).map_err(|invalid| {
            Problems(invalid.into_iter().map(|invalid| ("--log-level", invalid).into()).collect())
        })?;
        Ok(Self { format, levels })
    }
}

/// The components that upstream names, each with the modules that do that work here.
const COMPONENTS: [(&str, &[&str]); 4] = [
    ("grpc-event", &["tiphys_shared::wire", "tiphys_principal::grpc", "tiphys_agent::connection"]),
    ("informer-event-buffer", &["tiphys_shared::kube"]),
    ("redis-proxy", &["tiphys_shared::redis", "tiphys_principal::redis_proxy", "tiphys_agent::redis_proxy"]),
    (
        "resource-proxy",
        &[
            "audit",
            "tiphys_shared::wire::tunnel",
            "tiphys_principal::grpc::tunnel",
            "tiphys_principal::proxy",
            "tiphys_agent::proxy",
        ],
    ),
];

impl LogLevels {
    /// Reads entries of the form `level` or `component=level`; the last level without component wins.
    pub fn new<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, Vec<Invalid>> {
        let mut levels = Self { default: LevelFilter::INFO, components: BTreeMap::new() };
        let mut invalid = Vec::new();
        for entry in entries.into_iter().map(str::trim).filter(|entry| !entry.is_empty()) {
            let (component, text) = match entry.split_once('=') {
                Some((component, text)) => (Some(component.trim()), text.trim()),
                None => (None, entry),
            };
            let Some(level) = level(text) else {
                invalid.push(Invalid::new(
                    format!("log level {text:?} does not exist"),
                    "use one of fatal, error, warn, info, debug, trace",
                ));
                continue;
            };
            match component {
                None => levels.default = level,
                Some(component) => {
                    levels.components.insert(component.to_owned(), level);
                }
            }
        }
        if invalid.is_empty() { Ok(levels) } else { Err(invalid) }
    }

    /// The components that were named but do not exist; upstream skips them with a warning, and so does telemetry.
    pub fn unknown_components(&self) -> impl Iterator<Item = &str> {
        let unknown = |name: &&str| COMPONENTS.iter().all(|(known, _)| known != name);
        self.components.keys().map(String::as_str).filter(unknown)
    }

    /// The same as a directive for `tracing_subscriber::EnvFilter`.
    pub fn directives(&self) -> String {
        // Libraries are loud at debug; they follow only down to their own warnings and information.
        let mut directives = if self.default > LevelFilter::INFO {
            format!("info,tiphys={0},tiphys_shared={0},tiphys_principal={0},tiphys_agent={0}", self.default)
        } else {
            self.default.to_string()
        };
        for (name, modules) in COMPONENTS {
            let Some(level) = self.components.get(name) else { continue };
            for module in modules {
                directives.push_str(&format!(",{module}={level}"));
            }
        }
        directives
    }
}

impl std::fmt::Display for LogLevels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.default)?;
        self.components.iter().try_for_each(|(name, level)| write!(f, ",{name}={level}"))
    }
}

fn level(text: &str) -> Option<LevelFilter> {
    match text.to_ascii_lowercase().as_str() {
        // Go's logger has levels beyond error; here an error is the worst that is logged.
        "panic" | "fatal" | "error" => Some(LevelFilter::ERROR),
        "warn" | "warning" => Some(LevelFilter::WARN),
        "" | "info" => Some(LevelFilter::INFO),
        "debug" => Some(LevelFilter::DEBUG),
        "trace" => Some(LevelFilter::TRACE),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_by_component_and_mistakes_are_reported_together() {
        let levels = LogLevels::new(["debug", " grpc-event = trace", "nothing=warn", ""]).unwrap();
        assert_eq!(levels.default, LevelFilter::DEBUG);
        assert_eq!(levels.unknown_components().collect::<Vec<_>>(), ["nothing"]);
        assert!(levels.directives().starts_with("info,tiphys=debug,"));
        assert!(levels.directives().contains(",tiphys_shared::wire=trace"));
        assert_eq!(LogLevels::new([]).unwrap().directives(), "info");
        assert_eq!(LogLevels::new(["loud", "a=quiet"]).unwrap_err().len(), 2);
    }
}
