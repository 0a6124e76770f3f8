use super::*;

const LONG: Duration = Duration::from_secs(3600);

async fn unlucky() {
    panic!("out of luck")
}

#[tokio::test(start_paused = true)]
async fn draining_asks_every_task_to_end_and_waits_for_it() {
    let tasks = Tasks::new();
    let stop = tasks.stop_token();
    let (done, was_done) = tokio::sync::oneshot::channel();
    tasks.spawn("polite", OnFailure::Log, async move {
        stop.cancelled().await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        done.send(()).unwrap();
    });
    assert_eq!(tasks.drain(Duration::from_secs(5)).await, Drained { aborted: vec![], failure: None });
    was_done.await.unwrap();
    assert!(tasks.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_task_that_does_not_end_is_aborted_and_named() {
    let tasks = Tasks::new();
    tasks.spawn("deaf", OnFailure::Stop, tokio::time::sleep(LONG));
    let drained = tasks.drain(Duration::from_secs(5)).await;
    assert_eq!(drained, Drained { aborted: vec!["deaf".into()], failure: None });
    assert!(tasks.is_empty());
}

#[tokio::test]
async fn a_panic_in_a_needed_task_stops_the_others_and_is_reported() {
    let tasks = Tasks::new();
    tasks.spawn("needed", OnFailure::Stop, unlucky());
    tasks.stopping().await;
    let failure = tasks.drain(Duration::ZERO).await.failure.unwrap();
    assert_eq!(failure.to_string(), "task needed panicked: out of luck");
}

#[tokio::test]
async fn a_needed_task_may_not_end_before_the_process_does() {
    let tasks = Tasks::new();
    tasks.spawn("needed", OnFailure::Stop, async {});
    tasks.stopping().await;
    assert_eq!(tasks.failure().unwrap().to_string(), "task needed ended unexpectedly");
}

#[tokio::test]
async fn an_error_in_an_ordinary_task_concerns_nobody_else() {
    let tasks = Tasks::new();
    tasks.spawn("session", OnFailure::Log, async { Err::<(), _>("connection lost") });
    tasks.spawn("other", OnFailure::Log, unlucky());
    while !tasks.is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(!tasks.stop_token().is_cancelled());
    assert_eq!(tasks.failure(), None);
}

#[tokio::test]
async fn an_aborted_task_is_off_the_list() {
    let tasks = Tasks::new();
    let abort = tasks.spawn("session", OnFailure::Log, tokio::time::sleep(LONG));
    assert_eq!(tasks.len(), 1);
    abort.abort();
    while !tasks.is_empty() {
        tokio::task::yield_now().await;
    }
}
