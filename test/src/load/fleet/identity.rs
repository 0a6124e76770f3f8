//! Who the agents are: names, certificates, passwords.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use jiff::Timestamp;
use tiphys_shared::model::agent::AgentName;
use tiphys_shared::security::passwords::{CLIENT_ID, CLIENT_SECRET};
use tiphys_shared::security::pki::Ca;
use tiphys_shared::security::tls::{ClientTls, Material, Policy};

/// How long a certificate that is made for a run is good.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// How they log in.
#[derive(Clone)]
pub enum Login {
    /// By certificates made with this CA.
    Mtls(Arc<Ca>),
    /// By a password that they all have.
    UserPass(String),
    /// By a header with their name, as a mesh in between would set it.
    Header(String),
}

/// How they know the principal.
#[derive(Clone)]
pub enum Authority {
    /// Not at all: plaintext.
    Plaintext,
    /// By certificates of these CAs, in PEM.
    Ca(Vec<u8>),
    /// Whoever answers is believed.
    Insecure,
}

/// Who they are.
pub struct Identities {
    prefix: String,
    login: Login,
    authority: Authority,
    materials: Vec<Material>,
    /// Where all present the same certificate, or none, they share one configuration.
    common: Option<ClientTls>,
}

/// Who one of them is.
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) method: &'static str,
    pub(super) credentials: BTreeMap<String, String>,
    /// A header whose value is the name.
    pub(super) header: Option<String>,
    pub(super) tls: Option<ClientTls>,
}

impl Identities {
    /// Makes certificates for `count` agents, where certificates are what they log in by. This takes processor time.
    pub fn new(prefix: &str, count: usize, login: Login, authority: Authority) -> anyhow::Result<Self> {
        let last = format!("{prefix}{}", count.saturating_sub(1));
        AgentName::new(last.as_str())
            .with_context(|| format!("the prefix {prefix:?} makes no names of agents"))?;
        let materials = match &login {
            Login::Mtls(ca) => issue(ca, prefix, count)?,
            Login::UserPass(_) | Login::Header(_) => Vec::new(),
        };
        let common = match (&authority, materials.is_empty()) {
            (Authority::Plaintext, _) | (_, false) => None,
            (Authority::Ca(pem), true) => {
                Some(ClientTls::new(&Material::ca_only(pem.clone()), policy()?, false)?)
            }
            (Authority::Insecure, true) => Some(ClientTls::new(&Material::default(), policy()?, true)?),
        };
        Ok(Self { prefix: prefix.into(), login, authority, materials, common })
    }

    pub(super) fn get(&self, index: usize) -> anyhow::Result<Identity> {
        let name = format!("{}{index}", self.prefix);
        let (method, credentials) = match &self.login {
            Login::Mtls(_) => ("mtls", BTreeMap::new()),
            Login::Header(_) => ("header", BTreeMap::new()),
            Login::UserPass(password) => (
                "userpass",
                BTreeMap::from([
                    (CLIENT_ID.to_owned(), name.clone()),
                    (CLIENT_SECRET.to_owned(), password.clone()),
                ]),
            ),
        };
        let tls = match (&self.authority, self.materials.get(index)) {
            (Authority::Plaintext, _) => None,
            (_, None) => self.common.clone(),
            (Authority::Insecure, Some(material)) => Some(ClientTls::new(material, policy()?, true)?),
            (Authority::Ca(pem), Some(material)) => {
                let material = Material { ca: pem.clone(), ..material.clone() };
                Some(ClientTls::new(&material, policy()?, false)?)
            }
        };
        let header = match &self.login {
            Login::Header(header) => Some(header.clone()),
            Login::Mtls(_) | Login::UserPass(_) => None,
        };
        Ok(Identity { name, method, credentials, header, tls })
    }
}

/// TLS 1.2 too: an old principal is to be measured, not judged.
fn policy() -> anyhow::Result<Policy> {
    Ok(Policy { min_version: "tls1.2".parse()?, ..Policy::default() })
}

/// On all processors: a signature each.
fn issue(ca: &Arc<Ca>, prefix: &str, count: usize) -> anyhow::Result<Vec<Material>> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let per_worker = count.div_ceil(workers).max(1);
    let now = Timestamp::now();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..count)
            .step_by(per_worker)
            .map(|from| {
                let to = (from + per_worker).min(count);
                scope.spawn(move || {
                    (from..to)
                        .map(|index| ca.issue_client::<&str>(&format!("{prefix}{index}"), &[], now, LIFETIME))
                        .collect::<Result<Vec<_>, _>>()
                })
            })
            .collect();
        let mut materials = Vec::with_capacity(count);
        for worker in workers {
            let made = worker.join().map_err(|_| anyhow!("making certificates failed"))?;
            materials.extend(made.context("cannot make a client certificate")?);
        }
        Ok(materials)
    })
}

/// Lines for a principal's password file: all agents with the same password. One hash does for all; its cost is the
/// lowest, since what is measured is not bcrypt.
pub fn htpasswd(prefix: &str, count: usize, password: &str) -> anyhow::Result<String> {
    let hash = bcrypt::hash(password, 4).context("cannot hash the password")?;
    Ok((0..count).map(|index| format!("{prefix}{index}:{hash}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_agent_has_its_own_name_and_certificate() {
        let ca = Arc::new(Ca::generate("root", Timestamp::now(), LIFETIME).unwrap());
        let pem = ca.certificate_pem().as_bytes().to_vec();
        let all = Identities::new("load-", 5, Login::Mtls(ca), Authority::Ca(pem)).unwrap();
        for (index, material) in all.materials.iter().enumerate() {
            assert_eq!(material.leaf().unwrap().unwrap().subject, format!("CN=load-{index}"));
            let one = all.get(index).unwrap();
            assert_eq!((one.name, one.method), (format!("load-{index}"), "mtls"));
            assert!(one.tls.is_some());
        }
        assert_eq!(all.materials.len(), 5);
    }

    #[test]
    fn names_that_no_agent_can_have_are_refused_before_anything_is_made() {
        let error = Identities::new("Load_", 3, Login::Header("x-id".into()), Authority::Plaintext)
            .map(|_| ())
            .unwrap_err();
        assert!(format!("{error:#}").contains("DNS-1123"), "{error:#}");
    }

    #[test]
    fn passwords_are_those_of_the_file() {
        let lines = htpasswd("load-", 2, "pw").unwrap();
        let hashes: Vec<_> = lines.lines().map(|line| line.split_once(':').unwrap()).collect();
        assert_eq!((hashes[0].0, hashes[1].0), ("load-0", "load-1"));
        assert!(bcrypt::verify("pw", hashes[1].1).unwrap());
        let all = Identities::new("load-", 2, Login::UserPass("pw".into()), Authority::Insecure).unwrap();
        let one = all.get(1).unwrap();
        assert_eq!(
            (one.credentials[CLIENT_ID].as_str(), one.credentials[CLIENT_SECRET].as_str()),
            ("load-1", "pw")
        );
    }
}
