//! Where Argo CD's Redis is, as options describe it.

use std::path::Path;

use super::{HostPort, Problem, Problems, check_certificates, read_text};
use crate::redis::{Access, Login, Trust};
use crate::security::secret::Secret;

/// The port of a Redis whose address names none.
const PORT: u16 = 6379;
/// What is written where there is no Redis. An empty text means the default, as everywhere.
const NO_REDIS: &str = "none";

/// The options of one side, with the names that they have there.
#[derive(Clone, Copy, Debug)]
pub struct RedisOptions<'a> {
    /// The address; `none` means that there is no Redis.
    pub address: (&'a str, &'a str),
    /// The user.
    pub username: Option<&'a str>,
    /// The password.
    pub password: Option<&'a str>,
    /// A folder with the files `auth` and `auth_username`.
    pub folder: Option<&'a Path>,
    /// Is TLS spoken?
    pub tls: bool,
    /// Is any certificate taken?
    pub insecure: bool,
    /// A file with the CA.
    pub ca_path: (&'a str, Option<&'a Path>),
    /// A Secret with the CA, if there is no file.
    pub ca_secret: &'a str,
}

impl RedisOptions<'_> {
    /// Checks what can be checked without talking to anybody. Nothing comes of `none`; what is insecure is told in `notices`.
    ///
    /// # Errors
    /// Every mistake, each with its remedy.
    pub fn check(&self, notices: &mut Vec<String>) -> Result<Option<Access>, Problems> {
        let (name, address) = self.address;
        if address.is_empty() || address == NO_REDIS {
            return Ok(None);
        }
        let mut problems = Problems::default();
        let address = problems.keep(self.address().map_err(|what| {
            Problem::new(
                format!("{name}: {what}"),
                "write HOST:PORT, such as argocd-redis:6379, or none if there is no redis",
            )
        }));
        let login = problems.keep(self.login());
        let trust = problems.keep(self.trust());
        match (address, login, trust) {
            (Some(address), Some(login), Some(trust)) => {
                if trust == Some(Trust::Unverified) {
                    notices.push("INSECURE: not verifying the certificate of redis".to_owned());
                }
                Ok(Some(Access { address, login, trust }))
            }
            _ => Err(problems),
        }
    }

    fn address(&self) -> Result<HostPort, String> {
        let (_, address) = self.address;
        let (host, port) = match address.rsplit_once(':') {
            // What is left is one address of many colons.
            Some((host, _)) if host.contains(':') && !host.ends_with(']') => (address, Ok(PORT)),
            Some((host, port)) => (host, port.parse()),
            None => (address, Ok(PORT)),
        };
        let port = port.map_err(|_| format!("{address:?} does not end with a port"))?;
        HostPort::new(host, port).map_err(|invalid| invalid.what)
    }

    fn login(&self) -> Result<Login, Problem> {
        let filled = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let (username, password) = (filled(self.username), filled(self.password));
        let Some(folder) = self.folder.filter(|folder| !folder.as_os_str().is_empty()) else {
            return Ok(Login::Given { username, password: Secret::from(password) });
        };
        if !username.is_empty() || !password.is_empty() {
            return Err(Problem::new(
                "--redis-creds-dir-path is set together with a user or password of redis",
                "choose one: the folder, or --redis-password",
            ));
        }
        read_text("--redis-creds-dir-path", &folder.join("auth")).map(|_| Login::Folder(folder.to_owned()))
    }

    fn trust(&self) -> Result<Option<Trust>, Problem> {
        // Manifests name a CA also where TLS is not turned on; its file need not be there then.
        if !self.tls {
            return Ok(None);
        }
        let (name, path) = self.ca_path;
        match (path.filter(|path| !path.as_os_str().is_empty()), self.insecure) {
            (Some(_), true) => Err(Problem::new(
                format!("--redis-tls-insecure is set together with {name}"),
                "choose one: leave out --redis-tls-insecure to verify redis",
            )),
            (None, true) => Ok(Some(Trust::Unverified)),
            (Some(path), false) => {
                check_certificates(name, path).map(|()| Some(Trust::File(path.to_owned())))
            }
            (None, false) => Ok(Some(Trust::Secret(self.ca_secret.to_owned()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: RedisOptions<'_> = RedisOptions {
        address: ("--redis-addr", "argocd-redis:6379"),
        username: None,
        password: None,
        folder: None,
        tls: false,
        insecure: false,
        ca_path: ("--redis-tls-ca-path", None),
        ca_secret: "argocd-redis-tls",
    };

    fn whats(options: &RedisOptions<'_>) -> Vec<String> {
        options.check(&mut Vec::new()).unwrap_err().0.into_iter().map(|problem| problem.what).collect()
    }

    #[test]
    fn an_address_has_a_port_or_gets_one_and_none_means_no_redis() {
        let shown = |address| {
            let options = RedisOptions { address: ("--redis-addr", address), ..NOTHING };
            options.check(&mut Vec::new()).unwrap().map(|access| access.address.to_string())
        };
        assert_eq!(shown("none"), None);
        assert_eq!(shown("redis").as_deref(), Some("redis:6379"));
        assert_eq!(shown("10.0.0.1:1").as_deref(), Some("10.0.0.1:1"));
        assert_eq!(shown("[::1]:6380").as_deref(), Some("[::1]:6380"));
        assert_eq!(shown("fd00::1").as_deref(), Some("[fd00::1]:6379"));
        for bad in ["redis:", "redis:x", "redis://a:1", "a b:1", "a:0"] {
            let options = RedisOptions { address: ("--redis-addr", bad), ..NOTHING };
            assert!(whats(&options)[0].starts_with("--redis-addr: "), "{bad}");
        }
    }

    #[test]
    fn a_login_is_given_or_in_a_folder_and_a_password_is_not_shown() {
        let given = RedisOptions { username: Some("u"), password: Some("hunter2"), ..NOTHING };
        let access = given.check(&mut Vec::new()).unwrap().unwrap();
        assert!(!format!("{access:?}").contains("hunter2"));
        assert_eq!(access.login, Login::Given { username: "u".to_owned(), password: "hunter2".into() });

        let folder = tempfile::tempdir().unwrap();
        let there = RedisOptions { folder: Some(folder.path()), ..NOTHING };
        assert!(whats(&there)[0].contains("auth cannot be read"));
        std::fs::write(folder.path().join("auth"), "hunter2\n").unwrap();
        assert_eq!(
            there.check(&mut Vec::new()).unwrap().unwrap().login,
            Login::Folder(folder.path().to_owned())
        );
        let both = RedisOptions { folder: Some(folder.path()), ..given };
        assert_eq!(whats(&both), ["--redis-creds-dir-path is set together with a user or password of redis"]);
    }

    #[test]
    fn a_ca_only_matters_with_tls() {
        let missing = ("--redis-tls-ca-path", Some(Path::new("/no/such")));
        let off = RedisOptions { ca_path: missing, insecure: true, ..NOTHING };
        assert_eq!(off.check(&mut Vec::new()).unwrap().unwrap().trust, None);
        let on = RedisOptions { tls: true, ..off };
        assert_eq!(whats(&on), ["--redis-tls-insecure is set together with --redis-tls-ca-path"]);
        let checked = RedisOptions { insecure: false, ..on };
        assert!(whats(&checked)[0].contains("/no/such cannot be read"));
        let secret = RedisOptions { tls: true, ..NOTHING };
        assert_eq!(
            secret.check(&mut Vec::new()).unwrap().unwrap().trust,
            Some(Trust::Secret("argocd-redis-tls".to_owned()))
        );
    }
}
