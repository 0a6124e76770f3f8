//! A byte stream with or without TLS, and who is at its other end.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::Connected;

use crate::security::blocklist::Pass;
use crate::security::pki;
use crate::security::tls::ReadAhead;

/// Who is at the other end of a connection: an extension of every request that comes over it.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Where it comes from.
    pub address: Option<SocketAddr>,
    /// The certificate that it proved to own, verified in the handshake.
    pub certificate: Option<Arc<pki::Certificate>>,
}

/// An accepted connection. It breaks when its client certificate is blocked.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    peer: Peer,
    pass: Option<Admitted>,
    /// The peer has no certificate and wants one: it may do nothing else.
    enrolment: bool,
    /// Its place among those that may be open.
    _place: Option<OwnedSemaphorePermit>,
}

/// A connection whose certificate is not blocked yet.
struct Admitted {
    pass: Pass,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl std::fmt::Debug for Admitted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.pass.fmt(f)
    }
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<ReadAhead<TcpStream>>>),
}

impl Connection {
    pub(super) fn plain(stream: TcpStream, address: SocketAddr) -> Self {
        let peer = Peer { address: Some(address), certificate: None };
        Self { stream: Stream::Plain(stream), peer, pass: None, enrolment: false, _place: None }
    }

    pub(super) fn tls(
        stream: TlsStream<ReadAhead<TcpStream>>,
        address: SocketAddr,
        certificate: Option<pki::Certificate>,
        pass: Option<Pass>,
    ) -> Self {
        let peer = Peer { address: Some(address), certificate: certificate.map(Arc::new) };
        let pass = pass.map(|pass| {
            let cut = Box::pin(pass.cut().clone().cancelled_owned());
            Admitted { pass, cut }
        });
        Self { stream: Stream::Tls(Box::new(stream)), peer, pass, enrolment: false, _place: None }
    }

    /// One whose peer has no certificate and wants one.
    pub(super) fn enrolment(stream: TlsStream<ReadAhead<TcpStream>>, address: SocketAddr) -> Self {
        Self { enrolment: true, ..Self::tls(stream, address, None, None) }
    }

    /// Whether the peer has no certificate and wants one: it may do nothing else.
    pub fn is_enrolment(&self) -> bool {
        self.enrolment
    }

    /// The same, with a place that is given back when it ends.
    pub fn holding(self, place: OwnedSemaphorePermit) -> Self {
        Self { _place: Some(place), ..self }
    }

    fn refusal() -> io::Error {
        io::Error::new(io::ErrorKind::ConnectionAborted, "the client certificate has been revoked")
    }

    fn check(&self) -> io::Result<()> {
        match &self.pass {
            Some(admitted) if admitted.pass.cut().is_cancelled() => Err(Self::refusal()),
            _ => Ok(()),
        }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(admitted) = &mut self.pass
            && admitted.cut.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(Self::refusal()));
        }
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
