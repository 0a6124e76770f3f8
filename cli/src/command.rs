//! The commands, one file each.

mod agent;
mod completion;
mod demo;
mod export;
mod kubeconfig;
mod principal;
#[cfg(test)]
mod reference;
mod version;

use clap::{ArgMatches, Command};
use tiphys_shared::process::options::{self, Origin, Setting};
use tiphys_shared::security::tls;

use crate::failure::Failure;
use crate::output::{self, Table};

/// The program that was asked for by the name under which it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// All of Tiphys.
    Tiphys,
    /// Upstream's binary.
    ArgocdAgent,
}

impl Program {
    /// The program that goes by this name.
    pub(crate) fn named(name: &str) -> Self {
        if name == "argocd-agent" { Self::ArgocdAgent } else { Self::Tiphys }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Tiphys => "tiphys",
            Self::ArgocdAgent => "argocd-agent",
        }
    }

    /// The whole tree of commands.
    pub(crate) fn command(self) -> Command {
        let root = Command::new(self.name())
            .about("One Argo CD control plane for clusters that it cannot reach")
            .version(env!("CARGO_PKG_VERSION"))
            .subcommand_required(true)
            .arg_required_else_help(true)
            .max_term_width(100)
            .subcommand(principal::command(self.name()))
            .subcommand(agent::command(self.name()))
            .subcommand(version::command());
        match self {
            Self::Tiphys => {
                let root = root.after_help(ROOT_EXAMPLES).subcommand(demo::command());
                root.subcommand(kubeconfig::command())
                    .subcommand(export::command())
                    .subcommand(completion::command())
            }
            Self::ArgocdAgent => root,
        }
    }
}

const ROOT_EXAMPLES: &str = "\
Examples:
  tiphys demo                                     see it work, without Kubernetes
  tiphys principal --help                         what the control-plane side can be told
  tiphys principal --embedded ./control-plane     a control plane without Kubernetes
  tiphys agent --help                             what the cluster side can be told
  tiphys kubeconfig --agent edge-1                kubectl on a cluster that only its agent reaches
  tiphys completion bash > ~/.local/share/bash-completion/completions/tiphys";

/// Runs the command that was given. `root` is prepared, `given` leniently parsed.
pub(crate) fn run(program: Program, root: &Command, given: &ArgMatches) -> Result<(), Failure> {
    let (name, given) = given.subcommand().unwrap_or(("", given));
    let Some(command) = root.find_subcommand(name) else {
        return Err(Failure::new("no command was given").remedy("see --help"));
    };
    match name {
        "principal" => principal::run(command, given),
        "agent" => agent::run(command, given),
        "demo" => demo::run(command, given),
        "kubeconfig" => kubeconfig::run(command, given),
        "export" => export::run(command, given),
        "completion" => completion::run(program.command(), given),
        _ => version::run(program.name(), command, given),
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
