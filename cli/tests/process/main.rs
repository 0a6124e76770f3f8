//! What the built program says and how it ends, as a user meets it.

#![allow(clippy::unwrap_used, clippy::panic)]

mod answers;
mod command_line;
mod demo;
mod embedded;
mod export;
mod keys;
mod kubeconfig;
mod observation;
mod operator;
mod options;
mod profile;
mod serve;
mod targets;

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Output};

/// The built program, with nothing of this machine's environment that could change what it does.
fn tiphys() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tiphys"));
    command.env_clear().env("HOME", "/nonexistent").env("NO_COLOR", "1");
    command
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// What a run left behind.
struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn run(arguments: &[&str]) -> Run {
    tiphys().args(arguments).output().unwrap().into()
}

/// Writes a kubeconfig that points at `server`.
fn kubeconfig(folder: &Path, server: &str) -> String {
    let path = folder.join("kubeconfig");
    let text = format!(
        "current-context: here
clusters: [{{name: c, cluster: {{server: '{server}'}}}}]
users: [{{name: u, user: {{}}}}]
contexts: [{{name: here, context: {{cluster: c, user: u, namespace: argocd}}}}]
"
    );
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}
