//! Why a principal could not be reached, so that its reader knows what to do.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use rustls::{AlertDescription, CertificateError};

/// What is waited for until somebody takes the connection.
pub(super) const CONNECTING: &str = "connecting";

/// Why dialling failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The host is not a name.
    #[error("{host:?} is neither a host name nor an address")]
    BadHost {
        /// As it was given.
        host: String,
    },
    /// The name is not known.
    #[error("cannot find {host}: {source} (check the address and the dns)")]
    NameNotFound {
        /// Who was looked for.
        host: String,
        /// What the resolver said.
        source: Arc<io::Error>,
    },
    /// Nobody listens there.
    #[error("{target} refused the connection: nobody listens on this port, or a firewall rejects it")]
    Refused {
        /// Who was dialled.
        target: String,
    },
    /// There was no answer in time.
    #[error("{target} did not answer within {after:?} ({during}): check the address, routes and firewalls")]
    Timeout {
        /// Who was dialled.
        target: String,
        /// What was waited for.
        during: &'static str,
        /// How long.
        after: Duration,
    },
    /// The network failed.
    #[error("cannot connect to {target}: {source}")]
    Network {
        /// Who was dialled.
        target: String,
        /// What the kernel said.
        source: Arc<io::Error>,
    },
    /// The certificate leads to no CA that is known here.
    #[error(
        "certificate of {target} is signed by an unknown ca: give this side the ca that signed it (or the \
         port belongs to somebody else)"
    )]
    UnknownIssuer {
        /// Who was dialled.
        target: String,
    },
    /// The certificate is for another name.
    #[error("certificate of {target} is not valid for this name, only for {}", names(presented))]
    NameMismatch {
        /// Who was dialled.
        target: String,
        /// What the certificate is valid for.
        presented: Vec<String>,
    },
    /// The certificate's time is over.
    #[error("certificate of {target} has expired: renew it there, or check this machine's clock")]
    Expired {
        /// Who was dialled.
        target: String,
    },
    /// The certificate's time has not come.
    #[error("certificate of {target} is not yet valid: check both machines' clocks")]
    NotYetValid {
        /// Who was dialled.
        target: String,
    },
    /// The certificate is bad in another way.
    #[error("certificate of {target} cannot be used: {reason}")]
    BadCertificate {
        /// Who was dialled.
        target: String,
        /// What is wrong.
        reason: String,
    },
    /// The other side does not accept our certificate.
    #[error("{target} rejected our client certificate: {reason}")]
    ClientCertificateRejected {
        /// Who was dialled.
        target: String,
        /// What it gave as the reason.
        reason: &'static str,
    },
    /// The other side wants a certificate and we have none.
    #[error("{target} requires a client certificate and none is configured here")]
    ClientCertificateRequired {
        /// Who was dialled.
        target: String,
    },
    /// The other side speaks plaintext, or something else.
    #[error("{target} does not speak tls: wrong port, or it runs without tls (then use plaintext here too)")]
    NotTls {
        /// Who was dialled.
        target: String,
    },
    /// The other side speaks TLS and we do not.
    #[error("{target} speaks tls, but plaintext is configured here")]
    PlaintextToTls {
        /// Who was dialled.
        target: String,
    },
    /// The other side does not speak HTTP/2.
    #[error("{target} does not speak http/2: wrong port, or a proxy in between that must pass grpc")]
    NotHttp2 {
        /// Who was dialled.
        target: String,
    },
    /// The other side takes no gRPC over WebSocket.
    #[error(
        "{target} takes no grpc over websocket: {reason} (set --enable-websocket there too, or leave it out here)"
    )]
    NotWebSocket {
        /// Who was dialled.
        target: String,
        /// How that shows.
        reason: String,
    },
    /// The other side, or somebody in between, answers with something else than a WebSocket.
    #[error(
        "{target} answers with {status} instead of a websocket{}: set --enable-websocket there too, and let the proxies in \
         between pass websockets",
        quoted(said)
    )]
    WebSocketRefused {
        /// Who was dialled.
        target: String,
        /// With what it answers.
        status: StatusCode,
        /// What it says to that.
        said: String,
    },
    /// The proxy could not be used.
    #[error("cannot go through the proxy {proxy} of HTTPS_PROXY: {reason}")]
    Proxy {
        /// Host and port.
        proxy: String,
        /// What went wrong.
        reason: String,
    },
    /// The proxy wants other credentials.
    #[error("the proxy {proxy} of HTTPS_PROXY refused us: {reason}")]
    ProxyCredentials {
        /// Host and port.
        proxy: String,
        /// Which.
        reason: &'static str,
    },
    /// The proxy does not connect to the principal.
    #[error(
        "the proxy {proxy} of HTTPS_PROXY does not connect to {target}: it answers with {status}; have it allow that, or name \
         the principal in NO_PROXY to go there straight"
    )]
    ProxyRefused {
        /// Host and port.
        proxy: String,
        /// Who was to be reached.
        target: String,
        /// With what it answers.
        status: StatusCode,
    },
    /// No version or suite is common to both sides.
    #[error("{target} and this side have no tls version or cipher suite in common: {reason}")]
    NoCommonTls {
        /// Who was dialled.
        target: String,
        /// What was said.
        reason: String,
    },
    /// The other side hung up without a word.
    #[error("{target} closed the connection {during}")]
    Closed {
        /// Who was dialled.
        target: String,
        /// When.
        during: &'static str,
    },
    /// Another failure of TLS.
    #[error("tls with {target} failed: {reason}")]
    Tls {
        /// Who was dialled.
        target: String,
        /// What was said.
        reason: String,
    },
}

fn quoted(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(" ({said:?})") }
}

fn names(presented: &[String]) -> String {
    if presented.is_empty() { "no name at all".into() } else { presented.join(", ") }
}

/// Whether the other side has hung up.
fn is_hang_up(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
    )
}

impl Error {
    /// A short fixed word for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::BadHost { .. } => "bad-host",
            Self::NameNotFound { .. } => "name-not-found",
            Self::Refused { .. } => "refused",
            Self::Timeout { .. } => "timeout",
            Self::Network { .. } => "network",
            Self::UnknownIssuer { .. } => "unknown-issuer",
            Self::NameMismatch { .. } => "name-mismatch",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not-yet-valid",
            Self::BadCertificate { .. } => "bad-certificate",
            Self::ClientCertificateRejected { .. } => "client-certificate-rejected",
            Self::ClientCertificateRequired { .. } => "client-certificate-required",
            Self::NotTls { .. } => "not-tls",
            Self::PlaintextToTls { .. } => "plaintext-to-tls",
            Self::NotHttp2 { .. } => "not-http2",
            Self::NotWebSocket { .. } | Self::WebSocketRefused { .. } => "not-websocket",
            Self::Proxy { .. } => "proxy",
            Self::ProxyCredentials { .. } => "proxy-credentials",
            Self::ProxyRefused { .. } => "proxy-refused",
            Self::NoCommonTls { .. } => "no-common-tls",
            Self::Closed { .. } => "closed",
            Self::Tls { .. } => "tls",
        }
    }

    /// Whether it is likely to go away by itself. Everything else wants a person or new certificates.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NameNotFound { .. }
            | Self::Refused { .. }
            | Self::Timeout { .. }
            | Self::Network { .. }
            | Self::Closed { .. }
            | Self::Proxy { .. } => true,
            // What is behind a proxy may be back soon.
            Self::ProxyRefused { status, .. } | Self::WebSocketRefused { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            _ => false,
        }
    }

    /// Whether it stays so until somebody changes what this process was started with, or starts something else there. Not
    /// certificates: those are replaced while processes run.
    pub fn is_lasting(&self) -> bool {
        let is_of_certificates = matches!(
            self,
            Self::UnknownIssuer { .. }
                | Self::NameMismatch { .. }
                | Self::Expired { .. }
                | Self::NotYetValid { .. }
                | Self::BadCertificate { .. }
                | Self::ClientCertificateRejected { .. }
                | Self::ClientCertificateRequired { .. }
        );
        !self.is_transient() && !is_of_certificates
    }

    /// Whether somebody took the connection and then had no time for it: nothing came, or the end.
    pub fn is_busy(&self) -> bool {
        match self {
            Self::Closed { .. } => true,
            Self::Timeout { during, .. } => *during != CONNECTING,
            _ => false,
        }
    }

    pub(super) fn from_connect(target: &str, error: io::Error) -> Self {
        let target = target.to_owned();
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused { target },
            _ => Self::Network { target, source: Arc::new(error) },
        }
    }

    /// `error` came out of a TLS stream.
    pub(super) fn from_tls(target: &str, error: io::Error, during: &'static str) -> Self {
        let target = target.to_owned();
        match error.downcast::<rustls::Error>() {
            Ok(error) => Self::from_rustls(target, error),
            Err(error) if is_hang_up(error.kind()) => Self::Closed { target, during },
            Err(error) => Self::Network { target, source: Arc::new(error) },
        }
    }

    /// `error` came out of the beginning of HTTP/2. Who is turned away may find out when it speaks, before it listens.
    pub(super) fn from_http2(target: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        let causes = std::iter::successors(Some(error), |error| error.source());
        let failure = causes.filter_map(|cause| cause.downcast_ref::<io::Error>()).last();
        let target = target.to_owned();
        match failure {
            Some(failure) if is_hang_up(failure.kind()) => {
                Self::Closed { target, during: "before it said anything" }
            }
            _ => Self::Tls { target, reason: error.to_string() },
        }
    }

    fn from_rustls(target: String, error: rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(reason) => Self::from_certificate(target, reason),
            rustls::Error::InvalidMessage(_) => Self::NotTls { target },
            rustls::Error::NoApplicationProtocol => Self::NotHttp2 { target },
            rustls::Error::PeerIncompatible(reason) => {
                Self::NoCommonTls { target, reason: format!("{reason:?}") }
            }
            rustls::Error::AlertReceived(alert) => Self::from_alert(target, alert),
            other => Self::Tls { target, reason: other.to_string() },
        }
    }

    fn from_certificate(target: String, reason: CertificateError) -> Self {
        match reason {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                Self::UnknownIssuer { target }
            }
            CertificateError::NotValidForName => Self::NameMismatch { target, presented: Vec::new() },
            CertificateError::NotValidForNameContext { presented, .. } => {
                Self::NameMismatch { target, presented }
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired { target },
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::NotYetValid { target }
            }
            other => Self::BadCertificate { target, reason: other.to_string() },
        }
    }

    fn from_alert(target: String, alert: AlertDescription) -> Self {
        let reason = match alert {
            AlertDescription::CertificateRequired => return Self::ClientCertificateRequired { target },
            AlertDescription::NoApplicationProtocol => return Self::NotHttp2 { target },
            AlertDescription::ProtocolVersion | AlertDescription::InsufficientSecurity => {
                return Self::NoCommonTls { target, reason: format!("{alert:?}") };
            }
            AlertDescription::UnknownCA => "it is signed by a ca that is unknown there",
            AlertDescription::CertificateExpired => "it has expired (or the clocks differ)",
            AlertDescription::CertificateRevoked => "it has been revoked",
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied => "it cannot be used there",
            AlertDescription::DecryptError => {
                "its signature does not fit (a ca of the same name with another key, perhaps)"
            }
            other => return Self::Tls { target, reason: format!("it sent the alert {other:?}") },
        };
        Self::ClientCertificateRejected { target, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_hung_up_on_while_it_speaks_was_turned_away() {
        #[derive(Debug, thiserror::Error)]
        #[error("transport error")]
        struct Outer(#[source] io::Error);

        let of = |kind| Error::from_http2("a:1", &Outer(io::Error::from(kind)));
        let turned_away = of(io::ErrorKind::BrokenPipe);
        assert!(matches!(turned_away, Error::Closed { .. }) && turned_away.is_busy(), "{turned_away}");
        assert!(matches!(of(io::ErrorKind::InvalidData), Error::Tls { .. }));
        let connecting =
            Error::Timeout { target: "a:1".into(), during: CONNECTING, after: Duration::from_secs(1) };
        assert!(!connecting.is_busy(), "nobody was there");
    }
}
