//! `metadata.managedFields` as it is kept: a few words per manager and object.
//!
//! The sets themselves are texts that are shared by all objects (of all servers in the process) which have the
//! same, and objects of one kind that one program wrote mostly have.

use super::set::{Set, Unreadable};
use crate::object_meta::timestamp;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::sync::{Arc, LazyLock, Weak};

/// By what kind of request a manager came to own fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Operation {
    Apply,
    Update,
}

impl Operation {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// Who owns fields.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Manager {
    pub(crate) name: Arc<str>,
    pub(crate) operation: Operation,
    pub(crate) api_version: Arc<str>,
    pub(crate) subresource: Arc<str>,
}

impl Manager {
    /// Whether this is the one who now writes. Whoever applies is the same in every version.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.operation == other.operation
            && self.name == other.name
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// How refusals name it.
    pub(super) fn shown(&self) -> String {
        let mut text = Value::from(&*self.name).to_string();
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {}", Value::from(&*self.subresource)));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

/// The text of a set, known to all who have the same.
#[derive(Debug)]
struct Text {
    digest: u64,
    text: Box<str>,
}

type Texts = HashMap<u64, Weak<Text>>;

static TEXTS: LazyLock<Mutex<Texts>> = LazyLock::new(Mutex::default);

impl Text {
    fn shared(text: &str) -> Arc<Self> {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let digest = hasher.finish();
        let mut texts = TEXTS.lock();
        match texts.get(&digest).and_then(Weak::upgrade) {
            Some(known) if &*known.text == text => {
                // If it was the last one, its end has to find the lock free.
                drop(texts);
                known
            }
            // Two texts with one digest: this one is nobody else's.
            Some(other) => {
                drop(texts);
                drop(other);
                Arc::new(Self { digest, text: text.into() })
            }
            None => {
                let new = Arc::new(Self { digest, text: text.into() });
                texts.insert(digest, Arc::downgrade(&new));
                new
            }
        }
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        let mut texts = TEXTS.lock();
        if texts.get(&self.digest).is_some_and(|weak| weak.strong_count() == 0) {
            texts.remove(&self.digest);
        }
    }
}

/// One entry of `managedFields`.
#[derive(Debug, Clone)]
struct Entry {
    manager: Manager,
    /// Unix seconds.
    time: Option<i64>,
    fields: Arc<Text>,
}

/// The managers of an object.
#[derive(Debug, Clone, Default)]
pub(crate) struct Managed(Option<Arc<[Entry]>>);

/// One manager and what it owns, to be worked with.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Owner {
    pub(super) manager: Manager,
    pub(super) time: Option<i64>,
    pub(super) set: Set,
}

/// Equal but for the times.
impl PartialEq for Managed {
    fn eq(&self, other: &Self) -> bool {
        let same = |(a, b): (&Entry, &Entry)| a.manager == b.manager && a.fields.text == b.fields.text;
        self.entries().len() == other.entries().len() && self.entries().iter().zip(other.entries()).all(same)
    }
}

fn shared(text: &str) -> Arc<str> {
    /// What nearly every entry has.
    static COMMON: LazyLock<Vec<Arc<str>>> = LazyLock::new(|| {
        ["", "status", "v1", "argoproj.io/v1alpha1", "unknown", "apps/v1"].map(Arc::from).to_vec()
    });
    COMMON.iter().find(|known| ***known == *text).cloned().unwrap_or_else(|| text.into())
}

impl Manager {
    pub(crate) fn new(operation: Operation, name: &str, api_version: &str, subresource: &str) -> Self {
        let name = if name.is_empty() { "unknown" } else { name };
        Self {
            operation,
            name: shared(name),
            api_version: shared(api_version),
            subresource: shared(subresource),
        }
    }
}

impl Managed {
    fn entries(&self) -> &[Entry] {
        self.0.as_deref().unwrap_or_default()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries().is_empty()
    }

    /// Bytes kept for it, roughly.
    pub(crate) fn len(&self) -> usize {
        size_of_val(self.entries())
    }

    /// The managers with their sets.
    pub(super) fn owners(&self) -> Result<Vec<Owner>, Unreadable> {
        let owner = |entry: &Entry| {
            let fields: Value = serde_json::from_str(&entry.fields.text).map_err(|_| Unreadable)?;
            Ok(Owner { manager: entry.manager.clone(), time: entry.time, set: Set::parse(&fields)? })
        };
        self.entries().iter().map(owner).collect()
    }

    /// To be kept, in the order in which they are shown.
    pub(super) fn of(mut owners: Vec<Owner>) -> Self {
        if owners.is_empty() {
            return Self::default();
        }
        owners.sort_by(|a, b| {
            let key = |owner: &Owner| (owner.manager.operation, owner.time.unwrap_or_default());
            key(a)
                .cmp(&key(b))
                .then_with(|| a.manager.name.cmp(&b.manager.name))
                .then_with(|| a.manager.api_version.cmp(&b.manager.api_version))
                .then_with(|| a.manager.subresource.cmp(&b.manager.subresource))
                .then(Ordering::Equal)
        });
        let entry = |owner: Owner| Entry {
            manager: owner.manager,
            time: owner.time,
            fields: Text::shared(&owner.set.encode()),
        };
        Self(Some(owners.into_iter().map(entry).collect()))
    }

    /// Reads what a client says that the managers are. `None`: it does not say, or not so that one can read it.
    pub(crate) fn given(value: &Value) -> Option<Self> {
        let list = value.as_array()?;
        let is_reset = match list.as_slice() {
            [] => true,
            [only] => only.as_object().is_some_and(Map::is_empty),
            _ => false,
        };
        if is_reset {
            return Some(Self::default());
        }
        list.iter().map(owner).collect::<Option<Vec<_>>>().map(Self::of)
    }

    /// As a member of `metadata`, with a comma behind; nothing if there are no managers.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        if self.is_empty() {
            return;
        }
        out.extend_from_slice(b"\"managedFields\":[");
        for (index, entry) in self.entries().iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            let manager = &entry.manager;
            // Writing to a vector cannot fail.
            let _ = write!(
                out,
                "{{\"manager\":{},\"operation\":\"{}\",\"apiVersion\":{},",
                Value::from(&*manager.name),
                manager.operation.word(),
                Value::from(&*manager.api_version),
            );
            if let Some(time) = entry.time.and_then(|time| Timestamp::from_second(time).ok()) {
                let _ = write!(out, "\"time\":\"{}\",", timestamp(time));
            }
            let _ = write!(out, "\"fieldsType\":\"FieldsV1\",\"fieldsV1\":{}", entry.fields.text);
            if !manager.subresource.is_empty() {
                let _ = write!(out, ",\"subresource\":{}", Value::from(&*manager.subresource));
            }
            out.push(b'}');
        }
        out.extend_from_slice(b"],");
    }

    /// As a value.
    pub(crate) fn to_value(&self) -> Value {
        let mut text = b"{".to_vec();
        self.write(&mut text);
        text.extend_from_slice(b"\"\":0}");
        let value: Value = serde_json::from_slice(&text).unwrap_or_default();
        value.get("managedFields").cloned().unwrap_or_else(|| json!([]))
    }
}

fn owner(entry: &Value) -> Option<Owner> {
    let text = |field: &str| entry[field].as_str().unwrap_or_default();
    let operation = match text("operation") {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return None,
    };
    if text("apiVersion").is_empty() || text("fieldsType") != "FieldsV1" {
        return None;
    }
    let time = match &entry["time"] {
        Value::Null => None,
        time => Some(time.as_str()?.parse::<Timestamp>().ok()?.as_second()),
    };
    let set = match &entry["fieldsV1"] {
        Value::Null => Set::default(),
        fields => Set::parse(fields).ok()?,
    };
    let manager = Manager {
        operation,
        name: shared(text("manager")),
        api_version: shared(text("apiVersion")),
        subresource: shared(text("subresource")),
    };
    Some(Owner { manager, time, set })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(manager: &str, operation: &str, time: &str, fields: Value) -> Value {
        json!({
            "manager": manager, "operation": operation, "apiVersion": "v1", "time": time,
            "fieldsType": "FieldsV1", "fieldsV1": fields,
        })
    }

    #[test]
    fn what_is_kept_is_what_was_given_in_the_order_of_the_api() {
        let late = entry("a", "Update", "2026-01-02T00:00:01Z", json!({"f:a": {}}));
        let early = entry("b", "Update", "2026-01-02T00:00:00Z", json!({"f:b": {".": {}, "f:c": {}}}));
        let mut applied = entry("c", "Apply", "2026-01-02T00:00:02Z", json!({}));
        applied["subresource"] = "status".into();
        let managed = Managed::given(&json!([late, early, applied])).unwrap();
        assert_eq!(managed.to_value(), json!([applied, early, late]));
        assert!(Managed::given(&json!([])).unwrap().is_empty());
        assert!(Managed::given(&json!([{}])).unwrap().is_empty());
        assert!(Managed::given(&Value::Null).is_none());
        assert!(Managed::given(&json!([{"manager": "x"}])).is_none());
        assert_eq!(Managed::default().to_value(), json!([]));
    }

    #[test]
    fn one_text_is_kept_once_and_not_longer_than_needed() {
        let fields = json!({"f:a-field-that-no-other-test-has": {}});
        let one =
            Managed::given(&json!([entry("a", "Update", "2026-01-02T00:00:00Z", fields.clone())])).unwrap();
        let other = Managed::given(&json!([entry("b", "Update", "2026-01-02T00:00:00Z", fields)])).unwrap();
        let text = |managed: &Managed| managed.entries()[0].fields.clone();
        assert!(Arc::ptr_eq(&text(&one), &text(&other)));
        let digest = text(&one).digest;
        assert!(TEXTS.lock().contains_key(&digest));
        drop((one, other));
        assert!(!TEXTS.lock().contains_key(&digest));
    }
}
