//! What the principal's options accept, and what they answer to mistakes.

use std::path::Path;

use clap::Command;
use tiphys_shared::process::options::{KeyPair, lenient, load, prepare};
use tiphys_shared::security::tls::{Alpn, ClientCertificate};

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
    let command = prepare(Options::augment_args(Command::new("principal")));
    let access = format!("--kubeconfig={}", kubeconfig.display());
    let line = ["principal", &access].into_iter().chain(line.iter().copied());
    let given = lenient(command.clone()).try_get_matches_from(line).unwrap();
    let lookup =
        |name: &str| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
    load(&command, &given, &lookup, Options::validate).map(|loaded| loaded.value)
}

fn settings(line: &[&str], environment: &[(&str, &str)]) -> Result<Settings, Problems> {
    parse(tempfile::tempdir().unwrap().path(), line, environment)
}

const GOOD: [&str; 5] = ["-n", "argocd", "--auth", "mtls:subject:CN=([^,]+)", "--allowed-namespaces=*"];

fn whats(result: Result<Settings, Problems>) -> Vec<String> {
    result.unwrap_err().0.into_iter().map(|problem| problem.what).collect()
}

#[test]
fn the_defaults_are_those_of_upstream() {
    let settings = settings(&GOOD, &[]).unwrap();
    assert_eq!(settings.listen, Listen::everywhere(8443));
    assert_eq!(settings.metrics, Some(Listen::everywhere(8000)));
    assert_eq!(settings.health, Some(Listen::everywhere(8003)));
    assert_eq!(settings.token_key, TokenKey::Secret("argocd-agent-jwt".to_owned()));
    assert_eq!(settings.max_message_size, 200 * 1024 * 1024);
    let redis = settings.redis.unwrap();
    assert_eq!((redis.address.to_string().as_str(), redis.trust), ("argocd-redis:6379", None));
    assert_eq!(settings.redis_compression, Compression::Gzip);
    let Transport::Tls { identity, roots, policy } = settings.transport else {
        panic!("not TLS");
    };
    assert_eq!(identity, Identity::Kept(KeyPair::Secret("argocd-agent-principal-tls".to_owned())));
    assert_eq!(roots, Roots::Secret("argocd-agent-ca".to_owned()));
    assert_eq!(policy, Policy::mutual(), "mtls makes the certificate a must");
    assert_eq!(settings.notices, Vec::<String>::new());
    let proxy = settings.proxy.unwrap();
    assert_eq!(proxy.listen, Listen::everywhere(9090));
    assert_eq!(proxy.identity, KeyPair::Secret("argocd-agent-resource-proxy-tls".to_owned()));
    assert_eq!(proxy.roots, Roots::Secret("argocd-agent-ca".to_owned()));
    assert_eq!(proxy.policy.client_certificate, ClientCertificate::Required);
    assert!(proxy.operators.is_empty());
    let proxy = settings.redis_proxy.unwrap();
    assert_eq!(proxy.listen, Listen::everywhere(6379));
    assert!(proxy.tls.is_none());
}

#[test]
fn operators_reach_the_agents_of_their_patterns() {
    let given = "--resource-proxy-operators=alice,bob=edge-*,carol=/^(a|b)$/";
    let operators = settings(&[&GOOD[..], &[given]].concat(), &[]).unwrap().proxy.unwrap().operators;
    let reaches = |index: usize, agent: &str| operators[index].agents.matches(agent);
    assert_eq!(operators.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["alice", "bob", "carol"]);
    assert!(reaches(0, "core") && reaches(1, "edge-1") && reaches(2, "a"));
    assert!(!reaches(1, "core") && !reaches(2, "ab"));
    for (wrong, what) in [
        ("--resource-proxy-operators==edge", "--resource-proxy-operators: \"=edge\" has no common name"),
        ("--resource-proxy-operators=bob=[", "--resource-proxy-operators: \"[\" is not a glob"),
        (
            "--resource-proxy-key-path=/k",
            "--resource-proxy-key-path is set, but --resource-proxy-cert-path is not",
        ),
        ("--resource-proxy-listen-port=8443", "--listen-port and --resource-proxy-listen-port are both 8443"),
    ] {
        assert_eq!(whats(settings(&[&GOOD[..], &[wrong]].concat(), &[])), [what]);
    }
    let off = ["--enable-resource-proxy=false", "--resource-proxy-listen-port=8443"];
    assert!(settings(&[&GOOD[..], &off].concat(), &[]).unwrap().proxy.is_none());
}

#[test]
fn the_values_of_upstreams_config_map_start_the_principal() {
    // As its manifest fills them in: many are empty, all are texts.
    let environment = [
        ("ARGOCD_PRINCIPAL_LISTEN_HOST", "127.0.0.1"),
        ("ARGOCD_PRINCIPAL_LISTEN_PORT", "8443"),
        ("ARGOCD_PRINCIPAL_NAMESPACE", "argocd"),
        ("ARGOCD_PRINCIPAL_ALLOWED_NAMESPACES", ""),
        ("ARGOCD_PRINCIPAL_NAMESPACE_CREATE_ENABLE", "false"),
        ("ARGOCD_PRINCIPAL_TLS_SERVER_CERT_PATH", ""),
        ("ARGOCD_PRINCIPAL_TLS_MIN_VERSION", "tls1.3"),
        ("ARGOCD_PRINCIPAL_TLS_CIPHERSUITES", ""),
        ("ARGOCD_PRINCIPAL_AUTH", "mtls:CN=([^,]+)"),
        ("ARGOCD_PRINCIPAL_KEEP_ALIVE_MIN_INTERVAL", "0"),
        ("ARGOCD_PRINCIPAL_PPROF_PORT", "0"),
        ("ARGOCD_PRINCIPAL_REDIS_PROXY_SERVER_TLS_CERT_PATH", "/app/config/redis-proxy-server-tls/tls.crt"),
        ("ARGOCD_PRINCIPAL_REDIS_CA_PATH", "/app/config/redis-tls/ca.crt"),
        ("ARGOCD_PRINCIPAL_HA_ENABLED", ""),
        ("ARGOCD_PRINCIPAL_EVENT_PROCESSORS", "10"),
    ];
    let settings = settings(&[], &environment).unwrap();
    assert_eq!(settings.namespace, "argocd");
    assert_eq!(settings.listen.host.as_deref(), Some("127.0.0.1"));
    assert!(settings.notices.iter().any(|notice| notice.contains("deprecated")), "{:?}", settings.notices);
}

#[test]
fn every_mistake_is_reported_at_once() {
    let found = whats(settings(
        &[
            "--tls-cert=/no/cert",
            "--listen-port=none",
            "--metrics-port=8003",
            "--auth=mtls:CN=([^,]+",
            "--tls-min-version=ssl3",
            "--allowed-namespaces=[a,b",
            "--label-selector=a b",
            "--keepalive-min-interval=soon",
            "--ha-enabled",
            "--log-level=loud",
            "--event-processors=ten",
            "--root-ca-path=/no/ca",
        ],
        &[],
    ));
    let expected = [
        "--listen-port: \"none\" is not a number",
        "--keepalive-min-interval: \"soon\" is not a duration",
        "--event-processors: \"ten\" is not a number",
        "--ha-enabled asks for something that this version does not have",
        "--log-level: log level \"loud\" does not exist",
        "--auth: regular expression \"CN=([^,]+\" is wrong: unclosed group",
        "--tls-min-version: TLS version \"ssl3\" does not exist",
        "--tls-cert is set, but --tls-key is not",
        "--root-ca-path: /no/ca cannot be read: No such file or directory (os error 2)",
        "--namespace is missing, and neither the pod nor the kubeconfig context names one",
        "--allowed-namespaces: \"[a\" is not a glob",
        "--label-selector: \"a b\" is not a label selector: \"a b\" is not a label key",
        "--metrics-port and --healthz-port are both 8003",
    ];
    assert_eq!(found, expected);
}

#[test]
fn methods_and_transports_that_cannot_work_together_are_refused() {
    let pairing = whats(settings(&[&GOOD[..], &["--insecure-plaintext"]].concat(), &[]));
    assert_eq!(pairing, ["--auth mtls needs the client certificates that --insecure-plaintext leaves out"]);
    let header = whats(settings(&["-nargocd", "--auth=header:x-name:^(.*)$"], &[]));
    assert_eq!(header, ["--auth header trusts a header that anybody could set over plain TLS"]);
    let good = settings(&["-nargocd", "--auth=header:X-Name:^(.*)$", "--insecure-plaintext"], &[]).unwrap();
    assert!(matches!(good.authentication, AuthRule::Header { name, .. } if name == "x-name"));
    let both = whats(settings(&[&GOOD[..], &["--insecure-tls-generate", "--tls-key=/k"]].concat(), &[]));
    assert_eq!(both, ["--insecure-tls-generate is set together with --tls-cert or --tls-key"]);
}

#[test]
fn a_method_that_cannot_name_an_agent_is_refused() {
    for (auth, what) in [
        ("", "--auth is missing: how agents prove who they are"),
        ("mtls", "--auth: \"mtls\" does not begin with a known method and a colon"),
        ("oidc:x", "--auth: \"oidc:x\" does not begin with a known method and a colon"),
        ("mtls:subject:CN=.*", "--auth: \"CN=.*\" has no group for the agent's name"),
        (
            "userpass:/no/file",
            "--auth userpass: /no/file cannot be read: No such file or directory (os error 2)",
        ),
        ("header:a b:(.*)", "--auth: \"a b\" is not a header name"),
    ] {
        assert_eq!(whats(settings(&["-nargocd", "--auth", auth], &[]))[0], what);
    }
}

#[test]
fn a_bad_line_among_the_users_is_named_by_its_number_and_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");
    std::fs::write(&file, format!("a:$2y$10${}\n\nb:hunter2\n", "x".repeat(53))).unwrap();
    let auth = format!("--auth=userpass:{}", file.display());
    let problems = parse(folder.path(), &["-nargocd", &auth], &[]).unwrap_err();
    assert!(problems.0[0].what.starts_with("--auth userpass: line 3 of "), "{problems}");
    assert!(!problems.to_string().contains("hunter2"));
    std::fs::write(&file, format!("a:$2y$10${}\n", "x".repeat(53))).unwrap();
    let settings = parse(folder.path(), &["-nargocd", &auth], &[]).unwrap();
    assert!(matches!(settings.authentication, AuthRule::UserPass { .. }));
}

#[test]
fn features_that_are_not_here_are_refused_when_asked_for() {
    let problems = settings(&[&GOOD[..], &["--ha-enabled"]].concat(), &[]).unwrap_err();
    assert!(problems.0[0].remedy.starts_with("leave out"), "{problems}");
}

#[test]
fn profiles_are_served_on_loopback_where_they_are_asked_for() {
    let profiles =
        |extra: &[&str]| settings(&[&GOOD[..], extra].concat(), &[]).map(|settings| settings.profiles);
    assert_eq!(profiles(&[]).unwrap(), None);
    assert_eq!(profiles(&["--pprof-port=6060"]).unwrap().unwrap().to_string(), "127.0.0.1:6060");
    let both = profiles(&["--pprof-port=8003"]).unwrap_err();
    assert_eq!(both.0[0].what, "--healthz-port and --pprof-port are both 8003");
}

#[test]
fn the_redis_proxy_is_served_unless_it_is_turned_off_or_there_is_no_redis() {
    let proxy = |extra: &[&str]| settings(&[&GOOD[..], extra].concat(), &[]).unwrap().redis_proxy;
    assert!(proxy(&["--disable-redis-proxy"]).is_none());
    assert!(proxy(&["--redis-server-address=none"]).is_none());
    assert_eq!(proxy(&["--redis-proxy-port=1234"]).unwrap().listen, Listen::everywhere(1234));
    let (pair, policy) = proxy(&["--redis-tls-enabled"]).unwrap().tls.unwrap();
    assert_eq!(pair, KeyPair::Secret("argocd-redis-proxy-tls".to_owned()));
    assert_eq!((policy.client_certificate, policy.alpn), (ClientCertificate::None, Alpn::None));

    let whats = |extra: &[&str]| {
        let problems = settings(&[&GOOD[..], extra].concat(), &[]).unwrap_err();
        problems.0.into_iter().map(|problem| problem.what).collect::<Vec<_>>()
    };
    assert_eq!(whats(&["--redis-proxy-port=8443"]), ["--listen-port and --redis-proxy-port are both 8443"]);
    assert_eq!(
        whats(&["--redis-tls-enabled", "--redis-proxy-server-tls-cert=/no/such"]),
        ["--redis-proxy-server-tls-cert is set, but --redis-proxy-server-tls-key is not"]
    );
}

#[test]
fn a_principal_that_would_send_nothing_says_so() {
    let notices = settings(&GOOD[..4], &[]).unwrap().notices;
    assert!(
        notices.iter().any(|notice| notice.starts_with("--allowed-namespaces names none")),
        "{notices:?}"
    );
    let mapped = [&GOOD[..4], &["--destination-based-mapping"]].concat();
    let notices = settings(&mapped, &[]).unwrap().notices;
    assert!(notices.iter().all(|notice| !notice.starts_with("--allowed-namespaces")), "{notices:?}");
}

#[test]
fn the_command_is_well_formed() {
    prepare(Options::augment_args(Command::new("principal"))).debug_assert();
}

#[test]
fn agents_connect_over_http2_and_ping_as_they_like_unless_somebody_says_otherwise() {
    let plain = settings(&GOOD, &[]).unwrap();
    assert_eq!(plain.connections, Connections::default());
    let given = ["--enable-websocket", "--keepalive-min-interval=20s"];
    let wanted = Connections { websocket: true, min_ping_interval: Some(Duration::from_secs(20)) };
    assert_eq!(settings(&[&GOOD[..], &given].concat(), &[]).unwrap().connections, wanted);
    let environment =
        [("ARGOCD_PRINCIPAL_ENABLE_WEBSOCKET", "true"), ("ARGOCD_PRINCIPAL_KEEP_ALIVE_MIN_INTERVAL", "20s")];
    assert_eq!(settings(&GOOD, &environment).unwrap().connections, wanted);
}
