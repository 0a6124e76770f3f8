//! Large reads from the system for a reader that asks for small pieces.
//!
//! rustls reads 4 KiB at a time, five calls for a record. While much comes, that is a good part of what it costs to take it.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much is read at once while much comes.
const LARGE: usize = 64 << 10;
/// A reader that gets all of what it asked for, and asked for no less than this, has more to come.
const MUCH: usize = 4 << 10;

/// A stream that is read in large pieces while much comes, and has no buffer while little does.
#[derive(Debug)]
pub struct ReadAhead<S> {
    stream: S,
    buffer: Option<Box<[u8]>>,
    /// Where in the buffer that is which was not asked for yet.
    unread: Range<usize>,
}

impl<S> ReadAhead<S> {
    /// Nothing of `stream` is read before it is asked for.
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: None, unread: 0..0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, buffer, unread } = &mut *self;
        let Some(ahead) = buffer else {
            let (room, before) = (buf.remaining(), buf.filled().len());
            ready!(Pin::new(stream).poll_read(cx, buf))?;
            if room >= MUCH && buf.filled().len() - before == room {
                *buffer = Some(vec![0; LARGE].into());
            }
            return Poll::Ready(Ok(()));
        };
        if unread.start == unread.end {
            let mut large = ReadBuf::new(ahead);
            ready!(Pin::new(stream).poll_read(cx, &mut large))?;
            *unread = 0..large.filled().len();
        }
        let piece = &ahead[unread.clone()];
        let length = piece.len().min(buf.remaining());
        buf.put_slice(&piece[..length]);
        // All that came was little.
        let calm = unread.end < MUCH;
        unread.start += length;
        if calm && unread.start == unread.end {
            *buffer = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: Connection> Connection for ReadAhead<S> {
    fn connected(&self) -> Connected {
        self.stream.connected()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn every_byte_passes_in_order_whatever_is_asked_for_at_once() {
        let sent: Vec<u8> = (0..1_000_000_u32).map(|number| (number % 251) as u8).collect();
        for piece in [1000, MUCH, LARGE, 2 * LARGE] {
            let (mut writer, reader) = duplex(3 * LARGE / 2);
            let sending = sent.clone();
            let writing = tokio::spawn(async move { writer.write_all(&sending).await });
            let (mut reader, mut received) = (ReadAhead::new(reader), Vec::new());
            let mut part = vec![0; piece];
            loop {
                match reader.read(&mut part).await.unwrap() {
                    0 => break,
                    length => received.extend_from_slice(&part[..length]),
                }
            }
            writing.await.unwrap().unwrap();
            assert!(received == sent, "{piece}");
        }
    }

    #[tokio::test]
    async fn there_is_a_buffer_only_while_much_comes() {
        let (mut writer, reader) = duplex(LARGE);
        let (mut reader, mut part) = (ReadAhead::new(reader), vec![0; MUCH]);
        writer.write_all(&[1; 100]).await.unwrap();
        assert_eq!(reader.read(&mut part).await.unwrap(), 100);
        assert!(reader.buffer.is_none());
        writer.write_all(&[2; 2 * MUCH]).await.unwrap();
        assert_eq!(reader.read(&mut part).await.unwrap(), MUCH);
        assert!(reader.buffer.is_some());
        assert_eq!(reader.read(&mut part).await.unwrap(), MUCH);
        writer.write_all(&[3; 100]).await.unwrap();
        assert_eq!(reader.read(&mut part).await.unwrap(), 100);
        assert!(reader.buffer.is_none());
        writer.write_all(&[4; 100]).await.unwrap();
        drop(writer);
        assert_eq!(reader.read(&mut part).await.unwrap(), 100);
        assert_eq!(reader.read(&mut part).await.unwrap(), 0);
    }
}
