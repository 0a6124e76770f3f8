//! Certificate signing requests: made where the key is, signed where the CA is.
//!
//! Of a request only its public key is used, and the common name is compared. Whatever else it asks for is not granted.

use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::CertificateSigningRequestDer;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::{BACKDATE, Ca, Certificate, Error, KeyAlgorithm, generate, ia5, parameters};
use crate::security::secret::Secret;

/// Requests are some hundred bytes, a few thousand with a large RSA key.
const MOST: usize = 16 * 1024;

/// A new key and a request for a certificate for it.
pub struct Request {
    /// The private key, PEM.
    pub key: Secret,
    /// The request, DER.
    pub der: Vec<u8>,
}

impl Request {
    /// Makes an ECDSA P-256 key, and asks for `CN=name` for it.
    pub fn new(name: &str) -> Result<Self, Error> {
        let key = KeyAlgorithm::default().generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let request = params.serialize_request(&key).map_err(generate)?;
        Ok(Self { key: Secret::from(key.serialize_pem()), der: request.der().to_vec() })
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").finish_non_exhaustive()
    }
}

impl Ca {
    /// Signs a client's certificate for the key of a request: `CN=name`, with `uris` as further names. It ends no later than
    /// the CA itself. Returns it as PEM text.
    ///
    /// # Errors
    /// [`Error::BadRequest`] if the request is not one, is not signed with its own key, or asks for another name.
    pub fn sign_request(
        &self,
        request: &[u8],
        name: &str,
        uris: &[String],
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<String, Error> {
        let refused = |reason: String| Error::BadRequest { reason };
        if request.len() > MOST {
            return Err(refused("it is too long".into()));
        }
        let der = CertificateSigningRequestDer::from(request.to_vec());
        // This checks the signature, too: whoever asks has the key.
        let parsed = CertificateSigningRequestParams::from_der(&der).map_err(|e| refused(e.to_string()))?;
        let asked = common_name(request).ok_or_else(|| refused("it has no common name".into()))?;
        if asked != name {
            return Err(refused(format!("it asks for {asked:?}, and only {name:?} can be certified")));
        }
        let rest = self.certificate.not_after.duration_since(now);
        let lifetime = lifetime.min(Duration::try_from(rest).unwrap_or_default());
        if lifetime.is_zero() {
            return Err(Error::Ended { end: self.certificate.not_after });
        }
        let mut params = parameters(name, now, lifetime)?;
        for uri in uris {
            params.subject_alt_names.push(SanType::URI(ia5(uri)?));
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let signed = params.signed_by(&parsed.public_key, &self.issuer).map_err(generate)?;
        Ok(signed.pem())
    }
}

impl Certificate {
    /// When its holder should have the next one: after two thirds of the time for which it was made.
    pub fn renew_at(&self) -> Timestamp {
        let made = self.not_before.saturating_add(BACKDATE).unwrap_or(self.not_before);
        let life = Duration::try_from(self.not_after.duration_since(made)).unwrap_or_default();
        self.not_after.saturating_sub(life / 3).unwrap_or(self.not_before)
    }
}

fn common_name(request: &[u8]) -> Option<String> {
    let (_, parsed) = X509CertificationRequest::from_der(request).ok()?;
    let subject = &parsed.certification_request_info.subject;
    let mut names = subject.iter_common_name();
    let name = names.next()?.as_str().ok()?.to_owned();
    // Two names are one too many to compare.
    names.next().is_none().then_some(name)
}

#[cfg(test)]
mod tests {
    use super::super::super::tls::{ClientTls, Material, Policy};
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn now() -> Timestamp {
        "2026-11-21T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_request_is_signed_for_its_own_key_and_name_and_nothing_else_is_granted() {
        let ca = Ca::generate("root", now(), 10 * DAY).unwrap();
        let request = Request::new("edge-1").unwrap();
        let uris = ["spiffe://td/edge-1".to_owned()];
        let pem = ca.sign_request(&request.der, "edge-1", &uris, now(), 30 * DAY).unwrap();
        let certificate = Certificate::from_pem(pem.as_bytes()).unwrap();
        assert_eq!(certificate.subject, "CN=edge-1");
        assert_eq!(certificate.uris, uris);
        assert!(!certificate.is_ca);
        assert_eq!(certificate.not_after, ca.certificate().not_after, "it outlives its CA");
        // The key that was made here belongs to it.
        let material = Material::new(pem, request.key, ca.certificate_pem());
        ClientTls::new(&material, Policy::default(), false).unwrap();

        for (der, name, lesson) in [
            (request.der.clone(), "edge-2", "asks for \"edge-1\""),
            (b"rubbish".to_vec(), "edge-1", "cannot be signed"),
            (vec![0x30; MOST + 1], "edge-1", "too long"),
        ] {
            let error = ca.sign_request(&der, name, &[], now(), DAY).unwrap_err().to_string();
            assert!(error.contains(lesson), "{error}");
        }
        // A signature by another key proves nothing.
        let mut forged = request.der;
        let last = forged.len() - 1;
        forged[last] ^= 1;
        assert!(ca.sign_request(&forged, "edge-1", &[], now(), DAY).is_err());
        let late = now() + 11 * DAY;
        let request = Request::new("edge-1").unwrap();
        assert!(matches!(ca.sign_request(&request.der, "edge-1", &[], late, DAY), Err(Error::Ended { .. })));
    }

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_the_time_it_was_made_for() {
        let ca = Ca::generate("root", now(), 10 * DAY).unwrap();
        let pem = ca.issue_client::<&str>("a", &[], now(), 3 * DAY).unwrap().chain;
        assert_eq!(Certificate::from_pem(&pem).unwrap().renew_at(), now() + 2 * DAY);
    }
}
