//! What both ends of the API proxy share: heads without what is meant for one hop only, bodies that pass as they come,
//! refusals that a Kubernetes client understands, and a line in the log for each request.

pub mod audit;
pub mod body;
pub mod headers;
pub mod refusal;
