//! What things are called. No I/O, no clock.

pub mod agent;
pub mod api_request;
pub mod argocd;
pub mod cache_key;
pub mod cluster;
pub mod event;
pub mod feature;
pub mod object;
pub mod redis;
pub mod resource;
pub mod streamed;

pub use agent::{AgentName, Mode};
pub use event::{Event, EventId, EventKind, Payload, Target};
pub use object::{Object, SourceUid};
pub use resource::{Kind, ResourceKey};
