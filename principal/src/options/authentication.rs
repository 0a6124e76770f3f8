//! The ways in which an agent can prove who it is, as `--auth` names them, and what signs its tokens then.

use std::path::{Path, PathBuf};

use clap::{ArgAction, Args};
use tiphys_shared::process::options::{self, Problem};
use tiphys_shared::security::subject::{AuthRule, Error};

const EXAMPLE: &str =
    "write --auth 'mtls:subject:CN=([^,]+)', --auth userpass:FILE or --auth 'header:NAME:REGEX'";

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Authentication of agents")]
pub(super) struct AuthenticationOptions {
    /// How agents prove who they are
    ///
    /// mtls:subject:REGEX takes the name from the first group of REGEX on the certificate's subject, mtls:uri:REGEX
    /// from a URI in it; userpass:FILE checks user:bcrypt lines (htpasswd -B); header:NAME:REGEX trusts a header that
    /// a service mesh sets. Example: --auth 'mtls:subject:CN=([^,]+)'
    #[arg(long, env = "ARGOCD_PRINCIPAL_AUTH", value_name = "METHOD:CONFIG")]
    pub(super) auth: Option<String>,
    /// Secret with the private key that signs tokens
    #[arg(
        long,
        env = "ARGOCD_PRINCIPAL_JWT_SECRET_NAME",
        value_name = "NAME",
        default_value = "argocd-agent-jwt"
    )]
    jwt_secret_name: String,
    /// File with the private key that signs tokens, instead of the Secret
    #[arg(long, env = "ARGOCD_PRINCIPAL_JWT_KEY_PATH", value_name = "FILE")]
    jwt_key: Option<PathBuf>,
    /// INSECURE: make the key that signs tokens at every start; agents log in again after each restart
    #[arg(long, env = "ARGOCD_PRINCIPAL_JWT_ALLOW_GENERATE", action = ArgAction::Set, default_value = "false")]
    insecure_jwt_generate: bool,
}

/// Where the key that signs tokens comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenKey {
    /// From a PEM file.
    File(PathBuf),
    /// From a Secret.
    Secret(String),
    /// It is made at start.
    Generated,
}

impl AuthenticationOptions {
    pub(super) fn token_key(&self, notices: &mut Vec<String>) -> Result<TokenKey, Problem> {
        match (&self.jwt_key, self.insecure_jwt_generate) {
            (Some(_), true) => Err(Problem::new(
                "--jwt-key and --insecure-jwt-generate are both set",
                "choose one: a key that is kept, or a generated one for a trial",
            )),
            (Some(path), false) => {
                options::check_private_key("--jwt-key", path).map(|()| TokenKey::File(path.clone()))
            }
            (None, true) => {
                notices.push(
                    "INSECURE: signing tokens with a generated key; it is lost at every restart".to_owned(),
                );
                Ok(TokenKey::Generated)
            }
            (None, false) => Ok(TokenKey::Secret(self.jwt_secret_name.clone())),
        }
    }
}

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
