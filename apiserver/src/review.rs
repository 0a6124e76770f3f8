//! Reviews: questions that are answered and not stored.

use crate::auth::User;
use crate::resource::{Behaviour, Resource};
use crate::serve::present::with_type;
use crate::status::Failure;
use crate::{Inner, object_meta};
use serde_json::{Value, json};

/// Answers a review.
pub(crate) fn answer(
    server: &Inner,
    resource: &Resource,
    mut body: Value,
    user: &User,
) -> Result<Value, Failure> {
    let Behaviour::Builtin(rules) = &resource.behaviour else { return Err(Failure::method_not_allowed()) };
    let bad = |why: String| {
        Failure::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {kind}: {why}",
            kind = resource.kind,
            version = resource.version,
        ))
    };
    let (kind, version) =
        (body["kind"].as_str().unwrap_or_default(), body["apiVersion"].as_str().unwrap_or_default());
    if !matches!(kind, k if k.is_empty() || k == resource.kind) {
        return Err(bad("kind does not match".into()));
    }
    if !version.is_empty() && version != resource.api_version() {
        return Err(bad("apiVersion does not match".into()));
    }
    object_meta::normalise(&mut body).map_err(bad)?;
    let typed = with_type(&resource.api_version(), &resource.kind, body);
    let mut review = (rules.decode)(&typed).map_err(|e| bad(e.to_string()))?;
    let causes = (rules.validate)(&review, None);
    if !causes.is_empty() {
        return Err(Failure::invalid(&resource.group, &resource.kind, "", &causes));
    }
    let info = json!({"username": user.name, "groups": user.groups});
    review["status"] = match &*resource.kind {
        "SelfSubjectAccessReview" => json!({"allowed": true}),
        "SelfSubjectReview" => json!({"userInfo": info}),
        "TokenReview" => token_status(server, review["spec"]["token"].as_str().unwrap_or_default())?,
        _ => return Err(Failure::method_not_allowed()),
    };
    Ok(review)
}

fn token_status(server: &Inner, token: &str) -> Result<Value, Failure> {
    if token.is_empty() {
        return Err(Failure::bad_request("token is required for TokenReview in authentication"));
    }
    Ok(match server.tokens.get(token) {
        Some(name) => {
            let user = User::known(name);
            json!({"authenticated": true, "user": {"username": user.name, "groups": user.groups}})
        }
        None => json!({"user": {}, "error": "invalid bearer token"}),
    })
}
