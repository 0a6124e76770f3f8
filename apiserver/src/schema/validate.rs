//! Does a value fit its schema, and if not, what is wrong with it.

use std::fmt::Display;

use serde_json::{Number, Value};

use super::{
    cause::{Cause, Path},
    format::Rule,
    node::{Additional, Bound, Kind, Node},
    prune::is_meta,
};

/// The field that a real server names when the fault belongs to several schemas at once.
const NO_FIELD: &str = "<nil>";

pub(super) fn validate(root: &Node, object: &Value) -> Vec<Cause> {
    let mut outcome = Outcome::default();
    outcome.check(root, object, &Path::Root);
    outcome.causes
}

/// What was found, and how many checks were made: of several alternatives that all fail, the one that got
/// furthest is the one reported.
#[derive(Default)]
struct Outcome {
    causes: Vec<Cause>,
    checks: u32,
}

impl Outcome {
    fn check(&mut self, node: &Node, value: &Value, at: &Path<'_>) {
        if value.is_null() {
            self.check_type(node, value, at);
            self.check_enum(node, value, at);
            return;
        }
        self.check_type(node, value, at);
        self.check_alternatives(node, value, at);
        match value {
            Value::String(text) => self.check_text(node, text, value, at),
            Value::Number(number) => self.check_number(node, number, value, at),
            Value::Array(items) => self.check_items(node, items, at),
            _ => {}
        }
        self.check_enum(node, value, at);
        if let Value::Object(fields) = value {
            self.check_fields(node, fields, at);
        }
        self.checks += 1;
    }

    fn absorb(&mut self, other: Self) {
        self.causes.extend(other.causes);
        self.checks += other.checks;
    }

    fn of(node: &Node, value: &Value, at: &Path<'_>) -> Self {
        let mut outcome = Self::default();
        outcome.check(node, value, at);
        outcome
    }

    fn check_type(&mut self, node: &Node, value: &Value, at: &Path<'_>) {
        let expected = match (node.int_or_string, node.kind) {
            (true, _) => "integer,string",
            (false, Some(kind)) => kind.name(),
            (false, None) => return,
        };
        let actual = type_of(value);
        let fits = match value {
            Value::Null => node.nullable,
            Value::Number(number) if node.int_or_string => is_integer(number),
            Value::Number(number) => match node.kind {
                Some(Kind::Integer) => is_integer(number),
                kind => kind == Some(Kind::Number),
            },
            Value::String(_) if node.int_or_string => true,
            _ => !node.int_or_string && node.kind.is_some_and(|kind| kind.name() == actual),
        };
        if fits {
            self.checks += 2;
        } else {
            let detail = format!("{at} in body must be of type {expected}: \"{actual}\"");
            self.causes.push(Cause::type_invalid(at, &Value::from(actual), &detail));
        }
    }

    fn check_alternatives(&mut self, node: &Node, value: &Value, at: &Path<'_>) {
        let rules = &node.rules;
        if !rules.any_of.is_empty() {
            let outcomes = rules.any_of.iter().map(|node| Self::of(node, value, at));
            let (valid, best) = weigh(outcomes);
            if valid == 0 {
                self.composite(format!("\"{at}\" must validate at least one schema (anyOf)"));
            }
            best.into_iter().for_each(|best| self.absorb(best));
        }
        if !rules.one_of.is_empty() {
            let outcomes = rules.one_of.iter().map(|node| Self::of(node, value, at));
            let (valid, best) = weigh(outcomes);
            if valid != 1 {
                let found = match valid {
                    0 => "Found none valid".to_owned(),
                    several => format!("Found {several} valid alternatives"),
                };
                self.composite(format!("\"{at}\" must validate one and only one schema (oneOf). {found}"));
            }
            best.into_iter().for_each(|best| self.absorb(best));
        }
        if !rules.all_of.is_empty() {
            let outcomes: Vec<_> = rules.all_of.iter().map(|node| Self::of(node, value, at)).collect();
            let valid = outcomes.iter().filter(|outcome| outcome.causes.is_empty()).count();
            let total = outcomes.len();
            outcomes.into_iter().for_each(|outcome| self.absorb(outcome));
            if valid != total {
                let none = if valid == 0 { ". None validated" } else { "" };
                self.composite(format!("\"{at}\" must validate all the schemas (allOf){none}"));
            }
        }
        if let Some(not) = &rules.not
            && Self::of(not, value, at).causes.is_empty()
        {
            self.composite(format!("\"{at}\" must not validate the schema (not)"));
        }
        self.checks += 1;
    }

    fn composite(&mut self, detail: String) {
        self.causes.push(Cause::invalid(NO_FIELD, &Value::from(""), &detail));
    }

    fn check_text(&mut self, node: &Node, text: &str, value: &Value, at: &Path<'_>) {
        let rules = &node.rules;
        let length = || text.chars().count() as u64;
        if let Some(most) = rules.max_length.filter(|most| length() > *most) {
            self.causes.push(Cause::too_long(at, most));
        } else if let Some(least) = rules.min_length.filter(|least| length() < *least) {
            self.refuse(at, value, format_args!("should be at least {least} chars long"));
        } else if let Some(pattern) = rules.pattern.as_ref().filter(|pattern| !pattern.matches(text)) {
            self.refuse(at, value, format_args!("should match '{}'", pattern.text));
        }
        if let Some(format) = &node.format
            && let Rule::Text(rule) = format.rule
            && !rule.accepts(text)
        {
            let detail = format!("{at} in body must be of type {}: {value}", format.name);
            self.causes.push(Cause::type_invalid(at, value, &detail));
        }
        self.checks += 1;
    }

    fn check_number(&mut self, node: &Node, number: &Number, value: &Value, at: &Path<'_>) {
        let rules = &node.rules;
        if node.kind == Some(Kind::Integer) && !node.int_or_string && !is_integer(number) {
            let format = match &node.format {
                Some(format) => format!("with format {}", format.name),
                None => "(default format)".to_owned(),
            };
            self.composite(format!("Checked value must be of type integer {format} in {at}"));
        } else if let Some(format) = &node.format {
            let out_of_range = match format.rule {
                Rule::Int32 => {
                    number.as_f64().is_some_and(|n| n < f64::from(i32::MIN) || n > f64::from(i32::MAX))
                }
                Rule::Float => number.as_f64().is_some_and(|n| n.abs() > f64::from(f32::MAX)),
                Rule::Int64 | Rule::Text(_) => false,
            };
            if out_of_range {
                let kind = node.kind.map_or("number", Kind::name);
                self.composite(format!(
                    "Checked value must be of type {kind} with format {} in {at}",
                    format.name
                ));
            }
        }
        if let Some(factor) = rules.multiple_of
            && !is_multiple(number, factor)
        {
            self.refuse(at, value, format_args!("should be a multiple of {factor}"));
        }
        if let Some(minimum) = rules.minimum.filter(|minimum| compare(number, minimum, |n, bound| n < bound))
        {
            let relation = if minimum.exclusive { "greater than" } else { "greater than or equal to" };
            self.refuse(at, value, format_args!("should be {relation} {}", minimum.value));
        }
        if let Some(maximum) = rules.maximum.filter(|maximum| compare(number, maximum, |n, bound| n > bound))
        {
            let relation = if maximum.exclusive { "less than" } else { "less than or equal to" };
            self.refuse(at, value, format_args!("should be {relation} {}", maximum.value));
        }
        self.checks += 2;
    }

    fn check_items(&mut self, node: &Node, items: &[Value], at: &Path<'_>) {
        let rules = &node.rules;
        if let Some(inner) = &node.items {
            for (index, item) in items.iter().enumerate() {
                self.check(inner, item, &Path::Index(at, index));
            }
        }
        let count = items.len() as u64;
        if let Some(least) = rules.min_items.filter(|least| count < *least) {
            self.refuse(at, &Value::from(count), format_args!("should have at least {least} items"));
        }
        if let Some(most) = rules.max_items.filter(|most| count > *most) {
            self.causes.push(Cause::too_many(at, items.len(), most));
        }
        if rules.unique_items {
            let mut seen = std::collections::BTreeSet::new();
            if !items.iter().all(|item| seen.insert(item.to_string())) {
                self.refuse(at, &Value::from(""), format_args!("shouldn't contain duplicates"));
            }
        }
        self.checks += 2;
    }

    fn check_enum(&mut self, node: &Node, value: &Value, at: &Path<'_>) {
        let allowed = &node.rules.one_of_values;
        if allowed.is_empty() || allowed.iter().any(|other| same(other, value)) {
            return;
        }
        let names: Vec<_> = allowed
            .iter()
            .map(|value| match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            })
            .collect();
        self.causes.push(Cause::not_supported(at, value, &names));
    }

    fn check_fields(&mut self, node: &Node, fields: &serde_json::Map<String, Value>, at: &Path<'_>) {
        let rules = &node.rules;
        let count = fields.len() as u64;
        if let Some(least) = rules.min_properties.filter(|least| count < *least) {
            self.refuse(at, &Value::from(count), format_args!("should have at least {least} properties"));
        }
        if let Some(most) = rules.max_properties.filter(|most| count > *most) {
            self.causes.push(Cause::too_many(at, fields.len(), most));
        }
        for (name, value) in fields {
            let here = Path::Field(at, name);
            if let Some(property) = node.properties.get(name) {
                self.check(property, value, &here);
                continue;
            }
            match &node.additional {
                Additional::Of(inner) => self.check(inner, value, &here),
                Additional::None if !(node.embedded && is_meta(name)) => {
                    let detail = format!("{here} in body is a forbidden property");
                    self.causes.push(Cause::invalid(at, &Value::from(""), &detail));
                }
                Additional::None | Additional::Any | Additional::Unsaid => {}
            }
        }
        for name in &rules.required {
            if !fields.contains_key(name) {
                self.causes.push(Cause::required(Path::Field(at, name), ""));
            }
        }
    }

    fn refuse(&mut self, at: &Path<'_>, value: &Value, detail: impl Display) {
        self.causes.push(Cause::invalid(at, value, &format!("{at} in body {detail}")));
    }
}

/// How many alternatives hold, and the outcome to report: the first that holds, else the best of the others.
fn weigh(outcomes: impl Iterator<Item = Outcome>) -> (usize, Option<Outcome>) {
    let mut valid = 0;
    let mut best: Option<Outcome> = None;
    for outcome in outcomes {
        if outcome.causes.is_empty() {
            valid += 1;
            if valid == 1 {
                best = Some(outcome);
            }
        } else if valid == 0 && best.as_ref().is_none_or(|best| outcome.checks > best.checks) {
            best = Some(outcome);
        }
    }
    (valid, best)
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Integers, and numbers written with a fraction of zero as far as they are exact.
fn is_integer(number: &Number) -> bool {
    const EXACT: f64 = 9_007_199_254_740_991.0;
    number.is_i64() || number.as_f64().is_some_and(|n| n.fract() == 0.0 && n.abs() <= EXACT)
}

/// Is the number on the wrong side of the bound?
fn compare(number: &Number, bound: &Bound, beyond: impl Fn(f64, f64) -> bool) -> bool {
    let Some(number) = number.as_f64() else { return false };
    beyond(number, bound.value) || (bound.exclusive && number == bound.value)
}

fn is_multiple(number: &Number, factor: f64) -> bool {
    if factor <= 0.0 {
        return false;
    }
    match number.as_f64() {
        Some(number) => {
            let times = if factor < 1.0 { 1.0 / factor * number } else { number / factor };
            times.fract() == 0.0
        }
        None => false,
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}
