//! A byte stream to a principal: straight or through a proxy, and TLS on it if that is wanted.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::dial::DialOptions;
use super::failure::{CONNECTING, Error};
use super::proxy;
use crate::security::tls::{Alpn, ReadAhead};

/// Bytes in both directions.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A byte stream, however it came about.
pub(super) type Connected = Box<dyn Io>;

/// Connects and shakes hands with the TLS configuration of this moment. `alpn` says what is to be spoken if it is not what
/// the configuration says.
pub(super) async fn connect(
    options: &DialOptions,
    alpn: Option<Alpn>,
    deadline: Instant,
) -> Result<Connected, Error> {
    let target = options.target();
    let late = |during| Error::Timeout { target: target.clone(), during, after: options.connect_timeout };
    let stream: Connected = match &options.proxy {
        None => {
            let connecting = tcp(&options.host, options.port, &target);
            Box::new(timeout_at(deadline, connecting).await.map_err(|_| late(CONNECTING))??)
        }
        Some(proxy) => {
            let connecting = proxy::tunnel(proxy, &target);
            timeout_at(deadline, connecting).await.map_err(|_| late("connecting through the proxy"))??
        }
    };
    let Some(tls) = &options.tls else { return Ok(stream) };
    let name = options.server_name()?;
    let config = match alpn {
        None => tls.current(),
        Some(alpn) => speaking(&tls.current(), alpn),
    };
    let handshake = TlsConnector::from(config).connect(name, ReadAhead::new(stream));
    let stream =
        timeout_at(deadline, handshake).await.map_err(|_| late("tls handshake"))?.map_err(|error| {
            match Error::from_tls(&target, error, "during the tls handshake") {
                Error::NotHttp2 { target } if alpn == Some(Alpn::Http1) => {
                    Error::NotWebSocket { target, reason: "it speaks no http/1.1".to_owned() }
                }
                other => other,
            }
        })?;
    Ok(Box::new(stream))
}

fn speaking(config: &ClientConfig, alpn: Alpn) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.alpn_protocols = alpn.protocols();
    Arc::new(config)
}

/// A host without the brackets that an IPv6 address may stand in.
pub(super) fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Connects to the first address of a host that takes it.
pub(super) async fn tcp(host: &str, port: u16, target: &str) -> Result<TcpStream, Error> {
    let host = bare(host);
    let addresses: Vec<_> = match host.parse::<IpAddr>() {
        Ok(address) => vec![(address, port).into()],
        Err(_) => tokio::net::lookup_host((host, port))
            .await
            .map_err(|source| Error::NameNotFound { host: host.to_owned(), source: Arc::new(source) })?
            .collect(),
    };
    let mut failure = None;
    for address in addresses {
        match TcpStream::connect(address).await.and_then(|stream| stream.set_nodelay(true).map(|()| stream)) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = Some(error),
        }
    }
    Err(match failure {
        Some(error) => Error::from_connect(target, error),
        None => Error::NameNotFound {
            host: host.to_owned(),
            source: Arc::new(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
        },
    })
}

/// Speaks HTTP/1.1 on a stream, with heads of up to `head` bytes in answers, to ask for one upgrade. The connection ends with
/// what carries it; what it was upgraded to does not.
pub(super) async fn http1(
    stream: Connected,
    head: usize,
) -> hyper::Result<(SendRequest<Empty<Bytes>>, AbortOnDropHandle<hyper::Result<()>>)> {
    let (sender, connection) =
        http1::Builder::new().max_buf_size(head).handshake(TokioIo::new(stream)).await?;
    Ok((sender, AbortOnDropHandle::new(tokio::spawn(connection.with_upgrades()))))
}

/// The same error once more. What matters inside is rustls' error, which can be copied.
pub(super) fn copy(error: &io::Error) -> io::Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(inner) => io::Error::new(error.kind(), inner.clone()),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}
