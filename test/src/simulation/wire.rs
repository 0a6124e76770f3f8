//! The way between an agent and the principal: late, at times stuck, at times broken, and then perhaps for one end only.
//!
//! As on a TCP connection, nothing is reordered, and only the tail of what was said is ever lost.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use futures::StreamExt as _;
use parking_lot::Mutex;
use tiphys_agent::connection::{Error, Link, Opened};
use tiphys_principal::ControlPlane;
use tiphys_proto::event_stream::Event as WireEvent;
use tiphys_shared::model::feature::Features;
use tiphys_shared::model::{AgentName, Mode};
use tiphys_shared::security::token::Subject;
use tiphys_shared::wire::codec;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::journal::Journal;

/// What a connection holds in each direction, besides the buffers at its ends.
const HELD: usize = 64;

/// The principal that runs, if one does.
pub(crate) type Running = Arc<Mutex<Option<Arc<ControlPlane>>>>;

/// The way of one agent. Outlives connections, and both ends.
#[derive(Debug)]
pub(crate) struct Wire {
    agent: AgentName,
    features: Option<Features>,
    rng: Mutex<Rng>,
    calm: Mutex<bool>,
    lines: Mutex<Vec<Line>>,
    journal: Arc<Journal>,
}

/// One connection, as faults reach it.
#[derive(Clone, Debug)]
struct Line {
    number: u64,
    state: Arc<Condition>,
}

/// The state of a connection. Not a watch channel of tokio's, which wakes in random order.
#[derive(Debug)]
struct Condition {
    state: Mutex<State>,
    changed: Notify,
}

impl Condition {
    fn get(&self) -> State {
        *self.state.lock()
    }

    fn set(&self, state: State) {
        *self.state.lock() = state;
        self.changed.notify_waiters();
    }
}

#[derive(Clone, Copy, Debug)]
enum State {
    Open,
    /// Nothing moves.
    Stuck,
    /// Nothing more is taken in; the ends learn it after these times.
    Broken(Ends),
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    agent: Duration,
    principal: Duration,
    /// What is on its way arrives still, late.
    tail: bool,
}

impl Wire {
    pub(crate) fn new(agent: AgentName, features: Option<Features>, rng: Rng, journal: Arc<Journal>) -> Self {
        Self {
            agent,
            features,
            rng: Mutex::new(rng),
            calm: Mutex::new(false),
            lines: Mutex::default(),
            journal,
        }
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut self.rng.lock())
    }

    fn open_lines(&self) -> Vec<Line> {
        let mut lines = self.lines.lock();
        // Both directions hold their connection.
        lines.retain(|line| Arc::strong_count(&line.state) > 1);
        lines.clone()
    }

    /// All connections break, each end learning it in its own time.
    pub(crate) fn snap(&self) {
        for line in self.open_lines() {
            self.snap_line(&line);
        }
    }

    fn snap_line(&self, line: &Line) {
        if matches!(line.state.get(), State::Broken(_)) {
            return;
        }
        let ends = self.draw(|rng| {
            let mut late = || match rng.u8(0..3) {
                0 => Duration::ZERO,
                1 => Duration::from_millis(rng.u64(0..500)),
                _ => Duration::from_millis(rng.u64(0..40_000)),
            };
            Ends { agent: late(), principal: late(), tail: rng.bool() }
        });
        self.journal.note(
            self.agent.as_str(),
            format_args!(
                "line {} breaks; agent knows in {:?}, principal in {:?}, tail {}",
                line.number, ends.agent, ends.principal, ends.tail
            ),
        );
        line.state.set(State::Broken(ends));
    }

    /// The principal has crashed: there is nobody at that end any more.
    pub(crate) fn principal_gone(&self) {
        for line in self.open_lines() {
            let agent = self.draw(|rng| Duration::from_millis(rng.u64(0..2_000)));
            line.state.set(State::Broken(Ends { agent, principal: Duration::ZERO, tail: false }));
        }
    }

    /// The agent has crashed: there is nobody at that end any more.
    pub(crate) fn agent_gone(&self) {
        for line in self.open_lines() {
            let principal = self.draw(|rng| Duration::from_millis(rng.u64(0..20_000)));
            let tail = self.draw(Rng::bool);
            line.state.set(State::Broken(Ends { agent: Duration::ZERO, principal, tail }));
        }
    }

    /// Nothing moves for a while.
    pub(crate) fn stall(&self, time: Duration) {
        for line in self.open_lines() {
            if !matches!(line.state.get(), State::Open) {
                continue;
            }
            self.journal
                .note(self.agent.as_str(), format_args!("line {} is stuck for {time:?}", line.number));
            line.state.set(State::Stuck);
            let state = Arc::downgrade(&line.state);
            tokio::spawn(async move {
                sleep(time).await;
                if let Some(state) = state.upgrade()
                    && matches!(state.get(), State::Stuck)
                {
                    state.set(State::Open);
                }
            });
        }
    }

    /// From now on everything works. What is broken stays so until its ends know it.
    pub(crate) fn end_trouble(&self) {
        *self.calm.lock() = true;
    }

    fn is_calm(&self) -> bool {
        *self.calm.lock()
    }

    fn latency(&self) -> Duration {
        let calm = self.is_calm();
        self.draw(|rng| match rng.u8(0..20) {
            0 if !calm => Duration::from_millis(rng.u64(0..3_000)),
            0..10 => Duration::ZERO,
            _ => Duration::from_millis(rng.u64(0..30)),
        })
    }
}

/// An agent's end of the wire. Of no use once `dead`.
pub(crate) struct SimulatedLink {
    pub(crate) wire: Arc<Wire>,
    pub(crate) principal: Running,
    pub(crate) dead: CancellationToken,
}

impl Link for SimulatedLink {
    async fn open(&self, mode: Mode, offer: Features) -> Result<Opened, Error> {
        let wire = &self.wire;
        sleep(wire.latency()).await;
        if !wire.is_calm() && wire.draw(|rng| rng.u8(0..12)) == 0 {
            return Err(Error::TimedOut);
        }
        if self.dead.is_cancelled() {
            return std::future::pending().await;
        }
        let unavailable = || Error::Refused(Box::new(Status::unavailable("simulated")));
        let principal = self.principal.lock().clone().ok_or_else(unavailable)?;
        let number = wire.draw(|rng| rng.u64(..) % 10_000);
        let state = Condition { state: Mutex::new(State::Open), changed: Notify::new() };
        let line = Line { number, state: Arc::new(state) };
        let (outgoing, from_agent) = mpsc::channel(32);
        let (to_principal, mut at_principal) = mpsc::channel(4);
        let (to_agent, mut at_agent) = mpsc::channel(4);
        let offered = wire.features.as_ref().map(|known| intersection(&offer, known));
        let subject = Subject { agent: wire.agent.clone(), mode };
        wire.journal.note(wire.agent.as_str(), format_args!("line {number} opens"));
        let incoming = futures::stream::poll_fn(move |context| at_principal.poll_recv(context));
        let from_principal = principal.connect(&subject, offered.clone(), incoming);
        let up = Way { wire: Arc::clone(wire), line: line.clone(), up: true };
        let down = Way { wire: Arc::clone(wire), line: line.clone(), up: false };
        wire.lines.lock().push(line);
        tokio::spawn(up.carry(from_agent, to_principal));
        tokio::spawn(down.carry(from_principal, to_agent));

        // The answer's metadata, which may come later than the stream.
        let (confirm, features) = watch::channel(None);
        let late = wire.latency() * 3;
        tokio::spawn(async move {
            sleep(late).await;
            confirm.send_replace(Some(offered.unwrap_or_default()));
            // The sender lives as long as somebody looks.
            confirm.closed().await;
        });
        Ok(Opened {
            incoming: futures::stream::poll_fn(move |context| at_agent.poll_recv(context)).boxed(),
            outgoing,
            features,
            agent: wire.agent.to_string(),
            principal_namespace: super::world::NAMESPACE.to_owned(),
            max_message_size: super::world::LARGEST,
        })
    }
}

fn intersection(offer: &Features, known: &Features) -> Features {
    let offer = offer.to_metadata();
    let names: Vec<&str> = offer.split(',').collect();
    let known = known.to_metadata();
    let both: Vec<&str> = known.split(',').filter(|name| names.contains(name)).collect();
    Features::parse(&both.join(","))
}

/// One direction of a connection.
struct Way {
    wire: Arc<Wire>,
    line: Line,
    /// From the agent to the principal.
    up: bool,
}

impl Way {
    async fn carry(self, mut from: mpsc::Receiver<WireEvent>, to: mpsc::Sender<Result<WireEvent, Status>>) {
        let mut queue: VecDeque<(Instant, WireEvent)> = VecDeque::new();
        let mut newest = Instant::now();
        let ends = loop {
            let changed = self.line.state.changed.notified();
            let moving = match self.line.state.get() {
                State::Open => true,
                State::Stuck => false,
                State::Broken(ends) => break Some(ends),
            };
            let due = queue.front().map(|(due, _)| *due);
            let arrived = due.is_some_and(|due| due <= Instant::now());
            tokio::select! {
                biased;
                () = changed => {}
                // The other end has hung up; so do we, and the sender notices.
                () = to.closed() => return,
                permit = to.reserve(), if moving && arrived => {
                    if let (Ok(permit), Some((_, message))) = (permit, queue.pop_front()) {
                        self.note(&message);
                        permit.send(Ok(message));
                    }
                }
                () = wait(due), if moving && due.is_some() && !arrived => {}
                message = from.recv(), if queue.len() < HELD => match message {
                    Some(message) => {
                        newest = newest.max(Instant::now() + self.wire.latency());
                        queue.push_back((newest, message));
                        if !self.wire.is_calm() && self.wire.draw(|rng| rng.u16(..)) < 150 {
                            self.wire.snap_line(&self.line);
                        }
                    }
                    None => break None,
                },
            }
        };
        let Some(ends) = ends else { return self.finish(queue, to).await };
        let (sender, receiver) =
            if self.up { (ends.agent, ends.principal) } else { (ends.principal, ends.agent) };
        let hears = async {
            sleep(receiver).await;
            if ends.tail {
                for (_, message) in queue {
                    self.note(&message);
                    if to.send(Ok(message)).await.is_err() {
                        return;
                    }
                }
            }
            // Fails if the receiver has gone: then nobody wants to know.
            _ = to.send(Err(Status::unavailable("simulated: connection lost"))).await;
        };
        let loses = async {
            let until = Instant::now() + sender;
            // What is said meanwhile is said to nobody, until the buffers are full.
            for _ in 0..HELD {
                tokio::select! {
                    biased;
                    () = sleep_until(until) => break,
                    message = from.recv() => if message.is_none() { break },
                }
            }
            sleep_until(until).await;
            drop(from);
        };
        tokio::join!(hears, loses);
    }

    /// The sender has closed in good order.
    async fn finish(
        &self,
        queue: VecDeque<(Instant, WireEvent)>,
        to: mpsc::Sender<Result<WireEvent, Status>>,
    ) {
        for (due, message) in queue {
            sleep_until(due).await;
            self.note(&message);
            if to.send(Ok(message)).await.is_err() {
                return;
            }
        }
    }

    fn note(&self, message: &WireEvent) {
        let arrow = if self.up { "▲" } else { "▼" };
        let agent = self.wire.agent.as_str();
        match codec::decode(message.clone()) {
            Ok(event) => {
                let id = event.id.0.split('_').map(super::journal::short).collect::<Vec<_>>().join("_");
                let name = event.subject.as_deref().unwrap_or_default();
                self.wire
                    .journal
                    .note(agent, format_args!("{arrow} {} {} {name} {id}", event.target, event.kind));
            }
            Err(_) => self.wire.journal.note(agent, format_args!("{arrow} malformed")),
        }
    }
}

async fn wait(due: Option<Instant>) {
    if let Some(due) = due {
        sleep_until(due).await;
    }
}
