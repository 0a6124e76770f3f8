//! Principal and agent as processes of their own, over API servers on loopback.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::json;
use tiphys_apiserver::ApiServer;
use tiphys_shared::process::clock;
use tiphys_shared::security::pki::Ca;
use tiphys_shared::security::tls::Material;
use tiphys_shared::security::token::Issuer;
use tokio_util::sync::CancellationToken;

use crate::{free_port, kubeconfig, tiphys};

pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Long enough for any machine; a test that waits so long has failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(180);

/// A cluster on loopback with Argo CD's definitions and namespace.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) kubeconfig: String,
}

pub(crate) async fn cluster(folder: &Path, name: &str) -> Cluster {
    let server = ApiServer::new(tiphys_apiserver::Options::default());
    for documents in [
        include_str!("../../../manifests/crds/applications.yaml"),
        include_str!("../../../manifests/crds/appprojects.yaml"),
    ] {
        server.install_crds(documents).unwrap();
    }
    let bound = server.bind((Ipv4Addr::LOCALHOST, 0).into(), None).await.unwrap();
    let home = folder.join(name);
    std::fs::create_dir(&home).unwrap();
    let kubeconfig = kubeconfig(&home, &format!("http://{}", bound.local_addr()));
    tokio::spawn(bound.run(CancellationToken::new()));
    let cluster = Cluster { client: server.client(), kubeconfig };
    cluster.create_namespace("argocd").await;
    cluster
}

impl Cluster {
    pub(crate) async fn create_namespace(&self, name: &str) {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.to_owned());
        Api::all(self.client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    }

    pub(crate) async fn create_secret(&self, name: &str, data: &[(&str, &[u8])]) {
        let mut secret = Secret::default();
        secret.metadata.name = Some(name.to_owned());
        let entries = data.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.to_vec())));
        secret.data = Some(entries.collect());
        let api: Api<Secret> = Api::namespaced(self.client.clone(), "argocd");
        api.create(&PostParams::default(), &secret).await.unwrap();
    }

    pub(crate) async fn create_pair(&self, name: &str, material: &Material) {
        self.create_secret(name, &[("tls.crt", &material.chain), ("tls.key", material.key.expose())]).await;
    }

    pub(crate) fn objects(&self, namespace: &str, kind: &str) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("argoproj.io", "v1alpha1", kind));
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }

    pub(crate) async fn create(&self, namespace: &str, kind: &str, name: &str, data: serde_json::Value) {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("argoproj.io", "v1alpha1", kind));
        let object = DynamicObject::new(name, &resource).data(data);
        self.objects(namespace, kind).create(&PostParams::default(), &object).await.unwrap();
    }
}

/// A running process and what it has said so far. It does not outlive the test.
pub(crate) struct Process {
    pub(crate) child: Child,
    lines: Receiver<String>,
    pub(crate) said: Vec<String>,
}

/// Ports that a process is not to open.
pub(crate) const UNWATCHED: [&str; 2] = ["--metrics-port=0", "--healthz-port=0"];

impl Process {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = tiphys();
        command.args(arguments).arg("--log-format=json");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let outputs: [Box<dyn std::io::Read + Send>; 2] = [Box::new(stdout), Box::new(stderr)];
        for output in outputs {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        Self { child, lines, said: Vec::new() }
    }

    /// The first line from now on that contains `text`.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        let begin = Instant::now();
        loop {
            let left = DEADLINE.saturating_sub(begin.elapsed());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("nothing contains {text:?}:\n{}", self.said.join("\n"));
            };
            self.said.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Waits until each of `texts` is in some line from now on, in whatever order.
    pub(crate) fn wait_for_each(&mut self, texts: &[&str]) {
        let mut missing = texts.to_vec();
        while !missing.is_empty() {
            let line = self.wait_for("");
            missing.retain(|text| !line.contains(text));
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }

    pub(crate) fn exit_code(mut self) -> Option<i32> {
        let begin = Instant::now();
        while begin.elapsed() < DEADLINE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            // The end of the outputs comes with the end of the process, a little before at most.
            _ = self.lines.recv_timeout(Duration::from_millis(20));
        }
        panic!("the process did not end");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// A control plane with a principal's Secrets and one agent called edge-1.
pub(crate) struct Stage {
    pub(crate) control: Cluster,
    pub(crate) edge: Cluster,
    pub(crate) ca: Ca,
    _folder: tempfile::TempDir,
    pub(crate) folder: PathBuf,
}

pub(crate) async fn stage() -> Stage {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().to_owned();
    let (control, edge) = (cluster(&folder, "control").await, cluster(&folder, "edge").await);
    control.create_namespace("edge-1").await;
    let ca = Ca::generate("test", clock::now(), DAY).unwrap();
    let server = ca.issue_server(&["localhost", "127.0.0.1"], clock::now(), DAY).unwrap();
    for name in ["argocd-agent-principal-tls", "argocd-agent-resource-proxy-tls"] {
        control.create_pair(name, &server).await;
    }
    let certificate = ca.certificate_pem().as_bytes();
    control
        .create_secret("argocd-agent-ca", &[("tls.crt", certificate), ("tls.key", ca.key_pem().expose())])
        .await;
    control
        .create_secret("argocd-agent-jwt", &[("jwt.key", Issuer::generate_key(2048).unwrap().expose())])
        .await;
    edge.create_secret("argocd-agent-ca", &[("ca.crt", certificate)]).await;
    let client = ca.issue_client::<&str>("edge-1", &[], clock::now(), DAY).unwrap();
    edge.create_pair("argocd-agent-client-tls", &client).await;
    Stage { control, edge, ca, _folder: temporary, folder }
}

impl Stage {
    fn principal(&self) -> (Process, String) {
        self.control.principal()
    }

    fn agent(&self, port: &str, extra: &[&str]) -> Process {
        self.edge.agent(port, extra)
    }
}

impl Cluster {
    /// Starts the principal and tells the port that agents reach.
    pub(crate) fn principal(&self) -> (Process, String) {
        self.principal_with(&UNWATCHED)
    }

    /// The same with more options.
    pub(crate) fn principal_with(&self, extra: &[&str]) -> (Process, String) {
        let line = [
            "principal",
            "--kubeconfig",
            &self.kubeconfig,
            "--allowed-namespaces=edge-1",
            "--auth=mtls:subject:CN=([^,]+)",
            "--listen-port=0",
            "--resource-proxy-listen-port=0",
            "--redis-proxy-port=0",
        ];
        let mut principal = Process::start(&[&line, extra].concat());
        let line = principal.wait_for("principal listens");
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let port = line["address"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
        principal.wait_for("taking agents");
        (principal, port)
    }

    /// Starts an agent.
    pub(crate) fn agent(&self, port: &str, extra: &[&str]) -> Process {
        self.agent_with(port, "mtls:any", &[&UNWATCHED, extra].concat())
    }

    /// The same with ports for those who watch over it, and another proof of who it is.
    pub(crate) fn agent_with(&self, port: &str, credentials: &str, extra: &[&str]) -> Process {
        let line = [
            "agent",
            "--kubeconfig",
            &self.kubeconfig,
            "--server-address=localhost",
            "--server-port",
            port,
            "--agent-mode=managed",
            "--creds",
            credentials,
        ];
        Process::start(&[&line, extra].concat())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn principal_and_agent_work_as_processes_and_drain_on_sigterm() {
    let stage = stage().await;
    let (mut principal, port) = stage.principal();
    let mut agent = stage.agent(&port, &[]);
    agent.wait_for("connected to the principal");
    principal.wait_for("agent connected");
    principal.wait_for("tunnel opened");
    let project = json!({ "spec": {
        "sourceNamespaces": ["*"],
        "destinations": [{ "name": "*", "server": "*", "namespace": "*" }],
    }});
    stage.control.create("argocd", "AppProject", "default", project).await;
    let application = json!({ "spec": {
        "project": "default",
        "source": { "repoURL": "https://example.com/repository", "path": "." },
        "destination": { "name": "edge-1", "namespace": "app" },
    }});
    stage.control.create("edge-1", "Application", "guestbook", application).await;
    let applications = stage.edge.objects("argocd", "Application");
    let begin = Instant::now();
    let arrived = loop {
        if let Some(arrived) = applications.get_opt("guestbook").await.unwrap() {
            break arrived;
        }
        assert!(begin.elapsed() < DEADLINE, "it did not arrive:\n{}", agent.said.join("\n"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(arrived.data["spec"]["destination"], json!({ "name": "in-cluster", "namespace": "app" }));
    agent.signal("-TERM");
    assert_eq!(agent.exit_code(), Some(0));
    principal.wait_for("stream ended");
    principal.signal("-INT");
    assert_eq!(principal.exit_code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_secret_ends_the_process_and_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let empty = cluster(folder.path(), "empty").await;
    let principal = ["principal", "--auth=mtls:subject:CN=(.*)", "--listen-port=0"];
    let agent = ["agent", "--server-address=localhost", "--agent-mode=managed", "--creds=mtls:any"];
    for (line, secret) in [
        (&principal[..], "argocd-agent-principal-tls"),
        (&principal, "argocd-agent-jwt"),
        (&principal, "argocd-agent-resource-proxy-tls"),
        (&agent, "argocd-agent-"),
    ] {
        let ports = ["--kubeconfig", &empty.kubeconfig, "--metrics-port=0", "--healthz-port=0"];
        let line: Vec<String> = line.iter().chain(&ports).map(ToString::to_string).collect();
        // Processes are waited for away from the threads that serve the cluster.
        let output =
            tokio::task::spawn_blocking(move || tiphys().args(line).output().unwrap()).await.unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(secret) && stderr.contains("argocd"), "{secret}: {stderr}");
        assert!(stderr.contains("remedy: "), "{stderr}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_starts_with_another_ca_names_cause_and_remedy_and_waits_for_the_right_one() {
    let stage = stage().await;
    let (_principal, port) = stage.principal();
    let other = Ca::generate("somebody else", clock::now(), DAY).unwrap();
    assert_ne!(other.certificate_pem(), stage.ca.certificate_pem());
    let secrets: Api<Secret> = Api::namespaced(stage.edge.client.clone(), "argocd");
    let trust = async |ca: &Ca| {
        let patch = json!({ "data": { "ca.crt": ByteString(ca.certificate_pem().into()) } });
        secrets.patch("argocd-agent-ca", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    };
    trust(&other).await;
    let health = free_port().to_string();
    let mut agent =
        stage.edge.agent_with(&port, "mtls:any", &["--metrics-port=0", "--healthz-port", &health]);
    let line = agent.wait_for("not connected to the principal");
    assert!(line.contains("unknown ca") && line.contains("give this side the ca that signed it"), "{line}");
    // Who asks why it is not ready is told the same.
    let why = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(format!("127.0.0.1:{health}")).unwrap();
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let why = why.await.unwrap();
    assert!(why.starts_with("HTTP/1.1 503") && why.contains("unknown ca"), "{why}");
    trust(&stage.ca).await;
    agent.wait_for("connected to the principal");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_names_the_options_that_were_given_as_json() {
    let stage = stage().await;
    let mut agent = stage.agent("1", &["--heartbeat-interval=30s"]);
    let line: serde_json::Value = serde_json::from_str(&agent.wait_for("options given")).unwrap();
    let options = line["options"].as_str().unwrap();
    assert!(options.contains("heartbeat-interval=30s (flag)"), "{options}");
    for field in ["timestamp", "level", "component", "message"] {
        assert!(line[field].is_string(), "{line}");
    }
}
