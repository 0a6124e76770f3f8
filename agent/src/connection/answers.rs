//! Streams on which answers to a principal of the Go project travel. They have a connection of their own, and never hold up
//! an event.

use std::task::Poll;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use tiphys_proto::log_stream::log_stream_service_client::LogStreamServiceClient;
use tiphys_proto::log_stream::{LogStreamData, LogStreamResponse};
use tiphys_proto::terminal_stream::TerminalStreamData;
use tiphys_proto::terminal_stream::terminal_stream_service_client::TerminalStreamServiceClient;
use tiphys_shared::wire::transport::Channel;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Request, Status};

use super::Error;

/// For how long streams may be opened with one token. It is valid for five minutes.
const LIFETIME: Duration = Duration::from_secs(240);
/// Largest message that is taken.
const LARGEST: usize = 1 << 20;

/// A way on which streams can be opened.
#[derive(Clone, Debug)]
pub struct Answers {
    channel: Channel,
    token: MetadataValue<Ascii>,
    until: Instant,
}

impl Answers {
    /// A way for whoever has this token, which was issued just now.
    ///
    /// # Errors
    /// [`Error::BadToken`]
    pub fn new(channel: Channel, token: &str) -> Result<Self, Error> {
        let token = token.parse().map_err(|_| Error::BadToken)?;
        Ok(Self { channel, token, until: Instant::now() + LIFETIME })
    }

    /// Whether streams may still be opened on it.
    pub(crate) fn is_fresh(&self) -> bool {
        Instant::now() < self.until
    }

    /// A stream of these messages. One that is given up before its last message breaks with its call, and does not end as if
    /// all had been said.
    fn request<T: Send + 'static>(
        &self,
        mut messages: mpsc::Receiver<T>,
        is_last: fn(&T) -> bool,
    ) -> Request<impl Stream<Item = T> + Send + use<T>> {
        let mut is_whole = false;
        let messages = futures::stream::poll_fn(move |context| match messages.poll_recv(context) {
            Poll::Ready(None) if !is_whole => Poll::Pending,
            polled => {
                if let Poll::Ready(Some(message)) = &polled {
                    is_whole |= is_last(message);
                }
                polled
            }
        });
        let mut request = Request::new(messages);
        request.metadata_mut().insert("authorization", self.token.clone());
        request
    }

    /// Sends a log. Ends with the stream, whoever ends it.
    pub(crate) async fn log(
        &self,
        messages: mpsc::Receiver<LogStreamData>,
    ) -> Result<LogStreamResponse, Status> {
        let mut client = LogStreamServiceClient::new(self.channel.clone()).max_decoding_message_size(LARGEST);
        let request = self.request(messages, |message| message.eof);
        Ok(client.stream_logs(request).await?.into_inner())
    }

    /// Opens a terminal: what the principal says.
    pub(crate) fn terminal(
        &self,
        messages: mpsc::Receiver<TerminalStreamData>,
    ) -> BoxStream<'static, Result<TerminalStreamData, Status>> {
        let mut client =
            TerminalStreamServiceClient::new(self.channel.clone()).max_decoding_message_size(LARGEST);
        let request = self.request(messages, |message| message.eof || !message.error.is_empty());
        // A Go principal answers only when it has something to say, and what it waits for must not wait for that.
        let opened = async move { Ok::<_, Status>(client.stream_terminal(request).await?.into_inner()) };
        futures::stream::once(opened).try_flatten().boxed()
    }
}
