//! What things are called. No I/O, no clock.

pub mod agent;
