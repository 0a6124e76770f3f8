//! `validate`: what is wrong with an installation, and what to do about it.
//!
//! Everything is gathered first, then judged by plain functions.

mod clusters;
mod control;
mod edge;
mod finding;
mod gather;
mod material;
mod options;
mod permissions;
mod snapshot;
#[cfg(test)]
mod tests;

use clap::{ArgAction, Args, Command, FromArgMatches, Subcommand};
use serde::Serialize;
use tiphys_shared::process::clock;

use self::finding::{Finding, Severity};
use self::snapshot::Snapshot;
use crate::failure::Failure;
use crate::operator;
use crate::operator::installation::OwnOptions;
use crate::operator::targets::Targets;
use crate::output::{self, Format, visible};

const EXAMPLES: &str = "\
Examples:
  tiphys validate principal --principal-context hub
  tiphys validate agent --principal-context hub --agent-context edge-1
  tiphys validate principal -- --auth 'mtls:subject:CN=([^,]+)' --allowed-namespaces edge-1
                                a principal that does not run in a pod there, with its options

The exit code is 1 if there is an error. Warnings alone leave it 0.";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Check the control plane
    Principal(Principal),
    /// Check an agent's cluster, the control plane, and whether they agree
    Agent(Agent),
}

#[derive(Debug, Args)]
struct Principal {
    /// Form of the answer
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    output: Format,
    #[command(flatten)]
    own: OwnOptions,
}

#[derive(Debug, Args)]
struct Agent {
    /// Form of the answer
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    output: Format,
    /// Do not try whether the principal is reached from here
    #[arg(long, action = ArgAction::Set, default_value = "false")]
    no_dial: bool,
    #[command(flatten)]
    own: OwnOptions,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    errors: usize,
    warnings: usize,
    findings: &'a [Finding],
}

pub(super) fn command() -> Command {
    Verb::augment_subcommands(Command::new("validate"))
        .about("Find what is wrong with an installation, and what to do about it")
        .after_help(EXAMPLES)
        .subcommand_required(true)
        .arg_required_else_help(true)
}

pub(super) fn run(given: &clap::ArgMatches, targets: Targets) -> Result<(), Failure> {
    let verb = Verb::from_arg_matches(given).map_err(Failure::Usage)?;
    operator::run(async move {
        let control = targets.control_plane().await?;
        let (snapshot, format) = match verb {
            Verb::Principal(options) => {
                output::say(&format!("looking at {}", control.server));
                let control = gather::control_plane(&control, &options.own).await?;
                (Snapshot { now: clock::now(), control, edge: None }, options.output)
            }
            Verb::Agent(options) => {
                let edge = targets.agent_cluster().await?;
                output::say(&format!("looking at {} and {}", control.server, edge.server));
                let control = gather::control_plane(&control, &OwnOptions::default()).await?;
                let edge = gather::edge(&edge, &options.own, !options.no_dial).await?;
                (Snapshot { now: clock::now(), control, edge: Some(edge) }, options.output)
            }
        };
        report(&judge(&snapshot), format)
    })
}

/// Everything that is wrong, the worst first.
fn judge(snapshot: &Snapshot) -> Vec<Finding> {
    let mut findings = control::check(&snapshot.control, snapshot.now);
    if let Some(edge) = &snapshot.edge {
        findings.extend(edge::check(edge, &snapshot.control, snapshot.now));
    }
    findings.sort_by_key(|finding| finding.severity);
    findings
}

fn report(findings: &[Finding], format: Format) -> Result<(), Failure> {
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    if format == Format::Table {
        // Sentences do not fit into columns.
        for finding in findings {
            let severity = match finding.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            let Finding { check, side, what, remedy, .. } = finding;
            // What a finding quotes may be anybody's, and forges no other finding.
            let (what, remedy) = (visible(what), visible(remedy));
            output::line(&format!("{severity}  {side}  {check}\n  {what}\n  remedy: {remedy}"))?;
        }
        output::line(&format!("{}, {}", counted(errors, "error"), counted(warnings, "warning")))?;
    } else {
        format.print(&Report { errors, warnings, findings }, output::Table::default)?;
    }
    if errors == 0 {
        return Ok(());
    }
    Err(Failure::new(format!("the installation has {}", counted(errors, "error")))
        .remedy("see the remedy of each"))
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
