//! Where in this cluster a resource of the control plane belongs. Pure but for what the principal says of itself.

use std::sync::{Arc, OnceLock};

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
    /// Where Argo CD lives at the control plane, once the principal has said so. What is there belongs into the own
    /// namespace here, whatever that is called.
    pub(crate) principal: Arc<OnceLock<String>>,
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
            Kind::Application if self.keep && !self.is_remapped(namespace) => namespace,
            _ => self.own.as_str(),
        };
        if namespace != self.own && !self.allowed.iter().any(|pattern| pattern.matches(namespace)) {
            return Err(Error::NotAllowed(namespace.chars().take(80).collect()));
        }
        Ok(ResourceKey::new(kind, namespace, name))
    }

    /// Whether an Application of that namespace at the control plane has another one here although namespaces are kept.
    pub(crate) fn is_remapped(&self, namespace: &str) -> bool {
        self.keep
            && namespace != self.own
            && self.principal.get().is_some_and(|principal| principal == namespace)
    }

    /// The control plane's name for a namespace of Applications here.
    pub(crate) fn theirs(&self, namespace: &str) -> String {
        match self.principal.get() {
            Some(principal) if namespace == self.own => principal.clone(),
            _ => namespace.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespaces(keep: bool, allowed: Vec<NamePattern>) -> Namespaces {
        Namespaces { own: "argocd".into(), keep, allowed, principal: Arc::default() }
    }

    #[test]
    fn whatever_namespace_an_event_names_it_ends_in_an_allowed_one() {
        let one = namespaces(false, vec![]);
        for named in ["kube-system", "", "argocd", "../x"] {
            assert_eq!(one.key(Kind::Application, named, "a").unwrap().namespace, "argocd");
        }
        let many = namespaces(true, vec![NamePattern::new("team-*").unwrap()]);
        assert_eq!(many.key(Kind::Application, "team-a", "a").unwrap().namespace, "team-a");
        assert_eq!(many.key(Kind::AppProject, "kube-system", "a").unwrap().namespace, "argocd");
        assert!(many.key(Kind::Application, "kube-system", "a").is_err());
        assert_eq!(many.key(Kind::Application, "team-a", ""), Err(Error::NoName));
    }

    #[test]
    fn what_lives_beside_argo_cd_there_lives_beside_it_here() {
        let many = namespaces(true, vec![NamePattern::new("team-*").unwrap()]);
        many.principal.set("gitops".into()).unwrap();
        assert_eq!(many.key(Kind::Application, "gitops", "a").unwrap().namespace, "argocd");
        assert!(many.is_remapped("gitops") && !many.is_remapped("team-a"));
        assert_eq!(many.theirs("argocd"), "gitops");
        assert_eq!(many.theirs("team-a"), "team-a");
    }
}
