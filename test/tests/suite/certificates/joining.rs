//! Clusters that join with a token, and renew what they got.

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::api::Api;
use rustls::pki_types::ServerName;
use tiphys_agent::join::{self, Keeping};
use tiphys_proto::join::join_client::JoinClient;
use tiphys_proto::join::{AuthoritiesRequest, JoinRequest};
use tiphys_shared::kube::cluster_secret::Cluster;
use tiphys_shared::kube::join_secret;
use tiphys_shared::model::AgentName;
use tiphys_shared::process::clock;
use tiphys_shared::security::join_token::JoinToken;
use tiphys_shared::security::pki::{Ca, Request};
use tiphys_shared::security::secret::Secret as Hidden;
use tiphys_shared::security::tls::{Alpn, ClientTls, Material, Policy};
use tiphys_shared::wire::transport::{self, DialOptions};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::Code;

use super::super::fleet::{DAY, Fleet};
use super::{NAMESPACE, Stage, figure};

impl Stage {
    /// A token as the command line makes it.
    async fn token(&self, agent: &str, lives: std::time::Duration) -> JoinToken {
        let agent = AgentName::new(agent).unwrap();
        let token = JoinToken::generate(agent, self.ca.certificate_pem().as_bytes()).unwrap();
        let entry = join_secret::entry(&token, clock::now() + lives);
        super::put(&self.control, &join_secret::name(&token.id), &[(&token.id, &entry.0)]).await;
        token
    }

    /// Whether it could still be used.
    async fn keeps(&self, token: &JoinToken) -> bool {
        let kept = self.secrets().get(&join_secret::name(&token.id)).await.unwrap().data.unwrap_or_default();
        kept.contains_key(&token.id)
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.control.client(), NAMESPACE)
    }

    async fn enrol(&self, token: &JoinToken) -> Result<join::Joined, join::Error> {
        join::enrol("127.0.0.1", self.address.port(), token).await
    }

    fn enrolments(&self, kind: &str, outcome: &str) -> f64 {
        let labels = format!("kind=\"{kind}\",outcome=\"{outcome}\"");
        figure(&self.figures, "tiphys_principal_enrolments_total", &labels)
    }

    async fn joining(&self, material: &Material) -> JoinClient<transport::Channel> {
        let tls = ClientTls::new(material, Policy { alpn: Alpn::Join, ..Policy::default() }, false).unwrap();
        let dial = DialOptions::new("127.0.0.1", self.address.port(), Some(tls));
        JoinClient::new(transport::dial(&dial).await.unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_joins_with_a_token_connects_and_renews_its_certificate_by_itself() {
    let stage = Stage::start(&[]).await;
    let (token, other) = (stage.token("edge-1", DAY).await, stage.token("edge-1", DAY).await);
    let cluster = stage.cluster("edge-1").await;
    let keeping = Keeping::new(cluster.client(), NAMESPACE, false);
    keeping.check().await.unwrap();
    let there: Api<Secret> = Api::namespaced(cluster.client(), NAMESPACE);
    assert!(there.get_opt("argocd-agent-client-tls").await.unwrap().is_none(), "the check wrote something");
    let joined = stage.enrol(&token).await.unwrap();
    assert_eq!(joined.certificate.subject, "CN=edge-1");
    assert_eq!(joined.warning, None);
    keeping.keep(&joined.material).await.unwrap();
    assert!(matches!(keeping.check().await, Err(join::Error::Joined { .. })), "it would join twice");
    assert!(!stage.keeps(&token).await, "it can be used again");
    assert!(stage.keeps(&other).await, "another one was used up, too");
    let known = stage.secrets().get("cluster-edge-1").await.unwrap();
    assert_eq!(known.labels()["argocd-agent.argoproj-labs.io/agent-name"], "edge-1");
    let config = String::from_utf8(known.data.unwrap()["config"].0.clone()).unwrap();
    assert!(!config.contains("bearerToken") && config.contains("keyData"), "{config}");

    // Ten of its eleven days are over: renewal is due.
    let aged = stage.ca.issue_client::<&str>("edge-1", &[], clock::now() - 10 * DAY, 11 * DAY).unwrap();
    super::put_pair(&cluster, "argocd-agent-client-tls", &aged).await;
    let edge = stage.agent(cluster).await;
    Fleet::until("the renewal", async || {
        let secret = there.get("argocd-agent-client-tls").await.ok()?;
        let pem = secret.data?.get("tls.crt")?.0.clone();
        let now = tiphys_shared::security::pki::Certificate::from_pem(&pem).ok()?;
        (now.fingerprint != aged.leaf().ok()??.fingerprint && now.subject == "CN=edge-1").then_some(())
    })
    .await;
    assert!(stage.enrolments("renewal", "issued") >= 1.0);
    Stage::until_reloaded(&edge.figures, "client", 1.0).await;
    Fleet::until("the connection", async || edge.handle.is_connected().then_some(())).await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_are_used_expired_forged_or_raced_are_refused_and_so_are_other_names() {
    let stage = Stage::start(&[]).await;
    let refused = async |token: &JoinToken| match stage.enrol(token).await {
        Err(join::Error::Refused(status)) => status,
        other => panic!("{other:?}"),
    };
    let used = stage.token("edge-1", DAY).await;
    stage.enrol(&used).await.unwrap();
    assert_eq!(refused(&used).await.code(), Code::Unauthenticated);
    assert_eq!(stage.enrolments("join", "unknown"), 1.0);

    let expired = stage.token("edge-1", std::time::Duration::ZERO).await;
    let status = refused(&expired).await;
    assert!(status.message().contains("expired"), "{status}");
    assert_eq!(stage.enrolments("join", "expired"), 1.0);
    assert!(!stage.keeps(&expired).await, "what has expired is kept");

    let good = stage.token("edge-2", DAY).await;
    let other = stage.token("edge-3", DAY).await;
    let forged = JoinToken { secret: other.secret.clone(), ..good.clone() };
    let guessed = refused(&forged).await;
    assert_eq!(guessed.message(), refused(&used).await.message(), "a guess learns that the token exists");
    assert_eq!(stage.enrolments("join", "forged"), 1.0);
    let renamed = JoinToken { agent: AgentName::new("edge-9").unwrap(), ..good.clone() };
    assert_eq!(refused(&renamed).await.code(), Code::PermissionDenied);

    // A request for another name than the token's, by somebody who can write requests.
    let mut client = stage.joining(&Material::ca_only(stage.ca.certificate_pem())).await;
    for request in [Request::new("edge-9").unwrap().der, b"rubbish".to_vec(), Vec::new()] {
        let asked = JoinRequest {
            agent: "edge-2".to_owned(),
            id: good.id.clone(),
            secret: good.secret.expose_str().unwrap().to_owned(),
            request,
        };
        let status = client.join(asked).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    // None of that used the token up; and of many who come with it at once, one wins.
    let attempts = futures::future::join_all((0..8).map(|_| stage.enrol(&good))).await;
    let won = attempts.iter().filter(|attempt| attempt.is_ok()).count();
    assert_eq!(won, 1, "{attempts:?}");
    assert_eq!(stage.enrolments("join", "issued"), 2.0);

    // A principal whose CAs are others than the token says is told nothing.
    let stranger = Ca::generate("stranger", clock::now(), DAY).unwrap();
    let elsewhere =
        JoinToken::generate(AgentName::new("edge-4").unwrap(), stranger.certificate_pem().as_bytes())
            .unwrap();
    assert!(matches!(stage.enrol(&elsewhere).await, Err(join::Error::OtherAuthorities)));
    let cut = JoinToken { secret: Hidden::from("x"), ..good };
    assert_eq!(refused(&cut).await.code(), Code::Unauthenticated);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_finds_all_places_taken_comes_again_and_joins_when_there_is_one() {
    let stage =
        Stage::start_with(&[], |config| config.onboarding.enrolment.as_mut().unwrap().places = 1).await;
    let token = stage.token("edge-1", DAY).await;
    let turned_away =
        || figure(&stage.figures, "tiphys_principal_handshake_failures_total", "cause=\"turned-away\"");
    // Some who take places, and ask for nothing.
    let ca = Material::ca_only(stage.ca.certificate_pem());
    let tls = ClientTls::new(&ca, Policy { alpn: Alpn::Join, ..Policy::default() }, false).unwrap();
    let mut idle = Vec::new();
    Fleet::until("the first who finds no place", async || {
        let stream = TcpStream::connect(stage.address).await.unwrap();
        let name = ServerName::from(stage.address.ip());
        idle.push(TlsConnector::from(tls.current()).connect(name, stream).await.unwrap());
        (turned_away() >= 1.0).then_some(())
    })
    .await;
    let before = turned_away();
    let mut enrolling = Box::pin(stage.enrol(&token));
    tokio::select! {
        joined = &mut enrolling => panic!("there was no place: {joined:?}"),
        () = Fleet::until("that it is turned away", async || (turned_away() > before).then_some(())) => {}
    }
    drop(idle);
    assert_eq!(enrolling.await.unwrap().certificate.subject, "CN=edge-1");
    assert_eq!(stage.enrolments("join", "issued"), 1.0);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_certificate_reaches_nothing_but_joining() {
    let stage = Stage::start(&[]).await;
    let ca = Material::ca_only(stage.ca.certificate_pem());
    // The port as such still wants a certificate.
    let tls = ClientTls::new(&ca, Policy::default(), false).unwrap();
    let dial = DialOptions::new("127.0.0.1", stage.address.port(), Some(tls));
    let refused = transport::dial(&dial).await.unwrap_err();
    assert!(matches!(refused, transport::Error::ClientCertificateRequired { .. }), "{refused}");
    // By way of joining nothing else is served.
    let tls = ClientTls::new(&ca, Policy { alpn: Alpn::Join, ..Policy::default() }, false).unwrap();
    let channel =
        transport::dial(&DialOptions::new("127.0.0.1", stage.address.port(), Some(tls))).await.unwrap();
    JoinClient::new(channel.clone()).authorities(AuthoritiesRequest {}).await.unwrap();
    let mut version = tiphys_proto::version::version_client::VersionClient::new(channel.clone());
    let status = version.version(tiphys_proto::version::VersionRequest {}).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status}");
    let mut renewal = tiphys_proto::join::renewal_client::RenewalClient::new(channel);
    let request = tiphys_proto::join::RenewRequest { request: Request::new("edge-1").unwrap().der };
    assert_eq!(renewal.renew(request).await.unwrap_err().code(), Code::Unimplemented);
    stage.end().await;

    // Where it is turned off, nobody is let in so.
    let closed = Stage::start(&["--enable-join=false"]).await;
    let token = closed.token("edge-1", DAY).await;
    let refused = closed.enrol(&token).await.unwrap_err();
    assert!(matches!(refused, join::Error::NotOffered { .. }), "{refused}");
    closed.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_logs_in_gets_a_cluster_secret_whose_token_follows_the_key() {
    let stage = Stage::start(&[
        "--enable-self-cluster-registration=true",
        "--self-registration-client-cert-secret=shared",
        "--resource-proxy-address=proxy.example.com:9090",
    ])
    .await;
    let shared = stage.ca.issue_client::<&str>("argocd", &[], clock::now(), DAY).unwrap();
    let data = [("tls.crt", &*shared.chain), ("tls.key", shared.key.expose()), ("ca.crt", &*shared.ca)];
    super::put(&stage.control, "shared", &data).await;
    // One that people have made stays as it is.
    super::put(&stage.control, "cluster-kept", &[("server", b"https://mine")]).await;
    for name in ["edge-1", "kept"] {
        let certificate = stage.ca.issue_client::<&str>(name, &[], clock::now(), DAY).unwrap();
        stage.agent(stage.known_cluster(name, &certificate).await).await;
    }
    let kept = stage.secrets().get("cluster-kept").await.unwrap();
    assert_eq!(kept.data.unwrap()["server"].0, b"https://mine");
    let made = stage.secrets().get("cluster-edge-1").await.unwrap();
    assert_eq!(made.labels()["argocd-agent.argoproj-labs.io/self-registered-cluster"], "true");
    assert_eq!(made.annotations()["argocd.argoproj.io/skip-reconcile"], "true");
    let server = made.data.as_ref().unwrap()["server"].0.clone();
    assert_eq!(server, b"https://proxy.example.com:9090?agentName=edge-1");
    let token = token_in(&made).unwrap();

    let key = tiphys_shared::security::token::Issuer::generate_key(2048).unwrap();
    super::put(&stage.control, "argocd-agent-jwt", &[("jwt.key", key.expose())]).await;
    Fleet::until("the new token", async || {
        let now = stage.secrets().get("cluster-edge-1").await.ok()?;
        let now = token_in(&now)?;
        let issuer = tiphys_shared::security::token::Issuer::from_pem(&key).unwrap();
        (now != token && issuer.verify_resource_proxy(&now, clock::now()).is_ok()).then_some(())
    })
    .await;
    stage.end().await;
}

fn token_in(secret: &Secret) -> Option<String> {
    Cluster::read(secret).ok()?.token().map(str::to_owned)
}
