//! Where Argo CD reaches the resource proxy, as operators write it. Pure.

use tiphys_shared::kube::cluster_secret::{agent_in_url, server};
use tiphys_shared::model::AgentName;
use tiphys_shared::process::options::HostPort;

use crate::failure::Failure;

/// The URL under which Argo CD reaches an agent: `address` is HOST:PORT, or the URL itself.
pub(super) fn server_url(address: &str, agent: &AgentName) -> Result<String, Failure> {
    let wrong = |what: String| {
        Failure::usage(format!("--resource-proxy-server {address:?} {what}"))
            .remedy("write HOST:PORT, as argocd-agent-resource-proxy:9090 or [2001:db8::1]:9090")
    };
    if let Some(rest) = address.strip_prefix("https://") {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        host_port(authority).map_err(wrong)?;
        return match agent_in_url(address) {
            Some(name) if name == agent.as_str() => Ok(address.to_owned()),
            Some(other) => Err(wrong(format!("names another agent, {other}"))),
            None => Err(wrong(format!("does not say agentName={agent}"))),
        };
    }
    host_port(address).map_err(wrong)?;
    Ok(server(address, agent))
}

fn host_port(text: &str) -> Result<HostPort, String> {
    let (host, port) = text.rsplit_once(':').ok_or("has no port")?;
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return Err("has an IPv6 address without brackets".to_owned());
    }
    let port = port.parse().map_err(|_| "has no port from 1 to 65535")?;
    HostPort::new(host, port).map_err(|error| error.what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_is_refused() {
        let url = |text: &str| server_url(text, &AgentName::new("edge-1").unwrap());
        assert_eq!(url("[2001:db8::1]:9090").unwrap(), "https://[2001:db8::1]:9090?agentName=edge-1");
        assert!(url("https://proxy:9090?agentName=edge-1").is_ok());
        for wrong in [
            "",
            "proxy",
            "proxy:",
            "proxy:0",
            "proxy:70000",
            "2001:db8::1:9090",
            "a b:1",
            "proxy:1/../x:2",
            "https://proxy:9090",
            "https://proxy:9090?agentName=edge-2",
            "https://?agentName=edge-1",
            "http://proxy:80",
        ] {
            assert!(url(wrong).is_err(), "{wrong:?}");
        }
    }
}
