//! Argo CD hears what changes at a cluster.

use futures::StreamExt as _;

use super::*;

/// The next channel to which something was published.
pub(crate) async fn next(pubsub: &mut PubSub) -> String {
    let message = tokio::time::timeout(Duration::from_secs(60), pubsub.on_message().next()).await;
    message.expect("nothing was heard").expect("the connection ended").get_channel_name().to_owned()
}

impl Stage {
    /// Waits until the agent listens to a channel of its cluster, once.
    async fn until_listening(&self, channel: &str) {
        let listening = async || (self.cluster.subscribers(channel) == 1).then_some(());
        Fleet::until("the agent listens", listening).await;
    }

    /// Publishes to a channel of the cluster, and expects to hear of it: more often than there can be word of a connection that
    /// is new.
    async fn until_heard(&self, name: &str, pubsub: &mut PubSub) {
        for _ in 0..10 {
            assert_eq!(self.cluster.publish(&changes(name)), 1);
            while next(pubsub).await != changes(&format!("edge_{name}")) {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn argocd_hears_what_changes_at_a_cluster_and_at_home() {
    let stage = Stage::managed().await;
    stage.create("shop").await;
    let mut first = stage.pubsub().await;
    let mut second = stage.pubsub().await;
    let mut home = stage.pubsub().await;
    first.subscribe(changes("edge_shop")).await.unwrap();
    second.subscribe(&[changes("edge_shop"), "other".to_owned()]).await.unwrap();
    home.subscribe("new-revoked-token").await.unwrap();
    stage.until_listening(&changes("shop")).await;
    stage.until_heard("shop", &mut first).await;
    stage.until_heard("shop", &mut second).await;
    stage.control.publish("new-revoked-token");
    assert_eq!(next(&mut home).await, "new-revoked-token");
    // What is not of the control plane is not told.
    assert_eq!(stage.cluster.subscribers(&changes("other")), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_comes_later_is_listened_to_as_well() {
    let stage = Stage::managed().await;
    let mut pubsub = stage.pubsub().await;
    pubsub.subscribe(changes("edge_later")).await.unwrap();
    stage.create("later").await;
    assert_eq!(next(&mut pubsub).await, changes("edge_later"), "the news that it may have changed");
    stage.until_listening(&changes("later")).await;
    stage.until_heard("later", &mut pubsub).await;
}

/// argocd-agent#1104: one site restarts its principal by a job that looks for this.
#[tokio::test(flavor = "multi_thread")]
async fn live_view_of_one_agent_is_not_dead_until_the_principal_is_restarted() {
    let mut stage = Stage::managed().await;
    stage.create("shop").await;
    let mut pubsub = stage.pubsub().await;
    pubsub.subscribe(changes("edge_shop")).await.unwrap();
    stage.until_listening(&changes("shop")).await;

    // The agent goes, so that nothing answers, and comes back.
    for _ in 0..2 {
        stage.fleet.kill_agent("edge");
        Fleet::until("nobody listens", async || {
            (stage.cluster.subscribers(&changes("shop")) == 0).then_some(())
        })
        .await;
        stage.fleet.start_agent("edge");
        stage.until_listening(&changes("shop")).await;
        stage.until_heard("shop", &mut pubsub).await;
    }

    // Its Redis goes, and comes back.
    stage.cluster.stop().await;
    stage.cluster.resume().await;
    stage.until_listening(&changes("shop")).await;
    stage.until_heard("shop", &mut pubsub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_ends_with_the_connection_that_it_was_made_on() {
    let stage = Stage::managed().await;
    stage.create("shop").await;
    let listening = || stage.fleet.gauge("tiphys_principal_redis_proxy_channels_listening");
    let mut first = stage.pubsub().await;
    let mut second = stage.pubsub().await;
    first.subscribe(changes("edge_shop")).await.unwrap();
    second.subscribe(changes("edge_shop")).await.unwrap();
    Fleet::until("a channel", async || (listening() == 1).then_some(())).await;
    drop(first);
    second.unsubscribe(changes("edge_shop")).await.unwrap();
    Fleet::until("none", async || (listening() == 0).then_some(())).await;
    assert_eq!(stage.fleet.gauge("tiphys_principal_redis_proxy_channels"), 0);
    let gone = async || (stage.control.subscribers(&changes("edge_shop")) == 0).then_some(());
    Fleet::until("no subscriber", gone).await;
}
