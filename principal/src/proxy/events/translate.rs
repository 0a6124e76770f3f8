//! What an agent of the Go project can be asked by events, and what its answers mean. Pure.
//!
//! It does much less than an API server, and not always what it is asked: it drops what it does not know. What it would carry out
//! in another way than the client means is refused here.

use std::collections::BTreeMap;

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use tiphys_shared::model::api_request::{ApiRequest, ResourcePath, Target};
use tiphys_shared::model::event::{ResourceRequest, ResourceResponse};
use tiphys_shared::proxy::refusal::Refusal;

use super::super::forward::bad;

/// What an agent that cannot be asked for it is said to have, in the Go project's words.
const VERSION: &str = "1.28.5+argocd-agent";
const JSON: &str = "application/json";
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
/// Fields of `DeleteOptions` that clients may give in the query.
const DELETE_OPTIONS: [&str; 4] = ["dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"];
/// The parameter of the event that has the type of a patch of a subresource.
const PATCH_TYPE: &str = "content-type";

/// What becomes of a request.
#[derive(Debug, PartialEq)]
pub(super) enum Plan {
    /// This is answered, and the agent is not asked.
    Say(String),
    /// The agent is asked.
    Ask(Box<Asking>),
}

/// What the agent is asked.
#[derive(Debug, PartialEq)]
pub(super) struct Asking {
    pub(super) request: ResourceRequest,
    /// What is made of the answer.
    pub(super) form: Form,
}

/// What is made of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// It passes.
    AsItIs,
    /// A list of all groups, of which the client wants the versions of the core.
    CoreVersions,
    /// A list of all groups, of which the client wants those that have names.
    Groups,
}

/// Decides how a request is put to the agent.
///
/// # Errors
/// A refusal that says what such an agent cannot do.
pub(super) fn plan(
    method: &Method,
    asked: &ApiRequest,
    query: Option<&str>,
    content_type: Option<&str>,
) -> Result<Plan, Refusal> {
    let mut request = ResourceRequest { method: method.to_string(), ..ResourceRequest::default() };
    let path = match &asked.target {
        Target::Resource(path) => path,
        Target::Other { path } => return discovery(method, path, request),
    };
    request.params = parameters(query)?;
    let media = content_type.map(|text| text.split(';').next().unwrap_or_default().trim());
    let ResourcePath { group, version, namespace, resource, name, subresource } = path;
    let dry_run = request.params.contains_key("dryRun");
    match (method.as_str(), asked.verb) {
        _ if asked.lasting => return Err(cannot(asked, "it answers once, and ends")),
        ("GET", "get") => {}
        ("GET", "list") if resource == "events" => {}
        ("GET", "list") => return Err(cannot(asked, "it lists nothing but events")),
        ("POST", "create") if name.is_empty() || (!subresource.is_empty() && !dry_run) => {
            if media.is_some_and(|media| media != JSON) {
                return Err(unsupported(media, JSON));
            }
        }
        ("PATCH", "patch") if subresource.is_empty() => {
            if media != Some(MERGE_PATCH) {
                return Err(unsupported(media, MERGE_PATCH));
            }
        }
        ("PATCH", "patch") if !dry_run => match media {
            Some(media @ (JSON_PATCH | MERGE_PATCH | STRATEGIC_PATCH)) => {
                request.params.insert(PATCH_TYPE.to_owned(), media.to_owned());
            }
            other => {
                return Err(unsupported(other, "application/{json,merge,strategic-merge}-patch+json"));
            }
        },
        ("DELETE", "delete") if subresource.is_empty() => {
            if media.is_some_and(|media| media != JSON) {
                return Err(unsupported(media, JSON));
            }
        }
        _ if dry_run => return Err(cannot(asked, "it would do in earnest what is to be tried only")),
        _ => return Err(cannot(asked, "it does not know how")),
    }
    // A namespace is its own namespace by its path only.
    let namespace = if resource == "namespaces" { "" } else { namespace };
    for (field, text) in [
        (&mut request.group, group.as_str()),
        (&mut request.version, version),
        (&mut request.namespace, namespace),
        (&mut request.resource, resource),
        (&mut request.name, name),
        (&mut request.subresource, subresource),
    ] {
        text.clone_into(field);
    }
    Ok(Plan::Ask(Box::new(Asking { request, form: Form::AsItIs })))
}

fn discovery(method: &Method, path: &str, mut request: ResourceRequest) -> Result<Plan, Refusal> {
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let form = match parts.as_slice() {
        _ if method != Method::GET => return Err(no_path(path)),
        ["version"] => {
            let empty = ["gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"];
            let mut version: Map<_, _> =
                empty.map(|field| (field.to_owned(), json!(""))).into_iter().collect();
            version.extend(
                [("major", "1"), ("minor", "28"), ("gitVersion", VERSION)]
                    .map(|(field, text)| (field.to_owned(), json!(text))),
            );
            return Ok(Plan::Say(Value::Object(version).to_string()));
        }
        ["api"] => Form::CoreVersions,
        ["apis"] => Form::Groups,
        ["api", version] => {
            request.version = (*version).to_owned();
            Form::AsItIs
        }
        ["apis", group, version] => {
            request.group = (*group).to_owned();
            request.version = (*version).to_owned();
            Form::AsItIs
        }
        _ => return Err(no_path(path)),
    };
    Ok(Plan::Ask(Box::new(Asking { request, form })))
}

impl Asking {
    /// Takes the request's body along.
    ///
    /// # Errors
    /// A refusal if the agent could not read it.
    pub(super) fn take_body(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        if self.request.method != "DELETE" {
            self.request.set_body(bytes);
            return Ok(());
        }
        // The agent wants one, and looks for options nowhere else.
        let mut options = match bytes {
            [] => Map::new(),
            bytes => serde_json::from_slice(bytes)
                .map_err(|error| bad(format!("the body is no DeleteOptions: {error}")))?,
        };
        for name in DELETE_OPTIONS {
            let Some(text) = self.request.params.remove(name) else { continue };
            let value = match name {
                "dryRun" => json!([text]),
                "propagationPolicy" => json!(text),
                _ => serde_json::from_str(&text).map_err(|error| bad(format!("{name}: {error}")))?,
            };
            options.insert(name.to_owned(), value);
        }
        self.request.set_body(Value::Object(options).to_string().as_bytes());
        Ok(())
    }
}

/// The query's parameters, of which the first of a name counts.
fn parameters(query: Option<&str>) -> Result<BTreeMap<String, String>, Refusal> {
    let mut parameters = BTreeMap::new();
    for (name, value) in pairs(query)? {
        // It is for the agent what it is not for an API server.
        if name == PATCH_TYPE {
            return Err(bad(
                "the query has a parameter content-type, which the agent would take for a header",
            ));
        }
        parameters.entry(name).or_insert(value);
    }
    Ok(parameters)
}

/// Names and values in a query, in their order.
pub(super) fn pairs(query: Option<&str>) -> Result<Vec<(String, String)>, Refusal> {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let [name, value] = [name, value].map(|text| {
                let text = text.replace('+', " ");
                percent_encoding::percent_decode_str(&text).decode_utf8().map(|text| text.into_owned())
            });
            match (name, value) {
                (Ok(name), Ok(value)) => Ok((name, value)),
                _ => Err(bad("the query is not properly encoded")),
            }
        })
        .collect()
}

/// Whether a switch in a query is on, as Kubernetes reads its value.
pub(super) fn is_on(value: &str) -> bool {
    value != "0" && !value.eq_ignore_ascii_case("false")
}

/// What the client gets of an answer.
pub(super) fn answer(form: Form, response: ResourceResponse, asked: &ApiRequest) -> (StatusCode, String) {
    let ResourceResponse { status, resource, .. } = response;
    let code = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    if !code.is_success() {
        // The agent tells no more than the status.
        let code = if code.as_u16() < 400 { StatusCode::BAD_GATEWAY } else { code };
        let text = match resource.is_empty() {
            false => resource,
            true => {
                let why = format!(
                    "the cluster's agent, which is of argocd-agent, answered {} with {status} and does not say why; its log \
                     does. It passes only what belongs to an application",
                    asked.verb
                );
                Refusal::new(code, "agent_error", why).status().to_string()
            }
        };
        return (code, text);
    }
    if resource.is_empty() {
        let done =
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 200});
        return (StatusCode::OK, done.to_string());
    }
    if form == Form::AsItIs {
        return (code, resource);
    }
    match groups(form, &resource) {
        Ok(text) => (code, text),
        Err(error) => {
            let why =
                format!("the cluster's agent, which is of argocd-agent, sent no list of groups: {error}");
            let refusal = Refusal::new(StatusCode::BAD_GATEWAY, "agent_error", why);
            (refusal.code, refusal.status().to_string())
        }
    }
}

/// The agent has the core in its list of groups, as a group without a name.
fn groups(form: Form, text: &str) -> Result<String, serde_json::Error> {
    let mut list: Value = serde_json::from_str(text)?;
    let all = match list.get_mut("groups").map(Value::take) {
        Some(Value::Array(groups)) => groups,
        _ => Vec::new(),
    };
    let (core, named): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|group| group["name"].as_str().unwrap_or_default().is_empty());
    if form == Form::Groups {
        let list = json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": named});
        return Ok(list.to_string());
    }
    let versions: Vec<&Value> = core
        .iter()
        .filter_map(|group| group["versions"].as_array())
        .flatten()
        .map(|version| &version["version"])
        .collect();
    Ok(json!({"kind": "APIVersions", "versions": versions, "serverAddressByClientCIDRs": []}).to_string())
}

/// What an agent of ours would do.
const REMEDY: &str = "with a Tiphys agent in its place everything passes that its policy allows";

pub(super) fn cannot(asked: &ApiRequest, why: &str) -> Refusal {
    let what = match &asked.target {
        Target::Resource(path) if path.subresource.is_empty() => path.resource.clone(),
        Target::Resource(path) => format!("{}/{}", path.resource, path.subresource),
        Target::Other { path } => path.clone(),
    };
    let message =
        format!("{} {what}: the cluster's agent is of argocd-agent, and {why}; {REMEDY}", asked.verb);
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "go_agent", message)
}

fn unsupported(media: Option<&str>, known: &str) -> Refusal {
    let media: String = media.unwrap_or("a body without Content-Type").chars().take(100).collect();
    let message =
        format!("{media}: the cluster's agent is of argocd-agent, and takes {known} here; {REMEDY}");
    Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "go_agent", message)
}

/// Clients take it for an API server that does not have such a thing, and go on.
fn no_path(path: &str) -> Refusal {
    let path: String = path.chars().take(100).collect();
    let message =
        format!("{path}: the cluster's agent is of argocd-agent, and cannot be asked for it; {REMEDY}");
    Refusal::new(StatusCode::NOT_FOUND, "go_agent", message)
}

#[cfg(test)]
mod tests;
