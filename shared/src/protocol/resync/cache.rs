//! What would else be computed again for every question: digests of objects that have not changed, and trees of a moment ago.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::digest::{self, Digest, Scope};
use super::tree::Tree;
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

/// For how long a tree answers questions: long enough for the questions and answers of one comparison, so that a peer that
/// asks without end makes us build no more than a few a second; too short to matter, since what a comparison finds is
/// looked up anew before anything is done about it.
const FRESH: Duration = Duration::from_millis(250);

/// The trees of one peer.
#[derive(Debug, Default)]
pub struct Trees {
    recent: Mutex<BTreeMap<Scope, (Instant, Arc<Tree>)>>,
}

impl Trees {
    /// The tree of a scope, built unless there is one of a moment ago.
    pub fn get(&self, scope: Scope, now: Instant, build: impl FnOnce() -> Tree) -> Arc<Tree> {
        if let Some((built, tree)) = self.recent.lock().get(&scope)
            && now.saturating_duration_since(*built) < FRESH
        {
            return Arc::clone(tree);
        }
        let tree = Arc::new(build());
        self.recent.lock().insert(scope, (now, Arc::clone(&tree)));
        tree
    }

    /// Forgets them: a comparison begins.
    pub fn clear(&self) {
        self.recent.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_asks_without_end_makes_us_build_few_trees() {
        let (trees, start) = (Trees::default(), Instant::now());
        let mut built = 0;
        for n in 0..1_000_u64 {
            trees.get(Scope::Spec, start + Duration::from_millis(n), || {
                built += 1;
                Tree::default()
            });
        }
        assert_eq!(built, 4);
    }
}
