//! Secrets with certificates and keys, named as sides without further options expect them.

use std::collections::BTreeMap;

use anyhow::Context as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tiphys_shared::security::tls::Material;

use crate::chaos::realm::ARGOCD;

/// The principal's certificate.
pub const PRINCIPAL_TLS: &str = "argocd-agent-principal-tls";
/// The resource proxy's certificate.
pub const PROXY_TLS: &str = "argocd-agent-resource-proxy-tls";
/// The CAs that are believed.
pub const AUTHORITIES: &str = "argocd-agent-ca";
/// The key that signs tokens.
pub const TOKEN_KEY: &str = "argocd-agent-jwt";
/// An agent's certificate.
pub const AGENT_TLS: &str = "argocd-agent-client-tls";

/// Writes these keys of a Secret, and leaves its others as they are.
///
/// # Errors
/// What the API server says.
pub async fn put(client: &Client, name: &str, data: &[(&str, &[u8])]) -> anyhow::Result<()> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), ARGOCD);
    let entries = data.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.to_vec())));
    let entries: BTreeMap<String, ByteString> = entries.collect();
    let patch = Patch::Merge(json!({"data": entries}));
    match secrets.patch(name, &PatchParams::default(), &patch).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let secret = serde_json::from_value(json!({"metadata": {"name": name}, "data": entries}))?;
            secrets.create(&PostParams::default(), &secret).await?;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Writes a certificate with its key.
///
/// # Errors
/// What the API server says.
pub async fn put_pair(client: &Client, name: &str, pair: &Material) -> anyhow::Result<()> {
    put(client, name, &[("tls.crt", &pair.chain), ("tls.key", pair.key.expose())]).await
}

/// What a Secret has under a key.
///
/// # Errors
/// What the API server says, or that it has none.
pub async fn read(client: &Client, name: &str, key: &str) -> anyhow::Result<Vec<u8>> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), ARGOCD);
    let data = secrets.get(name).await?.data.unwrap_or_default();
    Ok(data.get(key).with_context(|| format!("Secret {name} has no {key}"))?.0.clone())
}
