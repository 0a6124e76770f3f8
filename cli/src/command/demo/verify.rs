//! Looks at every cluster and says what is not as it should be.

use std::collections::BTreeMap;

use futures::stream::{self, StreamExt, TryStreamExt};
use kube::Api;
use kube::api::{DynamicObject, ListParams};
use serde_json::{Value, json};

use super::applications::resource;
use super::fleet::{Cluster, Fleet, NAMESPACE};
use crate::failure::Failure;

type Applications = BTreeMap<String, Value>;

/// What differs between the control plane and the clusters, in words. Nothing if everything has converged.
pub(super) async fn differences(fleet: &Fleet) -> Result<Vec<String>, Failure> {
    let found: Vec<Vec<String>> = stream::iter(&fleet.clusters)
        .map(|cluster| async move {
            let wanted = applications(&fleet.control, &cluster.name).await?;
            let actual = applications(cluster, NAMESPACE).await?;
            Ok::<_, kube::Error>(compare(&cluster.name, &wanted, &actual))
        })
        .buffer_unordered(16)
        .try_collect()
        .await
        .map_err(|error| Failure::because("cannot list applications", &error))?;
    Ok(found.concat())
}

async fn applications(cluster: &Cluster, namespace: &str) -> Result<Applications, kube::Error> {
    let api: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), namespace, &resource());
    let list = api.list(&ListParams::default()).await?;
    Ok(list.items.into_iter().filter_map(|item| Some((item.metadata.name?, item.data))).collect())
}

fn compare(agent: &str, wanted: &Applications, actual: &Applications) -> Vec<String> {
    let mut differences = Vec::new();
    for (name, at_control) in wanted {
        let Some(at_cluster) = actual.get(name) else {
            differences.push(format!("{agent}/{name} is not on its cluster"));
            continue;
        };
        let mut spec = at_control["spec"].clone();
        // An agent's cluster is the one that its own Argo CD runs in.
        let namespace = spec["destination"]["namespace"].clone();
        spec["destination"] = json!({ "name": "in-cluster", "namespace": namespace });
        if spec != at_cluster["spec"] {
            differences.push(format!("{agent}/{name} has another spec on its cluster"));
        }
        if at_control["status"].is_null() || at_control["status"] != at_cluster["status"] {
            differences.push(format!("{agent}/{name} has another status at the control plane"));
        }
    }
    let extra = actual.keys().filter(|name| !wanted.contains_key(*name));
    differences
        .extend(extra.map(|name| format!("{agent}/{name} is on its cluster, but not at the control plane")));
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_difference_is_named() {
        let wanted = json!({
            "spec": { "source": 1, "destination": { "name": "a", "namespace": "x" } },
            "status": { "sync": 1 },
        });
        let actual = json!({
            "spec": { "source": 1, "destination": { "name": "in-cluster", "namespace": "x" } },
            "status": { "sync": 1 },
        });
        let one = |value: &Value| BTreeMap::from([("app".to_owned(), value.clone())]);
        assert_eq!(compare("a", &one(&wanted), &one(&actual)), Vec::<String>::new());
        let mut other = actual.clone();
        other["spec"]["source"] = json!(2);
        other["status"] = json!({});
        assert_eq!(
            compare("a", &one(&wanted), &one(&other)),
            ["a/app has another spec on its cluster", "a/app has another status at the control plane"]
        );
        assert_eq!(compare("a", &one(&wanted), &Applications::new()), ["a/app is not on its cluster"]);
        assert_eq!(
            compare("a", &Applications::new(), &one(&actual)),
            ["a/app is on its cluster, but not at the control plane"]
        );
    }
}
