//! The two halves of a WebSocket that carries a call: messages are bounded, and silence is noticed.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use http::HeaderMap;
use http_body_util::BodyExt as _;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame as Fragment};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, error::ProtocolError};
use tonic::Status;
use tonic::body::Body;

use super::frame::{self, Cutter, Frame, Malformed};
use super::{Keepalive, LARGEST};

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Largest piece in which a message is sent: what a large one needs is not kept for the life of a stream.
const PIECE: usize = 64 << 10;
/// Bytes that are read, and gathered to be written, at once.
const BUFFER: usize = 16 << 10;
/// Longest reason that is told, or believed. The protocol has room for 123.
const REASON: usize = 120;

/// Why a call came to its end too early.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("the other side closed the websocket{0}")]
    Closed(String),
    #[error("the connection broke: {0}")]
    Network(io::Error),
    #[error("the other side gave no sign of life")]
    Silent,
    #[error("{0}")]
    Malformed(#[from] Malformed),
    #[error("the other side breaks the websocket protocol: {0}")]
    Protocol(Error),
    #[error("what was to be said broke off: {0}")]
    Body(Status),
}

impl Broken {
    /// What the other side did wrong, if it did.
    pub(super) fn fault(&self) -> Option<CloseCode> {
        match self {
            Self::Malformed(Malformed::TooLarge(_)) => None,
            Self::Malformed(_) => Some(CloseCode::Protocol),
            Self::Protocol(Error::Capacity(_)) => Some(CloseCode::Size),
            Self::Protocol(_) => Some(CloseCode::Protocol),
            Self::Closed(_) | Self::Network(_) | Self::Silent | Self::Body(_) => None,
        }
    }

    /// The same for whoever made the call, or answers it.
    pub(super) fn status(&self) -> Status {
        match self {
            Self::Malformed(Malformed::TooLarge(_)) => Status::resource_exhausted(self.to_string()),
            Self::Malformed(_) | Self::Protocol(_) => Status::internal(self.to_string()),
            Self::Body(status) => status.clone(),
            Self::Closed(_) | Self::Network(_) | Self::Silent => Status::unavailable(self.to_string()),
        }
    }
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(error) => Self::Network(error),
            Error::ConnectionClosed
            | Error::AlreadyClosed
            | Error::Protocol(
                ProtocolError::ResetWithoutClosingHandshake | ProtocolError::SendAfterClosing,
            ) => Self::Closed(String::new()),
            other => Self::Protocol(other),
        }
    }
}

/// When something last went one way or the other.
#[derive(Clone, Debug)]
pub(super) struct Life {
    last: Arc<Mutex<Instant>>,
    keepalive: Option<Keepalive>,
}

impl Life {
    fn sign(&self) {
        *self.last.lock() = Instant::now();
    }

    /// Ends when there was no sign of life for too long. What goes out counts: a slow path is no dead one.
    pub(super) async fn ended(self) -> Broken {
        let Some(Keepalive { interval, timeout }) = self.keepalive else {
            return std::future::pending().await;
        };
        loop {
            let end = *self.last.lock() + interval + timeout;
            if Instant::now() >= end {
                return Broken::Silent;
            }
            tokio::time::sleep_until(end).await;
        }
    }
}

/// What is said.
pub(super) struct Writer {
    sink: SplitSink<Socket, Message>,
    life: Life,
    beat: Option<Interval>,
}

/// What is heard.
pub(super) struct Reader {
    stream: SplitStream<Socket>,
    life: Life,
}

/// A WebSocket on a connection that was upgraded to one. It takes messages up to `largest` bytes, and never more than fit
/// into [`LARGEST`].
pub(super) async fn open(
    io: Upgraded,
    role: Role,
    largest: usize,
    keepalive: Option<Keepalive>,
) -> (Writer, Reader, Life) {
    let largest = Some(largest.saturating_add(frame::HEAD).min(LARGEST));
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        .max_message_size(largest)
        .max_frame_size(largest);
    let socket = Socket::from_raw_socket(TokioIo::new(io), role, Some(config)).await;
    let (sink, stream) = socket.split();
    let life = Life { last: Arc::new(Mutex::new(Instant::now())), keepalive };
    let beat = keepalive.map(|keepalive| {
        let mut beat = tokio::time::interval_at(Instant::now() + keepalive.interval, keepalive.interval);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beat
    });
    (Writer { sink, life: life.clone(), beat }, Reader { stream, life: life.clone() }, life)
}

impl Reader {
    /// The next frame.
    pub(super) async fn next(&mut self) -> Result<Frame, Broken> {
        loop {
            let message = match self.stream.next().await {
                None => return Err(Broken::Closed(String::new())),
                Some(message) => message?,
            };
            self.life.sign();
            match message {
                Message::Binary(bytes) => return Ok(frame::parse(bytes)?),
                Message::Text(_) => return Err(Malformed::Order("a message is text").into()),
                Message::Close(reason) => return Err(Broken::Closed(told(reason.as_ref()))),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    /// Waits for the other side to hang up, whatever it says.
    pub(super) async fn end(&mut self) {
        while let Some(Ok(_)) = self.stream.next().await {}
    }
}

/// Why the other side closed, in words that can be logged.
fn told(reason: Option<&CloseFrame>) -> String {
    let Some(reason) = reason else { return String::new() };
    let text: String = reason.reason.chars().filter(|c| !c.is_control()).take(REASON).collect();
    match (reason.code, text.is_empty()) {
        (CloseCode::Normal, true) => String::new(),
        (code, true) => format!(" ({code})"),
        (code, false) => format!(" ({code}: {text})"),
    }
}

impl Writer {
    /// Waits for `what`, and gives signs of life meanwhile.
    pub(super) async fn meanwhile<T>(&mut self, what: impl Future<Output = T>) -> Result<T, Broken> {
        let mut what = pin!(what);
        loop {
            let Some(beat) = &mut self.beat else { return Ok(what.await) };
            tokio::select! {
                biased;
                done = &mut what => return Ok(done),
                _ = beat.tick() => {}
            }
            self.sink.send(Message::Ping(Bytes::new())).await?;
        }
    }

    /// Says a frame.
    pub(super) async fn say(&mut self, frame: Bytes) -> Result<(), Broken> {
        self.put(frame).await?;
        self.flush().await
    }

    /// Says a body, and returns its trailers.
    pub(super) async fn body(&mut self, mut body: Body) -> Result<Option<HeaderMap>, Broken> {
        let mut cutter = Cutter::default();
        loop {
            let piece = match self.meanwhile(body.frame()).await? {
                Some(Ok(piece)) => piece,
                Some(Err(status)) => return Err(Broken::Body(status)),
                None if cutter.is_done() => return Ok(None),
                None => return Err(Broken::Body(Status::internal("it ends within a message"))),
            };
            let data = match piece.into_data() {
                Ok(data) => data,
                Err(other) => match other.into_trailers() {
                    Ok(trailers) => return Ok(Some(trailers)),
                    Err(_) => continue,
                },
            };
            cutter.push(&data);
            while let Some(message) = cutter.next(LARGEST)? {
                self.put(message).await?;
            }
            self.flush().await?;
        }
    }

    async fn put(&mut self, mut message: Bytes) -> Result<(), Broken> {
        let mut kind = Data::Binary;
        loop {
            let piece = message.split_to(message.len().min(PIECE));
            let is_last = message.is_empty();
            let piece = Fragment::message(piece, OpCode::Data(kind), is_last);
            self.sink.feed(Message::Frame(piece)).await?;
            if is_last {
                return Ok(());
            }
            self.flush().await?;
            kind = Data::Continue;
        }
    }

    async fn flush(&mut self) -> Result<(), Broken> {
        self.sink.flush().await?;
        self.life.sign();
        Ok(())
    }

    /// Says goodbye, and why.
    pub(super) async fn close(&mut self, code: CloseCode, reason: &str) -> Result<(), Broken> {
        let close = CloseFrame { code, reason: reason[..reason.floor_char_boundary(REASON)].into() };
        Ok(self.sink.send(Message::Close(Some(close))).await?)
    }
}
