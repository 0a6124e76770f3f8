//! Through a proxy that the environment names, by CONNECT.
//!
//! As the Go project's agents have it: `HTTPS_PROXY` counts for every principal, with or without TLS, unless `NO_PROXY` names
//! it or it is on this machine. Which of the names `NO_PROXY` means is left to [`hyper_util`].

use std::fmt;

use http::header::{HOST, HeaderValue, PROXY_AUTHORIZATION};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;

use super::connect::{self, Connected};
use super::failure::Error;

/// Longest head of an answer, in bytes.
const HEAD: usize = 16 << 10;

/// A proxy to go through. Its credentials are never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    host: String,
    port: u16,
    authorization: Option<HeaderValue>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("at", &self.to_string())
            .field("has_credentials", &self.authorization.is_some())
            .finish()
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Why what the environment names is no proxy. What it names is not shown: there may be a password in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadProxy {
    /// It is no URL.
    #[error("it is not the url of a proxy")]
    NoUrl,
    /// It is a URL of something else.
    #[error("only proxies with http:// can be used")]
    Scheme,
}

impl Proxy {
    /// The proxy through which a target is reached, if it is not reached straight. `variable` looks into the environment.
    ///
    /// # Errors
    /// [`BadProxy`], and the variable that names it.
    pub fn find(
        variable: impl Fn(&str) -> Option<String>,
        host: &str,
        port: u16,
    ) -> Result<Option<Self>, (&'static str, BadProxy)> {
        let first = |names: [&'static str; 2]| {
            names.into_iter().find_map(|name| Some((name, variable(name).filter(|value| !value.is_empty())?)))
        };
        let Some((name, url)) = first(["HTTPS_PROXY", "https_proxy"]) else { return Ok(None) };
        let no = first(["NO_PROXY", "no_proxy"]).map(|(_, list)| applicable(&list, port)).unwrap_or_default();
        let bare = connect::bare(host);
        let authority = if bare.contains(':') { format!("[{bare}]") } else { bare.to_owned() };
        let Ok(target) = format!("https://{authority}:{port}/").parse::<Uri>() else { return Ok(None) };
        // A bad one is told of even if it is not needed today.
        let proxy = Self::parse(&url, &target).map_err(|error| (name, error))?;
        let is_here = bare.eq_ignore_ascii_case("localhost")
            || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        let matcher = Matcher::builder().https(url).no(no).build();
        Ok(matcher.intercept(&target).filter(|_| !is_here).map(|_| proxy))
    }

    fn parse(url: &str, target: &Uri) -> Result<Self, BadProxy> {
        if url.contains("://") && !url.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http://")) {
            return Err(BadProxy::Scheme);
        }
        let matcher = Matcher::builder().https(url.to_owned()).build();
        let proxy = matcher.intercept(target).ok_or(BadProxy::NoUrl)?;
        let host = proxy.uri().host().filter(|host| !host.is_empty()).ok_or(BadProxy::NoUrl)?;
        let port = proxy.uri().port_u16().unwrap_or(80);
        Ok(Self { host: host.to_owned(), port, authorization: proxy.basic_auth().cloned() })
    }
}

/// Those entries of `NO_PROXY` that count for a port, in the words of the matcher: it knows neither ports nor `*.`.
fn applicable(list: &str, port: u16) -> String {
    let entries = list.split(',').map(str::trim).filter_map(|entry| {
        let entry = entry.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(entry);
        match entry.rsplit_once(':') {
            Some((host, of)) if !host.contains(':') || host.ends_with(']') => {
                (of.parse() == Ok(port)).then(|| connect::bare(host))
            }
            _ => Some(connect::bare(entry)),
        }
    });
    entries.collect::<Vec<_>>().join(",")
}

/// Has the proxy connect to a target.
pub(super) async fn tunnel(proxy: &Proxy, target: &str) -> Result<Connected, Error> {
    let name = proxy.to_string();
    let failed = |reason: String| Error::Proxy { proxy: name.clone(), reason };
    let stream =
        connect::tcp(&proxy.host, proxy.port, &name).await.map_err(|error| failed(error.to_string()))?;
    let broke = |error: hyper::Error| failed(format!("it does not answer as a proxy does: {error}"));
    let (mut sender, _carried) = connect::http1(Box::new(stream), HEAD).await.map_err(broke)?;
    let bad = |_| Error::BadHost { host: target.to_owned() };
    let mut request = Request::new(Empty::new());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = Uri::try_from(target).map_err(|_| Error::BadHost { host: target.to_owned() })?;
    request.headers_mut().insert(HOST, HeaderValue::try_from(target).map_err(bad)?);
    if let Some(authorization) = &proxy.authorization {
        request.headers_mut().insert(PROXY_AUTHORIZATION, authorization.clone());
    }
    let mut answer = sender.send_request(request).await.map_err(broke)?;
    match answer.status() {
        status if status.is_success() => {
            let upgraded = hyper::upgrade::on(&mut answer).await.map_err(broke)?;
            Ok(Box::new(TokioIo::new(upgraded)))
        }
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => Err(Error::ProxyCredentials {
            proxy: name,
            reason: match &proxy.authorization {
                None => "it wants credentials: write HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT",
                Some(_) => "it does not take the user and password in HTTPS_PROXY",
            },
        }),
        status => Err(Error::ProxyRefused { proxy: name, target: target.to_owned(), status }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(environment: &[(&str, &str)], host: &str) -> Result<Option<Proxy>, (&'static str, BadProxy)> {
        let look = |name: &str| {
            environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        Proxy::find(look, host, 8443)
    }

    #[test]
    fn without_a_proxy_everything_is_straight() {
        assert_eq!(find(&[], "principal.example.com"), Ok(None));
        assert_eq!(
            find(&[("HTTPS_PROXY", ""), ("HTTP_PROXY", "http://p:1")], "principal.example.com"),
            Ok(None)
        );
    }

    #[test]
    fn the_first_that_is_named_counts() {
        let proxy = find(&[("https_proxy", "http://small:3128")], "a.example").unwrap().unwrap();
        assert_eq!(proxy.to_string(), "small:3128");
        let both = [("https_proxy", "http://small:3128"), ("HTTPS_PROXY", "large:8080")];
        assert_eq!(find(&both, "a.example").unwrap().unwrap().to_string(), "large:8080");
        let no_port = find(&[("HTTPS_PROXY", "http://proxy.example/")], "a.example").unwrap().unwrap();
        assert_eq!(no_port.to_string(), "proxy.example:80");
    }

    #[test]
    fn credentials_are_sent_and_never_shown() {
        let proxy = find(&[("HTTPS_PROXY", "http://Aladdin:open%20sesame@p:3128")], "a.example");
        let proxy = proxy.unwrap().unwrap();
        assert_eq!(proxy.authorization.as_ref().unwrap(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        let shown = format!("{proxy} {proxy:?}");
        assert!(
            !shown.contains("sesame") && !shown.contains("QWxh") && !shown.contains("Aladdin"),
            "{shown}"
        );
        assert!(shown.contains("has_credentials: true"), "{shown}");
    }

    #[test]
    fn what_is_no_proxy_is_said_without_showing_it() {
        let bad = |url: &str| find(&[("HTTPS_PROXY", url)], "a.example").unwrap_err();
        assert_eq!(bad("http://user:secret@"), ("HTTPS_PROXY", BadProxy::NoUrl));
        assert_eq!(bad("::"), ("HTTPS_PROXY", BadProxy::NoUrl));
        for scheme in ["https", "socks5", "ftp"] {
            let (name, error) = bad(&format!("{scheme}://user:secret@proxy:1"));
            assert_eq!((name, error), ("HTTPS_PROXY", BadProxy::Scheme));
            assert!(!error.to_string().contains("secret"));
        }
        // Also where it is not needed.
        find(&[("HTTPS_PROXY", "::"), ("NO_PROXY", "*")], "a.example").unwrap_err();
    }

    #[test]
    fn some_are_reached_straight() {
        let proxy = ("HTTPS_PROXY", "http://p:3128");
        let is_straight = |no: &str, host: &str| find(&[proxy, ("NO_PROXY", no)], host).unwrap().is_none();
        assert!(is_straight("principal.example.com", "principal.example.com"));
        assert!(is_straight("example.com", "principal.example.com"));
        assert!(is_straight(".example.com", "principal.example.com"));
        assert!(is_straight("*.example.com", "principal.example.com"));
        assert!(is_straight("other, *", "principal.example.com"));
        assert!(is_straight("10.0.0.0/8", "10.1.2.3"));
        assert!(is_straight("fd00::/8,::1", "fd00::7"));
        assert!(is_straight("principal.example.com:8443", "principal.example.com"));
        assert!(is_straight("[fd00::7]:8443", "[fd00::7]"));
        assert!(!is_straight("principal.example.com:443", "principal.example.com"));
        assert!(!is_straight("xample.com", "principal.example.com"));
        assert!(!is_straight("10.0.0.0/8", "11.1.2.3"));
        assert!(!is_straight("", "principal.example.com"));
    }

    #[test]
    fn this_machine_is_reached_straight() {
        for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "::1", "[::1]"] {
            assert_eq!(find(&[("HTTPS_PROXY", "http://p:3128")], host), Ok(None), "{host}");
        }
    }
}
