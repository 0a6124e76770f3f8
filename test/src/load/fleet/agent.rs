//! One agent.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use futures::stream;
use jiff::Timestamp;
use tiphys_proto::auth::AuthRequest;
use tiphys_proto::auth::authentication_client::AuthenticationClient;
use tiphys_proto::event_stream::Event;
use tiphys_proto::event_stream::event_stream_client::EventStreamClient;
use tiphys_proto::version::VersionRequest;
use tiphys_proto::version::version_client::VersionClient;
use tiphys_shared::model::agent::Mode;
use tiphys_shared::wire::transport::{DialOptions, dial};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::{Request, Response, Status, Streaming};

use super::identity::Identity;
use super::message::{Copy, Received, nothing_here};
use super::{Shared, count};

/// How many events may wait to be sent. An agent that has received as many reads no more until they are.
const OUTGOING: usize = 32;
/// How many events may come before their acknowledgements have to be read: small, for there are many agents.
const WINDOW: u32 = 64 * 1024;

type Opening = Pin<Box<dyn Future<Output = Result<Response<Streaming<Event>>, Status>> + Send>>;

/// An agent that has logged in and asked for its stream.
pub(super) struct Session {
    index: usize,
    outgoing: mpsc::Sender<Event>,
    incoming: Incoming,
    asked: Instant,
    /// How many things it has asked for.
    asked_for: u32,
    copy: Option<Copy>,
    /// The status update that has not been acknowledged yet: one at a time, as agents do.
    unacknowledged: Option<(String, Instant)>,
}

enum Incoming {
    /// Some principals answer only when they have something to say.
    Opening(Opening),
    Open(Box<Streaming<Event>>),
}

/// Dials, logs in and asks for the stream.
pub(super) async fn connect(shared: &Shared, identity: &Identity, index: usize) -> anyhow::Result<Session> {
    let plan = &shared.plan;
    let options = DialOptions {
        connect_timeout: plan.connect_timeout,
        stream_window: Some(WINDOW),
        connection_window: Some(WINDOW),
        queue: 4,
        ..DialOptions::new(plan.host.as_str(), plan.port, identity.tls.clone())
    };
    let began = Instant::now();
    let channel = dial(&options).await?;
    shared.tally.dial.lock().record(began.elapsed());

    let began = Instant::now();
    let mut request = Request::new(AuthRequest {
        method: identity.method.to_owned(),
        credentials: identity.credentials.clone(),
        mode: plan.mode.as_str().to_owned(),
        version: plan.version.clone(),
        agent_namespace: plan.namespace.clone(),
    });
    if let Some(header) = &identity.header {
        let name = AsciiMetadataKey::from_bytes(header.as_bytes()).context("not the name of a header")?;
        request.metadata_mut().insert(name, identity.name.parse().context("not the value of a header")?);
    }
    let mut client = AuthenticationClient::new(channel.clone());
    let answer = timeout(plan.connect_timeout, client.authenticate(request))
        .await
        .context("no answer to Authenticate")?;
    let token = answer.map_err(|status| refused("Authenticate", &status))?.into_inner().access_token;
    shared.tally.authenticate.lock().record(began.elapsed());
    // Bare, without a word before it: the Go principal takes the whole value for the token.
    let token: AsciiMetadataValue = token.parse().context("the access token cannot be put into a header")?;

    let mut request = Request::new(VersionRequest {});
    request.metadata_mut().insert("authorization", token.clone());
    let mut client = VersionClient::new(channel.clone());
    let answer = timeout(plan.connect_timeout, client.version(request)).await;
    answer.context("no answer to Version")?.map_err(|status| refused("Version", &status))?;

    let (outgoing, mut queue) = mpsc::channel(OUTGOING);
    let mut request = Request::new(stream::poll_fn(move |cx| queue.poll_recv(cx)));
    request.metadata_mut().insert("authorization", token);
    let mut client = EventStreamClient::new(channel);
    let mut opening: Opening = Box::pin(async move { client.subscribe(request).await });
    let asked = Instant::now();
    // A refusal comes at once; an answer may take until there is something to say.
    let incoming = match timeout(Duration::from_millis(50), &mut opening).await {
        Err(_) => Incoming::Opening(opening),
        Ok(Ok(response)) => open(shared, asked, response),
        Ok(Err(status)) => return Err(refused("Subscribe", &status)),
    };
    Ok(Session { index, outgoing, incoming, asked, asked_for: 0, copy: None, unacknowledged: None })
}

fn open(shared: &Shared, asked: Instant, response: Response<Streaming<Event>>) -> Incoming {
    shared.tally.open.lock().record(asked.elapsed());
    shared.tally.streams_open.fetch_add(1, Relaxed);
    Incoming::Open(Box::new(response.into_inner()))
}

fn refused(call: &str, status: &Status) -> anyhow::Error {
    anyhow!("{call}: {:?}: {}", status.code(), status.message())
}

impl Session {
    /// Acknowledges what comes and sends status updates until all are to leave.
    pub(super) async fn stay(mut self, shared: &Shared) {
        if let Err(reason) = self.serve(shared).await {
            count(&shared.tally.lost, format!("{reason:#}"));
        }
    }

    async fn serve(&mut self, shared: &Shared) -> anyhow::Result<()> {
        let mut leave = shared.leave.subscribe();
        let mut next_update = self.first_update(shared);
        if shared.plan.mode == Mode::Managed {
            let id = self.new_id();
            self.send(nothing_here(id, Timestamp::now())).await?;
        }
        loop {
            tokio::select! {
                biased;
                () = told_to(&mut leave) => return Ok(()),
                event = self.incoming.next(shared, self.asked) => match event? {
                    Some(event) => self.receive(shared, event).await?,
                    None => return Err(anyhow!("the principal ended the stream")),
                },
                () = at(next_update) => {
                    self.update(shared).await?;
                    next_update = next_update.map(|at| at + interval(shared));
                }
            }
        }
    }

    async fn receive(&mut self, shared: &Shared, event: Event) -> anyhow::Result<()> {
        let Some(event) = Received::new(event) else { return Ok(()) };
        let tally = &shared.tally;
        *tally.received.lock().entry(format!("{} {}", event.target(), event.kind())).or_default() += 1;
        if event.kind() == "processed" {
            if let Some((id, sent)) = self.unacknowledged.take_if(|(id, _)| id == event.id()) {
                tally.acknowledged.lock().record(sent.elapsed());
                drop(id);
            }
            return Ok(());
        }
        if let Some(age) = event.age(Timestamp::now()) {
            tally.delivery.lock().record(age);
        }
        let brings = matches!(event.kind(), "create" | "spec-update") && event.target() == "application";
        if brings && self.copy.is_none() && shared.plan.status_rate > 0.0 {
            let application = event.data().context("an application could not be read")?;
            self.copy = Copy::new(application, &shared.plan.namespace, self.index);
        }
        if event.kind() == "response-synced-resource" {
            let id = self.new_id();
            let request =
                event.request_for_it(id, Timestamp::now()).context("a resource could not be read")?;
            self.send(request).await?;
        }
        self.send(event.acknowledgement()).await?;
        tally.acks_sent.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Unlike every other one in this run.
    fn new_id(&mut self) -> String {
        self.asked_for += 1;
        format!("{:08x}-0000-4000-8000-{:012x}", self.asked_for, self.index)
    }

    async fn update(&mut self, shared: &Shared) -> anyhow::Result<()> {
        let Some(copy) = self.copy.as_mut().filter(|_| self.unacknowledged.is_none()) else {
            shared.tally.updates_held_back.fetch_add(1, Relaxed);
            return Ok(());
        };
        let (id, event) = copy.status_update(Timestamp::now());
        self.unacknowledged = Some((id, Instant::now()));
        self.send(event).await?;
        shared.tally.updates_sent.fetch_add(1, Relaxed);
        Ok(())
    }

    async fn send(&mut self, event: Event) -> anyhow::Result<()> {
        self.outgoing.send(event).await.map_err(|_| anyhow!("the stream is closed for sending"))
    }

    /// Spread over one interval, so that the fleet sends evenly.
    fn first_update(&self, shared: &Shared) -> Option<Instant> {
        (shared.plan.status_rate > 0.0).then(|| {
            let phase = self.index as f64 / shared.plan.count as f64;
            Instant::now() + interval(shared).mul_f64(phase)
        })
    }
}

fn interval(shared: &Shared) -> Duration {
    Duration::from_secs_f64(shared.plan.count as f64 / shared.plan.status_rate)
}

async fn told_to(leave: &mut watch::Receiver<bool>) {
    // When the sender is gone the run is over, too.
    let _ = leave.wait_for(|leave| *leave).await;
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}

impl Incoming {
    /// The next event. May be dropped and called again without losing one.
    async fn next(&mut self, shared: &Shared, asked: Instant) -> anyhow::Result<Option<Event>> {
        if let Self::Opening(opening) = self {
            let response = opening.await.map_err(|status| refused("Subscribe", &status))?;
            *self = open(shared, asked, response);
        }
        match self {
            Self::Open(stream) => stream.message().await.map_err(|status| refused("Subscribe", &status)),
            Self::Opening(_) => Err(anyhow!("the stream is not open")),
        }
    }
}
