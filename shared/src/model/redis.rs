//! What principal and agent say to each other about the Redis of a cluster, in the Go project's form.

use serde::{Deserialize, Serialize};

/// What the principal asks of a cluster's Redis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedisRequest {
    /// Names the request, and whatever is said because of it.
    pub uuid: String,
    /// Names what it is asked for: subscriptions live as long as it is pinged.
    #[serde(rename = "connectionUuid", alias = "connectionUUID", default)]
    pub connection: String,
    /// What is asked.
    pub body: RedisCommand,
}

/// One thing that can be asked. Keys and channels are the control plane's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RedisCommand {
    /// What is kept under a key.
    Get {
        /// The key.
        key: String,
    },
    /// Tell whenever something is published.
    Subscribe {
        /// Where it is published.
        channel: String,
    },
    /// The connection is still there.
    Ping {},
}

impl RedisCommand {
    /// The word for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Get { .. } => "get",
            Self::Subscribe { .. } => "subscribe",
            Self::Ping {} => "ping",
        }
    }
}

/// What the agent says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedisResponse {
    /// The request's.
    pub uuid: String,
    /// The request's.
    #[serde(rename = "connectionUuid", alias = "connectionUUID", default)]
    pub connection: String,
    /// What is said.
    pub body: RedisAnswer,
}

/// One thing that can be said. An empty error is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RedisAnswer {
    /// What is kept under the key.
    Get {
        /// The value, base64 on the wire; means something only with `hit`.
        #[serde(default, with = "bytes")]
        bytes: Option<Vec<u8>>,
        /// Whether there is anything.
        #[serde(rename = "cacheHit", default)]
        hit: bool,
        /// Why that is not known.
        #[serde(default)]
        error: String,
    },
    /// The subscription has begun.
    SubscribeResponse {
        /// Why not.
        #[serde(default)]
        error: String,
    },
    /// Something was published.
    PushFromSubscribe {
        /// Where, as the principal calls it.
        #[serde(rename = "channelName", default)]
        channel: String,
    },
    /// The answer to a ping.
    Pong {},
}

mod bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD as BASE64;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => serializer.serialize_str(&BASE64.encode(bytes)),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| BASE64.decode(text)).transpose().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requests_and_answers_have_the_go_projects_form() {
        let request = |body| json!({"uuid": "u", "connectionUuid": "c", "body": body});
        for (body, command) in [
            (json!({"get": {"key": "k"}}), RedisCommand::Get { key: "k".into() }),
            (json!({"subscribe": {"channel": "c"}}), RedisCommand::Subscribe { channel: "c".into() }),
            (json!({"ping": {}}), RedisCommand::Ping {}),
        ] {
            let read = RedisRequest::deserialize(request(body.clone())).unwrap();
            assert_eq!(read.body, command);
            assert_eq!(serde_json::to_value(&read).unwrap(), request(body));
        }
        for (body, answer) in [
            (
                json!({"get": {"bytes": "aGk=", "cacheHit": true, "error": ""}}),
                RedisAnswer::Get { bytes: Some(b"hi".into()), hit: true, error: String::new() },
            ),
            (
                json!({"get": {"bytes": null, "cacheHit": false, "error": "away"}}),
                RedisAnswer::Get { bytes: None, hit: false, error: "away".into() },
            ),
            (
                json!({"subscribeResponse": {"error": ""}}),
                RedisAnswer::SubscribeResponse { error: String::new() },
            ),
            (
                json!({"pushFromSubscribe": {"channelName": "c"}}),
                RedisAnswer::PushFromSubscribe { channel: "c".into() },
            ),
            (json!({"pong": {}}), RedisAnswer::Pong {}),
        ] {
            let read = RedisResponse::deserialize(request(body.clone())).unwrap();
            assert_eq!(read.body, answer);
            assert_eq!(serde_json::to_value(&read).unwrap(), request(body));
        }
        for nonsense in [json!({}), json!({"get": {"key": "k"}, "ping": {}}), json!({"set": {"key": "k"}})] {
            assert!(RedisRequest::deserialize(request(nonsense)).is_err());
        }
    }
}
