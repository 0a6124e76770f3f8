use super::*;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A server with things, whose controllers run.
struct Cluster {
    server: ApiServer,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Cluster {
    async fn new() -> Self {
        let server = server_with_things().await;
        let cancel = CancellationToken::new();
        let task = tokio::spawn(server.run_controllers(cancel.clone()));
        Self { server, cancel, task }
    }

    /// Waits until there is nothing to do. On one thread, a task that was often given its turn has done it.
    async fn settle(&self) {
        let mut last = None;
        let mut same = 0;
        for _ in 0..10_000 {
            tokio::task::yield_now().await;
            let revision = Some(self.server.revision());
            same = if revision == last { same + 1 } else { 0 };
            last = revision;
            if same > 20 {
                return;
            }
        }
        panic!("the controllers do not come to rest");
    }

    async fn make(&self, name: &str, owners: &[&Value]) -> Value {
        self.make_with(name, owners, json!({})).await
    }

    /// A config map with these owners, and more metadata.
    async fn make_with(&self, name: &str, owners: &[&Value], metadata: Value) -> Value {
        let mut map = config_map(name, json!({}));
        map["metadata"]["ownerReferences"] = owners.iter().map(|owner| reference(owner)).collect();
        for (field, value) in metadata.as_object().unwrap() {
            map["metadata"][field] = value.clone();
        }
        let made = post(&self.server, MAPS, map).await;
        assert_eq!(made.status, 201, "{}", made.body);
        made.body
    }

    async fn delete(&self, name: &str, policy: &str) {
        let options = json!({"propagationPolicy": policy});
        let gone = delete(&self.server, &format!("{MAPS}/{name}"), options).await;
        assert_eq!(gone.status, 200, "{}", gone.body);
        self.settle().await;
    }

    async fn get(&self, name: &str) -> Option<Value> {
        let found = get(&self.server, &format!("{MAPS}/{name}")).await;
        (found.status == 200).then_some(found.body)
    }

    /// The names of all config maps.
    async fn names(&self) -> Vec<String> {
        self.settle().await;
        let list = get(&self.server, MAPS).await.body;
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|map| map["metadata"]["name"].as_str().unwrap().into())
            .collect()
    }

    async fn free(&self, name: &str) {
        let patch = json!({"metadata": {"finalizers": null}});
        assert_eq!(merge(&self.server, &format!("{MAPS}/{name}"), patch).await.status, 200);
        self.settle().await;
    }
}

fn reference(owner: &Value) -> Value {
    json!({
        "apiVersion": owner["apiVersion"], "kind": owner["kind"],
        "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"], "blockOwnerDeletion": true,
    })
}

#[tokio::test]
async fn dependents_go_with_their_owner_and_so_do_theirs() {
    let cluster = Cluster::new().await;
    let root = cluster.make("root", &[]).await;
    let child = cluster.make("child", &[&root]).await;
    cluster.make("grandchild", &[&child]).await;
    cluster.make("stranger", &[]).await;
    cluster.delete("root", "Background").await;
    assert_eq!(cluster.names().await, ["stranger"]);
}

#[tokio::test]
async fn kinds_may_own_each_other_and_definitions_may_go() {
    let cluster = Cluster::new().await;
    let owner = post(&cluster.server, THINGS, thing("t", 1)).await.body;
    let namespace = get(&cluster.server, "/api/v1/namespaces/default").await.body;
    cluster.make("map", &[&owner]).await;
    cluster.make("of-the-namespace", &[&namespace]).await;
    delete(
        &cluster.server,
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.example.com",
        Value::Null,
    )
    .await;
    // Whether the owner is still there nobody can tell any more.
    assert_eq!(cluster.names().await.last().unwrap(), "of-the-namespace");
}

#[tokio::test]
async fn what_has_another_owner_stays_and_forgets_the_one_that_went() {
    let cluster = Cluster::new().await;
    let one = cluster.make("one", &[]).await;
    let other = cluster.make("other", &[]).await;
    cluster.make("shared", &[&one, &other]).await;
    cluster.delete("one", "Background").await;
    let shared = cluster.get("shared").await.unwrap();
    assert_eq!(shared["metadata"]["ownerReferences"], json!([reference(&other)]));
    cluster.delete("other", "Background").await;
    assert_eq!(cluster.names().await, Vec::<String>::new());
}

#[tokio::test]
async fn orphans_stay_without_their_owner() {
    let cluster = Cluster::new().await;
    let root = cluster.make("root", &[]).await;
    let child = cluster.make("child", &[&root]).await;
    cluster.make("grandchild", &[&child]).await;
    cluster.delete("root", "Orphan").await;
    assert_eq!(cluster.names().await, ["child", "grandchild"]);
    assert_eq!(cluster.get("child").await.unwrap()["metadata"].get("ownerReferences"), None);
    assert!(cluster.get("grandchild").await.unwrap()["metadata"]["ownerReferences"].is_array());
}

#[tokio::test]
async fn in_the_foreground_the_owner_goes_last() {
    let cluster = Cluster::new().await;
    let root = cluster.make("root", &[]).await;
    let child = cluster.make("child", &[&root]).await;
    cluster.make_with("grandchild", &[&child], json!({"finalizers": ["example.com/hold"]})).await;
    cluster.make("free", &[&root]).await;
    cluster.delete("root", "Foreground").await;
    assert_eq!(cluster.names().await, ["child", "grandchild", "root"]);
    let root = cluster.get("root").await.unwrap();
    assert_eq!(root["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    assert!(root["metadata"]["deletionTimestamp"].is_string());
    cluster.free("grandchild").await;
    assert_eq!(cluster.names().await, Vec::<String>::new());
}

#[tokio::test]
async fn who_does_not_block_its_owner_is_not_waited_for() {
    let cluster = Cluster::new().await;
    let root = cluster.make("root", &[]).await;
    let mut lax = reference(&root);
    lax["blockOwnerDeletion"] = false.into();
    let held = json!({"ownerReferences": [lax], "finalizers": ["example.com/hold"]});
    cluster.make_with("child", &[], held).await;
    cluster.delete("root", "Foreground").await;
    assert_eq!(cluster.names().await, ["child"]);
    assert!(cluster.get("child").await.unwrap()["metadata"]["deletionTimestamp"].is_string());
    cluster.free("child").await;
    assert_eq!(cluster.names().await, Vec::<String>::new());
}

#[tokio::test]
async fn owners_of_each_other_go_together() {
    for policy in ["Background", "Foreground"] {
        let cluster = Cluster::new().await;
        let one = cluster.make("one", &[]).await;
        let other = cluster.make("other", &[&one]).await;
        let patch = json!({"metadata": {"ownerReferences": [reference(&other)]}});
        merge(&cluster.server, &format!("{MAPS}/one"), patch).await;
        cluster.delete("one", policy).await;
        assert_eq!(cluster.names().await, Vec::<String>::new(), "{policy}");
    }
}

#[tokio::test]
async fn an_owner_that_is_not_there_is_not_waited_for() {
    let cluster = Cluster::new().await;
    let root = cluster.make("root", &[]).await;
    let mut other = root.clone();
    other["metadata"]["uid"] = "another-one-of-that-name".into();
    cluster.make("child", &[&other]).await;
    let mut unknown = root.clone();
    unknown["kind"] = "Mystery".into();
    cluster.make("of-a-mystery", &[&unknown]).await;
    assert_eq!(cluster.names().await, ["of-a-mystery", "root"]);
}

#[tokio::test]
async fn what_was_there_before_the_controllers_is_collected_too() {
    let server = server_with_things().await;
    let cancel = CancellationToken::new();
    let idle = Cluster { task: tokio::spawn(async {}), server: server.clone(), cancel: cancel.clone() };
    let root = idle.make("root", &[]).await;
    idle.make("child", &[&root]).await;
    idle.delete("root", "Background").await;
    assert_eq!(idle.names().await, ["child"], "nobody runs the controllers");
    let task = tokio::spawn(server.run_controllers(cancel.clone()));
    let cluster = Cluster { server, cancel, task };
    assert_eq!(cluster.names().await, Vec::<String>::new());
    cluster.cancel.cancel();
    cluster.task.await.unwrap();
}

#[tokio::test]
async fn a_namespace_goes_with_what_is_in_it() {
    let cluster = Cluster::new().await;
    let server = &cluster.server;
    const SPACE: &str = "/api/v1/namespaces/space";
    let maps = format!("{SPACE}/configmaps");
    let things = "/apis/example.com/v1/namespaces/space/things";
    for _ in 0..2 {
        post(server, "/api/v1/namespaces", json!({"metadata": {"name": "space"}})).await;
        for n in 0..100 {
            post(server, &maps, config_map(&format!("m{n}"), json!({}))).await;
        }
        let mut held = thing("t", 1);
        held["metadata"]["finalizers"] = json!(["example.com/hold"]);
        assert_eq!(post(server, things, held).await.status, 201);
        post(server, MAPS, config_map("elsewhere", json!({}))).await;
        let going = delete(server, SPACE, Value::Null).await;
        assert_eq!(going.body["status"]["phase"], "Terminating");
        cluster.settle().await;
        assert_eq!(get(server, &maps).await.body["items"], json!([]));
        let space = get(server, SPACE).await.body;
        let condition = |kind: &str| {
            let conditions = space["status"]["conditions"].as_array().unwrap();
            conditions.iter().find(|condition| condition["type"] == kind).unwrap().clone()
        };
        assert_eq!(
            condition("NamespaceContentRemaining")["message"],
            "Some resources are remaining: things.example.com has 1 resource instances"
        );
        assert_eq!(
            condition("NamespaceFinalizersRemaining")["message"],
            "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
        );
        let refused = post(server, &maps, config_map("new", json!({}))).await;
        assert_eq!((refused.status.as_u16(), &refused.body["reason"]), (403, &json!("Forbidden")));
        merge(server, &format!("{things}/t"), json!({"metadata": {"finalizers": null}})).await;
        cluster.settle().await;
        assert_eq!(get(server, SPACE).await.status, 404);
        assert_eq!(get(server, things).await.body["items"], json!([]));
        assert!(cluster.get("elsewhere").await.is_some());
        // And it may come back.
    }
}

#[tokio::test]
async fn controllers_end_when_told_and_hold_nothing() {
    let cluster = Cluster::new().await;
    cluster.make("root", &[]).await;
    cluster.settle().await;
    cluster.cancel.cancel();
    cluster.task.await.unwrap();
    let left = std::sync::Arc::downgrade(&cluster.server.inner);
    drop(cluster.server);
    assert_eq!(left.strong_count(), 0);
}

#[tokio::test]
async fn whatever_is_deleted_nobody_is_left_without_all_owners() {
    for seed in 0..20 {
        fastrand::seed(seed);
        let cluster = Cluster::new().await;
        fastrand::seed(seed);
        let mut made: Vec<Value> = Vec::new();
        for n in 0..30 {
            let owners: Vec<&Value> = made.iter().filter(|_| fastrand::u8(..) < 20).collect();
            let next = cluster.make(&format!("m{n:02}"), &owners).await;
            made.push(next);
        }
        for _ in 0..8 {
            let name = format!("{MAPS}/m{:02}", fastrand::usize(..30));
            let policy = ["Background", "Foreground", "Orphan"][fastrand::usize(..3)];
            delete(&cluster.server, &name, json!({"propagationPolicy": policy})).await;
            if fastrand::bool() {
                cluster.settle().await;
            }
        }
        cluster.settle().await;
        let list = get(&cluster.server, MAPS).await.body;
        let items = list["items"].as_array().unwrap();
        let uids: Vec<&Value> = items.iter().map(|item| &item["metadata"]["uid"]).collect();
        for item in items {
            assert!(item["metadata"].get("deletionTimestamp").is_none(), "seed {seed}: {item}");
            for owner in item["metadata"]["ownerReferences"].as_array().into_iter().flatten() {
                assert!(uids.contains(&&owner["uid"]), "seed {seed}: {item}");
            }
        }
    }
}
