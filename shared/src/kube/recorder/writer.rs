//! Writes Events as Kubernetes wants them: a repetition counts on the Event that there is.
//!
//! kube's own recorder does that, too, but keeps the first note of an Event whatever is told later, and the notes of Events
//! cannot be changed: here another note is another Event.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ObjectReference, Secret};
use k8s_openapi::api::events::v1::Event as KubeEvent;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tokio::time::Instant;

use super::{Event, Key, Place, Regarding};
use crate::kube::cluster_secret;
use crate::model::AgentName;
use crate::model::argocd::label;
use crate::process::clock;

/// After so long without a word a repetition is an Event of its own, as it is for Kubernetes' own controllers.
const SERIES: Duration = Duration::from_secs(6 * 60);
/// Longest name of an object, in bytes.
const NAME: usize = 253;

/// What became of an Event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Written,
    /// What it is about has no object.
    Homeless,
    Failed,
}

/// An Event that there is.
struct Series {
    name: String,
    note: String,
    count: i32,
    last: Instant,
}

pub(super) struct Writer {
    client: Client,
    namespace: String,
    reporter: &'static str,
    series: BTreeMap<Key, Series>,
    /// Whether it was told that Events are refused.
    complained: bool,
}

impl Writer {
    pub(super) fn new(client: Client, namespace: &str, reporter: &'static str) -> Self {
        Self { client, namespace: namespace.to_owned(), reporter, series: BTreeMap::new(), complained: false }
    }

    pub(super) async fn write(&mut self, key: &Key, event: &Event) -> Outcome {
        match self.try_write(key, event).await {
            Ok(outcome) => outcome,
            Err(kube::Error::Api(status)) if status.code == 403 && !self.complained => {
                self.complained = true;
                tracing::warn!(
                    error = status.message,
                    "Kubernetes Events cannot be written: allow creating and patching events of events.k8s.io, or turn them \
                     off with --kubernetes-events false"
                );
                Outcome::Failed
            }
            Err(error) => {
                tracing::debug!(reason = event.reason, note = event.note, %error, "a Kubernetes Event cannot be written");
                Outcome::Failed
            }
        }
    }

    async fn try_write(&mut self, key: &Key, event: &Event) -> Result<Outcome, kube::Error> {
        let now = Instant::now();
        self.series.retain(|_, series| now < series.last + SERIES);
        let place = match &key.regarding {
            Regarding::Object(place) => Some(place.clone()),
            Regarding::ClusterOf(agent) => self.cluster_of(agent).await?,
        };
        let Some(place) = place else { return Ok(Outcome::Homeless) };
        let events: Api<KubeEvent> = Api::namespaced(self.client.clone(), &place.namespace);
        if let Some(series) = self.series.get_mut(key).filter(|series| series.note == event.note) {
            let count = series.count + 1;
            let again = json!({"series": {"count": count, "lastObservedTime": MicroTime(clock::now())}});
            match events.patch(&series.name, &PatchParams::default(), &Patch::Merge(again)).await {
                Ok(_) => {
                    (series.count, series.last) = (count, now);
                    return Ok(Outcome::Written);
                }
                // It has expired, or somebody has removed it.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        let name = self.create(&events, place, event).await?;
        let series = Series { name, note: event.note.clone(), count: 1, last: now };
        self.series.insert(key.clone(), series);
        Ok(Outcome::Written)
    }

    async fn create(
        &self,
        events: &Api<KubeEvent>,
        place: Place,
        event: &Event,
    ) -> Result<String, kube::Error> {
        let now = clock::now();
        let suffix = format!(".{:x}", now.as_nanosecond());
        let about = &place.name[..place.name.floor_char_boundary(NAME - suffix.len())];
        let name = format!("{}{suffix}", about.trim_end_matches(['.', '-']));
        let mut made = KubeEvent {
            action: Some(event.action.to_owned()),
            reason: Some(event.reason.to_owned()),
            type_: Some(if event.is_warning { "Warning" } else { "Normal" }.to_owned()),
            note: Some(event.note.clone()),
            event_time: Some(MicroTime(now)),
            reporting_controller: Some(self.reporter.to_owned()),
            reporting_instance: Some(self.reporter.to_owned()),
            ..KubeEvent::default()
        };
        made.metadata.name = Some(name.clone());
        made.metadata.namespace = Some(place.namespace.clone());
        made.regarding = Some(ObjectReference {
            api_version: Some(place.api_version),
            kind: Some(place.kind),
            namespace: Some(place.namespace),
            name: Some(place.name),
            uid: Some(place.uid).filter(|uid| !uid.is_empty()),
            ..ObjectReference::default()
        });
        events.create(&PostParams::default(), &made).await?;
        Ok(name)
    }

    /// The Secret by which Argo CD knows an agent's cluster: most have the name that we give them.
    async fn cluster_of(&self, agent: &AgentName) -> Result<Option<Place>, kube::Error> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let is_of =
            |secret: &Secret| secret.labels().get(label::AGENT_NAME).is_some_and(|of| of == agent.as_str());
        let named = secrets.get_opt(&cluster_secret::name(agent)).await?.filter(is_of);
        let found = match named {
            Some(secret) => Some(secret),
            None => {
                let labels = format!("{}=cluster,{}={agent}", label::SECRET_TYPE, label::AGENT_NAME);
                secrets.list(&ListParams::default().labels(&labels)).await?.items.into_iter().next()
            }
        };
        Ok(found.map(|secret| {
            Place::secret(&self.namespace, &secret.name_any(), secret.uid().unwrap_or_default())
        }))
    }
}
