//! The ways in which an agent can prove who it is, as `--auth` names them.

use std::path::{Path, PathBuf};

use regex::Regex;
use tiphys_shared::process::options::{self, Problem};

/// How agents prove who they are.
#[derive(Debug, Clone)]
pub enum Authentication {
    /// By their client certificate.
    Mtls {
        /// The part of the certificate that holds the name.
        source: IdentitySource,
        /// The name is its first group; none takes the common name or the whole URI as it is.
        pattern: Option<Regex>,
    },
    /// By user and password.
    UserPass {
        /// File of `user:bcrypt` lines.
        file: PathBuf,
    },
    /// By a request header that a service mesh sets.
    Header {
        /// Name of the header, in lower case.
        name: String,
        /// The agent's name is its first group.
        pattern: Regex,
    },
}

/// The part of a client certificate that holds an agent's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentitySource {
    /// The subject.
    Subject,
    /// A URI among the alternative names.
    Uri,
}

const EXAMPLE: &str =
    "write --auth 'mtls:subject:CN=([^,]+)', --auth userpass:FILE or --auth 'header:NAME:REGEX'";

impl Authentication {
    /// Reads the value of `--auth`.
    pub(super) fn parse(text: Option<&str>, notices: &mut Vec<String>) -> Result<Self, Problem> {
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            return Err(Problem::new("--auth is missing: how agents prove who they are", EXAMPLE));
        };
        let Some((method, config)) = text.split_once(':') else {
            return Err(Problem::new(format!("--auth: {text:?} lacks what the method is to do"), EXAMPLE));
        };
        match method {
            "mtls" => mtls(config, notices),
            "userpass" => user_pass(config),
            "header" => header(config),
            other => Err(Problem::new(format!("--auth: there is no method {other:?}"), EXAMPLE)),
        }
    }

    /// A method that cannot work with the transport that was chosen.
    pub(super) fn check_pairing(&self, plaintext: bool) -> Option<Problem> {
        match (self, plaintext) {
            (Self::Mtls { .. }, true) => Some(Problem::new(
                "--auth mtls needs the client certificates that --insecure-plaintext leaves out",
                "leave out --insecure-plaintext, or use --auth 'header:NAME:REGEX' behind a service mesh",
            )),
            (Self::Header { .. }, false) => Some(Problem::new(
                "--auth header trusts a header that anybody could set over plain TLS",
                "add --insecure-plaintext behind a service mesh, or use --auth 'mtls:subject:CN=([^,]+)'",
            )),
            _ => None,
        }
    }
}

fn mtls(config: &str, notices: &mut Vec<String>) -> Result<Authentication, Problem> {
    let (source, pattern) = if let Some(pattern) = config.strip_prefix("subject:") {
        (IdentitySource::Subject, pattern)
    } else if let Some(pattern) = config.strip_prefix("uri:") {
        (IdentitySource::Uri, pattern)
    } else {
        notices
            .push("--auth mtls:REGEX is deprecated: write mtls:subject:REGEX or mtls:uri:REGEX".to_owned());
        (IdentitySource::Subject, config)
    };
    let pattern = if pattern.is_empty() { None } else { Some(with_group(pattern)?) };
    Ok(Authentication::Mtls { source, pattern })
}

fn user_pass(config: &str) -> Result<Authentication, Problem> {
    if config.is_empty() {
        return Err(Problem::new("--auth userpass: lacks the file of users", "write --auth userpass:FILE"));
    }
    let file = PathBuf::from(config);
    check_users(&file)?;
    Ok(Authentication::UserPass { file })
}

fn header(config: &str) -> Result<Authentication, Problem> {
    let (name, pattern) = config.split_once(':').unwrap_or((config, ""));
    let (name, pattern) = (name.trim().to_ascii_lowercase(), pattern.trim());
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(Problem::new(format!("--auth header: {name:?} is not the name of a header"), EXAMPLE));
    }
    if pattern.is_empty() {
        return Err(Problem::new(
            "--auth header: lacks the regular expression for the agent's name",
            EXAMPLE,
        ));
    }
    Ok(Authentication::Header { name, pattern: with_group(pattern)? })
}

fn with_group(pattern: &str) -> Result<Regex, Problem> {
    let regex = options::regex(pattern).map_err(|invalid| Problem::from(("--auth", invalid)))?;
    if regex.captures_len() < 2 {
        return Err(Problem::new(
            format!("--auth: {pattern:?} has no group for the agent's name"),
            "put the name in parentheses, as in CN=([^,]+)",
        ));
    }
    Ok(regex)
}

/// Checks a file of `user:bcrypt` lines without keeping anything of it.
///
/// # Errors
/// The first line that is not of this form, by its number: its content may be a password.
pub fn check_users(path: &Path) -> Result<(), Problem> {
    let text = options::read_text("--auth userpass", path)?;
    let mut users = 0;
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
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
