//! Until when certificates are good.

use jiff::Timestamp;
use prometheus::{GaugeVec, Opts};

use super::{Error, Fresh, Register};
use crate::security::tls::Validity;

/// What is used for what, asked whenever somebody wants to know: it may be replaced while the process runs.
pub type InUse = (&'static str, Box<dyn Fn() -> Validity + Send + Sync>);

/// Registers a gauge of the end of each certificate in use.
///
/// # Errors
/// [`Error`] if it is there already.
pub fn expiry(registry: &impl Register, in_use: Vec<InUse>) -> Result<(), Error> {
    let gauge = GaugeVec::new(
        Opts::new(
            "tiphys_certificate_expiry_timestamp_seconds",
            "When a certificate that is in use ends, in seconds since 1970, by what it is used for; of a CA bundle the one that \
             ends first",
        ),
        &["certificate"],
    )?;
    Fresh::register(registry, [gauge], move |gauges| {
        let [gauge] = gauges else { return };
        let note = |what: &str, until: Option<Timestamp>| {
            if let Some(until) = until {
                gauge.with_label_values(&[what]).set(until.as_second() as f64);
            }
        };
        for (what, validity) in &in_use {
            let Validity { own, authorities } = validity();
            note(what, own);
            note(&format!("{what}-ca"), authorities);
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus::Registry;

    use super::super::render;
    use super::*;
    use crate::process::clock;
    use crate::security::pki::Ca;
    use crate::security::tls::{Material, Policy, ServerTls};

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn days_left(registry: &Registry, name: &str) -> i64 {
        let text = render(registry).unwrap();
        let value =
            text.split(&format!("{{certificate=\"{name}\"}} ")).nth(1).unwrap().lines().next().unwrap();
        let left = value.parse::<f64>().unwrap() - clock::now().as_second() as f64;
        (left / 86400.0).round() as i64
    }

    #[test]
    fn the_certificate_and_the_first_of_its_authorities_to_end_are_told_also_after_they_are_replaced() {
        let now = clock::now();
        let (long, short) =
            (Ca::generate("a", now, 9 * DAY).unwrap(), Ca::generate("b", now, 5 * DAY).unwrap());
        let bundle = [long.certificate_pem(), short.certificate_pem()].concat();
        let issue = |days| Material {
            ca: bundle.clone().into_bytes(),
            ..long.issue_server(&["localhost"], now, days * DAY).unwrap()
        };
        let tls = ServerTls::new(&issue(3), Policy::mutual()).unwrap();
        let registry = Registry::new();
        let asked = tls.clone();
        expiry(&registry, vec![("server", Box::new(move || asked.validity()))]).unwrap();
        assert_eq!((days_left(&registry, "server"), days_left(&registry, "server-ca")), (3, 5));
        tls.replace(&issue(7)).unwrap();
        assert_eq!(days_left(&registry, "server"), 7);
    }
}
