//! Who makes a request, and which agent's cluster it is for. Pure.
//!
//! | credential | may reach | names it by |
//! |---|---|---|
//! | bearer token of the proxy | the agent that it is issued for | itself |
//! | client certificate | the agent of its common name | itself |
//! | client certificate of an operator | the agents of its pattern | path `/agents/NAME/…`, or query `agentName=NAME` |
//!
//! A token counts before the certificate, as in the Go project, and one that is no good is never passed over. Who names an
//! agent by path or query besides must name the same one everywhere.

use std::borrow::Cow;

use http::StatusCode;
use jiff::Timestamp;
use tiphys_shared::model::AgentName;
use tiphys_shared::process::options::NamePattern;
use tiphys_shared::proxy::refusal::Refusal;
use tiphys_shared::security::pki::Certificate;
use tiphys_shared::security::token::Issuer;

/// What the path of a request for an agent begins with.
const PREFIX: &str = "/agents/";
/// The query parameter that names an agent.
const PARAMETER: &str = "agentName";

/// Somebody with a client certificate who may reach more than one agent.
#[derive(Clone, Debug)]
pub struct Operator {
    /// Common name of the certificate.
    pub name: String,
    /// The agents.
    pub agents: NamePattern,
}

/// What a request says of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claims<'a> {
    /// The certificate that the connection was opened with.
    pub(super) certificate: Option<&'a Certificate>,
    /// The header `Authorization`.
    pub(super) authorization: Option<&'a [u8]>,
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
}

/// Who makes a request, and what of it goes to the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) user: String,
    pub(super) groups: Vec<String>,
    pub(super) agent: AgentName,
    /// Path and query, without what names the agent.
    pub(super) path: String,
    pub(super) query: Option<String>,
}

/// Whom a credential proves, and which agents it is good for.
struct Proof<'a> {
    user: String,
    groups: Vec<String>,
    reach: Reach<'a>,
}

enum Reach<'a> {
    Agent(AgentName),
    Operator(&'a NamePattern),
}

impl Claims<'_> {
    /// Decides who calls, and for which agent.
    ///
    /// # Errors
    /// A refusal that says what is wrong with the credential, or with the names.
    pub(super) fn admit(
        &self,
        issuer: &Issuer,
        operators: &[Operator],
        now: Timestamp,
    ) -> Result<Caller, Refusal> {
        let Proof { user, groups, reach } = self.prove(issuer, operators, now)?;
        let (by_path, path) = split_path(self.path)?;
        let (by_query, query) = split_query(self.query)?;
        let named = match (by_path, by_query) {
            (Some(one), Some(other)) if one != other => {
                return Err(bad(format!("the path names agent {one}, the query {other}")));
            }
            (one, other) => one.or(other),
        };
        let agent = match (reach, named) {
            (Reach::Agent(own), Some(named)) if own != named => {
                return Err(Refusal::new(
                    StatusCode::FORBIDDEN,
                    "wrong_agent",
                    format!("the credentials of {user} are for agent {own}, not for {named}"),
                ));
            }
            (Reach::Agent(own), _) => own,
            (Reach::Operator(_), None) => {
                return Err(bad(format!(
                    "{user} may reach more than one agent, and the request names none: begin its path with {PREFIX}NAME"
                )));
            }
            (Reach::Operator(agents), Some(named)) if !agents.matches(named.as_str()) => {
                return Err(Refusal::new(
                    StatusCode::FORBIDDEN,
                    "wrong_agent",
                    format!("{user} may not reach agent {named} (--resource-proxy-operators)"),
                ));
            }
            (Reach::Operator(_), Some(named)) => named,
        };
        Ok(Caller { user, groups, agent, path, query })
    }

    fn prove<'a>(
        &self,
        issuer: &Issuer,
        operators: &'a [Operator],
        now: Timestamp,
    ) -> Result<Proof<'a>, Refusal> {
        if let Some(token) = self.authorization.and_then(bearer) {
            let token =
                std::str::from_utf8(token).map_err(|_| unauthenticated("the bearer token is not text"))?;
            let agent = issuer
                .verify_resource_proxy(token, now)
                .map_err(|error| unauthenticated(format!("the bearer token is refused: {error}")))?;
            return Ok(Proof { user: agent.to_string(), groups: Vec::new(), reach: Reach::Agent(agent) });
        }
        let certificate = self
            .certificate
            .ok_or_else(|| unauthenticated("there is neither a bearer token nor a client certificate"))?;
        let name = certificate.common_name.as_deref().filter(|name| !name.is_empty()).ok_or_else(|| {
            unauthenticated("the client certificate has no common name, which would name the agent")
        })?;
        let reach = match operators.iter().find(|operator| operator.name == name) {
            Some(operator) => Reach::Operator(&operator.agents),
            None => Reach::Agent(AgentName::new(name).map_err(|error| {
                unauthenticated(format!(
                    "the client certificate is neither an agent's nor an operator's: {error}"
                ))
            })?),
        };
        Ok(Proof { user: name.to_owned(), groups: certificate.organizations.clone(), reach })
    }
}

fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

/// The agent that a path names, and the path at its cluster.
fn split_path(path: &str) -> Result<(Option<AgentName>, String), Refusal> {
    let Some(rest) = path.strip_prefix(PREFIX) else { return Ok((None, path.to_owned())) };
    let (name, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let rest = if rest.is_empty() { "/" } else { rest };
    Ok((Some(agent(name)?), rest.to_owned()))
}

/// The agent that a query names, and the rest of it.
fn split_query(query: Option<&str>) -> Result<(Option<AgentName>, Option<String>), Refusal> {
    let mut named: Option<AgentName> = None;
    let mut rest = Vec::new();
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if decoded(key) != PARAMETER {
            rest.push(pair);
            continue;
        }
        let name = agent(&decoded(value))?;
        if let Some(other) = named.as_ref().filter(|other| **other != name) {
            return Err(bad(format!("the query names agent {other} and agent {name}")));
        }
        named = Some(name);
    }
    Ok((named, (!rest.is_empty()).then(|| rest.join("&"))))
}

/// A part of a query as the API server would read it. What cannot be decoded stays as it is.
fn decoded(text: &str) -> Cow<'_, str> {
    percent_encoding::percent_decode_str(text).decode_utf8().unwrap_or(Cow::Borrowed(text))
}

fn agent(name: &str) -> Result<AgentName, Refusal> {
    AgentName::new(name).map_err(|error| bad(error.to_string()))
}

fn bad(message: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "bad_request", message)
}

fn unauthenticated(message: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, "unauthenticated", message)
}

#[cfg(test)]
mod tests;
