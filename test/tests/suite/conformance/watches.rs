//! Watching.

use serde_json::json;

use super::lab::{Lab, config_map, gadget, in_short, version};

pub(crate) async fn changes_after_a_list_are_told_in_order(lab: &mut Lab) {
    lab.post("cm", &config_map("before", json!({}))).await.created();
    let list = lab.get("cm").await.ok();
    lab.post("cm", &config_map("a", json!({}))).await.created();
    lab.patch("merge", "cm/before", &json!({"data": {"k": "v"}})).await.ok();
    let mut watch = lab.watch(&format!("cm?resourceVersion={}", version(&list))).await;
    lab.delete("cm/a").await.ok();
    lab.post("cm", &config_map("a", json!({"again": "1"}))).await.created();
    let events = watch.take(4).await;
    assert_eq!(in_short(&events), ["ADDED a", "MODIFIED before", "DELETED a", "ADDED a"]);
    lab.saw("everything after the list", &events);
    let mut from_the_middle =
        lab.watch(&format!("cm?resourceVersion={}", version(&events[1]["object"]))).await;
    let rest = from_the_middle.take(2).await;
    assert_eq!(rest, events[2..], "a watch from the middle tells something else");
}

pub(crate) async fn without_a_version_what_is_there_comes_first(lab: &mut Lab) {
    lab.post("cm", &config_map("a", json!({}))).await.created();
    lab.post("cm", &config_map("b", json!({}))).await.created();
    for query in ["", "?resourceVersion=0"] {
        let mut watch = lab.watch(&format!("cm{query}")).await;
        let mut there = in_short(&watch.take(2).await);
        there.sort();
        assert_eq!(there, ["ADDED a", "ADDED b"]);
        lab.patch("merge", "cm/a", &json!({"data": {"k": query}})).await.ok();
        assert_eq!(in_short(&watch.take(1).await), ["MODIFIED a"]);
    }
    let mut one = lab.watch("cm?fieldSelector=metadata.name%3Db").await;
    assert_eq!(in_short(&one.take(1).await), ["ADDED b"]);
    lab.delete("cm/a").await.ok();
    lab.delete("cm/b").await.ok();
    assert_eq!(in_short(&one.take(1).await), ["DELETED b"]);
}

pub(crate) async fn a_selector_sees_objects_come_and_go(lab: &mut Lab) {
    let made = lab.post("cm", &config_map("a", json!({}))).await.created();
    let mut watch = lab.watch(&format!("cm?labelSelector=l%3D1&resourceVersion={}", version(&made))).await;
    for label in [json!("1"), json!("1"), json!("2"), json!("1"), json!(null)] {
        let patch = json!({"metadata": {"labels": {"l": label}}, "data": {"n": label.to_string()}});
        lab.patch("merge", "cm/a", &patch).await.ok();
    }
    lab.patch("merge", "cm/a", &json!({"data": {"unseen": "x"}})).await.ok();
    lab.patch("merge", "cm/a", &json!({"metadata": {"labels": {"l": "1"}}})).await.ok();
    lab.delete("cm/a").await.ok();
    let events = watch.take(6).await;
    assert_eq!(in_short(&events), ["ADDED a", "DELETED a", "ADDED a", "DELETED a", "ADDED a", "DELETED a"]);
    lab.saw("what the selector lets through", &events);
}

pub(crate) async fn initial_events_end_with_a_bookmark_to_go_on_from(lab: &mut Lab) {
    lab.post("gadgets", &gadget("a", json!({"size": 1}))).await.created();
    lab.post("gadgets", &gadget("b", json!({"size": 1}))).await.created();
    let query = "gadgets?sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = lab.watch(query).await;
    let events = watch.until(|event| event["type"] == "BOOKMARK").await;
    assert_eq!(in_short(&events), ["ADDED a", "ADDED b", "BOOKMARK "]);
    let bookmark = &events[2]["object"];
    assert_eq!(bookmark["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(bookmark["kind"], "Gadget");
    lab.saw("the initial events", &events);
    lab.patch("merge", "gadgets/b", &json!({"spec": {"size": 2}})).await.ok();
    let mut onward = lab.watch(&format!("gadgets?resourceVersion={}", version(bookmark))).await;
    assert_eq!(in_short(&onward.take(1).await), ["MODIFIED b"]);
    assert_eq!(in_short(&watch.until_name("b").await), ["MODIFIED b"]);
    lab.get("cm?sendInitialEvents=true").await;
    for refused in
        ["cm?watch=true&sendInitialEvents=true", "cm?watch=true&resourceVersionMatch=Exact&resourceVersion=1"]
    {
        lab.get(refused).await.expect(422, "Invalid");
    }
}

pub(crate) async fn a_version_that_is_gone_is_an_error_event(lab: &mut Lab) {
    lab.post("gadgets", &gadget("a", json!({"size": 1}))).await.created();
    lab.post("gadgets", &gadget("b", json!({"size": 1}))).await.created();
    if let Some(server) = lab.server() {
        server.compact();
    }
    // On a real server the watch cache of this kind begins after revision 1.
    let mut watch = lab.watch("gadgets?resourceVersion=1").await;
    let events = watch.rest().await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["type"], "ERROR");
    assert_eq!(events[0]["object"]["kind"], "Status");
    assert_eq!(events[0]["object"]["code"], 410);
    assert_eq!(events[0]["object"]["reason"], "Expired");
    lab.saw("the error", &events);
    // A list helps.
    let list = lab.get("gadgets").await.ok();
    let mut watch = lab.watch(&format!("gadgets?resourceVersion={}", version(&list))).await;
    lab.delete("gadgets/a").await.ok();
    assert_eq!(in_short(&watch.take(1).await), ["DELETED a"]);
}

pub(crate) async fn a_watch_lasts_as_long_as_it_was_asked_to(lab: &mut Lab) {
    let list = lab.get("cm").await.ok();
    let mut watch = lab.watch(&format!("cm?timeoutSeconds=1&resourceVersion={}", version(&list))).await;
    lab.post("cm", &config_map("a", json!({}))).await.created();
    let events = watch.rest().await;
    assert_eq!(in_short(&events), ["ADDED a"]);
    lab.get("cm?watch=true&timeoutSeconds=x").await.expect(400, "BadRequest");
}

pub(crate) async fn a_deleted_object_carries_the_revision_of_its_end(lab: &mut Lab) {
    let made = lab.post("cm", &config_map("a", json!({"k": "v"}))).await.created();
    let mut watch = lab.watch(&format!("cm?resourceVersion={}", version(&made))).await;
    lab.delete("cm/a").await.ok();
    let events = watch.take(1).await;
    let gone = &events[0]["object"];
    assert_eq!(gone["data"], json!({"k": "v"}), "the last state is told");
    let number = |object| version(object).parse::<u64>().expect("a number");
    assert!(number(gone) > number(&made), "the end has no revision of its own");
    lab.saw("the end", &events);
    // From there on nothing of it is told again.
    lab.post("cm", &config_map("b", json!({}))).await.created();
    let mut onward = lab.watch(&format!("cm?resourceVersion={}", version(gone))).await;
    assert_eq!(in_short(&onward.take(1).await), ["ADDED b"]);
}
