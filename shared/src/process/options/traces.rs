//! Where traces are sent.

use super::{HostPort, Problem};

/// A collector of OpenTelemetry traces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector {
    /// Where it takes OTLP over gRPC.
    pub address: HostPort,
    /// Whether it is reached without TLS.
    pub insecure: bool,
}

/// The collector at an address, if one is given.
///
/// # Errors
/// [`Problem`] if the address is none.
pub fn collector(address: Option<&str>, insecure: bool) -> Result<Option<Collector>, Problem> {
    const PORT: u16 = 4317;
    let Some(text) = address.map(str::trim).filter(|text| !text.is_empty()) else { return Ok(None) };
    let invalid = |what: String| Problem::new(what, "give host:port, such as --otlp-address collector:4317");
    if text.contains("://") {
        return Err(invalid(format!("--otlp-address {text} is a URL")));
    }
    // An IPv6 address without brackets has no port behind it.
    let bare = text.parse::<std::net::Ipv6Addr>().is_ok();
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !bare && !port.ends_with(']') => (
            host,
            port.parse()
                .map_err(|_| invalid(format!("--otlp-address {text} has no port that is a number")))?,
        ),
        _ => (text, PORT),
    };
    match HostPort::new(host, port) {
        Ok(address) => Ok(Some(Collector { address, insecure })),
        Err(error) => Err(Problem::new(format!("--otlp-address {text}: {}", error.what), error.remedy)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port_and_anything_else_is_a_mistake() {
        let read = |text: &str| collector(Some(text), true).map(|found| found.unwrap().address.to_string());
        assert_eq!(collector(None, false), Ok(None));
        assert_eq!(collector(Some(""), false), Ok(None));
        for (text, address) in [
            ("localhost:4317", "localhost:4317"),
            ("tempo.monitoring.svc", "tempo.monitoring.svc:4317"),
            ("[::1]:9", "[::1]:9"),
            ("::1", "[::1]:4317"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(address), "{text}");
        }
        for wrong in ["http://localhost:4317", "localhost:", "localhost:x", ":4317", "localhost:0", "a b:1"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
