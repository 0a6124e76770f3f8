//! Which lists of the built-in kinds merge instead of being replaced, and by which field.
//!
//! Data, not code: the same table that a real server keeps as tags on its types.

/// The lists and objects of one type that a strategic merge treats in a way of their own. What is not
/// listed merges field by field if it is an object, and is replaced if it is a list.
#[derive(Debug)]
pub(crate) struct MergeKeys {
    fields: &'static [(&'static str, Rule)],
}

/// How one field merges.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rule {
    /// An object whose own fields have rules.
    Object(&'static MergeKeys),
    /// A list of objects, each known by the value of one field.
    Keyed(&'static str, &'static MergeKeys),
    /// A list of scalars in which each value occurs once.
    Set,
}

impl MergeKeys {
    pub(super) fn rule(&self, field: &str) -> Option<Rule> {
        self.fields.iter().find(|(name, _)| *name == field).map(|(_, rule)| *rule)
    }
}

use Rule::{Keyed, Object, Set};

/// No rule at all: also what the items of most keyed lists have.
pub(super) static PLAIN: MergeKeys = MergeKeys { fields: &[] };

static METADATA: MergeKeys =
    MergeKeys { fields: &[("ownerReferences", Keyed("uid", &PLAIN)), ("finalizers", Set)] };

static ONLY_METADATA: MergeKeys = MergeKeys { fields: &[("metadata", Object(&METADATA))] };

static CONDITIONS: MergeKeys = MergeKeys { fields: &[("conditions", Keyed("type", &PLAIN))] };

static CONTAINER: MergeKeys = MergeKeys {
    fields: &[
        ("ports", Keyed("containerPort", &PLAIN)),
        ("env", Keyed("name", &PLAIN)),
        ("volumeMounts", Keyed("mountPath", &PLAIN)),
        ("volumeDevices", Keyed("devicePath", &PLAIN)),
    ],
};

static POD_SPEC: MergeKeys = MergeKeys {
    fields: &[
        ("volumes", Keyed("name", &PLAIN)),
        ("containers", Keyed("name", &CONTAINER)),
        ("initContainers", Keyed("name", &CONTAINER)),
        ("ephemeralContainers", Keyed("name", &CONTAINER)),
        ("imagePullSecrets", Keyed("name", &PLAIN)),
        ("hostAliases", Keyed("ip", &PLAIN)),
        ("topologySpreadConstraints", Keyed("topologyKey", &PLAIN)),
        ("schedulingGates", Keyed("name", &PLAIN)),
        ("resourceClaims", Keyed("name", &PLAIN)),
    ],
};

static POD_STATUS: MergeKeys = MergeKeys {
    fields: &[
        ("conditions", Keyed("type", &PLAIN)),
        ("podIPs", Keyed("ip", &PLAIN)),
        ("hostIPs", Keyed("ip", &PLAIN)),
        ("resourceClaimStatuses", Keyed("name", &PLAIN)),
    ],
};

static POD: MergeKeys = MergeKeys {
    fields: &[("metadata", Object(&METADATA)), ("spec", Object(&POD_SPEC)), ("status", Object(&POD_STATUS))],
};

static TEMPLATE: MergeKeys =
    MergeKeys { fields: &[("metadata", Object(&METADATA)), ("spec", Object(&POD_SPEC))] };

static WITH_TEMPLATE: MergeKeys = MergeKeys { fields: &[("template", Object(&TEMPLATE))] };

/// Deployments, replica sets, stateful sets, daemon sets, jobs.
static WORKLOAD: MergeKeys = MergeKeys {
    fields: &[
        ("metadata", Object(&METADATA)),
        ("spec", Object(&WITH_TEMPLATE)),
        ("status", Object(&CONDITIONS)),
    ],
};

static JOB_TEMPLATE: MergeKeys =
    MergeKeys { fields: &[("metadata", Object(&METADATA)), ("spec", Object(&WITH_TEMPLATE))] };

static CRON_JOB_SPEC: MergeKeys = MergeKeys { fields: &[("jobTemplate", Object(&JOB_TEMPLATE))] };

static CRON_JOB: MergeKeys =
    MergeKeys { fields: &[("metadata", Object(&METADATA)), ("spec", Object(&CRON_JOB_SPEC))] };

static SERVICE_SPEC: MergeKeys = MergeKeys { fields: &[("ports", Keyed("port", &PLAIN))] };

static SERVICE: MergeKeys = MergeKeys {
    fields: &[
        ("metadata", Object(&METADATA)),
        ("spec", Object(&SERVICE_SPEC)),
        ("status", Object(&CONDITIONS)),
    ],
};

static SERVICE_ACCOUNT: MergeKeys =
    MergeKeys { fields: &[("metadata", Object(&METADATA)), ("secrets", Keyed("name", &PLAIN))] };

static NODE_SPEC: MergeKeys = MergeKeys { fields: &[("podCIDRs", Set)] };

static NODE_STATUS: MergeKeys =
    MergeKeys { fields: &[("conditions", Keyed("type", &PLAIN)), ("addresses", Keyed("type", &PLAIN))] };

static NODE: MergeKeys = MergeKeys {
    fields: &[
        ("metadata", Object(&METADATA)),
        ("spec", Object(&NODE_SPEC)),
        ("status", Object(&NODE_STATUS)),
    ],
};

/// Namespaces, persistent volume claims: conditions in the status and nothing else.
static WITH_CONDITIONS: MergeKeys =
    MergeKeys { fields: &[("metadata", Object(&METADATA)), ("status", Object(&CONDITIONS))] };

/// The groups whose kinds are compiled into a real server, where strategic merge is known.
const BUILT_IN_GROUPS: &[&str] = &[
    "",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "apps",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
];

/// The merge keys of a built-in kind; `None` for custom resources, which have no strategic merge.
pub(crate) fn merge_keys(group: &str, kind: &str) -> Option<&'static MergeKeys> {
    if !BUILT_IN_GROUPS.contains(&group) {
        return None;
    }
    Some(match (group, kind) {
        ("", "Pod") => &POD,
        ("", "PodTemplate") => &WITH_TEMPLATE,
        ("", "ReplicationController") | ("apps", _) | ("batch", "Job") => &WORKLOAD,
        ("batch", "CronJob") => &CRON_JOB,
        ("", "Service") => &SERVICE,
        ("", "ServiceAccount") => &SERVICE_ACCOUNT,
        ("", "Node") => &NODE,
        ("", "Namespace" | "PersistentVolumeClaim") => &WITH_CONDITIONS,
        _ => &ONLY_METADATA,
    })
}
