//! Carries out decisions at an API server, and writes nothing when nothing changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};

use super::client::said;
use super::informer::trimmed;
use super::kinds;
use crate::model::object::ObjectExt as _;
use crate::model::{Object, ResourceKey};
use crate::protocol::ownership::Decision;

/// What was done.
#[derive(Clone, Debug, PartialEq)]
pub enum Done {
    /// Nothing.
    Unchanged,
    /// Created it; this is what it now is.
    Created(Arc<Object>),
    /// Changed it.
    Updated {
        /// The resource version that was changed.
        from: String,
        /// What it now is.
        object: Arc<Object>,
    },
    /// Deleted it, or began to.
    Deleted,
}

/// Why a decision could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server is away or busy, or others kept changing the resource: worth another try.
    #[error("{what} {key}: {}", said(source))]
    Transient {
        /// What was attempted.
        what: &'static str,
        /// On which resource.
        key: ResourceKey,
        /// What the API server or the way to it said.
        source: Box<kube::Error>,
    },
    /// The API server will not have it.
    #[error("{what} {key}: {}", said(source))]
    Refused {
        /// What was attempted.
        what: &'static str,
        /// On which resource.
        key: ResourceKey,
        /// What the API server said.
        source: Box<kube::Error>,
    },
    /// Others kept changing the resource for longer than we try.
    #[error("update {0}: it was changed by others at each of {TRIES} tries")]
    Contended(ResourceKey),
}

impl Error {
    /// Whether the namespace is not there.
    pub fn is_missing_namespace(&self) -> bool {
        match self {
            Self::Transient { source, .. } => match &**source {
                kube::Error::Api(status) => {
                    status.code == 404 && status.details.as_ref().is_some_and(|it| it.kind == "namespaces")
                }
                _ => false,
            },
            _ => false,
        }
    }

    /// Whether the same attempt may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Transient { .. } | Self::Contended(_))
    }
}

const TRIES: u32 = 8;

/// Writes to one API server. Cheap to clone.
#[derive(Clone)]
pub struct Backend {
    client: Client,
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backend").finish_non_exhaustive()
    }
}

impl Backend {
    /// A backend that writes through `client`.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// The resource as the API server has it now.
    ///
    /// # Errors
    /// [`Error`] for anything but its absence.
    pub async fn get(&self, key: &ResourceKey) -> Result<Option<Arc<Object>>, Error> {
        let api = kinds::api(&self.client, key.kind, Some(&key.namespace));
        let found = api.get_opt(&key.name).await.map_err(|error| classify("read", key, error))?;
        Ok(found.map(|object| Arc::new(trimmed(object))))
    }

    /// Creates a namespace, unless it is there.
    ///
    /// # Errors
    /// [`Error`] about `key`, the resource that needs the namespace.
    pub async fn create_namespace(
        &self,
        key: &ResourceKey,
        labels: &BTreeMap<String, String>,
    ) -> Result<(), Error> {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(key.namespace.clone());
        namespace.metadata.labels = Some(labels.clone()).filter(|labels| !labels.is_empty());
        let api: Api<Namespace> = Api::all(self.client.clone());
        match api.create(&PostParams::default(), &namespace).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(classify("create the namespace of", key, error)),
        }
    }

    /// Makes the resource what `decide` says, starting from `known`, which may be out of date.
    ///
    /// A write carries the resource version (or, for a deletion, the UID) that was decided on. If the resource turns
    /// out to be another, it is read and decided on again. Cancelling between two awaits leaves at most one write
    /// done, and an announced deletion besides.
    ///
    /// # Errors
    /// [`Error`]; whether to try again is [`Error::is_transient`].
    pub async fn reconcile(
        &self,
        key: &ResourceKey,
        known: Option<Arc<Object>>,
        decide: impl Fn(Option<&Object>) -> Decision,
    ) -> Result<Done, Error> {
        let api = kinds::api(&self.client, key.kind, Some(&key.namespace));
        let mut current = known;
        for attempt in 0..TRIES {
            let outcome = match decide(current.as_deref()) {
                Decision::Nothing => return Ok(Done::Unchanged),
                Decision::Create(object) => {
                    let created = api.create(&PostParams::default(), &object).await;
                    created
                        .map(|object| Done::Created(Arc::new(trimmed(object))))
                        .map_err(|error| ("create", error))
                }
                Decision::Replace(next) => {
                    let from = next.resource_version().to_owned();
                    let replaced = api.replace(&key.name, &PostParams::default(), &next).await;
                    replaced
                        .map(|object| Done::Updated { from, object: Arc::new(trimmed(object)) })
                        .map_err(|error| ("update", error))
                }
                Decision::Announce(next) => match api.replace(&key.name, &PostParams::default(), &next).await
                {
                    Ok(announced) => {
                        current = Some(Arc::new(trimmed(announced)));
                        continue;
                    }
                    Err(error) => Err(("announce the end of", error)),
                },
                Decision::Delete => {
                    let uid = current.as_ref().map(|object| object.uid().to_owned());
                    let params = DeleteParams {
                        preconditions: uid
                            .map(|uid| Preconditions { uid: Some(uid), resource_version: None }),
                        // What depends on it is collected afterwards: the name is free at once, also where nobody collects.
                        ..DeleteParams::background()
                    };
                    api.delete(&key.name, &params)
                        .await
                        .map(|_| Done::Deleted)
                        .map_err(|error| ("delete", error))
                }
            };
            match outcome {
                Ok(done) => return Ok(done),
                Err((_, error)) if is_stale(&error) => {
                    if attempt > 1 {
                        tokio::time::sleep(Duration::from_millis(fastrand::u64(5..20 << attempt))).await;
                    }
                    current = self.get(key).await?;
                }
                Err((what, error)) => return Err(classify(what, key, error)),
            }
        }
        Err(Error::Contended(key.clone()))
    }
}

/// The decision was made on something that is no longer there.
fn is_stale(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => {
            status.code == 409
                || (status.code == 404
                    && status
                        .details
                        .as_ref()
                        .is_none_or(|details| !details.name.is_empty() && details.kind != "namespaces"))
        }
        _ => false,
    }
}

fn classify(what: &'static str, key: &ResourceKey, error: kube::Error) -> Error {
    let refused = match &error {
        // 401 and 403 are mended by people, while we wait; a namespace that is missing may still come.
        kube::Error::Api(status) => matches!(status.code, 400 | 405 | 413 | 415 | 422),
        _ => false,
    };
    let (key, source) = (key.clone(), Box::new(error));
    if refused { Error::Refused { what, key, source } } else { Error::Transient { what, key, source } }
}
