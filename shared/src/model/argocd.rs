//! Names that Argo CD and `argocd-agent` give to annotations, labels and fields.

/// Annotation keys.
pub mod annotation {
    /// UID of the original, on every copy.
    pub const SOURCE_UID: &str = "argocd.argoproj.io/source-uid";
    /// Identity of the control plane that a copy came from.
    pub const PRINCIPAL_UID: &str = "argocd.argoproj.io/principal-uid";
    /// What to do when a copy has another source UID: `recreate` or `upsert`.
    pub const MISMATCH_POLICY: &str = "argocd.argoproj.io/source-uid-mismatch-policy";
    /// What to do with an object that is already there: `always` or `never` adopt it.
    pub const ADOPTION_POLICY: &str = "argocd.argoproj.io/adoption-policy";
    /// `true` where an Application's namespace is another one than at the control plane.
    pub const NAMESPACE_REMAPPED: &str = "argocd.argoproj.io/namespace-remapped";
    /// Asks Argo CD to look again; Argo CD removes it when it has.
    pub const REFRESH: &str = "argocd.argoproj.io/refresh";
    /// When the other side's state was last written into this object.
    pub const LAST_UPDATED: &str = "argocd-agent.argoproj.io/last-updated";
    /// What the notifications controller of each side remembers for itself.
    pub const NOTIFIED: &str = "notified.notifications.argoproj.io";
    /// What a copy was when it was written, and what its original was: see `protocol::resync::digest`.
    pub const SEAL: &str = "tiphys.io/seal";
    /// Names the operation that was requested on the side that asks for it.
    pub const OPERATION_REQUESTED: &str = "tiphys.io/operation-requested";
    /// Names the requested operation that the side that runs it took last.
    pub const OPERATION_TAKEN: &str = "tiphys.io/operation-taken";
    /// Argo CD is not to reconcile a cluster.
    pub const SKIP_RECONCILE: &str = "argocd.argoproj.io/skip-reconcile";
    /// Who keeps a cluster Secret.
    pub const MANAGED_BY: &str = "managed-by";
    /// What client-side apply remembers; meaningless on another cluster.
    pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
}

/// Label keys.
pub mod label {
    /// `true` takes a resource out of synchronisation.
    pub const IGNORE_SYNC: &str = "argocd-agent.argoproj-labs.io/ignore-sync";
    /// Name of the agent that a cluster Secret stands for.
    pub const AGENT_NAME: &str = "argocd-agent.argoproj-labs.io/agent-name";
    /// `true` on a cluster Secret that was made when its agent logged in.
    pub const SELF_REGISTERED: &str = "argocd-agent.argoproj-labs.io/self-registered-cluster";
    /// `true` on a Secret with join tokens.
    pub const JOIN_TOKENS: &str = "tiphys.io/join-tokens";
    /// `true` on a Secret whose certificate the agent renews by itself.
    pub const RENEW: &str = "tiphys.io/renew";
    /// Says what an Argo CD Secret holds: `repository`, `repo-creds`, `cluster` …
    pub const SECRET_TYPE: &str = "argocd.argoproj.io/secret-type";
}

/// Name of the cluster that an Argo CD runs in, as a destination.
pub const IN_CLUSTER: &str = "in-cluster";
/// Address of the cluster that an Argo CD runs in, as a destination.
pub const IN_CLUSTER_SERVER: &str = "https://kubernetes.default.svc";
