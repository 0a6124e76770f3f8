//! The Version RPC.

use tiphys_proto::version::version_server::Version;
use tiphys_proto::version::{VersionRequest, VersionResponse};
use tonic::{Request, Response, Status};

use super::gate::Gate;

/// Says which version runs here, to those who may know.
pub(crate) struct VersionService {
    pub(crate) gate: Gate,
    pub(crate) version: String,
}

#[tonic::async_trait]
impl Version for VersionService {
    async fn version(&self, request: Request<VersionRequest>) -> Result<Response<VersionResponse>, Status> {
        self.gate.identify(&request)?;
        Ok(Response::new(VersionResponse { version: self.version.clone() }))
    }
}
