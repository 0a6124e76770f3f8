//! What of the cluster's API may pass. Pure: a request in, a verdict out.

mod rules;

use std::str::FromStr;

use tiphys_shared::model::api_request::{ApiRequest, ResourcePath, Target};

pub use self::rules::AllowList;

/// What may pass.
#[derive(Clone, Debug, PartialEq)]
pub enum Policy {
    /// What belongs to an application of Argo CD, and what Argo CD needs to show it: the Go project's rule.
    Managed,
    /// What one of these rules names.
    AllowList(AllowList),
    /// Everything that the agent itself may do.
    All,
}

/// The name of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PolicyName {
    /// [`Policy::Managed`]
    Managed,
    /// [`Policy::AllowList`]
    AllowList,
    /// [`Policy::All`]
    All,
}

impl FromStr for PolicyName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "managed" => Ok(Self::Managed),
            "allow-list" => Ok(Self::AllowList),
            "all" => Ok(Self::All),
            other => Err(format!("there is no policy {other:?}")),
        }
    }
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It passes.
    Allowed,
    /// It passes if this object belongs to an application.
    IfManaged(ResourcePath),
    /// It does not pass, for this reason.
    Refused(String),
}

impl Policy {
    /// Judges a request.
    pub fn judge(&self, request: &ApiRequest, read_only: bool) -> Verdict {
        if read_only && !request.only_reads() {
            return Verdict::Refused(format!(
                "the agent serves this cluster read-only, and {} is more than reading (--proxy-read-only)",
                request.verb
            ));
        }
        match self {
            Self::All => Verdict::Allowed,
            Self::AllowList(list) if list.allows(request) => Verdict::Allowed,
            Self::AllowList(_) => Verdict::Refused(format!(
                "no rule of the agent's allow-list names {} (--proxy-policy-file)",
                describe(request)
            )),
            Self::Managed => managed(request),
        }
    }
}

fn managed(request: &ApiRequest) -> Verdict {
    let path = match &request.target {
        Target::Other { path } if is_discovery(path) && request.only_reads() => return Verdict::Allowed,
        Target::Other { path } => {
            return Verdict::Refused(format!("{path} belongs to no application (--proxy-policy managed)"));
        }
        Target::Resource(path) => path,
    };
    match request.verb {
        // Argo CD shows what happened to a resource, and its actions make new ones.
        "list" if ["", "events.k8s.io"].contains(&path.group.as_str()) && path.resource == "events" => {
            Verdict::Allowed
        }
        "create" if path.name.is_empty() => Verdict::Allowed,
        "get" | "update" | "patch" | "delete" | "create" if !path.name.is_empty() => {
            Verdict::IfManaged(path.clone())
        }
        verb => Verdict::Refused(format!(
            "{} is not about one object that belongs to an application; the agent passes nothing else unless it is started \
             with --proxy-policy all or allow-list (verb {verb})",
            describe(request)
        )),
    }
}

/// What any client asks first, and what holds nobody's data.
fn is_discovery(path: &str) -> bool {
    let below =
        |root: &str| path == root || path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'));
    ["/api", "/apis", "/openapi", "/version"].into_iter().any(below)
        || ["/", "/livez", "/readyz", "/healthz"].contains(&path)
}

fn describe(request: &ApiRequest) -> String {
    match &request.target {
        Target::Other { path } => format!("{} {path}", request.verb),
        Target::Resource(path) => {
            let ResourcePath { group, namespace, resource, name, subresource, .. } = path;
            let mut text = format!("{} {resource}", request.verb);
            for (before, part) in [(".", group), ("/", name), ("/", subresource)] {
                if !part.is_empty() {
                    text = format!("{text}{before}{part}");
                }
            }
            if namespace.is_empty() { text } else { format!("{text} in namespace {namespace}") }
        }
    }
}

#[cfg(test)]
mod tests;
