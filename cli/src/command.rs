//! The commands, one file each.

mod agent;
mod agents;
mod blocklist;
mod completion;
mod config;
mod demo;
mod explain;
mod export;
mod join;
mod jwt;
mod kubeconfig;
mod man;
mod pki;
mod principal;
#[cfg(test)]
mod reference;
mod sample;
mod status;
mod validate;
mod version;

use std::ffi::OsString;

use clap::{ArgMatches, Args as _, Command};
use tiphys_shared::process::options::{self, Origin, Setting};
use tiphys_shared::process::profile::endpoint;
use tiphys_shared::security::tls;

use crate::failure::Failure;
use crate::operator::targets::Targets;
use crate::output::{self, Format, Table};

/// The program that was asked for by the name under which it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// All of Tiphys.
    Tiphys,
    /// Upstream's binary.
    ArgocdAgent,
    /// Upstream's binary for operators.
    ArgocdAgentctl,
}

impl Program {
    /// The program that goes by this name.
    pub(crate) fn named(name: &str) -> Self {
        match name {
            "argocd-agent" => Self::ArgocdAgent,
            "argocd-agentctl" => Self::ArgocdAgentctl,
            _ => Self::Tiphys,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Tiphys => "tiphys",
            Self::ArgocdAgent => "argocd-agent",
            Self::ArgocdAgentctl => "argocd-agentctl",
        }
    }

    /// The form in which operators' commands answer if nobody says otherwise: upstream's is for machines.
    pub(crate) fn machine_format(self) -> Format {
        if self == Self::ArgocdAgentctl { Format::Json } else { Format::Table }
    }

    fn root(self) -> Command {
        Command::new(self.name())
            .about("One Argo CD control plane for clusters that it cannot reach")
            .version(env!("CARGO_PKG_VERSION"))
            .subcommand_required(true)
            .arg_required_else_help(true)
            .max_term_width(100)
    }

    /// One of the two sides, without anything beside or below it: if this is its name, and this program has it.
    pub(crate) fn side(self, name: &str) -> Option<Command> {
        let side = match (self, name) {
            (Self::Tiphys | Self::ArgocdAgent, "principal") => principal::command(self.name()),
            (Self::Tiphys | Self::ArgocdAgent, "agent") => agent::command(self.name()),
            _ => return None,
        };
        Some(self.root().subcommand(side))
    }

    /// The whole tree of commands.
    pub(crate) fn command(self) -> Command {
        let root = self.root().subcommand(version::command());
        let runs = |root: Command| root.subcommand(principal::command(self.name()));
        match self {
            Self::Tiphys => {
                let agent = agent::command(self.name());
                let verbs = agents::add_verbs(Command::new("agent")).mut_subcommands(Targets::augment_args);
                let agent = agent.subcommands(verbs.get_subcommands().cloned());
                let root = runs(root).subcommand(agent.alias("agents")).after_help(ROOT_EXAMPLES);
                let root = operator_commands()
                    .into_iter()
                    .fold(root, |root, command| root.subcommand(Targets::augment_args(command)));
                let root = root.subcommand(demo::command()).subcommand(join::command());
                let root = root.subcommand(kubeconfig::command()).subcommand(export::command());
                let root = root.subcommand(completion::command()).subcommand(man::command());
                root.subcommand(sample::command())
            }
            Self::ArgocdAgent => runs(root).subcommand(agent::command(self.name())),
            Self::ArgocdAgentctl => {
                let agent = Command::new("agent").alias("agents").about("Inspect and manage agents");
                let agent = agents::add_verbs(agent).subcommand_required(true).arg_required_else_help(true);
                let root = Targets::augment_args(root).subcommand(agent);
                operator_commands().into_iter().fold(root, Command::subcommand)
            }
        }
    }
}

/// Commands that speak to the clusters named by [`Targets`].
fn operator_commands() -> [Command; 8] {
    [
        pki::command(),
        jwt::command(),
        blocklist::command(),
        config::command(),
        validate::command(),
        explain::command(),
        status::status_command(),
        status::top_command(),
    ]
}

const ROOT_EXAMPLES: &str = "\
Examples:
  tiphys demo                                     see it work, without Kubernetes
  tiphys principal --help                         what the control-plane side can be told
  tiphys principal --embedded ./control-plane     a control plane without Kubernetes
  tiphys agent --help                             what the cluster side can be told
  tiphys pki init                                 make the CA of an installation
  tiphys agent create edge-1                      make an agent known to Argo CD
  tiphys agent token create --name edge-1         a token with which a cluster joins
  tiphys join --server HOST:PORT --token TOKEN    let a cluster join
  tiphys kubeconfig --agent edge-1                kubectl on a cluster that only its agent reaches
  tiphys completion bash > ~/.local/share/bash-completion/completions/tiphys";

/// Runs the command that was given. `root` is prepared, `given` leniently parsed from `arguments`.
pub(crate) fn run(
    program: Program,
    root: &Command,
    given: &ArgMatches,
    arguments: &[OsString],
) -> Result<(), Failure> {
    let (name, below) = given.subcommand().unwrap_or(("", given));
    let Some(command) = root.find_subcommand(name) else {
        return Err(Failure::new("no command was given").remedy("see --help"));
    };
    match name {
        "principal" => principal::run(command, below),
        _ if is_operators(program, name, below) => run_operators(program, root, arguments),
        "agent" => agent::run(command, below),
        "demo" => demo::run(command, below),
        "join" => join::run(command, below),
        "kubeconfig" => kubeconfig::run(command, below),
        "export" => export::run(command, below),
        "completion" => completion::run(program.command(), below),
        "man" => man::run(program.command(), command, below),
        endpoint::COMMAND => sample::run(below),
        _ => version::run(program.name(), command, below),
    }
}

fn is_operators(program: Program, name: &str, below: &ArgMatches) -> bool {
    match name {
        "agent" => {
            program == Program::ArgocdAgentctl
                || below.subcommand_name().is_some_and(|verb| agents::VERBS.contains(&verb))
        }
        _ => operator_commands().iter().any(|command| command.get_name() == name),
    }
}

/// Runs a command whose options come from the command line and the environment alone.
fn run_operators(program: Program, root: &Command, arguments: &[OsString]) -> Result<(), Failure> {
    let given = root.clone().try_get_matches_from(arguments).map_err(Failure::Usage)?;
    let mut innermost = &given;
    while let Some((_, below)) = innermost.subcommand() {
        innermost = below;
    }
    let targets = Targets::read(innermost).map_err(Failure::Usage)?;
    match given.subcommand() {
        Some(("pki", below)) => pki::run(program, below, targets),
        Some(("agent", below)) => agents::run(program, below, targets),
        Some(("jwt", below)) => jwt::run(program, below, targets),
        Some(("blocklist", below)) => blocklist::run(below, targets),
        Some(("config", below)) => config::run(below, &targets),
        Some(("validate", below)) => validate::run(below, targets),
        Some(("explain", below)) => explain::run(below, targets),
        Some(("status", below)) => status::run_status(below, targets),
        Some(("top", below)) => status::run_top(below, targets),
        _ => Err(Failure::new("no command was given").remedy("see --help")),
    }
}

/// Loads the options of a command that has nothing to check beyond their kinds.
fn load<T: clap::Args>(command: &Command, given: &ArgMatches) -> Result<T, Failure> {
    Ok(options::load(command, given, &|name| std::env::var_os(name), Ok)?.value)
}

/// Names the options that are in effect and differ from their defaults, or all of them for the curious.
fn log_settings(settings: &[Setting]) {
    let given = settings.iter().filter(|setting| setting.origin != Origin::Default);
    tracing::info!(options = %given.map(ToString::to_string).collect::<Vec<_>>().join(" "), "options given");
    for setting in settings {
        tracing::debug!(option = %setting.key, value = %setting.value, origin = %setting.origin, "option in effect");
    }
}

/// Prints the cipher suites that can be named in `--tls-ciphersuites`.
fn print_cipher_suites() -> Result<(), Failure> {
    let mut table = Table::new(&["SUITE", "VERSION"]);
    for name in tls::cipher_suite_names() {
        let version = match tls::cipher_suite(&name) {
            Ok(suite) if suite.tls13().is_some() => "tls1.3",
            _ => "tls1.2",
        };
        table.row([name, version.to_owned()]);
    }
    output::line(&table.render(output::colours_on_stdout()))
}
