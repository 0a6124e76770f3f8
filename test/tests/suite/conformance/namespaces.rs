//! Namespaces.

use serde_json::json;

use super::lab::{Lab, config_map};

pub(crate) async fn nothing_is_created_where_no_namespace_is(lab: &mut Lab) {
    let path = "/api/v1/namespaces/no-such-{ns}/configmaps";
    let refused = lab.post(path, &config_map("a", json!({}))).await.expect(404, "NotFound");
    assert_eq!(refused["details"]["kind"], "namespaces");
    let empty = lab.get(path).await.ok();
    assert_eq!(empty["items"], json!([]));
    let path = "/apis/conformance.tiphys.dev/v1/namespaces/no-such-{ns}/gadgets";
    lab.post(path, &super::lab::gadget("a", json!({"size": 1}))).await.expect(404, "NotFound");
    lab.post("/api/v1/namespaces", &json!({"metadata": {"name": "Not_A_Name"}})).await.expect(422, "Invalid");
}

pub(crate) async fn a_namespace_that_is_going_takes_nothing_new(lab: &mut Lab) {
    lab.post("cm", &config_map("a", json!({}))).await.created();
    let there = lab.get("/api/v1/namespaces/{ns}").await.ok();
    assert_eq!(there["status"]["phase"], "Active");
    assert_eq!(there["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(there["metadata"]["labels"]["kubernetes.io/metadata.name"], lab.namespace());
    let going = lab.delete("/api/v1/namespaces/{ns}").await.ok();
    assert_eq!(going["status"]["phase"], "Terminating");
    let refused = lab.post("cm", &config_map("b", json!({}))).await.expect(403, "Forbidden");
    assert_eq!(refused["details"]["causes"][0]["reason"], "NamespaceTerminating");
    // What is there can still be changed and deleted.
    lab.patch("merge", "cm/a", &json!({"data": {"k": "v"}})).await.ok();
    lab.delete("cm/a").await.ok();
    let default = lab.delete("/api/v1/namespaces/default").await;
    default.expect(403, "Forbidden");
}
