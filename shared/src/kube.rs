//! The API server as Tiphys uses it.

pub mod api_server;
pub mod backend;
pub mod client;
pub mod informer;
pub mod kinds;
pub mod material;
pub mod reconciler;
