//! Whether an object belongs to an application of Argo CD: by the installation's tracking method, itself or an owner of it.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use http::StatusCode;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ApiResource, DynamicObject, PartialObjectMeta};
use kube::runtime::watcher;
use kube::{Client, ResourceExt as _};
use parking_lot::Mutex;
use tiphys_shared::kube::informer::watch_one;
use tiphys_shared::model::api_request::ResourcePath;
use tiphys_shared::proxy::refusal::Refusal;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Where Argo CD keeps its settings.
const SETTINGS: &str = "argocd-cm";
const TRACKING_ID: &str = "argocd.argoproj.io/tracking-id";
const INSTANCE: &str = "app.kubernetes.io/instance";
/// How far up owners are followed. A pod of a job of a cron job is three.
const GENERATIONS: usize = 5;
/// How many owners one object may have that are looked at.
const OWNERS: usize = 10;
/// How many kinds are remembered by their plurals.
const KINDS: usize = 1000;

/// How an installation of Argo CD marks what belongs to an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tracking {
    /// By an annotation.
    Annotation,
    /// By the label of this name.
    Label(String),
    /// By something that this version does not know.
    Unknown(String),
}

impl Tracking {
    fn read(settings: &BTreeMap<String, String>) -> Self {
        let setting = |key: &str| settings.get(key).map(String::as_str).filter(|text| !text.is_empty());
        match setting("application.resourceTrackingMethod") {
            None | Some("annotation" | "annotation+label") => Self::Annotation,
            Some("label") => {
                Self::Label(setting("application.instanceLabelKey").unwrap_or(INSTANCE).to_owned())
            }
            Some(other) => Self::Unknown(other.chars().take(40).collect()),
        }
    }

    fn marks(&self, object: &impl kube::ResourceExt) -> bool {
        match self {
            Self::Annotation => object.annotations().contains_key(TRACKING_ID),
            Self::Label(key) => object.labels().contains_key(key),
            Self::Unknown(_) => false,
        }
    }
}

/// Asks the cluster what belongs to an application.
pub(crate) struct Managed {
    client: Client,
    namespace: String,
    tracking: watch::Sender<Tracking>,
    /// What is known of kinds, by API version and kind: a copy of discovery.
    kinds: Mutex<BTreeMap<(String, String), (ApiResource, bool)>>,
}

type Found = PartialObjectMeta<DynamicObject>;

impl Managed {
    pub(super) fn new(client: Client, namespace: &str) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            tracking: watch::channel(Tracking::Annotation).0,
            kinds: Mutex::default(),
        }
    }

    /// Keeps up with the installation's tracking method until `cancel`.
    pub(crate) async fn follow(&self, cancel: CancellationToken) {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut events = watch_one(maps, SETTINGS);
        loop {
            let event = tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                event = events.next() => event,
            };
            let settings = match event {
                Some(Ok(watcher::Event::Apply(map) | watcher::Event::InitApply(map))) => {
                    map.data.unwrap_or_default()
                }
                Some(Ok(watcher::Event::Delete(_))) => BTreeMap::new(),
                Some(Ok(watcher::Event::Init | watcher::Event::InitDone)) => continue,
                Some(Err(error)) => {
                    tracing::warn!(%error, "argo cd's settings cannot be read; its last known tracking method counts");
                    continue;
                }
                None => return,
            };
            let tracking = Tracking::read(&settings);
            if self.tracking.send_replace(tracking.clone()) != tracking {
                tracing::info!(?tracking, "argo cd's tracking method");
            }
        }
    }

    /// Refuses an object that belongs to no application.
    pub(super) async fn check(&self, path: &ResourcePath) -> Result<(), Refusal> {
        let api_version = if path.group.is_empty() {
            path.version.clone()
        } else {
            format!("{}/{}", path.group, path.version)
        };
        let resource = ApiResource {
            group: path.group.clone(),
            version: path.version.clone(),
            api_version,
            kind: String::new(),
            plural: path.resource.clone(),
        };
        // A namespace is its own namespace by its path only.
        let namespace = if path.resource == "namespaces" { "" } else { path.namespace.as_str() };
        let tracking = self.tracking.borrow().clone();
        if let Tracking::Unknown(method) = &tracking {
            return Err(forbidden(format!(
                "argo cd's tracking method {method:?} is unknown to the agent, so nothing belongs to an application for it"
            )));
        }
        let found = self.get(&resource, namespace, &path.name).await.map_err(|error| refused(&error))?;
        let mut generation = vec![found];
        for _ in 0..GENERATIONS {
            if generation.iter().any(|object| tracking.marks(object)) {
                return Ok(());
            }
            let mut owners = Vec::new();
            for object in &generation {
                for owner in object.owner_references().iter().take(OWNERS) {
                    owners.extend(self.owner(object, owner).await.map_err(|error| refused(&error))?);
                }
            }
            generation = owners;
            generation.truncate(OWNERS);
        }
        Err(forbidden(format!(
            "{} {} belongs to no application, neither itself nor an owner of it; the agent passes nothing else unless it is \
             started with --proxy-policy all or allow-list",
            path.resource, path.name
        )))
    }

    async fn get(&self, resource: &ApiResource, namespace: &str, name: &str) -> Result<Found, kube::Error> {
        self.api(resource, namespace).get_metadata(name).await
    }

    fn api(&self, resource: &ApiResource, namespace: &str) -> Api<DynamicObject> {
        if namespace.is_empty() {
            Api::all_with(self.client.clone(), resource)
        } else {
            Api::namespaced_with(self.client.clone(), namespace, resource)
        }
    }

    /// An owner that is still the one that the object names.
    async fn owner(
        &self,
        object: &Found,
        owner: &k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference,
    ) -> Result<Option<Found>, kube::Error> {
        let Some((resource, namespaced)) = self.kind(&owner.api_version, &owner.kind).await? else {
            return Ok(None);
        };
        let namespace = if namespaced { object.namespace().unwrap_or_default() } else { String::new() };
        let api = self.api(&resource, &namespace);
        let found = api.get_metadata_opt(&owner.name).await?;
        Ok(found.filter(|found| found.uid().as_deref() == Some(owner.uid.as_str())))
    }

    /// The resource of a kind, and whether it is in namespaces.
    async fn kind(&self, api_version: &str, kind: &str) -> Result<Option<(ApiResource, bool)>, kube::Error> {
        let key = (api_version.to_owned(), kind.to_owned());
        if let Some(known) = self.kinds.lock().get(&key) {
            return Ok(Some(known.clone()));
        }
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let listed = if group.is_empty() {
            self.client.list_core_api_resources(version).await
        } else {
            self.client.list_api_group_resources(api_version).await
        };
        let listed = match listed {
            Ok(listed) => listed,
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
            Err(error) => return Err(error),
        };
        let found = listed.resources.into_iter().find(|one| one.kind == kind && !one.name.contains('/'));
        let Some(found) = found else { return Ok(None) };
        let resource = ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            plural: found.name,
        };
        let known = (resource, found.namespaced);
        let mut kinds = self.kinds.lock();
        if kinds.len() >= KINDS {
            kinds.clear();
        }
        kinds.insert(key, known.clone());
        Ok(Some(known))
    }
}

fn forbidden(why: String) -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, "policy", why)
}

/// What the API server says to the agent's own question is what it would say to the caller's.
fn refused(error: &kube::Error) -> Refusal {
    match error {
        kube::Error::Api(status) => Refusal::new(
            StatusCode::from_u16(status.code).unwrap_or(StatusCode::BAD_GATEWAY),
            "api_server",
            status.message.clone(),
        ),
        other => Refusal::new(
            StatusCode::BAD_GATEWAY,
            "api_server",
            format!("the agent cannot find out whether this belongs to an application: {other}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tracking_method_is_the_installations() {
        let read = |pairs: &[(&str, &str)]| {
            Tracking::read(&pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect())
        };
        let method = "application.resourceTrackingMethod";
        assert_eq!(read(&[]), Tracking::Annotation);
        assert_eq!(read(&[(method, "")]), Tracking::Annotation);
        assert_eq!(read(&[(method, "annotation+label")]), Tracking::Annotation);
        assert_eq!(read(&[(method, "label")]), Tracking::Label(INSTANCE.into()));
        assert_eq!(
            read(&[(method, "label"), ("application.instanceLabelKey", "example.com/app")]),
            Tracking::Label("example.com/app".into())
        );
        assert_eq!(read(&[(method, "guess")]), Tracking::Unknown("guess".into()));
    }
}
