use std::time::Duration;

use jiff::Timestamp;

use super::*;
use crate::security::pki::Ca;

fn certificate(name: &str, uris: &[&str]) -> Certificate {
    let ca = Ca::generate("root", Timestamp::UNIX_EPOCH, Duration::from_secs(3600)).unwrap();
    let issued = ca.issue_client(name, uris, Timestamp::UNIX_EPOCH, Duration::from_secs(3600)).unwrap();
    issued.leaf().unwrap().unwrap()
}

fn rule(text: &str) -> AuthRule {
    AuthRule::parse(text).unwrap()
}

#[test]
fn the_name_is_the_first_group_on_the_subject() {
    for text in ["mtls:CN=([^,]+)", "mtls:subject:CN=([^,]+)", "mtls:subject:^CN=(.+)$"] {
        let name = rule(text).name_in_certificate(Some(&certificate("agent-a", &[]))).unwrap();
        assert_eq!(name.as_str(), "agent-a", "{text}");
    }
    let error =
        rule("mtls:CN=prod-(.+)").name_in_certificate(Some(&certificate("agent-a", &[]))).unwrap_err();
    assert!(error.to_string().contains("CN=agent-a"), "{error}");
}

#[test]
fn the_name_is_the_first_group_on_the_first_uri_that_matches() {
    let rule = rule("mtls:uri:^spiffe://td/agent/([^/]+)$");
    let several = certificate("x", &["https://td/agent/no", "spiffe://td/agent/agent-a"]);
    assert_eq!(rule.name_in_certificate(Some(&several)).unwrap().as_str(), "agent-a");
    assert!(matches!(rule.name_in_certificate(Some(&certificate("x", &[]))), Err(Error::NoUri(_))));
    let other = certificate("x", &["spiffe://other/agent/a"]);
    assert!(matches!(rule.name_in_certificate(Some(&other)), Err(Error::NoMatch(_))));
    assert!(matches!(rule.name_in_certificate(None), Err(Error::NoCertificate)));
}

#[test]
fn a_subject_cannot_pretend_to_be_two_attributes() {
    let sly = certificate("x,CN=admin", &[]);
    let name = rule("mtls:subject:CN=([^,]+)$").name_in_certificate(Some(&sly));
    assert!(
        matches!(name, Ok(ref name) if name.as_str() == "admin"),
        "a rule that ends in $ asks for this: {name:?}"
    );
    // The rule that upstream's documentation gives takes the first one, which is what the CA has certified.
    assert!(matches!(rule("mtls:CN=([^,]+)").name_in_certificate(Some(&sly)), Err(Error::BadName(_))));
}

#[test]
fn a_certified_name_that_could_leave_its_namespace_is_refused() {
    for name in ["../kube-system", "Agent", "a.b", "a b", ""] {
        assert!(rule("mtls:CN=(.*)").name_in_certificate(Some(&certificate(name, &[]))).is_err(), "{name:?}");
    }
}

#[test]
fn the_name_is_the_first_group_on_a_header() {
    let rule = rule("header:X-Forwarded-Client-Cert:^.*URI=spiffe://[^/]+/ns/[^/]+/sa/([^,;]+)");
    let mut headers = HeaderMap::new();
    assert!(matches!(rule.name_in_headers(&headers), Err(Error::NoHeader(_))));
    let value = "By=spiffe://td/x;URI=spiffe://td/ns/argocd/sa/agent-a;x=y";
    headers.insert("x-forwarded-client-cert", value.parse().unwrap());
    assert_eq!(rule.name_in_headers(&headers).unwrap().as_str(), "agent-a");
    headers.append("x-forwarded-client-cert", "URI=spiffe://td/ns/argocd/sa/agent-b".parse().unwrap());
    assert!(matches!(rule.name_in_headers(&headers), Err(Error::SeveralHeaders(_))));
    headers.insert("x-forwarded-client-cert", "nothing".parse().unwrap());
    assert!(matches!(rule.name_in_headers(&headers), Err(Error::HeaderNoMatch(_))));
}

#[test]
fn rules_keep_colons_and_know_their_methods() {
    assert_eq!(rule("userpass:/etc/pass:word").method(), "userpass");
    assert!(matches!(rule("userpass:/a:b"), AuthRule::UserPass { path } if path.ends_with("a:b")));
    assert_eq!(rule("mtls:(?:CN|OU)=(.+)").method(), "mtls");
    assert_eq!(rule("header:x-id:^(?:a:)?(.+)$").method(), "header");
    assert!(matches!(rule("userpass:/a").name_in_certificate(None), Err(Error::WrongMethod("userpass"))));
}

#[test]
fn a_wrong_rule_is_answered_with_a_right_one() {
    for (text, lesson) in [
        ("", "mtls:subject:CN=([^,]+)"),
        ("token:abc", "userpass:FILE"),
        ("mtls:", "mtls:subject:CN=([^,]+)"),
        ("mtls:uri:", "regular expression"),
        ("mtls:subject:CN=[^,]+", "parentheses"),
        ("mtls:subject:CN=([^,]+", "unclosed group"),
        ("userpass:", "user:bcrypt"),
        ("header:x-id", "header:x-client-id:^(.+)$"),
        ("header::(.+)", "header:x-client-id:^(.+)$"),
        ("header:x y:(.+)", "not a header name"),
    ] {
        let error = AuthRule::parse(text).unwrap_err().to_string();
        assert!(error.contains(lesson), "{text:?}: {error}");
    }
}
