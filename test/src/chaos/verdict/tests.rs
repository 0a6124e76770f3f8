use serde_json::json;
use tiphys_apiserver::ApiServer;

use super::*;

fn realm(mode: Mode) -> Realm {
    let client = ApiServer::new(tiphys_apiserver::Options::default()).client();
    Realm { agent: "edge".to_owned(), mode, control: client.clone(), cluster: client }
}

fn place(name: &str) -> Place {
    Place { agent: "edge".to_owned(), kind: Kind::Application, name: name.to_owned() }
}

fn object(uid: &str, source: Option<&str>, revision: &str) -> Object {
    let mut value = json!({
        "metadata": {"name": "a", "uid": uid, "labels": {LABEL: "l"}, "annotations": {NOTE: "n"}},
        "spec": {"source": {"targetRevision": revision}, "destination": {"name": uid}},
    });
    if let Some(source) = source {
        value["metadata"]["annotations"][annotation::SOURCE_UID] = json!(source);
    }
    serde_json::from_value(value).unwrap()
}

fn ledger(life: Option<&str>, content: &str) -> Ledger {
    let ledger = Ledger::default();
    let life = life.map(str::to_owned);
    ledger.own(&place("a"), Owned { life, content: content.into(), label: "l".into(), note: "n".into() });
    ledger
}

fn judged(ledger: &Ledger, owner: Option<Object>, holder: Option<Object>) -> Verdict {
    let objects = |object: Option<Object>| object.into_iter().map(|it| (it.name().to_owned(), it)).collect();
    let mut verdict = Verdict::default();
    let (owners, holders) = (objects(owner), objects(holder));
    judge(&realm(Mode::Managed), Kind::Application, &ledger.snapshot(), &owners, &holders, &mut verdict);
    judge_operations(&ledger.snapshot(), &mut verdict);
    verdict
}

#[tokio::test]
async fn what_stands_everywhere_is_clean() {
    let verdict =
        judged(&ledger(Some("1"), "r"), Some(object("1", None, "r")), Some(object("2", Some("1"), "r")));
    assert_eq!(verdict, Verdict::default());
    assert_eq!(judged(&ledger(None, "r"), None, None), Verdict::default());
}

#[tokio::test]
async fn what_did_not_arrive_is_lost() {
    let here = Some(object("1", None, "r"));
    let ledger = ledger(Some("1"), "r");
    for copy in [None, Some(object("2", Some("1"), "older")), Some(object("2", Some("0"), "r"))] {
        let verdict = judged(&ledger, here.clone(), copy);
        assert!(!verdict.lost.is_empty() && verdict.orphaned.is_empty(), "{verdict:?}");
    }
    let mut stale = object("2", Some("1"), "r");
    stale.set_field("status", Some(json!({"health": 1})));
    assert_eq!(judged(&ledger, here, Some(stale)).lost.len(), 1);
    assert!(!judged(&ledger, None, None).lost.is_empty(), "the owner's own is gone");
}

#[tokio::test]
async fn what_outlives_its_owner_is_orphaned() {
    let verdict = judged(&ledger(None, "r"), None, Some(object("2", Some("1"), "r")));
    assert_eq!((verdict.lost.len(), verdict.orphaned.len()), (0, 1), "{verdict:?}");
    let verdict = judged(&ledger(None, "r"), Some(object("3", None, "r")), Some(object("2", Some("3"), "r")));
    assert_eq!(verdict.orphaned.len(), 1, "a deleted one that came back: {verdict:?}");
}

#[tokio::test]
async fn an_operation_is_done_once_while_its_application_lives() {
    let check =
        |ledger: &Ledger| judged(ledger, Some(object("1", None, "r")), Some(object("2", Some("1"), "r")));
    let ledger = ledger(Some("1"), "r");
    ledger.ask("op", &place("a"), "1");
    ledger.ask("of another life", &place("a"), "0");
    assert_eq!(check(&ledger).lost.len(), 1);
    assert!(ledger.is_busy(&place("a"), "1"));
    ledger.start("op");
    ledger.finish("op");
    assert_eq!(check(&ledger), Verdict::default());
    assert!(!ledger.is_busy(&place("a"), "1"));
    ledger.start("op");
    assert_eq!(check(&ledger).duplicated.len(), 1);
    ledger.start("unasked");
    assert_eq!(check(&ledger).duplicated.len(), 2);
}

#[tokio::test]
async fn an_operation_asked_for_on_what_was_wrongly_deleted_may_be_gone() {
    let ledger = ledger(Some("1"), "r");
    ledger.ask("op", &place("a"), "1");
    ledger.disturb(&place("a"));
    let verdict = judged(&ledger, Some(object("1", None, "r")), Some(object("2", Some("1"), "r")));
    assert_eq!(verdict, Verdict::default());
}

#[tokio::test]
async fn a_wrong_deletion_excuses_one_repetition_of_what_was_asked_for_before_it() {
    let ledger = ledger(Some("1"), "r");
    let check = |ledger: &Ledger| {
        judged(ledger, Some(object("1", None, "r")), Some(object("2", Some("1"), "r"))).duplicated.len()
    };
    ledger.disturb(&place("a"));
    ledger.ask("op", &place("a"), "1");
    ledger.start("op");
    ledger.disturb(&place("a"));
    ledger.start("op");
    assert_eq!(check(&ledger), 0);
    ledger.start("op");
    assert_eq!(check(&ledger), 1);
}
