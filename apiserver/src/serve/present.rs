//! How objects are shown: as they are, as metadata alone, or as rows of a table.

use super::table;
use crate::resource::{Behaviour, Resource};
use crate::status::Failure;
use crate::store::Content;
use serde_json::{Value, json};
use std::sync::Arc;

/// The shape a client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Plain,
    /// `PartialObjectMetadata` and its list.
    Metadata,
    Table(table::Include),
}

/// Shows objects of one resource in one form.
pub(crate) struct Presenter {
    resource: Arc<Resource>,
    form: Form,
    now: i64,
    /// Column definitions are sent once per watch.
    columns_sent: bool,
}

const PARTIAL_VERSION: &str = "meta.k8s.io/v1";

impl Presenter {
    pub(crate) fn new(resource: Arc<Resource>, form: Form, now: i64) -> Self {
        Self { resource, form, now, columns_sent: false }
    }

    /// Ages are told as of this second from now on.
    pub(crate) fn set_now(&mut self, now: i64) {
        self.now = now;
    }

    fn conversion(&self) -> Option<fn(Value) -> Value> {
        match &self.resource.behaviour {
            Behaviour::Builtin(rules) => rules.from_stored,
            Behaviour::Custom(_) => None,
        }
    }

    /// The whole object, in this version, as a value.
    pub(crate) fn value(&self, content: &Content, revision: Option<u64>) -> Value {
        let mut value = content.to_whole(revision);
        if let Some(convert) = self.conversion() {
            value = convert(value);
        }
        with_type(&self.resource.api_version(), &self.resource.kind, value)
    }

    fn plain(&self, out: &mut Vec<u8>, content: &Content, revision: Option<u64>, typed: bool) {
        match self.conversion() {
            None if typed => content.write(out, self.resource.prefix(), revision),
            None => content.write(out, "{", revision),
            Some(_) => out.extend_from_slice(self.value(content, revision).to_string().as_bytes()),
        }
    }

    fn partial(&self, content: &Content, revision: Option<u64>) -> Value {
        let whole = content.to_whole(revision);
        json!({"kind": "PartialObjectMetadata", "apiVersion": PARTIAL_VERSION, "metadata": whole["metadata"]})
    }

    fn row(&self, include: table::Include, content: &Content, revision: Option<u64>) -> Value {
        table::row(&self.resource, include, self.value(content, revision), self.now)
    }

    /// One object.
    pub(crate) fn object(&self, content: &Content, revision: Option<u64>) -> Vec<u8> {
        let mut out = Vec::new();
        match self.form {
            Form::Plain => self.plain(&mut out, content, revision, true),
            Form::Metadata => out = self.partial(content, revision).to_string().into_bytes(),
            Form::Table(include) => {
                let version = revision.map(|r| r.to_string()).unwrap_or_default();
                let rows = vec![self.row(include, content, revision)];
                out = table::table(Some(&self.resource), json!({"resourceVersion": version}), rows)
                    .to_string()
                    .into_bytes();
            }
        }
        out
    }

    /// A list. Items of built-in kinds come without their type, as the API has it.
    pub(crate) fn list<'a>(
        &self,
        metadata: Value,
        items: impl Iterator<Item = (&'a Content, u64)>,
    ) -> Vec<u8> {
        match self.form {
            Form::Plain => {
                let mut out =
                    crate::store::type_prefix(&self.resource.api_version(), &self.resource.list_kind)
                        .into_bytes();
                out.extend_from_slice(format!("\"metadata\":{metadata},\"items\":[").as_bytes());
                for (index, (content, revision)) in items.enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    self.plain(&mut out, content, Some(revision), self.resource.is_custom());
                }
                out.extend_from_slice(b"]}");
                out
            }
            Form::Metadata => {
                let items: Vec<Value> =
                    items.map(|(content, revision)| self.partial(content, Some(revision))).collect();
                json!({
                    "kind": "PartialObjectMetadataList",
                    "apiVersion": PARTIAL_VERSION,
                    "metadata": metadata,
                    "items": items,
                })
                .to_string()
                .into_bytes()
            }
            Form::Table(include) => {
                let rows =
                    items.map(|(content, revision)| self.row(include, content, Some(revision))).collect();
                table::table(Some(&self.resource), metadata, rows).to_string().into_bytes()
            }
        }
    }

    /// One event of a watch, as a line.
    pub(crate) fn event(&mut self, out: &mut Vec<u8>, kind: &str, content: &Content, revision: u64) {
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(b"\",\"object\":");
        match self.form {
            Form::Plain => self.plain(out, content, Some(revision), true),
            Form::Metadata => {
                out.extend_from_slice(self.partial(content, Some(revision)).to_string().as_bytes())
            }
            Form::Table(include) => {
                let rows = vec![self.row(include, content, Some(revision))];
                let columns = (!std::mem::replace(&mut self.columns_sent, true)).then_some(&*self.resource);
                let table = table::table(columns, json!({"resourceVersion": revision.to_string()}), rows);
                out.extend_from_slice(table.to_string().as_bytes());
            }
        }
        out.extend_from_slice(b"}\n");
    }

    /// An event that tells how far the watch has come.
    pub(crate) fn bookmark(&self, out: &mut Vec<u8>, object: &Value) {
        let shown = match self.form {
            Form::Plain => object.clone(),
            Form::Metadata => json!({
                "kind": "PartialObjectMetadata",
                "apiVersion": PARTIAL_VERSION,
                "metadata": object["metadata"],
            }),
            Form::Table(include) => {
                let row = table::bookmark_row(include, object);
                table::table(
                    None,
                    json!({"resourceVersion": object["metadata"]["resourceVersion"]}),
                    vec![row],
                )
            }
        };
        out.extend_from_slice(json!({"type": "BOOKMARK", "object": shown}).to_string().as_bytes());
        out.push(b'\n');
    }

    /// The event that ends a watch for a reason.
    pub(crate) fn error(&self, out: &mut Vec<u8>, failure: &Failure) {
        out.extend_from_slice(json!({"type": "ERROR", "object": failure.to_value()}).to_string().as_bytes());
        out.push(b'\n');
    }
}

/// Puts the type in front.
pub(crate) fn with_type(api_version: &str, kind: &str, value: Value) -> Value {
    let mut typed = json!({"kind": kind, "apiVersion": api_version});
    if let (Some(typed), Value::Object(fields)) = (typed.as_object_mut(), value) {
        typed.extend(fields.into_iter().filter(|(key, _)| key != "kind" && key != "apiVersion"));
    }
    typed
}
