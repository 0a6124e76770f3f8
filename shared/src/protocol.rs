//! What must happen: pure state machines, with `now` as an argument and no I/O.

pub mod checksum;
pub mod inbox;
pub mod mirror;
pub mod outbox;
pub mod ownership;
pub mod resync;
