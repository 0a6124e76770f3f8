//! What is told as a command can be typed.

use clap::ArgMatches;

use super::*;

/// A command line is taken, apart from the clusters that it is about.
fn is_a_command(text: &str) -> bool {
    let line = text.replace("NAME", "edge-1").replace("HOST:PORT", "h:1").replace("HOST", "h");
    let line = line.replace("FINGERPRINT", "ab");
    let root = tiphys_shared::process::options::prepare(crate::command::Program::Tiphys.command());
    let taken: Result<ArgMatches, _> =
        root.try_get_matches_from(["tiphys"].into_iter().chain(line.split_whitespace()));
    taken.is_ok()
}

#[tokio::test]
async fn every_remedy_that_is_a_command_of_ours_is_one() {
    assert!(!is_a_command("agent reconfigure edge-1 --reissue-client-cert --upsert"));
    let past: Timestamp = "2020-01-01T00:00:00Z".parse().unwrap();
    let ended = PKI.ca.issue_client::<&str>("edge-1", &[], past, DAY).unwrap();
    let server = PKI.server(&["edge-1"]);
    let data = |material| json!({"data": cluster_data("edge-1", SERVER, material)});
    let more = [&ended, &server, &PKI.other.issue_client::<&str>("edge-1", &[], PKI.now, 90 * DAY).unwrap()];
    let acts = cases().into_iter().map(|case| case.0);
    let acts = acts.chain(more.map(|material| Change(Control, "secret", "cluster-edge-1", data(material))));
    let mut commands = 0;
    for act in acts {
        let world = sound().await;
        world.act(act).await;
        for finding in world.findings(false).await {
            for text in finding.remedy.split('`').skip(1).step_by(2).filter(|it| !it.starts_with("kubectl")) {
                commands += 1;
                assert!(is_a_command(text), "{}: {text}", finding.check);
            }
        }
    }
    assert!(commands > 20, "{commands}");
}
