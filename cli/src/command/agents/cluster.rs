//! Argo CD's Secret for the cluster of an agent, as upstream writes it. Pure.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use serde_json::{Map, Value, json};
use tiphys_shared::model::AgentName;
use tiphys_shared::model::argocd::label;
use tiphys_shared::process::options::HostPort;
use tiphys_shared::security::pki::Certificate;
use tiphys_shared::security::secret::Secret;

use crate::failure::Failure;
use crate::operator::write::{OPAQUE, secret};

/// Keeps Argo CD's own controller away from the cluster.
pub(crate) const SKIP_RECONCILE: &str = "argocd.argoproj.io/skip-reconcile";
/// Who wrote the Secret.
const MANAGED_BY: (&str, &str) = ("managed-by", "argocd-agent");

/// With what Argo CD reaches the resource proxy; certificates and key in PEM.
pub(super) struct Credentials {
    pub(super) chain: Vec<u8>,
    pub(super) key: Secret,
    pub(super) ca: Vec<u8>,
}

/// What Argo CD knows of a cluster.
#[derive(Clone, PartialEq)]
pub(crate) struct Cluster {
    pub(crate) name: String,
    pub(crate) server: String,
    /// Argo CD's `ClusterConfig`.
    pub(crate) config: Map<String, Value>,
}

/// Name of the Secret for an agent.
pub(super) fn secret_name(agent: &AgentName) -> String {
    format!("cluster-{agent}")
}

impl Cluster {
    pub(super) fn new(agent: &AgentName, server: String, credentials: &Credentials) -> Self {
        let mut cluster = Self { name: agent.to_string(), server, config: Map::new() };
        cluster.set_credentials(credentials);
        cluster
    }

    /// Reads a Secret.
    ///
    /// # Errors
    /// What is wrong with it, to be put behind its name.
    pub(crate) fn read(secret: &KubeSecret) -> Result<Self, String> {
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

    pub(super) fn set(&mut self, field: &str, value: String) {
        self.config.insert(field.to_owned(), Value::String(value));
    }

    pub(super) fn set_credentials(&mut self, credentials: &Credentials) {
        let tls = self.config.entry("tlsClientConfig").or_insert_with(|| json!({}));
        if !tls.is_object() {
            *tls = json!({});
        }
        tls["insecure"] = json!(false);
        tls["certData"] = json!(STANDARD.encode(&credentials.chain));
        tls["keyData"] = json!(STANDARD.encode(credentials.key.expose()));
        tls["caData"] = json!(STANDARD.encode(&credentials.ca));
    }

    /// PEM text of one of `certData`, `keyData` and `caData`.
    pub(crate) fn tls_part(&self, field: &str) -> Option<Vec<u8>> {
        let text = self.config.get("tlsClientConfig")?.get(field)?.as_str()?;
        STANDARD.decode(text).ok().filter(|pem| !pem.is_empty())
    }

    /// The certificate that Argo CD shows.
    pub(crate) fn certificate(&self) -> Option<Certificate> {
        Certificate::from_pem(&self.tls_part("certData")?).ok()
    }

    /// The agent that the server's URL names.
    pub(crate) fn agent_in_url(&self) -> Option<&str> {
        let (_, query) = self.server.split_once('?')?;
        query.split('&').find_map(|pair| pair.strip_prefix("agentName=")).filter(|name| !name.is_empty())
    }

    /// Host of the server's URL.
    pub(crate) fn host(&self) -> Option<String> {
        let uri: http::Uri = self.server.parse().ok()?;
        uri.host().map(|host| host.trim_matches(['[', ']']).to_owned())
    }

    /// Writes it into a Secret, of which the rest stays.
    pub(super) fn write_to(&self, secret: &mut KubeSecret) {
        let config = Value::Object(self.config.clone()).to_string();
        let entries = [("name", &self.name), ("server", &self.server), ("config", &config)];
        let entries = entries.map(|(key, value)| (key.to_owned(), ByteString(value.clone().into_bytes())));
        secret.data.get_or_insert_default().extend(entries);
    }

    /// A new Secret.
    pub(super) fn into_secret(self, agent: &AgentName, mut labels: BTreeMap<String, String>) -> KubeSecret {
        let mut made = secret(&secret_name(agent), OPAQUE, []);
        self.write_to(&mut made);
        labels.insert(label::SECRET_TYPE.to_owned(), "cluster".to_owned());
        labels.insert(label::AGENT_NAME.to_owned(), agent.to_string());
        made.metadata.labels = Some(labels);
        let annotations = [(SKIP_RECONCILE, "true"), MANAGED_BY];
        made.metadata.annotations =
            Some(annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        made
    }
}

/// The URL under which Argo CD reaches an agent: `address` is HOST:PORT, or the URL itself.
pub(super) fn server_url(address: &str, agent: &AgentName) -> Result<String, Failure> {
    let wrong = |what: String| {
        Failure::usage(format!("--resource-proxy-server {address:?} {what}"))
            .remedy("write HOST:PORT, as argocd-agent-resource-proxy:9090 or [2001:db8::1]:9090")
    };
    if let Some(rest) = address.strip_prefix("https://") {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        host_port(authority).map_err(wrong)?;
        let cluster = Cluster { name: String::new(), server: address.to_owned(), config: Map::new() };
        return match cluster.agent_in_url() {
            Some(name) if name == agent.as_str() => Ok(address.to_owned()),
            Some(other) => Err(wrong(format!("names another agent, {other}"))),
            None => Err(wrong(format!("does not say agentName={agent}"))),
        };
    }
    host_port(address).map_err(wrong)?;
    Ok(format!("https://{address}?agentName={agent}"))
}

fn host_port(text: &str) -> Result<HostPort, String> {
    let (host, port) = text.rsplit_once(':').ok_or("has no port")?;
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return Err("has an IPv6 address without brackets".to_owned());
    }
    let port = port.parse().map_err(|_| "has no port from 1 to 65535")?;
    HostPort::new(host, port).map_err(|error| error.what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent() -> AgentName {
        AgentName::new("edge-1").unwrap()
    }

    #[test]
    fn a_secret_is_what_upstream_writes_and_is_read_again() {
        let credentials =
            Credentials { chain: b"chain".to_vec(), key: Secret::from("key"), ca: b"ca".to_vec() };
        let server = server_url("argocd-agent-resource-proxy:9090", &agent()).unwrap();
        let cluster = Cluster::new(&agent(), server, &credentials);
        let made = cluster.clone().into_secret(&agent(), [("env".to_owned(), "test".to_owned())].into());
        let json = serde_json::to_value(&made).unwrap();
        assert_eq!(
            json["metadata"],
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
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let url = |text: &str| server_url(text, &agent());
        assert_eq!(url("[2001:db8::1]:9090").unwrap(), "https://[2001:db8::1]:9090?agentName=edge-1");
        assert!(url("https://proxy:9090?agentName=edge-1").is_ok());
        for wrong in [
            "",
            "proxy",
            "proxy:",
            "proxy:0",
            "proxy:70000",
            "2001:db8::1:9090",
            "a b:1",
            "proxy:1/../x:2",
            "https://proxy:9090",
            "https://proxy:9090?agentName=edge-2",
            "https://?agentName=edge-1",
            "http://proxy:80",
        ] {
            assert!(url(wrong).is_err(), "{wrong:?}");
        }
    }
}
