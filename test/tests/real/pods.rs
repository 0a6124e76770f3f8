//! What kubectl does with pods, through the resource proxy, over both protocols to which it upgrades connections. The
//! clusters need pods (`hack/kube.sh up --pods`); what is executed in them are commands of this machine.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::join_all;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use tiphys_agent::{AllowList, ProxyPolicy};
use tiphys_shared::process::clock;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::kubectl::{Going, Kubectl, Transport};
use super::managed::cluster;
use super::suite::fleet::{DAY, Fleet};

/// A name that no other test on the same clusters has.
fn name_of(test: &str) -> String {
    format!("{test}-{}", std::process::id())
}

async fn fleet(agent: &str) -> Fleet {
    let clusters = BTreeMap::from([(agent.to_owned(), cluster("cluster-1").await)]);
    Fleet::start(cluster("cluster-0").await, clusters, &[]).await
}

/// Makes a pod, and waits until it runs.
async fn pod(kubectl: &Kubectl, name: &str) {
    let node = kubectl.ask(&["get", "node", "node-0"], b"").await;
    assert_eq!(node.code, 0, "the clusters have no pods: start them with --pods ({})", node.err);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"nodeName": "node-0", "containers": [
            {"name": "main", "image": "example.com/main", "stdin": true},
            {"name": "side", "image": "example.com/side", "stdin": true},
        ]},
    });
    kubectl.feed(&["apply", "-f", "-"], &pod.to_string()).await;
    kubectl.run(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]).await;
}

/// Bytes without a pattern, for which no compression is of use.
fn noise(length: usize) -> Vec<u8> {
    std::iter::repeat_with(|| fastrand::u8(..)).take(length).collect()
}

/// Does it over one protocol after the other, each with a pod of its own.
async fn over_both(test: &str, mut what: impl AsyncFnMut(&Kubectl, &str)) {
    let agent = name_of(test);
    let fleet = fleet(&agent).await;
    let mut kubectl = Kubectl::operator(&fleet, &agent);
    kubectl.until_served().await;
    for (transport, name) in [(Transport::WebSocket, "websocket"), (Transport::Spdy, "spdy")] {
        kubectl.transport = transport;
        pod(&kubectl, name).await;
        what(&kubectl, name).await;
        kubectl.run(&["delete", "pod", name, "--ignore-not-found"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_in_a_pod_has_its_three_streams_and_its_exit_code() {
    over_both("exec", async |kubectl, pod| {
        let exec = |line: &[&'static str]| [&["exec", pod, "-c", "main", "--"], line].concat();
        let said = kubectl.ask(&exec(&["sh", "-c", "echo out; echo err >&2; exit 7"]), b"").await;
        assert_eq!((said.code, said.text()), (7, "out\n"), "{}", said.err);
        assert!(said.err.starts_with("err\n"), "{}", said.err);
        assert_eq!(kubectl.run(&exec(&["true"])).await, "");
        assert_eq!(kubectl.ask(&exec(&["false"]), b"").await.code, 1);
        assert_ne!(kubectl.ask(&exec(&["no-such-command"]), b"").await.code, 0);

        // The protocol is the one that is meant: where an upgrade to WebSocket fails, kubectl takes SPDY without a word.
        let told = kubectl.ask(&["exec", "-v=9", pod, "-c", "main", "--", "true"], b"").await.err;
        let protocol = match kubectl.transport {
            Transport::WebSocket => "websocket",
            Transport::Spdy => "SPDY/3.1",
        };
        let upgraded = told
            .lines()
            .find(|line| line.contains("Upgrade: ") && !line.contains("Connection"))
            .unwrap_or_default();
        assert!(upgraded.to_lowercase().contains(&protocol.to_lowercase()), "{told}");

        let input = noise(8 << 20);
        let interactive = |line: &[&'static str]| [&["exec", "-i", pod, "-c", "main", "--"], line].concat();
        let said = kubectl.ask(&interactive(&["cat"]), &input).await;
        assert!(
            said.code == 0 && said.out == input,
            "{} of {} bytes came back: {}",
            said.out.len(),
            input.len(),
            said.err
        );
        // The end of the input alone makes it go on.
        let said = kubectl.ask(&interactive(&["sh", "-c", "wc -c; exit 3"]), &input).await;
        assert_eq!((said.code, said.text().trim()), (3, "8388608"), "{}", said.err);

        let output = kubectl.ask(&exec(&["seq", "3000000"]), b"").await;
        let expected: String = (1..=3_000_000).map(|number| format!("{number}\n")).collect();
        assert!(
            output.code == 0 && output.out == expected.as_bytes(),
            "{} bytes: {}",
            output.out.len(),
            output.err
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_does_not_read_holds_up_nobody_and_what_it_leaves_ends() {
    over_both("stuck", async |kubectl, pod| {
        let stuck: Vec<_> =
            (0..4).map(|_| kubectl.begin(&["exec", pod, "-c", "main", "--", "cat", "/dev/zero"])).collect();
        let script = "echo began; cat; echo over > left";
        let mut leaving = kubectl.begin(&["exec", "-i", pod, "-c", "main", "--", "sh", "-c", script]);
        leaving.line_that(|line| line == "began").await;
        for _ in 0..4 {
            assert_eq!(kubectl.run(&["exec", pod, "-c", "main", "--", "echo", "yes"]).await, "yes\n");
            kubectl.run(&["get", "pods"]).await;
        }
        leaving.kill().await;
        Fleet::until("the end of what was left", async || {
            let said = kubectl.ask(&["exec", pod, "-c", "main", "--", "cat", "left"], b"").await;
            (said.text() == "over\n").then_some(())
        })
        .await;
        drop(stuck);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_followed_and_containers_attached_to() {
    over_both("logs", async |kubectl, pod| {
        assert_eq!(kubectl.run(&["logs", pod, "-c", "main"]).await, format!("main of {pod} runs\n"));
        let mut following = kubectl.begin(&["logs", "--follow", pod, "-c", "main"]);
        following.line_that(|line| line.starts_with("main of")).await;
        let mut listening = kubectl.begin(&["attach", pod, "-c", "main"]);

        let attach = ["attach", "-i", pod, "-c", "main"];
        assert!(kubectl.feed(&attach, "first\nsecond\n").await.contains("first\nsecond\n"));
        following.line_that(|line| line == "first").await;
        following.line_that(|line| line == "second").await;
        assert_eq!(kubectl.run(&["logs", "--tail=1", pod, "-c", "main"]).await, "second\n");
        // Whether the listener was there by then nobody knows, but sooner or later it is.
        let mut speaking = kubectl.begin(&attach);
        let mut voice = speaking.stdin();
        let speak = async {
            loop {
                voice.write_all(b"more\n").await.unwrap();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            _ = listening.line_that(|line| line == "more") => {}
            () = speak => {}
        }
        following.line_that(|line| line == "more").await;
        drop(voice);
        let (code, complaint) = speaking.end().await;
        assert_eq!(code, 0, "{complaint}");

        // Many lines, which all come, and in order.
        let numbers: String = (0..20_000).map(|number| format!("line {number}\n")).collect();
        kubectl.feed(&["attach", "-i", pod, "-c", "side"], &numbers).await;
        let logs = kubectl.run(&["logs", pod, "-c", "side"]).await;
        assert!(logs.ends_with(&numbers), "{} bytes", logs.len());
        let both = kubectl.run(&["logs", pod, "--all-containers", "--prefix"]).await;
        assert!(both.contains("/main] ") && both.contains("/side] "));
        assert!(
            kubectl
                .run(&["logs", "--timestamps", "--tail=1", pod, "-c", "side"])
                .await
                .contains("Z line 19999\n")
        );

        // A log ends with its pod.
        kubectl.run(&["delete", "pod", pod]).await;
        let (code, complaint) = following.end().await;
        assert_eq!(code, 0, "{complaint}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_copied_both_ways() {
    over_both("cp", async |kubectl, pod| {
        let tree =
            [("data", noise(6 << 20)), ("deep/er/with space", noise(70_000)), ("deep/empty", Vec::new())];
        for (name, content) in &tree {
            let path = kubectl.path("tree").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        kubectl.run(&["cp", "tree", &format!("{pod}:copy"), "-c", "main"]).await;
        kubectl.run(&["cp", &format!("{pod}:copy"), "back", "-c", "main"]).await;
        for (name, content) in &tree {
            let back = std::fs::read(kubectl.path("back").join(name)).unwrap();
            assert!(back == *content, "{name}: {} of {} bytes", back.len(), content.len());
        }
        for folder in ["tree", "back"] {
            std::fs::remove_dir_all(kubectl.path(folder)).unwrap();
        }
    })
    .await;
}

/// Repeats what it reads, and says so at the end of it.
async fn repeating_server() -> (u16, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                tokio::io::copy(&mut reader, &mut writer).await?;
                writer.write_all(b"end").await?;
                writer.shutdown().await
            });
        }
    });
    (port, AbortOnDropHandle::new(task))
}

/// Begins to forward, and tells to where to connect.
async fn forward(kubectl: &Kubectl, pod: &str, port: u16) -> (Going, String) {
    let mut going =
        kubectl.begin(&["port-forward", "--address=127.0.0.1", &format!("pod/{pod}"), &format!(":{port}")]);
    let line = going.line_that(|line| line.starts_with("Forwarding from")).await;
    let address = line.split_whitespace().nth(2).unwrap().to_owned();
    (going, address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_are_forwarded_many_connections_at_once() {
    let (port, _server) = repeating_server().await;
    over_both("forward", async |kubectl, pod| {
        let (_going, address) = forward(kubectl, pod, port).await;
        let mut lasting = TcpStream::connect(&address).await.unwrap();
        let mut byte = [0];
        lasting.write_all(b"a").await.unwrap();
        lasting.read_exact(&mut byte).await.unwrap();

        // Each ends its direction, and only then is told the end of the other.
        join_all((0..8).map(async |_| {
            let sent = noise(1 << 20);
            let mut stream = TcpStream::connect(&address).await.unwrap();
            let (mut reader, mut writer) = stream.split();
            let mut received = Vec::new();
            let (read, ()) = tokio::join!(reader.read_to_end(&mut received), async {
                writer.write_all(&sent).await.unwrap();
                writer.shutdown().await.unwrap();
            });
            read.unwrap();
            assert!(received == [&sent[..], b"end"].concat(), "{} bytes came back", received.len());
        }))
        .await;

        lasting.write_all(b"b").await.unwrap();
        lasting.read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, b"b");
        lasting.shutdown().await.unwrap();
        let mut rest = Vec::new();
        lasting.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"end");

        // Where nobody listens, kubectl is told so.
        let free = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap().port();
        let (going, address) = forward(kubectl, pod, free).await;
        let mut stream = TcpStream::connect(&address).await.unwrap();
        _ = stream.write_all(b"anybody there?").await;
        let (_, complaint) = going.end().await;
        assert!(complaint.contains("connection refused"), "{complaint}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_can_be_run_described_edited_and_deleted() {
    over_both("run", async |kubectl, pod| {
        let overrides = json!({"spec": {"nodeName": "node-0"}}).to_string();
        kubectl.run(&["run", "once", "--image=example.com/once", "--overrides", &overrides]).await;
        kubectl.run(&["wait", "--for=jsonpath={.status.phase}=Running", "pod/once", "--timeout=60s"]).await;
        assert!(kubectl.run(&["delete", "pod", "once"]).await.contains("\"once\" deleted"));

        assert!(kubectl.run(&["describe", "pod", pod]).await.contains("example.com/side"));
        kubectl.run(&["annotate", "pod", pod, "note=before"]).await;
        kubectl.run(&["edit", "pod", pod]).await;
        let note = kubectl.run(&["get", "pod", pod, "-o", "jsonpath={.metadata.annotations.note}"]).await;
        assert_eq!(note, "after");
        assert!(kubectl.run(&["get", "pods", "-o", "wide"]).await.contains("node-0"));
        assert!(kubectl.run(&["describe", "node", "node-0"]).await.contains(pod));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_allow_list_passes_what_it_names_over_either_protocol() {
    let agent = name_of("allowed");
    let mut fleet = fleet(&agent).await;
    let mut kubectl = Kubectl::operator(&fleet, &agent);
    kubectl.until_served().await;
    pod(&kubectl, "web").await;

    fleet.kill_agent(&agent);
    let rules = AllowList::parse(
        "
rules:
- {verbs: [get], apiGroups: [''], resources: [pods, pods/log]}
- {verbs: [create], apiGroups: [''], resources: [pods/exec], names: ['we*']}
- {verbs: [get], nonResourceURLs: [/version, '/api*', '/openapi*']}
",
    )
    .unwrap();
    let (_sender, policy) = watch::channel(ProxyPolicy::AllowList(rules));
    fleet.served.policy = policy;
    fleet.start_agent(&agent);
    kubectl.until_served().await;
    for transport in [Transport::WebSocket, Transport::Spdy] {
        kubectl.transport = transport;
        assert_eq!(kubectl.run(&["exec", "web", "-c", "main", "--", "echo", "yes"]).await, "yes\n");
        assert!(kubectl.run(&["logs", "web", "-c", "main"]).await.contains("runs"));
        for refused in [
            &["attach", "web", "-c", "main"][..],
            &["port-forward", "web", ":80"],
            &["get", "pods"],
            &["delete", "pod", "web"],
        ] {
            let said = kubectl.ask(refused, b"").await;
            assert!(
                said.code == 1 && said.err.contains("--proxy-policy"),
                "{refused:?}: {} {}",
                said.text(),
                said.err
            );
        }
    }
}

/// The program, which has to be built already.
pub(super) fn tiphys() -> Command {
    let own = std::env::current_exe().unwrap();
    let path = own.ancestors().nth(2).map(|folder| folder.join("tiphys")).unwrap_or_default();
    assert!(path.exists(), "there is no {}: run cargo build -p tiphys first", path.display());
    Command::new(path)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubeconfig_that_tiphys_writes_is_good_for_all_of_it() {
    let agent = name_of("written");
    let fleet = fleet(&agent).await;
    let clusters = std::env::var("TIPHYS_TEST_KUBECONFIG").unwrap();
    let mut kubectl = Kubectl::without_config(&fleet);
    kubectl.namespace.clone_from(&fleet.namespace);

    // Argo CD's Secret for the cluster, as it is made for an agent.
    let material = fleet.ca.issue_client::<&str>(&agent, &[], clock::now(), DAY).unwrap();
    let config = json!({"tlsClientConfig": {
        "caData": STANDARD.encode(fleet.ca.certificate_pem()),
        "certData": STANDARD.encode(&material.chain),
        "keyData": STANDARD.encode(material.key.expose()),
    }});
    let secret = serde_json::from_value(json!({
        "metadata": {"name": "cluster-edge", "labels": {
            "argocd.argoproj.io/secret-type": "cluster", "argocd-agent.argoproj-labs.io/agent-name": agent,
        }},
        "stringData": {
            "name": agent, "server": format!("https://{}?agentName={agent}", fleet.proxy), "config": config.to_string(),
        },
    }))
    .unwrap();
    let secrets: Api<Secret> = Api::namespaced(fleet.control.client(), &fleet.namespace);
    secrets.create(&PostParams::default(), &secret).await.unwrap();

    let written = tiphys()
        .args([
            "kubeconfig",
            "--agent",
            &agent,
            "--namespace",
            &fleet.namespace,
            "--kubecontext",
            "cluster-0",
        ])
        .args(["--kubeconfig", &clusters, "--use", "--output"])
        .arg(kubectl.config())
        .output()
        .await
        .unwrap();
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));

    kubectl.until_served().await;
    pod(&kubectl, "web").await;
    let (port, _server) = repeating_server().await;
    std::fs::write(kubectl.path("file"), noise(100_000)).unwrap();
    for transport in [Transport::WebSocket, Transport::Spdy] {
        kubectl.transport = transport;
        let said = kubectl
            .ask(&["exec", "-i", "web", "-c", "main", "--", "sh", "-c", "cat; exit 5"], b"hello")
            .await;
        assert_eq!((said.code, said.text()), (5, "hello"), "{}", said.err);
        assert!(kubectl.feed(&["attach", "-i", "web", "-c", "main"], "heard\n").await.contains("heard"));
        assert!(kubectl.run(&["logs", "web", "-c", "main"]).await.ends_with("heard\n"));
        kubectl.run(&["cp", "file", "web:file", "-c", "main"]).await;
        kubectl.run(&["cp", "web:file", "back", "-c", "main"]).await;
        let files = ["file", "back"].map(|name| std::fs::read(kubectl.path(name)).unwrap());
        assert!(files[0] == files[1]);
        let (_going, address) = forward(&kubectl, "web", port).await;
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"helloend");
    }
    assert!(kubectl.run(&["get", "pods"]).await.contains("web"));
}
