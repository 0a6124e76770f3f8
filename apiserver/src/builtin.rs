//! The built-in kinds, as a table.

mod columns;
mod rules;

use crate::resource::{self, Behaviour, NameRule, Resource, Rules, Verbs, storage_name};
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

/// One line of the table.
struct Line {
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    singular: &'static str,
    kind: &'static str,
    short: &'static [&'static str],
    categories: &'static [&'static str],
    flags: &'static [Flag],
    names: NameRule,
    /// `group/plural` under which it is stored, if that is not its own.
    stored_as: Option<(&'static str, &'static str)>,
    rules: &'static Rules,
    columns: &'static [columns::Spec],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flag {
    ClusterWide,
    Status,
    Generation,
    Scale,
    /// PUT needs a resource version.
    Conditional,
    /// PUT creates what is not there.
    Upsert,
    /// DELETE answers with the object.
    ReturnsDeleted,
    /// Create only.
    Review,
}

use Flag::{ClusterWide, Conditional, Generation, ReturnsDeleted, Review, Scale, Status, Upsert};

type ByName = BTreeMap<(&'static str, &'static str, &'static str), Arc<Resource>>;

/// Every built-in resource by (group, version, plural); made once per process.
pub(crate) static RESOURCES: LazyLock<ByName> = LazyLock::new(|| {
    TABLE.iter().map(|line| ((line.group, line.version, line.plural), Arc::new(line.resource()))).collect()
});

/// A built-in resource.
pub(crate) fn find(group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
    RESOURCES.get(&(group, version, plural)).cloned()
}

/// A version of a group that built-in kinds live in.
pub(crate) fn has_version(group: &str, version: &str) -> bool {
    TABLE.iter().any(|line| line.group == group && line.version == version)
}

impl Line {
    fn has(&self, flag: Flag) -> bool {
        self.flags.contains(&flag)
    }

    fn resource(&self) -> Resource {
        let (group, plural) = self.stored_as.unwrap_or((self.group, self.plural));
        let mut resource = Resource::base(
            self.group.into(),
            self.version.into(),
            self.plural.into(),
            self.singular.into(),
            self.kind.into(),
            !self.has(ClusterWide),
            storage_name(group, plural),
            Behaviour::Builtin(self.rules),
        );
        resource.short_names = self.short.iter().map(|s| (*s).into()).collect();
        resource.categories = self.categories.iter().map(|s| (*s).into()).collect();
        resource.verbs = if self.has(Review) { Verbs::Review } else { Verbs::All };
        resource.status = self.has(Status);
        resource.scale = self.has(Scale).then(|| {
            resource::Scale::new(".spec.replicas", ".status.replicas", Some(".spec.selector.matchLabels"))
        });
        resource.generation = self.has(Generation);
        resource.unconditional_update = !self.has(Conditional);
        resource.create_on_update = self.has(Upsert);
        resource.returns_deleted = self.has(ReturnsDeleted);
        resource.names = self.names;
        resource.columns = self.columns.iter().map(columns::Spec::column).collect();
        resource
    }
}

/// What most lines have in common.
const CORE: Line = Line {
    group: "",
    version: "v1",
    plural: "",
    singular: "",
    kind: "",
    short: &[],
    categories: &[],
    flags: &[],
    names: NameRule::Subdomain,
    stored_as: None,
    rules: &rules::CONFIG_MAP,
    columns: columns::NAME_AND_CREATION,
};

const APPS: Line = Line { group: "apps", categories: &["all"], flags: &[Status, Generation, Scale], ..CORE };

const RBAC: Line =
    Line { group: "rbac.authorization.k8s.io", names: NameRule::PathSegment, flags: &[Upsert], ..CORE };

const TABLE: &[Line] = &[
    Line {
        plural: "namespaces",
        singular: "namespace",
        kind: "Namespace",
        short: &["ns"],
        flags: &[ClusterWide, Status, ReturnsDeleted],
        names: NameRule::Label,
        rules: &rules::NAMESPACE,
        columns: columns::NAMESPACE,
        ..CORE
    },
    Line {
        plural: "secrets",
        singular: "secret",
        kind: "Secret",
        rules: &rules::SECRET,
        columns: columns::SECRET,
        ..CORE
    },
    Line {
        plural: "configmaps",
        singular: "configmap",
        kind: "ConfigMap",
        short: &["cm"],
        rules: &rules::CONFIG_MAP,
        columns: columns::CONFIG_MAP,
        ..CORE
    },
    Line {
        plural: "events",
        singular: "event",
        kind: "Event",
        short: &["ev"],
        flags: &[Upsert],
        rules: &rules::EVENT,
        columns: columns::EVENT,
        ..CORE
    },
    Line {
        plural: "serviceaccounts",
        singular: "serviceaccount",
        kind: "ServiceAccount",
        short: &["sa"],
        flags: &[ReturnsDeleted],
        rules: &rules::SERVICE_ACCOUNT,
        columns: columns::SERVICE_ACCOUNT,
        ..CORE
    },
    Line {
        plural: "services",
        singular: "service",
        kind: "Service",
        short: &["svc"],
        categories: &["all"],
        flags: &[Status, Upsert, ReturnsDeleted],
        names: NameRule::Label,
        rules: &rules::SERVICE,
        columns: columns::SERVICE,
        ..CORE
    },
    Line {
        plural: "pods",
        singular: "pod",
        kind: "Pod",
        short: &["po"],
        categories: &["all"],
        flags: &[Status, Generation, ReturnsDeleted],
        rules: &rules::POD,
        columns: columns::POD,
        ..CORE
    },
    Line {
        plural: "nodes",
        singular: "node",
        kind: "Node",
        short: &["no"],
        flags: &[ClusterWide, Status],
        rules: &rules::NODE,
        columns: columns::NODE,
        ..CORE
    },
    Line {
        plural: "deployments",
        singular: "deployment",
        kind: "Deployment",
        short: &["deploy"],
        rules: &rules::DEPLOYMENT,
        columns: columns::DEPLOYMENT,
        ..APPS
    },
    Line {
        plural: "replicasets",
        singular: "replicaset",
        kind: "ReplicaSet",
        short: &["rs"],
        rules: &rules::REPLICA_SET,
        columns: columns::REPLICA_SET,
        ..APPS
    },
    Line {
        plural: "statefulsets",
        singular: "statefulset",
        kind: "StatefulSet",
        short: &["sts"],
        rules: &rules::STATEFUL_SET,
        columns: columns::STATEFUL_SET,
        ..APPS
    },
    Line {
        plural: "daemonsets",
        singular: "daemonset",
        kind: "DaemonSet",
        short: &["ds"],
        flags: &[Status, Generation],
        rules: &rules::DAEMON_SET,
        columns: columns::DAEMON_SET,
        ..APPS
    },
    Line {
        group: "events.k8s.io",
        plural: "events",
        singular: "event",
        kind: "Event",
        short: &["ev"],
        flags: &[Upsert],
        stored_as: Some(("", "events")),
        rules: &rules::EVENTS_EVENT,
        columns: columns::EVENTS_EVENT,
        ..CORE
    },
    Line {
        group: "coordination.k8s.io",
        plural: "leases",
        singular: "lease",
        kind: "Lease",
        flags: &[Conditional, Upsert],
        rules: &rules::LEASE,
        columns: columns::LEASE,
        ..CORE
    },
    Line { plural: "roles", singular: "role", kind: "Role", rules: &rules::ROLE, ..RBAC },
    Line {
        plural: "rolebindings",
        singular: "rolebinding",
        kind: "RoleBinding",
        rules: &rules::ROLE_BINDING,
        columns: columns::BINDING,
        ..RBAC
    },
    Line {
        plural: "clusterroles",
        singular: "clusterrole",
        kind: "ClusterRole",
        flags: &[ClusterWide, Upsert],
        rules: &rules::CLUSTER_ROLE,
        ..RBAC
    },
    Line {
        plural: "clusterrolebindings",
        singular: "clusterrolebinding",
        kind: "ClusterRoleBinding",
        flags: &[ClusterWide, Upsert],
        rules: &rules::CLUSTER_ROLE_BINDING,
        columns: columns::BINDING,
        ..RBAC
    },
    Line {
        group: "authorization.k8s.io",
        plural: "selfsubjectaccessreviews",
        singular: "selfsubjectaccessreview",
        kind: "SelfSubjectAccessReview",
        flags: &[ClusterWide, Review],
        rules: &rules::SELF_SUBJECT_ACCESS_REVIEW,
        ..CORE
    },
    Line {
        group: "authentication.k8s.io",
        plural: "tokenreviews",
        singular: "tokenreview",
        kind: "TokenReview",
        flags: &[ClusterWide, Review],
        rules: &rules::TOKEN_REVIEW,
        ..CORE
    },
    Line {
        group: "authentication.k8s.io",
        plural: "selfsubjectreviews",
        singular: "selfsubjectreview",
        kind: "SelfSubjectReview",
        flags: &[ClusterWide, Review],
        rules: &rules::SELF_SUBJECT_REVIEW,
        ..CORE
    },
    Line {
        group: "apiextensions.k8s.io",
        plural: "customresourcedefinitions",
        singular: "customresourcedefinition",
        kind: "CustomResourceDefinition",
        short: &["crd", "crds"],
        categories: &["api-extensions"],
        flags: &[ClusterWide, Status, Generation, Conditional],
        rules: &rules::CUSTOM_RESOURCE_DEFINITION,
        columns: columns::NAME_AND_CREATION,
        ..CORE
    },
];

/// Rules that ask for nothing.
#[cfg(test)]
pub(crate) fn plain_rules() -> &'static Rules {
    &rules::SERVICE_ACCOUNT
}
