//! A cluster in a box: an embedded Kubernetes-compatible API server.
//!
//! ```text
//! socket or in-process call ─▶ serve ─▶ read, write ─▶ store ─▶ watch ─▶ event lines
//!                                │         │
//!                          discovery   object_meta, schema, patch: pure rules
//! ```
//!
//! Nothing is kept across a restart, and there is no task in the background: a server that nobody asks costs a few
//! kilobytes. One that is opened on a file ([`ApiServer::open`]) keeps everything there, and answers a write when it
//! is on disk. Controllers (for dependents and namespaces, no others) run if somebody runs them.

mod auth;
mod builtin;
mod controllers;
mod crd;
mod definitions;
mod discovery;
mod disk;
mod expiry;
mod fields;
mod jsonpath;
mod kept;
mod listen;
mod object_meta;
mod openapi;
mod patch;
mod resource;
mod review;
mod schema;
mod selector;
mod serve;
mod status;
mod store;
mod watch;
mod write;
mod yaml;

#[cfg(test)]
mod tests;

pub use definitions::Definitions;
pub use disk::Error as DiskError;
pub use listen::{Bound, Error as ListenError};
pub use serve::ResponseBody;

use bytes::Bytes;
use http::{Request, Response};
use jiff::Timestamp;
use object_meta::Birth;
use parking_lot::RwLock;
use resource::Resource;
use serde_json::{Value, json};
use serve::Arrival;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::task::{Context, Poll};
use store::{Change, Key, Store, Window, Write};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use write::{Call, DeleteOptions, FieldValidation, Part};

/// What `/version` tells.
#[derive(Debug, Clone)]
pub struct VersionInfo {
    /// Major version of Kubernetes.
    pub major: String,
    /// Minor version of Kubernetes.
    pub minor: String,
    /// The full version.
    pub git_version: String,
}

impl Default for VersionInfo {
    fn default() -> Self {
        Self { major: "1".into(), minor: "33".into(), git_version: "v1.33.0+tiphys".into() }
    }
}

impl VersionInfo {
    fn to_value(&self) -> Value {
        json!({
            "major": self.major,
            "minor": self.minor,
            "gitVersion": self.git_version,
            "gitCommit": "",
            "gitTreeState": "",
            "buildDate": "1970-01-01T00:00:00Z",
            "goVersion": "",
            "compiler": "rustc",
            "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
        })
    }
}

/// How a server is made.
#[derive(Clone)]
pub struct Options {
    /// How many past changes of each resource are kept for watches and paged lists.
    pub window: usize,
    /// Beyond this many bytes of objects only the last few changes of a resource are kept.
    pub window_bytes: usize,
    /// Users by bearer token. Empty: everybody may do everything.
    pub tokens: BTreeMap<String, String>,
    /// What `/version` tells.
    pub version: VersionInfo,
    /// Custom resources that are served from the start. Read once, they cost next to nothing per server.
    pub definitions: Definitions,
    /// The time at which the server starts, if not now. From there it follows tokio's clock.
    pub start: Option<Timestamp>,
    /// The revision to count from. A server that takes the place of another starts above its revisions, so
    /// that clients of the other are told to list anew.
    pub first_revision: u64,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Tokens are secrets; who has one is not.
        f.debug_struct("Options")
            .field("window", &self.window)
            .field("window_bytes", &self.window_bytes)
            .field("users", &self.tokens.values())
            .field("version", &self.version)
            .field("definitions", &self.definitions)
            .field("start", &self.start)
            .field("first_revision", &self.first_revision)
            .finish()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            window: 1000,
            window_bytes: 4 * 1024 * 1024,
            tokens: BTreeMap::new(),
            version: VersionInfo::default(),
            definitions: Definitions::default(),
            start: None,
            first_revision: 1,
        }
    }
}

impl Options {
    fn window(&self) -> Window {
        Window { changes: self.window, bytes: self.window_bytes }
    }
}

/// What can go wrong in calls on the server itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The documents could not be read.
    #[error("cannot read the documents")]
    Documents(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A document is something else than a definition.
    #[error("expected a CustomResourceDefinition, found {kind:?}")]
    NotADefinition {
        /// What it says it is.
        kind: String,
    },
    /// The server refused a definition.
    #[error("definition {name:?} was refused: {message}")]
    Refused {
        /// Name of the definition.
        name: String,
        /// Why, in the server's words.
        message: String,
    },
    /// A socket could not be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The file cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The server cannot begin.
    #[error("cannot start the API server")]
    Start(#[source] Box<dyn std::error::Error + Send + Sync>),
}

pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) tokens: BTreeMap<String, String>,
    pub(crate) version: VersionInfo,
    /// Events created so far.
    pub(crate) events: AtomicU32,
    registry: RwLock<Arc<crd::Registry>>,
    start: Timestamp,
    started: Instant,
}

impl Inner {
    /// The present time, by tokio's clock.
    pub(crate) fn now(&self) -> Timestamp {
        let elapsed = jiff::SignedDuration::try_from(self.started.elapsed()).unwrap_or_default();
        self.start.checked_add(elapsed).unwrap_or(self.start)
    }

    pub(crate) fn birth<'a>(&self, namespace: &'a str) -> Birth<'a> {
        const SUFFIX: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        let suffix = (0..5).map(|_| char::from(fastrand::choice(SUFFIX).copied().unwrap_or(b'x'))).collect();
        Birth { now: self.now(), uid: new_uid(), suffix, namespace }
    }

    pub(crate) fn registry(&self) -> Arc<crd::Registry> {
        self.registry.read().clone()
    }

    /// A resource that is served.
    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        builtin::find(group, version, plural).or_else(|| self.registry.read().find(group, version, plural))
    }

    pub(crate) fn adopt(&self, registry: crd::Registry) {
        *self.registry.write() = Arc::new(registry);
    }

    fn refresh_registry(&self) {
        let mut registry = self.registry.write();
        *registry = Arc::new(registry.rebuilt(&self.store));
    }

    /// What follows from a write, beyond the object itself.
    pub(crate) fn after_write(&self, resource: &Resource, change: &Change) {
        if resource.storage.as_ref() == crd::STORAGE {
            self.after_definition(change);
            return;
        }
        expiry::after_write(self, &resource.storage, change);
        // Asked anew: it may be terminating by now although it was not when the write began.
        let terminating = || {
            let present = self.find(&resource.group, &resource.version, &resource.plural);
            present.is_some_and(|resource| resource.is_terminating())
        };
        if resource.is_custom() && change.after.is_none() && terminating() {
            self.finish_definition(&crd::definition_key(&resource.group, &resource.plural));
        }
    }

    fn after_definition(&self, change: &Change) {
        let gone = change.after.is_none();
        let Some(stored) = change.after.as_ref().or(change.before.as_ref()) else { return };
        let storage = |value: &Value| {
            resource::storage_name(
                value["spec"]["group"].as_str().unwrap_or_default(),
                value["spec"]["names"]["plural"].as_str().unwrap_or_default(),
            )
        };
        let value = stored.to_value();
        self.refresh_registry();
        if gone {
            self.store.close(&storage(&value));
        } else if object_meta::is_deleting(&value) {
            self.delete_instances(&value, &storage(&value));
            self.finish_definition(&stored.key);
        }
    }

    /// Begins the deletion of everything that a definition brought.
    fn delete_instances(&self, definition: &Value, storage: &str) {
        let name = object_meta::text(definition, "name");
        let registry = self.registry();
        let group = definition["spec"]["group"].as_str().unwrap_or_default();
        let Some(resource) =
            registry.resources().find(|r| r.group == group && r.storage.as_ref() == storage).cloned()
        else {
            return;
        };
        let snapshot = self.store.newest();
        for stored in snapshot.range(&format!("{storage}/"), None) {
            let call = Call {
                server: self,
                resource: &resource,
                namespace: stored.key.namespace(),
                name: stored.key.name(),
                part: Part::Whole,
                dry_run: false,
                validation: FieldValidation::Ignore,
                manager: None,
                subresource: "",
            };
            if let Err(failure) = write::delete(&call, &DeleteOptions::default())
                && failure.code != 404
            {
                tracing::warn!(
                    definition = name,
                    object = stored.key.name(),
                    message = failure.message,
                    "not deleted"
                );
            }
        }
    }

    /// Removes what was created while its definition went. Whoever creates after this finds no definition.
    fn sweep(&self, storage: &str) {
        let snapshot = self.store.newest();
        for stored in snapshot.range(&format!("{storage}/"), None) {
            // If it has changed, its creator is removing it.
            let _ = self.store.commit(&stored.key, Some(stored.revision), Write::Remove);
        }
    }

    /// Lets a definition go if it is being deleted and nothing is left of it.
    pub(crate) fn finish_definition(&self, key: &Key) {
        while let Some(current) = self.store.get(key) {
            let mut value = current.to_value();
            let finalizers = object_meta::finalizers(&value);
            if !object_meta::is_deleting(&value) || !finalizers.contains(&crd::FINALIZER) {
                return;
            }
            let rest: Vec<&str> = finalizers.into_iter().filter(|f| *f != crd::FINALIZER).collect();
            let rest = json!(rest);
            let storage = resource::storage_name(
                value["spec"]["group"].as_str().unwrap_or_default(),
                value["spec"]["names"]["plural"].as_str().unwrap_or_default(),
            );
            if self.store.newest().range(&format!("{storage}/"), None).next().is_some() {
                return;
            }
            let write = if rest.as_array().is_none_or(Vec::is_empty) {
                Write::Remove
            } else {
                value["metadata"]["finalizers"] = rest;
                let managed = current.content.managed().clone();
                Write::Put(store::Content::from_value(&value).managed_by(managed))
            };
            if self.store.commit(key, Some(current.revision), write).is_ok() {
                self.refresh_registry();
                self.sweep(&storage);
                self.store.close(&storage);
                return;
            }
        }
    }
}

/// A random UUID.
///
/// Like every random choice here it comes from the generator of the thread, so that whoever seeds that and
/// keeps to one thread gets the same cluster again.
pub(crate) fn new_uid() -> String {
    uuid::Builder::from_random_bytes(fastrand::u128(..).to_be_bytes()).into_uuid().to_string()
}

/// An API server. Clones are handles to the same one.
#[derive(Clone)]
pub struct ApiServer {
    inner: Arc<Inner>,
}

impl fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiServer").field("revision", &self.revision()).finish_non_exhaustive()
    }
}

impl ApiServer {
    /// A server with nothing in it but the namespaces that every cluster has, and the definitions given.
    pub fn new(options: Options) -> Self {
        let definitions = options.definitions.clone();
        let store = Store::new(options.window(), options.first_revision);
        let server = Self::over(store, options);
        definitions.install(&server.inner);
        server
    }

    /// A server with what is in the store, and the namespaces that every cluster has.
    fn over(store: Store, options: Options) -> Self {
        let inner = Inner {
            store,
            tokens: options.tokens,
            version: options.version,
            events: AtomicU32::new(0),
            registry: RwLock::default(),
            start: options.start.unwrap_or_else(Timestamp::now),
            started: Instant::now(),
        };
        let server = Self { inner: Arc::new(inner) };
        for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
            let namespace = json!({"metadata": {"name": name}});
            match server.create("", "v1", "namespaces", namespace) {
                // It may have been there before.
                Err(failure) if failure.code != 409 => {
                    tracing::error!(namespace = name, message = failure.message, "not created");
                }
                _ => {}
            }
        }
        server
    }

    fn create(&self, group: &str, version: &str, plural: &str, object: Value) -> Result<(), status::Failure> {
        let resource =
            self.inner.find(group, version, plural).ok_or_else(status::Failure::no_such_resource)?;
        let call = Call {
            server: &self.inner,
            resource: &resource,
            namespace: "",
            name: "",
            part: Part::Whole,
            dry_run: false,
            validation: FieldValidation::Ignore,
            manager: None,
            subresource: "",
        };
        write::create(&call, object).map(|_| ())
    }

    /// The server as a service for [`kube::Client::new`]: no sockets, and no token needed.
    pub fn service(&self) -> Service {
        Service { inner: self.inner.clone() }
    }

    /// A client that calls the server in process, with `default` as its namespace.
    ///
    /// To be called within a tokio runtime, as every constructor of clients.
    pub fn client(&self) -> kube::Client {
        kube::Client::new(self.service(), "default")
    }

    /// Opens a socket. With `tls` only TLS is spoken on it.
    pub async fn bind(
        &self,
        address: SocketAddr,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Result<Bound, Error> {
        Ok(Bound::new(self.inner.clone(), address, tls).await?)
    }

    /// Creates custom resource definitions from YAML or JSON, several documents if need be, and tells their
    /// names. Their resources are served at once.
    pub fn install_crds(&self, documents: &str) -> Result<Vec<String>, Error> {
        let values = yaml::documents(documents).map_err(|why| Error::Documents(Box::new(why)))?;
        let mut names = Vec::new();
        for value in values.into_iter().filter(|value| !value.is_null()) {
            if value["kind"] != "CustomResourceDefinition" {
                return Err(Error::NotADefinition {
                    kind: value["kind"].as_str().unwrap_or_default().into(),
                });
            }
            names.push(self.define(value)?);
        }
        Ok(names)
    }

    /// Creates a definition, and tells its name.
    fn define(&self, definition: Value) -> Result<String, Error> {
        let name = object_meta::text(&definition, "name").to_owned();
        match self.create("apiextensions.k8s.io", "v1", "customresourcedefinitions", definition) {
            Ok(()) => Ok(name),
            Err(failure) => Err(Error::Refused { name, message: failure.message }),
        }
    }

    /// Does until `cancel` what the controllers of a cluster do about deletion: dependents go with their owners (in
    /// the background, in the foreground, or not, as asked), and namespaces with what is in them.
    ///
    /// Without it the server is as a kube-apiserver alone: dependents stay, and so do namespaces, as `Terminating`.
    pub fn run_controllers(&self, cancel: CancellationToken) -> impl Future<Output = ()> + Send + use<> {
        controllers::run(self.inner.clone(), cancel)
    }

    /// Forgets all past changes, as a compaction would: watches and pages from before have to start anew.
    pub fn compact(&self) {
        self.inner.store.compact(None);
    }

    /// The revision of the latest change.
    pub fn revision(&self) -> u64 {
        self.inner.store.revision()
    }
}

/// The server as a [`tower::Service`].
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

impl<B> tower::Service<Request<B>> for Service
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<tower::BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let arrival = Arrival { in_process: true, shutdown: CancellationToken::new() };
        let inner = self.inner.clone();
        Box::pin(async move { Ok(serve::handle(inner, arrival, request).await) })
    }
}
