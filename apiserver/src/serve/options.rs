//! What a request may ask for besides: of writes in the query, of deletions also in the body.

use super::read::Scope;
use super::request::Query;
use super::{Exchange, negotiate, request};
use crate::status::{Failure, cause, required};
use crate::write::{Call, DeleteOptions, FieldValidation, Part, Propagation};
use http::Method;
use http::header::USER_AGENT;
use serde_json::{Value, json};

impl Exchange<'_> {
    pub(super) fn call<'b>(
        &self,
        scope: &Scope<'b>,
        query: &Query,
        part: Part,
        name: &'b str,
    ) -> Result<Call<'b>, Failure> {
        let kind = match self.head.method {
            Method::POST => "CreateOptions",
            Method::PUT => "UpdateOptions",
            Method::PATCH => "PatchOptions",
            _ => "DeleteOptions",
        };
        let unsupported = |parameter: &str, value: Value, known: &str| {
            let message = format!("Unsupported value: {value}: supported values: {known}");
            Failure::invalid("meta.k8s.io", kind, "", &[cause(parameter, "FieldValueNotSupported", message)])
        };
        let manager = query.get("fieldManager");
        let apply = negotiate::is_apply(self.headers());
        let mut causes = Vec::new();
        if kind == "PatchOptions" && apply && manager.is_empty() {
            causes.push(required("fieldManager", "is required for apply patch"));
        }
        if kind == "PatchOptions" && !apply && query.flag("force").is_some() {
            let message = "Forbidden: may not be specified for non-apply patch";
            causes.push(cause("force", "FieldValueForbidden", message));
        }
        causes.extend(request::unfit_manager(manager));
        if kind != "DeleteOptions" && !causes.is_empty() {
            return Err(Failure::invalid("meta.k8s.io", kind, "", &causes));
        }
        let manager = match manager {
            "" => request::manager_of(self.headers().get(USER_AGENT)),
            given => given.to_owned(),
        };
        let mut dry_run = false;
        for value in query.all("dryRun") {
            if value != "All" {
                return Err(unsupported("dryRun", json!([value]), "\"All\""));
            }
            dry_run = true;
        }
        let validation = match query.get("fieldValidation") {
            "Ignore" => FieldValidation::Ignore,
            "" | "Warn" => FieldValidation::Warn,
            "Strict" => FieldValidation::Strict,
            other => {
                return Err(unsupported(
                    "fieldValidation",
                    json!(other),
                    "\"\", \"Ignore\", \"Strict\", \"Warn\"",
                ));
            }
        };
        Ok(Call {
            server: scope.server,
            resource: scope.resource,
            namespace: scope.namespace,
            name,
            part,
            dry_run,
            validation,
            manager: Some(manager),
            subresource: match part {
                Part::Whole => "",
                Part::Status => "status",
                Part::Finalize => "finalize",
            },
        })
    }

    /// The options of a delete, from the body or the query, and whether it is a dry run.
    pub(super) fn delete_options(&self, query: &Query) -> Result<(DeleteOptions, bool), Failure> {
        let body = if self.body.is_empty() { json!({}) } else { negotiate::body(self.headers(), self.body)? };
        if !body.is_object() {
            return Err(Failure::bad_request("the body is not a JSON object"));
        }
        let policy = match body["propagationPolicy"].as_str() {
            Some(policy) => policy,
            None => query.get("propagationPolicy"),
        };
        let orphan = match query.flag("orphanDependents") {
            None => body["orphanDependents"].as_bool(),
            given => given,
        };
        let invalid = |field: &str, message: String| {
            Failure::invalid(
                "meta.k8s.io",
                "DeleteOptions",
                "",
                &[cause(field, "FieldValueInvalid", message)],
            )
        };
        let unsupported = |field: &str, message: String| {
            Failure::invalid(
                "meta.k8s.io",
                "DeleteOptions",
                "",
                &[cause(field, "FieldValueNotSupported", message)],
            )
        };
        let propagation = match (policy, orphan) {
            ("", None) => None,
            ("", Some(true)) => Some(Propagation::Orphan),
            ("", Some(false)) => Some(Propagation::Background),
            (_, Some(_)) => {
                return Err(invalid(
                    "propagationPolicy",
                    format!(
                        "Invalid value: {policy:?}: orphanDependents and deletionPropagation cannot be both set"
                    ),
                ));
            }
            ("Orphan", _) => Some(Propagation::Orphan),
            ("Foreground", _) => Some(Propagation::Foreground),
            ("Background", _) => Some(Propagation::Background),
            (other, _) => {
                return Err(unsupported(
                    "propagationPolicy",
                    format!(
                        "Unsupported value: {other:?}: supported values: \"Foreground\", \"Background\", \
                         \"Orphan\", \"nil\""
                    ),
                ));
            }
        };
        let text = |value: &Value| value.as_str().filter(|t| !t.is_empty()).map(ToOwned::to_owned);
        let preconditions = &body["preconditions"];
        let dry_run = match body["dryRun"].as_array().map(Vec::as_slice) {
            None | Some([]) => false,
            Some(values) if values.iter().all(|v| v == "All") => true,
            Some(_) => {
                let message = format!("Unsupported value: {}: supported values: \"All\"", body["dryRun"]);
                return Err(unsupported("dryRun", message));
            }
        };
        let options = DeleteOptions {
            uid: text(&preconditions["uid"]),
            revision: text(&preconditions["resourceVersion"]),
            propagation,
            told_not_to_orphan: orphan == Some(false),
        };
        Ok((options, dry_run))
    }
}
