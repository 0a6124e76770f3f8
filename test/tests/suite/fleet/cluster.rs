//! One cluster of a fleet.

use kube::Client;
use kube::api::{Api, PostParams};
use serde_json::json;
use tiphys_shared::kube::api_server::ApiServer;

/// One cluster's API server.
#[derive(Clone)]
pub(crate) enum Cluster {
    #[cfg(not(feature = "real-cluster"))]
    Embedded(tiphys_apiserver::ApiServer),
    #[cfg(feature = "real-cluster")]
    Real(Box<kube::Config>),
}

impl Cluster {
    #[cfg(not(feature = "real-cluster"))]
    pub(crate) fn embedded() -> Self {
        use tiphys_apiserver::ApiServer;

        let server = ApiServer::new(tiphys_apiserver::Options::default());
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/crds");
        for file in ["applications.yaml", "appprojects.yaml"] {
            server.install_crds(&std::fs::read_to_string(folder.join(file)).unwrap()).unwrap();
        }
        Self::Embedded(server)
    }

    /// A client whose tasks live in the current runtime.
    pub(crate) fn client(&self) -> Client {
        match self {
            #[cfg(not(feature = "real-cluster"))]
            Self::Embedded(server) => server.client(),
            #[cfg(feature = "real-cluster")]
            Self::Real(config) => Client::try_from((**config).clone()).unwrap(),
        }
    }

    /// The same for requests that are passed on.
    pub(crate) fn api_server(&self) -> ApiServer {
        match self {
            #[cfg(not(feature = "real-cluster"))]
            Self::Embedded(server) => ApiServer::of(server.service()),
            #[cfg(feature = "real-cluster")]
            Self::Real(config) => ApiServer::connect(config).unwrap(),
        }
    }
}

pub(crate) async fn create_namespace(client: &Client, name: &str) {
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    match namespaces.create(&PostParams::default(), &namespace).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => panic!("namespace {name}: {error}"),
    }
}
