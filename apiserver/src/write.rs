//! Writing: create, update, patch and delete, each as "read, compute, compare and set".

pub(crate) mod apply;
mod call;
mod delete;
pub(crate) mod scale;

use crate::fields::Managed;
use crate::resource::{Behaviour, Resource};
use crate::serve::present::with_type;
use crate::status::{Failure, cause};
use crate::store::{Change, Clash, Content, Stored, Write};
use crate::{Inner, crd, object_meta, patch};
use serde_json::{Value, json};
use std::sync::Arc;

pub(crate) use delete::{DeleteOptions, Propagation, delete};

/// How often a write that names no revision is tried against others.
const ATTEMPTS: usize = 16;

/// What is done with fields that the schema does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// Where an object comes from that is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Body,
    /// What a patch made of the present object.
    Patch,
    /// What an apply made of it.
    Apply,
}

/// A part of an object with rules of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Whole,
    Status,
    /// `spec.finalizers` of a namespace.
    Finalize,
}

/// One write.
#[derive(Clone)]
pub(crate) struct Call<'a> {
    pub(crate) server: &'a Inner,
    pub(crate) resource: &'a Arc<Resource>,
    /// Empty for cluster-wide kinds.
    pub(crate) namespace: &'a str,
    /// Empty for a create.
    pub(crate) name: &'a str,
    pub(crate) part: Part,
    pub(crate) dry_run: bool,
    pub(crate) validation: FieldValidation,
    /// Who is to be noted as the owner of what is written; nobody, if the server writes for itself.
    pub(crate) manager: Option<String>,
    /// As managers name it.
    pub(crate) subresource: &'static str,
}

/// What a write answers with.
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) body: Body,
    pub(crate) warnings: Vec<String>,
}

/// The body of an answer.
pub(crate) enum Body {
    Object {
        content: Content,
        revision: Option<u64>,
    },
    /// A `Status`, or the answer to a review.
    Value(Value),
}

impl Answer {
    fn object(code: u16, content: Content, revision: Option<u64>) -> Self {
        Self { code, body: Body::Object { content, revision }, warnings: Vec::new() }
    }

    fn stored(code: u16, stored: &Stored) -> Self {
        Self::object(code, stored.content.clone(), Some(stored.revision))
    }
}

/// POST.
pub(crate) fn create(call: &Call<'_>, body: Value) -> Result<Answer, Failure> {
    if call.resource.is_terminating() {
        return Err(call.terminating(object_meta::text(&body, "name")));
    }
    let (mut body, warnings) = call.read(body, Source::Body)?;
    object_meta::take_managed(&mut body);
    let managed = call.first_managers(&body);
    create_read(call, body, warnings, managed)
}

/// Creates what has been read.
fn create_read(
    call: &Call<'_>,
    body: Value,
    warnings: Vec<String>,
    managed: Managed,
) -> Result<Answer, Failure> {
    let given_name = !object_meta::text(&body, "name").is_empty();
    if !call.name.is_empty() && object_meta::text(&body, "name") != call.name {
        return Err(Failure::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            object_meta::text(&body, "name"),
            call.name
        )));
    }
    call.check_namespace(object_meta::text(&body, "name"))?;
    for _ in 0..ATTEMPTS {
        let object = born(call, body.clone())?;
        let name = object_meta::text(&object, "name").to_owned();
        let content = call.content(&object).managed_by(managed.clone());
        if call.dry_run {
            if call.server.store.get(&call.key(&name)).is_some() {
                return Err(already_exists(call, &name));
            }
            let mut answer = Answer::object(201, content, None);
            answer.warnings = warnings;
            return Ok(answer);
        }
        match call.commit(&call.key(&name), None, Write::Put(content)) {
            Ok(change) => {
                let Some(stored) = change.after else { break };
                call.check_definition(&stored)?;
                let mut answer = Answer::stored(201, &stored);
                answer.warnings = warnings;
                return Ok(answer);
            }
            Err(Clash) if given_name => return Err(already_exists(call, &name)),
            Err(Clash) => {}
        }
    }
    Err(Failure::server_timeout(call.group(), call.plural(), "create"))
}

fn already_exists(call: &Call<'_>, name: &str) -> Failure {
    let mut failure = Failure::already_exists(call.group(), call.plural(), name);
    let present = call.server.store.get(&call.key(name));
    if present.is_some_and(|stored| object_meta::is_deleting(&stored.to_value())) {
        failure.message = format!("object is being deleted: {}", failure.message);
    }
    failure
}

/// A new object with everything that the server gives to it.
fn born(call: &Call<'_>, mut object: Value) -> Result<Value, Failure> {
    let birth = call.server.birth(call.namespace);
    object_meta::prepare_create(call.resource, &mut object, &birth)?;
    if call.resource.status
        && let Some(fields) = object.as_object_mut()
    {
        fields.remove("status");
    }
    call.default(&mut object);
    if let Behaviour::Builtin(rules) = &call.resource.behaviour {
        (rules.on_create)(&mut object);
    }
    let causes = call.validate(&object, None);
    if !causes.is_empty() {
        let name = object_meta::text(&object, "name");
        return Err(call.invalid(name, &causes));
    }
    if call.is_definition() {
        crd::settle(&mut object, &call.server.store, &object_meta::timestamp(birth.now));
    }
    Ok(object)
}

/// PUT.
pub(crate) fn update(call: &Call<'_>, body: Value) -> Result<Answer, Failure> {
    let (body, warnings) = call.read(body, Source::Body)?;
    let asked = object_meta::text(&body, "resourceVersion").to_owned();
    for _ in 0..ATTEMPTS {
        let Some(current) = call.server.store.get(&call.key(call.name)) else {
            if call.resource.create_on_update && call.part == Part::Whole && asked.is_empty() {
                return create(call, body);
            }
            return Err(call.not_found());
        };
        check_revision(call, &asked, &current)?;
        if asked.is_empty() && !call.resource.unconditional_update {
            let message = "Invalid value: 0: must be specified for an update";
            let causes = [cause("metadata.resourceVersion", "FieldValueInvalid", message)];
            return Err(Failure::invalid(call.group(), call.plural(), call.name, &causes));
        }
        check_uid(call, &body, &current)?;
        match replace(call, &current, body.clone())? {
            Some(mut answer) => {
                answer.warnings = warnings;
                return Ok(answer);
            }
            None if !asked.is_empty() => return Err(call.stale()),
            None => {}
        }
    }
    Err(call.stale())
}

/// PATCH.
pub(crate) fn patch(call: &Call<'_>, kind: patch::PatchKind, body: &[u8]) -> Result<Answer, Failure> {
    let strategic = match kind {
        patch::PatchKind::Strategic => Some(
            (!call.resource.is_custom())
                .then(|| patch::merge_keys(call.group(), &call.resource.kind))
                .flatten()
                .ok_or_else(|| {
                    Failure::unsupported_media_type(
                        "application/json-patch+json, application/merge-patch+json",
                    )
                })?,
        ),
        _ => None,
    };
    for _ in 0..ATTEMPTS {
        let Some(current) = call.server.store.get(&call.key(call.name)) else { return Err(call.not_found()) };
        let mut old = with_type(&call.resource.api_version(), &call.resource.kind, call.view(&current));
        // Whoever does not speak of managers does not change them.
        if contains(body, b"managedFields") {
            old["metadata"]["managedFields"] = current.content.managed().to_value();
        }
        let patched = patch::apply(kind, &old, body, strategic).map_err(|why| match why {
            patch::Error::BadRequest(text) => Failure::bad_request(text),
            patch::Error::Unprocessable(text) => Failure::unprocessable(text),
        })?;
        let (new, warnings) = call.read(patched, Source::Patch)?;
        let asked = object_meta::text(&new, "resourceVersion").to_owned();
        check_revision(call, &asked, &current)?;
        if let Some(mut answer) = replace(call, &current, new)? {
            answer.warnings = warnings;
            return Ok(answer);
        }
    }
    Err(call.stale())
}

fn check_revision(call: &Call<'_>, asked: &str, current: &Stored) -> Result<(), Failure> {
    if asked.is_empty() || asked == current.revision.to_string() {
        return Ok(());
    }
    if asked.parse::<u64>().is_err() {
        return Err(Failure::unknown(format!("strconv.ParseUint: parsing {asked:?}: invalid syntax")));
    }
    Err(call.stale())
}

fn contains(body: &[u8], word: &[u8]) -> bool {
    body.windows(word.len()).any(|window| window == word)
}

/// A change that the server makes by itself, against whoever else writes.
pub(crate) fn edit(call: &Call<'_>, change: impl Fn(&mut Value)) -> Result<(), Failure> {
    for _ in 0..ATTEMPTS {
        let Some(current) = call.server.store.get(&call.key(call.name)) else { return Err(call.not_found()) };
        let mut object = with_type(&call.resource.api_version(), &call.resource.kind, call.view(&current));
        change(&mut object);
        normal(&mut object);
        if replace(call, &current, object)?.is_some() {
            return Ok(());
        }
    }
    Err(call.stale())
}

/// Leaves out what is empty in `metadata`, as reading does.
fn normal(object: &mut Value) {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.retain(|_, value| value.as_array().is_none_or(|list| !list.is_empty()));
    }
}

/// Puts `new` in the place of `current`. `None`: somebody else was faster.
fn replace(call: &Call<'_>, current: &Stored, mut new: Value) -> Result<Option<Answer>, Failure> {
    let given = object_meta::take_managed(&mut new);
    let old = call.view(current);
    call.default(&mut new);
    let managed = call.next_managers(&old, &new, given, current.content.managed());
    put(call, current, &old, new, managed)
}

/// The same with managers that are known.
fn put(
    call: &Call<'_>,
    current: &Stored,
    old: &Value,
    new: Value,
    managed: Managed,
) -> Result<Option<Answer>, Failure> {
    let mut object = merge_part(call, new, old);
    object_meta::prepare_update(call.resource, &mut object, old, call.namespace, call.name)?;
    call.default(&mut object);
    object_meta::count_generation(call.resource, &mut object, old);
    let causes = call.validate(&object, Some(old));
    if !causes.is_empty() {
        return Err(call.invalid(call.name, &causes));
    }
    if call.is_definition() {
        crd::settle(&mut object, &call.server.store, &object_meta::timestamp(call.server.now()));
    }
    // Times alone are no change.
    if object_meta::is_same(&object, old) && managed == *current.content.managed() {
        return Ok(Some(Answer::stored(200, current)));
    }
    let content = call.content(&object).managed_by(managed);
    if call.dry_run {
        return Ok(Some(Answer::object(200, content, Some(current.revision))));
    }
    let gone = object_meta::is_deleting(&object) && !is_held(call, &object);
    let write = if gone { Write::Remove } else { Write::Put(content.clone()) };
    match call.commit(&current.key, Some(current.revision), write) {
        Ok(Change { after: Some(stored), .. }) => Ok(Some(Answer::stored(200, &stored))),
        Ok(_) => Ok(Some(Answer::object(200, content, Some(current.revision)))),
        Err(Clash) => Ok(None),
    }
}

fn check_uid(call: &Call<'_>, new: &Value, current: &Stored) -> Result<(), Failure> {
    let given = object_meta::text(new, "uid");
    if given.is_empty() {
        return Ok(());
    }
    let old = current.to_value();
    let present = object_meta::text(&old, "uid");
    if given == present {
        return Ok(());
    }
    Err(Failure::conflict(
        call.group(),
        call.plural(),
        call.name,
        &format!("Precondition failed: UID in precondition: {given}, UID in object meta: {present}"),
    ))
}

/// Takes from the new object only what this part of it may set.
fn merge_part(call: &Call<'_>, mut new: Value, old: &Value) -> Value {
    let set = |object: &mut Value, field: &str, value: Option<&Value>| {
        if let Some(fields) = object.as_object_mut() {
            match value {
                Some(value) => fields.insert(field.into(), value.clone()),
                None => fields.remove(field),
            };
        }
    };
    match call.part {
        Part::Whole => {
            if call.resource.status {
                set(&mut new, "status", old.get("status"));
            }
            if call.is_namespace() {
                // Only `finalize` changes its finalizers.
                if !new["spec"].is_object() {
                    new["spec"] = json!({});
                }
                set(&mut new["spec"], "finalizers", old["spec"].get("finalizers"));
            }
            new
        }
        Part::Status => {
            let mut object = old.clone();
            set(&mut object, "status", new.get("status"));
            object
        }
        Part::Finalize => {
            let mut object = old.clone();
            object["spec"]["finalizers"] = new["spec"]["finalizers"].clone();
            if object["spec"]["finalizers"].as_array().is_none_or(Vec::is_empty) {
                object["spec"] = json!({});
            }
            object
        }
    }
}

/// Something still waits for the object: it is not removed yet.
fn is_held(call: &Call<'_>, object: &Value) -> bool {
    let of_namespace =
        call.is_namespace() && object["spec"]["finalizers"].as_array().is_some_and(|f| !f.is_empty());
    of_namespace || !object_meta::finalizers(object).is_empty()
}
