//! A context made from Argo CD's Secret for a cluster. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Map, Value, json};
use tiphys_shared::model::AgentName;
use tiphys_shared::process::options::{Problem, Problems};
use tiphys_shared::security::pki::Certificate;

use crate::failure::Failure;

/// How the proxy is reached from where kubectl runs.
#[derive(Debug, Default)]
pub(super) struct Overrides {
    /// URL of the proxy.
    pub(super) server: Option<String>,
    /// Name in its certificate.
    pub(super) tls_server_name: Option<String>,
}

/// Name of the extension by which entries are known that were made here.
const EXTENSION: &str = "tiphys.io";

/// How to reach a cluster, and as whom.
#[derive(Debug, PartialEq)]
pub(super) struct Context {
    agent: AgentName,
    cluster: Value,
    user: Value,
}

impl Context {
    /// Reads the Secret.
    pub(super) fn read(agent: &AgentName, secret: &Secret, overrides: Overrides) -> Result<Self, Problems> {
        let secret_name = secret.metadata.name.as_deref().unwrap_or_default();
        let problem = |what: String| {
            Problem::new(
                format!("the cluster Secret {secret_name} {what}"),
                "make it anew: see the page on connecting Argo CD to the resource proxy",
            )
        };
        let text = |key: &str| {
            let bytes = secret.data.as_ref().and_then(|data| data.get(key))?;
            std::str::from_utf8(&bytes.0).ok()
        };
        let config = text("config").ok_or_else(|| problem("has no config".to_owned()))?;
        let config: Value = serde_json::from_str(config)
            .map_err(|error| problem(format!("has a config that is not JSON: {error}")))?;
        let tls = config.get("tlsClientConfig").cloned().unwrap_or_default();
        let part = |from: &Value, key: &str| {
            from.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let user = match (part(&config, "bearerToken"), part(&tls, "certData"), part(&tls, "keyData")) {
            // The proxy wants a certificate besides, which is that of all agents.
            (Some(token), Some(chain), Some(key)) => {
                json!({"token": token, "client-certificate-data": chain, "client-key-data": key})
            }
            (Some(token), ..) => json!({"token": token}),
            (None, Some(chain), Some(key)) => {
                json!({"client-certificate-data": chain, "client-key-data": key})
            }
            _ => {
                return Err(
                    problem("has neither a token nor a client certificate with its key".to_owned()).into()
                );
            }
        };
        let server = match overrides.server {
            Some(server) => server,
            None => {
                let server = text("server").ok_or_else(|| problem("has no server".to_owned()))?;
                server.split(['?', '#']).next().unwrap_or_default().to_owned()
            }
        };
        let server = server.trim_end_matches('/');
        // kubectl drops a query; the path is for credentials that do not name the agent themselves.
        let server = if names(&user, agent) { server.to_owned() } else { format!("{server}/agents/{agent}") };
        let mut cluster = json!({"server": server});
        if let Some(ca) = part(&tls, "caData") {
            set(&mut cluster, "certificate-authority-data", json!(ca));
        } else if tls.get("insecure") == Some(&Value::Bool(true)) {
            set(&mut cluster, "insecure-skip-tls-verify", json!(true));
        }
        if let Some(name) = overrides.tls_server_name.or_else(|| part(&tls, "serverName")) {
            set(&mut cluster, "tls-server-name", json!(name));
        }
        Ok(Self { agent: agent.clone(), cluster, user })
    }

    /// What goes into each list of a kubeconfig, under this name.
    fn entries(&self, name: &str) -> [(&'static str, &'static str, Value); 3] {
        let context = json!({"cluster": name, "user": name});
        [
            ("clusters", "cluster", &self.cluster),
            ("users", "user", &self.user),
            ("contexts", "context", &context),
        ]
        .map(|(list, kind, value)| {
            let mut value = value.clone();
            let made_for = json!({"agent": self.agent.as_str()});
            set(&mut value, "extensions", json!([{"name": EXTENSION, "extension": made_for}]));
            (list, kind, json!({"name": name, kind: value}))
        })
    }

    /// What of a kubeconfig has this name, would be another, and was not made for this agent here.
    pub(super) fn in_the_way(&self, kubeconfig: &Value, name: &str) -> Vec<&'static str> {
        let is_in_the_way = |(list, kind, entry): &(&str, &str, Value)| {
            let there = kubeconfig.get(*list).and_then(Value::as_array).into_iter().flatten();
            let mut there = there.filter(|other| other.get("name") == entry.get("name"));
            there.any(|other| {
                let (other, entry) = (&other[*kind], &entry[*kind]);
                let is_ours = other["extensions"]
                    .as_array()
                    .is_some_and(|all| all.iter().any(|one| *one == entry["extensions"][0]));
                // Those from before they were marked.
                let is_same = || {
                    let mut entry = entry.clone();
                    entry.as_object_mut().is_some_and(|fields| fields.remove("extensions").is_some())
                        && *other == entry
                };
                !is_ours && !is_same()
            })
        };
        self.entries(name).iter().filter(|entry| is_in_the_way(entry)).map(|(_, kind, _)| *kind).collect()
    }

    /// Puts the context, under this name, into a kubeconfig. What is there besides stays.
    pub(super) fn add_to(&self, kubeconfig: Value, name: &str, make_current: bool) -> Result<Value, Failure> {
        let mut document = match kubeconfig {
            Value::Null => Map::new(),
            Value::Object(fields) => fields,
            _ => {
                return Err(
                    Failure::new("the kubeconfig is not a mapping").remedy("name another file with --output")
                );
            }
        };
        document.entry("apiVersion").or_insert_with(|| json!("v1"));
        document.entry("kind").or_insert_with(|| json!("Config"));
        for (list, _, entry) in self.entries(name) {
            put(&mut document, list, entry)?;
        }
        if make_current || document.get("current-context").is_none_or(|current| current == "") {
            document.insert("current-context".to_owned(), json!(name));
        }
        Ok(Value::Object(document))
    }
}

/// Whether the credentials themselves say which agent is meant.
fn names(user: &Value, agent: &AgentName) -> bool {
    if user.get("token").is_some() {
        return true;
    }
    let Some(chain) = user.get("client-certificate-data").and_then(Value::as_str) else { return true };
    let certificate = STANDARD.decode(chain).ok().and_then(|pem| Certificate::from_pem(&pem).ok());
    certificate.is_none_or(|certificate| certificate.common_name.as_deref() == Some(agent.as_str()))
}

fn set(object: &mut Value, key: &str, value: Value) {
    if let Value::Object(fields) = object {
        fields.insert(key.to_owned(), value);
    }
}

/// Puts an entry into a list of named ones, in place of one of the same name.
fn put(document: &mut Map<String, Value>, list: &str, entry: Value) -> Result<(), Failure> {
    let entries = document.entry(list).or_insert_with(|| json!([]));
    if entries.is_null() {
        *entries = json!([]);
    }
    let Value::Array(entries) = entries else {
        return Err(Failure::new(format!("{list} of the kubeconfig is not a list"))
            .remedy("mend it, or name another file with --output"));
    };
    match entries.iter_mut().find(|other| other.get("name") == entry.get("name")) {
        Some(other) => *other = entry,
        None => entries.push(entry),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use tiphys_shared::process::clock;
    use tiphys_shared::security::pki::Ca;

    use super::*;

    fn agent() -> AgentName {
        AgentName::new("edge-1").unwrap()
    }

    fn secret(config: &Value) -> Secret {
        let data =
            [("server", "https://proxy:9090?agentName=edge-1".to_owned()), ("config", config.to_string())];
        Secret {
            data: Some(
                data.into_iter().map(|(key, text)| (key.to_owned(), ByteString(text.into_bytes()))).collect(),
            ),
            ..Secret::default()
        }
    }

    fn certificate(name: &str) -> Value {
        let day = std::time::Duration::from_secs(86_400);
        let ca = Ca::generate("ca", clock::now(), day).unwrap();
        let issued = ca.issue_client(name, &[] as &[&str], clock::now(), day).unwrap();
        json!({"tlsClientConfig": {"certData": STANDARD.encode(&issued.chain), "keyData": "a2V5", "caData": "Y2E="}})
    }

    fn context(cluster: Value, user: Value) -> Context {
        Context { agent: agent(), cluster, user }
    }

    #[test]
    fn only_what_was_made_for_this_agent_or_is_the_same_may_be_replaced() {
        let (old, new) = (
            context(json!({"server": "old"}), json!({"token": "old"})),
            context(json!({"server": "new"}), json!({"token": "new"})),
        );
        let made = old.add_to(Value::Null, "edge-1", false).unwrap();
        assert!(new.in_the_way(&made, "edge-1").is_empty());
        let other = Context { agent: AgentName::new("edge-2").unwrap(), ..old };
        assert_eq!(other.in_the_way(&made, "edge-1"), ["cluster", "user", "context"]);
        assert!(other.in_the_way(&made, "edge-2").is_empty());
        let mine = json!({
            "clusters": [{"name": "edge-1", "cluster": {"server": "new"}}],
            "users": [{"name": "edge-1", "user": {"token": "admin"}}],
            "contexts": [{"name": "edge-1", "context": {"cluster": "edge-1", "user": "edge-1"}}],
        });
        assert_eq!(new.in_the_way(&mine, "edge-1"), ["user"]);
        assert!(new.in_the_way(&json!({"clusters": null}), "edge-1").is_empty());
    }

    #[test]
    fn a_token_names_its_agent_and_the_query_is_left_out() {
        let secret = secret(&json!({"bearerToken": "t", "tlsClientConfig": {"insecure": true}}));
        let context = Context::read(&agent(), &secret, Overrides::default()).unwrap();
        assert_eq!(
            context.cluster,
            json!({"server": "https://proxy:9090", "insecure-skip-tls-verify": true})
        );
        assert_eq!(context.user, json!({"token": "t"}));
    }

    #[test]
    fn a_token_goes_with_the_certificate_without_which_the_proxy_hears_nobody() {
        let mut config = certificate("all-agents");
        config["bearerToken"] = json!("t");
        let context = Context::read(&agent(), &secret(&config), Overrides::default()).unwrap();
        assert_eq!(context.user["token"], "t");
        assert_eq!(context.user["client-certificate-data"], config["tlsClientConfig"]["certData"]);
        assert_eq!(context.user["client-key-data"], "a2V5");
        assert_eq!(context.cluster["server"], "https://proxy:9090", "the token names the agent");
    }

    #[test]
    fn credentials_of_somebody_else_name_the_agent_by_the_path() {
        let server = |name: &str| {
            let context = Context::read(&agent(), &secret(&certificate(name)), Overrides::default()).unwrap();
            context.cluster["server"].as_str().unwrap().to_owned()
        };
        assert_eq!(server("edge-1"), "https://proxy:9090");
        assert_eq!(server("argocd-server"), "https://proxy:9090/agents/edge-1");
    }

    #[test]
    fn the_proxy_may_be_reached_elsewhere_under_the_same_name() {
        let overrides = Overrides {
            server: Some("https://127.0.0.1:9090/".into()),
            tls_server_name: Some("principal".into()),
        };
        let context = Context::read(&agent(), &secret(&certificate("edge-1")), overrides).unwrap();
        assert_eq!(
            context.cluster,
            json!({"server": "https://127.0.0.1:9090", "certificate-authority-data": "Y2E=", "tls-server-name": "principal"})
        );
    }

    #[test]
    fn what_a_kubeconfig_has_besides_stays() {
        let context = context(json!({"server": "new"}), json!({"token": "new"}));
        let before = json!({
            "current-context": "home", "preferences": {"colors": true},
            "clusters": [{"name": "home", "cluster": {"server": "h"}}, {"name": "edge-1", "cluster": {"server": "old"}}],
            "users": null,
        });
        let after = context.add_to(before, "edge-1", false).unwrap();
        assert_eq!(after["current-context"], "home");
        assert_eq!(after["preferences"], json!({"colors": true}));
        assert_eq!(after["clusters"][0]["cluster"]["server"], "h");
        assert_eq!(after["clusters"][1]["cluster"]["server"], "new");
        assert_eq!(after["users"].as_array().unwrap().len(), 1);
        assert_eq!(context.add_to(after.clone(), "edge-1", false).unwrap(), after);
        assert_eq!(context.add_to(after, "edge-1", true).unwrap()["current-context"], "edge-1");
        assert!(context.add_to(json!({"clusters": "none"}), "edge-1", false).is_err());
        assert!(context.add_to(json!("text"), "edge-1", false).is_err());
    }

    #[test]
    fn a_secret_without_credentials_is_refused() {
        for config in [json!({}), json!({"tlsClientConfig": {"certData": "x"}})] {
            assert!(Context::read(&agent(), &secret(&config), Overrides::default()).is_err());
        }
        assert!(Context::read(&agent(), &Secret::default(), Overrides::default()).is_err());
    }
}
