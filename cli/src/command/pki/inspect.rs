//! What the CA and the principal's certificates say.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use tiphys_shared::process::clock;
use tiphys_shared::security::pki::Certificate;

use super::Inspect;
use crate::command::Program;
use crate::failure::Failure;
use crate::operator::names;
use crate::operator::targets::{Site, Targets};
use crate::operator::write;
use crate::output::{self, Table};

/// What upstream tells of a certificate, under its names.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    subject: String,
    key_type: &'static str,
    key_length: usize,
    not_before: String,
    not_after: String,
    sha256: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ips: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dns: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    #[serde(skip_serializing_if = "Option::is_none")]
    ca: Option<Summary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<Summary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_proxy: Option<Summary>,
    /// Which of them cannot be read, and why.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    unreadable: BTreeMap<&'static str, String>,
}

/// As upstream writes times: RFC 1123 with a numeric zone.
pub(crate) fn rfc1123(time: Timestamp) -> String {
    time.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

pub(super) async fn run(program: Program, targets: &Targets, options: Inspect) -> Result<(), Failure> {
    let site = targets.control_plane().await?;
    let mut seen = Seen::default();
    let ca = seen.certificate(&site, "ca", names::CA).await?;
    if ca.is_none() && seen.unreadable.is_empty() {
        return Err(Failure::new(format!(
            "there is no CA: Secret {}/{} is not there",
            site.namespace,
            names::CA
        ))
        .remedy("make one with `pki init`, or check --principal-context and --principal-namespace"));
    }
    let principal = seen.certificate(&site, "principal", names::PRINCIPAL_TLS).await?;
    let proxy = seen.certificate(&site, "resourceProxy", names::PROXY_TLS).await?;
    if options.full {
        for certificate in [&ca, &principal, &proxy].into_iter().flatten() {
            output::text(&certificate.to_pem())?;
        }
        return seen.end();
    }
    let now = clock::now();
    let report = Report {
        ca: ca.map(|certificate| summary(&certificate, now, true)),
        principal: principal.map(|certificate| summary(&certificate, now, false)),
        resource_proxy: proxy.map(|certificate| summary(&certificate, now, false)),
        unreadable: seen.unreadable.clone(),
    };
    options.output.unwrap_or_else(|| program.machine_format()).print(&report, || table(&report))?;
    seen.end()
}

fn table(report: &Report) -> Table {
    let mut table = Table::new(&["CERTIFICATE", "SUBJECT", "KEY", "NAMES", "NOT AFTER", "WARNINGS"]);
    let rows = [
        ("ca", "ca", &report.ca),
        ("principal", "principal", &report.principal),
        ("resource-proxy", "resourceProxy", &report.resource_proxy),
    ];
    for (name, key, summary) in rows {
        let Some(summary) = summary else {
            let why = report.unreadable.get(key).map_or("not there", String::as_str);
            table.row([name, "", "", "", "", why].map(str::to_owned));
            continue;
        };
        table.row([
            name.to_owned(),
            summary.subject.clone(),
            format!("{} {}", summary.key_type, summary.key_length),
            [&summary.dns[..], &summary.ips[..]].concat().join(","),
            summary.not_after.clone(),
            summary.warnings.join("; "),
        ]);
    }
    table
}

/// What is not to keep the rest from being seen.
#[derive(Default)]
struct Seen {
    unreadable: BTreeMap<&'static str, String>,
    secrets: Vec<String>,
}

impl Seen {
    /// The certificate in a Secret; none if it is not there or cannot be read.
    async fn certificate(
        &mut self,
        site: &Site,
        what: &'static str,
        name: &str,
    ) -> Result<Option<Certificate>, Failure> {
        let Some(found) = write::read(site, name).await? else { return Ok(None) };
        let data = found.data.unwrap_or_default();
        let read = match data.get("tls.crt") {
            None => Err("it has no tls.crt".to_owned()),
            Some(pem) => Certificate::from_pem(&pem.0).map_err(|error| format!("it cannot be read: {error}")),
        };
        read.map_or_else(
            |why| {
                self.unreadable.insert(what, why);
                self.secrets.push(format!("{}/{name}", site.namespace));
                Ok(None)
            },
            |certificate| Ok(Some(certificate)),
        )
    }

    /// A failure if something was left out.
    fn end(self) -> Result<(), Failure> {
        if self.secrets.is_empty() {
            return Ok(());
        }
        Err(Failure::new(format!("there is no certificate to be read in Secret {}", self.secrets.join(", ")))
            .remedy("issue it anew with `pki issue … --upsert`, or the CA with `pki init --force`"))
    }
}

fn summary(certificate: &Certificate, now: Timestamp, must_be_ca: bool) -> Summary {
    let mut warnings = Vec::new();
    if must_be_ca && !certificate.is_ca {
        warnings.push("this is not a CA certificate".to_owned());
    }
    if now > certificate.not_after {
        warnings.push("it has expired".to_owned());
    } else if now < certificate.not_before {
        warnings.push("it is not valid yet".to_owned());
    }
    Summary {
        subject: certificate.subject.clone(),
        key_type: certificate.public_key.kind,
        key_length: certificate.public_key.bits,
        not_before: rfc1123(certificate.not_before),
        not_after: rfc1123(certificate.not_after),
        sha256: certificate.fingerprint.to_ascii_lowercase(),
        ips: certificate.addresses.iter().map(ToString::to_string).collect(),
        dns: certificate.dns_names.clone(),
        warnings,
    }
}
