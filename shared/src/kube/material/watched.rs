//! Secrets that are followed: one watch for each, however many look at it.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher::Event;
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::kube::informer::watch_one;

/// What a Secret holds; empty where there is none.
pub(super) type Content = Arc<BTreeMap<String, ByteString>>;
/// What a Secret holds now; none before the first word of it.
pub(super) type Follower = watch::Receiver<Option<Content>>;

/// The Secrets that are followed, by name.
#[derive(Default)]
pub(super) struct Watched(Mutex<BTreeMap<String, Follower>>);

impl Watched {
    /// Follows a Secret until `cancel`. Who asks for the same one again gets the same watch.
    pub(super) fn follow(
        &self,
        client: &Client,
        namespace: &str,
        name: &str,
        cancel: &CancellationToken,
    ) -> Follower {
        let mut followed = self.0.lock();
        if let Some(follower) = followed.get(name).filter(|follower| follower.has_changed().is_ok()) {
            return follower.clone();
        }
        let (sender, receiver) = watch::channel(None);
        let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
        tokio::spawn(cancel.clone().run_until_cancelled_owned(run(api, name.to_owned(), sender)));
        followed.insert(name.to_owned(), receiver.clone());
        receiver
    }
}

async fn run(api: Api<Secret>, name: String, sender: watch::Sender<Option<Content>>) {
    let mut events = watch_one(api, &name);
    let mut listed = Content::default();
    while let Some(event) = events.next().await {
        let now = match event {
            Ok(Event::Init) => {
                listed = Content::default();
                continue;
            }
            Ok(Event::InitApply(secret)) => {
                listed = Content::new(secret.data.unwrap_or_default());
                continue;
            }
            Ok(Event::InitDone) => Arc::clone(&listed),
            Ok(Event::Apply(secret)) => Content::new(secret.data.unwrap_or_default()),
            Ok(Event::Delete(_)) => Content::default(),
            Err(error) => {
                tracing::debug!(name, %error, "watch of a Secret broke");
                continue;
            }
        };
        sender.send_if_modified(|known| {
            let changed = known.as_ref() != Some(&now);
            *known = Some(now);
            changed
        });
    }
}
