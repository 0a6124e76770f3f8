use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::security::pki::Ca;

const DAY: Duration = Duration::from_secs(86_400);

fn ca() -> Ca {
    Ca::generate("test ca", Timestamp::now(), DAY).unwrap()
}

fn server(ca: &Ca) -> Material {
    ca.issue_server(&["localhost", "127.0.0.1"], Timestamp::now(), DAY).unwrap()
}

fn client(ca: &Ca) -> Material {
    ca.issue_client::<&str>("agent", &[], Timestamp::now(), DAY).unwrap()
}

/// Shakes hands in memory and passes one byte each way. Returns the negotiated version.
async fn shake(server: &ServerTls, client: &ClientTls) -> Result<rustls::ProtocolVersion, std::io::Error> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let accept = async {
        let mut stream = TlsAcceptor::from(server.current()).accept(far).await?;
        stream.write_u8(1).await?;
        stream.flush().await?;
        stream.read_u8().await
    };
    let connect = async {
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = TlsConnector::from(client.current()).connect(name, near).await?;
        stream.read_u8().await?;
        stream.write_u8(2).await?;
        stream.flush().await?;
        Ok::<_, std::io::Error>(stream.get_ref().1.protocol_version().unwrap())
    };
    let (accepted, connected) = tokio::join!(accept, connect);
    accepted?;
    connected
}

#[tokio::test]
async fn the_default_is_tls_1_3_and_mutual_means_both_are_checked() {
    let ca = ca();
    let server = ServerTls::new(&server(&ca), Policy::mutual()).unwrap();
    let good = ClientTls::new(&client(&ca), Policy::default(), false).unwrap();
    assert_eq!(shake(&server, &good).await.unwrap(), rustls::ProtocolVersion::TLSv1_3);

    let nobody = Material::ca_only(ca.certificate_pem());
    let nobody = ClientTls::new(&nobody, Policy::default(), false).unwrap();
    assert!(shake(&server, &nobody).await.is_err());

    let other_ca = Ca::generate("test ca", Timestamp::now(), DAY).unwrap();
    let mut stranger = client(&other_ca);
    stranger.ca = ca.certificate_pem().into();
    let stranger = ClientTls::new(&stranger, Policy::default(), false).unwrap();
    assert!(shake(&server, &stranger).await.is_err());
}

#[tokio::test]
async fn requested_certificates_may_be_absent_but_not_wrong() {
    let (ca, other) = (ca(), ca());
    let policy = Policy { client_certificate: ClientCertificate::Requested, ..Policy::default() };
    let server = ServerTls::new(&server(&ca), policy).unwrap();
    let none = Material::ca_only(ca.certificate_pem());
    shake(&server, &ClientTls::new(&none, Policy::default(), false).unwrap()).await.unwrap();
    let mut wrong = client(&other);
    wrong.ca = ca.certificate_pem().into();
    assert!(shake(&server, &ClientTls::new(&wrong, Policy::default(), false).unwrap()).await.is_err());
}

#[tokio::test]
async fn insecure_clients_believe_any_server() {
    let server = ServerTls::new(&server(&ca()), Policy::default()).unwrap();
    let strict =
        ClientTls::new(&Material::ca_only(ca().certificate_pem()), Policy::default(), false).unwrap();
    assert!(shake(&server, &strict).await.is_err());
    let insecure = ClientTls::new(&Material::default(), Policy::default(), true).unwrap();
    shake(&server, &insecure).await.unwrap();
    let range = Policy { min_version: Version::Tls12, max_version: Version::Tls12, ..Policy::default() };
    let old_server = ServerTls::new(&self::server(&ca()), range.clone()).unwrap();
    let old = ClientTls::new(&Material::default(), range, true).unwrap();
    assert_eq!(shake(&old_server, &old).await.unwrap(), rustls::ProtocolVersion::TLSv1_2);
}

#[tokio::test]
async fn replaced_material_is_used_by_the_next_handshake_and_bad_material_is_not() {
    let (old, new) = (ca(), ca());
    let server_tls = ServerTls::new(&server(&old), Policy::default()).unwrap();
    let client_tls =
        ClientTls::new(&Material::ca_only(old.certificate_pem()), Policy::default(), false).unwrap();
    shake(&server_tls, &client_tls).await.unwrap();

    server_tls.replace(&server(&new)).unwrap();
    assert!(shake(&server_tls, &client_tls).await.is_err());
    client_tls.replace(&Material::ca_only(new.certificate_pem())).unwrap();
    shake(&server_tls, &client_tls).await.unwrap();

    assert!(matches!(client_tls.replace(&Material::ca_only("rubbish")), Err(Error::NoCertificate { .. })));
    let mixed = Material { key: server(&new).key, ..server(&new) };
    assert!(matches!(server_tls.replace(&mixed), Err(Error::KeyMismatch)));
    assert!(matches!(server_tls.replace(&Material::default()), Err(Error::NoCertificate { .. })));
    shake(&server_tls, &client_tls).await.unwrap();
}

#[tokio::test]
async fn a_bundle_of_cas_accepts_certificates_of_each() {
    let (old, new) = (ca(), ca());
    let bundle = format!("# old and new\n{}\n{}", old.certificate_pem(), new.certificate_pem());
    let client = ClientTls::new(&Material::ca_only(bundle), Policy::default(), false).unwrap();
    for ca in [old, new] {
        let server = ServerTls::new(&server(&ca), Policy::default()).unwrap();
        shake(&server, &client).await.unwrap();
    }
}

#[test]
fn a_server_that_checks_certificates_needs_a_ca() {
    let without = Material { ca: Vec::new(), ..server(&ca()) };
    assert!(matches!(ServerTls::new(&without, Policy::mutual()), Err(Error::NoCa)));
    ServerTls::new(&without, Policy::default()).unwrap();
}

#[test]
fn keys_are_taken_in_every_usual_form_and_named_when_they_are_not() {
    for (form, certificate, key) in [
        ("pkcs8 rsa", include_str!("testdata/rsa.crt"), include_str!("testdata/rsa.pkcs8.key")),
        ("pkcs1 rsa", include_str!("testdata/rsa.crt"), include_str!("testdata/rsa.pkcs1.key")),
        ("sec1 ec", include_str!("testdata/ec.crt"), include_str!("testdata/ec.sec1.key")),
        ("pkcs8 ec", include_str!("testdata/ec.crt"), include_str!("testdata/ec.pkcs8.key")),
    ] {
        let material = Material::new(certificate, key, "");
        if let Err(error) = ServerTls::new(&material, Policy::default()) {
            panic!("{form}: {error}");
        }
    }
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let material = Material::new(include_str!("testdata/ec.crt"), encrypted, "");
    let error = ServerTls::new(&material, Policy::default()).unwrap_err().to_string();
    assert!(error.contains("not encrypted"), "{error}");
}

#[test]
fn versions_are_read_and_obsolete_ones_refused_with_the_reason() {
    assert_eq!("tls1.2".parse::<Version>().unwrap(), Version::Tls12);
    assert_eq!("tls1.3".parse::<Version>().unwrap(), Version::Tls13);
    let error = "tls1.1".parse::<Version>().unwrap_err().to_string();
    assert!(error.contains("obsolete") && error.contains("tls1.2"), "{error}");
    assert!(matches!("tls2".parse::<Version>(), Err(Error::UnknownVersion(_))));
    let upside_down =
        Policy { min_version: Version::Tls13, max_version: Version::Tls12, ..Policy::default() };
    assert!(matches!(ServerTls::new(&server(&ca()), upside_down), Err(Error::VersionOrder { .. })));
}

#[tokio::test]
async fn suites_have_their_go_names_and_must_fit_the_versions() {
    let ca = ca();
    let suite = |name: &str| cipher_suite(name).unwrap();
    let policy = Policy { cipher_suites: vec![suite("TLS_AES_256_GCM_SHA384")], ..Policy::default() };
    let server_tls = ServerTls::new(&server(&ca), policy).unwrap();
    let other = Policy { cipher_suites: vec![suite("TLS_AES_128_GCM_SHA256")], ..Policy::default() };
    let trust = Material::ca_only(ca.certificate_pem());
    assert!(shake(&server_tls, &ClientTls::new(&trust, other, false).unwrap()).await.is_err());
    shake(&server_tls, &ClientTls::new(&trust, Policy::default(), false).unwrap()).await.unwrap();

    let old = suite("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305");
    let out_of_range = Policy { cipher_suites: vec![old], ..Policy::default() };
    assert!(matches!(ServerTls::new(&server(&ca), out_of_range), Err(Error::CipherSuiteOutOfRange { .. })));
    // As in Go, a list of TLS 1.2 suites leaves TLS 1.3 as it is.
    let both = Policy { cipher_suites: vec![old], min_version: Version::Tls12, ..Policy::default() };
    let server_tls = ServerTls::new(&server(&ca), both).unwrap();
    shake(&server_tls, &ClientTls::new(&trust, Policy::default(), false).unwrap()).await.unwrap();

    let error = cipher_suite("TLS_RSA_WITH_RC4_128_SHA").unwrap_err().to_string();
    assert!(error.contains("TLS_AES_128_GCM_SHA256"), "{error}");
}

#[test]
fn material_does_not_print_its_key() {
    let text = format!("{:?}", server(&ca()));
    assert!(text.contains("Secret(hidden)"), "{text}");
}
