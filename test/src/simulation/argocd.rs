//! Argo CD's application controller on each cluster, as far as Tiphys has to do with it: it runs operations, tells how
//! things stand, takes requests to look again, and lets go of what is deleted.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};
use tiphys_shared::model::argocd::annotation;
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{Kind, Object};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::plan::pause;
use super::world::{NAMESPACE, Place, World};

/// Starts a controller on each cluster.
pub(crate) fn start(world: &Arc<World>, tasks: &mut JoinSet<()>) {
    for index in 0..world.clusters.len() {
        tasks.spawn(control(Arc::clone(world), index));
    }
}

async fn control(world: Arc<World>, index: usize) {
    let Some(site) = world.clusters.get(index) else { return };
    let mut rng = world.plan.rng(&format!("controller {index}"));
    let api = site.api(Kind::Application, NAMESPACE);
    let name = world.name_of(Place::Cluster(index));
    loop {
        let mean = if world.is_acting() { 2_000 } else { 500 };
        sleep(pause(&mut rng, Duration::from_millis(mean))).await;
        let applications = match api.list(&ListParams::default()).await {
            Ok(list) => list.items,
            Err(error) => {
                world.journal.note(&name, format_args!("controller cannot list: {error}"));
                continue;
            }
        };
        for application in applications {
            // Calm controllers leave nothing undone.
            if world.is_acting() && rng.bool() {
                continue;
            }
            let mut next = application.clone();
            let started = look(&mut next, &mut rng, world.is_acting());
            if next == application {
                continue;
            }
            match api.replace(next.name(), &PostParams::default(), &next).await {
                Ok(written) => {
                    let mut ledger = world.ledger.lock();
                    if let Some(status) = written.field("status") {
                        ledger.status.insert((index, written.uid().to_owned()), status.clone());
                    }
                    if let Some(started) = started {
                        world.journal.note(&name, format_args!("{} starts {started}", next.name()));
                        *ledger.started.entry((index, started)).or_default() += 1;
                    }
                }
                // Somebody was quicker: next time.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(error) => world.journal.note(&name, format_args!("controller: {error}")),
            }
        }
    }
}

/// What the controller does with an Application. Returns the operation that it starts.
fn look(application: &mut Object, rng: &mut Rng, acting: bool) -> Option<String> {
    if application.is_deleting() {
        application.metadata.finalizers = None;
        return None;
    }
    if let Some(annotations) = &mut application.metadata.annotations {
        annotations.remove(annotation::REFRESH);
    }
    if application.field("status").is_none() || (acting && rng.u8(0..6) == 0) {
        let revision = format!("s{}", rng.u16(..));
        let child =
            json!({"group": "argoproj.io", "kind": "Application", "name": "child", "namespace": NAMESPACE});
        set_status(application, "sync", json!({"status": "Synced", "revision": revision}));
        set_status(application, "resources", json!([child]));
    }
    let running = application.at(&["status", "operationState"]).cloned().unwrap_or(Value::Null);
    match running["phase"].as_str() {
        Some(phase @ ("Running" | "Terminating")) => {
            // The request is kept until the operation has ended.
            let end = if phase == "Running" { "Succeeded" } else { "Failed" };
            set_status(
                application,
                "operationState",
                json!({"phase": end, "operation": running["operation"]}),
            );
            application.set_field("operation", None);
            None
        }
        _ => {
            let operation = application.field("operation")?.clone();
            let id = operation["sync"]["revision"].as_str().unwrap_or_default().to_owned();
            set_status(application, "operationState", json!({"phase": "Running", "operation": operation}));
            Some(id)
        }
    }
}

fn set_status(application: &mut Object, field: &str, value: Value) {
    let mut status =
        application.field("status").cloned().filter(Value::is_object).unwrap_or_else(|| json!({}));
    status[field] = value;
    application.set_field("status", Some(status));
}
