//! Join tokens, as the control plane keeps them.

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use tiphys_shared::kube::join_secret;
use tiphys_shared::model::AgentName;
use tiphys_shared::security::join_token;
use tokio::sync::Mutex;

use super::refusal::Refusal;

/// The tokens.
pub(super) struct Tickets {
    client: kube::Client,
    namespace: String,
    /// Whose turn it is to change each of the Secrets that keep them: a thousand clusters may come at once.
    turns: [Mutex<()>; join_secret::COUNT],
}

/// A token that is good at this moment. It is not used up yet.
pub(super) struct Ticket {
    pub(super) agent: AgentName,
    id: String,
    entry: ByteString,
}

impl Tickets {
    /// Those in a namespace.
    pub(super) fn new(client: kube::Client, namespace: String) -> Self {
        Self { client, namespace, turns: Default::default() }
    }

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
        let tokens = self.secrets().get_opt(&name).await?.and_then(|found| found.data).unwrap_or_default();
        let entry = tokens.get(id).ok_or(Refusal::Unknown)?;
        let stored = join_secret::read(id, entry).map_err(|error| {
            tracing::warn!(secret = name, key = id, %error, "this does not stand for a join token");
            Refusal::Unknown
        })?;
        if !join_token::is_same(&stored.hash, &join_token::hash(secret.as_bytes())) {
            return Err(Refusal::Forged);
        }
        let ticket = Ticket { agent: stored.agent, id: id.to_owned(), entry: entry.clone() };
        if stored.expires <= now {
            // Nobody needs it any more. If somebody else takes it out, that is as well.
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
        let _turn = self.turns[join_secret::number(&ticket.id)].lock().await;
        match join_secret::take_out(&self.secrets(), &ticket.id, &ticket.entry).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refusal::Raced),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}
