//! From a request line to what is meant by it.

use crate::schema::Cause;
use crate::status::{cause, invalid_value};
use http::HeaderValue;

/// How long the name of a field manager may be.
const MANAGER_LENGTH: usize = 128;

fn is_printable(c: char) -> bool {
    c == ' ' || !(c.is_control() || c.is_whitespace())
}

/// What is wrong with the name of a field manager.
pub(crate) fn unfit_manager(name: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    if name.len() > MANAGER_LENGTH {
        let message = format!("Too long: may not be more than {MANAGER_LENGTH} bytes");
        causes.push(cause("fieldManager", "FieldValueTooLong", message));
    }
    causes.extend(name.char_indices().filter(|(_, c)| !is_printable(*c)).map(|(at, c)| {
        let why = format!("invalid character U+{:04X} (at position {at})", u32::from(c));
        invalid_value("fieldManager", &name.into(), &why)
    }));
    causes
}

/// The field manager that a user agent stands for: what comes before its version.
pub(crate) fn manager_of(agent: Option<&HeaderValue>) -> String {
    let agent = agent.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let name = agent.split('/').next().unwrap_or_default();
    name.chars().filter(|c| is_printable(*c)).take(MANAGER_LENGTH).collect()
}

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// `/healthz`, `/livez`, `/readyz` and what is below.
    Health,
    Version,
    /// `/`.
    Index,
    /// `/api`.
    CoreVersions,
    /// `/apis`.
    Groups,
    /// `/apis/{group}`.
    Group(String),
    /// `/api/v1` or `/apis/{group}/{version}`.
    Resources {
        group: String,
        version: String,
    },
    /// `/openapi/v2`.
    OpenApiV2,
    /// `/openapi/v3`.
    OpenApiV3,
    /// `/openapi/v3/api/v1` or `/openapi/v3/apis/{group}/{version}`.
    OpenApiV3Group {
        group: String,
        version: String,
    },
    Resource(ResourcePath),
    Unknown,
}

/// The path of a collection, an object or a part of one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ResourcePath {
    pub(crate) group: String,
    pub(crate) version: String,
    /// `None`: the path names no namespace.
    pub(crate) namespace: Option<String>,
    pub(crate) plural: String,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
}

/// Reads a path.
pub(crate) fn target(path: &str) -> Target {
    let Some(parts) = path
        .split('/')
        .filter(|part| !part.is_empty())
        .map(|part| decode(part, false))
        .collect::<Option<Vec<String>>>()
    else {
        return Target::Unknown;
    };
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match parts.as_slice() {
        [] => Target::Index,
        ["healthz" | "livez" | "readyz", ..] => Target::Health,
        ["version"] => Target::Version,
        ["api"] => Target::CoreVersions,
        ["apis"] => Target::Groups,
        ["apis", group] => Target::Group((*group).into()),
        ["api", version] => Target::Resources { group: String::new(), version: (*version).into() },
        ["apis", group, version] => Target::Resources { group: (*group).into(), version: (*version).into() },
        ["openapi", "v2"] => Target::OpenApiV2,
        ["openapi", "v3"] => Target::OpenApiV3,
        ["openapi", "v3", "api", version] => {
            Target::OpenApiV3Group { group: String::new(), version: (*version).into() }
        }
        ["openapi", "v3", "apis", group, version] => {
            Target::OpenApiV3Group { group: (*group).into(), version: (*version).into() }
        }
        ["api", version, rest @ ..] => resource("", version, rest),
        ["apis", group, version, rest @ ..] => resource(group, version, rest),
        _ => Target::Unknown,
    }
}

fn resource(group: &str, version: &str, rest: &[&str]) -> Target {
    let mut path = ResourcePath { group: group.into(), version: version.into(), ..ResourcePath::default() };
    let rest = match rest {
        // A namespace itself, or a part of it.
        ["namespaces", _] | ["namespaces", _, "status" | "finalize"] => rest,
        ["namespaces", namespace, inner @ ..] => {
            path.namespace = Some((*namespace).into());
            inner
        }
        _ => rest,
    };
    let (plural, name, subresource) = match rest {
        [plural] => (plural, None, None),
        [plural, name] => (plural, Some(name), None),
        [plural, name, subresource] => (plural, Some(name), Some(subresource)),
        _ => return Target::Unknown,
    };
    path.plural = (*plural).into();
    path.name = name.map(|n| (*n).into());
    path.subresource = subresource.map(|s| (*s).into());
    Target::Resource(path)
}

/// Undoes percent encoding; `None` if the result is not UTF-8 or the encoding is broken.
fn decode(text: &str, plus_is_space: bool) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'%' => {
                let digit = |b: Option<&u8>| b.and_then(|b| char::from(*b).to_digit(16));
                let (high, low) = (digit(bytes.get(at + 1))?, digit(bytes.get(at + 2))?);
                out.push((high * 16 + low) as u8);
                at += 2;
            }
            b'+' if plus_is_space => out.push(b' '),
            other => out.push(*other),
        }
        at += 1;
    }
    String::from_utf8(out).ok()
}

/// The parameters of a query, decoded, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the query of a URI. Pairs that cannot be decoded are refused as a whole.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        text.split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                Some((decode(key, true)?, decode(value, true)?))
            })
            .collect::<Option<Vec<_>>>()
            .map(Self)
    }

    /// The first value of a parameter; empty if it is not there.
    pub(crate) fn get(&self, key: &str) -> &str {
        self.first(key).unwrap_or_default()
    }

    fn first(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// A switch: `true`, `1` or bare.
    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        let value = self.first(key)?;
        Some(!matches!(value, "false" | "0"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(group: &str, namespace: Option<&str>, rest: (&str, Option<&str>, Option<&str>)) -> Target {
        Target::Resource(ResourcePath {
            group: group.into(),
            version: "v1".into(),
            namespace: namespace.map(Into::into),
            plural: rest.0.into(),
            name: rest.1.map(Into::into),
            subresource: rest.2.map(Into::into),
        })
    }

    #[test]
    fn paths_name_collections_objects_and_parts() {
        for (text, expected) in [
            ("/api/v1/namespaces", path("", None, ("namespaces", None, None))),
            ("/api/v1/namespaces/a", path("", None, ("namespaces", Some("a"), None))),
            ("/api/v1/namespaces/a/finalize", path("", None, ("namespaces", Some("a"), Some("finalize")))),
            ("/api/v1/namespaces/a/secrets", path("", Some("a"), ("secrets", None, None))),
            (
                "/apis/g/v1/namespaces/a/things/b/status",
                path("g", Some("a"), ("things", Some("b"), Some("status"))),
            ),
            ("/apis/g/v1/things", path("g", None, ("things", None, None))),
            ("/apis/g/v1/things/a%3Ab", path("g", None, ("things", Some("a:b"), None))),
            ("/apis/g", Target::Group("g".into())),
            ("/livez/ping", Target::Health),
            ("/nothing", Target::Unknown),
            ("/api/v1/a/b/c/d", Target::Unknown),
            ("/api/v1/things/%zz", Target::Unknown),
        ] {
            assert_eq!(target(text), expected, "{text}");
        }
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse("labelSelector=a%3Db%2Cc&watch&limit=5&x=a+b").unwrap();
        assert_eq!(query.get("labelSelector"), "a=b,c");
        assert_eq!(query.flag("watch"), Some(true));
        assert_eq!(query.flag("other"), None);
        assert_eq!(query.get("x"), "a b");
        assert!(Query::parse("a=%f").is_none());
    }
}
