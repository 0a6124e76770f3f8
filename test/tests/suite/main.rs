//! Everything that needs more than one crate and no real cluster. What needs one is in `tests/real`.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "all of this is test code")]

mod autonomous;
#[cfg(not(feature = "real-cluster"))]
mod certificates;
mod cluster_view;
mod conformance;
#[cfg(not(feature = "real-cluster"))]
mod events;
mod fleet;
#[cfg(not(feature = "real-cluster"))]
mod handover;
mod kube;
mod managed;
mod proxy;
mod raw;
mod redis_proxy;
mod redis_server;
#[cfg(not(feature = "real-cluster"))]
mod restore;
mod rotation;
mod simulation;
#[cfg(not(feature = "real-cluster"))]
mod skew;
mod symptoms;
mod traces;
mod transports;
mod web;
