//! Certificates, keys and the Secrets that hold them. Pure.

use jiff::Timestamp;
use tiphys_shared::security::blocklist::fingerprint;
use tiphys_shared::security::pki::{self, Ca, Certificate, Distrust, Usage, judge};
use tiphys_shared::security::secret::Secret;
use tiphys_shared::security::tls::{self, ClientCertificate, Material, Policy, ServerTls};
use tiphys_shared::security::token;

use super::finding::Findings;
use super::snapshot::Facts;
use crate::operator::names;

/// The commands that put something into its place.
#[derive(Clone, Copy)]
pub(super) struct Maker<'a> {
    /// Where nothing is: a command.
    pub(super) make: &'a str,
    /// Where something is already: as it is to be said, commands in backquotes.
    pub(super) remake: &'a str,
}

/// Warn so many days before a certificate ends.
const SOON: i64 = 14 * 24 * 60 * 60;

/// A Secret with a certificate and its key. Returns the certificate if it can be read.
pub(super) fn pair(
    findings: &mut Findings,
    facts: &Facts,
    name: &str,
    whose: &str,
    now: Timestamp,
    maker: Maker<'_>,
) -> Option<Certificate> {
    let at = format!("Secret {}/{name} ({whose})", facts.namespace);
    let Maker { make, remake } = maker;
    let Some(secret) = facts.secrets.as_ref()?.get(name) else {
        findings.error("secret-missing", format!("{at} is not there"), format!("make it with `{make}`"));
        return None;
    };
    let data = secret.data.as_ref();
    let missing: Vec<&str> = ["tls.crt", "tls.key"]
        .into_iter()
        .filter(|key| data.and_then(|data| data.get(*key)).is_none_or(|value| value.0.is_empty()))
        .collect();
    if !missing.is_empty() {
        let keys: Vec<&str> = data.into_iter().flatten().map(|(key, _)| key.as_str()).collect();
        let has = if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") };
        findings.error(
            "secret-keys",
            format!("{at} lacks {}; it has {has}", missing.join(" and ")),
            format!("store certificate and key as tls.crt and tls.key in PEM, or make it with {remake}"),
        );
        return None;
    }
    let (chain, key) = (facts.secret_entry(name, &["tls.crt"])?, facts.secret_entry(name, &["tls.key"])?);
    let certificate = match Certificate::from_pem(chain) {
        Ok(certificate) => certificate,
        Err(error) => {
            findings.error(
                "certificate-unreadable",
                format!("the certificate in {at} cannot be read: {error}"),
                format!("store it in PEM, or make it anew with {remake}"),
            );
            return None;
        }
    };
    let material = Material::new(chain, Secret::new(key), Vec::new());
    let policy = Policy { client_certificate: ClientCertificate::None, ..Policy::default() };
    match ServerTls::new(&material, policy) {
        Ok(_) => {}
        Err(tls::Error::KeyMismatch) => findings.error(
            "key-mismatch",
            format!("the key in {at} does not belong to its certificate"),
            format!("store a pair, or make it anew with {remake}"),
        ),
        Err(error) => findings.error(
            "key-unreadable",
            format!("what is in {at} cannot be used: {error}"),
            format!("store an unencrypted key in PEM, or make it anew with {remake}"),
        ),
    }
    validity(findings, &certificate, &format!("the certificate in {at}"), now, remake);
    Some(certificate)
}

/// Whether a certificate is good now, and for a while.
pub(super) fn validity(
    findings: &mut Findings,
    certificate: &Certificate,
    what: &str,
    now: Timestamp,
    remake: &str,
) {
    let left = certificate.not_after.as_second() - now.as_second();
    let renew = format!("renew it: {remake}");
    if left < 0 {
        findings.error("certificate-expired", format!("{what} expired at {}", certificate.not_after), renew);
    } else if now < certificate.not_before {
        findings.error(
            "certificate-not-yet-valid",
            format!("{what} is not valid before {}", certificate.not_before),
            format!("check the clocks of both machines, or {renew}"),
        );
    } else if left < SOON {
        let days = left / (24 * 60 * 60);
        findings.warning("certificate-expires", format!("{what} expires in {days} days"), renew);
    }
}

/// Whether a certificate would be believed by one who has this CA. What is wrong with its dates is said elsewhere.
pub(super) fn trusted(
    findings: &mut Findings,
    chain: &[u8],
    ca: &[u8],
    usage: Usage,
    (what, believer): (&str, &str),
    now: Timestamp,
    remake: &str,
) {
    match judge(chain, ca, usage, now) {
        Ok(Ok(()) | Err(Distrust::Expired | Distrust::NotYetValid)) | Err(_) => {}
        Ok(Err(Distrust::UnknownIssuer)) => findings.error(
            "ca-mismatch",
            format!("{what} is not signed by {believer}"),
            format!("issue it anew with {remake}, or hand out the right CA with `pki propagate --force`"),
        ),
        Ok(Err(Distrust::Usage)) => findings.error(
            "certificate-usage",
            format!("{what} is made for the other side of a connection (extended key usage)"),
            format!("issue it anew with {remake}"),
        ),
        Ok(Err(other)) => findings.error(
            "certificate-refused",
            format!("{what} is refused by one who has {believer}: {other}"),
            format!("issue it anew with {remake}"),
        ),
    }
}

/// The certificates of the CAs in a Secret: one, or several while one takes the place of another.
pub(super) fn authority<'a>(
    findings: &mut Findings,
    facts: &'a Facts,
    name: &str,
    now: Timestamp,
    maker: Maker<'_>,
) -> Option<&'a [u8]> {
    let at = format!("Secret {}/{name} (CA)", facts.namespace);
    let Maker { make, remake } = maker;
    if !facts.secrets.as_ref()?.contains_key(name) {
        findings.error("secret-missing", format!("{at} is not there"), format!("make it with `{make}`"));
        return None;
    }
    let Some(pem) = facts.secret_entry(name, &["ca.crt", "tls.crt"]) else {
        findings.error(
            "secret-keys",
            format!("{at} has neither ca.crt nor tls.crt"),
            format!("store the CA's certificate in PEM as ca.crt, or make it anew: {remake}"),
        );
        return None;
    };
    let unreadable = |findings: &mut Findings, why: &str| {
        findings.error(
            "certificate-unreadable",
            format!("the certificate in {at} cannot be read: {why}"),
            format!("store the CA's certificate in PEM, or make it anew: {remake}"),
        );
    };
    let all = match Certificate::all_from_pem(pem) {
        Ok(all) if all.is_empty() => {
            unreadable(findings, "there is none");
            return None;
        }
        Ok(all) => all,
        Err(error) => {
            unreadable(findings, &error.to_string());
            return None;
        }
    };
    let authorities: Vec<&Certificate> = all.iter().filter(|certificate| certificate.is_ca).collect();
    match authorities.as_slice() {
        [] => {
            findings.error(
                "ca-not-ca",
                format!("the certificate in {at} is not a CA's: it cannot have signed others"),
                format!("store the certificate of the CA itself, or make it anew: {remake}"),
            );
            return None;
        }
        [only] => validity(findings, only, &format!("the CA in {at}"), now, remake),
        several => bundle(findings, several, &at, now, remake),
    }
    Some(pem)
}

/// CAs of which one takes the place of another: one that is good is enough, and keeps the others from mattering.
fn bundle(findings: &mut Findings, all: &[&Certificate], at: &str, now: Timestamp, remake: &str) {
    let lasts = |certificate: &Certificate| {
        certificate.is_valid_at(now) && certificate.not_after.as_second() - now.as_second() >= SOON
    };
    if !all.iter().any(|certificate| lasts(certificate)) {
        let begun = all.iter().filter(|certificate| now >= certificate.not_before);
        // Those that have yet to begin are all that there is, if nothing else is.
        let longest = begun.max_by_key(|certificate| certificate.not_after).or_else(|| all.first());
        if let Some(longest) = longest {
            let what = format!("the CA {} in {at}, which lasts longest of {},", longest.subject, all.len());
            validity(findings, longest, &what, now, remake);
        }
    }
    let over: Vec<&str> = all
        .iter()
        .filter(|certificate| certificate.not_after < now)
        .map(|certificate| certificate.fingerprint.as_str())
        .collect();
    if !over.is_empty() && over.len() < all.len() {
        findings.warning(
            "certificate-expired",
            format!("of the {} CAs in {at}, these have expired: {}", all.len(), over.join(", ")),
            "take them out of ca.crt: nobody is believed for their sake any more",
        );
    }
}

/// The key of the CA, with which agents that join and all that is issued get their certificates. Where it is kept
/// elsewhere, there is nothing to say.
pub(super) fn authority_key(
    findings: &mut Findings,
    facts: &Facts,
    name: &str,
    now: Timestamp,
    maker: Maker<'_>,
) {
    let Some(key) = facts.secret_entry(name, &["tls.key"]) else { return };
    let at = format!("Secret {}/{name} (CA)", facts.namespace);
    let remedy = "store the key that belongs to tls.crt as tls.key in PEM, or take tls.key out if it is kept elsewhere: \
                  until then nothing can be issued, and nobody can join";
    let (check, what) = match facts.secret_entry(name, &["tls.crt"]) {
        None => ("secret-keys", format!("{at} has tls.key, but no tls.crt to sign with")),
        Some(certificate) => match Ca::from_pem(certificate, key) {
            Ok(ca) => {
                // Without ca.crt it is the one that is believed, too, and has been looked at.
                if facts.secret_entry(name, &["ca.crt"]).is_some() {
                    let what = format!("the CA that signs, tls.crt in {at},");
                    validity(findings, ca.certificate(), &what, now, maker.remake);
                }
                return;
            }
            Err(pki::Error::KeyMismatch) => {
                ("key-mismatch", format!("the key in {at} does not belong to its certificate"))
            }
            Err(pki::Error::BadKey(why)) => {
                ("key-unreadable", format!("the key in {at} cannot be read: {why}"))
            }
            // If nothing else holds the CAs, this has been said already.
            Err(_) if facts.secret_entry(name, &["ca.crt"]).is_none() => return,
            Err(error) => ("certificate-unreadable", format!("nothing can be signed with {at}: {error}")),
        },
    };
    findings.error(check, what, remedy);
}

/// The key that signs tokens.
pub(super) fn signing_key(findings: &mut Findings, facts: &Facts, name: &str) {
    let at = format!("Secret {}/{name} (key that signs tokens)", facts.namespace);
    let Some(secrets) = &facts.secrets else { return };
    if !secrets.contains_key(name) {
        return findings.error("jwt-missing", format!("{at} is not there"), "make it with `jwt create-key`");
    }
    let Some(key) = facts.secret_entry(name, &[names::JWT_KEY, "tls.key"]) else {
        return findings.error(
            "jwt-missing",
            format!("{at} has no {}", names::JWT_KEY),
            "make it anew with `jwt create-key --upsert`",
        );
    };
    if let Err(error) = token::inspect_key(&Secret::new(key)) {
        findings.error(
            "jwt-unusable",
            format!("{at} is no use: {error}"),
            "make it anew with `jwt create-key --upsert`; agents log in again then",
        );
    }
}

/// Whether a certificate is on the blocklist of the control plane.
pub(super) fn blocked(findings: &mut Findings, control: &Facts, certificate: &Certificate, what: &str) {
    let map = control.config_map(names::BLOCKLIST).and_then(|map| map.data.as_ref());
    let listed = map.is_some_and(|entries| {
        entries.keys().any(|key| fingerprint(key).as_deref() == Some(certificate.fingerprint.as_str()))
    });
    if listed {
        findings.error(
            "certificate-blocked",
            format!("{what} is on the blocklist of the control plane, and so is refused"),
            format!(
                "issue a new certificate, or take it off with `blocklist tls remove {}`",
                certificate.fingerprint
            ),
        );
    }
}
