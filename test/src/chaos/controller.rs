//! What Argo CD's application controller does in a cluster, as far as it matters here: it takes operations, tells how
//! things stand, looks again when asked to, and ends deletions.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use kube::api::PostParams;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::{Value, json};
use tiphys_shared::model::argocd::annotation;
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{Kind, Object};
use tokio_util::sync::CancellationToken;

use super::ledger::Ledger;
use super::realm::Realm;

/// Finalizer by which Argo CD holds an Application until what it deployed is gone.
pub const FINALIZER: &str = "resources-finalizer.argocd.argoproj.io";

/// Plays the controller of a realm's cluster until cancelled.
///
/// # Errors
/// If the API server, which is reached directly, fails.
pub async fn run(
    realm: Arc<Realm>,
    ledger: Arc<Ledger>,
    mut rng: fastrand::Rng,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let api = realm.at_cluster(Kind::Application);
    let mut changes =
        std::pin::pin!(watcher(api.clone(), watcher::Config::default()).default_backoff().applied_objects());
    let mut looks: u64 = 0;
    loop {
        let application = tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(()),
            change = changes.next() => match change {
                Some(Ok(application)) => application,
                // The watch begins anew.
                Some(Err(_)) => continue,
                None => anyhow::bail!("the watch of {} ended", realm.agent),
            },
        };
        if rng.u8(..4) == 0 {
            tokio::time::sleep(Duration::from_millis(rng.u64(1..80))).await;
        }
        looks += 1;
        let (next, done) = step(&application, rng.bool(), looks);
        if next == application {
            continue;
        }
        match api.replace(application.name(), &PostParams::default(), &next).await {
            Ok(_) => {
                if let Some(content) = &done.started {
                    ledger.start(content);
                }
                if let Some(content) = &done.finished {
                    ledger.finish(content);
                }
            }
            // It has changed: the watch will tell.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("the controller of {} cannot write", realm.agent));
            }
        }
    }
}

/// What was done with operations, once it is written.
#[derive(Debug, Default, PartialEq)]
struct Done {
    started: Option<String>,
    finished: Option<String>,
}

/// What the controller makes of an Application. Quick ones run an operation in one go.
fn step(application: &Object, quick: bool, looks: u64) -> (Object, Done) {
    let mut next = application.clone();
    let mut done = Done::default();
    if application.is_deleting() {
        if let Some(finalizers) = &mut next.metadata.finalizers {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
        }
        return (next, done);
    }
    let mut status = application.field("status").cloned().unwrap_or_else(|| json!({}));
    if let Some(operation) = application.field("operation") {
        let content = content_of(operation);
        let runs = status.pointer("/operationState/phase") == Some(&json!("Running"))
            && status.pointer("/operationState/operation") == Some(operation);
        if !runs {
            done.started = Some(content.clone());
        }
        let phase = if runs || quick { "Succeeded" } else { "Running" };
        put(
            &mut status,
            "operationState",
            json!({
                "operation": operation, "phase": phase, "startedAt": "2026-01-01T00:00:00Z", "message": format!("look {looks}"),
            }),
        );
        if phase == "Succeeded" {
            next.set_field("operation", None);
            done.finished = Some(content);
        }
    }
    let revision = application.at(&["spec", "source", "targetRevision"]).cloned().unwrap_or_default();
    let refresh = application.annotation(annotation::REFRESH).is_some();
    if refresh || status.pointer("/sync/revision") != Some(&revision) {
        put(&mut status, "sync", json!({"status": "Synced", "revision": revision}));
        put(
            &mut status,
            "health",
            json!({"status": if looks.is_multiple_of(3) { "Progressing" } else { "Healthy" }}),
        );
        put(&mut status, "summary", json!({"images": [format!("image:{looks}")]}));
    }
    if refresh && let Some(annotations) = &mut next.metadata.annotations {
        annotations.remove(annotation::REFRESH);
    }
    if application.field("status") != Some(&status) {
        next.set_field("status", Some(status));
    }
    (next, done)
}

fn put(status: &mut Value, field: &str, value: Value) {
    if let Value::Object(fields) = status {
        fields.insert(field.to_owned(), value);
    }
}

/// The content by which an operation is told from all others.
pub fn content_of(operation: &Value) -> String {
    operation.pointer("/sync/revision").and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn application(value: Value) -> Object {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn an_operation_is_started_once_and_taken_off_when_it_is_through() {
        let asked = application(
            json!({"metadata": {"name": "a"}, "spec": {}, "operation": {"sync": {"revision": "op-1"}}}),
        );
        let (running, done) = step(&asked, false, 1);
        assert_eq!(done, Done { started: Some("op-1".into()), finished: None });
        assert!(running.field("operation").is_some());
        let (through, done) = step(&running, false, 2);
        assert_eq!(done, Done { started: None, finished: Some("op-1".into()) });
        assert!(through.field("operation").is_none());
        assert_eq!(step(&through, false, 3).1, Done::default());
        let (_, done) = step(&asked, true, 1);
        assert_eq!(done, Done { started: Some("op-1".into()), finished: Some("op-1".into()) });
    }

    #[test]
    fn it_comes_to_rest() {
        let asked =
            application(json!({"metadata": {"name": "a", "annotations": {annotation::REFRESH: "hard"}},
            "spec": {"source": {"targetRevision": "main"}}}));
        let (looked, _) = step(&asked, true, 1);
        assert_eq!(looked.annotation(annotation::REFRESH), None);
        assert_eq!(looked.at(&["status", "sync", "revision"]), Some(&json!("main")));
        assert_eq!(step(&looked, true, 2).0, looked);
    }
}
