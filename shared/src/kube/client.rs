//! One way to a [`kube::Client`].

mod measured;

use std::path::PathBuf;
use std::time::Duration;

use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Status;
use kube::{Client, Config};

pub use self::measured::RequestMetrics;

/// Where the API server is and who we are to it.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// A kubeconfig file. Without one: `$KUBECONFIG`, `~/.kube/config`, or the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// The context to use instead of the file's current one.
    pub context: Option<String>,
}

/// What the API server says about a request that it refuses, or why there was no answer; for people.
pub fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => answered(status),
        other => other.to_string(),
    }
}

/// What the API server says in an answer, without the form in which it says it.
pub fn answered(status: &Status) -> String {
    let text = [&status.message, &status.reason].into_iter().find(|text| !text.is_empty());
    text.map_or_else(|| format!("the API server answered {}", status.code), Clone::clone)
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig cannot be read, or does not hold the context.
    #[error("cannot use the kubeconfig {path}: {source}")]
    Kubeconfig {
        /// File, or what stands for it.
        path: String,
        /// What is wrong with it.
        source: kube::config::KubeconfigError,
    },
    /// No kubeconfig was named, and there is no default one nor a service account.
    #[error("no kubeconfig and no service account found: {0}")]
    Infer(#[source] kube::config::InferConfigError),
    /// The configuration was read but no client can be made of it.
    #[error("cannot make a Kubernetes client: {0}")]
    Client(#[source] Box<kube::Error>),
}

/// For how long an API server may say nothing while something is expected of it. It gives up a request after 60 s, and each
/// watch ends earlier.
const SILENCE: Duration = Duration::from_secs(65);
/// The same while a person waits.
const SHORT_SILENCE: Duration = Duration::from_secs(30);

/// Makes a client for a person's command.
///
/// # Errors
/// [`Error`] if the configuration cannot be read. The API server itself is not asked yet.
pub async fn connect(access: &Access) -> Result<Client, Error> {
    client(hurried(configuration(access).await?))
}

/// For a person who waits: answers that do not come soon are not waited for.
pub fn hurried(mut config: Config) -> Config {
    config.read_timeout = Some(SHORT_SILENCE);
    config
}

/// Makes a client of what [`configuration`] has read.
///
/// # Errors
/// [`Error::Client`] if that makes no client.
pub fn client(config: Config) -> Result<Client, Error> {
    Client::try_from(config).map_err(|error| Error::Client(Box::new(error)))
}

/// The same with a client whose requests are counted.
///
/// # Errors
/// [`Error::Client`] if that makes no client.
pub fn measured(config: Config, metrics: &RequestMetrics) -> Result<Client, Error> {
    let layer = metrics.layer(&config.cluster_url);
    let builder = ClientBuilder::try_from(config).map_err(|error| Error::Client(Box::new(error)))?;
    Ok(builder.with_layer(&layer).build())
}

/// Reads how to reach the API server, and as whom.
///
/// # Errors
/// [`Error`] if it cannot be read.
pub async fn configuration(access: &Access) -> Result<Config, Error> {
    let options = KubeConfigOptions { context: access.context.clone(), ..Default::default() };
    let mut config = match &access.kubeconfig {
        Some(path) => {
            let wrap = |source| Error::Kubeconfig { path: path.display().to_string(), source };
            let file = Kubeconfig::read_from(path).map_err(wrap)?;
            Config::from_custom_kubeconfig(file, &options).await.map_err(wrap)?
        }
        None if access.context.is_some() => Config::from_kubeconfig(&options)
            .await
            .map_err(|source| Error::Kubeconfig { path: "of the environment".to_owned(), source })?,
        None => Config::infer().await.map_err(Error::Infer)?,
    };
    config.read_timeout = Some(SILENCE);
    // HTTPS_PROXY says how the principal is reached. Of NO_PROXY kube knows nothing here, and a cluster's own API server is near.
    let of_environment = ["HTTPS_PROXY", "https_proxy"].map(|name| std::env::var(name).unwrap_or_default());
    config.proxy_url = config.proxy_url.filter(|proxy| is_of_kubeconfig(proxy, &of_environment));
    Ok(config)
}

/// Whether a proxy is one that the kubeconfig names: kube fills in the environment's where it names none.
fn is_of_kubeconfig(proxy: &http::Uri, of_environment: &[String]) -> bool {
    !of_environment.iter().any(|text| text.parse::<http::Uri>().is_ok_and(|uri| uri == *proxy))
}

/// Whether asking again may help: not where the answer is no.
pub fn may_pass(error: &kube::Error) -> bool {
    !matches!(error, kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_of_the_environment_is_not_the_api_servers() {
        let proxy = "http://ada:sesame@proxy:3128".parse().unwrap();
        assert!(!is_of_kubeconfig(&proxy, &[String::new(), "http://ada:sesame@proxy:3128".to_owned()]));
        assert!(is_of_kubeconfig(&proxy, &["http://other:3128".to_owned(), String::new()]));
        assert!(is_of_kubeconfig(&proxy, &[String::new(), String::new()]));
    }
}
