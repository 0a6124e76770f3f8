//! The Secret by which Argo CD knows an agent's cluster and reaches it through the resource proxy.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use crate::model::AgentName;
use crate::model::argocd::{annotation, label};
use crate::security::tls::Material;

/// Its name, as the Go project has it.
pub fn name(agent: &AgentName) -> String {
    format!("cluster-{agent}")
}

/// What Argo CD is to know of an agent's cluster.
#[derive(Clone, Debug)]
pub struct ClusterSecret<'a> {
    /// The agent.
    pub agent: &'a AgentName,
    /// Host and port of the resource proxy, as Argo CD reaches it.
    pub proxy: &'a str,
    /// What Argo CD presents there, and what it checks the proxy's certificate by.
    pub material: &'a Material,
    /// Names the agent where the certificate does not. Such a Secret is marked as made by itself.
    pub token: Option<&'a str>,
}

impl ClusterSecret<'_> {
    /// The Secret.
    pub fn to_secret(&self, namespace: &str) -> Secret {
        let Self { agent, proxy, material, token } = self;
        let mut config = json!({"tlsClientConfig": {
            "insecure": false,
            "certData": BASE64.encode(&material.chain),
            "keyData": BASE64.encode(material.key.expose()),
            "caData": BASE64.encode(&material.ca),
        }});
        if let Some(token) = token {
            config["bearerToken"] = json!(token);
        }
        let data = [
            ("name", agent.to_string()),
            ("server", format!("https://{proxy}?agentName={agent}")),
            ("config", config.to_string()),
        ];
        let mut labels = BTreeMap::from([
            (label::SECRET_TYPE.to_owned(), "cluster".to_owned()),
            (label::AGENT_NAME.to_owned(), agent.to_string()),
        ]);
        if token.is_some() {
            labels.insert(label::SELF_REGISTERED.to_owned(), "true".to_owned());
        }
        let mut secret = Secret::default();
        secret.metadata.name = Some(name(agent));
        secret.metadata.namespace = Some(namespace.to_owned());
        secret.metadata.labels = Some(labels);
        secret.metadata.annotations = Some(BTreeMap::from([
            (annotation::SKIP_RECONCILE.to_owned(), "true".to_owned()),
            (annotation::MANAGED_BY.to_owned(), "argocd-agent".to_owned()),
        ]));
        secret.data = Some(data.map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes()))).into());
        secret
    }
}

/// Whether a Secret was made by itself, and may be kept so.
pub fn is_self_registered(secret: &Secret) -> bool {
    let labels = secret.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(label::SELF_REGISTERED)).is_some_and(|value| value == "true")
}

/// The token in a Secret.
pub fn token(secret: &Secret) -> Option<String> {
    let config = secret.data.as_ref()?.get("config")?;
    let config: Value = serde_json::from_slice(&config.0).ok()?;
    config.get("bearerToken")?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_is_what_argo_cd_reads() {
        let agent = AgentName::new("edge-1").unwrap();
        let material = Material::new("chain", "key", "ca");
        let made =
            ClusterSecret { agent: &agent, proxy: "proxy:9090", material: &material, token: Some("jwt") };
        let secret = made.to_secret("argocd");
        let text = |key: &str| String::from_utf8(secret.data.as_ref().unwrap()[key].0.clone()).unwrap();
        assert_eq!(text("server"), "https://proxy:9090?agentName=edge-1");
        assert_eq!(text("name"), "edge-1");
        let config: Value = serde_json::from_str(&text("config")).unwrap();
        assert_eq!(config["tlsClientConfig"]["certData"], "Y2hhaW4=");
        assert_eq!(config["bearerToken"], "jwt");
        assert_eq!(secret.metadata.name.as_deref(), Some("cluster-edge-1"));
        assert!(is_self_registered(&secret));
        assert_eq!(token(&secret).as_deref(), Some("jwt"));
        let by_hand = ClusterSecret { token: None, ..made }.to_secret("argocd");
        assert!(!is_self_registered(&by_hand));
        assert_eq!(token(&by_hand), None);
    }
}
