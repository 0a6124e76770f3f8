//! Join tokens, as the control plane keeps them.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, Preconditions};
use tiphys_shared::kube::join_secret;
use tiphys_shared::model::AgentName;
use tiphys_shared::security::join_token;

use super::refusal::Refusal;

/// The tokens.
pub(super) struct Tickets {
    pub(super) client: kube::Client,
    pub(super) namespace: String,
}

/// A token that is good at this moment. It is not used up yet.
pub(super) struct Ticket {
    pub(super) agent: AgentName,
    name: String,
    preconditions: Preconditions,
}

impl Tickets {
    /// Looks a token up, and checks everything about it.
    pub(super) async fn look(
        &self,
        id: &str,
        secret: &str,
        agent: &str,
        now: Timestamp,
    ) -> Result<Ticket, Refusal> {
        if !join_token::is_id(id) {
            return Err(Refusal::Malformed("its token has no name"));
        }
        let name = join_secret::name(id);
        let found = self.secrets().get_opt(&name).await?.ok_or(Refusal::Unknown)?;
        let stored = join_secret::read(&found).map_err(|error| {
            tracing::warn!(secret = name, %error, "this Secret does not stand for a join token");
            Refusal::Unknown
        })?;
        if !join_token::is_same(&stored.hash, &join_token::hash(secret.as_bytes())) {
            return Err(Refusal::Forged);
        }
        let preconditions = Preconditions {
            uid: found.metadata.uid.clone(),
            resource_version: found.metadata.resource_version.clone(),
        };
        let ticket = Ticket { agent: stored.agent, name, preconditions };
        if stored.expires <= now {
            // Nobody needs it any more. If somebody else deletes it, that is as well.
            _ = self.use_up(&ticket).await;
            return Err(Refusal::Expired);
        }
        if ticket.agent.as_str() != agent {
            return Err(Refusal::OtherAgent);
        }
        Ok(ticket)
    }

    /// Uses a token up. Of several who try, one succeeds.
    pub(super) async fn use_up(&self, ticket: &Ticket) -> Result<(), Refusal> {
        let guarded =
            DeleteParams { preconditions: Some(ticket.preconditions.clone()), ..DeleteParams::default() };
        match self.secrets().delete(&ticket.name, &guarded).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Err(Refusal::Raced),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}
