//! The tokens that prove an agent's name after it has authenticated: JWTs signed with RS512.
//!
//! An access token opens the RPCs for five minutes, a refresh token gets new access tokens for a day. The
//! claims are those of `argocd-agent`, whose peers and replicas read and write the same ones. `now` is an
//! argument, so that expiry is tested by calling.

mod key;
mod keys;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, Header, Validation};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use self::key::{KeyFacts, inspect_key};
use self::keys::Keys;
use super::secret::Secret;
use crate::model::agent::{AgentName, Mode};

/// The issuer that upstream's principals write and expect.
pub const ISSUER: &str = "argocd-agent-server";
/// How long an access token is good.
pub const ACCESS_LIFETIME: Duration = Duration::from_secs(5 * 60);
/// How long a refresh token is good.
pub const REFRESH_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// A refresh token with less than this left is replaced along with the access token.
pub const REFRESH_RENEWAL: Duration = Duration::from_secs(10 * 60);

/// How far another replica's clock may be ahead of ours.
const EARLY: Duration = Duration::from_secs(30);
/// Tokens are about a kilobyte; whatever is longer is not looked at.
const MAX_LENGTH: usize = 16 * 1024;

/// Why a token, or a key for tokens, is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a JWT of the expected form.
    #[error("token is malformed: {0}")]
    Malformed(String),
    /// Signed with another algorithm than the one that is allowed.
    #[error("token is signed with {0}, only RS512 is accepted")]
    Algorithm(String),
    /// No key that we believe made this signature.
    #[error("token has a bad signature: it was not issued by this principal or its key has been replaced")]
    Signature,
    /// Its time is over.
    #[error("token expired at {0}")]
    Expired(Timestamp),
    /// Its time has not come.
    #[error("token is not valid before {0}: clocks may differ")]
    NotYetValid(Timestamp),
    /// It is good for something else.
    #[error("token is for {found:?}, not for {expected:?}")]
    Audience {
        /// What it would have to be good for.
        expected: String,
        /// What it is good for.
        found: Vec<String>,
    },
    /// Somebody else issued it.
    #[error("token was issued by {found:?}, not by {expected:?}")]
    Issuer {
        /// Who would have to have issued it.
        expected: String,
        /// Who did.
        found: String,
    },
    /// The subject does not name an agent and a mode.
    #[error("token has a bad subject: {0}")]
    Subject(String),
    /// The key cannot sign tokens.
    #[error(
        "signing key cannot be used: {0} (expected an RSA key of at least 2048 bits, PEM, PKCS#8 or PKCS#1)"
    )]
    Key(String),
    /// Signing or making a key failed.
    #[error("cannot sign: {0}")]
    Sign(String),
}

impl Error {
    /// A short fixed word for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Algorithm(_) => "algorithm",
            Self::Signature => "signature",
            Self::Expired(_) => "expired",
            Self::NotYetValid(_) => "not-yet-valid",
            Self::Audience { .. } => "audience",
            Self::Issuer { .. } => "issuer",
            Self::Subject(_) => "subject",
            Self::Key(_) => "key",
            Self::Sign(_) => "sign",
        }
    }
}

/// Whom a token speaks of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The agent.
    #[serde(rename = "clientID")]
    pub agent: AgentName,
    /// The mode it declared when it authenticated.
    pub mode: Mode,
}

/// A token that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Whom it speaks of.
    pub subject: Subject,
    /// Until when it is good.
    pub expires: Timestamp,
    /// Its own name.
    pub id: String,
}

/// What an agent is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// For the RPCs.
    pub access: String,
    /// For the next access token. None where the one at hand is good for a while.
    pub refresh: Option<String>,
}

/// Issues and checks tokens. Clones share the keys.
#[derive(Clone)]
pub struct Issuer {
    name: Arc<str>,
    keys: Arc<RwLock<Keys>>,
    /// How often another key has begun to sign.
    rotations: Arc<watch::Sender<u64>>,
}

#[derive(Serialize)]
struct Issued<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: [String; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    nbf: i64,
    iat: i64,
    jti: String,
}

#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    iss: String,
    #[serde(default)]
    sub: String,
    #[serde(default)]
    aud: Audience,
    exp: Option<f64>,
    nbf: Option<f64>,
    #[serde(default)]
    jti: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Default for Audience {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Issuer {
    /// An issuer named [`ISSUER`] that signs with the first RSA key of PEM text, and believes the further ones besides.
    pub fn from_pem(keys: &Secret) -> Result<Self, Error> {
        let keys = Arc::new(RwLock::new(Keys::load(keys)?));
        Ok(Self { name: ISSUER.into(), keys, rotations: Arc::default() })
    }

    /// Makes a new RSA key of `bits` (2048, 3072 or 4096), as PKCS#8 in PEM. Takes up to seconds: not for an
    /// async thread.
    pub fn generate_key(bits: usize) -> Result<Secret, Error> {
        let size = match bits {
            2048 => rcgen::RsaKeySize::_2048,
            3072 => rcgen::RsaKeySize::_3072,
            4096 => rcgen::RsaKeySize::_4096,
            other => return Err(Error::Sign(format!("no rsa keys of {other} bits: use 2048, 3072 or 4096"))),
        };
        let pair = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA512, size)
            .map_err(|e| Error::Sign(e.to_string()))?;
        Ok(Secret::from(pair.serialize_pem()))
    }

    /// An issuer with a new key, which is returned too. Takes up to seconds: not for an async thread.
    pub fn generate(bits: usize) -> Result<(Self, Secret), Error> {
        let key = Self::generate_key(bits)?;
        Ok((Self::from_pem(&key)?, key))
    }

    /// Signs with the first of these keys from now on; tokens signed with the keys before it stay good until they expire.
    /// Keys that cannot be used change nothing.
    pub fn rotate(&self, keys: &Secret, now: Timestamp) -> Result<(), Error> {
        let newer = Keys::load(keys)?;
        if self.keys.write().replace(newer, now) {
            self.rotations.send_modify(|rotations| *rotations = rotations.wrapping_add(1));
        }
        Ok(())
    }

    /// Changes when another key has begun to sign: tokens that do not expire have to be issued anew.
    pub fn rotations(&self) -> watch::Receiver<u64> {
        self.rotations.subscribe()
    }

    /// A new pair for `subject`: two signatures, some 15 ms of a processor with a 4096-bit key, 2 ms with a 2048-bit
    /// one. Where many agents may come at once, not for an async thread.
    pub fn issue(&self, subject: &Subject, now: Timestamp) -> Result<Pair, Error> {
        let access = self.sign_subject("access", subject, now, ACCESS_LIFETIME)?;
        let refresh = self.sign_subject("refresh", subject, now, REFRESH_LIFETIME)?;
        Ok(Pair { access, refresh: Some(refresh) })
    }

    /// A new access token for a refresh token; a new refresh token too when the old one is about to expire.
    pub fn refresh(&self, refresh_token: &str, now: Timestamp) -> Result<(Subject, Pair), Error> {
        let Verified { subject, expires, .. } = self.verify_refresh(refresh_token, now)?;
        let access = self.sign_subject("access", &subject, now, ACCESS_LIFETIME)?;
        let renew =
            expires.duration_since(now) < jiff::SignedDuration::try_from(REFRESH_RENEWAL).unwrap_or_default();
        let refresh =
            if renew { Some(self.sign_subject("refresh", &subject, now, REFRESH_LIFETIME)?) } else { None };
        Ok((subject, Pair { access, refresh }))
    }

    /// Checks an access token.
    pub fn verify_access(&self, token: &str, now: Timestamp) -> Result<Verified, Error> {
        self.verify_subject("access", token, now)
    }

    /// Checks a refresh token.
    pub fn verify_refresh(&self, token: &str, now: Timestamp) -> Result<Verified, Error> {
        self.verify_subject("refresh", token, now)
    }

    /// A token by which Argo CD names `agent` at the resource proxy. It does not expire.
    pub fn issue_resource_proxy(&self, agent: &AgentName, now: Timestamp) -> Result<String, Error> {
        self.sign("resource-proxy", agent.as_str(), now, None)
    }

    /// Checks a token for the resource proxy: which agent does it name?
    pub fn verify_resource_proxy(&self, token: &str, now: Timestamp) -> Result<AgentName, Error> {
        let claims = self.verify("resource-proxy", token, now)?;
        AgentName::new(claims.sub).map_err(|e| Error::Subject(e.to_string()))
    }

    /// Whether the key that signs now has signed a token. Nothing else of the token is looked at.
    pub fn is_by_current_key(&self, token: &str) -> bool {
        let current = self.keys.read().current();
        current.is_some_and(|key| {
            token.len() <= MAX_LENGTH
                && jsonwebtoken::decode::<Claims>(token, &key, &signature_only()).is_ok()
        })
    }

    fn sign_subject(
        &self,
        audience: &str,
        subject: &Subject,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<String, Error> {
        let subject = serde_json::to_string(subject).map_err(|e| Error::Sign(e.to_string()))?;
        self.sign(audience, &subject, now, Some(lifetime))
    }

    fn sign(
        &self,
        audience: &str,
        subject: &str,
        now: Timestamp,
        lifetime: Option<Duration>,
    ) -> Result<String, Error> {
        let exp = match lifetime {
            None => None,
            Some(lifetime) => {
                Some(now.checked_add(lifetime).map_err(|e| Error::Sign(e.to_string()))?.as_second())
            }
        };
        let claims = Issued {
            iss: &self.name,
            sub: subject,
            aud: [format!("{}-{audience}", self.name)],
            exp,
            nbf: now.as_second(),
            iat: now.as_second(),
            jti: uuid::Uuid::new_v4().to_string(),
        };
        let (key, id) = self.keys.read().signing();
        let header = Header { kid: Some(id), ..Header::new(Algorithm::RS512) };
        jsonwebtoken::encode(&header, &claims, &key).map_err(|e| Error::Sign(e.to_string()))
    }

    fn verify_subject(&self, audience: &str, token: &str, now: Timestamp) -> Result<Verified, Error> {
        let claims = self.verify(audience, token, now)?;
        let expires = match claims.exp {
            Some(exp) => moment(exp)?,
            None => return Err(Error::Malformed("no exp claim".into())),
        };
        let subject = serde_json::from_str(&claims.sub).map_err(|e| Error::Subject(e.to_string()))?;
        Ok(Verified { subject, expires, id: claims.jti })
    }

    /// Signature first: nothing that the token says is believed, or even repeated in an error, before that.
    fn verify(&self, audience: &str, token: &str, now: Timestamp) -> Result<Claims, Error> {
        if token.len() > MAX_LENGTH {
            return Err(Error::Malformed("too long".into()));
        }
        if token.split('.').count() != 3 {
            return Err(Error::Malformed("not three parts separated by dots".into()));
        }
        let header =
            jsonwebtoken::decode_header(token).map_err(|e| Error::Malformed(format!("header: {e}")))?;
        if header.alg != Algorithm::RS512 {
            return Err(Error::Algorithm(format!("{:?}", header.alg)));
        }
        let claims = self.decode(token, header.kid.as_deref(), now)?;
        if claims.iss != *self.name {
            return Err(Error::Issuer { expected: self.name.to_string(), found: claims.iss });
        }
        let expected = format!("{}-{audience}", self.name);
        let found = match &claims.aud {
            Audience::One(one) => std::slice::from_ref(one),
            Audience::Many(many) => many.as_slice(),
        };
        if !found.contains(&expected) {
            return Err(Error::Audience { expected, found: found.to_vec() });
        }
        if let Some(nbf) = claims.nbf {
            let nbf = moment(nbf)?;
            if now.saturating_add(EARLY).is_ok_and(|latest| latest < nbf) {
                return Err(Error::NotYetValid(nbf));
            }
        }
        if let Some(exp) = claims.exp {
            let exp = moment(exp)?;
            if now >= exp {
                return Err(Error::Expired(exp));
            }
        }
        Ok(claims)
    }

    fn decode(&self, token: &str, key: Option<&str>, now: Timestamp) -> Result<Claims, Error> {
        let validation = signature_only();
        let keys = self.keys.read().candidates(key, now);
        for key in &keys {
            match jsonwebtoken::decode::<Claims>(token, key, &validation) {
                Ok(data) => return Ok(data.claims),
                Err(e) => match e.kind() {
                    jsonwebtoken::errors::ErrorKind::InvalidSignature => {}
                    _ => return Err(Error::Malformed(e.to_string())),
                },
            }
        }
        Err(Error::Signature)
    }
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keys = self.keys.read().len();
        f.debug_struct("Issuer").field("name", &self.name).field("keys", &keys).finish_non_exhaustive()
    }
}

/// The library looks at the signature only: it would read the clock by itself, and its errors say less.
fn signature_only() -> Validation {
    let mut validation = Validation::new(Algorithm::RS512);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

fn moment(seconds: f64) -> Result<Timestamp, Error> {
    // `as` saturates, and what saturates is outside jiff's calendar.
    Timestamp::from_second(seconds as i64)
        .map_err(|_| Error::Malformed("a time is outside the calendar".into()))
}

/// Whom a token is for, by its own word: for its holder, who was given it and cannot check it.
pub fn subject_of(token: &str) -> Option<Subject> {
    let claims = token.split('.').nth(1)?;
    let claims = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, claims).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    serde_json::from_str(claims.get("sub")?.as_str()?).ok()
}

#[cfg(test)]
mod tests;
