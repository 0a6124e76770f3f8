//! Proof in, tokens out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tiphys_proto::auth::authentication_server::Authentication;
use tiphys_proto::auth::{AuthRequest, AuthResponse, RefreshTokenRequest};
use tiphys_shared::model::{AgentName, Mode};
use tiphys_shared::process::clock;
use tiphys_shared::security::passwords::Passwords;
use tiphys_shared::security::subject::AuthRule;
use tiphys_shared::security::token::{Pair, Subject};
use tiphys_shared::wire::transport::Peer;
use tonic::{Request, Response, Status};

use super::gate::Gate;
use crate::agents::{Agents, Login};
use crate::registration::Registration;

/// Authenticates agents.
pub(crate) struct AuthService {
    pub(crate) gate: Gate,
    /// The users, where the method is `userpass`.
    pub(crate) passwords: Option<Passwords>,
    pub(crate) namespace: String,
    pub(crate) agents: Arc<Agents>,
    /// Makes cluster Secrets for those that log in, if that is wanted.
    pub(crate) registration: Option<Arc<Registration>>,
}

/// Longest version of an agent that is kept.
const VERSION: usize = 64;

impl AuthService {
    async fn prove<T>(
        &self,
        request: &Request<T>,
        method: &str,
        credentials: &BTreeMap<String, String>,
    ) -> Result<AgentName, Status> {
        let rule = &self.gate.rule;
        if method != rule.method() {
            self.gate.refused("method");
            return Err(Status::unauthenticated(format!(
                "authentication method {:?} is not enabled here; this principal takes {:?}",
                method.chars().take(20).collect::<String>(),
                rule.method()
            )));
        }
        let refused =
            |error: tiphys_shared::security::subject::Error| Status::unauthenticated(error.to_string());
        let proven = match rule {
            AuthRule::Mtls { .. } => {
                let peer = request.extensions().get::<Peer>();
                rule.name_in_certificate(peer.and_then(|peer| peer.certificate.as_deref())).map_err(refused)
            }
            AuthRule::Header { .. } => {
                rule.name_in_headers(&request.metadata().clone().into_headers()).map_err(refused)
            }
            AuthRule::UserPass { .. } => {
                let passwords =
                    self.passwords.as_ref().ok_or_else(|| Status::internal("no password file was loaded"))?;
                let credential = |name: &str| credentials.get(name).map_or("", String::as_str);
                // One text for all: whether a user exists is nobody's business.
                passwords
                    .verify(credential("clientid"), credential("clientsecret"))
                    .await
                    .map_err(|_| Status::unauthenticated("user or password is wrong"))
            }
        };
        proven.inspect_err(|_| self.gate.refused("credentials"))
    }

    /// What an agent asks for that has proven who it is, if it may have that.
    #[allow(clippy::result_large_err, reason = "tonic's own error type")]
    fn check(&self, agent: AgentName, body: &AuthRequest) -> Result<Subject, Status> {
        let mode: Mode = body.mode.parse().map_err(|error| {
            self.gate.refused("mode");
            Status::invalid_argument(format!("{error}"))
        })?;
        if mode == Mode::Autonomous && agent.as_str() == self.namespace {
            self.gate.refused("name");
            return Err(Status::failed_precondition(format!(
                "an autonomous agent cannot be called {agent}: what it has would be shown among the control plane's own; \
                 give it another name"
            )));
        }
        if body.version.is_empty() {
            self.gate.refused("version");
            return Err(Status::invalid_argument("the agent does not say its version"));
        }
        Ok(Subject { agent, mode })
    }

    /// Lets an agent in that has proven who it is, if nothing else speaks against it.
    async fn admit(&self, request: &Request<AuthRequest>, agent: AgentName) -> Result<Subject, Status> {
        self.gate.check_certificate(request, &agent)?;
        let subject = self.check(agent, request.get_ref())?;
        if let Some(registration) = &self.registration
            && let Err(error) = registration.register(&subject.agent).await
        {
            self.gate.refused("registration");
            tracing::error!(agent = %subject.agent, %error, "the agent's cluster cannot be registered");
            return Err(Status::unavailable(format!("this principal cannot register the cluster: {error}")));
        }
        Ok(subject)
    }

    /// Takes note of an agent that has proven who it is, and is not let in.
    fn turned_away(&self, agent: &AgentName, status: Status) -> Status {
        self.agents.problems.note(Some(agent), &format!("its login was refused: {}", status.message()));
        self.agents.news.login_refused(agent, status.message());
        status
    }

    fn response(&self, pair: Pair, refresh_token: String, version: String) -> Response<AuthResponse> {
        Response::new(AuthResponse {
            access_token: pair.access,
            refresh_token: pair.refresh.unwrap_or(refresh_token),
            version,
            principal_namespace: self.namespace.clone(),
        })
    }
}

#[tonic::async_trait]
impl Authentication for AuthService {
    async fn authenticate(&self, request: Request<AuthRequest>) -> Result<Response<AuthResponse>, Status> {
        let body = request.get_ref();
        let agent = match self.prove(&request, &body.method, &body.credentials).await {
            Ok(agent) => agent,
            Err(status) => {
                let from = request.extensions().get::<Peer>().and_then(|peer| peer.address);
                tracing::warn!(
                    from = from.map(tracing::field::display),
                    method = body.method,
                    reason = status.message(),
                    "authentication refused"
                );
                let address = from.map(|from| from.ip().to_string()).unwrap_or_default();
                self.agents
                    .problems
                    .note(None, &format!("login refused from {address}: {}", status.message()));
                // A short pause makes guessing slow, and costs an honest mistake nothing.
                tokio::time::sleep(Duration::from_millis(200)).await;
                return Err(status);
            }
        };
        let subject = match self.admit(&request, agent.clone()).await {
            Ok(subject) => subject,
            Err(status) => return Err(self.turned_away(&agent, status)),
        };
        // Signing takes milliseconds of a core: a thousand agents that come at once must not hold up those that are there.
        let (issuer, of) = (self.gate.issuer.clone(), subject.clone());
        let pair = tokio::task::spawn_blocking(move || issuer.issue(&of, clock::now()))
            .await
            .map_err(|error| Status::internal(format!("no token could be issued: {error}")))?
            .map_err(|error| Status::internal(format!("no token could be issued: {error}")))?;
        let certificate = request.extensions().get::<Peer>().and_then(|peer| peer.certificate.as_ref());
        let login = Login {
            version: body.version.chars().filter(|c| !c.is_control()).take(VERSION).collect(),
            certificate_expiry: certificate.map(|certificate| certificate.not_after),
            fingerprint: certificate.map(|certificate| certificate.fingerprint.clone()),
        };
        self.agents.note_login(&subject.agent, login);
        tracing::info!(agent = %subject.agent, mode = %subject.mode, version = body.version, "authenticated");
        Ok(self.response(pair, String::new(), body.version.clone()))
    }

    async fn refresh_token(
        &self,
        request: Request<RefreshTokenRequest>,
    ) -> Result<Response<AuthResponse>, Status> {
        let token = &request.get_ref().refresh_token;
        let (subject, pair) = self
            .gate
            .issuer
            .refresh(token, clock::now())
            .map_err(|error| Status::unauthenticated(format!("refresh token refused: {error}")))
            .inspect_err(|_| self.gate.refused("token"))?;
        self.gate
            .check_certificate(&request, &subject.agent)
            .map_err(|status| self.turned_away(&subject.agent, status))?;
        Ok(self.response(pair, token.clone(), env!("CARGO_PKG_VERSION").to_owned()))
    }
}
