//! As much of Redis as Argo CD's cluster view needs: `AUTH`, `GET` and `SET` with a time to live.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde_json::Value;
use tiphys_shared::model::cluster::{ClusterInfo, Compression};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::fleet::Fleet;

/// A value, and for how many seconds it is kept.
type Kept = (Vec<u8>, Option<u64>);

#[derive(Default)]
struct Store {
    password: String,
    kept: Mutex<BTreeMap<String, Kept>>,
    refusals: AtomicUsize,
}

/// A Redis that can be stopped and comes back at the same port with what it had.
pub(super) struct RedisServer {
    port: u16,
    store: Arc<Store>,
    serving: Option<tokio::task::JoinHandle<()>>,
}

impl RedisServer {
    /// Without a password, everybody may do everything.
    pub(super) async fn start(password: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let store = Arc::new(Store { password: password.to_owned(), ..Store::default() });
        let serving = Some(tokio::spawn(serve(listener, Arc::clone(&store))));
        Self { port, store, serving }
    }

    pub(super) async fn stop(&mut self) {
        let serving = self.serving.take().unwrap();
        serving.abort();
        assert!(serving.await.unwrap_err().is_cancelled());
    }

    pub(super) async fn resume(&mut self) {
        let address = ("127.0.0.1", self.port);
        let listener = Fleet::until("the port", async || TcpListener::bind(address).await.ok()).await;
        self.serving = Some(tokio::spawn(serve(listener, Arc::clone(&self.store))));
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn password(&self) -> &str {
        &self.store.password
    }

    pub(super) fn keep(&self, key: &str, value: Vec<u8>) {
        self.store.kept.lock().insert(key.to_owned(), (value, None));
    }

    pub(super) fn forget(&self) {
        self.store.kept.lock().clear();
    }

    pub(super) fn keys(&self) -> Vec<String> {
        self.store.kept.lock().keys().cloned().collect()
    }

    pub(super) fn refusals(&self) -> usize {
        self.store.refusals.load(Ordering::Relaxed)
    }

    /// How many seconds a key was to live when it was set.
    pub(super) fn lives(&self, key: &str) -> Option<u64> {
        self.store.kept.lock().get(key).and_then(|(_, lives)| *lives)
    }

    /// The JSON under a key that is packed with gzip.
    pub(super) fn unpacked(&self, key: &str) -> Option<Value> {
        let (entry, _) = self.store.kept.lock().get(key).cloned()?;
        let info = ClusterInfo::decode(&entry, Compression::Gzip).unwrap();
        Some(serde_json::to_value(info).unwrap())
    }
}

async fn serve(listener: TcpListener, store: Arc<Store>) {
    // Dropped with this task, and the connections with it.
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let store = Arc::clone(&store);
        connections.spawn(async move {
            // A client may go whenever it likes.
            _ = converse(stream, &store).await;
        });
    }
}

async fn converse(stream: TcpStream, store: &Store) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut known = store.password.is_empty();
    loop {
        let command = read(&mut stream).await?;
        let words: Vec<&str> =
            command.iter().map(|word| std::str::from_utf8(word).unwrap_or_default()).collect();
        let answer = match words.as_slice() {
            ["AUTH", password] if *password == store.password => {
                known = true;
                b"+OK\r\n".to_vec()
            }
            ["AUTH", ..] => refuse(store, "WRONGPASS invalid username-password pair or user is disabled."),
            _ if !known => refuse(store, "NOAUTH Authentication required."),
            ["GET", key] => match store.kept.lock().get(*key) {
                None => b"$-1\r\n".to_vec(),
                Some((value, _)) => {
                    [format!("${}\r\n", value.len()).as_bytes(), value.as_slice(), b"\r\n"].concat()
                }
            },
            ["SET", key, _, "EX", seconds] => {
                let lives = seconds.parse().unwrap();
                store.kept.lock().insert((*key).to_owned(), (command[2].clone(), Some(lives)));
                b"+OK\r\n".to_vec()
            }
            _ => refuse(store, "ERR unknown command"),
        };
        stream.write_all(&answer).await?;
    }
}

fn refuse(store: &Store, reason: &str) -> Vec<u8> {
    store.refusals.fetch_add(1, Ordering::Relaxed);
    format!("-{reason}\r\n").into_bytes()
}

/// Reads an array of texts.
async fn read(stream: &mut BufReader<TcpStream>) -> io::Result<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    for _ in 0..number(stream, '*').await? {
        let mut word = vec![0; number(stream, '$').await? + 2];
        stream.read_exact(&mut word).await?;
        word.truncate(word.len() - 2);
        words.push(word);
    }
    Ok(words)
}

async fn number(stream: &mut BufReader<TcpStream>, sign: char) -> io::Result<usize> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let digits = line.trim_end().strip_prefix(sign).and_then(|digits| digits.parse().ok());
    digits.ok_or_else(|| io::Error::other(format!("{line:?} is not a number after {sign}")))
}
