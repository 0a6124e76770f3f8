//! Who may look at the fleet.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::config::AuthInfo;
use kube::{Api, Client};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tiphys_shared::security::passwords::Passwords;
use tokio::time::Instant;

/// How long an answer is believed: a page asks every few seconds.
const BELIEVED: Duration = Duration::from_secs(60);
/// How many answers are kept.
const KEPT: usize = 256;
/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// What one has to be allowed to get, where the API server decides.
const PATH: &str = "/tiphys/fleet";

/// Who may look at the fleet. Clones share what they know.
#[derive(Clone)]
pub struct Access {
    by: By,
    allowed: Arc<Mutex<HashMap<[u8; 32], Instant>>>,
}

#[derive(Clone)]
enum By {
    Everybody,
    Passwords(Passwords),
    Kubernetes(Box<kube::Config>),
}

/// Why somebody may not look.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// He does not say who he is.
    #[error("say who you are")]
    Nobody,
    /// He is not who he says.
    #[error("user, password or token is wrong")]
    Unknown,
    /// He is known, and may not.
    #[error("you may not get {PATH}: a ClusterRole with that under nonResourceURLs lets you")]
    NotAllowed,
    /// Nobody could be asked.
    #[error("the API server does not say who you are: {0}")]
    Unanswered(String),
}

impl Access {
    fn new(by: By) -> Self {
        Self { by, allowed: Arc::default() }
    }

    /// Everybody who reaches it.
    pub fn everybody() -> Self {
        Self::new(By::Everybody)
    }

    /// Whoever has a name and a password in the file.
    pub fn passwords(passwords: Passwords) -> Self {
        Self::new(By::Passwords(passwords))
    }

    /// Whoever has a token of the control plane's API server, and may get `/tiphys/fleet` there. `server` is how to reach
    /// it; nobody's credentials in it are used.
    pub fn kubernetes(server: kube::Config) -> Self {
        Self::new(By::Kubernetes(Box::new(server)))
    }

    /// Whether everybody may look.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.by, By::Everybody)
    }

    /// The scheme of the header that is expected.
    pub(super) fn scheme(&self) -> &'static str {
        match self.by {
            By::Everybody => "",
            By::Passwords(_) => "Basic",
            By::Kubernetes(_) => "Bearer",
        }
    }

    /// Whether whoever sends this header may look.
    pub(super) async fn check(&self, authorization: Option<&HeaderValue>) -> Result<(), Refused> {
        if matches!(self.by, By::Everybody) {
            return Ok(());
        }
        let header = authorization.and_then(|header| header.to_str().ok()).ok_or(Refused::Nobody)?;
        let generation = match &self.by {
            By::Passwords(passwords) => passwords.generation(),
            By::Everybody | By::Kubernetes(_) => 0,
        };
        let digest: [u8; 32] = Sha256::new()
            .chain_update(generation.to_be_bytes())
            .chain_update(header.as_bytes())
            .finalize()
            .into();
        let now = Instant::now();
        if self.allowed.lock().get(&digest).is_some_and(|until| *until > now) {
            return Ok(());
        }
        let (scheme, proof) = header.split_once(' ').ok_or(Refused::Nobody)?;
        if !scheme.eq_ignore_ascii_case(self.scheme()) {
            return Err(Refused::Nobody);
        }
        match &self.by {
            By::Everybody => {}
            By::Passwords(passwords) => by_password(passwords, proof.trim()).await?,
            By::Kubernetes(server) => by_token(server, proof.trim()).await?,
        }
        let mut allowed = self.allowed.lock();
        allowed.retain(|_, until| *until > now);
        if allowed.len() < KEPT {
            allowed.insert(digest, now + BELIEVED);
        }
        Ok(())
    }
}

async fn by_password(passwords: &Passwords, proof: &str) -> Result<(), Refused> {
    let text = STANDARD.decode(proof).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let text = text.ok_or(Refused::Unknown)?;
    let (user, password) = text.split_once(':').ok_or(Refused::Unknown)?;
    passwords.verify(user, password).await.map(drop).map_err(|_| Refused::Unknown)
}

/// Asks the API server in the name of the caller what he may do: so it says who he is, too, and this process needs no right
/// to ask about others.
async fn by_token(server: &kube::Config, token: &str) -> Result<(), Refused> {
    if token.is_empty() {
        return Err(Refused::Nobody);
    }
    let unanswered = |error: kube::Error| Refused::Unanswered(error.to_string());
    let mut config = server.clone();
    config.auth_info = AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() };
    let client = Client::try_from(config).map_err(unanswered)?;
    let attributes = NonResourceAttributes { path: Some(PATH.to_owned()), verb: Some("get".to_owned()) };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            non_resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let api: Api<SelfSubjectAccessReview> = Api::all(client);
    let asked = tokio::time::timeout(PATIENCE, api.create(&PostParams::default(), &review)).await;
    match asked.map_err(|_| Refused::Unanswered("it does not answer".to_owned()))? {
        Ok(answer) if answer.status.as_ref().is_some_and(|status| status.allowed) => Ok(()),
        Ok(_) => Err(Refused::NotAllowed),
        Err(kube::Error::Api(status)) if status.code == 401 => Err(Refused::Unknown),
        Err(kube::Error::Api(status)) if status.code == 403 => Err(Refused::NotAllowed),
        Err(error) => Err(unanswered(error)),
    }
}

#[cfg(test)]
mod tests {
    use tiphys_shared::security::passwords;
    use tiphys_shared::security::secret::Secret;

    use super::*;

    /// Ada, whose password is "secret".
    fn users() -> Passwords {
        Passwords::new("users", &line("ada", "secret")).unwrap()
    }

    fn line(user: &str, password: &str) -> Secret {
        format!("{user}:{}\n", passwords::hash(&password.into()).unwrap()).into()
    }

    fn basic(text: &str) -> HeaderValue {
        HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(text))).unwrap()
    }

    #[tokio::test]
    async fn a_password_lets_in_and_nothing_else_does() {
        let access = Access::passwords(users());
        access.check(Some(&basic("ada:secret"))).await.unwrap();
        for wrong in ["ada:wrong", "bob:secret", "ada", ""] {
            assert!(matches!(access.check(Some(&basic(wrong))).await, Err(Refused::Unknown)), "{wrong}");
        }
        for nobody in ["Bearer x", "Basic", "x"] {
            let header = HeaderValue::from_static(nobody);
            assert!(matches!(access.check(Some(&header)).await, Err(Refused::Nobody)), "{nobody}");
        }
        assert!(matches!(access.check(None).await, Err(Refused::Nobody)));
    }

    #[tokio::test]
    async fn what_is_believed_is_bounded_and_never_a_refusal() {
        let access = Access::passwords(users());
        for _ in 0..3 {
            assert!(access.check(Some(&basic("ada:wrong"))).await.is_err());
        }
        assert!(access.allowed.lock().is_empty());
        access.check(Some(&basic("ada:secret"))).await.unwrap();
        assert_eq!(access.allowed.lock().len(), 1);
    }
    #[tokio::test]
    async fn who_is_in_the_file_no_more_is_out_at_once() {
        let users = users();
        let access = Access::passwords(users.clone());
        access.check(Some(&basic("ada:secret"))).await.unwrap();
        users.replace(&line("bob", "secret")).unwrap();
        assert!(matches!(access.check(Some(&basic("ada:secret"))).await, Err(Refused::Unknown)));
        access.check(Some(&basic("bob:secret"))).await.unwrap();
    }
}
