//! The RPCs: thin, no rules. Who may call them is decided in [`gate`].

pub(crate) mod answers;
pub(crate) mod auth;
pub(crate) mod connections;
pub(crate) mod event_stream;
pub(crate) mod gate;
pub(crate) mod tunnel;
pub(crate) mod version;
