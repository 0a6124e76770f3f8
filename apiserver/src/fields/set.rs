//! Sets of fields: what a manager owns, what changed. A tree of path elements, as `fieldsV1` writes it.

use serde_json::{Map, Number, Value};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt::{self, Write};

/// A scalar that is part of a path.
#[derive(Debug, Clone)]
pub(crate) enum Scalar {
    Number(Number),
    Text(String),
    Bool(bool),
    /// Nothing that should be a key: compared by its text.
    Other(String),
}

impl Scalar {
    pub(crate) fn of(value: &Value) -> Self {
        match value {
            Value::Number(number) => Self::Number(number.clone()),
            Value::String(text) => Self::Text(text.clone()),
            Value::Bool(flag) => Self::Bool(*flag),
            other => Self::Other(other.to_string()),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Number(_) => 0,
            Self::Text(_) => 1,
            Self::Bool(_) => 2,
            Self::Other(_) => 3,
        }
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "{}", Value::from(text.as_str())),
            Self::Bool(flag) => write!(f, "{flag}"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl Ord for Scalar {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Number(a), Self::Number(b)) => match (a.as_i64(), b.as_i64()) {
                (Some(a), Some(b)) => a.cmp(&b),
                _ => a.as_f64().unwrap_or_default().total_cmp(&b.as_f64().unwrap_or_default()),
            },
            (Self::Text(a), Self::Text(b)) | (Self::Other(a), Self::Other(b)) => a.cmp(b),
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Scalar {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scalar {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scalar {}

/// One step of a path. The order is that of `fieldsV1`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Element {
    Field(String),
    /// An item of a list by the values of its key fields, sorted by name.
    Key(Vec<(String, Scalar)>),
    /// An item of a set.
    Value(Scalar),
    Index(i64),
}

impl Element {
    pub(crate) fn field(name: &str) -> Self {
        Self::Field(name.to_owned())
    }

    /// Reads `f:name`, `k:{…}`, `v:…` or `i:…`. What is of another kind is `None`, since it may be of a later time.
    fn parse(text: &str) -> Result<Option<Self>, Unreadable> {
        let (kind, rest) = text.split_once(':').ok_or(Unreadable)?;
        Ok(Some(match kind {
            "f" => Self::field(rest),
            "v" => Self::Value(Scalar::of(&serde_json::from_str(rest).map_err(|_| Unreadable)?)),
            "k" => {
                let fields: Map<String, Value> = serde_json::from_str(rest).map_err(|_| Unreadable)?;
                Self::Key(fields.iter().map(|(name, value)| (name.clone(), Scalar::of(value))).collect())
            }
            "i" => Self::Index(rest.parse().map_err(|_| Unreadable)?),
            _ => return Ok(None),
        }))
    }

    /// As a key in `fieldsV1`.
    fn encoded(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(fields) => {
                let fields: Vec<_> = fields
                    .iter()
                    .map(|(name, value)| format!("{}:{value}", Value::from(name.as_str())))
                    .collect();
                format!("k:{{{}}}", fields.join(","))
            }
            Self::Value(value) => format!("v:{value}"),
            Self::Index(index) => format!("i:{index}"),
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(fields) => {
                let fields: Vec<_> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(f, "[{}]", fields.join(","))
            }
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// The text of a set is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a set of fields")]
pub(crate) struct Unreadable;

/// A set of paths. No node is without members in or below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Set(BTreeMap<Element, Node>);

/// What is known of one path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Node {
    /// The path itself is in the set.
    member: bool,
    below: Set,
}

impl Node {
    fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

impl Set {
    /// A set of paths that are fields of fields.
    pub(crate) fn of(paths: &[&[&str]]) -> Self {
        let mut set = Self::default();
        for path in paths {
            let path: Vec<Element> = path.iter().map(|name| Element::field(name)).collect();
            set.insert(&path);
        }
        set
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes in one path; the empty path, which is the object itself, belongs to nobody.
    pub(crate) fn insert(&mut self, path: &[Element]) {
        match path {
            [] => {}
            [last] => self.0.entry(last.clone()).or_default().member = true,
            [first, rest @ ..] => self.0.entry(first.clone()).or_default().below.insert(rest),
        }
    }

    /// The path of this one element is in the set.
    pub(crate) fn has(&self, element: &Element) -> bool {
        self.0.get(element).is_some_and(|node| node.member)
    }

    pub(crate) fn has_path(&self, path: &[Element]) -> bool {
        match path {
            [] => false,
            [last] => self.has(last),
            [first, rest @ ..] => self.0.get(first).is_some_and(|node| node.below.has_path(rest)),
        }
    }

    /// What is below an element.
    pub(crate) fn below(&self, element: &Element) -> Option<&Self> {
        self.0.get(element).map(|node| &node.below).filter(|below| !below.is_empty())
    }

    /// Elements that have something below them.
    pub(crate) fn parents(&self) -> impl Iterator<Item = (&Element, &Self)> {
        self.0.iter().filter(|(_, node)| !node.below.is_empty()).map(|(element, node)| (element, &node.below))
    }

    /// Elements whose own paths are in the set.
    fn members(&self) -> impl Iterator<Item = &Element> {
        self.0.iter().filter(|(_, node)| node.member).map(|(element, _)| element)
    }

    /// Puts a set below an element.
    pub(crate) fn put_below(&mut self, element: &Element, below: Self) {
        if !below.is_empty() {
            self.0.entry(element.clone()).or_default().below = below;
        }
    }

    pub(crate) fn union(mut self, other: &Self) -> Self {
        for (element, theirs) in &other.0 {
            let ours = self.0.entry(element.clone()).or_default();
            ours.member |= theirs.member;
            ours.below = std::mem::take(&mut ours.below).union(&theirs.below);
        }
        self
    }

    pub(crate) fn intersection(&self, other: &Self) -> Self {
        self.combined(|element, node| {
            let theirs = other.0.get(element)?;
            Some(Node { member: node.member && theirs.member, below: node.below.intersection(&theirs.below) })
        })
    }

    /// Without the paths of the other, each by itself: what is below a path stays.
    pub(crate) fn difference(&self, other: &Self) -> Self {
        self.combined(|element, node| {
            let Some(theirs) = other.0.get(element) else { return Some(node.clone()) };
            Some(Node { member: node.member && !theirs.member, below: node.below.difference(&theirs.below) })
        })
    }

    /// Without the paths of the other and everything below them.
    pub(crate) fn without(&self, other: &Self) -> Self {
        self.combined(|element, node| match other.0.get(element) {
            None => Some(node.clone()),
            Some(theirs) if theirs.member => None,
            Some(theirs) => Some(Node { member: node.member, below: node.below.without(&theirs.below) }),
        })
    }

    fn combined(&self, mut one: impl FnMut(&Element, &Node) -> Option<Node>) -> Self {
        let nodes = self.0.iter().filter_map(|(element, node)| Some((element.clone(), one(element, node)?)));
        Self(nodes.filter(|(_, node)| !node.is_empty()).collect())
    }

    /// All paths: those of one level before those below it.
    pub(crate) fn paths(&self) -> Vec<Vec<Element>> {
        let mut all = Vec::new();
        self.collect(&mut Vec::new(), &mut all);
        all
    }

    fn collect(&self, at: &mut Vec<Element>, all: &mut Vec<Vec<Element>>) {
        for element in self.members() {
            let mut path = at.clone();
            path.push(element.clone());
            all.push(path);
        }
        for (element, below) in self.parents() {
            at.push(element.clone());
            below.collect(at, all);
            at.pop();
        }
    }

    /// Reads `fieldsV1`.
    pub(crate) fn parse(fields: &Value) -> Result<Self, Unreadable> {
        let mut set = Self::default();
        for (name, inner) in fields.as_object().ok_or(Unreadable)? {
            if name == "." {
                continue;
            }
            let Some(element) = Element::parse(name)? else { continue };
            let below = Self::parse(inner)?;
            // Nothing said about what is below means the field itself.
            let member = below.is_empty() || inner.get(".").is_some();
            set.0.insert(element, Node { member, below });
        }
        Ok(set)
    }

    /// Writes `fieldsV1`.
    pub(crate) fn encode(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, false);
        out
    }

    fn write(&self, out: &mut String, member: bool) {
        out.push('{');
        let mut first = true;
        if member && !self.is_empty() {
            out.push_str("\".\":{}");
            first = false;
        }
        for (element, node) in &self.0 {
            if !std::mem::take(&mut first) {
                out.push(',');
            }
            // Writing to a string cannot fail.
            let _ = write!(out, "{}:", Value::from(element.encoded()));
            node.below.write(out, node.member);
        }
        out.push('}');
    }
}

/// A path as people read it.
pub(crate) fn shown(path: &[Element]) -> String {
    path.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(value: Value) -> Set {
        Set::parse(&value).unwrap()
    }

    #[test]
    fn what_is_written_is_what_was_read() {
        let text = r#"{"f:a":{".":{},"f:b":{},"k:{\"name\":\"x\",\"port\":1}":{".":{},"f:name":{}},"v:\"s\"":{},"v:true":{}},"f:c":{}}"#;
        let read = set(serde_json::from_str(text).unwrap());
        assert_eq!(read.encode(), text);
        let paths: Vec<String> = read.paths().iter().map(|path| shown(path)).collect();
        assert_eq!(
            paths,
            [
                ".a",
                ".c",
                ".a.b",
                r#".a[name="x",port=1]"#,
                r#".a[="s"]"#,
                ".a[=true]",
                r#".a[name="x",port=1].name"#
            ]
        );
        assert!(Set::parse(&json!({"x": {}})).is_err());
        assert!(Set::parse(&json!([])).is_err());
        assert!(set(json!({"z:later": {}})).is_empty());
    }

    #[test]
    fn sets_are_joined_and_taken_apart_path_by_path() {
        let a = set(json!({"f:a": {".": {}, "f:x": {}, "f:y": {}}, "f:b": {}}));
        let b = set(json!({"f:a": {".": {}, "f:x": {}}, "f:c": {}}));
        assert_eq!(
            a.clone().union(&b),
            set(json!({"f:a": {".": {}, "f:x": {}, "f:y": {}}, "f:b": {}, "f:c": {}}))
        );
        assert_eq!(a.intersection(&b), set(json!({"f:a": {".": {}, "f:x": {}}})));
        assert_eq!(a.difference(&b), set(json!({"f:a": {"f:y": {}}, "f:b": {}})));
        assert_eq!(a.without(&b), set(json!({"f:b": {}})));
        assert_eq!(
            a.without(&set(json!({"f:a": {"f:x": {}}}))),
            set(json!({"f:a": {".": {}, "f:y": {}}, "f:b": {}}))
        );
        assert!(a.difference(&a).is_empty());
    }
}
