//! A connection on which Redis tells what is published.

use std::time::Duration;

use futures::StreamExt as _;
use redis::aio::{PubSub, PubSubSink, PubSubStream};

use super::{ANSWER, CONNECT, Config, Error};

/// How long there may be silence before Redis is asked whether it is still there.
const SILENCE: Duration = Duration::from_secs(30);

/// A connection for subscriptions. It is of no use any more when anything on it has failed.
pub struct Subscriber {
    sink: PubSubSink,
    messages: PubSubStream,
}

impl Subscriber {
    /// Connects.
    ///
    /// # Errors
    /// [`Error`] if that cannot be done within seconds.
    pub async fn connect(config: &Config) -> Result<Self, Error> {
        let connect = async {
            let info = config.info().await?;
            let (sink, messages) = PubSub::new(&info, config.open().await?).await?.split();
            Ok(Self { sink, messages })
        };
        tokio::time::timeout(CONNECT, connect).await.map_err(|_| Error::TimedOut)?
    }

    /// Subscribes to a channel. Returns when Redis has begun to tell.
    ///
    /// # Errors
    /// [`Error`] if Redis does not say so.
    pub async fn subscribe(&mut self, channel: &str) -> Result<(), Error> {
        let subscribed = tokio::time::timeout(ANSWER, self.sink.subscribe(channel));
        Ok(subscribed.await.map_err(|_| Error::TimedOut)??)
    }

    /// Ends a subscription.
    ///
    /// # Errors
    /// [`Error`] if Redis does not say so.
    pub async fn unsubscribe(&mut self, channel: &str) -> Result<(), Error> {
        let ended = tokio::time::timeout(ANSWER, self.sink.unsubscribe(channel));
        Ok(ended.await.map_err(|_| Error::TimedOut)??)
    }

    /// The channel to which something was published next. Cancel safe.
    ///
    /// # Errors
    /// [`Error`] when the connection is lost, or silent when it should not be.
    pub async fn next(&mut self) -> Result<String, Error> {
        loop {
            match tokio::time::timeout(SILENCE, self.messages.next()).await {
                Ok(Some(message)) => return Ok(message.get_channel_name().to_owned()),
                Ok(None) => {
                    let ended = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                    return Err(Error::Connect(ended));
                }
                Err(_) => {
                    let alive = tokio::time::timeout(ANSWER, self.sink.ping::<redis::Value>());
                    alive.await.map_err(|_| Error::TimedOut)??;
                }
            }
        }
    }
}

impl std::fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscriber").finish_non_exhaustive()
    }
}
