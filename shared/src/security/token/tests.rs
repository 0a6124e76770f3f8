use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jsonwebtoken::EncodingKey;
use serde_json::{Value, json};

use super::*;

/// Making an RSA key takes a while: one for all tests.
fn key() -> &'static Secret {
    static KEY: OnceLock<Secret> = OnceLock::new();
    KEY.get_or_init(|| Issuer::generate_key(2048).unwrap())
}

fn other_key() -> &'static Secret {
    static KEY: OnceLock<Secret> = OnceLock::new();
    KEY.get_or_init(|| Issuer::generate_key(2048).unwrap())
}

fn issuer() -> Issuer {
    Issuer::from_pem(key()).unwrap()
}

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

fn later(seconds: i64) -> Timestamp {
    now() + jiff::SignedDuration::from_secs(seconds)
}

fn subject() -> Subject {
    Subject { agent: AgentName::new("agent-a").unwrap(), mode: Mode::Managed }
}

fn part(token: &str, index: usize) -> Value {
    serde_json::from_slice(&BASE64.decode(token.split('.').nth(index).unwrap()).unwrap()).unwrap()
}

fn signed(key: &Secret, claims: &Value) -> String {
    let key = EncodingKey::from_rsa_pem(key.expose()).unwrap();
    jsonwebtoken::encode(&Header::new(Algorithm::RS512), claims, &key).unwrap()
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": ["argocd-agent-server-access"], "sub": "{\"clientID\":\"agent-a\",\"mode\":\"managed\"}",
        "nbf": now().as_second(), "iat": now().as_second(), "exp": later(300).as_second(), "jti": "x",
    })
}

#[test]
fn claims_have_the_shape_that_upstream_writes() {
    let pair = issuer().issue(&subject(), now()).unwrap();
    let header = part(&pair.access, 0);
    assert_eq!((&header["alg"], &header["typ"]), (&json!("RS512"), &json!("JWT")));
    let refresh = pair.refresh.unwrap();
    for (token, audience, lifetime) in
        [(&pair.access, "argocd-agent-server-access", 300), (&refresh, "argocd-agent-server-refresh", 86_400)]
    {
        let mut claims = part(token, 1);
        let jti = claims.as_object_mut().unwrap().remove("jti").unwrap();
        assert_eq!(jti.as_str().unwrap().len(), 36);
        assert_eq!(
            claims,
            json!({
                "iss": "argocd-agent-server", "aud": [audience],
                "sub": "{\"clientID\":\"agent-a\",\"mode\":\"managed\"}",
                "exp": now().as_second() + lifetime, "nbf": now().as_second(), "iat": now().as_second(),
            })
        );
    }
    assert_ne!(part(&pair.access, 1)["jti"], part(&refresh, 1)["jti"]);
}

#[test]
fn a_token_is_good_until_it_expires() {
    let issuer = issuer();
    let pair = issuer.issue(&subject(), now()).unwrap();
    let verified = issuer.verify_access(&pair.access, later(299)).unwrap();
    assert_eq!((verified.subject, verified.expires), (subject(), later(300)));
    assert_eq!(issuer.verify_access(&pair.access, later(300)), Err(Error::Expired(later(300))));
    assert_eq!(issuer.verify_access(&pair.access, later(-31)), Err(Error::NotYetValid(now())));
    issuer.verify_access(&pair.access, later(-29)).unwrap();
}

#[test]
fn a_refresh_token_gets_access_and_is_renewed_only_near_its_end() {
    let issuer = issuer();
    let refresh = issuer.issue(&subject(), now()).unwrap().refresh.unwrap();
    let (who, pair) = issuer.refresh(&refresh, later(3600)).unwrap();
    assert_eq!((who, pair.refresh), (subject(), None));
    issuer.verify_access(&pair.access, later(3700)).unwrap();
    let (_, pair) = issuer.refresh(&refresh, later(86_400 - 599)).unwrap();
    issuer.verify_refresh(&pair.refresh.unwrap(), later(86_400 + 3600)).unwrap();
    assert_eq!(issuer.refresh(&refresh, later(86_400)), Err(Error::Expired(later(86_400))));
}

#[test]
fn a_token_is_good_for_one_purpose_only() {
    let issuer = issuer();
    let pair = issuer.issue(&subject(), now()).unwrap();
    let refresh = pair.refresh.unwrap();
    assert!(matches!(issuer.verify_access(&refresh, now()), Err(Error::Audience { .. })));
    assert!(matches!(issuer.refresh(&pair.access, now()), Err(Error::Audience { .. })));
    let proxy = issuer.issue_resource_proxy(&subject().agent, now()).unwrap();
    assert_eq!(issuer.verify_resource_proxy(&proxy, later(1_000_000_000)).unwrap(), subject().agent);
    assert!(matches!(issuer.verify_access(&proxy, now()), Err(Error::Audience { .. })));
    assert!(matches!(issuer.verify_resource_proxy(&pair.access, now()), Err(Error::Audience { .. })));
}

#[test]
fn what_somebody_else_signed_is_refused() {
    let foreign = Issuer::from_pem(other_key()).unwrap().issue(&subject(), now()).unwrap();
    assert_eq!(issuer().verify_access(&foreign.access, now()), Err(Error::Signature));
    let mut wrong = claims();
    wrong["iss"] = json!("somebody");
    let error = issuer().verify_access(&signed(key(), &wrong), now()).unwrap_err();
    assert_eq!(error, Error::Issuer { expected: ISSUER.into(), found: "somebody".into() });
}

#[test]
fn a_changed_token_is_refused() {
    let token = issuer().issue(&subject(), now()).unwrap().access;
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    let mut claims = part(&token, 1);
    claims["sub"] = json!("{\"clientID\":\"admin\",\"mode\":\"managed\"}");
    parts[1] = BASE64.encode(claims.to_string());
    assert_eq!(issuer().verify_access(&parts.join("."), now()), Err(Error::Signature));
}

#[test]
fn the_algorithm_cannot_be_chosen_by_the_token() {
    let header = |alg: &str| BASE64.encode(json!({"alg": alg, "typ": "JWT"}).to_string());
    let body = BASE64.encode(claims().to_string());
    for alg in ["none", "None", ""] {
        let token = format!("{}.{body}.", header(alg));
        assert!(matches!(issuer().verify_access(&token, now()), Err(Error::Malformed(_))), "{alg:?}");
    }
    // The public key, which an attacker may know, as the secret of an HMAC.
    let public = rcgen::KeyPair::from_pem(key().expose_str().unwrap()).unwrap().public_key_pem();
    let hmac = EncodingKey::from_secret(public.as_bytes());
    let token = jsonwebtoken::encode(&Header::new(Algorithm::HS512), &claims(), &hmac).unwrap();
    assert_eq!(issuer().verify_access(&token, now()), Err(Error::Algorithm("HS512".into())));
    // The right key with another algorithm.
    let rsa = EncodingKey::from_rsa_pem(key().expose()).unwrap();
    let token = jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims(), &rsa).unwrap();
    assert_eq!(issuer().verify_access(&token, now()), Err(Error::Algorithm("RS256".into())));
}

#[test]
fn rubbish_is_malformed_and_never_more_than_that() {
    let long = "a".repeat(MAX_LENGTH + 1);
    for token in ["", ".", "..", "a.b.c", "a.b.c.d", "🦀.🦀.🦀", "Bearer x", &long] {
        assert!(matches!(issuer().verify_access(token, now()), Err(Error::Malformed(_))), "{token:.20}");
    }
    for claims in [json!([]), json!({"iss": 7}), json!(null)] {
        let token = signed(key(), &claims);
        assert!(matches!(issuer().verify_access(&token, now()), Err(Error::Malformed(_))), "{claims}");
    }
    for (claim, value) in [("exp", json!(1e300)), ("nbf", json!(-1e300)), ("exp", json!("soon"))] {
        let mut claims = claims();
        claims[claim] = value;
        let token = signed(key(), &claims);
        assert!(matches!(issuer().verify_access(&token, now()), Err(Error::Malformed(_))), "{claims}");
    }
    let mut eternal = claims();
    eternal.as_object_mut().unwrap().remove("exp");
    let error = issuer().verify_access(&signed(key(), &eternal), now()).unwrap_err();
    assert_eq!(error, Error::Malformed("no exp claim".into()));
}

#[test]
fn a_subject_that_names_no_agent_is_refused() {
    for subject in [
        "",
        "agent-a",
        "{}",
        "{\"clientID\":\"../x\",\"mode\":\"managed\"}",
        "{\"clientID\":\"a\",\"mode\":\"x\"}",
    ] {
        let mut claims = claims();
        claims["sub"] = json!(subject);
        let error = issuer().verify_access(&signed(key(), &claims), now()).unwrap_err();
        assert!(matches!(error, Error::Subject(_)), "{subject}: {error}");
    }
}

#[test]
fn after_a_rotation_old_tokens_stay_good_and_new_ones_have_the_new_key() {
    let issuer = issuer();
    let old = issuer.issue(&subject(), now()).unwrap().access;
    let rotations = issuer.rotations();
    issuer.rotate(other_key(), now()).unwrap();
    issuer.rotate(other_key(), now()).unwrap();
    assert_eq!(*rotations.borrow(), 1, "the same key again is no rotation");
    issuer.verify_access(&old, now()).unwrap();
    let new = issuer.issue(&subject(), now()).unwrap().access;
    Issuer::from_pem(other_key()).unwrap().verify_access(&new, now()).unwrap();
    issuer.verify_access(&new, now()).unwrap();
    assert!(issuer.rotate(&Secret::from("rubbish"), now()).is_err());
    issuer.verify_access(&new, now()).unwrap();
}

#[test]
fn a_replaced_key_is_believed_as_long_as_its_tokens_may_live_and_no_longer() {
    let issuer = issuer();
    let lasting = issuer.issue_resource_proxy(&subject().agent, now()).unwrap();
    issuer.rotate(other_key(), now()).unwrap();
    let late = now() + REFRESH_LIFETIME - Duration::from_secs(1);
    issuer.verify_resource_proxy(&lasting, late).unwrap();
    // A further rotation does not make it live longer.
    issuer.rotate(other_key(), late).unwrap();
    let over = now() + REFRESH_LIFETIME;
    assert_eq!(issuer.verify_resource_proxy(&lasting, over), Err(Error::Signature));
}

#[test]
fn further_keys_of_the_text_are_believed_and_do_not_sign() {
    let old = issuer().issue(&subject(), now()).unwrap().access;
    let both = format!("{}\n{}", other_key().expose_str().unwrap(), key().expose_str().unwrap());
    let issuer = Issuer::from_pem(&Secret::from(both)).unwrap();
    issuer.verify_access(&old, now()).unwrap();
    let new = issuer.issue(&subject(), now()).unwrap().access;
    let header = jsonwebtoken::decode_header(&new).unwrap();
    assert!(header.kid.is_some());
    Issuer::from_pem(other_key()).unwrap().verify_access(&new, now()).unwrap();
}

#[test]
fn keys_of_both_sizes_and_forms_sign() {
    for key in [
        include_str!("../tls/testdata/rsa.pkcs8.key"),
        include_str!("../tls/testdata/rsa.pkcs1.key"),
        include_str!("testdata/rsa4096.pkcs8.key"),
    ] {
        let issuer = Issuer::from_pem(&Secret::from(key)).unwrap();
        let token = issuer.issue(&subject(), now()).unwrap().access;
        issuer.verify_access(&token, now()).unwrap();
    }
    let error = Issuer::from_pem(&Secret::from(include_str!("../tls/testdata/ec.sec1.key"))).unwrap_err();
    assert!(matches!(error, Error::Key(_)), "{error}");
    assert!(matches!(Issuer::generate_key(1024), Err(Error::Sign(_))));
}

#[test]
fn an_issuer_does_not_print_its_key() {
    assert_eq!(format!("{:?}", issuer()), "Issuer { name: \"argocd-agent-server\", keys: 1, .. }");
}
