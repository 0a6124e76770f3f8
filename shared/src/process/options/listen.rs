//! Addresses: where to listen and whom to call.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};

use tokio::net::TcpListener;

use super::Problem;
use super::value::Invalid;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Name or address of the interface; none means all of them.
    pub host: Option<String>,
    /// Port; 0 lets the kernel choose.
    pub port: u16,
}

impl Listen {
    /// All interfaces, at `port`.
    pub fn everywhere(port: u16) -> Self {
        Self { host: None, port }
    }

    /// All interfaces, at `port`, or nowhere if that is 0.
    pub fn unless_off(port: u16) -> Option<Self> {
        (port != 0).then(|| Self::everywhere(port))
    }

    /// The loopback interface, at a port that the kernel chooses.
    pub fn loopback() -> Self {
        Self { host: Some(Ipv4Addr::LOCALHOST.to_string()), port: 0 }
    }

    /// The loopback interface, at `port`, or nowhere if that is 0.
    pub fn loopback_unless_off(port: u16) -> Option<Self> {
        (port != 0).then(|| Self { port, ..Self::loopback() })
    }

    /// The address to bind. All interfaces are one dual-stack address where the machine has IPv6, as in Go.
    pub fn address(&self) -> io::Result<SocketAddr> {
        match &self.host {
            Some(host) => (host.as_str(), self.port)
                .to_socket_addrs()?
                .next()
                .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"))),
            None if has_ipv6() => Ok((Ipv6Addr::UNSPECIFIED, self.port).into()),
            None => Ok((Ipv4Addr::UNSPECIFIED, self.port).into()),
        }
    }

    /// Opens the socket.
    pub async fn bind(&self) -> io::Result<TcpListener> {
        TcpListener::bind(self.address()?).await
    }
}

/// What is wrong with `ports`, each with the option that names it: two are the same. A port of 0 is none.
pub fn check_ports(ports: &[(&str, u16)]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, (name, port)) in ports.iter().enumerate() {
        for (other, _) in ports[..index].iter().filter(|(_, other)| other == port && *port != 0) {
            problems
                .push(Problem::new(format!("{other} and {name} are both {port}"), "give each its own port"));
        }
    }
    problems
}

fn has_ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok()
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_host_port(f, self.host.as_deref().unwrap_or("*"), self.port)
    }
}

/// A peer to call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// DNS name or address, an IPv6 address without brackets.
    pub host: String,
    /// Port, never 0.
    pub port: u16,
}

impl HostPort {
    /// Checks a host given apart from its port.
    pub fn new(host: &str, port: u16) -> Result<Self, Invalid> {
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let is_v6 = bare.parse::<Ipv6Addr>().is_ok();
        let is_name = !bare.is_empty()
            && bare.len() <= 253
            && bare.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b'_');
        if !is_v6 && !is_name {
            return Err(Invalid::new(
                format!("{host:?} is not a host name or an address"),
                "write a DNS name, an IPv4 or an IPv6 address, without scheme, path or port",
            ));
        }
        if port == 0 {
            return Err(Invalid::new("port 0 cannot be called", "write a port from 1 to 65535"));
        }
        Ok(Self { host: bare.to_owned(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_host_port(f, &self.host, self.port)
    }
}

fn write_host_port(f: &mut fmt::Formatter<'_>, host: &str, port: u16) -> fmt::Result {
    if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_or_addresses_and_nothing_else() {
        for (host, shown) in [
            ("principal.example.com", "principal.example.com:443"),
            ("10.0.0.1", "10.0.0.1:443"),
            ("::1", "[::1]:443"),
            ("[fd00::1]", "[fd00::1]:443"),
        ] {
            assert_eq!(HostPort::new(host, 443).unwrap().to_string(), shown);
        }
        for bad in ["", "https://a", "a:443", "a/b", "a b", "ä", "[a"] {
            assert!(HostPort::new(bad, 443).is_err(), "{bad:?} was accepted");
        }
        assert!(HostPort::new("a", 0).is_err());
    }

    #[tokio::test]
    async fn port_zero_binds_somewhere_on_every_interface() {
        let socket = Listen::everywhere(0).bind().await.unwrap();
        let port = socket.local_addr().unwrap().port();
        assert_ne!(port, 0);
        let busy = Listen { host: None, port }.bind().await.unwrap_err();
        assert_eq!(busy.kind(), io::ErrorKind::AddrInUse);
    }
}
