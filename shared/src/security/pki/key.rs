//! Private keys: which kinds there are, and making one.

use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519,
    PKCS_RSA_SHA256, RsaKeySize,
};

use super::Error;

/// What kind of key a certificate is made with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// Small, fast, and taken everywhere.
    #[default]
    EcdsaP256,
    /// For those whose rules ask for it.
    EcdsaP384,
    /// For those whose rules ask for it.
    EcdsaP521,
    /// Not taken by every TLS library.
    Ed25519,
    /// For those whose rules ask for it. Takes up to a second to make.
    Rsa2048,
    /// Takes seconds to make.
    Rsa3072,
    /// Takes seconds to make.
    Rsa4096,
}

impl KeyAlgorithm {
    pub(super) fn generate(self) -> Result<KeyPair, Error> {
        let made = match self {
            Self::EcdsaP256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            Self::EcdsaP384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
            Self::EcdsaP521 => KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512),
            Self::Ed25519 => KeyPair::generate_for(&PKCS_ED25519),
            Self::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
            Self::Rsa3072 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_3072),
            Self::Rsa4096 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_4096),
        };
        made.map_err(|error| Error::Generate(error.to_string()))
    }
}
