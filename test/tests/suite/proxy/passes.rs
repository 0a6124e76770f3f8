//! Whatever Kubernetes' API can do passes.

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_nothing_can_reach_is_used_like_any_other() {
    let fleet = Fleet::embedded(&["edge"]).await;
    let client = client_of(&fleet, "edge").await;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &fleet.namespace);
    let direct: Api<ConfigMap> = Api::namespaced(fleet.cluster("edge").client(), &fleet.namespace);

    let map: ConfigMap = serde_json::from_value(config_map("one", &[("key", "value")])).unwrap();
    let created = maps.create(&PostParams::default(), &map).await.unwrap();
    assert_eq!(direct.get("one").await.unwrap().uid(), created.uid());
    assert_eq!(maps.get("one").await.unwrap(), direct.get("one").await.unwrap());
    assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), 1);

    let version = created.resource_version().unwrap();
    let mut changes = maps.watch(&WatchParams::default(), &version).await.unwrap().boxed();
    let patch = Patch::Merge(json!({"data": {"key": "other"}}));
    let patched = maps.patch("one", &PatchParams::default(), &patch).await.unwrap();
    let Some(Ok(WatchEvent::Modified(seen))) = changes.next().await else { panic!("no change was seen") };
    assert_eq!(seen, patched);
    // What changes at the cluster by other ways is seen as well.
    direct.delete("one", &DeleteParams::default()).await.unwrap();
    let Some(Ok(WatchEvent::Deleted(_))) = changes.next().await else { panic!("no deletion was seen") };

    let missing = maps.get("one").await.unwrap_err();
    let kube::Error::Api(status) = missing else { panic!("{missing}") };
    assert_eq!((status.code, status.reason.as_str()), (404, "NotFound"));
    assert_eq!(
        client.apiserver_version().await.unwrap(),
        fleet.cluster("edge").client().apiserver_version().await.unwrap()
    );
}
