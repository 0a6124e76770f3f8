//! Clusters that join with a token, renew their certificates and log in, by nothing but the roles of the manifests.

use std::path::Path;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, Config, ResourceExt as _};
use serde_json::json;
use tiphys_shared::kube::{join_secret, kinds};
use tiphys_shared::model::Kind;
use tiphys_shared::process::clock;
use tiphys_shared::security::pki::{Ca, Certificate};
use tiphys_shared::security::tls::Material;
use tiphys_shared::security::token::Issuer;

use super::super::managed::config;
use super::super::pods::tiphys;
use super::super::suite::fleet::{DAY, Fleet, application, create_namespace};
use super::install::{Installed, Variant};
use super::program::Program;
use super::{agent, principal, unique};

const CLIENT_TLS: &str = "argocd-agent-client-tls";

/// Writes these keys of a Secret, and leaves its others as they are.
async fn put(secrets: &Api<Secret>, name: &str, data: &[(&str, &[u8])]) {
    let data: std::collections::BTreeMap<_, _> =
        data.iter().map(|(key, value)| (*key, ByteString(value.to_vec()))).collect();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data});
    secrets.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(secret)).await.unwrap();
}

async fn put_pair(secrets: &Api<Secret>, name: &str, pair: &Material) {
    put(secrets, name, &[("tls.crt", &pair.chain), ("tls.key", pair.key.expose()), ("ca.crt", &pair.ca)])
        .await;
}

/// What an operator does, who may do everything: its answer, and what it says besides.
async fn operate(line: &[&str]) -> (String, String) {
    let clusters = std::env::var("TIPHYS_TEST_KUBECONFIG").unwrap();
    let output = tiphys().args(line).args(["--kubeconfig", &clusters]).output().await.unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{line:?}: {out}{err}");
    (out.trim().to_owned(), err)
}

/// Applies the admission policy, and waits until it keeps a principal from making itself tokens of other accounts.
async fn restrict(principal: &Installed) {
    let policy = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/admission/principal-secrets.yaml");
    let clusters = std::env::var("TIPHYS_TEST_KUBECONFIG").unwrap();
    let mut kubectl = tokio::process::Command::new("kubectl");
    kubectl.args(["--kubeconfig", &clusters, "--context", "cluster-0", "apply", "--filename", policy]);
    let output = kubectl.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let own: Api<Secret> =
        Api::namespaced(Client::try_from(principal.config.clone()).unwrap(), &principal.namespace);
    let token = serde_json::from_value(json!({
        "metadata": {
            "name": "cluster-stolen", "annotations": {"kubernetes.io/service-account.name": "default"},
            "labels": {"argocd.argoproj.io/secret-type": "cluster"},
        },
        "type": "kubernetes.io/service-account-token",
    }))
    .unwrap();
    let trial = PostParams { dry_run: true, ..PostParams::default() };
    let refusal = Fleet::until("the admission policy", async || own.create(&trial, &token).await.err()).await;
    assert!(refusal.to_string().contains("makes Secrets of clusters"), "{refusal}");
    let other = serde_json::from_value(json!({"metadata": {"name": "other"}})).unwrap();
    own.create(&trial, &other).await.unwrap_err();
}

/// A cluster, and what is installed there.
struct Site {
    name: String,
    admin: Config,
    installed: Installed,
    program: Program,
}

impl Site {
    fn client(&self) -> Client {
        Client::try_from(self.admin.clone()).unwrap()
    }
}

/// The control plane.
struct Stage {
    namespace: String,
    admin: Client,
    ca: Ca,
    address: String,
}

impl Stage {
    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.admin.clone(), &self.namespace)
    }

    /// Lets a cluster join, makes its certificate old, and starts its agent, which has to renew it.
    async fn join(&self, context: &str, name: &str, variant: &Variant, folder: &Path) -> Site {
        let admin = config(context).await;
        create_namespace(&Client::try_from(admin.clone()).unwrap(), &self.namespace).await;
        let at = ["--namespace", &self.namespace, "--kubecontext", "cluster-0"];
        let (token, _) = operate(&[&["agent", "token", "create", "--name", name], &at[..]].concat()).await;
        let id = token.split('.').nth(2).unwrap().to_owned();
        let place = ["--agent-namespace", &self.namespace, "--kubecontext", context];
        let (_, said) =
            operate(&[&["join", "--server", &self.address, "--token", &token], &place[..]].concat()).await;
        assert!(!said.contains("warning"), "{said}");
        let known = self.secrets().get(&format!("cluster-{name}")).await.unwrap();
        assert_eq!(known.labels()["argocd-agent.argoproj-labs.io/agent-name"], name);
        let tokens = self.secrets().get(&join_secret::name(&id)).await.unwrap().data.unwrap_or_default();
        assert!(!tokens.contains_key(&id), "the token can be used again");

        let secrets: Api<Secret> = Api::namespaced(Client::try_from(admin.clone()).unwrap(), &self.namespace);
        let aged = self.ca.issue_client::<&str>(name, &[], clock::now() - 10 * DAY, 11 * DAY).unwrap();
        let pair = json!({"tls.crt": ByteString(aged.chain.clone()), "tls.key": ByteString(aged.key.expose().to_vec())});
        secrets
            .patch(CLIENT_TLS, &PatchParams::default(), &Patch::Merge(json!({"data": pair})))
            .await
            .unwrap();
        let installed = Installed::apply(variant, context, &admin, &self.namespace).await;
        installed.until_allowed("watch", "applications", &self.namespace).await;
        if variant.base == "agent-autonomous" {
            let own = async || {
                let may = installed.may_with("update", "secrets", &self.namespace, CLIENT_TLS).await;
                may.then_some(())
            };
            Fleet::until("the right to renew", own).await;
        }
        let (host, port) = self.address.rsplit_once(':').unwrap();
        let options = ["--server-address", host, "--server-port", port, "--redis-addr=none"];
        let program = Program::start(&installed, folder, &options).await;
        Fleet::until("the renewal", async || {
            let pem = secrets.get(CLIENT_TLS).await.ok()?.data?.get("tls.crt")?.0.clone();
            let now = Certificate::from_pem(&pem).ok()?;
            (now.fingerprint != aged.leaf().ok()??.fingerprint).then_some(())
        })
        .await;
        Site { name: name.to_owned(), admin, installed, program }
    }
}

/// The line of a principal on loopback.
fn line(port: &str) -> [&str; 5] {
    [
        "--listen-host=127.0.0.1",
        "--listen-port",
        port,
        "--resource-proxy-listen-port=0",
        "--disable-redis-proxy",
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_join_renew_and_register_by_what_their_roles_give() {
    let namespace = format!("argocd-{}-joining", std::process::id());
    let (managed, autonomous) = (unique("joined"), unique("renewing"));
    let folder = tempfile::tempdir().unwrap();
    let control = config("cluster-0").await;
    let admin = Client::try_from(control.clone()).unwrap();
    for name in [&namespace, &managed] {
        create_namespace(&admin, name).await;
    }
    let ca = Ca::generate("joining", clock::now(), 10 * DAY).unwrap();
    let mut stage = Stage { namespace, admin, ca, address: String::new() };
    let (namespace, secrets) = (stage.namespace.clone(), stage.secrets());
    for name in ["argocd-agent-principal-tls", "argocd-agent-resource-proxy-tls"] {
        let pair = stage.ca.issue_server(&["localhost", "127.0.0.1"], clock::now(), DAY).unwrap();
        put_pair(&secrets, name, &pair).await;
    }
    let pem = stage.ca.certificate_pem().as_bytes();
    put(&secrets, "argocd-agent-ca", &[("tls.crt", pem), ("tls.key", stage.ca.key_pem().expose())]).await;
    let new_key = || Issuer::generate_key(2048).unwrap();
    put(&secrets, "argocd-agent-jwt", &[("jwt.key", new_key().expose())]).await;

    let variant = principal("principal", &["principal-namespace-creation"]);
    let installed = Installed::apply(&variant, "cluster-0", &control, &namespace).await;
    installed.until_allowed("create", "secrets", &namespace).await;
    installed.until_allowed("list", "applications", "").await;
    installed.until_allowed("update", "applications", &managed).await;
    installed.until_allowed("create", "namespaces", "").await;
    // The Secrets with the tokens are the only ones that it may change, and it may delete none.
    let tokens = join_secret::name("f");
    for (verb, name) in [("patch", "argocd-agent-ca"), ("update", &*tokens), ("delete", &*tokens)] {
        assert!(!installed.may_with(verb, "secrets", &namespace, name).await, "it may {verb} {name}");
    }
    let own: Api<Secret> = Api::namespaced(Client::try_from(installed.config.clone()).unwrap(), &namespace);
    let refused = own.delete("argocd-agent-jwt", &DeleteParams::default()).await.unwrap_err();
    assert!(matches!(&refused, kube::Error::Api(status) if status.code == 403), "{refused}");
    for verb in ["get", "list", "create"] {
        assert!(!installed.may(verb, "secrets", "kube-system").await, "it may {verb} secrets elsewhere");
    }

    restrict(&installed).await;
    let program = Program::start(&installed, folder.path(), &line("0")).await;
    stage.address = program.until_listens().await.to_string();
    let first = stage.join("cluster-1", &managed, &agent("agent-managed", &[]), folder.path()).await;
    let elsewhere = folder.path().join("autonomous");
    std::fs::create_dir(&elsewhere).unwrap();
    let second = stage.join("cluster-2", &autonomous, &agent("agent-autonomous", &[]), &elsewhere).await;
    let others = second.installed.may_with("update", "secrets", &namespace, "argocd-agent-ca").await;
    assert!(!others, "an autonomous agent may change the CAs that it believes");

    // They are connected, and of use.
    let app = application("guestbook", "main");
    let from = kinds::api(&stage.admin, Kind::Application, Some(&managed));
    from.create(&PostParams::default(), &app).await.unwrap();
    let to = kinds::api(&first.client(), Kind::Application, Some(&namespace));
    Fleet::until_is(&to, "guestbook", "the copy", |_| true).await;
    let from = kinds::api(&second.client(), Kind::Application, Some(&namespace));
    from.create(&PostParams::default(), &app).await.unwrap();
    let to = kinds::api(&stage.admin, Kind::Application, Some(&autonomous));
    Fleet::until_is(&to, "guestbook", "it to be shown", |_| true).await;
    program.assert_nothing_was_refused().await;
    program.stop().await;

    // Agents that register themselves.
    let shared = stage.ca.issue_client::<&str>("argocd", &[], clock::now(), DAY).unwrap();
    put_pair(&secrets, "argocd-agent-cluster-client", &shared).await;
    let name = format!("cluster-{}", first.name);
    secrets.delete(&name, &DeleteParams::default()).await.unwrap();
    let components = &["principal-namespace-creation", "principal-self-registration"];
    let installed =
        Installed::apply(&principal("principal", components), "cluster-0", &control, &namespace).await;
    installed.until_allowed("update", "secrets", &namespace).await;
    let port = stage.address.rsplit_once(':').unwrap().1;
    let program = Program::start(&installed, folder.path(), &line(port)).await;
    let made = Fleet::until("the cluster Secret", async || secrets.get_opt(&name).await.unwrap()).await;
    assert_eq!(made.labels()["argocd-agent.argoproj-labs.io/self-registered-cluster"], "true");
    put(&secrets, "argocd-agent-jwt", &[("jwt.key", new_key().expose())]).await;
    Fleet::until("a token by the new key", async || {
        let now = secrets.get(&name).await.unwrap();
        (now.data != made.data).then_some(())
    })
    .await;
    assert!(!installed.may("delete", "secrets", &namespace).await, "it may delete secrets");
    let own: Api<Secret> = Api::namespaced(Client::try_from(installed.config.clone()).unwrap(), &namespace);
    let ca = own.get("argocd-agent-ca").await.unwrap();
    let refused = own.replace("argocd-agent-ca", &PostParams::default(), &ca).await.unwrap_err();
    assert!(refused.to_string().contains("makes Secrets of clusters"), "{refused}");

    for program in [program, first.program, second.program] {
        program.assert_nothing_was_refused().await;
        program.stop().await;
    }
}
