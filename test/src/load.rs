//! The load tools: how fast does a principal with its agents move changes, and what does it cost?
//!
//! Both tools work from outside, through the API servers' and the principal's ports, and so measure any principal
//! and any agents, ours or others.

pub mod application;
pub mod changes;
pub mod cluster;
pub mod fleet;
pub mod latency;
pub mod pace;
pub mod procfs;
pub mod propagation;
pub mod proxy;
pub mod traces;
