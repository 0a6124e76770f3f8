//! What an agent shows to the principal.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use super::{Error, read};

/// The key of the user's name in the credentials of an `Authenticate` call.
pub const CLIENT_ID: &str = "clientid";
/// The key of the password.
pub const CLIENT_SECRET: &str = "clientsecret";

/// The agent's `--creds`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// Name and password, in a file with one line `user:password`.
    UserPass {
        /// The file.
        path: PathBuf,
    },
    /// The client certificate says it all.
    Mtls,
    /// A service mesh says it all.
    Header,
}

impl FromStr for Credentials {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (method, rest) = text.split_once(':').unwrap_or((text, ""));
        match method {
            "userpass" if rest.is_empty() => Err(Error::NoFile(text.into())),
            "userpass" => Ok(Self::UserPass { path: PathBuf::from(rest) }),
            "mtls" => Ok(Self::Mtls),
            "header" => Ok(Self::Header),
            _ => Err(Error::UnknownMethod(method.chars().take(40).collect())),
        }
    }
}

impl Credentials {
    /// The method's name on the wire.
    pub fn method(&self) -> &'static str {
        match self {
            Self::UserPass { .. } => "userpass",
            Self::Mtls => "mtls",
            Self::Header => "header",
        }
    }

    /// What an `Authenticate` call carries. The file is read each time, so that a new password is used at once.
    pub async fn load(&self) -> Result<BTreeMap<String, String>, Error> {
        let Self::UserPass { path } = self else {
            return Ok(BTreeMap::new());
        };
        let content = read(path).await?;
        let (user, password) = content
            .lines()
            .next()
            .map(|line| line.trim_end_matches('\r'))
            .and_then(|line| line.split_once(':'))
            .filter(|(user, _)| !user.is_empty())
            .ok_or_else(|| Error::BadCredentials { path: path.display().to_string() })?;
        Ok(BTreeMap::from([
            (CLIENT_ID.to_owned(), user.to_owned()),
            (CLIENT_SECRET.to_owned(), password.to_owned()),
        ]))
    }
}
