//! The Rust client: its watcher, in both ways it can begin, and many writers at once.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::PostParams,
    runtime::watcher::{Config, Event, watcher},
};
use serde_json::{Value, json};

use super::lab::{DEADLINE, Lab, config_map, version};

pub(crate) async fn a_list_watch_of_the_rust_client_sees_every_state(lab: &mut Lab) {
    observe(lab, Config::default().page_size(2)).await;
}

pub(crate) async fn a_streaming_list_of_the_rust_client_sees_every_state(lab: &mut Lab) {
    observe(lab, Config::default().streaming_lists()).await;
}

/// What a watcher of the lab's config maps comes to know, event by event.
struct Observer {
    events: std::pin::Pin<
        Box<dyn futures::Stream<Item = Result<Event<ConfigMap>, kube::runtime::watcher::Error>> + Send>,
    >,
    known: BTreeMap<String, Value>,
    told: Vec<String>,
}

impl Observer {
    async fn next(&mut self) {
        let event = tokio::time::timeout(DEADLINE, self.events.next()).await;
        let event = event.expect("an event in time").expect("a watcher does not end").expect("no error");
        let (word, object) = match event {
            Event::Init => ("init", None),
            Event::InitApply(object) => ("init apply", Some(object)),
            Event::InitDone => ("init done", None),
            Event::Apply(object) => ("apply", Some(object)),
            Event::Delete(object) => ("delete", Some(object)),
        };
        let name = object.as_ref().and_then(|object| object.metadata.name.clone()).unwrap_or_default();
        match (word, &object) {
            ("delete", _) => {
                self.known.remove(&name);
            }
            (_, Some(object)) => {
                self.known.insert(name.clone(), json!(object.data));
            }
            _ => {}
        }
        self.told.push(format!("{word} {name}"));
    }

    async fn until(&mut self, wished: impl Fn(&Self) -> bool) {
        while !wished(self) {
            self.next().await;
        }
    }
}

async fn observe(lab: &mut Lab, config: Config) {
    for name in ["a", "b", "c"] {
        lab.post("cm", &config_map(name, json!({}))).await.created();
    }
    let api: Api<ConfigMap> = Api::namespaced(lab.client(), lab.namespace());
    let events = Box::pin(watcher(api, config));
    let mut observer = Observer { events, known: BTreeMap::new(), told: Vec::new() };
    observer.until(|seen| seen.told.last().is_some_and(|last| last.starts_with("init done"))).await;
    // A streaming list of this client begins with what the server's cache has, which may be behind.
    observer.until(|seen| seen.known.len() == 3).await;
    lab.patch("merge", "cm/b", &json!({"data": {"k": "1"}})).await.ok();
    lab.delete("cm/a").await.ok();
    lab.post("cm", &config_map("a", json!({"k": "2"}))).await.created();
    observer.until(|seen| seen.told.iter().any(|told| told == "apply a")).await;
    assert_eq!(observer.known["b"], json!({"k": "1"}));
    assert_eq!(observer.known["a"], json!({"k": "2"}));
    assert!(observer.told.contains(&"delete a".to_owned()), "{:?}", observer.told);
    lab.note(json!({"saw": "what the watcher came to know", "known": observer.known}));
}

/// Writers of one object, each adding so many times.
const WRITERS: usize = 6;
const ADDITIONS: usize = 10;

pub(crate) async fn no_update_is_lost_when_many_write_at_once(lab: &mut Lab) {
    let made = lab.post("cm", &config_map("counter", json!({"n": "0"}))).await.created();
    let mut watch = lab.watch(&format!("cm?resourceVersion={}", version(&made))).await;
    let api: Api<ConfigMap> = Api::namespaced(lab.client(), lab.namespace());
    let writers = (0..WRITERS).map(|_| async {
        for _ in 0..ADDITIONS {
            loop {
                let mut map = api.get("counter").await.expect("it is there");
                let data = map.data.get_or_insert_default();
                let count: usize = data["n"].parse().expect("a number");
                data.insert("n".to_owned(), (count + 1).to_string());
                match api.replace("counter", &PostParams::default(), &map).await {
                    Ok(_) => break,
                    Err(kube::Error::Api(status)) if status.is_conflict() => {}
                    Err(other) => panic!("{other}"),
                }
            }
        }
    });
    futures::future::join_all(writers).await;
    let counted = lab.get("cm/counter").await.ok();
    assert_eq!(counted["data"]["n"], (WRITERS * ADDITIONS).to_string());
    let events = watch.take(WRITERS * ADDITIONS).await;
    let counts: Vec<usize> = events
        .iter()
        .map(|event| event["object"]["data"]["n"].as_str().expect("n").parse().expect("a number"))
        .collect();
    assert_eq!(counts, (1..=WRITERS * ADDITIONS).collect::<Vec<_>>(), "the watch tells another story");
    let versions: BTreeSet<_> = events.iter().map(|event| version(&event["object"])).collect();
    assert_eq!(versions.len(), events.len(), "two states share a version");
}
