//! The dashboard and the alarms, against what a principal and an agent tell when they are asked.

mod query;
mod scrape;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::Client;
use kube::api::{Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tiphys_shared::process::clock;

use self::query::Query;
use self::scrape::{Scrape, get};
use crate::free_port;
use crate::serve::{DAY, DEADLINE, Process, Stage, stage};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A query of a file, and what the file makes of its labels.
struct Asked {
    place: String,
    query: Query,
    /// Labels that texts name.
    shown: BTreeSet<String>,
}

fn shown(text: &str, open: &str, close: &str) -> BTreeSet<String> {
    text.split(open)
        .skip(1)
        .filter_map(|rest| rest.split(close).next())
        .map(|it| it.trim().to_owned())
        .collect()
}

fn dashboard() -> Vec<Asked> {
    let text =
        std::fs::read_to_string(root().join("manifests/observability/grafana-dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut asked = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let place = format!("panel {}", panel["title"]);
            let expression = target["expr"].as_str().unwrap();
            let legend = target["legendFormat"].as_str().unwrap();
            // What Grafana puts in.
            let expression = expression.replace("$__rate_interval", "5m").replace("$agent", ".*");
            let query = Query::parse(&expression).unwrap_or_else(|error| panic!("{place}: {error}"));
            asked.push(Asked { place, query, shown: shown(legend, "{{", "}}") });
        }
    }
    let variable = dashboard["templating"]["list"][1]["definition"].as_str().unwrap();
    assert_eq!(variable, "label_values(tiphys_principal_agent_connected, agent_name)");
    asked
}

fn alarms() -> Value {
    let text = std::fs::read_to_string(root().join("manifests/observability/prometheus-rules.yaml")).unwrap();
    let rules: Value = serde_saphyr::from_str(&text).unwrap();
    rules["groups"][0]["rules"].clone()
}

fn rules() -> Vec<Asked> {
    let alarms = alarms();
    let read = |rule: &Value| {
        let place = format!("alarm {}", rule["alert"]);
        let query = Query::parse(rule["expr"].as_str().unwrap());
        let query = query.unwrap_or_else(|error| panic!("{place}: {error}"));
        let annotations = rule["annotations"].as_object().unwrap().values();
        let shown = annotations.flat_map(|text| shown(text.as_str().unwrap(), "$labels.", "}}")).collect();
        Asked { place, query, shown }
    };
    alarms.as_array().unwrap().iter().map(read).collect()
}

#[test]
fn each_alarm_has_a_runbook_and_each_runbook_an_alarm() {
    let book = std::fs::read_to_string(root().join("docs/src/runbooks.md")).unwrap();
    let written: BTreeSet<&str> = book.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let alarms = alarms();
    let alarms = alarms.as_array().unwrap();
    let named: BTreeSet<&str> = alarms.iter().map(|alarm| alarm["alert"].as_str().unwrap()).collect();
    assert_eq!((written, named.len()), (named.clone(), 10));
    for alarm in alarms {
        let name = alarm["alert"].as_str().unwrap();
        let anchor = format!("docs/src/runbooks.md#{}", name.to_lowercase());
        assert_eq!(alarm["annotations"]["runbook_url"], anchor.as_str(), "{name}");
        assert!(["critical", "warning"].contains(&alarm["labels"]["severity"].as_str().unwrap()), "{name}");
    }
}

fn application() -> Value {
    json!({"spec": {
        "project": "default", "source": {"repoURL": "https://example.com/repository", "path": "."},
        "destination": {"name": "edge-1", "namespace": "app"},
    }})
}

/// A client of the resource proxy with an agent's certificate.
async fn client(stage: &Stage, address: &str) -> Client {
    let port = address.rsplit(':').next().unwrap();
    let material = stage.ca.issue_client::<&str>("edge-1", &[], clock::now(), DAY).unwrap();
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
        "clusters": [{"name": "proxy", "cluster": {
            "server": format!("https://localhost:{port}"),
            "certificate-authority-data": STANDARD.encode(stage.ca.certificate_pem()),
        }}],
        "users": [{"name": "proxy", "user": {
            "client-certificate-data": STANDARD.encode(&material.chain),
            "client-key-data": STANDARD.encode(material.key.expose()),
        }}],
        "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
    });
    let config = Kubeconfig::from_yaml(&config.to_string()).unwrap();
    let mut config =
        kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

async fn status(client: &Client) -> u16 {
    let request = http::Request::get("/version").body(kube::client::Body::empty()).unwrap();
    client.send(request).await.unwrap().status().as_u16()
}

/// Lets everything happen once that is counted.
async fn live(stage: &Stage, metrics: [u16; 2]) -> (Process, Process) {
    let [for_principal, for_agent] = metrics.map(|port| format!("--metrics-port={port}"));
    let (mut principal, port) = stage.control.principal_with(&[&for_principal, "--healthz-port=0"]);
    let proxy = principal.said.iter().find(|line| line.contains("serving the clusters' api")).unwrap();
    let proxy: Value = serde_json::from_str(proxy).unwrap();
    let proxy = client(stage, proxy["address"].as_str().unwrap()).await;
    assert_eq!(status(&proxy).await, 502, "an agent that was never here was reached");
    // Not an agent at all, and one that proves who it is in another way than is asked for.
    let mut stranger = TcpStream::connect((Ipv4Addr::LOCALHOST, port.parse::<u16>().unwrap())).unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    _ = stranger.read(&mut [0; 64]);
    principal.wait_for("connection came to nothing");
    let password = stage.folder.join("password");
    std::fs::write(&password, "edge-1:secret").unwrap();
    let credentials = format!("userpass:{}", password.display());
    let mut wrong = stage.edge.agent_with(&port, &credentials, &["--metrics-port=0", "--healthz-port=0"]);
    wrong.wait_for("not connected to the principal");
    principal.wait_for("authentication refused");
    drop(wrong);
    // It is there before the agent is, so that a comparison finds it; and one that the agent will not take over.
    stage.control.create("edge-1", "Application", "guestbook", application()).await;
    stage.control.create("edge-1", "Application", "theirs", application()).await;
    stage.edge.create("argocd", "Application", "theirs", application()).await;
    let mut agent = stage.edge.agent_with(
        &port,
        "mtls:any",
        &[&for_agent, "--healthz-port=0", "--adoption-policy=never"],
    );
    principal.wait_for_each(&["agent refused a resource", "tunnel opened"]);
    assert_eq!(status(&proxy).await, 200);
    let applications = stage.edge.objects("argocd", "Application");
    let begin = Instant::now();
    while applications.get_opt("guestbook").await.unwrap().is_none() {
        assert!(begin.elapsed() < DEADLINE, "it did not arrive:\n{}", agent.said.join("\n"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let change = json!({"spec": {"project": "evil"}, "status": {"health": {"status": "Healthy"}}});
    applications.patch("guestbook", &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
    agent.wait_for("undid a local change");
    (principal, agent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_dashboard_and_the_alarms_ask_for_is_told_by_a_principal_and_an_agent() {
    let stage = stage().await;
    let ports = [free_port(), free_port()];
    let (_principal, _agent) = live(&stage, ports).await;
    let asked: Vec<Asked> = dashboard().into_iter().chain(rules()).collect();
    assert!(asked.len() > 40, "{} queries", asked.len());
    let begin = Instant::now();
    loop {
        let scrape = Scrape::parse(&[get(ports[0], "/metrics").1, get(ports[1], "/metrics").1].concat());
        let missing: Vec<String> = asked
            .iter()
            .flat_map(|asked| {
                let missing = scrape.missing(&asked.query, &asked.shown);
                missing.into_iter().map(|what| format!("{}: {what}", asked.place))
            })
            .collect();
        if missing.is_empty() {
            return;
        }
        // Acknowledgements may be on their way.
        assert!(begin.elapsed() < DEADLINE, "{}\n{scrape:#?}", missing.join("\n"));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
