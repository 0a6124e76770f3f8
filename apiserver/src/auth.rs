//! Who is asking. Whoever is known may do everything: there is no authorisation here.

use crate::Inner;
use crate::status::Failure;
use http::HeaderMap;
use http::header::AUTHORIZATION;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) groups: Vec<String>,
}

impl User {
    pub(crate) fn anonymous() -> Self {
        Self { name: "system:anonymous".into(), groups: vec!["system:unauthenticated".into()] }
    }

    pub(crate) fn known(name: &str) -> Self {
        Self { name: name.into(), groups: vec!["system:authenticated".into()] }
    }

    fn admin() -> Self {
        Self {
            name: "system:admin".into(),
            groups: vec!["system:masters".into(), "system:authenticated".into()],
        }
    }
}

/// Identifies the caller by its bearer token.
///
/// A server without tokens lets everybody in. A call from within the process needs none, but one that it
/// brings has to be right.
pub(crate) fn authenticate(server: &Inner, headers: &HeaderMap, in_process: bool) -> Result<User, Failure> {
    let user = caller(server, headers, in_process)?;
    Ok(impersonated(headers)?.unwrap_or(user))
}

/// Who the caller wants to be. Whoever may do everything may be anybody.
fn impersonated(headers: &HeaderMap) -> Result<Option<User>, Failure> {
    let text = |value: &http::HeaderValue| {
        value
            .to_str()
            .map(ToOwned::to_owned)
            .map_err(|_| Failure::bad_request("impersonation headers are not text"))
    };
    let mut groups: Vec<String> =
        headers.get_all("impersonate-group").iter().map(text).collect::<Result<_, _>>()?;
    let Some(name) = headers.get("impersonate-user") else {
        let asked = !groups.is_empty() || headers.contains_key("impersonate-uid");
        return if asked {
            Err(Failure::bad_request("requested groups or uid without impersonating a user"))
        } else {
            Ok(None)
        };
    };
    let name = text(name)?;
    let known = if name == "system:anonymous" { "system:unauthenticated" } else { "system:authenticated" };
    if !groups.iter().any(|group| group == known) {
        groups.push(known.into());
    }
    Ok(Some(User { name, groups }))
}

fn caller(server: &Inner, headers: &HeaderMap, in_process: bool) -> Result<User, Failure> {
    let token = match headers.get(AUTHORIZATION) {
        None => None,
        Some(value) => Some(value.to_str().ok().and_then(bearer).ok_or_else(Failure::unauthorized)?),
    };
    match token {
        Some(token) => match server.tokens.get(token) {
            Some(user) => Ok(User::known(user)),
            None if server.tokens.is_empty() => Ok(User::admin()),
            None => Err(Failure::unauthorized()),
        },
        None if in_process || server.tokens.is_empty() => Ok(User::admin()),
        None => Err(Failure::unauthorized()),
    }
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
