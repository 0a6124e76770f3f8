//! The part of JSON paths that printer columns and selectable fields use.
//!
//! `.a.b`, `.a['b.c']`, `.a\.b`, `[0]`, `[-1]`, `[*]`, `[?(@.type=="Ready")]`, with or without braces.

use serde_json::Value;

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    /// Elements in which the value at a path compares to a literal: equal, or (false) not equal.
    Where(Vec<Self>, bool, Value),
}

/// A parsed path.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JsonPath(Vec<Step>);

/// A path that cannot be read.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("unsupported json path {0:?}")]
pub(crate) struct Error(String);

impl JsonPath {
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let bare = text.trim();
        let bare = bare.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(bare);
        let bare = bare.strip_prefix('$').unwrap_or(bare);
        steps(bare).map(Self).ok_or_else(|| Error(text.to_owned()))
    }

    /// Everything that the path leads to.
    pub(crate) fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        find(&self.0, value)
    }
}

fn find<'a>(steps: &[Step], value: &'a Value) -> Vec<&'a Value> {
    let mut found = vec![value];
    for step in steps {
        found = found.into_iter().flat_map(|v| follow(step, v)).collect();
    }
    found
}

fn follow<'a>(step: &Step, value: &'a Value) -> Vec<&'a Value> {
    match step {
        Step::Field(name) => value.get(name).into_iter().collect(),
        Step::Index(at) => {
            let Some(list) = value.as_array() else { return Vec::new() };
            let at = if *at < 0 { list.len() as i64 + at } else { *at };
            usize::try_from(at).ok().and_then(|at| list.get(at)).into_iter().collect()
        }
        Step::All => match value {
            Value::Array(list) => list.iter().collect(),
            Value::Object(map) => map.values().collect(),
            _ => Vec::new(),
        },
        Step::Where(path, equal, literal) => value
            .as_array()
            .into_iter()
            .flatten()
            .filter(|element| match find(path, element).first() {
                Some(found) => (*found == literal) == *equal,
                None => false,
            })
            .collect(),
    }
}

fn steps(text: &str) -> Option<Vec<Step>> {
    let mut all = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            rest = after;
            if rest.is_empty() || rest.starts_with('[') {
                continue;
            }
            if let Some(after) = rest.strip_prefix('*') {
                all.push(Step::All);
                rest = after;
                continue;
            }
            let (name, after) = field(rest)?;
            all.push(Step::Field(name));
            rest = after;
        } else if let Some(after) = rest.strip_prefix('[') {
            let (step, after) = bracket(after)?;
            all.push(step);
            rest = after;
        } else if all.is_empty() {
            let (name, after) = field(rest)?;
            all.push(Step::Field(name));
            rest = after;
        } else {
            return None;
        }
    }
    Some(all)
}

fn field(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.push(chars.next()?.1),
            '.' | '[' => return (!name.is_empty()).then_some((name, &text[at..])),
            _ => name.push(c),
        }
    }
    (!name.is_empty()).then_some((name, ""))
}

fn bracket(text: &str) -> Option<(Step, &str)> {
    if let Some(filter) = text.strip_prefix("?(") {
        let end = filter.find(")]")?;
        return Some((condition(&filter[..end])?, &filter[end + 2..]));
    }
    if let Some(quote) = text.chars().next().filter(|c| matches!(c, '\'' | '"')) {
        let inner = &text[1..];
        let end = inner.find(quote)?;
        let after = inner[end + 1..].strip_prefix(']')?;
        return Some((Step::Field(inner[..end].to_owned()), after));
    }
    let end = text.find(']')?;
    let inside = text[..end].trim();
    let step = if inside == "*" { Step::All } else { Step::Index(inside.parse().ok()?) };
    Some((step, &text[end + 1..]))
}

fn condition(text: &str) -> Option<Step> {
    let (path, equal, literal) = match (text.split_once("=="), text.split_once("!=")) {
        (Some((path, literal)), _) => (path, true, literal),
        (None, Some((path, literal))) => (path, false, literal),
        (None, None) => return None,
    };
    let literal = literal.trim();
    let quoted = |q: char| literal.strip_prefix(q).and_then(|l| l.strip_suffix(q));
    let literal = match quoted('"').or_else(|| quoted('\'')) {
        Some(text) => Value::from(text),
        None => serde_json::from_str(literal).ok()?,
    };
    Some(Step::Where(steps(path.trim().strip_prefix('@')?)?, equal, literal))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn texts(path: &str, value: &Value) -> Vec<Value> {
        JsonPath::parse(path).unwrap().find(value).into_iter().cloned().collect()
    }

    #[test]
    fn paths_find_fields_elements_and_filtered_elements() {
        let value = json!({
            "spec": {"a.b": 1, "list": [{"n": "x"}, {"n": "y"}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]},
        });
        assert_eq!(texts(".spec['a.b']", &value), [json!(1)]);
        assert_eq!(texts(r".spec.a\.b", &value), [json!(1)]);
        assert_eq!(texts("{.spec.list[*].n}", &value), [json!("x"), json!("y")]);
        assert_eq!(texts(".spec.list[-1].n", &value), [json!("y")]);
        assert_eq!(texts(r#".status.conditions[?(@.type=="Ready")].status"#, &value), [json!("True")]);
        assert_eq!(texts(r".status.conditions[?(@.type != 'Ready')].status", &value), [json!("False")]);
        assert!(texts(".spec.none.deeper", &value).is_empty());
    }

    #[test]
    fn unreadable_paths_are_refused() {
        for bad in [".a[", ".a[x]", ".a[?(b)]", ".a..b[", "]"] {
            let parsed = JsonPath::parse(bad);
            assert!(parsed.is_err() || bad == "]", "{bad}: {parsed:?}");
        }
    }
}
