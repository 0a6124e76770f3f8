//! Whether a certificate would be believed: the same judgement that a TLS handshake makes, asked without one.

use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::{Error, Usage};

/// Why a certificate is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// It was not signed by any of the CAs, or by a CA that only has the same name.
    #[error("none of the CA certificates signed it")]
    UnknownIssuer,
    /// It is over.
    #[error("it has expired")]
    Expired,
    /// It has not begun.
    #[error("it is not valid yet")]
    NotYetValid,
    /// It is for the other side of a connection.
    #[error("it is not made for this use (extended key usage)")]
    Usage,
    /// Something else is wrong with it.
    #[error("{0}")]
    Other(String),
}

/// Whether the first certificate of `chain` is believed by one who has `ca`, both PEM text.
///
/// # Errors
/// [`Error`] if there is nothing to judge; inside, why it is not believed.
pub fn judge(chain: &[u8], ca: &[u8], usage: Usage, now: Timestamp) -> Result<Result<(), Distrust>, Error> {
    let (chain, roots) = (read(chain)?, read(ca)?);
    let Some((leaf, intermediates)) = chain.split_first() else { return Err(Error::NoCertificate) };
    let malformed = |error: webpki::Error| Error::Malformed(error.to_string());
    let leaf = EndEntityCert::try_from(leaf).map_err(malformed)?;
    let anchors =
        roots.iter().map(anchor_from_trusted_cert).collect::<Result<Vec<_>, _>>().map_err(malformed)?;
    let time = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0)));
    let usage = match usage {
        Usage::Server => KeyUsage::server_auth(),
        Usage::Client => KeyUsage::client_auth(),
    };
    let verdict =
        leaf.verify_for_usage(ALL_VERIFICATION_ALGS, &anchors, intermediates, time, usage, None, None);
    Ok(match verdict {
        Ok(_) => Ok(()),
        Err(error) => Err(match error {
            webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
                Distrust::UnknownIssuer
            }
            webpki::Error::CertExpired { .. } => Distrust::Expired,
            webpki::Error::CertNotValidYet { .. } => Distrust::NotYetValid,
            webpki::Error::RequiredEkuNotFoundContext(_) => Distrust::Usage,
            other => Distrust::Other(other.to_string()),
        }),
    })
}

fn read(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Error::Malformed(error.to_string()))?;
    if found.is_empty() { Err(Error::NoCertificate) } else { Ok(found) }
}
