//! The demo, as a newcomer starts it.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::tiphys;

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

#[test]
fn once_converges_tells_figures_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let output = tiphys()
        .args(["demo", "--agents", "4", "--apps", "3", "--once", "--json"])
        .env("TMPDIR", folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&figures["agents"], &figures["applications"]), (&4.into(), &12.into()));
    assert_eq!(figures["converged"], true);
    assert!(figures["events"]["sent"].as_u64().unwrap() >= 12, "{figures}");
    assert!(figures["delivery_ms"]["p50"].as_f64().unwrap() > 0.0, "{figures}");
    assert!(is_empty(folder.path()));
}

#[test]
fn json_without_a_summary_is_refused() {
    let run = crate::run(&["demo", "--json"]);
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("remedy: add --once"), "{}", run.stderr);
    assert_eq!(crate::run(&["demo", "--agents", "0"]).code, Some(2));
}

#[test]
fn ctrl_c_ends_the_demo_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = tiphys()
        .args(["demo", "--agents", "2", "--apps", "2"])
        .env("TMPDIR", folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("Ctrl-C") {
        assert_ne!(lines.read_line(&mut said).unwrap(), 0, "the demo ended early: {said}");
    }
    let kubeconfig = said.split_whitespace().find(|word| word.ends_with("/kubeconfig")).unwrap();
    let config: Value = serde_json::from_slice(&std::fs::read(kubeconfig).unwrap()).unwrap();
    assert_eq!(config["contexts"].as_array().unwrap().len(), 3, "a context per cluster");
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    lines.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{said}");
    assert!(is_empty(folder.path()), "the temporary folder is still there");
}
