//! Reading many.

use serde_json::{Value, json};

use super::lab::{Lab, config_map, gadget, version};

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().expect("items");
    items.iter().map(|item| item["metadata"]["name"].as_str().expect("name").to_owned()).collect()
}

async fn five(lab: &mut Lab) {
    for (index, name) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
        let mut object = config_map(name, json!({}));
        object["metadata"]["labels"] =
            json!({"parity": if index % 2 == 0 { "even" } else { "odd" }, name: "own"});
        lab.post("cm", &object).await.created();
    }
}

pub(crate) async fn pages_show_one_moment(lab: &mut Lab) {
    five(lab).await;
    let first = lab.get("cm?limit=2").await.ok();
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    let next = first["metadata"]["continue"].as_str().expect("token").to_owned();
    // What happens now is not on the pages that follow.
    lab.delete("cm/d").await.ok();
    lab.post("cm", &config_map("bb", json!({}))).await.created();
    let second = lab.get(&format!("cm?limit=2&continue={next}")).await.ok();
    assert_eq!(names(&second), ["c", "d"]);
    assert_eq!(version(&second), version(&first));
    let next = second["metadata"]["continue"].as_str().expect("token").to_owned();
    let third = lab.get(&format!("cm?limit=2&continue={next}")).await.ok();
    assert_eq!(names(&third), ["e"]);
    assert_eq!(third["metadata"]["continue"].as_str().unwrap_or_default(), "");
    assert_eq!(names(&lab.get("cm").await.ok()), ["a", "b", "bb", "c", "e"]);
    lab.get("cm?limit=2&continue=nonsense").await.expect(400, "BadRequest");
    let selected = lab.get("cm?limit=1&labelSelector=parity%3Deven").await.ok();
    assert_eq!(names(&selected), ["a"]);
    if let Some(server) = lab.server() {
        server.compact();
        let notes = lab.notes();
        let gone = lab.get(&format!("cm?limit=2&continue={next}")).await.expect(410, "Expired");
        // The answer offers a way to go on, though not from the same moment.
        let onward = gone["metadata"]["continue"].as_str().expect("token").to_owned();
        assert_eq!(names(&lab.get(&format!("cm?limit=2&continue={onward}")).await.ok()), ["e"]);
        lab.forget_from(notes);
    }
}

pub(crate) async fn selectors_choose(lab: &mut Lab) {
    five(lab).await;
    lab.post("cm", &config_map("plain", json!({}))).await.created();
    for (selector, expected) in [
        ("labelSelector=parity%3Deven", vec!["a", "c", "e"]),
        ("labelSelector=parity%3D%3Dodd", vec!["b", "d"]),
        ("labelSelector=parity!%3Deven", vec!["b", "d", "plain"]),
        ("labelSelector=parity+in+(odd,prime)", vec!["b", "d"]),
        ("labelSelector=parity+notin+(odd)", vec!["a", "c", "e", "plain"]),
        ("labelSelector=parity", vec!["a", "b", "c", "d", "e"]),
        ("labelSelector=!parity", vec!["plain"]),
        ("labelSelector=parity%3Deven,!a", vec!["c", "e"]),
        ("labelSelector=", vec!["a", "b", "c", "d", "e", "plain"]),
        ("fieldSelector=metadata.name%3Dc", vec!["c"]),
        ("fieldSelector=metadata.name!%3Dc", vec!["a", "b", "d", "e", "plain"]),
        ("fieldSelector=metadata.namespace%3Dnowhere", vec![]),
        ("fieldSelector=metadata.name%3Dc&labelSelector=parity%3Dodd", vec![]),
    ] {
        assert_eq!(names(&lab.get(&format!("cm?{selector}")).await.ok()), expected, "{selector}");
    }
    let everywhere = lab
        .get("/api/v1/configmaps?labelSelector=parity%3Deven&fieldSelector=metadata.namespace%3D{ns}")
        .await
        .ok();
    assert_eq!(names(&everywhere), ["a", "c", "e"]);
    for (kind, name) in [("Opaque", "s"), ("example.com/x", "t")] {
        lab.post("secrets", &json!({"metadata": {"name": name}, "type": kind})).await.created();
    }
    assert_eq!(names(&lab.get("secrets?fieldSelector=type%3Dexample.com/x").await.ok()), ["t"]);
}

pub(crate) async fn selectors_that_make_no_sense_are_refused(lab: &mut Lab) {
    lab.get("cm?labelSelector=a+b").await.expect(400, "BadRequest");
    lab.get("cm?labelSelector=a+in+x").await.expect(400, "BadRequest");
    lab.get("cm?fieldSelector=data.k%3Dv").await.expect(400, "BadRequest");
    lab.get("gadgets?fieldSelector=spec.size%3D1").await.expect(400, "BadRequest");
    lab.get("cm?fieldSelector=metadata.name").await.expect(400, "BadRequest");
    lab.get("cm?limit=x").await.expect(400, "BadRequest");
}

pub(crate) async fn versions_can_be_asked_for(lab: &mut Lab) {
    let first = lab.post("cm", &config_map("a", json!({}))).await.created();
    lab.post("cm", &config_map("b", json!({}))).await.created();
    let old =
        lab.get(&format!("cm?resourceVersion={}&resourceVersionMatch=Exact", version(&first))).await.ok();
    assert_eq!(names(&old), ["a"]);
    assert_eq!(version(&old), version(&first));
    let recent = lab
        .get(&format!("cm?resourceVersion={}&resourceVersionMatch=NotOlderThan", version(&first)))
        .await
        .ok();
    assert_eq!(names(&recent), ["a", "b"]);
    // Any version will do: what a cache has, which may be behind.
    lab.eventually("cm?resourceVersion=0", |reply| names(&reply.body) == ["a", "b"]).await.ok();
    lab.get("cm?resourceVersionMatch=Exact").await.expect(422, "Invalid");
    lab.get("cm?resourceVersion=0&resourceVersionMatch=Exact").await.expect(422, "Invalid");
    lab.get("cm?resourceVersion=1&resourceVersionMatch=Sometimes").await.expect(422, "Invalid");
    lab.get("cm?resourceVersion=x").await.expect(400, "BadRequest");
    let list = lab.get("cm").await.ok();
    let future = version(&list).parse::<u64>().expect("a number") + 1_000_000;
    let refused = lab
        .get(&format!("cm?resourceVersion={future}&resourceVersionMatch=NotOlderThan"))
        .await
        .expect(504, "Timeout");
    assert_eq!(refused["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
}

pub(crate) async fn objects_can_come_as_tables_and_as_metadata(lab: &mut Lab) {
    lab.post("cm", &config_map("a", json!({"k": "v"}))).await.created();
    lab.post("gadgets", &gadget("g", json!({"size": 1}))).await.created();
    let partial =
        [("accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json")];
    let object = lab.call("GET", "cm/a", &partial, Vec::new()).await.ok();
    assert_eq!(object["kind"], "PartialObjectMetadata");
    assert!(object["data"].is_null());
    let lists =
        [("accept", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json")];
    let list = lab.call("GET", "gadgets", &lists, Vec::new()).await.ok();
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    let table = [("accept", "application/json;as=Table;g=meta.k8s.io;v=v1,application/json")];
    for short in ["cm", "gadgets", "applications", "/api/v1/namespaces/{ns}"] {
        let rows = lab.call("GET", short, &table, Vec::new()).await.ok();
        assert_eq!(rows["kind"], "Table", "{short}");
        assert!(
            rows["columnDefinitions"].as_array().expect("columns").iter().any(|c| c["name"] == "Name"),
            "{short}"
        );
    }
}
