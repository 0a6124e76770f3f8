//! The keys of an issuer: one that signs, and those whose signatures are still believed.

use jiff::Timestamp;
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};

use super::{Error, REFRESH_LIFETIME};
use crate::security::secret::Secret;

/// How many keys are believed at most. Whoever replaces keys faster loses the oldest first.
const MOST: usize = 8;
const BLOCK: &str = "-----BEGIN ";

/// The keys of an issuer, the one that signs first.
pub(super) struct Keys {
    sign: EncodingKey,
    believed: Vec<Believed>,
}

struct Believed {
    /// Thumbprint of the public key (RFC 7638): the `kid` of its tokens.
    id: String,
    key: DecodingKey,
    /// When the last token that it has signed is over. None for a key that is configured now.
    until: Option<Timestamp>,
}

impl Keys {
    /// Reads PEM text: the first block is the private key that signs, each further one a key, private or public, that is
    /// believed besides.
    pub(super) fn load(pem: &Secret) -> Result<Self, Error> {
        let text = pem.expose_str().ok_or_else(|| Error::Key("not text".into()))?;
        let starts: Vec<usize> = text.match_indices(BLOCK).map(|(at, _)| at).collect();
        let ends = starts.iter().skip(1).copied().chain([text.len()]);
        let mut blocks = starts.iter().zip(ends).map(|(start, end)| &text[*start..end]);
        let bad = |e: jsonwebtoken::errors::Error| Error::Key(e.to_string());
        let first = blocks.next().ok_or_else(|| Error::Key("no PEM block".into()))?;
        let sign = EncodingKey::from_rsa_pem(first.as_bytes()).map_err(bad)?;
        // A key that cannot sign is found here, not at the first agent.
        jsonwebtoken::encode(&Header::new(Algorithm::RS512), &(), &sign).map_err(bad)?;
        let mut believed = vec![believe(&sign)?];
        for block in blocks.take(MOST - 1) {
            let next = match EncodingKey::from_rsa_pem(block.as_bytes()) {
                Ok(private) => believe(&private)?,
                Err(_) => {
                    let key = DecodingKey::from_rsa_pem(block.as_bytes()).map_err(bad)?;
                    let jwk = Jwk::from_decoding_key(&key, Some(Algorithm::RS512)).map_err(bad)?;
                    Believed { id: thumbprint(&jwk)?, key, until: None }
                }
            };
            believed.push(next);
        }
        Ok(Self { sign, believed })
    }

    /// Takes the place of `older`, whose keys are believed until the last of their tokens is over. Returns whether
    /// another key signs than before.
    pub(super) fn replace(&mut self, mut newer: Self, now: Timestamp) -> bool {
        let over = now.checked_add(REFRESH_LIFETIME).unwrap_or(Timestamp::MAX);
        let changed = self.id() != newer.id();
        for mut old in self.believed.drain(..) {
            let until = *old.until.get_or_insert(over);
            if until > now && newer.believed.iter().all(|known| known.id != old.id) {
                newer.believed.push(old);
            }
        }
        newer.believed.truncate(MOST);
        *self = newer;
        changed
    }

    /// What a signature is made with, and its `kid`.
    pub(super) fn signing(&self) -> (EncodingKey, String) {
        (self.sign.clone(), self.id().to_owned())
    }

    fn id(&self) -> &str {
        self.believed.first().map_or("", |key| key.id.as_str())
    }

    /// What checks the signatures that are made now.
    pub(super) fn current(&self) -> Option<DecodingKey> {
        self.believed.first().map(|key| key.key.clone())
    }

    /// The keys that may have made a signature: the one that it names, or any if it names none, as tokens of the Go project
    /// do.
    pub(super) fn candidates(&self, id: Option<&str>, now: Timestamp) -> Vec<DecodingKey> {
        let lives = |key: &&Believed| key.until.is_none_or(|until| until > now);
        let named = |key: &&Believed| id.is_none_or(|id| key.id == id);
        self.believed.iter().filter(lives).filter(named).map(|key| key.key.clone()).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.believed.len()
    }
}

/// The public half of a key that is to sign.
pub(super) fn public_half(pem: &Secret) -> Result<Jwk, Error> {
    let bad = |e: jsonwebtoken::errors::Error| Error::Key(e.to_string());
    let private = EncodingKey::from_rsa_pem(pem.expose()).map_err(bad)?;
    Jwk::from_encoding_key(&private, Algorithm::RS512).map_err(bad)
}

fn believe(private: &EncodingKey) -> Result<Believed, Error> {
    let bad = |e: jsonwebtoken::errors::Error| Error::Key(e.to_string());
    let jwk = Jwk::from_encoding_key(private, Algorithm::RS512).map_err(bad)?;
    let key = DecodingKey::from_jwk(&jwk).map_err(bad)?;
    Ok(Believed { id: thumbprint(&jwk)?, key, until: None })
}

fn thumbprint(jwk: &Jwk) -> Result<String, Error> {
    jwk.thumbprint(ThumbprintHash::SHA256).map_err(|e| Error::Key(e.to_string()))
}
