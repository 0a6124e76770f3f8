//! Seeded misconfigurations over embedded API servers: each is found by its own check, which names a remedy.

mod bundles;
mod remedies;
mod rights;

use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};
use tiphys_apiserver::ApiServer;
use tiphys_shared::process::clock;
use tiphys_shared::security::pki::{Ca, Certificate};
use tiphys_shared::security::tls::Material;
use tiphys_shared::security::token::Issuer;

use super::finding::{Finding, Severity};
use super::snapshot::Snapshot;
use super::{gather, judge};
use crate::operator::installation::OwnOptions;
use crate::operator::targets::Site;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What certificates are made from, once for all cases.
struct Pki {
    ca: Ca,
    other: Ca,
    jwt: Vec<u8>,
    /// The certificate of agent edge-1.
    own: Material,
    now: Timestamp,
}

static PKI: LazyLock<Pki> = LazyLock::new(|| {
    let now = clock::now();
    let ca = Ca::generate("ca", now, 365 * DAY).unwrap();
    let own = ca.issue_client::<&str>("edge-1", &[], now, 90 * DAY).unwrap();
    let other = Ca::generate("other", now, 365 * DAY).unwrap();
    let jwt = Issuer::generate_key(2048).unwrap().expose().to_vec();
    Pki { ca, other, jwt, own, now }
});

impl Pki {
    fn server(&self, names: &[&str]) -> Material {
        self.ca.issue_server(names, self.now, 90 * DAY).unwrap()
    }

    fn client(&self, name: &str) -> Material {
        self.ca.issue_client::<&str>(name, &[], self.now, 90 * DAY).unwrap()
    }
}

fn b64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn pair(material: &Material) -> Value {
    json!({"tls.crt": b64(&material.chain), "tls.key": b64(material.key.expose())})
}

fn cluster_data(agent: &str, server: &str, material: &Material) -> Value {
    let config = json!({"tlsClientConfig": {
        "insecure": false,
        "certData": b64(&material.chain),
        "keyData": b64(material.key.expose()),
        "caData": b64(&material.ca),
    }});
    json!({"name": b64(agent.as_bytes()), "server": b64(server.as_bytes()), "config": b64(config.to_string().as_bytes())})
}

/// Which cluster.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Control,
    Edge,
}
use Side::{Control, Edge};

/// One change to a sound installation.
enum Act {
    Patch(Side, &'static str, &'static str, Value),
    Delete(Side, &'static str, &'static str),
    Create(Side, &'static str, Value),
}
use Act::{Create, Delete, Patch as Change};

struct World {
    control: Site,
    edge: Site,
}

fn api(site: &Site, kind: &str, namespace: Option<&str>) -> Api<DynamicObject> {
    let (group, version, kind) = match kind {
        "deployment" => ("apps", "v1", "Deployment"),
        "statefulset" => ("apps", "v1", "StatefulSet"),
        "application" => ("argoproj.io", "v1alpha1", "Application"),
        "project" => ("argoproj.io", "v1alpha1", "AppProject"),
        "config map" => ("", "v1", "ConfigMap"),
        "namespace" => ("", "v1", "Namespace"),
        "definition" => ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
        _ => ("", "v1", "Secret"),
    };
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    match kind {
        "Namespace" | "CustomResourceDefinition" => Api::all_with(site.client.clone(), &resource),
        _ => Api::namespaced_with(site.client.clone(), namespace.unwrap_or("argocd"), &resource),
    }
}

impl World {
    fn site(&self, side: Side) -> &Site {
        match side {
            Control => &self.control,
            Edge => &self.edge,
        }
    }

    async fn act(&self, act: Act) {
        match act {
            Change(side, kind, name, patch) => {
                let api = api(self.site(side), kind, None);
                api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
            }
            Delete(side, kind, name) => {
                _ = api(self.site(side), kind, None).delete(name, &DeleteParams::default()).await.unwrap();
            }
            Create(side, kind, object) => {
                let namespace = object["metadata"]["namespace"].as_str().map(str::to_owned);
                let object: DynamicObject = serde_json::from_value(object).unwrap();
                let api = api(self.site(side), kind, namespace.as_deref());
                api.create(&PostParams::default(), &object).await.unwrap();
            }
        }
    }

    async fn findings(&self, dials: bool) -> Vec<Finding> {
        let own = OwnOptions::default();
        let control = gather::control_plane(&self.control, &own).await.unwrap();
        let edge = gather::edge(&self.edge, &own, dials).await.unwrap();
        judge(&Snapshot { now: clock::now(), control, edge: Some(edge) })
    }
}

fn site() -> Site {
    let server = ApiServer::new(tiphys_apiserver::Options::default());
    for documents in [
        include_str!("../../../../manifests/crds/applications.yaml"),
        include_str!("../../../../manifests/crds/appprojects.yaml"),
    ] {
        server.install_crds(documents).unwrap();
    }
    Site { client: server.client(), namespace: "argocd".to_owned(), server: "https://here".to_owned() }
}

/// Several CAs in one text.
fn bundle(cas: &[&Ca]) -> Value {
    json!({"ca.crt": b64(cas.iter().map(|ca| ca.certificate_pem()).collect::<String>().as_bytes())})
}

fn named(kind: &str, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}})
}

fn secret(name: &str, kind: &str, data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": kind, "data": data})
}

fn workload(kind: &str, name: &str, component: &str, arguments: &[&str]) -> Value {
    let mut object = json!({
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "labels": {
            "app.kubernetes.io/part-of": if arguments.is_empty() { "argocd" } else { "argocd-agent" },
            "app.kubernetes.io/component": component,
        }},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{
                    "name": "main",
                    "image": if arguments.is_empty() { "argocd:v3" } else { "argocd-agent:v1" },
                    "args": arguments,
                    "env": if arguments.is_empty() { json!([]) } else { json!([{
                        "name": "ARGOCD_PRINCIPAL_ALLOWED_NAMESPACES",
                        "valueFrom": {"configMapKeyRef":
                            {"name": "argocd-agent-params", "key": "principal.allowed-namespaces", "optional": true}},
                    }]) },
                }]},
            },
        },
    });
    if kind == "StatefulSet" {
        object["spec"]["serviceName"] = json!(name);
    }
    object
}

fn arguments(arguments: &[&str]) -> Value {
    let mut template = workload("Deployment", "x", "x", arguments);
    json!({"spec": {"template": {"spec": template["spec"]["template"]["spec"].take()}}})
}

const PRINCIPAL: [&str; 2] = ["principal", "--auth=mtls:subject:CN=([^,]+)"];
const AGENT: [&str; 4] =
    ["agent", "--server-address=principal.example", "--agent-mode=managed", "--creds=mtls:any"];
const SERVER: &str = "https://argocd-agent-resource-proxy:9090?agentName=edge-1";

/// An installation in which nothing is wrong.
async fn sound() -> World {
    let world = World { control: site(), edge: site() };
    let pki = &*PKI;
    for (side, name) in [(Control, "argocd"), (Control, "edge-1"), (Edge, "argocd")] {
        world.act(Create(side, "namespace", named("Namespace", name))).await;
    }
    let ca = b64(pki.ca.certificate_pem().as_bytes());
    let authority = json!({"tls.crt": ca, "tls.key": b64(pki.ca.key_pem().expose())});
    let tls = "kubernetes.io/tls";
    for object in [
        secret("argocd-agent-ca", tls, &authority),
        secret("argocd-agent-principal-tls", tls, &pair(&pki.server(&["principal.example", "127.0.0.1"]))),
        secret("argocd-agent-resource-proxy-tls", tls, &pair(&pki.server(&["argocd-agent-resource-proxy"]))),
        secret("argocd-agent-jwt", "Opaque", &json!({"jwt.key": b64(&pki.jwt)})),
        cluster("cluster-edge-1"),
    ] {
        world.act(Create(Control, "secret", object)).await;
    }
    let params = json!({"redis.server": "argocd-agent-redis-proxy:6379", "application.namespaces": "edge-*"});
    for (name, data) in [
        ("argocd-cmd-params-cm", params),
        ("argocd-agent-params", json!({"principal.allowed-namespaces": "edge-*"})),
    ] {
        let mut map = named("ConfigMap", name);
        map["data"] = data;
        world.act(Create(Control, "config map", map)).await;
    }
    for object in [
        workload("Deployment", "argocd-agent-principal", "principal", &PRINCIPAL),
        workload("Deployment", "argocd-server", "server", &[]),
        workload("Deployment", "argocd-repo-server", "repo-server", &[]),
    ] {
        world.act(Create(Control, "deployment", object)).await;
    }
    world.act(Create(Control, "project", project())).await;
    world.act(Create(Edge, "secret", secret("argocd-agent-ca", "Opaque", &json!({"ca.crt": ca})))).await;
    let client = pair(&pki.own);
    world.act(Create(Edge, "secret", secret("argocd-agent-client-tls", tls, &client))).await;
    world
        .act(Create(Edge, "deployment", workload("Deployment", "argocd-agent-agent", "agent", &AGENT)))
        .await;
    let controller = workload("StatefulSet", "argocd-application-controller", "application-controller", &[]);
    world.act(Create(Edge, "statefulset", controller)).await;
    world
}

fn cluster(name: &str) -> Value {
    let mut object = secret(name, "Opaque", &cluster_data("edge-1", SERVER, &PKI.own));
    object["metadata"]["labels"] = json!({
        "argocd.argoproj.io/secret-type": "cluster",
        "argocd-agent.argoproj-labs.io/agent-name": "edge-1",
    });
    object["metadata"]["annotations"] = json!({"argocd.argoproj.io/skip-reconcile": "true"});
    object
}

fn project() -> Value {
    json!({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "AppProject",
        "metadata": {"name": "default", "namespace": "argocd"},
        "spec": {"sourceNamespaces": ["edge-*"], "destinations": [{"name": "edge-*", "namespace": "*"}]},
    })
}

fn application(annotations: Value) -> Value {
    json!({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Application",
        "metadata": {"name": "guestbook", "namespace": "edge-1", "annotations": annotations},
        "spec": {"project": "default", "source": {"repoURL": "https://example.com/r", "path": "."}, "destination": {}},
    })
}

#[tokio::test]
async fn a_sound_installation_has_nothing_to_be_said_about() {
    assert_eq!(sound().await.findings(false).await, []);
}

/// A change, the check that has to find it, a part of what it says and of the remedy, and which other checks may find
/// what follows from it.
type Case = (Act, &'static str, &'static str, &'static str, &'static [&'static str]);

#[allow(clippy::too_many_lines, reason = "a table")]
fn cases() -> Vec<Case> {
    let pki = &*PKI;
    let past: Timestamp = "2020-01-01T00:00:00Z".parse().unwrap();
    let future = pki.now + 30 * DAY;
    let expired = pki.ca.issue_server(&["principal.example"], past, DAY).unwrap();
    let early = pki.ca.issue_server(&["principal.example"], future, DAY).unwrap();
    let soon = pki.ca.issue_server(&["principal.example"], pki.now, 5 * DAY).unwrap();
    let strange = pki.other.issue_client::<&str>("edge-1", &[], pki.now, 90 * DAY).unwrap();
    let stale = Material { ca: pki.other.certificate_pem().into(), ..pki.client("edge-1") };
    let mixed = json!({"tls.crt": pair(&pki.server(&["principal.example"]))["tls.crt"],
        "tls.key": pair(&pki.server(&["principal.example"]))["tls.key"]});
    let data = |data: Value| json!({"data": data});
    let fingerprint = Certificate::from_pem(&pki.own.chain).unwrap().fingerprint;
    let blocklist = |entry: &str| {
        let mut map = named("ConfigMap", "argocd-agent-tls-blocklist");
        map["data"] = json!({entry: ""});
        Create(Control, "config map", map)
    };
    let tls = "argocd-agent-principal-tls";
    let client = "argocd-agent-client-tls";
    let old = Ca::generate("old", past, DAY).unwrap();
    let ca = |data: Value| Change(Control, "secret", "argocd-agent-ca", json!({"data": data}));
    let with = |more: &[&str], all: &[&str]| arguments(&[all, more].concat());
    vec![
        (
            ca(json!({"tls.key": b64(b"rubbish")})),
            "key-unreadable",
            "key in Secret argocd/argocd-agent-ca",
            "tls.key",
            &[],
        ),
        (
            ca(json!({"tls.key": b64(pki.other.key_pem().expose())})),
            "key-mismatch",
            "argocd-agent-ca (CA) does not belong",
            "nobody can join",
            &[],
        ),
        (
            ca(bundle(&[&old, &pki.ca])),
            "certificate-expired",
            "of the 2 CAs in Secret argocd/argocd-agent-ca",
            "take them out of ca.crt",
            &[],
        ),
        (
            ca(bundle(&[&old, &old])),
            "certificate-expired",
            "lasts longest of 2",
            "`pki init --force`, and then",
            &["ca-mismatch"],
        ),
        (
            Change(
                Control,
                "deployment",
                "argocd-agent-principal",
                json!({"spec": {"template": {"spec": {"serviceAccountName": "argocd-agent-principal"}}}}),
            ),
            "service-account-missing",
            "argocd/argocd-agent-principal",
            "create serviceaccount argocd-agent-principal",
            &[],
        ),
        (Delete(Control, "secret", "argocd-agent-ca"), "secret-missing", "argocd-agent-ca", "pki init", &[]),
        (Delete(Control, "secret", tls), "secret-missing", tls, "pki issue principal", &[]),
        (Delete(Edge, "secret", client), "secret-missing", client, "pki issue agent", &[]),
        (
            Delete(Edge, "secret", "argocd-agent-ca"),
            "secret-missing",
            "argocd-agent-ca",
            "pki propagate",
            &[],
        ),
        (
            Delete(Control, "secret", "argocd-agent-jwt"),
            "jwt-missing",
            "argocd-agent-jwt",
            "jwt create-key",
            &[],
        ),
        (
            Change(Control, "secret", "argocd-agent-jwt", data(json!({"jwt.key": b64(b"rubbish")}))),
            "jwt-unusable",
            "argocd-agent-jwt",
            "jwt create-key --upsert",
            &[],
        ),
        (
            Change(Edge, "secret", client, data(json!({"tls.key": ""}))),
            "secret-keys",
            "lacks tls.key",
            "pki issue agent",
            &[],
        ),
        (
            Change(Control, "secret", tls, data(json!({"tls.crt": b64(b"rubbish")}))),
            "certificate-unreadable",
            tls,
            "PEM",
            &[],
        ),
        (
            Change(Control, "secret", tls, data(pair(&expired))),
            "certificate-expired",
            "expired at",
            "renew",
            &[],
        ),
        (
            Change(Control, "secret", tls, data(pair(&early))),
            "certificate-not-yet-valid",
            "not valid before",
            "clocks",
            &[],
        ),
        (Change(Control, "secret", tls, data(pair(&soon))), "certificate-expires", "days", "renew", &[]),
        (Change(Control, "secret", tls, data(mixed)), "key-mismatch", "does not belong", "store a pair", &[]),
        (
            Change(Control, "secret", tls, data(pair(&pki.server(&["elsewhere.example"])))),
            "san-missing",
            "not for principal.example",
            "pki issue principal --dns principal.example --upsert",
            &[],
        ),
        (
            Change(Control, "secret", tls, data(pair(&pki.client("principal.example")))),
            "certificate-usage",
            "other side",
            "--upsert",
            &["san-missing"],
        ),
        (
            Change(
                Edge,
                "secret",
                "argocd-agent-ca",
                data(json!({"ca.crt": b64(pki.other.certificate_pem().as_bytes())})),
            ),
            "ca-mismatch",
            "the CA that the agent has",
            "pki propagate --force",
            &[],
        ),
        (
            Change(Edge, "secret", client, data(pair(&strange))),
            "ca-mismatch",
            "the agent's certificate",
            "pki issue agent",
            &[],
        ),
        (
            Change(Edge, "secret", "argocd-agent-ca", data(json!({"ca.crt": b64(&pki.client("x").chain)}))),
            "ca-not-ca",
            "not a CA",
            "CA itself",
            &[],
        ),
        (
            Change(Edge, "secret", client, data(pair(&pki.client("Edge_1")))),
            "agent-name",
            "Edge_1",
            "pki issue agent",
            &[],
        ),
        (
            Change(Edge, "secret", client, data(pair(&pki.client("edge-2")))),
            "agent-namespace",
            "no namespace edge-2",
            "kubectl create namespace edge-2",
            &["agent-unknown"],
        ),
        (
            Change(Control, "secret", "cluster-edge-1", data(json!({"config": b64(b"{")}))),
            "cluster-config",
            "JSON",
            "agent create edge-1",
            &[],
        ),
        (
            Change(Control, "secret", "cluster-edge-1", data(json!({"config": b64(b"{}")}))),
            "cluster-config",
            "neither a client certificate nor a token",
            "--reissue-client-cert",
            &[],
        ),
        (
            Change(
                Control,
                "secret",
                "cluster-edge-1",
                data(json!({"server": b64(b"https://argocd-agent-resource-proxy:9090")})),
            ),
            "cluster-server",
            "does not say agentName=edge-1",
            "agent reconfigure edge-1",
            &[],
        ),
        (
            Change(
                Control,
                "secret",
                "cluster-edge-1",
                data(json!({"server": b64(b"https://argocd-agent-resource-proxy:9090?agentName=edge-2")})),
            ),
            "cluster-server",
            "names agent edge-2",
            "agent reconfigure edge-1",
            &[],
        ),
        (
            Change(
                Control,
                "secret",
                "cluster-edge-1",
                data(json!({"config": cluster_data("edge-1", "", &stale)["config"]})),
            ),
            "cluster-ca",
            "Argo CD cannot see the cluster",
            "agent reconfigure edge-1 --reissue-client-cert",
            &[],
        ),
        (
            Change(
                Control,
                "secret",
                "cluster-edge-1",
                data(json!({"server": b64(b"https://proxy.example:9090?agentName=edge-1")})),
            ),
            "san-missing",
            "proxy.example",
            "pki issue resource-proxy --dns proxy.example",
            &[],
        ),
        (
            Change(
                Control,
                "secret",
                "cluster-edge-1",
                json!({"metadata": {"labels": {"argocd.argoproj.io/secret-type": null}}}),
            ),
            "cluster-label",
            "secret-type",
            "kubectl -n argocd label",
            &[],
        ),
        (
            Change(
                Control,
                "secret",
                "cluster-edge-1",
                json!({"metadata": {"labels": {"argocd-agent.argoproj-labs.io/agent-name": null}}}),
            ),
            "cluster-label",
            "agent-name",
            "agent-name=edge-1",
            &["agent-unknown"],
        ),
        (
            Change(Control, "secret", "cluster-edge-1", json!({"metadata": {"annotations": null}})),
            "cluster-reconciled",
            "skip-reconcile",
            "kubectl -n argocd annotate",
            &[],
        ),
        (
            Create(Control, "secret", cluster("another")),
            "cluster-duplicate",
            "another, cluster-edge-1",
            "leave one",
            &[],
        ),
        (blocklist("not-a-fingerprint"), "blocklist-entry", "not-a-fingerprint", "64 hexadecimal", &[]),
        (
            blocklist(&fingerprint.to_lowercase()),
            "certificate-blocked",
            "the agent's certificate",
            "blocklist tls remove",
            &[],
        ),
        (
            Delete(Control, "definition", "appprojects.argoproj.io"),
            "crd-missing",
            "appprojects.argoproj.io",
            "install Argo CD",
            &[],
        ),
        (
            Change(
                Control,
                "config map",
                "argocd-agent-params",
                data(json!({"principal.allowed-namespaces": "team-*"})),
            ),
            "agent-not-served",
            "does not match edge-1",
            "--allowed-namespaces",
            &[],
        ),
        (
            Change(
                Control,
                "config map",
                "argocd-agent-params",
                data(json!({"principal.allowed-namespaces": "/[/"})),
            ),
            "options-invalid",
            "allowed-namespaces",
            "",
            &[],
        ),
        (
            Change(
                Control,
                "config map",
                "argocd-cmd-params-cm",
                data(json!({"redis.server": "argocd-redis:6379"})),
            ),
            "redis-server",
            "argocd-redis:6379",
            "argocd-agent-redis-proxy:6379",
            &[],
        ),
        (
            Change(
                Control,
                "config map",
                "argocd-cmd-params-cm",
                data(json!({"application.namespaces": "team"})),
            ),
            "argocd-namespaces",
            "namespace edge-1",
            "application.namespaces",
            &[],
        ),
        (
            Create(
                Control,
                "statefulset",
                workload("StatefulSet", "argocd-application-controller", "application-controller", &[]),
            ),
            "application-controller",
            "statefulset/argocd-application-controller",
            "--replicas 0",
            &[],
        ),
        (
            Delete(Edge, "statefulset", "argocd-application-controller"),
            "component-missing",
            "nothing is deployed",
            "install it",
            &[],
        ),
        (
            Delete(Control, "deployment", "argocd-agent-principal"),
            "workload-missing",
            "runs a principal",
            "install it",
            &[],
        ),
        (
            Change(Control, "project", "default", json!({"spec": {"sourceNamespaces": ["team-*"]}})),
            "source-namespaces",
            "sourceNamespaces",
            "spec.sourceNamespaces",
            &[],
        ),
        (
            Change(Control, "project", "default", json!({"spec": {"destinations": []}})),
            "project-destinations",
            "no AppProject",
            "add a destination",
            &[],
        ),
        (
            Change(Edge, "deployment", "argocd-agent-agent", with(&["--destination-based-mapping"], &AGENT)),
            "mapping-mismatch",
            "on at the agent and off at the principal",
            "both sides",
            &[],
        ),
        (
            Change(Edge, "deployment", "argocd-agent-agent", with(&["--agent-mode=sometimes"], &AGENT[..2])),
            "options-invalid",
            "sometimes",
            "",
            &[],
        ),
        (
            Create(Control, "application", application(json!({"argocd.argoproj.io/source-uid": "u"}))),
            "mode-mismatch",
            "the agent is managed",
            "--agent-mode autonomous",
            &[],
        ),
        (
            Change(
                Edge,
                "deployment",
                "argocd-agent-agent",
                with(
                    &["--server-address=127.0.0.1", "--server-port=1"],
                    &["agent", "--agent-mode=managed", "--creds=mtls:any"],
                ),
            ),
            "principal-unreachable",
            "127.0.0.1:1",
            "--server-port",
            &[],
        ),
    ]
}

#[tokio::test]
async fn every_seeded_misconfiguration_is_found_by_its_check_and_has_a_remedy() {
    let cases = cases();
    assert!(cases.len() >= 20);
    for (index, (act, check, what, remedy, others)) in cases.into_iter().enumerate() {
        let world = sound().await;
        world.act(act).await;
        let found = world.findings(check == "principal-unreachable").await;
        let case = format!("case {index}, {check}: {found:#?}");
        let hit = found.iter().find(|finding| finding.check == check && finding.what.contains(what));
        let hit = hit.unwrap_or_else(|| panic!("{case}"));
        assert!(!hit.remedy.is_empty() && hit.remedy.contains(remedy), "{case}");
        for other in &found {
            assert!(other.check == check || others.contains(&other.check), "{case}");
            assert!(!other.remedy.is_empty(), "{case}");
        }
    }
}

#[tokio::test]
async fn what_no_api_server_of_a_test_shows_is_judged_all_the_same() {
    let world = sound().await;
    let own = OwnOptions::default();
    let mut control = gather::control_plane(&world.control, &own).await.unwrap();
    control.facts.denied = vec!["list secrets in namespace argocd".to_owned()];
    let now = clock::now();
    control.facts.clock = Some((now - Duration::from_secs(600), now));
    control.facts.namespaces.as_mut().unwrap().remove("edge-1");
    let found = judge(&Snapshot { now, control: control.clone(), edge: None });
    let checks: Vec<_> = found.iter().map(|finding| (finding.check, finding.severity)).collect();
    assert_eq!(
        checks,
        [("rbac", Severity::Error), ("clock-skew", Severity::Error), ("agent-namespace", Severity::Error)]
    );
    control.facts.namespaces.as_mut().unwrap().remove("argocd");
    let found = judge(&Snapshot { now, control, edge: None });
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].check, "namespace-missing");
}
