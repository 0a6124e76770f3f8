//! The folder: who may look into it, and how kubectl reaches what is in it.

use std::fs::{self, DirBuilder};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::DnsName;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::file;

/// Name of cluster, user and context.
const NAME: &str = "control-plane";

/// The file that keeps everything.
pub(super) fn state(folder: &Path) -> PathBuf {
    folder.join("control-plane.redb")
}

/// The file that tells kubectl and others how to reach it.
pub(crate) fn kubeconfig(folder: &Path) -> PathBuf {
    folder.join("kubeconfig")
}

/// Makes the folder, for its owner alone.
pub(super) fn make_folder(folder: &Path) -> Result<(), Failure> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| {
        Failure::because(&format!("cannot make the folder {}", folder.display()), &error)
            .remedy("name another one with --embedded, or check the permissions of the one above")
    })
}

/// The token of those who may do everything: the one in the kubeconfig of an earlier start, or a new one.
pub(super) fn token(folder: &Path) -> Result<String, Failure> {
    let path = kubeconfig(folder);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(new_token()),
        Err(error) => return Err(Failure::because(&format!("cannot read {}", path.display()), &error)),
    };
    let document: Value = serde_saphyr::from_str(&text).unwrap_or_default();
    let users = document["users"].as_array().into_iter().flatten();
    let token = users.filter(|user| user["name"] == NAME).find_map(|user| user["user"]["token"].as_str());
    match token.filter(|token| token.len() >= 32) {
        Some(token) => Ok(token.to_owned()),
        // A cut-off or foreign file is no reason to write over it.
        None => Err(Failure::new(format!("{} has no token of user {NAME}", path.display()))
            .remedy("remove the file: it is made anew, with a new token")),
    }
}

fn new_token() -> String {
    format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
}

/// The names and addresses that certificates of this machine are for.
pub(super) fn names(hosts: &[Option<&String>], further: &[String]) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    // What is no name for a certificate is left out, for instance one with an underscore.
    let own = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    let own = Some(own).filter(|name| DnsName::try_from(name.as_str()).is_ok());
    for name in own.iter().chain(hosts.iter().copied().flatten()).chain(further) {
        let everywhere = name.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified());
        if !everywhere && !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// Writes the kubeconfig, and the CA beside it.
pub(super) fn write(
    folder: &Path,
    address: SocketAddr,
    ca: &[u8],
    token: &str,
    namespace: &str,
) -> Result<(), Failure> {
    let document = document(address, ca, token, namespace);
    let text = serde_saphyr::to_string(&document)
        .map_err(|error| Failure::because("cannot write the kubeconfig", &error))?;
    let ca = String::from_utf8_lossy(ca);
    for (path, text) in [(kubeconfig(folder), text.as_str()), (folder.join("ca.crt"), &*ca)] {
        file::replace(&path, text)
            .map_err(|error| Failure::because(&format!("cannot write {}", path.display()), &error))?;
    }
    Ok(())
}

fn document(address: SocketAddr, ca: &[u8], token: &str, namespace: &str) -> Value {
    let host = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let server = format!("https://{}", SocketAddr::new(host, address.port()));
    let ca = STANDARD.encode(ca);
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": NAME,
        "clusters": [{ "name": NAME, "cluster": { "server": server, "certificate-authority-data": ca } }],
        "users": [{ "name": NAME, "user": { "token": token } }],
        "contexts": [{ "name": NAME, "context": { "cluster": NAME, "user": NAME, "namespace": namespace } }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_stays_the_same_and_a_foreign_kubeconfig_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let token = token(folder.path()).unwrap();
        assert_eq!(token.len(), 64);
        assert_ne!(token, super::token(folder.path()).unwrap(), "it was not written yet");
        write(folder.path(), ([0, 0, 0, 0], 6443).into(), b"PEM", &token, "argocd").unwrap();
        assert_eq!(token, super::token(folder.path()).unwrap());
        let path = kubeconfig(folder.path());
        let read = kube::config::Kubeconfig::read_from(&path).unwrap();
        let cluster = read.clusters[0].cluster.as_ref().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://127.0.0.1:6443"));
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        fs::write(&path, "apiVersion: v1\nkind: Config\nusers: [{name: me, user: {token: t}}]\n").unwrap();
        assert!(super::token(folder.path()).is_err());
    }

    #[test]
    fn names_are_those_of_the_machine_and_those_given() {
        let all = "0.0.0.0".to_owned();
        let names = names(&[Some(&all), None], &["principal.example.com".to_owned(), "localhost".to_owned()]);
        assert_eq!(names.iter().filter(|name| *name == "localhost").count(), 1);
        assert!(!names.contains(&all) && names.contains(&"principal.example.com".to_owned()));
    }
}
