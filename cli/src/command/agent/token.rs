//! `agent token`: tokens with which clusters join, made and kept at the control plane.

use std::time::Duration;

use clap::{ArgMatches, Args, Command, FromArgMatches, Subcommand};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams, ObjectList, PatchParams, PostParams};
use serde::Serialize;
use tiphys_shared::kube::join_secret::{self, Stored};
use tiphys_shared::model::AgentName;
use tiphys_shared::process::clock;
use tiphys_shared::process::options;
use tiphys_shared::security::join_token::{self, JoinToken};
use tiphys_shared::security::pki::Ca;

use crate::failure::Failure;
use crate::operator::targets::{Site, Targets};
use crate::operator::write::{self, DryRun};
use crate::operator::{self, names};
use crate::output::{self, Format, Table};

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

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a token: it is printed once, and good for one cluster
    Create(Create),
    /// List the tokens that are not used yet
    List(List),
    /// Delete tokens, so that nobody joins with them
    Delete(Delete),
}

#[derive(Debug, Args)]
struct Create {
    /// The agent that will join with it
    #[arg(long, value_name = "NAME")]
    name: AgentName,
    /// How long it is good
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = options::duration)]
    ttl: Duration,
    /// Secret with the CA that signs agents
    #[arg(long, value_name = "NAME", default_value = names::CA)]
    ca_secret_name: String,
    #[command(flatten)]
    answer: Answer,
    #[command(flatten)]
    dry_run: DryRun,
}

#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    answer: Answer,
}

#[derive(Debug, Args)]
struct Delete {
    /// The tokens, as list names them
    #[arg(long = "id", value_name = "ID", required = true)]
    ids: Vec<String>,
    #[command(flatten)]
    dry_run: DryRun,
}

#[derive(Debug, Args)]
struct Answer {
    /// Form of the answer
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    output: Format,
    /// The same as --output json
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

impl Answer {
    fn format(&self) -> Format {
        if self.json { Format::Json } else { self.output }
    }
}

/// A token that was made.
#[derive(Debug, Serialize)]
struct Made {
    token: String,
    id: String,
    agent: String,
    expires: String,
}

/// A token that waits for its cluster.
#[derive(Debug, Serialize)]
struct Waiting {
    id: String,
    agent: String,
    expires: String,
    state: &'static str,
}

pub(in crate::command) fn command() -> Command {
    let verbs = Verb::augment_subcommands(Command::new("token"))
        .about("Tokens with which clusters join")
        .after_help(EXAMPLES)
        .subcommand_required(true)
        .arg_required_else_help(true);
    // Each flag has two names: that of the other commands, and a short one.
    Targets::augment_args(verbs)
        .mut_arg("principal_context", |arg| arg.visible_alias("kubecontext"))
        .mut_arg("principal_namespace", |arg| arg.short('n').visible_alias("namespace"))
}

pub(in crate::command) fn run(given: &ArgMatches, targets: Targets) -> Result<(), Failure> {
    let verb = Verb::from_arg_matches(given).map_err(Failure::Usage)?;
    operator::run(async move {
        match verb {
            Verb::Create(options) => create(&targets, options).await,
            Verb::List(options) => list(&targets, options).await,
            Verb::Delete(options) => delete(&targets, options).await,
        }
    })
}

async fn create(targets: &Targets, options: Create) -> Result<(), Failure> {
    if options.ttl.is_zero() || options.ttl > LONGEST {
        return Err(Failure::usage("--ttl must be more than nothing and at most 720h")
            .remedy("write how long it takes until the cluster joins, such as 15m"));
    }
    let site = targets.control_plane().await?;
    let authorities = authorities(&site, &options.ca_secret_name).await?;
    let token = JoinToken::generate(options.name, &authorities).map_err(|error| {
        Failure::because(&format!("no token can be made with {}", options.ca_secret_name), &error)
    })?;
    let expires = clock::now()
        .checked_add(options.ttl)
        .map_err(|error| Failure::because("the token would end outside the calendar", &error))?;
    let dry_run = options.dry_run.dry_run;
    keep(&secrets(&site), &token, expires, dry_run).await.map_err(|error| {
        let name = join_secret::name(&token.id);
        Failure::because(&format!("cannot write the token into Secret {}/{name}", site.namespace), &error)
    })?;
    if dry_run {
        output::say(&format!("would make a token for agent {}, good until {expires}", token.agent));
        return Ok(());
    }
    if options.answer.format() != Format::Table {
        let made = Made {
            token: token.to_string(),
            id: token.id,
            agent: token.agent.to_string(),
            expires: expires.to_string(),
        };
        return options.answer.format().print(&made, Table::default);
    }
    output::line(&token.to_string())?;
    output::say(&format!("good until {expires}, for one cluster: on it, run"));
    output::say("  tiphys join --server HOST:PORT --token TOKEN");
    Ok(())
}

/// The CA certificates that the principal tells to those who join, if it can sign them: with a token for one that cannot,
/// nobody would get anywhere.
async fn authorities(site: &Site, name: &str) -> Result<Vec<u8>, Failure> {
    let at = format!("Secret {}/{name}", site.namespace);
    let found = write::read(site, name).await?.ok_or_else(|| {
        Failure::new(format!("there is no {at}"))
            .remedy("make a CA with `pki init`, or check --principal-context and --principal-namespace")
    })?;
    let mut data = found.data.unwrap_or_default();
    let part = |key: &str| {
        data.get(key).map(|bytes| bytes.0.as_slice()).ok_or_else(|| {
            Failure::new(format!("{at} has no {key}, so the principal cannot sign"))
                .remedy("keep the CA's key there, or issue the agent's certificate where the key is")
        })
    };
    let ca = Ca::from_pem(part("tls.crt")?, part("tls.key")?).map_err(|error| {
        Failure::because(&format!("the principal cannot sign with what is in {at}"), &error)
            .remedy("store the CA's certificate as tls.crt and the key that belongs to it as tls.key")
    })?;
    if ca.certificate().not_after < clock::now() {
        return Err(Failure::new(format!("the CA in {at} was good until {}", ca.certificate().not_after))
            .remedy("replace it, and what it has signed: see `validate principal`"));
    }
    Ok(data.remove("ca.crt").or_else(|| data.remove("tls.crt")).unwrap_or_default().0)
}

async fn list(targets: &Targets, options: List) -> Result<(), Failure> {
    let found = tokens(&secrets(&targets.control_plane().await?)).await?.items;
    let mut tokens: Vec<Stored> = found.iter().flat_map(join_secret::all).collect();
    tokens.sort_by(|one, other| (&one.agent, one.expires).cmp(&(&other.agent, other.expires)));
    let now = clock::now();
    let tokens: Vec<Waiting> = tokens
        .into_iter()
        .map(|token| Waiting {
            id: token.id,
            agent: token.agent.to_string(),
            expires: token.expires.to_string(),
            state: if token.expires > now { "good" } else { "expired" },
        })
        .collect();
    options.answer.format().print(&tokens, || {
        let mut table = Table::new(&["ID", "AGENT", "EXPIRES", "STATE"]);
        for token in &tokens {
            let cells = [&token.id, &token.agent, &token.expires].map(Clone::clone);
            table.row(cells.into_iter().chain([token.state.to_owned()]));
        }
        table
    })
}

async fn delete(targets: &Targets, options: Delete) -> Result<(), Failure> {
    for id in &options.ids {
        if !join_token::is_id(id) {
            return Err(Failure::usage(format!("{id:?} is not the id of a token"))
                .remedy("see tiphys agent token list"));
        }
    }
    let secrets = secrets(&targets.control_plane().await?);
    let found = tokens(&secrets).await?.items;
    let gone = |id: &str| {
        Failure::new(format!("there is no token {id}: it was used, or deleted before"))
            .remedy("see tiphys agent token list")
    };
    // All of them are looked up before the first is deleted.
    let entry = |id: &String| -> Result<(String, ByteString), Failure> {
        let entry = found.iter().find_map(|secret| secret.data.as_ref()?.get(id)).ok_or_else(|| gone(id))?;
        Ok((id.clone(), entry.clone()))
    };
    let entries = options.ids.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    for (id, entry) in entries {
        if options.dry_run.dry_run {
            output::say(&format!("would delete token {id}"));
            continue;
        }
        match join_secret::take_out(&secrets, &id, &entry).await {
            Ok(true) => output::say(&format!("token {id} is deleted")),
            Ok(false) => return Err(gone(&id)),
            Err(error) => return Err(Failure::because(&format!("cannot delete token {id}"), &error)),
        }
    }
    Ok(())
}

fn secrets(site: &Site) -> Api<Secret> {
    Api::namespaced(site.client.clone(), &site.namespace)
}

/// Adds a token, and takes out what has expired in the same Secret.
async fn keep(
    secrets: &Api<Secret>,
    token: &JoinToken,
    expires: Timestamp,
    dry_run: bool,
) -> Result<(), kube::Error> {
    let (name, now) = (join_secret::name(&token.id), clock::now());
    let known = secrets.get_opt(&name).await?.iter().flat_map(join_secret::all).collect::<Vec<_>>();
    let expired = known.into_iter().filter(|token| token.expires <= now).map(|token| token.id);
    let entry = join_secret::entry(token, expires);
    let change = join_secret::with(&token.id, &entry, &expired.collect::<Vec<_>>());
    let params = PatchParams { dry_run, ..PatchParams::default() };
    let add = async || secrets.patch(&name, &params, &change).await.map(drop);
    match add().await {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        outcome => return outcome,
    }
    let first = join_secret::to_secret(name.clone(), [(token.id.clone(), entry)]);
    match secrets.create(&PostParams { dry_run, ..PostParams::default() }, &first).await {
        // Somebody else made the first one at the same moment.
        Err(kube::Error::Api(status)) if status.code == 409 => add().await,
        outcome => outcome.map(drop),
    }
}

async fn tokens(secrets: &Api<Secret>) -> Result<ObjectList<Secret>, Failure> {
    let found = secrets.list(&ListParams::default().labels(&join_secret::selector())).await;
    found.map_err(|error| Failure::because("cannot list the Secrets with the tokens", &error))
}
