//! kubectl as a process, through the resource proxy, with a kubeconfig and a home of its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tempfile::TempDir;
use tiphys_shared::process::clock;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::suite::fleet::{DAY, Fleet};

/// How long a command may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// To what kubectl upgrades connections.
#[derive(Clone, Copy, Debug)]
pub(super) enum Transport {
    WebSocket,
    Spdy,
}

pub(super) struct Kubectl {
    pub(super) folder: TempDir,
    pub(super) namespace: String,
    pub(super) transport: Transport,
}

/// What became of a command.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) code: i32,
    pub(super) out: Vec<u8>,
    pub(super) err: String,
}

impl Said {
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }
}

impl Kubectl {
    /// With the kubeconfig of somebody who may reach every agent.
    pub(super) fn operator(fleet: &Fleet, agent: &str) -> Self {
        let material = fleet.ca.issue_client::<&str>("alice", &[], clock::now(), DAY).unwrap();
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {
                "server": format!("https://{}/agents/{agent}", fleet.proxy),
                "certificate-authority-data": STANDARD.encode(fleet.ca.certificate_pem()),
            }}],
            "users": [{"name": "proxy", "user": {
                "client-certificate-data": STANDARD.encode(&material.chain),
                "client-key-data": STANDARD.encode(material.key.expose()),
            }}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
        });
        let kubectl = Self::without_config(fleet);
        std::fs::write(kubectl.config(), config.to_string()).unwrap();
        kubectl
    }

    /// With a kubeconfig that is still to be written.
    pub(super) fn without_config(fleet: &Fleet) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            namespace: fleet.namespace.clone(),
            transport: Transport::WebSocket,
        }
    }

    pub(super) fn config(&self) -> PathBuf {
        self.path("config")
    }

    /// Of a file in the folder where commands run.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn command(&self, line: &[&str]) -> Command {
        let home: &Path = self.folder.path();
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(self.config()).args(["--namespace", &self.namespace]).args(line);
        // Discovery is asked for anew, and not remembered from a cluster of another test.
        command.env("KUBECACHEDIR", home.join("cache")).env("HOME", home).current_dir(home);
        command.env("KUBE_EDITOR", "sed -i s/before/after/");
        let websockets = match self.transport {
            Transport::WebSocket => "true",
            Transport::Spdy => "false",
        };
        command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets);
        command.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Runs a command to its end, with this on its standard input and nothing after it.
    pub(super) async fn ask(&self, line: &[&str], input: &[u8]) -> Said {
        let mut child = self.command(line).stdin(Stdio::piped()).spawn().expect("kubectl is on the path");
        let mut stdin = child.stdin.take().unwrap();
        let whole = async {
            let feed = async move {
                // A command may end before its input does.
                _ = stdin.write_all(input).await;
            };
            tokio::join!(feed, child.wait_with_output()).1.unwrap()
        };
        let output = timeout(PATIENCE, whole).await;
        let output = output.unwrap_or_else(|_| panic!("kubectl {} did not end", line.join(" ")));
        Said {
            code: output.status.code().unwrap_or(-1),
            out: output.stdout,
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs a command that has to work, and tells what it prints.
    pub(super) async fn run(&self, line: &[&str]) -> String {
        self.feed(line, "").await
    }

    /// The same with something on its standard input.
    pub(super) async fn feed(&self, line: &[&str], text: &str) -> String {
        let said = self.ask(line, text.as_bytes()).await;
        let out = String::from_utf8_lossy(&said.out).into_owned();
        assert_eq!(said.code, 0, "{:?} kubectl {}: {out}{}", self.transport, line.join(" "), said.err);
        out
    }

    /// Starts a command that goes on.
    pub(super) fn begin(&self, line: &[&str]) -> Going {
        let mut child = self.command(line).stdin(Stdio::piped()).spawn().expect("kubectl is on the path");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Going { child, lines }
    }

    /// Waits until the cluster answers.
    pub(super) async fn until_served(&self) {
        Fleet::until("the tunnel", async || {
            let output = self.command(&["version"]).output().await.unwrap();
            output.status.success().then_some(())
        })
        .await;
    }
}

/// A command that goes on. It is killed when this is dropped.
pub(super) struct Going {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Going {
    /// Its standard input, which ends when this is dropped.
    pub(super) fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().unwrap()
    }

    /// The next line that satisfies `is_it`.
    pub(super) async fn line_that(&mut self, is_it: impl Fn(&str) -> bool) -> String {
        let found = async {
            loop {
                let line = self.lines.next_line().await.unwrap().expect("the command goes on");
                if is_it(&line) {
                    return line;
                }
            }
        };
        timeout(PATIENCE, found).await.expect("the line comes")
    }

    pub(super) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// How it ends, which it has to by itself: its code and what it complains of. Until then it finds a reader.
    pub(super) async fn end(self) -> (i32, String) {
        let Self { child, mut lines } = self;
        let ending = async {
            let read = async { while lines.next_line().await.unwrap().is_some() {} };
            tokio::join!(child.wait_with_output(), read).0.unwrap()
        };
        let output = timeout(PATIENCE, ending).await.expect("it ends");
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
