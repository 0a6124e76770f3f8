//! The Secret that stands for a join token at the control plane. It holds a hash, never the token.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use crate::model::AgentName;
use crate::model::argocd::label;
use crate::security::join_token::JoinToken;

const PREFIX: &str = "argocd-agent-join-";

/// The label selector of all of them.
pub fn selector() -> String {
    format!("{}=true", label::JOIN_TOKEN)
}

/// The name of the Secret of the token `id`.
pub fn name(id: &str) -> String {
    format!("{PREFIX}{id}")
}

/// What is kept of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Name of the token.
    pub id: String,
    /// The agent that may join by it.
    pub agent: AgentName,
    /// Hash of its secret.
    pub hash: String,
    /// Until when it is good.
    pub expires: Timestamp,
}

/// Why a Secret does not stand for a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The part that is missing or wrong.
    pub part: &'static str,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its {} is missing or wrong", self.part)
    }
}

impl std::error::Error for Unreadable {}

/// The Secret for a token.
pub fn to_secret(token: &JoinToken, namespace: &str, expires: Timestamp) -> Secret {
    let mut secret = Secret::default();
    secret.metadata.name = Some(name(&token.id));
    secret.metadata.namespace = Some(namespace.to_owned());
    secret.metadata.labels = Some(BTreeMap::from([
        (label::JOIN_TOKEN.to_owned(), "true".to_owned()),
        (label::JOINING_AGENT.to_owned(), token.agent.to_string()),
    ]));
    let data = [("agent", token.agent.to_string()), ("hash", token.hash()), ("expires", expires.to_string())];
    secret.data = Some(data.map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes()))).into());
    secret
}

/// Reads what is kept of a token.
///
/// # Errors
/// [`Unreadable`] if it is no such Secret.
pub fn read(secret: &Secret) -> Result<Stored, Unreadable> {
    let missing = |part| Unreadable { part };
    let text = |part: &'static str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(part)).ok_or_else(|| missing(part))?;
        String::from_utf8(bytes.0.clone()).map_err(|_| missing(part))
    };
    let labels = secret.metadata.labels.as_ref();
    if labels.and_then(|labels| labels.get(label::JOIN_TOKEN)).is_none_or(|value| value != "true") {
        return Err(missing("label"));
    }
    let id = secret.metadata.name.as_deref().and_then(|name| name.strip_prefix(PREFIX));
    Ok(Stored {
        id: id.ok_or_else(|| missing("name"))?.to_owned(),
        agent: AgentName::new(text("agent")?).map_err(|_| missing("agent"))?,
        hash: text("hash")?,
        expires: text("expires")?.parse().map_err(|_| missing("expires"))?,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::security::join_token;
    use crate::security::pki::Ca;

    #[test]
    fn what_is_stored_can_be_read_and_does_not_hold_the_token() {
        let ca = Ca::generate("ca", Timestamp::UNIX_EPOCH, Duration::from_secs(3600)).unwrap();
        let agent = AgentName::new("edge-1").unwrap();
        let token = JoinToken::generate(agent.clone(), ca.certificate_pem().as_bytes()).unwrap();
        let expires: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let mut secret = to_secret(&token, "argocd", expires);
        let stored = read(&secret).unwrap();
        assert_eq!((stored.agent, stored.expires, &stored.id), (agent, expires, &token.id));
        assert!(join_token::is_same(&stored.hash, &join_token::hash(token.secret.expose())));
        let everything = serde_json::to_string(&secret).unwrap();
        assert!(!everything.contains(token.secret.expose_str().unwrap()));
        secret.data.as_mut().unwrap().remove("expires");
        assert_eq!(read(&secret).unwrap_err().to_string(), "its expires is missing or wrong");
        secret.metadata.labels = None;
        assert_eq!(read(&secret).unwrap_err().part, "label");
    }
}
