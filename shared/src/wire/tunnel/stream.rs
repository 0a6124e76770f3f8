//! A byte stream over a gRPC stream of chunks.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use tiphys_proto::tunnel::Chunk;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;
use tonic::Status;

/// Chunks that wait between the tunnel and the connection. Few: what waits here delays what comes after it.
pub const QUEUE: usize = 4;
/// Largest chunk that is sent, in bytes. A frame of the tunnel and its head go into one.
const CHUNK: usize = 48 << 10;

/// Both directions of a gRPC stream of chunks, as one stream of bytes.
pub struct ByteStream {
    incoming: BoxStream<'static, Result<Chunk, Status>>,
    /// What has come and was not read yet.
    unread: Bytes,
    outgoing: PollSender<Chunk>,
}

impl ByteStream {
    /// Reads from `incoming`, writes to `outgoing`.
    pub fn new(
        incoming: impl Stream<Item = Result<Chunk, Status>> + Send + 'static,
        outgoing: mpsc::Sender<Chunk>,
    ) -> Self {
        Self { incoming: incoming.boxed(), unread: Bytes::new(), outgoing: PollSender::new(outgoing) }
    }

    fn send(&mut self, data: Bytes) -> io::Result<usize> {
        let length = data.len();
        self.outgoing.send_item(Chunk { data }).map_err(closed)?;
        Ok(length)
    }
}

fn closed<E>(_: E) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the grpc stream has ended")
}

impl AsyncRead for ByteStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(self.incoming.poll_next_unpin(cx)) {
                Some(Ok(chunk)) => self.unread = chunk.data,
                Some(Err(status)) => return Poll::Ready(Err(io::Error::other(status))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread[..length]);
        self.unread.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ByteStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.outgoing.poll_reserve(cx)).map_err(closed)?;
        Poll::Ready(self.send(Bytes::copy_from_slice(&buf[..buf.len().min(CHUNK)])))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.outgoing.poll_reserve(cx)).map_err(closed)?;
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        let mut data = BytesMut::with_capacity(total.min(CHUNK));
        for buf in bufs {
            data.extend_from_slice(&buf[..buf.len().min(CHUNK - data.len())]);
        }
        Poll::Ready(self.send(data.freeze()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Whatever was written is on its way.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.close();
        Poll::Ready(Ok(()))
    }
}
