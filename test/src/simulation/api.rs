//! An API server as a side reaches it: late, away, busy, and at times unheard after the effect.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use http::{Method, Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Full};
use kube::client::Body as RequestBody;
use parking_lot::Mutex;
use serde_json::json;
use tiphys_apiserver::{ApiServer, ResponseBody, Service};
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tower::BoxError;

use super::heard::Heard;
use super::journal::Journal;

/// What is wrong between a side and its API server.
#[derive(Debug)]
pub(crate) struct Trouble {
    name: String,
    state: Mutex<State>,
    heard: Mutex<Heard>,
    journal: Arc<Journal>,
}

#[derive(Debug)]
struct State {
    rng: Rng,
    /// Share of calls that go wrong.
    rate: f64,
    /// The server cannot be reached until then.
    away: Option<Instant>,
}

/// What becomes of one call.
enum Fate {
    Well,
    /// Refused with this code, without effect.
    Refused(u16, &'static str),
    /// No connection, no effect.
    Unreachable,
    /// It has its effect, and the answer is lost.
    Unheard,
    /// It has its effect, and something on the way answers with an error.
    Misheard,
}

impl Trouble {
    pub(crate) fn new(name: &str, rng: Rng, rate: f64, journal: Arc<Journal>) -> Arc<Self> {
        let state = Mutex::new(State { rng, rate, away: None });
        Arc::new(Self { name: name.to_owned(), state, heard: Mutex::default(), journal })
    }

    /// From now on every call succeeds.
    pub(crate) fn end(&self) {
        let mut state = self.state.lock();
        state.rate = 0.0;
        state.away = None;
    }

    /// The server cannot be reached for a while.
    pub(crate) fn go_away(&self, time: Duration) {
        self.state.lock().away = Some(Instant::now() + time);
    }

    /// Whether the side has been told that this object is no more.
    pub(crate) fn knows_the_end_of(&self, uid: &str) -> bool {
        self.heard.lock().is_gone(uid)
    }

    fn fate(&self, method: &Method, watch: bool) -> Fate {
        let mut state = self.state.lock();
        if state.away.is_some_and(|until| until > Instant::now()) {
            return Fate::Unreachable;
        }
        let (rate, rng) = (state.rate, &mut state.rng);
        if rng.f64() >= rate {
            return Fate::Well;
        }
        let write = method != Method::GET;
        match rng.u8(0..8) {
            0 => Fate::Unreachable,
            1 => Fate::Refused(500, "InternalError"),
            2 => Fate::Refused(429, "TooManyRequests"),
            3 => Fate::Refused(503, "ServiceUnavailable"),
            4 if watch => Fate::Refused(410, "Expired"),
            4 | 5 if method == Method::PUT || method == Method::DELETE => Fate::Refused(409, "Conflict"),
            6 if write => Fate::Misheard,
            _ => Fate::Unheard,
        }
    }

    /// How long a call or an event of a watch is on its way.
    fn delay(&self) -> Duration {
        let mut state = self.state.lock();
        let (rate, rng) = (state.rate, &mut state.rng);
        if rng.f64() < 0.5 {
            return Duration::ZERO;
        }
        let longest = if rng.f64() < rate / 2.0 { 4_000 } else { 20 };
        Duration::from_millis(rng.u64(0..longest))
    }

    /// When a watch breaks.
    fn end_of_watch(&self) -> Option<Duration> {
        let mut state = self.state.lock();
        let (rate, rng) = (state.rate, &mut state.rng);
        (rate > 0.0).then(|| Duration::from_secs_f64(rng.f64() * 6.0 / rate))
    }
}

/// A client of `server` with all that may go wrong. Once `dead`, it neither does nor tells anything any more.
pub(crate) fn client(server: &ApiServer, trouble: &Arc<Trouble>, dead: &CancellationToken) -> kube::Client {
    kube::Client::new(
        Faulty { inner: server.service(), trouble: Arc::clone(trouble), dead: dead.clone() },
        "default",
    )
}

struct Faulty {
    inner: Service,
    trouble: Arc<Trouble>,
    dead: CancellationToken,
}

impl tower::Service<Request<RequestBody>> for Faulty {
    type Response = Response<Answer>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let (inner, trouble, dead) = (self.inner.clone(), Arc::clone(&self.trouble), self.dead.clone());
        Box::pin(async move {
            let patience = dead.clone();
            tokio::select! {
                biased;
                // Who has crashed hears nothing, and does nothing with what it hears.
                () = patience.cancelled() => std::future::pending().await,
                answer = carry_out(inner, trouble, dead, request) => answer,
            }
        })
    }
}

async fn carry_out(
    mut inner: Service,
    trouble: Arc<Trouble>,
    dead: CancellationToken,
    request: Request<RequestBody>,
) -> Result<Response<Answer>, BoxError> {
    let watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let selector = request.uri().query().into_iter().flat_map(|query| query.split('&'));
    let selector = selector.filter(|part| part.contains("Selector")).collect::<Vec<_>>().join("&");
    let what = format!("{path}?{selector}");
    pass(trouble.delay()).await;
    let fate = trouble.fate(&method, watch);
    let note = |what: &str| trouble.journal.note(&trouble.name, format_args!("{what}: {method} {path}"));
    match fate {
        Fate::Unreachable => {
            note("unreachable");
            return Err(reset());
        }
        Fate::Refused(code, reason) => {
            note(reason);
            return Ok(failure(code, reason));
        }
        _ => {}
    }
    let response = tower::Service::call(&mut inner, request).await?;
    pass(trouble.delay()).await;
    match fate {
        Fate::Unheard => {
            note("unheard");
            Err(reset())
        }
        Fate::Misheard => {
            note("misheard");
            Ok(failure(500, "InternalError"))
        }
        _ => {
            let (parts, mut body) = response.into_parts();
            if method == Method::GET && !watch {
                let whole =
                    body.collect().await.map_or_else(|never| match never {}, |whole| whole.to_bytes());
                trouble.heard.lock().list(&what, &whole);
                body = Full::new(whole).boxed_unsync();
            }
            let breaks = watch.then(|| trouble.end_of_watch()).flatten();
            let body = Answer {
                inner: body,
                breaks: breaks.map(|after| Box::pin(sleep(after))),
                delay: None,
                waiting: None,
                trouble: watch.then_some(trouble),
                what,
                dead,
            };
            Ok(Response::from_parts(parts, body))
        }
    }
}

async fn pass(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

fn reset() -> BoxError {
    std::io::Error::from(std::io::ErrorKind::ConnectionReset).into()
}

fn failure(code: u16, reason: &str) -> Response<Answer> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": reason, "code": code, "message": "simulated",
    });
    let body = Full::new(Bytes::from(status.to_string())).boxed_unsync();
    let body = Answer {
        inner: body,
        breaks: None,
        delay: None,
        waiting: None,
        trouble: None,
        what: String::new(),
        dead: CancellationToken::new(),
    };
    let mut response = Response::new(body);
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}

/// The body of an answer. That of a watch is late, and breaks.
pub(crate) struct Answer {
    inner: ResponseBody,
    breaks: Option<Pin<Box<Sleep>>>,
    /// The next part has arrived, and is passed on then.
    delay: Option<Pin<Box<Sleep>>>,
    waiting: Option<Frame<Bytes>>,
    trouble: Option<Arc<Trouble>>,
    what: String,
    dead: CancellationToken,
}

impl Answer {
    /// Passes a part on, and takes down what it tells.
    fn tell(&self, frame: Frame<Bytes>) -> Frame<Bytes> {
        if let (Some(trouble), Some(part)) = (&self.trouble, frame.data_ref()) {
            trouble.heard.lock().watch(&self.what, part);
        }
        frame
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if this.dead.is_cancelled() {
            return Poll::Pending;
        }
        if let Some(breaks) = &mut this.breaks
            && breaks.as_mut().poll(context).is_ready()
        {
            this.breaks = None;
            this.inner = Full::default().boxed_unsync();
            this.waiting = None;
            this.delay = None;
            if let Some(trouble) = this.trouble.take() {
                trouble.journal.note(&trouble.name, format_args!("a watch breaks"));
            }
            return Poll::Ready(Some(Err(reset())));
        }
        if this.waiting.is_none() {
            match ready!(Pin::new(&mut this.inner).poll_frame(context)) {
                Some(Ok(frame)) => {
                    let Some(trouble) = &this.trouble else { return Poll::Ready(Some(Ok(frame))) };
                    let delay = trouble.delay();
                    if delay.is_zero() {
                        return Poll::Ready(Some(Ok(this.tell(frame))));
                    }
                    this.waiting = Some(frame);
                    this.delay = Some(Box::pin(sleep_until(Instant::now() + delay)));
                }
                Some(Err(never)) => match never {},
                None => return Poll::Ready(None),
            }
        }
        if let Some(delay) = &mut this.delay {
            ready!(delay.as_mut().poll(context));
        }
        this.delay = None;
        Poll::Ready(this.waiting.take().map(|frame| Ok(this.tell(frame))))
    }
}
