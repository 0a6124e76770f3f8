//! What a certificate says.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::PublicKeyData as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest as _, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use super::Error;

/// What a certificate says, read once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The subject as Go prints it (`CN=agent,O=org`): what rules on subjects are written against.
    pub subject: String,
    /// The last common name of the subject.
    pub common_name: Option<String>,
    /// The organisations of the subject: for Kubernetes, the groups of a user.
    pub organizations: Vec<String>,
    /// URI names (SPIFFE ids, say).
    pub uris: Vec<String>,
    /// DNS names.
    pub dns_names: Vec<String>,
    /// IP addresses.
    pub addresses: Vec<IpAddr>,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
    /// SHA-256 of the certificate, upper-case hex without separators.
    pub fingerprint: String,
    /// Whether it may sign others.
    pub is_ca: bool,
    /// What is known of its key.
    pub public_key: PublicKey,
    /// The certificate itself.
    pub der: Arc<[u8]>,
}

/// What is known of a key without having it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// `RSA`, `ECDSA`, `Ed25519`, or that it is none of these.
    pub kind: &'static str,
    /// Its length in bits; 0 if it is not known.
    pub bits: usize,
}

impl PublicKey {
    fn of(certificate: &X509Certificate<'_>) -> Self {
        use x509_parser::public_key::PublicKey as Parsed;
        const ED25519: &str = "1.3.101.112";
        let info = certificate.public_key();
        match info.parsed() {
            Ok(Parsed::RSA(key)) => Self { kind: "RSA", bits: key.key_size() },
            Ok(Parsed::EC(point)) => Self { kind: "ECDSA", bits: curve_bits(point.key_size()) },
            _ if info.algorithm.algorithm.to_id_string() == ED25519 => Self { kind: "Ed25519", bits: 256 },
            _ => Self { kind: "unknown", bits: 0 },
        }
    }
}

impl Certificate {
    /// Reads a certificate in DER form.
    pub fn from_der(der: &[u8]) -> Result<Self, Error> {
        let (_, parsed) = X509Certificate::from_der(der).map_err(|e| Error::Malformed(e.to_string()))?;
        let mut certificate = Self {
            subject: go_name(parsed.subject()),
            common_name: parsed.subject().iter_common_name().last().and_then(text),
            organizations: parsed.subject().iter_organization().filter_map(text).collect(),
            uris: Vec::new(),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            not_before: timestamp(parsed.validity().not_before.timestamp())?,
            not_after: timestamp(parsed.validity().not_after.timestamp())?,
            fingerprint: fingerprint(der),
            is_ca: parsed.is_ca(),
            public_key: PublicKey::of(&parsed),
            der: der.into(),
        };
        let names = parsed.subject_alternative_name().map_err(|e| Error::Malformed(e.to_string()))?;
        for name in names.map(|n| n.value.general_names.as_slice()).unwrap_or_default() {
            match name {
                GeneralName::URI(uri) => certificate.uris.push((*uri).into()),
                GeneralName::DNSName(dns) => certificate.dns_names.push((*dns).into()),
                GeneralName::IPAddress(bytes) => certificate.addresses.extend(address(bytes)),
                _ => {}
            }
        }
        Ok(certificate)
    }

    /// Reads the first certificate of PEM text.
    pub fn from_pem(pem: &[u8]) -> Result<Self, Error> {
        match CertificateDer::pem_slice_iter(pem).next() {
            Some(Ok(der)) => Self::from_der(&der),
            Some(Err(e)) => Err(Error::Malformed(e.to_string())),
            None => Err(Error::NoCertificate),
        }
    }

    /// Reads all certificates of PEM text; there may be none.
    pub fn all_from_pem(pem: &[u8]) -> Result<Vec<Self>, Error> {
        CertificateDer::pem_slice_iter(pem)
            .map(|der| Self::from_der(&der.map_err(|e| Error::Malformed(e.to_string()))?))
            .collect()
    }

    /// The certificate as PEM text.
    pub fn to_pem(&self) -> String {
        use base64::Engine as _;
        let body = base64::engine::general_purpose::STANDARD.encode(&self.der);
        let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
        let mut rest = body.as_str();
        while !rest.is_empty() {
            let (line, tail) = rest.split_at(rest.len().min(64));
            pem.push_str(line);
            pem.push('\n');
            rest = tail;
        }
        pem.push_str("-----END CERTIFICATE-----\n");
        pem
    }

    /// Whether a server that shows this certificate is believed to be `host`, a DNS name or an address.
    pub fn covers(&self, host: &str) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
        if let Ok(address) = host.parse::<IpAddr>() {
            return self.addresses.contains(&address);
        }
        self.dns_names.iter().any(|name| match name.strip_prefix("*.") {
            None => name.eq_ignore_ascii_case(host),
            Some(domain) => host
                .split_once('.')
                .is_some_and(|(first, rest)| !first.is_empty() && rest.eq_ignore_ascii_case(domain)),
        })
    }

    /// Whether the validity includes `now`.
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// When a part of its life is left: one in `fraction`.
    pub fn near_end(&self, fraction: u32) -> Timestamp {
        let life = Duration::try_from(self.not_after.duration_since(self.not_before)).unwrap_or_default();
        self.not_after.saturating_sub(life / fraction.max(1)).unwrap_or(self.not_before)
    }

    /// Whether the issuer's name is, byte for byte, the subject of `other`. No signature is checked.
    pub(super) fn issued_by(&self, other: &Self) -> bool {
        match (X509Certificate::from_der(&self.der), X509Certificate::from_der(&other.der)) {
            (Ok((_, this)), Ok((_, other))) => this.issuer().as_raw() == other.subject().as_raw(),
            _ => false,
        }
    }

    pub(super) fn has_key(&self, pair: &rcgen::KeyPair) -> bool {
        X509Certificate::from_der(&self.der)
            .is_ok_and(|(_, parsed)| parsed.public_key().raw == pair.subject_public_key_info())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// SHA-256 of a certificate in DER form, upper-case hex without separators, as the Go project writes it.
pub fn fingerprint(der: &[u8]) -> String {
    hex(&Sha256::digest(der)).to_ascii_uppercase()
}

fn timestamp(seconds: i64) -> Result<Timestamp, Error> {
    Timestamp::from_second(seconds).map_err(|e| Error::Malformed(e.to_string()))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// The attributes that Go knows by name, in the order in which it prints them, and whether it keeps only the
/// last of several.
const NAMED: [(&str, &str, bool); 9] = [
    ("2.5.4.5", "SERIALNUMBER", true),
    ("2.5.4.3", "CN", true),
    ("2.5.4.11", "OU", false),
    ("2.5.4.10", "O", false),
    ("2.5.4.17", "POSTALCODE", false),
    ("2.5.4.9", "STREET", false),
    ("2.5.4.7", "L", false),
    ("2.5.4.8", "ST", false),
    ("2.5.4.6", "C", false),
];

/// A name as Go's `pkix.Name` prints it. Operators write regular expressions against this text, so its order
/// (not the certificate's) and its escapes matter.
fn go_name(name: &X509Name<'_>) -> String {
    let attributes: Vec<(String, String)> =
        name.iter_attributes().map(|a| (a.attr_type().to_id_string(), text(a).unwrap_or_default())).collect();
    let mut parts: Vec<String> = Vec::new();
    for (id, label, only_last) in NAMED {
        let mut values: Vec<&str> =
            attributes.iter().filter(|(oid, _)| oid == id).map(|(_, value)| value.as_str()).collect();
        if only_last {
            // Go keeps the last one, and prints none that is empty.
            values = values.pop().filter(|value| !value.is_empty()).into_iter().collect();
        }
        if !values.is_empty() {
            let printed: Vec<String> = values.iter().map(|v| format!("{label}={}", escape(v))).collect();
            parts.push(printed.join("+"));
        }
    }
    for (oid, value) in attributes.iter().rev().filter(|(oid, _)| NAMED.iter().all(|(id, ..)| id != oid)) {
        parts.push(format!("{oid}=#{}", hex(&der_string(value))));
    }
    parts.join(",")
}

fn text(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    if let Ok(text) = attribute.as_str() {
        return Some(text.to_owned());
    }
    let value = attribute.attr_value();
    match value.header.tag().0 {
        // BMPString: UTF-16, big endian.
        30 => {
            let units: Vec<u16> =
                value.data.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
            String::from_utf16(&units).ok()
        }
        // TeletexString, read as Latin-1.
        20 => Some(value.data.iter().map(|byte| char::from(*byte)).collect()),
        _ => None,
    }
}

fn escape(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut out = String::with_capacity(value.len());
    for (index, c) in value.chars().enumerate() {
        let special = match c {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => true,
            ' ' => index == 0 || index == last,
            '#' => index == 0,
            _ => false,
        };
        if special {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// A string in DER: PrintableString where its alphabet suffices, else UTF8String.
fn der_string(value: &str) -> Vec<u8> {
    let printable = value.bytes().all(|b| b.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&b));
    let mut der = vec![if printable { 0x13_u8 } else { 0x0c }];
    let length = value.len();
    if length < 0x80 {
        der.push(length as u8);
    } else {
        let bytes = length.to_be_bytes();
        let significant = &bytes[bytes.iter().take_while(|b| **b == 0).count()..];
        der.push(0x80 | significant.len() as u8);
        der.extend_from_slice(significant);
    }
    der.extend_from_slice(value.as_bytes());
    der
}

/// The size of a curve whose points have coordinates of so many bits: they fill whole bytes.
fn curve_bits(coordinate: usize) -> usize {
    if coordinate == 528 { 521 } else { coordinate }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_so_that_one_attribute_cannot_look_like_two() {
        assert_eq!(escape("a,CN=admin"), "a\\,CN=admin");
        assert_eq!(escape(" #x "), "\\ #x\\ ");
        assert_eq!(escape("#x"), "\\#x");
        assert_eq!(escape("a b"), "a b");
    }

    #[test]
    fn unnamed_attributes_are_printed_in_der() {
        assert_eq!(hex(&der_string("ab")), "13026162");
        assert_eq!(hex(&der_string("a@b")), "0c03614062");
        assert!(hex(&der_string(&"x".repeat(200))).starts_with("1381c8"));
    }
}
