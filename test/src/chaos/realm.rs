//! What one agent stands between: a namespace of the control plane and a cluster.

use kube::{Api, Client};
use tiphys_shared::kube::kinds;
use tiphys_shared::model::{Kind, Mode, Object};

/// Namespace of Argo CD and of the processes, on all sides.
pub const ARGOCD: &str = "argocd";

/// One agent and its two sides, reached directly.
#[derive(Clone)]
pub struct Realm {
    /// Name of the agent, and of its namespace at the control plane.
    pub agent: String,
    /// Who owns.
    pub mode: Mode,
    /// The control plane.
    pub control: Client,
    /// The agent's cluster.
    pub cluster: Client,
}

/// Kinds that users work with.
pub const KINDS: [Kind; 2] = [Kind::Application, Kind::AppProject];

impl Realm {
    /// Resources at the control plane.
    pub fn at_control(&self, kind: Kind) -> Api<Object> {
        let namespace = if kind == Kind::Application { &self.agent } else { ARGOCD };
        kinds::api(&self.control, kind, Some(namespace))
    }

    /// Resources at the cluster.
    pub fn at_cluster(&self, kind: Kind) -> Api<Object> {
        kinds::api(&self.cluster, kind, Some(ARGOCD))
    }

    /// Resources where they are owned.
    pub fn at_owner(&self, kind: Kind) -> Api<Object> {
        match self.mode {
            Mode::Managed => self.at_control(kind),
            Mode::Autonomous => self.at_cluster(kind),
        }
    }

    /// Resources where they are copies.
    pub fn at_holder(&self, kind: Kind) -> Api<Object> {
        match self.mode {
            Mode::Managed => self.at_cluster(kind),
            Mode::Autonomous => self.at_control(kind),
        }
    }

    /// What the owner calls the resource with this number. Projects of all realms share a namespace at the control plane.
    pub fn name(&self, kind: Kind, number: usize) -> String {
        match (kind, self.mode) {
            (Kind::Application, _) => format!("app-{number}"),
            (_, Mode::Managed) => format!("shared-{}-{number}", self.agent),
            (_, Mode::Autonomous) => format!("project-{number}"),
        }
    }

    /// What the holder calls what the owner calls `name`.
    pub fn held_name(&self, kind: Kind, name: &str) -> String {
        match (kind, self.mode) {
            (Kind::AppProject, Mode::Autonomous) => format!("{}-{name}", self.agent),
            _ => name.to_owned(),
        }
    }

    /// Whether a resource at the owner's, or at the holder's, belongs to this realm.
    pub fn is_of_realm(&self, kind: Kind, name: &str, at_owner: bool) -> bool {
        match (kind, self.mode, at_owner) {
            (Kind::AppProject, Mode::Managed, _) => name.starts_with(&format!("shared-{}-", self.agent)),
            (Kind::AppProject, Mode::Autonomous, false) => name.starts_with(&format!("{}-", self.agent)),
            _ => true,
        }
    }
}
