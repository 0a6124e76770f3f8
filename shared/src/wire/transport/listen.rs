//! Accept connections; shake hands with many at once.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::Stream;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

use super::connection::Connection;
use crate::security::pki;
use crate::security::tls::{ReadAhead, ServerTls};

/// How long to wait when the process has no file descriptors left: accepting would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// After this long without a word, the system asks whether the peer is still there. A watch or a terminal may be silent for
/// hours, and nothing else tells that whoever opened it has vanished.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(15));
/// How long a peer that was refused gets to hear of it.
const LINGER: Duration = Duration::from_secs(1);

/// Told of connections that came to nothing.
pub type OnFailure = Arc<dyn Fn(&HandshakeFailure) + Send + Sync>;

/// What a listener allows a peer that has not proved anything yet.
#[derive(Clone)]
pub struct Limits {
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// How many handshakes may be under way. More connections wait in the kernel's queue.
    pub max_handshakes: usize,
    /// Called for each connection that came to nothing (a counter, say). It is logged anyway.
    pub on_failure: Option<OnFailure>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { handshake_timeout: Duration::from_secs(10), max_handshakes: 512, on_failure: None }
    }
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits")
            .field("handshake_timeout", &self.handshake_timeout)
            .field("max_handshakes", &self.max_handshakes)
            .finish_non_exhaustive()
    }
}

/// A connection that came to nothing.
#[derive(Debug)]
pub struct HandshakeFailure {
    /// Where it came from, when that is known.
    pub address: Option<SocketAddr>,
    /// Why.
    pub error: HandshakeError,
}

/// Why a connection came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The kernel did not hand over a connection.
    #[error("cannot accept: {0}")]
    Accept(io::Error),
    /// The peer was too slow.
    #[error("no tls handshake within {0:?}")]
    Timeout(Duration),
    /// The peer went away.
    #[error("peer closed the connection during the tls handshake: {0}")]
    Closed(io::Error),
    /// The peer speaks something else.
    #[error("peer does not speak tls: {0}")]
    NotTls(rustls::Error),
    /// The peer has no certificate where one is required.
    #[error("peer presented no certificate")]
    NoCertificate,
    /// The peer's certificate is not good.
    #[error("peer's certificate was refused: {0}")]
    BadCertificate(String),
    /// The peer's certificate is on the blocklist.
    #[error("peer's certificate has been revoked")]
    Revoked,
    /// The peer wants a certificate, as too many others do at this moment. It may come again.
    #[error("peer was turned away: too many want to join at this moment")]
    TurnedAway,
    /// The peer does not like us.
    #[error("peer refused the handshake: {0:?}")]
    Refused(rustls::AlertDescription),
    /// Versions, suites or protocols do not overlap, or the like.
    #[error("tls handshake failed: {0}")]
    Tls(rustls::Error),
}

impl HandshakeError {
    /// A short fixed word for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Accept(_) => "accept",
            Self::Timeout(_) => "timeout",
            Self::Closed(_) => "closed",
            Self::NotTls(_) => "not-tls",
            Self::NoCertificate => "no-certificate",
            Self::BadCertificate(_) => "bad-certificate",
            Self::Revoked => "revoked",
            Self::TurnedAway => "turned-away",
            Self::Refused(_) => "refused",
            Self::Tls(_) => "tls",
        }
    }

    fn classify(error: io::Error) -> Self {
        match error.downcast::<rustls::Error>() {
            Ok(rustls::Error::NoCertificatesPresented) => Self::NoCertificate,
            Ok(rustls::Error::InvalidCertificate(rustls::CertificateError::Revoked)) => Self::Revoked,
            Ok(rustls::Error::InvalidCertificate(reason)) => Self::BadCertificate(reason.to_string()),
            Ok(e @ rustls::Error::InvalidMessage(_)) => Self::NotTls(e),
            Ok(rustls::Error::AlertReceived(alert)) => Self::Refused(alert),
            Ok(e) => Self::Tls(e),
            Err(e) => Self::Closed(e),
        }
    }
}

/// Connections ready to be served, in the order in which their handshakes end. See [`listen`].
pub struct Incoming {
    listener: TcpListener,
    tls: Option<ServerTls>,
    limits: Limits,
    handshakes: JoinSet<Result<Connection, HandshakeFailure>>,
    pause: Option<Pin<Box<Sleep>>>,
    enrolments: Option<mpsc::Sender<Connection>>,
}

/// Accepts connections from `listener`, with TLS when there is a `tls`, for tonic's `serve_with_incoming`.
///
/// Handshakes run beside each other on the runtime's threads, so that a slow peer delays nobody; each uses the
/// certificates that are current when it starts. A connection that fails is logged and reported, and never ends
/// the stream: the stream has no end and no errors. Dropping it aborts the handshakes under way.
pub fn listen(listener: TcpListener, tls: Option<ServerTls>, limits: Limits) -> Incoming {
    Incoming { listener, tls, limits, handshakes: JoinSet::new(), pause: None, enrolments: None }
}

impl Incoming {
    /// Sends connections of peers that have no certificate and want one another way. Without that they are refused, and so are
    /// those for whom there is no room.
    pub fn diverting(self, enrolments: mpsc::Sender<Connection>) -> Self {
        Self { enrolments: Some(enrolments), ..self }
    }

    /// Sends a connection its way; what is to be served here is returned.
    fn divert(&self, connection: Connection) -> Option<Connection> {
        if !connection.is_enrolment() {
            return Some(connection);
        }
        let address = connection.peer().address;
        let sent = self.enrolments.as_ref().is_some_and(|to| to.try_send(connection).is_ok());
        if !sent {
            self.report(&HandshakeFailure { address, error: HandshakeError::TurnedAway });
        }
        None
    }

    fn report(&self, failure: &HandshakeFailure) {
        let address = failure.address.map(tracing::field::display);
        tracing::warn!(
            address,
            reason = failure.error.reason(),
            error = %failure.error,
            "connection came to nothing"
        );
        if let Some(on_failure) = &self.limits.on_failure {
            on_failure(failure);
        }
    }

    fn poll_handshakes(&mut self, cx: &mut Context<'_>) -> Poll<Connection> {
        loop {
            match ready!(self.handshakes.poll_join_next(cx)) {
                Some(Ok(Ok(connection))) => {
                    if let Some(connection) = self.divert(connection) {
                        return Poll::Ready(connection);
                    }
                }
                Some(Ok(Err(failure))) => self.report(&failure),
                // Only a panic gets here; the runtime has printed it, and it cost one connection.
                Some(Err(error)) => tracing::error!(%error, "tls handshake ended abnormally"),
                // Empty: whoever adds one polls again.
                None => return Poll::Pending,
            }
        }
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<(TcpStream, SocketAddr)> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match ready!(self.listener.poll_accept(cx)) {
                Ok((stream, address)) => {
                    if let Err(error) = prepare(&stream) {
                        // The peer is gone already; reading will tell.
                        tracing::debug!(%address, %error, "cannot set the options of a connection");
                    }
                    return Poll::Ready((stream, address));
                }
                Err(error) => {
                    let gone = matches!(
                        error.kind(),
                        io::ErrorKind::ConnectionAborted
                            | io::ErrorKind::ConnectionReset
                            | io::ErrorKind::Interrupted
                    );
                    self.report(&HandshakeFailure { address: None, error: HandshakeError::Accept(error) });
                    if !gone {
                        self.pause = Some(Box::pin(sleep(ACCEPT_PAUSE)));
                    }
                }
            }
        }
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&KEEPALIVE)
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Poll::Ready(connection) = this.poll_handshakes(cx) {
                return Poll::Ready(Some(Ok(connection)));
            }
            if this.handshakes.len() >= this.limits.max_handshakes {
                return Poll::Pending;
            }
            let (stream, address) = ready!(this.poll_accept(cx));
            match &this.tls {
                None => return Poll::Ready(Some(Ok(Connection::plain(stream, address)))),
                Some(tls) => {
                    this.handshakes.spawn(handshake(
                        tls.clone(),
                        stream,
                        address,
                        this.limits.handshake_timeout,
                    ));
                }
            }
        }
    }
}

async fn handshake(
    tls: ServerTls,
    stream: TcpStream,
    address: SocketAddr,
    timeout: Duration,
) -> Result<Connection, HandshakeFailure> {
    let fail = |error| HandshakeFailure { address: Some(address), error };
    let (stream, enrolment) =
        match tokio::time::timeout(timeout, shake_hands(&tls, ReadAhead::new(stream))).await {
            Err(_) => return Err(fail(HandshakeError::Timeout(timeout))),
            Ok(Err(error)) => return Err(fail(HandshakeError::classify(error))),
            Ok(Ok(shaken)) => shaken,
        };
    if enrolment {
        return Ok(Connection::enrolment(stream, address));
    }
    let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let certificate = leaf
        .map(|der| pki::Certificate::from_der(der))
        .transpose()
        .map_err(|e| fail(HandshakeError::BadCertificate(e.to_string())))?;
    let pass = certificate
        .as_ref()
        .map(|certificate| tls.blocklist().admit(&certificate.fingerprint))
        .transpose()
        .map_err(|_| fail(HandshakeError::Revoked))?;
    Ok(Connection::tls(stream, address, certificate, pass))
}

/// Shakes hands. Tells, too, whether the peer is one without a certificate that wants one.
async fn shake_hands(
    tls: &ServerTls,
    stream: ReadAhead<TcpStream>,
) -> io::Result<(TlsStream<ReadAhead<TcpStream>>, bool)> {
    let (accept, is_enrolment) = match tls.enrolment() {
        None => (TlsAcceptor::from(tls.current()).accept(stream), false),
        Some(enrolment) => {
            let begun = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
            if ServerTls::wants_enrolment(&begun.client_hello()) {
                (begun.into_stream(enrolment), true)
            } else {
                (begun.into_stream(tls.current()), false)
            }
        }
    };
    match accept.into_fallible().await {
        Ok(stream) => Ok((stream, is_enrolment)),
        Err((error, stream)) => {
            let_hear(stream).await;
            Err(error)
        }
    }
}

/// Lets a peer read why it was refused. With TLS 1.3 it has sent its first request already: closing the connection before
/// that is read would throw away the alert that is on its way.
async fn let_hear(mut stream: ReadAhead<TcpStream>) {
    let mut unread = [0; 1024];
    let hang_up = async {
        stream.shutdown().await?;
        while stream.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    };
    // However it ends, the connection is over.
    _ = tokio::time::timeout(LINGER, hang_up).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_vanishes_is_asked_after() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let _peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        prepare(&stream).unwrap();
        assert!(stream.nodelay().unwrap());
        assert!(SockRef::from(&stream).keepalive().unwrap());
    }
}
