//! What both ends of the API proxy share: heads without what is meant for one hop only, bodies that pass as they come,
//! refusals that a Kubernetes client understands, a line in the log for each request, and the channels
//! of what runs in a container.

pub mod audit;
pub mod body;
pub mod channels;
pub mod gathered;
pub mod headers;
pub mod refusal;
