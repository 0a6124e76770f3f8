//! One line in the log for each request, at both ends of the tunnel under one id; two for one that lasts.
//!
//! The target is `audit`, so that the lines can be kept apart from the rest.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body::{Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::body::{self, Body, BoxError};
use super::refusal::Refusal;

/// Longest path that is written.
const LONGEST: usize = 1024;

/// What is known of a request when it comes. How it ended is written once it is dropped.
#[derive(Debug)]
pub struct Record {
    /// Its name at both ends.
    pub id: String,
    /// Who makes it; empty where nobody could be made out.
    pub user: String,
    /// Whose cluster it is for; empty where none could be made out.
    pub agent: String,
    /// The method.
    pub method: Method,
    /// What is done, in Kubernetes' words.
    pub verb: &'static str,
    /// The path, with neither host nor query.
    pub path: String,
    began: Instant,
    outcome: Outcome,
    sent: u64,
    received: u64,
}

#[derive(Debug)]
enum Outcome {
    /// No answer came while somebody waited for it.
    Abandoned,
    Refused {
        status: StatusCode,
        word: &'static str,
        message: String,
    },
    Answered {
        status: StatusCode,
        complete: bool,
    },
}

impl Record {
    /// A request that has just come.
    pub fn new(id: String, method: Method, path: &str) -> Self {
        Self {
            id,
            user: String::new(),
            agent: String::new(),
            method,
            verb: "",
            path: path.chars().take(LONGEST).collect(),
            began: Instant::now(),
            outcome: Outcome::Abandoned,
            sent: 0,
            received: 0,
        }
    }

    /// Notes that it goes on for as long as both sides like.
    pub fn begins(&self) {
        let Self { id, user, agent, method, verb, path, .. } = self;
        tracing::info!(target: "audit", stage = "begin", id, user, agent, %method, verb, path);
    }

    /// Writes that it is refused.
    pub fn refused(mut self, refusal: &Refusal) {
        let Refusal { code, word, message } = refusal;
        self.outcome = Outcome::Refused { status: *code, word, message: message.clone() };
    }

    /// Notes an answer that is there as a whole, of so many bytes.
    pub fn answered(mut self, status: StatusCode, length: usize) {
        self.outcome = Outcome::Answered { status, complete: true };
        self.sent = length as u64;
    }

    /// Follows the body of the answer to its end.
    pub fn follow<B>(mut self, status: StatusCode, body: B) -> Body
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        self.outcome = Outcome::Answered { status, complete: body.is_end_stream() };
        body::boxed(Followed { body, record: Some(self) })
    }

    /// Notes what an upgraded connection has carried, to the cluster and from it.
    pub fn switched(mut self, outcome: Result<(u64, u64), std::io::Error>) {
        self.outcome =
            Outcome::Answered { status: StatusCode::SWITCHING_PROTOCOLS, complete: outcome.is_ok() };
        (self.received, self.sent) = outcome.unwrap_or_default();
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let Self { id, user, agent, method, verb, path, began, outcome, sent, received } = self;
        let seconds = began.elapsed().as_secs_f64();
        match outcome {
            Outcome::Abandoned => tracing::info!(
                target: "audit", stage = "abandoned", id, user, agent, %method, verb, path, seconds
            ),
            Outcome::Refused { status, word, message } => tracing::info!(
                target: "audit", stage = "refused", id, user, agent, %method, verb, path,
                status = status.as_u16(), reason = word, message, seconds
            ),
            Outcome::Answered { status, complete } => tracing::info!(
                target: "audit", stage = "end", id, user, agent, %method, verb, path,
                status = status.as_u16(), complete, sent, received, seconds
            ),
        }
    }
}

/// A body that is counted. Only its data passes: nothing in Kubernetes sends trailers.
struct Followed<B> {
    body: B,
    /// Until it is dropped.
    record: Option<Record>,
}

impl<B> Drop for Followed<B> {
    fn drop(&mut self) {
        let record = self.record.take();
        // The last piece of the answer goes out first: nobody waits for the line. No end of a runtime loses it.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move { drop(record) });
        }
    }
}

impl<B> http_body::Body for Followed<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
            match frame {
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    if let Some(record) = &mut self.record {
                        record.sent += data.len() as u64;
                    }
                    self.note_end();
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => {
                    self.complete();
                    return Poll::Ready(None);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: http_body::Body> Followed<B> {
    /// A body whose length is known is not asked again after its last piece.
    fn note_end(&mut self) {
        if self.body.is_end_stream() {
            self.complete();
        }
    }

    fn complete(&mut self) {
        if let Some(Record { outcome: Outcome::Answered { complete, .. }, .. }) = &mut self.record {
            *complete = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use http_body_util::{BodyExt as _, Full};
    use parking_lot::Mutex;
    use serde_json::Value;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What `act` makes of a record, line by line.
    fn written(act: impl FnOnce(Record)) -> Vec<Value> {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            let mut record = Record::new("id-1".into(), Method::GET, "/api/v1/pods");
            record.user = "alice".into();
            record.agent = "edge".into();
            record.verb = "list";
            act(record);
        });
        let lines = String::from_utf8(lines.0.lock().clone()).unwrap();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn stages(lines: &[Value]) -> Vec<&str> {
        lines.iter().map(|line| line["fields"]["stage"].as_str().unwrap()).collect()
    }

    fn drain(mut body: Body) {
        let waker = std::task::Waker::noop();
        let mut frames =
            std::pin::pin!(async { while body.frame().await.is_some_and(|frame| frame.is_ok()) {} });
        assert!(Future::poll(frames.as_mut(), &mut Context::from_waker(waker)).is_ready());
    }

    #[test]
    fn a_request_has_one_line_with_who_what_and_how_it_ended() {
        let lines = written(|record| drain(record.follow(StatusCode::OK, Full::new(Bytes::from("12345")))));
        assert_eq!(stages(&lines), ["end"]);
        assert_eq!(lines[0]["target"], "audit");
        let fields = &lines[0]["fields"];
        for (field, expected) in [
            ("id", Value::from("id-1")),
            ("user", "alice".into()),
            ("agent", "edge".into()),
            ("method", "GET".into()),
            ("verb", "list".into()),
            ("path", "/api/v1/pods".into()),
            ("status", 200.into()),
            ("complete", true.into()),
            ("sent", 5.into()),
        ] {
            assert_eq!(fields[field], expected, "{field}");
        }
    }

    #[test]
    fn a_refusal_an_end_before_the_end_and_a_client_that_leaves_are_told_apart() {
        let refusal = Refusal::new(StatusCode::FORBIDDEN, "policy", "no");
        let lines = written(|record| record.refused(&refusal));
        assert_eq!((stages(&lines), &lines[0]["fields"]["reason"]), (vec!["refused"], &"policy".into()));

        let lines = written(|record| drop(record.follow(StatusCode::OK, Full::new(Bytes::from("12345")))));
        assert_eq!((stages(&lines), &lines[0]["fields"]["complete"]), (vec!["end"], &false.into()));

        assert_eq!(stages(&written(drop)), ["abandoned"]);
    }

    #[test]
    fn within_a_runtime_the_line_comes_after_the_answer_also_if_the_runtime_ends() {
        let lines = written(|record| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async { drain(record.follow(StatusCode::OK, Full::new(Bytes::from("12345")))) });
        });
        assert_eq!(stages(&lines), ["end"]);
    }

    #[test]
    fn what_lasts_has_a_line_when_it_begins_too() {
        let lines = written(|record| {
            record.begins();
            record.switched(Ok((10, 20)));
        });
        assert_eq!(stages(&lines), ["begin", "end"]);
        let end = &lines[1]["fields"];
        assert_eq!((&end["status"], &end["received"], &end["sent"]), (&101.into(), &10.into(), &20.into()));
    }
}
