//! Names and passwords in, tokens out, and tokens renewed.

use std::collections::BTreeMap;

use tiphys_proto::auth::authentication_client::AuthenticationClient;
use tiphys_proto::auth::{AuthRequest, RefreshTokenRequest};
use tiphys_proto::version::VersionRequest;
use tiphys_proto::version::version_client::VersionClient;
use tiphys_shared::security::passwords::{self, Passwords};
use tiphys_shared::security::secret::Secret;
use tiphys_shared::security::subject::AuthRule;
use tiphys_shared::security::token::Issuer;
use tiphys_shared::wire::transport::{self, DialOptions};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request};

use super::super::fleet::{Cluster, control_plane, create_namespace};

fn login(user: &str, password: &str) -> AuthRequest {
    AuthRequest {
        method: "userpass".into(),
        credentials: BTreeMap::from([
            ("clientid".to_owned(), user.to_owned()),
            ("clientsecret".to_owned(), password.to_owned()),
        ]),
        mode: "managed".into(),
        version: "test".into(),
        agent_namespace: "argocd".into(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_the_right_password_gets_tokens_that_can_be_renewed_and_nobody_else_does() {
    let control = Cluster::embedded();
    create_namespace(&control.client(), "argocd").await;
    let users = format!("alice:{}\n", passwords::hash(&Secret::new("open sesame")).unwrap());
    let stop = CancellationToken::new();
    let bound = tiphys_principal::bind(tiphys_principal::Config {
        control_plane: control_plane(control.client(), "argocd"),
        listen: ([127, 0, 0, 1], 0).into(),
        tls: None,
        connections: tiphys_principal::Connections::default(),
        auth: AuthRule::parse("userpass:users").unwrap(),
        passwords: Some(Passwords::new("users", &users.into()).unwrap()),
        client_cert_subject_match: false,
        issuer: Issuer::generate(2048).unwrap().0,
        proxy: None,
        onboarding: tiphys_principal::Onboarding::default(),
        redis_proxy: None,
        web: None,
        traces: Default::default(),
        recorder: Default::default(),
    })
    .await
    .unwrap();
    let (address, handle) = (bound.address(), bound.handle());
    let running = tokio::spawn(bound.run(stop.clone()));
    handle.ready().await;
    let channel = transport::dial(&DialOptions::new("127.0.0.1", address.port(), None)).await.unwrap();
    let mut client = AuthenticationClient::new(channel.clone());

    for (user, password) in [("alice", "wrong"), ("alice", ""), ("bob", "open sesame"), ("", "")] {
        let refused = client.authenticate(login(user, password)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{user}");
        assert_eq!(refused.message(), "user or password is wrong", "it tells whether {user:?} exists");
    }
    let other_method = AuthRequest { method: "mtls".into(), ..login("alice", "open sesame") };
    let refused = client.authenticate(other_method).await.unwrap_err();
    assert!(refused.message().contains("userpass"), "{refused}");
    let no_mode = AuthRequest { mode: "both".into(), ..login("alice", "open sesame") };
    assert_eq!(client.authenticate(no_mode).await.unwrap_err().code(), Code::InvalidArgument);

    let pair = client.authenticate(login("alice", "open sesame")).await.unwrap().into_inner();
    assert_eq!(pair.principal_namespace, "argocd");
    let renewed = client
        .refresh_token(RefreshTokenRequest { refresh_token: pair.refresh_token.clone() })
        .await
        .unwrap()
        .into_inner();
    for token in [&pair.access_token, &renewed.access_token] {
        let mut request = Request::new(VersionRequest {});
        request.metadata_mut().insert("authorization", token.parse().unwrap());
        let version =
            VersionClient::new(channel.clone()).version(request).await.unwrap().into_inner().version;
        assert!(version.starts_with("tiphys-"), "{version}");
    }
    // An access token renews nothing.
    let misused = RefreshTokenRequest { refresh_token: pair.access_token };
    assert_eq!(client.refresh_token(misused).await.unwrap_err().code(), Code::Unauthenticated);
    stop.cancel();
    running.await.unwrap().unwrap();
}
