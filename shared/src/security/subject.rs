//! How an agent is recognised: the rule of `--auth`, and the name that it finds.

use std::path::PathBuf;

use http::HeaderMap;
use regex::Regex;

use super::pki::Certificate;
use crate::model::agent::{AgentName, InvalidName};

/// Where in a certificate the agent's name is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The subject, as Go prints it.
    Subject,
    /// The URI names.
    Uri,
}

/// How agents prove who they are.
#[derive(Clone, Debug)]
pub enum AuthRule {
    /// By a client certificate; the name is the first group of `pattern`.
    Mtls {
        /// Where in the certificate.
        source: Source,
        /// What to look for.
        pattern: Regex,
    },
    /// By name and password, kept as bcrypt hashes in a file.
    UserPass {
        /// The file.
        path: PathBuf,
    },
    /// By a header that a service mesh sets; the name is the first group of `pattern`.
    Header {
        /// The header's name.
        name: http::HeaderName,
        /// What to look for.
        pattern: Regex,
    },
}

/// Why a rule cannot be used, or a name cannot be found by it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rule does not begin with a method.
    #[error(
        "authentication rule {0:?} has no known method: expected mtls:subject:REGEX (for example \
         mtls:subject:CN=([^,]+)), mtls:uri:REGEX, userpass:FILE or header:NAME:REGEX"
    )]
    UnknownMethod(String),
    /// Nothing stands after the method.
    #[error("authentication rule {rule:?} ends too early: expected {expected}")]
    Incomplete {
        /// As it was given.
        rule: String,
        /// What is missing.
        expected: &'static str,
    },
    /// The regular expression is wrong.
    #[error("regular expression {pattern:?} is wrong: {reason}")]
    BadPattern {
        /// As it was given.
        pattern: String,
        /// What the parser said.
        reason: String,
    },
    /// The regular expression finds nothing to take the name from.
    #[error(
        "regular expression {0:?} has no group: put the part that is the agent's name in parentheses, as in CN=([^,]+)"
    )]
    NoGroup(String),
    /// The header cannot exist.
    #[error("{0:?} is not a header name")]
    BadHeader(String),
    /// There is no certificate.
    #[error("no client certificate was presented")]
    NoCertificate,
    /// The certificate has no URI names.
    #[error("client certificate {0:?} has no uri names")]
    NoUri(String),
    /// The certificate does not match.
    #[error("client certificate {0:?} does not match the authentication rule")]
    NoMatch(String),
    /// The header is not there.
    #[error("header {0} is missing")]
    NoHeader(String),
    /// The header does not match.
    #[error("header {0} does not match the authentication rule")]
    HeaderNoMatch(String),
    /// The header is there more than once, so that nobody knows which one the mesh has set.
    #[error("header {0} is there more than once")]
    SeveralHeaders(String),
    /// What was found cannot be an agent's name.
    #[error(transparent)]
    BadName(#[from] InvalidName),
    /// Certificates, passwords and headers were mixed up.
    #[error("authentication by {0} does not look at this")]
    WrongMethod(&'static str),
}

impl AuthRule {
    /// Reads a rule: `mtls:REGEX`, `mtls:subject:REGEX`, `mtls:uri:REGEX`, `userpass:FILE` or `header:NAME:REGEX`.
    pub fn parse(rule: &str) -> Result<Self, Error> {
        let unknown = || Error::UnknownMethod(rule.chars().take(80).collect());
        let (method, rest) = rule.split_once(':').ok_or_else(unknown)?;
        let incomplete = |expected| Error::Incomplete { rule: rule.into(), expected };
        match method {
            "mtls" => {
                let (source, text) = match rest.split_once(':') {
                    Some(("subject", text)) => (Source::Subject, text),
                    Some(("uri", text)) => (Source::Uri, text),
                    _ => (Source::Subject, rest),
                };
                if text.is_empty() {
                    return Err(incomplete("a regular expression, as in mtls:subject:CN=([^,]+)"));
                }
                Ok(Self::Mtls { source, pattern: pattern(text)? })
            }
            "userpass" if rest.is_empty() => Err(incomplete("the path of a file with user:bcrypt lines")),
            "userpass" => Ok(Self::UserPass { path: PathBuf::from(rest) }),
            "header" => {
                let (name, text) = rest
                    .split_once(':')
                    .map(|(name, text)| (name.trim(), text.trim()))
                    .filter(|(name, text)| !name.is_empty() && !text.is_empty())
                    .ok_or_else(|| {
                        incomplete("a header and a regular expression, as in header:x-client-id:^(.+)$")
                    })?;
                let name = name
                    .to_ascii_lowercase()
                    .parse::<http::HeaderName>()
                    .map_err(|_| Error::BadHeader(name.chars().take(80).collect()))?;
                Ok(Self::Header { name, pattern: pattern(text)? })
            }
            _ => Err(unknown()),
        }
    }

    /// The method's name on the wire.
    pub fn method(&self) -> &'static str {
        match self {
            Self::Mtls { .. } => "mtls",
            Self::UserPass { .. } => "userpass",
            Self::Header { .. } => "header",
        }
    }

    /// The name in a client's certificate.
    pub fn name_in_certificate(&self, certificate: Option<&Certificate>) -> Result<AgentName, Error> {
        let Self::Mtls { source, pattern } = self else {
            return Err(Error::WrongMethod(self.method()));
        };
        let certificate = certificate.ok_or(Error::NoCertificate)?;
        let found = match source {
            Source::Subject => first_group(pattern, &certificate.subject),
            Source::Uri if certificate.uris.is_empty() => {
                return Err(Error::NoUri(certificate.subject.clone()));
            }
            Source::Uri => certificate.uris.iter().find_map(|uri| first_group(pattern, uri)),
        };
        let name = found.ok_or_else(|| Error::NoMatch(certificate.subject.clone()))?;
        Ok(AgentName::new(name)?)
    }

    /// The name in a header. One that is there twice is refused: a client may have sent its own before the mesh did.
    pub fn name_in_headers(&self, headers: &HeaderMap) -> Result<AgentName, Error> {
        let Self::Header { name, pattern } = self else {
            return Err(Error::WrongMethod(self.method()));
        };
        let mut values = headers.get_all(name).iter();
        let value = values.next().ok_or_else(|| Error::NoHeader(name.to_string()))?;
        if values.next().is_some() {
            return Err(Error::SeveralHeaders(name.to_string()));
        }
        let found = value.to_str().ok().and_then(|text| first_group(pattern, text));
        Ok(AgentName::new(found.ok_or_else(|| Error::HeaderNoMatch(name.to_string()))?)?)
    }
}

fn pattern(text: &str) -> Result<Regex, Error> {
    let regex = Regex::new(text)
        .map_err(|e| Error::BadPattern { pattern: text.into(), reason: last_line(&e.to_string()) })?;
    if regex.captures_len() < 2 { Err(Error::NoGroup(text.into())) } else { Ok(regex) }
}

// The parser draws a picture over several lines; its last line says what is wrong.
fn last_line(text: &str) -> String {
    text.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned()
}

fn first_group<'a>(pattern: &Regex, text: &'a str) -> Option<&'a str> {
    pattern.captures(text)?.get(1).map(|group| group.as_str()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests;
