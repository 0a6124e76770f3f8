//! The API server of the control plane, and what is served of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};
use tiphys_shared::kube::client::Access;
use tiphys_shared::kube::reconciler::NamespaceCreation;
use tiphys_shared::process::options::{self, NamePattern, Problem, Problems};

use super::{embedded, filled};

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Kubernetes")]
pub(super) struct KubernetesOptions {
    /// Namespace of the principal's Secrets and of Argo CD; by default that of the pod or of the kubeconfig context
    #[arg(long, short, env = "ARGOCD_PRINCIPAL_NAMESPACE", value_name = "NAME")]
    namespace: Option<String>,
    /// Namespaces to serve, separated by commas: names, globs or /regular expressions/
    #[arg(long, env = "ARGOCD_PRINCIPAL_ALLOWED_NAMESPACES", value_name = "LIST", value_delimiter = ',')]
    allowed_namespaces: Vec<String>,
    /// Choose the agent by spec.destination.name instead of by the application's namespace
    #[arg(long, env = "ARGOCD_PRINCIPAL_DESTINATION_BASED_MAPPING", action = ArgAction::Set, default_value = "false")]
    pub(super) destination_based_mapping: bool,
    /// Create the namespaces in which the applications of autonomous agents are shown
    #[arg(long, env = "ARGOCD_PRINCIPAL_NAMESPACE_CREATE_ENABLE", action = ArgAction::Set, default_value = "false")]
    namespace_create_enable: bool,
    /// Create only namespaces whose names match this regular expression
    #[arg(long, env = "ARGOCD_PRINCIPAL_NAMESPACE_CREATE_PATTERN", value_name = "REGEX")]
    namespace_create_pattern: Option<String>,
    /// Labels of created namespaces: key=value, separated by commas
    #[arg(
        long,
        env = "ARGOCD_PRINCIPAL_NAMESPACE_CREATE_LABELS",
        value_name = "LIST",
        value_delimiter = ','
    )]
    namespace_create_labels: Vec<String>,
    /// Compare what both sides hold this often, and repair what differs; 0 compares at connect only
    #[arg(long, env = "TIPHYS_PRINCIPAL_RESYNC_INTERVAL", value_name = "DURATION")]
    #[arg(default_value = "60s", value_parser = options::duration)]
    pub(super) resync_interval: Duration,
    /// Watch only resources that match this label selector
    #[arg(long, env = "ARGOCD_PRINCIPAL_LABEL_SELECTOR", value_name = "SELECTOR")]
    pub(super) label_selector: Option<String>,
    /// Kubeconfig file of the control plane; by default $KUBECONFIG, ~/.kube/config, or the cluster around
    #[arg(long, value_name = "FILE")]
    pub(super) kubeconfig: Option<PathBuf>,
    /// Context in the kubeconfig, instead of its current one
    #[arg(long, value_name = "NAME")]
    pub(super) kubecontext: Option<String>,
}

impl KubernetesOptions {
    pub(super) fn namespace_creation(&self) -> Result<Option<NamespaceCreation>, Problems> {
        let mut problems = Problems::default();
        let pattern = filled(self.namespace_create_pattern.clone()).and_then(|pattern| {
            let pattern = NamePattern::new(&format!("/{pattern}/"));
            problems.keep(pattern.map_err(|invalid| ("--namespace-create-pattern", invalid).into()))
        });
        let mut labels = BTreeMap::new();
        for text in self.namespace_create_labels.iter().filter(|text| !text.is_empty()) {
            match text.split_once('=') {
                Some((key, value)) if options::check_label_selector(text).is_ok() && !value.is_empty() => {
                    labels.insert(key.to_owned(), value.to_owned());
                }
                _ => problems.add(
                    format!("--namespace-create-labels: {text:?} is not a label"),
                    "write key=value, such as team=edge",
                ),
            }
        }
        if problems.is_empty() {
            Ok(self.namespace_create_enable.then_some(NamespaceCreation { pattern, labels }))
        } else {
            Err(problems)
        }
    }

    pub(super) fn check(&self, is_embedded: bool) -> Result<(Access, String, Vec<NamePattern>), Problems> {
        let mut problems = Problems::default();
        let access =
            Access { kubeconfig: self.kubeconfig.clone(), context: filled(self.kubecontext.clone()) };
        let default_namespace = match is_embedded {
            true => Some(Some(embedded::NAMESPACE.to_owned())),
            false => problems.keep(options::check_access(&access)),
        };
        let namespace = match (filled(self.namespace.clone()), default_namespace) {
            (Some(namespace), _) => options::namespace_name("--namespace", &namespace).map(|()| namespace),
            (None, Some(Some(namespace))) => Ok(namespace),
            (None, _) => Err(Problem::new(
                "--namespace is missing, and neither the pod nor the kubeconfig context names one",
                "give the namespace of Argo CD, such as --namespace argocd",
            )),
        };
        let namespace = problems.keep(namespace);
        let mut allowed = Vec::new();
        let everything = (is_embedded && self.allowed_namespaces.iter().all(String::is_empty))
            .then(|| embedded::ALLOWED_NAMESPACES.to_owned());
        for text in everything.iter().chain(&self.allowed_namespaces) {
            allowed
                .extend(problems.keep(
                    NamePattern::new(text).map_err(|invalid| ("--allowed-namespaces", invalid).into()),
                ));
        }
        if let Some(selector) = self.label_selector.as_deref().filter(|selector| !selector.is_empty()) {
            problems.keep(
                options::check_label_selector(selector)
                    .map_err(|invalid| ("--label-selector", invalid).into()),
            );
        }
        match namespace {
            Some(namespace) if problems.is_empty() => Ok((access, namespace, allowed)),
            _ => Err(problems),
        }
    }
}
