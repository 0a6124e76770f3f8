//! What principal and agent are built from.
//!
//! ```text
//! informer ─▶ outbound ─▶ outbox ══ stream ══▶ inbox ─▶ handler ─▶ backend
//!  (kube)     (either     (protocol)  (wire)   (protocol) (either   (kube)
//!              side)                                       side)
//! ```
//!
//! [`model`] names things, [`protocol`] decides what must happen, [`wire`] carries it, [`kube`] reads and writes
//! API servers, [`redis`] asks Argo CD's cache, [`proxy`] is what both ends of the API proxy share, [`security`] proves who is
//! who, [`process`] is about running at all. A room never calls what
//! stands left of it in the picture; `wire` and `kube` meet only in the principal and the agent.

pub mod kube;
pub mod model;
pub mod process;
pub mod protocol;
pub mod proxy;
pub mod redis;
pub mod security;
pub mod wire;
