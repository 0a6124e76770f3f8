//! What a process has to be allowed, and whether it is.

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SubjectAccessReview,
    SubjectAccessReviewSpec,
};
use kube::Api;
use kube::api::PostParams;
use tiphys_shared::kube::kinds::GPG_KEYS;
use tiphys_shared::model::{AgentName, Mode};
use tiphys_shared::process::options::Problem;

use super::snapshot::{Facts, PrincipalOptions};
use crate::failure::story;
use crate::operator::installation::Installation;
use crate::operator::targets::Site;

const READ: &[&str] = &["get", "list", "watch"];
const OWN: &[&str] = &["get", "list", "watch", "create", "update", "delete"];
/// One of the Secrets with join tokens; a role that names one names all.
const TOKENS: &str = "argocd-agent-join-tokens-0";
/// So many namespaces of agents are asked about.
const AGENTS: usize = 20;

/// Something that a process has to be allowed.
pub(super) struct Need {
    group: &'static str,
    resource: &'static str,
    /// None means the whole cluster.
    namespace: Option<String>,
    /// One object only.
    name: Option<&'static str>,
    verbs: &'static [&'static str],
}

fn need(
    resource: &'static str,
    namespace: Option<&str>,
    verbs: &'static [&'static str],
    name: Option<&'static str>,
) -> Need {
    let group = if matches!(resource, "applications" | "appprojects") { "argoproj.io" } else { "" };
    Need { group, resource, namespace: namespace.map(str::to_owned), name, verbs }
}

/// What a principal in this namespace needs for these agents.
pub(super) fn of_principal(namespace: &str, agents: impl Iterator<Item = AgentName>) -> Vec<Need> {
    let own = Some(namespace);
    let mut needs = vec![
        need("secrets", own, READ, None),
        need("configmaps", own, READ, Some(GPG_KEYS)),
        need("appprojects", own, OWN, None),
        need("applications", None, READ, None),
    ];
    needs.extend(
        agents.take(AGENTS).map(|agent| need("applications", Some(agent.as_str()), &["update"], None)),
    );
    needs
}

/// What it needs for agents that are new, if it `signs` their certificates.
pub(super) fn of_onboarding(namespace: &str, options: &PrincipalOptions, signs: bool) -> Vec<Need> {
    let own = Some(namespace);
    let joins = options.joins && signs;
    let mut needs = Vec::new();
    if joins {
        needs.push(need("secrets", own, &["patch"], Some(TOKENS)));
    }
    if options.registers {
        needs.push(need("secrets", own, &["create", "update"], None));
    } else if joins && options.proxy {
        needs.push(need("secrets", own, &["create"], None));
    }
    needs
}

/// What an agent in this namespace needs.
pub(super) fn of_agent(namespace: &str, mode: Mode) -> Vec<Need> {
    let own = Some(namespace);
    let keys = need("configmaps", own, READ, Some(GPG_KEYS));
    match mode {
        Mode::Managed => vec![
            need("secrets", own, OWN, None),
            keys,
            need("appprojects", own, OWN, None),
            need("applications", own, OWN, None),
        ],
        Mode::Autonomous => vec![
            need("secrets", own, &["get"], None),
            need("appprojects", own, READ, None),
            need("applications", own, READ, None),
            need("applications", own, &["update"], None),
        ],
    }
}

/// Asks the API server, and notes what is not allowed.
pub(super) async fn check(site: &Site, installation: &Installation, needs: Vec<Need>, facts: &mut Facts) {
    let account = installation.service_account.as_ref();
    facts.identity = account.map_or_else(
        || "whoever runs this".to_owned(),
        |account| format!("the service account {}/{account}", site.namespace),
    );
    let user = account.map(|account| format!("system:serviceaccount:{}:{account}", site.namespace));
    for need in needs {
        for verb in need.verbs {
            let attributes = ResourceAttributes {
                group: Some(need.group.to_owned()),
                resource: Some(need.resource.to_owned()),
                verb: Some((*verb).to_owned()),
                namespace: need.namespace.clone(),
                name: need.name.map(str::to_owned),
                ..ResourceAttributes::default()
            };
            match may(site, attributes, user.clone()).await {
                Ok(true) => {}
                Ok(false) => facts.denied.push(need.told(verb)),
                // An API server that knows no such question lets everybody do everything.
                Err(kube::Error::Api(status)) if status.code == 404 => return,
                Err(error) => {
                    facts.unseen.push(Problem::new(
                        format!(
                            "the permissions of {} could not be looked at: {}",
                            facts.identity,
                            story(&error)
                        ),
                        "run this with the permission to create subjectaccessreviews",
                    ));
                    return;
                }
            }
        }
    }
}

impl Need {
    fn told(&self, verb: &str) -> String {
        let name = self.name.map(|name| format!(" {name}")).unwrap_or_default();
        let place = self
            .namespace
            .as_ref()
            .map_or_else(|| "all namespaces".to_owned(), |name| format!("namespace {name}"));
        format!("{verb} {}{name} in {place}", self.resource)
    }
}

async fn may(site: &Site, attributes: ResourceAttributes, user: Option<String>) -> Result<bool, kube::Error> {
    let params = PostParams::default();
    let status = match user {
        Some(user) => {
            let api: Api<SubjectAccessReview> = Api::all(site.client.clone());
            let groups = ["serviceaccounts".to_owned(), format!("serviceaccounts:{}", site.namespace)];
            let groups = groups.map(|group| format!("system:{group}")).into_iter();
            let spec = SubjectAccessReviewSpec {
                resource_attributes: Some(attributes),
                user: Some(user),
                groups: Some(groups.chain(["system:authenticated".to_owned()]).collect()),
                ..SubjectAccessReviewSpec::default()
            };
            let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
            api.create(&params, &review).await?.status
        }
        None => {
            let api: Api<SelfSubjectAccessReview> = Api::all(site.client.clone());
            let spec = SelfSubjectAccessReviewSpec {
                resource_attributes: Some(attributes),
                ..SelfSubjectAccessReviewSpec::default()
            };
            let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
            api.create(&params, &review).await?.status
        }
    };
    Ok(status.is_some_and(|status| status.allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_asked_for_than_the_manifests_give() {
        let agent = AgentName::new("edge-1").unwrap();
        let told = |needs: Vec<Need>| -> Vec<String> {
            needs.iter().flat_map(|need| need.verbs.iter().map(|verb| need.told(verb))).collect()
        };
        let principal = told(of_principal("argocd", std::iter::once(agent)));
        assert!(principal.contains(&"watch applications in all namespaces".to_owned()));
        assert!(principal.contains(&"update applications in namespace edge-1".to_owned()));
        assert!(principal.contains(&"get configmaps argocd-gpg-keys-cm in namespace argocd".to_owned()));
        assert!(!principal.iter().any(|need| need.starts_with("create secrets")));
        let onboarding = |joins, registers, signs| {
            let options =
                PrincipalOptions { joins, registers, ..crate::command::validate::options::unknown() };
            told(of_onboarding("argocd", &options, signs))
        };
        let (take, create) = (
            format!("patch secrets {} in namespace argocd", tiphys_shared::kube::join_secret::name("0")),
            "create secrets in namespace argocd".to_owned(),
        );
        assert_eq!(onboarding(true, false, true), [take.clone(), create.clone()]);
        assert_eq!(onboarding(true, false, false), Vec::<String>::new(), "without a key nobody joins");
        let update = "update secrets in namespace argocd".to_owned();
        assert_eq!(onboarding(true, true, true), [take, create, update]);
        assert_eq!(onboarding(false, false, true), Vec::<String>::new());
        let autonomous = told(of_agent("argocd", Mode::Autonomous));
        assert!(!autonomous.iter().any(|need| need.starts_with("delete")), "{autonomous:?}");
        assert!(
            told(of_agent("argocd", Mode::Managed))
                .contains(&"create secrets in namespace argocd".to_owned())
        );
    }
}
