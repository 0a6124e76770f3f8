//! What a field is to whoever owns fields: one thing as a whole, an object of fields, or a list of items that are
//! told apart by keys.
//!
//! Custom resources say so in their schemas. For built-in kinds it is data: their messages, in
//! `builtin/messages.txt` and (for definitions) `definition.txt`, and `rules.txt`, which names what is not as
//! most fields are. There, `atomic` is owned as a whole, `keys` and `set` are lists of that kind, and `there` is a
//! field that an object of its type always has, if only empty, because that is how Go writes it.

use super::set::{Element, Scalar};
use crate::resource::{Behaviour, Resource};
use crate::schema::{Kind, ListType, Node};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

/// The type of a built-in object.
#[derive(Debug, Default)]
pub(super) struct Message {
    atomic: bool,
    fields: BTreeMap<&'static str, Field>,
}

#[derive(Debug, Clone)]
pub(super) struct Field {
    kind: &'static str,
    form: Form,
    list: List,
    atomic: bool,
    /// An object of the type always has it.
    there: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    One,
    List,
    Map,
}

#[derive(Debug, Clone)]
enum List {
    Atomic,
    Set,
    /// Names of key fields, with the values that they have if they are not there.
    Keys(Vec<(&'static str, Option<Value>)>),
}

/// What scalars may stand in a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plain {
    Text,
    Number,
    Bool,
    Any,
}

/// The type of a place in an object.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape<'a> {
    Plain(Plain),
    /// Nothing is known: objects have fields of their own, lists are one thing.
    Free,
    /// A whole that nobody looks into.
    Opaque,
    Message(&'static Message),
    List(&'static Field),
    Map(&'static Field),
    /// `open`: fields that the schema does not know are taken, here or further up.
    Schema {
        node: &'a Node,
        open: bool,
    },
    /// `metadata` and the fields of a type, which no schema has to name.
    Typed {
        node: &'a Node,
        open: bool,
    },
}

/// What a value of some shape is made of.
pub(super) enum Made {
    /// Owned as a whole.
    Leaf,
    Fields,
    Items,
}

static MESSAGES: LazyLock<HashMap<&'static str, Message>> = LazyLock::new(|| {
    let lines = [include_str!("../builtin/messages.txt"), include_str!("definition.txt")];
    let lines: HashMap<_, _> =
        lines.iter().flat_map(|text| text.lines()).filter_map(|line| line.split_once(' ')).collect();
    let mut messages: HashMap<&'static str, Message> = HashMap::new();
    for (name, line) in &lines {
        let mut fields = BTreeMap::new();
        gather(line, &lines, &mut fields);
        messages.insert(name, Message { atomic: false, fields });
    }
    for rule in include_str!("rules.txt").lines() {
        let mut words = rule.split(' ');
        let (Some(path), Some(word)) = (words.next(), words.next()) else { continue };
        if let Some(message) = messages.get_mut(path) {
            message.atomic |= word == "atomic";
            continue;
        }
        let field =
            path.rsplit_once('.').and_then(|(owner, name)| messages.get_mut(owner)?.fields.get_mut(name));
        let Some(field) = field else { continue };
        match word {
            "atomic" => field.atomic = true,
            "there" => field.there = true,
            "set" => field.list = List::Set,
            "keys" => {
                let key = |word: &'static str| match word.split_once('=') {
                    Some((name, value)) => (name, Some(Value::from(value))),
                    None => (word, None),
                };
                field.list = List::Keys(words.map(key).collect());
            }
            _ => {}
        }
    }
    messages
});

/// Reads the fields of a line, those of inlined messages included.
fn gather(
    line: &'static str,
    lines: &HashMap<&'static str, &'static str>,
    fields: &mut BTreeMap<&'static str, Field>,
) {
    for word in line.split(' ') {
        let Some((name, rest)) = word.split_once('=') else { continue };
        let Some((_, kind)) = rest.split_once(':') else { continue };
        if let Some(inline) = kind.strip_prefix('^') {
            lines.get(inline).into_iter().for_each(|line| gather(line, lines, fields));
            continue;
        }
        let (form, kind) = match kind.split_once(':') {
            Some(("list", kind)) => (Form::List, kind),
            Some(("map", kind)) => (Form::Map, kind),
            _ => (Form::One, kind),
        };
        fields.insert(name, Field { kind, form, list: List::Atomic, atomic: false, there: false });
    }
}

fn plain(kind: &str) -> Shape<'static> {
    Shape::Plain(match kind {
        "string" | "bytes" => Plain::Text,
        "int" | "double" => Plain::Number,
        "bool" => Plain::Bool,
        _ => Plain::Any,
    })
}

/// One of a kind.
fn one(kind: &'static str) -> Shape<'static> {
    match MESSAGES.get(kind) {
        Some(message) if message.atomic => Shape::Opaque,
        Some(message) => Shape::Message(message),
        None if kind == "any" => Shape::Opaque,
        None => plain(kind),
    }
}

impl Field {
    fn shape(&'static self) -> Shape<'static> {
        match self.form {
            Form::One => one(self.kind),
            Form::Map if self.atomic => Shape::Opaque,
            Form::Map => Shape::Map(self),
            Form::List => match self.list {
                List::Atomic => Shape::Opaque,
                List::Set | List::Keys(_) => Shape::List(self),
            },
        }
    }
}

/// `metadata` of every kind.
fn metadata() -> Shape<'static> {
    one("meta.ObjectMeta")
}

/// The shape of a resource's objects.
pub(super) fn root(resource: &Resource) -> Shape<'_> {
    match &resource.behaviour {
        Behaviour::Custom(version) => match &version.schema {
            Some(schema) => Shape::Typed { node: schema.root(), open: schema.root().preserve },
            None => Shape::Free,
        },
        Behaviour::Builtin(_) => {
            let group = resource.group.split('.').next().filter(|group| !group.is_empty()).unwrap_or("core");
            MESSAGES.get(format!("{group}.{}", resource.kind).as_str()).map_or(Shape::Free, Shape::Message)
        }
    }
}

fn scalar(kind: Kind, node: &Node) -> Plain {
    match kind {
        Kind::Integer | Kind::Number => Plain::Number,
        Kind::Boolean => Plain::Bool,
        Kind::String if node.is_plain_text() => Plain::Text,
        Kind::String | Kind::Object | Kind::Array => Plain::Any,
    }
}

impl<'a> Shape<'a> {
    /// The shape of a place that a schema describes.
    fn of(node: &'a Node, open: bool) -> Self {
        let open = open || node.preserve;
        if node.int_or_string {
            Self::Plain(Plain::Any)
        } else if node.embedded {
            Self::Typed { node, open }
        } else {
            Self::Schema { node, open }
        }
    }

    /// What a value in this place is made of. Null is made of what the place is for.
    pub(super) fn made(self, value: &Value) -> Made {
        match self {
            Self::Plain(_) | Self::Opaque => Made::Leaf,
            Self::Free => {
                if value.is_object() {
                    Made::Fields
                } else {
                    Made::Leaf
                }
            }
            Self::Message(_) | Self::Map(_) => match value {
                Value::Object(_) | Value::Null => Made::Fields,
                _ => Made::Leaf,
            },
            Self::List(_) => match value {
                Value::Array(_) | Value::Null => Made::Items,
                _ => Made::Leaf,
            },
            Self::Schema { node, .. } | Self::Typed { node, .. } => {
                let object = matches!(node.kind, Some(Kind::Object) | None) && !node.atomic;
                let list =
                    matches!(node.kind, Some(Kind::Array) | None) && !matches!(node.list, ListType::Atomic);
                match value {
                    Value::Object(_) if object => Made::Fields,
                    Value::Array(_) if list => Made::Items,
                    Value::Null if object => Made::Fields,
                    Value::Null if list => Made::Items,
                    _ => Made::Leaf,
                }
            }
        }
    }

    /// The shape of a field, and whether the type names it; `None` if it has no such field.
    pub(super) fn field(self, name: &str) -> Option<(Self, bool)> {
        match self {
            Self::Plain(_) | Self::Opaque | Self::List(_) => None,
            Self::Free => Some((Self::Free, false)),
            Self::Message(message) => match message.fields.get(name) {
                Some(field) => Some((field.shape(), true)),
                None if matches!(name, "apiVersion" | "kind") && message.fields.contains_key("metadata") => {
                    Some((Self::Plain(Plain::Text), true))
                }
                None => None,
            },
            Self::Map(field) => Some((one(field.kind), false)),
            Self::Typed { .. } if matches!(name, "apiVersion" | "kind") => {
                Some((Self::Plain(Plain::Text), true))
            }
            Self::Typed { .. } if name == "metadata" => Some((metadata(), true)),
            Self::Schema { node, open } | Self::Typed { node, open } => match node.properties.get(name) {
                Some(property) => Some((Self::of(property, open), true)),
                None => match node.rest() {
                    Some(inner) => Some((Self::of(inner, open), false)),
                    None if open || node.is_free() => Some((Self::Free, false)),
                    None => None,
                },
            },
        }
    }

    /// Fields that an object of this type always has, and what they are if they are not given.
    pub(super) fn always(self) -> impl Iterator<Item = (&'static str, Value)> {
        let fields = match self {
            Self::Message(message) => Some(message.fields.iter()),
            _ => None,
        };
        let there = fields.into_iter().flatten().filter(|(_, field)| field.there);
        there.map(|(name, field)| {
            let value = match field.kind {
                _ if field.form != Form::One => Value::Null,
                "string" => "".into(),
                "meta.LabelSelector" => Value::Null,
                kind if MESSAGES.contains_key(kind) => Value::Object(Map::new()),
                _ => Value::Null,
            };
            (*name, value)
        })
    }

    /// The shape of a list's items.
    pub(super) fn item(self) -> Self {
        match self {
            Self::List(field) => one(field.kind),
            Self::Schema { node, open } | Self::Typed { node, open } => {
                node.items.as_deref().map_or(Self::Free, |items| Self::of(items, open))
            }
            _ => Self::Free,
        }
    }

    /// The element by which an item of a list is known, or why there is none.
    pub(super) fn element(self, item: &Value) -> Result<Element, String> {
        let keys: Vec<(&str, Option<&Value>)> = match self {
            Self::List(Field { list: List::Keys(keys), .. }) => {
                keys.iter().map(|(name, default)| (*name, default.as_ref())).collect()
            }
            Self::Schema { node, .. } | Self::Typed { node, .. } => match &node.list {
                ListType::Map(keys) => keys.iter().map(|key| (key.as_str(), node.key_default(key))).collect(),
                ListType::Set | ListType::Atomic => Vec::new(),
            },
            _ => Vec::new(),
        };
        if keys.is_empty() {
            return match item {
                Value::Object(_) => {
                    Err("associative list without keys has an element that's a map type".into())
                }
                Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
                Value::Null => {
                    Err("associative list without keys has an element that's an explicit null".into())
                }
                scalar => Ok(Element::Value(Scalar::of(scalar))),
            };
        }
        match item {
            Value::Object(_) => {}
            Value::Null => return Err("associative list with keys may not have a null element".into()),
            _ => return Err("associative list with keys may not have non-map elements".into()),
        }
        let value = |name: &str, default| item.get(name).or(default).map(Scalar::of);
        let mut found: Vec<(String, Scalar)> = keys
            .iter()
            .filter_map(|(name, default)| Some(((*name).to_owned(), value(name, *default)?)))
            .collect();
        if found.is_empty() {
            let names: Vec<String> = keys.iter().map(|(name, _)| Value::from(*name).to_string()).collect();
            return Err(format!(
                "associative list with keys has an element that omits all key fields [{}] (and doesn't have \
                 default values for any key fields)",
                names.join(" ")
            ));
        }
        found.sort();
        Ok(Element::Key(found))
    }

    /// What is wrong with a scalar in this place, in the words of a real server.
    pub(super) fn misfit(self, value: &Value) -> Option<&'static str> {
        let wanted = match self {
            Self::Plain(plain) => plain,
            Self::Schema { node, .. } => match node.kind {
                Some(kind @ (Kind::String | Kind::Integer | Kind::Number | Kind::Boolean)) => {
                    scalar(kind, node)
                }
                Some(Kind::Object) if !value.is_object() && !value.is_null() => return Some("expected map"),
                Some(Kind::Array) if !value.is_array() && !value.is_null() => return Some("expected list"),
                _ => return None,
            },
            Self::Typed { .. } | Self::Message(_) | Self::Map(_)
                if !value.is_object() && !value.is_null() =>
            {
                return Some("expected map");
            }
            Self::List(_) if !value.is_array() && !value.is_null() => return Some("expected list"),
            _ => return None,
        };
        let fits = match (wanted, value) {
            (_, Value::Null) => true,
            (Plain::Text, value) => value.is_string(),
            (Plain::Number, value) => value.is_number(),
            (Plain::Bool, value) => value.is_boolean(),
            (Plain::Any, value) => !value.is_object() && !value.is_array(),
        };
        let expected = match wanted {
            Plain::Text => "expected string",
            Plain::Number => "expected numeric (int or float)",
            Plain::Bool => "expected boolean",
            Plain::Any => "expected any scalar",
        };
        (!fits).then_some(expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_about_a_field_or_a_type_that_is_there() {
        for rule in include_str!("rules.txt").lines() {
            let path = rule.split(' ').next().unwrap();
            let field = path.rsplit_once('.').and_then(|(owner, name)| MESSAGES.get(owner)?.fields.get(name));
            assert!(MESSAGES.contains_key(path) || field.is_some(), "{rule}");
        }
    }

    #[test]
    fn every_built_in_kind_has_a_type() {
        for resource in crate::builtin::RESOURCES.values() {
            assert!(matches!(root(resource), Shape::Message(_)), "{}", resource.kind);
        }
    }

    #[test]
    fn every_type_is_a_message_or_a_scalar() {
        const SCALARS: &[&str] = &[
            "any",
            "bool",
            "bytes",
            "int",
            "string",
            "intstr.IntOrString",
            "meta.MicroTime",
            "meta.Time",
            "resource.Quantity",
        ];
        for (name, message) in MESSAGES.iter() {
            for (field, spec) in &message.fields {
                let known = MESSAGES.contains_key(spec.kind) || SCALARS.contains(&spec.kind);
                assert!(known, "{name}.{field} is a {}", spec.kind);
            }
        }
    }
}
