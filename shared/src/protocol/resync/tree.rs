//! A set of resources as a hash tree: any part of it has a sum, and equal sums mean equal parts.
//!
//! Each resource has a place in a space of 128 bits, given by the hash of its name, so that the tree has the same shape on
//! both sides whatever it holds. A node is a prefix of hexadecimal digits; its sum is the sum of the hashes of the
//! resources below it, which makes nodes independent of the order of changes and needs none of them stored.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use crate::model::{Kind, SourceUid};

/// What a resource is called by its owner, and what there is of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Leaf {
    /// Kind, name and, where resources of one kind may be in several namespaces, the namespace.
    #[serde(flatten)]
    pub name: LeafName,
    /// Which life of the name.
    pub uid: SourceUid,
    /// What it contains.
    pub digest: Digest,
}

/// What a resource is called by its owner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeafName {
    /// Kind of the resource.
    pub kind: Kind,
    /// Namespace; empty where both sides know it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name of the resource.
    pub name: String,
}

impl LeafName {
    fn place(&self) -> u128 {
        Digest::of(&[self.kind.as_str().as_bytes(), self.namespace.as_bytes(), self.name.as_bytes()]).0
    }
}

impl Leaf {
    fn hash(&self) -> u128 {
        let place = self.name.place().to_be_bytes();
        Digest::of(&[&place, self.uid.0.as_bytes(), &self.digest.0.to_be_bytes()]).0
    }
}

/// A node of the tree: 0 to 32 hexadecimal digits.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Prefix(String);

/// The text is not a node of the tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a node is named by 0 to 32 hexadecimal digits in lower case")]
pub struct NoPrefix;

impl Prefix {
    /// The whole tree.
    pub fn root() -> Self {
        Self::default()
    }

    /// The nodes below this one, `digits` deeper. None below the leaves.
    pub fn children(&self, digits: usize) -> Vec<Self> {
        if self.0.len() + digits > 32 {
            return Vec::new();
        }
        (0..1_usize << (4 * digits)).map(|n| Self(format!("{}{n:0digits$x}", self.0))).collect()
    }

    /// Whether one of the two is within the other.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0) || other.0.starts_with(&self.0)
    }

    fn places(&self) -> RangeInclusive<u128> {
        let digits = self.0.len();
        let low = u128::from_str_radix(&self.0, 16).unwrap_or(0);
        let free = 4 * (32 - digits) as u32;
        let low = low.checked_shl(free).unwrap_or(0);
        let below = u128::MAX.checked_shr(128 - free).unwrap_or(0);
        low..=low | below
    }
}

impl FromStr for Prefix {
    type Err = NoPrefix;

    fn from_str(text: &str) -> Result<Self, NoPrefix> {
        let ok = text.len() <= 32
            && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if ok { Ok(Self(text.to_owned())) } else { Err(NoPrefix) }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Number and sum of the resources below a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// How many there are.
    pub count: u64,
    /// Sum of their hashes.
    pub sum: Digest,
}

/// A set of resources.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tree {
    leaves: BTreeMap<u128, (Leaf, u128)>,
}

impl FromIterator<Leaf> for Tree {
    fn from_iter<I: IntoIterator<Item = Leaf>>(leaves: I) -> Self {
        Self {
            leaves: leaves
                .into_iter()
                .map(|leaf| {
                    let hash = leaf.hash();
                    (leaf.name.place(), (leaf, hash))
                })
                .collect(),
        }
    }
}

impl Tree {
    /// Sum of a node.
    pub fn sum(&self, node: &Prefix) -> Sum {
        self.leaves.range(node.places()).fold(Sum::default(), |sum, (_, (_, hash))| Sum {
            count: sum.count + 1,
            sum: Digest(sum.sum.0.wrapping_add(*hash)),
        })
    }

    /// The resources below a node, in the tree's order.
    pub fn below(&self, node: &Prefix) -> impl Iterator<Item = &Leaf> {
        self.leaves.range(node.places()).map(|(_, (leaf, _))| leaf)
    }

    /// The resource of this name.
    pub fn get(&self, name: &LeafName) -> Option<&Leaf> {
        self.leaves.get(&name.place()).map(|(leaf, _)| leaf).filter(|leaf| leaf.name == *name)
    }

    /// Number of resources.
    pub fn len(&self) -> usize {
        self.leaves.len()
    }

    /// Whether there are no resources.
    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn leaf(n: u32, content: u32) -> Leaf {
        Leaf {
            name: LeafName { kind: Kind::Application, namespace: String::new(), name: format!("app-{n}") },
            uid: SourceUid(format!("uid-{n}")),
            digest: Digest::of(&[&content.to_be_bytes()]),
        }
    }

    proptest! {
        #[test]
        fn a_node_is_the_sum_of_its_children(
            names in proptest::collection::btree_set(0_u32..1000, 0..60), digits in 1_usize..3,
        ) {
            let tree: Tree = names.iter().map(|n| leaf(*n, 0)).collect();
            let parts = Prefix::root().children(digits).iter().map(|child| tree.sum(child)).fold(
                Sum::default(),
                |sum, part| Sum { count: sum.count + part.count, sum: Digest(sum.sum.0.wrapping_add(part.sum.0)) },
            );
            prop_assert_eq!(parts, tree.sum(&Prefix::root()));
        }

        #[test]
        fn sums_are_equal_exactly_when_the_sets_are(
            one in proptest::collection::btree_map(0_u32..40, 0_u32..3, 0..20),
            other in proptest::collection::btree_map(0_u32..40, 0_u32..3, 0..20),
        ) {
            let tree = |set: &BTreeMap<u32, u32>| -> Tree { set.iter().map(|(n, c)| leaf(*n, *c)).collect() };
            let equal = tree(&one).sum(&Prefix::root()) == tree(&other).sum(&Prefix::root());
            prop_assert_eq!(equal, one == other);
        }
    }

    #[test]
    fn every_place_is_below_exactly_one_node_of_a_level() {
        let whole = Prefix::root().places();
        assert_eq!((*whole.start(), *whole.end()), (0, u128::MAX));
        let deepest: Prefix = "f".repeat(32).parse().unwrap();
        assert_eq!((*deepest.places().start(), *deepest.places().end()), (u128::MAX, u128::MAX));
        assert!(deepest.children(1).is_empty());
        let mut next = 0_u128;
        for node in Prefix::root().children(2) {
            assert_eq!(*node.places().start(), next);
            next = node.places().end().wrapping_add(1);
        }
        assert_eq!(next, 0, "the last node ends where the space does");
    }

    #[test]
    fn a_node_that_is_none_is_refused() {
        for bad in ["g", "A", " ", "0x", &"0".repeat(33)] {
            assert_eq!(bad.parse::<Prefix>(), Err(NoPrefix), "{bad:?}");
        }
    }
}
