//! A request of the Go project's principal as one to an API server. Pure.

use http::{Method, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tiphys_shared::model::event::ResourceRequest;
use tiphys_shared::proxy::refusal::Refusal;

pub(super) const JSON: &str = "application/json";
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
/// What is asked for when nothing is named.
pub(super) const ALL_GROUPS: &str = "/apis";
/// The parameter that has the type of a patch.
const PATCH_TYPE: &str = "content-type";
/// Longest query, in bytes. Selectors may be long.
const QUERY: usize = 16 << 10;
/// What stays as it is in a query.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A request to an API server.
#[derive(Debug, PartialEq)]
pub(super) struct Asking {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: Option<String>,
    pub(super) content_type: Option<&'static str>,
    pub(super) body: Vec<u8>,
}

impl Asking {
    /// What is at a path.
    pub(super) fn of_path(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), query: None, content_type: None, body: Vec::new() }
    }
}

/// Reads a request.
///
/// # Errors
/// A refusal if it names nothing that could be asked for.
pub(super) fn read(request: &ResourceRequest) -> Result<Asking, Refusal> {
    let method = match request.method.as_str() {
        "GET" => Method::GET,
        "POST" => Method::POST,
        "PUT" => Method::PUT,
        "PATCH" => Method::PATCH,
        "DELETE" => Method::DELETE,
        other => {
            let other: String = other.chars().take(20).collect();
            let why = format!("method {other} is not passed on for a principal of argocd-agent");
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "go_principal", why));
        }
    };
    let path = path(request)?;
    let body = request.body_bytes().map_err(|error| bad(format!("the body is not base64: {error}")))?;
    let content_type = match method {
        Method::GET => None,
        Method::PATCH => Some(patch_type(request.params.get(PATCH_TYPE).map(String::as_str), &body)?),
        _ => (!body.is_empty()).then_some(JSON),
    };
    let pairs = request.params.iter().filter(|(name, _)| *name != PATCH_TYPE);
    let query = query(pairs.map(|(name, value)| (name.as_str(), value.as_str())))?;
    Ok(Asking { method, path, query, content_type, body })
}

/// The query with these parameters.
pub(super) fn query<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Option<String>, Refusal> {
    let encoded = |text| utf8_percent_encode(text, KEPT);
    let pairs: Vec<_> = pairs.map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    let query = Some(pairs.join("&")).filter(|query| !query.is_empty());
    if query.as_ref().is_some_and(|query| query.len() > QUERY) {
        return Err(bad(format!("the parameters have more than {QUERY} bytes")));
    }
    Ok(query)
}

/// Where what is named is.
pub(super) fn path(request: &ResourceRequest) -> Result<String, Refusal> {
    let ResourceRequest { namespace, name, subresource, group, version, resource, .. } = request;
    let parts = [group, version, namespace, resource, name, subresource];
    if parts.iter().all(|part| part.is_empty()) {
        return Ok(ALL_GROUPS.to_owned());
    }
    if let Some(part) = parts.iter().find(|part| !is_plain(part)) {
        let part: String = part.chars().take(40).collect();
        return Err(bad(format!("{part:?} cannot be part of a path of Kubernetes")));
    }
    let gap = (resource.is_empty() && !(namespace.is_empty() && name.is_empty()))
        || (name.is_empty() && !subresource.is_empty());
    if version.is_empty() || gap {
        return Err(bad("the request leaves out what its path cannot do without"));
    }
    let mut path = if group.is_empty() { "/api".to_owned() } else { format!("/apis/{group}") };
    // A namespace is its own namespace.
    let namespace = if resource == "namespaces" { "" } else { namespace };
    let within = if namespace.is_empty() { "" } else { "namespaces" };
    for part in [version, within, namespace, resource, name, subresource] {
        if !part.is_empty() {
            path.push('/');
            path.push_str(part);
        }
    }
    Ok(path)
}

/// Whether every server reads it as one part of a path, and as the same.
fn is_plain(part: &str) -> bool {
    let dots = part == "." || part == "..";
    !dots && part.chars().all(|letter| letter.is_ascii_alphanumeric() || "-._:@$+".contains(letter))
}

/// The principal names the type for subresources at best. Without one it is a merge patch for the Go project's agents, but an array
/// can be a JSON patch only.
fn patch_type(named: Option<&str>, body: &[u8]) -> Result<&'static str, Refusal> {
    match named {
        Some(JSON_PATCH) => Ok(JSON_PATCH),
        Some(STRATEGIC_PATCH) => Ok(STRATEGIC_PATCH),
        Some(MERGE_PATCH) => Ok(MERGE_PATCH),
        None | Some("") if body.trim_ascii_start().starts_with(b"[") => Ok(JSON_PATCH),
        None | Some("") => Ok(MERGE_PATCH),
        Some(other) => {
            let other: String = other.chars().take(100).collect();
            let why =
                format!("{other} is no type of a patch that is passed on for a principal of argocd-agent");
            Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "go_principal", why))
        }
    }
}

fn bad(why: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "bad_request", why)
}

#[cfg(test)]
mod tests {
    use tiphys_shared::model::api_request::{ApiRequest, Target};

    use super::*;

    fn request(method: &str, parts: [&str; 6]) -> ResourceRequest {
        let [group, version, namespace, resource, name, subresource] = parts.map(str::to_owned);
        let method = method.to_owned();
        ResourceRequest {
            method,
            group,
            version,
            namespace,
            resource,
            name,
            subresource,
            ..Default::default()
        }
    }

    #[test]
    fn the_path_names_what_the_request_does() {
        for (parts, path) in [
            (["", "", "", "", "", ""], "/apis"),
            (["", "v1", "", "", "", ""], "/api/v1"),
            (["apps", "v1", "", "", "", ""], "/apis/apps/v1"),
            (["", "v1", "a", "pods", "b", ""], "/api/v1/namespaces/a/pods/b"),
            (
                ["apps", "v1", "a", "deployments", "b", "scale"],
                "/apis/apps/v1/namespaces/a/deployments/b/scale",
            ),
            (["", "v1", "", "nodes", "", ""], "/api/v1/nodes"),
            (["", "v1", "a", "namespaces", "a", ""], "/api/v1/namespaces/a"),
            (
                ["rbac.authorization.k8s.io", "v1", "", "clusterroles", "system:node", ""],
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node",
            ),
        ] {
            let asking = read(&request("GET", parts)).unwrap();
            assert_eq!(asking, Asking::of_path(path));
            let read = ApiRequest::read(&Method::GET, path, None).unwrap();
            if let Target::Resource(read) = read.target {
                assert_eq!((read.resource.as_str(), read.name.as_str()), (parts[3], parts[4]));
            }
        }
    }

    #[test]
    fn what_could_be_read_in_another_way_is_refused() {
        for parts in [
            ["", "v1", "a", "pods", "..", ""],
            ["", "v1", "a", "pods", "b/exec", ""],
            ["", "v1", "a", "pods", "b%2fexec", ""],
            ["", "v1", "a", "pods", "b?watch=1", ""],
            ["", "v1", "a", "pods", "b", "exec?x#"],
            ["..", "v1", "a", "pods", "b", ""],
            ["", "", "a", "pods", "b", ""],
            ["", "v1", "a", "", "b", ""],
            ["", "v1", "a", "pods", "", "log"],
            ["", "v1", "a", "", "", ""],
            ["", "v1\r\n", "a", "pods", "b", ""],
        ] {
            assert_eq!(read(&request("GET", parts)).expect_err(&format!("{parts:?}")).code, 400);
        }
        assert_eq!(read(&request("TRACE", ["", "v1", "a", "pods", "b", ""])).unwrap_err().code, 405);
        let mut broken = request("POST", ["", "v1", "a", "pods", "", ""]);
        broken.body = "%".to_owned();
        assert_eq!(read(&broken).unwrap_err().code, 400);
        broken.body.clear();
        broken.params.insert("labelSelector".to_owned(), "x".repeat(QUERY));
        assert_eq!(read(&broken).unwrap_err().code, 400);
    }

    #[test]
    fn parameters_are_a_query_and_a_patch_has_its_type() {
        let mut patch = request("PATCH", ["", "v1", "a", "pods", "b", ""]);
        let read_type = |patch: &ResourceRequest| read(patch).map(|asking| asking.content_type.unwrap());
        patch.set_body(b"{}");
        assert_eq!(read_type(&patch), Ok(MERGE_PATCH));
        patch.set_body(b" [{}]");
        assert_eq!(read_type(&patch), Ok(JSON_PATCH));
        for known in [JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH] {
            patch.params = [(PATCH_TYPE.to_owned(), known.to_owned())].into();
            assert_eq!(read_type(&patch), Ok(known));
        }
        patch.params = [(PATCH_TYPE.to_owned(), "text/html".to_owned())].into();
        assert_eq!(read_type(&patch).unwrap_err().code, 415);
        patch.params = [("field Manager", "a&b=c"), ("dryRun", "All")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        assert_eq!(read(&patch).unwrap().query.unwrap(), "dryRun=All&field%20Manager=a%26b%3Dc");
    }
}
