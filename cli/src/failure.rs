//! What went wrong, said so that the reader can act on it, and the exit code that goes with it.

use std::error::Error;
use std::process::ExitCode;

use kube::core::Status;
use tiphys_shared::kube::client;
use tiphys_shared::process::options::{Problem, Problems};
use tiphys_shared::security::pki;

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
        // Names that are certified here come from the command line.
        let code = if names_nobody(error) { 2 } else { 1 };
        Self::Work { what: format!("{what}: {}", story(error)), remedy: remedy_for(error), code }
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
    let mark = if output::colours_on_stderr() { "\u{1b}[1;31merror:\u{1b}[0m " } else { "error: " };
    output::tell(mark, text);
}

/// An error and its causes in one line, without what a cause repeats.
pub(crate) fn story(error: &(dyn Error + 'static)) -> String {
    let mut text = told(error);
    for cause in causes(error).skip(1) {
        let (written, cause) = (cause.to_string(), told(cause));
        if text.contains(&written) {
            text = text.replace(&written, &cause);
        } else if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// What an error says itself: of an API server's refusal the message, which `kube` puts between the parts of a `Status`.
fn told(error: &(dyn Error + 'static)) -> String {
    let Some(status) = refusal(error) else { return error.to_string() };
    output::visible(&client::answered(status)).into_owned()
}

/// What an API server has answered. Errors keep it in boxes, which are types of their own.
fn refusal<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Status> {
    match api_error(error) {
        Some(kube::Error::Api(status)) => Some(status),
        Some(_) => None,
        None => {
            error.downcast_ref::<Status>().or_else(|| error.downcast_ref::<Box<Status>>().map(AsRef::as_ref))
        }
    }
}

fn api_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a kube::Error> {
    error
        .downcast_ref::<kube::Error>()
        .or_else(|| error.downcast_ref::<Box<kube::Error>>().map(AsRef::as_ref))
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| Error::source(*error))
}

/// Whether a name was given for a certificate that is none.
fn names_nobody(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| matches!(cause.downcast_ref(), Some(pki::Error::BadName { .. })))
}

/// What helps against causes that are the same everywhere.
fn remedy_for(error: &(dyn Error + 'static)) -> Option<String> {
    if names_nobody(error) {
        return Some("write DNS names such as principal.example.com, and IP addresses".to_owned());
    }
    causes(error).find_map(|cause| {
        if let Some(problem) = cause.downcast_ref::<Problem>() {
            return Some(problem.remedy.clone());
        }
        if let Some(error) = api_error(cause) {
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
            400 => Some("correct what the message names: the API server does not understand it"),
            401 => Some("check the credentials in the kubeconfig, or the pod's service account"),
            403 => Some("grant the missing permission with a Role and a RoleBinding"),
            409 => Some("somebody else changed it at the same time: try again"),
            404 => Some("create what is missing, or correct its name and its namespace"),
            422 => Some("correct what the message names: the API server does not take it so"),
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

    #[derive(Debug, thiserror::Error)]
    #[error("cannot write Secret argocd/a: {source}")]
    struct Boxed {
        source: Box<kube::Error>,
    }

    #[test]
    fn an_api_server_is_quoted_with_its_message_alone_however_deep_it_stands() {
        let refused = |code| {
            let status = Status::failure("secrets is forbidden\u{1b}[31m", "Forbidden").with_code(code);
            Boxed { source: Box::new(kube::Error::Api(status.boxed())) }
        };
        for (code, remedy) in [(400, "correct"), (403, "grant"), (404, "create"), (422, "correct")] {
            let error = refused(code);
            let written = "cannot write Secret argocd/a: secrets is forbidden\\u{1b}[31m";
            assert_eq!(story(&error), written);
            let Failure::Work { what, remedy: given, .. } = Failure::because("cannot join", &error) else {
                panic!("not work");
            };
            assert_eq!(what, format!("cannot join: {written}"));
            assert!(given.is_some_and(|given| given.starts_with(remedy)), "{code}");
            assert_eq!(story(&*error.source), "secrets is forbidden\\u{1b}[31m");
        }
        let bare = kube::Error::Api(Status::failure("", "").with_code(502).boxed());
        assert_eq!(story(&bare), "the API server answered 502");
    }
}
