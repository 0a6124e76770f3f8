use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{WatchEvent, WatchParams};
use tiphys_apiserver::{ApiServer, Options};

use super::*;

const CRD: &str = include_str!("../../../../manifests/crds/applications.yaml");

/// An API server with the kind and the namespaces that a plan names.
async fn cluster(name: &str, namespaces: &[&str]) -> Cluster {
    let server = ApiServer::new(Options::default());
    server.install_crds(CRD).unwrap();
    let client = server.client();
    let api: Api<Namespace> = Api::all(client.clone());
    for name in namespaces {
        if api.get_opt(name).await.unwrap().is_none() {
            let mut namespace = Namespace::default();
            namespace.metadata.name = Some((*name).to_owned());
            api.create(&PostParams::default(), &namespace).await.unwrap();
        }
    }
    Cluster { context: name.into(), server: "memory".into(), client }
}

async fn plan(count: usize, pace: Pace) -> Plan {
    Plan {
        from: cluster("control-plane", &["agent"]).await,
        from_namespace: "agent".into(),
        to: cluster("workload", &["argocd", "default"]).await,
        to_namespace: "argocd".into(),
        direct_namespace: "default".into(),
        count,
        pace,
        warm_up: 2,
        patience: Duration::from_secs(30),
        run: "test".into(),
        project: "default".into(),
        destination: "agent".into(),
    }
}

/// Does what a principal and an agent do, without them.
async fn carry(from: Api<DynamicObject>, to: Api<DynamicObject>) {
    let version = from.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let mut events = from.watch(&WatchParams::default(), &version).await.unwrap().boxed();
    while let Some(event) = events.try_next().await.unwrap() {
        match event {
            WatchEvent::Added(mut object) => {
                object.metadata.resource_version = None;
                object.metadata.uid = None;
                object.metadata.namespace = Some("argocd".into());
                to.create(&PostParams::default(), &object).await.unwrap();
            }
            WatchEvent::Deleted(object) => {
                to.delete(&object.metadata.name.unwrap(), &DeleteParams::default()).await.unwrap();
            }
            _ => {}
        }
    }
}

async fn remaining(client: &Client, namespace: &str) -> usize {
    api(client, namespace).list(&ListParams::default()).await.unwrap().items.len()
}

#[tokio::test]
async fn a_run_counts_every_application_compares_and_leaves_nothing_behind() {
    for pace in [Pace::Rate(500.0), Pace::Burst { concurrency: 4 }] {
        let plan = plan(50, pace).await;
        let (from, to) = (api(&plan.from.client, "agent"), api(&plan.to.client, "argocd"));
        let carrier = tokio::spawn(carry(from, to));
        let report = run(&plan, std::future::pending()).await.unwrap();
        assert_eq!(report.propagation.as_ref().unwrap().count, 50);
        assert_eq!(report.direct.as_ref().unwrap().count, 50);
        assert!(report.ratios.p50.is_some());
        assert_eq!(report.ratios.total.is_some(), matches!(pace, Pace::Burst { .. }));
        assert_eq!(report.removed_directly, 0);
        assert!(report.to_string().contains("50 applications"), "{report}");
        for (client, namespace) in
            [(&plan.from.client, "agent"), (&plan.to.client, "argocd"), (&plan.to.client, "default")]
        {
            assert_eq!(remaining(client, namespace).await, 0, "{namespace}");
        }
        carrier.abort();
    }
}

#[tokio::test]
async fn without_an_agent_the_error_says_what_did_not_arrive_and_nothing_is_left_behind() {
    let plan = Plan { patience: Duration::from_millis(100), ..plan(3, Pace::Burst { concurrency: 1 }).await };
    let error = format!("{:#}", run(&plan, std::future::pending()).await.unwrap_err());
    assert!(error.contains("only 0 of 2 applications were seen"), "{error}");
    assert_eq!(remaining(&plan.from.client, "agent").await, 0);
}

#[tokio::test]
async fn an_interrupted_run_cleans_up() {
    let plan = Plan { warm_up: 0, ..plan(1000, Pace::Rate(100.0)).await };
    let watched = plan.from.client.clone();
    let some_are_there = async move {
        while remaining(&watched, "agent").await == 0 {
            tokio::task::yield_now().await;
        }
    };
    let plan = Plan { patience: Duration::from_millis(100), ..plan };
    let error = run(&plan, some_are_there).await.unwrap_err().to_string();
    assert_eq!(error, "interrupted");
    assert_eq!(remaining(&plan.from.client, "agent").await, 0);
}

#[tokio::test]
async fn what_is_missing_is_named_before_anything_is_written() {
    let mut plan = plan(3, Pace::Burst { concurrency: 1 }).await;
    plan.from_namespace = "nowhere".into();
    let error = run(&plan, std::future::pending()).await.unwrap_err().to_string();
    assert!(error.contains("has no namespace \"nowhere\""), "{error}");
    plan.from_namespace = "default".into();
    plan.from.client = ApiServer::new(Options::default()).client();
    let error = run(&plan, std::future::pending()).await.unwrap_err().to_string();
    assert!(error.contains("custom resource definitions") || error.contains("no namespace"), "{error}");
    plan.count = MOST + 1;
    assert!(run(&plan, std::future::pending()).await.is_err());
}

#[tokio::test]
async fn leftovers_of_other_runs_can_be_swept() {
    let plan = plan(3, Pace::Burst { concurrency: 1 }).await;
    let names = Names::new("older", "m");
    let older = Plan { run: "older".into(), ..plan.clone() };
    write_all(&older, api(&plan.from.client, "agent"), &names, 3, plan.pace).await.unwrap();
    assert_eq!(sweep(&plan).await.unwrap(), 3);
    assert_eq!(remaining(&plan.from.client, "agent").await, 0);
}
