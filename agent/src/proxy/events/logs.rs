//! The log of a container, for a principal of the Go project.

use std::sync::Arc;

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use tiphys_proto::log_stream::LogStreamData;
use tiphys_shared::model::streamed::LogRequest;
use tiphys_shared::proxy::audit::Record;
use tiphys_shared::proxy::body::Body;
use tiphys_shared::proxy::refusal::Refusal;
use tokio::sync::mpsc;
use tonic::Status;

use super::super::Proxy;
use super::cut;
use super::streams::{LEAVE, PIECE, Sent, not_served};
use crate::connection::Answers;

/// Pieces that wait to be sent.
const QUEUE: usize = 4;

/// Sends a log, piece by piece as it comes, until it ends or nobody wants it any more.
pub(super) async fn answer(proxy: Option<Arc<Proxy>>, answers: &Answers, request: LogRequest) -> Sent {
    let (say, messages) = mpsc::channel(QUEUE);
    let mut sending = std::pin::pin!(answers.log(messages));
    let outcome = tokio::select! {
        biased;
        outcome = &mut sending => outcome,
        () = tell(proxy, &request, say) => match tokio::time::timeout(LEAVE, sending).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Status::deadline_exceeded("the principal does not end the stream")),
        },
    };
    Sent::of(&request.uuid, outcome.map(drop))
}

/// Says a log to its end, or why there is none. If it cannot be said, the stream has ended, and says why itself.
async fn tell(proxy: Option<Arc<Proxy>>, request: &LogRequest, say: mpsc::Sender<LogStreamData>) {
    let named = LogStreamData { request_uuid: request.uuid.clone(), ..LogStreamData::default() };
    // By this the principal knows that the stream is here.
    if say.send(named.clone()).await.is_err() {
        return;
    }
    let log = match proxy {
        Some(proxy) => proxy.log(request).await,
        None => Err(not_served()),
    };
    let mut error = String::new();
    match log {
        Err(refusal) => error = refusal.message,
        Ok(mut log) => {
            while let Some(frame) = log.frame().await {
                let mut data = match frame.map(http_body::Frame::into_data) {
                    Ok(Ok(data)) => data,
                    Ok(Err(_)) => continue,
                    Err(broken) => {
                        error = format!("the log broke off: {broken}");
                        break;
                    }
                };
                while !data.is_empty() {
                    let data = data.split_to(PIECE.min(data.len()));
                    if say.send(LogStreamData { data, ..named.clone() }).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
    // The stream may have ended meanwhile.
    _ = say.send(LogStreamData { eof: true, error, ..named }).await;
}

impl Proxy {
    /// A log as the API server sends it.
    async fn log(&self, request: &LogRequest) -> Result<Body, Refusal> {
        self.metrics.proxy_requests.inc();
        let mut record = Record::new(cut(&request.uuid), Method::GET, "");
        let pod = (request.namespace.as_str(), request.pod_name.as_str(), "log");
        match self.ask_pod(&mut record, pod, &parameters(request), &[]).await {
            Ok(answer) => {
                if request.follow {
                    record.begins();
                }
                Ok(record.follow(StatusCode::OK, answer.into_body()))
            }
            Err(refusal) => {
                self.metrics.proxy_errors.inc();
                record.refused(&refusal);
                Err(refusal)
            }
        }
    }
}

fn parameters(request: &LogRequest) -> Vec<(&'static str, String)> {
    let LogRequest { container, since_time, .. } = request;
    let flags = [
        ("follow", request.follow),
        ("previous", request.previous),
        ("timestamps", request.timestamps),
        ("insecureSkipTLSVerifyBackend", request.insecure_skip_tls_verify_backend),
    ];
    let numbers = [
        ("tailLines", request.tail_lines),
        ("sinceSeconds", request.since_seconds),
        ("limitBytes", request.limit_bytes),
    ];
    let texts = [("container", container), ("sinceTime", since_time)];
    let flags = flags.into_iter().filter(|(_, on)| *on).map(|(name, _)| (name, "true".to_owned()));
    let numbers = numbers.into_iter().filter_map(|(name, number)| Some((name, number?.to_string())));
    let texts = texts.into_iter().filter(|(_, text)| !text.is_empty());
    flags.chain(numbers).chain(texts.map(|(name, text)| (name, text.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_what_the_api_server_is_asked() {
        assert!(parameters(&LogRequest::default()).is_empty());
        let request = LogRequest {
            container: "c".into(),
            follow: true,
            tail_lines: Some(0),
            since_time: "2026-11-21T20:00:00Z".into(),
            ..LogRequest::default()
        };
        let expected = [
            ("follow", "true"),
            ("tailLines", "0"),
            ("container", "c"),
            ("sinceTime", "2026-11-21T20:00:00Z"),
        ];
        assert_eq!(parameters(&request), expected.map(|(name, value)| (name, value.to_owned())));
    }
}
