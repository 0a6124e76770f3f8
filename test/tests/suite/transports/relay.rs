//! Something in between: it passes bytes on, keeps what both sides said first, and can break every connection at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tiphys_shared::wire::tunnel::join;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio_util::task::AbortOnDropHandle;

/// A relay to one address.
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    taken: Arc<AtomicUsize>,
    breaks: broadcast::Sender<()>,
    _task: AbortOnDropHandle<()>,
}

impl Relay {
    pub(super) async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let taken = Arc::new(AtomicUsize::new(0));
        let breaks = broadcast::channel(1).0;
        let (count, breaking) = (Arc::clone(&taken), breaks.clone());
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(to).await else { continue };
                count.fetch_add(1, Ordering::Relaxed);
                let mut breaks = breaking.subscribe();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = join(near, far) => {}
                        _ = breaks.recv() => {}
                    }
                });
            }
        });
        Self { address, taken, breaks, _task: AbortOnDropHandle::new(task) }
    }

    /// Breaks every connection.
    pub(super) fn cut(&self) {
        // None may be open just now.
        _ = self.breaks.send(());
    }

    /// How many connections there were.
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}
