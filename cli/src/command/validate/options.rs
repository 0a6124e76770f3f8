//! What a side was told, as far as the checks care. Options that cannot be read leave the defaults.

use tiphys_agent::options as agent_options;
use tiphys_principal::options as principal_options;
use tiphys_shared::process::options::{KeyPair, NamePattern, Problem};

use super::snapshot::{AgentOptions, PrincipalOptions};
use crate::operator::installation::{Installation, Part};
use crate::operator::names;
use crate::operator::targets::Site;

/// Options, and what is wrong with them.
pub(super) struct Told<T> {
    pub(super) options: T,
    pub(super) problems: Vec<Problem>,
}

fn secret(pair: &KeyPair) -> Option<String> {
    match pair {
        KeyPair::Secret(name) => Some(name.clone()),
        KeyPair::Files { .. } => None,
    }
}

/// Files of a pod are not on this machine.
fn is_about_files(problem: &Problem) -> bool {
    problem.what.contains(" cannot be read: ")
}

pub(super) fn principal(installation: &Installation, site: &Site) -> Told<PrincipalOptions> {
    let loaded = installation.load(Part::Principal, site, principal_options::Options::validate);
    match loaded {
        Ok(loaded) => Told { options: of_principal(&loaded.value), problems: Vec::new() },
        Err(problems) => Told {
            options: unknown(),
            problems: problems.0.into_iter().filter(|problem| !is_about_files(problem)).collect(),
        },
    }
}

/// Where nothing is known of it, and nothing is to be said about it.
pub(super) fn unknown() -> PrincipalOptions {
    PrincipalOptions {
        allowed: NamePattern::new("*").into_iter().collect(),
        by_destination: false,
        tls: Some(names::PRINCIPAL_TLS.to_owned()),
        ca: Some(names::CA.to_owned()),
        proxy_tls: Some(names::PROXY_TLS.to_owned()),
        jwt: Some(names::JWT.to_owned()),
        creates_namespaces: false,
        redis_proxy: true,
        proxy: true,
        joins: false,
        registers: false,
    }
}

fn of_principal(settings: &principal_options::Settings) -> PrincipalOptions {
    use principal_options::{Identity, Roots, TokenKey, Transport};
    let (tls, ca) = match &settings.transport {
        Transport::Plaintext => (None, None),
        Transport::Tls { identity, roots, .. } => {
            let tls = match identity {
                Identity::Kept(pair) => secret(pair),
                Identity::Generated => None,
            };
            let ca = match roots {
                Roots::Secret(name) => Some(name.clone()),
                Roots::File(_) => None,
            };
            (tls, ca)
        }
    };
    let jwt = match &settings.token_key {
        TokenKey::Secret(name) => Some(name.clone()),
        TokenKey::File(_) | TokenKey::Generated => None,
    };
    PrincipalOptions {
        allowed: settings.allowed_namespaces.clone(),
        by_destination: settings.destination_based_mapping,
        tls,
        ca,
        proxy_tls: settings.proxy.as_ref().and_then(|proxy| secret(&proxy.identity)),
        jwt,
        creates_namespaces: settings.namespace_creation.is_some(),
        redis_proxy: settings.redis_proxy.is_some(),
        proxy: settings.proxy.is_some(),
        joins: settings.onboarding.enrolment,
        registers: settings.onboarding.client_certificate.is_some(),
    }
}

pub(super) fn agent(installation: &Installation, site: &Site) -> Told<Option<AgentOptions>> {
    match installation.load(Part::Agent, site, agent_options::Options::validate) {
        Ok(loaded) => Told { options: Some(of_agent(&loaded.value)), problems: Vec::new() },
        Err(problems) => {
            let problems = problems.0.into_iter().filter(|problem| !is_about_files(problem)).collect();
            Told { options: None, problems }
        }
    }
}

fn of_agent(settings: &agent_options::Settings) -> AgentOptions {
    use agent_options::{Roots, Transport};
    let (tls, ca, policy) = match &settings.transport {
        Transport::Plaintext => (None, None, None),
        Transport::Tls { roots, identity, policy } => {
            let ca = match roots {
                Roots::Secret(name) => Some(name.clone()),
                Roots::File(_) | Roots::Unverified => None,
            };
            (secret(identity), ca, Some(policy.clone()))
        }
    };
    AgentOptions {
        server: settings.server.clone(),
        mode: settings.mode,
        by_destination: settings.destination_based_mapping,
        is_plaintext: policy.is_none(),
        policy: policy.unwrap_or_default(),
        tls,
        ca,
    }
}
