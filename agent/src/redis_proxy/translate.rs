//! What this cluster's Argo CD calls a key of the control plane: by the same rules by which Applications come here.

use tiphys_shared::model::cache_key::CacheKey;
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{Kind, Mode, ResourceKey};

use crate::namespaces::{self, Namespaces};
use crate::outbound::{Outbound, shows};

/// The control plane may not have it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("the key is not about one application")]
    NotOfApplication,
    #[error(transparent)]
    Elsewhere(#[from] namespaces::Error),
    #[error("this agent shows its applications as {0:?}, not as {1:?}")]
    OtherAgent(String, String),
    #[error("there are too many subscriptions")]
    TooMany,
}

/// A channel of this cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Local {
    /// The Application that it is about.
    pub(super) application: ResourceKey,
    /// What it is called here.
    pub(super) name: String,
}

/// What a key is called here. None if its Application is not here, or is none of the control plane's.
pub(super) fn key(outbound: &Outbound, key: &str) -> Result<Option<String>, Refused> {
    let local = channel(outbound, key)?;
    Ok(is_shared(outbound, &local.application).then_some(local.name))
}

/// What a channel is called here. Its Application may yet have to come.
pub(super) fn channel(outbound: &Outbound, channel: &str) -> Result<Local, Refused> {
    let name = outbound.name.get().map(String::as_str);
    local(outbound.mode, &outbound.namespaces, name, channel)
}

/// The same, of an agent of that mode, which the control plane calls `agent` if that is known.
fn local(mode: Mode, namespaces: &Namespaces, agent: Option<&str>, key: &str) -> Result<Local, Refused> {
    let key = CacheKey::parse(key).ok_or(Refused::NotOfApplication)?;
    let own = namespaces.own.as_str();
    let application = match (mode, key.namespace) {
        (Mode::Managed, Some(namespace)) => namespaces.key(Kind::Application, namespace, key.name)?,
        // Beside the control plane's Argo CD, and so beside the one here.
        (Mode::Managed, None) => ResourceKey::new(Kind::Application, own, key.name),
        (Mode::Autonomous, namespace) => {
            let namespace = namespace.unwrap_or_default();
            if let Some(agent) = agent.filter(|agent| *agent != namespace) {
                return Err(Refused::OtherAgent(agent.to_owned(), namespace.to_owned()));
            }
            ResourceKey::new(Kind::Application, own, key.name)
        }
    };
    let namespace = Some(application.namespace.as_str()).filter(|namespace| *namespace != own);
    let name = key.in_namespace(namespace);
    Ok(Local { application, name })
}

/// Whether the control plane knows of this Application: it is a copy of one there, or is shown there.
pub(super) fn is_shared(outbound: &Outbound, application: &ResourceKey) -> bool {
    let here = outbound.reconciler.stores.applications.get(application);
    here.is_some_and(|here| match outbound.mode {
        Mode::Managed => here.source_uid().is_some(),
        Mode::Autonomous => shows(Kind::Application, &here),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tiphys_shared::process::options::NamePattern;

    use super::*;

    fn namespaces(keep: bool) -> Namespaces {
        let allowed = vec![NamePattern::new("team-*").unwrap()];
        let namespaces = Namespaces { own: "argocd".into(), keep, allowed, principal: Default::default() };
        namespaces.principal.set("gitops".into()).unwrap();
        namespaces
    }

    fn name(mode: Mode, keep: bool, application: &str) -> Result<String, Refused> {
        let key = format!("app|resources-tree|{application}|1.8.3.gz");
        local(mode, &namespaces(keep), Some("edge"), &key).map(|local| local.name)
    }

    fn tree(application: &str) -> Result<String, Refused> {
        Ok(format!("app|resources-tree|{application}|1.8.3.gz"))
    }

    #[test]
    fn a_key_is_called_here_what_the_application_is() {
        assert_eq!(name(Mode::Managed, false, "edge_shop"), tree("shop"));
        assert_eq!(name(Mode::Autonomous, false, "edge_shop"), tree("shop"));
        assert_eq!(name(Mode::Managed, true, "team-a_shop"), tree("team-a_shop"));
        // Beside the control plane's Argo CD, however it is written.
        assert_eq!(name(Mode::Managed, true, "shop"), tree("shop"));
        assert_eq!(name(Mode::Managed, true, "gitops_shop"), tree("shop"));
        // In a namespace that is Argo CD's here and another there.
        assert_eq!(name(Mode::Managed, true, "argocd_shop"), tree("shop"));
    }

    #[test]
    fn a_key_that_is_not_ours_is_refused_and_says_why() {
        let refused = |mode, keep, application| name(mode, keep, application).unwrap_err().to_string();
        assert!(refused(Mode::Managed, true, "kube-system_shop").contains("--allowed-namespaces"));
        assert!(refused(Mode::Autonomous, false, "other_shop").contains("\"edge\""));
        assert!(refused(Mode::Autonomous, false, "shop").contains("\"edge\""));
        assert_eq!(name(Mode::Managed, false, "a_b_c"), Err(Refused::NotOfApplication));
        let other = local(Mode::Managed, &namespaces(false), None, "cluster|info|x|1.8.3.gz");
        assert_eq!(other, Err(Refused::NotOfApplication));
    }

    proptest! {
        #[test]
        fn whatever_is_asked_for_is_in_a_namespace_that_is_ours(
            application in "([a-z-]{1,8}_)?[a-z]{1,3}", keep in any::<bool>(), managed in any::<bool>(),
        ) {
            let mode = if managed { Mode::Managed } else { Mode::Autonomous };
            let key = format!("app|managed-resources|{application}|1.8.3");
            if let Ok(local) = local(mode, &namespaces(keep), None, &key) {
                let namespace = local.application.namespace.as_str();
                prop_assert!(namespace == "argocd" || (keep && managed && namespace.starts_with("team-")));
                let parsed = CacheKey::parse(&local.name).unwrap();
                prop_assert_eq!(parsed.namespace.unwrap_or("argocd"), namespace);
                prop_assert_eq!(parsed.name, local.application.name);
            }
        }
    }
}
