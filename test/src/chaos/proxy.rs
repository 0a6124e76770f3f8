//! A TCP proxy on loopback that does to connections what networks do.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Most that is passed on at once; small, so that a fault can fall into a message.
const CHUNK: usize = 4096;

/// What can happen to the connections of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Climate {
    /// Everything, also that a connection is silent for ever and neither side is told.
    Wild,
    /// What ends or comes back by itself.
    Mild,
}

/// What all connections of a proxy are told at once.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// End.
    Cut,
    /// Pass nothing on for ever, and do not end.
    Hang,
    /// Pass nothing on for so long.
    Stall(Duration),
}

/// A proxy. Its connections end with it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    cancel: CancellationToken,
}

#[derive(Debug)]
struct Shared {
    climate: Climate,
    target: Mutex<Option<SocketAddr>>,
    stormy: Mutex<bool>,
    refuses_until: Mutex<Option<Instant>>,
    rng: Mutex<fastrand::Rng>,
    orders: broadcast::Sender<Order>,
    faults: AtomicU64,
}

impl Proxy {
    /// Opens a proxy. Without a target connections are refused.
    ///
    /// # Errors
    /// If nothing can be bound on loopback.
    pub async fn open(
        target: Option<SocketAddr>,
        climate: Climate,
        rng: fastrand::Rng,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            climate,
            target: Mutex::new(target),
            stormy: Mutex::new(false),
            refuses_until: Mutex::default(),
            rng: Mutex::new(rng),
            orders: broadcast::channel(16).0,
            faults: AtomicU64::new(0),
        });
        let cancel = CancellationToken::new();
        tokio::spawn(serve(listener, Arc::clone(&shared), cancel.clone()));
        Ok(Self { address, shared, cancel })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// New connections lead there; nowhere if there is nobody.
    pub fn lead_to(&self, target: Option<SocketAddr>) {
        *self.shared.target.lock() = target;
    }

    /// Whether connections fail by themselves from now on. What hangs goes on hanging.
    pub fn set_stormy(&self, stormy: bool) {
        *self.shared.stormy.lock() = stormy;
        if !stormy {
            *self.shared.refuses_until.lock() = None;
        }
    }

    /// Tells all connections something.
    pub fn order(&self, order: Order) {
        // Nobody listens when there is no connection.
        if self.shared.orders.send(order).is_ok() {
            self.shared.note_fault();
        }
    }

    /// Refuses new connections for so long.
    pub fn refuse(&self, time: Duration) {
        *self.shared.refuses_until.lock() = Some(Instant::now() + time);
        self.shared.note_fault();
    }

    /// How often something went wrong.
    pub fn faults(&self) -> u64 {
        self.shared.faults.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Shared {
    fn note_fault(&self) {
        self.faults.fetch_add(1, Ordering::Relaxed);
    }

    fn is_stormy(&self) -> bool {
        *self.stormy.lock()
    }

    fn refuses(&self) -> bool {
        self.refuses_until.lock().is_some_and(|until| Instant::now() < until)
    }

    fn fate(&self) -> Fate {
        if self.is_stormy() { Fate::draw(&mut self.rng.lock(), self.climate) } else { Fate::default() }
    }
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

/// What will happen to one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Fate {
    /// After so many bytes, both ways together.
    after: u64,
    what: What,
    /// The way that it happens to; both without it.
    way: Option<Way>,
    /// Before each chunk.
    delay: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum What {
    #[default]
    Nothing,
    Cut,
    Stall(Duration),
    Hang,
}

impl Fate {
    fn draw(rng: &mut fastrand::Rng, climate: Climate) -> Self {
        let what = match (rng.u8(..100), climate) {
            (0..35, _) => What::Cut,
            (35..55, Climate::Wild) => What::Stall(Duration::from_millis(rng.u64(500..15_000))),
            (35..55, Climate::Mild) => What::Stall(Duration::from_millis(rng.u64(100..4_000))),
            (55..65, Climate::Wild) => What::Hang,
            _ => What::Nothing,
        };
        // As often within the handshake as late in a long life.
        let after = 1 << rng.u32(6..20);
        let after = rng.u64(after / 2..after);
        let way = match rng.u8(..4) {
            0 => Some(Way::Up),
            1 => Some(Way::Down),
            _ => None,
        };
        let delay = (rng.u8(..4) == 0).then(|| Duration::from_millis(rng.u64(1..120)));
        Self { after, what, way, delay }
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>, cancel: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((client, _)) = accepted else {
            // For instance for lack of file descriptors: they come back.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let target = *shared.target.lock();
        let Some(target) = target.filter(|_| !shared.refuses()) else {
            reset(&client);
            continue;
        };
        let (shared, cancel) = (Arc::clone(&shared), cancel.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = carry(client, target, &shared) => {}
            }
        });
    }
}

/// Lets the other side see a reset instead of an orderly end when this one is dropped.
fn reset(stream: &TcpStream) {
    // A socket that is gone already needs no reset.
    _ = stream.set_zero_linger();
}

/// What keeps one way of a connection from passing bytes on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Gate {
    Open,
    Until(Instant),
    Shut,
}

struct Connection<'a> {
    shared: &'a Shared,
    fate: Fate,
    passed: AtomicU64,
    gates: [watch::Sender<Gate>; 2],
}

/// The connection is to end.
struct Ended;

async fn carry(mut client: TcpStream, target: SocketAddr, shared: &Shared) {
    let mut orders = shared.orders.subscribe();
    let Ok(mut server) = TcpStream::connect(target).await else {
        return reset(&client);
    };
    // Small messages are not to wait for larger ones; without it they arrive all the same.
    _ = client.set_nodelay(true);
    _ = server.set_nodelay(true);
    let connection = Connection {
        shared,
        fate: shared.fate(),
        passed: AtomicU64::new(0),
        gates: [watch::channel(Gate::Open).0, watch::channel(Gate::Open).0],
    };
    {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let up = connection.pass(Way::Up, from_client, to_server);
        let down = connection.pass(Way::Down, from_server, to_client);
        let obey = async {
            while let Ok(order) = orders.recv().await {
                match order {
                    Order::Cut => return,
                    Order::Hang => connection.shut(None, Gate::Shut),
                    Order::Stall(time) => connection.shut(None, Gate::Until(Instant::now() + time)),
                }
            }
        };
        tokio::select! {
            _ = async { tokio::try_join!(up, down) } => {}
            () = obey => {}
        }
    }
    if shared.rng.lock().bool() {
        reset(&client);
        reset(&server);
    }
}

impl Connection<'_> {
    fn gate(&self, way: Way) -> &watch::Sender<Gate> {
        let [up, down] = &self.gates;
        match way {
            Way::Up => up,
            Way::Down => down,
        }
    }

    fn shut(&self, way: Option<Way>, gate: Gate) {
        for each in [Way::Up, Way::Down] {
            if way.is_none_or(|way| way == each) {
                self.gate(each).send_if_modified(|now| {
                    // What hangs does not come back.
                    let changes = *now != Gate::Shut;
                    if changes {
                        *now = gate;
                    }
                    changes
                });
            }
        }
    }

    async fn pass(&self, way: Way, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> Result<(), Ended> {
        let mut gate = self.gate(way).subscribe();
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = from.read(&mut buffer).await.map_err(|_| Ended)?;
            let before = self.passed.fetch_add(read as u64, Ordering::Relaxed);
            let mut passes = read;
            if let Some(point) = self.fate.after.checked_sub(before).filter(|point| *point < read as u64)
                && self.fate.what != What::Nothing
                && self.shared.is_stormy()
            {
                self.shared.note_fault();
                match self.fate.what {
                    What::Nothing => {}
                    // Part of it arrives.
                    What::Cut => passes = usize::try_from(point).unwrap_or(read).min(read),
                    What::Stall(time) => self.shut(self.fate.way, Gate::Until(Instant::now() + time)),
                    What::Hang => self.shut(self.fate.way, Gate::Shut),
                }
            }
            if let Some(delay) = self.fate.delay.filter(|_| self.shared.is_stormy()) {
                tokio::time::sleep(delay).await;
            }
            wait_open(&mut gate).await;
            if read == 0 {
                to.shutdown().await.map_err(|_| Ended)?;
                return Ok(());
            }
            to.write_all(buffer.get(..passes).unwrap_or_default()).await.map_err(|_| Ended)?;
            if passes < read {
                return Err(Ended);
            }
        }
    }
}

async fn wait_open(gate: &mut watch::Receiver<Gate>) {
    loop {
        let now = *gate.borrow_and_update();
        match now {
            Gate::Open => return,
            Gate::Until(time) if Instant::now() >= time => return,
            Gate::Until(time) => {
                tokio::select! {
                    () = tokio::time::sleep_until(time) => {}
                    _ = gate.changed() => {}
                }
            }
            Gate::Shut => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests;
