//! Asking before something is destroyed.

use std::io::{self, BufRead as _, IsTerminal as _};

use clap::{ArgAction, Args};

use crate::failure::Failure;
use crate::output;

/// The flag that answers beforehand.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Consent {
    /// Do not ask
    #[arg(long, short = 'y', action = ArgAction::Set, default_value = "false")]
    pub(crate) yes: bool,
}

impl Consent {
    /// Lets the work go on if the user wants it. `what` names what is lost. Whoever interrupts it need not answer.
    pub(crate) async fn obtain(self, what: &str) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            return Err(Failure::usage(format!("{what}, and there is no terminal to ask at"))
                .remedy("give --yes if that is what you want"));
        }
        output::say(&format!("{what}. Type yes to go on:"));
        let read = tokio::task::spawn_blocking(|| io::stdin().lock().lines().next().transpose()).await;
        let read = read.map_err(|error| Failure::because("cannot read the answer", &error))?;
        let answer =
            read.map_err(|error| Failure::because("cannot read the answer", &error))?.unwrap_or_default();
        if matches!(answer.trim().to_ascii_lowercase().as_str(), "yes" | "y") {
            Ok(())
        } else {
            Err(Failure::new("nothing was changed, because the answer was not yes"))
        }
    }
}
