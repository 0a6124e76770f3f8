//! Running at all: options, logs, metrics, readiness, shutdown.

pub mod admin;
pub mod backoff;
pub mod clock;
pub mod metrics;
pub mod options;
pub mod persist;
pub mod profile;
pub mod readiness;
pub mod restraint;
pub mod telemetry;
pub mod worklist;
