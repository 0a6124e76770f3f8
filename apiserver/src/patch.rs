//! What a PATCH body does to an object: RFC 6902, RFC 7396 and the strategic merge of the built-in kinds.
//!
//! Pure functions from (current, body) to the next object. They know nothing of revisions or of the
//! immutable parts of an object; whoever stores the result checks those.

mod json;
mod keys;
mod strategic;

use serde_json::Value;

pub(crate) use keys::{MergeKeys, merge_keys};

/// Which of the patch languages a body is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PatchKind {
    /// `application/json-patch+json`
    Json,
    /// `application/merge-patch+json`
    Merge,
    /// `application/strategic-merge-patch+json`
    Strategic,
}

/// Why a patch was not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// The body is not a patch of the announced kind: status 400.
    #[error("{0}")]
    BadRequest(String),
    /// The body is a patch, but it does not fit the object: status 422.
    #[error("{0}")]
    Unprocessable(String),
}

/// Applies `body` to `current` and returns the patched object; `current` stays as it is.
///
/// `strategic` names the lists that merge by key, see [`merge_keys`]; without it a strategic patch is
/// refused. The result is always a JSON object, and never deeper than what a request body can hold, so
/// that whoever walks it recursively is safe.
pub(crate) fn apply(
    kind: PatchKind,
    current: &Value,
    body: &[u8],
    strategic: Option<&'static MergeKeys>,
) -> Result<Value, Error> {
    let patch: Value =
        serde_json::from_slice(body).map_err(|e| Error::BadRequest(format!("error decoding patch: {e}")))?;
    let patched = match kind {
        PatchKind::Json => json::apply(current, patch)?,
        PatchKind::Merge => merge(current, &patch)?,
        PatchKind::Strategic => match (strategic, patch) {
            (Some(keys), Value::Object(patch)) => strategic::apply(current, patch, keys)?,
            (Some(_), other) => return Err(not_an_object(&other)),
            (None, _) => {
                return Err(Error::BadRequest("strategic merge patch is not known for this resource".into()));
            }
        },
    };
    if patched.is_object() {
        Ok(patched)
    } else {
        Err(Error::Unprocessable(format!("the patched document is {}, not an object", name_of(&patched))))
    }
}

fn merge(current: &Value, patch: &Value) -> Result<Value, Error> {
    if !patch.is_object() {
        return Err(not_an_object(patch));
    }
    let mut next = current.clone();
    json_patch::merge(&mut next, patch);
    Ok(next)
}

fn not_an_object(patch: &Value) -> Error {
    Error::BadRequest(format!("error decoding patch: expected an object, found {}", name_of(patch)))
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
pub(crate) mod tests;
