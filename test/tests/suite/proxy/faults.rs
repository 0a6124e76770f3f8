//! What clients, agents and principals do without a word: leave, get stuck, die.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_is_dropped_at_the_client_ends_at_the_cluster() {
    let (fleet, backend) = with_backend().await;
    let client = client_of(&fleet, "edge").await;
    let mut watches = Vec::new();
    for _ in 0..100 {
        let mut body = watch(&client).await;
        assert!(body.frame().await.unwrap().is_ok());
        watches.push(body);
    }
    assert_eq!(backend.ended.available_permits(), 0);
    drop(watches);
    backend.ended.acquire_many(100).await.unwrap().forget();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_reads_hold_up_nobody_else() {
    let (fleet, _backend) = with_backend().await;
    let client = client_of(&fleet, "edge").await;
    let mut stuck = Vec::new();
    for _ in 0..20 {
        stuck.push(client.send(request(Method::GET, "/api/v1/configmaps", "")).await.unwrap());
    }
    for _ in 0..50 {
        assert_eq!(get(&client, "/version").await.0, 200);
    }
    let bytes = stuck.remove(0).into_body().collect().await.unwrap().to_bytes();
    assert_eq!(bytes.len(), backend::PIECES * (64 << 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_dies_ends_what_is_under_way_and_comes_back() {
    let (mut fleet, _backend) = with_backend().await;
    let client = client_of(&fleet, "edge").await;
    let mut body = watch(&client).await;
    assert!(body.frame().await.unwrap().is_ok());
    let waits = client.send(request(Method::GET, "/api/v1/nodes", ""));
    let dies = async {
        // The request may or may not have arrived: either way it is answered.
        fleet.kill_agent("edge");
    };
    let (answer, ()) = tokio::join!(waits, dies);
    let (status, refused) = read(answer.unwrap()).await;
    assert_eq!((status, &refused["kind"]), (502, &json!("Status")), "{refused}");
    assert!(body.frame().await.is_none_or(|frame| frame.is_err()), "the watch goes on");
    Fleet::until("the answer that it is gone", async || {
        let (status, refused) = get(&client, "/version").await;
        assert_eq!(status, 502, "{refused}");
        refused["message"].as_str().unwrap().contains("not connected since 2").then_some(())
    })
    .await;
    fleet.start_agent("edge");
    until_served(&client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_while_an_agent_comes_back_has_an_answer_once_it_is_back() {
    let (mut fleet, _backend) = with_backend().await;
    let client = client_of(&fleet, "edge").await;
    // Nobody waits for an agent for ever, and this machine may be slow.
    for _ in 0..5 {
        fleet.kill_agent("edge");
        Fleet::until("the agent gone", async || {
            fleet.principal().agents().iter().all(|agent| agent.connected_since.is_none()).then_some(())
        })
        .await;
        let comes_back = async {
            tokio::task::yield_now().await;
            fleet.start_agent("edge");
        };
        if tokio::join!(get(&client, "/version"), comes_back).0.0 == 200 {
            return;
        }
        until_served(&client).await;
    }
    panic!("nobody waited for the agent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_principal_that_comes_back_has_its_tunnels_again() {
    let (mut fleet, _backend) = with_backend().await;
    let client = client_of(&fleet, "edge").await;
    fleet.kill_principal();
    assert!(client.send(request(Method::GET, "/version", "")).await.is_err());
    fleet.start_principal().await;
    Fleet::until("the tunnel", async || {
        let answer = client.send(request(Method::GET, "/version", "")).await.ok()?;
        (answer.status() == 200).then_some(())
    })
    .await;
}

async fn watch(client: &Client) -> Body {
    let answer = client.send(request(Method::GET, "/api/v1/pods?watch=true", "")).await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.into_body()
}
