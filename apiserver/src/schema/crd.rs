//! Is this a CustomResourceDefinition that can be served?

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    Structural,
    cause::{Cause, Path},
    structural,
};

/// Everything that is wrong with a CRD object; empty if its resources can be served.
///
/// `names.singular` and `names.listKind` may be missing: they have defaults. Conversion by webhook is
/// refused, because it would never be called.
pub(crate) fn validate_crd(crd: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let root = Path::Root;
    let spec = &crd["spec"];
    let at = Path::Field(&root, "spec");
    if !spec.is_object() {
        return vec![Cause::required(at, "")];
    }
    validate_name(crd, &root, &mut causes);
    validate_group(spec, &at, &mut causes);
    validate_scope(spec, &at, &mut causes);
    validate_names(&spec["names"], &Path::Field(&at, "names"), &mut causes);
    validate_versions(spec, &at, &mut causes);
    validate_conversion(&spec["conversion"], &Path::Field(&at, "conversion"), &mut causes);
    if spec["preserveUnknownFields"] == Value::Bool(true) {
        causes.push(Cause::invalid(
            Path::Field(&at, "preserveUnknownFields"),
            &Value::Bool(true),
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        ));
    }
    causes
}

fn validate_name(crd: &Value, at: &Path<'_>, causes: &mut Vec<Cause>) {
    let metadata = Path::Field(at, "metadata");
    let here = Path::Field(&metadata, "name");
    let name = text(&crd["metadata"]["name"]);
    if name.is_empty() {
        causes.push(Cause::required(here, "name or generateName is required"));
        return;
    }
    let wanted = format!("{}.{}", text(&crd["spec"]["names"]["plural"]), text(&crd["spec"]["group"]));
    if name != wanted {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        causes.push(Cause::invalid(here, &Value::from(name), detail));
    }
}

fn validate_group(spec: &Value, at: &Path<'_>, causes: &mut Vec<Cause>) {
    let here = Path::Field(at, "group");
    match text(&spec["group"]) {
        "" => causes.push(Cause::required(here, "")),
        group if !is_subdomain(group) => causes.push(Cause::invalid(here, &spec["group"], SUBDOMAIN)),
        group if !group.contains('.') => {
            causes.push(Cause::invalid(here, &spec["group"], "should be a domain with at least one dot"));
        }
        _ => {}
    }
}

fn validate_scope(spec: &Value, at: &Path<'_>, causes: &mut Vec<Cause>) {
    let here = Path::Field(at, "scope");
    match text(&spec["scope"]) {
        "" => causes.push(Cause::required(here, "")),
        "Namespaced" | "Cluster" => {}
        _ => {
            let supported = ["Cluster".to_owned(), "Namespaced".to_owned()];
            causes.push(Cause::not_supported(here, &spec["scope"], &supported));
        }
    }
}

fn validate_names(names: &Value, at: &Path<'_>, causes: &mut Vec<Cause>) {
    for name in ["plural", "kind"] {
        if text(&names[name]).is_empty() {
            causes.push(Cause::required(Path::Field(at, name), ""));
        }
    }
    for name in ["plural", "singular"] {
        let value = text(&names[name]);
        if !value.is_empty() && !is_label(value) {
            causes.push(Cause::invalid(Path::Field(at, name), &names[name], LABEL));
        }
    }
    for name in ["kind", "listKind"] {
        let value = text(&names[name]);
        if !value.is_empty() && !is_label(&value.to_lowercase()) {
            let detail = format!("may have mixed case, but should otherwise match: {LABEL}");
            causes.push(Cause::invalid(Path::Field(at, name), &names[name], &detail));
        }
    }
    for name in ["shortNames", "categories"] {
        let here = Path::Field(at, name);
        for (index, value) in names[name].as_array().into_iter().flatten().enumerate() {
            if !is_label(text(value)) {
                causes.push(Cause::invalid(Path::Index(&here, index), value, LABEL));
            }
        }
    }
    let kind = text(&names["kind"]);
    if !kind.is_empty() && kind == text(&names["listKind"]) {
        causes.push(Cause::invalid(
            Path::Field(at, "listKind"),
            &names["listKind"],
            "kind and listKind may not be the same",
        ));
    }
}

fn validate_versions(spec: &Value, at: &Path<'_>, causes: &mut Vec<Cause>) {
    let here = Path::Field(at, "versions");
    let versions = match &spec["versions"] {
        Value::Array(versions) if !versions.is_empty() => versions,
        Value::Array(_) | Value::Null => {
            causes.push(Cause::invalid(here, &Value::Array(Vec::new()), ONE_STORED));
            causes.push(no_stored_version());
            return;
        }
        other => {
            causes.push(Cause::invalid(here, other, "must be a list"));
            return;
        }
    };
    // A schema that all versions share is one for the whole definition, and that is how a real server names it.
    let shared = &versions[0]["schema"]["openAPIV3Schema"];
    let is_shared =
        shared.is_object() && versions.iter().all(|version| version["schema"]["openAPIV3Schema"] == *shared);
    if is_shared {
        let schema_at = Path::Field(at, "validation");
        validate_schema(shared, &Path::Field(&schema_at, "openAPIV3Schema"), causes);
    }
    let first = text(&versions[0]["name"]);
    if !is_label(first) {
        causes.push(Cause::invalid(Path::Field(at, "version"), &Value::from(first), LABEL));
    }
    let mut names = BTreeSet::new();
    for (index, version) in versions.iter().enumerate() {
        let at = Path::Index(&here, index);
        let name = text(&version["name"]);
        names.insert(name);
        if !is_label(name) {
            causes.push(Cause::invalid(Path::Field(&at, "name"), &Value::from(name), LABEL));
        }
        let schema_at = Path::Field(&at, "schema");
        let schema_at = Path::Field(&schema_at, "openAPIV3Schema");
        match &version["schema"]["openAPIV3Schema"] {
            Value::Null => causes.push(Cause::required(schema_at, "")),
            schema if !is_shared => validate_schema(schema, &schema_at, causes),
            _ => {}
        }
        validate_subresources(&version["subresources"], &Path::Field(&at, "subresources"), causes);
        validate_columns(&version["additionalPrinterColumns"], &at, causes);
    }
    if names.len() < versions.len() {
        causes.push(Cause::invalid(here, &spec["versions"], "must contain unique version names"));
    }
    let stored = versions.iter().filter(|version| version["storage"] == Value::Bool(true)).count();
    if stored != 1 {
        causes.push(Cause::invalid(here, &spec["versions"], ONE_STORED));
    }
    if stored == 0 {
        causes.push(no_stored_version());
    }
}

const ONE_STORED: &str = "must have exactly one version marked as storage version";

fn no_stored_version() -> Cause {
    let status = Path::Field(&Path::Root, "status");
    Cause::invalid(
        Path::Field(&status, "storedVersions"),
        &Value::Null,
        "must have at least one stored version",
    )
}

fn validate_schema(schema: &Value, at: &Path<'_>, causes: &mut Vec<Cause>) {
    let before = causes.len();
    structural::check(schema, at, causes);
    if causes.len() > before {
        return;
    }
    if let Err(error) = Structural::parse(schema) {
        causes.push(Cause::invalid(at, &Value::from(""), &error.to_string()));
        return;
    }
    structural::check_defaults(schema, at, causes);
}

fn validate_subresources(subresources: &Value, at: &Path<'_>, causes: &mut Vec<Cause>) {
    let Value::Object(scale) = &subresources["scale"] else { return };
    let at = Path::Field(at, "scale");
    for (name, required, roots) in [
        ("specReplicasPath", true, &[".spec."][..]),
        ("statusReplicasPath", true, &[".status."][..]),
        ("labelSelectorPath", false, &[".spec.", ".status."][..]),
    ] {
        let here = Path::Field(&at, name);
        match scale.get(name).map_or("", text) {
            "" if required => causes.push(Cause::required(here, "")),
            "" => {}
            path if roots.iter().any(|root| path.starts_with(root)) => {}
            path => {
                let under: Vec<_> = roots.iter().map(|root| root.trim_end_matches('.')).collect();
                let either = if under.len() > 1 { "either " } else { "" };
                let detail = format!("should be a json path under {either}{}", under.join(" or "));
                causes.push(Cause::invalid(here, &Value::from(path), &detail));
            }
        }
    }
}

fn validate_columns(columns: &Value, at: &Path<'_>, causes: &mut Vec<Cause>) {
    const KINDS: &str = "boolean,date,integer,number,string";
    let here = Path::Field(at, "additionalPrinterColumns");
    for (index, column) in columns.as_array().into_iter().flatten().enumerate() {
        let at = Path::Index(&here, index);
        if text(&column["name"]).is_empty() {
            causes.push(Cause::required(Path::Field(&at, "name"), ""));
        }
        let kind = text(&column["type"]);
        let detail = format!("must be one of {KINDS}");
        if kind.is_empty() {
            causes.push(Cause::required(Path::Field(&at, "type"), &detail));
        } else if !KINDS.split(',').any(|known| known == kind) {
            causes.push(Cause::invalid(Path::Field(&at, "type"), &column["type"], &detail));
        }
        let path = text(&column["jsonPath"]);
        if path.is_empty() {
            causes.push(Cause::required(Path::Field(&at, "JSONPath"), ""));
        } else if !path.starts_with('.') {
            let detail = "must be a simple json path starting with .";
            causes.push(Cause::invalid(Path::Field(&at, "JSONPath"), &column["jsonPath"], detail));
        }
    }
}

fn validate_conversion(conversion: &Value, at: &Path<'_>, causes: &mut Vec<Cause>) {
    if conversion.is_null() {
        return;
    }
    let here = Path::Field(at, "strategy");
    match text(&conversion["strategy"]) {
        "None" => {
            for (name, value) in conversion.as_object().into_iter().flatten() {
                if name != "strategy" && !value.is_null() {
                    let detail = "should not be set when strategy is not set to Webhook";
                    causes.push(Cause::forbidden(Path::Field(at, name), detail));
                }
            }
        }
        "" => causes.push(Cause::required(here, "")),
        _ => causes.push(Cause::not_supported(here, &conversion["strategy"], &["None".to_owned()])),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

const LABEL: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
     alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
     validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
     '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('-')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|part| {
            !part.is_empty()
                && !part.starts_with('-')
                && !part.ends_with('-')
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        })
}
