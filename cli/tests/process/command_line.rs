//! Commands, help, names.

use std::os::unix::process::CommandExt;

use crate::{run, tiphys};

#[test]
fn an_unknown_flag_is_answered_with_the_nearest_one() {
    let run = run(&["principal", "--listn-port", "1"]);
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("unexpected argument '--listn-port' found"), "{}", run.stderr);
    assert!(run.stderr.contains("a similar argument exists: '--listen-port'"), "{}", run.stderr);
    assert_eq!(run.stdout, "");
}

#[test]
fn an_unknown_command_is_named() {
    let run = run(&["agnt"]);
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("unrecognized subcommand 'agnt'"), "{}", run.stderr);
    assert!(run.stderr.contains("'agent'"), "{}", run.stderr);
}

#[test]
fn help_teaches_by_examples_and_is_data() {
    for (command, examples) in [
        (&["--help"][..], "tiphys demo"),
        (&["principal", "--help"], "tiphys principal --auth 'mtls:subject:CN=([^,]+)'"),
        (&["agent", "--help"], "tiphys agent --server-address principal.example.com"),
        (&["agent", "run", "-h"], "tiphys agent --config agent.yaml"),
        (&["demo", "-h"], "tiphys demo --agents 200 --apps 10 --once"),
    ] {
        let run = run(command);
        assert_eq!(run.code, Some(0), "{command:?}");
        assert!(run.stdout.contains(examples), "{command:?}: {}", run.stdout);
        assert_eq!(run.stderr, "");
    }
}

#[test]
fn help_begins_with_what_the_command_does() {
    let first = |command: &[&str]| run(command).stdout.lines().next().unwrap_or_default().to_owned();
    assert_eq!(first(&["principal", "--help"]), "Run the control-plane side, to which agents connect");
    assert_eq!(first(&["agent", "-h"]), "Run the cluster side, which connects to the principal");
}

#[test]
fn options_without_effect_stand_apart_in_the_long_help() {
    let heading = "Accepted for compatibility, not yet in effect:";
    for side in ["principal", "agent"] {
        let long = run(&[side, "--help"]).stdout;
        let (_, after) = long.split_once(heading).unwrap();
        assert!(after.contains("--full-detail"), "{after}");
        assert!(!run(&[side, "-h"]).stdout.contains(heading), "the short help leaves them out");
    }
}

#[test]
fn the_version_is_told_in_three_forms() {
    let number = env!("CARGO_PKG_VERSION");
    assert_eq!(run(&["version", "--short"]).stdout, format!("{number}\n"));
    assert!(run(&["version"]).stdout.starts_with(&format!("tiphys {number} ")));
    let json: serde_json::Value = serde_json::from_str(&run(&["version", "-o", "json"]).stdout).unwrap();
    assert_eq!(json["version"], number);
    assert_eq!(run(&["--version"]).stdout, format!("tiphys {number}\n"));
}

#[test]
fn started_as_argocd_agent_it_takes_upstreams_commands_and_no_others() {
    let as_upstream = |arguments: &[&str]| {
        let output = tiphys().arg0("/usr/local/bin/argocd-agent").args(arguments).output().unwrap();
        crate::Run::from(output)
    };
    assert!(as_upstream(&["version"]).stdout.starts_with("argocd-agent "));
    assert!(as_upstream(&["principal", "-h"]).stdout.contains("Usage: argocd-agent principal"));
    assert_eq!(as_upstream(&["demo"]).code, Some(2));
}

#[test]
fn completions_exist_for_the_usual_shells() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let run = run(&["completion", shell]);
        assert_eq!(run.code, Some(0));
        assert!(run.stdout.contains("server-address"), "{shell} does not know the flags");
    }
    let run = run(&["completion", "tcsh"]);
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("remedy: name one of bash"), "{}", run.stderr);
}

#[test]
fn the_cipher_suites_are_listed_on_demand() {
    for side in ["principal", "agent"] {
        let run = run(&[side, "--tls-ciphersuites=list"]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        assert!(run.stdout.contains("TLS_AES_128_GCM_SHA256"), "{}", run.stdout);
    }
}
