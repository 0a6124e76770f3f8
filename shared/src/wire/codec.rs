//! Protobuf CloudEvent ⇄ [`model::Event`](crate::model::Event): the only place that names CloudEvents.
//!
//! Protobuf is turned into a [`cloudevents::Event`] and that into a typed event, and back. `dataschema` is the one
//! attribute that the SDK cannot hold, because the Go project puts a bare word where the SDK wants a URL; it is kept
//! among the extensions on the way through.

use std::collections::BTreeMap;

use cloudevents::event::{ExtensionValue, SpecVersion};
use cloudevents::{AttributesReader as _, AttributesWriter as _, Data, EventBuilder as _, EventBuilderV10};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tiphys_proto::cloudevents::CloudEvent;
use tiphys_proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
use tiphys_proto::cloudevents::cloud_event::{CloudEventAttributeValue, Data as WireData};

use crate::model::event::{Event, EventId, EventKind, Payload, Target};
use crate::model::resource::Kind;

const TYPE_PREFIX: &str = "io.argoproj.argocd-agent.event.";
const SPEC_VERSION: &str = "1.0";
const JSON: &str = "application/json";
const DATA_SCHEMA: &str = "dataschema";
const CONTENT_TYPE: &str = "datacontenttype";
const SUBJECT: &str = "subject";
const EVENT_ID: &str = "eventid";
const RESOURCE_ID: &str = "resourceid";
const SENT_AT: &str = "sentat";
const PRINCIPAL_UID: &str = "principaluid";

/// An event that could not be understood.
#[derive(Debug, thiserror::Error)]
#[error("malformed event: {reason}")]
pub struct Malformed {
    /// What is wrong with it.
    #[source]
    pub reason: Reason,
    /// Its acknowledgement, if it names itself: the sender must not repeat it for ever.
    pub ack: Option<Box<Event>>,
}

/// What is wrong with an event.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// The message carries no event.
    #[error("no event in the message")]
    Empty,
    /// A required attribute is absent, or has another type than the protocol gives it.
    #[error("attribute {0:?} is missing or not of its type")]
    Attribute(&'static str),
    /// The content is not JSON of the shape that target and type ask for.
    #[error("content is not what a {kind} of {target} carries: {source}")]
    Content {
        /// Target of the event.
        target: Target,
        /// Type of the event.
        kind: EventKind,
        /// The parser's complaint.
        source: serde_json::Error,
    },
    /// The content is text or protobuf where JSON bytes are due.
    #[error("content is not in the binary field")]
    Field,
    /// The event claims another version of CloudEvents.
    #[error("CloudEvents version {0:?} is not 1.0")]
    Version(String),
}

/// An event could not be written. Only content that JSON cannot express can cause it.
#[derive(Debug, thiserror::Error)]
#[error("event could not be encoded: {0}")]
pub struct EncodeError(#[from] serde_json::Error);

/// Reads an event.
///
/// # Errors
/// [`Malformed`], with an acknowledgement if the event at least names itself.
pub fn decode(message: tiphys_proto::event_stream::Event) -> Result<Event, Malformed> {
    let raw = message.event.ok_or(Malformed { reason: Reason::Empty, ack: None })?;
    let mut event = from_wire(raw).map_err(|reason| Malformed { reason, ack: None })?;
    let (_, _, data) = event.take_data();
    let mut envelope = envelope(&event).map_err(|reason| Malformed { reason, ack: None })?;
    match payload(&envelope.target, &envelope.kind, data) {
        Ok(payload) => {
            envelope.payload = payload;
            Ok(envelope)
        }
        Err(reason) => Err(Malformed { reason, ack: Some(Box::new(envelope.ack())) }),
    }
}

/// Writes an event.
///
/// # Errors
/// [`EncodeError`] if the content cannot be expressed in JSON.
pub fn encode(event: &Event) -> Result<tiphys_proto::event_stream::Event, EncodeError> {
    let mut out = EventBuilderV10::new()
        .id("")
        .ty(match &event.kind {
            EventKind::Verb(verb) => verb.clone(),
            kind => format!("{TYPE_PREFIX}{kind}"),
        })
        .source("-")
        .build()
        .unwrap_or_default();
    out.set_source(event.source.as_str());
    if let Some(subject) = &event.subject {
        out.set_subject(Some(subject.as_str()));
    }
    for (name, value) in &event.extensions {
        out.set_extension(name, value.as_str());
    }
    out.set_extension(DATA_SCHEMA, event.target.as_str());
    out.set_extension(EVENT_ID, event.id.0.as_str());
    out.set_extension(RESOURCE_ID, event.resource_id.as_str());
    if let Some(at) = event.sent_at {
        out.set_extension(SENT_AT, at.to_string());
    }
    if let Some(uid) = &event.principal_uid {
        out.set_extension(PRINCIPAL_UID, uid.as_str());
    }
    match content(&event.payload)? {
        Some(bytes) => {
            out.set_data(JSON, bytes);
        }
        None => {
            out.set_data_unchecked(Vec::new());
        }
    }
    Ok(tiphys_proto::event_stream::Event { event: Some(into_wire(out)) })
}

/// The acknowledgement for an event that was told apart from others, with the reason why it was refused.
pub fn refusal(mut ack: Event, reason: &str) -> Event {
    // An HTTP/2 peer limits nothing here, but a reason is for people: a kilobyte is plenty.
    ack.extensions.insert(crate::model::event::REFUSED.to_owned(), reason.chars().take(1024).collect());
    ack
}

fn envelope(event: &cloudevents::Event) -> Result<Event, Reason> {
    let mut extensions: BTreeMap<String, String> = event
        .iter_extensions()
        .map(|(name, value)| {
            let text = match value {
                ExtensionValue::String(text) => text.clone(),
                ExtensionValue::Boolean(truth) => truth.to_string(),
                ExtensionValue::Integer(number) => number.to_string(),
            };
            (name.to_owned(), text)
        })
        .collect();
    let mut take = |name: &'static str| extensions.remove(name).ok_or(Reason::Attribute(name));
    let target = Target::from(take(DATA_SCHEMA)?.as_str());
    let id = EventId(take(EVENT_ID)?);
    let resource_id = take(RESOURCE_ID)?;
    let sent_at = take(SENT_AT).ok().and_then(|text| text.parse().ok());
    let principal_uid = take(PRINCIPAL_UID).ok();
    let kind = match event.ty().strip_prefix(TYPE_PREFIX) {
        Some(word) => EventKind::from(word),
        None => EventKind::Verb(event.ty().to_owned()),
    };
    Ok(Event {
        source: event.source().to_owned(),
        target,
        kind,
        id,
        resource_id,
        subject: event.subject().map(str::to_owned),
        sent_at,
        principal_uid,
        extensions,
        payload: Payload::Empty,
    })
}

fn payload(target: &Target, kind: &EventKind, data: Option<Data>) -> Result<Payload, Reason> {
    let bytes = match data {
        None => Vec::new(),
        Some(Data::Binary(bytes)) => bytes,
        Some(Data::String(_) | Data::Json(_)) => return Err(Reason::Field),
    };
    fn parse<T: DeserializeOwned>(target: &Target, kind: &EventKind, bytes: &[u8]) -> Result<T, Reason> {
        serde_json::from_slice(bytes).map_err(|source| Reason::Content {
            target: target.clone(),
            kind: kind.clone(),
            source,
        })
    }
    let is_object =
        Kind::of_target(target).is_some() || matches!(target, Target::ApplicationSet | Target::GpgKey);
    Ok(match (target, kind) {
        (Target::EventProcessed, _) => Payload::Empty,
        (_, EventKind::Error) => Payload::Failure(parse(target, kind, &bytes)?),
        _ if is_object => Payload::Object(parse(target, kind, &bytes)?),
        (Target::ResourceResync, EventKind::RequestSyncedResourceList) => {
            Payload::SyncedResourceList(parse(target, kind, &bytes)?)
        }
        (Target::ResourceResync, EventKind::ResponseSyncedResource) => {
            Payload::SyncedResource(parse(target, kind, &bytes)?)
        }
        (Target::ResourceResync, EventKind::RequestUpdate) => {
            Payload::RequestUpdate(parse(target, kind, &bytes)?)
        }
        (Target::Resource, EventKind::Response) => Payload::ResourceResponse(parse(target, kind, &bytes)?),
        (Target::Resource, _) => Payload::ResourceRequest(parse(target, kind, &bytes)?),
        (Target::Redis, EventKind::RedisRequest) => Payload::RedisRequest(parse(target, kind, &bytes)?),
        (Target::Redis, EventKind::RedisResponse) => Payload::RedisResponse(parse(target, kind, &bytes)?),
        (Target::ContainerLog, EventKind::Verb(_)) => Payload::LogRequest(parse(target, kind, &bytes)?),
        (Target::Terminal, EventKind::TerminalRequest) => {
            Payload::TerminalRequest(parse(target, kind, &bytes)?)
        }
        _ if bytes.is_empty() => Payload::Empty,
        _ => Payload::Document(parse(target, kind, &bytes)?),
    })
}

fn content(payload: &Payload) -> Result<Option<Vec<u8>>, EncodeError> {
    fn json<T: Serialize>(value: &T) -> Result<Option<Vec<u8>>, EncodeError> {
        Ok(Some(serde_json::to_vec(value)?))
    }
    match payload {
        Payload::Empty => Ok(None),
        Payload::Object(object) => json(object),
        Payload::SyncedResourceList(list) => json(list),
        Payload::SyncedResource(resource) => json(resource),
        Payload::RequestUpdate(request) => json(request),
        Payload::Failure(failure) => json(failure),
        Payload::ResourceRequest(request) => json(request),
        Payload::ResourceResponse(response) => json(response),
        Payload::RedisRequest(request) => json(request),
        Payload::RedisResponse(response) => json(response),
        Payload::LogRequest(request) => json(request),
        Payload::TerminalRequest(request) => json(request),
        Payload::Document(document) => json(document),
    }
}

fn from_wire(raw: CloudEvent) -> Result<cloudevents::Event, Reason> {
    if raw.spec_version != SPEC_VERSION {
        return Err(Reason::Version(raw.spec_version.chars().take(20).collect()));
    }
    let mut event = EventBuilderV10::new().id(raw.id).ty(raw.r#type).source("-").build().unwrap_or_default();
    event.set_source(raw.source);
    let mut content_type = None;
    for (name, value) in raw.attributes {
        match (name.as_str(), value.attr) {
            (SUBJECT, Some(Attr::CeString(text) | Attr::CeUri(text) | Attr::CeUriRef(text))) => {
                event.set_subject(Some(text));
            }
            (CONTENT_TYPE, Some(Attr::CeString(text) | Attr::CeUri(text) | Attr::CeUriRef(text))) => {
                content_type = Some(text);
            }
            // Text by their nature: an extension of such a name would be written as the attribute.
            (SUBJECT | CONTENT_TYPE, _) => {}
            (DATA_SCHEMA, Some(Attr::CeUri(text) | Attr::CeUriRef(text) | Attr::CeString(text)))
            | (_, Some(Attr::CeString(text) | Attr::CeUri(text) | Attr::CeUriRef(text))) => {
                event.set_extension(&name, text);
            }
            (_, Some(Attr::CeBoolean(truth))) => event.set_extension(&name, truth),
            (_, Some(Attr::CeInteger(number))) => event.set_extension(&name, i64::from(number)),
            // Bytes and timestamps have no place in the SDK's event; nothing in this protocol uses them.
            (_, Some(Attr::CeBytes(_) | Attr::CeTimestamp(_)) | None) => {}
        }
    }
    match raw.data {
        None => {}
        Some(WireData::BinaryData(bytes)) => {
            event.set_data_unchecked(bytes);
        }
        Some(WireData::TextData(text)) => {
            event.set_data_unchecked(text);
        }
        Some(WireData::ProtoData(_)) => return Err(Reason::Field),
    }
    if let Some(content_type) = content_type {
        event.set_datacontenttype(Some(content_type));
    }
    Ok(event)
}

fn into_wire(mut event: cloudevents::Event) -> CloudEvent {
    let text = |text: &str| CloudEventAttributeValue { attr: Some(Attr::CeString(text.to_owned())) };
    let mut attributes = BTreeMap::new();
    for (name, value) in event.iter_extensions() {
        let attr = match value {
            ExtensionValue::String(uri) if name == DATA_SCHEMA => Attr::CeUri(uri.clone()),
            ExtensionValue::String(text) => Attr::CeString(text.clone()),
            ExtensionValue::Boolean(truth) => Attr::CeBoolean(*truth),
            // Wider integers than CloudEvents allow travel as text.
            ExtensionValue::Integer(number) => {
                i32::try_from(*number).map_or_else(|_| Attr::CeString(number.to_string()), Attr::CeInteger)
            }
        };
        attributes.insert(name.to_owned(), CloudEventAttributeValue { attr: Some(attr) });
    }
    if let Some(subject) = event.subject() {
        attributes.insert(SUBJECT.to_owned(), text(subject));
    }
    if let Some(content_type) = event.datacontenttype() {
        attributes.insert(CONTENT_TYPE.to_owned(), text(content_type));
    }
    debug_assert_eq!(event.specversion(), SpecVersion::V10);
    let (id, source, ty) = (event.id().to_owned(), event.source().to_owned(), event.ty().to_owned());
    let data = event.take_data().2.map(|data| match data {
        Data::Binary(bytes) => WireData::BinaryData(bytes),
        Data::String(text) => WireData::TextData(text),
        Data::Json(value) => WireData::BinaryData(value.to_string().into_bytes()),
    });
    CloudEvent { id, source, spec_version: SPEC_VERSION.to_owned(), r#type: ty, attributes, data }
}
