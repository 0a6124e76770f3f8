//! What needs more than one crate: the parts of the load tools, which are programs of this crate.

pub mod chaos;
pub mod fuzz;
pub mod installation;
pub mod load;
pub mod program;
pub mod rotation;
pub mod simulation;
