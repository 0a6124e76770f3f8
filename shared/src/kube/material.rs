//! Certificates and keys where a deployment keeps them, in files or in Secrets, and kept current while the process runs.

mod ledger;
mod watched;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::{Api, Client};
use prometheus::Registry;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use self::ledger::Ledger;
use self::watched::{Follower, Watched};
use super::client;
use super::recorder::Recorder;
use crate::process::options::Problem;
use crate::process::persist::persist;
use crate::process::{clock, metrics};
use crate::security::secret::Secret;
use crate::security::tls::Material;

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

impl Places {
    fn all(&self) -> impl Iterator<Item = &Place> {
        [&self.chain, &self.key, &self.ca].into_iter().flatten()
    }
}

/// Registers the figures of a [`Reader`], to be described.
///
/// # Errors
/// [`metrics::Error`] if there are such figures already.
pub fn describe(registry: &impl metrics::Register) -> Result<(), metrics::Error> {
    ledger::reloads(registry).map(drop)
}

/// Reads PEM text from Secrets of one namespace, and from files. Clones share their watches.
#[derive(Clone)]
pub struct Reader {
    client: Client,
    namespace: String,
    watched: Arc<Watched>,
    ledger: Ledger,
}

impl Reader {
    /// Reads Secrets of `namespace`. What becomes of changes is told in `registry`, and in the Events of `recorder`.
    ///
    /// # Errors
    /// [`metrics::Error`] if the registry has these figures already.
    pub fn new(
        client: Client,
        namespace: impl Into<String>,
        recorder: Recorder,
        registry: &Registry,
    ) -> Result<Self, metrics::Error> {
        let namespace = namespace.into();
        let ledger = Ledger::new(&namespace, recorder, registry)?;
        Ok(Self { client, namespace, watched: Arc::default(), ledger })
    }

    /// The API server that has the Secrets.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

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
            Place::Secret { name, keys } => {
                let content = self.read_secret(name, keys).await?;
                self.pick(name, keys, &content)
            }
        }
    }

    async fn read_secret(&self, name: &str, keys: &[&str]) -> Result<BTreeMap<String, ByteString>, Problem> {
        let namespace = &self.namespace;
        let secrets: Api<KubeSecret> = Api::namespaced(self.client.clone(), namespace);
        let found = persist(PATIENCE, client::may_pass, || async {
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
        Ok(secret.data.unwrap_or_default())
    }

    fn pick(
        &self,
        name: &str,
        keys: &[&str],
        content: &BTreeMap<String, ByteString>,
    ) -> Result<Vec<u8>, Problem> {
        keys.iter().find_map(|key| content.get(*key)).map(|bytes| bytes.0.clone()).ok_or_else(|| {
            Problem::new(
                format!("Secret {}/{name} has no {}", self.namespace, keys.join(" and no ")),
                format!("it has {}; put the PEM text under the right key", listed(content.keys())),
            )
        })
    }

    /// Reads all parts.
    ///
    /// # Errors
    /// The first that cannot be read.
    pub async fn read_all(&self, places: &Places) -> Result<Material, Problem> {
        self.gather(places, &BTreeMap::new()).await
    }

    /// Reads all parts; Secrets that are followed are taken as they were last heard of.
    async fn gather(
        &self,
        places: &Places,
        followers: &BTreeMap<&str, Follower>,
    ) -> Result<Material, Problem> {
        let part = async |place: &Option<Place>| match place {
            None => Ok(Vec::new()),
            Some(Place::Secret { name, keys }) => {
                let heard = followers.get(name.as_str()).and_then(|follower| follower.borrow().clone());
                match heard {
                    Some(content) => self.pick(name, keys, &content),
                    None => self.read(&Place::Secret { name: name.clone(), keys }).await,
                }
            }
            Some(file) => self.read(file).await,
        };
        Ok(Material {
            chain: part(&places.chain).await?,
            key: Secret::new(part(&places.key).await?),
            ca: part(&places.ca).await?,
        })
    }

    /// Hands what changes in `places` to `replace`, in a task of its own until `cancel`: Secrets as soon as they change,
    /// files within seconds. What cannot be read or used, or is out of its time, leaves the old material in place; that is
    /// told once per change. `kind` says what it is used for, in figures and in the log.
    pub fn keep_current<E: Display + Send>(
        &self,
        kind: &'static str,
        places: Places,
        known: Material,
        cancel: &CancellationToken,
        replace: impl Fn(&Material) -> Result<(), E> + Send + Sync + 'static,
    ) {
        let (reader, cancel) = (self.clone(), cancel.clone());
        tokio::spawn(async move { reader.keep(kind, &places, known, &cancel, replace).await });
    }

    async fn keep<E: Display + Send>(
        &self,
        kind: &'static str,
        places: &Places,
        mut known: Material,
        cancel: &CancellationToken,
        replace: impl Fn(&Material) -> Result<(), E> + Send + Sync,
    ) {
        let names: BTreeSet<&str> = places
            .all()
            .filter_map(|place| match place {
                Place::Secret { name, .. } => Some(name.as_str()),
                Place::File(_) => None,
            })
            .collect();
        let followers: BTreeMap<&str, Follower> = names
            .into_iter()
            .map(|name| (name, self.watched.follow(&self.client, &self.namespace, name, cancel)))
            .collect();
        let mut changes: FuturesUnordered<_> = followers
            .values()
            .cloned()
            .map(|mut follower| {
                // Another use may have heard of it already, and of more than was read for this one.
                if follower.borrow().is_some() {
                    follower.mark_changed();
                }
                changed(follower)
            })
            .collect();
        let has_files = places.all().any(|place| matches!(place, Place::File(_)));
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut validity = ledger::in_use(&known);
        let mut warned = false;
        let mut failure = String::new();
        // What was refused last: by its time, which passes, or for good.
        let (mut early, mut unusable) = (false, None);
        loop {
            let warning = async {
                match validity {
                    Some(validity) => tokio::time::sleep(validity.until_warning(warned, clock::now())).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                Some(follower) = changes.next() => {
                    // The watch ends with the process.
                    let Some(follower) = follower else { return };
                    changes.push(changed(follower));
                }
                // What is not good yet may become so.
                _ = look.tick(), if has_files || early => {}
                () = warning => {
                    let now = clock::now();
                    if let Some(late) = validity.filter(|validity| validity.is_late(now)) {
                        warned = true;
                        self.ledger.ends(kind, places, late, now);
                    }
                    continue;
                }
            }
            let outcome = match self.gather(places, &followers).await {
                Ok(material) if material == known => {
                    failure.clear();
                    early = false;
                    continue;
                }
                Ok(material) if unusable.as_ref() == Some(&material) => continue,
                Ok(material) => {
                    let in_time = material.check(clock::now());
                    early = in_time.is_err();
                    match in_time.map_err(|error| error.to_string()) {
                        Ok(()) => match replace(&material) {
                            Ok(()) => {
                                known = material;
                                Ok(())
                            }
                            Err(error) => {
                                unusable = Some(material);
                                Err(error.to_string())
                            }
                        },
                        Err(error) => Err(error),
                    }
                }
                Err(problem) => Err(problem.what),
            };
            match outcome {
                Ok(()) => {
                    failure.clear();
                    (validity, warned) = (ledger::in_use(&known), false);
                    self.ledger.replaced(kind);
                }
                Err(found) if found != failure => {
                    self.ledger.refused(kind, places, &found);
                    failure = found;
                }
                Err(_) => {}
            }
        }
    }
}

/// Waits until something else is heard. None once nothing will be heard any more.
async fn changed(mut follower: Follower) -> Option<Follower> {
    follower.changed().await.ok().map(|()| follower)
}

fn listed<'a>(keys: impl Iterator<Item = &'a String>) -> String {
    let keys: Vec<&str> = keys.map(String::as_str).collect();
    if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") }
}
