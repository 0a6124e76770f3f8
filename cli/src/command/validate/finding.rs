//! What a check found.

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// Something does not work.
    Error,
    /// Something will not work soon, or perhaps not as meant.
    Warning,
}

/// Something that is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// Name of the check, which stays the same.
    pub(super) check: &'static str,
    pub(super) severity: Severity,
    /// `control plane` or `agent`.
    pub(super) side: &'static str,
    /// What is wrong, naming the object.
    pub(super) what: String,
    pub(super) remedy: String,
}

/// Collects findings about one side.
pub(super) struct Findings {
    side: &'static str,
    pub(super) all: Vec<Finding>,
}

impl Findings {
    pub(super) fn about(side: &'static str) -> Self {
        Self { side, all: Vec::new() }
    }

    pub(super) fn error(&mut self, check: &'static str, what: impl Into<String>, remedy: impl Into<String>) {
        self.add(Severity::Error, check, what.into(), remedy.into());
    }

    pub(super) fn warning(
        &mut self,
        check: &'static str,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(Severity::Warning, check, what.into(), remedy.into());
    }

    fn add(&mut self, severity: Severity, check: &'static str, what: String, remedy: String) {
        self.all.push(Finding { check, severity, side: self.side, what, remedy });
    }
}
