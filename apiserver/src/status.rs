//! `Status`: how every refusal is told to a client.

use crate::schema::Cause;
use serde_json::{Map, Value, json};

/// A refusal, as it will be sent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Failure {
    /// HTTP status code.
    pub(crate) code: u16,
    /// Machine-readable reason; empty if the API has none for it.
    pub(crate) reason: &'static str,
    /// What a person reads.
    pub(crate) message: String,
    /// `details`, if there are any.
    pub(crate) details: Option<Value>,
    /// Seconds after which a retry makes sense.
    pub(crate) retry_after: Option<u32>,
    /// Token with which an expired paged list may go on, inconsistently.
    pub(crate) continue_token: Option<String>,
}

/// `plural` or `plural.group`: how messages name a resource.
pub(crate) fn qualified(group: &str, plural: &str) -> String {
    if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") }
}

/// One cause with a reason of the field-error vocabulary.
pub(crate) fn cause(field: impl Into<String>, reason: &'static str, message: impl Into<String>) -> Cause {
    Cause { field: field.into(), reason, message: message.into() }
}

/// A required field is missing.
pub(crate) fn required(field: impl Into<String>, hint: &str) -> Cause {
    let message =
        if hint.is_empty() { "Required value".to_owned() } else { format!("Required value: {hint}") };
    cause(field, "FieldValueRequired", message)
}

/// A field has a value that cannot be.
pub(crate) fn invalid_value(field: impl Into<String>, value: &Value, hint: &str) -> Cause {
    cause(field, "FieldValueInvalid", format!("Invalid value: {value}: {hint}"))
}

impl Failure {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None, retry_after: None, continue_token: None }
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let mut details = Map::new();
        if !name.is_empty() {
            details.insert("name".into(), name.into());
        }
        if !group.is_empty() {
            details.insert("group".into(), group.into());
        }
        if !kind.is_empty() {
            details.insert("kind".into(), kind.into());
        }
        self.details = Some(Value::Object(details));
        self
    }

    fn with_causes(mut self, causes: &[Cause]) -> Self {
        if !causes.is_empty() {
            let list: Vec<Value> = causes
                .iter()
                .map(|c| {
                    let mut one = Map::new();
                    one.insert("reason".into(), json!(c.reason));
                    one.insert("message".into(), json!(c.message));
                    if !c.field.is_empty() {
                        one.insert("field".into(), json!(c.field));
                    }
                    Value::Object(one)
                })
                .collect();
            let details = self.details.get_or_insert_with(|| json!({}));
            details["causes"] = Value::Array(list);
        }
        self
    }

    pub(crate) fn not_found(group: &str, plural: &str, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} {name:?} not found", qualified(group, plural)))
            .about(group, plural, name)
    }

    /// The path names nothing this server has.
    pub(crate) fn no_such_resource() -> Self {
        let mut failure = Self::new(404, "NotFound", "the server could not find the requested resource");
        failure.details = Some(json!({}));
        failure
    }

    pub(crate) fn already_exists(group: &str, plural: &str, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{} {name:?} already exists", qualified(group, plural)))
            .about(group, plural, name)
    }

    pub(crate) fn conflict(group: &str, plural: &str, name: &str, why: &str) -> Self {
        Self::new(
            409,
            "Conflict",
            format!("Operation cannot be fulfilled on {} {name:?}: {why}", qualified(group, plural)),
        )
        .about(group, plural, name)
    }

    /// The write was made from an older state than the present one.
    pub(crate) fn stale(group: &str, plural: &str, name: &str) -> Self {
        Self::conflict(
            group,
            plural,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// Others own fields that were applied.
    pub(crate) fn apply_conflict(causes: &[Cause], message: String) -> Self {
        Self::new(409, "Conflict", message).with_causes(causes)
    }

    pub(crate) fn forbidden(group: &str, plural: &str, name: &str, why: &str) -> Self {
        Self::new(403, "Forbidden", format!("{} {name:?} is forbidden: {why}", qualified(group, plural)))
            .about(group, plural, name)
    }

    /// New content for a namespace that is going away.
    pub(crate) fn namespace_terminating(group: &str, plural: &str, name: &str, namespace: &str) -> Self {
        Self::forbidden(
            group,
            plural,
            name,
            &format!("unable to create new content in namespace {namespace} because it is being terminated"),
        )
        .with_causes(&[cause(
            "metadata.namespace",
            "NamespaceTerminating",
            format!("namespace {namespace} is being terminated"),
        )])
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(crate) fn invalid(group: &str, kind: &str, name: &str, causes: &[Cause]) -> Self {
        let one = |c: &Cause| {
            if c.field.is_empty() { c.message.clone() } else { format!("{}: {}", c.field, c.message) }
        };
        // A check that runs twice is told once.
        let mut texts: Vec<String> = Vec::new();
        for text in causes.iter().map(one) {
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let text = match texts.as_slice() {
            [only] => only.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        Self::new(422, "Invalid", format!("{} {name:?} is invalid: {text}", qualified(group, kind)))
            .about(group, kind, name)
            .with_causes(causes)
    }

    /// A patch that could be read but not carried out.
    pub(crate) fn unprocessable(message: impl Into<String>) -> Self {
        let mut failure = Self::new(422, "Invalid", message);
        failure.details = Some(json!({}));
        failure
    }

    pub(crate) fn method_not_allowed() -> Self {
        let mut failure = Self::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        );
        failure.details = Some(json!({}));
        failure
    }

    pub(crate) fn not_acceptable() -> Self {
        let mut failure = Self::new(
            406,
            "NotAcceptable",
            "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml",
        );
        failure.details = Some(json!({}));
        failure
    }

    pub(crate) fn unsupported_media_type(accepted: &str) -> Self {
        Self::new(
            415,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: {accepted}"
            ),
        )
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        Self::new(413, "RequestEntityTooLarge", format!("Request entity too large: limit is {limit}"))
    }

    /// The history that the request needs is no longer kept.
    pub(crate) fn expired(asked: u64, oldest: u64) -> Self {
        Self::new(410, "Expired", format!("too old resource version: {asked} ({oldest})"))
    }

    /// A paged list whose revision is no longer kept; `token` continues at the present state.
    pub(crate) fn continue_expired(token: String) -> Self {
        let mut failure = Self::new(
            410,
            "Expired",
            "The provided continue parameter is too old to display a consistent list result. You can start a \
             new list without the continue parameter, or use the continue token in this response to retrieve \
             the remainder of the results. Continuing with the provided token results in an inconsistent list \
             - objects that were created, modified, or deleted between the time the first chunk was returned \
             and now may show up in the list.",
        );
        failure.continue_token = Some(token);
        failure
    }

    /// A revision that has not happened yet.
    pub(crate) fn too_large_revision(asked: u64, current: u64) -> Self {
        let mut failure = Self::new(
            504,
            "Timeout",
            format!("Timeout: Too large resource version: {asked}, current: {current}"),
        )
        .with_causes(&[cause("", "ResourceVersionTooLarge", "Too large resource version")]);
        failure.retry_after = Some(1);
        failure
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// Something the server can not do although the request was well formed.
    pub(crate) fn internal(message: impl std::fmt::Display) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {message}"))
    }

    /// The disk does not take what was written.
    pub(crate) fn not_kept(why: &str, is_full: bool) -> Self {
        let (code, reason) = if is_full { (507, "InsufficientStorage") } else { (500, "InternalError") };
        Self::new(code, reason, format!("Internal error occurred: the change cannot be kept: {why}"))
    }

    /// An error for which the API has no reason.
    pub(crate) fn unknown(message: impl Into<String>) -> Self {
        Self::new(500, "", message)
    }

    /// A timeout to be tried again.
    pub(crate) fn server_timeout(group: &str, plural: &str, verb: &str) -> Self {
        let mut failure = Self::new(
            500,
            "ServerTimeout",
            format!(
                "The {verb} operation against {} could not be completed at this time, please try again.",
                qualified(group, plural)
            ),
        )
        .about(group, plural, "");
        failure.retry_after = Some(0);
        failure
    }

    /// The `Status` object.
    pub(crate) fn to_value(&self) -> Value {
        let mut metadata = Map::new();
        if let Some(token) = &self.continue_token {
            metadata.insert("continue".into(), json!(token));
        }
        let mut out = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": metadata,
            "status": "Failure",
            "message": self.message,
            "code": self.code,
        });
        if !self.reason.is_empty() {
            out["reason"] = json!(self.reason);
        }
        if let Some(details) = &self.details {
            out["details"] = details.clone();
        }
        if let Some(seconds) = self.retry_after.filter(|s| *s > 0) {
            let details = &mut out["details"];
            if details.is_null() {
                *details = json!({});
            }
            details["retryAfterSeconds"] = json!(seconds);
        }
        out
    }
}

/// The `Status` that tells of a completed deletion.
pub(crate) fn deleted(group: &str, plural: &str, name: &str, uid: &str) -> Value {
    let mut details = Map::new();
    details.insert("name".into(), json!(name));
    if !group.is_empty() {
        details.insert("group".into(), json!(group));
    }
    details.insert("kind".into(), json!(plural));
    details.insert("uid".into(), json!(uid));
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}
