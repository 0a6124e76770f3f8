//! Servers that keep what they have in a file.

use crate::disk::Disk;
use crate::store::Store;
use crate::{ApiServer, Error, Inner, Options};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};

impl ApiServer {
    /// A server on a file, which is made if it is not there: with what is in it, and with the namespaces that every
    /// cluster has. Revisions go on from where they were; whoever watched before is told to list anew unless
    /// nothing has happened since. Definitions in the options are installed where the file has none of their name.
    ///
    /// A write is answered, and seen by others, once it is on disk; writes at the same time share the effort. If the
    /// disk refuses, they are answered with 507 (it is full) or 500, nothing of them is ever seen, and
    /// [`ApiServer::trouble`] says why. The file is let go of when the last handle is dropped.
    ///
    /// # Errors
    /// [`Error::Disk`] if the file cannot be used, which is then left as it was; [`Error::Start`] if it could not be
    /// written to; [`Error::Refused`] if a definition was not taken.
    pub async fn open(options: Options, path: PathBuf) -> Result<Self, Error> {
        // A damaged file must not take the process down.
        let opened = tokio::task::spawn_blocking(move || Disk::open(&path)).await;
        let (disk, loaded) = opened.map_err(|why| Error::Start(Box::new(why)))??;
        Self::open_on(options, disk, loaded).await
    }

    pub(crate) async fn open_on(
        options: Options,
        disk: Disk,
        loaded: crate::disk::Loaded,
    ) -> Result<Self, Error> {
        let home: Arc<OnceLock<Weak<Inner>>> = Arc::default();
        let lost = home.clone();
        // What was served because of a definition that is lost is served no more.
        let on_loss = move || {
            if let Some(server) = lost.get().and_then(Weak::upgrade) {
                server.refresh_registry();
            }
        };
        let store = Store::kept(options.window(), disk, loaded, on_loss)
            .map_err(|why| Error::Start(Box::new(why)))?;
        let ticket = store.ticket();
        let definitions = options.definitions.clone();
        let server = Self::over(store, options);
        _ = home.set(Arc::downgrade(&server.inner));
        server.inner.refresh_registry();
        definitions.add(&server)?;
        let settled = server.inner.store.settled(ticket).await;
        settled.map_err(|trouble| Error::Start(trouble.message.to_string().into()))?;
        Ok(server)
    }

    /// Waits until [`ApiServer::trouble`] is another one than `known`.
    pub async fn trouble_after(&self, known: Option<&str>) -> Option<String> {
        let Some(mut decisions) = self.inner.store.decisions() else { return std::future::pending().await };
        loop {
            let trouble = self.trouble();
            if trouble.as_deref() != known {
                return trouble;
            }
            // The sender lives as long as self.
            _ = decisions.changed().await;
        }
    }

    /// Why no change is taken at the moment, if so: what the disk says. Always none in memory.
    pub fn trouble(&self) -> Option<String> {
        self.inner.store.trouble().map(|trouble| trouble.message.to_string())
    }
}
