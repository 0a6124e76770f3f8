//! How events travel.

pub mod codec;
pub mod pump;
pub mod transport;
pub mod tunnel;
