//! Flags about keys and how long certificates are good: upstream's.

use std::time::Duration;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use tiphys_shared::security::pki::{Certificate, KeyAlgorithm};

use crate::failure::Failure;
use crate::output;

/// Which key is made.
#[derive(Debug, Clone, Args)]
pub(crate) struct KeyOptions {
    /// Kind of the private key; ecdsa-p256 if neither this nor --key-size is given
    #[arg(long, value_name = "KIND")]
    key_algorithm: Option<Algorithm>,
    /// Size of an RSA key in bits: 2048, 3072 or 4096 (the default for RSA)
    #[arg(long, value_name = "BITS")]
    key_size: Option<u32>,
}

/// Names of kinds of keys, as upstream has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Algorithm {
    Rsa,
    #[value(name = "ecdsa-p256")]
    EcdsaP256,
    #[value(name = "ecdsa-p384")]
    EcdsaP384,
    #[value(name = "ecdsa-p521")]
    EcdsaP521,
    Ed25519,
}

impl KeyOptions {
    /// Whether any of them was given.
    pub(crate) fn are_given(&self) -> bool {
        self.key_algorithm.is_some() || self.key_size.is_some()
    }

    /// Whether such a key takes so long to make that people wonder.
    pub(crate) fn takes_a_moment(&self) -> bool {
        match self.key_algorithm {
            None => self.key_size.is_some(),
            Some(kind) => kind == Algorithm::Rsa,
        }
    }

    /// What they come to.
    pub(crate) fn algorithm(&self) -> Result<KeyAlgorithm, Failure> {
        let kind = self.key_algorithm.or_else(|| self.key_size.map(|_| Algorithm::Rsa));
        if let (Some(kind), Some(_)) = (kind, self.key_size)
            && kind != Algorithm::Rsa
        {
            output::say("--key-size is about RSA keys; it has no effect here");
        }
        Ok(match kind {
            None | Some(Algorithm::EcdsaP256) => KeyAlgorithm::EcdsaP256,
            Some(Algorithm::EcdsaP384) => KeyAlgorithm::EcdsaP384,
            Some(Algorithm::EcdsaP521) => KeyAlgorithm::EcdsaP521,
            Some(Algorithm::Ed25519) => KeyAlgorithm::Ed25519,
            Some(Algorithm::Rsa) => match self.key_size {
                Some(2048) => KeyAlgorithm::Rsa2048,
                Some(3072) => KeyAlgorithm::Rsa3072,
                None | Some(4096) => KeyAlgorithm::Rsa4096,
                Some(other) => {
                    return Err(Failure::usage(format!(
                        "--key-size {other}: no RSA keys of this size are made"
                    ))
                    .remedy("write 2048, 3072 or 4096"));
                }
            },
        })
    }
}

/// How long so many days are.
pub(crate) fn days(days: u32) -> Duration {
    Duration::from_secs(u64::from(days) * 24 * 60 * 60)
}

/// A certificate that outlives its CA would fail one day with no reason to be seen.
pub(crate) fn check_lifetime(ca: &Certificate, now: Timestamp, wanted: u32) -> Result<(), Failure> {
    let left = ca.not_after.as_second() - now.as_second();
    if i64::from(wanted) * 24 * 60 * 60 <= left {
        return Ok(());
    }
    if left < 24 * 60 * 60 {
        return Err(Failure::new(format!("the CA is good until {} only", ca.not_after))
            .remedy("make a new one with `pki init --force`, and issue everything anew"));
    }
    Err(Failure::usage(format!(
        "--days {wanted}: that is longer than the CA is good, which is until {}",
        ca.not_after
    ))
    .remedy(format!("write {} or less", left / (24 * 60 * 60))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(key_algorithm: Option<Algorithm>, key_size: Option<u32>) -> KeyOptions {
        KeyOptions { key_algorithm, key_size }
    }

    #[test]
    fn a_size_alone_asks_for_rsa_as_upstream_does() {
        let made = |algorithm, size| options(algorithm, size).algorithm();
        assert_eq!(made(None, None).unwrap(), KeyAlgorithm::EcdsaP256);
        assert_eq!(made(None, Some(2048)).unwrap(), KeyAlgorithm::Rsa2048);
        assert_eq!(made(Some(Algorithm::Rsa), None).unwrap(), KeyAlgorithm::Rsa4096);
        assert_eq!(made(Some(Algorithm::EcdsaP384), Some(7)).unwrap(), KeyAlgorithm::EcdsaP384);
        assert!(made(Some(Algorithm::Rsa), Some(1024)).is_err());
    }
}
