//! A control plane that is kept in a folder: its API server, and everything that it needs from the start.

mod access;
mod beginning;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tiphys_apiserver::{ApiServer, Definitions, DiskError, Error, Options};
use tiphys_principal::options::{EmbeddedSettings, Settings};
use tiphys_principal::setup::Way;
use tiphys_shared::kube::client::{self, Access};
use tiphys_shared::process::readiness::Readiness;
use tiphys_shared::security::tls::{Alpn, Policy, ServerTls};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;

pub(crate) use access::kubeconfig;

/// Argo CD's resources.
pub(crate) const CRDS: [&str; 3] = [
    include_str!("../../manifests/crds/applications.yaml"),
    include_str!("../../manifests/crds/appprojects.yaml"),
    include_str!("../../manifests/crds/applicationsets.yaml"),
];

/// The namespace and the name of the Secret that has the CA of the embedded API server itself.
pub(crate) const API_CA: (&str, &str) = ("kube-system", "tiphys-embedded-ca");
/// How long what runs here gets to end.
const DRAIN: Duration = Duration::from_secs(10);

/// The API server, running.
pub(crate) struct ControlPlane {
    server: ApiServer,
    kubeconfig: PathBuf,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl ControlPlane {
    /// Opens the folder, makes what is missing in it, and serves it.
    pub(crate) async fn start(embedded: &EmbeddedSettings, settings: &Settings) -> Result<Self, Failure> {
        let folder = &embedded.folder;
        let listen = embedded.listen.address().map_err(|error| {
            Failure::because(&format!("cannot listen on {}", embedded.listen), &error)
                .remedy("choose another --embedded-listen-host")
        })?;
        access::make_folder(folder)?;
        let token = access::token(folder)?;
        let server = open(folder, Some(&token)).await?;
        let client = server.client();
        let names =
            access::names(&[embedded.listen.host.as_ref(), settings.listen.host.as_ref()], &embedded.names);
        let identity = beginning::make(&client, settings, &names).await?;
        let policy = Policy { alpn: Alpn::H2OrHttp1, ..Policy::default() };
        let tls = ServerTls::new(&identity, policy)
            .map_err(|error| Failure::because("cannot serve the control plane", &error))?;
        let bound = server.bind(listen, Some(tls.current())).await.map_err(|error| {
            Failure::because("cannot serve the control plane", &error)
                .remedy("choose another port with --embedded-listen-port, or 0 for any")
        })?;
        let address = bound.local_addr();
        access::write(folder, address, &identity.ca, &token, &settings.namespace)?;
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(server.run_controllers(stop.clone()));
        tasks.spawn(bound.run(stop.clone()));
        tracing::info!(folder = %folder.display(), %address, "control plane is served");
        crate::output::say(&invitation(folder, address));
        Ok(Self { server, kubeconfig: kubeconfig(folder), stop, tasks })
    }

    /// The way to it: without sockets for the principal, by the kubeconfig for those who ask through it.
    pub(crate) async fn way(&self) -> Result<Way, Failure> {
        let access = Access { kubeconfig: Some(self.kubeconfig.clone()), context: None };
        let server = client::configuration(&access)
            .await
            .map_err(|error| Failure::because("cannot read the control plane's kubeconfig", &error))?;
        Ok(Way { client: self.server.client(), server })
    }

    /// Tells for ever whether changes are taken.
    pub(crate) async fn report(&self, readiness: &Readiness) {
        let condition = readiness.condition("embedded control plane", "not looked at yet");
        let mut trouble = self.server.trouble();
        loop {
            match &trouble {
                None => condition.ready(),
                Some(why) => condition.not_ready(why),
            }
            trouble = self.server.trouble_after(trouble.as_deref()).await;
        }
    }

    /// Ends the API server after those that use it.
    pub(crate) async fn end(mut self) {
        self.stop.cancel();
        let drained = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            tracing::warn!("the control plane's API server did not end in time");
        }
    }
}

/// The API server on the file of a folder. Without a token it is for this process alone.
pub(crate) async fn open(folder: &Path, token: Option<&str>) -> Result<ApiServer, Unopened> {
    let definitions = Definitions::parse(&CRDS.join("\n---\n"))
        .map_err(|error| Unopened::Failed(Failure::because("cannot read Argo CD's definitions", &error)))?;
    let tokens = token.map(|token| (token.to_owned(), "admin".to_owned())).into_iter().collect();
    let options = Options { tokens, definitions, ..Options::default() };
    ApiServer::open(options, access::state(folder)).await.map_err(|error| unusable(&error))
}

/// Whether there is something to be opened.
pub(crate) fn exists(folder: &Path) -> bool {
    access::state(folder).exists()
}

/// Why a folder is not open.
pub(crate) enum Unopened {
    /// Somebody else has it.
    InUse(Failure),
    Failed(Failure),
}

impl From<Unopened> for Failure {
    fn from(unopened: Unopened) -> Self {
        let (Unopened::InUse(failure) | Unopened::Failed(failure)) = unopened;
        failure
    }
}

fn unusable(error: &Error) -> Unopened {
    let failure = Failure::because("cannot open the control plane", error);
    let Error::Disk(disk) = error else { return Unopened::Failed(failure) };
    Unopened::Failed(match disk {
        DiskError::InUse { .. } => {
            return Unopened::InUse(failure.remedy(
                "stop the other principal, or use the control plane through the kubeconfig in the same folder",
            ));
        }
        DiskError::Foreign { .. } => failure.remedy("name another folder; the file was left as it is"),
        DiskError::Damaged { .. } => {
            failure.remedy("put a copy in its place that was made while the principal was stopped, or a `tiphys export`; the file was left as it is")
        }
        DiskError::Newer { .. } => failure.remedy("run the version of tiphys that wrote it, or a newer one"),
        DiskError::Io { .. } => failure.remedy("check the folder's permissions and the room on its disk"),
    })
}

fn invitation(folder: &Path, address: SocketAddr) -> String {
    let kubeconfig = kubeconfig(folder);
    let kubeconfig = kubeconfig.display();
    [
        format!("the control plane is in {}, served at {address}; from another terminal, try:", folder.display()),
        format!("  kubectl --kubeconfig {kubeconfig} get applications,appprojects --all-namespaces"),
        "Argo CD uses the same kubeconfig. This lets an agent in:".to_owned(),
        format!("  tiphys pki issue agent edge-1 --kubeconfig {kubeconfig} --agent-kubeconfig KUBECONFIG-OF-ITS-CLUSTER"),
        String::new(),
    ]
    .join("\n")
}
