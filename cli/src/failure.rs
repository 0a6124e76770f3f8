//! What went wrong, said so that the reader can act on it, and the exit code that goes with it.

use std::error::Error;
use std::process::ExitCode;

use tiphys_shared::process::options::{Problem, Problems};

use crate::output;

/// Why a command ends without having done its work.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line is not one (or it asks for help).
    Usage(clap::Error),
    /// Options are wrong, each with its remedy.
    Options(Problems),
    /// What the options point to is not there or not right, each with its remedy.
    Setup(Problems),
    /// Nobody reads the output any more.
    Unheard,
    /// The work could not be done.
    Work {
        /// What failed and why.
        what: String,
        /// What to do about it.
        remedy: Option<String>,
        /// 1, or 2 when the command line is to blame.
        code: u8,
    },
}

impl Failure {
    /// The work could not be done.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self::Work { what: what.into(), remedy: None, code: 1 }
    }

    /// Somebody did not want to wait for the end.
    pub(crate) fn interrupted() -> Self {
        Self::Work { what: "stopped before everything had ended".to_owned(), remedy: None, code: 130 }
    }

    /// The command line is to blame.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::Work { what: what.into(), remedy: None, code: 2 }
    }

    /// The work could not be done, because of `error` and what caused it.
    pub(crate) fn because(what: &str, error: &(dyn Error + 'static)) -> Self {
        Self::Work { what: format!("{what}: {}", story(error)), remedy: remedy_for(error), code: 1 }
    }

    /// Adds what to do about it.
    pub(crate) fn remedy(mut self, text: impl Into<String>) -> Self {
        if let Self::Work { remedy, .. } = &mut self {
            *remedy = Some(text.into());
        }
        self
    }

    /// Adds what had been done before.
    pub(crate) fn after(mut self, done: &str) -> Self {
        if let Self::Work { what, .. } = &mut self {
            *what = format!("{what} (before that, {done})");
        }
        self
    }

    /// What failed and why, for whoever goes on all the same.
    pub(crate) fn what(&self) -> String {
        match self {
            Self::Usage(error) => error.to_string(),
            Self::Options(problems) | Self::Setup(problems) => problems.to_string(),
            Self::Unheard => "nobody reads the output".to_owned(),
            Self::Work { what, .. } => what.clone(),
        }
    }

    /// Tells the user, and returns the exit code.
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Self::Usage(error) => {
                // Help goes to stdout, complaints to stderr; clap knows which is which, and the code for it.
                if error.print().is_err() {
                    return ExitCode::FAILURE;
                }
                ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
            }
            Self::Options(problems) => {
                complain(&problems.to_string());
                ExitCode::from(2)
            }
            Self::Unheard => ExitCode::FAILURE,
            Self::Setup(problems) => {
                complain(&problems.to_string());
                ExitCode::FAILURE
            }
            Self::Work { what, remedy, code } => {
                complain(&match remedy {
                    Some(remedy) => Problem::new(what, remedy).to_string(),
                    None => what,
                });
                ExitCode::from(code)
            }
        }
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::Options(problems)
    }
}

fn complain(text: &str) {
    if output::colours_on_stderr() {
        output::say(&format!("\u{1b}[1;31merror:\u{1b}[0m {text}"));
    } else {
        output::say(&format!("error: {text}"));
    }
}

/// An error and its causes in one line, without what a cause repeats.
fn story(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in causes(error).skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| Error::source(*error))
}

/// What helps against causes that are the same everywhere.
fn remedy_for(error: &(dyn Error + 'static)) -> Option<String> {
    causes(error).find_map(|cause| {
        if let Some(problem) = cause.downcast_ref::<Problem>() {
            return Some(problem.remedy.clone());
        }
        if let Some(error) = cause.downcast_ref::<kube::Error>() {
            return remedy_for_api(error).map(str::to_owned);
        }
        let error = cause.downcast_ref::<std::io::Error>()?;
        if error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) {
            return Some("allow more open files with ulimit -n, or start less at once".to_owned());
        }
        let remedy = match error.kind() {
            std::io::ErrorKind::AddrInUse => "stop what uses the port, or choose another port",
            std::io::ErrorKind::AddrNotAvailable => "name an address of this machine, or leave the host out",
            std::io::ErrorKind::PermissionDenied => "check the permissions, or choose a port above 1023",
            std::io::ErrorKind::ConnectionRefused => {
                "check that the address is right and that somebody listens there"
            }
            _ => return None,
        };
        Some(remedy.to_owned())
    })
}

fn remedy_for_api(error: &kube::Error) -> Option<&'static str> {
    match error {
        kube::Error::Api(status) => match status.code {
            401 => Some("check the credentials in the kubeconfig, or the pod's service account"),
            403 => Some("grant the missing permission with a Role and a RoleBinding"),
            409 => Some("somebody else changed it at the same time: try again"),
            404 => Some("create what is missing, or correct its name and --namespace"),
            _ => None,
        },
        kube::Error::HyperError(_) | kube::Error::Service(_) => {
            Some("check that the API server in the kubeconfig is up and that its CA is the right one")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot listen on [::]:8443")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn the_causes_are_told_once_and_the_last_one_brings_the_remedy() {
        let error = Outer(std::io::Error::from(std::io::ErrorKind::AddrInUse));
        let Failure::Work { what, remedy, code } = Failure::because("principal cannot start", &error) else {
            panic!("not work");
        };
        assert_eq!(what, "principal cannot start: cannot listen on [::]:8443: address in use");
        assert_eq!(remedy.as_deref(), Some("stop what uses the port, or choose another port"));
        assert_eq!(code, 1);
    }
}
