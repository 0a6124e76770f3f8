//! What is lost when one Secret takes another one's place, and what is kept. Pure.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use tiphys_shared::security::pki::{Certificate, Error};

/// The entry with the CAs that are believed, where they are not the one that signs.
pub(crate) const BUNDLE: &str = "ca.crt";

type Data = BTreeMap<String, ByteString>;

/// The CAs of both in PEM, each once: those that are there, and what is new.
///
/// # Errors
/// One of them is no PEM, or has what is no certificate.
pub(crate) fn merged(there: &[u8], wanted: &[u8]) -> Result<Vec<u8>, Error> {
    let known = Certificate::all_from_pem(there)?;
    let mut text = there.to_vec();
    for certificate in Certificate::all_from_pem(wanted)? {
        if !known.contains(&certificate) {
            if text.last().is_some_and(|end| *end != b'\n') {
                text.push(b'\n');
            }
            text.extend(certificate.to_pem().into_bytes());
        }
    }
    Ok(text)
}

/// Adds the CAs that are believed to those of what takes their place, and says so. The bundle of a CA that has none of its
/// own becomes the old one and the new CA.
pub(super) fn extend(there: &Data, wanted: &mut Data) -> Vec<String> {
    let Some(old) = there.get(BUNDLE) else { return Vec::new() };
    let Some(new) = wanted.get(BUNDLE).or_else(|| wanted.get("tls.crt")).cloned() else { return Vec::new() };
    let Ok(text) = merged(&old.0, &new.0) else {
        return vec![format!("{BUNDLE} could not be read: it is not kept")];
    };
    let remarks = missing(&old.0, &new.0).iter().map(|ca| format!("{BUNDLE} still has {ca}")).collect();
    wanted.insert(BUNDLE.to_owned(), ByteString(text));
    remarks
}

/// What is not there any more afterwards.
pub(super) fn dropped(there: &Data, wanted: &Data) -> Vec<String> {
    let entries = there.keys().filter(|name| !wanted.contains_key(*name));
    let entries = entries.map(|name| format!("{name} is no longer in it"));
    let bundles = there.get(BUNDLE).zip(wanted.get(BUNDLE));
    let authorities = bundles.map(|(old, new)| missing(&old.0, &new.0)).unwrap_or_default();
    entries.chain(authorities.iter().map(|ca| format!("{BUNDLE} no longer has {ca}"))).collect()
}

/// Certificates of one text that are not in the other. A text that is none has none.
fn missing(from: &[u8], other: &[u8]) -> Vec<String> {
    let read = |text: &[u8]| Certificate::all_from_pem(text).unwrap_or_default();
    let other = read(other);
    let certificates = read(from).into_iter().filter(|certificate| !other.contains(certificate));
    certificates
        .map(|certificate| format!("the CA {} with SHA-256 {}", certificate.subject, certificate.fingerprint))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tiphys_shared::process::clock;
    use tiphys_shared::security::pki::Ca;

    use super::*;

    fn ca(name: &str) -> String {
        let ca = Ca::generate(name, clock::now(), Duration::from_secs(86_400)).unwrap();
        ca.certificate_pem().to_owned()
    }

    fn data(entries: &[(&str, &str)]) -> Data {
        let entries = entries.iter();
        entries.map(|(key, text)| ((*key).to_owned(), ByteString(text.as_bytes().to_vec()))).collect()
    }

    fn subjects(text: &[u8]) -> Vec<String> {
        Certificate::all_from_pem(text).unwrap().into_iter().map(|one| one.subject).collect()
    }

    #[test]
    fn a_bundle_keeps_what_it_has_and_takes_what_is_new_once() {
        let (old, new) = (ca("old"), ca("new"));
        // Also where the text does not end with a line.
        let both = merged(old.trim_end().as_bytes(), new.as_bytes()).unwrap();
        assert_eq!(subjects(&both), ["CN=old", "CN=new"]);
        assert_eq!(merged(&both, old.as_bytes()).unwrap(), both);
        let broken = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
        assert!(merged(broken.as_bytes(), new.as_bytes()).is_err());
    }

    #[test]
    fn what_takes_the_place_of_a_bundle_extends_it_and_what_is_dropped_is_named() {
        let (old, new) = (ca("old"), ca("new"));
        let there = data(&[("ca.crt", &old), ("note", "x")]);
        let mut issued = data(&[("tls.crt", &new), ("tls.key", "k")]);
        let kept = extend(&there, &mut issued);
        assert!(kept.len() == 1 && kept[0].contains("still has the CA CN=old"), "{kept:?}");
        assert_eq!(subjects(&issued["ca.crt"].0), ["CN=old", "CN=new"]);
        assert_eq!(dropped(&there, &issued), ["note is no longer in it"]);
        let lost = dropped(&there, &data(&[("ca.crt", &new), ("note", "y")]));
        assert!(lost.len() == 1 && lost[0].contains("no longer has the CA CN=old"), "{lost:?}");
        // Without a bundle there is nothing to extend.
        let mut alone = data(&[("tls.crt", &new)]);
        assert!(extend(&data(&[("tls.crt", &old)]), &mut alone).is_empty());
        assert_eq!(alone.get("ca.crt"), None);
    }
}
