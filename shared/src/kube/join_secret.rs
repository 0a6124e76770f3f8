//! The Secrets with the join tokens of a control plane: of each a hash, never the token.
//!
//! There is a fixed number of them, so that the principal, which takes out what is used, needs to be allowed to change these
//! and no others: a role can name objects, but not "those that begin with". And there is more than one, so that they stay
//! small, and clusters that join at the same time change different ones.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::model::AgentName;
use crate::model::argocd::label;
use crate::security::join_token::JoinToken;

/// What their names begin with.
const PREFIX: &str = "argocd-agent-join-tokens-";
/// How often a change is tried again because somebody else made one at the same moment.
const ATTEMPTS: usize = 20;

/// How many there are.
pub const COUNT: usize = 16;

/// Which of them is for the token `id`, counted from zero: by the first of its hexadecimal digits.
pub fn number(id: &str) -> usize {
    id.chars().next().and_then(|digit| digit.to_digit(16)).unwrap_or_default() as usize
}

/// The name of the one for the token `id`.
pub fn name(id: &str) -> String {
    format!("{PREFIX}{:x}", number(id))
}

/// The label selector of all of them.
pub fn selector() -> String {
    format!("{}=true", label::JOIN_TOKENS)
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

/// The same under the token's name in the Secret, as JSON.
#[derive(Serialize, Deserialize)]
struct Entry {
    agent: String,
    expires: String,
    hash: String,
}

/// Why an entry does not stand for a token.
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

/// What is kept of a token that is new, under its id.
pub fn entry(token: &JoinToken, expires: Timestamp) -> ByteString {
    let entry = Entry { agent: token.agent.to_string(), expires: expires.to_string(), hash: token.hash() };
    ByteString(json!(entry).to_string().into_bytes())
}

/// The Secret of this name with nothing but these entries, for where there is none yet.
pub fn to_secret(name: String, entries: impl IntoIterator<Item = (String, ByteString)>) -> Secret {
    let mut secret = Secret::default();
    secret.metadata.name = Some(name);
    secret.metadata.labels = Some(BTreeMap::from([(label::JOIN_TOKENS.to_owned(), "true".to_owned())]));
    secret.data = Some(entries.into_iter().collect());
    secret
}

/// The change that puts an entry in, and takes out those with the ids of `gone`.
pub fn with(id: &str, entry: &ByteString, gone: &[String]) -> Patch<Value> {
    let mut data: BTreeMap<&str, Option<&ByteString>> = gone.iter().map(|id| (id.as_str(), None)).collect();
    data.insert(id, Some(entry));
    Patch::Merge(json!({ "data": data }))
}

/// Takes an entry out. False if it is not there: of several who try, one succeeds, whatever else happens to the Secret.
///
/// # Errors
/// What the API server says; a conflict (409) if others write all the time.
pub async fn take_out(secrets: &Api<Secret>, id: &str, entry: &ByteString) -> Result<bool, kube::Error> {
    let (name, mut attempts) = (name(id), 0);
    loop {
        let Some(found) = secrets.get_opt(&name).await? else { return Ok(false) };
        if found.data.as_ref().and_then(|data| data.get(id)) != Some(entry) {
            return Ok(false);
        }
        // Only from this state on.
        let version = found.metadata.resource_version;
        let change = json!({"metadata": {"resourceVersion": version}, "data": {id: null}});
        attempts += 1;
        match secrets.patch(&name, &PatchParams::default(), &Patch::Merge(change)).await {
            Ok(_) => return Ok(true),
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(false),
            Err(kube::Error::Api(status)) if status.code == 409 && attempts < ATTEMPTS => {}
            Err(error) => return Err(error),
        }
    }
}

/// Reads an entry.
///
/// # Errors
/// [`Unreadable`] if it does not stand for a token.
pub fn read(id: &str, entry: &ByteString) -> Result<Stored, Unreadable> {
    let wrong = |part| Unreadable { part };
    let Entry { agent, expires, hash } = serde_json::from_slice(&entry.0).map_err(|_| wrong("JSON"))?;
    Ok(Stored {
        id: id.to_owned(),
        agent: AgentName::new(agent).map_err(|_| wrong("agent"))?,
        hash,
        expires: expires.parse().map_err(|_| wrong("expires"))?,
    })
}

/// Reads all that can be read.
pub fn all(secret: &Secret) -> Vec<Stored> {
    let entries = secret.data.iter().flatten();
    entries.filter_map(|(id, entry)| read(id, entry).ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::security::join_token;
    use crate::security::pki::Ca;

    fn token() -> JoinToken {
        let ca = Ca::generate("ca", Timestamp::UNIX_EPOCH, Duration::from_secs(3600)).unwrap();
        JoinToken::generate(AgentName::new("edge-1").unwrap(), ca.certificate_pem().as_bytes()).unwrap()
    }

    fn expires() -> Timestamp {
        "2026-11-21T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn what_is_stored_can_be_read_and_does_not_hold_the_token() {
        let token = token();
        let entry = entry(&token, expires());
        let stored = read(&token.id, &entry).unwrap();
        assert_eq!((&stored.agent, stored.expires, &stored.id), (&token.agent, expires(), &token.id));
        assert!(join_token::is_same(&stored.hash, &join_token::hash(token.secret.expose())));
        let text = String::from_utf8(entry.0.clone()).unwrap();
        assert!(!text.contains(token.secret.expose_str().unwrap()), "{text}");

        let wrong = |text: &str| read("0123456789", &ByteString(text.into())).unwrap_err().part;
        assert_eq!(wrong("edge-1"), "JSON");
        assert_eq!(wrong(r#"{"agent": "edge-1", "hash": ""}"#), "JSON");
        assert_eq!(wrong(r#"{"agent": "A b", "hash": "", "expires": ""}"#), "agent");
        assert_eq!(wrong(r#"{"agent": "edge-1", "hash": "", "expires": "soon"}"#), "expires");
        let entries = [(stored.id.clone(), entry), ("other".to_owned(), ByteString(b"?".into()))];
        let secret = to_secret(name(&token.id), entries);
        assert_eq!(all(&secret), [stored]);
        assert_eq!(name("f00ba4f00b"), "argocd-agent-join-tokens-f");
    }

    #[test]
    fn a_new_token_takes_the_place_of_what_has_expired() {
        let Patch::Merge(change) = with("new", &ByteString(b"new".into()), &["old".to_owned()]) else {
            panic!("a merge leaves others as they are")
        };
        assert_eq!(change, json!({"data": {"new": "bmV3", "old": null}}));
    }
}
