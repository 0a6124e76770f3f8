//! Several CAs in one text, while one takes the place of another.

use super::*;

#[tokio::test]
async fn a_bundle_with_a_ca_that_is_good_is_no_error_wherever_it_stands() {
    let past: Timestamp = "2020-01-01T00:00:00Z".parse().unwrap();
    let old = Ca::generate("old", past, DAY).unwrap();
    let soon = Ca::generate("soon", PKI.now, 5 * DAY).unwrap();
    for (cas, severities) in [
        (vec![&old, &PKI.ca], vec![Severity::Warning, Severity::Warning]),
        (vec![&PKI.ca, &old], vec![Severity::Warning, Severity::Warning]),
        (vec![&soon, &PKI.ca], vec![]),
        (vec![&PKI.ca, &PKI.other], vec![]),
    ] {
        let world = sound().await;
        for side in [Control, Edge] {
            world.act(Change(side, "secret", "argocd-agent-ca", json!({"data": bundle(&cas)}))).await;
        }
        let found = world.findings(false).await;
        let found: Vec<_> = found.iter().map(|finding| (finding.check, finding.severity)).collect();
        let expected: Vec<_> = severities.into_iter().map(|it| ("certificate-expired", it)).collect();
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn the_ca_that_signs_is_looked_at_beside_those_that_are_believed() {
    let past: Timestamp = "2020-01-01T00:00:00Z".parse().unwrap();
    let old = Ca::generate("old", past, DAY).unwrap();
    let mut entries = bundle(&[&PKI.ca]);
    entries["tls.crt"] = json!(b64(old.certificate_pem().as_bytes()));
    entries["tls.key"] = json!(b64(old.key_pem().expose()));
    let world = sound().await;
    world.act(Change(Control, "secret", "argocd-agent-ca", json!({"data": entries}))).await;
    let found = world.findings(false).await;
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!((found[0].check, found[0].severity), ("certificate-expired", Severity::Error));
    assert!(found[0].what.contains("the CA that signs"), "{found:#?}");
}
