//! The resource proxy against the API server itself: the same requests by the same client, both ways in turns.

mod idle;
mod measure;
mod report;
mod sides;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use kube::config::{KubeConfigOptions, Kubeconfig};

use self::measure::{Site, latency, list, throughput, watches};
pub use self::report::Report;
use self::sides::Sides;
pub use self::sides::{Role, side};

/// What is measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Has both contexts.
    pub kubeconfig: PathBuf,
    /// Context of the control plane.
    pub control: String,
    /// Context of the cluster behind the agent.
    pub cluster: String,
    /// Small GETs one after the other, each way.
    pub gets: usize,
    /// Clients of the throughput.
    pub clients: usize,
    /// Of one measurement of the throughput.
    pub duration: Duration,
    /// Size of the large list, in megabytes.
    pub list_mb: usize,
    /// Size of an object in it, in bytes.
    pub object: usize,
    /// Watches at once.
    pub watches: usize,
}

/// The configuration of a context.
async fn configuration(kubeconfig: &Path, context: &str) -> anyhow::Result<kube::Config> {
    let file = Kubeconfig::read_from(kubeconfig)
        .with_context(|| format!("cannot read the kubeconfig {}", kubeconfig.display()))?;
    let options = KubeConfigOptions { context: Some(context.to_owned()), ..KubeConfigOptions::default() };
    let mut config = kube::Config::from_custom_kubeconfig(file, &options)
        .await
        .with_context(|| format!("cannot use the context {context:?}"))?;
    config.read_timeout = None;
    Ok(config)
}

/// Measures.
///
/// # Errors
/// What kept it from being measured. What was written is deleted as far as that works.
pub async fn run(plan: &Plan) -> anyhow::Result<Report> {
    let sides = Sides::start(plan).await?;
    let site = Site::new(plan, &sides).await?;
    site.set_up(plan.list_mb, plan.object).await?;
    let report = measured(plan, &site, &sides).await;
    site.tear_down().await?;
    report
}

/// Leaves connections idle for so long and uses them again, through the proxy. The cluster needs pods.
///
/// # Errors
/// What became of one that did not last. What was written is deleted as far as that works.
pub async fn idle(plan: &Plan, length: Duration) -> anyhow::Result<()> {
    let sides = Sides::start(plan).await?;
    let site = Site::new(plan, &sides).await?;
    let outcome = idle::idle(&site, length).await;
    site.delete_namespace(&site.namespace).await?;
    outcome
}

async fn measured(plan: &Plan, site: &Site, sides: &Sides) -> anyhow::Result<Report> {
    Ok(Report {
        latency: latency(site, plan.gets).await?,
        throughput: throughput(site, plan.clients, plan.duration).await?,
        list: list(site, sides).await?,
        watches: watches(site, sides, plan.watches).await?,
    })
}
