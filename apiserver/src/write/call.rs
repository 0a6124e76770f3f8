//! What every write needs: reading what came, checking what will be, and storing it.

use super::{Call, FieldValidation, Part, Source};
use crate::fields::{self, Managed, Manager, Operation, Versions};
use crate::resource::{self, Behaviour};
use crate::schema::Cause;
use crate::serve::present::with_type;
use crate::status::{self, Failure, cause};
use crate::store::{Change, Clash, Content, Key, Stored, Write};
use crate::{crd, object_meta};
use serde_json::{Value, json};

impl Call<'_> {
    pub(super) fn group(&self) -> &str {
        &self.resource.group
    }

    pub(super) fn plural(&self) -> &str {
        &self.resource.plural
    }

    pub(super) fn key(&self, name: &str) -> Key {
        Key::new(&self.resource.storage, self.namespace, name)
    }

    pub(super) fn not_found(&self) -> Failure {
        Failure::not_found(self.group(), self.plural(), self.name)
    }

    pub(super) fn stale(&self) -> Failure {
        Failure::stale(self.group(), self.plural(), self.name)
    }

    pub(super) fn invalid(&self, name: &str, causes: &[Cause]) -> Failure {
        Failure::invalid(self.group(), &self.resource.kind, name, causes)
    }

    pub(super) fn is_namespace(&self) -> bool {
        self.resource.storage.as_ref() == "/namespaces"
    }

    pub(super) fn is_definition(&self) -> bool {
        self.resource.storage.as_ref() == crd::STORAGE
    }

    /// Nothing new is taken while the definition goes.
    pub(super) fn terminating(&self, name: &str) -> Failure {
        let why = "create not allowed while custom resource definition is terminating";
        Failure::forbidden(self.group(), self.plural(), name, why)
    }

    /// Takes a new custom resource back if its definition began to go in the meantime, since then nobody else
    /// may have seen it.
    pub(super) fn check_definition(&self, made: &Stored) -> Result<(), Failure> {
        if !self.resource.is_custom() {
            return Ok(());
        }
        let present = self.server.find(&self.resource.group, &self.resource.version, &self.resource.plural);
        if present.as_ref().is_some_and(|resource| !resource.is_terminating()) {
            return Ok(());
        }
        // If it is gone already, somebody did see it.
        let _ = self.server.store.commit(&made.key, Some(made.revision), Write::Remove);
        self.server.finish_definition(&crd::definition_key(&self.resource.group, &self.resource.plural));
        Err(match present {
            Some(_) => self.terminating(made.key.name()),
            None => Failure::no_such_resource(),
        })
    }

    /// A stored object in the words of this version.
    pub(super) fn view(&self, stored: &Stored) -> Value {
        let value = stored.to_value();
        match &self.resource.behaviour {
            Behaviour::Builtin(rules) => {
                rules.from_stored.map_or_else(|| value.clone(), |f| f(value.clone()))
            }
            Behaviour::Custom(_) => value,
        }
    }

    /// What is kept of an object in the words of this version.
    pub(super) fn content(&self, object: &Value) -> Content {
        match &self.resource.behaviour {
            Behaviour::Builtin(rules) if rules.to_stored.is_some() => {
                let stored = rules.to_stored.map_or_else(|| object.clone(), |f| f(object.clone()));
                Content::from_value(&stored)
            }
            _ => Content::from_value(object),
        }
    }

    /// Branches of an object that this request cannot change.
    fn ignored(&self) -> &'static [&'static [&'static str]] {
        match self.part {
            Part::Whole if self.resource.status => &[&["status"]],
            Part::Whole => &[],
            Part::Status => &[&["spec"], &["metadata"]],
            Part::Finalize => &[&["status"], &["metadata"]],
        }
    }

    /// Calls `f` with what there is to know about the versions of the kind.
    pub(super) fn with_versions<T>(&self, f: impl FnOnce(&Versions<'_>) -> T) -> T {
        // Between groups nothing is carried over, as with a real server.
        let other = |api_version: &str| {
            let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
            let served = self.server.find(group, version, self.plural());
            served.filter(|_| group == self.group())
        };
        f(&Versions { resource: self.resource, ignored: self.ignored(), other: &other })
    }

    fn updater(&self) -> Option<Manager> {
        let version = resource::api_version(self.group(), &self.resource.version);
        Some(Manager::new(Operation::Update, self.manager.as_deref()?, &version, self.subresource))
    }

    /// Who owns the fields of a new object.
    pub(super) fn first_managers(&self, object: &Value) -> Managed {
        let Some(manager) = self.updater() else { return Managed::default() };
        let mut object = object.clone();
        self.default(&mut object);
        let now = Some(self.server.now().as_second());
        self.with_versions(|versions| {
            fields::updated(versions, (&json!({}), &object), &Managed::default(), &manager, now)
        })
    }

    /// Who owns the fields of an object after an update. `given` is what the update itself says about it.
    pub(super) fn next_managers(
        &self,
        old: &Value,
        new: &Value,
        given: Option<Managed>,
        present: &Managed,
    ) -> Managed {
        let given = given.filter(|_| self.subresource.is_empty());
        let before = given.as_ref().unwrap_or(present);
        // Where nobody has been noted nobody is, until something is applied.
        let Some(manager) = self.updater().filter(|_| !before.is_empty()) else { return before.clone() };
        // Of a scale no time is noted.
        let now = (self.subresource != "scale").then(|| self.server.now().as_second());
        self.with_versions(|versions| fields::updated(versions, (old, new), before, &manager, now))
    }

    /// Type and metadata are what they must be, unknown fields are gone, defaults are there.
    ///
    /// What a patch made of an object is refused in the words of patches.
    pub(super) fn read(&self, mut object: Value, source: Source) -> Result<(Value, Vec<String>), Failure> {
        let patched = source != Source::Body;
        let resource = self.resource;
        if !object.is_object() {
            return Err(Failure::bad_request("the body is not a JSON object"));
        }
        let text = patched.then(|| object.to_string());
        let bad = |why: String| match &text {
            Some(text) => {
                let message = format!("Invalid value: {text:?}: {why}");
                Failure::invalid("", "", "", &[cause("patch", "FieldValueInvalid", message)])
            }
            None => Failure::bad_request(format!(
                "{kind} in version {version:?} cannot be handled as a {kind}: {why}",
                kind = resource.kind,
                version = resource.version,
            )),
        };
        self.check_type(&object, patched, &bad)?;
        let mut unknown = object_meta::normalise(&mut object).map_err(bad)?;
        match &resource.behaviour {
            Behaviour::Builtin(rules) => {
                let given = with_type(&resource.api_version(), &resource.kind, object);
                let mut kept = (rules.decode)(&given).map_err(|e| bad(e.to_string()))?;
                unknown.extend(object_meta::unknown_fields(&given, &kept, ""));
                kept["metadata"] = given["metadata"].clone();
                object = kept;
            }
            Behaviour::Custom(version) => {
                if let Some(schema) = &version.schema {
                    unknown.extend(schema.prune(&mut object));
                    // An apply that leaves nothing of an object leaves null, and is told so.
                    if source != Source::Apply {
                        schema.drop_nulls(&mut object);
                    }
                    schema.default(&mut object);
                }
                if let Some(schema) = &version.storage_schema {
                    schema.prune(&mut object);
                }
            }
        }
        let mut warnings = Vec::new();
        if !unknown.is_empty() && self.validation != FieldValidation::Ignore {
            let texts: Vec<String> = unknown.iter().map(|path| format!("unknown field {path:?}")).collect();
            if self.validation == FieldValidation::Strict {
                return Err(bad(format!("strict decoding error: {}", texts.join(", "))));
            }
            warnings = texts;
        }
        if self.is_definition() {
            warnings.extend(crd::not_enforced(&object));
        }
        if resource.is_custom() || self.is_definition() {
            let bare = object_meta::unqualified_finalizers(&object).into_iter();
            warnings.extend(bare.filter(|(_, name)| *name != crd::FINALIZER).map(|(_, name)| {
                format!(
                    "metadata.finalizers: {name:?}: prefer a domain-qualified finalizer name to avoid accidental \
                     conflicts with other finalizer writers"
                )
            }));
        }
        Ok((object, warnings))
    }

    pub(super) fn check_type(
        &self,
        object: &Value,
        patched: bool,
        bad: &dyn Fn(String) -> Failure,
    ) -> Result<(), Failure> {
        let resource = self.resource;
        let expected = resource.api_version();
        let given = object["apiVersion"].as_str().unwrap_or_default();
        let kind = object["kind"].as_str().unwrap_or_default();
        if resource.is_custom() && kind.is_empty() {
            return Err(Failure::bad_request(format!("Object 'Kind' is missing in '{object}'")));
        }
        if patched && resource.is_custom() {
            for (field, given, expected) in
                [("apiVersion", given, expected.as_str()), ("kind", kind, &resource.kind)]
            {
                if given != expected {
                    let causes =
                        [status::invalid_value(field, &json!(given), &format!("must be {expected}"))];
                    return Err(Failure::invalid(&resource.group, kind, self.name, &causes));
                }
            }
        }
        if patched
            && ((!given.is_empty() && given != expected) || (!kind.is_empty() && kind != resource.kind))
        {
            return Err(bad(format!("{kind} of {given} is not {} of {expected}", resource.kind)));
        }
        if !given.is_empty() && given != expected {
            return Err(Failure::bad_request(format!(
                "the API version in the data ({given}) does not match the expected API version ({expected})"
            )));
        }
        if !kind.is_empty() && kind != resource.kind {
            return Err(Failure::bad_request(format!(
                "{kind} in version {:?} cannot be handled as a {}: kind does not match",
                resource.version, resource.kind
            )));
        }
        Ok(())
    }

    /// Rules of the kind, after those of metadata.
    pub(super) fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<Cause> {
        let mut causes = object_meta::validate(self.resource, object);
        if let Some(old) = old {
            causes.extend(object_meta::validate_update(object, old));
            // The API server checks twice, and tells its causes twice.
            causes.extend(causes.clone());
        }
        match &self.resource.behaviour {
            Behaviour::Builtin(rules) => {
                if !self.is_definition() {
                    causes.extend(object_meta::unqualified_finalizers(object).into_iter().map(
                        |(index, name)| {
                            status::invalid_value(
                                format!("metadata.finalizers[{index}]"),
                                &json!(name),
                                "name is neither a standard finalizer name nor is it fully qualified",
                            )
                        },
                    ));
                }
                causes.extend((rules.validate)(object, old));
            }
            Behaviour::Custom(version) => {
                if let Some(schema) = &version.schema {
                    let typed = with_type(&self.resource.api_version(), &self.resource.kind, object.clone());
                    causes.extend(schema.validate(&typed));
                }
            }
        }
        causes
    }

    pub(super) fn default(&self, object: &mut Value) {
        if let Behaviour::Builtin(rules) = &self.resource.behaviour {
            (rules.default)(object);
        }
    }

    /// The namespace takes new content.
    pub(super) fn check_namespace(&self, name: &str) -> Result<(), Failure> {
        if !self.resource.namespaced {
            return Ok(());
        }
        let Some(namespace) = self.server.store.get(&Key::new("/namespaces", "", self.namespace)) else {
            return Err(Failure::not_found("", "namespaces", self.namespace));
        };
        if object_meta::is_deleting(&namespace.to_value()) {
            return Err(Failure::namespace_terminating(self.group(), self.plural(), name, self.namespace));
        }
        Ok(())
    }

    pub(super) fn commit(&self, key: &Key, expected: Option<u64>, write: Write) -> Result<Change, Clash> {
        let change = self.server.store.commit(key, expected, write)?;
        self.server.after_write(self.resource, &change);
        Ok(change)
    }
}
