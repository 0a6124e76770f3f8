//! What the agent's options accept, and what they answer to mistakes.

use std::path::Path;

use clap::Command;
use tiphys_shared::process::options::{KeyPair, lenient, load, prepare};
use tiphys_shared::protocol::ownership::{AdoptionPolicy, MismatchPolicy};
use tiphys_shared::security::tls::Version;

use super::connection::check_user_pass;
use super::*;

const KUBECONFIG: &str = "
current-context: here
clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]
users: [{name: u, user: {}}]
contexts: [{name: here, context: {cluster: c, user: u}}]
";

fn parse(folder: &Path, line: &[&str], environment: &[(&str, &str)]) -> Result<Settings, Problems> {
    let kubeconfig = folder.join("kubeconfig");
    std::fs::write(&kubeconfig, KUBECONFIG).unwrap();
    let command = prepare(Options::augment_args(Command::new("agent")));
    let access = format!("--kubeconfig={}", kubeconfig.display());
    let line = ["agent", &access].into_iter().chain(line.iter().copied());
    let given = lenient(command.clone()).try_get_matches_from(line).unwrap();
    let lookup =
        |name: &str| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
    load(&command, &given, &lookup, Options::validate).map(|loaded| loaded.value)
}

fn settings(line: &[&str], environment: &[(&str, &str)]) -> Result<Settings, Problems> {
    parse(tempfile::tempdir().unwrap().path(), line, environment)
}

const GOOD: [&str; 3] = ["--server-address=principal", "--agent-mode=managed", "--creds=mtls:any"];

fn whats(result: Result<Settings, Problems>) -> Vec<String> {
    result.unwrap_err().0.into_iter().map(|problem| problem.what).collect()
}

#[test]
fn the_defaults_are_those_of_upstream() {
    let settings = settings(&GOOD, &[]).unwrap();
    assert_eq!(settings.server.to_string(), "principal:443");
    assert_eq!(settings.namespace, "argocd");
    assert_eq!(settings.metrics, Some(Listen::everywhere(8181)));
    assert_eq!(settings.health, Some(Listen::everywhere(8001)));
    assert_eq!((settings.keepalive_interval, settings.heartbeat_interval), (None, None));
    let redis = settings.redis.unwrap();
    assert_eq!((redis.address.to_string().as_str(), redis.trust), ("argocd-redis:6379", None));
    assert_eq!(settings.cache_refresh_interval, Duration::from_secs(10));
    assert_eq!(settings.policy.mismatch, MismatchPolicy::Recreate);
    assert_eq!(settings.policy.adoption, AdoptionPolicy::Always);
    let Transport::Tls { roots, identity, policy } = settings.transport else { panic!("not TLS") };
    assert_eq!(roots, Roots::Secret("argocd-agent-ca".to_owned()));
    assert_eq!(identity, KeyPair::Secret("argocd-agent-client-tls".to_owned()));
    assert_eq!((policy.min_version, policy.max_version), (Version::Tls12, Version::Tls13));
}

#[test]
fn the_values_of_upstreams_config_map_start_the_agent() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("userpass.creds");
    std::fs::write(&file, "agent-1:secret\n").unwrap();
    let credentials = format!("userpass:{}", file.display());
    let environment = [
        ("ARGOCD_AGENT_MODE", "managed"),
        ("ARGOCD_AGENT_CREDS", credentials.as_str()),
        ("ARGOCD_AGENT_REMOTE_SERVER", "argocd-agent-principal.example.com"),
        ("ARGOCD_AGENT_REMOTE_PORT", "443"),
        ("ARGOCD_AGENT_TLS_INSECURE", "false"),
        ("ARGOCD_AGENT_TLS_MIN_VERSION", ""),
        ("ARGOCD_AGENT_KEEP_ALIVE_PING_INTERVAL", "0"),
        ("ARGOCD_AGENT_ALLOWED_NAMESPACES", ""),
        ("ARGOCD_AGENT_REDIS_TLS_CA_PATH", "/app/config/redis-tls/ca.crt"),
        ("ARGOCD_AGENT_INFORMER_SYNC_TIMEOUT", "10s"),
    ];
    let settings = parse(folder.path(), &[], &environment).unwrap();
    assert_eq!(settings.credentials, Credentials::UserPass { path: file });
}

#[test]
fn every_mistake_is_reported_at_once() {
    let found = whats(settings(
        &[
            "--server-port=0x1",
            "--creds=oidc:x",
            "--tls-client-key=/no/key",
            "--insecure-tls",
            "--root-ca-path=/no/ca",
            "--tls-max-version=tls1.1",
            "--allowed-namespaces=team-[",
            "--label-selector=,",
            "--adoption-policy=maybe",
            "--namespace=Argo",
            "--agent-mode=both",
            "--metrics-port=8001",
        ],
        &[],
    ));
    let expected = [
        "--server-port: \"0x1\" is not a number",
        "--adoption-policy: \"maybe\" is not one of its values",
        "--metrics-port and --healthz-port are both 8001",
        "--server-address is missing: the principal to connect to",
        "--agent-mode: there is no mode \"both\"",
        "--creds: \"oidc:x\" names no known method",
        "--tls-max-version: TLS version \"tls1.1\" is obsolete",
        "--tls-client-key is set, but --tls-client-cert is not",
        "--insecure-tls is set together with --root-ca-path",
        "--allowed-namespaces: \"team-[\" is not a glob",
        "--label-selector: \",\" is not a label selector: a requirement is empty",
        "--namespace: \"Argo\" is not the name of a namespace",
    ];
    assert_eq!(found, expected);
}

#[test]
fn contradictions_between_credentials_and_transport_are_refused() {
    let found = whats(settings(&[&GOOD[..], &["--insecure-plaintext"]].concat(), &[]));
    assert_eq!(found, ["--creds mtls needs the client certificate that --insecure-plaintext leaves out"]);
    let line = [GOOD[0], GOOD[1], "--creds=header:any", "--insecure-plaintext"];
    assert!(matches!(settings(&line, &[]).unwrap().transport, Transport::Plaintext));
}

#[test]
fn a_file_of_credentials_in_the_wrong_form_is_named_and_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("creds");
    std::fs::write(&file, "hunter2").unwrap();
    let problem = check_user_pass(&file).unwrap_err();
    assert!(problem.what.ends_with("creds is not user:password"), "{problem}");
    assert!(!problem.to_string().contains("hunter2"));
}

#[test]
fn a_redis_that_cannot_be_asked_is_refused_and_none_is_fine() {
    let line = [&GOOD[..], &["--cache-refresh-interval=0", "--redis-addr=redis:x"]].concat();
    assert_eq!(
        whats(settings(&line, &[])),
        [
            "--cache-refresh-interval is 0: nobody can look that often",
            "--redis-addr: \"redis:x\" does not end with a port"
        ]
    );
    assert_eq!(settings(&[&GOOD[..], &["--redis-addr=none"]].concat(), &[]).unwrap().redis, None);
}

#[test]
fn the_command_is_well_formed() {
    prepare(Options::augment_args(Command::new("agent"))).debug_assert();
}

#[test]
fn what_may_pass_is_chosen_by_one_option_and_a_file_for_the_list() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yaml");
    std::fs::write(&file, "rules: [{verbs: [get], resources: [pods]}]").unwrap();
    let given = |line: &[&str]| settings(&[&GOOD[..], line].concat(), &[]).map(|settings| settings.proxy);
    let default = given(&[]).unwrap().unwrap();
    assert_eq!(
        (default.policy, default.read_only, default.impersonate),
        (PolicySource::Managed, false, false)
    );
    let path = format!("--proxy-policy-file={}", file.display());
    let listed = given(&["--proxy-policy=allow-list", &path, "--proxy-read-only"]).unwrap().unwrap();
    assert_eq!((listed.policy, listed.read_only), (PolicySource::AllowList(file.clone()), true));
    assert!(given(&["--enable-resource-proxy=false"]).unwrap().is_none());

    std::fs::write(&file, "rules: [{verbs: [get]}]").unwrap();
    for (line, what) in [
        (&["--proxy-policy=some"][..], "--proxy-policy: there is no policy \"some\""),
        (&["--proxy-policy=allow-list"], "--proxy-policy allow-list is set without --proxy-policy-file"),
        (&[&path], "--proxy-policy-file is set, but --proxy-policy is managed"),
        (&["--proxy-policy=allow-list", &path], "rule 1 names neither resources nor nonResourceURLs"),
    ] {
        let found = given(line).unwrap_err();
        assert!(found.0.len() == 1 && found.0[0].what.ends_with(what), "{found}");
    }
}

#[test]
fn the_way_to_the_principal_is_straight_and_over_http2_unless_somebody_says_otherwise() {
    let plain = settings(&GOOD, &[]).unwrap();
    assert!(!plain.websocket);
    assert!(settings(&[&GOOD[..], &["--enable-websocket"]].concat(), &[]).unwrap().websocket);
    assert!(settings(&GOOD, &[("ARGOCD_AGENT_ENABLE_WEBSOCKET", "true")]).unwrap().websocket);
    let often = settings(&[&GOOD[..], &["--keep-alive-ping-interval=30s"]].concat(), &[]).unwrap();
    assert_eq!(often.keepalive_interval, Some(Duration::from_secs(30)));
}

#[test]
fn a_proxy_of_the_environment_that_is_none_is_named_and_not_shown() {
    let server = HostPort::new("principal.example.com", 443).unwrap();
    let through = |url: &'static str| {
        transport::proxy(&server, move |name| (name == "https_proxy").then(|| url.to_owned()))
    };
    assert_eq!(
        through("http://proxy.example.com:3128").unwrap().unwrap().to_string(),
        "proxy.example.com:3128"
    );
    let problem = through("socks5://user:secret@proxy").unwrap_err();
    assert!(
        problem.what.contains("https_proxy") && problem.remedy.contains("http://HOST:PORT"),
        "{problem:?}"
    );
    assert!(!format!("{problem:?}").contains("secret"));
}

#[test]
fn profiles_are_served_on_loopback_where_they_are_asked_for() {
    let profiles =
        |extra: &[&str]| settings(&[&GOOD[..], extra].concat(), &[]).map(|settings| settings.profiles);
    assert_eq!(profiles(&[]).unwrap(), None);
    assert_eq!(profiles(&["--pprof-port=6060"]).unwrap().unwrap().to_string(), "127.0.0.1:6060");
    let both = profiles(&["--pprof-port=8181"]).unwrap_err();
    assert_eq!(both.0[0].what, "--metrics-port and --pprof-port are both 8181");
}
