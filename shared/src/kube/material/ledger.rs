//! What is told of certificates and keys that change: figures, log lines, and Kubernetes Events on their Secrets.

use std::time::Duration;

use jiff::Timestamp;
use prometheus::{IntCounterVec, Opts, Registry};

use super::{Place, Places};
use crate::kube::recorder::{Event, Recorder, Regarding};
use crate::process::metrics::{self, Register, register};
use crate::security::pki::Certificate;
use crate::security::tls::Material;

/// Part of a certificate's life that is left when its end is first warned of.
const LATE: u32 = 5;
/// How often the end of a certificate is warned of.
const REMIND: Duration = Duration::from_secs(12 * 3600);

/// How often changes were taken into use, or refused.
pub(super) fn reloads(registry: &impl Register) -> Result<IntCounterVec, metrics::Error> {
    let reloads = Opts::new(
        "tiphys_certificate_reloads_total",
        "Number of times that changed certificates, keys or passwords were taken into use (replaced), or could not be (refused)",
    );
    register(registry, IntCounterVec::new(reloads, &["kind", "outcome"])?)
}

/// Until when what is in use is good: of the own certificate and the CAs, the one that ends first.
pub(super) fn in_use(material: &Material) -> Option<Validity> {
    let own = validity(&material.chain, Timestamp::min);
    let roots = validity(&material.ca, Timestamp::max);
    match (own, roots) {
        (Some(own), Some(roots)) => Some(if own.end <= roots.end { own } else { roots }),
        (own, roots) => own.or(roots),
    }
}

/// Where everything is told.
#[derive(Clone)]
pub(super) struct Ledger {
    reloads: IntCounterVec,
    recorder: Recorder,
    namespace: String,
}

impl Ledger {
    pub(super) fn new(
        namespace: &str,
        recorder: Recorder,
        registry: &Registry,
    ) -> Result<Self, metrics::Error> {
        Ok(Self { reloads: reloads(registry)?, recorder, namespace: namespace.to_owned() })
    }

    /// What changed is in use.
    pub(super) fn replaced(&self, kind: &str) {
        self.reloads.with_label_values(&[kind, "replaced"]).inc();
        tracing::info!(kind, "certificates, keys or passwords changed; what begins now uses the new ones");
    }

    /// What changed cannot be used.
    pub(super) fn refused(&self, kind: &str, places: &Places, failure: &str) {
        self.reloads.with_label_values(&[kind, "refused"]).inc();
        tracing::warn!(
            kind,
            error = failure,
            "certificates, keys or passwords changed but cannot be used; the old ones stay in use"
        );
        let note = format!("what changed cannot be used for {kind}: {failure}; the old one stays in use");
        self.tell(places, "CertificateRefused", &note);
    }

    /// Warns of an end that is near.
    pub(super) fn ends(&self, kind: &str, places: &Places, validity: Validity, now: Timestamp) {
        let note = if validity.end <= now {
            format!("the certificate for {kind} ended at {}: replace it", validity.end)
        } else {
            format!("the certificate for {kind} ends at {}: replace it before", validity.end)
        };
        tracing::warn!(kind, end = %validity.end, "{note}");
        self.tell(places, "CertificateEnds", &note);
    }

    fn tell(&self, places: &Places, reason: &'static str, note: &str) {
        let secret = [&places.chain, &places.key, &places.ca].into_iter().find_map(|place| match place {
            Some(Place::Secret { name, .. }) => Some(name),
            _ => None,
        });
        // What is kept in files has no object to write on.
        let Some(name) = secret else { return };
        self.recorder.tell(Regarding::secret(&self.namespace, name), Event::warning(reason, "Reload", note));
    }
}

/// From when until when something is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    begin: Timestamp,
    end: Timestamp,
}

impl Validity {
    /// How long until its end is to be warned of, at first and then again and again.
    pub(super) fn until_warning(self, warned: bool, now: Timestamp) -> Duration {
        if warned {
            return REMIND;
        }
        let life = Duration::try_from(self.end.duration_since(self.begin)).unwrap_or_default();
        let left = Duration::try_from(self.end.duration_since(now)).unwrap_or_default();
        // A timer for months is a timer for a day, again and again.
        left.saturating_sub(life / LATE).min(REMIND)
    }

    /// Whether its end is to be warned of.
    pub(super) fn is_late(self, now: Timestamp) -> bool {
        self.until_warning(false, now).is_zero()
    }
}

fn validity(pem: &[u8], which: fn(Timestamp, Timestamp) -> Timestamp) -> Option<Validity> {
    let certificates = Certificate::all_from_pem(pem).ok()?;
    let end = certificates.iter().map(|certificate| certificate.not_after).reduce(which)?;
    let found = certificates.iter().find(|certificate| certificate.not_after == end)?;
    Some(Validity { begin: found.not_before, end })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_warned_of_when_a_fifth_is_left_and_then_again() {
        let at = |hours: i64| Timestamp::from_second(hours * 3600).unwrap();
        let validity = Validity { begin: at(0), end: at(1000) };
        assert_eq!(validity.until_warning(false, at(799)), Duration::from_secs(3600));
        assert!(!validity.is_late(at(799)));
        assert!(validity.is_late(at(800)) && validity.is_late(at(2000)));
        assert_eq!(validity.until_warning(true, at(900)), REMIND);
    }
}
