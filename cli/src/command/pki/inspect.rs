//! What the CA and the principal's certificates say.

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
    ca: Summary,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<Summary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_proxy: Option<Summary>,
}

/// As upstream writes times: RFC 1123 with a numeric zone.
pub(crate) fn rfc1123(time: Timestamp) -> String {
    time.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

pub(super) async fn run(program: Program, targets: &Targets, options: Inspect) -> Result<(), Failure> {
    let site = targets.control_plane().await?;
    let ca = certificate(&site, names::CA).await?;
    let ca = ca.ok_or_else(|| {
        Failure::new(format!("there is no CA: Secret {}/{} is not there", site.namespace, names::CA))
            .remedy("make one with `pki init`, or check --principal-context and --principal-namespace")
    })?;
    let principal = certificate(&site, names::PRINCIPAL_TLS).await?;
    let proxy = certificate(&site, names::PROXY_TLS).await?;
    if options.full {
        for certificate in [Some(&ca), principal.as_ref(), proxy.as_ref()].into_iter().flatten() {
            output::text(&certificate.to_pem())?;
        }
        return Ok(());
    }
    let now = clock::now();
    let report = Report {
        ca: summary(&ca, now, true),
        principal: principal.map(|certificate| summary(&certificate, now, false)),
        resource_proxy: proxy.map(|certificate| summary(&certificate, now, false)),
    };
    options.output.unwrap_or_else(|| program.machine_format()).print(&report, || {
        let mut table = Table::new(&["CERTIFICATE", "SUBJECT", "KEY", "NAMES", "NOT AFTER", "WARNINGS"]);
        let rows = [
            ("ca", Some(&report.ca)),
            ("principal", report.principal.as_ref()),
            ("resource-proxy", report.resource_proxy.as_ref()),
        ];
        for (name, summary) in rows {
            let Some(summary) = summary else {
                table.row([name, "", "", "", "", "not there"].map(str::to_owned));
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
    })
}

async fn certificate(site: &Site, name: &str) -> Result<Option<Certificate>, Failure> {
    let Some(found) = write::read(site, name).await? else { return Ok(None) };
    let at = format!("{}/{name}", site.namespace);
    let data = found.data.unwrap_or_default();
    let pem = data.get("tls.crt").ok_or_else(|| {
        Failure::new(format!("Secret {at} has no tls.crt")).remedy("issue it anew with `pki issue`")
    })?;
    Certificate::from_pem(&pem.0).map(Some).map_err(|error| {
        Failure::because(&format!("the certificate in Secret {at} cannot be read"), &error)
            .remedy("issue it anew with `pki issue … --upsert`")
    })
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
