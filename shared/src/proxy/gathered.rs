//! A body that comes in many small pieces, in fewer.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};

/// Bytes from which on a piece is large enough to be worth its way.
const ENOUGH: usize = 32 << 10;

/// Makes larger pieces of what is there at the same time. An API server writes each object of a list by itself, and whatever
/// comes after it pays for every piece; what has been waited for is passed on at once, as a watch wants it.
///
/// Only data passes: nothing in Kubernetes sends trailers.
#[derive(Debug)]
pub struct Gathered<B: Body> {
    body: B,
    pieces: Vec<Bytes>,
    length: usize,
    /// How the body has ended.
    end: Option<Result<(), B::Error>>,
    /// Whoever makes the pieces has had its turn since the last one.
    asked: bool,
}

impl<B: Body<Data = Bytes>> Gathered<B> {
    /// All of `body`.
    pub fn new(body: B) -> Self {
        Self { body, pieces: Vec::new(), length: 0, end: None, asked: false }
    }

    fn take(&mut self) -> Bytes {
        let length = std::mem::take(&mut self.length);
        match self.pieces.len() {
            1 => self.pieces.pop().unwrap_or_default(),
            _ => {
                let mut whole = BytesMut::with_capacity(length);
                self.pieces.drain(..).for_each(|piece| whole.extend_from_slice(&piece));
                whole.freeze()
            }
        }
    }
}

impl<B> Body for Gathered<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        while self.end.is_none() && self.length < ENOUGH {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else { continue };
                    self.asked = false;
                    self.length += data.len();
                    self.pieces.push(data);
                    if self.body.is_end_stream() {
                        self.end = Some(Ok(()));
                    }
                }
                Poll::Ready(Some(Err(error))) => self.end = Some(Err(error)),
                Poll::Ready(None) => self.end = Some(Ok(())),
                Poll::Pending if self.pieces.is_empty() => return Poll::Pending,
                Poll::Pending if self.asked => break,
                // The task that reads the connection makes one piece at a time, each when the one before has been taken.
                Poll::Pending => {
                    self.asked = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
        if !self.pieces.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(self.take()))));
        }
        Poll::Ready(match self.end.replace(Ok(())) {
            Some(Err(error)) => Some(Err(error)),
            _ => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
            && match &self.end {
                Some(end) => end.is_ok(),
                None => self.body.is_end_stream(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let held = self.length as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + held);
        }
        hint.set_lower(hint.lower() + held);
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, StreamBody};
    use proptest::prelude::*;
    use tokio::sync::mpsc;

    use super::*;

    type Piece = Result<Frame<Bytes>, String>;

    fn body(mut pieces: mpsc::Receiver<Piece>) -> impl Body<Data = Bytes, Error = String> + Unpin {
        StreamBody::new(futures::stream::poll_fn(move |cx| pieces.poll_recv(cx)))
    }

    /// The sizes of the pieces that come of such pieces, which are made one at a time, and the bytes.
    async fn gathered(lengths: Vec<usize>, fails: bool) -> (Vec<usize>, Vec<u8>, bool) {
        let (made, pieces) = mpsc::channel(1);
        let making = async move {
            for (number, length) in lengths.into_iter().enumerate() {
                let piece = Bytes::from(vec![number as u8; length]);
                made.send(Ok(Frame::data(piece))).await.unwrap();
            }
            if fails {
                made.send(Err("broken".to_owned())).await.unwrap();
            }
        };
        let taking = async {
            let (mut body, mut sizes, mut bytes, mut failed) =
                (Gathered::new(body(pieces)), Vec::new(), Vec::new(), false);
            while let Some(frame) = body.frame().await {
                match frame {
                    Ok(frame) => {
                        let data = frame.into_data().unwrap();
                        sizes.push(data.len());
                        bytes.extend_from_slice(&data);
                    }
                    Err(error) => failed = error == "broken",
                }
            }
            assert!(body.is_end_stream());
            (sizes, bytes, failed)
        };
        let (_, taken) = tokio::join!(tokio::spawn(making), taking);
        taken
    }

    #[tokio::test]
    async fn small_pieces_that_come_together_pass_together() {
        let (sizes, bytes, _) = gathered(vec![1000; 100], false).await;
        assert_eq!(bytes.len(), 100_000);
        assert!(sizes.len() <= 5, "{sizes:?}");
    }

    #[tokio::test]
    async fn what_was_waited_for_passes_although_nothing_follows() {
        let (made, pieces) = mpsc::channel(1);
        let mut body = Gathered::new(body(pieces));
        for number in 0..3_u8 {
            made.send(Ok(Frame::data(Bytes::from(vec![number])))).await.unwrap();
            let frame = body.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap()[..], [number]);
        }
    }

    proptest! {
        #[test]
        fn all_bytes_pass_in_order_and_so_does_the_failure(
            lengths in prop::collection::vec(0..50_000_usize, 0..40),
            fails in any::<bool>(),
        ) {
            let expected: Vec<u8> = lengths
                .iter()
                .enumerate()
                .flat_map(|(number, length)| std::iter::repeat_n(number as u8, *length))
                .collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (_, bytes, failed) = runtime.block_on(gathered(lengths, fails));
            prop_assert!(bytes == expected);
            prop_assert_eq!(failed, fails);
        }
    }
}
