//! Checks of the cluster Secrets at the control plane. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tiphys_shared::kube::cluster_secret::Cluster;
use tiphys_shared::model::AgentName;
use tiphys_shared::model::argocd::annotation::SKIP_RECONCILE;
use tiphys_shared::security::pki::{Certificate, Distrust, Usage, judge};

use super::finding::Findings;
use super::material::{blocked, trusted, validity};
use super::snapshot::ControlPlane;

/// Argo CD's Secrets for the clusters of agents.
pub(super) fn check(findings: &mut Findings, control: &ControlPlane, ca: Option<&[u8]>, now: Timestamp) {
    let facts = &control.facts;
    let proxy = control.options.proxy_tls.as_ref();
    let shown = proxy.and_then(|name| facts.secret_entry(name, &["tls.crt"]));
    let proxy = shown.and_then(|chain| Certificate::from_pem(chain).ok());
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
        if let (Some(shown), Some(believed)) = (shown, cluster.tls_part("caData"))
            && matches!(judge(shown, &believed, Usage::Server, now), Ok(Err(Distrust::UnknownIssuer)))
        {
            findings.error(
                "cluster-ca",
                format!("the resource proxy's certificate is not signed by the CA in {at}: Argo CD cannot see the cluster"),
                format!("write the CA of today into it with {}", reissue(agent)),
            );
        }
        let Some(chain) = cluster.tls_part("certData") else { continue };
        if let Some(ca) = ca {
            let what = format!("the certificate in {at}");
            let reissue = reissue(agent);
            trusted(
                findings,
                &chain,
                ca,
                Usage::Client,
                (&what, "the CA of the control plane"),
                now,
                &reissue,
            );
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

/// How Argo CD gets another certificate for an agent's cluster.
fn reissue(agent: &str) -> String {
    format!("`agent reconfigure {agent} --reissue-client-cert`")
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
    let reissue = reissue(agent);
    match cluster.certificate() {
        Some(certificate) => {
            let what = format!("the certificate in {at}");
            validity(findings, &certificate, &what, now, &reissue);
            blocked(findings, &control.facts, &certificate, &what);
            // A token says who it is of, whatever the certificate.
            let has_token = cluster.config.contains_key("bearerToken");
            if !has_token && certificate.common_name.as_deref() != Some(agent) {
                findings.warning(
                    "cluster-identity",
                    format!(
                        "{what} is for {}, so that the proxy takes Argo CD for that one",
                        certificate.subject
                    ),
                    format!("{reissue}, unless it is an operator of the proxy"),
                );
            }
        }
        None if cluster.config.contains_key("bearerToken") => {}
        None => findings.error(
            "cluster-config",
            format!("{at} has neither a client certificate nor a token: the proxy refuses Argo CD"),
            reissue,
        ),
    }
}
