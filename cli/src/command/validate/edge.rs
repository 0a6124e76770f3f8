//! Checks of an agent's cluster, and of what both sides must agree on. Pure.

use jiff::Timestamp;
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{AgentName, Mode};
use tiphys_shared::security::pki::{Certificate, Usage};

use super::control::surroundings;
use super::finding::{Finding, Findings};
use super::material::{Maker, authority, blocked, pair, trusted};
use super::snapshot::{AgentOptions, ControlPlane, Edge};

const CERTIFICATE: Maker<'_> =
    Maker { make: "pki issue agent NAME", remake: "`pki issue agent NAME --upsert`" };
const CA: Maker<'_> = Maker {
    make: "pki propagate",
    remake: "`pki propagate --force`, once the one of the control plane is in order",
};

pub(super) fn check(edge: &Edge, control: &ControlPlane, now: Timestamp) -> Vec<Finding> {
    let mut findings = Findings::about("agent");
    surroundings(&mut findings, &edge.facts, "agent");
    if edge.facts.lacks_namespace(&edge.facts.namespace) {
        return findings.all;
    }
    // What could not be looked at is not judged.
    let components = edge.facts.components.as_ref();
    if components.is_some_and(|all| !all.contains_key("application-controller")) {
        findings.error(
            "component-missing",
            format!(
                "Argo CD's application controller does not run in namespace {}: nothing is deployed",
                edge.facts.namespace
            ),
            "install it there, or name its namespace with --agent-namespace",
        );
    }
    if let Some(name) = components.and_then(|all| all.get("server")) {
        findings.warning(
            "component-superfluous",
            format!("Argo CD's server ({name}) runs on the agent's cluster, where what is edited is undone in managed mode"),
            "use the one of the control plane",
        );
    }
    let Some(options) = &edge.options else { return findings.all };
    if let Some(problem) = &edge.unreachable {
        findings.error("principal-unreachable", problem.what.clone(), problem.remedy.clone());
    }
    let certificate = secrets(&mut findings, edge, options, control, now);
    if options.by_destination != control.options.by_destination {
        findings.error(
            "mapping-mismatch",
            format!(
                "--destination-based-mapping is {} at the agent and {} at the principal",
                on(options.by_destination),
                on(control.options.by_destination)
            ),
            "set it on both sides or on neither",
        );
    }
    let name = certificate.as_ref().and_then(|certificate| certificate.common_name.as_deref());
    let Some(name) = name else { return findings.all };
    match AgentName::new(name) {
        Ok(name) => known(&mut findings, &name, options, control),
        Err(error) => findings.error(
            "agent-name",
            format!("the agent's certificate is for {name:?}: {error}"),
            "issue one for a name that a namespace can have: `pki issue agent NAME --upsert`",
        ),
    }
    findings.all
}

fn on(value: bool) -> &'static str {
    if value { "on" } else { "off" }
}

fn secrets(
    findings: &mut Findings,
    edge: &Edge,
    options: &AgentOptions,
    control: &ControlPlane,
    now: Timestamp,
) -> Option<Certificate> {
    let facts = &edge.facts;
    let own_ca = options.ca.as_deref().and_then(|name| authority(findings, facts, name, now, CA));
    let certificate =
        options.tls.as_deref().and_then(|name| pair(findings, facts, name, "agent", now, CERTIFICATE));
    let control_entry =
        |name: &Option<String>| control.facts.secret_entry(name.as_deref()?, &["ca.crt", "tls.crt"]);
    let server = control.options.tls.as_ref().and_then(|name| control.facts.secret_entry(name, &["tls.crt"]));
    if let (Some(own_ca), Some(server)) = (own_ca, server) {
        let said = ("the principal's certificate", "the CA that the agent has");
        trusted(
            findings,
            server,
            own_ca,
            Usage::Server,
            said,
            now,
            "`pki issue principal --dns HOST --upsert`",
        );
        if let Ok(server) = Certificate::from_pem(server)
            && !server.covers(&options.server.host)
        {
            let host = &options.server.host;
            let flag = if host.parse::<std::net::IpAddr>().is_ok() { "--ip" } else { "--dns" };
            findings.error(
                "san-missing",
                format!(
                    "the principal's certificate is not for {host}, which the agent's --server-address names"
                ),
                format!("`pki issue principal {flag} {host} --upsert`, or correct --server-address"),
            );
        }
    }
    let chain = options.tls.as_ref().and_then(|name| facts.secret_entry(name, &["tls.crt"]));
    if let (Some(chain), Some(ca)) = (chain, control_entry(&control.options.ca)) {
        let said = ("the agent's certificate", "the CA of the control plane");
        trusted(findings, chain, ca, Usage::Client, said, now, CERTIFICATE.remake);
    }
    if let Some(certificate) = &certificate {
        blocked(findings, &control.facts, certificate, "the agent's certificate");
    }
    certificate
}

/// What the control plane must have for this agent.
fn known(findings: &mut Findings, name: &AgentName, options: &AgentOptions, control: &ControlPlane) {
    if control.facts.secrets.is_some() && !control.agents().contains(name) {
        findings.warning(
            "agent-unknown",
            format!("Argo CD at the control plane has no cluster Secret for agent {name}"),
            format!("`agent create {name}`"),
        );
    }
    if control.facts.lacks_namespace(name.as_str())
        && !control.options.by_destination
        && !control.options.creates_namespaces
    {
        findings.error(
            "agent-namespace",
            format!("the control plane has no namespace {name}, after which the agent's certificate is named"),
            format!("kubectl create namespace {name} at the control plane, or issue a certificate for another name"),
        );
    }
    let applications = || {
        let all = control.facts.applications.iter().flatten();
        all.filter(|application| application.namespace() == name.as_str())
    };
    let originals = applications().filter(|application| application.source_uid().is_none()).count();
    match options.mode {
        Mode::Autonomous if originals > 0 => findings.error(
            "mode-mismatch",
            format!("the agent is autonomous, but {originals} Applications in namespace {name} were made at the control plane and go nowhere"),
            "make them on the cluster, or start the agent with --agent-mode managed",
        ),
        Mode::Managed if applications().count() > originals => findings.error(
            "mode-mismatch",
            format!("the agent is managed, but namespace {name} of the control plane holds copies of an autonomous agent's Applications"),
            "delete the copies, or start the agent with --agent-mode autonomous",
        ),
        _ => {}
    }
    if options.mode == Mode::Autonomous && control.options.by_destination {
        findings.error(
            "mode-mismatch",
            "the agent is autonomous, which --destination-based-mapping of the principal excludes".to_owned(),
            "turn it off at the principal, or start the agent with --agent-mode managed",
        );
    }
}
