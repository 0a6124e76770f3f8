//! Cluster Secrets that make themselves when an agent logs in: one client certificate for all, and a token for each agent.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, ResourceExt as _};
use tiphys_shared::kube::cluster_secret::{self, Cluster};
use tiphys_shared::kube::material::{Place, Places, Reader};
use tiphys_shared::model::AgentName;
use tiphys_shared::model::argocd::label;
use tiphys_shared::process::clock;
use tiphys_shared::process::options::Problem;
use tiphys_shared::security::token::{self, Issuer};
use tokio_util::sync::CancellationToken;

/// How often a write is tried again because somebody else wrote at the same moment.
const ATTEMPTS: usize = 5;
/// How many Secrets are read at once.
const PAGE: u32 = 100;

/// What is written into cluster Secrets.
#[derive(Clone)]
pub struct RegistrationConfig {
    /// Reads the Secret with the client certificate.
    pub reader: Reader,
    /// Host and port of the resource proxy, as Argo CD reaches it.
    pub proxy: String,
    /// Name of the Secret with the client certificate, its key and the CA of the resource proxy.
    pub certificate: String,
}

/// Why there is no cluster Secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The client certificate cannot be read.
    #[error("{}; {}", .0.what, .0.remedy)]
    Certificate(Problem),
    /// The token cannot be made.
    #[error(transparent)]
    Token(#[from] token::Error),
    /// The token cannot be made now.
    #[error("no token could be made: {0}")]
    Interrupted(#[from] tokio::task::JoinError),
    /// The API server refuses.
    #[error("the cluster Secret cannot be written: {0}")]
    Write(#[from] kube::Error),
    /// Somebody else writes all the time.
    #[error("the cluster Secret is changed by somebody else all the time")]
    Contended,
}

/// Makes cluster Secrets, and keeps those that it has made.
pub(crate) struct Registration {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) issuer: Issuer,
    pub(crate) config: RegistrationConfig,
}

impl Registration {
    /// Sees to it that there is a cluster Secret for an agent, with a token that is good. One that people have made is left
    /// alone.
    pub(crate) async fn register(&self, agent: &AgentName) -> Result<(), Error> {
        let secrets = self.secrets();
        let name = cluster_secret::name(agent);
        for _ in 0..ATTEMPTS {
            let Some(existing) = secrets.get_opt(&name).await? else {
                let made = self.make(agent, None).await?;
                match secrets.create(&PostParams::default(), &made).await {
                    Err(error) if is_conflict(&error) => continue,
                    outcome => outcome?,
                };
                tracing::info!(%agent, secret = name, "cluster Secret made");
                return Ok(());
            };
            if !cluster_secret::is_self_registered(&existing) {
                return Ok(());
            }
            // One that cannot be read is made anew.
            let known = Cluster::read(&existing).ok();
            let good = known.as_ref().and_then(Cluster::token).filter(|token| {
                let of = self.issuer.verify_resource_proxy(token, clock::now());
                of.is_ok_and(|of| of == *agent) && self.issuer.is_by_current_key(token)
            });
            let good = good.map(str::to_owned);
            let made = self.make(agent, good).await?;
            let mut next = existing.clone();
            next.data.get_or_insert_default().extend(made.data.unwrap_or_default());
            if next.data == existing.data {
                return Ok(());
            }
            match secrets.replace(&name, &PostParams::default(), &next).await {
                Err(error) if is_conflict(&error) => {}
                outcome => {
                    outcome?;
                    tracing::info!(%agent, secret = name, "cluster Secret renewed");
                    return Ok(());
                }
            }
        }
        Err(Error::Contended)
    }

    /// Issues all tokens anew whenever another key signs, until `cancel`: they do not expire, and the old key does.
    pub(crate) async fn follow(self: Arc<Self>, cancel: CancellationToken) {
        let mut rotations = self.issuer.rotations();
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                changed = rotations.changed() => if changed.is_err() { return },
            }
            if let Err(error) = self.renew_all().await {
                tracing::warn!(%error, "cluster Secrets cannot be read; each is renewed when its agent connects");
            }
        }
    }

    async fn renew_all(&self) -> Result<(), kube::Error> {
        let mut page = ListParams::default()
            .labels(&format!("{}=true,{}", label::SELF_REGISTERED, label::AGENT_NAME))
            .limit(PAGE);
        loop {
            let found = self.secrets().list(&page).await?;
            for secret in found.items {
                let agent = secret.labels().get(label::AGENT_NAME).map(|name| AgentName::new(name.as_str()));
                let Some(Ok(agent)) = agent else { continue };
                if let Err(error) = self.register(&agent).await {
                    tracing::warn!(%agent, %error, "cluster Secret cannot be renewed");
                }
            }
            match found.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok(()),
            }
        }
    }

    /// The Secret as it should be; with a new token if there is none that is good.
    async fn make(&self, agent: &AgentName, token: Option<String>) -> Result<Secret, Error> {
        let place = |keys| Some(Place::Secret { name: self.config.certificate.clone(), keys });
        let places = Places { chain: place(&["tls.crt"]), key: place(&["tls.key"]), ca: place(&["ca.crt"]) };
        let material = self.config.reader.read_all(&places).await.map_err(Error::Certificate)?;
        let token = match token {
            Some(token) => token,
            None => {
                let (issuer, agent) = (self.issuer.clone(), agent.clone());
                tokio::task::spawn_blocking(move || issuer.issue_resource_proxy(&agent, clock::now()))
                    .await??
            }
        };
        let server = cluster_secret::server(&self.config.proxy, agent);
        let mark = [(label::SELF_REGISTERED.to_owned(), "true".to_owned())];
        Ok(Cluster::new(agent, server, &material).with_token(token).into_secret(agent, mark.into()))
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}
