//! Serves an empty cluster over TLS until Ctrl-C:
//!
//! ```text
//! cargo run -p tiphys-apiserver --example serve -- cluster.kubeconfig definitions.yaml
//! kubectl --kubeconfig cluster.kubeconfig get namespaces
//! ```
//!
//! The first argument is where the kubeconfig goes; further ones are files of definitions to install.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use tiphys_apiserver::{ApiServer, Options};
use tokio_util::sync::CancellationToken;

const TOKEN: &str = "example-token";

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: serve KUBECONFIG [DEFINITIONS…]")?;
    let server = ApiServer::new(Options {
        tokens: BTreeMap::from([(TOKEN.into(), "admin".into())]),
        ..Options::default()
    });
    for file in arguments {
        server.install_crds(&std::fs::read_to_string(file)?)?;
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(server, &path))
}

async fn serve(server: ApiServer, path: &str) -> Result<(), Box<dyn Error>> {
    let key = KeyPair::generate()?;
    let certificate =
        CertificateParams::new(vec!["127.0.0.1".into(), "localhost".into()])?.self_signed(&key)?;
    let tls =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )?;
    let bound = server.bind(([127, 0, 0, 1], 0).into(), Some(Arc::new(tls))).await?;
    let kubeconfig = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: tiphys\n\
         clusters: [{{name: tiphys, cluster: {{server: 'https://{}', certificate-authority-data: {}}}}}]\n\
         users: [{{name: tiphys, user: {{token: {TOKEN}}}}}]\n\
         contexts: [{{name: tiphys, context: {{cluster: tiphys, user: tiphys}}}}]\n",
        bound.local_addr(),
        STANDARD.encode(certificate.pem()),
    );
    std::fs::write(path, kubeconfig)?;
    println!("https://{}", bound.local_addr());
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    tokio::join!(bound.run(cancel), async move {
        if let Err(error) = tokio::signal::ctrl_c().await {
            eprintln!("cannot wait for ctrl-c: {error}");
        }
        stop.cancel();
    });
    Ok(())
}
