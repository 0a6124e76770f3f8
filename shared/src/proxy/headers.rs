//! What of a head may pass from one connection to the next, and what the two ends of the proxy say to each other.

use http::header::{
    CONNECTION, EXPECT, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName};

/// The name of a request, the same in the log of both ends and in the API server's own audit log, which takes it over.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("audit-id");
/// Who makes the request, as the principal has found out.
pub const USER: HeaderName = HeaderName::from_static("tiphys-user");
/// A group that the caller is in; there may be several of it.
pub const GROUP: HeaderName = HeaderName::from_static("tiphys-group");
/// What all headers begin with by which the two ends talk. No client's passes.
pub const OURS: &str = "tiphys-";

/// What is about one connection (RFC 9110, 7.6.1), besides what `Connection` names.
const HOP_BY_HOP: [HeaderName; 10] = [
    CONNECTION,
    EXPECT,
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    UPGRADE,
];

/// Takes off what is about the connection that a head came on.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|token| token.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP).chain([&TRANSFER_ENCODING]) {
        headers.remove(name);
    }
}

/// Takes off all headers whose names begin so.
pub fn strip_prefixed(headers: &mut HeaderMap, prefix: &str) {
    let named: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with(prefix)).cloned().collect();
    for name in named {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_connection_names_ends_with_the_connection() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Secret"),
            ("connection", "keep-alive"),
            ("keep-alive", "timeout=5"),
            ("x-secret", "for this hop"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("te", "trailers"),
            ("accept", "application/json"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
    }

    #[test]
    fn all_that_begin_so_are_taken_off() {
        let mut headers = HeaderMap::new();
        for name in ["tiphys-user", "tiphys-", "tiphys-anything", "x-tiphys-user"] {
            headers.append(name, HeaderValue::from_static("admin"));
        }
        strip_prefixed(&mut headers, OURS);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-tiphys-user"]);
    }
}
