//! What becomes of an agent's stream, as the agent sees it, to the moment.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use tiphys_agent::connection::{Answers, Error, Link, Opened};
use tiphys_proto::event_stream::Event as WireEvent;
use tiphys_shared::model::Mode;
use tiphys_shared::model::feature::Features;
use tiphys_shared::wire::tunnel::ByteStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;

/// What is known of a stream.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// How often it was opened.
    pub opened: u64,
    /// How many attempts to open it came to nothing.
    pub failed: u64,
    /// Why the last one did.
    pub failure: String,
    /// Since when it has been away; none while it is open, and before it was.
    pub away: Option<Instant>,
    /// The longest time for which it was away and came back.
    pub longest: Duration,
}

/// Sees streams come and go.
#[derive(Debug)]
pub struct Witness(watch::Sender<Seen>);

impl Default for Witness {
    fn default() -> Self {
        Self(watch::channel(Seen::default()).0)
    }
}

impl Witness {
    /// What is known now.
    pub fn look(&self) -> Seen {
        self.0.borrow().clone()
    }

    /// Told of everything that happens from now on.
    pub fn follow(&self) -> watch::Receiver<Seen> {
        self.0.subscribe()
    }

    /// Whether the stream is open.
    pub fn is_open(&self) -> bool {
        let seen = self.0.borrow();
        seen.opened > 0 && seen.away.is_none()
    }

    /// Begins to look for the longest time anew.
    pub fn forget_longest(&self) {
        self.0.send_modify(|seen| seen.longest = Duration::ZERO);
    }

    fn opened(&self) {
        self.0.send_modify(|seen| {
            seen.opened += 1;
            if let Some(away) = seen.away.take() {
                seen.longest = seen.longest.max(away.elapsed());
            }
        });
    }

    fn ended(&self) {
        self.0.send_modify(|seen| seen.away = Some(Instant::now()));
    }

    fn failed(&self, error: &Error) {
        self.0.send_modify(|seen| {
            seen.failed += 1;
            seen.failure = error.to_string();
        });
    }
}

/// A link that is looked at.
pub struct Observed<L> {
    link: L,
    witness: Arc<Witness>,
}

impl<L> Observed<L> {
    /// Tells `witness` what becomes of the streams of `link`.
    pub fn new(link: L, witness: Arc<Witness>) -> Self {
        Self { link, witness }
    }
}

impl<L: Link> Link for Observed<L> {
    async fn open(&self, mode: Mode, offer: Features) -> Result<Opened, Error> {
        let mut opened = self.link.open(mode, offer).await.inspect_err(|error| self.witness.failed(error))?;
        opened.incoming = Incoming {
            inner: opened.incoming,
            features: opened.features.clone(),
            witness: Arc::clone(&self.witness),
            is_open: false,
        }
        .boxed();
        Ok(opened)
    }

    async fn tunnel(&self, mode: Mode) -> Result<ByteStream, Error> {
        self.link.tunnel(mode).await
    }

    async fn answers(&self, mode: Mode) -> Result<Answers, Error> {
        self.link.answers(mode).await
    }

    async fn outlived(&self) {
        self.link.outlived().await;
    }
}

/// What the principal says. The stream is open once it has answered the request for it, and ends when it says so, breaks, or
/// is let go of.
struct Incoming {
    inner: BoxStream<'static, Result<WireEvent, Status>>,
    features: watch::Receiver<Option<Features>>,
    witness: Arc<Witness>,
    is_open: bool,
}

impl Incoming {
    fn end(&mut self) {
        if std::mem::take(&mut self.is_open) {
            self.witness.ended();
        }
    }
}

impl Stream for Incoming {
    type Item = Result<WireEvent, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.inner.poll_next_unpin(context);
        if !self.is_open && self.features.borrow().is_some() {
            self.is_open = true;
            self.witness.opened();
        }
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.end();
        }
        polled
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.end();
    }
}
