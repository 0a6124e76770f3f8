//! `agent token`: tokens with which clusters join, made and kept at the control plane.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgMatches, Args, Command};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams, ObjectList, PatchParams, PostParams};
use serde_json::json;
use tiphys_shared::kube::client::{self, Access};
use tiphys_shared::kube::join_secret::{self, Stored};
use tiphys_shared::model::AgentName;
use tiphys_shared::process::clock;
use tiphys_shared::process::options;
use tiphys_shared::security::join_token::{self, JoinToken};

use crate::failure::Failure;
use crate::output::{self, Table};
use crate::runtime;

const EXAMPLES: &str = "\
Examples:
  At the control plane:
    tiphys agent token create --name edge-1
    tiphys agent token create --name edge-1 --ttl 24h
    tiphys agent token list
    tiphys agent token delete --id 0123456789

  At the agent's cluster, with what create has printed:
    tiphys join --server principal.example.com:8443 --token TOKEN";
/// The longest time for which a token may be good: it is as good as a certificate.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

#[derive(Debug, Clone, Args)]
struct ControlPlane {
    /// Namespace of the principal
    #[arg(long, short, value_name = "NAME", default_value = "argocd")]
    namespace: String,
    /// Kubeconfig of the control plane; by default $KUBECONFIG, ~/.kube/config, or the cluster around
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the control plane, instead of the current one
    #[arg(long, value_name = "NAME")]
    kubecontext: Option<String>,
}

#[derive(Debug, Clone, Args)]
struct Create {
    /// The agent that will join with it
    #[arg(long, value_name = "NAME")]
    name: AgentName,
    /// How long it is good
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = options::duration)]
    ttl: Duration,
    /// Secret with the CA that signs agents
    #[arg(long, value_name = "NAME", default_value = "argocd-agent-ca")]
    ca_secret_name: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: ControlPlane,
}

#[derive(Debug, Clone, Args)]
struct List {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: ControlPlane,
}

#[derive(Debug, Clone, Args)]
struct Delete {
    /// The tokens, as list names them
    #[arg(long = "id", value_name = "ID", required = true)]
    ids: Vec<String>,
    #[command(flatten)]
    at: ControlPlane,
}

pub(super) fn command() -> Command {
    Command::new("token")
        .about("Tokens with which clusters join")
        .after_help(EXAMPLES)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(Create::augment_args(
            Command::new("create").about("Make a token: it is printed once, and good for one cluster"),
        ))
        .subcommand(List::augment_args(Command::new("list").about("List the tokens that are not used yet")))
        .subcommand(Delete::augment_args(
            Command::new("delete").about("Delete tokens, so that nobody joins with them"),
        ))
}

pub(super) fn run(command: &Command, given: &ArgMatches) -> Result<(), Failure> {
    let (name, given) = given.subcommand().unwrap_or(("", given));
    let command = command.find_subcommand(name).unwrap_or(command);
    match name {
        "create" => {
            let options: Create = crate::command::load(command, given)?;
            runtime::run(1, |_| create(options))
        }
        "list" => {
            let options: List = crate::command::load(command, given)?;
            runtime::run(1, |_| list(options))
        }
        _ => {
            let options: Delete = crate::command::load(command, given)?;
            runtime::run(1, |_| delete(options))
        }
    }
}

async fn create(options: Create) -> Result<(), Failure> {
    if options.ttl.is_zero() || options.ttl > LONGEST {
        return Err(Failure::usage("--ttl must be more than nothing and at most 720h"));
    }
    let secrets = options.at.secrets().await?;
    let name = &options.ca_secret_name;
    let ca = secrets
        .get_opt(name)
        .await
        .map_err(|error| Failure::because(&format!("cannot read Secret {name}"), &error))?
        .ok_or_else(|| {
            Failure::new(format!("there is no Secret {name} in namespace {}", options.at.namespace))
                .remedy("check --namespace and --kubecontext, or make a CA first")
        })?;
    let data = ca.data.unwrap_or_default();
    // The same as the principal tells to those who join.
    let authorities = data.get("ca.crt").or_else(|| data.get("tls.crt")).map_or(&[][..], |pem| &pem.0);
    let failed =
        |error: join_token::Error| Failure::because(&format!("no token can be made with {name}"), &error);
    let token = JoinToken::generate(options.name, authorities).map_err(failed)?;
    if !data.contains_key("tls.key") {
        return Err(Failure::new(format!("Secret {name} has no tls.key, so the principal cannot sign"))
            .remedy("keep the CA's key there, or issue the agent's certificate where the key is"));
    }
    let expires = clock::now()
        .checked_add(options.ttl)
        .map_err(|error| Failure::because("the token would end outside the calendar", &error))?;
    keep(&secrets, &token, expires).await.map_err(|error| {
        let name = join_secret::name(&token.id);
        Failure::because(&format!("cannot write the token into Secret {name}"), &error)
    })?;
    if options.json {
        let document = json!({
            "token": token.to_string(), "id": token.id, "agent": token.agent.as_str(), "expires": expires.to_string(),
        });
        return output::line(&document.to_string());
    }
    output::line(&token.to_string())?;
    output::say(&format!("good until {expires}, for one cluster: on it, run"));
    output::say("  tiphys join --server HOST:PORT --token TOKEN");
    Ok(())
}

async fn list(options: List) -> Result<(), Failure> {
    let found = tokens(&options.at.secrets().await?).await?.items;
    let mut tokens: Vec<Stored> = found.iter().flat_map(join_secret::all).collect();
    tokens.sort_by(|one, other| (&one.agent, one.expires).cmp(&(&other.agent, other.expires)));
    let state = |token: &Stored| if token.expires > clock::now() { "good" } else { "expired" };
    if options.json {
        let documents: Vec<_> = tokens
            .iter()
            .map(|token| {
                let expires = token.expires.to_string();
                json!({"id": token.id, "agent": token.agent.as_str(), "expires": expires, "state": state(token)})
            })
            .collect();
        return output::line(&serde_json::Value::from(documents).to_string());
    }
    let mut table = Table::new(&["ID", "AGENT", "EXPIRES", "STATE"]);
    for token in &tokens {
        let cells = [token.id.clone(), token.agent.to_string(), token.expires.to_string()];
        table.row(cells.into_iter().chain([state(token).to_owned()]));
    }
    output::line(&table.render(output::colours_on_stdout()))
}

async fn delete(options: Delete) -> Result<(), Failure> {
    for id in &options.ids {
        if !join_token::is_id(id) {
            return Err(Failure::usage(format!("{id:?} is not the id of a token"))
                .remedy("see tiphys agent token list"));
        }
    }
    let secrets = options.at.secrets().await?;
    let found = tokens(&secrets).await?.items;
    for id in &options.ids {
        let gone = || Failure::new(format!("there is no token {id}: it was used, or deleted before"));
        let entry = found.iter().find_map(|secret| secret.data.as_ref()?.get(id)).ok_or_else(gone)?;
        match join_secret::take_out(&secrets, id, entry).await {
            Ok(true) => output::say(&format!("token {id} is deleted")),
            Ok(false) => return Err(gone()),
            Err(error) => return Err(Failure::because(&format!("cannot delete token {id}"), &error)),
        }
    }
    Ok(())
}

/// Adds a token, and takes out what has expired in the same Secret.
async fn keep(secrets: &Api<Secret>, token: &JoinToken, expires: Timestamp) -> Result<(), kube::Error> {
    let (name, now) = (join_secret::name(&token.id), clock::now());
    let known = secrets.get_opt(&name).await?.iter().flat_map(join_secret::all).collect::<Vec<_>>();
    let expired = known.into_iter().filter(|token| token.expires <= now).map(|token| token.id);
    let entry = join_secret::entry(token, expires);
    let change = join_secret::with(&token.id, &entry, &expired.collect::<Vec<_>>());
    let add = async || secrets.patch(&name, &PatchParams::default(), &change).await.map(drop);
    match add().await {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        outcome => return outcome,
    }
    let first = join_secret::to_secret(name.clone(), [(token.id.clone(), entry)]);
    match secrets.create(&PostParams::default(), &first).await {
        // Somebody else made the first one at the same moment.
        Err(kube::Error::Api(status)) if status.code == 409 => add().await,
        outcome => outcome.map(drop),
    }
}

async fn tokens(secrets: &Api<Secret>) -> Result<ObjectList<Secret>, Failure> {
    let found = secrets.list(&ListParams::default().labels(&join_secret::selector())).await;
    found.map_err(|error| Failure::because("cannot list the Secrets with the tokens", &error))
}

impl ControlPlane {
    async fn secrets(&self) -> Result<Api<Secret>, Failure> {
        let access = Access { kubeconfig: self.kubeconfig.clone(), context: self.kubecontext.clone() };
        let client = client::connect(&access)
            .await
            .map_err(|error| Failure::because("cannot reach the control plane", &error))?;
        Ok(Api::namespaced(client, &self.namespace))
    }
}
