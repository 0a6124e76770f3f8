//! Argo CD takes the principal for its Redis, and finds what clusters keep there of their Applications.

mod hostile;
mod subscriptions;

use std::time::Duration;

use redis::aio::{MultiplexedConnection, PubSub};
use redis::{AsyncCommands as _, AsyncConnectionConfig, Client};
use tiphys_shared::model::Kind;
use tiphys_shared::process::clock;
use tiphys_shared::security::tls::{Alpn, Material, Policy, ServerTls};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::fleet::{DAY, Fleet, application, create_namespace};
use crate::redis_server::RedisServer;

/// A fleet with a Redis proxy, the Redis behind it, and that of the one agent.
struct Stage {
    fleet: Fleet,
    control: RedisServer,
    cluster: RedisServer,
}

fn tree(application: &str) -> String {
    format!("app|resources-tree|{application}|1.8.3.gz")
}

fn changes(application: &str) -> String {
    format!("app|managed-resources|{application}|1.8.3")
}

impl Stage {
    async fn managed() -> Self {
        Self::of(Fleet::embedded(&["edge"]).await, |_| {}).await
    }

    /// Sides are started anew, as `change` has them.
    async fn of(mut fleet: Fleet, change: impl FnOnce(&mut Fleet)) -> Self {
        let (control, cluster) = (RedisServer::start("hunter2").await, RedisServer::start("hunter3").await);
        fleet.kill_agent("edge");
        fleet.kill_principal();
        fleet.redis_proxy = Some((control.access(), None));
        fleet.redis.insert("edge".to_owned(), cluster.access());
        change(&mut fleet);
        fleet.start_principal().await;
        fleet.start_agent("edge");
        Self { fleet, control, cluster }
    }

    fn client(&self) -> Client {
        client(&self.fleet, "")
    }

    async fn connection(&self) -> MultiplexedConnection {
        connect(&self.client()).await
    }

    async fn pubsub(&self) -> PubSub {
        self.client().get_async_pubsub().await.unwrap()
    }

    /// Creates an Application of the agent, and waits until it is at its cluster.
    async fn create(&self, name: &str) {
        self.fleet.create("edge", name).await;
        let there = self.fleet.at_cluster(Kind::Application, "edge");
        Fleet::until_is(&there, name, "the copy", |_| true).await;
    }
}

fn client(fleet: &Fleet, extra: &str) -> Client {
    Client::open(format!("redis://:hunter2@{}/{extra}", fleet.redis_proxy_address())).unwrap()
}

async fn connect(client: &Client) -> MultiplexedConnection {
    // Machines may be slow, and large values are.
    let patient = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(Duration::from_secs(30)))
        .set_response_timeout(Some(Duration::from_secs(30)));
    client.get_multiplexed_async_connection_with_config(&patient).await.unwrap()
}

/// What is kept under a key, once it is not nothing.
async fn until_there(connection: &mut MultiplexedConnection, key: &str) -> Vec<u8> {
    Fleet::until(key, async || connection.get::<_, Option<Vec<u8>>>(key).await.ok().flatten()).await
}

/// Speaks to the proxy as it is told to, and returns what comes back before the connection ends.
async fn raw(fleet: &Fleet, said: &[u8]) -> String {
    let mut stream = tokio::net::TcpStream::connect(fleet.redis_proxy_address()).await.unwrap();
    stream.write_all(said).await.unwrap();
    let mut heard = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut heard)).await;
    read.expect("the connection stays open").unwrap();
    String::from_utf8_lossy(&heard).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn argocd_reads_what_a_cluster_keeps_of_its_applications_and_all_else_at_home() {
    let stage = Stage::managed().await;
    stage.create("shop").await;
    let binary: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    stage.cluster.keep(&tree("shop"), binary.clone());
    stage.cluster.keep(&tree("secret"), b"not of the control plane".into());
    stage.cluster.keep("cluster|info|x|1.8.3.gz", b"not of an application".into());
    stage.control.keep(&tree("local"), b"local".into());
    let mut connection = stage.connection().await;
    assert!(until_there(&mut connection, &tree("edge_shop")).await == binary);

    // A key without an underscore is the control plane's, and so is one that is nobody's.
    let get = async |key: &str| stage.connection().await.get::<_, Option<String>>(key).await.unwrap();
    assert_eq!(get(&tree("local")).await.as_deref(), Some("local"));
    assert_eq!(get(&tree("edge_secret")).await, None);
    assert_eq!(get("cluster|info|x|1.8.3.gz").await, None);
    assert_eq!(get(&changes("edge_shop")).await, None, "nothing is kept there");
    let _: () = connection.set("mfst|edge_shop|1.8.3.gz", "kept").await.unwrap();
    assert_eq!(get("mfst|edge_shop|1.8.3.gz").await.as_deref(), Some("kept"));
    assert_eq!(stage.fleet.figure("argocd_principal_redis_proxy_errors_total"), 0);
    assert!(stage.fleet.figure("argocd_principal_redis_proxy_requests_total") >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_keep_their_order_in_pipelines_and_transactions_and_in_both_versions_of_the_protocol() {
    let stage = Stage::managed().await;
    stage.create("shop").await;
    stage.cluster.keep(&tree("shop"), b"far".into());
    stage.control.keep("near", b"near".into());
    let mut connection = stage.connection().await;
    until_there(&mut connection, &tree("edge_shop")).await;
    for (extra, version) in [("", 2), ("?protocol=resp3", 3)] {
        let mut connection = connect(&client(&stage.fleet, extra)).await;
        for atomic in [false, true] {
            let mut pipeline = redis::pipe();
            if atomic {
                pipeline.atomic();
            }
            for _ in 0..50 {
                pipeline.get("near").get(tree("edge_shop")).get("nowhere").get(changes("edge_shop"));
            }
            let replies: Vec<Option<String>> = pipeline.query_async(&mut connection).await.unwrap();
            let four = [Some("near".to_owned()), Some("far".to_owned()), None, None];
            let expected: Vec<_> = four.iter().cycle().take(200).cloned().collect();
            assert_eq!(replies, expected, "version {version}, atomic {atomic}");
        }
    }
    // A miss is what the version calls nothing.
    let key = changes("edge_shop");
    let get = format!("*2\r\n$3\r\nGet\r\n${}\r\n{key}\r\n", key.len());
    let said = |version| {
        format!(
            "*5\r\n$5\r\nHELLO\r\n$1\r\n{version}\r\n$4\r\nAUTH\r\n$7\r\ndefault\r\n$7\r\nhunter2\r\n{get}"
        )
    };
    for (version, nothing) in [(2, "$-1\r\n"), (3, "_\r\n")] {
        let mut stream = tokio::net::TcpStream::connect(stage.fleet.redis_proxy_address()).await.unwrap();
        stream.write_all(said(version).as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.unwrap();
        assert!(heard.ends_with(&format!("proto\r\n:{version}\r\n{nothing}")), "{heard:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_too_large_for_a_message_is_an_error_and_nothing_waits_for_it() {
    let fleet = Fleet::with_messages_of(&["edge"], 256 * 1024).await;
    let stage = Stage::of(fleet, |_| {}).await;
    stage.create("shop").await;
    stage.cluster.keep(&tree("shop"), vec![b'x'; 300 * 1024]);
    stage.cluster.keep(&changes("shop"), b"small".into());
    let mut connection = stage.connection().await;
    assert_eq!(until_there(&mut connection, &changes("edge_shop")).await, b"small");
    let error = connection.get::<_, Option<String>>(tree("edge_shop")).await.unwrap_err().to_string();
    assert!(error.contains("edge") && error.contains("--grpc-max-message-size"), "{error}");
    assert_eq!(until_there(&mut connection, &changes("edge_shop")).await, b"small");
    stage.create("other").await;
    stage.fleet.until_quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_an_error_that_names_the_agent_and_the_cause() {
    let mut stage = Stage::managed().await;
    stage.create("shop").await;
    stage.cluster.keep(&tree("shop"), b"far".into());
    let mut connection = stage.connection().await;
    until_there(&mut connection, &tree("edge_shop")).await;

    stage.cluster.stop().await;
    let error = connection.get::<_, Option<String>>(tree("edge_shop")).await.unwrap_err().to_string();
    assert!(error.contains("agent edge") && error.contains("redis"), "{error}");
    stage.cluster.resume().await;
    until_there(&mut connection, &tree("edge_shop")).await;

    stage.fleet.kill_agent("edge");
    let cause = Fleet::until("the end of the agent", async || {
        connection.get::<_, Option<String>>(tree("edge_shop")).await.err()
    })
    .await;
    assert!(cause.to_string().contains("agent edge"), "{cause}");
    let away = Fleet::until("no agent", async || {
        let error = connection.get::<_, Option<String>>(tree("edge_shop")).await.unwrap_err().to_string();
        error.contains("not connected").then_some(error)
    })
    .await;
    assert!(away.contains(&tree("edge_shop")), "{away}");
    stage.fleet.start_agent("edge");
    until_there(&mut connection, &tree("edge_shop")).await;

    stage.control.stop().await;
    let heard = raw(&stage.fleet, b"PING\r\n").await;
    assert!(heard.starts_with("-ERR the control plane's redis cannot be reached: "), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_autonomous_cluster_is_asked_for_what_it_shows() {
    let stage = Stage::of(Fleet::autonomous(&["edge"]).await, |_| {}).await;
    let here = stage.fleet.at_cluster(Kind::Application, "edge");
    here.create(&Default::default(), &application("shop", "main")).await.unwrap();
    let shown = stage.fleet.at_control(Kind::Application, "edge");
    Fleet::until_is(&shown, "shop", "what is shown", |_| true).await;
    stage.cluster.keep(&tree("shop"), b"far".into());
    let mut connection = stage.connection().await;
    assert_eq!(until_there(&mut connection, &tree("edge_shop")).await, b"far");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_follow_applications_into_other_namespaces() {
    let mut fleet = Fleet::embedded(&["edge"]).await;
    for cluster in [fleet.control.client(), fleet.cluster("edge").client()] {
        create_namespace(&cluster, "team-a").await;
    }
    fleet.by_destination = true;
    let stage = Stage::of(fleet, |_| {}).await;
    // One in a namespace of its own, one beside Argo CD.
    let namespace = stage.fleet.namespace.clone();
    for namespace in ["team-a", namespace.as_str()] {
        let mut shop = application("shop", "main");
        shop.data["spec"]["destination"]["name"] = "edge".into();
        let control = tiphys_shared::kube::kinds::api(
            &stage.fleet.control.client(),
            Kind::Application,
            Some(namespace),
        );
        control.create(&Default::default(), &shop).await.unwrap();
        let cluster = stage.fleet.cluster("edge").client();
        let there = tiphys_shared::kube::kinds::api(&cluster, Kind::Application, Some(namespace));
        Fleet::until_is(&there, "shop", "the copy", |_| true).await;
    }
    stage.cluster.keep(&tree("team-a_shop"), b"of the team".into());
    stage.cluster.keep(&tree("shop"), b"beside argo cd".into());
    let mut connection = stage.connection().await;
    assert_eq!(until_there(&mut connection, &tree("team-a_shop")).await, b"of the team");
    assert_eq!(until_there(&mut connection, &tree("shop")).await, b"beside argo cd");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_speaks_tls_with_the_certificate_that_it_is_given() {
    let stage = Stage::of(Fleet::embedded(&["edge"]).await, |fleet| {
        let material = fleet.ca.issue_server(&["localhost"], clock::now(), DAY).unwrap();
        let policy = Policy { alpn: Alpn::None, ..Policy::default() };
        let tls = ServerTls::new(&material, policy).unwrap();
        fleet.redis_proxy.as_mut().unwrap().1 = Some(tls);
    })
    .await;
    stage.create("shop").await;
    stage.cluster.keep(&tree("shop"), b"far".into());
    let material = Material::ca_only(stage.fleet.ca.certificate_pem().as_bytes());
    let policy = Policy { alpn: Alpn::None, ..Policy::default() };
    let tls = tiphys_shared::security::tls::ClientTls::new(&material, policy, false).unwrap();
    let port = stage.fleet.redis_proxy_address().port();
    let access = tiphys_shared::redis::Config {
        address: tiphys_shared::process::options::HostPort::new("localhost", port).unwrap(),
        tls: Some(tls),
        ..stage.control.access()
    };
    let mut redis = tiphys_shared::redis::Redis::new(access);
    let value =
        Fleet::until("the value", async || redis.get(&tree("edge_shop")).await.unwrap_or_default()).await;
    assert_eq!(value, b"far");
    // Who speaks no TLS learns nothing.
    assert!(!raw(&stage.fleet, b"*1\r\n$4\r\nPING\r\n").await.contains("PONG"));
}
