//! What became of every Application, as both API servers told it: for finding out what went wrong.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use futures::StreamExt as _;
use kube::runtime::{WatchStreamExt as _, watcher};
use parking_lot::Mutex;
use serde_json::Value;
use tiphys_shared::model::argocd::annotation;
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{Kind, Object};
use tokio_util::sync::CancellationToken;

use super::realm::Realm;

/// Name of the file within the folder of a run.
const FILE: &str = "history.log";

/// A file that grows by a line for each state of each Application.
#[derive(Clone, Debug)]
pub struct History {
    file: Arc<Mutex<File>>,
}

impl History {
    /// Begins a history.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn new(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(FILE);
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { file: Arc::new(Mutex::new(file)) })
    }

    /// Writes down what happens in a realm, until cancelled.
    pub async fn follow(self, realm: Arc<Realm>, cancel: CancellationToken) {
        let watch = |api| watcher(api, watcher::Config::default()).default_backoff();
        let mut control = std::pin::pin!(watch(realm.at_control(Kind::Application)));
        let mut cluster = std::pin::pin!(watch(realm.at_cluster(Kind::Application)));
        loop {
            let (side, event) = tokio::select! {
                () = cancel.cancelled() => return,
                Some(event) = control.next() => ("control", event),
                Some(event) = cluster.next() => ("cluster", event),
                else => return,
            };
            match event {
                Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                    self.note(&realm.agent, side, "", &object);
                }
                Ok(watcher::Event::Delete(object)) => self.note(&realm.agent, side, "GONE ", &object),
                Ok(_) | Err(_) => {}
            }
        }
    }

    fn note(&self, agent: &str, side: &str, what: &str, object: &Object) {
        let now = tiphys_shared::process::clock::now();
        let note = |key: &str| object.annotation(key).unwrap_or("-").to_owned();
        let at = |path: &[&str]| object.at(path).and_then(Value::as_str).unwrap_or("-").to_owned();
        let line = format!(
            "{now} {agent} {} {side} {what}uid={} of={} version={} deleting={} content={} operation={} requested={} \
             taken={} ran={} phase={} refresh={} finalizers={}",
            object.name(),
            object.uid(),
            note(annotation::SOURCE_UID),
            object.resource_version(),
            object.is_deleting(),
            at(&["spec", "source", "targetRevision"]),
            at(&["operation", "sync", "revision"]),
            note(annotation::OPERATION_REQUESTED),
            note(annotation::OPERATION_TAKEN),
            at(&["status", "operationState", "operation", "sync", "revision"]),
            at(&["status", "operationState", "phase"]),
            note(annotation::REFRESH),
            object.metadata.finalizers.as_ref().map_or(0, Vec::len),
        );
        // A full disk is no reason to stop.
        _ = writeln!(self.file.lock(), "{line}");
    }
}
