//! As much of Redis as Tiphys and its tests need, in both versions of its protocol.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde_json::Value;
use tiphys_shared::model::cluster::{ClusterInfo, Compression};
use tiphys_shared::process::options::HostPort;
use tiphys_shared::redis::{Config, Login};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::fleet::Fleet;

/// A value, and for how many seconds it is kept.
type Kept = (Vec<u8>, Option<u64>);

#[derive(Default)]
struct Store {
    password: String,
    kept: Mutex<BTreeMap<String, Kept>>,
    subscribers: Mutex<Vec<Subscriber>>,
    connections: AtomicUsize,
    refusals: AtomicUsize,
}

struct Subscriber {
    channel: String,
    connection: usize,
    version3: bool,
    say: UnboundedSender<Vec<u8>>,
}

/// A Redis that can be stopped and comes back at the same port with what it had.
pub(crate) struct RedisServer {
    port: u16,
    store: Arc<Store>,
    serving: Option<tokio::task::JoinHandle<()>>,
}

impl RedisServer {
    /// Without a password, everybody may do everything.
    pub(crate) async fn start(password: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let store = Arc::new(Store { password: password.to_owned(), ..Store::default() });
        let serving = Some(tokio::spawn(serve(listener, Arc::clone(&store))));
        Self { port, store, serving }
    }

    pub(crate) async fn stop(&mut self) {
        let serving = self.serving.take().unwrap();
        serving.abort();
        assert!(serving.await.unwrap_err().is_cancelled());
        self.store.subscribers.lock().clear();
    }

    pub(crate) async fn resume(&mut self) {
        let address = ("127.0.0.1", self.port);
        let listener = Fleet::until("the port", async || TcpListener::bind(address).await.ok()).await;
        self.serving = Some(tokio::spawn(serve(listener, Arc::clone(&self.store))));
    }

    /// How to reach it.
    pub(crate) fn access(&self) -> Config {
        let login = Login::Given { username: String::new(), password: self.store.password.as_str().into() };
        Config { address: HostPort::new("127.0.0.1", self.port).unwrap(), login, tls: None }
    }

    pub(crate) fn keep(&self, key: &str, value: Vec<u8>) {
        self.store.kept.lock().insert(key.to_owned(), (value, None));
    }

    pub(crate) fn forget(&self) {
        self.store.kept.lock().clear();
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.store.kept.lock().keys().cloned().collect()
    }

    pub(crate) fn refusals(&self) -> usize {
        self.store.refusals.load(Ordering::Relaxed)
    }

    /// How many seconds a key was to live when it was set.
    pub(crate) fn lives(&self, key: &str) -> Option<u64> {
        self.store.kept.lock().get(key).and_then(|(_, lives)| *lives)
    }

    /// The JSON under a key that is packed with gzip.
    pub(crate) fn unpacked(&self, key: &str) -> Option<Value> {
        let (entry, _) = self.store.kept.lock().get(key).cloned()?;
        let info = ClusterInfo::decode(&entry, Compression::Gzip).unwrap();
        Some(serde_json::to_value(info).unwrap())
    }

    /// Number of subscribers of a channel.
    pub(crate) fn subscribers(&self, channel: &str) -> usize {
        self.store.subscribers.lock().iter().filter(|subscriber| subscriber.channel == channel).count()
    }

    /// Tells all subscribers of a channel.
    pub(crate) fn publish(&self, channel: &str) -> usize {
        self.store.publish(channel, b"")
    }
}

impl Store {
    fn publish(&self, channel: &str, message: &[u8]) -> usize {
        let subscribers = self.subscribers.lock();
        let told = subscribers.iter().filter(|subscriber| subscriber.channel == channel);
        told.filter(|subscriber| {
            let parts = [text(b"message"), text(channel.as_bytes()), text(message)];
            subscriber.say.send(push(subscriber.version3, &parts)).is_ok()
        })
        .count()
    }
}

async fn serve(listener: TcpListener, store: Arc<Store>) {
    // Dropped with this task, and the connections with it.
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let store = Arc::clone(&store);
        connections.spawn(async move {
            let number = store.connections.fetch_add(1, Ordering::Relaxed);
            // A client may go whenever it likes.
            _ = converse(stream, &store, number).await;
            store.subscribers.lock().retain(|subscriber| subscriber.connection != number);
        });
    }
}

async fn converse(stream: TcpStream, store: &Store, number: usize) -> io::Result<()> {
    let (read_half, mut write_half) = stream.into_split();
    let (say, mut said) = unbounded_channel::<Vec<u8>>();
    let writing = async {
        while let Some(reply) = said.recv().await.filter(|reply| !reply.is_empty()) {
            write_half.write_all(&reply).await?;
        }
        io::Result::Ok(())
    };
    let mut client =
        Client { store, number, say, known: store.password.is_empty(), version3: false, queued: None };
    let reading = async {
        let mut stream = BufReader::new(read_half);
        // The other end may be gone at any time.
        while let Ok(command) = read(&mut stream).await {
            let reply = client.command(&command);
            _ = client.say.send(reply);
        }
        // Whoever says no more may still listen to what is on its way.
        _ = client.say.send(Vec::new());
    };
    tokio::join!(writing, reading).0
}

struct Client<'a> {
    store: &'a Store,
    number: usize,
    say: UnboundedSender<Vec<u8>>,
    known: bool,
    version3: bool,
    queued: Option<Vec<Vec<Vec<u8>>>>,
}

impl Client<'_> {
    fn command(&mut self, command: &[Vec<u8>]) -> Vec<u8> {
        let store = self.store;
        let words: Vec<&str> =
            command.iter().map(|word| std::str::from_utf8(word).unwrap_or_default()).collect();
        let verb = words.first().map(|verb| verb.to_uppercase()).unwrap_or_default();
        if let Some(queued) = &mut self.queued
            && verb != "EXEC"
        {
            queued.push(command.to_vec());
            return b"+QUEUED\r\n".to_vec();
        }
        match (verb.as_str(), &words[1..]) {
            ("AUTH", [password] | [_, password]) if *password == store.password => {
                self.known = true;
                b"+OK\r\n".to_vec()
            }
            ("AUTH", _) => refuse(store, "WRONGPASS invalid username-password pair or user is disabled."),
            ("HELLO", [version, rest @ ..]) => {
                if let ["AUTH", _, password, ..] = rest {
                    self.known |= *password == store.password;
                }
                if !self.known {
                    return refuse(
                        store,
                        "NOAUTH HELLO must be called with the client already authenticated",
                    );
                }
                self.version3 = *version == "3";
                let head: &[u8] = if self.version3 { b"%2\r\n" } else { b"*4\r\n" };
                let proto = format!(":{version}\r\n").into_bytes();
                [head, &text(b"server"), &text(b"redis"), &text(b"proto"), &proto].concat()
            }
            _ if !self.known => refuse(store, "NOAUTH Authentication required."),
            ("PING", []) => b"+PONG\r\n".to_vec(),
            ("CLIENT", _) => b"+OK\r\n".to_vec(),
            ("ECHO", [_]) => text(&command[1]),
            ("GET", [key]) => match store.kept.lock().get(*key) {
                None if self.version3 => b"_\r\n".to_vec(),
                None => b"$-1\r\n".to_vec(),
                Some((value, _)) => text(value),
            },
            ("SET", [key, _, rest @ ..]) => {
                let lives = rest.get(1).map(|seconds| seconds.parse().unwrap());
                store.kept.lock().insert((*key).to_owned(), (command[2].clone(), lives));
                b"+OK\r\n".to_vec()
            }
            ("PUBLISH", [channel, _]) => format!(":{}\r\n", store.publish(channel, &command[2])).into_bytes(),
            ("SUBSCRIBE", channels) => {
                let (number, version3) = (self.number, self.version3);
                let confirm = |(nth, channel): (usize, &&str)| {
                    let (channel, say) = ((*channel).to_owned(), self.say.clone());
                    let reply =
                        [text(b"subscribe"), text(channel.as_bytes()), format!(":{}\r\n", nth + 1).into()];
                    store.subscribers.lock().push(Subscriber { channel, connection: number, version3, say });
                    push(version3, &reply)
                };
                channels.iter().enumerate().map(confirm).collect::<Vec<_>>().concat()
            }
            ("UNSUBSCRIBE", [channel]) => {
                let gone = |it: &Subscriber| it.connection == self.number && it.channel == *channel;
                store.subscribers.lock().retain(|subscriber| !gone(subscriber));
                push(self.version3, &[text(b"unsubscribe"), text(channel.as_bytes()), b":0\r\n".to_vec()])
            }
            ("MULTI", []) => {
                self.queued = Some(Vec::new());
                b"+OK\r\n".to_vec()
            }
            ("EXEC", []) => {
                let queued = self.queued.take().unwrap_or_default();
                let replies: Vec<Vec<u8>> = queued.iter().map(|command| self.command(command)).collect();
                [format!("*{}\r\n", replies.len()).into_bytes(), replies.concat()].concat()
            }
            _ => refuse(store, "ERR unknown command"),
        }
    }
}

fn text(bytes: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

fn push(version3: bool, parts: &[Vec<u8>]) -> Vec<u8> {
    let sign = if version3 { '>' } else { '*' };
    [format!("{sign}{}\r\n", parts.len()).into_bytes(), parts.concat()].concat()
}

fn refuse(store: &Store, reason: &str) -> Vec<u8> {
    store.refusals.fetch_add(1, Ordering::Relaxed);
    format!("-{reason}\r\n").into_bytes()
}

/// Reads an array of texts.
async fn read(stream: &mut BufReader<OwnedReadHalf>) -> io::Result<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    for _ in 0..number(stream, '*').await? {
        let mut word = vec![0; number(stream, '$').await? + 2];
        stream.read_exact(&mut word).await?;
        word.truncate(word.len() - 2);
        words.push(word);
    }
    Ok(words)
}

async fn number(stream: &mut BufReader<OwnedReadHalf>, sign: char) -> io::Result<usize> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let digits = line.trim_end().strip_prefix(sign).and_then(|digits| digits.parse().ok());
    digits.ok_or_else(|| io::Error::other(format!("{line:?} is not a number after {sign}")))
}
