//! The principal's metrics, read as Prometheus reads them.

use std::time::Duration;

use futures::AsyncReadExt as _;
use http::Uri;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, Config};
use tiphys_principal::options::Options as PrincipalOptions;

use super::installation::{Installation, Part, runs};
use super::targets::Site;
use crate::failure::Failure;

/// More is not read: an address may be anybody's.
const LARGEST: u64 = 64 << 20;
/// How long all of them may take.
const PATIENCE: Duration = Duration::from_secs(30);
const CHECK: &str = "check that the principal runs, and --metrics-url or the permission to get pods/proxy";

/// One figure.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) value: f64,
}

impl Sample {
    /// Value of a label.
    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Where metrics are read.
pub(crate) enum Source {
    /// From a URL.
    Url(Client, String),
    /// From a pod, by way of its API server.
    Pod(Client, String),
}

impl Source {
    /// The page at a URL.
    pub(crate) fn at(url: &str) -> Result<Self, Failure> {
        let wrong = || {
            Failure::usage(format!("--metrics-url {url:?} is not the URL of a page"))
                .remedy("write it as http://127.0.0.1:8000/metrics")
        };
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
            return Err(wrong());
        }
        let path = if uri.path() == "/" { "/metrics" } else { uri.path() }.to_owned();
        let is_plain = uri.scheme_str() == Some("http");
        let mut parts = uri.into_parts();
        parts.path_and_query = None;
        let base = http::uri::Builder::from(Uri::default());
        let base = parts.scheme.into_iter().fold(base, http::uri::Builder::scheme);
        let base = parts.authority.into_iter().fold(base, http::uri::Builder::authority);
        let base = base.path_and_query("/").build().map_err(|_| wrong())?;
        let mut config = Config::new(base);
        // Where nothing is encrypted nobody has to be believed, and there may be no CAs at all, as in our image.
        config.root_cert = is_plain.then(Vec::new);
        let client = Client::try_from(config)
            .map_err(|error| Failure::because("cannot make a client for the metrics", &error))?;
        Ok(Self::Url(client, path))
    }

    /// The principal's pod in a namespace.
    pub(crate) async fn find(site: &Site) -> Result<Self, Failure> {
        let nowhere = |what: String| {
            Failure::new(what)
                .remedy("give the address of its metrics: --metrics-url http://HOST:8000/metrics")
        };
        let installation = Installation::find(site, Part::Principal).await?;
        let installation = installation.ok_or_else(|| {
            nowhere(format!("no workload in namespace {} runs a principal", site.namespace))
        })?;
        let settings = installation
            .load(Part::Principal, site, PrincipalOptions::validate)
            .map_err(Failure::Setup)?
            .value;
        let port =
            settings.metrics.ok_or_else(|| nowhere("the principal serves no metrics".to_owned()))?.port;
        let pods: Api<Pod> = Api::namespaced(site.client.clone(), &site.namespace);
        let pods = pods.list(&ListParams::default()).await.map_err(|error| {
            Failure::because(&format!("cannot list pods in namespace {}", site.namespace), &error)
        })?;
        let ready = |pod: &&Pod| {
            let is_running =
                pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
            is_running && pod.spec.as_ref().is_some_and(|spec| runs(spec, Part::Principal))
        };
        let pod = pods.iter().find(ready).and_then(|pod| pod.metadata.name.clone());
        let pod = pod.ok_or_else(|| nowhere("no pod of the principal runs".to_owned()))?;
        let path = format!("/api/v1/namespaces/{}/pods/{pod}:{port}/proxy/metrics", site.namespace);
        Ok(Self::Pod(site.client.clone(), path))
    }

    /// Reads them.
    ///
    /// # Errors
    /// A [`Failure`] if they cannot be read, or not to the end in time, if they are more than [`LARGEST`] bytes, or if no
    /// principal tells them.
    pub(crate) async fn read(&self) -> Result<Vec<Sample>, Failure> {
        self.read_within(PATIENCE).await
    }

    async fn read_within(&self, patience: Duration) -> Result<Vec<Sample>, Failure> {
        let page = tokio::time::timeout(patience, self.page()).await.map_err(|_| {
            Failure::new(format!(
                "the principal's metrics cannot be read: the page has not ended after {} s",
                patience.as_secs()
            ))
            .remedy(CHECK)
        })??;
        let samples = parse(&String::from_utf8_lossy(&page));
        // Go's principals have the second and third of these, and each has some from the start.
        let of_principal = ["tiphys_principal_", "argocd_principal_", "principal_"];
        if samples.iter().all(|sample| !of_principal.iter().any(|prefix| sample.name.starts_with(prefix))) {
            return Err(Failure::new("the page has no metrics of a principal").remedy(CHECK));
        }
        Ok(samples)
    }

    /// The page itself, of which no more is kept than may come.
    async fn page(&self) -> Result<Vec<u8>, Failure> {
        let (Self::Url(client, path) | Self::Pod(client, path)) = self;
        let request = http::Request::get(path)
            .body(Vec::new())
            .map_err(|error| Failure::because("cannot ask for the metrics", &error))?;
        let failed = |error: &(dyn std::error::Error + 'static)| {
            Failure::because("cannot read the principal's metrics", error).remedy(CHECK)
        };
        let answer = client.request_stream(request).await.map_err(|error| failed(&error))?;
        let mut page = Vec::new();
        answer.take(LARGEST + 1).read_to_end(&mut page).await.map_err(|error| failed(&error))?;
        if page.len() as u64 > LARGEST {
            return Err(Failure::new("the page with the metrics is too large").remedy("check --metrics-url"));
        }
        Ok(page)
    }
}

/// Reads the text form. What is no sample is passed over.
pub(crate) fn parse(text: &str) -> Vec<Sample> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect()
}

fn sample(line: &str) -> Option<Sample> {
    let line = line.trim();
    let end = line.find(|c: char| c == '{' || c.is_whitespace())?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

type Labels = Vec<(String, String)>;

/// Labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Option<(Labels, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (key, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = after.char_indices();
        loop {
            match characters.next()? {
                (at, '"') => {
                    rest = &after[at + 1..];
                    break;
                }
                (_, '\\') => match characters.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        }
        labels.push((key.trim().to_owned(), value));
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn samples_are_read_with_their_labels_and_noise_is_passed_over() {
        let text = "# HELP a b\n# TYPE a gauge\na 1\nb{x=\"y\",z=\"say \\\"hi\\\"\\\\ }\"} 2.5 1700000000\n\
                    broken{x=\"y\nc{} +Inf\nnonsense\nd{x=} 1\n";
        let samples = parse(text);
        let names: Vec<&str> = samples.iter().map(|sample| sample.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(samples[1].label("z"), Some("say \"hi\"\\ }"));
        assert_eq!(samples[1].value.to_string(), "2.5");
        assert!(samples[2].value.is_infinite());
    }

    /// Answers every request with a head and then `body` again and again, so many times; then nothing comes any more.
    async fn serving(body: &'static [u8], times: usize, ends: bool) -> Source {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut asked, mut bytes) = (Vec::new(), [0; 1024]);
            while !asked.ends_with(b"\r\n\r\n") {
                let read = stream.read(&mut bytes).await.unwrap();
                assert_ne!(read, 0, "nobody asks");
                asked.extend_from_slice(&bytes[..read]);
            }
            let length = if ends { body.len() * times } else { 1 << 50 };
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            for _ in 0..times {
                // Whoever has read enough goes away.
                if stream.write_all(body).await.is_err() {
                    return;
                }
            }
            std::future::pending::<()>().await;
        });
        Source::at(&url).unwrap()
    }

    async fn refused(source: &Source) -> String {
        source.read().await.unwrap_err().what()
    }

    #[tokio::test]
    async fn a_page_that_is_no_principals_is_refused() {
        for body in [&b"hello\n"[..], b"<html>1</html>\n", b"go_goroutines 7\n", b""] {
            let said = refused(&serving(body, 1, true).await).await;
            assert!(said.contains("no metrics of a principal"), "{said}");
        }
        let own = serving(b"argocd_principal_connected_agents 0\n", 1, true).await;
        assert_eq!(own.read().await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_page_without_end_is_read_to_the_limit_and_no_further() {
        let body: &'static [u8] = vec![b'x'; 1 << 20].leak();
        let said = refused(&serving(body, 1 << 20, false).await).await;
        assert!(said.contains("too large"), "{said}");
    }

    #[tokio::test]
    async fn a_page_that_stops_in_the_middle_is_not_waited_for() {
        let source = serving(b"argocd_principal_connected_agents 0\n", 1, false).await;
        let said = source.read_within(Duration::from_millis(1)).await.unwrap_err().what();
        assert!(said.contains("the page has not ended after"), "{said}");
    }

    #[tokio::test]
    async fn an_address_is_a_page() {
        assert!(
            matches!(Source::at("http://127.0.0.1:8000").ok(), Some(Source::Url(_, path)) if path == "/metrics")
        );
        assert!(matches!(Source::at("http://h:1/m").ok(), Some(Source::Url(_, path)) if path == "/m"));
        for wrong in ["", "127.0.0.1:8000", "ftp://h/", "http://"] {
            assert!(Source::at(wrong).is_err(), "{wrong:?}");
        }
    }
}
