use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Notify, mpsc};
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::proxy::body;

/// Two byte streams, each the other end of the other.
fn joined() -> (ByteStream, ByteStream) {
    let (near, mut to_far) = mpsc::channel(QUEUE);
    let (far, mut to_near) = mpsc::channel(QUEUE);
    let incoming = futures::stream::poll_fn(move |cx| to_near.poll_recv(cx)).map(Ok);
    let near = ByteStream::new(incoming, near);
    let incoming = futures::stream::poll_fn(move |cx| to_far.poll_recv(cx)).map(Ok);
    (near, ByteStream::new(incoming, far))
}

/// A tunnel whose agent answers by `answer`. It lasts as long as the handles.
async fn tunnel<F, A>(answer: F) -> (Requester, [AbortOnDropHandle<()>; 2])
where
    F: Fn(Request<Incoming>) -> A + Send + 'static,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    let (near, far) = joined();
    let service = service_fn(move |request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let server = tokio::spawn(async move { _ = serve(far, service).await });
    let (requester, carried) = open(near).await.unwrap();
    let client = tokio::spawn(async move { _ = carried.await });
    (requester, [server, client].map(AbortOnDropHandle::new))
}

fn request(path: &str) -> Request<Body> {
    Request::builder().uri(format!("http://cluster{path}")).body(body::empty()).unwrap()
}

/// A body of so many pieces of 64 KiB, each made when it is asked for.
fn pieces(count: usize, made: Arc<AtomicUsize>) -> Body {
    let piece = Bytes::from(vec![b'x'; 64 << 10]);
    body::boxed(StreamBody::new(futures::stream::iter(0..count).map(move |_| {
        made.fetch_add(1, Ordering::Relaxed);
        Ok::<_, Infallible>(http_body::Frame::data(piece.clone()))
    })))
}

#[tokio::test]
async fn bodies_of_any_size_pass_in_both_directions() {
    let (requester, _tasks) = tunnel(async |request| Response::new(body::boxed(request.into_body()))).await;
    let mut request = request("/echo");
    *request.method_mut() = Method::POST;
    *request.body_mut() = pieces(300, Arc::default());
    let answer = requester.send(request).await.unwrap();
    let mut length = 0;
    let mut body = answer.into_body();
    while let Some(frame) = body.frame().await {
        length += frame.unwrap().into_data().unwrap().len();
    }
    assert_eq!(length, 300 * (64 << 10));
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_held_back_and_holds_up_no_other() {
    let made = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&made);
    let (requester, _tasks) = tunnel(move |request| {
        let made = Arc::clone(&counted);
        async move {
            match request.uri().path() {
                "/large" => Response::new(pieces(100_000, made)),
                _ => Response::new(body::full("small")),
            }
        }
    })
    .await;
    let mut stuck = Vec::new();
    for _ in 0..100 {
        stuck.push(requester.send(request("/large")).await.unwrap());
    }
    for _ in 0..100 {
        let answer = requester.send(request("/small")).await.unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "small");
    }
    let most = (STREAM_WINDOW as usize / (64 << 10) + 4) * stuck.len();
    assert!(made.load(Ordering::Relaxed) <= most, "{made:?} pieces were made, more than {most}");
    // Those that are stuck still are whole.
    let frame = stuck.remove(0).into_body().frame().await.unwrap().unwrap();
    assert!(frame.into_data().unwrap().starts_with(b"xxxx"));
}

#[tokio::test]
async fn who_loses_interest_ends_the_request_at_the_other_end() {
    let (begun, ended) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
    let (begins, ends) = (Arc::clone(&begun), Arc::clone(&ended));
    let (requester, _tasks) = tunnel(move |request| {
        let (begins, guard) = (Arc::clone(&begins), CountOnDrop(Arc::clone(&ends)));
        async move {
            if request.uri().path() == "/silent" {
                begins.notify_one();
                std::future::pending::<()>().await;
            }
            let endless = futures::stream::pending::<Result<http_body::Frame<Bytes>, Infallible>>();
            Response::new(body::boxed(StreamBody::new(endless.map(move |frame| {
                _ = &guard;
                frame
            }))))
        }
    })
    .await;
    // While it waits for the head of the answer.
    tokio::select! {
        answer = requester.send(request("/silent")) => panic!("answered: {answer:?}"),
        () = begun.notified() => {}
    }
    ended.acquire().await.unwrap().forget();
    // And while the answer goes on: a thousand at once do no harm.
    let mut answers = Vec::new();
    for _ in 0..1000 {
        answers.push(requester.send(request("/watch")).await.unwrap());
    }
    drop(answers);
    ended.acquire_many(1000).await.unwrap().forget();
    assert!(requester.send(request("/watch")).await.is_ok());
}

struct CountOnDrop(Arc<Semaphore>);

impl Drop for CountOnDrop {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

#[tokio::test]
async fn no_more_requests_are_under_way_than_may_be() {
    let (requester, _tasks) = tunnel(async |_| Response::new(body::empty())).await;
    let slots: Vec<_> = std::iter::from_fn(|| requester.reserve()).collect();
    assert_eq!(slots.len(), MAX_REQUESTS);
    drop(slots);
    assert!(requester.reserve().is_some());
}

#[tokio::test]
async fn an_upgraded_connection_ends_one_direction_at_a_time() {
    let (requester, _tasks) = tunnel(async |request: Request<Incoming>| {
        let (mut parts, _) = request.into_parts();
        assert!(upgrade::unpack(&mut parts).unwrap());
        assert_eq!(parts.method, Method::POST);
        assert_eq!(parts.headers["upgrade"], "SPDY/3.1");
        let on_client = hyper::upgrade::on(Request::from_parts(parts, ()));
        tokio::spawn(async move {
            let mut io = TokioIo::new(on_client.await.unwrap());
            let mut said = Vec::new();
            io.read_to_end(&mut said).await.unwrap();
            io.write_all(&said).await.unwrap();
            io.shutdown().await.unwrap();
        });
        let mut answer = Response::new(());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        answer.headers_mut().insert("upgrade", "SPDY/3.1".parse().unwrap());
        let (mut parts, ()) = answer.into_parts();
        upgrade::pack_answer(&mut parts);
        Response::from_parts(parts, body::empty())
    })
    .await;
    let (mut parts, body) = request("/exec").into_parts();
    parts.method = Method::POST;
    upgrade::pack(&mut parts, "SPDY/3.1");
    let answer = requester.send(Request::from_parts(parts, body)).await.unwrap();
    let (mut parts, _) = answer.into_parts();
    assert!(upgrade::unpack_answer(&mut parts));
    assert_eq!((parts.status.as_u16(), &parts.headers["upgrade"]), (101, &"SPDY/3.1".parse().unwrap()));
    let upgraded = hyper::upgrade::on(Response::from_parts(parts, ())).await.unwrap();
    let mut io = TokioIo::new(upgraded);
    io.write_all(b"what is said before the end").await.unwrap();
    io.shutdown().await.unwrap();
    let mut echo = Vec::new();
    io.read_to_end(&mut echo).await.unwrap();
    assert_eq!(echo, b"what is said before the end");
}

#[tokio::test]
async fn a_success_without_an_upgrade_arrives_as_such() {
    let (requester, _tasks) = tunnel(async |request: Request<Incoming>| {
        let (mut parts, _) = request.into_parts();
        let mut answer = Response::new(body::full("not upgraded"));
        if upgrade::unpack(&mut parts).unwrap() {
            *answer.status_mut() = StatusCode::ACCEPTED;
        }
        let (mut parts, body) = answer.into_parts();
        upgrade::pack_answer(&mut parts);
        Response::from_parts(parts, body)
    })
    .await;
    let (mut parts, body) = request("/exec").into_parts();
    upgrade::pack(&mut parts, "websocket");
    let answer = requester.send(Request::from_parts(parts, body)).await.unwrap();
    let (mut parts, body) = answer.into_parts();
    assert!(!upgrade::unpack_answer(&mut parts));
    assert_eq!(parts.status, StatusCode::ACCEPTED);
    assert_eq!(body.collect().await.unwrap().to_bytes(), "not upgraded");
}

#[tokio::test]
async fn half_of_an_answer_is_not_taken_for_all_of_it() {
    let (requester, _tasks) = tunnel(async |_| {
        let first = futures::stream::iter([Ok::<_, Infallible>(http_body::Frame::data(Bytes::from("half")))]);
        let gone = futures::stream::poll_fn(|_| panic!("the task that answers is gone"));
        Response::new(body::boxed(StreamBody::new(first.chain(gone))))
    })
    .await;
    let answer = requester.send(request("/")).await.unwrap();
    assert!(Received::from(answer.into_body()).collect().await.is_err());
}

#[tokio::test]
async fn a_tunnel_that_breaks_ends_what_is_under_way() {
    let (requester, tasks) = tunnel(async |_| {
        let endless = futures::stream::pending::<Result<http_body::Frame<Bytes>, Infallible>>();
        Response::new(body::boxed(StreamBody::new(endless)))
    })
    .await;
    let mut body = requester.send(request("/watch")).await.unwrap().into_body();
    let [server, _client] = tasks;
    drop(server);
    assert!(body.frame().await.is_some_and(|frame| frame.is_err()), "it looks as if it were complete");
    assert!(requester.send(request("/watch")).await.is_err());
    assert!(requester.is_closed());
}
