//! What a request to a Kubernetes API server asks for, read from its method and path as Kubernetes reads them.
//!
//! A path that servers could understand in different ways is refused instead of guessed at: whoever decides by what is
//! read here must decide about what the API server will do.

use std::borrow::Cow;

use http::Method;

/// Longest path that is read, in bytes.
const LONGEST: usize = 4096;
/// Subresources of a namespace; anything else under its name is a resource in it.
const OF_NAMESPACES: [&str; 2] = ["status", "finalize"];
/// Subresources that open a way into a pod, whatever the method.
const RUNNING: [&str; 3] = ["attach", "exec", "portforward"];
/// Subresources whose answers last as long as both sides like.
const LASTING: [&str; 4] = ["attach", "exec", "portforward", "proxy"];

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiRequest {
    /// What is done: get, list, watch, create, update, patch, delete, deletecollection; for a path that names no
    /// resource, the method in lower case.
    pub verb: &'static str,
    /// What it is done to.
    pub target: Target,
    /// Whether the answer lasts as long as both sides like.
    pub lasting: bool,
}

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A resource, or all of one kind.
    Resource(ResourcePath),
    /// Anything else, such as `/version`.
    Other {
        /// The path, decoded, without a slash at its end.
        path: String,
    },
}

/// The parts of a path that names a resource. A part that is not there is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourcePath {
    /// API group; empty for the core.
    pub group: String,
    /// Version.
    pub version: String,
    /// Namespace.
    pub namespace: String,
    /// Resource, in the plural.
    pub resource: String,
    /// Name of the object.
    pub name: String,
    /// Subresource.
    pub subresource: String,
}

/// Why a request is not passed on, whoever makes it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Kubernetes has no use for the method.
    #[error("method {0} is not used by Kubernetes")]
    Method(String),
    /// Longer than any path of Kubernetes.
    #[error("the path has {0} bytes, more than {LONGEST}")]
    TooLong(usize),
    /// Not an absolute path.
    #[error("the path does not begin with a slash")]
    NotAbsolute,
    /// A percent sign without two hexadecimal digits, or bytes that are not UTF-8.
    #[error("the path is not properly encoded")]
    Encoding,
    /// A part that servers understand in different ways.
    #[error("the path has a part that servers understand in different ways: {0}")]
    Ambiguous(&'static str),
}

impl ApiRequest {
    /// Reads `method`, `path` and `query` as they are on the wire.
    ///
    /// # Errors
    /// [`Invalid`] if they are no request to Kubernetes, or could be understood in more ways than one.
    pub fn read(method: &Method, path: &str, query: Option<&str>) -> Result<Self, Invalid> {
        let (verb, plain) = match *method {
            Method::GET => ("get", "get"),
            Method::HEAD => ("get", "head"),
            Method::POST => ("create", "post"),
            Method::PUT => ("update", "put"),
            Method::PATCH => ("patch", "patch"),
            Method::DELETE => ("delete", "delete"),
            Method::OPTIONS => ("options", "options"),
            _ => return Err(Invalid::Method(method.as_str().chars().take(20).collect())),
        };
        let segments = segments(path)?;
        let parts: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
        let (group, version, parts) = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
            _ => {
                let target = Target::Other { path: format!("/{}", parts.join("/")) };
                return Ok(Self { verb: plain, target, lasting: false });
            }
        };
        let mut verb = verb;
        let parts = match parts {
            // The way of old to ask for a watch.
            ["watch", rest @ ..] if verb == "get" && !rest.is_empty() => {
                verb = "watch";
                rest
            }
            ["watch", ..] => return Err(Invalid::Ambiguous("watch as a resource")),
            // The way of old to a service, gone for years; who still knows it would read another resource than we.
            ["proxy", ..] => return Err(Invalid::Ambiguous("proxy as a resource")),
            parts => parts,
        };
        let (namespace, parts) = match parts {
            ["namespaces", namespace, third, ..] if !OF_NAMESPACES.contains(third) => {
                (*namespace, &parts[2..])
            }
            ["namespaces", namespace, ..] => (*namespace, parts),
            parts => ("", parts),
        };
        let part = |index: usize| parts.get(index).copied().unwrap_or_default().to_owned();
        let path = ResourcePath {
            group: group.to_owned(),
            version: version.to_owned(),
            namespace: namespace.to_owned(),
            resource: part(0),
            name: part(1),
            subresource: part(2),
        };
        // Over WebSocket these are asked for with GET; who may read everything of a pod may not therefore run things in it.
        if verb == "get" && RUNNING.contains(&path.subresource.as_str()) {
            verb = "create";
        }
        if path.name.is_empty() {
            verb = match verb {
                "get" if flag(query, "watch") => "watch",
                "get" => "list",
                "delete" => "deletecollection",
                verb => verb,
            };
        }
        let follows = path.subresource == "log" && flag(query, "follow");
        let lasting = verb == "watch" || follows || LASTING.contains(&path.subresource.as_str());
        Ok(Self { verb, target: Target::Resource(path), lasting })
    }

    /// Whether nothing is changed by it, nor can be through it.
    pub fn only_reads(&self) -> bool {
        match &self.target {
            // What is run in a pod, or reached through it, may do anything.
            Target::Resource(path) if LASTING.contains(&path.subresource.as_str()) => false,
            // These are questions, though they are posted.
            Target::Resource(path) if self.verb == "create" => {
                matches!(path.group.as_str(), "authorization.k8s.io" | "authentication.k8s.io")
                    && path.resource.starts_with("self")
            }
            Target::Resource(_) => ["get", "list", "watch"].contains(&self.verb),
            Target::Other { .. } => ["get", "head", "options"].contains(&self.verb),
        }
    }
}

/// The decoded segments of a path, without a slash at its end.
fn segments(path: &str) -> Result<Vec<Cow<'_, str>>, Invalid> {
    if path.len() > LONGEST {
        return Err(Invalid::TooLong(path.len()));
    }
    let path = path.strip_prefix('/').ok_or(Invalid::NotAbsolute)?;
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Ok(Vec::new());
    }
    path.split('/').map(segment).collect()
}

fn segment(text: &str) -> Result<Cow<'_, str>, Invalid> {
    let decoded = decode(text)?;
    match decoded.as_ref() {
        "" => Err(Invalid::Ambiguous("an empty part")),
        "." | ".." => Err(Invalid::Ambiguous("a part of dots")),
        text if text.contains(['/', '\\']) => Err(Invalid::Ambiguous("an encoded slash")),
        text if text.contains('%') => Err(Invalid::Ambiguous("an encoded percent sign")),
        text if text.contains(char::is_control) => Err(Invalid::Ambiguous("a control character")),
        _ => Ok(decoded),
    }
}

fn decode(text: &str) -> Result<Cow<'_, str>, Invalid> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let digit =
        |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16)).ok_or(Invalid::Encoding);
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => (digit(bytes.next())? * 16 + digit(bytes.next())?) as u8,
            byte => byte,
        });
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| Invalid::Encoding)
}

/// Whether a switch in a query is on, as Kubernetes reads it: there, and neither 0 nor false. The first of it counts; a
/// pair with a semicolon is none for Go.
fn flag(query: Option<&str>, name: &str) -> bool {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.contains(';'));
    let mut pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let value = pairs.find(|(key, _)| decode(key).is_ok_and(|key| key == name)).map(|(_, value)| value);
    value.is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
}

#[cfg(test)]
mod tests;
