//! Checks of the control plane. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tiphys_principal::routing::{Mapping, Rule};
use tiphys_shared::kube::cluster_secret::Cluster;
use tiphys_shared::model::argocd::annotation::SKIP_RECONCILE;
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{AgentName, Kind};
use tiphys_shared::process::options::NamePattern;
use tiphys_shared::security::blocklist::fingerprint;
use tiphys_shared::security::pki::{Certificate, Usage};

use super::finding::{Finding, Findings};
use super::material::{authority, blocked, pair, signing_key, trusted, validity};
use super::snapshot::{ControlPlane, Facts};
use crate::operator::names;

const PARAMS: &str = "argocd-cmd-params-cm";

pub(super) fn check(control: &ControlPlane, now: Timestamp) -> Vec<Finding> {
    let mut findings = Findings::about("control plane");
    surroundings(&mut findings, &control.facts, "principal");
    if control.facts.namespaces.contains(&control.facts.namespace) {
        let ca = secrets(&mut findings, control, now);
        clusters(&mut findings, control, ca, now);
        blocklist(&mut findings, &control.facts);
        argo_cd(&mut findings, control);
        agents(&mut findings, control);
    }
    findings.all
}

/// What matters on both sides.
pub(super) fn surroundings(findings: &mut Findings, facts: &Facts, part: &str) {
    for problem in &facts.option_problems {
        findings.error("options-invalid", format!("{part}: {}", problem.what), problem.remedy.clone());
    }
    for problem in &facts.unseen {
        findings.warning("not-checked", problem.what.clone(), problem.remedy.clone());
    }
    if !facts.namespaces.contains(&facts.namespace) {
        findings.error(
            "namespace-missing",
            format!("there is no namespace {}", facts.namespace),
            format!("name the one that Argo CD is installed in with --{part}-namespace, or create it"),
        );
        return;
    }
    if !facts.is_deployed {
        findings.warning(
            "workload-missing",
            format!(
                "no workload in namespace {} runs a {part}; its options are taken from this command line",
                facts.namespace
            ),
            format!("install it, name its namespace with --{part}-namespace, or give its options after --"),
        );
    }
    for (kind, found) in [("applications", &facts.applications), ("appprojects", &facts.projects)] {
        if found.is_none() {
            findings.error(
                "crd-missing",
                format!("the API server does not know {kind}.argoproj.io"),
                "install Argo CD, or at least its definitions, with `kubectl apply --server-side`",
            );
        }
    }
    if !facts.denied.is_empty() {
        findings.error(
            "rbac",
            format!("{} may not {}", facts.identity, facts.denied.join(", ")),
            "apply the Role, ClusterRole and bindings of the installation, for this service account",
        );
    }
    if let Some((theirs, ours)) = facts.clock {
        let apart = (theirs.as_second() - ours.as_second()).abs();
        let what = format!("the clock of the API server and the one here are {apart} s apart");
        let remedy = "synchronise the clocks with NTP: certificates and tokens have times";
        match apart {
            0..=30 => {}
            31..=300 => findings.warning("clock-skew", what, remedy),
            _ => findings.error("clock-skew", what, remedy),
        }
    }
}

/// Returns the CA that signs agents.
fn secrets<'a>(findings: &mut Findings, control: &'a ControlPlane, now: Timestamp) -> Option<&'a [u8]> {
    let (facts, options) = (&control.facts, &control.options);
    let ca = options.ca.as_deref().and_then(|name| authority(findings, facts, name, now, "pki init"));
    if let Some(name) = &options.tls {
        let issue = "pki issue principal --dns HOST";
        if let Some(certificate) = pair(findings, facts, name, "principal", now, issue) {
            named(findings, &certificate, &format!("Secret {}/{name}", facts.namespace), issue);
            usage(findings, facts, name, ca, (Usage::Server, "the principal's certificate"), now, issue);
            blocked(findings, facts, &certificate, "the principal's certificate");
        }
    }
    if let Some(name) = &options.proxy_tls {
        let issue = "pki issue resource-proxy --dns argocd-agent-resource-proxy";
        if let Some(certificate) = pair(findings, facts, name, "resource proxy", now, issue) {
            named(findings, &certificate, &format!("Secret {}/{name}", facts.namespace), issue);
            usage(findings, facts, name, ca, (Usage::Server, "the resource proxy's certificate"), now, issue);
        }
    }
    if let Some(name) = &options.jwt {
        signing_key(findings, facts, name);
    }
    ca
}

fn named(findings: &mut Findings, certificate: &Certificate, at: &str, issue: &str) {
    if certificate.dns_names.is_empty() && certificate.addresses.is_empty() {
        findings.error(
            "san-missing",
            format!("the certificate in {at} names no host: nobody can verify it"),
            format!("issue it with names: `{issue} --upsert`"),
        );
    }
}

fn usage(
    findings: &mut Findings,
    facts: &Facts,
    name: &str,
    ca: Option<&[u8]>,
    (usage, what): (Usage, &str),
    now: Timestamp,
    issue: &str,
) {
    if let (Some(chain), Some(ca)) = (facts.secret_entry(name, &["tls.crt"]), ca) {
        trusted(findings, chain, ca, usage, (what, "the CA of the control plane"), now, issue);
    }
}

/// Argo CD's Secrets for the clusters of agents.
fn clusters(findings: &mut Findings, control: &ControlPlane, ca: Option<&[u8]>, now: Timestamp) {
    let facts = &control.facts;
    let proxy = control.options.proxy_tls.as_ref();
    let proxy = proxy.and_then(|name| Certificate::from_pem(facts.secret_entry(name, &["tls.crt"])?).ok());
    let mut known: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, secret, agent) in control.cluster_secrets() {
        let at = format!("cluster Secret {}/{name}", facts.namespace);
        let cluster = Cluster::read(secret);
        let url_agent = cluster.as_ref().ok().and_then(Cluster::agent_in_url).map(str::to_owned);
        let Some(agent) = agent else {
            // Other clusters of Argo CD are none of ours.
            if let Some(agent) = url_agent {
                findings.error(
                    "cluster-label",
                    format!("{at} is for agent {agent} but lacks the label argocd-agent.argoproj-labs.io/agent-name"),
                    format!("kubectl -n {} label secret {name} argocd-agent.argoproj-labs.io/agent-name={agent}", facts.namespace),
                );
            }
            continue;
        };
        known.entry(agent).or_default().push(name);
        let anew = format!("delete it and make it anew with `agent create {agent}`");
        let labels = secret.metadata.labels.as_ref();
        if labels
            .and_then(|labels| labels.get("argocd.argoproj.io/secret-type"))
            .is_none_or(|kind| kind != "cluster")
        {
            findings.error(
                "cluster-label",
                format!("{at} lacks the label argocd.argoproj.io/secret-type: cluster, so that Argo CD does not see it"),
                format!("kubectl -n {} label --overwrite secret {name} argocd.argoproj.io/secret-type=cluster", facts.namespace),
            );
        }
        if AgentName::new(agent).is_err() {
            findings.error(
                "cluster-label",
                format!("{at} is labelled with {agent:?}, which no agent can be called"),
                anew,
            );
            continue;
        }
        let cluster = match cluster {
            Ok(cluster) => cluster,
            Err(what) => {
                findings.error("cluster-config", format!("{at} {what}"), anew);
                continue;
            }
        };
        one_cluster(findings, control, (agent, name, &at), (secret, &cluster), proxy.as_ref(), now);
        let Some(chain) = cluster.tls_part("certData") else { continue };
        if let Some(ca) = ca {
            let what = format!("the certificate in {at}");
            let issue = format!("agent reconfigure {agent} --reissue-client-cert");
            trusted(findings, &chain, ca, Usage::Client, (&what, "the CA of the control plane"), now, &issue);
        }
    }
    for (agent, secrets) in known.into_iter().filter(|(_, secrets)| secrets.len() > 1) {
        findings.error(
            "cluster-duplicate",
            format!("agent {agent} has several cluster Secrets: {}", secrets.join(", ")),
            "leave one and delete the others",
        );
    }
}

fn one_cluster(
    findings: &mut Findings,
    control: &ControlPlane,
    (agent, name, at): (&str, &str, &str),
    (secret, cluster): (&k8s_openapi::api::core::v1::Secret, &Cluster),
    proxy: Option<&Certificate>,
    now: Timestamp,
) {
    let address = format!("`agent reconfigure {agent} --resource-proxy-server HOST:PORT`");
    if !cluster.server.starts_with("https://") {
        findings.error(
            "cluster-server",
            format!("{at}: the server {} is not https", cluster.server),
            address.clone(),
        );
    }
    match cluster.agent_in_url() {
        None => findings.error(
            "cluster-server",
            format!("{at}: the server {} does not say agentName={agent}", cluster.server),
            address.clone(),
        ),
        Some(other) if other != agent => findings.error(
            "cluster-server",
            format!("{at}: the server names agent {other}, the label {agent}"),
            address.clone(),
        ),
        Some(_) => {}
    }
    if let (Some(host), Some(proxy)) = (cluster.host(), proxy)
        && !proxy.covers(&host)
        && !cluster.config.contains_key("bearerToken")
    {
        findings.error(
            "san-missing",
            format!("the resource proxy's certificate is not for {host}, under which {at} looks for it"),
            format!("`pki issue resource-proxy --dns {host} --upsert`, or {address}"),
        );
    }
    let annotations = secret.metadata.annotations.as_ref();
    if annotations.and_then(|all| all.get(SKIP_RECONCILE)).is_none_or(|value| value != "true") {
        findings.warning(
            "cluster-reconciled",
            format!("{at} lacks the annotation {SKIP_RECONCILE}: \"true\", so that a controller here would touch the cluster"),
            format!("kubectl -n {} annotate --overwrite secret {name} {SKIP_RECONCILE}=true", control.facts.namespace),
        );
    }
    let reissue = format!("agent reconfigure {agent} --reissue-client-cert");
    match cluster.certificate() {
        Some(certificate) => {
            let what = format!("the certificate in {at}");
            validity(findings, &certificate, &what, now, &reissue);
            blocked(findings, &control.facts, &certificate, &what);
            if certificate.common_name.as_deref() != Some(agent) {
                findings.warning(
                    "cluster-identity",
                    format!(
                        "{what} is for {}, so that the proxy takes Argo CD for that one",
                        certificate.subject
                    ),
                    format!("`{reissue}`, unless it is an operator of the proxy"),
                );
            }
        }
        None if cluster.config.contains_key("bearerToken") => {}
        None => findings.error(
            "cluster-config",
            format!("{at} has neither a client certificate nor a token: the proxy refuses Argo CD"),
            format!("`{reissue}`"),
        ),
    }
}

fn blocklist(findings: &mut Findings, facts: &Facts) {
    let entries = facts.config_maps.get(names::BLOCKLIST).and_then(|map| map.data.as_ref());
    for entry in entries.into_iter().flatten().map(|(key, _)| key).filter(|key| fingerprint(key).is_none()) {
        findings.error(
            "blocklist-entry",
            format!(
                "config map {}/{}: {entry:?} is not a fingerprint and blocks nothing",
                facts.namespace,
                names::BLOCKLIST
            ),
            "write the SHA-256 of the certificate as 64 hexadecimal digits: `blocklist tls add FINGERPRINT`",
        );
    }
}

/// How Argo CD itself is set up.
fn argo_cd(findings: &mut Findings, control: &ControlPlane) {
    let (facts, options) = (&control.facts, &control.options);
    if let Some(name) = facts.components.get("application-controller") {
        findings.warning(
            "application-controller",
            format!("Argo CD's application controller ({name}) runs at the control plane, beside those on the clusters"),
            format!("scale it to 0, unless it has clusters of its own: kubectl -n {} scale {name} --replicas 0", facts.namespace),
        );
    }
    for needed in ["server", "repo-server"] {
        if !facts.components.is_empty() && !facts.components.contains_key(needed) {
            findings.warning(
                "component-missing",
                format!("Argo CD's {needed} does not run in namespace {}", facts.namespace),
                "install it there, or name the namespace that it is in with --principal-namespace",
            );
        }
    }
    if options.redis_proxy {
        let server = facts.config_entry(PARAMS, "redis.server").unwrap_or_default();
        if !server.contains("argocd-agent-redis-proxy") && !server.contains("redis-proxy") {
            let is = if server.is_empty() { "not set".to_owned() } else { server.to_owned() };
            findings.warning(
                "redis-server",
                format!("Argo CD reads its own Redis only (redis.server in {PARAMS} is {is}), so that trees of agents' applications stay empty"),
                "set redis.server: argocd-agent-redis-proxy:6379 there and restart Argo CD's server",
            );
        }
    }
}

/// What keeps an agent from getting or showing anything.
fn agents(findings: &mut Findings, control: &ControlPlane) {
    let (facts, options) = (&control.facts, &control.options);
    let mapping = Mapping {
        namespace: facts.namespace.clone(),
        allowed: options.allowed.clone(),
        by_destination: options.by_destination,
    };
    let projects = facts.projects.as_deref().unwrap_or_default();
    let served_by_argo: Option<Vec<NamePattern>> =
        facts.config_entry(PARAMS, "application.namespaces").map(|list| {
            list.split(',')
                .map(str::trim)
                .filter(|text| !text.is_empty())
                .filter_map(|text| NamePattern::new(text).ok())
                .collect()
        });
    for agent in control.agents() {
        let name = agent.as_str();
        if !options.by_destination {
            if !facts.namespaces.contains(name) && !options.creates_namespaces {
                findings.error(
                    "agent-namespace",
                    format!("there is no namespace {name} for the Applications of agent {name}"),
                    format!(
                        "kubectl create namespace {name}, or give the principal --namespace-create-enable"
                    ),
                );
            }
            if !options.allowed.iter().any(|pattern| pattern.matches(name)) {
                findings.error(
                    "agent-not-served",
                    format!("--allowed-namespaces of the principal does not match {name}: agent {name} gets no Applications"),
                    format!("add {name} to --allowed-namespaces (ARGOCD_PRINCIPAL_ALLOWED_NAMESPACES)"),
                );
            }
            if served_by_argo.as_ref().is_none_or(|list| !list.iter().any(|pattern| pattern.matches(name))) {
                findings.warning(
                    "argocd-namespaces",
                    format!("Argo CD's server does not look into namespace {name}: application.namespaces in {PARAMS} does not match it"),
                    format!("set application.namespaces there to a list with {name} or *, and restart Argo CD's server"),
                );
            }
        }
        let holds = |project, rule| mapping.holds(rule, Kind::AppProject, project, &agent, None);
        let matched =
            |rules: &[Rule]| projects.iter().any(|project| rules.iter().all(|rule| holds(project, *rule)));
        if !matched(mapping.rules(Kind::AppProject)) && !projects.is_empty() {
            let by_destination: Vec<&str> = projects
                .iter()
                .filter(|project| holds(project, Rule::Destination) && holds(project, Rule::NotDenied))
                .map(|project| project.name())
                .collect();
            if by_destination.is_empty() {
                findings.warning(
                    "project-destinations",
                    format!("no AppProject has a destination of agent {name}: it gets none, and its Applications stay without one"),
                    format!("add a destination with name {name} (or a pattern) to the AppProject that it is to have"),
                );
            } else {
                findings.error(
                    "source-namespaces",
                    format!("agent {name} is a destination of {}, but sourceNamespaces there does not match {name}: it gets no AppProject", by_destination.join(", ")),
                    format!("add {name} (or a pattern) to spec.sourceNamespaces"),
                );
            }
        }
    }
    let own = |application: &&tiphys_shared::model::Object| application.namespace() == facts.namespace;
    let lost = facts.applications.iter().flatten().filter(own).filter(|_| !options.by_destination).count();
    if lost > 0 {
        findings.warning(
            "applications-of-nobody",
            format!("{lost} Applications are in the principal's own namespace {}, from which no agent gets any", facts.namespace),
            "move them into the namespaces named after agents, or set --destination-based-mapping on both sides",
        );
    }
}
