//! Where in this cluster a resource of the control plane belongs. Pure.

use tiphys_shared::model::{Kind, ResourceKey};
use tiphys_shared::process::options::NamePattern;

/// The namespaces that an agent may write to.
#[derive(Clone, Debug)]
pub(crate) struct Namespaces {
    /// Where Argo CD and the agent live.
    pub(crate) own: String,
    /// Applications keep the namespace that they have at the control plane.
    pub(crate) keep: bool,
    /// Namespaces besides the own one that Applications may be in.
    pub(crate) allowed: Vec<NamePattern>,
}

/// A resource belongs nowhere here.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "namespace {0:?} is not among the namespaces that this agent may write to (--allowed-namespaces)"
    )]
    NotAllowed(String),
    #[error("the resource has no name")]
    NoName,
}

impl Namespaces {
    /// Where the resource that is `namespace`/`name` at the control plane belongs.
    pub(crate) fn key(&self, kind: Kind, namespace: &str, name: &str) -> Result<ResourceKey, Error> {
        if name.is_empty() {
            return Err(Error::NoName);
        }
        let namespace = match kind {
            Kind::Application if self.keep => namespace,
            _ => self.own.as_str(),
        };
        if namespace != self.own && !self.allowed.iter().any(|pattern| pattern.matches(namespace)) {
            return Err(Error::NotAllowed(namespace.chars().take(80).collect()));
        }
        Ok(ResourceKey::new(kind, namespace, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_namespace_an_event_names_it_ends_in_an_allowed_one() {
        let one = Namespaces { own: "argocd".into(), keep: false, allowed: vec![] };
        for named in ["kube-system", "", "argocd", "../x"] {
            assert_eq!(one.key(Kind::Application, named, "a").unwrap().namespace, "argocd");
        }
        let many = Namespaces { keep: true, allowed: vec![NamePattern::new("team-*").unwrap()], ..one };
        assert_eq!(many.key(Kind::Application, "team-a", "a").unwrap().namespace, "team-a");
        assert_eq!(many.key(Kind::AppProject, "kube-system", "a").unwrap().namespace, "argocd");
        assert!(many.key(Kind::Application, "kube-system", "a").is_err());
        assert_eq!(many.key(Kind::Application, "team-a", ""), Err(Error::NoName));
    }
}
