//! The least of Argo CD that a demo needs: somebody on each cluster who looks at applications and reports on them.

use std::pin::pin;
use std::sync::Arc;

use futures::TryStreamExt;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::{Value, json};
use tiphys_shared::process::clock;
use tokio_util::sync::CancellationToken;

use super::applications::{reported_revision, resource, revision, wanted_revision};
use super::ledger::Ledger;

/// Plays Argo CD on the cluster of `agent`: reports every application as synced and healthy at the revision that it
/// asks for.
pub(super) async fn play(
    agent: String,
    client: kube::Client,
    namespace: &'static str,
    ledger: Arc<Ledger>,
    stop: CancellationToken,
) {
    let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &resource());
    let mut events = pin!(watcher(api.clone(), watcher::Config::default()).default_backoff());
    while let Some(event) = next(&mut events, &stop).await {
        let (Event::Apply(application) | Event::InitApply(application)) = event else { continue };
        let Some(name) = application.metadata.name.clone() else { continue };
        let Some(wanted) = wanted_revision(&application) else { continue };
        let key = (agent.clone(), name);
        ledger.delivered(&key, wanted);
        if reported_revision(&application) == Some(wanted) {
            continue;
        }
        let patch = json!({ "status": status(&application, wanted) });
        match api.patch(&key.1, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => tracing::warn!(agent, application = key.1, %error, "cannot report a status"),
        }
    }
}

/// Sees at the control plane what comes back.
pub(super) async fn observe(client: kube::Client, ledger: Arc<Ledger>, stop: CancellationToken) {
    let api: Api<DynamicObject> = Api::all_with(client, &resource());
    let mut events = pin!(watcher(api, watcher::Config::default()).default_backoff());
    while let Some(event) = next(&mut events, &stop).await {
        let (application, gone) = match event {
            Event::Apply(application) | Event::InitApply(application) => (application, false),
            Event::Delete(application) => (application, true),
            Event::Init | Event::InitDone => continue,
        };
        let reported = reported_revision(&application);
        let (Some(agent), Some(name)) = (application.metadata.namespace, application.metadata.name) else {
            continue;
        };
        let key = (agent, name);
        match reported {
            _ if gone => ledger.forget(&key),
            Some(reported) => ledger.returned(&key, reported),
            None => {}
        }
    }
}

/// The next event; none when it is time to stop. A watch that fails is begun again by its backoff.
async fn next<S>(events: &mut std::pin::Pin<&mut S>, stop: &CancellationToken) -> Option<Event<DynamicObject>>
where
    S: futures::Stream<Item = Result<Event<DynamicObject>, watcher::Error>>,
{
    loop {
        let event = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            event = events.try_next() => event,
        };
        match event {
            Ok(event) => return event,
            Err(error) => tracing::debug!(%error, "a watch begins again"),
        }
    }
}

fn status(application: &DynamicObject, wanted: u64) -> Value {
    let now = clock::now().to_string();
    json!({
        "sync": {
            "status": "Synced",
            "revision": revision(wanted),
            "comparedTo": {
                "source": application.data["spec"]["source"],
                "destination": application.data["spec"]["destination"],
            },
        },
        "health": { "status": "Healthy", "lastTransitionTime": now },
        "reconciledAt": now,
        "sourceType": "Directory",
        "summary": { "images": ["gcr.io/google-samples/gb-frontend:v5"] },
        "resources": [
            resource_status("", "Service", "guestbook-ui"),
            resource_status("apps", "Deployment", "guestbook-ui"),
        ],
    })
}

fn resource_status(group: &str, kind: &str, name: &str) -> Value {
    json!({
        "group": group,
        "version": "v1",
        "kind": kind,
        "namespace": "guestbook",
        "name": name,
        "status": "Synced",
        "health": { "status": "Healthy" },
    })
}
