//! Who owns which field: server-side apply, and the bookkeeping that every other write does for it.
//!
//! Pure functions from (object before, object after, managers before) to the managers after, and from (object,
//! what is applied) to the next object. What is stored, and when, is decided elsewhere.

mod managed;
mod set;
mod shape;
mod update;
mod walk;

pub(crate) use managed::{Managed, Manager, Operation};
pub(crate) use update::{ApplyError, Conflict, Versions, applied, updated};
