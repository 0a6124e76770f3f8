//! The last state accepted from each resource's owner: what a local edit is reverted to, also while the owner is away.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use super::resync::digest::Digest;
use super::resync::tree::{Leaf, LeafName};
use crate::model::argocd::annotation;
use crate::model::object::ObjectExt as _;
use crate::model::{Kind, Object, ResourceKey, SourceUid};

/// How many ended lives are remembered.
const TOMBSTONES: usize = 4096;

/// What the owner wants of a resource.
#[derive(Clone, Debug, PartialEq)]
pub enum Wanted {
    /// It is to be this.
    Present(Arc<Object>),
    /// It is to be gone. The source UID says which life of the name is meant.
    Absent(SourceUid),
}

impl Wanted {
    /// This resource for a comparison with what the owner has, under the name that the owner has for it. What is to be gone
    /// has none: it is not held.
    pub fn leaf(&self, name: impl FnOnce(&Object) -> Option<LeafName>) -> Option<Leaf> {
        match self {
            Self::Absent(_) => None,
            Self::Present(object) => {
                Some(Leaf { name: name(object)?, uid: object.source_uid()?, digest: owners_digest(object) })
            }
        }
    }
}

/// What the owner wants of all resources that it has spoken of.
#[derive(Debug, Default)]
pub struct Mirror {
    wanted: BTreeMap<ResourceKey, Wanted>,
    /// Lives whose end the owner declared: a copy of one that turns up late is not taken for what the owner wants.
    tombstones: HashSet<SourceUid>,
    /// The same, oldest first.
    ended: VecDeque<SourceUid>,
}

impl Mirror {
    /// What the owner wants of the resource; none if it has not spoken of it.
    pub fn get(&self, key: &ResourceKey) -> Option<&Wanted> {
        self.wanted.get(key)
    }

    /// What the owner wants of the resource, if what is here, perhaps an old view of it, is this.
    ///
    /// A copy of a life whose end was declared is to go, whatever else is known of the name.
    pub fn wanted_of(&self, key: &ResourceKey, existing: Option<&Object>) -> Option<Wanted> {
        let wanted = self.wanted.get(key);
        match existing.and_then(|existing| existing.source_uid()) {
            Some(life) if !matches!(wanted, Some(Wanted::Present(_))) && self.tombstones.contains(&life) => {
                Some(Wanted::Absent(life))
            }
            _ => wanted.cloned(),
        }
    }

    /// The owner wants this now.
    pub fn accept(&mut self, key: ResourceKey, mut wanted: Wanted) {
        if let Some(Wanted::Present(old)) = self.wanted.get(&key) {
            match &mut wanted {
                Wanted::Present(new) if new.source_uid() == old.source_uid() => {
                    if let Some(request) = old.annotation(annotation::OPERATION_TAKEN) {
                        Arc::make_mut(new).annotate(annotation::OPERATION_TAKEN, request);
                    }
                }
                // One life of a name ends before the next begins.
                _ => old.source_uid().into_iter().for_each(|life| self.bury(life)),
            }
        }
        match &wanted {
            // The owner may let a resource come back to this side in the same life.
            Wanted::Present(object) => _ = object.source_uid().map(|life| self.tombstones.remove(&life)),
            Wanted::Absent(life) => self.bury(life.clone()),
        }
        self.wanted.insert(key, wanted);
    }

    /// The owner says that this life of the resource has ended. Word of the end of an earlier life does not end the present
    /// one.
    pub fn end(&mut self, key: &ResourceKey, life: &SourceUid) {
        let is_meant = match self.wanted.get(key) {
            Some(Wanted::Present(wanted)) => wanted.source_uid().is_none_or(|present| present == *life),
            Some(Wanted::Absent(_)) => true,
            // Should a copy of it turn up, it is known by its tombstone.
            None => false,
        };
        if is_meant {
            self.accept(key.clone(), Wanted::Absent(life.clone()));
        } else {
            self.bury(life.clone());
        }
    }

    /// A copy of this life is gone that had taken this operation: should it come back, it must not take it again.
    pub fn note_taken(&mut self, key: &ResourceKey, life: &SourceUid, request: &str) {
        if let Some(Wanted::Present(object)) = self.wanted.get_mut(key)
            && object.source_uid().as_ref() == Some(life)
        {
            Arc::make_mut(object).annotate(annotation::OPERATION_TAKEN, request);
        }
    }

    /// What is here is not what the owner had, and cannot be made so: a comparison shall find the difference.
    pub fn unseal(&mut self, key: &ResourceKey) {
        if let Some(Wanted::Present(object)) = self.wanted.get_mut(key)
            && let Some(annotations) = &mut Arc::make_mut(object).metadata.annotations
        {
            annotations.remove(annotation::SEAL);
        }
    }

    /// Takes what is here for what the owner wants, unless the owner has spoken: of the resource, or of the end of this
    /// life of it. For a start before the owner is heard.
    pub fn assume(&mut self, key: ResourceKey, present: Arc<Object>) {
        let life = present.source_uid();
        let wanted = match life {
            Some(life) if self.tombstones.contains(&life) => Wanted::Absent(life),
            _ => Wanted::Present(present),
        };
        self.wanted.entry(key).or_insert(wanted);
    }

    /// Forgets what somebody else owns from now on.
    pub fn release(&mut self, is_theirs: impl Fn(&ResourceKey, &Wanted) -> bool) {
        self.wanted.retain(|key, wanted| !is_theirs(key, wanted));
    }

    /// A copy of this life is gone. Returns whether that was what the owner waits for.
    pub fn forget_absent(&mut self, key: &ResourceKey, life: &SourceUid) -> bool {
        match self.wanted.get(key) {
            Some(Wanted::Absent(absent)) if absent == life => self.wanted.remove(key).is_some(),
            Some(Wanted::Absent(_)) => false,
            Some(Wanted::Present(_)) => false,
            None => self.tombstones.contains(life),
        }
    }

    /// All that the owner has spoken of.
    pub fn all(&self) -> impl Iterator<Item = (&ResourceKey, &Wanted)> {
        self.wanted.iter()
    }

    /// All of one kind and namespace that the owner has spoken of.
    pub fn in_namespace(&self, kind: Kind, namespace: &str) -> impl Iterator<Item = (&ResourceKey, &Wanted)> {
        let first = ResourceKey::new(kind, namespace, "");
        self.wanted.range(first..).take_while(move |(key, _)| key.kind == kind && key.namespace == namespace)
    }

    /// Number of resources.
    pub fn len(&self) -> usize {
        self.wanted.len()
    }

    /// Whether the owner has not spoken of any resource.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    fn bury(&mut self, life: SourceUid) {
        if self.tombstones.insert(life.clone()) {
            self.ended.push_back(life);
        }
        while self.ended.len() > TOMBSTONES {
            if let Some(oldest) = self.ended.pop_front() {
                self.tombstones.remove(&oldest);
            }
        }
    }
}

/// What the owner had when it sent this; nothing that an owner can have if that is not known.
fn owners_digest(copy: &Object) -> Digest {
    copy.annotation(annotation::SEAL)
        .and_then(|seal| seal.split_once('.')?.0.parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key() -> ResourceKey {
        ResourceKey::new(Kind::Application, "n", "a")
    }

    fn copy(life: &str) -> Arc<Object> {
        let value = json!({"metadata": {"name": "a", "namespace": "n", "annotations": {annotation::SOURCE_UID: life}}});
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn a_copy_that_turns_up_after_its_original_ended_is_to_go() {
        let mut mirror = Mirror::default();
        mirror.accept(key(), Wanted::Present(copy("1")));
        mirror.accept(key(), Wanted::Absent(SourceUid("1".into())));
        assert!(mirror.forget_absent(&key(), &SourceUid("1".into())));
        assert_eq!(mirror.get(&key()), None);
        mirror.assume(key(), copy("1"));
        assert_eq!(mirror.get(&key()), Some(&Wanted::Absent(SourceUid("1".into()))));
    }

    #[test]
    fn a_late_view_of_an_earlier_life_neither_hides_nor_ends_the_last_one() {
        let (first, second) = (SourceUid("1".into()), SourceUid("2".into()));
        let mut mirror = Mirror::default();
        mirror.accept(key(), Wanted::Present(copy("1")));
        mirror.accept(key(), Wanted::Present(copy("2")));
        mirror.end(&key(), &second);
        // The watch is behind: it shows the first, then its end, then the second.
        assert_eq!(mirror.wanted_of(&key(), Some(&copy("1"))), Some(Wanted::Absent(first.clone())));
        assert!(!mirror.forget_absent(&key(), &first));
        assert_eq!(mirror.wanted_of(&key(), Some(&copy("2"))), Some(Wanted::Absent(second.clone())));
        assert!(mirror.forget_absent(&key(), &second));
        assert_eq!(mirror.get(&key()), None);
        assert_eq!(mirror.wanted_of(&key(), Some(&copy("2"))), Some(Wanted::Absent(second)));
        assert_eq!(mirror.wanted_of(&key(), Some(&copy("3"))), None, "of that the owner has not spoken");
    }

    #[test]
    fn the_end_of_what_was_never_here_takes_no_room() {
        let mut mirror = Mirror::default();
        mirror.end(&key(), &SourceUid("1".into()));
        assert!(mirror.is_empty());
        mirror.assume(key(), copy("1"));
        assert_eq!(mirror.get(&key()), Some(&Wanted::Absent(SourceUid("1".into()))));
    }

    #[test]
    fn the_owner_can_bring_a_life_back_but_a_copy_cannot() {
        let mut mirror = Mirror::default();
        mirror.accept(key(), Wanted::Absent(SourceUid("1".into())));
        mirror.accept(key(), Wanted::Present(copy("1")));
        assert_eq!(mirror.get(&key()), Some(&Wanted::Present(copy("1"))));
        mirror.assume(key(), copy("2"));
        assert_eq!(mirror.get(&key()), Some(&Wanted::Present(copy("1"))), "what is here outranked the owner");
    }

    #[test]
    fn a_copy_that_comes_back_knows_which_operation_it_took() {
        let taken = |mirror: &Mirror| match mirror.get(&key()) {
            Some(Wanted::Present(object)) => {
                object.annotation(annotation::OPERATION_TAKEN).map(str::to_owned)
            }
            _ => None,
        };
        let mut mirror = Mirror::default();
        mirror.accept(key(), Wanted::Present(copy("1")));
        mirror.note_taken(&key(), &SourceUid("0".into()), "of another life");
        assert_eq!(taken(&mirror), None);
        mirror.note_taken(&key(), &SourceUid("1".into()), "request");
        assert_eq!(taken(&mirror).as_deref(), Some("request"));
        mirror.accept(key(), Wanted::Present(copy("1")));
        assert_eq!(taken(&mirror).as_deref(), Some("request"), "the owner's next word made it forget");
        mirror.accept(key(), Wanted::Present(copy("2")));
        assert_eq!(taken(&mirror), None);
    }

    #[test]
    fn the_memory_of_ended_lives_is_bounded() {
        let mut mirror = Mirror::default();
        for n in 0..3 * TOMBSTONES {
            mirror.accept(key(), Wanted::Absent(SourceUid(n.to_string())));
            // One that comes back and ends again, over and over.
            mirror.accept(key(), Wanted::Present(copy("again")));
            mirror.accept(key(), Wanted::Absent(SourceUid("again".into())));
        }
        assert!(mirror.tombstones.len() <= TOMBSTONES);
        assert!(mirror.ended.len() <= TOMBSTONES);
        assert_eq!(mirror.len(), 1);
    }
}
