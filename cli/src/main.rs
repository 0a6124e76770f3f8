//! `tiphys`: one binary for every part of Tiphys.
//!
//! Started under the name `argocd-agent` or `argocd-agentctl` it takes that program's commands, so that an image can be
//! exchanged under existing manifests, and a tool under existing scripts.

mod admin;
mod command;
mod embedded;
mod failure;
mod file;
mod operator;
mod output;
mod runtime;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use tiphys_shared::process::options;

use crate::command::Program;
use crate::failure::Failure;

fn main() -> ExitCode {
    // Crates that leave the choice to the process get the one provider that is compiled in.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        return Failure::new("cannot install the TLS provider").report();
    }
    let arguments: Vec<OsString> = std::env::args_os().collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(arguments: &[OsString]) -> Result<(), Failure> {
    let name = arguments.first().and_then(|path| Path::new(path).file_stem()?.to_str()).unwrap_or_default();
    let program = Program::named(name);
    // What runs for long does without the memory that the other commands' descriptions take.
    if let Some(side) = arguments.get(1).and_then(|argument| program.side(argument.to_str()?)) {
        let root = options::prepare(side);
        if let Ok(given) = options::lenient(root.clone()).try_get_matches_from(arguments) {
            return command::run(program, &root, &given, arguments);
        }
    }
    let root = options::prepare(program.command());
    // Names are checked first; values later, together with those of the file and the environment.
    let given = options::lenient(root.clone()).try_get_matches_from(arguments).map_err(|error| {
        // Help and complaints read better from the command that knows what its values are.
        let strict = root.clone().try_get_matches_from(arguments).err();
        Failure::Usage(strict.filter(|strict| strict.kind() == error.kind()).unwrap_or(error))
    })?;
    command::run(program, &root, &given, arguments)
}
