//! Which API server to talk to.

use std::path::Path;

use kube::config::{Kubeconfig, KubeconfigError};

use super::Problem;
use crate::kube::client::Access;

const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Checks that there is an API server to talk to, and returns the namespace that comes with the access.
pub fn check_access(access: &Access) -> Result<Option<String>, Problem> {
    let (config, source) = match &access.kubeconfig {
        Some(path) => {
            let config = Kubeconfig::read_from(path).map_err(|error| unreadable(Some(path), &error))?;
            (config, format!("{}", path.display()))
        }
        None => match find() {
            Some(config) => (config?, "the default kubeconfig".to_owned()),
            None => return in_cluster(access),
        },
    };
    let wanted = access.context.as_ref().or(config.current_context.as_ref()).filter(|name| !name.is_empty());
    let Some(wanted) = wanted else {
        return Err(Problem::new(
            format!("{source} has no current context"),
            "name one with --kubecontext, or set it with kubectl config use-context",
        ));
    };
    let Some(named) = config.contexts.iter().find(|context| &context.name == wanted) else {
        let known: Vec<_> = config.contexts.iter().map(|context| context.name.as_str()).collect();
        return Err(Problem::new(
            format!("{source} has no context {wanted:?}"),
            match known.as_slice() {
                [] => "the file has no contexts at all: give another one with --kubeconfig".to_owned(),
                known => format!("name one that it has with --kubecontext: {}", known.join(", ")),
            },
        ));
    };
    Ok(named.context.as_ref().and_then(|context| context.namespace.clone()).filter(|ns| !ns.is_empty()))
}

fn in_cluster(access: &Access) -> Result<Option<String>, Problem> {
    if let Some(context) = &access.context {
        return Err(Problem::new(
            format!("--kubecontext {context} is set, but there is no kubeconfig"),
            "give the file with --kubeconfig, or leave --kubecontext out inside a cluster",
        ));
    }
    let folder = Path::new(SERVICE_ACCOUNT);
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_none() || !folder.join("token").exists() {
        return Err(Problem::new(
            "there is no Kubernetes API to talk to: no --kubeconfig, no $KUBECONFIG, no ~/.kube/config, and \
                 this process does not run inside a cluster",
            "give a kubeconfig file with --kubeconfig FILE",
        ));
    }
    // The namespace is a convenience of the pod; without it the option has to say it.
    Ok(std::fs::read_to_string(folder.join("namespace"))
        .ok()
        .map(|namespace| namespace.trim().to_owned())
        .filter(|namespace| !namespace.is_empty()))
}

/// The kubeconfig that kubectl would use, if there is one.
fn find() -> Option<Result<Kubeconfig, Problem>> {
    let failed = |error: KubeconfigError| unreadable(None, &error);
    match Kubeconfig::from_env() {
        Ok(Some(config)) => Some(Ok(config)),
        Err(error) => Some(Err(failed(error))),
        Ok(None) => {
            let default = std::env::home_dir()?.join(".kube").join("config");
            default
                .exists()
                .then(|| Kubeconfig::read_from(&default).map_err(|error| unreadable(Some(&default), &error)))
        }
    }
}

fn unreadable(path: Option<&Path>, error: &KubeconfigError) -> Problem {
    let name = path.map_or_else(|| "$KUBECONFIG".to_owned(), |path| path.display().to_string());
    match error {
        KubeconfigError::ReadConfig(source, _) => Problem::new(
            format!("kubeconfig {name} cannot be read: {source}"),
            "check the path and its permissions, or give another file with --kubeconfig",
        ),
        error => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(error);
            while let Some(cause) = source {
                text.push_str(": ");
                text.push_str(&cause.to_string());
                source = cause.source();
            }
            Problem::new(
                format!("kubeconfig {name} is not valid: {text}"),
                "check it with kubectl config view, or give another file with --kubeconfig",
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
apiVersion: v1
kind: Config
current-context: here
clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]
users: [{name: u, user: {}}]
contexts:
- {name: here, context: {cluster: c, user: u, namespace: argocd}}
- {name: there, context: {cluster: c, user: u}}
";

    fn access(text: &str, context: Option<&str>) -> Result<Option<String>, Problem> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        std::fs::write(&path, text).unwrap();
        check_access(&Access { kubeconfig: Some(path), context: context.map(str::to_owned) })
    }

    #[test]
    fn the_context_gives_the_namespace() {
        assert_eq!(access(FILE, None), Ok(Some("argocd".to_owned())));
        assert_eq!(access(FILE, Some("there")), Ok(None));
    }

    #[test]
    fn a_wrong_file_or_context_is_named_with_its_remedy() {
        let problem = access(FILE, Some("nowhere")).unwrap_err();
        assert!(problem.what.ends_with("has no context \"nowhere\""), "{problem}");
        assert!(problem.remedy.ends_with("here, there"), "{problem}");
        let problem = access("clusters: 3", None).unwrap_err();
        assert!(problem.what.contains("is not valid"), "{problem}");
        let missing = Access { kubeconfig: Some("/does/not/exist".into()), context: None };
        let problem = check_access(&missing).unwrap_err();
        assert!(problem.what.starts_with("kubeconfig /does/not/exist cannot be read"), "{problem}");
    }
}
