//! Checks of the control plane. Pure.

use jiff::Timestamp;
use tiphys_principal::routing::{Mapping, Rule};
use tiphys_shared::model::Kind;
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::process::options::NamePattern;
use tiphys_shared::security::blocklist::fingerprint;
use tiphys_shared::security::pki::{Certificate, Usage};

use super::clusters;
use super::finding::{Finding, Findings};
use super::material::{Maker, authority, authority_key, blocked, pair, signing_key, trusted};
use super::snapshot::{ControlPlane, Facts};
use crate::operator::names;

const PARAMS: &str = "argocd-cmd-params-cm";
const CA: Maker<'_> = Maker {
    make: "pki init",
    remake: "`pki init --force`, and then issue anew all that it has signed, which nobody believes from then on",
};
const PRINCIPAL: Maker<'_> =
    Maker { make: "pki issue principal --dns HOST", remake: "`pki issue principal --dns HOST --upsert`" };
const PROXY: Maker<'_> = Maker {
    make: "pki issue resource-proxy --dns argocd-agent-resource-proxy",
    remake: "`pki issue resource-proxy --dns argocd-agent-resource-proxy --upsert`",
};

pub(super) fn check(control: &ControlPlane, now: Timestamp) -> Vec<Finding> {
    let mut findings = Findings::about("control plane");
    surroundings(&mut findings, &control.facts, "principal");
    if !control.facts.lacks_namespace(&control.facts.namespace) {
        let ca = secrets(&mut findings, control, now);
        clusters::check(&mut findings, control, ca, now);
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
    if facts.lacks_namespace(&facts.namespace) {
        findings.error(
            "namespace-missing",
            format!("there is no namespace {}", facts.namespace),
            format!("name the one that Argo CD is installed in with --{part}-namespace, or create it"),
        );
        return;
    }
    if facts.is_deployed == Some(false) {
        let a = if part == "agent" { "an" } else { "a" };
        findings.warning(
            "workload-missing",
            format!(
                "no workload in namespace {} runs {a} {part}; its options are taken from this command line",
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
    if let Some(account) = &facts.missing_account {
        findings.error(
            "service-account-missing",
            format!(
                "there is no service account {}/{account}, as which the {part} is to run: no pod of it starts",
                facts.namespace
            ),
            format!("kubectl -n {} create serviceaccount {account}, or apply the manifests", facts.namespace),
        );
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
    let ca = options.ca.as_deref().and_then(|name| authority(findings, facts, name, now, CA));
    if let Some(name) = &options.ca {
        authority_key(findings, facts, name, now, CA);
    }
    if let Some(name) = &options.tls
        && let Some(certificate) = pair(findings, facts, name, "principal", now, PRINCIPAL)
    {
        named(findings, &certificate, &format!("Secret {}/{name}", facts.namespace), PRINCIPAL.remake);
        usage(findings, facts, name, ca, "the principal's certificate", now, PRINCIPAL.remake);
        blocked(findings, facts, &certificate, "the principal's certificate");
    }
    if let Some(name) = &options.proxy_tls
        && let Some(certificate) = pair(findings, facts, name, "resource proxy", now, PROXY)
    {
        named(findings, &certificate, &format!("Secret {}/{name}", facts.namespace), PROXY.remake);
        usage(findings, facts, name, ca, "the resource proxy's certificate", now, PROXY.remake);
    }
    if let Some(name) = &options.jwt {
        signing_key(findings, facts, name);
    }
    ca
}

fn named(findings: &mut Findings, certificate: &Certificate, at: &str, remake: &str) {
    if certificate.dns_names.is_empty() && certificate.addresses.is_empty() {
        findings.error(
            "san-missing",
            format!("the certificate in {at} names no host: nobody can verify it"),
            format!("issue it with names: {remake}"),
        );
    }
}

fn usage(
    findings: &mut Findings,
    facts: &Facts,
    name: &str,
    ca: Option<&[u8]>,
    what: &str,
    now: Timestamp,
    remake: &str,
) {
    if let (Some(chain), Some(ca)) = (facts.secret_entry(name, &["tls.crt"]), ca) {
        trusted(findings, chain, ca, Usage::Server, (what, "the CA of the control plane"), now, remake);
    }
}

fn blocklist(findings: &mut Findings, facts: &Facts) {
    let entries = facts.config_map(names::BLOCKLIST).and_then(|map| map.data.as_ref());
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
    // What could not be looked at is not judged.
    let components = facts.components.as_ref();
    if let Some(name) = components.and_then(|all| all.get("application-controller")) {
        findings.warning(
            "application-controller",
            format!("Argo CD's application controller ({name}) runs at the control plane, beside those on the clusters"),
            format!("scale it to 0, unless it has clusters of its own: kubectl -n {} scale {name} --replicas 0", facts.namespace),
        );
    }
    for needed in ["server", "repo-server"] {
        if components.is_some_and(|all| !all.is_empty() && !all.contains_key(needed)) {
            findings.warning(
                "component-missing",
                format!("Argo CD's {needed} does not run in namespace {}", facts.namespace),
                "install it there, or name the namespace that it is in with --principal-namespace",
            );
        }
    }
    if options.redis_proxy && facts.config_maps.is_some() {
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
            if facts.lacks_namespace(name) && !options.creates_namespaces {
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
            if facts.config_maps.is_some()
                && served_by_argo
                    .as_ref()
                    .is_none_or(|list| !list.iter().any(|pattern| pattern.matches(name)))
            {
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
    let lost = facts.applications.iter().flatten().filter(own).count();
    // An agent may have the name of this namespace, too, and gets them then like any other.
    let is_an_agents = control.agents().iter().any(|agent| agent.as_str() == facts.namespace);
    if lost > 0 && !options.by_destination && !is_an_agents && facts.secrets.is_some() {
        findings.warning(
            "applications-of-nobody",
            format!("{lost} Applications are in the principal's own namespace {}, from which none of the agents known here gets any", facts.namespace),
            "move them into the namespaces named after agents, or set --destination-based-mapping on both sides",
        );
    }
}
