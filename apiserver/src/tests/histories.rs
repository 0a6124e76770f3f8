//! Random histories against a model that is too simple to be wrong.

use crate::resource::{Behaviour, Resource};
use crate::selector::Filter;
use crate::store::{Change, Content, Key, OutOfRange, Pull, Store, Window, Write};
use crate::watch::{Kind, transition};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const STORAGE: &str = "/things";

fn changes(changes: usize) -> Window {
    Window { changes, bytes: usize::MAX }
}

/// One step: put (with a label) or remove one of a few names in one of two namespaces.
#[derive(Debug, Clone)]
enum Step {
    Put { name: u8, on: bool },
    Remove { name: u8 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..6u8, any::<bool>()).prop_map(|(name, on)| Step::Put { name, on }),
        1 => (0..6u8).prop_map(|name| Step::Remove { name }),
    ];
    proptest::collection::vec(step, 1..60)
}

fn key(name: u8) -> Key {
    Key::new(STORAGE, if name.is_multiple_of(2) { "a" } else { "a-b" }, &format!("n{name}"))
}

fn content(name: u8, on: bool, step: usize) -> Content {
    let labels = if on { json!({"on": "yes"}) } else { json!({}) };
    Content::from_value(&json!({"metadata": {"name": format!("n{name}"), "labels": labels}, "step": step}))
}

/// Path to (revision, content without type), for every revision: the whole past.
type States = Vec<(u64, BTreeMap<String, (u64, Value)>)>;

/// Carries out the steps, and keeps every state that there ever was.
fn play(store: &Store, steps: &[Step]) -> States {
    let mut states = vec![(store.revision(), BTreeMap::new())];
    for (number, step) in steps.iter().enumerate() {
        let mut state = states.last().map(|(_, state)| state.clone()).unwrap_or_default();
        let (key, put) = match step {
            Step::Put { name, on } => (key(*name), Some(content(*name, *on, number))),
            Step::Remove { name } => (key(*name), None),
        };
        let expected = state.get(key.path()).map(|(revision, _)| *revision);
        // From any other state than the present one nothing is written.
        assert!(store.commit(&key, Some(u64::MAX), Write::Remove).is_err());
        let write = match &put {
            Some(content) => Write::Put(content.clone()),
            None if expected.is_none() => continue,
            None => Write::Remove,
        };
        let Change { revision, .. } = store.commit(&key, expected, write).expect("the revision is right");
        match put {
            Some(content) => state.insert(key.path().to_owned(), (revision, content.to_value(None))),
            None => state.remove(key.path()),
        };
        states.push((revision, state));
    }
    states
}

fn seen(store: &Store, at: Option<u64>) -> Result<BTreeMap<String, (u64, Value)>, OutOfRange> {
    let snapshot = store.snapshot(STORAGE, at)?;
    let prefix = format!("{STORAGE}/");
    let all = snapshot.range(&prefix, None);
    Ok(all.map(|s| (s.key.path().to_owned(), (s.revision, s.content.to_value(None)))).collect())
}

fn filter() -> Filter {
    let resource = Resource::base(
        "".into(),
        "v1".into(),
        "things".into(),
        "thing".into(),
        "Thing".into(),
        true,
        STORAGE.into(),
        Behaviour::Builtin(crate::builtin::plain_rules()),
    );
    Filter::parse(&resource, "on=yes", "").expect("the selector is right")
}

/// What somebody sees who applies the events of a watch to a list.
fn follow(
    store: &Store,
    from: u64,
    selected: BTreeMap<String, (u64, Value)>,
) -> BTreeMap<String, (u64, Value)> {
    let (_, epoch) = store.subscribe(STORAGE);
    let filter = filter();
    let (mut position, mut view) = (from, selected);
    loop {
        let Pull::Changes(changes, seen) = store.changes_after(STORAGE, position, epoch, 3) else {
            panic!("the window is large enough")
        };
        if changes.is_empty() {
            return view;
        }
        for change in &changes {
            assert!(change.revision > position, "no change comes twice, and none too late");
            let Some((kind, content)) = transition(change, &filter) else { continue };
            let path =
                change.after.as_ref().or(change.before.as_ref()).expect("one of both").key.path().to_owned();
            let present = view.contains_key(&path);
            match kind {
                Kind::Added => assert!(!present, "added twice"),
                Kind::Modified | Kind::Deleted => assert!(present, "changed before it was added"),
            }
            if kind == Kind::Deleted {
                view.remove(&path);
            } else {
                view.insert(path, (change.revision, content.to_value(None)));
            }
        }
        position = seen;
    }
}

fn on(state: &BTreeMap<String, (u64, Value)>) -> BTreeMap<String, (u64, Value)> {
    let selected = |value: &Value| value["metadata"]["labels"]["on"] == "yes";
    state.iter().filter(|(_, (_, value))| selected(value)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

proptest! {
    #[test]
    fn every_kept_revision_shows_the_state_that_was(steps in steps(), window in 1..80usize) {
        let store = Store::new(changes(window), 1);
        let states = play(&store, &steps);
        let last = states.len() - 1;
        prop_assert_eq!(seen(&store, None).unwrap(), states[last].1.clone());
        for (back, (revision, state)) in states.iter().rev().enumerate() {
            match seen(&store, Some(*revision)) {
                Ok(found) => prop_assert_eq!(&found, state, "at {}", revision),
                Err(OutOfRange::Old { .. }) => prop_assert!(back > window.min(last), "forgotten too early"),
                Err(other) => prop_assert!(false, "{other:?}"),
            }
            if back < window {
                prop_assert!(seen(&store, Some(*revision)).is_ok(), "{} steps back of {}", back, window);
            }
        }
        let next = store.revision() + 1;
        prop_assert_eq!(seen(&store, Some(next)), Err(OutOfRange::Future { current: next - 1 }));
    }

    #[test]
    fn a_list_and_its_watch_lead_to_the_present_from_any_revision(steps in steps()) {
        let store = Store::new(changes(1000), 1);
        let states = play(&store, &steps);
        let present = on(&states[states.len() - 1].1);
        for (revision, state) in &states {
            prop_assert_eq!(follow(&store, *revision, on(state)), present.clone(), "from {}", revision);
        }
    }

    #[test]
    fn an_object_is_what_was_put(value in objects()) {
        let content = Content::from_value(&value);
        let mut expected = value;
        if let Some(fields) = expected.as_object_mut() {
            fields.remove("kind");
            fields.remove("apiVersion");
        }
        prop_assert_eq!(content.to_value(None), expected.clone());
        expected["metadata"]["resourceVersion"] = "7".into();
        prop_assert_eq!(content.to_value(Some(7)), expected);
    }
}

fn objects() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    let tree = leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(".{0,6}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    (".{0,8}", proptest::collection::btree_map("[a-z]{1,4}", tree, 0..4)).prop_map(|(name, rest)| {
        let mut object = json!({"kind": "K", "apiVersion": "v1", "metadata": {"name": name}});
        for (key, value) in rest.into_iter().filter(|(key, _)| key != "kind") {
            object[key] = value;
        }
        object
    })
}

#[test]
fn large_objects_are_forgotten_sooner() {
    let store = Store::new(Window { changes: 1000, bytes: 50_000 }, 1);
    let large = |n: u64| {
        Content::from_value(&json!({"metadata": {"name": "a"}, "data": format!("{n}{}", "x".repeat(1000))}))
    };
    let key = key(0);
    let mut last = store.commit(&key, None, Write::Put(large(0))).unwrap().revision;
    for n in 1..500 {
        last = store.commit(&key, Some(last), Write::Put(large(n))).unwrap().revision;
    }
    assert!(seen(&store, Some(last - 40)).is_ok());
    assert!(matches!(seen(&store, Some(last - 60)), Err(OutOfRange::Old { .. })));
    // Even if one alone is too large, the last few are there.
    let store = Store::new(Window { changes: 1000, bytes: 10 }, 1);
    let mut last = store.commit(&key, None, Write::Put(large(0))).unwrap().revision;
    for n in 1..30 {
        last = store.commit(&key, Some(last), Write::Put(large(n))).unwrap().revision;
    }
    assert!(seen(&store, Some(last - 16)).is_ok());
    assert!(seen(&store, Some(last - 17)).is_err());
}

#[test]
fn names_that_only_resemble_one_another_are_kept_apart() {
    let store = Store::new(changes(10), 1);
    for (namespace, name) in [("a", "b"), ("a-b", "c"), ("ab", "d"), ("", "a")] {
        let key = Key::new(STORAGE, namespace, name);
        assert_eq!((key.namespace(), key.name(), key.storage()), (namespace, name, STORAGE));
        store.commit(&key, None, Write::Put(content(1, false, 0))).unwrap();
    }
    let snapshot = store.snapshot(STORAGE, None).unwrap();
    let paths: Vec<&str> = snapshot.range("/things/a/", None).map(|s| s.key.path()).collect();
    assert_eq!(paths, ["/things/a/b"]);
}
