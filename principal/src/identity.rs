//! Who this control plane is: a UUID in a config map, made once, so that a cluster can tell one control plane from another.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::PostParams;
use kube::{Api, Client};

use crate::Error;

/// Upstream's name for it.
const NAME: &str = "argocd-agent-principal-identity";
const KEY: &str = "principal-uid";

/// Reads the identity, and makes it first if there is none.
pub(crate) async fn ensure(client: &Client, namespace: &str) -> Result<String, Error> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let wrap =
        |source| Error::Identity { name: NAME, namespace: namespace.to_owned(), source: Box::new(source) };
    if let Some(uid) = maps.get_opt(NAME).await.map_err(wrap)?.and_then(read) {
        return Ok(uid);
    }
    let uid = uuid::Uuid::new_v4().to_string();
    let mut map =
        ConfigMap { data: Some(BTreeMap::from([(KEY.to_owned(), uid.clone())])), ..Default::default() };
    map.metadata.name = Some(NAME.to_owned());
    match maps.create(&PostParams::default(), &map).await {
        Ok(_) => Ok(uid),
        // Another replica was quicker: its word counts.
        Err(kube::Error::Api(status)) if status.code == 409 => {
            Ok(maps.get(NAME).await.map_err(wrap).map(read)?.unwrap_or(uid))
        }
        Err(source) => Err(wrap(source)),
    }
}

fn read(map: ConfigMap) -> Option<String> {
    map.data?.remove(KEY).filter(|uid| !uid.is_empty())
}
