//! A namespace on an API server, and a notebook.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use futures::{Stream, StreamExt};
use http::{Request, header};
use http_body_util::BodyExt;
use kube::client::{Body, Client};
use serde_json::{Value, json};
use tiphys_apiserver::{ApiServer, Options};

use super::transcript::normal;

/// How long anything may take that a case waits for.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// The group of the kinds that the cases bring along.
pub(crate) const GROUP: &str = "conformance.tiphys.dev";

const ARGO_CD: &[&str] = &[
    include_str!("../../../../manifests/crds/applications.yaml"),
    include_str!("../../../../manifests/crds/appprojects.yaml"),
];

/// A namespace of its own on one of the two servers. Every request made through it is written down.
pub(crate) struct Lab {
    client: Client,
    namespace: String,
    notes: Vec<Value>,
    server: Option<ApiServer>,
}

/// An answer, whole.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) code: u16,
    pub(crate) body: Value,
    pub(crate) warnings: Vec<String>,
    what: String,
}

impl Reply {
    /// Fails unless the answer has this HTTP status and, for refusals, this reason.
    #[track_caller]
    pub(crate) fn expect(self, code: u16, reason: &str) -> Value {
        let found = self.body["reason"].as_str().unwrap_or_default();
        let is_status = self.body["kind"] == "Status";
        assert!(
            self.code == code && (reason.is_empty() || (is_status && found == reason)),
            "{}: expected {code} {reason}, got {} {}",
            self.what,
            self.code,
            self.body
        );
        if is_status && code >= 400 {
            assert_eq!(self.body["code"], code, "the code in the body differs");
            assert_eq!(self.body["status"], "Failure");
        }
        self.body
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        self.expect(200, "")
    }

    #[track_caller]
    pub(crate) fn created(self) -> Value {
        self.expect(201, "")
    }
}

impl Lab {
    /// On an embedded server that nobody else uses.
    pub(crate) async fn embedded(case: &str) -> Self {
        let server = ApiServer::new(Options::default());
        for definition in definitions() {
            server.install_crds(&definition.to_string()).expect("the definition is accepted");
        }
        for documents in ARGO_CD {
            server.install_crds(documents).expect("the definitions of Argo CD are accepted");
        }
        Self::begin(server.client(), Some(server), case).await
    }

    /// On the first cluster of `TIPHYS_TEST_KUBECONFIG`.
    #[cfg(feature = "real-cluster")]
    pub(crate) async fn real(case: &str) -> Self {
        let client = real_client().await;
        let lab = Self::begin(client, None, case).await;
        lab.install_on_real().await;
        lab
    }

    async fn begin(client: Client, server: Option<ApiServer>, case: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let short: String = case.chars().filter(|c| *c != '_').take(24).collect();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("{short}-{:x}-{number}", std::process::id());
        let mut lab = Self { client, namespace, notes: Vec::new(), server };
        let namespace = json!({"metadata": {"name": lab.namespace}});
        lab.post("/api/v1/namespaces", &namespace).await.created();
        lab.notes.clear();
        lab
    }

    /// The server itself, for what only the embedded one can be told.
    pub(crate) fn server(&self) -> Option<&ApiServer> {
        self.server.as_ref()
    }

    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// What happened, without what differs from day to day.
    pub(crate) fn transcript(&self) -> Vec<Value> {
        normal(&self.notes, &self.namespace)
    }

    /// Does something that only the embedded server can be asked for, outside the transcript.
    pub(crate) fn forget_from(&mut self, count: usize) {
        self.notes.truncate(count);
    }

    /// How many notes there are.
    pub(crate) fn notes(&self) -> usize {
        self.notes.len()
    }

    pub(crate) fn note(&mut self, note: Value) {
        self.notes.push(note);
    }

    /// A path from its short form: `cm/a?dryRun=All` is in the lab's namespace, `/api/…` is as it stands but for
    /// `{ns}`.
    fn path(&self, short: &str) -> String {
        if short.starts_with('/') {
            return short.replace("{ns}", &self.namespace);
        }
        let end = short.find(['/', '?']).unwrap_or(short.len());
        let (alias, rest) = short.split_at(end);
        let (prefix, plural) = match alias {
            "cm" => ("/api/v1".to_owned(), "configmaps"),
            "secrets" | "services" | "pods" | "events" | "serviceaccounts" => ("/api/v1".to_owned(), alias),
            "leases" => ("/apis/coordination.k8s.io/v1".to_owned(), alias),
            "deployments" => ("/apis/apps/v1".to_owned(), alias),
            "applications" | "appprojects" => ("/apis/argoproj.io/v1alpha1".to_owned(), alias),
            "gadgets" | "trinkets" | "scalers" => (format!("/apis/{GROUP}/v1"), alias),
            "stamps" => return format!("/apis/{GROUP}/v1/stamps{rest}"),
            other => panic!("no such alias: {other}"),
        };
        format!("{prefix}/namespaces/{}/{plural}{rest}", self.namespace)
    }

    /// One request with any method, body and headers.
    pub(crate) async fn call(
        &mut self,
        method: &str,
        short: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Reply {
        let mut request = Request::builder().method(method).uri(self.path(short));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body)).expect("a valid request");
        let answer = tokio::time::timeout(DEADLINE, async {
            let response = self.client.send(request).await.expect("an answer");
            let (parts, body) = response.into_parts();
            (parts, body.collect_bytes().await.expect("a whole body"))
        });
        let what = format!("{method} {short}");
        let (parts, bytes) = answer.await.unwrap_or_else(|_| panic!("{what}: no answer within {DEADLINE:?}"));
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&bytes).into_owned()));
        let warnings: Vec<_> = parts
            .headers
            .get_all(header::WARNING)
            .iter()
            .map(|value| value.to_str().expect("text").to_owned())
            .collect();
        let code = parts.status.as_u16();
        self.notes.push(json!({"did": what, "code": code, "warnings": warnings, "body": body}));
        Reply { code, body, warnings, what }
    }

    pub(crate) async fn get(&mut self, short: &str) -> Reply {
        self.call("GET", short, &[], Vec::new()).await
    }

    pub(crate) async fn post(&mut self, short: &str, body: &Value) -> Reply {
        self.call("POST", short, JSON, body.to_string().into()).await
    }

    pub(crate) async fn put(&mut self, short: &str, body: &Value) -> Reply {
        self.call("PUT", short, JSON, body.to_string().into()).await
    }

    /// A patch of the kind `json`, `merge` or `strategic`.
    pub(crate) async fn patch(&mut self, kind: &str, short: &str, body: &Value) -> Reply {
        let media = match kind {
            "json" => "application/json-patch+json",
            "merge" => "application/merge-patch+json",
            "strategic" => "application/strategic-merge-patch+json",
            other => panic!("no such kind of patch: {other}"),
        };
        self.call("PATCH", short, &[("content-type", media)], body.to_string().into()).await
    }

    /// Applies in the name of this manager.
    pub(crate) async fn apply(&mut self, short: &str, manager: &str, body: &Value) -> Reply {
        self.apply_with(short, &format!("fieldManager={manager}"), body).await
    }

    /// Applies whoever owns what.
    pub(crate) async fn apply_by_force(&mut self, short: &str, manager: &str, body: &Value) -> Reply {
        self.apply_with(short, &format!("fieldManager={manager}&force=true"), body).await
    }

    pub(crate) async fn apply_with(&mut self, short: &str, query: &str, body: &Value) -> Reply {
        let headers = &[("content-type", "application/apply-patch+yaml")];
        self.call("PATCH", &format!("{short}?{query}"), headers, body.to_string().into()).await
    }

    pub(crate) async fn delete(&mut self, short: &str) -> Reply {
        self.call("DELETE", short, &[], Vec::new()).await
    }

    pub(crate) async fn delete_with(&mut self, short: &str, options: &Value) -> Reply {
        self.call("DELETE", short, JSON, options.to_string().into()).await
    }

    /// Begins a watch, `short` being the path with its query except `watch=true`.
    pub(crate) async fn watch(&mut self, short: &str) -> Watch {
        let mark = if short.contains('?') { '&' } else { '?' };
        let path = format!("{}{mark}watch=true", self.path(short));
        let request = Request::builder().uri(path).body(Body::empty()).expect("a valid request");
        let response = tokio::time::timeout(DEADLINE, self.client.send(request))
            .await
            .unwrap_or_else(|_| panic!("watch {short}: no answer within {DEADLINE:?}"))
            .expect("an answer");
        let code = response.status().as_u16();
        assert_eq!(code, 200, "watch {short} was refused");
        let chunks = response.into_body().into_data_stream();
        let chunks = chunks.map(|chunk| chunk.map(|bytes| bytes.to_vec()).map_err(|e| e.to_string()));
        Watch {
            chunks: Box::pin(chunks),
            buffer: Vec::new(),
            events: VecDeque::new(),
            what: short.to_owned(),
        }
    }

    /// Writes down events that were seen.
    pub(crate) fn saw(&mut self, what: &str, events: &[Value]) {
        self.notes.push(json!({"saw": what, "events": events}));
    }

    /// Makes sure that the kinds are there that the cases need.
    #[cfg(feature = "real-cluster")]
    async fn install_on_real(&self) {
        static ONCE: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
        ONCE.get_or_init(|| async {
            let mut guest = Self {
                client: self.client(),
                namespace: self.namespace.clone(),
                notes: Vec::new(),
                server: None,
            };
            for definition in definitions() {
                let reply = guest.post(CRDS, &definition).await;
                assert!(matches!(reply.code, 201 | 409), "{}", reply.body);
            }
            for alias in ["gadgets", "trinkets", "scalers", "stamps", "applications", "appprojects"] {
                guest.eventually(alias, |reply| reply.code == 200).await;
            }
        })
        .await;
    }

    /// Reads until the answer is as wished; the many reads are not written down.
    pub(crate) async fn eventually(&mut self, short: &str, wished: impl Fn(&Reply) -> bool) -> Reply {
        let notes = self.notes.len();
        let mut last = None;
        let reached = tokio::time::timeout(DEADLINE, async {
            loop {
                let reply = self.get(short).await;
                if wished(&reply) {
                    return reply;
                }
                last = Some(reply);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        let reply =
            reached.unwrap_or_else(|_| panic!("{short} did not come to be as wished, last: {last:?}"));
        self.notes.truncate(notes);
        reply
    }
}

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

/// Where definitions live.
pub(crate) const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// A client for the first cluster of the kubeconfig that the environment names.
#[cfg(feature = "real-cluster")]
pub(crate) async fn real_client() -> Client {
    use kube::config::{KubeConfigOptions, Kubeconfig};

    let path = std::env::var("TIPHYS_TEST_KUBECONFIG")
        .expect("TIPHYS_TEST_KUBECONFIG names a kubeconfig: run this under hack/kube.sh up -- …");
    let kubeconfig = Kubeconfig::read_from(&path).expect("a readable kubeconfig");
    let options = KubeConfigOptions { context: Some("cluster-0".to_owned()), ..KubeConfigOptions::default() };
    let mut config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.expect("a usable context");
    // Each answer counts, also the ones that a client would rather ask for again.
    config.default_retry = false;
    // The one provider of this workspace; a second installation is the same one again.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Client::try_from(config).expect("a client")
}

/// A stream of watch events, read with a deadline.
pub(crate) struct Watch {
    chunks: Pin<Box<dyn Stream<Item = Result<Vec<u8>, String>> + Send>>,
    buffer: Vec<u8>,
    events: VecDeque<Value>,
    what: String,
}

impl Watch {
    /// The next event; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        tokio::time::timeout(DEADLINE, self.read())
            .await
            .unwrap_or_else(|_| panic!("watch {}: nothing came within {DEADLINE:?}", self.what))
    }

    async fn read(&mut self) -> Option<Value> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let chunk = self.chunks.next().await?.expect("a watch that does not break");
            self.buffer.extend(chunk);
            while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                if !line.trim_ascii().is_empty() {
                    self.events.push_back(serde_json::from_slice(&line).expect("an event in JSON"));
                }
            }
        }
    }

    /// So many events.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<Value> {
        let mut events = Vec::new();
        while events.len() < count {
            match self.next().await {
                Some(event) => events.push(event),
                None => panic!("watch {} ended after {events:?}", self.what),
            }
        }
        events
    }

    /// All events to the one that is wished for.
    pub(crate) async fn until(&mut self, wished: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            match self.next().await {
                Some(event) => {
                    let last = wished(&event);
                    events.push(event);
                    if last {
                        return events;
                    }
                }
                None => panic!("watch {} ended after {events:?}", self.what),
            }
        }
    }

    /// All events to the one that is about the object of this name.
    pub(crate) async fn until_name(&mut self, name: &str) -> Vec<Value> {
        self.until(|event| event["object"]["metadata"]["name"] == name).await
    }

    /// All events to the end of the stream.
    pub(crate) async fn rest(&mut self) -> Vec<Value> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

/// `ADDED a`, `MODIFIED a`: what events say in short.
pub(crate) fn in_short(events: &[Value]) -> Vec<String> {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    events
        .iter()
        .map(|event| format!("{} {}", word(&event["type"]), word(&event["object"]["metadata"]["name"])))
        .collect()
}

/// The resource version of an object or a list.
#[track_caller]
pub(crate) fn version(object: &Value) -> String {
    object["metadata"]["resourceVersion"]
        .as_str()
        .unwrap_or_else(|| panic!("no version in {object}"))
        .to_owned()
}

/// The generation of an object.
#[track_caller]
pub(crate) fn generation(object: &Value) -> i64 {
    object["metadata"]["generation"].as_i64().unwrap_or_else(|| panic!("no generation in {object}"))
}

/// A config map.
pub(crate) fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

/// A gadget: custom, with status subresource and a schema.
pub(crate) fn gadget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": format!("{GROUP}/v1"), "kind": "Gadget", "metadata": {"name": name}, "spec": spec})
}

/// A trinket: custom, without status subresource, everything preserved.
pub(crate) fn trinket(name: &str, spec: Value) -> Value {
    json!({"apiVersion": format!("{GROUP}/v1"), "kind": "Trinket", "metadata": {"name": name}, "spec": spec})
}

/// A definition in the group of this suite.
pub(crate) fn definition(plural: &str, kind: &str, scope: &str, schema: Value, status: bool) -> Value {
    let mut version =
        json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}});
    if status {
        version["subresources"] = json!({"status": {}});
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{GROUP}")},
        "spec": {"group": GROUP, "scope": scope, "names": {"plural": plural, "kind": kind}, "versions": [version]},
    })
}

fn definitions() -> Vec<Value> {
    let gadget = json!({
        "type": "object",
        "required": ["spec"],
        "properties": {
            "spec": {
                "type": "object",
                "required": ["size"],
                "properties": {
                    "size": {"type": "integer", "minimum": 1, "maximum": 10},
                    "colour": {"type": "string", "default": "green", "enum": ["green", "red", "blue"]},
                    "label": {"type": "string", "minLength": 2, "maxLength": 5, "pattern": "^[a-z]*$"},
                    "port": {"x-kubernetes-int-or-string": true},
                    "ratio": {"type": "number"},
                    "when": {"type": "string", "format": "date-time"},
                    "maybe": {"type": "string", "nullable": true},
                    "tags": {"type": "array", "maxItems": 3, "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
                    "parts": {
                        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                        "items": {"type": "object", "required": ["name"], "properties": {
                            "name": {"type": "string"}, "count": {"type": "integer", "default": 1},
                        }},
                    },
                    "options": {"type": "object", "additionalProperties": {"type": "boolean"}},
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    "either": {
                        "type": "object",
                        "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
                        "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
                    },
                    "template": {
                        "type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true,
                    },
                },
            },
            "status": {"type": "object", "properties": {
                "phase": {"type": "string"}, "seen": {"type": "integer"},
            }},
        },
    });
    let trinket = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let stamp = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"ink": {"type": "string"}}}}});
    let scaler = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"replicas": {"type": "integer", "minimum": 0}}},
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}}},
    }});
    let mut scalers = definition("scalers", "Scaler", "Namespaced", scaler, true);
    scalers["spec"]["versions"][0]["subresources"]["scale"] = json!({
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    });
    vec![
        scalers,
        definition("gadgets", "Gadget", "Namespaced", gadget, true),
        definition("trinkets", "Trinket", "Namespaced", trinket, false),
        definition("stamps", "Stamp", "Cluster", stamp, false),
    ]
}
