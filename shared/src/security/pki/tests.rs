use rustls::pki_types::PrivateKeyDer;

use super::super::tls::{ClientTls, Policy, ServerTls};
use super::*;

const DAY: Duration = Duration::from_secs(86_400);

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

#[test]
fn a_certificate_is_read_as_go_reads_it() {
    // The subject line and the fingerprint are what Go 1.26 prints for this certificate.
    let certificate = Certificate::from_pem(include_bytes!("testdata/names.crt")).unwrap();
    assert_eq!(
        certificate.subject,
        "SERIALNUMBER=42,CN=agent-1,OU=a+OU=b,O=Acme\\, Inc.,POSTALCODE=50667,STREET=\\ #1,L=Köln,ST=NRW,C=DE,\
         0.9.2342.19200300.100.1.25=#13076578616d706c65,1.2.840.113549.1.9.1=#0c057840792e7a"
    );
    assert_eq!(certificate.fingerprint, "65F5F6D60B985FDCAF8440B3DA7C5E9CB12AA2B3E439B20A50D556B30D97FEA3");
    assert_eq!(certificate.not_after.as_second(), 4_948_860_942);
    assert_eq!(certificate.common_name.as_deref(), Some("agent-1"));
    assert_eq!(certificate.uris, ["spiffe://td/ns/x/sa/agent-1"]);
    assert_eq!(certificate.dns_names, ["a.example"]);
    let addresses: Vec<String> = certificate.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.0.0.1", "fd00::1"]);
    let again = Certificate::from_pem(certificate.to_pem().as_bytes()).unwrap();
    assert_eq!(again, certificate);
}

#[test]
fn issued_certificates_say_what_was_asked_for() {
    let ca = Ca::generate("root", now(), 10 * DAY).unwrap();
    assert!(ca.certificate().is_ca);
    assert_eq!(ca.certificate().subject, "CN=root");

    let server =
        ca.issue_server(&["principal.example", "*.example", "127.0.0.1", "::1"], now(), DAY).unwrap();
    let server = server.leaf().unwrap().unwrap();
    assert_eq!(server.subject, "CN=principal.example");
    assert_eq!(server.dns_names, ["principal.example", "*.example"]);
    assert_eq!(server.addresses.len(), 2);
    assert!(!server.is_ca && server.is_valid_at(now()) && !server.is_valid_at(now() + 2 * DAY));

    let client = ca.issue_client("agent-a", &["spiffe://td/agent-a"], now(), DAY).unwrap();
    let client = client.leaf().unwrap().unwrap();
    assert_eq!(client.subject, "CN=agent-a");
    assert_eq!(client.uris, ["spiffe://td/agent-a"]);
    assert_ne!(client.fingerprint, server.fingerprint);
}

#[test]
fn a_ca_that_was_stored_can_sign_again() {
    let ca = Ca::generate("root", now(), 10 * DAY).unwrap();
    let again = Ca::from_pem(ca.certificate_pem().as_bytes(), ca.key_pem().expose()).unwrap();
    let server = again.issue_server(&["localhost"], now(), DAY).unwrap();
    assert!(server.leaf().unwrap().unwrap().issued_by(ca.certificate()));
    ServerTls::new(&server, Policy::mutual()).unwrap();
    ClientTls::new(&again.issue_client::<&str>("a", &[], now(), DAY).unwrap(), Policy::default(), false)
        .unwrap();
}

#[test]
fn cas_of_openssl_can_sign() {
    for (certificate, key) in [
        (include_str!("testdata/rsa-ca.crt"), include_str!("testdata/rsa-ca.pkcs8.key")),
        (include_str!("testdata/rsa-ca.crt"), include_str!("testdata/rsa-ca.pkcs1.key")),
        (include_str!("testdata/ec-ca.crt"), include_str!("testdata/ec-ca.sec1.key")),
    ] {
        let ca = Ca::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap();
        let issued = ca.issue_client::<&str>("agent", &[], now(), DAY).unwrap();
        assert!(issued.leaf().unwrap().unwrap().issued_by(ca.certificate()));
    }
}

#[test]
fn what_cannot_sign_is_refused_with_the_reason() {
    let ca = Ca::generate("root", now(), DAY).unwrap();
    let leaf = ca.issue_server(&["localhost"], now(), DAY).unwrap();
    let error = Ca::from_pem(&leaf.chain, leaf.key.expose()).unwrap_err();
    assert!(error.to_string().contains("is not a ca"), "{error}");
    let other = Ca::generate("root", now(), DAY).unwrap();
    let error = Ca::from_pem(ca.certificate_pem().as_bytes(), other.key_pem().expose()).unwrap_err();
    assert!(matches!(error, Error::KeyMismatch), "{error}");
    assert!(matches!(Ca::from_pem(b"", b""), Err(Error::NoCertificate)));
    assert!(matches!(Ca::from_pem(ca.certificate_pem().as_bytes(), b"x"), Err(Error::BadKey(_))));
    assert!(matches!(ca.issue_server(&["a b"], now(), DAY), Err(Error::BadName { .. })));
    assert!(matches!(Certificate::from_der(b"\x30\x03abc"), Err(Error::Malformed(_))));
}

#[test]
fn keys_are_ecdsa_in_pkcs8() {
    let ca = Ca::generate("root", now(), DAY).unwrap();
    let key = PrivateKeyDer::from_pem_slice(ca.key_pem().expose()).unwrap();
    assert!(matches!(key, PrivateKeyDer::Pkcs8(_)));
}

#[test]
fn a_certificate_says_which_key_it_has_and_for_which_hosts_it_is() {
    let ca = Ca::generate_with(KeyAlgorithm::EcdsaP384, "root", now(), 10 * DAY).unwrap();
    assert_eq!(ca.certificate().public_key, PublicKey { kind: "ECDSA", bits: 384 });
    let hosts = ["principal.example", "*.clusters.example", "10.0.0.1", "2001:db8::1"].map(str::to_owned);
    for (key, kind, bits) in [
        (KeyAlgorithm::EcdsaP256, "ECDSA", 256),
        (KeyAlgorithm::EcdsaP521, "ECDSA", 521),
        (KeyAlgorithm::Ed25519, "Ed25519", 256),
        (KeyAlgorithm::Rsa2048, "RSA", 2048),
    ] {
        let leaf = Leaf { common_name: "principal", hosts: &hosts, usage: Usage::Server, key };
        let issued = ca.issue(&leaf, now(), DAY).unwrap();
        let leaf = issued.leaf().unwrap().unwrap();
        assert_eq!((leaf.public_key.kind, leaf.public_key.bits), (kind, bits));
        assert_eq!(leaf.subject, "CN=principal");
        for host in ["Principal.Example", "a.clusters.example", "10.0.0.1", "[2001:db8::1]"] {
            assert!(leaf.covers(host), "{host}");
        }
        for host in
            ["", "principal", "clusters.example", ".clusters.example", "a.b.clusters.example", "10.0.0.2"]
        {
            assert!(!leaf.covers(host), "{host}");
        }
        ServerTls::new(&issued, Policy::mutual()).unwrap();
        assert_eq!(judge(&issued.chain, &issued.ca, Usage::Server, now()).unwrap(), Ok(()));
    }
}

#[test]
fn a_certificate_is_judged_as_a_handshake_would() {
    let (ca, namesake) =
        (Ca::generate("root", now(), 10 * DAY).unwrap(), Ca::generate("root", now(), 10 * DAY).unwrap());
    let client = ca.issue_client::<&str>("agent", &[], now(), DAY).unwrap();
    let verdict =
        |ca: &Ca, usage, at| judge(&client.chain, ca.certificate_pem().as_bytes(), usage, at).unwrap();
    assert_eq!(verdict(&ca, Usage::Client, now()), Ok(()));
    assert_eq!(verdict(&ca, Usage::Server, now()), Err(Distrust::Usage));
    assert_eq!(verdict(&namesake, Usage::Client, now()), Err(Distrust::UnknownIssuer));
    assert_eq!(verdict(&ca, Usage::Client, now() + 2 * DAY), Err(Distrust::Expired));
    assert_eq!(verdict(&ca, Usage::Client, now() - 2 * DAY), Err(Distrust::NotYetValid));
    assert!(judge(b"", &client.ca, Usage::Client, now()).is_err());
}
