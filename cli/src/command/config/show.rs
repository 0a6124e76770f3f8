//! The options in effect of a principal or an agent that is deployed, and where each comes from.

use clap::{ArgAction, Args, ValueEnum};
use serde::Serialize;
use tiphys_agent::options::Options as AgentOptions;
use tiphys_principal::options::Options as PrincipalOptions;
use tiphys_shared::process::options::{Origin, Setting};

use crate::failure::Failure;
use crate::operator::installation::{Installation, Part};
use crate::operator::targets::Targets;
use crate::output::{self, Format, Table};

#[derive(Debug, Args)]
pub(super) struct Show {
    /// Of which of the two
    #[arg(value_name = "PART")]
    part: Which,
    /// Show options with default values, too
    #[arg(long, action = ArgAction::Set, default_value = "false")]
    all: bool,
    /// Form of the answer
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    Principal,
    Agent,
}

#[derive(Debug, Serialize)]
struct Row {
    option: String,
    value: String,
    origin: String,
}

impl Show {
    pub(super) async fn run(self, targets: &Targets) -> Result<(), Failure> {
        let (part, site) = match self.part {
            Which::Principal => (Part::Principal, targets.control_plane().await?),
            Which::Agent => (Part::Agent, targets.agent_cluster().await?),
        };
        let found = Installation::find(&site, part).await?.ok_or_else(|| {
            let name = part.name();
            let a = if part == Part::Agent { "an" } else { "a" };
            Failure::new(format!("no workload in namespace {} runs {a} {name}", site.namespace))
                .remedy(format!("check --{name}-context and --{name}-namespace"))
        })?;
        let settings = match part {
            Part::Principal => {
                found.load(part, &site, |options: PrincipalOptions| Ok(options)).map(|loaded| loaded.settings)
            }
            Part::Agent => {
                found.load(part, &site, |options: AgentOptions| Ok(options)).map(|loaded| loaded.settings)
            }
        };
        let settings = settings.map_err(Failure::Setup)?;
        let stood_in = |setting: &Setting| {
            setting.key == "kubeconfig" && !found.arguments.iter().any(|it| it.starts_with("--kubeconfig"))
        };
        let rows: Vec<Row> = settings
            .into_iter()
            .filter(|setting| !stood_in(setting) && (self.all || setting.origin != Origin::Default))
            .map(|setting| Row {
                origin: origin(&found, &setting.origin),
                option: setting.key,
                value: setting.value,
            })
            .collect();
        output::say(&format!("options of {}", found.workload.as_deref().unwrap_or_default()));
        for problem in &found.problems {
            output::say(&format!("warning: {problem}"));
        }
        self.output.print(&rows, || {
            let mut table = Table::new(&["OPTION", "VALUE", "ORIGIN"]);
            for row in &rows {
                table.row([row.option.clone(), row.value.clone(), row.origin.clone()]);
            }
            table
        })
    }
}

/// A variable comes from somewhere, too.
fn origin(found: &Installation, origin: &Origin) -> String {
    match origin {
        Origin::Environment(name) => match found.environment.get(name) {
            Some((_, place)) => format!("{place} (${name})"),
            None => "namespace of the workload".to_owned(),
        },
        other => other.to_string(),
    }
}
