//! Somebody who connects to the principal with the certificate of an agent, besides the agent.

use std::net::SocketAddr;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tiphys_proto::auth::AuthRequest;
use tiphys_proto::auth::authentication_client::AuthenticationClient;
use tiphys_proto::version::VersionRequest;
use tiphys_proto::version::version_client::VersionClient;
use tiphys_shared::model::Mode;
use tiphys_shared::security::pki;
use tiphys_shared::security::tls::{ClientTls, Material, Policy};
use tiphys_shared::wire::transport::{self, DialOptions};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::Channel;

use crate::chaos::realm::ARGOCD;
use crate::installation::Edge;

/// What an agent proves who it is with, as it is now.
pub(super) struct Identity {
    pub(super) name: String,
    material: Mutex<Material>,
}

impl Identity {
    /// Those of an agent.
    pub(super) async fn of(edge: &Edge) -> anyhow::Result<Self> {
        Ok(Self { name: edge.name().to_owned(), material: Mutex::new(edge.material().await?) })
    }

    pub(super) fn now(&self) -> Material {
        self.material.lock().clone()
    }

    /// Another certificate. Whom it believes stays.
    pub(super) fn replace(&self, next: Material) {
        let mut material = self.material.lock();
        let ca = std::mem::take(&mut material.ca);
        *material = Material { ca, ..next };
    }

    /// Other CAs are believed.
    pub(super) fn believe(&self, authorities: &[u8]) {
        self.material.lock().ca = authorities.to_vec();
    }
}

/// A token, and which key has signed it.
pub(super) struct Token {
    text: String,
    pub(super) key: String,
}

/// Connects, and is let in: with TLS 1.3 a server refuses a certificate only after the client has done its part.
pub(super) async fn dial(address: SocketAddr, material: &Material) -> anyhow::Result<Channel> {
    let tls = ClientTls::new(material, Policy::default(), false)?;
    let options = DialOptions::new(address.ip().to_string(), address.port(), Some(tls));
    Ok(transport::dial(&options).await?)
}

/// The fingerprint of the certificate that a port shows.
pub(super) async fn shown(address: SocketAddr, material: &Material) -> anyhow::Result<String> {
    let stream = connect(address, material).await?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    Ok(pki::fingerprint(chain.first().context("there is no certificate")?))
}

/// Asks for something over a connection of its own.
pub(super) async fn get(address: SocketAddr, material: &Material, path: &str) -> anyhow::Result<StatusCode> {
    let stream = TokioIo::new(connect(address, material).await?);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await?;
    let request = Request::get(format!("https://{address}{path}")).body(Empty::<Bytes>::new())?;
    tokio::select! {
        response = sender.send_request(request) => Ok(response?.status()),
        ended = connection => {
            ended?;
            anyhow::bail!("the connection ended before there was an answer")
        }
    }
}

async fn connect(address: SocketAddr, material: &Material) -> anyhow::Result<TlsStream<TcpStream>> {
    let tls = ClientTls::new(material, Policy::default(), false)?;
    let stream = TcpStream::connect(address).await?;
    Ok(TlsConnector::from(tls.current()).connect(ServerName::from(address.ip()), stream).await?)
}

/// Logs in as the agent of a certificate, without opening a stream.
pub(super) async fn login(address: SocketAddr, material: &Material) -> anyhow::Result<Token> {
    let request = AuthRequest {
        method: "mtls".to_owned(),
        credentials: Default::default(),
        mode: Mode::Managed.as_str().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        agent_namespace: ARGOCD.to_owned(),
    };
    let mut client = AuthenticationClient::new(dial(address, material).await?);
    let text = client.authenticate(request).await?.into_inner().access_token;
    let header = URL_SAFE_NO_PAD.decode(text.split('.').next().unwrap_or_default())?;
    let header: serde_json::Value = serde_json::from_slice(&header)?;
    let key = header["kid"].as_str().context("the token does not name its key")?.to_owned();
    Ok(Token { text, key })
}

/// Calls the principal with a token.
pub(super) async fn use_token(address: SocketAddr, material: &Material, token: &Token) -> anyhow::Result<()> {
    let mut request = tonic::Request::new(VersionRequest {});
    request.metadata_mut().insert("authorization", token.text.parse()?);
    VersionClient::new(dial(address, material).await?).version(request).await?;
    Ok(())
}
