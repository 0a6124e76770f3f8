//! Principal and agents with no more rights than the manifests give them: what they do is enough, and all of it is needed.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::events::v1::Event;
use kube::Client;
use kube::ResourceExt as _;
use kube::api::{Api, PostParams};
use kube::core::DynamicObject;
use serde_json::{Value, json};
use tiphys_agent::ProxyPolicy;
use tiphys_shared::kube::api_server::ApiServer;
use tiphys_shared::kube::kinds;
use tiphys_shared::kube::material::{Place, Places, Reader};
use tiphys_shared::kube::recorder::{Event as Told, Limits, Recorder, Regarding};
use tiphys_shared::model::{AgentName, Kind};
use tiphys_shared::process::clock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::kubectl::Kubectl;
use super::managed::config;
use super::suite::fleet::{Cluster, DAY, Fleet, application, create_namespace, delete, merge, revision};
use super::suite::managed;
use install::{Installed, Variant};

mod install;
mod joining;
mod program;
mod record;

const LIMIT: usize = 16 << 20;

fn principal(base: &'static str, components: &'static [&'static str]) -> Variant {
    Variant { side: "principal", base, components }
}

fn agent(base: &'static str, components: &'static [&'static str]) -> Variant {
    Variant { side: "agent", base, components }
}

fn unique(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

fn real(config: &kube::Config) -> Cluster {
    Cluster::Real(Box::new(config.clone()))
}

fn object(value: Value) -> DynamicObject {
    serde_json::from_value(value).unwrap()
}

/// Lets a principal whose roles are namespaced write the Applications of an agent, as the book says.
async fn grant(control: &kube::Config, principal: &Installed, agent: &str) {
    let client = Client::try_from(control.clone()).unwrap();
    create_namespace(&client, agent).await;
    let bindings: Api<k8s_openapi::api::rbac::v1::RoleBinding> = Api::namespaced(client, agent);
    let role = format!("argocd-agent-principal-applications{}", principal.suffix);
    let binding = serde_json::from_value(json!({
        "metadata": {"name": role},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": principal.account, "namespace": principal.namespace}],
    }))
    .unwrap();
    bindings.create(&PostParams::default(), &binding).await.unwrap();
    principal.until_allowed("update", "applications", agent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn managed_agents_and_their_principal_need_what_their_roles_give() {
    let (name, other) = (unique("managed"), unique("beside"));
    let (control, here, there) =
        (config("cluster-0").await, config("cluster-1").await, config("cluster-2").await);
    let clusters = BTreeMap::from([(name.clone(), real(&here)), (other.clone(), real(&there))]);
    let mut fleet = Fleet::prepare(real(&control), clusters, &[], LIMIT).await;
    fleet.served.policy = watch::channel(ProxyPolicy::Managed).1;
    let namespace = fleet.namespace.clone();
    let principal =
        Installed::apply(&principal("principal-namespaced", &[]), "cluster-0", &control, &namespace).await;
    for agent in [&name, &other] {
        grant(&control, &principal, agent).await;
    }
    fleet.as_principal = Some(principal.connect());
    let managed = agent("agent-managed", &[]);
    let first = Installed::apply(&managed, "cluster-1", &here, &namespace).await;
    let second = Installed::apply(&managed, "cluster-2", &there, &namespace).await;
    fleet.as_agents = BTreeMap::from([(name.clone(), first.connect()), (other.clone(), second.connect())]);
    fleet.start_all().await;

    managed::everything(&fleet, &name, &other).await;
    managed::what_happened_while_a_side_was_away_arrives(&mut fleet, &name).await;
    what_argo_cd_keeps_is_made_changed_and_removed(&fleet, &name).await;
    principal.record.assert_nothing_was_refused("the principal");
    second.record.assert_nothing_was_refused("the other agent");
    first.assert_roles_fit().await;

    assert!(!principal.may("update", "applications", "kube-system").await, "it may write where no agent is");
    assert!(!principal.may("list", "secrets", &name).await, "it may read secrets besides its own");
    assert!(!first.may("list", "secrets", "kube-system").await, "it may read secrets besides its own");
    assert!(!first.may("create", "pods", &namespace).await, "it may start pods");
}

/// A project, a repository and the GPG keys, each three times.
async fn what_argo_cd_keeps_is_made_changed_and_removed(fleet: &Fleet, agent: &str) {
    let sourced = |labels: Value, name: &str, api_version: &str, kind: &str| json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "labels": labels}});
    let mut project = sourced(json!({}), "kept", "argoproj.io/v1alpha1", "AppProject");
    project["spec"] = json!({
        "destinations": [{"name": agent, "namespace": "*"}], "sourceNamespaces": [agent], "sourceRepos": ["*"],
    });
    let secret_type = json!({"argocd.argoproj.io/secret-type": "repository"});
    let mut repository = sourced(secret_type, "kept", "v1", "Secret");
    repository["stringData"] = json!({"project": "kept", "url": "https://git.example.com/kept.git"});
    let mut keys = sourced(json!({}), kinds::GPG_KEYS, "v1", "ConfigMap");
    keys["data"] = json!({"0123456789ABCDEF": "key"});
    let changes = [
        (Kind::AppProject, "kept", project, json!({"spec": {"description": "changed"}}), "/spec/description"),
        (
            Kind::Repository,
            "kept",
            repository,
            json!({"stringData": {"username": "changed"}}),
            "/data/username",
        ),
        (
            Kind::GpgKey,
            kinds::GPG_KEYS,
            keys,
            json!({"data": {"FEDCBA9876543210": "changed"}}),
            "/data/FEDCBA9876543210",
        ),
    ];
    for (kind, name, made, change, changed) in &changes {
        let (there, here) = (fleet.at_control(*kind, agent), fleet.at_cluster(*kind, agent));
        there.create(&PostParams::default(), &object(made.clone())).await.unwrap();
        Fleet::until_is(&here, name, "the copy", |_| true).await;
        merge(&there, name, change.clone()).await;
        Fleet::until_is(&here, name, "the change", |copy| copy.data.pointer(changed).is_some()).await;
    }
    for (kind, name, ..) in changes.iter().rev() {
        delete(&fleet.at_control(*kind, agent), name).await;
        Fleet::until_gone(&fleet.at_cluster(*kind, agent), name).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn autonomous_agents_and_a_principal_that_makes_namespaces_need_what_their_roles_give() {
    let name = unique("autonomous");
    let (control, here) = (config("cluster-0").await, config("cluster-1").await);
    let clusters = BTreeMap::from([(name.clone(), real(&here))]);
    let mut fleet = Fleet::prepare(real(&control), clusters, &[&name], LIMIT).await;
    fleet.create_namespaces = true;
    fleet.served.policy = watch::channel(ProxyPolicy::Managed).1;
    let namespace = fleet.namespace.clone();
    let variant = principal("principal", &["principal-namespace-creation", "priority"]);
    let principal = Installed::apply(&variant, "cluster-0", &control, &namespace).await;
    principal.until_allowed("list", "applications", "").await;
    principal.until_allowed("update", "applications", &name).await;
    principal.until_allowed("create", "namespaces", "").await;
    let variant = agent("agent-autonomous", &[]);
    let autonomous = Installed::apply(&variant, "cluster-1", &here, &namespace).await;
    fleet.as_principal = Some(principal.connect());
    fleet.as_agents = BTreeMap::from([(name.clone(), autonomous.connect())]);
    fleet.start_all().await;

    // An application is shown, with its status, in a namespace that is made for it.
    let (here, shown) =
        (fleet.at_cluster(Kind::Application, &name), fleet.at_control(Kind::Application, &name));
    here.create(&PostParams::default(), &application("guestbook", "main")).await.unwrap();
    Fleet::until_is(&shown, "guestbook", "it to be shown", |_| true).await;
    merge(&here, "guestbook", json!({"status": {"health": {"status": "Healthy"}}})).await;
    Fleet::until_is(&shown, "guestbook", "the status", |app| {
        app.data["status"]["health"]["status"] == "Healthy"
    })
    .await;
    // What users change there is undone, what they ask for arrives.
    merge(&shown, "guestbook", json!({"spec": {"source": {"targetRevision": "evil"}}})).await;
    Fleet::until_is(&shown, "guestbook", "the edit undone", |app| revision(app) == "main").await;
    merge(&shown, "guestbook", json!({"operation": {"sync": {"revision": "abc"}}})).await;
    Fleet::until_is(&here, "guestbook", "the operation", |app| {
        app.data["operation"]["sync"]["revision"] == "abc"
    })
    .await;
    // A project comes, changes and goes.
    let (projects, shown_projects) =
        (fleet.at_cluster(Kind::AppProject, &name), fleet.at_control(Kind::AppProject, &name));
    let project = object(json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "AppProject", "metadata": {"name": "shop"},
        "spec": {"destinations": [{"server": "*", "namespace": "*"}], "sourceRepos": ["*"]},
    }));
    projects.create(&PostParams::default(), &project).await.unwrap();
    let view = format!("{name}-shop");
    Fleet::until_is(&shown_projects, &view, "the project", |_| true).await;
    merge(&projects, "shop", json!({"spec": {"description": "changed"}})).await;
    Fleet::until_is(&shown_projects, &view, "the change", |it| it.data["spec"]["description"] == "changed")
        .await;
    delete(&projects, "shop").await;
    Fleet::until_gone(&shown_projects, &view).await;
    delete(&here, "guestbook").await;
    Fleet::until_gone(&shown, "guestbook").await;

    principal.assert_roles_fit().await;
    autonomous.assert_roles_fit().await;
    assert!(!principal.may("delete", "namespaces", "").await, "it may delete namespaces");
    assert!(!autonomous.may("create", "applications", &namespace).await, "it may make applications");
    assert!(!autonomous.may("update", "secrets", &namespace).await, "it may write secrets");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_keeps_namespaces_needs_what_its_cluster_wide_roles_give() {
    let (name, team) = (unique("mapped"), unique("team"));
    let (control, here) = (config("cluster-0").await, config("cluster-2").await);
    let clusters = BTreeMap::from([(name.clone(), real(&here))]);
    let mut fleet = Fleet::prepare(real(&control), clusters, &[], LIMIT).await;
    (fleet.by_destination, fleet.create_namespaces) = (true, true);
    let namespace = fleet.namespace.clone();
    let principal = Installed::apply(&principal("principal", &[]), "cluster-0", &control, &namespace).await;
    principal.until_allowed("list", "applications", "").await;
    principal.until_allowed("update", "applications", &team).await;
    let variant = agent("agent-managed-cluster-wide", &[]);
    let mapped = Installed::apply(&variant, "cluster-2", &here, &namespace).await;
    mapped.until_allowed("list", "applications", "").await;
    mapped.until_allowed("create", "applications", &team).await;
    mapped.until_allowed("create", "namespaces", "").await;
    fleet.as_principal = Some(principal.connect());
    fleet.as_agents = BTreeMap::from([(name.clone(), mapped.connect())]);
    fleet.start_all().await;

    create_namespace(&fleet.control.client(), &team).await;
    let there = fleet.at_control(Kind::Application, &team);
    let mut wanted = application("guestbook", "main");
    wanted.data["spec"]["destination"]["name"] = name.as_str().into();
    there.create(&PostParams::default(), &wanted).await.unwrap();
    let client = fleet.cluster(&name).client();
    let copies = kinds::api(&client, Kind::Application, Some(&team));
    Fleet::until_is(&copies, "guestbook", "the copy", |_| true).await;
    let namespaces: Api<Namespace> = Api::all(client);
    assert_eq!(namespaces.get(&team).await.unwrap().name_any(), team);
    merge(&there, "guestbook", json!({"spec": {"source": {"targetRevision": "v2"}}})).await;
    Fleet::until_is(&copies, "guestbook", "the change", |app| revision(app) == "v2").await;
    merge(&copies, "guestbook", json!({"status": {"health": {"status": "Healthy"}}})).await;
    Fleet::until_is(&there, "guestbook", "the status", |app| {
        app.data["status"]["health"]["status"] == "Healthy"
    })
    .await;
    delete(&there, "guestbook").await;
    Fleet::until_gone(&copies, "guestbook").await;

    principal.record.assert_nothing_was_refused("the principal");
    mapped.record.assert_nothing_was_refused("the agent");
    assert!(mapped.record.uses().contains(&("create".into(), "namespaces".into())));
    assert!(!mapped.may("delete", "namespaces", "").await, "it may delete namespaces");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_resource_proxy_does_what_its_component_gives() {
    let name = unique("viewed");
    let (control, here) = (config("cluster-0").await, config("cluster-1").await);
    let clusters = BTreeMap::from([(name.clone(), real(&here))]);
    let mut fleet = Fleet::prepare(real(&control), clusters, &[], LIMIT).await;
    let namespace = fleet.namespace.clone();
    // Nothing here fills the roles of Kubernetes that the other component is bound to: that takes a controller.
    let variant = agent("agent-managed", &["agent-resource-proxy-all"]);
    let served = Installed::apply(&variant, "cluster-1", &here, &namespace).await;
    served.until_allowed("list", "pods", &namespace).await;
    fleet.as_agents = BTreeMap::from([(name.clone(), served.connect())]);
    fleet.served.api_server = Some(ApiServer::connect(&served.config).unwrap());
    fleet.start_all().await;

    let kubectl = Kubectl::operator(&fleet, &name);
    kubectl.until_served().await;
    kubectl.run(&["get", "pods,services"]).await;
    kubectl.run(&["create", "configmap", "new"]).await;
    kubectl.run(&["delete", "configmap", "new"]).await;
    // Everything, but not more of it for somebody else.
    let escalation = ["create", "clusterrolebinding", &name, "--clusterrole=cluster-admin", "--user=eve"];
    let said = kubectl.ask(&escalation, b"").await;
    assert!(said.code != 0 && said.err.contains("not currently held"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_read_and_followed() {
    let control = config("cluster-0").await;
    let fleet = Fleet::prepare(real(&control), BTreeMap::new(), &[], LIMIT).await;
    for variant in [principal("principal", &[]), agent("agent-autonomous", &[])] {
        let installed = Installed::apply(&variant, "cluster-0", &control, &fleet.namespace).await;
        let secrets = kinds::api(&fleet.control.client(), Kind::Repository, Some(&fleet.namespace));
        let issue = || {
            let material = fleet.ca.issue_client::<&str>("someone", &[], clock::now(), DAY).unwrap();
            let text = |pem: &[u8]| String::from_utf8(pem.to_vec()).unwrap();
            json!({"tls.crt": text(&material.chain), "tls.key": text(material.key.expose())})
        };
        let secret = format!("{}-tls", variant.side);
        let made = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret}, "stringData": issue(),
        });
        secrets.create(&PostParams::default(), &object(made)).await.unwrap();

        let client = installed.record.client(&installed.config);
        let reader =
            Reader::new(client, fleet.namespace.as_str(), Recorder::default(), &prometheus::Registry::new())
                .unwrap();
        let place = |keys| Some(Place::Secret { name: secret.clone(), keys });
        let places = Places { chain: place(&["tls.crt"]), key: place(&["tls.key"]), ca: None };
        let known = reader.read_all(&places).await.unwrap();
        let (sender, mut replaced) = watch::channel(known.clone());
        let cancel = CancellationToken::new();
        reader.keep_current("client", places, known, &cancel, move |material| {
            sender.send_replace(material.clone());
            Ok::<_, Infallible>(())
        });
        merge(&secrets, &secret, json!({"stringData": issue()})).await;
        replaced.changed().await.unwrap();
        cancel.cancel();
        installed.record.assert_nothing_was_refused(variant.side);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_written_and_what_repeats_itself_is_counted() {
    let control = config("cluster-0").await;
    let fleet = Fleet::prepare(real(&control), BTreeMap::new(), &[], LIMIT).await;
    let client = Client::try_from(control.clone()).unwrap();
    let events: Api<Event> = Api::namespaced(client, &fleet.namespace);
    let eager = Limits { pause: Duration::ZERO, ..Limits::default() };
    let edge = AgentName::new("edge").unwrap();
    let secrets = kinds::api(&fleet.control.client(), Kind::Repository, Some(&fleet.namespace));
    let labels = json!({"argocd-agent.argoproj-labs.io/agent-name": "edge"});
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cluster-edge", "labels": labels},
    });
    secrets.create(&PostParams::default(), &object(secret)).await.unwrap();
    for (variant, reason) in [
        (principal("principal", &[]), "OfPrincipal"),
        (agent("agent-managed", &[]), "OfManaged"),
        (agent("agent-autonomous", &[]), "OfAutonomous"),
    ] {
        let installed = Installed::apply(&variant, "cluster-0", &control, &fleet.namespace).await;
        for verb in ["create", "patch"] {
            installed.until_allowed(verb, "events", &fleet.namespace).await;
        }
        let client = installed.record.client(&installed.config);
        let (figures, cancel) = (prometheus::Registry::new(), CancellationToken::new());
        let recorder =
            Recorder::start(client, &fleet.namespace, "tiphys-test", Some(eager), &figures, &cancel).unwrap();
        let note = "a note of the longest kind: ".to_owned() + &"\u{e4}".repeat(1000);
        for count in [None, Some(2), Some(3)] {
            recorder.tell(Regarding::ClusterOf(edge.clone()), Told::warning(reason, "Test", &note));
            Fleet::until("the event", async || {
                let written = events.list(&Default::default()).await.ok()?.items;
                written.into_iter().find(|event| {
                    event.reason.as_deref() == Some(reason)
                        && event.series.as_ref().map(|series| series.count) == count
                })
            })
            .await;
        }
        cancel.cancel();
        installed.record.assert_nothing_was_refused(variant.side);
        assert!(!installed.may("delete", "events", &fleet.namespace).await, "it may delete events");
        assert!(!installed.may("list", "events", &fleet.namespace).await, "it may read events");
    }
}
