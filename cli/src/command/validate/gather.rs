//! Looking at clusters: everything that the checks need, in one go.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ListParams;
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tiphys_shared::kube::kinds;
use tiphys_shared::model::Kind;
use tiphys_shared::process::clock;
use tiphys_shared::process::options::Problem;
use tiphys_shared::security::secret::Secret as Hidden;
use tiphys_shared::security::tls::{ClientTls, Material};
use tiphys_shared::wire::transport::{self, DialOptions};

use super::options::{self, Told};
use super::permissions;
use super::snapshot::{AgentOptions, ControlPlane, Edge, Facts};
use crate::failure::{Failure, story};
use crate::operator::installation::{Installation, OwnOptions, Part};
use crate::operator::targets::Site;

/// How long the principal is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// What lets a part be looked at.
const ALLOWED: &str = "run this with the permission to list it";

/// Looks at a control plane. What may not be looked at is noted, and keeps nothing else from being seen.
///
/// # Errors
/// A [`Failure`] if the API server cannot be asked, or does not know who asks.
pub(super) async fn control_plane(site: &Site, own: &OwnOptions) -> Result<ControlPlane, Failure> {
    let mut facts = facts(site).await?;
    let installation = installation(site, Part::Principal, own, &mut facts).await;
    let Told { options, problems } = options::principal(&installation, site);
    if facts.is_deployed == Some(true) {
        facts.option_problems.extend(problems);
    }
    let mut control = ControlPlane { facts, options };
    let mut needs = permissions::of_principal(&site.namespace, control.agents().into_iter());
    needs.extend(permissions::of_onboarding(&site.namespace, &control.options, control.signs()));
    permissions::check(site, &installation, needs, &mut control.facts).await;
    Ok(control)
}

/// Looks at an agent's cluster in the same way, and calls the principal if it `dials`.
///
/// # Errors
/// A [`Failure`] if the API server cannot be asked, or does not know who asks.
pub(super) async fn edge(site: &Site, own: &OwnOptions, dials: bool) -> Result<Edge, Failure> {
    let mut facts = facts(site).await?;
    let installation = installation(site, Part::Agent, own, &mut facts).await;
    let Told { options, problems } = options::agent(&installation, site);
    if facts.is_deployed == Some(true) {
        facts.option_problems.extend(problems);
    }
    if let Some(options) = &options {
        let needs = permissions::of_agent(&site.namespace, options.mode);
        permissions::check(site, &installation, needs, &mut facts).await;
    }
    let unreachable = match &options {
        Some(options) if dials => reach(&facts, options).await,
        _ => None,
    };
    Ok(Edge { facts, options, unreachable })
}

/// The process as it is deployed, or as it was told of by hand, and what of it is not there.
async fn installation(site: &Site, part: Part, own: &OwnOptions, facts: &mut Facts) -> Installation {
    facts.is_deployed = Some(!own.options.is_empty());
    if !own.options.is_empty() {
        return Installation::by_hand(own);
    }
    match Installation::find(site, part).await {
        Ok(Some(found)) => {
            facts.is_deployed = Some(true);
            facts.option_problems.clone_from(&found.problems);
            facts.missing_account = missing_account(site, &found, &mut facts.unseen).await;
            found
        }
        Ok(None) => Installation::by_hand(own),
        Err(failure) => {
            facts.is_deployed = None;
            facts.unseen.push(Problem::new(
                format!("the options of the {} are not known: {}", part.name(), failure.what()),
                format!("{ALLOWED}, or give its options after --"),
            ));
            Installation::by_hand(own)
        }
    }
}

/// The service account of a workload, if the namespace has none of this name.
async fn missing_account(site: &Site, found: &Installation, unseen: &mut Vec<Problem>) -> Option<String> {
    // Each namespace gets this one by itself.
    let account = found.service_account.as_ref().filter(|account| *account != "default")?;
    let all: Api<ServiceAccount> = Api::namespaced(site.client.clone(), &site.namespace);
    match list(&all).await {
        Ok(all) => all.iter().all(|it| it.metadata.name.as_ref() != Some(account)).then(|| account.clone()),
        // An API server that knows no service accounts asks for none.
        Err(kube::Error::Api(status)) if status.code == 404 => None,
        Err(error) => {
            unseen.push(not_checked("the service accounts", &error));
            None
        }
    }
}

async fn facts(site: &Site) -> Result<Facts, Failure> {
    let (client, namespace) = (&site.client, &site.namespace);
    let mut unseen = Vec::new();
    let namespaces = list(&Api::<Namespace>::all(client.clone())).await;
    let namespaces = seen("the namespaces", namespaces, &mut unseen)?.map(Vec::into_iter);
    let secrets = list(&Api::<Secret>::namespaced(client.clone(), namespace)).await;
    let secrets = seen(&format!("the Secrets of namespace {namespace}"), secrets, &mut unseen)?;
    let maps = list(&Api::<ConfigMap>::namespaced(client.clone(), namespace)).await;
    let maps = seen(&format!("the config maps of namespace {namespace}"), maps, &mut unseen)?;
    let applications = list(&kinds::api(client, Kind::Application, None)).await;
    let applications = known("the Applications of all namespaces", applications, &mut unseen)?;
    let projects = list(&kinds::api(client, Kind::AppProject, Some(namespace))).await;
    let projects = known(&format!("the AppProjects of namespace {namespace}"), projects, &mut unseen)?;
    Ok(Facts {
        namespace: namespace.clone(),
        namespaces: namespaces.map(|all| all.map(|namespace| namespace.name_any()).collect()),
        secrets: secrets.map(by_name),
        config_maps: maps.map(by_name),
        applications,
        projects,
        components: components(site, &mut unseen).await?,
        missing_account: None,
        denied: Vec::new(),
        identity: String::new(),
        clock: clocks(site).await,
        is_deployed: None,
        option_problems: Vec::new(),
        unseen,
    })
}

fn by_name<K: Resource>(all: Vec<K>) -> BTreeMap<String, K> {
    all.into_iter().map(|object| (object.name_any(), object)).collect()
}

/// Argo CD's components, and what runs each.
async fn components(
    site: &Site,
    unseen: &mut Vec<Problem>,
) -> Result<Option<BTreeMap<String, String>>, Failure> {
    let namespace = &site.namespace;
    let deployments = list(&Api::<Deployment>::namespaced(site.client.clone(), namespace)).await;
    let deployments = seen(&format!("the Deployments of namespace {namespace}"), deployments, unseen)?;
    let sets = list(&Api::<StatefulSet>::namespaced(site.client.clone(), namespace)).await;
    let sets = seen(&format!("the StatefulSets of namespace {namespace}"), sets, unseen)?;
    let (Some(deployments), Some(sets)) = (deployments, sets) else { return Ok(None) };
    let deployments = deployments.iter().filter_map(|it| {
        let replicas = it.spec.as_ref().and_then(|spec| spec.replicas);
        component(&it.metadata, "deployment", replicas)
    });
    let sets = sets.iter().filter_map(|it| {
        let replicas = it.spec.as_ref().and_then(|spec| spec.replicas);
        component(&it.metadata, "statefulset", replicas)
    });
    Ok(Some(deployments.chain(sets).collect()))
}

async fn list<K>(api: &Api<K>) -> Result<Vec<K>, kube::Error>
where
    K: Clone + DeserializeOwned + std::fmt::Debug + Resource,
{
    let mut page = ListParams::default().limit(500);
    let mut all = Vec::new();
    loop {
        let found = api.list(&page).await?;
        all.extend(found.items);
        match found.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(all),
        }
    }
}

/// What was found; none, with a note, if the API server does not show it to whoever asks.
///
/// # Errors
/// A [`Failure`] if it cannot be asked, or does not know who asks: then there is nothing to judge at all.
fn seen<T>(
    what: &str,
    found: Result<Vec<T>, kube::Error>,
    unseen: &mut Vec<Problem>,
) -> Result<Option<Vec<T>>, Failure> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Some(Vec::new())),
        Err(error @ kube::Error::Api(_)) if !matches!(&error, kube::Error::Api(status) if status.code == 401) =>
        {
            unseen.push(not_checked(what, &error));
            Ok(None)
        }
        Err(error) => Err(Failure::because(&format!("cannot look at {what}"), &error)),
    }
}

/// The same for what not every API server knows: none if this one does not.
fn known<T>(
    what: &str,
    found: Result<Vec<T>, kube::Error>,
    unseen: &mut Vec<Problem>,
) -> Result<Option<Vec<T>>, Failure> {
    if matches!(&found, Err(kube::Error::Api(status)) if status.code == 404) {
        return Ok(None);
    }
    Ok(Some(seen(what, found, unseen)?.unwrap_or_default()))
}

fn not_checked(what: &str, error: &kube::Error) -> Problem {
    Problem::new(format!("{what} could not be looked at: {}", story(error)), ALLOWED)
}

/// Argo CD's components say by labels what they are.
fn component(metadata: &ObjectMeta, kind: &str, replicas: Option<i32>) -> Option<(String, String)> {
    let labels = metadata.labels.as_ref()?;
    let is_argo = labels.get("app.kubernetes.io/part-of").is_some_and(|part| part == "argocd");
    let component = labels.get("app.kubernetes.io/component").filter(|_| is_argo && replicas != Some(0))?;
    Some((component.clone(), format!("{kind}/{}", metadata.name.as_deref().unwrap_or_default())))
}

/// What the API server's clock says, if its answers carry the time, and ours.
async fn clocks(site: &Site) -> Option<(Timestamp, Timestamp)> {
    let request = http::Request::get("/version").body(kube::client::Body::empty()).ok()?;
    let answer = site.client.send(request).await.ok()?;
    let date = answer.headers().get(http::header::DATE)?.to_str().ok()?;
    let theirs = jiff::fmt::rfc2822::parse(date).ok()?.timestamp();
    Some((theirs, clock::now()))
}

/// Calls the principal as the agent would. What is wrong with Secrets is found elsewhere.
async fn reach(facts: &Facts, options: &AgentOptions) -> Option<Problem> {
    let ca = options.ca.as_deref().and_then(|name| facts.secret_entry(name, &["ca.crt", "tls.crt"]));
    let entry = |key: &str| options.tls.as_deref().and_then(|name| facts.secret_entry(name, &[key]));
    let tls = match (options.is_plaintext, ca) {
        (true, _) => None,
        (false, None) => return None,
        (false, Some(ca)) => {
            let own = (entry("tls.crt").unwrap_or_default(), entry("tls.key").unwrap_or_default());
            let material = Material::new(own.0, Hidden::new(own.1), ca);
            Some(ClientTls::new(&material, options.policy.clone(), false).ok()?)
        }
    };
    let mut dial = DialOptions::new(options.server.host.clone(), options.server.port, tls);
    dial.connect_timeout = PATIENCE;
    let error = transport::dial(&dial).await.err()?;
    Some(Problem::new(
        format!("the principal at {} is not reached from here: {error}", options.server),
        "correct --server-address and --server-port of the agent, start the principal, or open the way; if only \
         clusters reach it, give --no-dial",
    ))
}
