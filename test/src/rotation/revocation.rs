//! Certificates are put on the blocklist while users change Applications: when does the stream end, and what becomes of
//! those that are spared?

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde::Serialize;
use serde_json::json;
use tiphys_principal::blocklist::NAME;
use tokio::time::{Instant, timeout};

use super::MOST;
use super::peer::dial;
use crate::chaos::realm::ARGOCD;
use crate::installation::{Edge, Installation, until};
use crate::load::changes::{self, Changes};
use crate::load::latency::{Latencies, Summary, show};

/// How long the end of a stream is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many agents.
    pub agents: usize,
    /// How many of them are revoked, one at a time.
    pub revoked: usize,
    /// Pause between two of them.
    pub pause: Duration,
    /// Changes per second at the control plane, over all agents.
    pub rate: f64,
    /// What the choices of users depend on.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// How many were revoked.
    pub revoked: usize,
    /// From the acknowledged write of the blocklist to the end of the stream as the agent sees it.
    pub cut: Option<Summary>,
    /// Streams that were opened with a revoked certificate.
    pub returned: u64,
    /// Streams of others that ended.
    pub others: u64,
    /// What became of the users' changes, those for revoked agents included once these were let in again.
    pub changes: changes::Report,
}

impl Report {
    /// Whether every stream ended within a second, nobody came back, nobody else was cut off, and no change was lost.
    pub fn all_well(&self) -> bool {
        let in_time = self.cut.as_ref().is_some_and(|cut| cut.max_ms <= 1000.0);
        in_time && self.returned == 0 && self.others == 0 && self.changes.lost.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "from the acknowledged write of the blocklist to the end of the stream:")?;
        writeln!(f, "  {}", show(self.cut.as_ref()))?;
        writeln!(f, "{}", self.changes)?;
        for lost in &self.changes.lost {
            writeln!(f, "  lost: {lost}")?;
        }
        let (p50, max) = self.cut.as_ref().map(|cut| (cut.p50_ms, cut.max_ms)).unwrap_or_default();
        write!(
            f,
            "{} agents revoked, streams ended after {p50:.1} ms (p50), {max:.1} ms at most, {} came back, {} others cut off, \
             {} changes made, {} lost",
            self.revoked,
            self.returned,
            self.others,
            self.changes.made,
            self.changes.lost.len()
        )
    }
}

/// Revokes agents one at a time, sees that they stay away, and lets them in again.
///
/// # Errors
/// What did not go as the book says, apart from what the report counts.
pub async fn revoke(plan: &Plan) -> anyhow::Result<Report> {
    ensure!((1..=MOST).contains(&plan.agents), "between 1 and {MOST} agents");
    ensure!((1..=plan.agents).contains(&plan.revoked), "between 1 and all agents can be revoked");
    let installation = Installation::start(&[]).await?;
    let edges = installation.edges(plan.agents, &[]).await?;
    let maps: Api<ConfigMap> = Api::namespaced(installation.control.client(), ARGOCD);
    let empty = serde_json::from_value(json!({"metadata": {"name": NAME}}))?;
    maps.create(&PostParams::default(), &empty).await?;
    let realms = edges.iter().map(|edge| installation.realm(edge)).collect();
    let changes = Changes::begin(realms, plan.rate, plan.seed)?;

    let (doomed, spared) = edges.split_at(plan.revoked);
    let mut cut = Latencies::new()?;
    for edge in doomed {
        tokio::time::sleep(plan.pause).await;
        cut.record(block(&maps, edge).await.with_context(|| format!("agent {}", edge.name()))?);
    }
    for edge in doomed {
        let refused = dial(installation.address, &edge.material().await?).await;
        let reason = refused.err().map(|error| format!("{error:#}")).unwrap_or_default();
        ensure!(reason.contains("revoked"), "{} is let in, or is not told why not: {reason:?}", edge.name());
    }
    // They have tried themselves, too, in the meantime.
    let last = doomed.last().context("nobody was revoked")?;
    until(&format!("an attempt of {} to come back", last.name()), async || last.witness.look().failed > 0)
        .await?;
    let again = |edges: &[Edge]| edges.iter().map(|edge| edge.witness.look().opened - 1).sum::<u64>();
    let (returned, others) = (again(doomed), again(spared));

    let unblocked = Patch::Merge(json!({"data": null}));
    maps.patch(NAME, &PatchParams::default(), &unblocked).await?;
    for edge in doomed {
        until(&format!("the return of {}", edge.name()), async || edge.witness.is_open()).await?;
    }
    let changes = changes.end().await?;
    installation.until_quiet(&edges).await?;
    installation.end(edges).await?;
    Ok(Report { revoked: plan.revoked, cut: cut.summary(), returned, others, changes })
}

/// Puts an agent's certificate on the blocklist. Returns how long after that its stream ended.
async fn block(maps: &Api<ConfigMap>, edge: &Edge) -> anyhow::Result<Duration> {
    let fingerprint = edge.material().await?.leaf()?.context("there is no certificate")?.fingerprint;
    let mut seen = edge.witness.follow();
    ensure!(edge.witness.is_open(), "it was not connected");
    let patch = Patch::Merge(json!({"data": {fingerprint: "stolen"}}));
    maps.patch(NAME, &PatchParams::default(), &patch).await?;
    let written = Instant::now();
    let ended = timeout(PATIENCE, seen.wait_for(|seen| seen.away.is_some())).await;
    let ended = ended.context("its stream did not end")??.away.context("its stream did not end")?;
    Ok(ended.saturating_duration_since(written))
}
