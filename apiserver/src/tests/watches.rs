use super::*;
use futures::StreamExt;
use http_body_util::BodyStream;
use std::time::Duration;

/// An open watch, read line by line.
struct Lines {
    body: BodyStream<crate::ResponseBody>,
    buffer: String,
}

impl Lines {
    async fn open(server: &ApiServer, path: &str) -> Self {
        let request = Request::get(path).body(kube::client::Body::empty()).unwrap();
        let response = server.service().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        Self { body: BodyStream::new(response.into_body()), buffer: String::new() }
    }

    /// The next event; nothing when the watch has ended.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.find('\n') {
                let line: String = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_str(&line).unwrap());
            }
            let frame =
                tokio::time::timeout(Duration::from_secs(120), self.body.next()).await.expect("no event")?;
            self.buffer.push_str(std::str::from_utf8(frame.unwrap().data_ref().unwrap()).unwrap());
        }
    }

    /// Type and name of the next event.
    async fn event(&mut self) -> (String, String) {
        let event = self.next().await.expect("the watch has ended");
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        (text(&event["type"]), text(&event["object"]["metadata"]["name"]))
    }
}

fn event(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

#[tokio::test]
async fn a_watch_tells_what_is_there_and_then_what_happens() {
    let server = server();
    post(&server, MAPS, config_map("a", json!({}))).await;
    let mut watch = Lines::open(&server, &format!("{MAPS}?watch=true")).await;
    assert_eq!(watch.event().await, event("ADDED", "a"));
    post(&server, MAPS, config_map("b", json!({}))).await;
    merge(&server, &format!("{MAPS}/a"), json!({"data": {"k": "v"}})).await;
    let before = get(&server, &format!("{MAPS}/b")).await.body;
    delete(&server, &format!("{MAPS}/b"), Value::Null).await;
    assert_eq!(watch.event().await, event("ADDED", "b"));
    assert_eq!(watch.event().await, event("MODIFIED", "a"));
    let gone = watch.next().await.unwrap();
    assert_eq!(gone["type"], "DELETED");
    // The last state, at the revision of the deletion.
    assert_eq!(gone["object"]["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(gone["object"]["metadata"]["resourceVersion"], server.revision().to_string());
}

#[tokio::test]
async fn a_watch_from_a_list_misses_nothing() {
    let server = server();
    let list = get(&server, MAPS).await.body;
    let from = list["metadata"]["resourceVersion"].as_str().unwrap();
    post(&server, MAPS, config_map("a", json!({}))).await;
    post(&server, "/api/v1/namespaces/kube-system/configmaps", config_map("other", json!({}))).await;
    let mut watch = Lines::open(&server, &format!("{MAPS}?watch=1&resourceVersion={from}")).await;
    post(&server, MAPS, config_map("b", json!({}))).await;
    assert_eq!(watch.event().await, event("ADDED", "a"));
    assert_eq!(watch.event().await, event("ADDED", "b"));
}

#[tokio::test]
async fn objects_come_and_go_with_the_selector() {
    let server = server();
    let path = format!("{MAPS}?watch=true&labelSelector=on%3Dyes");
    let mut watch = Lines::open(&server, &path).await;
    post(&server, MAPS, config_map("a", json!({}))).await;
    let label = |value: &str| json!({"metadata": {"labels": {"on": value}}});
    for value in ["yes", "no", "yes"] {
        merge(&server, &format!("{MAPS}/a"), label(value)).await;
    }
    merge(&server, &format!("{MAPS}/a"), json!({"data": {"k": "v"}})).await;
    assert_eq!(watch.event().await, event("ADDED", "a"));
    let gone = watch.next().await.unwrap();
    assert_eq!(gone["type"], "DELETED");
    assert_eq!(gone["object"]["metadata"]["labels"]["on"], "yes");
    assert_eq!(watch.event().await, event("ADDED", "a"));
    assert_eq!(watch.event().await, event("MODIFIED", "a"));
}

#[tokio::test]
async fn a_watch_from_a_forgotten_revision_is_told_so() {
    let server = server();
    post(&server, MAPS, config_map("a", json!({}))).await;
    server.compact();
    let mut watch = Lines::open(&server, &format!("{MAPS}?watch=true&resourceVersion=1")).await;
    let end = watch.next().await.unwrap();
    assert_eq!((end["type"].as_str(), end["object"]["code"].as_i64()), (Some("ERROR"), Some(410)));
    assert_eq!(end["object"]["reason"], "Expired");
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn a_slow_watch_falls_out_of_the_window_alone() {
    let server = ApiServer::new(Options { window: 4, ..Options::default() });
    let mut slow =
        Lines::open(&server, &format!("{MAPS}?watch=true&resourceVersion={}", server.revision())).await;
    let mut quick =
        Lines::open(&server, &format!("{MAPS}?watch=true&resourceVersion={}", server.revision())).await;
    for n in 0..8 {
        post(&server, MAPS, config_map(&format!("m{n}"), json!({}))).await;
        assert_eq!(quick.event().await, event("ADDED", &format!("m{n}")));
    }
    assert_eq!(slow.next().await.unwrap()["object"]["code"], 410);
}

#[tokio::test]
async fn a_watch_from_the_future_is_refused() {
    let server = server();
    let refused = get(&server, &format!("{MAPS}?watch=true&resourceVersion=1000")).await;
    assert_eq!(refused.status, 504);
    assert_eq!(refused.headers["retry-after"], "1");
}

#[tokio::test]
async fn the_initial_state_is_marked_where_asked_for() {
    let server = server();
    post(&server, MAPS, config_map("a", json!({}))).await;
    let path = format!(
        "{MAPS}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    let mut watch = Lines::open(&server, &path).await;
    assert_eq!(watch.event().await, event("ADDED", "a"));
    let mark = watch.next().await.unwrap();
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(mark["object"]["metadata"]["resourceVersion"], server.revision().to_string());
    post(&server, MAPS, config_map("b", json!({}))).await;
    assert_eq!(watch.event().await, event("ADDED", "b"));
    let wrong = get(&server, &format!("{MAPS}?watch=true&sendInitialEvents=true")).await;
    assert_eq!(wrong.status, 422);
}

#[tokio::test(start_paused = true)]
async fn quiet_watches_get_bookmarks_and_end_in_time() {
    let server = server();
    let path = format!(
        "{MAPS}?watch=true&allowWatchBookmarks=true&timeoutSeconds=90&resourceVersion={}",
        server.revision()
    );
    let mut watch = Lines::open(&server, &path).await;
    post(&server, "/api/v1/namespaces", json!({"metadata": {"name": "n"}})).await;
    for _ in 0..2 {
        let mark = watch.next().await.unwrap();
        assert_eq!(mark["type"], "BOOKMARK");
        // Also what happened to other resources counts as seen.
        assert_eq!(mark["object"]["metadata"]["resourceVersion"], server.revision().to_string());
    }
    assert!(watch.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn without_bookmarks_a_watch_ends_in_silence() {
    let server = server();
    let mut watch = Lines::open(&server, &format!("{MAPS}?watch=true&timeoutSeconds=5")).await;
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn the_kube_watcher_follows_both_ways() {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::runtime::watcher::{self, Event};
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let server = server();
        post(&server, MAPS, config_map("a", json!({}))).await;
        let maps: Api<ConfigMap> = Api::default_namespaced(server.client());
        let mut events = watcher::watcher(maps, config).boxed();
        let mut seen = Vec::new();
        while seen.len() < 3 {
            let event =
                tokio::time::timeout(Duration::from_secs(60), events.next()).await.unwrap().unwrap().unwrap();
            seen.push(match event {
                Event::Init => "init",
                Event::InitApply(_) => "present",
                Event::InitDone => "done",
                Event::Apply(_) | Event::Delete(_) => "change",
            });
        }
        assert_eq!(seen, ["init", "present", "done"]);
        merge(&server, &format!("{MAPS}/a"), json!({"data": {"k": "v"}})).await;
        let event =
            tokio::time::timeout(Duration::from_secs(60), events.next()).await.unwrap().unwrap().unwrap();
        assert!(matches!(event, Event::Apply(_)), "{event:?}");
        // History lost, it lists again by itself.
        post(&server, MAPS, config_map("b", json!({}))).await;
        server.compact();
        let mut relisted = false;
        for _ in 0..8 {
            match tokio::time::timeout(Duration::from_secs(60), events.next()).await.unwrap().unwrap() {
                Ok(Event::InitApply(map) | Event::Apply(map))
                    if map.metadata.name.as_deref() == Some("b") =>
                {
                    relisted = true;
                    break;
                }
                _ => {}
            }
        }
        assert!(relisted);
    }
}

#[tokio::test(start_paused = true)]
async fn ages_in_a_watched_table_are_those_of_the_moment() {
    let server = server_with_things().await;
    let path = "/api/v1/namespaces/default/configmaps?watch=true";
    let request = Request::get(path)
        .header("accept", "application/json;as=Table;g=meta.k8s.io;v=v1")
        .body(kube::client::Body::empty())
        .unwrap();
    let response = server.service().oneshot(request).await.unwrap();
    let mut watch = Lines { body: BodyStream::new(response.into_body()), buffer: String::new() };
    tokio::time::advance(Duration::from_secs(60)).await;
    post(&server, MAPS, config_map("a", json!({}))).await;
    tokio::time::advance(Duration::from_secs(7)).await;
    let first = watch.next().await.unwrap();
    assert_eq!(first["object"]["rows"][0]["cells"], json!(["a", 0, "7s"]));
    assert_eq!(first["object"]["columnDefinitions"][2]["name"], "Age");
    merge(&server, &format!("{MAPS}/a"), json!({"data": {"k": "v"}})).await;
    // The columns are told once.
    assert_eq!(watch.next().await.unwrap()["object"]["columnDefinitions"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_lists_and_watches_among_many_writers_ends_with_the_same_state() {
    use std::collections::BTreeMap;
    let server = server();
    let (started, mut starts) = tokio::sync::mpsc::channel(4);
    let follow = |server: ApiServer, started: tokio::sync::mpsc::Sender<()>| async move {
        let list = get(&server, MAPS).await.body;
        let from = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
        let item = |object: &Value| {
            (object["metadata"]["name"].clone(), object["metadata"]["resourceVersion"].clone())
        };
        let mut view: BTreeMap<String, Value> = BTreeMap::new();
        for object in list["items"].as_array().unwrap() {
            let (name, revision) = item(object);
            view.insert(name.as_str().unwrap().to_owned(), revision);
        }
        let mut watch = Lines::open(&server, &format!("{MAPS}?watch=true&resourceVersion={from}")).await;
        started.send(()).await.unwrap();
        loop {
            let event = watch.next().await.expect("the watch has ended");
            let (name, revision) = item(&event["object"]);
            let name = name.as_str().unwrap().to_owned();
            match event["type"].as_str().unwrap() {
                "DELETED" if name == "the-end" => return view,
                "DELETED" => view.remove(&name),
                "ADDED" | "MODIFIED" => view.insert(name, revision),
                other => panic!("{other}: {event}"),
            };
            view.remove("the-end");
        }
    };
    let followers: Vec<_> = (0..4).map(|_| tokio::spawn(follow(server.clone(), started.clone()))).collect();
    let writers: Vec<_> = (0..4)
        .map(|writer: u64| {
            let server = server.clone();
            tokio::spawn(async move {
                let mut random = fastrand::Rng::with_seed(writer);
                for step in 0..100 {
                    let name = format!("m{}", random.u8(0..5));
                    let path = format!("{MAPS}/{name}");
                    let status = match random.u8(0..4) {
                        0 => post(&server, MAPS, config_map(&name, json!({}))).await.status,
                        1 => delete(&server, &path, Value::Null).await.status,
                        _ => {
                            merge(&server, &path, json!({"data": {"k": format!("{writer}-{step}")}}))
                                .await
                                .status
                        }
                    };
                    assert!(matches!(status.as_u16(), 200 | 201 | 404 | 409), "{status}");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let last = get(&server, MAPS).await.body;
    for _ in &followers {
        starts.recv().await.unwrap();
    }
    post(&server, MAPS, config_map("the-end", json!({}))).await;
    let expected: BTreeMap<String, Value> = last["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| {
            (o["metadata"]["name"].as_str().unwrap().to_owned(), o["metadata"]["resourceVersion"].clone())
        })
        .collect();
    delete(&server, &format!("{MAPS}/the-end"), Value::Null).await;
    for follower in followers {
        let view = tokio::time::timeout(Duration::from_secs(60), follower).await.unwrap().unwrap();
        assert_eq!(view, expected);
    }
}
