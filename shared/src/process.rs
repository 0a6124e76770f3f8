//! Running at all: options, logs, metrics, readiness, shutdown.

pub mod options;
