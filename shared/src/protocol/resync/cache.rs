//! Digests of objects that have not changed since they were asked for.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::digest::{self, Digest, Scope};
use crate::model::object::ObjectExt as _;
use crate::model::{Kind, Object, ResourceKey};

/// Digests by resource, each with the resource version that it was computed from.
#[derive(Debug, Default)]
pub struct Cache {
    digests: Mutex<HashMap<(ResourceKey, Scope), (String, Digest)>>,
}

impl Cache {
    /// Digest of an object as `project` shows it to the peer; the same for every peer.
    pub fn digest(
        &self,
        kind: Kind,
        scope: Scope,
        object: &Object,
        project: impl FnOnce(&Object) -> Digest,
    ) -> Digest {
        let key = (object.key(kind), scope);
        let version = object.resource_version();
        if let Some((known, digest)) = self.digests.lock().get(&key)
            && known == version
        {
            return *digest;
        }
        let digest = project(object);
        self.digests.lock().insert(key, (version.to_owned(), digest));
        digest
    }

    /// Digest of an object as it is.
    pub fn digest_of(&self, kind: Kind, scope: Scope, object: &Object) -> Digest {
        self.digest(kind, scope, object, |object| digest::digest(kind, scope, object))
    }

    /// The object is gone.
    pub fn forget(&self, key: &ResourceKey) {
        let mut digests = self.digests.lock();
        for scope in [Scope::Spec, Scope::Status, Scope::Whole] {
            digests.remove(&(key.clone(), scope));
        }
    }
}
