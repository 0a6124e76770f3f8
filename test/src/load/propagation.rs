//! How long from a write at one API server until it is seen at another, and how long a plain write takes there.

mod report;
mod seen;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams, PostParams};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

pub use self::report::{Ratios, Report};
use self::seen::Sightings;
use super::application::{Names, RUN_LABEL, api, application};
use super::cluster::Cluster;
use super::latency::Latencies;
use super::pace::{MOST, Pace};

/// What to measure.
#[derive(Clone)]
pub struct Plan {
    /// Where to write.
    pub from: Cluster,
    /// In which namespace there: the agent's name, usually.
    pub from_namespace: String,
    /// Where to look.
    pub to: Cluster,
    /// In which namespace there: the agent's own, usually.
    pub to_namespace: String,
    /// The namespace for plain writes to `to`; one that no agent looks at.
    pub direct_namespace: String,
    /// How many Applications to write.
    pub count: usize,
    /// How fast.
    pub pace: Pace,
    /// How many to write before, unmeasured.
    pub warm_up: usize,
    /// How long to wait for the last one.
    pub patience: Duration,
    /// The name of this run.
    pub run: String,
    /// The project of the Applications.
    pub project: String,
    /// The destination of the Applications.
    pub destination: String,
}

/// One write: when it was sent, and when its answer came.
#[derive(Clone, Copy, Debug)]
struct Write {
    sent: Instant,
    acknowledged: Instant,
}

/// Measures, and takes away what it has written, also when `interrupted` comes first or something fails.
pub async fn run(plan: &Plan, interrupted: impl Future<Output = ()>) -> anyhow::Result<Report> {
    ensure!(
        plan.count > 0 && plan.count + plan.warm_up <= MOST,
        "a run writes between 1 and {MOST} applications"
    );
    check(&plan.from, &plan.from_namespace).await?;
    check(&plan.to, &plan.to_namespace).await?;
    check(&plan.to, &plan.direct_namespace).await?;
    let outcome = tokio::select! {
        outcome = measure(plan) => outcome,
        () = interrupted => Err(anyhow!("interrupted")),
    };
    let cleaned = clean_up(plan).await;
    match (outcome, cleaned) {
        (Ok(mut report), Ok(left)) => {
            report.removed_directly = left;
            Ok(report)
        }
        (Err(error), Ok(_)) => Err(error),
        (Ok(_), Err(error)) => Err(error.context("measured, but could not clean up")),
        (Err(error), Err(cleaning)) => Err(error.context(format!("could not clean up either: {cleaning:#}"))),
    }
}

/// Can Applications be read there?
async fn check(cluster: &Cluster, namespace: &str) -> anyhow::Result<()> {
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(cluster.client.clone());
    match namespaces.get_opt(namespace).await {
        Ok(Some(_)) => {}
        Ok(None) => bail!("{cluster} has no namespace {namespace:?}"),
        Err(error) => return Err(error).with_context(|| format!("cannot ask {cluster}")),
    }
    match api(&cluster.client, namespace).list_metadata(&ListParams::default().limit(1)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            bail!("{cluster} does not know Applications: install Argo CD's custom resource definitions there")
        }
        Err(error) => Err(error).with_context(|| format!("cannot list Applications at {cluster}")),
    }
}

async fn measure(plan: &Plan) -> anyhow::Result<Report> {
    let source = api(&plan.from.client, &plan.from_namespace);
    let goal = api(&plan.to.client, &plan.to_namespace);
    if plan.warm_up > 0 {
        let names = Names::new(&plan.run, "w");
        let seen = Sightings::start(goal.clone(), names.clone(), plan.warm_up).await?;
        write_all(plan, source.clone(), &names, plan.warm_up, Pace::Burst { concurrency: 4 }).await?;
        wait(plan, seen).await.context("while warming up")?;
        let direct = api(&plan.to.client, &plan.direct_namespace);
        write_all(plan, direct, &names, plan.warm_up, Pace::Burst { concurrency: 4 }).await?;
    }

    let names = Names::new(&plan.run, "m");
    let sightings = Sightings::start(goal, names.clone(), plan.count).await?;
    let writes = write_all(plan, source, &names, plan.count, plan.pace).await?;
    let seen = wait(plan, sightings).await?;

    let direct = api(&plan.to.client, &plan.direct_namespace);
    let direct_writes = write_all(plan, direct, &names, plan.count, plan.pace).await?;
    report(plan, &writes, &seen, &direct_writes)
}

async fn wait(plan: &Plan, sightings: Sightings) -> anyhow::Result<Vec<Instant>> {
    let progress = sightings.progress();
    match timeout(plan.patience, sightings.all()).await {
        Ok(seen) => seen,
        Err(_) => {
            let (seen, wanted) = progress.seen();
            bail!(
                "only {seen} of {wanted} applications were seen in namespace {:?} of {} within {:?} of the last write: \
                 is the agent connected, and is {:?} its namespace at the control plane?",
                plan.to_namespace,
                plan.to,
                plan.patience,
                plan.from_namespace
            )
        }
    }
}

/// Writes `count` Applications at their pace. The first one that fails ends it.
async fn write_all(
    plan: &Plan,
    api: Api<DynamicObject>,
    names: &Names,
    count: usize,
    pace: Pace,
) -> anyhow::Result<Vec<Write>> {
    let slots = Arc::new(Semaphore::new(pace.in_flight()));
    let mut under_way = JoinSet::new();
    let mut writes = Vec::with_capacity(count);
    let start = Instant::now();
    for index in 0..count {
        if let Some(due) = pace.due(start, index) {
            sleep_until(due).await;
        }
        let slot = Arc::clone(&slots).acquire_owned().await?;
        let object = application(&names.name(index), &plan.run, &plan.project, &plan.destination);
        let api = api.clone();
        under_way.spawn(async move {
            let sent = Instant::now();
            let written = api.create(&PostParams::default(), &object).await;
            let acknowledged = Instant::now();
            drop(slot);
            written.map(|_| (index, Write { sent, acknowledged }))
        });
        while let Some(done) = under_way.try_join_next() {
            writes.push(done?.context("cannot create an application")?);
        }
    }
    while let Some(done) = under_way.join_next().await {
        writes.push(done?.context("cannot create an application")?);
    }
    writes.sort_unstable_by_key(|(index, _)| *index);
    Ok(writes.into_iter().map(|(_, write)| write).collect())
}

fn report(plan: &Plan, writes: &[Write], seen: &[Instant], direct: &[Write]) -> anyhow::Result<Report> {
    let mut after_ack = Latencies::new()?;
    let mut after_send = Latencies::new()?;
    let mut write = Latencies::new()?;
    let mut plain = Latencies::new()?;
    let mut before_ack = 0;
    for (this, at) in writes.iter().zip(seen) {
        write.record(this.acknowledged - this.sent);
        // What is seen before the writer has its answer has taken no time as far as the writer can tell.
        after_ack.record(at.saturating_duration_since(this.acknowledged));
        after_send.record(at.saturating_duration_since(this.sent));
        before_ack += u64::from(*at < this.acknowledged);
    }
    for this in direct {
        plain.record(this.acknowledged - this.sent);
    }
    let total = |writes: &[Write]| {
        let first = writes.iter().map(|w| w.sent).min();
        let last = writes.iter().map(|w| w.acknowledged).max();
        first.zip(last).map_or(Duration::ZERO, |(first, last)| last - first)
    };
    let first_sent = writes.iter().map(|w| w.sent).min();
    let last_seen = seen.iter().max().copied();
    let until_seen =
        first_sent.zip(last_seen).map_or(Duration::ZERO, |(a, b)| b.saturating_duration_since(a));
    Ok(Report::new(
        plan,
        [after_ack.summary(), after_send.summary(), write.summary(), plain.summary()],
        [until_seen, total(writes), total(direct)],
        before_ack,
    ))
}

/// Deletes what this run has written, waits until the deletion has arrived too, and deletes what is left there.
/// Returns how many those were.
async fn clean_up(plan: &Plan) -> anyhow::Result<usize> {
    let selector = format!("{RUN_LABEL}={}", plan.run);
    delete(&plan.from, &plan.from_namespace, &selector).await?;
    delete(&plan.to, &plan.direct_namespace, &selector).await?;
    let goal = api(&plan.to.client, &plan.to_namespace);
    let prefix = format!("load-{}-", plan.run);
    let end = Instant::now() + plan.patience;
    loop {
        let left = names(&goal, &ListParams::default()).await?;
        let left: Vec<String> = left.into_iter().filter(|name| name.starts_with(&prefix)).collect();
        if left.is_empty() {
            return Ok(0);
        }
        if Instant::now() >= end {
            let count = left.len();
            delete_names(&goal, left).await?;
            return Ok(count);
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// Deletes what any run has left behind, in the three namespaces of the plan. Returns how many that were.
pub async fn sweep(plan: &Plan) -> anyhow::Result<usize> {
    let mut count = delete(&plan.from, &plan.from_namespace, RUN_LABEL).await?;
    count += delete(&plan.to, &plan.direct_namespace, RUN_LABEL).await?;
    count += delete(&plan.to, &plan.to_namespace, RUN_LABEL).await?;
    Ok(count)
}

async fn delete(cluster: &Cluster, namespace: &str, selector: &str) -> anyhow::Result<usize> {
    let api = api(&cluster.client, namespace);
    let names = names(&api, &ListParams::default().labels(selector)).await?;
    let count = names.len();
    delete_names(&api, names).await.with_context(|| format!("cannot delete at {cluster}"))?;
    Ok(count)
}

async fn names(api: &Api<DynamicObject>, params: &ListParams) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    let mut params = params.clone().limit(500);
    loop {
        let page = api.list_metadata(&params).await.context("cannot list applications")?;
        names.extend(page.items.into_iter().filter_map(|item| item.metadata.name));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(names),
        }
    }
}

async fn delete_names(api: &Api<DynamicObject>, names: Vec<String>) -> anyhow::Result<()> {
    use futures::{StreamExt as _, TryStreamExt as _};
    futures::stream::iter(names)
        .map(Ok)
        .try_for_each_concurrent(16, |name| async move {
            match api.delete(&name, &DeleteParams::default()).await {
                Ok(_) => Ok(()),
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                Err(error) => Err(error).with_context(|| format!("cannot delete application {name}")),
            }
        })
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests;
