//! The programs themselves, as the service accounts of the manifests, with what their Deployments tell them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use kube::{Client, Config};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::Child;

use super::super::pods::tiphys;
use super::super::suite::fleet::Fleet;
use super::install::Installed;

/// A program that runs. It is killed when this is dropped, and a test that fails shows its log.
pub(super) struct Program {
    child: Child,
    log: PathBuf,
    metrics: SocketAddr,
}

impl Program {
    /// Starts what was installed. Its files are in `folder`; these options count more than those of the Deployment.
    pub(super) async fn start(installed: &Installed, folder: &Path, options: &[&str]) -> Self {
        let log = folder.join(format!("{}.log", installed.account));
        let file = std::fs::File::create(&log).unwrap();
        // Nobody tells which port it is if the system chooses.
        let metrics = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let (arguments, environment) = installed.command().await;
        let child = tiphys()
            .args(arguments)
            .args(["--namespace", &installed.namespace, "--log-format=json", "--healthz-port=0"])
            .arg(format!("--metrics-port={}", metrics.port()))
            .arg("--kubeconfig")
            .arg(installed.write_kubeconfig(folder))
            .args(options)
            .env_clear()
            .envs(environment)
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { child, log, metrics }
    }

    /// Waits until the principal tells where it listens.
    pub(super) async fn until_listens(&self) -> SocketAddr {
        Fleet::until("the principal", async || {
            let log = std::fs::read_to_string(&self.log).unwrap();
            let line = log.lines().find(|line| line.contains("principal listens"))?;
            let line: Value = serde_json::from_str(line).ok()?;
            line["address"].as_str()?.parse().ok()
        })
        .await
    }

    /// Fails if the API server has forbidden it anything.
    pub(super) async fn assert_nothing_was_refused(&self) {
        let url = format!("http://{}", self.metrics).parse().unwrap();
        let client = Client::try_from(Config::new(url)).unwrap();
        let request = http::Request::get("/metrics").body(Vec::new()).unwrap();
        let page = client.request_text(request).await.unwrap();
        let asked = |code: &str| {
            let samples = page.lines().filter(|line| line.starts_with("rest_client_requests_total{"));
            samples.filter(|line| line.contains(&format!("code=\"{code}\""))).collect::<Vec<_>>()
        };
        assert!(!asked("200").is_empty(), "its requests are not counted: {page}");
        let refused = asked("403");
        assert!(refused.is_empty(), "{} was refused what it needs: {refused:?}", self.log.display());
    }

    /// Lets it end, which it has to do well.
    pub(super) async fn stop(mut self) {
        let pid = Pid::from_raw(self.child.id().expect("it runs").cast_signed()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        assert!(self.child.wait().await.unwrap().success(), "it did not end well");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}:\n{}", self.log.display(), std::fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}
