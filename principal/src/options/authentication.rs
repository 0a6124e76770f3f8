//! The ways in which an agent can prove who it is, as `--auth` names them.

use std::path::Path;

use tiphys_shared::process::options::{self, Problem};
use tiphys_shared::security::subject::{AuthRule, Error};

const EXAMPLE: &str =
    "write --auth 'mtls:subject:CN=([^,]+)', --auth userpass:FILE or --auth 'header:NAME:REGEX'";

/// Reads the value of `--auth`.
pub(super) fn parse(text: Option<&str>, notices: &mut Vec<String>) -> Result<AuthRule, Problem> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Err(Problem::new("--auth is missing: how agents prove who they are", EXAMPLE));
    };
    let rule = AuthRule::parse(text).map_err(|error| problem(&error))?;
    match &rule {
        AuthRule::UserPass { path } => check_users(path)?,
        AuthRule::Mtls { .. } if !text.starts_with("mtls:subject:") && !text.starts_with("mtls:uri:") => {
            notices.push(
                "--auth mtls:REGEX is deprecated: write mtls:subject:REGEX or mtls:uri:REGEX".to_owned(),
            );
        }
        _ => {}
    }
    Ok(rule)
}

fn problem(error: &Error) -> Problem {
    let remedy = match error {
        Error::BadPattern { .. } => "correct the expression, and quote it so that the shell leaves it alone",
        Error::NoGroup(_) => "put the part that is the name in parentheses, as in CN=([^,]+)",
        _ => EXAMPLE,
    };
    let what = match error {
        Error::UnknownMethod(text) => format!("{text:?} does not begin with a known method and a colon"),
        Error::Incomplete { rule, expected } => format!("{rule:?} ends too early, it lacks {expected}"),
        Error::NoGroup(pattern) => format!("{pattern:?} has no group for the agent's name"),
        other => other.to_string(),
    };
    Problem::new(format!("--auth: {what}"), remedy)
}

/// A method that cannot work with the transport that was chosen.
pub(super) fn check_pairing(rule: &AuthRule, plaintext: bool) -> Option<Problem> {
    match (rule, plaintext) {
        (AuthRule::Mtls { .. }, true) => Some(Problem::new(
            "--auth mtls needs the client certificates that --insecure-plaintext leaves out",
            "leave out --insecure-plaintext, or use --auth 'header:NAME:REGEX' behind a service mesh",
        )),
        (AuthRule::Header { .. }, false) => Some(Problem::new(
            "--auth header trusts a header that anybody could set over plain TLS",
            "add --insecure-plaintext behind a service mesh, or use --auth 'mtls:subject:CN=([^,]+)'",
        )),
        _ => None,
    }
}

/// Checks a file of `user:bcrypt` lines. A bad line is named by its number: its content may be a password.
fn check_users(path: &Path) -> Result<(), Problem> {
    let text = options::read_text("--auth userpass", path)?;
    let mut users = 0;
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let hash = line.split_once(':').map(|(_, hash)| hash.trim());
        if !hash.is_some_and(|hash| hash.starts_with("$2") && hash.len() == 60) {
            return Err(Problem::new(
                format!("--auth userpass: line {} of {} is not user:bcrypt", index + 1, path.display()),
                "make each line with: htpasswd -nB USER",
            ));
        }
        users += 1;
    }
    if users == 0 {
        return Err(Problem::new(
            format!("--auth userpass: {} holds no user", path.display()),
            "add a line per agent with: htpasswd -nB AGENT",
        ));
    }
    Ok(())
}
