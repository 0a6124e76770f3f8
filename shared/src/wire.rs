//! How events travel.

pub mod codec;
pub mod express;
pub mod pump;
pub mod traces;
pub mod transport;
pub mod tunnel;
