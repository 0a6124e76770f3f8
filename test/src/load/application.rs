//! The Applications that the tools write.

use kube::api::{ApiResource, DynamicObject};
use kube::{Api, Client};
use serde_json::json;
use tiphys_shared::model::Object;

/// The label that marks whatever the tools write, with the run's name as its value.
pub const RUN_LABEL: &str = "tiphys.io/load-run";

/// The kind.
pub fn resource() -> ApiResource {
    ApiResource {
        group: "argoproj.io".into(),
        version: "v1alpha1".into(),
        api_version: "argoproj.io/v1alpha1".into(),
        kind: "Application".into(),
        plural: "applications".into(),
    }
}

/// The Applications of a namespace.
pub fn api(client: &Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &resource())
}

/// The names of the Applications of one run.
#[derive(Clone, Debug)]
pub struct Names {
    prefix: String,
}

impl Names {
    /// For the run `run` and one of its purposes.
    pub fn new(run: &str, purpose: &str) -> Self {
        Self { prefix: format!("load-{run}-{purpose}-") }
    }

    /// The name with this number.
    pub fn name(&self, index: usize) -> String {
        format!("{}{index}", self.prefix)
    }

    /// The number of this name, if it is one of these.
    pub fn index(&self, name: &str) -> Option<usize> {
        name.strip_prefix(&self.prefix)?.parse().ok()
    }
}

/// As little as an Application can have, in the project `default`.
///
/// # Errors
/// It is no object.
pub fn minimal(name: &str) -> serde_json::Result<Object> {
    serde_json::from_value(json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": {"name": name},
        "spec": {
            "project": "default",
            "source": {"repoURL": "https://git.example.com/app.git", "path": "deploy", "targetRevision": "main"},
            "destination": {"name": "in-cluster", "namespace": "guests"},
        },
    }))
}

/// An Application as an operator would write it, with `destination` as the destination's name.
pub fn application(name: &str, run: &str, project: &str, destination: &str) -> DynamicObject {
    let mut object = DynamicObject::new(name, &resource());
    object.metadata.labels = Some([(RUN_LABEL.to_owned(), run.to_owned())].into());
    object.data = json!({
        "spec": {
            "project": project,
            "source": {"repoURL": "https://git.invalid/load.git", "path": "guestbook", "targetRevision": "HEAD"},
            "destination": {"name": destination, "namespace": "guestbook"},
        }
    });
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_run_are_not_those_of_another() {
        let names = Names::new("r1", "a");
        assert_eq!(names.index(&names.name(17)), Some(17));
        assert_eq!(Names::new("r2", "a").index(&names.name(17)), None);
        assert_eq!(Names::new("r1", "b").index(&names.name(17)), None);
        assert_eq!(names.index("load-r1-a-x"), None);
    }
}
