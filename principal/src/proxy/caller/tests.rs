use std::time::Duration;

use proptest::prelude::*;
use tiphys_shared::process::clock;
use tiphys_shared::security::pki::Ca;

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

struct World {
    ca: Ca,
    issuer: Issuer,
    operators: Vec<Operator>,
}

/// How a request comes: certificate of, header Authorization, path and query.
type Attempt<'a> = (Option<&'a str>, Option<String>, &'a str);

impl World {
    fn new() -> Self {
        let operator = |name: &str, agents: &str| Operator {
            name: name.to_owned(),
            agents: NamePattern::new(agents).unwrap(),
        };
        Self {
            ca: Ca::generate("test", clock::now(), DAY).unwrap(),
            issuer: Issuer::generate(2048).unwrap().0,
            operators: vec![operator("alice", "*"), operator("bob", "edge-*")],
        }
    }

    fn certificate(&self, name: &str) -> Certificate {
        let material = self.ca.issue_client::<&str>(name, &[], clock::now(), DAY).unwrap();
        Certificate::from_pem(&material.chain).unwrap()
    }

    fn token(&self, agent: &str) -> Option<String> {
        let token = self.issuer.issue_resource_proxy(&AgentName::new(agent).unwrap(), clock::now()).unwrap();
        Some(format!("Bearer {token}"))
    }

    fn admit(&self, (certificate, authorization, target): Attempt<'_>) -> Result<Caller, Refusal> {
        let certificate = certificate.map(|name| self.certificate(name));
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let claims = Claims {
            certificate: certificate.as_ref(),
            authorization: authorization.as_deref().map(str::as_bytes),
            path,
            query,
        };
        claims.admit(&self.issuer, &self.operators, clock::now())
    }

    fn reached(&self, attempt: Attempt<'_>) -> String {
        let caller = self.admit(attempt).unwrap();
        let query = caller.query.map(|query| format!("?{query}")).unwrap_or_default();
        format!("{} {} {}{query}", caller.user, caller.agent, caller.path)
    }

    fn refused(&self, attempt: Attempt<'_>) -> u16 {
        self.admit(attempt).unwrap_err().code.as_u16()
    }
}

#[test]
fn a_credential_names_its_agent_and_an_operator_chooses_one() {
    let world = World::new();
    for (attempt, expected) in [
        ((Some("a"), None, "/api/v1/pods"), "a a /api/v1/pods"),
        ((Some("a"), None, "/api/v1/pods?agentName=a&limit=5"), "a a /api/v1/pods?limit=5"),
        ((Some("a"), None, "/api/v1/pods?agentName=a&agent%4eame=a"), "a a /api/v1/pods"),
        ((Some("a"), None, "/agents/a/api/v1/pods?x=%26&y"), "a a /api/v1/pods?x=%26&y"),
        ((Some("a"), None, "/agents/a"), "a a /"),
        ((Some("shared"), world.token("b"), "/version"), "b b /version"),
        ((None, world.token("b"), "/agents/b/version?agentName=b"), "b b /version"),
        ((Some("a"), Some("Basic YTpi".into()), "/version"), "a a /version"),
        ((Some("alice"), None, "/agents/a/version"), "alice a /version"),
        ((Some("alice"), None, "/version?agentName=b"), "alice b /version"),
        ((Some("bob"), None, "/agents/edge-7/version"), "bob edge-7 /version"),
    ] {
        assert_eq!(world.reached(attempt.clone()), expected, "{attempt:?}");
    }
}

#[test]
fn nobody_reaches_another_agent_than_the_credential_allows() {
    let world = World::new();
    let other = World::new();
    let access = {
        let subject = tiphys_shared::security::token::Subject {
            agent: AgentName::new("a").unwrap(),
            mode: tiphys_shared::model::Mode::Managed,
        };
        Some(format!("Bearer {}", world.issuer.issue(&subject, clock::now()).unwrap().access))
    };
    for (attempt, expected) in [
        ((None, None, "/version"), 401),
        ((None, None, "/agents/a/version"), 401),
        ((Some(""), None, "/version"), 401),
        ((Some("No Agent"), None, "/version"), 401),
        ((Some("a"), Some("Bearer nonsense".into()), "/version"), 401),
        ((Some("a"), Some("bearer ".into()), "/version"), 401),
        ((Some("a"), access, "/version"), 401),
        ((Some("a"), other.token("a"), "/version"), 401),
        ((Some("a"), None, "/version?agentName=b"), 403),
        ((Some("a"), None, "/agents/b/version"), 403),
        ((Some("a"), None, "/version?agentName=a&agentName=b"), 400),
        ((Some("a"), None, "/version?agentName=a&agent%4Eame=b"), 400),
        ((Some("a"), None, "/version?agentName="), 400),
        ((Some("a"), None, "/version?agentName=../b"), 400),
        ((Some("a"), None, "/agents//version"), 400),
        ((Some("a"), None, "/agents/%61/version"), 400),
        ((Some("a"), world.token("b"), "/agents/a/version"), 403),
        ((Some("alice"), None, "/version"), 400),
        ((Some("alice"), None, "/agents/a/version?agentName=b"), 400),
        ((Some("alice"), world.token("b"), "/agents/a/version"), 403),
        ((Some("bob"), None, "/agents/core/version"), 403),
        ((Some("bob"), None, "/version?agentName=core"), 403),
    ] {
        assert_eq!(world.refused(attempt.clone()), expected, "{attempt:?}");
    }
}

proptest! {
    #[test]
    fn whatever_a_path_and_a_query_say_the_agent_is_the_certificates(
        target in "/(agents/(a|b|%61)?)?[a-z/.%]{0,6}(\\?(agentName=(a|b|)|[a-z=%&;]{0,6})(&(agentName|agent%4eame)=(a|b))?)?",
    ) {
        thread_local!(static WORLD: World = World::new());
        WORLD.with(|world| {
            if let Ok(caller) = world.admit((Some("a"), None, &target)) {
                assert_eq!(caller.agent.as_str(), "a");
                assert!(!caller.query.unwrap_or_default().contains("agentName="));
            }
        });
    }
}
