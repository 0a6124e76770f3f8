//! Looking at clusters: everything that the checks need, in one go.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
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
use crate::failure::Failure;
use crate::operator::installation::{Installation, OwnOptions, Part};
use crate::operator::targets::Site;

/// How long the principal is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn control_plane(site: &Site, own: &OwnOptions) -> Result<ControlPlane, Failure> {
    let (installation, is_deployed) = installation(site, Part::Principal, own).await?;
    let mut facts = facts(site, &installation).await?;
    facts.is_deployed = is_deployed;
    let Told { options, problems } = options::principal(&installation, site);
    if is_deployed {
        facts.option_problems.extend(problems);
    }
    let mut control = ControlPlane { facts, options };
    let mut needs = permissions::of_principal(&site.namespace, control.agents().into_iter());
    needs.extend(permissions::of_onboarding(&site.namespace, &control.options, control.signs()));
    permissions::check(site, &installation, needs, &mut control.facts).await;
    Ok(control)
}

pub(super) async fn edge(site: &Site, own: &OwnOptions, dials: bool) -> Result<Edge, Failure> {
    let (installation, is_deployed) = installation(site, Part::Agent, own).await?;
    let mut facts = facts(site, &installation).await?;
    facts.is_deployed = is_deployed;
    let Told { options, problems } = options::agent(&installation, site);
    if is_deployed {
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

async fn installation(site: &Site, part: Part, own: &OwnOptions) -> Result<(Installation, bool), Failure> {
    if own.options.is_empty()
        && let Some(found) = Installation::find(site, part).await?
    {
        return Ok((found, true));
    }
    Ok((Installation::by_hand(own), !own.options.is_empty()))
}

async fn facts(site: &Site, installation: &Installation) -> Result<Facts, Failure> {
    let client = &site.client;
    let mut unseen = Vec::new();
    let failed = |what: &str, error: &kube::Error| Failure::because(&format!("cannot look at {what}"), error);
    let namespaces = list(&Api::<Namespace>::all(client.clone())).await;
    let namespaces: Vec<Namespace> = namespaces.map_err(|error| failed("the namespaces", &error))?;
    let secrets: Vec<Secret> = list(&Api::namespaced(client.clone(), &site.namespace))
        .await
        .map_err(|error| failed(&format!("the Secrets of namespace {}", site.namespace), &error))?;
    let config_maps: Vec<ConfigMap> = list(&Api::namespaced(client.clone(), &site.namespace))
        .await
        .map_err(|error| failed(&format!("the config maps of namespace {}", site.namespace), &error))?;
    let applications = known(list(&kinds::api(client, Kind::Application, None)).await, &mut unseen);
    let projects =
        known(list(&kinds::api(client, Kind::AppProject, Some(&site.namespace))).await, &mut unseen);
    let deployments: Vec<Deployment> =
        known(list(&Api::namespaced(client.clone(), &site.namespace)).await, &mut unseen).unwrap_or_default();
    let sets: Vec<StatefulSet> =
        known(list(&Api::namespaced(client.clone(), &site.namespace)).await, &mut unseen).unwrap_or_default();
    let deployments = deployments.iter().filter_map(|it| {
        let replicas = it.spec.as_ref().and_then(|spec| spec.replicas);
        component(&it.metadata, "deployment", replicas)
    });
    let sets = sets.iter().filter_map(|it| {
        let replicas = it.spec.as_ref().and_then(|spec| spec.replicas);
        component(&it.metadata, "statefulset", replicas)
    });
    let components: BTreeMap<String, String> = deployments.chain(sets).collect();
    Ok(Facts {
        namespace: site.namespace.clone(),
        namespaces: namespaces.into_iter().map(|namespace| namespace.name_any()).collect(),
        secrets: secrets.into_iter().map(|secret| (secret.name_any(), secret)).collect(),
        config_maps: config_maps.into_iter().map(|map| (map.name_any(), map)).collect(),
        applications,
        projects,
        components,
        denied: Vec::new(),
        identity: String::new(),
        clock: clocks(site).await,
        is_deployed: false,
        option_problems: installation.problems.clone(),
        unseen,
    })
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

/// None if the API server does not know the kind.
fn known<T>(found: Result<Vec<T>, kube::Error>, unseen: &mut Vec<Problem>) -> Option<Vec<T>> {
    match found {
        Ok(found) => Some(found),
        Err(kube::Error::Api(status)) if status.code == 404 => None,
        Err(error) => {
            unseen.push(Problem::new(
                format!("a part could not be looked at: {error}"),
                "run this with the permission to list it",
            ));
            Some(Vec::new())
        }
    }
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
