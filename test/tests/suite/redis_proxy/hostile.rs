//! Garbage, strangers, and agents that answer what they were not asked.

use tiphys_shared::model::event::Payload;
use tiphys_shared::model::redis::{RedisAnswer, RedisCommand, RedisRequest, RedisResponse};
use tiphys_shared::model::{Event, EventKind, Mode, Target};

use super::*;
use crate::raw::Raw;

fn refused(stage: &Stage) -> u64 {
    stage.fleet.figure("tiphys_principal_redis_proxy_refused_total")
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_gets_an_error_and_a_closed_connection_and_is_counted() {
    let stage = Stage::managed().await;
    let client_hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let garbage: [&[u8]; 5] = [
        client_hello,
        b"*1000000000\r\n",
        b"*2\r\n$3\r\nGET\r\n$99999999999\r\n",
        b"*1\r\n$4\r\nPINGPONG",
        &[b'a'; 100_000],
    ];
    for (number, garbage) in garbage.into_iter().enumerate() {
        let heard = raw(&stage.fleet, garbage).await;
        assert!(heard.ends_with("\r\n") && heard.contains("-ERR Protocol error: "), "{garbage:?}: {heard:?}");
        assert_eq!(refused(&stage), number as u64 + 1, "{garbage:?}");
    }
    let mut connection = stage.connection().await;
    let _: () = connection.set("still", "alive").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_command_passes_in_pieces_and_commands_after_it_are_seen() {
    let stage = Stage::managed().await;
    stage.create("shop").await;
    stage.cluster.keep(&tree("shop"), b"far".into());
    let mut connection = stage.connection().await;
    until_there(&mut connection, &tree("edge_shop")).await;
    let large = vec![b'$'; 8 << 20];
    let (stored, read, far): ((), Vec<u8>, String) = redis::pipe()
        .set("large", &large)
        .get("large")
        .get(tree("edge_shop"))
        .query_async(&mut connection)
        .await
        .unwrap();
    assert_eq!(stored, ());
    assert!(read == large);
    assert_eq!(far, "far");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_not_proven_who_he_is_learns_nothing_and_no_agent_is_asked() {
    let stage = Stage::managed().await;
    stage.create("shop").await;
    stage.cluster.keep(&tree("shop"), b"far".into());
    until_there(&mut stage.connection().await, &tree("edge_shop")).await;
    let asked = || stage.fleet.figure("argocd_principal_redis_proxy_requests_total");
    let before = asked();
    let mut stream = tokio::net::TcpStream::connect(stage.fleet.redis_proxy_address()).await.unwrap();
    let (key, channel) = (tree("edge_shop"), changes("edge_shop"));
    let subscribe = format!("*2\r\n$9\r\nSUBSCRIBE\r\n${}\r\n{channel}\r\n", channel.len());
    let get = format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len());
    stream.write_all(subscribe.as_bytes()).await.unwrap();
    stream.write_all(get.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "-NOAUTH Authentication required.\r\n".repeat(2));
    assert_eq!(asked(), before);
}

/// Agents that only say what a test tells them to, in place of two real ones.
async fn strangers(features: bool) -> (Stage, Raw, Raw) {
    let mut stage = Stage::of(Fleet::embedded(&["edge", "evil"]).await, |_| {}).await;
    for name in ["edge", "evil"] {
        stage.fleet.kill_agent(name);
    }
    let features = || features.then(tiphys_shared::model::feature::Features::all);
    let edge = Raw::connect_as(&stage.fleet, "edge", Mode::Managed, features()).await;
    let evil = Raw::connect_as(&stage.fleet, "evil", Mode::Managed, features()).await;
    stage.fleet.create("edge", "shop").await;
    (stage, edge, evil)
}

fn answer(request: &RedisRequest, body: RedisAnswer) -> Event {
    let response = RedisResponse { uuid: request.uuid.clone(), connection: request.connection.clone(), body };
    let mut event = Event::request(Target::Redis, EventKind::RedisResponse, Payload::RedisResponse(response));
    event.id.0 = request.uuid.clone();
    event
}

fn value(text: &str) -> RedisAnswer {
    RedisAnswer::Get { bytes: Some(text.as_bytes().to_vec()), hit: true, error: String::new() }
}

async fn hear_request(raw: &mut Raw, is_it: impl Fn(&RedisCommand) -> bool) -> RedisRequest {
    let event = raw
        .hear(|event| matches!(&event.payload, Payload::RedisRequest(request) if is_it(&request.body)))
        .await;
    raw.ack(&event).await;
    match event.payload {
        Payload::RedisRequest(request) => request,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_cannot_answer_for_another_nor_for_what_it_was_not_asked() {
    let (stage, mut edge, mut evil) = strangers(true).await;
    let mut connection = stage.connection().await;
    let key = tree("edge_shop");
    let answers = async {
        let request = hear_request(&mut edge, |_| true).await;
        assert_eq!(request.body, RedisCommand::Get { key: tree("edge_shop") });
        let stolen = answer(&request, value("evil"));
        evil.say(&stolen).await;
        evil.hear_ack(&stolen.id).await;
        // Of a request that was never made.
        let mut unknown = request.clone();
        unknown.uuid = "unknown".into();
        let unknown = answer(&unknown, value("evil"));
        edge.say(&unknown).await;
        edge.hear_ack(&unknown.id).await;
        edge.say(&answer(&request, value("edge"))).await;
    };
    // The principal may not have heard of the Application at once.
    let (heard, ()) = tokio::join!(until_there(&mut connection, &key), answers);
    assert_eq!(heard, b"edge");

    let answers = async {
        let request = hear_request(&mut edge, |_| true).await;
        edge.say(&answer(&request, RedisAnswer::Pong {})).await;
    };
    let (heard, ()) = tokio::join!(connection.get::<_, Option<String>>(&key), answers);
    let error = heard.unwrap_err().to_string();
    assert!(error.contains("answered something else"), "{error}");
}

/// An agent of the Go project, as it speaks.
#[tokio::test(flavor = "multi_thread")]
async fn a_go_agent_is_asked_and_heard_in_its_own_words() {
    let (stage, mut edge, _evil) = strangers(false).await;
    let mut pubsub = stage.pubsub().await;
    pubsub.subscribe(changes("edge_shop")).await.unwrap();
    let request = hear_request(&mut edge, |body| matches!(body, RedisCommand::Subscribe { .. })).await;
    assert_eq!(request.body, RedisCommand::Subscribe { channel: changes("edge_shop") });
    let begun = RedisAnswer::SubscribeResponse { error: String::new() };
    edge.say(&answer(&request, begun)).await;
    let listening = || stage.fleet.gauge("tiphys_principal_redis_proxy_channels_listening");
    Fleet::until("it listens", async || (listening() == 1).then_some(())).await;
    for _ in 0..3 {
        let published = RedisAnswer::PushFromSubscribe { channel: "whatever it says".into() };
        edge.say(&answer(&request, published)).await;
        while subscriptions::next(&mut pubsub).await != changes("edge_shop") {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_a_redis_says_so() {
    let mut stage = Stage::managed().await;
    stage.create("shop").await;
    stage.fleet.kill_agent("edge");
    stage.fleet.redis.clear();
    stage.fleet.start_agent("edge");
    let mut connection = stage.connection().await;
    let error = Fleet::until("an answer", async || {
        let error = connection.get::<_, Option<String>>(tree("edge_shop")).await.err()?.to_string();
        error.contains("the agent says").then_some(error)
    })
    .await;
    assert!(error.contains("--redis-addr is none"), "{error}");
}
