//! What users of the Go project run into, each symptom a test: it must not happen here.

mod deleted;
mod lost;
