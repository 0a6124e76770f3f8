//! What can be told of a signing key without using it.

use std::fmt::Write as _;

use rcgen::{KeyPair, PublicKeyData as _};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};

use super::Error;
use super::keys::public_half;
use crate::security::secret::Secret;

/// What can be told of a signing key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFacts {
    /// Length in bits.
    pub bits: usize,
    /// SHA-256 of the public key (DER of its `SubjectPublicKeyInfo`), lower-case hex.
    pub fingerprint: String,
}

/// Looks at a key that is to sign tokens.
///
/// # Errors
/// [`Error::Key`] if it cannot.
pub fn inspect_key(key: &Secret) -> Result<KeyFacts, Error> {
    let jwk = public_half(key)?;
    let bits = match &jwk.algorithm {
        jsonwebtoken::jwk::AlgorithmParameters::RSA(parameters) => modulus_bits(&parameters.n),
        _ => None,
    };
    let bits = bits.ok_or_else(|| Error::Key("it is not an RSA key".into()))?;
    let der = PrivateKeyDer::from_pem_slice(key.expose()).map_err(|e| Error::Key(e.to_string()))?;
    let pair = KeyPair::try_from(&der).map_err(|e| Error::Key(e.to_string()))?;
    let mut fingerprint = String::with_capacity(64);
    for byte in Sha256::digest(pair.subject_public_key_info()) {
        // Writing to a String cannot fail.
        _ = write!(fingerprint, "{byte:02x}");
    }
    Ok(KeyFacts { bits, fingerprint })
}

/// The modulus is in base64url, without leading zero bytes.
fn modulus_bits(modulus: &str) -> Option<usize> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(modulus).ok()?;
    let zeros = bytes.first()?.leading_zeros() as usize;
    Some(bytes.len() * 8 - zeros)
}

#[cfg(test)]
mod tests {
    use super::super::Issuer;
    use super::*;

    #[test]
    fn a_key_is_told_by_its_length_and_its_public_half() {
        let key = Issuer::generate_key(2048).unwrap();
        let facts = inspect_key(&key).unwrap();
        assert_eq!(facts.bits, 2048);
        assert_eq!(facts.fingerprint.len(), 64);
        assert_eq!(inspect_key(&key).unwrap(), facts);
        assert_ne!(inspect_key(&Issuer::generate_key(2048).unwrap()).unwrap().fingerprint, facts.fingerprint);
        assert!(matches!(inspect_key(&Secret::from("nothing")), Err(Error::Key(_))));
    }
}
