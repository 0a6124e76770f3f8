//! YAML as Kubernetes people write it: deep schemas, several documents in a file.

use serde_json::Value;
use serde_saphyr::Options;

/// Schemas of custom resources nest deeper than other documents. What is stored has to be readable as JSON again,
/// which ends at a depth of 128.
const DEPTH: usize = 120;

fn options() -> Options {
    serde_saphyr::options! { budget: serde_saphyr::budget! { max_depth: DEPTH } }
}

/// Reads a text with one document.
pub(crate) fn one(text: &str) -> Result<Value, serde_saphyr::Error> {
    serde_saphyr::from_str_with_options(text, options())
}

/// Reads every document of a text.
pub(crate) fn documents(text: &str) -> Result<Vec<Value>, serde_saphyr::Error> {
    serde_saphyr::from_multiple_with_options(text, options())
}

/// Writes a document.
pub(crate) fn write(value: &Value) -> Result<String, serde_saphyr::ser::Error> {
    serde_saphyr::to_string(value)
}
