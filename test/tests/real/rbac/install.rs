//! Puts a variant of the manifests into a cluster, under names that no other test has, and works as their service account.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::{ConfigMap, EnvVarSource, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use kube::api::{Api, PostParams};
use kube::config::AuthInfo;
use kube::{Client, Config};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::super::suite::fleet::Fleet;
use super::record::{Record, Use};

/// Which manifests.
pub(super) struct Variant {
    /// `principal` or `agent`.
    pub(super) side: &'static str,
    /// Folder below `manifests/kustomize`.
    pub(super) base: &'static str,
    /// Folders below `manifests/kustomize/components`.
    pub(super) components: &'static [&'static str],
}

/// What was put into a cluster.
pub(super) struct Installed {
    /// What all names end in.
    pub(super) suffix: String,
    admin: Client,
    pub(super) account: String,
    pub(super) namespace: String,
    /// The API server, with the service account's token.
    pub(super) config: Config,
    token: String,
    pub(super) record: Record,
}

async fn run(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

impl Installed {
    /// Applies `variant` to the cluster of `context`, whose administrator is `admin`.
    pub(super) async fn apply(variant: &Variant, context: &str, admin: &Config, namespace: &str) -> Self {
        let suffix = format!("-{}", namespace.trim_start_matches("argocd-"));
        let folder = tempfile::tempdir().unwrap();
        // kustomize takes paths from here only.
        let up = PathBuf::from_iter(std::iter::repeat_n(
            "..",
            folder.path().canonicalize().unwrap().iter().count() - 1,
        ));
        let manifests =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/kustomize").canonicalize().unwrap();
        let manifests = up.join(manifests.strip_prefix("/").unwrap());
        let components: Vec<_> =
            variant.components.iter().map(|name| manifests.join("components").join(name)).collect();
        let kustomization = serde_json::json!({
            "namespace": namespace, "nameSuffix": suffix,
            "resources": [manifests.join(variant.base)], "components": components,
        });
        std::fs::write(folder.path().join("kustomization.yaml"), kustomization.to_string()).unwrap();
        let built = run(Command::new("kubectl").arg("kustomize").arg(folder.path()), b"").await;
        let kubeconfig = std::env::var("TIPHYS_TEST_KUBECONFIG").unwrap();
        let mut apply = Command::new("kubectl");
        apply.args(["--kubeconfig", &kubeconfig, "--context", context, "apply", "--filename", "-"]);
        run(&mut apply, &built).await;

        let account = format!("argocd-agent-{}{suffix}", variant.side);
        let client = Client::try_from(admin.clone()).unwrap();
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
        let request = TokenRequest {
            spec: TokenRequestSpec { expiration_seconds: Some(3600), ..Default::default() },
            ..Default::default()
        };
        let token = accounts.create_token_request(&account, &PostParams::default(), &request).await.unwrap();
        let token = token.status.unwrap().token;
        let mut config = admin.clone();
        config.auth_info = AuthInfo::default();
        config.auth_info.token = Some(token.clone().into());
        let installed = Self {
            suffix,
            admin: client,
            account,
            namespace: namespace.to_owned(),
            config,
            token,
            record: Record::default(),
        };
        installed.until_allowed("list", "secrets", namespace).await;
        installed
    }

    /// Waits until the API server has learned of a role.
    pub(super) async fn until_allowed(&self, verb: &str, resource: &str, namespace: &str) {
        let what = format!("the right to {verb} {resource} in {namespace:?}");
        Fleet::until(&what, async || self.may(verb, resource, namespace).await.then_some(())).await;
    }

    /// Whether the service account may do that in a namespace, or in all.
    pub(super) async fn may(&self, verb: &str, resource: &str, namespace: &str) -> bool {
        self.may_with(verb, resource, namespace, "").await
    }

    /// The same with the object of that name.
    pub(super) async fn may_with(&self, verb: &str, resource: &str, namespace: &str, name: &str) -> bool {
        let reviews: Api<SelfSubjectAccessReview> = Api::all(Client::try_from(self.config.clone()).unwrap());
        let group = match resource {
            "events" => "events.k8s.io",
            _ if resource.starts_with("app") => "argoproj.io",
            _ => "",
        };
        let asked = |text: &str| Some(text.to_owned());
        let attributes = ResourceAttributes {
            verb: asked(verb),
            group: asked(group),
            resource: asked(resource),
            namespace: asked(namespace),
            name: asked(name),
            ..Default::default()
        };
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() },
            ..Default::default()
        };
        let answer = reviews.create(&PostParams::default(), &review).await.unwrap();
        answer.status.is_some_and(|status| status.allowed)
    }

    /// Everything that the roles of the manifests say, those of the resource proxy left out.
    pub(super) async fn granted(&self) -> BTreeSet<Use> {
        let name = self.account.trim_end_matches(&self.suffix);
        let mut rules: Vec<PolicyRule> = Vec::new();
        let roles: Api<Role> = Api::namespaced(self.admin.clone(), &self.namespace);
        rules.extend(roles.get(&self.account).await.unwrap().rules.unwrap_or_default());
        let roles: Api<ClusterRole> = Api::all(self.admin.clone());
        for part in ["", "-applications", "-namespaces"] {
            if let Some(role) = roles.get_opt(&format!("{name}{part}{}", self.suffix)).await.unwrap() {
                rules.extend(role.rules.unwrap_or_default());
            }
        }
        let pairs = rules.into_iter().flat_map(|rule| {
            let resources = rule.resources.unwrap_or_default();
            rule.verbs.into_iter().flat_map(move |verb| {
                resources
                    .clone()
                    .into_iter()
                    .map(move |resource| (verb.clone(), resource))
                    .collect::<Vec<_>>()
            })
        });
        pairs.collect()
    }

    /// Fails unless the roles were enough, and every verb that they grant was needed.
    pub(super) async fn assert_roles_fit(&self) {
        self.record.assert_nothing_was_refused(&self.account);
        let uses = self.record.uses();
        // Who lists may as well get; that happens only when somebody else has changed something in between.
        // Events tell of what goes wrong; they have a test of their own.
        let granted = self.granted().await.into_iter();
        let granted = granted.filter(|(verb, resource)| verb != "get" && resource != "events");
        let idle: BTreeMap<_, _> = granted.filter(|one| !uses.contains(one)).collect();
        assert!(idle.is_empty(), "{} may do what it never does: {idle:?}", self.account);
    }

    /// Writes a kubeconfig with the service account's token.
    pub(super) fn write_kubeconfig(&self, folder: &Path) -> PathBuf {
        let authorities = self.config.root_cert.iter().flatten().map(|der| {
            let body = STANDARD.encode(der);
            format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
        });
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "account",
            "clusters": [{"name": "cluster", "cluster": {
                "server": self.config.cluster_url.to_string(),
                "certificate-authority-data": STANDARD.encode(authorities.collect::<String>()),
            }}],
            "users": [{"name": "account", "user": {"token": self.token}}],
            "contexts": [{"name": "account", "context": {
                "cluster": "cluster", "user": "account", "namespace": self.namespace,
            }}],
        });
        let path = folder.join(format!("{}.kubeconfig", self.account));
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }

    /// Arguments and environment that the Deployment gives its container.
    pub(super) async fn command(&self) -> (Vec<String>, BTreeMap<String, String>) {
        let deployments: Api<Deployment> = Api::namespaced(self.admin.clone(), &self.namespace);
        let config_maps: Api<ConfigMap> = Api::namespaced(self.admin.clone(), &self.namespace);
        let pod = deployments.get(&self.account).await.unwrap().spec.unwrap().template.spec.unwrap();
        let container = pod.containers.into_iter().next().unwrap();
        let mut environment = BTreeMap::new();
        for variable in container.env.unwrap_or_default() {
            let value = match (variable.value, variable.value_from) {
                (Some(value), _) => Some(value),
                (None, Some(EnvVarSource { config_map_key_ref: Some(from), .. })) => {
                    let map = config_maps.get(&from.name).await.unwrap();
                    map.data.and_then(|data| data.get(&from.key).cloned())
                }
                // There is no Redis here.
                _ => None,
            };
            environment.extend(value.map(|value| (variable.name, value)));
        }
        (container.args.unwrap(), environment)
    }

    /// How a side connects.
    pub(super) fn connect(&self) -> super::super::suite::fleet::Connect {
        let (record, config) = (self.record.clone(), self.config.clone());
        std::sync::Arc::new(move || record.client(&config))
    }
}
