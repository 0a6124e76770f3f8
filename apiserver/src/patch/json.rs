//! RFC 6902, bounded: a short patch must not be able to build a huge or a bottomless document.

use json_patch::{PatchOperation, jsonptr::Pointer, patch_unsafe};
use serde_json::Value;

use super::{Error, name_of};

/// As many operations as a real API server takes in one patch.
const MAX_OPERATIONS: usize = 10_000;
/// Bytes that all `copy` operations of one patch may add together; copies of copies grow exponentially.
const MAX_COPIED: usize = 3 * 1024 * 1024;
/// Levels that an operation may build. A body itself is parsed with at most 128.
const MAX_DEPTH: usize = 256;

pub(super) fn apply(current: &Value, patch: Value) -> Result<Value, Error> {
    let Value::Array(operations) = patch else {
        return Err(Error::BadRequest(format!(
            "error decoding patch: expected an array of operations, found {}",
            name_of(&patch)
        )));
    };
    if operations.len() > MAX_OPERATIONS {
        return Err(Error::Unprocessable(format!(
            "the allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    if let Some(odd) = operations.iter().find(|operation| !operation.is_object()) {
        return Err(Error::BadRequest(format!(
            "error decoding patch: expected an operation, found {}",
            name_of(odd)
        )));
    }

    let mut next = current.clone();
    let mut copied = 0;
    for (index, operation) in operations.into_iter().enumerate() {
        let operation: PatchOperation = serde_json::from_value(operation)
            .map_err(|e| Error::Unprocessable(format!("operation {index}: {e}")))?;
        if tests_absence(&next, &operation) {
            continue;
        }
        check_bounds(&next, &operation, &mut copied)
            .map_err(|reason| Error::Unprocessable(format!("operation {index}: {reason}")))?;
        patch_unsafe(&mut next, &[operation])
            .map_err(|e| Error::Unprocessable(format!("operation {index} at \"{}\": {}", e.path, e.kind)))?;
    }
    Ok(next)
}

/// A `test` for null holds where nothing is, as with a real server.
fn tests_absence(document: &Value, operation: &PatchOperation) -> bool {
    matches!(operation, PatchOperation::Test(test) if test.value.is_null() && at(document, &test.path).is_none())
}

fn check_bounds(document: &Value, operation: &PatchOperation, copied: &mut usize) -> Result<(), String> {
    let added = match operation {
        PatchOperation::Add(add) => depth(&add.value),
        PatchOperation::Replace(replace) => depth(&replace.value),
        PatchOperation::Move(moved) => at(document, &moved.from).map_or(0, depth),
        PatchOperation::Copy(copy) => match at(document, &copy.from) {
            Some(source) => {
                *copied = copied.saturating_add(size(source));
                if *copied > MAX_COPIED {
                    return Err(format!("the copy operations together exceed {MAX_COPIED} bytes"));
                }
                depth(source)
            }
            None => 0,
        },
        PatchOperation::Remove(_) | PatchOperation::Test(_) => 0,
    };
    if operation.path().tokens().count().saturating_add(added) > MAX_DEPTH {
        return Err(format!("the document would be nested deeper than {MAX_DEPTH} levels"));
    }
    Ok(())
}

fn at<'a>(document: &'a Value, pointer: &Pointer) -> Option<&'a Value> {
    document.pointer(pointer.as_str())
}

/// Recursion is safe here: documents come from the parser, or were bounded by this module.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Roughly what the value takes as text.
fn size(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(|item| 1 + size(item)).sum::<usize>() + 2,
        Value::Object(fields) => {
            fields.iter().map(|(name, field)| name.len() + 4 + size(field)).sum::<usize>() + 2
        }
        Value::String(text) => text.len() + 2,
        _ => 4,
    }
}
