//! An API server, by its context in a kubeconfig.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// An API server.
#[derive(Clone)]
pub struct Cluster {
    /// The context's name.
    pub context: String,
    /// Where it is.
    pub server: String,
    /// For talking to it.
    pub client: Client,
}

impl Cluster {
    /// The API server of `context`; only one on this machine, unless `remote` is set: load belongs into a lab.
    pub async fn connect(
        kubeconfig: Option<&Path>,
        context: Option<&str>,
        remote: bool,
    ) -> anyhow::Result<Self> {
        let file = match kubeconfig {
            Some(path) => Kubeconfig::read_from(path)
                .with_context(|| format!("cannot read the kubeconfig {}", path.display()))?,
            None => Kubeconfig::read().context(
                "cannot read a kubeconfig: give one with --kubeconfig or in the environment as KUBECONFIG",
            )?,
        };
        let known: Vec<String> = file.contexts.iter().map(|c| c.name.clone()).collect();
        let name = context.map(str::to_owned).or_else(|| file.current_context.clone()).unwrap_or_default();
        if !known.contains(&name) {
            bail!("the kubeconfig has no context {name:?}, only {}", known.join(", "));
        }
        let options = KubeConfigOptions { context: Some(name.clone()), ..KubeConfigOptions::default() };
        let mut config = Config::from_custom_kubeconfig(file, &options)
            .await
            .with_context(|| format!("cannot use the context {name:?}"))?;
        let host = config.cluster_url.host().unwrap_or_default().to_owned();
        if !remote && !is_loopback(&host) {
            bail!(
                "context {name:?} points to {host}, which is not this machine: load tools fill the API server that \
                 they are pointed at; give --allow-remote if that is what you want"
            );
        }
        // A watch is silent while nothing changes.
        config.read_timeout = None;
        let server = config.cluster_url.to_string();
        let client = Client::try_from(config).with_context(|| format!("cannot use the context {name:?}"))?;
        Ok(Self { context: name, server, client })
    }
}

impl std::fmt::Display for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "context {} ({})", self.context, self.server)
    }
}

/// Whether `host` is this machine for certain.
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for host in ["localhost", "127.0.0.1", "127.8.9.1", "::1", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["10.0.0.1", "localhost.example", "127.0.0.1.example", "0.0.0.0", "", "[::2]"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[tokio::test]
    async fn remote_servers_and_unknown_contexts_are_refused_with_the_reason() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "apiVersion: v1\nkind: Config\ncurrent-context: far\nclusters: [{name: far, cluster: {server: 'https://10.1.2.3:6443'}}]\n\
                    contexts: [{name: far, context: {cluster: far, user: u}}]\nusers: [{name: u, user: {token: t}}]\n";
        std::fs::write(file.path(), text).unwrap();
        let refused = async |context, remote| match Cluster::connect(Some(file.path()), context, remote).await
        {
            Ok(cluster) => cluster.to_string(),
            Err(error) => format!("{error:#}"),
        };
        assert!(refused(None, false).await.contains("--allow-remote"));
        assert!(refused(Some("near"), false).await.contains("no context \"near\", only far"));
        assert_eq!(refused(Some("far"), true).await, "context far (https://10.1.2.3:6443/)");
    }
}
