//! Connections that nobody uses for long: a command that runs in a pod, a watch, a log that is followed. Not even pings
//! are sent meanwhile, as kubectl does.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use http::Request;
use http::header::{CONNECTION, UPGRADE};
use http_body_util::BodyExt as _;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, PostParams};
use serde_json::json;
use tiphys_shared::kube::api_server::ApiServer;
use tiphys_shared::proxy::body::{self, Body};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

use super::measure::{Site, begin};

const POD: &str = "idle";
/// How long anything may take that is not idle.
const PATIENCE: Duration = Duration::from_secs(60);
/// Largest message that is read from a command.
const LONGEST: u16 = 4096;

/// Opens them, waits, and uses them again.
///
/// # Errors
/// If one ended, or said something though nobody asked, or is of no use any more.
pub(super) async fn idle(site: &Site, length: Duration) -> anyhow::Result<()> {
    site.make_namespace(&site.namespace).await?;
    run_pod(site).await?;
    let mut command = in_time("the command", Command::start(&site.through, &site.namespace)).await?;
    in_time("the command", command.repeats("before")).await?;
    let query = format!("watch=true&resourceVersion=0&timeoutSeconds={}", 2 * length.as_secs() + 600);
    let maps = format!("/api/v1/namespaces/{}/configmaps?{query}", site.namespace);
    let mut watch = Text(begin(&site.through, &maps).await?);
    site.create(&site.namespace, "before", String::new()).await?;
    in_time("the watch", watch.tells("\"before\"")).await?;
    let log = format!("/api/v1/namespaces/{}/pods/{POD}/log?follow=true", site.namespace);
    let mut log = Text(begin(&site.through, &log).await?);
    in_time("the log", log.tells("runs")).await?;

    let began = Instant::now();
    let silent = async {
        tokio::select! {
            end = command.message() => ("command", end.map(|message| format!("{message:?}"))),
            end = watch.piece() => ("watch", end),
            end = log.piece() => ("log", end),
        }
    };
    if let Ok((what, end)) = tokio::time::timeout(length, silent).await {
        let after = began.elapsed();
        match end {
            Ok(said) => bail!("the {what} said {said} after {after:?}"),
            Err(error) => return Err(error.context(format!("the {what} ended after {after:?}"))),
        }
    }

    in_time("the command", command.repeats("after")).await?;
    site.create(&site.namespace, "after", String::new()).await?;
    in_time("the watch", watch.tells("\"after\"")).await?;
    let mut speaker = in_time("attaching", Command::attach(&site.through, &site.namespace)).await?;
    in_time("attaching", speaker.repeats("after")).await?;
    in_time("the log", log.tells("after")).await
}

async fn in_time<T>(what: &str, action: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::time::timeout(PATIENCE, action).await.with_context(|| format!("{what}: nothing came"))?
}

async fn run_pod(site: &Site) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(site.client.clone(), &site.namespace);
    let pod = json!({"metadata": {"name": POD}, "spec": {
        "nodeName": "node-0", "containers": [{"name": "main", "image": "example.com/main", "stdin": true}],
    }});
    pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    let runs = async {
        loop {
            let phase = pods.get(POD).await?.status.and_then(|status| status.phase);
            if phase.as_deref() == Some("Running") {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    in_time("a pod that runs", runs).await.context("are the clusters started with --pods?")
}

/// A text that goes on.
struct Text(Body);

impl Text {
    async fn piece(&mut self) -> anyhow::Result<String> {
        let frame = self.0.frame().await.context("it has ended")?.map_err(|error| anyhow!(error))?;
        Ok(String::from_utf8_lossy(frame.data_ref().context("no data")?).into_owned())
    }

    /// Reads until it has told that.
    async fn tells(&mut self, expected: &str) -> anyhow::Result<()> {
        let mut told = String::new();
        while !told.contains(expected) {
            told += &self.piece().await?;
        }
        Ok(())
    }
}

/// A process in a pod that repeats what it is told, over a WebSocket with the kubelet's channels.
struct Command(TokioIo<Upgraded>);

impl Command {
    async fn start(server: &ApiServer, namespace: &str) -> anyhow::Result<Self> {
        Self::open(server, &format!("/api/v1/namespaces/{namespace}/pods/{POD}/exec?command=cat")).await
    }

    async fn attach(server: &ApiServer, namespace: &str) -> anyhow::Result<Self> {
        Self::open(server, &format!("/api/v1/namespaces/{namespace}/pods/{POD}/attach?container=main")).await
    }

    async fn open(server: &ApiServer, path: &str) -> anyhow::Result<Self> {
        let request = Request::get(format!("{path}&stdin=true&stdout=true"))
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("Sec-WebSocket-Protocol", "v4.channel.k8s.io")
            .body(body::empty())?;
        let mut answer = server.send(request).await.map_err(|error| anyhow!(error))?;
        ensure!(answer.status() == 101, "{path} was answered with {}", answer.status());
        Ok(Self(TokioIo::new(hyper::upgrade::on(&mut answer).await?)))
    }

    /// Says a line and hears it again.
    async fn repeats(&mut self, line: &str) -> anyhow::Result<()> {
        let line = format!("{line}\n");
        // One frame with all there is, its mask nothing but zeros, for the channel of standard input.
        let mut frame = vec![0x82, 0x80 | u8::try_from(line.len() + 1)?, 0, 0, 0, 0, 0];
        frame.extend_from_slice(line.as_bytes());
        self.0.write_all(&frame).await?;
        let mut heard = Vec::new();
        while heard.len() < line.len() {
            heard.extend(self.message().await?);
        }
        ensure!(heard == line.as_bytes(), "instead of {line:?} it said {heard:?}");
        Ok(())
    }

    /// The next that comes from standard output.
    async fn message(&mut self) -> anyhow::Result<Vec<u8>> {
        loop {
            let [kind, length] = [self.0.read_u8().await?, self.0.read_u8().await?];
            let length = if length == 126 { self.0.read_u16().await? } else { length.into() };
            ensure!(length <= LONGEST, "a message of {length} bytes");
            let mut message = vec![0; length.into()];
            self.0.read_exact(&mut message).await?;
            match (kind & 0xf, message.split_first()) {
                // Channels begin with a message that is empty.
                (1 | 2, Some((1, []))) => {}
                (1 | 2, Some((1, text))) => return Ok(text.to_vec()),
                (1 | 2, Some((_, []))) => {}
                (9 | 10, _) => {}
                (kind, _) => bail!("a message of kind {kind}: {:?}", String::from_utf8_lossy(&message)),
            }
        }
    }
}
