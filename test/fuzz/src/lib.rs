//! The bodies of the targets, shared with the test that runs the kept corpus through them.

#[path = "../../src/fuzz.rs"]
mod targets;

pub use targets::*;
