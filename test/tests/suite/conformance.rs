//! The same cases against the embedded API server and against a real kube-apiserver.
//!
//! A case does requests and asserts what every API server must answer. All that came back is kept, too, as a
//! [`lab::Lab`] transcript without the accidents of the day (times, UIDs, revisions, generated names). In the
//! binary `suite` the cases run against the embedded server alone. In the binary `real` each runs against
//! both, and the transcripts have to be equal but for what [`known`] lists and `docs/src/apiserver.md` tells.

mod apply;
mod argocd;
mod clients;
mod custom;
mod definitions;
mod deletion;
mod differential;
#[cfg(feature = "real-cluster")]
mod known;
#[cfg(feature = "real-cluster")]
mod kubectl;
mod lab;
mod lists;
mod namespaces;
#[cfg(not(feature = "real-cluster"))]
mod nonsense;
mod patches;
mod transcript;
mod watches;
mod writes;

use lab::Lab;

/// Every case, as `module: function`, handed to a macro that makes tests of them.
macro_rules! every_case {
    ($make:ident) => {
        $make! {
            apply: what_is_not_there_is_created_by_apply;
            apply: a_field_of_another_is_a_conflict;
            apply: force_takes_fields_from_others;
            apply: what_is_no_longer_applied_goes;
            apply: a_field_of_several_goes_with_the_last;
            apply: every_writer_is_noted;
            apply: the_oldest_of_many_writers_are_forgotten;
            apply: lists_with_keys_are_owned_item_by_item;
            apply: sets_are_owned_value_by_value;
            apply: custom_resources_are_owned_by_their_schema;
            apply: status_is_applied_through_its_subresource_only;
            apply: a_dry_apply_leaves_no_trace;
            apply: what_cannot_be_applied_is_refused;
            apply: a_watch_sees_an_apply_as_any_write;
            apply: kubectl_may_take_over_what_it_applied_in_the_old_way;
            apply: a_definition_can_be_applied;
            apply: versions_of_a_kind_share_their_managers;
            apply: events_have_managers_in_both_of_their_groups;
            argocd: unknown_fields_of_an_application_are_kept_where_its_schema_says_so;
            argocd: an_application_needs_what_its_schema_requires;
            argocd: an_application_has_no_status_subresource;
            clients: a_list_watch_of_the_rust_client_sees_every_state;
            clients: a_streaming_list_of_the_rust_client_sees_every_state;
            clients: no_update_is_lost_when_many_write_at_once;
            custom: unknown_fields_are_pruned_and_named;
            custom: strict_validation_refuses_unknown_fields;
            custom: defaults_are_filled_in;
            custom: an_object_that_does_not_fit_is_refused_with_every_cause;
            custom: alternatives_lists_and_formats_are_checked;
            custom: generation_counts_changes_of_the_spec;
            custom: without_a_status_subresource_status_is_as_any_field;
            custom: status_is_written_through_its_subresource_only;
            custom: an_update_without_a_version_is_refused;
            custom: a_cluster_wide_kind_has_no_namespace;
            custom: scale_is_read_and_written_through_its_subresource;
            definitions: a_definition_is_checked;
            definitions: a_definition_serves_its_kind_until_it_goes;
            deletion: a_plain_object_goes_at_once;
            deletion: a_finalizer_holds_an_object_until_it_is_taken_out;
            deletion: preconditions_are_honoured;
            deletion: a_collection_is_deleted_by_selector;
            deletion: nothing_new_can_hold_an_object_that_is_going;
            lists: pages_show_one_moment;
            lists: selectors_choose;
            lists: selectors_that_make_no_sense_are_refused;
            lists: versions_can_be_asked_for;
            lists: objects_can_come_as_tables_and_as_metadata;
            namespaces: nothing_is_created_where_no_namespace_is;
            namespaces: a_namespace_that_is_going_takes_nothing_new;
            patches: a_merge_patch_merges_and_null_removes;
            patches: a_json_patch_does_all_or_nothing;
            patches: a_strategic_patch_knows_the_keys_of_built_in_kinds;
            patches: a_custom_kind_has_no_strategic_patch;
            patches: a_patch_can_carry_a_version;
            patches: what_identifies_an_object_cannot_be_patched;
            watches: changes_after_a_list_are_told_in_order;
            watches: without_a_version_what_is_there_comes_first;
            watches: a_selector_sees_objects_come_and_go;
            watches: initial_events_end_with_a_bookmark_to_go_on_from;
            watches: a_version_that_is_gone_is_an_error_event;
            watches: a_watch_lasts_as_long_as_it_was_asked_to;
            watches: a_deleted_object_carries_the_revision_of_its_end;
            writes: an_object_is_created_once;
            writes: a_bad_object_is_not_created;
            writes: names_are_generated;
            writes: an_update_that_changes_nothing_is_no_event;
            writes: a_stale_update_is_a_conflict;
            writes: an_update_must_mean_the_object_it_names;
            writes: a_dry_run_leaves_no_trace;
            writes: unknown_fields_of_built_in_kinds_are_told;
            writes: requests_that_cannot_be_understood_are_told_so;
            writes: secrets_and_config_maps_keep_their_promises;
            writes: a_lease_can_be_created_by_put;
        }
    };
}

#[cfg(not(feature = "real-cluster"))]
macro_rules! against_the_embedded_server {
    ($($module:ident: $case:ident;)*) => {
        mod embedded {
            $(
                #[tokio::test]
                async fn $case() {
                    let mut lab = super::Lab::embedded(stringify!($case)).await;
                    super::$module::$case(&mut lab).await;
                    assert!(!lab.transcript().is_empty(), "the case did nothing");
                }
            )*
        }
    };
}

#[cfg(not(feature = "real-cluster"))]
every_case!(against_the_embedded_server);

#[cfg(feature = "real-cluster")]
macro_rules! against_both_servers {
    ($($module:ident: $case:ident;)*) => {
        mod both {
            $(
                #[tokio::test]
                async fn $case() {
                    // The real one first: it is right by definition, also about what a case asserts.
                    let mut real = super::Lab::real(stringify!($case)).await;
                    super::$module::$case(&mut real).await;
                    let mut embedded = super::Lab::embedded(stringify!($case)).await;
                    super::$module::$case(&mut embedded).await;
                    super::known::compare(stringify!($case), &embedded.transcript(), &real.transcript());
                }
            )*
        }
    };
}

#[cfg(feature = "real-cluster")]
every_case!(against_both_servers);
