use super::*;

async fn names(server: &ApiServer, path: &str) -> Vec<String> {
    let reply = get(server, path).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let items = reply.body["items"].as_array().unwrap().clone();
    items.iter().map(|i| i["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

async fn fill(server: &ApiServer, count: usize) {
    for n in 0..count {
        post(server, MAPS, config_map(&format!("m{n:02}"), json!({}))).await;
    }
}

#[tokio::test]
async fn pages_show_one_state_whatever_happens_meanwhile() {
    let server = server();
    fill(&server, 5).await;
    let first = get(&server, &format!("{MAPS}?limit=2")).await.body;
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    delete(&server, &format!("{MAPS}/m03"), Value::Null).await;
    post(&server, MAPS, config_map("m02a", json!({}))).await;
    merge(&server, &format!("{MAPS}/m04"), json!({"data": {"k": "new"}})).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = get(&server, &format!("{MAPS}?limit=10&continue={token}")).await.body;
    let seen: Vec<_> =
        second["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].clone()).collect();
    assert_eq!(seen, ["m02", "m03", "m04"]);
    assert_eq!(second["items"][2].get("data"), None);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert_eq!(second["metadata"].get("continue"), None);
}

#[tokio::test]
async fn a_page_too_late_tells_how_to_go_on() {
    let server = server();
    fill(&server, 4).await;
    let first = get(&server, &format!("{MAPS}?limit=2")).await.body;
    post(&server, MAPS, config_map("m99", json!({}))).await;
    server.compact();
    let token = first["metadata"]["continue"].as_str().unwrap();
    let late = get(&server, &format!("{MAPS}?limit=2&continue={token}")).await;
    assert_eq!((late.status.as_u16(), late.body["reason"].as_str()), (410, Some("Expired")));
    let token = late.body["metadata"]["continue"].as_str().unwrap();
    assert_eq!(names(&server, &format!("{MAPS}?continue={token}")).await, ["m02", "m03", "m99"]);
}

#[tokio::test]
async fn broken_tokens_and_foreign_ones_are_refused() {
    let server = server();
    fill(&server, 2).await;
    assert_eq!(get(&server, &format!("{MAPS}?continue=xyz")).await.status, 400);
    let first = get(&server, &format!("{MAPS}?limit=1")).await.body;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let path = format!("/api/v1/namespaces/default/secrets?continue={token}");
    assert_eq!(get(&server, &path).await.status, 400);
}

#[tokio::test]
async fn exact_revisions_show_the_past_as_far_as_it_is_kept() {
    let server = server();
    fill(&server, 1).await;
    let then = server.revision();
    fill(&server, 3).await;
    let at =
        |revision: u64, how: &str| format!("{MAPS}?resourceVersion={revision}&resourceVersionMatch={how}");
    assert_eq!(names(&server, &at(then, "Exact")).await, ["m00"]);
    assert_eq!(names(&server, &at(then, "NotOlderThan")).await, ["m00", "m01", "m02"]);
    let future = get(&server, &at(then + 100, "NotOlderThan")).await;
    assert_eq!((future.status.as_u16(), future.body["reason"].as_str()), (504, Some("Timeout")));
    assert_eq!(future.body["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    server.compact();
    assert_eq!(get(&server, &at(then, "Exact")).await.status, 410);
    assert_eq!(get(&server, &format!("{MAPS}?resourceVersion=x")).await.status, 400);
    assert_eq!(get(&server, &format!("{MAPS}?resourceVersionMatch=Exact")).await.status, 422);
}

#[tokio::test]
async fn lists_are_selected_by_labels_and_fields() {
    let server = server();
    for (name, kind, app) in [("a", "Opaque", "x"), ("b", "other", "x"), ("c", "other", "y")] {
        let body = json!({"metadata": {"name": name, "labels": {"app": app}}, "type": kind});
        post(&server, "/api/v1/namespaces/default/secrets", body).await;
    }
    let path = "/api/v1/namespaces/default/secrets";
    assert_eq!(names(&server, &format!("{path}?labelSelector=app%3Dx")).await, ["a", "b"]);
    assert_eq!(
        names(&server, &format!("{path}?labelSelector=app+in+(x,z)&fieldSelector=type%3Dother")).await,
        ["b"]
    );
    assert_eq!(names(&server, &format!("{path}?fieldSelector=metadata.name!%3Da")).await, ["b", "c"]);
    let all = "/api/v1/secrets?fieldSelector=metadata.namespace%3Ddefault,metadata.name%3Dc";
    assert_eq!(names(&server, all).await, ["c"]);
    let refused = get(&server, &format!("{path}?fieldSelector=spec.x%3Dy")).await;
    assert_eq!(refused.status, 400, "{}", refused.body);
    assert_eq!(get(&server, &format!("{path}?labelSelector=a+b")).await.status, 400);
}

#[tokio::test]
async fn namespaces_do_not_show_in_one_another() {
    let server = server();
    for namespace in ["n", "n-1"] {
        post(&server, "/api/v1/namespaces", json!({"metadata": {"name": namespace}})).await;
        post(&server, &format!("/api/v1/namespaces/{namespace}/configmaps"), config_map("a", json!({})))
            .await;
    }
    assert_eq!(names(&server, "/api/v1/namespaces/n/configmaps").await.len(), 1);
    assert_eq!(names(&server, "/api/v1/configmaps").await.len(), 2);
}

#[tokio::test]
async fn metadata_and_tables_are_given_on_demand() {
    let server = server_with_things().await;
    post(&server, THINGS, thing("t", 3)).await;
    let as_form = |form: &str| format!("application/json;as={form};g=meta.k8s.io;v=v1");
    let shown = |accept: String| {
        let server = server.clone();
        async move {
            let request =
                Request::get(THINGS).header("accept", accept).body(kube::client::Body::empty()).unwrap();
            let body = server.service().oneshot(request).await.unwrap().into_body().collect().await.unwrap();
            serde_json::from_slice::<Value>(&body.to_bytes()).unwrap()
        }
    };
    let metadata = shown(as_form("PartialObjectMetadataList")).await;
    assert_eq!(metadata["kind"], "PartialObjectMetadataList");
    assert_eq!(metadata["items"][0]["metadata"]["name"], "t");
    assert_eq!(metadata["items"][0].get("spec"), None);
    let table = shown(as_form("Table")).await;
    let columns: Vec<_> =
        table["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].clone()).collect();
    assert_eq!(columns, ["Name", "Size", "Phase"]);
    assert_eq!(table["rows"][0]["cells"], json!(["t", 3, null]));
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let refused = {
        let request = Request::get(THINGS)
            .header("accept", "application/vnd.kubernetes.protobuf")
            .body(kube::client::Body::empty())
            .unwrap();
        server.service().oneshot(request).await.unwrap().status()
    };
    assert_eq!(refused, 406);
}

#[tokio::test]
async fn discovery_names_what_is_served() {
    let server = server_with_things().await;
    assert_eq!(get(&server, "/api").await.body["versions"], json!(["v1"]));
    let groups = get(&server, "/apis").await.body;
    let named: Vec<_> =
        groups["groups"].as_array().unwrap().iter().map(|g| g["name"].as_str().unwrap()).collect();
    assert!(named.contains(&"apps") && named.contains(&"example.com"), "{named:?}");
    let resources = get(&server, "/apis/example.com/v1").await.body;
    let names: Vec<_> =
        resources["resources"].as_array().unwrap().iter().map(|r| r["name"].clone()).collect();
    assert_eq!(names, ["things", "things/status"]);
    assert_eq!(get(&server, "/apis/none.example.com/v1").await.status, 404);
    assert_eq!(get(&server, "/version").await.body["major"], "1");
    assert_eq!(get(&server, "/readyz").await.body, "ok");
    let discovery = kube::Discovery::new(server.client()).run().await.unwrap();
    assert!(discovery.has_group("example.com"));
    let aggregated = kube::Discovery::new(server.client()).run_aggregated().await.unwrap();
    assert!(aggregated.has_group("example.com") && aggregated.has_group(""));
}
