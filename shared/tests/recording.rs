//! Every event of a recorded session of the Go project is understood, and written back as it came.

#![allow(clippy::unwrap_used, reason = "all of this is test code")]

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use prost::Message as _;
use serde_json::Value;
use tiphys_proto::cloudevents::CloudEvent;
use tiphys_proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
use tiphys_proto::cloudevents::cloud_event::{CloudEventAttributeValue, Data};
use tiphys_shared::model::event::Payload;
use tiphys_shared::model::{Event, EventKind, Kind, Target};
use tiphys_shared::protocol::checksum;
use tiphys_shared::wire::codec;

/// The recorded messages with their decoded forms.
fn recording() -> Vec<(Value, tiphys_proto::event_stream::Event)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/upstream-recording.jsonl");
    std::fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|record| record.get("event").is_some())
        .map(|record| {
            let raw = base64::engine::general_purpose::STANDARD
                .decode(record["raw_base64"].as_str().unwrap())
                .unwrap();
            let message = tiphys_proto::event_stream::Event::decode(raw.as_slice()).unwrap();
            (record, message)
        })
        .collect()
}

/// JSON without what means nothing: a null is a field that is not there.
fn normalised(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .filter(|(_, field)| !field.is_null())
                .map(|(name, field)| (name, normalised(field)))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(normalised).collect()),
        other => other,
    }
}

fn content(event: &CloudEvent) -> (&'static str, Value) {
    match event.data.as_ref().unwrap() {
        Data::BinaryData(bytes) if bytes.is_empty() => ("binary", Value::Null),
        Data::BinaryData(bytes) => ("binary", normalised(serde_json::from_slice(bytes).unwrap())),
        Data::TextData(text) => ("text", Value::String(text.clone())),
        Data::ProtoData(_) => ("proto", Value::Null),
    }
}

#[test]
fn every_recorded_event_decodes_to_a_typed_value_and_encodes_back_field_by_field() {
    let recording = recording();
    assert!(recording.len() > 250, "{} events", recording.len());
    for (record, message) in recording {
        let typed = codec::decode(message.clone()).unwrap();
        assert!(!matches!(typed.target, Target::Unknown(_)), "{record}");
        let said = message.event.unwrap();
        let repeated = codec::encode(&typed).unwrap().event.unwrap();
        assert_eq!(repeated.id, said.id);
        assert_eq!(repeated.source, said.source);
        assert_eq!(repeated.spec_version, said.spec_version);
        assert_eq!(repeated.r#type, said.r#type);
        assert_eq!(repeated.attributes, said.attributes, "attributes, and the kinds of their values");
        assert_eq!(content(&repeated), content(&said));
    }
}

#[test]
fn what_a_later_release_adds_to_a_recorded_event_changes_nothing_of_the_rest() {
    let attribute = |attr| CloudEventAttributeValue { attr: Some(attr) };
    let (mut richer, mut objects) = (0, 0);
    for (record, message) in recording() {
        let known = codec::decode(message.clone()).unwrap();
        let mut later = message.clone();
        let event = later.event.as_mut().unwrap();
        event.attributes.insert("future".to_owned(), attribute(Attr::CeString("words".to_owned())));
        event.attributes.insert("futurebytes".to_owned(), attribute(Attr::CeBytes(vec![1])));
        if let Some(Data::BinaryData(bytes)) = &mut event.data
            && let Ok(Value::Object(mut fields)) = serde_json::from_slice(bytes)
        {
            richer += 1;
            fields.insert("future".to_owned(), serde_json::json!({"of": ["it"]}));
            *bytes = serde_json::to_vec(&fields).unwrap();
        }
        // Fields of the message itself, beside the event.
        let mut raw = later.encode_to_vec();
        raw.extend([0xfa, 0x3f, 2, 7, 7]);
        let later = tiphys_proto::event_stream::Event::decode(raw.as_slice()).unwrap();
        let mut understood = codec::decode(later).unwrap();
        assert_eq!(understood.extensions.remove("future").as_deref(), Some("words"));
        if let (Payload::Object(object), Payload::Object(_)) = (&mut understood.payload, &known.payload) {
            objects += 1;
            object.data.as_object_mut().unwrap().remove("future").unwrap();
        }
        if let Payload::Document(document) = &mut understood.payload {
            document.as_object_mut().unwrap().remove("future");
        }
        assert_eq!(understood, known, "{record}");
    }
    assert!(richer > 100 && objects > 50, "{richer} {objects}");
}

#[test]
fn payloads_are_what_target_and_type_promise() {
    let mut seen = BTreeMap::<String, usize>::new();
    for (_, message) in recording() {
        let event = codec::decode(message).unwrap();
        let fits = match (&event.target, &event.payload) {
            (target, Payload::Object(_)) => {
                Kind::of_target(target).is_some() || matches!(target, Target::GpgKey | Target::ApplicationSet)
            }
            (Target::EventProcessed, Payload::Empty) => true,
            (Target::Resource, Payload::ResourceRequest(_)) => matches!(event.kind, EventKind::Verb(_)),
            (Target::Resource, Payload::ResourceResponse(_)) => event.kind == EventKind::Response,
            (Target::ResourceResync, Payload::RequestUpdate(_)) => event.kind == EventKind::RequestUpdate,
            (Target::ResourceResync, Payload::SyncedResource(_)) => {
                event.kind == EventKind::ResponseSyncedResource
            }
            (Target::ResourceResync, Payload::SyncedResourceList(_)) => {
                event.kind == EventKind::RequestSyncedResourceList
            }
            (Target::ContainerLog, Payload::LogRequest(_)) => matches!(event.kind, EventKind::Verb(_)),
            (Target::ResourceResync, Payload::Document(_)) => true,
            _ => false,
        };
        assert!(fits, "{event:?}");
        *seen.entry(format!("{} {}", event.target, event.kind)).or_default() += 1;
    }
    assert!(seen.len() >= 19, "{seen:?}");
}

#[test]
fn an_acknowledgement_repeats_what_names_the_event() {
    let mut said: BTreeMap<String, Event> = BTreeMap::new();
    let mut compared = 0;
    for (record, message) in recording() {
        let event = codec::decode(message).unwrap();
        let direction = record["dir"].as_str().unwrap();
        if event.is_ack() {
            let other = if direction.starts_with("agent") { "principal" } else { "agent" };
            let Some(acknowledged) = said.get(&format!("{other}/{}", event.id)) else { continue };
            if acknowledged.sent_at != event.sent_at {
                continue;
            }
            let mut ours = acknowledged.ack();
            ours.source = event.source.clone();
            assert_eq!(ours, event);
            compared += 1;
        } else {
            let side = if direction.starts_with("agent") { "agent" } else { "principal" };
            said.insert(format!("{side}/{}", event.id), event);
        }
    }
    assert!(compared > 100, "only {compared} acknowledgements were compared");
}

/// What a Go agent says of a resource that it holds as it was sent: our checksum of what was sent is the same.
#[test]
fn checksums_are_those_of_the_go_project() {
    let events: Vec<Event> =
        recording().into_iter().map(|(_, message)| codec::decode(message).unwrap()).collect();
    let mut compared = 0;
    for event in &events {
        let Payload::RequestUpdate(request) = &event.payload else { continue };
        let Some(kind) = Kind::parse(&request.kind) else { continue };
        let ours: Vec<_> = events
            .iter()
            .filter(|other| Kind::of_target(&other.target) == Some(kind))
            .filter_map(|other| match &other.payload {
                Payload::Object(object) if object.metadata.name.as_deref() == Some(&request.name) => {
                    Some(checksum::content(kind, object))
                }
                _ => None,
            })
            .collect();
        if ours.contains(&request.checksum) {
            compared += 1;
        }
    }
    assert!(compared >= 8, "only {compared} of the recorded checksums were found again");
}
