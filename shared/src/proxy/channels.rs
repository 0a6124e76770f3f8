//! What runs in a container, over WebSocket as Kubernetes has it: the first byte of a message names its channel.
//!
//! In version 4 whoever speaks to the command cannot say that he has said all; version 5 has a channel for that.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::HeaderMap;
use http::header::SEC_WEBSOCKET_PROTOCOL;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// Largest message. Clients send 32 KiB at a time.
pub const LARGEST: usize = 1 << 20;
/// Text of a failure that ends a command in the Go project's and Kubernetes' clients.
const EXIT: &str = "command terminated with exit code ";
/// Longest text of a failure that is passed on.
const TEXT: usize = 4096;

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Input has no end.
    V4,
    /// A channel can be closed.
    V5,
}

impl Version {
    /// What is offered to an API server.
    pub const OFFER: &str = "v5.channel.k8s.io, v4.channel.k8s.io";

    /// Its name in a handshake.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "v4.channel.k8s.io",
            Self::V5 => "v5.channel.k8s.io",
        }
    }

    /// The best that a head names.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL);
        let named = |version: Self| {
            let mut texts = values.iter().filter_map(|value| value.to_str().ok());
            texts.any(|text| text.split(',').any(|name| name.trim() == version.as_str()))
        };
        [Self::V5, Self::V4].into_iter().find(|version| named(*version))
    }
}

/// How large what comes may be.
pub fn config() -> WebSocketConfig {
    WebSocketConfig::default().max_message_size(Some(LARGEST)).max_frame_size(Some(LARGEST))
}

/// A channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// What the command is told.
    Stdin,
    /// What it says.
    Stdout,
    /// What it complains about.
    Stderr,
    /// How it ended: [`Ended`].
    Outcome,
    /// The terminal has another size: [`Size`].
    Resize,
    /// The channel that is named by the one byte that follows has ended.
    Close,
}

impl Channel {
    /// Takes a message apart. None if it belongs to no channel.
    pub fn split(mut message: Bytes) -> Option<(Self, Bytes)> {
        let channel = match message.first()? {
            0 => Self::Stdin,
            1 => Self::Stdout,
            2 => Self::Stderr,
            3 => Self::Outcome,
            4 => Self::Resize,
            255 => Self::Close,
            _ => return None,
        };
        Some((channel, message.split_off(1)))
    }

    fn number(self) -> u8 {
        match self {
            Self::Stdin => 0,
            Self::Stdout => 1,
            Self::Stderr => 2,
            Self::Outcome => 3,
            Self::Resize => 4,
            Self::Close => 255,
        }
    }

    /// A message of this channel.
    pub fn message(self, data: &[u8]) -> Bytes {
        let mut message = BytesMut::with_capacity(1 + data.len());
        message.put_u8(self.number());
        message.put_slice(data);
        message.freeze()
    }

    /// The message that ends this channel.
    pub fn end(self) -> Bytes {
        Self::Close.message(&[self.number()])
    }

    /// Whether what came on [`Channel::Close`] ends this one.
    pub fn is_ended_by(self, data: &[u8]) -> bool {
        data == [self.number()]
    }
}

/// Size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Size {
    /// Columns.
    pub width: u16,
    /// Lines.
    pub height: u16,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Well.
    Well,
    /// With this exit code.
    Exit(u32),
    /// It could not be run, or broke off.
    Failed(String),
}

impl Ended {
    /// What the text of a failure says.
    pub fn of_text(text: &str) -> Self {
        match text.strip_prefix(EXIT).and_then(|code| code.parse().ok()) {
            Some(code) => Self::Exit(code),
            None => Self::Failed(text.chars().take(TEXT).collect()),
        }
    }

    /// What the channel of the outcome says: a `Status`.
    pub fn of_status(bytes: &[u8]) -> Self {
        let Ok(status) = serde_json::from_slice::<Value>(bytes) else {
            return Self::Failed(String::from_utf8_lossy(bytes).chars().take(TEXT).collect());
        };
        if status["status"] == "Success" {
            return Self::Well;
        }
        let causes = status["details"]["causes"].as_array().into_iter().flatten();
        let mut codes = causes.filter(|cause| cause["reason"] == "ExitCode");
        let code = codes.find_map(|cause| cause["message"].as_str()?.parse().ok());
        match code.filter(|_| status["reason"] == "NonZeroExitCode") {
            Some(code) => Self::Exit(code),
            None => {
                Self::Failed(status["message"].as_str().unwrap_or("unknown").chars().take(TEXT).collect())
            }
        }
    }

    /// The text of the failure; none if all went well.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Well => None,
            Self::Exit(code) => Some(format!("{EXIT}{code}")),
            Self::Failed(text) => Some(text.clone()),
        }
    }

    /// The `Status` for the channel of the outcome.
    pub fn status(&self) -> Value {
        let mut status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}});
        let (word, more) = match self {
            Self::Well => ("Success", json!({})),
            Self::Exit(code) => (
                "Failure",
                json!({
                    "reason": "NonZeroExitCode",
                    "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
                }),
            ),
            Self::Failed(_) => ("Failure", json!({"reason": "InternalError", "code": 500})),
        };
        status["status"] = json!(word);
        if let Some(text) = self.text() {
            status["message"] = json!(text);
        }
        if let (Value::Object(status), Value::Object(more)) = (&mut status, more) {
            status.extend(more);
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_best_version_that_both_know_is_spoken() {
        for (offer, version) in [
            (vec!["v4.channel.k8s.io, v5.channel.k8s.io"], Some(Version::V5)),
            (vec!["channel.k8s.io", "v4.channel.k8s.io"], Some(Version::V4)),
            (vec!["base64.channel.k8s.io"], None),
            (vec![], None),
            (vec![Version::OFFER], Some(Version::V5)),
        ] {
            let mut headers = HeaderMap::new();
            for value in &offer {
                headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(value));
            }
            assert_eq!(Version::of(&headers), version, "{offer:?}");
        }
    }

    #[test]
    fn a_message_is_of_one_channel() {
        for channel in [Channel::Stdin, Channel::Stdout, Channel::Stderr, Channel::Outcome, Channel::Resize] {
            let message = channel.message(b"data");
            assert_eq!(Channel::split(message), Some((channel, Bytes::from("data"))));
            let (close, data) = Channel::split(channel.end()).unwrap();
            assert_eq!((close, channel.is_ended_by(&data)), (Channel::Close, true));
        }
        assert!(!Channel::Stdin.is_ended_by(&[1]) && !Channel::Stdin.is_ended_by(&[0, 0]));
        assert_eq!(Channel::split(Bytes::new()), None);
        assert_eq!(Channel::split(Bytes::from_static(&[5])), None);
    }

    #[test]
    fn how_a_command_ended_is_told_in_both_ways() {
        for ended in [Ended::Well, Ended::Exit(137), Ended::Failed("pods \"a\" not found".into())] {
            assert_eq!(Ended::of_status(ended.status().to_string().as_bytes()), ended);
            assert_eq!(ended.text().map_or(Ended::Well, |text| Ended::of_text(&text)), ended);
        }
        assert_eq!(Ended::of_status(b"no status"), Ended::Failed("no status".into()));
        assert_eq!(Ended::of_text("command terminated with exit code x").text().unwrap().len(), 35);
        let long = Ended::of_text(&"x".repeat(1 << 20));
        assert_eq!(long.text().unwrap().len(), TEXT);
    }
}
