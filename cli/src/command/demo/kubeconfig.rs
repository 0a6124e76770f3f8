//! A kubeconfig with a context per cluster, and one per cluster through the principal.

use std::io;
use std::path::Path;

use base64::Engine;
use serde_json::{Value, json};
use tiphys_shared::security::tls::Material;

/// A cluster as kubectl reaches it.
pub(super) struct Entry {
    /// Name of the context.
    pub(super) name: String,
    /// URL of its API server.
    pub(super) server: String,
    /// As whom.
    pub(super) user: User,
}

/// Who talks to a cluster.
#[derive(Clone, Copy)]
pub(super) enum User {
    /// Whoever has the token that API servers take.
    Token,
    /// Whoever has the certificate that the principal takes.
    Certificate,
}

/// What is the same for all entries.
pub(super) struct Access<'a> {
    /// The CA of all servers, in PEM.
    pub(super) ca: &'a str,
    pub(super) token: &'a str,
    /// Certificate and key.
    pub(super) operator: &'a Material,
    /// The namespace to begin in.
    pub(super) namespace: &'a str,
}

impl User {
    fn name(self) -> &'static str {
        match self {
            Self::Token => "demo",
            Self::Certificate => "operator",
        }
    }
}

/// Writes the file. JSON is YAML, so kubectl reads it.
pub(super) fn write(path: &Path, access: &Access<'_>, entries: &[Entry]) -> io::Result<()> {
    std::fs::write(path, format!("{:#}\n", document(access, entries)))
}

fn document(access: &Access<'_>, entries: &[Entry]) -> Value {
    let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let authority = base64(access.ca.as_bytes());
    let clusters = entries.iter().map(|entry| {
        let cluster = json!({ "server": entry.server, "certificate-authority-data": authority });
        json!({ "name": entry.name, "cluster": cluster })
    });
    let contexts = entries.iter().map(|entry| {
        let context = json!({
            "cluster": entry.name, "user": entry.user.name(), "namespace": access.namespace,
        });
        json!({ "name": entry.name, "context": context })
    });
    let certificate = json!({
        "client-certificate-data": base64(&access.operator.chain),
        "client-key-data": base64(access.operator.key.expose()),
    });
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": entries.first().map_or("", |entry| entry.name.as_str()),
        "clusters": clusters.collect::<Vec<_>>(),
        "users": [
            { "name": User::Token.name(), "user": { "token": access.token } },
            { "name": User::Certificate.name(), "user": certificate },
        ],
        "contexts": contexts.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cluster_has_a_context_and_the_first_is_the_current_one() {
        let entry = |name: &str, user| Entry {
            name: name.to_owned(),
            server: "https://127.0.0.1:6443".to_owned(),
            user,
        };
        let entries = [
            entry("control-plane", User::Token),
            entry("cluster-1", User::Token),
            entry("cluster-1-proxied", User::Certificate),
        ];
        let operator = Material::new("CHAIN", "KEY", "");
        let access = Access { ca: "PEM", token: "secret", operator: &operator, namespace: "argocd" };
        let read = kube::config::Kubeconfig::from_yaml(&document(&access, &entries).to_string()).unwrap();
        assert_eq!(read.current_context.as_deref(), Some("control-plane"));
        assert_eq!(read.contexts.len(), 3);
        let cluster = read.clusters[1].cluster.as_ref().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://127.0.0.1:6443"));
        assert_eq!(cluster.certificate_authority_data.as_deref(), Some("UEVN"));
        let context = read.contexts[2].context.as_ref().unwrap();
        assert_eq!(context.user.as_deref(), Some("operator"));
        let user = read.auth_infos[1].auth_info.as_ref().unwrap();
        assert_eq!(user.client_certificate_data.as_deref(), Some("Q0hBSU4="));
    }
}
