//! The agent decides what may pass, and the cluster who may have it.

use tiphys_agent::{AllowList, ProxyPolicy};
use tokio::sync::watch;

use super::super::fleet::Served;
use super::*;

/// A fleet whose agent serves its cluster like this, and how to change what may pass.
async fn serving(
    policy: ProxyPolicy,
    change: impl FnOnce(&mut Served),
) -> (Fleet, watch::Sender<ProxyPolicy>) {
    let mut fleet = Fleet::embedded(&["edge"]).await;
    fleet.kill_agent("edge");
    let (sender, policy) = watch::channel(policy);
    fleet.served.policy = policy;
    change(&mut fleet.served);
    fleet.start_agent("edge");
    (fleet, sender)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_default_single_objects_of_applications_pass() {
    let (fleet, _policy) = serving(ProxyPolicy::Managed, |_| {}).await;
    let client = client_of(&fleet, "edge").await;
    let direct = fleet.cluster("edge").client();
    let maps = format!("/api/v1/namespaces/{}/configmaps", fleet.namespace);
    let create = async |mut map: Value, metadata: Value| {
        map["metadata"].as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
        let (status, created) =
            read(direct.send(request(Method::POST, &maps, map.to_string())).await.unwrap()).await;
        assert_eq!(status, 201, "{created}");
        created["metadata"]["uid"].as_str().unwrap().to_owned()
    };
    let tracked = json!({"annotations": {"argocd.argoproj.io/tracking-id": "app:/ConfigMap:a/tracked"}});
    let uid = create(config_map("tracked", &[]), tracked).await;
    let owned_by = |name: &str, uid: &str| json!({"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid}]});
    let child = create(config_map("child", &[]), owned_by("tracked", &uid)).await;
    create(config_map("grandchild", &[]), owned_by("child", &child)).await;
    // Whoever can write an object can write anything into it: an owner counts only if it is the one that is meant.
    create(config_map("pretender", &[]), owned_by("tracked", "00000000-0000-0000-0000-000000000000")).await;
    create(config_map("nobodys", &[]), json!({"labels": {"app.kubernetes.io/instance": "app"}})).await;

    for (method, path, expected) in [
        (Method::GET, "/version", 200),
        (Method::GET, "/api", 200),
        (Method::GET, &format!("/api/v1/namespaces/{}/events", fleet.namespace), 200),
        (Method::GET, &format!("{maps}/tracked"), 200),
        (Method::GET, &format!("{maps}/child"), 200),
        (Method::GET, &format!("{maps}/grandchild"), 200),
        (Method::GET, &format!("{maps}/pretender"), 403),
        (Method::GET, &format!("{maps}/nobodys"), 403),
        (Method::DELETE, &format!("{maps}/nobodys"), 403),
        (Method::GET, &format!("{maps}/missing"), 404),
        (Method::GET, &maps, 403),
        (Method::DELETE, &maps, 403),
        (Method::GET, &format!("{maps}?watch=true"), 403),
        (Method::DELETE, &format!("{maps}/child"), 200),
    ] {
        let (status, answer) = read(client.send(request(method.clone(), path, "")).await.unwrap()).await;
        assert_eq!(status, expected, "{method} {path}: {answer}");
    }
    let (_, refused) = get(&client, &maps).await;
    assert!(refused["message"].as_str().unwrap().contains("--proxy-policy"), "{refused}");

    // The installation changes its mind about what an application's are.
    let settings = config_map(
        "argocd-cm",
        &[("application.resourceTrackingMethod", "label"), ("application.instanceLabelKey", "")],
    );
    direct.send(request(Method::POST, &maps, settings.to_string())).await.unwrap();
    Fleet::until("the other method", async || {
        (get(&client, &format!("{maps}/nobodys")).await.0 == 200).then_some(())
    })
    .await;
    assert_eq!(get(&client, &format!("{maps}/tracked")).await.0, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_allow_list_counts_from_the_moment_that_it_changes() {
    let list = |text: &str| ProxyPolicy::AllowList(AllowList::parse(text).unwrap());
    let reading = "rules: [{verbs: [get, list, watch], resources: [configmaps]}, {verbs: [get], nonResourceURLs: [/version]}]";
    let (fleet, policy) = serving(list(reading), |_| {}).await;
    let client = client_of(&fleet, "edge").await;
    let maps = format!("/api/v1/namespaces/{}/configmaps", fleet.namespace);
    let create = || request(Method::POST, &maps, config_map("one", &[]).to_string());
    assert_eq!(get(&client, &maps).await.0, 200);
    assert_eq!(get(&client, "/api/v1/secrets").await.0, 403);
    assert_eq!(client.send(create()).await.unwrap().status(), 403);
    policy.send_replace(list("rules: [{verbs: [create], resources: [configmaps]}]"));
    assert_eq!(client.send(create()).await.unwrap().status(), 201);
    assert_eq!(get(&client, &maps).await.0, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_only_is_above_every_policy() {
    let (fleet, _policy) = serving(ProxyPolicy::All, |served| served.read_only = true).await;
    let client = client_of(&fleet, "edge").await;
    let maps = format!("/api/v1/namespaces/{}/configmaps", fleet.namespace);
    assert_eq!(get(&client, &maps).await.0, 200);
    let create = request(Method::POST, &maps, config_map("one", &[]).to_string());
    let (status, refused) = read(client.send(create).await.unwrap()).await;
    assert_eq!(status, 403);
    assert!(refused["message"].as_str().unwrap().contains("read-only"), "{refused}");
    // Over an upgraded connection anything could follow.
    let mut upgrade = request(Method::GET, &format!("{maps}?watch=true"), "");
    upgrade.headers_mut().insert("connection", "Upgrade".parse().unwrap());
    upgrade.headers_mut().insert("upgrade", "websocket".parse().unwrap());
    assert_eq!(client.send(upgrade).await.unwrap().status(), 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_is_told_who_calls_where_it_is_to_judge() {
    let backend = Backend::start().await;
    let (fleet, _policy) = serving(ProxyPolicy::All, |served| {
        served.api_server = Some(backend.api_server());
        served.impersonate = true;
    })
    .await;
    let alice = User { name: "alice", path: "/agents/edge", ..User::default() }.client(&fleet).await;
    until_served(&alice).await;
    let (_, seen) = get(&alice, "/api/v1/namespaces/a/pods/p/proxy/head").await;
    assert_eq!(seen["impersonate-user"], json!(["alice"]));
    assert_eq!(seen["authorization"], json!(["Basic YWdlbnQ6c2VjcmV0"]));
}
