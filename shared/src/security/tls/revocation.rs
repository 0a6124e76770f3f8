//! A server's check of client certificates, with the blocklist behind the CA.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme};

use crate::security::blocklist::Blocklist;
use crate::security::pki;

/// Refuses what the CA's check lets pass and the blocklist names. The client is told that it is revoked.
#[derive(Debug)]
pub(super) struct Revoking {
    pub(super) by_ca: Arc<dyn ClientCertVerifier>,
    pub(super) blocklist: Blocklist,
}

impl ClientCertVerifier for Revoking {
    fn offer_client_auth(&self) -> bool {
        self.by_ca.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.by_ca.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.by_ca.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.by_ca.verify_client_cert(end_entity, intermediates, now)?;
        match self.blocklist.check(&pki::fingerprint(end_entity)) {
            Ok(()) => Ok(verified),
            Err(_) => Err(rustls::Error::InvalidCertificate(CertificateError::Revoked)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.by_ca.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.by_ca.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_ca.supported_verify_schemes()
    }
}
