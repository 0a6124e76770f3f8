//! The kinds of Argo CD, with the definitions that are installed where Argo CD's own are not.

use serde_json::{Value, json};

use super::lab::{Lab, generation};

fn application(name: &str) -> Value {
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": {"name": name},
        "spec": {
            "project": "default",
            "source": {"repoURL": "https://example.com/repo", "path": "guestbook", "targetRevision": "HEAD",
                       "helm": {"valuesObject": {"replicas": 2, "deep": {"er": [1, {"x": null}]}}}},
            "destination": {"server": "https://kubernetes.default.svc", "namespace": "guestbook"},
            "syncPolicy": {"automated": {"prune": true}, "unheardOf": {"a": 1}},
        },
    })
}

pub(crate) async fn unknown_fields_of_an_application_are_kept_where_its_schema_says_so(lab: &mut Lab) {
    let mut object = application("a");
    object["somewhere"] = json!("else");
    let made = lab.post("applications", &object).await.created();
    assert_eq!(made["spec"]["source"]["helm"]["valuesObject"]["replicas"], 2);
    let mut project = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "AppProject", "metadata": {"name": "p"},
        "spec": {"sourceRepos": ["*"], "destinations": [{"server": "*", "namespace": "*"}]},
    });
    project["somewhere"] = json!("else");
    lab.post("appprojects", &project).await.created();
}

pub(crate) async fn an_application_needs_what_its_schema_requires(lab: &mut Lab) {
    let mut object = application("a");
    object.as_object_mut().expect("object").remove("spec");
    lab.post("applications", &object).await.expect(422, "Invalid");
    let mut object = application("a");
    object["spec"] = json!("x");
    lab.post("applications", &object).await.expect(422, "Invalid");
}

pub(crate) async fn an_application_has_no_status_subresource(lab: &mut Lab) {
    let made = lab.post("applications", &application("a")).await.created();
    assert_eq!(generation(&made), 1);
    let status = json!({"status": {"sync": {"status": "Synced"}, "health": {"status": "Healthy"}}});
    let next = lab.patch("merge", "applications/a", &status).await.ok();
    assert_eq!(next["status"]["sync"]["status"], "Synced");
    assert_eq!(generation(&next), 2);
    let operation = json!({"operation": {"sync": {"revision": "HEAD"}}});
    let next = lab.patch("merge", "applications/a", &operation).await.ok();
    assert_eq!(next["operation"]["sync"]["revision"], "HEAD");
    lab.get("applications/a/status").await.expect(404, "NotFound");
}
