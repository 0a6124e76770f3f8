//! The API server as Tiphys uses it.

pub mod api_server;
pub mod backend;
pub mod client;
pub mod cluster_secret;
pub mod informer;
pub mod join_secret;
pub mod kinds;
pub mod material;
pub mod private_key;
pub mod reconciler;
pub mod recorder;
