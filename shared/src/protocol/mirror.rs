//! The last state accepted from each resource's owner: what a local edit is reverted to, also while the owner is away.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::{Object, ResourceKey, SourceUid};

/// What the owner wants of a resource.
#[derive(Clone, Debug, PartialEq)]
pub enum Wanted {
    /// It is to be this.
    Present(Arc<Object>),
    /// It is to be gone. The source UID says which life of the name is meant.
    Absent(SourceUid),
}

/// What the owner wants of all resources that it has spoken of.
#[derive(Debug, Default)]
pub struct Mirror {
    wanted: HashMap<ResourceKey, Wanted>,
}

impl Mirror {
    /// What the owner wants of the resource; none if it has not spoken of it.
    pub fn get(&self, key: &ResourceKey) -> Option<&Wanted> {
        self.wanted.get(key)
    }

    /// The owner wants this now.
    pub fn accept(&mut self, key: ResourceKey, wanted: Wanted) {
        self.wanted.insert(key, wanted);
    }

    /// Takes what is here for what the owner wants, unless the owner has spoken. For a start before the owner is heard.
    pub fn assume(&mut self, key: ResourceKey, present: Arc<Object>) {
        self.wanted.entry(key).or_insert(Wanted::Present(present));
    }

    /// The resource is gone, as was wanted: nothing is left to be remembered. Returns which life it was.
    pub fn forget_absent(&mut self, key: &ResourceKey) -> Option<SourceUid> {
        match self.wanted.get(key)? {
            Wanted::Absent(uid) => {
                let uid = uid.clone();
                self.wanted.remove(key);
                Some(uid)
            }
            Wanted::Present(_) => None,
        }
    }

    /// Number of resources.
    pub fn len(&self) -> usize {
        self.wanted.len()
    }

    /// Whether the owner has not spoken of any resource.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }
}
