//! Traces of both sides, as a collector receives them.

use std::sync::Arc;

use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use serde_json::json;
use tiphys_shared::model::Kind;
use tiphys_test::load::traces::collector;

use super::fleet::{Fleet, merge};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_follows_a_change_to_the_cluster_and_back() {
    let spans: Arc<Mutex<Vec<(String, Span)>>> = Arc::default();
    let kept = Arc::clone(&spans);
    let collector = collector::serve(move |service, span| kept.lock().push((service.to_owned(), span)));
    let mut fleet = Fleet::embedded(&["edge"]).await;
    fleet.kill_agent("edge");
    fleet.kill_principal();
    fleet.collector = Some(collector.await.unwrap());
    fleet.start_principal().await;
    fleet.start_agent("edge");
    fleet.until_quiet().await;
    fleet.create("edge", "guestbook").await;
    let here = fleet.at_cluster(Kind::Application, "edge");
    Fleet::until_is(&here, "guestbook", "the copy", |_| true).await;
    merge(&here, "guestbook", json!({"status": {"health": {"status": "Healthy"}}})).await;
    let journey = [
        ("principal", "tell application create"),
        ("agent", "handle application create"),
        ("agent", "tell application status-update"),
        ("principal", "handle application status-update"),
    ];
    // A comparison may have it told twice: one of the two ways goes there and back.
    Fleet::until("the way there and back in one trace", async || {
        let spans = spans.lock().clone();
        let ends = journey.iter().fold(vec![Vec::new()], |parents, (service, name)| {
            let below = |parent: &Vec<u8>| {
                let spans = spans.iter().filter(|(by, span)| by == service && span.name == *name);
                spans
                    .filter(|(_, span)| span.parent_span_id == *parent)
                    .map(|(_, span)| {
                        assert!(span.end_time_unix_nano >= span.start_time_unix_nano, "{span:?}");
                        let waited = span.attributes.iter().any(|it| it.key == "tiphys.outbox.seconds");
                        assert_eq!(waited, name.starts_with("tell"), "{span:?}");
                        span.span_id.clone()
                    })
                    .collect::<Vec<_>>()
            };
            parents.iter().flat_map(below).collect()
        });
        (!ends.is_empty()).then_some(())
    })
    .await;
}
