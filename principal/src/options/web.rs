//! Where the page about the fleet is served, and who may look.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use tiphys_shared::process::options::{Listen, Problem, Problems};
use tiphys_shared::security::tls::{Alpn, ClientCertificate, Policy};

use super::Transport;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Web page")]
pub(super) struct WebOptions {
    /// Port of the page about the fleet; 0 turns it off
    #[arg(long, env = "TIPHYS_PRINCIPAL_WEB_PORT", value_name = "PORT", default_value_t = 0)]
    pub(super) web_port: u16,
    /// Name or address of the interface of the page; other than on loopback it is served with the principal's certificate
    #[arg(long, env = "TIPHYS_PRINCIPAL_WEB_HOST", value_name = "HOST", default_value = "127.0.0.1")]
    web_host: String,
    /// Who may look: with a token of the API server, with a password, or everybody, which is for loopback only
    #[arg(long, env = "TIPHYS_PRINCIPAL_WEB_AUTH", value_name = "HOW", default_value = "kubernetes")]
    web_auth: How,
    /// File with lines of user:bcrypt, as htpasswd -B writes it, for --web-auth password
    #[arg(long, env = "TIPHYS_PRINCIPAL_WEB_PASSWORDS", value_name = "FILE")]
    web_passwords: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum How {
    /// A bearer token of the control plane's API server, whose owner may get /tiphys/fleet
    Kubernetes,
    /// A user and a password
    Password,
    /// Nothing
    None,
}

/// How the page is served.
#[derive(Debug, Clone)]
pub struct WebSettings {
    /// Where it listens.
    pub listen: Listen,
    /// What TLS insists on; plaintext without it.
    pub policy: Option<Policy>,
    /// Who may look.
    pub viewers: Viewers,
}

/// Who may look at the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Viewers {
    /// Whoever the API server says may.
    Kubernetes,
    /// Whoever is in this file.
    Passwords(PathBuf),
    /// Everybody on this host.
    Everybody,
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

impl WebOptions {
    /// The settings, if there is to be a page; `transport` is that of the agents' port.
    pub(super) fn check(&self, transport: Option<&Transport>) -> Result<Option<WebSettings>, Problems> {
        if self.web_port == 0 {
            return Ok(None);
        }
        let local = is_loopback(&self.web_host);
        let viewers = match (self.web_auth, &self.web_passwords) {
            (How::Kubernetes, None) => Viewers::Kubernetes,
            (How::Password, Some(file)) => Viewers::Passwords(file.clone()),
            (How::Password, None) => {
                return Err(Problem::new(
                    "--web-auth password has no passwords",
                    "name the file with --web-passwords; `htpasswd -B -c FILE USER` makes one",
                )
                .into());
            }
            (How::None, None) if local => Viewers::Everybody,
            (How::None, None) => {
                return Err(Problem::new(
                    format!(
                        "--web-auth none would show the fleet to everybody who reaches {}",
                        self.web_host
                    ),
                    "leave out --web-host and forward the port, or choose --web-auth kubernetes or password",
                )
                .into());
            }
            (How::Kubernetes | How::None, Some(_)) => {
                return Err(Problem::new(
                    "--web-passwords is set, and nobody is asked for a password",
                    "set --web-auth password, or leave out --web-passwords",
                )
                .into());
            }
        };
        let policy = match transport {
            _ if local => None,
            Some(Transport::Tls { policy, .. }) => Some(Policy {
                client_certificate: ClientCertificate::None,
                alpn: Alpn::Http1,
                ..policy.clone()
            }),
            // Passwords and tokens would cross the network for everybody to read.
            Some(Transport::Plaintext) => {
                return Err(Problem::new(
                    format!("the page would be served at {} without TLS", self.web_host),
                    "leave out --web-host and forward the port, or leave out --insecure-plaintext",
                )
                .into());
            }
            None => None,
        };
        let listen = Listen { host: Some(self.web_host.clone()), port: self.web_port };
        Ok(Some(WebSettings { listen, policy, viewers }))
    }
}

#[cfg(test)]
mod tests {
    use clap::{Command, FromArgMatches as _};

    use super::*;

    fn check(line: &[&str], transport: &Transport) -> Result<Option<WebSettings>, String> {
        let command = WebOptions::augment_args(Command::new("x").no_binary_name(true));
        let matches = command.try_get_matches_from(line).unwrap();
        let options = WebOptions::from_arg_matches(&matches).unwrap();
        options.check(Some(transport)).map_err(|problems| problems.0[0].what.clone())
    }

    fn tls() -> Transport {
        Transport::Tls {
            identity: super::super::Identity::Generated,
            roots: super::super::Roots::Secret("ca".to_owned()),
            policy: Policy::mutual(),
        }
    }

    #[test]
    fn it_is_off_at_first_and_on_loopback_when_it_is_on() {
        assert!(check(&[], &tls()).unwrap().is_none());
        let settings = check(&["--web-port=8080"], &tls()).unwrap().unwrap();
        assert_eq!(settings.listen.to_string(), "127.0.0.1:8080");
        assert!(settings.policy.is_none());
        assert_eq!(settings.viewers, Viewers::Kubernetes);
    }

    #[test]
    fn who_comes_over_the_network_meets_tls_without_a_certificate_of_his_own() {
        let settings = check(&["--web-port=1", "--web-host=0.0.0.0"], &tls()).unwrap().unwrap();
        let policy = settings.policy.unwrap();
        assert_eq!((policy.client_certificate, policy.alpn), (ClientCertificate::None, Alpn::Http1));
    }

    #[test]
    fn nothing_is_shown_to_everybody_and_no_secret_crosses_the_network_in_the_open() {
        for host in ["0.0.0.0", "::", "10.0.0.1", "principal.example.com", "::ffff:10.0.0.1"] {
            let host = format!("--web-host={host}");
            check(&["--web-port=1", &host, "--web-auth=none"], &tls()).unwrap_err();
            check(&["--web-port=1", &host], &Transport::Plaintext).unwrap_err();
        }
        for host in ["127.0.0.1", "::1", "localhost", "127.8.0.1"] {
            let host = format!("--web-host={host}");
            let settings = check(&["--web-port=1", &host, "--web-auth=none"], &Transport::Plaintext);
            assert_eq!(settings.unwrap().unwrap().viewers, Viewers::Everybody);
        }
    }

    #[test]
    fn passwords_without_a_file_and_a_file_without_passwords_are_mistakes() {
        check(&["--web-port=1", "--web-auth=password"], &tls()).unwrap_err();
        check(&["--web-port=1", "--web-passwords=users"], &tls()).unwrap_err();
        let both = check(&["--web-port=1", "--web-auth=password", "--web-passwords=users"], &tls());
        assert_eq!(both.unwrap().unwrap().viewers, Viewers::Passwords("users".into()));
    }
}
