//! What operators' commands answer, and to whom they speak, when something is unusual.

use std::ffi::OsString;
use std::path::Path;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::serve::{Cluster, cluster};
use crate::{Run, tiphys};

/// A control plane beside a current context in which nobody answers.
struct Beside {
    hub: Cluster,
    kubeconfig: String,
    folder: tempfile::TempDir,
}

async fn beside() -> Beside {
    let folder = tempfile::tempdir().unwrap();
    let hub = cluster(folder.path(), "hub").await;
    let nobody = "clusters: [{name: x, cluster: {server: 'http://127.0.0.1:1'}}, ";
    let text = std::fs::read_to_string(&hub.kubeconfig).unwrap();
    let text = text
        .replace("current-context: here", "current-context: nobody")
        .replace("clusters: [", nobody)
        .replace("contexts: [", "contexts: [{name: nobody, context: {cluster: x, user: u}}, ");
    let path = folder.path().join("both");
    std::fs::write(&path, text).unwrap();
    Beside { hub, kubeconfig: path.display().to_string(), folder }
}

impl Beside {
    /// Runs a command at the control plane, which a variable names.
    async fn run(&self, line: &[&str]) -> Run {
        self.run_with(line, &[("ARGOCD_AGENT_PRINCIPAL_CONTEXT", "here")]).await
    }

    async fn run_with(&self, line: &[&str], environment: &'static [(&'static str, &'static str)]) -> Run {
        let line: Vec<OsString> = line.iter().map(OsString::from).collect();
        let mut command = tiphys();
        command.env("KUBECONFIG", &self.kubeconfig).envs(environment.iter().copied()).args(line);
        command.stdin(std::process::Stdio::null());
        tokio::task::spawn_blocking(move || command.output().unwrap().into()).await.unwrap()
    }

    async fn does(&self, line: &[&str]) -> Run {
        let run = self.run(line).await;
        assert_eq!(run.code, Some(0), "{line:?}: {}", run.stderr);
        run
    }

    async fn tokens(&self) -> Vec<Value> {
        let run = self.does(&["agent", "token", "list", "-o", "json"]).await;
        serde_json::from_str(&run.stdout).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_kept_where_the_other_commands_look() {
    let beside = beside().await;
    beside.does(&["pki", "init"]).await;
    let make = ["agent", "token", "create", "--name", "edge-1"];
    let tried = beside.does(&[&make[..], &["--dry-run"]].concat()).await;
    assert!(tried.stderr.contains("would make") && tried.stdout.is_empty(), "{}", tried.stderr);
    let secrets: Api<Secret> = Api::namespaced(beside.hub.client.clone(), "argocd");
    assert_eq!(secrets.list(&ListParams::default()).await.unwrap().items.len(), 1, "the CA");
    let made = beside.does(&[&make[..], &["-o", "json"]].concat()).await;
    let made: Value = serde_json::from_str(&made.stdout).unwrap();
    let id = made["id"].as_str().unwrap();
    assert!(made["token"].as_str().unwrap().starts_with("tiphys1.edge-1."), "{made}");

    // The names that the flags had before, and the current context, which is another.
    for line in [
        &["agent", "token", "list", "--json", "--kubecontext", "here", "-n", "argocd"][..],
        &["agent", "token", "list", "-o", "yaml", "--principal-context", "here", "--namespace", "argocd"],
    ] {
        let run = beside.run_with(line, &[]).await;
        assert!(run.code == Some(0) && run.stdout.contains(id), "{line:?}: {} {}", run.stdout, run.stderr);
    }
    let current = beside.run_with(&["agent", "token", "list"], &[]).await;
    assert_eq!((current.code, current.stdout.as_str()), (Some(1), ""), "{}", current.stderr);
    for namespace in ["../x", "kube-system/secrets?x=", &"a".repeat(300)] {
        let run = beside.run(&["agent", "token", "list", "-n", namespace]).await;
        assert!(run.code == Some(2) && run.stderr.contains("not the name of a namespace"), "{}", run.stderr);
    }

    let gone = beside.run(&["agent", "token", "delete", "--id", id, "--id", "0123456789"]).await;
    assert!(gone.code == Some(1) && gone.stderr.contains("no token 0123456789"), "{}", gone.stderr);
    beside.does(&["agent", "token", "delete", "--id", id, "--dry-run"]).await;
    assert_eq!(beside.tokens().await.len(), 1, "all or none");
    beside.does(&["agent", "token", "delete", "--id", id]).await;
    assert_eq!(beside.tokens().await, [] as [Value; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_token_is_made_for_a_principal_that_cannot_sign() {
    let beside = beside().await;
    let secrets: Api<Secret> = Api::namespaced(beside.hub.client.clone(), "argocd");
    let key = async || {
        beside.does(&["pki", "init", "--force"]).await;
        secrets.get("argocd-agent-ca").await.unwrap().data.unwrap().remove("tls.key").unwrap()
    };
    let other = key().await;
    key().await;
    for (key, said) in [(json!(other), "does not belong"), (json!("eA=="), "cannot be used")] {
        let patch = Patch::Merge(json!({"data": {"tls.key": key}}));
        secrets.patch("argocd-agent-ca", &PatchParams::default(), &patch).await.unwrap();
        let run = beside.run(&["agent", "token", "create", "--name", "edge-1"]).await;
        assert!(run.code == Some(1) && run.stderr.contains(said), "{}", run.stderr);
        assert_eq!(run.stdout, "");
        assert_eq!(beside.tokens().await, [] as [Value; 0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clusters_hold_forges_no_line_and_steers_no_terminal() {
    let beside = beside().await;
    beside.does(&["pki", "init"]).await;
    beside.does(&["agent", "create", "edge-1"]).await;
    let (first, second) = ("AB".repeat(32), "CD".repeat(32));
    let map = json!({
        "metadata": {"name": "argocd-agent-tls-blocklist"},
        "data": {first.clone(): "lost\nFORGED  row\u{1b}[31m"},
    });
    let maps: Api<ConfigMap> = Api::namespaced(beside.hub.client.clone(), "argocd");
    maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap()).await.unwrap();
    let patch = Patch::Merge(json!({"stringData": {"server": "http://x\nerror  FORGED\u{1b}[31m"}}));
    let secrets: Api<Secret> = Api::namespaced(beside.hub.client.clone(), "argocd");
    secrets.patch("cluster-edge-1", &PatchParams::default(), &patch).await.unwrap();
    for line in [&["blocklist", "tls", "list"][..], &["agent", "list"], &["validate", "principal"]] {
        let run = beside.run(line).await;
        assert!(run.stdout.contains("FORGED"), "{line:?}: {}", run.stdout);
        assert!(!run.stdout.contains('\u{1b}'), "{line:?}: {}", run.stdout);
        let is_forged = |line: &str| line.starts_with("FORGED") || line.starts_with("error  FORGED");
        assert!(!run.stdout.lines().any(is_forged), "{line:?}: {}", run.stdout);
    }

    beside.does(&["blocklist", "tls", "add", &first]).await;
    let kept = async |fingerprint: &str| {
        maps.get("argocd-agent-tls-blocklist").await.unwrap().data.unwrap().remove(fingerprint)
    };
    assert!(kept(&first).await.unwrap().starts_with("lost"), "no reason takes none away");
    beside.does(&["blocklist", "tls", "add", &first, "--reason", "found", "--dry-run"]).await;
    assert!(kept(&first).await.unwrap().starts_with("lost"));
    beside.does(&["blocklist", "tls", "add", &first, "--reason", "found"]).await;
    assert_eq!(kept(&first).await.as_deref(), Some("found"));
    beside.does(&["blocklist", "tls", "add", &second, "--reason", "new"]).await;
    assert_eq!(kept(&second).await.as_deref(), Some("new"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_and_empty_answers_are_told_in_the_form_that_was_asked_for() {
    let beside = beside().await;
    let none = beside.does(&["agent", "list", "-o", "json"]).await;
    assert_eq!(none.stdout, "[]\n");
    let none = beside.does(&["agent", "list"]).await;
    assert!(none.stdout.is_empty() && none.stderr.contains("agent create"), "{}", none.stderr);
    beside.does(&["pki", "init"]).await;
    let warned = beside.does(&["agent", "create", "argocd", "--dry-run"]).await;
    assert!(warned.stderr.contains("warning: the Applications of agent argocd"), "{}", warned.stderr);

    let hash = "A".repeat(43);
    let token = format!("tiphys1.edge-1.0123456789.{hash}.{hash}");
    let join = ["join", "--kubecontext", "here", "--server", "h:1", "--token"];
    let explain = ["explain", "edge-1", "application"];
    let options = ["--", "--auth=mtls:subject:CN=([^,]+)", "--allowed-namespaces=*"];
    for (line, code, said) in [
        ([&join[..], &["bad"]].concat(), 2, "--token cannot be used"),
        (
            [&join[..], &[token.as_str(), "--agent-namespace", "nosuch"]].concat(),
            1,
            "remedy: create what is missing",
        ),
        (vec!["agent", "create", "edge-2", "--label", "a!b=c"], 1, "remedy: correct what the message names"),
        (vec!["pki", "issue", "principal", "--dns", "foo bar"], 2, "remedy: write DNS names"),
        (vec!["agent", "token", "create", "--name", "../x"], 2, "DNS-1123"),
        (vec!["completion"], 2, "no shell is named"),
        ([&explain[..], &[""], &options].concat(), 2, "\"\" is not the name"),
        ([&explain[..], &["a\nb"], &options].concat(), 2, "\"a\\nb\" is not the name"),
        ([&explain[..], &["../b"], &options].concat(), 2, "is not the name"),
        ([&explain[..], &["a", "--", "--bogus"]].concat(), 1, "correct the options after --"),
    ] {
        let run = beside.run(&line).await;
        assert_eq!(run.code, Some(code), "{line:?}: {}", run.stderr);
        assert!(run.stderr.contains(said), "{line:?}: {}", run.stderr);
        for inner in ["ApiError", "Status {", "Some(", "error: error"] {
            assert!(!run.stderr.contains(inner), "{line:?}: {}", run.stderr);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_local_configuration_is_not_replaced_or_written_by_the_way() {
    let beside = beside().await;
    let file = beside.folder.path().join("ctl.conf");
    let at = |path: &Path| path.display().to_string();
    let config =
        async |line: &[&str]| beside.run(&[&["config"], line, &["--config", &at(&file)]].concat()).await;
    let absent = config(&["list"]).await;
    assert!(absent.code == Some(1) && absent.stdout.is_empty(), "{}", absent.stdout);
    let add = ["add", "agent", "--context", "c", "--name", "edge", "--namespace"];
    let tried = config(&[&add[..], &["argocd", "--dry-run"]].concat()).await;
    assert!(tried.code == Some(0) && tried.stderr.contains("would be written"), "{}", tried.stderr);
    for wrong in ["../y", "a\nb", "A"] {
        assert_eq!(config(&[&add[..], &[wrong, "--dry-run"]].concat()).await.code, Some(2), "{wrong:?}");
        assert_eq!(config(&[&add[..], &[wrong]].concat()).await.code, Some(2), "{wrong:?}");
    }
    assert!(!file.exists());
    assert_eq!(config(&[&add[..], &["argocd"]].concat()).await.code, Some(0));
    let before = std::fs::read_to_string(&file).unwrap();
    assert_eq!(config(&["delete", "agent", "--name", "edge", "--dry-run"]).await.code, Some(0));
    let create = ["create", "--kubeconfig-path", &beside.kubeconfig];
    let refused = config(&create).await;
    assert!(refused.code == Some(2) && refused.stderr.contains("--yes"), "{}", refused.stderr);
    let asked = config(&[&create[..], &["--yes"]].concat()).await;
    assert!(asked.code == Some(1) && asked.stderr.contains("answers ended"), "{}", asked.stderr);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
}
