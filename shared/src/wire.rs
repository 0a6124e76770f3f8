//! How events travel.

pub mod transport;
