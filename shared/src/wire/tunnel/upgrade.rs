//! An upgrade (WebSocket, SPDY) inside the tunnel: HTTP/2 has none, but an extended CONNECT (RFC 8441) is the same thing.
//!
//! The principal packs a request for an upgrade into a CONNECT whose `:protocol` is what it wants to upgrade to; the agent
//! unpacks it. 200 then stands for 101, because HTTP/2 has no 101; and an answer that is a success without an upgrade
//! travels under another status, because a success would switch protocols.

use http::header::{CONNECTION, CONTENT_LENGTH, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, request, response};
use hyper::ext::Protocol;

/// The method of a request that is packed.
const METHOD: HeaderName = HeaderName::from_static("tiphys-method");
/// The protocol that an answer that is packed switches to.
const PROTOCOL: HeaderName = HeaderName::from_static("tiphys-protocol");
/// The status of an answer that switches to none, though a success.
const STATUS: HeaderName = HeaderName::from_static("tiphys-status");
/// Under which a success without an upgrade travels: one that means nothing by itself.
const CARRIER: StatusCode = StatusCode::MULTIPLE_CHOICES;

/// Why what came through the tunnel is not what the other end packs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A CONNECT that is no upgrade.
    #[error("a CONNECT without a protocol or a method")]
    NotPacked,
    /// An upgrade to something that Kubernetes does not speak.
    #[error("an upgrade to neither websocket nor SPDY/3.1")]
    UnknownProtocol,
}

/// Whether Kubernetes upgrades connections to `protocol`. To switch to HTTP/2, say, would get later requests past whoever
/// looks at the first.
pub fn is_known(protocol: &str) -> bool {
    protocol.eq_ignore_ascii_case("websocket") || protocol.eq_ignore_ascii_case("SPDY/3.1")
}

/// What a request wants to upgrade to, if it does.
pub fn wanted(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut tokens = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    tokens
        .any(|value| value.split(',').any(|token| token.trim().eq_ignore_ascii_case("upgrade")))
        .then(|| headers.get(UPGRADE))
        .flatten()
}

/// Packs a request that wants to upgrade to `protocol`, which has no body.
pub fn pack(parts: &mut request::Parts, protocol: &str) {
    let method = std::mem::replace(&mut parts.method, Method::CONNECT);
    if let Ok(method) = HeaderValue::from_str(method.as_str()) {
        parts.headers.insert(METHOD, method);
    }
    parts.headers.remove(CONTENT_LENGTH);
    parts.extensions.insert(Protocol::from(protocol));
}

/// Unpacks a request, and tells whether it wants an upgrade.
///
/// # Errors
/// [`Error`] for a CONNECT that is none of ours.
pub fn unpack(parts: &mut request::Parts) -> Result<bool, Error> {
    if parts.method != Method::CONNECT {
        return Ok(false);
    }
    let protocol = parts.extensions.remove::<Protocol>().ok_or(Error::NotPacked)?;
    if !is_known(protocol.as_str()) {
        return Err(Error::UnknownProtocol);
    }
    let protocol = HeaderValue::from_str(protocol.as_str()).map_err(|_| Error::NotPacked)?;
    let method = parts.headers.remove(METHOD).ok_or(Error::NotPacked)?;
    parts.method = Method::from_bytes(method.as_bytes()).map_err(|_| Error::NotPacked)?;
    ask(&mut parts.headers, protocol);
    Ok(true)
}

/// Packs the answer to a request for an upgrade.
pub fn pack_answer(parts: &mut response::Parts) {
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        parts.status = StatusCode::OK;
        if let Some(protocol) = parts.headers.remove(UPGRADE) {
            parts.headers.insert(PROTOCOL, protocol);
        }
    } else if parts.status.is_success() {
        parts.headers.insert(STATUS, parts.status.as_u16().into());
        parts.status = CARRIER;
    }
}

/// Unpacks the answer to a request for an upgrade, and tells whether it is one.
pub fn unpack_answer(parts: &mut response::Parts) -> bool {
    let protocol = parts.headers.remove(PROTOCOL);
    let status = parts.headers.remove(STATUS);
    match (parts.status, protocol, status) {
        (StatusCode::OK, Some(protocol), _) => {
            parts.status = StatusCode::SWITCHING_PROTOCOLS;
            ask(&mut parts.headers, protocol);
            true
        }
        (CARRIER, _, Some(status)) => {
            parts.status = StatusCode::from_bytes(status.as_bytes()).unwrap_or(StatusCode::BAD_GATEWAY);
            false
        }
        _ => false,
    }
}

fn ask(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, protocol);
}
