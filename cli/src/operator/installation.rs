//! A principal or an agent as it is deployed: which options its pod gives it, and where each comes from.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write as _;

use clap::Args;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, PodSpec, Secret};
use kube::Api;
use kube::api::ListParams;
use tiphys_shared::process::options::{self, Loaded, Problem, Problems};

use super::targets::Site;
use crate::command::Program;
use crate::failure::Failure;

/// Options of a principal or an agent that does not run as a Deployment.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct OwnOptions {
    /// Options that the process is started with, if it does not run in a pod of this namespace
    #[arg(last = true, value_name = "OPTIONS")]
    pub(crate) options: Vec<String>,
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Principal,
    Agent,
}

impl Part {
    /// Its command.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Principal => "principal",
            Self::Agent => "agent",
        }
    }

    fn namespace_variable(self) -> &'static str {
        match self {
            Self::Principal => "ARGOCD_PRINCIPAL_NAMESPACE",
            Self::Agent => "ARGOCD_AGENT_NAMESPACE",
        }
    }
}

/// What a pod is started with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Installation {
    /// The workload, as `Deployment argocd-agent-principal`; none if the options were given by hand.
    pub(crate) workload: Option<String>,
    /// The service account that it runs as.
    pub(crate) service_account: Option<String>,
    /// What follows the command.
    pub(crate) arguments: Vec<String>,
    /// Value and place of each variable.
    pub(crate) environment: BTreeMap<String, (String, String)>,
    /// What the pod waits for in vain.
    pub(crate) problems: Vec<Problem>,
}

impl Installation {
    /// Options that were given by hand.
    pub(crate) fn by_hand(options: &OwnOptions) -> Self {
        Self { arguments: options.options.clone(), ..Self::default() }
    }

    /// The one in this namespace, if there is one.
    pub(crate) async fn find(site: &Site, part: Part) -> Result<Option<Self>, Failure> {
        let failed = |error: &kube::Error| {
            Failure::because(&format!("cannot list workloads in namespace {}", site.namespace), error)
        };
        let deployments: Api<Deployment> = Api::namespaced(site.client.clone(), &site.namespace);
        let sets: Api<StatefulSet> = Api::namespaced(site.client.clone(), &site.namespace);
        let everything = ListParams::default();
        let deployments = deployments.list(&everything).await.map_err(|error| failed(&error))?;
        let sets = sets.list(&everything).await.map_err(|error| failed(&error))?;
        let deployments = deployments
            .items
            .into_iter()
            .map(|it| ("Deployment", it.metadata.name, it.spec.and_then(|spec| spec.template.spec)));
        let sets = sets
            .items
            .into_iter()
            .map(|it| ("StatefulSet", it.metadata.name, it.spec.and_then(|spec| spec.template.spec)));
        for (kind, name, pod) in deployments.chain(sets) {
            let (Some(name), Some(pod)) = (name, pod) else { continue };
            if let Some((container, arguments)) = container_of(&pod, part) {
                let (environment, problems) = environment(site, container).await?;
                return Ok(Some(Self {
                    workload: Some(format!("{kind} {name}")),
                    service_account: Some(
                        pod.service_account_name.clone().unwrap_or_else(|| "default".to_owned()),
                    ),
                    arguments,
                    environment,
                    problems,
                }));
            }
        }
        Ok(None)
    }

    /// Reads the options as the process itself does.
    pub(crate) fn load<T: Args, S>(
        &self,
        part: Part,
        site: &Site,
        check: impl FnOnce(T) -> Result<S, Problems>,
    ) -> Result<Loaded<S>, Problems> {
        let root = options::prepare(Program::ArgocdAgent.command());
        let mut line = vec!["argocd-agent".to_owned(), part.name().to_owned()];
        line.extend(self.arguments.iter().cloned());
        let stand_in = stand_in(&site.namespace).map_err(|error| {
            Problem::new(
                format!("cannot write a temporary file: {error}"),
                "make room in the folder for them",
            )
        })?;
        // A control plane of its own is in a folder; any other one is found here as it is found there.
        let finds_its_own = |argument: &String| {
            argument.starts_with("--kube") || argument == "--embedded" || argument.starts_with("--embedded=")
        };
        if !self.arguments.iter().any(finds_its_own) {
            line.push(format!("--kubeconfig={}", stand_in.path().display()));
        }
        let given = options::lenient(root.clone()).try_get_matches_from(line).map_err(|error| {
            let remedy = match self.workload {
                Some(_) => "correct the arguments of the container",
                None => "correct the options after --",
            };
            // The line that says what is wrong; the others are hints for somebody at a terminal.
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            Problem::new(line.trim_start_matches("error: "), remedy)
        })?;
        let nothing = clap::ArgMatches::default();
        let given = given.subcommand().map_or(&nothing, |(_, given)| given);
        // `agent run` is `agent`.
        let given = given.subcommand().map_or(given, |(_, given)| given);
        let Some(command) = root.find_subcommand(part.name()) else {
            return Err(Problem::new("there is no such command", "correct the container's arguments").into());
        };
        let lookup = |name: &str| -> Option<OsString> {
            let value = self.environment.get(name).map(|(value, _)| value.as_str());
            // Inside its pod it would find out by itself.
            let value = value.filter(|value| !value.is_empty());
            value
                .or_else(|| (name == part.namespace_variable()).then_some(site.namespace.as_str()))
                .map(OsString::from)
        };
        options::load(command, given, &lookup, check)
    }
}

/// A kubeconfig in the place of the pod's service account, which is not on this machine. Nobody calls what it names.
fn stand_in(namespace: &str) -> std::io::Result<tempfile::NamedTempFile> {
    let mut file = tempfile::NamedTempFile::new()?;
    let text = serde_json::json!({
        "current-context": "pod",
        "clusters": [{"name": "pod", "cluster": {"server": "https://kubernetes.default.svc"}}],
        "users": [{"name": "pod", "user": {}}],
        "contexts": [{"name": "pod", "context": {"cluster": "pod", "user": "pod", "namespace": namespace}}],
    });
    file.write_all(text.to_string().as_bytes())?;
    Ok(file)
}

/// Whether a pod runs the command.
pub(crate) fn runs(pod: &PodSpec, part: Part) -> bool {
    container_of(pod, part).is_some()
}

/// The container that runs the command, and what follows the command.
fn container_of(pod: &PodSpec, part: Part) -> Option<(&Container, Vec<String>)> {
    pod.containers.iter().find_map(|container| {
        let words: Vec<&String> =
            container.command.iter().flatten().chain(container.args.iter().flatten()).collect();
        let ours = |text: &str| text.contains("argocd-agent") || text.contains("tiphys");
        let named =
            container.image.as_deref().is_some_and(ours) || words.first().is_some_and(|word| ours(word));
        let at = words.iter().position(|word| *word == part.name())?;
        named.then(|| (container, words.into_iter().skip(at + 1).cloned().collect()))
    })
}

type Environment = (BTreeMap<String, (String, String)>, Vec<Problem>);

async fn environment(site: &Site, container: &Container) -> Result<Environment, Failure> {
    let maps: Api<ConfigMap> = Api::namespaced(site.client.clone(), &site.namespace);
    let secrets: Api<Secret> = Api::namespaced(site.client.clone(), &site.namespace);
    let failed = |error: &kube::Error| {
        Failure::because(
            &format!("cannot read what the pod's variables come from in {}", site.namespace),
            error,
        )
    };
    let mut found = BTreeMap::new();
    let mut problems = Vec::new();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.clone().unwrap_or_default();
        if let Some(reference) = &from.config_map_ref {
            let origin = format!("config map {}", reference.name);
            match maps.get_opt(&reference.name).await.map_err(|error| failed(&error))? {
                Some(map) => {
                    for (key, value) in map.data.unwrap_or_default() {
                        found.insert(format!("{prefix}{key}"), (value, origin.clone()));
                    }
                }
                None if reference.optional == Some(true) => {}
                None => problems.push(missing(&origin)),
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let EnvVar { name, value, value_from } = variable;
        if let Some(value) = value {
            found.insert(name.clone(), (value.clone(), "pod".to_owned()));
        }
        let Some(source) = value_from else { continue };
        if let Some(reference) = &source.config_map_key_ref {
            let origin = format!("config map {}, {}", reference.name, reference.key);
            let map = maps.get_opt(&reference.name).await.map_err(|error| failed(&error))?;
            match map.and_then(|map| map.data?.remove(&reference.key)) {
                Some(value) => _ = found.insert(name.clone(), (value, origin)),
                None if reference.optional == Some(true) => {}
                None => problems.push(missing(&origin)),
            }
        }
        if let Some(reference) = &source.secret_key_ref {
            let origin = format!("Secret {}, {}", reference.name, reference.key);
            let secret = secrets.get_opt(&reference.name).await.map_err(|error| failed(&error))?;
            match secret.and_then(|secret| secret.data?.remove(&reference.key)) {
                Some(value) => {
                    let value = String::from_utf8_lossy(&value.0).into_owned();
                    found.insert(name.clone(), (value, origin));
                }
                None if reference.optional == Some(true) => {}
                None => problems.push(missing(&origin)),
            }
        }
    }
    Ok((found, problems))
}

fn missing(origin: &str) -> Problem {
    Problem::new(
        format!("the pod takes a variable from {origin}, which is not there, and so does not start"),
        "create it, or mark the reference as optional",
    )
}
