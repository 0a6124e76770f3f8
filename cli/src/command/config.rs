//! `config`: the local configuration, which says where principals and agents are.

mod create;
mod show;

use std::path::{Path, PathBuf};

use clap::{ArgAction, Args, Command, FromArgMatches, Subcommand};
use serde::Serialize;

use crate::failure::Failure;
use crate::operator;
use crate::operator::local::{Component, LocalConfig, default_path};
use crate::operator::targets::Targets;
use crate::output::{self, Format, Table};

const EXAMPLES: &str = "\
Examples:
  tiphys config add principal --name hub --context kind-hub --namespace argocd --set-default
  tiphys config add agent --name edge-1 --context kind-edge-1 --namespace argocd
  tiphys config list
  tiphys config show principal                    which options a principal in a pod has, and where from
  tiphys pki issue agent edge-1 --agent edge-1    where these entries are used";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make the file, by asking what each context of a kubeconfig is
    Create(create::Create),
    /// Add an entry
    #[command(subcommand)]
    Add(Add),
    /// Change an entry
    #[command(subcommand)]
    Edit(Edit),
    /// Delete an entry
    #[command(subcommand)]
    Delete(Delete),
    /// List the entries
    List(List),
    /// Show the options in effect of a principal or an agent, and where each comes from
    Show(show::Show),
}

#[derive(Debug, Subcommand)]
enum Add {
    /// A principal
    Principal(New),
    /// An agent
    Agent(NewAgent),
}

#[derive(Debug, Subcommand)]
enum Edit {
    /// A principal
    Principal(Change),
    /// An agent
    Agent(ChangeAgent),
}

#[derive(Debug, Subcommand)]
enum Delete {
    /// A principal
    Principal(Named),
    /// An agent
    Agent(Named),
}

#[derive(Debug, Args)]
struct New {
    #[command(flatten)]
    entry: NewAgent,
    /// Make it the default
    #[arg(long, action = ArgAction::Set, default_value = "false")]
    set_default: bool,
}

#[derive(Debug, Args)]
struct NewAgent {
    /// Name of the new entry
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Its context in the kubeconfig
    #[arg(long, value_name = "NAME")]
    context: String,
    /// Its namespace
    #[arg(long, value_name = "NAME")]
    namespace: String,
    #[command(flatten)]
    dry_run: FileDryRun,
}

/// The flag that keeps the file as it is.
#[derive(Debug, Clone, Copy, Args)]
struct FileDryRun {
    /// Say what would be written, but leave the file as it is
    #[arg(long, action = ArgAction::Set, default_value = "false")]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct Change {
    #[command(flatten)]
    entry: ChangeAgent,
    /// Make it the default
    #[arg(long, action = ArgAction::Set, default_value = "false")]
    set_default: bool,
}

#[derive(Debug, Args)]
struct ChangeAgent {
    /// Name of the entry
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Its new context
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Its new namespace
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    #[command(flatten)]
    dry_run: FileDryRun,
}

#[derive(Debug, Args)]
struct Named {
    /// Name of the entry
    #[arg(long, value_name = "NAME")]
    name: String,
    #[command(flatten)]
    dry_run: FileDryRun,
}

#[derive(Debug, Args)]
struct List {
    /// List only these
    #[arg(value_name = "KIND")]
    kind: Option<Kind>,
    /// Form of the answer
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Principal,
    Agent,
}

#[derive(Debug, Serialize)]
struct Row {
    component: &'static str,
    name: String,
    context: String,
    namespace: String,
    default: bool,
}

pub(super) fn command() -> Command {
    Verb::augment_subcommands(Command::new("config"))
        .about("Manage the local configuration, which says where principals and agents are")
        .after_help(EXAMPLES)
        .subcommand_required(true)
        .arg_required_else_help(true)
}

pub(super) fn run(given: &clap::ArgMatches, targets: &Targets) -> Result<(), Failure> {
    match Verb::from_arg_matches(given).map_err(Failure::Usage)? {
        Verb::Show(options) => operator::run(options.run(targets)),
        Verb::Create(options) => operator::run(options.run(targets.local_path()?)),
        verb => run_local(verb, &targets.local_path()?),
    }
}

/// What is about the entries of the file.
fn run_local(verb: Verb, path: &Path) -> Result<(), Failure> {
    // Entries can be added to a file that is not there yet. Others want to see one that somebody has named.
    let is_named = default_path().ok().as_deref() != Some(path);
    let mut config = match &verb {
        Verb::List(_) | Verb::Edit(_) | Verb::Delete(_) if is_named => LocalConfig::read_existing(path)?,
        _ => LocalConfig::read(path)?,
    };
    let dry_run = verb.dry_run();
    match verb {
        Verb::List(options) => return list(&config, options),
        Verb::Add(Add::Principal(New { entry, set_default })) => {
            add("principal", &mut config.contexts.principals, &entry)?;
            if set_default {
                config.default_principal = entry.name;
            }
        }
        Verb::Add(Add::Agent(entry)) => add("agent", &mut config.contexts.agents, &entry)?,
        Verb::Edit(Edit::Principal(Change { entry, set_default })) => {
            edit(&mut config.principal(&entry.name)?, &entry, &mut config.contexts.principals);
            if set_default {
                config.default_principal = entry.name;
            }
        }
        Verb::Edit(Edit::Agent(entry)) => {
            edit(&mut config.agent(&entry.name)?, &entry, &mut config.contexts.agents);
        }
        Verb::Delete(Delete::Principal(Named { name, .. })) => {
            config.principal(&name)?;
            if config.default_principal == name {
                return Err(Failure::usage(format!("{name} is the default principal"))
                    .remedy("make another the default first: config edit principal --name … --set-default"));
            }
            config.contexts.principals.remove(&name);
        }
        Verb::Delete(Delete::Agent(Named { name, .. })) => {
            config.agent(&name)?;
            config.contexts.agents.remove(&name);
        }
        Verb::Create(_) | Verb::Show(_) => return Ok(()),
    }
    if dry_run {
        config.check_to_write()?;
        output::say(&format!("{} would be written", path.display()));
        return Ok(());
    }
    config.write(path)?;
    output::say(&format!("{} is written", path.display()));
    Ok(())
}

impl Verb {
    /// Whether the file is to stay as it is.
    fn dry_run(&self) -> bool {
        let flag = match self {
            Self::Add(Add::Principal(New { entry, .. }) | Add::Agent(entry)) => entry.dry_run,
            Self::Edit(Edit::Principal(Change { entry, .. }) | Edit::Agent(entry)) => entry.dry_run,
            Self::Delete(Delete::Principal(entry) | Delete::Agent(entry)) => entry.dry_run,
            Self::Create(_) | Self::List(_) | Self::Show(_) => return false,
        };
        flag.dry_run
    }
}

type Entries = std::collections::BTreeMap<String, Component>;

fn add(kind: &str, entries: &mut Entries, new: &NewAgent) -> Result<(), Failure> {
    if entries.contains_key(&new.name) {
        return Err(Failure::usage(format!("there is already {kind} {}", new.name))
            .remedy(format!("change it with `config edit {kind}`, or choose another name")));
    }
    let component = Component { kube_context: new.context.clone(), namespace: new.namespace.clone() };
    entries.insert(new.name.clone(), component);
    Ok(())
}

fn edit(component: &mut Component, change: &ChangeAgent, entries: &mut Entries) {
    if let Some(context) = &change.context {
        component.kube_context.clone_from(context);
    }
    if let Some(namespace) = &change.namespace {
        component.namespace.clone_from(namespace);
    }
    entries.insert(change.name.clone(), component.clone());
}

fn list(config: &LocalConfig, options: List) -> Result<(), Failure> {
    let row = |component, (name, entry): (&String, &Component)| Row {
        component,
        name: name.clone(),
        context: entry.kube_context.clone(),
        namespace: entry.namespace.clone(),
        default: component == "principal" && *name == config.default_principal,
    };
    let principals = config.contexts.principals.iter().map(|entry| row("principal", entry));
    let agents = config.contexts.agents.iter().map(|entry| row("agent", entry));
    let rows: Vec<Row> = match options.kind {
        None => principals.chain(agents).collect(),
        Some(Kind::Principal) => principals.collect(),
        Some(Kind::Agent) => agents.collect(),
    };
    options.output.print(&rows, || {
        let mut table = Table::new(&["COMPONENT", "NAME", "CONTEXT", "NAMESPACE", "DEFAULT"]);
        for row in &rows {
            table.row([
                row.component.to_owned(),
                row.name.clone(),
                row.context.clone(),
                row.namespace.clone(),
                if row.default { "X".to_owned() } else { String::new() },
            ]);
        }
        table
    })
}

/// Where kubectl would look.
fn default_kubeconfig() -> Result<PathBuf, Failure> {
    let home = std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
    home.map(|home| home.join(".kube").join("config")).ok_or_else(|| {
        Failure::new("there is no home folder to look for a kubeconfig in").remedy("give --kubeconfig-path")
    })
}
