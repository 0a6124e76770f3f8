//! A kubeconfig with a context per cluster.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use base64::Engine;
use serde_json::{Value, json};

/// A cluster as kubectl reaches it.
pub(super) struct Entry<'a> {
    /// Name of the context.
    pub(super) name: &'a str,
    /// Where its API server listens.
    pub(super) address: SocketAddr,
    /// The namespace to begin in.
    pub(super) namespace: &'a str,
}

/// Writes the file. JSON is YAML, so kubectl reads it.
pub(super) fn write(path: &Path, ca: &str, token: &str, entries: &[Entry<'_>]) -> io::Result<()> {
    std::fs::write(path, format!("{:#}\n", document(ca, token, entries)))
}

fn document(ca: &str, token: &str, entries: &[Entry<'_>]) -> Value {
    let authority = base64::engine::general_purpose::STANDARD.encode(ca);
    let clusters = entries.iter().map(|entry| {
        let server = format!("https://{}", entry.address);
        json!({ "name": entry.name, "cluster": { "server": server, "certificate-authority-data": authority } })
    });
    let contexts = entries.iter().map(|entry| {
        let context = json!({ "cluster": entry.name, "user": "demo", "namespace": entry.namespace });
        json!({ "name": entry.name, "context": context })
    });
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": entries.first().map_or("", |entry| entry.name),
        "clusters": clusters.collect::<Vec<_>>(),
        "users": [{ "name": "demo", "user": { "token": token } }],
        "contexts": contexts.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cluster_has_a_context_and_the_first_is_the_current_one() {
        let entry = |name| Entry { name, address: ([127, 0, 0, 1], 6443).into(), namespace: "argocd" };
        let document = document("PEM", "secret", &[entry("control-plane"), entry("cluster-1")]);
        let text = document.to_string();
        let read = kube::config::Kubeconfig::from_yaml(&text).unwrap();
        assert_eq!(read.current_context.as_deref(), Some("control-plane"));
        assert_eq!(read.contexts.len(), 2);
        let cluster = read.clusters[1].cluster.as_ref().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://127.0.0.1:6443"));
        assert_eq!(cluster.certificate_authority_data.as_deref(), Some("UEVN"));
    }
}
