//! How two peers find out that they differ, at a cost that follows the difference.

pub mod cache;
pub mod digest;
pub mod exchange;
pub mod tree;
