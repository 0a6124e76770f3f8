//! What a control plane cannot be without: Argo CD's namespace and project, the CA, certificates and keys. What is there is left as
//! it is, but certificates that our CA issued are made anew when they lack a name or come to their end.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ObjectMeta, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tiphys_principal::options::{Identity, Roots, Settings, TokenKey, Transport};
use tiphys_shared::process::clock;
use tiphys_shared::process::options::KeyPair;
use tiphys_shared::security::pki::{self, Ca, Certificate};
use tiphys_shared::security::tls::Material;
use tiphys_shared::security::token::Issuer;

use super::API_CA;
use crate::failure::Failure;

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long a CA is good, and what is served with on this machine alone.
const LONG: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Certificates with less time than this are made anew.
const RENEW: Duration = Duration::from_secs(90 * 24 * 3600);
const CA_NAME: &str = "argocd-agent-ca";
const KEY_BITS: usize = 4096;
const CERTIFICATE: &str = "tls.crt";
const PRIVATE_KEY: &str = "tls.key";
const CA_CERTIFICATE: &str = "ca.crt";

/// Makes what is missing, and what the API server itself shows to its clients.
pub(super) async fn make(
    client: &Client,
    settings: &Settings,
    names: &[String],
) -> Result<Material, Failure> {
    let begin = Beginning { client, namespace: &settings.namespace };
    begin.namespace().await?;
    begin.certificates(settings, names).await?;
    if let TokenKey::Secret(name) = &settings.token_key {
        begin.token_key(name).await?;
    }
    let (namespace, name) = API_CA;
    let ca = Beginning { client, namespace }.ca(name).await?;
    let ca = ca.ok_or_else(|| {
        Failure::new(format!("Secret {namespace}/{name} has no usable CA")).remedy(format!(
            "delete it with kubectl delete secret --namespace {namespace} {name}: it is made anew"
        ))
    })?;
    ca.issue_server(names, clock::now(), LONG).map_err(|error| not_issued(&error))
}

fn not_issued(error: &pki::Error) -> Failure {
    Failure::because("cannot issue a certificate", error).remedy("correct --embedded-names")
}

struct Beginning<'a> {
    client: &'a Client,
    namespace: &'a str,
}

impl Beginning<'_> {
    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), self.namespace)
    }

    async fn namespace(&self) -> Result<(), Failure> {
        let failed = |error: &kube::Error| {
            Failure::because(&format!("cannot make namespace {}", self.namespace), error)
        };
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        if namespaces.get_opt(self.namespace).await.map_err(|error| failed(&error))?.is_some() {
            return Ok(());
        }
        let metadata = ObjectMeta { name: Some(self.namespace.to_owned()), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        namespaces.create(&PostParams::default(), &namespace).await.map_err(|error| failed(&error))?;
        // As Argo CD makes it at its first start.
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("argoproj.io", "v1alpha1", "AppProject"));
        let project = DynamicObject::new("default", &resource).data(json!({"spec": {
            "sourceRepos": ["*"],
            "sourceNamespaces": ["*"],
            "destinations": [{ "name": "*", "server": "*", "namespace": "*" }],
            "clusterResourceWhitelist": [{ "group": "*", "kind": "*" }],
        }}));
        let projects: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), self.namespace, &resource);
        projects
            .create(&PostParams::default(), &project)
            .await
            .map(drop)
            .map_err(|error| Failure::because("cannot make the default project", &error))
    }

    async fn certificates(&self, settings: &Settings, names: &[String]) -> Result<(), Failure> {
        let mut wanted = Vec::new();
        let mut roots = None;
        if let Transport::Tls { identity, roots: from, .. } = &settings.transport {
            if let Identity::Kept(KeyPair::Secret(name)) = identity {
                wanted.push(name);
            }
            roots = Some(from);
        }
        if let Some(proxy) = &settings.proxy {
            if let KeyPair::Secret(name) = &proxy.identity {
                wanted.push(name);
            }
            roots = roots.or(Some(&proxy.roots));
        }
        let ca = match roots {
            Some(Roots::Secret(name)) => self.ca(name).await?,
            // What others keep in files, they issue with.
            _ => None,
        };
        for name in wanted {
            self.identity(name, ca.as_ref(), names).await?;
        }
        Ok(())
    }

    /// The CA in a Secret, which is made if it is not there. None if it is one that cannot issue here.
    async fn ca(&self, name: &str) -> Result<Option<Ca>, Failure> {
        let Some(secret) = self.get(name).await? else {
            let ca = Ca::generate(CA_NAME, clock::now(), LONG)
                .map_err(|error| Failure::because("cannot make a CA", &error))?;
            let pair = [(CERTIFICATE, ca.certificate_pem().as_bytes()), (PRIVATE_KEY, ca.key_pem().expose())];
            self.put(name, Some("kubernetes.io/tls"), &pair, None).await?;
            return Ok(Some(ca));
        };
        let data = secret.data.unwrap_or_default();
        let (Some(certificate), Some(key)) = (data.get(CERTIFICATE), data.get(PRIVATE_KEY)) else {
            return Ok(None);
        };
        match Ca::from_pem(&certificate.0, &key.0) {
            Ok(ca) => Ok(Some(ca)),
            Err(error) => {
                tracing::warn!(secret = name, %error, "this CA cannot issue certificates here");
                Ok(None)
            }
        }
    }

    /// A server's certificate and key.
    async fn identity(&self, name: &str, ca: Option<&Ca>, names: &[String]) -> Result<(), Failure> {
        let present = self.get(name).await?;
        let Some(ca) = ca else { return Ok(()) };
        if let Some(secret) = &present {
            let chain = secret.data.as_ref().and_then(|data| data.get(CERTIFICATE));
            let certificate = chain.and_then(|chain| Certificate::from_pem(&chain.0).ok());
            if certificate
                .is_none_or(|certificate| !ca.has_issued(&certificate) || is_good(&certificate, names))
            {
                return Ok(());
            }
            tracing::info!(secret = name, "certificate is made anew");
        }
        let made = ca.issue_server(names, clock::now(), YEAR).map_err(|error| not_issued(&error))?;
        let pair =
            [(CERTIFICATE, &*made.chain), (PRIVATE_KEY, made.key.expose()), (CA_CERTIFICATE, &*made.ca)];
        self.put(name, Some("kubernetes.io/tls"), &pair, present).await
    }

    async fn token_key(&self, name: &str) -> Result<(), Failure> {
        if self.get(name).await?.is_some() {
            return Ok(());
        }
        // It takes a while.
        let made = tokio::task::spawn_blocking(|| Issuer::generate_key(KEY_BITS)).await;
        let failed = |error: &(dyn std::error::Error + 'static)| {
            Failure::because("cannot make the key that signs tokens", error)
        };
        let key = made.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        self.put(name, None, &[("jwt.key", key.expose())], None).await
    }

    async fn get(&self, name: &str) -> Result<Option<Secret>, Failure> {
        self.secrets().get_opt(name).await.map_err(|error| {
            Failure::because(&format!("cannot read Secret {}/{name}", self.namespace), &error)
        })
    }

    /// Writes a Secret, over `present` if there is one.
    async fn put(
        &self,
        name: &str,
        kind: Option<&str>,
        data: &[(&str, &[u8])],
        present: Option<Secret>,
    ) -> Result<(), Failure> {
        let is_new = present.is_none();
        let mut secret = present.unwrap_or_else(|| Secret {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            type_: kind.map(str::to_owned),
            ..Secret::default()
        });
        let values = secret.data.get_or_insert_with(BTreeMap::new);
        values.extend(data.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.to_vec()))));
        let written = match is_new {
            true => self.secrets().create(&PostParams::default(), &secret).await,
            false => self.secrets().replace(name, &PostParams::default(), &secret).await,
        };
        written.map(drop).map_err(|error| {
            Failure::because(&format!("cannot write Secret {}/{name}", self.namespace), &error)
        })
    }
}

/// Whether a certificate has all of the names, and time.
fn is_good(certificate: &Certificate, names: &[String]) -> bool {
    let has = |name: &String| match name.parse() {
        Ok(address) => certificate.addresses.contains(&address),
        Err(_) => certificate.dns_names.contains(name),
    };
    let end = clock::now().checked_add(RENEW);
    end.is_ok_and(|end| certificate.not_after > end) && names.iter().all(has)
}
