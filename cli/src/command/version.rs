//! `version`: what this is.

use clap::{ArgAction, ArgMatches, Args, Command, ValueEnum};
use serde_json::json;

use crate::command::load;
use crate::failure::Failure;
use crate::output;

#[derive(Debug, Args)]
struct Options {
    /// Print the number alone
    #[arg(long, short, action = ArgAction::Set, default_value = "false")]
    short: bool,
    /// Form of the answer
    #[arg(long, short, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Yaml,
    Json,
}

pub(super) fn command() -> Command {
    Options::augment_args(Command::new("version").about("Print the version"))
}

pub(super) fn run(program: &str, command: &Command, given: &ArgMatches) -> Result<(), Failure> {
    let options: Options = load(command, given)?;
    let version = env!("CARGO_PKG_VERSION");
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    output::line(&match (options.short, options.output) {
        (true, _) => version.to_owned(),
        (false, Format::Text) => format!("{program} {version} (tiphys, {os}/{arch})"),
        (false, Format::Yaml) => format!("name: {program}\nversion: {version}\nplatform: {os}/{arch}"),
        (false, Format::Json) => {
            json!({ "name": program, "version": version, "platform": format!("{os}/{arch}") }).to_string()
        }
    })
}
