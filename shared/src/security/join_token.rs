//! The token with which a cluster joins: made at the control plane, shown once, used once.
//!
//! `tiphys1.AGENT.ID.SECRET.CAS`: the control plane keeps a hash of SECRET under ID; CAS is a hash of its CA certificates,
//! by which whoever joins knows the principal before it says anything secret.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use rustls::crypto::aws_lc_rs;
use sha2::{Digest as _, Sha256};

use super::pki::{self, Certificate};
use super::secret::Secret;
use crate::model::agent::{AgentName, InvalidName};

const PREFIX: &str = "tiphys1";
/// Bytes of a secret.
const LENGTH: usize = 32;

/// Why a token cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is something else, or a part of it was lost.
    #[error("this is not a join token, or not all of it: expected tiphys1.AGENT.ID.SECRET.CAS")]
    Malformed,
    /// The agent cannot be called so.
    #[error(transparent)]
    BadName(#[from] InvalidName),
    /// The CA certificates cannot be read.
    #[error("the ca certificates cannot be read: {0}")]
    Authorities(#[from] pki::Error),
    /// There is no CA certificate.
    #[error("there is no ca certificate")]
    NoAuthority,
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    NoRandom,
}

/// A token. `Display` shows its secret: that is what it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinToken {
    /// The agent that may join by it.
    pub agent: AgentName,
    /// Its name at the control plane.
    pub id: String,
    /// What only its holder knows.
    pub secret: Secret,
    /// The CA certificates of the control plane, as [`authorities_hash`] has it.
    pub authorities: String,
}

impl JoinToken {
    /// A new token for a control plane with these CA certificates (PEM).
    ///
    /// # Errors
    /// [`Error`] if there is no CA certificate, or no randomness.
    pub fn generate(agent: AgentName, authorities: &[u8]) -> Result<Self, Error> {
        let authorities = authorities_hash(authorities)?;
        let (mut id, mut secret) = ([0; 5], [0; LENGTH]);
        let random = aws_lc_rs::default_provider().secure_random;
        random.fill(&mut id).and_then(|()| random.fill(&mut secret)).map_err(|_| Error::NoRandom)?;
        let secret = Secret::from(BASE64.encode(secret));
        Ok(Self { agent, id: hex(&id), secret, authorities })
    }

    /// What the control plane keeps of the secret.
    pub fn hash(&self) -> String {
        hash(self.secret.expose())
    }
}

/// What the control plane keeps of a secret.
pub fn hash(secret: &[u8]) -> String {
    hex(&Sha256::digest(secret))
}

/// Whether two hashes are equal, in a time that does not tell where they differ.
pub fn is_same(one: &str, other: &str) -> bool {
    one.len() == other.len()
        && one.bytes().zip(other.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

/// Whether a text can be the name of a token.
pub fn is_id(text: &str) -> bool {
    text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// A hash over CA certificates (PEM), whatever their order.
///
/// # Errors
/// [`Error`] if there is none, or one cannot be read.
pub fn authorities_hash(pem: &[u8]) -> Result<String, Error> {
    let mut fingerprints: Vec<String> =
        Certificate::all_from_pem(pem)?.into_iter().map(|certificate| certificate.fingerprint).collect();
    if fingerprints.is_empty() {
        return Err(Error::NoAuthority);
    }
    fingerprints.sort_unstable();
    fingerprints.dedup();
    Ok(BASE64.encode(Sha256::digest(fingerprints.concat().as_bytes())))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = self.secret.expose_str().unwrap_or_default();
        write!(f, "{PREFIX}.{}.{}.{secret}.{}", self.agent, self.id, self.authorities)
    }
}

impl FromStr for JoinToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parts: Vec<&str> = text.trim().split('.').collect();
        let [PREFIX, agent, id, secret, authorities] = parts[..] else { return Err(Error::Malformed) };
        let is_hash = |text: &str| BASE64.decode(text).is_ok_and(|bytes| bytes.len() == LENGTH);
        if !is_id(id) || !is_hash(secret) || !is_hash(authorities) {
            return Err(Error::Malformed);
        }
        Ok(Self {
            agent: AgentName::new(agent)?,
            id: id.to_owned(),
            secret: Secret::from(secret),
            authorities: authorities.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::security::pki::Ca;

    fn ca(name: &str) -> String {
        let ca = Ca::generate(name, Timestamp::UNIX_EPOCH, Duration::from_secs(3600)).unwrap();
        ca.certificate_pem().to_owned()
    }

    #[test]
    fn a_token_is_read_as_it_was_written_and_every_cut_is_noticed() {
        let token = JoinToken::generate(AgentName::new("edge-1").unwrap(), ca("a").as_bytes()).unwrap();
        let text = token.to_string();
        assert_eq!(text.parse::<JoinToken>().unwrap(), token);
        assert_eq!(format!(" {text}\n").parse::<JoinToken>().unwrap(), token);
        for end in 0..text.len() {
            assert!(text[..end].parse::<JoinToken>().is_err(), "{}", &text[..end]);
        }
        for wrong in ["", "tiphys1", "tiphys2.a.b.c.d", &text.replacen("edge-1", "Edge", 1)] {
            assert!(wrong.parse::<JoinToken>().is_err(), "{wrong}");
        }
        assert!(!format!("{token:?}").contains(token.secret.expose_str().unwrap()), "it is shown in logs");
        assert_ne!(
            JoinToken::generate(token.agent.clone(), ca("a").as_bytes()).unwrap().secret,
            token.secret
        );
    }

    #[test]
    fn the_hash_is_of_the_set_of_certificates() {
        let (one, other) = (ca("a"), ca("b"));
        let both = authorities_hash(format!("{one}{other}").as_bytes()).unwrap();
        assert_eq!(authorities_hash(format!("{other}{one}{one}").as_bytes()).unwrap(), both);
        assert_ne!(authorities_hash(one.as_bytes()).unwrap(), both);
        assert!(matches!(authorities_hash(b""), Err(Error::NoAuthority)));
    }

    #[test]
    fn hashes_are_compared_whole() {
        assert!(is_same("ab", "ab") && is_same("", ""));
        assert!(!is_same("ab", "ac") && !is_same("ab", "abc") && !is_same("ab", ""));
    }
}
