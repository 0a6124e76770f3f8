//! An event: what one side tells the other.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::object::Object;
use super::redis::{RedisRequest, RedisResponse};
use super::streamed::{LogRequest, TerminalRequest};

/// One event, with everything that travels besides its payload.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The sender's idea of itself, such as `agent://agent-managed`. Never an identity.
    pub source: String,
    /// What the event is about.
    pub target: Target,
    /// What it says.
    pub kind: EventKind,
    /// Names this event; an acknowledgement repeats it.
    pub id: EventId,
    /// Names the resource; a Go peer keeps one event per resource in flight.
    pub resource_id: String,
    /// `namespace/name`, where the event is about an object.
    pub subject: Option<String>,
    /// When the sender sent it.
    pub sent_at: Option<Timestamp>,
    /// Identity of the control plane, on what a principal says about applications.
    pub principal_uid: Option<String>,
    /// Extension attributes that have no field of their own; a refusal's reason and trace context among them.
    pub extensions: BTreeMap<String, String>,
    /// The content.
    pub payload: Payload,
}

/// Extension of an acknowledgement that says why the event was refused. Sent only to peers that know it.
pub const REFUSED: &str = "refused";

impl Event {
    /// An event of its own: named by a fresh UUID, not after a resource.
    pub fn request(target: Target, kind: EventKind, payload: Payload) -> Self {
        let id = unique();
        Self {
            source: String::new(),
            target,
            kind,
            id: EventId(id.clone()),
            resource_id: id,
            subject: None,
            sent_at: None,
            principal_uid: None,
            extensions: BTreeMap::new(),
            payload,
        }
    }

    /// The acknowledgement of this event.
    pub fn ack(&self) -> Self {
        Self {
            source: String::new(),
            target: Target::EventProcessed,
            kind: EventKind::Processed,
            id: self.id.clone(),
            resource_id: self.resource_id.clone(),
            subject: None,
            sent_at: self.sent_at,
            principal_uid: self.principal_uid.clone(),
            extensions: self.extensions.clone(),
            payload: Payload::Empty,
        }
    }

    /// Whether this is an acknowledgement.
    pub fn is_ack(&self) -> bool {
        self.target == Target::EventProcessed
    }
}

/// A name that nothing else has: a UUID. It is not a secret, so a run with a seeded generator can be repeated.
pub fn unique() -> String {
    uuid::Builder::from_random_bytes(fastrand::u128(..).to_be_bytes()).into_uuid().to_string()
}

/// Names an event: `NAME_UID_RESOURCEVERSION` or a UUID.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(pub String);

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $unknown:ident: $other:literal, { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$vdoc])* $variant,)*
            #[doc = $other]
            $unknown(String),
        }

        impl $name {
            /// The word on the wire.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::$unknown(text) => text,
                }
            }

            /// The word on the wire, if this version knows it.
            pub fn as_known(&self) -> Option<&'static str> {
                match self {
                    $(Self::$variant => Some($text),)*
                    Self::$unknown(_) => None,
                }
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                match text {
                    $($text => Self::$variant,)*
                    other => Self::$unknown(other.to_owned()),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// What an event is about: the `dataschema` attribute.
    Target, Unknown: "A target that this version does not know.", {
        /// Argo CD Application.
        Application = "application",
        /// Argo CD AppProject.
        AppProject = "appproject",
        /// Argo CD ApplicationSet.
        ApplicationSet = "applicationset",
        /// Repository or repository credentials.
        Repository = "repository",
        /// GPG keys.
        GpgKey = "gpgkey",
        /// A request to the cluster's API server, or its answer.
        Resource = "resource",
        /// Comparison of what both sides hold.
        ResourceResync = "resourceResync",
        /// A Redis command, or its answer.
        Redis = "redis",
        /// Figures about the agent's cluster.
        ClusterCacheInfo = "clusterCacheInfoUpdate",
        /// A request for a container's logs.
        ContainerLog = "containerlog",
        /// A request for a terminal.
        Terminal = "terminal",
        /// A sign of life.
        Heartbeat = "heartbeat",
        /// An acknowledgement.
        EventProcessed = "eventProcessed",
    }
}

impl Target {
    /// The word on the wire, but one word for all that a peer made up: it cannot make a set of labels grow.
    pub fn label(&self) -> &'static str {
        self.as_known().unwrap_or("unknown")
    }
}

words! {
    /// What an event says: the `type` attribute without its prefix.
    EventKind, Verb: "A type without the prefix: the HTTP method of a resource request.", {
        /// A sign of life that asks for an answer.
        Ping = "ping",
        /// The answer.
        Pong = "pong",
        /// The resource is new.
        Create = "create",
        /// The resource is gone.
        Delete = "delete",
        /// The owner changed the resource.
        SpecUpdate = "spec-update",
        /// The cluster's view of the resource changed.
        StatusUpdate = "status-update",
        /// Start an operation.
        SetOperation = "set-operation",
        /// Stop the running operation.
        TerminateOperation = "terminate-operation",
        /// Acknowledgement.
        Processed = "processed",
        /// Request for a resource.
        Get = "get",
        /// Answer to a resource request.
        Response = "response",
        /// A Redis command.
        RedisRequest = "redis-request",
        /// Its answer.
        RedisResponse = "redis-response",
        /// Asks for the names of all resources if the set's checksum differs.
        RequestSyncedResourceList = "request-synced-resource-list",
        /// One of these names.
        ResponseSyncedResource = "response-synced-resource",
        /// Asks the owner to send or delete a resource if its checksum differs.
        RequestUpdate = "request-update",
        /// Asks the peer to send a request-update for each of its resources.
        RequestResourceResync = "request-resource-resync",
        /// Sums of what the sender holds of the receiver's resources. Between Tiphys peers only.
        ResyncReport = "resync-report",
        /// Asks for the parts of such sums.
        ResyncQuery = "resync-query",
        /// Figures about the agent's cluster.
        ClusterCacheInfoUpdate = "cluster-cache-info-update",
        /// Asks for a terminal.
        TerminalRequest = "terminal-request",
        /// The peer could not do what it was told.
        Error = "error",
    }
}

/// The content of an event.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// Nothing: not even a content type.
    Empty,
    /// A whole Kubernetes object.
    Object(Box<Object>),
    /// Checksum of a set of resources.
    SyncedResourceList(SyncedResourceList),
    /// One resource of a set.
    SyncedResource(SyncedResource),
    /// A resource that its holder wants compared with the owner's.
    RequestUpdate(RequestUpdate),
    /// What the peer could not do.
    Failure(Failure),
    /// A request to the cluster's API server.
    ResourceRequest(ResourceRequest),
    /// The answer to it.
    ResourceResponse(ResourceResponse),
    /// What is asked of the cluster's Redis.
    RedisRequest(RedisRequest),
    /// The answer to it.
    RedisResponse(RedisResponse),
    /// A request for a container's log.
    LogRequest(LogRequest),
    /// A request to run a command in a container.
    TerminalRequest(TerminalRequest),
    /// Any other JSON document.
    Document(Value),
}

/// `{"checksum": base64}`; empty for an empty set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncedResourceList {
    /// SHA-256 over the set, empty for an empty set.
    #[serde(default)]
    pub checksum: Checksum,
}

/// Names a resource of a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncedResource {
    /// Name of the resource.
    pub name: String,
    /// Namespace at the sender.
    pub namespace: String,
    /// Source UID.
    pub uid: String,
    /// Kind, as in [`Kind::as_str`](super::resource::Kind::as_str).
    pub kind: String,
}

/// Names a resource, with the checksum of what its holder has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestUpdate {
    /// Name of the resource.
    pub name: String,
    /// Namespace at the sender.
    pub namespace: String,
    /// Source UID; empty when the sender does not hold the resource.
    pub uid: String,
    /// Kind, as in [`Kind::as_str`](super::resource::Kind::as_str).
    pub kind: String,
    /// SHA-256 of the content; empty, and left out on the wire, when the sender does not hold the resource.
    #[serde(default, skip_serializing_if = "Checksum::is_empty")]
    pub checksum: Checksum,
}

/// What a peer could not do, and to which resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Name of the resource.
    pub resource_name: String,
    /// Namespace of the resource.
    pub resource_namespace: String,
    /// For people.
    pub message: String,
}

/// A request to the cluster's API server, in the Go project's form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceRequest {
    /// Names the request; the answer's event id.
    pub uuid: String,
    /// Namespace, empty for cluster-scoped resources.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name, empty for lists.
    pub name: String,
    /// Sub-resource.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subresource: String,
    /// HTTP method.
    pub method: String,
    /// Body, base64.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub body: String,
    /// Query parameters.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, String>,
    /// API group, empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Plural name of the resource.
    pub resource: String,
}

impl ResourceRequest {
    /// The body; empty for none.
    ///
    /// # Errors
    /// If what travelled is not base64.
    pub fn body_bytes(&self) -> Result<Vec<u8>, base64::DecodeError> {
        BASE64.decode(&self.body)
    }

    /// Takes a body along.
    pub fn set_body(&mut self, bytes: &[u8]) {
        self.body = BASE64.encode(bytes);
    }
}

/// The answer to a [`ResourceRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceResponse {
    /// The request's.
    pub uuid: String,
    /// HTTP status.
    pub status: u16,
    /// Body.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource: String,
}

/// A SHA-256 digest, or nothing. Base64 in JSON; `null` reads as nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checksum(pub Vec<u8>);

impl Checksum {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Checksum {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Checksum {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
        BASE64.decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}
