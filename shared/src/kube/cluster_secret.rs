//! The Secret by which Argo CD knows an agent's cluster and reaches it through the resource proxy, as upstream writes it. Pure.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Map, Value, json};

use crate::model::AgentName;
use crate::model::argocd::{annotation, label};
use crate::security::pki::Certificate;
use crate::security::tls::Material;

/// Who writes such a Secret, in the annotation that says so.
const WRITER: &str = "argocd-agent";
const TOKEN: &str = "bearerToken";

/// The Secret's name.
pub fn name(agent: &AgentName) -> String {
    format!("cluster-{agent}")
}

/// The URL under which Argo CD reaches an agent through the resource proxy at `address`, which is HOST:PORT.
pub fn server(address: &str, agent: &AgentName) -> String {
    format!("https://{address}?agentName={agent}")
}

/// The agent that such a URL names.
pub fn agent_in_url(server: &str) -> Option<&str> {
    let (_, query) = server.split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix("agentName=")).filter(|name| !name.is_empty())
}

/// What Argo CD knows of a cluster.
#[derive(Clone, PartialEq)]
pub struct Cluster {
    /// What people call it.
    pub name: String,
    /// The URL of its API server.
    pub server: String,
    /// Argo CD's `ClusterConfig`. What is not known here stays as it is.
    pub config: Map<String, Value>,
}

impl Cluster {
    /// The cluster of an agent, with what Argo CD presents at `server` and what it checks that one's certificate by.
    pub fn new(agent: &AgentName, server: String, material: &Material) -> Self {
        let mut cluster = Self { name: agent.to_string(), server, config: Map::new() };
        cluster.set_material(material);
        cluster
    }

    /// Reads a Secret.
    ///
    /// # Errors
    /// What is wrong with it, to be put behind its name.
    pub fn read(secret: &Secret) -> Result<Self, String> {
        let text = |key: &str| {
            let bytes = secret.data.as_ref().and_then(|data| data.get(key));
            bytes.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned())
        };
        let config = match text("config") {
            None => return Err("has no config".to_owned()),
            Some(config) => serde_json::from_str(&config)
                .map_err(|error| format!("has a config that is not a JSON object: {error}"))?,
        };
        let server = text("server").filter(|server| !server.is_empty()).ok_or("has no server")?;
        Ok(Self { name: text("name").unwrap_or_default(), server, config })
    }

    /// Sets a field of the config.
    pub fn set(&mut self, field: &str, value: String) {
        self.config.insert(field.to_owned(), Value::String(value));
    }

    /// A token that names the agent where the certificate does not.
    #[must_use]
    pub fn with_token(mut self, token: String) -> Self {
        self.set(TOKEN, token);
        self
    }

    /// The token.
    pub fn token(&self) -> Option<&str> {
        self.config.get(TOKEN)?.as_str()
    }

    /// Sets certificate, key and CA.
    pub fn set_material(&mut self, material: &Material) {
        let tls = self.config.entry("tlsClientConfig").or_insert_with(|| json!({}));
        if !tls.is_object() {
            *tls = json!({});
        }
        tls["insecure"] = json!(false);
        tls["certData"] = json!(STANDARD.encode(&material.chain));
        tls["keyData"] = json!(STANDARD.encode(material.key.expose()));
        tls["caData"] = json!(STANDARD.encode(&material.ca));
    }

    /// PEM text of one of `certData`, `keyData` and `caData`.
    pub fn tls_part(&self, field: &str) -> Option<Vec<u8>> {
        let text = self.config.get("tlsClientConfig")?.get(field)?.as_str()?;
        STANDARD.decode(text).ok().filter(|pem| !pem.is_empty())
    }

    /// The certificate that Argo CD shows.
    pub fn certificate(&self) -> Option<Certificate> {
        Certificate::from_pem(&self.tls_part("certData")?).ok()
    }

    /// The agent that the server's URL names.
    pub fn agent_in_url(&self) -> Option<&str> {
        agent_in_url(&self.server)
    }

    /// Host of the server's URL.
    pub fn host(&self) -> Option<String> {
        let uri: http::Uri = self.server.parse().ok()?;
        uri.host().map(|host| host.trim_matches(['[', ']']).to_owned())
    }

    /// Writes it into a Secret, of which the rest stays.
    pub fn write_to(&self, secret: &mut Secret) {
        let config = Value::Object(self.config.clone()).to_string();
        let entries = [("name", &self.name), ("server", &self.server), ("config", &config)];
        let entries = entries.map(|(key, value)| (key.to_owned(), ByteString(value.clone().into_bytes())));
        secret.data.get_or_insert_default().extend(entries);
    }

    /// A new Secret, with the labels that mark it and those in `labels`.
    pub fn into_secret(self, agent: &AgentName, mut labels: BTreeMap<String, String>) -> Secret {
        let mut made = Secret { type_: Some("Opaque".to_owned()), ..Secret::default() };
        made.metadata.name = Some(name(agent));
        self.write_to(&mut made);
        labels.insert(label::SECRET_TYPE.to_owned(), "cluster".to_owned());
        labels.insert(label::AGENT_NAME.to_owned(), agent.to_string());
        made.metadata.labels = Some(labels);
        // The first keeps Argo CD's own controller away from the cluster.
        let annotations = [(annotation::SKIP_RECONCILE, "true"), (annotation::MANAGED_BY, WRITER)];
        made.metadata.annotations =
            Some(annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        made
    }
}

/// Whether a Secret was made by itself when its agent connected, and may be kept so.
pub fn is_self_registered(secret: &Secret) -> bool {
    let labels = secret.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(label::SELF_REGISTERED)).is_some_and(|value| value == "true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_what_upstream_writes_and_is_read_again() {
        let agent = AgentName::new("edge-1").unwrap();
        let material = Material::new("chain", "key", "ca");
        let cluster = Cluster::new(&agent, server("argocd-agent-resource-proxy:9090", &agent), &material);
        let made = cluster.clone().into_secret(&agent, [("env".to_owned(), "test".to_owned())].into());
        assert_eq!(
            serde_json::to_value(&made).unwrap()["metadata"],
            json!({
                "name": "cluster-edge-1",
                "labels": {
                    "argocd.argoproj.io/secret-type": "cluster",
                    "argocd-agent.argoproj-labs.io/agent-name": "edge-1",
                    "env": "test",
                },
                "annotations": {"argocd.argoproj.io/skip-reconcile": "true", "managed-by": "argocd-agent"},
            })
        );
        let data = made.data.clone().unwrap();
        assert_eq!(data["name"].0, b"edge-1");
        assert_eq!(data["server"].0, b"https://argocd-agent-resource-proxy:9090?agentName=edge-1");
        let config: Value = serde_json::from_slice(&data["config"].0).unwrap();
        assert_eq!(
            config,
            json!({"tlsClientConfig":
                {"insecure": false, "certData": "Y2hhaW4=", "keyData": "a2V5", "caData": "Y2E="}})
        );
        let again = Cluster::read(&made).unwrap();
        assert!(again == cluster);
        assert_eq!(again.agent_in_url(), Some("edge-1"));
        assert_eq!(again.host().as_deref(), Some("argocd-agent-resource-proxy"));
        assert_eq!(again.tls_part("keyData").as_deref(), Some(&b"key"[..]));
        assert_eq!(again.token(), None);
        assert!(!is_self_registered(&made));
    }

    #[test]
    fn a_token_and_a_mark_tell_what_was_made_by_itself() {
        let agent = AgentName::new("edge-1").unwrap();
        let cluster =
            Cluster::new(&agent, server("proxy:9090", &agent), &Material::new("chain", "key", "ca"))
                .with_token("jwt".to_owned());
        let made =
            cluster.into_secret(&agent, [(label::SELF_REGISTERED.to_owned(), "true".to_owned())].into());
        assert!(is_self_registered(&made));
        assert_eq!(Cluster::read(&made).unwrap().token(), Some("jwt"));
    }
}
