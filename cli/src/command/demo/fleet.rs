//! A control plane and clusters, built from the parts that run in earnest and joined over loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DynamicObject, PostParams};
use kube::{Api, Client};
use prometheus::Registry;
use tempfile::TempDir;
use tiphys_agent::connection::Grpc;
use tiphys_agent::{Agent, ProxyConfig, ProxyPolicy};
use tiphys_apiserver::ApiServer;
use tiphys_principal::{ControlPlaneConfig, Operator};
use tiphys_shared::kube::api_server::ApiServer as PassingApiServer;
use tiphys_shared::model::Mode;
use tiphys_shared::process::clock;
use tiphys_shared::process::options::NamePattern;
use tiphys_shared::protocol::ownership::{self, AdoptionPolicy, MismatchPolicy};
use tiphys_shared::security::passwords::Credentials;
use tiphys_shared::security::pki::Ca;
use tiphys_shared::security::subject::AuthRule;
use tiphys_shared::security::tls::{Alpn, ClientTls, Material, Policy, ServerTls};
use tiphys_shared::security::token::Issuer;
use tiphys_shared::wire::transport::DialOptions;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::applications::{project, project_resource};
use super::argocd;
use super::kubeconfig::{self, Access, Entry, User};
use super::ledger::Ledger;
use super::summary::Events;
use crate::embedded::CRDS;
use crate::failure::Failure;

/// Namespace of Argo CD, everywhere.
pub(super) const NAMESPACE: &str = "argocd";
const CONTROL_PLANE: &str = "control-plane";
/// Whom the principal's resource proxy lets reach every cluster.
const OPERATOR: &str = "demo";
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// How long each kind of part gets to end.
const DRAIN: Duration = Duration::from_secs(10);
/// Mean pause between two comparisons of what both sides hold: the default.
const RESYNC: Duration = Duration::from_secs(60);
/// Largest gRPC message: upstream's default.
const MESSAGE_SIZE: usize = 200 * 1024 * 1024;

/// One cluster: an API server and a way to it.
pub(super) struct Cluster {
    pub(super) name: String,
    pub(super) client: Client,
    address: SocketAddr,
    /// The same for requests that are passed on.
    api_server: PassingApiServer,
}

/// A view of everything that runs.
pub(super) struct Fleet {
    pub(super) control: Cluster,
    pub(super) clusters: Vec<Cluster>,
    pub(super) principal: tiphys_principal::Handle,
    agents: Vec<tiphys_agent::Handle>,
    registry: Registry,
    kubeconfig: PathBuf,
}

/// What keeps it running.
pub(super) struct Engine {
    folder: TempDir,
    /// In the order in which they end: who depends on whom.
    layers: [Layer; 3],
}

/// Tasks that end together.
#[derive(Default)]
struct Layer {
    stop: CancellationToken,
    tasks: JoinSet<Result<(), Failure>>,
}

impl Fleet {
    /// Starts `count` clusters with their agents, and a control plane with the principal.
    pub(super) async fn start(count: usize, ledger: &Arc<Ledger>) -> Result<(Self, Engine), Failure> {
        let folder = tempfile::Builder::new()
            .prefix("tiphys-demo-")
            .tempdir()
            .map_err(|error| Failure::because("cannot make a temporary folder", &error))?;
        let mut engine = Engine { folder, layers: Default::default() };
        match Self::build(count, ledger, &mut engine).await {
            Ok(fleet) => Ok((fleet, engine)),
            Err(failure) => {
                // What could not be finished is taken down in order too: without file descriptors, for one, the
                // folder could not be removed before the sockets are closed.
                engine.end().await;
                Err(failure)
            }
        }
    }

    async fn build(count: usize, ledger: &Arc<Ledger>, engine: &mut Engine) -> Result<Self, Failure> {
        let [agent_layer, principal_layer, server_layer] = &mut engine.layers;
        let width = count.to_string().len();
        let names: Vec<String> = (1..=count).map(|number| format!("cluster-{number:0width$}")).collect();

        let pki = Pki::new().await?;
        let token = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
        let control = start_server(CONTROL_PLANE, &pki, &token, server_layer).await?;
        for name in std::iter::once(NAMESPACE).chain(names.iter().map(String::as_str)) {
            create_namespace(&control.client, name).await?;
        }
        Api::<DynamicObject>::namespaced_with(control.client.clone(), NAMESPACE, &project_resource())
            .create(&PostParams::default(), &project())
            .await
            .map_err(|error| Failure::because("cannot create the project", &error))?;

        let registry = Registry::new();
        let (principal, address, proxy) = start_principal(&control, &pki, &registry, principal_layer).await?;
        let (observer, client) = (Arc::clone(ledger), control.client.clone());
        agent_layer.spawn(|stop| async move {
            argocd::observe(client, observer, stop).await;
            Ok(())
        });

        let mut clusters = Vec::new();
        let mut agents = Vec::new();
        for name in names {
            let cluster = start_server(&name, &pki, &token, server_layer).await?;
            create_namespace(&cluster.client, NAMESPACE).await?;
            agents.push(start_agent(&cluster, address, &pki, agent_layer)?);
            let (client, ledger) = (cluster.client.clone(), Arc::clone(ledger));
            agent_layer.spawn(|stop| async move {
                argocd::play(name, client, NAMESPACE, ledger, stop).await;
                Ok(())
            });
            clusters.push(cluster);
        }

        let kubeconfig = engine.folder.path().join("kubeconfig");
        let fleet = Self { control, clusters, principal, agents, registry, kubeconfig };
        fleet.write_kubeconfig(&pki, &token, proxy)?;
        Ok(fleet)
    }

    fn write_kubeconfig(&self, pki: &Pki, token: &str, proxy: Option<SocketAddr>) -> Result<(), Failure> {
        let operator = pki
            .ca
            .issue_client::<&str>(OPERATOR, &[], clock::now(), LIFETIME)
            .map_err(|error| Failure::because("cannot issue a certificate", &error))?;
        let direct = std::iter::once(&self.control).chain(&self.clusters).map(|cluster| Entry {
            name: cluster.name.clone(),
            server: format!("https://{}", cluster.address),
            user: User::Token,
        });
        let proxied = proxy.into_iter().flat_map(|proxy| {
            self.clusters.iter().map(move |cluster| Entry {
                name: format!("{}-proxied", cluster.name),
                server: format!("https://{proxy}/agents/{}", cluster.name),
                user: User::Certificate,
            })
        });
        let entries: Vec<_> = direct.chain(proxied).collect();
        kubeconfig::write(
            &self.kubeconfig,
            &Access { ca: pki.ca.certificate_pem(), token, operator: &operator, namespace: NAMESPACE },
            &entries,
        )
        .map_err(|error| Failure::because("cannot write the kubeconfig", &error))
    }

    /// Waits until the principal is ready and every agent is connected.
    pub(super) async fn connected(&self) {
        self.principal.ready().await;
        // Agents tell whether they are connected, not when: look again soon.
        let mut looks = tokio::time::interval(Duration::from_millis(20));
        while !self.agents.iter().all(tiphys_agent::Handle::is_connected) {
            looks.tick().await;
        }
    }

    /// A view into the agent of this name.
    pub(super) fn agent(&self, name: &str) -> Option<&tiphys_agent::Handle> {
        let index = self.clusters.iter().position(|cluster| cluster.name == name)?;
        self.agents.get(index)
    }

    /// What the principal has sent and received.
    pub(super) fn events(&self) -> Events {
        let total = |name: &str| {
            let families = self.registry.gather();
            let family = families.iter().filter(|family| family.name() == name);
            family
                .flat_map(|family| family.get_metric())
                .map(|metric| metric.get_counter().get_value())
                .sum::<f64>() as u64
        };
        Events { sent: total("principal_events_sent"), received: total("principal_events_received") }
    }

    /// What to try with kubectl.
    pub(super) fn invitation(&self) -> String {
        let kubectl = format!("kubectl --kubeconfig {}", self.kubeconfig.display());
        let first = self.clusters.first().map_or(CONTROL_PLANE, |cluster| cluster.name.as_str());
        [
            "every cluster is a context of a kubeconfig; from another terminal, try:".to_owned(),
            format!("  {kubectl} --context {CONTROL_PLANE} get applications --all-namespaces"),
            format!("  {kubectl} --context {first} get applications --watch"),
            "  # the same cluster through its agent and the principal, as Argo CD reaches clusters that nothing can reach".to_owned(),
            format!("  {kubectl} --context {first}-proxied get applications --watch"),
            "  # a change that nobody may make here: it is undone at once".to_owned(),
            format!(
                "  {kubectl} --context {first} patch application guestbook-1 --type merge \
                 --patch '{{\"spec\":{{\"source\":{{\"path\":\"elsewhere\"}}}}}}'"
            ),
            "Ctrl-C ends everything and leaves nothing behind".to_owned(),
            String::new(),
        ]
        .join("\n")
    }
}

impl Engine {
    /// Waits for a part to fail, or to end although nobody asked it to.
    pub(super) async fn broken(&mut self) -> Failure {
        let [agents, principal, servers] = &mut self.layers;
        tokio::select! {
            failure = agents.broken("an agent") => failure,
            failure = principal.broken("the principal") => failure,
            failure = servers.broken("an API server") => failure,
        }
    }

    /// Ends everything in order and removes the folder.
    pub(super) async fn end(self) {
        let Self { layers, folder, .. } = self;
        for mut layer in layers {
            layer.stop.cancel();
            let drained =
                tokio::time::timeout(DRAIN, async { while layer.tasks.join_next().await.is_some() {} });
            if drained.await.is_err() {
                tracing::warn!(left = layer.tasks.len(), "some parts did not end in time");
                layer.tasks.shutdown().await;
            }
        }
        if let Err(error) = folder.close() {
            tracing::warn!(%error, "the temporary folder could not be removed");
        }
    }
}

impl Layer {
    fn spawn<F>(&mut self, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        self.tasks.spawn(task(self.stop.clone()));
    }

    async fn broken(&mut self, what: &str) -> Failure {
        match self.tasks.join_next().await {
            Some(Ok(Ok(()))) => Failure::new(format!("{what} ended although nobody asked it to")),
            Some(Ok(Err(failure))) => failure,
            Some(Err(error)) => Failure::because(&format!("{what} failed"), &error),
            None => std::future::pending().await,
        }
    }
}

/// The keys of the whole show.
struct Pki {
    ca: Ca,
    issuer: Issuer,
    /// For every API server: they all listen on this machine.
    servers: ServerTls,
}

impl Pki {
    async fn new() -> Result<Self, Failure> {
        let failed = |error: &(dyn std::error::Error + 'static)| Failure::because("cannot make keys", error);
        let ca = Ca::generate("tiphys-demo", clock::now(), LIFETIME).map_err(|error| failed(&error))?;
        // An RSA key takes a while.
        let issuer =
            tokio::task::spawn_blocking(|| Issuer::generate(2048)).await.map_err(|error| failed(&error))?;
        let (issuer, _) = issuer.map_err(|error| failed(&error))?;
        let policy = Policy { alpn: Alpn::H2OrHttp1, ..Policy::default() };
        let servers = ServerTls::new(&server_material(&ca)?, policy).map_err(|error| failed(&error))?;
        Ok(Self { ca, issuer, servers })
    }
}

fn server_material(ca: &Ca) -> Result<Material, Failure> {
    ca.issue_server(&["localhost", "127.0.0.1"], clock::now(), LIFETIME)
        .map_err(|error| Failure::because("cannot issue a certificate", &error))
}

async fn start_server(name: &str, pki: &Pki, token: &str, layer: &mut Layer) -> Result<Cluster, Failure> {
    let failed = |error: tiphys_apiserver::Error| Failure::because("cannot start an API server", &error);
    let tokens = [(token.to_owned(), "demo".to_owned())].into();
    let server = ApiServer::new(tiphys_apiserver::Options { tokens, ..tiphys_apiserver::Options::default() });
    for documents in CRDS {
        server.install_crds(documents).map_err(failed)?;
    }
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let bound = server.bind(loopback, Some(pki.servers.current())).await.map_err(failed)?;
    let cluster = Cluster {
        name: name.to_owned(),
        client: server.client(),
        address: bound.local_addr(),
        api_server: PassingApiServer::of(server.service()),
    };
    layer.spawn(|stop| async move {
        server.run_controllers(stop).await;
        Ok(())
    });
    layer.spawn(|stop| async move {
        bound.run(stop).await;
        Ok(())
    });
    Ok(cluster)
}

async fn create_namespace(client: &Client, name: &str) -> Result<(), Failure> {
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(name.to_owned());
    Api::<Namespace>::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await
        .map(drop)
        .map_err(|error| Failure::because("cannot create a namespace", &error))
}

async fn start_principal(
    control: &Cluster,
    pki: &Pki,
    registry: &Registry,
    layer: &mut Layer,
) -> Result<(tiphys_principal::Handle, SocketAddr, Option<SocketAddr>), Failure> {
    let failed =
        |error: &(dyn std::error::Error + 'static)| Failure::because("cannot start the principal", error);
    let material = server_material(&pki.ca)?;
    let tls = ServerTls::new(&material, Policy::mutual()).map_err(|error| failed(&error))?;
    let policy = Policy { alpn: Alpn::H2OrHttp1, ..Policy::mutual() };
    let proxy_tls = ServerTls::new(&material, policy).map_err(|error| failed(&error))?;
    let bound = tiphys_principal::bind(tiphys_principal::Config {
        control_plane: ControlPlaneConfig {
            client: control.client.clone(),
            namespace: NAMESPACE.to_owned(),
            allowed_namespaces: vec![NamePattern::new("*").map_err(|error| failed(&error))?],
            destination_based_mapping: false,
            namespace_creation: None,
            label_selector: None,
            resync_interval: Some(RESYNC),
            cluster_view: None,
            max_message_size: MESSAGE_SIZE,
            registry: registry.clone(),
        },
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        tls: Some(tls),
        connections: tiphys_principal::Connections::default(),
        auth: AuthRule::parse("mtls:subject:CN=([^,]+)").map_err(|error| failed(&error))?,
        passwords: None,
        client_cert_subject_match: true,
        issuer: pki.issuer.clone(),
        proxy: Some(tiphys_principal::ProxyConfig {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tls: proxy_tls,
            operators: vec![Operator {
                name: OPERATOR.to_owned(),
                agents: NamePattern::new("*").map_err(|error| failed(&error))?,
            }],
        }),
        onboarding: tiphys_principal::Onboarding::default(),
        redis_proxy: None,
        web: None,
        traces: Default::default(),
        recorder: Default::default(),
    })
    .await
    .map_err(|error| failed(&error))?;
    let (handle, address, proxy) = (bound.handle(), bound.address(), bound.proxy_address());
    layer.spawn(|stop| async move {
        bound.run(stop).await.map_err(|error| Failure::because("the principal failed", &error))
    });
    Ok((handle, address, proxy))
}

fn start_agent(
    cluster: &Cluster,
    principal: SocketAddr,
    pki: &Pki,
    layer: &mut Layer,
) -> Result<tiphys_agent::Handle, Failure> {
    let failed = |error: &(dyn std::error::Error + 'static)| Failure::because("cannot start an agent", error);
    let material = pki
        .ca
        .issue_client::<&str>(&cluster.name, &[], clock::now(), LIFETIME)
        .map_err(|error| failed(&error))?;
    let tls = ClientTls::new(&material, Policy::default(), false).map_err(|error| failed(&error))?;
    let config = tiphys_agent::Config {
        mode: Mode::Managed,
        client: cluster.client.clone(),
        namespace: NAMESPACE.to_owned(),
        allowed_namespaces: Vec::new(),
        destination_based_mapping: false,
        create_namespaces: false,
        policy: ownership::Policy { mismatch: MismatchPolicy::Recreate, adoption: AdoptionPolicy::Always },
        on_return: None,
        label_selector: None,
        resync_interval: Some(RESYNC),
        buffer_interval: None,
        cluster_cache: None,
        proxy: Some(ProxyConfig {
            api_server: cluster.api_server.clone(),
            policy: watch::channel(ProxyPolicy::All).1,
            read_only: false,
            impersonate: false,
        }),
        redis: None,
        heartbeat: None,
        registry: Registry::new(),
        traces: Default::default(),
        recorder: Default::default(),
    };
    let link = Grpc {
        dial: DialOptions::new(principal.ip().to_string(), principal.port(), Some(tls)),
        credentials: Credentials::Mtls,
        namespace: NAMESPACE.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        compression: false,
        max_message_size: MESSAGE_SIZE,
    };
    let agent = Agent::new(config, link);
    let handle = agent.handle();
    layer.spawn(|stop| async move {
        agent.run(stop).await.map_err(|error| Failure::because("an agent failed", &error))
    });
    Ok(handle)
}
