//! Comparing the transcripts of the two servers, and what is known to differ between them.
//!
//! Each entry of [`KNOWN`] is a difference that the page `docs/src/apiserver.md` tells of.

use serde_json::Value;

/// A difference that is accepted.
struct Known {
    /// The case, or `*`.
    case: &'static str,
    /// Part of the request; empty for every one.
    request: &'static str,
    /// Where in the note: a JSON pointer without indices, of which this is the beginning.
    at: &'static str,
}

const fn known(case: &'static str, request: &'static str, at: &'static str) -> Known {
    Known { case, request, at }
}

const KNOWN: &[Known] = &[
    // Words of Go's parsers.
    known("a_bad_object_is_not_created", "POST cm", "/body/message"),
    known("a_merge_patch_merges_and_null_removes", "PATCH cm/a", "/body/message"),
    known("pages_show_one_moment", "continue=", "/body/message"),
    known("requests_that_cannot_be_understood_are_told_so", "", "/body"),
    known("secrets_and_config_maps_keep_their_promises", "POST secrets", "/body/message"),
    known("selectors_that_make_no_sense_are_refused", "", "/body/message"),
    known("a_definition_is_checked", "POST", "/body/message"),
    known("a_definition_is_checked", "POST", "/body/details/causes/message"),
    known("an_update_must_mean_the_object_it_names", "PUT cm/a", "/body/message"),
    known("unknown_fields_of_built_in_kinds_are_told", "fieldValidation=Strict", "/body/message"),
    known("what_cannot_be_applied_is_refused", "PATCH cm/a", "/body/message"),
    known("what_cannot_be_applied_is_refused", "PATCH cm/a", "/body/details/causes/message"),
    // A JSON patch that fails says which operation it was.
    known("a_json_patch_does_all_or_nothing", "PATCH cm/a", "/body/message"),
    // Media types that are taken.
    known("a_custom_kind_has_no_strategic_patch", "PATCH gadgets/g", "/body/message"),
    known("random", "PATCH gadgets", "/body/message"),
    // What a patch made of an object is judged as an object.
    known("a_merge_patch_merges_and_null_removes", "PATCH cm/a", "/body/details"),
    known("what_identifies_an_object_cannot_be_patched", "PATCH cm/a", "/body/message"),
    known("what_identifies_an_object_cannot_be_patched", "PATCH cm/a", "/body/details/causes/message"),
    // Tables.
    known("objects_can_come_as_tables_and_as_metadata", "", "/body/columnDefinitions"),
    // Definitions are accepted at once.
    known("a_definition_serves_its_kind_until_it_goes", "customresourcedefinitions", "/body/metadata"),
    known("a_definition_serves_its_kind_until_it_goes", "customresourcedefinitions", "/body/status"),
    // Details of refusals.
    known("random", "PUT cm", "/body/message"),
    known("random", "PUT gadgets", "/body/message"),
    known("random", "PATCH cm", "/body/message"),
    known("status_is_written_through_its_subresource_only", "gadgets/g/status", "/body/details"),
    known("status_is_written_through_its_subresource_only", "gadgets/g/status", "/body/message"),
    known("scale_is_read_and_written_through_its_subresource", "PATCH scalers/s/scale", "/body/details"),
    known("scale_is_read_and_written_through_its_subresource", "PATCH scalers/s/scale", "/body/message"),
    // Warnings about fields that were pruned.
    known("an_update_without_a_version_is_refused", "PUT gadgets/g", "/warnings"),
    known("status_is_written_through_its_subresource_only", "PUT gadgets/g/status", "/warnings"),
    // What a list cannot be asked for.
    known("initial_events_end_with_a_bookmark_to_go_on_from", "GET cm?sendInitialEvents=true", ""),
    // Numbers and defaults.
    known("an_object_that_does_not_fit_is_refused_with_every_cause", "POST gadgets", "/body/spec/size"),
];

/// Fails with all differences that are not known.
pub(crate) fn compare(case: &str, embedded: &[Value], real: &[Value]) {
    let mut differences = Vec::new();
    let mut used = vec![false; KNOWN.len()];
    for (index, (ours, theirs)) in embedded.iter().zip(real).enumerate() {
        let what = ours["did"].as_str().or_else(|| ours["saw"].as_str()).unwrap_or_default();
        let mut found = Vec::new();
        differ("", ours, theirs, &mut found);
        found.retain(|(at, ours, theirs)| {
            let place = without_indices(at);
            let known = KNOWN.iter().position(|known| {
                (known.case == "*" || known.case == case)
                    && what.contains(known.request)
                    && place.starts_with(known.at)
            });
            if let Some(known) = known {
                used[known] = true;
                eprintln!("{case}: known: step {index} ({what}) at {at}: embedded {ours}, real {theirs}");
            }
            known.is_none()
        });
        differences.extend(found.into_iter().map(|(at, ours, theirs)| {
            format!("step {index} ({what}) at {at}:\n      embedded {ours}\n      real     {theirs}")
        }));
    }
    if embedded.len() != real.len() {
        differences.push(format!("{} steps embedded, {} steps real", embedded.len(), real.len()));
    }
    for (known, used) in KNOWN.iter().zip(used) {
        if known.case == case && known.case != "random" && !used {
            // Good news, and no reason to fail: the entry, and what the page says of it, can go.
            eprintln!("{case}: no longer differs: {} at {}", known.request, known.at);
        }
    }
    assert!(
        differences.is_empty(),
        "{case}: {} differences\n  {}",
        differences.len(),
        differences.join("\n  ")
    );
}

fn without_indices(pointer: &str) -> String {
    pointer.split('/').filter(|part| part.parse::<usize>().is_err()).collect::<Vec<_>>().join("/")
}

/// Collects where two values differ.
fn differ(at: &str, ours: &Value, theirs: &Value, found: &mut Vec<(String, Value, Value)>) {
    match (ours, theirs) {
        (Value::Object(left), Value::Object(right)) => {
            for name in left.keys().chain(right.keys().filter(|name| !left.contains_key(*name))) {
                let place = format!("{at}/{name}");
                let none = Value::Null;
                let (left, right) = (left.get(name).unwrap_or(&none), right.get(name).unwrap_or(&none));
                differ(&place, left, right, found);
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (index, (left, right)) in left.iter().zip(right).enumerate() {
                differ(&format!("{at}/{index}"), left, right, found);
            }
        }
        _ if ours == theirs => {}
        _ => found.push((at.to_owned(), ours.clone(), theirs.clone())),
    }
}
