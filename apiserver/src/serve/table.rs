//! Tables: what `kubectl get` prints.

use crate::resource::{Cell, Column, Resource};
use jiff::Timestamp;
use serde_json::{Value, json};

/// How much of each object accompanies its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Include {
    Nothing,
    Metadata,
    Object,
}

impl Include {
    /// From the `includeObject` parameter; metadata if it says nothing.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "Metadata" => Some(Self::Metadata),
            "None" => Some(Self::Nothing),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

/// The time since `stamp`, as kubectl writes it.
pub(crate) fn age(stamp: &Value, now: i64) -> Value {
    match stamp.as_str().and_then(|text| text.parse::<Timestamp>().ok()) {
        Some(then) => human_duration(now - then.as_second()).into(),
        None => "<unknown>".into(),
    }
}

/// At most two units, the finer one only while it matters.
pub(crate) fn human_duration(seconds: i64) -> String {
    if seconds < -1 {
        return "<invalid>".into();
    }
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |big: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{small_unit}") }
    };
    if seconds < 120 {
        format!("{seconds}s")
    } else if minutes < 10 {
        two(minutes, "m", seconds % 60, "s")
    } else if minutes < 180 {
        format!("{minutes}m")
    } else if hours < 8 {
        two(hours, "h", minutes % 60, "m")
    } else if hours < 48 {
        format!("{hours}h")
    } else if days < 8 {
        two(days, "d", hours % 24, "h")
    } else if days < 730 {
        format!("{days}d")
    } else if days < 8 * 365 {
        two(days / 365, "y", days % 365, "d")
    } else {
        format!("{}y", days / 365)
    }
}

fn definition(column: &Column) -> Value {
    json!({
        "name": column.name,
        "type": column.kind,
        "format": column.format,
        "description": column.description,
        "priority": column.priority,
    })
}

fn cell(column: &Column, object: &Value, now: i64) -> Value {
    let path = match &column.cell {
        Cell::Computed(compute) => return compute(object, now),
        Cell::Path(path) => path,
    };
    let Some(found) = path.find(object).into_iter().next() else { return Value::Null };
    match (&*column.kind, found) {
        ("date", stamp) => age(stamp, now),
        ("integer", Value::Number(number)) => number.as_i64().map_or_else(|| found.clone(), Value::from),
        ("integer" | "number" | "boolean", other) => {
            let fits = match &*column.kind {
                "boolean" => other.is_boolean(),
                _ => other.is_number(),
            };
            if fits { other.clone() } else { Value::Null }
        }
        (_, Value::String(text)) => text.clone().into(),
        (_, Value::Null) => Value::Null,
        (_, other) => other.to_string().into(),
    }
}

fn accompanying(include: Include, object: Value) -> Value {
    match include {
        Include::Nothing => Value::Null,
        Include::Object => object,
        Include::Metadata => json!({
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": object["metadata"],
        }),
    }
}

/// The row of one object.
pub(crate) fn row(resource: &Resource, include: Include, object: Value, now: i64) -> Value {
    let cells: Vec<Value> = resource.columns.iter().map(|column| cell(column, &object, now)).collect();
    json!({"cells": cells, "object": accompanying(include, object)})
}

/// The row of a bookmark, which has no cells.
pub(crate) fn bookmark_row(include: Include, object: &Value) -> Value {
    json!({"cells": [], "object": accompanying(include, object.clone())})
}

/// A table; without a resource it repeats no column definitions.
pub(crate) fn table(resource: Option<&Resource>, metadata: Value, rows: Vec<Value>) -> Value {
    let columns: Vec<Value> = resource.into_iter().flat_map(|r| r.columns.iter().map(definition)).collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": columns,
        "rows": rows,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_written_as_kubectl_writes_them() {
        for (seconds, expected) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (185, "3m5s"),
            (600, "10m"),
            (179 * 60, "179m"),
            (180 * 60, "3h"),
            (3 * 3600 + 120, "3h2m"),
            (8 * 3600, "8h"),
            (47 * 3600, "47h"),
            (48 * 3600, "2d"),
            (50 * 3600, "2d2h"),
            (8 * 86_400, "8d"),
            (729 * 86_400, "729d"),
            (730 * 86_400, "2y"),
            (-5, "<invalid>"),
        ] {
            assert_eq!(human_duration(seconds), expected, "{seconds}");
        }
    }
}
