//! Certificates and keys where a deployment keeps them, in files or in Secrets, and kept current while the process runs.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use super::informer::Pauses;
use crate::process::options::Problem;
use crate::process::persist::persist;
use crate::security::secret::Secret;
use crate::security::tls::{self, Material};

/// How often files are looked at. Kubernetes swaps a link above mounted files, which file watchers miss.
const LOOK: Duration = Duration::from_secs(10);

/// How long an API server that cannot be reached is waited for. Then whoever started this process hears of it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where one piece of PEM text is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a file.
    File(PathBuf),
    /// In a Secret, under the first of these keys that it has.
    Secret {
        /// Name of the Secret.
        name: String,
        /// Keys, in the order of preference.
        keys: &'static [&'static str],
    },
}

/// Where the parts of a [`Material`] are kept. A part without a place is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// The own certificate and its intermediates.
    pub chain: Option<Place>,
    /// The own private key.
    pub key: Option<Place>,
    /// The CA bundle.
    pub ca: Option<Place>,
}

/// Reads PEM text from Secrets of one namespace, and from files.
#[derive(Clone)]
pub struct Reader {
    /// The cluster that has the Secrets.
    pub client: Client,
    /// Their namespace.
    pub namespace: String,
}

impl Reader {
    /// Reads one piece.
    ///
    /// # Errors
    /// What is missing, and what to do about it.
    pub async fn read(&self, place: &Place) -> Result<Vec<u8>, Problem> {
        match place {
            Place::File(path) => tokio::fs::read(path).await.map_err(|error| {
                Problem::new(
                    format!("cannot read {}: {error}", path.display()),
                    "check the path and that this process may read the file",
                )
            }),
            Place::Secret { name, keys } => self.read_secret(name, keys).await,
        }
    }

    async fn read_secret(&self, name: &str, keys: &[&str]) -> Result<Vec<u8>, Problem> {
        let namespace = &self.namespace;
        let secrets: Api<KubeSecret> = Api::namespaced(self.client.clone(), namespace);
        let found = persist(PATIENCE, may_pass, || async {
            let found = secrets.get_opt(name).await;
            if let Err(error) = &found {
                tracing::warn!(namespace, name, %error, "cannot read a Secret yet");
            }
            found
        });
        let found = found.await.map_err(|error| {
            Problem::new(
                format!("cannot read Secret {namespace}/{name}: {error}"),
                "check that the API server is reachable and that this process may get Secrets there",
            )
        })?;
        let secret = found.ok_or_else(|| {
            Problem::new(
                format!("there is no Secret {name:?} in namespace {namespace:?}"),
                format!("create it with {}, or name another with the option for it", keys.join(" or ")),
            )
        })?;
        let data = secret.data.unwrap_or_default();
        keys.iter().find_map(|key| data.get(*key)).map(|bytes| bytes.0.clone()).ok_or_else(|| {
            Problem::new(
                format!("Secret {namespace}/{name} has no {}", keys.join(" and no ")),
                format!("it has {}; put the PEM text under the right key", listed(data.keys())),
            )
        })
    }

    /// Reads all parts.
    ///
    /// # Errors
    /// The first that cannot be read.
    pub async fn read_all(&self, places: &Places) -> Result<Material, Problem> {
        let part = async |place: &Option<Place>| match place {
            Some(place) => self.read(place).await,
            None => Ok(Vec::new()),
        };
        Ok(Material {
            chain: part(&places.chain).await?,
            key: Secret::new(part(&places.key).await?),
            ca: part(&places.ca).await?,
        })
    }

    /// Hands what changes in `places` to `replace`, until `cancel`: Secrets as soon as they change, files within seconds.
    /// What cannot be read or used leaves the old material in place, and is logged once per change.
    pub async fn keep_current(
        self,
        places: Places,
        mut known: Material,
        cancel: CancellationToken,
        replace: impl Fn(&Material) -> Result<(), tls::Error>,
    ) {
        let secrets: BTreeSet<&str> = [&places.chain, &places.key, &places.ca]
            .into_iter()
            .flatten()
            .filter_map(|place| match place {
                Place::Secret { name, .. } => Some(name.as_str()),
                Place::File(_) => None,
            })
            .collect();
        let api: Api<KubeSecret> = Api::namespaced(self.client.clone(), &self.namespace);
        let watches = secrets.into_iter().map(|name| {
            let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
            watcher(api.clone(), config).backoff(Pauses::default()).boxed()
        });
        let mut watches = futures::stream::select_all(watches);
        let mut tick = tokio::time::interval(LOOK);
        let mut last_failure = String::new();
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                Some(_) = watches.next(), if !watches.is_empty() => {}
                _ = tick.tick() => {}
            }
            let outcome = match self.read_all(&places).await {
                Ok(material) if material == known => continue,
                Ok(material) => {
                    replace(&material).map(|()| known = material).map_err(|error| error.to_string())
                }
                Err(problem) => Err(problem.what),
            };
            match outcome {
                Ok(()) => {
                    tracing::info!("certificates changed; new connections use the new ones");
                    last_failure.clear();
                }
                Err(failure) if failure != last_failure => {
                    tracing::warn!(
                        error = failure,
                        "certificates changed but cannot be used; the old ones stay in use"
                    );
                    last_failure = failure;
                }
                Err(_) => {}
            }
        }
    }
}

fn listed<'a>(keys: impl Iterator<Item = &'a String>) -> String {
    let keys: Vec<&str> = keys.map(String::as_str).collect();
    if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") }
}

/// Whether the API server may answer otherwise soon: it was not reached, or is busy.
fn may_pass(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code == 429 || status.code >= 500,
        _ => true,
    }
}
