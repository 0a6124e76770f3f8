//! `completion`: what a shell needs to complete commands and flags.

use clap::builder::EnumValueParser;
use clap::{Arg, ArgMatches, Command};
use clap_complete::Shell;

use crate::failure::Failure;
use crate::output;

const EXAMPLES: &str = "\
Examples:
  tiphys completion bash > ~/.local/share/bash-completion/completions/tiphys
  tiphys completion zsh > \"${fpath[1]}/_tiphys\"
  tiphys completion fish > ~/.config/fish/completions/tiphys.fish";

pub(super) fn command() -> Command {
    Command::new("completion").about("Print completions for a shell").after_help(EXAMPLES).arg(
        Arg::new("shell")
            .value_name("SHELL")
            .required(true)
            .value_parser(EnumValueParser::<Shell>::new())
            .help("The shell"),
    )
}

pub(super) fn run(mut root: Command, given: &ArgMatches) -> Result<(), Failure> {
    let mut values = given.get_raw("shell").into_iter().flatten();
    let name = values.next().and_then(|shell| shell.to_str()).unwrap_or_default();
    let shell: Shell = name.parse().map_err(|_| {
        let what = match name {
            "" => "no shell is named".to_owned(),
            name => format!("there are no completions for {name:?}"),
        };
        Failure::usage(what).remedy("name one of bash, elvish, fish, powershell, zsh")
    })?;
    let program = root.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut root, program, &mut script);
    output::text(&String::from_utf8_lossy(&script))
}
