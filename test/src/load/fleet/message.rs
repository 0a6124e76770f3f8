//! The few events that a load agent writes and reads, straight in protobuf.

use anyhow::{Context as _, anyhow};
use jiff::Timestamp;
use serde_json::{Value, json};
use tiphys_proto::cloudevents::CloudEvent;
use tiphys_proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
use tiphys_proto::cloudevents::cloud_event::{CloudEventAttributeValue, Data};
use tiphys_proto::event_stream::Event;

/// The common beginning of the types.
const TYPE: &str = "io.argoproj.argocd-agent.event.";
/// What agents call themselves, whoever they are.
const SOURCE: &str = "agent://agent-managed";
/// What an acknowledgement repeats.
const REPEATED: [&str; 4] = ["eventid", "resourceid", "sentat", "principaluid"];

/// An event that came.
pub(super) struct Received {
    event: CloudEvent,
}

impl Received {
    /// The event, if there is one.
    pub(super) fn new(event: Event) -> Option<Self> {
        event.event.map(|event| Self { event })
    }

    /// The last part of its type.
    pub(super) fn kind(&self) -> &str {
        self.event.r#type.strip_prefix(TYPE).unwrap_or(&self.event.r#type)
    }

    /// What it is about.
    pub(super) fn target(&self) -> &str {
        self.attribute("dataschema").unwrap_or_default()
    }

    /// Its id.
    pub(super) fn id(&self) -> &str {
        self.attribute("eventid").unwrap_or_default()
    }

    /// How long ago it was sent, by this machine's clock.
    pub(super) fn age(&self, now: Timestamp) -> Option<std::time::Duration> {
        let sent: Timestamp = self.attribute("sentat")?.parse().ok()?;
        now.duration_since(sent).try_into().ok()
    }

    /// The acknowledgement.
    pub(super) fn acknowledgement(&self) -> Event {
        let mut attributes: Vec<(&str, Attr)> = vec![("dataschema", Attr::CeUri("eventProcessed".into()))];
        for name in REPEATED {
            if let Some(value) = self.attribute(name) {
                attributes.push((name, Attr::CeString(value.to_owned())));
            }
        }
        event("processed", attributes, Vec::new())
    }

    /// What an agent that does not have the resource named in a `response-synced-resource` asks for.
    pub(super) fn request_for_it(&self, id: String, now: Timestamp) -> anyhow::Result<Event> {
        let mut resource = self.data()?;
        resource["uid"] = json!("");
        resource["checksum"] = Value::Null;
        Ok(resync("request-update", id, &resource, now))
    }

    /// The JSON that it brings.
    pub(super) fn data(&self) -> anyhow::Result<Value> {
        let data = match &self.event.data {
            Some(Data::BinaryData(bytes)) => bytes.as_slice(),
            Some(Data::TextData(text)) => text.as_bytes(),
            _ => return Err(anyhow!("no data")),
        };
        serde_json::from_slice(data).context("not JSON")
    }

    fn attribute(&self, name: &str) -> Option<&str> {
        match self.event.attributes.get(name)?.attr.as_ref()? {
            Attr::CeString(text) | Attr::CeUri(text) | Attr::CeUriRef(text) => Some(text),
            _ => None,
        }
    }
}

/// What an agent that has nothing says when it connects.
pub(super) fn nothing_here(id: String, now: Timestamp) -> Event {
    resync("request-synced-resource-list", id, &json!({"checksum": null}), now)
}

fn resync(kind: &str, id: String, data: &Value, now: Timestamp) -> Event {
    let attributes = vec![
        ("datacontenttype", Attr::CeString("application/json".into())),
        ("dataschema", Attr::CeUri("resourceResync".into())),
        ("resourceid", Attr::CeString(id.clone())),
        ("eventid", Attr::CeString(id)),
        ("sentat", Attr::CeString(format!("{now:.9}"))),
    ];
    event(kind, attributes, data.to_string().into_bytes())
}

/// An Application that a load agent pretends to have.
pub(super) struct Copy {
    object: Value,
    name: String,
    uid: String,
    version: u64,
}

impl Copy {
    /// The copy that an agent in `namespace` would make of what the principal has sent.
    pub(super) fn new(mut object: Value, namespace: &str, agent: usize) -> Option<Self> {
        let metadata = object.get_mut("metadata")?.as_object_mut()?;
        let name = metadata.get("name")?.as_str()?.to_owned();
        let source = metadata.get("uid").and_then(Value::as_str).unwrap_or_default().to_owned();
        let uid = format!("00000000-0000-4000-8000-{agent:012x}");
        let mut annotations = metadata.remove("annotations").unwrap_or_else(|| json!({}));
        annotations["argocd.argoproj.io/source-uid"] = json!(source);
        *metadata = json!({"name": name, "namespace": namespace, "uid": uid, "annotations": annotations})
            .as_object()?
            .clone();
        Some(Self { object, name, uid, version: 0 })
    }

    /// The next status update and its event id.
    pub(super) fn status_update(&mut self, now: Timestamp) -> (String, Event) {
        self.version += 1;
        let version = self.version.to_string();
        self.object["metadata"]["resourceVersion"] = json!(version);
        self.object["status"] = json!({
            "sync": {"status": "Synced", "revision": format!("{:040x}", self.version)},
            "health": {"status": "Healthy"},
            "reconciledAt": format!("{now:.0}"),
        });
        let resource = format!("{}_{}", self.name, self.uid);
        let id = format!("{resource}_{version}");
        let namespace = self.object["metadata"]["namespace"].as_str().unwrap_or_default();
        let attributes = vec![
            ("datacontenttype", Attr::CeString("application/json".into())),
            ("dataschema", Attr::CeUri("application".into())),
            ("subject", Attr::CeString(format!("{namespace}/{}", self.name))),
            ("eventid", Attr::CeString(id.clone())),
            ("resourceid", Attr::CeString(resource)),
            ("sentat", Attr::CeString(format!("{now:.9}"))),
        ];
        (id, event("status-update", attributes, self.object.to_string().into_bytes()))
    }
}

fn event(kind: &str, attributes: Vec<(&str, Attr)>, data: Vec<u8>) -> Event {
    let attributes = attributes
        .into_iter()
        .map(|(name, attr)| (name.to_owned(), CloudEventAttributeValue { attr: Some(attr) }))
        .collect();
    let event = CloudEvent {
        id: String::new(),
        source: SOURCE.into(),
        spec_version: "1.0".into(),
        r#type: format!("{TYPE}{kind}"),
        attributes,
        data: Some(Data::BinaryData(data)),
    };
    Event { event: Some(event) }
}

/// What a principal sends about an application of this name.
#[cfg(test)]
pub(super) fn application_event(name: &str) -> Event {
    let attributes = vec![
        ("dataschema", Attr::CeUri("application".into())),
        ("eventid", Attr::CeString(format!("{name}_u1_7"))),
        ("resourceid", Attr::CeString(format!("{name}_u1"))),
        ("sentat", Attr::CeString("2026-11-21T12:00:00.5Z".into())),
        ("subject", Attr::CeString(format!("agent/{name}"))),
    ];
    let metadata = json!({"name": name, "namespace": "agent", "uid": "u1", "managedFields": []});
    let object = json!({"metadata": metadata, "spec": {"a": 1}});
    event("create", attributes, object.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_principal() -> Received {
        Received::new(application_event("app")).unwrap()
    }

    #[test]
    fn an_acknowledgement_repeats_what_it_answers() {
        let received = from_principal();
        assert_eq!(
            (received.kind(), received.target(), received.id()),
            ("create", "application", "app_u1_7")
        );
        let ack = Received::new(received.acknowledgement()).unwrap();
        assert_eq!((ack.kind(), ack.target(), ack.id()), ("processed", "eventProcessed", "app_u1_7"));
        assert_eq!(ack.attribute("sentat"), received.attribute("sentat"));
        assert_eq!(ack.attribute("subject"), None);
        let now = "2026-11-21T12:00:02Z".parse().unwrap();
        assert_eq!(received.age(now), Some(std::time::Duration::from_millis(1500)));
    }

    #[test]
    fn an_agent_that_has_nothing_asks_for_what_there_is() {
        let now = "2026-11-21T12:00:00Z".parse().unwrap();
        let question = Received::new(nothing_here("q".into(), now)).unwrap();
        assert_eq!((question.kind(), question.id()), ("request-synced-resource-list", "q"));
        assert_eq!(question.data().unwrap(), json!({"checksum": null}));
        let there = json!({"name": "app", "namespace": "agent", "uid": "u1", "kind": "Application"});
        let answer = Received::new(resync("response-synced-resource", "a".into(), &there, now)).unwrap();
        let request = Received::new(answer.request_for_it("r".into(), now).unwrap()).unwrap();
        assert_eq!((request.kind(), request.target()), ("request-update", "resourceResync"));
        assert_eq!(
            request.data().unwrap(),
            json!({"name": "app", "namespace": "agent", "uid": "", "kind": "Application", "checksum": null})
        );
    }

    #[test]
    fn a_status_update_is_about_the_copy() {
        let mut copy = Copy::new(from_principal().data().unwrap(), "argocd", 10).unwrap();
        let now = "2026-11-21T12:00:00Z".parse().unwrap();
        let (first, _) = copy.status_update(now);
        let (second, update) = copy.status_update(now);
        assert_ne!(first, second);
        let update = Received::new(update).unwrap();
        assert_eq!((update.kind(), update.id()), ("status-update", second.as_str()));
        let app = update.data().unwrap();
        assert_eq!(app["metadata"]["namespace"], "argocd");
        assert_eq!(app["metadata"]["annotations"]["argocd.argoproj.io/source-uid"], "u1");
        assert_eq!(app["spec"]["a"], 1);
        assert_eq!(app["status"]["health"]["status"], "Healthy");
        assert!(Copy::new(json!([]), "argocd", 0).is_none());
    }
}
