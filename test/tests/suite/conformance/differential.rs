//! Random sequences of operations over few names.
//!
//! Embedded only: whatever is done, revisions grow, a watch from before replays to what a list shows, pages add
//! up to the whole, and a refused request changes nothing. With a real server: the transcripts agree.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::lab::{Lab, config_map, gadget, version};

/// The kinds the operations are about.
const KINDS: [&str; 2] = ["cm", "gadgets"];
const NAMES: [&str; 3] = ["a", "b", "c"];
/// What the watches see: everything, and what has one label.
const SELECTORS: [&str; 2] = ["", "labelSelector=l%3D1&"];
/// The object that is created at the end, so that watches know it.
const LAST: &str = "zz-last";

/// One thing to do to the object with this kind and name.
#[derive(Debug, Clone)]
struct Step {
    kind: usize,
    name: usize,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Create {
        value: u8,
        finalizer: bool,
    },
    /// PUT of what is there, changed.
    PutFresh {
        value: u8,
    },
    /// PUT of what was there first.
    PutStale {
        value: u8,
    },
    /// PUT without a version.
    PutBlind {
        value: u8,
    },
    Merge {
        value: u8,
    },
    /// A merge patch with the version of what was there first.
    MergeStale {
        value: u8,
    },
    JsonTest {
        expected: u8,
        value: u8,
    },
    JsonRemove,
    Strategic {
        value: u8,
    },
    Status {
        value: u8,
    },
    Label {
        value: Option<u8>,
    },
    Finalizers {
        count: u8,
    },
    Delete,
    DeletePrecondition {
        fresh: bool,
    },
    /// A server-side apply of the parts that the bits of `parts` stand for.
    Apply {
        parts: u8,
        value: u8,
        manager: u8,
        force: bool,
    },
    ApplyStatus {
        value: u8,
        manager: u8,
    },
    /// The same parts in a merge patch.
    MergeParts {
        parts: u8,
        value: u8,
        manager: u8,
    },
    DryDelete,
    DryCreate {
        value: u8,
    },
    /// Of a collection, by label.
    DeleteLabelled {
        value: u8,
    },
    Get,
    ListLabelled {
        value: u8,
    },
    Pages {
        limit: u8,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let value = 0_u8..3;
    let what = prop_oneof![
        6 => (value.clone(), prop::bool::weighted(0.3)).prop_map(|(value, finalizer)| What::Create { value, finalizer }),
        3 => value.clone().prop_map(|value| What::PutFresh { value }),
        2 => value.clone().prop_map(|value| What::PutStale { value }),
        1 => value.clone().prop_map(|value| What::PutBlind { value }),
        3 => value.clone().prop_map(|value| What::Merge { value }),
        1 => value.clone().prop_map(|value| What::MergeStale { value }),
        1 => (value.clone(), value.clone()).prop_map(|(expected, value)| What::JsonTest { expected, value }),
        1 => Just(What::JsonRemove),
        1 => value.clone().prop_map(|value| What::Strategic { value }),
        2 => value.clone().prop_map(|value| What::Status { value }),
        3 => prop::option::of(value.clone()).prop_map(|value| What::Label { value }),
        1 => value.clone().prop_map(|value| What::DryCreate { value }),
        1 => value.clone().prop_map(|value| What::DeleteLabelled { value }),
        1 => value.clone().prop_map(|value| What::ListLabelled { value }),
        2 => (0_u8..3).prop_map(|count| What::Finalizers { count }),
        4 => Just(What::Delete),
        1 => any::<bool>().prop_map(|fresh| What::DeletePrecondition { fresh }),
        6 => (any::<u8>(), value.clone(), 0_u8..3, prop::bool::weighted(0.3))
            .prop_map(|(parts, value, manager, force)| What::Apply { parts, value, manager, force }),
        1 => (value.clone(), 0_u8..3).prop_map(|(value, manager)| What::ApplyStatus { value, manager }),
        3 => (any::<u8>(), value, 0_u8..3)
            .prop_map(|(parts, value, manager)| What::MergeParts { parts, value, manager }),
        1 => Just(What::DryDelete),
        1 => Just(What::Get),
        1 => (1_u8..3).prop_map(|limit| What::Pages { limit }),
    ];
    let step =
        (0..KINDS.len(), 0..NAMES.len(), what).prop_map(|(kind, name, what)| Step { kind, name, what });
    prop::collection::vec(step, 1..25)
}

fn object(kind: usize, name: &str, value: u8) -> Value {
    match kind {
        0 => config_map(name, json!({"v": value.to_string()})),
        _ => gadget(name, json!({"size": value + 1})),
    }
}

/// Some parts of an object, which different managers may own.
fn some_parts(kind: usize, name: &str, parts: u8, value: u8) -> Value {
    let mut object = object(kind, name, value);
    let has = |bit: u8| parts & (1 << bit) != 0;
    if has(0) {
        object["metadata"]["labels"] = json!({"l": value.to_string()});
    }
    if has(1) && has(7) {
        object["metadata"]["finalizers"] = json!(["a.b/0"]);
    }
    let field = if kind == 0 { "data" } else { "spec" };
    let all = match kind {
        0 => [
            json!({"v": value.to_string()}),
            json!({"w": "1"}),
            json!({"x": value.to_string(), "y": "1"}),
            json!({}),
        ],
        _ => [
            json!({"size": value + 1}),
            json!({"parts": [{"name": format!("p{value}"), "count": value}, {"name": "q"}]}),
            json!({"tags": ["u", format!("t{value}")], "options": {format!("o{value}"): true, "o": false}}),
            json!({"free": {"a": {format!("b{value}"): value}, "c": [value]}}),
        ],
    };
    let chosen = all.into_iter().enumerate().filter(|(bit, _)| has(*bit as u8 + 2));
    let fields = chosen.filter_map(|(_, part)| part.as_object().cloned()).flatten();
    object[field] = Value::Object(fields.collect());
    object
}

/// A merge patch that sets the value.
fn change(kind: usize, value: u8) -> Value {
    match kind {
        0 => json!({"data": {"v": value.to_string()}}),
        _ => json!({"spec": {"size": value + 1}}),
    }
}

/// What a client remembers of each object: the first and the last state it saw.
type Memory = BTreeMap<(usize, usize), (Value, Value)>;

/// Carries out the steps and checks what must hold on any server.
async fn carry_out(lab: &mut Lab, steps: &[Step]) {
    let mut memory = Memory::new();
    let mut watches = Vec::new();
    for kind in KINDS {
        let list = lab.get(kind).await.ok();
        for selector in SELECTORS {
            let query = format!("{kind}?{selector}resourceVersion={}", version(&list));
            watches.push((kind, selector, lab.watch(&query).await, query));
        }
    }
    for step in steps {
        let revision = |value: &Value| version(value).parse::<u64>().expect("a number");
        let reply = one(lab, step, &memory).await;
        assert_ne!(reply.code / 100, 5, "{step:?}: {}", reply.body);
        let dry = matches!(step.what, What::DryDelete | What::DryCreate { .. });
        if reply.code / 100 == 2 && reply.body["metadata"]["name"] == NAMES[step.name] && !dry {
            let entry = memory.entry((step.kind, step.name));
            let seen = entry.or_insert_with(|| (reply.body.clone(), reply.body.clone()));
            if seen.1["metadata"]["uid"] == reply.body["metadata"]["uid"] {
                assert!(revision(&reply.body) >= revision(&seen.1), "{step:?} went back in time");
            }
            seen.1 = reply.body;
        }
    }
    for (index, kind) in KINDS.into_iter().enumerate() {
        let mut last = object(index, LAST, 0);
        last["metadata"]["labels"] = json!({"l": "1"});
        lab.post(kind, &last).await.created();
    }
    for (kind, selector, mut watch, query) in watches {
        let events = watch.until_name(LAST).await;
        let list = lab.get(&format!("{kind}?{selector}")).await.ok();
        replay_equals(&events, &list);
        let mut again = lab.watch(&query).await;
        assert_eq!(again.until_name(LAST).await, events, "a second watch of {kind} tells something else");
        lab.saw(&format!("{kind}?{selector}"), &events);
    }
}

/// Events carry growing revisions, and add up to the list.
fn replay_equals(events: &[Value], list: &Value) {
    let mut state: BTreeMap<String, Value> = BTreeMap::new();
    let mut latest = 0;
    for event in events {
        let object = &event["object"];
        let revision = version(object).parse::<u64>().expect("a number");
        assert!(revision > latest, "revision {revision} after {latest}");
        latest = revision;
        let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
        let uid = object["metadata"]["uid"].clone();
        let before = match event["type"].as_str() {
            Some("DELETED") => state.remove(&name).map(|_| true),
            Some("ADDED") => state.insert(name.clone(), object.clone()).map_or(Some(true), |_| None),
            Some("MODIFIED") => {
                state.insert(name.clone(), object.clone()).map(|old| old["metadata"]["uid"] == uid)
            }
            other => panic!("unexpected event {other:?}"),
        };
        assert_eq!(
            before,
            Some(true),
            "{} of {name} does not follow from what was told before",
            event["type"]
        );
    }
    let items = list["items"].as_array().expect("items");
    let listed: BTreeMap<_, _> = items
        .iter()
        .map(|item| (item["metadata"]["name"].as_str().expect("a name").to_owned(), version(item)))
        .collect();
    let replayed: BTreeMap<_, _> =
        state.iter().map(|(name, object)| (name.clone(), version(object))).collect();
    assert_eq!(replayed, listed, "the events do not add up to the list");
}

async fn one(lab: &mut Lab, step: &Step, memory: &Memory) -> super::lab::Reply {
    let (kind, name) = (KINDS[step.kind], NAMES[step.name]);
    let path = format!("{kind}/{name}");
    let seen = memory.get(&(step.kind, step.name));
    let with = |base: &Value, value: u8| {
        let mut next = base.clone();
        for (part, new) in change(step.kind, value).as_object().expect("object") {
            next[part] = new.clone();
        }
        next
    };
    match &step.what {
        What::Create { value, finalizer } => {
            let mut object = object(step.kind, name, *value);
            if *finalizer {
                object["metadata"]["finalizers"] = json!(["a.b/0"]);
            }
            lab.post(kind, &object).await
        }
        What::PutFresh { value } => match seen {
            Some((_, last)) => lab.put(&path, &with(last, *value)).await,
            None => lab.put(&path, &object(step.kind, name, *value)).await,
        },
        What::PutStale { value } => match seen {
            Some((first, _)) => lab.put(&path, &with(first, *value)).await,
            None => lab.get(&path).await,
        },
        What::PutBlind { value } => lab.put(&path, &object(step.kind, name, *value)).await,
        What::Merge { value } => lab.patch("merge", &path, &change(step.kind, *value)).await,
        What::MergeStale { value } => {
            let mut patch = change(step.kind, *value);
            if let Some((first, _)) = seen {
                patch["metadata"] = json!({"resourceVersion": version(first)});
            }
            lab.patch("merge", &path, &patch).await
        }
        What::JsonTest { expected, value } => {
            let (pointer, test, new) = match step.kind {
                0 => ("/data/v", json!(expected.to_string()), json!(value.to_string())),
                _ => ("/spec/size", json!(expected + 1), json!(value + 1)),
            };
            let patch = json!([
                {"op": "test", "path": pointer, "value": test},
                {"op": "replace", "path": pointer, "value": new},
            ]);
            lab.patch("json", &path, &patch).await
        }
        What::JsonRemove => {
            let pointer = if step.kind == 0 { "/data/v" } else { "/spec/size" };
            lab.patch("json", &path, &json!([{"op": "remove", "path": pointer}])).await
        }
        What::Strategic { value } => lab.patch("strategic", &path, &change(step.kind, *value)).await,
        What::Status { value } => {
            let patch = json!({"status": {"phase": value.to_string()}});
            let target = if step.kind == 0 { path } else { format!("{path}/status") };
            lab.patch("merge", &target, &patch).await
        }
        What::Label { value } => {
            let patch = json!({"metadata": {"labels": {"l": value.map(|value| value.to_string())}}});
            lab.patch("merge", &path, &patch).await
        }
        What::Finalizers { count } => {
            let finalizers: Vec<_> = (0..*count).map(|number| format!("a.b/{number}")).collect();
            lab.patch("merge", &path, &json!({"metadata": {"finalizers": finalizers}})).await
        }
        What::Delete => lab.delete(&path).await,
        What::DeletePrecondition { fresh } => {
            let known = seen.map(|(first, last)| if *fresh { version(last) } else { version(first) });
            let known = known.unwrap_or_else(|| "1".to_owned());
            lab.delete_with(&path, &json!({"preconditions": {"resourceVersion": known}})).await
        }
        What::DryCreate { value } => {
            lab.post(&format!("{kind}?dryRun=All"), &object(step.kind, name, *value)).await
        }
        What::DeleteLabelled { value } => lab.delete(&format!("{kind}?labelSelector=l%3D{value}")).await,
        What::ListLabelled { value } => lab.get(&format!("{kind}?labelSelector=l%3D{value}")).await,
        What::Apply { parts, value, manager, force } => {
            let config = some_parts(step.kind, name, *parts, *value);
            lab.apply_with(&path, &format!("fieldManager=m{manager}&force={force}"), &config).await
        }
        What::ApplyStatus { value, manager } if step.kind == 1 => {
            let mut config = gadget(name, json!({}));
            config.as_object_mut().expect("an object").remove("spec");
            config["status"] = json!({"phase": value.to_string()});
            lab.apply(&format!("{path}/status"), &format!("m{manager}"), &config).await
        }
        What::ApplyStatus { .. } => lab.get(&path).await,
        What::MergeParts { parts, value, manager } => {
            let patch = some_parts(step.kind, name, *parts, *value);
            lab.patch("merge", &format!("{path}?fieldManager=m{manager}"), &patch).await
        }
        What::DryDelete => lab.delete(&format!("{path}?dryRun=All")).await,
        What::Get => lab.get(&path).await,
        What::Pages { limit } => {
            let whole = lab.get(kind).await.ok();
            let mut names = Vec::new();
            let mut next = String::new();
            loop {
                let page = lab.get(&format!("{kind}?limit={limit}&continue={next}")).await;
                let items = page.body["items"].as_array().cloned().unwrap_or_default();
                names.extend(items.into_iter().map(|item| item["metadata"]["name"].clone()));
                next = page.body["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
                if next.is_empty() {
                    let all: Vec<_> = whole["items"]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .map(|i| i["metadata"]["name"].clone())
                        .collect();
                    assert_eq!(names, all, "the pages do not add up to the list");
                    return page;
                }
            }
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

#[cfg(not(feature = "real-cluster"))]
proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_must_always_hold_holds_after_any_operations(steps in steps()) {
        runtime().block_on(async {
            let mut lab = Lab::embedded("random").await;
            carry_out(&mut lab, &steps).await;
        });
    }
}

#[cfg(feature = "real-cluster")]
proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_servers_answer_any_operations_in_the_same_way(steps in steps()) {
        runtime().block_on(async {
            let mut embedded = Lab::embedded("random").await;
            carry_out(&mut embedded, &steps).await;
            let mut real = Lab::real("random").await;
            carry_out(&mut real, &steps).await;
            super::known::compare("random", &embedded.transcript(), &real.transcript());
        });
    }
}
