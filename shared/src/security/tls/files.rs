//! Certificates kept in files, re-read while the process runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::super::secret::Secret;
use super::{Error, Material};

/// Where the parts of a [`Material`] are kept. A part without a path is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// The own certificate and its intermediates.
    pub chain: Option<PathBuf>,
    /// The own private key.
    pub key: Option<PathBuf>,
    /// The CA bundle.
    pub ca: Option<PathBuf>,
}

impl Files {
    /// Reads all parts.
    pub async fn read(&self) -> Result<Material, Error> {
        Ok(Material {
            chain: read(self.chain.as_deref()).await?,
            key: Secret::new(read(self.key.as_deref()).await?),
            ca: read(self.ca.as_deref()).await?,
        })
    }
}

async fn read(path: Option<&Path>) -> Result<Vec<u8>, Error> {
    match path {
        None => Ok(Vec::new()),
        Some(path) => tokio::fs::read(path)
            .await
            .map_err(|source| Error::Read { path: path.display().to_string(), source }),
    }
}

/// Re-reads `files` every `interval` and hands what changed to `replace`, until `stop`.
///
/// Content is compared, not file times: Kubernetes swaps a link above the files, which file watchers miss.
/// Whatever cannot be read or used leaves the old material in place and is logged once per change; a pair
/// that was caught half written is complete at the next look.
pub async fn watch_files(
    files: Files,
    mut known: Material,
    interval: Duration,
    stop: CancellationToken,
    replace: impl Fn(&Material) -> Result<(), Error>,
) {
    let mut last_failure: Option<String> = None;
    let mut report = |failure: Option<String>| {
        if failure.is_some() && failure != last_failure {
            tracing::warn!(
                error = failure.as_deref().unwrap_or_default(),
                "tls files changed but cannot be used; the certificates loaded before stay in use"
            );
        }
        last_failure = failure;
    };
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
        match files.read().await {
            Err(error) => report(Some(error.to_string())),
            Ok(material) if material == known => report(None),
            Ok(material) => match replace(&material) {
                Ok(()) => {
                    tracing::info!("tls files changed; new connections use the new certificates");
                    known = material;
                    report(None);
                }
                Err(error) => report(Some(error.to_string())),
            },
        }
    }
}
