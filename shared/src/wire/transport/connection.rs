//! A byte stream with or without TLS, and who is at its other end.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::Connected;

use super::pings::Pings;
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
    /// The peer speaks HTTP/1.1.
    http1: bool,
    /// What was read to find that out, and is still to be read.
    unread: Bytes,
    /// Watches how often the peer pings, where that is bounded.
    pings: Option<Box<Pings>>,
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
        Self::of(Stream::Plain(stream), peer, None)
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
        Self::of(Stream::Tls(Box::new(stream)), peer, pass)
    }

    fn of(stream: Stream, peer: Peer, pass: Option<Admitted>) -> Self {
        Self {
            stream,
            peer,
            pass,
            enrolment: false,
            http1: false,
            unread: Bytes::new(),
            pings: None,
            _place: None,
        }
    }

    /// The same, with something that was read of it already.
    pub(super) fn having_read(self, unread: Bytes, http1: bool) -> Self {
        Self { unread, http1, ..self }
    }

    /// The same, where the peer may ping this often and no more. Nothing has been read of it.
    pub(super) fn with_pings_at_least(self, apart: Duration) -> Self {
        Self { pings: Some(Box::new(Pings::new(apart))), ..self }
    }

    /// What the peer chose to speak when it shook hands, if it did.
    pub(super) fn alpn(&self) -> Option<&[u8]> {
        match &self.stream {
            Stream::Plain(_) => None,
            Stream::Tls(stream) => stream.get_ref().1.alpn_protocol(),
        }
    }

    /// Whether the peer speaks HTTP/1.1. Known only where both are spoken.
    pub fn is_http1(&self) -> bool {
        self.http1
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

    fn read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            let length = self.unread.len().min(buf.remaining());
            buf.put_slice(&self.unread[..length]);
            self.unread.advance(length);
            return Poll::Ready(Ok(()));
        }
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }

    fn write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    /// Ends the connection if its peer pings too often.
    fn listen_for_pings(&mut self, cx: &mut Context<'_>, heard: &[u8]) -> io::Result<()> {
        let Some(pings) = &mut self.pings else { return Ok(()) };
        if !pings.heard(heard, Instant::now()) {
            return Ok(());
        }
        let goodbye = pings.goodbye();
        let address = self.peer.address.map(tracing::field::display);
        tracing::warn!(
            address,
            "the peer's keepalive pings are closer together than --keepalive-min-interval"
        );
        if let Some(goodbye) = goodbye {
            // What does not go out at once is not waited for: the peer does not listen.
            _ = self.write(cx, &goodbye);
            _ = Pin::new(&mut *self).poll_flush(cx);
            _ = Pin::new(&mut *self).poll_shutdown(cx);
        }
        Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the peer pings too often"))
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
        let before = buf.filled().len();
        ready!(self.read(cx, buf))?;
        Poll::Ready(self.listen_for_pings(cx, &buf.filled()[before..]))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        let written = ready!(self.write(cx, buf))?;
        if let Some(pings) = &mut self.pings {
            pings.said(&buf[..written]);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        let written = ready!(match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        })?;
        if let Some(pings) = &mut self.pings {
            let mut left = written;
            for buf in bufs {
                let length = buf.len().min(left);
                pings.said(&buf[..length]);
                left -= length;
            }
        }
        Poll::Ready(Ok(written))
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
