//! Definitions that are read once and served by many servers.

use crate::resource::Resource;
use crate::store::{Content, Key, Write};
use crate::{ApiServer, Error, Inner, Options, crd, new_uid, object_meta};
use serde_json::Value;
use std::fmt;
use std::sync::Arc;

/// Custom resource definitions, read and checked, to be given to servers at their start. Clones share all of it.
///
/// ```
/// use tiphys_apiserver::{ApiServer, Definitions, Options};
///
/// let definitions = Definitions::parse("")?;
/// let server = ApiServer::new(Options { definitions, ..Options::default() });
/// # Ok::<(), tiphys_apiserver::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Definitions {
    ready: Arc<[Ready]>,
}

/// A definition as a server keeps it but for what is its own on each, and what it brings.
struct Ready {
    name: String,
    object: Value,
    resources: Vec<Arc<Resource>>,
}

impl fmt::Debug for Definitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

impl Definitions {
    /// Reads definitions from YAML or JSON, several documents if need be.
    pub fn parse(documents: &str) -> Result<Self, Error> {
        // Whatever a server does with a definition, one does here for all.
        let server = ApiServer::new(Options::default());
        let mut ready: Vec<Ready> = Vec::new();
        for name in server.install_crds(documents)? {
            let key = Key::new(crd::STORAGE, "", &name);
            let registry = server.inner.registry();
            if let (Some(stored), Some(served)) = (server.inner.store.get(&key), registry.definition(&name)) {
                let resources = served.resources.clone();
                ready.push(Ready { name, object: stored.to_value(), resources });
            }
        }
        Ok(Self { ready: ready.into() })
    }

    /// The names of the definitions.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.ready.iter().map(|ready| ready.name.as_str())
    }

    /// Puts those into a server that it does not have.
    pub(crate) fn add(&self, server: &ApiServer) -> Result<(), Error> {
        let present = server.inner.registry();
        for ready in self.ready.iter().filter(|ready| present.definition(&ready.name).is_none()) {
            let mut object = ready.object.clone();
            if let Some(metadata) = object["metadata"].as_object_mut() {
                let own = |field: &str| matches!(field, "uid" | "creationTimestamp" | "resourceVersion");
                metadata.retain(|field, _| !own(field));
            }
            server.define(object)?;
        }
        Ok(())
    }

    /// Puts the definitions into a new server.
    pub(crate) fn install(&self, server: &Inner) {
        if self.ready.is_empty() {
            return;
        }
        let now = object_meta::timestamp(server.now());
        let mut registry = crd::Registry::default();
        for ready in self.ready.iter() {
            let mut object = ready.object.clone();
            object["metadata"]["uid"] = new_uid().into();
            object["metadata"]["creationTimestamp"] = now.clone().into();
            for condition in object["status"]["conditions"].as_array_mut().into_iter().flatten() {
                condition["lastTransitionTime"] = now.clone().into();
            }
            let key = Key::new(crd::STORAGE, "", &ready.name);
            // Nothing else is in the server yet that it could clash with.
            if let Ok(change) = server.store.commit(&key, None, Write::Put(Content::from_value(&object))) {
                registry.adopt(&ready.name, change.revision, ready.resources.clone());
            }
        }
        server.adopt(registry);
    }
}
