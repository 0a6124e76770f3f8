//! What meets the network, fed with whatever there is: each target takes any bytes and must neither panic, nor
//! overflow the stack, nor produce more than it may, nor contradict itself.
//!
//! `test/fuzz` runs them with bytes that a fuzzer makes up; the tests here with the corpus that is kept beside it.

use std::sync::OnceLock;

use http::{HeaderMap, HeaderValue, Method};
use jiff::Timestamp;
use prost::Message as _;
use serde_json::Value;
use tiphys_shared::model::agent::{AgentName, Mode};
use tiphys_shared::model::api_request::{ApiRequest, Target as Named};
use tiphys_shared::model::cache_key::CacheKey;
use tiphys_shared::model::feature::Features;
use tiphys_shared::model::{Kind, Object, SourceUid};
use tiphys_shared::protocol::checksum;
use tiphys_shared::protocol::mirror::Wanted;
use tiphys_shared::protocol::ownership::{self, AdoptionPolicy, Decision, MismatchPolicy, Policy};
use tiphys_shared::protocol::resync::digest::{self, Digest, Scope};
use tiphys_shared::protocol::resync::exchange::{self, NODES, Query, Report};
use tiphys_shared::protocol::resync::tree::{Leaf, LeafName, Tree};
use tiphys_shared::redis::command::{Commands, LONGEST, Step};
use tiphys_shared::redis::reply::{Found, Places};
use tiphys_shared::security::pki::Certificate;
use tiphys_shared::security::subject::AuthRule;
use tiphys_shared::security::token::{self, Issuer};
use tiphys_shared::wire::codec;

/// A target: what the fuzzer calls it, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 9] = [
    ("event", event),
    ("resync", resync),
    ("metadata", metadata),
    ("path", path),
    ("token", token),
    ("certificate", certificate),
    ("checksum", checksum),
    ("ownership", ownership),
    ("redis", redis),
];

/// A protobuf message of the event stream: what is understood can be written, and is then understood as the same.
pub fn event(bytes: &[u8]) {
    let Ok(message) = tiphys_proto::event_stream::Event::decode(bytes) else { return };
    let understood = match codec::decode(message) {
        Ok(event) => event,
        // It is acknowledged all the same.
        Err(malformed) => match malformed.ack {
            Some(ack) => codec::refusal(*ack, &malformed.reason.to_string()),
            None => return,
        },
    };
    let written = codec::encode(&understood);
    assert!(written.is_ok(), "cannot be written: {written:?}");
    let Ok(written) = written else { return };
    let read = tiphys_proto::event_stream::Event::decode(written.encode_to_vec().as_slice());
    let again = read.map(codec::decode);
    assert!(matches!(&again, Ok(Ok(again)) if *again == understood), "{understood:?} became {again:?}");
    assert!(codec::encode(&understood.ack()).is_ok());
}

/// Resources that a resync is about: a few, so that most are named, or many, so that sums are divided.
fn tree(many: bool) -> &'static Tree {
    static TREES: OnceLock<[Tree; 2]> = OnceLock::new();
    let trees = TREES.get_or_init(|| {
        [20_u32, 1500].map(|count| {
            let leaf = |number: u32| Leaf {
                name: LeafName {
                    kind: Kind::Application,
                    namespace: String::new(),
                    name: format!("app-{number}"),
                },
                uid: SourceUid(format!("uid-{number}")),
                digest: Digest(u128::from(number)),
            };
            (0..count).map(leaf).collect()
        })
    });
    let [few, much] = trees;
    if many { much } else { few }
}

/// A report or a query of a comparison: whatever it says, no more comes of it than there is.
pub fn resync(bytes: &[u8]) {
    for many in [false, true] {
        let held = tree(many);
        if let Ok(report) = serde_json::from_slice::<Report>(bytes) {
            let verdict = exchange::compare(held, &report);
            let named: usize = report.nodes.iter().flat_map(|node| &node.leaves).map(Vec::len).sum();
            assert!(verdict.ask.len() <= NODES);
            assert!(verdict.differing.len() <= held.len(), "{} differ", verdict.differing.len());
            assert!(verdict.unknown.len() <= named);
            assert!(verdict.unknown.iter().all(|leaf| held.get(&leaf.name).is_none()));
        }
        if let Ok(query) = serde_json::from_slice::<Query>(bytes) {
            let reports = exchange::answer(held, &query);
            let nodes: usize = reports.iter().map(|report| report.nodes.len()).sum();
            let named: usize =
                reports.iter().flat_map(|it| &it.nodes).flat_map(|node| &node.leaves).map(Vec::len).sum();
            assert!(reports.iter().all(|report| report.nodes.len() <= NODES + 256), "a report is too long");
            // Disjoint parts with more than a few resources each, divided by 16 or by 256.
            assert!(nodes <= NODES + 256 + 16 * held.len(), "{nodes} nodes");
            assert!(named <= held.len(), "{named} named");
            // The owner of the same has nothing to ask and nothing to say.
            assert!(reports.iter().all(|report| exchange::compare(held, report).is_equal()));
        }
    }
}

/// What an agent says of itself in metadata: what is taken is written as it came.
pub fn metadata(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match AgentName::new(text) {
        Ok(name) => assert!(name.as_str() == text && text.len() <= 63 && text.is_ascii()),
        Err(error) => assert!(error.to_string().len() < 1024),
    }
    match text.parse::<Mode>() {
        Ok(mode) => assert_eq!(mode.as_str().parse::<Mode>().ok(), Some(mode)),
        Err(error) => assert!(error.to_string().len() < bytes.len() + 1024),
    }
    let features = Features::parse(text);
    assert_eq!(Features::parse(&features.to_metadata()), features);
}

/// A method and what stands after it in a request: what is read leads nowhere else, and reads the same once it is written
/// plainly.
pub fn path(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (method, target) = text.split_once(' ').unwrap_or(("GET", text));
    let Ok(method) = method.parse::<Method>() else { return };
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let Ok(request) = ApiRequest::read(&method, path, query) else { return };
    let plain = match &request.target {
        Named::Other { path } => path.clone(),
        Named::Resource(at) => {
            let [root, group] = if at.group.is_empty() { ["/api", ""] } else { ["/apis/", &at.group] };
            let mut plain = format!("{root}{group}/{}", at.version);
            if !at.namespace.is_empty() {
                plain = format!("{plain}/namespaces/{}", at.namespace);
            }
            for part in [&at.resource, &at.name, &at.subresource].into_iter().filter(|part| !part.is_empty())
            {
                plain = format!("{plain}/{part}");
            }
            plain
        }
    };
    assert!(!plain.split('/').any(|part| [".", ".."].contains(&part)), "{plain:?} leads elsewhere");
    assert!(!plain.contains(['\\', '%', '\0']), "{plain:?} could be read in another way");
    if let (Named::Resource(_), Ok(ApiRequest { target: Named::Resource(again), .. })) =
        (&request.target, ApiRequest::read(&method, &plain, query))
    {
        assert_eq!(Named::Resource(again), request.target, "{plain:?}");
    }
}

fn issuer() -> Option<&'static Issuer> {
    static ISSUER: OnceLock<Option<Issuer>> = OnceLock::new();
    ISSUER.get_or_init(|| Issuer::generate(2048).ok().map(|(issuer, _)| issuer)).as_ref()
}

/// A token that somebody made up: it is never taken, whatever it says of itself.
pub fn token(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(subject) = token::subject_of(text) {
        assert!(AgentName::new(subject.agent.as_str()).is_ok());
    }
    let issuer = issuer();
    assert!(issuer.is_some(), "there is no key");
    let Some(issuer) = issuer else { return };
    // A moment at which the tokens of the corpus are good, but for the signature.
    let now = Timestamp::from_second(1_795_240_600).unwrap_or(Timestamp::UNIX_EPOCH);
    assert!(issuer.verify_access(text, now).is_err());
    assert!(issuer.verify_refresh(text, now).is_err());
    assert!(issuer.refresh(text, now).is_err());
    assert!(issuer.verify_resource_proxy(text, now).is_err());
}

/// A certificate, in either form, or the value of a header: whoever is found in it has a name that is one.
pub fn certificate(bytes: &[u8]) {
    for certificate in [Certificate::from_der(bytes), Certificate::from_pem(bytes)].into_iter().flatten() {
        for rule in ["mtls:subject:CN=([^,]+)", "mtls:uri:spiffe://[^/]+/(.+)", "mtls:subject:(.*)"] {
            let Ok(rule) = AuthRule::parse(rule) else { continue };
            if let Ok(name) = rule.name_in_certificate(Some(&certificate)) {
                assert!(AgentName::new(name.as_str()).is_ok());
            }
        }
        let again = Certificate::from_pem(certificate.to_pem().as_bytes());
        assert!(matches!(&again, Ok(again) if again.der == certificate.der));
    }
    let rule = AuthRule::parse("header:x-client-id:^(?:agent-)?(.*)$");
    assert!(rule.is_ok());
    if let (Ok(rule), Ok(value)) = (rule, HeaderValue::from_bytes(bytes)) {
        let mut headers = HeaderMap::new();
        headers.append("x-client-id", value.clone());
        if let Ok(name) = rule.name_in_headers(&headers) {
            assert!(AgentName::new(name.as_str()).is_ok());
        }
        headers.append("x-client-id", value);
        assert!(rule.name_in_headers(&headers).is_err(), "a header that is there twice was taken");
    }
}

/// Content of an object: its checksum depends on nothing but what it says, and a seal holds until it is broken.
pub fn checksum(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
    let mut object: Object = Object::new("a", &tiphys_shared::kube::kinds::api_resource(Kind::Application));
    object.data = serde_json::json!({"spec": value, "data": value, "status": value});
    let Ok(text) = serde_json::to_string(&object) else { return };
    let again = serde_json::from_str::<Object>(&text);
    for kind in Kind::ALL {
        let sum = checksum::content(kind, &object);
        assert_eq!(sum.0.len(), 32);
        // What is deeper than a parser goes is not read again.
        if let Ok(again) = &again {
            assert_eq!(checksum::content(kind, again), sum);
        }
        for scope in [Scope::Spec, Scope::Status, Scope::Whole] {
            let mut sealed = object.clone();
            digest::seal(kind, scope, &mut sealed, Digest(7));
            assert_eq!(digest::sealed(kind, scope, &sealed), Some(Digest(7)));
            let text =
                sealed.metadata.annotations.iter().flatten().map(|(_, text)| text.len()).sum::<usize>();
            assert!(text < 100, "a seal of {text} characters");
        }
    }
}

/// What is here and what the owner sent, any two objects: whoever has acted has nothing more to do.
pub fn ownership(bytes: &[u8]) {
    let Ok((existing, wanted)) = serde_json::from_slice::<(Option<Object>, Option<Object>)>(bytes) else {
        return;
    };
    let wanted = wanted.map(|wanted| Wanted::Present(wanted.into()));
    for kind in Kind::ALL {
        for scope in [Scope::Spec, Scope::Whole] {
            for (mismatch, adoption) in [
                (MismatchPolicy::Recreate, AdoptionPolicy::Always),
                (MismatchPolicy::Upsert, AdoptionPolicy::Always),
                (MismatchPolicy::Recreate, AdoptionPolicy::Never),
            ] {
                let policy = Policy { mismatch, adoption };
                let decide = |existing: Option<&Object>| {
                    ownership::decide(kind, scope, existing, wanted.as_ref(), policy)
                };
                match decide(existing.as_ref()) {
                    Decision::Create(object) => assert!(existing.is_none(), "{object:?} is there already"),
                    Decision::Replace(next) => {
                        assert_eq!(decide(Some(&next)), Decision::Nothing, "{next:?} is not enough");
                    }
                    Decision::Announce(next) => {
                        assert_eq!(decide(Some(&next)), Decision::Delete, "{next:?} announces nothing");
                    }
                    Decision::Delete => assert!(existing.is_some()),
                    Decision::Nothing => {}
                }
            }
            if let Some(existing) = &existing {
                // What is assumed wants nothing of what it was assumed from that it could not give.
                if let Some(assumed) = ownership::assume(kind, scope, existing) {
                    assert!(
                        !assumed
                            .metadata
                            .annotations
                            .iter()
                            .flatten()
                            .any(|(key, _)| { ownership::OWN_ANNOTATIONS.contains(&key.as_str()) })
                    );
                }
            }
        }
    }
    if let Some(existing) = &existing {
        let named = match ownership::name_operation(existing, "unique") {
            Decision::Replace(named) => *named,
            _ => return,
        };
        assert!(matches!(ownership::requested(&named), ownership::Requested::Named(_)));
        assert_eq!(ownership::name_operation(&named, "another"), Decision::Nothing);
    }
}

/// What a client says to the Redis proxy, and what Redis says to it: however it is cut, the same commands are found, no byte is
/// lost, and what is held back is little.
pub fn redis(bytes: &[u8]) {
    let whole = cut(bytes, bytes.len().max(1));
    // Bytes alone where there are few: how often it is cut, not how long it is, shall decide how long this takes.
    for piece in [bytes.len() / 100 + 1, bytes.len() / 13 + 1] {
        let pieces = cut(bytes, piece);
        // What is wrong may be noticed earlier, when less is there.
        assert!(whole.2 == pieces.2, "{:?} and {:?}", whole.2, pieces.2);
        if whole.2.is_ok() {
            assert!(whole.0 == pieces.0 && whole.1 == pieces.1);
        }
    }
    for word in whole.1.iter().flatten() {
        if let Some(key) = std::str::from_utf8(word).ok().and_then(CacheKey::parse) {
            assert_eq!(key.in_namespace(key.namespace).as_bytes(), word);
        }
    }
    let mark = Places::<()>::string(b"mark");
    let mut places = Places::default();
    places.expect(mark.clone(), ());
    let mut passed = 0;
    let mut arrived = Vec::new();
    for byte in bytes {
        arrived.push(*byte);
        match places.find(&arrived) {
            Found::Pass(len) => {
                passed += len;
                drop(arrived.drain(..len));
            }
            Found::Place { before, len, what: () } => {
                assert!(arrived[before..before + len] == mark);
                passed += before + len;
                drop(arrived.drain(..before + len));
            }
        }
        assert!(arrived.len() < mark.len(), "{} bytes are held back", arrived.len());
    }
    assert_eq!(passed + arrived.len(), bytes.len());
}

type Cut = (Vec<u8>, Vec<Vec<Vec<u8>>>, Result<(), ()>);

/// What was taken of bytes that arrive in pieces of this size, the commands that were found, and whether all made sense.
fn cut(bytes: &[u8], piece: usize) -> Cut {
    let mut commands = Commands::default();
    let (mut arrived, mut taken, mut found) = (Vec::new(), Vec::new(), Vec::new());
    for piece in bytes.chunks(piece) {
        arrived.extend_from_slice(piece);
        loop {
            let len = match commands.next(&arrived) {
                Ok(Step::More) => break,
                Ok(Step::Pass(len)) => len,
                Ok(Step::Command { len, words }) => {
                    assert!(len <= LONGEST);
                    found.push(words.into_iter().map(|word| arrived[word].to_vec()).collect());
                    len
                }
                Err(_) => return (taken, found, Err(())),
            };
            assert!(len > 0);
            taken.extend(arrived.drain(..len));
        }
        assert!(arrived.len() < LONGEST + 16, "{} bytes are held back", arrived.len());
    }
    (taken, found, Ok(()))
}

#[cfg(test)]
mod tests;
