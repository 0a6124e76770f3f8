//! The config map that names the certificates which are refused although the CA has signed them.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::watcher::Event;
use kube::{Api, Client};
use prometheus::{IntCounter, IntGauge, Registry};
use tiphys_shared::kube::client;
use tiphys_shared::kube::informer::watch_one;
use tiphys_shared::process::metrics::{Error, Register, register};
use tiphys_shared::process::options::Problem;
use tiphys_shared::process::persist::persist;
use tiphys_shared::security::blocklist::{Blocklist, fingerprint};
use tokio_util::sync::CancellationToken;

/// Upstream's name for it. A key is a fingerprint; its value may say why.
pub const NAME: &str = "argocd-agent-tls-blocklist";
/// How long an API server that cannot be reached is waited for at the start.
const PATIENCE: Duration = Duration::from_secs(30);

struct Figures {
    blocked: IntGauge,
    cut: IntCounter,
}

impl Figures {
    fn new(registry: &impl Register) -> Result<Self, Error> {
        let blocked = IntGauge::new(
            "tiphys_principal_blocked_certificates",
            "Number of client certificates on the blocklist",
        )?;
        let cut = IntCounter::new(
            "tiphys_principal_revoked_connections_total",
            "Number of open connections that ended because their certificate was put on the blocklist",
        )?;
        Ok(Self { blocked: register(registry, blocked)?, cut: register(registry, cut)? })
    }

    fn apply(&self, blocklist: &Blocklist, data: BTreeMap<String, String>) {
        let mut blocked = BTreeMap::new();
        for (key, reason) in data {
            match fingerprint(&key) {
                Some(fingerprint) => _ = blocked.insert(fingerprint, reason),
                None => tracing::warn!(
                    config_map = NAME,
                    key,
                    "entry ignored: a key is the SHA-256 of a certificate, 64 hexadecimal digits"
                ),
            }
        }
        let cut = blocklist.replace(blocked);
        self.blocked.set(i64::try_from(blocklist.len()).unwrap_or(i64::MAX));
        self.cut.inc_by(u64::try_from(cut).unwrap_or(u64::MAX));
        tracing::info!(certificates = blocklist.len(), connections_cut = cut, "blocklist read");
    }
}

/// Registers the figures of the blocklist, to be described.
pub(crate) fn describe(registry: &impl Register) -> Result<(), Error> {
    Figures::new(registry).map(drop)
}

/// Reads the blocklist, and follows it until `cancel`. What is on it when this returns is refused from the start. While it
/// cannot be read, the last one counts.
///
/// # Errors
/// That it cannot be read: nobody is let in without it.
pub async fn follow(
    client: Client,
    namespace: &str,
    registry: &Registry,
    cancel: &CancellationToken,
) -> Result<Blocklist, Problem> {
    let figures = Figures::new(registry).map_err(|error| {
        Problem::new(error.to_string(), "give every principal of a process a registry of its own")
    })?;
    let api: Api<ConfigMap> = Api::namespaced(client, namespace);
    let first = persist(PATIENCE, client::may_pass, || api.get_opt(NAME)).await.map_err(|error| {
        Problem::new(
            format!("cannot read config map {namespace}/{NAME}: {error}"),
            "check that this process may get, list and watch config maps there; there need not be one",
        )
    })?;
    let blocklist = Blocklist::default();
    figures.apply(&blocklist, first.and_then(|map| map.data).unwrap_or_default());
    let followed = watch(api, blocklist.clone(), figures);
    tokio::spawn(cancel.clone().run_until_cancelled_owned(followed));
    Ok(blocklist)
}

async fn watch(api: Api<ConfigMap>, blocklist: Blocklist, figures: Figures) {
    let mut events = watch_one(api, NAME);
    let mut listed = BTreeMap::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed = BTreeMap::new(),
            Ok(Event::InitApply(map)) => listed = map.data.unwrap_or_default(),
            Ok(Event::InitDone) => figures.apply(&blocklist, std::mem::take(&mut listed)),
            Ok(Event::Apply(map)) => figures.apply(&blocklist, map.data.unwrap_or_default()),
            Ok(Event::Delete(_)) => figures.apply(&blocklist, BTreeMap::new()),
            Err(error) => tracing::warn!(%error, "the blocklist cannot be followed; the last one counts"),
        }
    }
}
