//! `agent create`: a new agent becomes known to Argo CD.

use std::collections::BTreeMap;

use clap::Args;
use tiphys_shared::kube::cluster_secret::{self, Cluster};
use tiphys_shared::model::AgentName;
use tiphys_shared::model::argocd::label;
use tiphys_shared::security::tls::{ClientCertificate, Material, Policy, ServerTls};

use super::IssueOptions;
use super::address::server_url;
use crate::failure::Failure;
use crate::operator::targets::Site;
use crate::operator::write::{self, DryRun, IfThere, Write};
use crate::output;

#[derive(Debug, Args)]
pub(super) struct Create {
    /// The new agent
    #[arg(value_name = "NAME")]
    name: AgentName,
    /// Where Argo CD reaches the principal's resource proxy
    #[arg(long, value_name = "HOST:PORT", default_value = "argocd-agent-resource-proxy:9090")]
    resource_proxy_server: String,
    /// Further labels of the cluster Secret: key=value, separated by commas
    #[arg(long, short, value_name = "LIST", value_delimiter = ',')]
    label: Vec<String>,
    /// Secret with the certificate and key that Argo CD uses, as [NAMESPACE/]NAME, instead of issuing one
    #[arg(long, value_name = "SECRET", requires = "ca_from_secret")]
    tls_from_secret: Option<String>,
    /// Secret with the CA of the resource proxy, as [NAMESPACE/]NAME
    #[arg(long, value_name = "SECRET", requires = "tls_from_secret")]
    ca_from_secret: Option<String>,
    #[command(flatten)]
    issue: IssueOptions,
    #[command(flatten)]
    dry_run: DryRun,
}

/// Makes an agent known.
///
/// # Errors
/// A [`Failure`] if it is known, what it is to be given is wrong or missing, or its Secret cannot be written.
pub(super) async fn create(site: &Site, options: Create) -> Result<(), Failure> {
    let Create { name, label, tls_from_secret, ca_from_secret, issue, dry_run, .. } = options;
    let labels = parse_labels(&label)?;
    let server = server_url(&options.resource_proxy_server, &name)?;
    let if_there = IfThere::Refuse("change it with `agent reconfigure`, or choose another name");
    if write::read(site, &cluster_secret::name(&name)).await?.is_some() {
        return Err(Failure::new(format!("agent {name} is there already"))
            .remedy("change it with `agent reconfigure`, or choose another name"));
    }
    let material = match (tls_from_secret, ca_from_secret) {
        (Some(tls), Some(ca)) => {
            issue.refuse_key_options("with --tls-from-secret")?;
            borrowed(site, &tls, &ca).await?
        }
        _ => issue.material(site, &name).await?,
    };
    let secret = Cluster::new(&name, server, &material).into_secret(&name, labels);
    if let Some(warning) = shares_namespace(&name, &site.namespace) {
        output::say(&format!("warning: {warning}"));
    }
    write::all(vec![Write { site, secret, if_there }], dry_run).await
}

/// What is wrong with an agent whose namespace at the control plane is there for something else, too.
fn shares_namespace(name: &AgentName, own: &str) -> Option<String> {
    let what = match name.as_str() {
        name if name == own => "the principal and Argo CD are in",
        name if name == "default" || name.starts_with("kube-") => "Kubernetes itself uses",
        _ => return None,
    };
    Some(format!(
        "the Applications of agent {name} are those in namespace {name} here, which {what}; another name keeps them apart"
    ))
}

fn parse_labels(given: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let mut labels = BTreeMap::new();
    for text in given.iter().filter(|text| !text.is_empty()) {
        let wrong = |what: &str| {
            Failure::usage(format!("--label {text:?} {what}")).remedy("write KEY=VALUE, each key once")
        };
        let (key, value) = text.split_once('=').ok_or_else(|| wrong("is not KEY=VALUE"))?;
        if [label::AGENT_NAME, label::SECRET_TYPE].contains(&key) {
            return Err(wrong("is set by this command itself"));
        }
        if labels.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(wrong("names a key a second time"));
        }
    }
    Ok(labels)
}

/// Credentials that somebody else keeps in Secrets.
async fn borrowed(site: &Site, tls: &str, ca: &str) -> Result<Material, Failure> {
    let part = async |reference: &str, key: &str| -> Result<Vec<u8>, Failure> {
        let (namespace, name) = match reference.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() => (namespace, name),
            Some((_, name)) => (site.namespace.as_str(), name),
            None => (site.namespace.as_str(), reference),
        };
        let site = Site { namespace: namespace.to_owned(), ..site.clone() };
        let found = write::read(&site, name).await?.ok_or_else(|| {
            Failure::new(format!("there is no Secret {namespace}/{name}"))
                .remedy("check --tls-from-secret and --ca-from-secret")
        })?;
        found.data.unwrap_or_default().remove(key).map(|bytes| bytes.0).ok_or_else(|| {
            Failure::new(format!("Secret {namespace}/{name} has no {key}"))
                .remedy("the one needs tls.crt and tls.key, the other ca.crt")
        })
    };
    let (chain, key) = (part(tls, "tls.crt").await?, part(tls, "tls.key").await?);
    let material = Material::new(chain, key, part(ca, "ca.crt").await?);
    let policy = Policy { client_certificate: ClientCertificate::Required, ..Policy::default() };
    ServerTls::new(&material, policy).map_err(|error| {
        Failure::because("what these Secrets hold cannot be used", &error)
            .remedy("name a Secret with a certificate and its key, and one with a CA")
    })?;
    Ok(material)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_called_like_a_namespace_of_others_is_warned_of() {
        let warned = |name: &str| shares_namespace(&AgentName::new(name).unwrap(), "argocd");
        for name in ["argocd", "default", "kube-system"] {
            assert!(warned(name).is_some_and(|warning| warning.contains(name)), "{name}");
        }
        assert_eq!(warned("edge-1"), None);
    }

    #[test]
    fn labels_are_taken_once_and_never_those_that_mark_the_secret() {
        let parse = |list: &[&str]| parse_labels(&list.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(parse(&["a=b", "c=", ""]).unwrap().len(), 2);
        for wrong in [&["a"][..], &["a=1", "a=2"], &["argocd.argoproj.io/secret-type=repository"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
