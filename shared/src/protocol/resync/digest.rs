//! What of a resource is compared, and the seal by which the holder of a copy knows it again after a restart.
//!
//! An owner's resource and the copy of it differ on purpose: names, destinations and namespaces are rewritten. So the
//! holder does not compute the owner's digest from its copy. It computes it from what the owner sent, and keeps it on the
//! copy, in an annotation, beside the digest of the copy as it was written. As long as the second is true of the copy,
//! the first tells what the owner had.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::model::argocd::annotation;
use crate::model::object::ObjectExt as _;
use crate::model::{Kind, Object};
use crate::protocol::{checksum, ownership};

/// Annotations that belong to one side alone, or to one moment: never compared.
const UNCOMPARED: [&str; 7] = [
    annotation::LAST_APPLIED,
    annotation::LAST_UPDATED,
    annotation::NOTIFIED,
    annotation::REFRESH,
    annotation::SEAL,
    annotation::OPERATION_REQUESTED,
    annotation::OPERATION_TAKEN,
];

/// What stands in the place of the seal on a copy that goes because its owner said so.
const ENDED: &str = "ended";

/// The part of a resource that one side owns and the other follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// What is declared: the control plane's in managed mode.
    Spec,
    /// What was observed: the cluster's in managed mode.
    Status,
    /// Both: the cluster's in autonomous mode.
    Whole,
}

/// 128 bits of a SHA-256. Hexadecimal as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Digest(pub u128);

impl Digest {
    pub(crate) fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let bytes = hash.finalize();
        Self(bytes.iter().take(16).fold(0, |number, byte| number << 8 | u128::from(*byte)))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a digest is 32 hexadecimal digits")]
pub struct NoDigest;

impl FromStr for Digest {
    type Err = NoDigest;

    fn from_str(text: &str) -> Result<Self, NoDigest> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NoDigest);
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| NoDigest)
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Digest of what `scope` compares of an object. An object that is being deleted has one digest whatever it contains.
pub fn digest(kind: Kind, scope: Scope, object: &Object) -> Digest {
    if object.is_deleting() && scope != Scope::Status {
        return deleting();
    }
    let mut text = String::new();
    if scope != Scope::Status {
        map(object.metadata.labels.as_ref(), &[], &mut text);
        map(object.metadata.annotations.as_ref(), &UNCOMPARED, &mut text);
        for finalizer in object.metadata.finalizers.iter().flatten() {
            if !ownership::is_own_finalizer(finalizer) {
                line(finalizer, &mut text);
            }
        }
        for field in [kind.content_field(), "type"] {
            line(field, &mut text);
            checksum::canonical(object.field(field).unwrap_or(&Value::Null), &mut text);
        }
    }
    if scope != Scope::Spec {
        line("status", &mut text);
        checksum::canonical(object.field("status").unwrap_or(&Value::Null), &mut text);
    }
    if scope == Scope::Status {
        // A request that one side still shows and the other has done with.
        let requests =
            (object.field("operation").is_some(), object.annotation(annotation::REFRESH).is_some());
        line(&format!("{requests:?}"), &mut text);
    }
    Digest::of(&[text.as_bytes()])
}

/// Digest of every object that is being deleted.
pub fn deleting() -> Digest {
    Digest::of(&[b"deleting"])
}

/// Writes the seal: the owner's digest, and the digest of the copy as it now is.
pub fn seal(kind: Kind, scope: Scope, copy: &mut Object, owner: Digest) {
    let own = digest(kind, scope, copy);
    copy.annotate(annotation::SEAL, format!("{owner}.{own}"));
}

/// The owner's digest on a copy that is still as it was sealed.
pub fn sealed(kind: Kind, scope: Scope, copy: &Object) -> Option<Digest> {
    let (owner, own) = copy.annotation(annotation::SEAL)?.split_once('.')?;
    (own.parse() == Ok(digest(kind, scope, copy))).then(|| owner.parse().ok())?
}

/// Says on a copy that it goes because its owner said so: for others that hold copies here, who would bring it back.
pub fn seal_end(copy: &mut Object) {
    copy.annotate(annotation::SEAL, ENDED);
}

/// Whether a copy says so.
pub fn is_ended(copy: &Object) -> bool {
    copy.annotation(annotation::SEAL) == Some(ENDED)
}

fn map(entries: Option<&BTreeMap<String, String>>, without: &[&str], text: &mut String) {
    for (name, value) in entries.into_iter().flatten() {
        if !without.contains(&name.as_str()) {
            line(name, text);
            line(value, text);
        }
    }
    line("", text);
}

fn line(part: &str, text: &mut String) {
    text.push_str(&part.len().to_string());
    text.push(':');
    text.push_str(part);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object() -> Object {
        serde_json::from_value(json!({
            "metadata": {"name": "a", "namespace": "n", "labels": {"x": "y"}, "annotations": {"note": "1"}},
            "spec": {"project": "p", "n": 1}, "status": {"health": "good"},
        }))
        .unwrap()
    }

    #[test]
    fn a_seal_is_known_again_until_the_copy_is_changed() {
        let owner = Digest::of(&[b"owner"]);
        let mut copy = object();
        seal(Kind::Application, Scope::Spec, &mut copy, owner);
        assert_eq!(sealed(Kind::Application, Scope::Spec, &copy), Some(owner));
        assert!(!is_ended(&copy));
        let mut ended = copy.clone();
        seal_end(&mut ended);
        assert!(is_ended(&ended) && sealed(Kind::Application, Scope::Spec, &ended).is_none());

        let mut looked_at = copy.clone();
        looked_at.annotate(annotation::REFRESH, "hard");
        looked_at.set_field("status", None);
        looked_at.metadata.resource_version = Some("9".into());
        assert_eq!(
            sealed(Kind::Application, Scope::Spec, &looked_at),
            Some(owner),
            "nothing declared changed"
        );

        let mut edited = copy.clone();
        edited.set_field("spec", Some(json!({"project": "q", "n": 1})));
        assert_eq!(sealed(Kind::Application, Scope::Spec, &edited), None);
        let mut relabelled = copy;
        relabelled.metadata.labels = None;
        assert_eq!(sealed(Kind::Application, Scope::Spec, &relabelled), None);
    }

    #[test]
    fn what_moves_between_fields_changes_the_digest() {
        let labelled: Object = serde_json::from_value(json!({"metadata": {"labels": {"a": "b"}}})).unwrap();
        let annotated: Object =
            serde_json::from_value(json!({"metadata": {"annotations": {"a": "b"}}})).unwrap();
        assert_ne!(
            digest(Kind::Application, Scope::Spec, &labelled),
            digest(Kind::Application, Scope::Spec, &annotated)
        );
    }

    #[test]
    fn empty_and_absent_are_the_same() {
        let empty: Object =
            serde_json::from_value(json!({"metadata": {"labels": {}, "annotations": {}, "finalizers": []}}))
                .unwrap();
        let absent: Object = serde_json::from_value(json!({"metadata": {}})).unwrap();
        assert_eq!(
            digest(Kind::Application, Scope::Whole, &empty),
            digest(Kind::Application, Scope::Whole, &absent)
        );
    }

    #[test]
    fn text_that_is_not_a_digest_is_refused() {
        for bad in ["", "0", "+0000000000000000000000000000000", "zz", &"0".repeat(33)] {
            assert_eq!(bad.parse::<Digest>(), Err(NoDigest), "{bad:?}");
        }
        let digest = Digest(7);
        assert_eq!(digest.to_string().parse(), Ok(digest));
    }
}
