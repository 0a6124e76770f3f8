use proptest::prelude::*;

use super::*;

fn read(method: Method, text: &str) -> Result<ApiRequest, Invalid> {
    let (path, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
    ApiRequest::read(&method, path, query)
}

/// verb, group, version, namespace, resource, name, subresource
fn parts(method: Method, text: &str) -> String {
    let request = read(method, text).unwrap();
    match request.target {
        Target::Resource(path) => {
            let ResourcePath { group, version, namespace, resource, name, subresource } = path;
            format!("{} {group}|{version}|{namespace}|{resource}|{name}|{subresource}", request.verb)
        }
        Target::Other { path } => format!("{} {path}", request.verb),
    }
}

#[test]
fn a_request_is_read_as_kubernetes_reads_it() {
    use Method as M;
    // As in the table of Kubernetes' own tests.
    for (method, path, expected) in [
        (M::GET, "/api/v1/namespaces", "list |v1||namespaces||"),
        (M::GET, "/api/v1/namespaces/other", "get |v1|other|namespaces|other|"),
        (M::GET, "/api/v1/namespaces/other/pods", "list |v1|other|pods||"),
        (M::GET, "/api/v1/namespaces/other/pods/foo", "get |v1|other|pods|foo|"),
        (M::HEAD, "/api/v1/namespaces/other/pods/foo", "get |v1|other|pods|foo|"),
        (M::GET, "/api/v1/pods", "list |v1||pods||"),
        (M::HEAD, "/api/v1/pods", "list |v1||pods||"),
        (M::GET, "/api/v1/pods/", "list |v1||pods||"),
        (M::GET, "/api/v1/namespaces/other/pods?watch=1", "watch |v1|other|pods||"),
        (M::GET, "/api/v1/namespaces/other/pods?watch", "watch |v1|other|pods||"),
        (M::GET, "/api/v1/namespaces/other/pods?w%61tch=true", "watch |v1|other|pods||"),
        (M::GET, "/api/v1/namespaces/other/pods?watch=False", "list |v1|other|pods||"),
        (M::GET, "/api/v1/namespaces/other/pods?watch=0&watch=1", "list |v1|other|pods||"),
        (M::GET, "/api/v1/watch/namespaces/other/pods", "watch |v1|other|pods||"),
        (M::GET, "/api/v1/watch/namespaces/other/pods/foo", "watch |v1|other|pods|foo|"),
        (M::POST, "/api/v1/namespaces/other/pods", "create |v1|other|pods||"),
        (M::PUT, "/api/v1/namespaces/other/finalize", "update |v1|other|namespaces|other|finalize"),
        (M::PUT, "/api/v1/namespaces/other/status", "update |v1|other|namespaces|other|status"),
        (M::PATCH, "/api/v1/namespaces/other/pods/foo", "patch |v1|other|pods|foo|"),
        (M::DELETE, "/api/v1/namespaces/other/pods/foo", "delete |v1|other|pods|foo|"),
        (M::DELETE, "/api/v1/namespaces/other/pods", "deletecollection |v1|other|pods||"),
        (M::POST, "/api/v1/namespaces/a/pods/foo/exec", "create |v1|a|pods|foo|exec"),
        (M::GET, "/api/v1/namespaces/a/pods/foo/exec", "create |v1|a|pods|foo|exec"),
        (M::GET, "/api/v1/namespaces/a/pods/foo/proxy/x/y", "get |v1|a|pods|foo|proxy"),
        (M::GET, "/apis/apps/v1/namespaces/a/deployments/d/scale", "get apps|v1|a|deployments|d|scale"),
        (
            M::GET,
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
            "get rbac.authorization.k8s.io|v1||clusterroles|system:node|",
        ),
        (M::GET, "/apis/batch/v1", "get /apis/batch/v1"),
        (M::GET, "/apis/batch", "get /apis/batch"),
        (M::GET, "/api/v1", "get /api/v1"),
        (M::GET, "/api", "get /api"),
        (M::GET, "/version", "get /version"),
        (M::GET, "/openapi/v3/", "get /openapi/v3"),
        (M::GET, "/", "get /"),
        (M::HEAD, "/healthz", "head /healthz"),
    ] {
        assert_eq!(parts(method.clone(), path), expected, "{method} {path}");
    }
}

#[test]
fn what_servers_understand_in_different_ways_is_refused() {
    for path in [
        "",
        "api/v1/pods",
        "*",
        "/api/v1/../../metrics",
        "/api/v1/%2e%2e/pods",
        "/api/v1/namespaces/a/pods/.",
        "/api/v1//pods",
        "/api/v1/namespaces/a%2fsecrets/pods",
        "/api/v1/namespaces/a%5Csecrets",
        "/api/v1/pods/a%00",
        "/api/v1/pods/a%0d%0aHost:%20x",
        "/api/v1/pods/%252e%252e",
        "/api/v1/pods/%zz",
        "/api/v1/pods/%f",
        "/api/v1/pods/%ff",
        "/api/v1/proxy/namespaces/a/services/b",
        &format!("/{}", "a".repeat(5000)),
    ] {
        assert!(read(Method::GET, path).is_err(), "{path:?} was read");
    }
    for method in ["CONNECT", "TRACE", "BREW"] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        assert!(matches!(read(method, "/api/v1/pods"), Err(Invalid::Method(_))));
    }
}

#[test]
fn what_lasts_and_what_only_reads_is_known() {
    use Method as M;
    for (method, path, lasting, reads) in [
        (M::GET, "/api/v1/pods?watch=true", true, true),
        (M::GET, "/api/v1/pods", false, true),
        (M::GET, "/api/v1/namespaces/a/pods/b/log?follow=true", true, true),
        (M::GET, "/api/v1/namespaces/a/pods/b/log", false, true),
        (M::GET, "/api/v1/namespaces/a/pods/b/exec", true, false),
        (M::POST, "/api/v1/namespaces/a/pods/b/portforward", true, false),
        (M::GET, "/api/v1/namespaces/a/services/b/proxy/", true, false),
        (M::POST, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", false, true),
        (M::POST, "/apis/authorization.k8s.io/v1/subjectaccessreviews", false, false),
        (M::POST, "/api/v1/namespaces", false, false),
        (M::DELETE, "/api/v1/namespaces/a", false, false),
        (M::POST, "/logs", false, false),
        (M::GET, "/version", false, true),
    ] {
        let request = read(method.clone(), path).unwrap();
        assert_eq!((request.lasting, request.only_reads()), (lasting, reads), "{method} {path}");
    }
}

proptest! {
    #[test]
    fn nothing_that_is_read_holds_a_part_that_leads_elsewhere(path in "(/?[-a-z.%0-9/\\\\ \u{0}ä]{0,6}){0,8}") {
        if let Ok(request) = read(Method::GET, &path) {
            let parts = match request.target {
                Target::Other { path } => path.split('/').skip(1).map(str::to_owned).collect(),
                Target::Resource(p) => vec![p.group, p.version, p.namespace, p.resource, p.name, p.subresource],
            };
            for part in parts {
                prop_assert!(part != "." && part != ".." && !part.contains(['/', '\\', '%', '\0']));
            }
        }
    }

    #[test]
    fn encoding_a_path_changes_nothing_about_what_it_asks_for(name in "[a-z]{1,8}", encoded in any::<u8>()) {
        let hidden: String = name
            .bytes()
            .enumerate()
            .map(|(at, byte)| if encoded >> (at % 8) & 1 == 1 { format!("%{byte:02X}") } else { char::from(byte).into() })
            .collect();
        let plain = read(Method::GET, &format!("/api/v1/namespaces/{name}/secrets/{name}"));
        prop_assert_eq!(read(Method::GET, &format!("/api/v1/namespaces/{hidden}/secrets/{hidden}")), plain);
    }
}
