//! The measurements. Both ways take turns, so that what else the machine does falls on both.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use futures::StreamExt as _;
use http::Request;
use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::json;
use tiphys_shared::kube::api_server::ApiServer;
use tiphys_shared::proxy::body::{self, Body};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::report::{Latency, List, Throughput, Watches};
use super::sides::Sides;
use super::{Plan, configuration};
use crate::load::latency::Latencies;
use crate::load::procfs;

/// How often throughput and list are measured each way. The best of each counts, as the least disturbed.
const ROUNDS: usize = 3;
/// How many requests before it counts.
const WARM_UP: usize = 50;
const SMALL: &str = "small";

/// Where it is measured.
pub(super) struct Site {
    pub(super) client: kube::Client,
    pub(super) direct: ApiServer,
    pub(super) through: ApiServer,
    pub(super) namespace: String,
}

impl Site {
    pub(super) async fn new(plan: &Plan, sides: &Sides) -> anyhow::Result<Self> {
        let config = configuration(&plan.kubeconfig, &plan.cluster).await?;
        Ok(Self {
            client: kube::Client::try_from(config.clone())?,
            direct: ApiServer::connect(&config)?,
            through: sides.api_server().await?,
            namespace: format!("proxy-{}", std::process::id()),
        })
    }

    /// Makes a namespace with a small object, and another with objects of `object` bytes that make up a list of so many
    /// megabytes.
    pub(super) async fn set_up(&self, list_mb: usize, object: usize) -> anyhow::Result<()> {
        for name in [&self.namespace, &self.large()] {
            self.make_namespace(name).await?;
        }
        self.create(&self.namespace, SMALL, "small".to_owned()).await?;
        let large = self.large();
        let objects = (list_mb * 1_000_000).div_ceil(object);
        let made = futures::stream::iter(0..objects)
            .map(|number| {
                let large = &large;
                async move { self.create(large, &format!("large-{number}"), "x".repeat(object)).await }
            })
            .buffer_unordered(16);
        made.collect::<Vec<_>>().await.into_iter().collect()
    }

    pub(super) async fn tear_down(&self) -> anyhow::Result<()> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.large());
        maps.delete_collection(&DeleteParams::default(), &Default::default()).await?;
        for name in [&self.namespace, &self.large()] {
            self.delete_namespace(name).await?;
        }
        Ok(())
    }

    pub(super) async fn make_namespace(&self, name: &str) -> anyhow::Result<()> {
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}}))?;
        Api::all(self.client.clone()).create(&PostParams::default(), &namespace).await?;
        Ok(())
    }

    pub(super) async fn delete_namespace(&self, name: &str) -> anyhow::Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces.delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    pub(super) async fn create(&self, namespace: &str, name: &str, text: String) -> anyhow::Result<()> {
        let map = serde_json::from_value(json!({"metadata": {"name": name}, "data": {"text": text}}))?;
        Api::<ConfigMap>::namespaced(self.client.clone(), namespace)
            .create(&PostParams::default(), &map)
            .await?;
        Ok(())
    }

    fn large(&self) -> String {
        format!("{}-large", self.namespace)
    }

    fn small_path(&self) -> String {
        format!("/api/v1/namespaces/{}/configmaps/{SMALL}", self.namespace)
    }
}

pub(super) async fn begin(server: &ApiServer, path: &str) -> anyhow::Result<Body> {
    let answer =
        server.send(Request::get(path).body(body::empty())?).await.map_err(|error| anyhow!(error))?;
    if answer.status() != 200 {
        bail!("{path} was answered with {}", answer.status());
    }
    Ok(answer.into_body())
}

/// Gets something and tells its size.
async fn get(server: &ApiServer, path: &str) -> anyhow::Result<u64> {
    let (mut body, mut length) = (begin(server, path).await?, 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| anyhow!(error))?;
        length += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(length)
}

pub(super) async fn latency(site: &Site, gets: usize) -> anyhow::Result<Latency> {
    let path = site.small_path();
    let (mut direct, mut through) = (Latencies::new()?, Latencies::new()?);
    for number in 0..WARM_UP + gets {
        for (server, latencies) in [(&site.direct, &mut direct), (&site.through, &mut through)] {
            let began = Instant::now();
            get(server, &path).await?;
            if number >= WARM_UP {
                latencies.record(began.elapsed());
            }
        }
    }
    let summary = |latencies: &Latencies| latencies.summary().context("nothing was measured");
    Ok(Latency { direct: summary(&direct)?, through: summary(&through)? })
}

pub(super) async fn throughput(
    site: &Site,
    clients: usize,
    duration: Duration,
) -> anyhow::Result<Throughput> {
    let (mut direct, mut through) = (0.0_f64, 0.0_f64);
    for _ in 0..ROUNDS {
        direct = direct.max(rate(&site.direct, &site.small_path(), clients, duration).await?);
        through = through.max(rate(&site.through, &site.small_path(), clients, duration).await?);
    }
    Ok(Throughput { clients, direct_per_s: direct, through_per_s: through })
}

/// Requests per second of so many clients that each ask one after the other.
async fn rate(server: &ApiServer, path: &str, clients: usize, duration: Duration) -> anyhow::Result<f64> {
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let (server, path) = (server.clone(), path.to_owned());
        tasks.spawn(async move {
            let mut count = 0_u64;
            while began.elapsed() < duration {
                get(&server, &path).await?;
                count += 1;
            }
            anyhow::Ok(count)
        });
    }
    let mut total = 0;
    while let Some(count) = tasks.join_next().await {
        total += count??;
    }
    Ok(total as f64 / began.elapsed().as_secs_f64())
}

pub(super) async fn list(site: &Site, sides: &Sides) -> anyhow::Result<List> {
    // Not from the API server's cache of the same answer: it has none of lists.
    let path = format!("/api/v1/namespaces/{}/configmaps", site.large());
    let (mut direct, mut through, mut bytes) = (0.0_f64, 0.0_f64, 0);
    let mut extra = [0_u64; 2];
    get(&site.through, &path).await?;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        bytes = get(&site.direct, &path).await?;
        direct = direct.max(bytes as f64 / 1e6 / began.elapsed().as_secs_f64());
        let pids = sides.pids()?;
        let before = pids.map(resident);
        for pid in pids {
            // From here on the peak is that of the list.
            std::fs::write(format!("/proc/{pid}/clear_refs"), "5").context("the peak cannot be reset")?;
        }
        let began = Instant::now();
        get(&site.through, &path).await?;
        through = through.max(bytes as f64 / 1e6 / began.elapsed().as_secs_f64());
        for ((extra, pid), before) in extra.iter_mut().zip(pids).zip(before) {
            *extra = (*extra).max(procfs::sample(pid)?.peak_kb.saturating_sub(before?));
        }
    }
    let [principal, agent] = extra;
    Ok(List {
        megabytes: bytes as f64 / 1e6,
        direct_mb_per_s: direct,
        through_mb_per_s: through,
        principal_extra_kb: principal,
        agent_extra_kb: agent,
    })
}

fn resident(pid: u32) -> anyhow::Result<u64> {
    Ok(procfs::sample(pid)?.resident_kb)
}

pub(super) async fn watches(site: &Site, sides: &Sides, count: usize) -> anyhow::Result<Watches> {
    let path = format!("/api/v1/namespaces/{}/configmaps?watch=true&resourceVersion=0", site.namespace);
    let pids = sides.pids()?;
    let before = pids.map(resident);
    let mut bodies = Vec::with_capacity(count);
    for _ in 0..count {
        let mut body = begin(&site.through, &path).await?;
        // What is there already is told first.
        body.frame().await.context("a watch ended")?.map_err(|error| anyhow!(error))?;
        bodies.push(body);
    }
    let mut each = [0_u64; 2];
    for ((each, pid), before) in each.iter_mut().zip(pids).zip(before) {
        *each = resident(pid)?.saturating_sub(before?) / (count.max(1) as u64);
    }
    let began = Instant::now();
    site.create(&site.namespace, "seen-by-all", String::new()).await?;
    for body in &mut bodies {
        body.frame().await.context("a watch ended")?.map_err(|error| anyhow!(error))?;
    }
    let [principal, agent] = each;
    Ok(Watches {
        count,
        principal_kb_each: principal,
        agent_kb_each: agent,
        seen_by_all_ms: began.elapsed().as_secs_f64() * 1000.0,
    })
}
