//! The promises of the loader, held with a small set of options of every kind.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{ArgAction, Args};
use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Args)]
struct Example {
    #[command(flatten)]
    config: ConfigFile,
    /// A text
    #[arg(long, env = "EX_NAME", default_value = "nobody")]
    name: String,
    /// A number
    #[arg(long, env = "EX_PORT", default_value_t = 8443)]
    port: u16,
    /// A boolean
    #[arg(long, env = "EX_ON", action = ArgAction::Set, default_value = "false")]
    on: bool,
    /// A switch
    #[arg(long)]
    once: bool,
    /// A list
    #[arg(long, env = "EX_NAMES", value_delimiter = ',')]
    names: Vec<String>,
    /// A duration
    #[arg(long, env = "EX_WAIT", default_value = "5s", value_parser = value::duration)]
    wait: Duration,
    /// A secret
    #[arg(long, env = "EX_PASSWORD", hide_env_values = true)]
    password: Option<String>,
}

struct Case {
    file: Option<&'static str>,
    environment: BTreeMap<&'static str, &'static str>,
}

impl Case {
    fn new() -> Self {
        Self { file: None, environment: BTreeMap::new() }
    }

    fn file(mut self, text: &'static str) -> Self {
        self.file = Some(text);
        self
    }

    fn set(mut self, name: &'static str, value: &'static str) -> Self {
        self.environment.insert(name, value);
        self
    }

    fn load(self, flags: &[&str]) -> Result<Loaded<Example>, Problems> {
        let folder = tempfile::tempdir().unwrap();
        let command = prepare(Example::augment_args(Command::new("example")));
        let mut line = vec!["example".to_owned()];
        if let Some(text) = self.file {
            let path = folder.path().join("options.yaml");
            std::fs::write(&path, text).unwrap();
            line.extend(["--config".to_owned(), path.display().to_string()]);
        }
        line.extend(flags.iter().map(ToString::to_string));
        let given = lenient(command.clone()).try_get_matches_from(line).unwrap();
        load(&command, &given, &|name| self.environment.get(name).map(OsString::from), Ok)
    }
}

fn messages(result: Result<Loaded<Example>, Problems>) -> Vec<String> {
    let folder = std::env::temp_dir();
    result
        .unwrap_err()
        .0
        .into_iter()
        .map(|problem| {
            // Paths differ from run to run: keep the file's name.
            let what = problem.what.split(' ').map(|word| {
                if word.starts_with(folder.to_str().unwrap()) {
                    word.rsplit('/').next().unwrap()
                } else {
                    word
                }
            });
            format!("{} | {}", what.collect::<Vec<_>>().join(" "), problem.remedy)
        })
        .collect()
}

#[test]
fn a_later_layer_beats_an_earlier_one() {
    let defaults = Case::new().load(&[]).unwrap().value;
    assert_eq!((defaults.name.as_str(), defaults.port, defaults.on), ("nobody", 8443, false));
    assert_eq!(defaults.wait, Duration::from_secs(5));

    let file = "name: file\nport: 1\non: true\nonce: true\nwait: 10\nnames: [a, b]\n";
    let value = Case::new().file(file).load(&[]).unwrap().value;
    assert_eq!((value.name.as_str(), value.port, value.on, value.once), ("file", 1, true, true));
    assert_eq!((value.names, value.wait), (vec!["a".to_owned(), "b".to_owned()], Duration::from_secs(10)));

    let both =
        || Case::new().file(file).set("EX_NAME", "environment").set("EX_PORT", "2").set("EX_NAMES", "c, d,");
    let value = both().load(&[]).unwrap().value;
    assert_eq!((value.name.as_str(), value.port, value.on), ("environment", 2, true));
    assert_eq!(value.names, ["c", "d"]);

    let value = both().load(&["--name", "flag", "--on=false", "--names", "e", "--names=f,g"]).unwrap().value;
    assert_eq!((value.name.as_str(), value.port, value.on), ("flag", 2, false));
    assert_eq!(value.names, ["e", "f", "g"]);
}

#[test]
fn json_is_read_as_well_as_yaml() {
    let value = Case::new().file("{\"port\": 7, \"on\": true, \"wait\": \"1m\"}").load(&[]).unwrap().value;
    assert_eq!((value.port, value.on, value.wait), (7, true, Duration::from_secs(60)));
}

#[test]
fn an_empty_variable_is_not_set_and_an_empty_flag_means_the_default() {
    let case = || Case::new().file("name: file").set("EX_NAME", "").set("EX_PORT", "").set("EX_NAMES", "");
    let value = case().load(&[]).unwrap().value;
    assert_eq!((value.name.as_str(), value.port), ("file", 8443));
    assert_eq!(case().load(&["--name="]).unwrap().value.name, "nobody");
    assert_eq!(Case::new().file("name:\n").load(&[]).unwrap().value.name, "nobody");
}

#[test]
fn go_booleans_are_taken_with_and_without_value() {
    for (flags, expected) in [
        (&["--on"][..], true),
        (&["--on=true"], true),
        (&["--on=t"], true),
        (&["--on=0"], false),
        (&[], false),
    ] {
        assert_eq!(Case::new().load(flags).unwrap().value.on, expected, "{flags:?}");
    }
    assert!(Case::new().set("EX_ON", "1").load(&[]).unwrap().value.on);
}

#[test]
fn all_mistakes_of_all_layers_are_reported_together_with_their_places() {
    let found = messages(
        Case::new()
            .file("prot: 1\nnames: {a: b}\nname: 12\non: 3\nwait: [1]\nzzz: 1\n")
            .set("EX_PORT", "70000")
            .load(&["--wait", "soon"]),
    );
    assert_eq!(
        found,
        [
            "options.yaml: unknown key \"prot\" | did you mean \"port\"?",
            "options.yaml: unknown key \"zzz\" | use the long name of a flag without its dashes; --help lists them",
            "options.yaml: name: the number 12 stands where a text is wanted | put it in quotes",
            "$EX_PORT: \"70000\" is not valid: 70000 is not in 0..=65535 | see --help for what the option takes",
            "options.yaml: on: \"3\" is neither true nor false | write true or false",
            "options.yaml: names: a mapping stands where a value is wanted | write flat keys, one per flag",
            "--wait: \"soon\" is not a duration | write a number with a unit, such as 500ms, 30s, 5m or 1h30m; a \
             number alone is seconds",
        ]
    );
}

#[test]
fn a_key_in_another_case_is_recognised() {
    let keys = ["listen-port", "listen-host", "log-level"];
    for slip in ["listen_port", "listenPort", "listen-prot", "ListenPort"] {
        assert_eq!(
            unknown_key(Path::new("f"), slip, &keys).remedy,
            "did you mean \"listen-port\"?",
            "{slip}"
        );
    }
}

#[test]
fn a_file_that_cannot_be_used_is_named() {
    assert!(
        messages(Case::new().file("a: [").load(&[]))[0].contains("options.yaml is not valid YAML or JSON")
    );
    assert!(messages(Case::new().file("- a").load(&[]))[0].contains("options.yaml is not a mapping"));
    assert!(messages(Case::new().file("port: 1\nport: 2").load(&[]))[0].contains("not valid YAML or JSON"));
    let missing = messages(Case::new().set("TIPHYS_CONFIG", "/no/such/file").load(&[]));
    assert!(missing[0].starts_with("configuration file /no/such/file cannot be read"), "{missing:?}");
    let nested = messages(Case::new().file("config: other.yaml").load(&[]));
    assert!(nested[0].contains("unknown key \"config\""), "{nested:?}");
}

#[test]
fn what_a_file_would_have_said_is_not_missing_where_it_cannot_be_read() {
    let command = prepare(Example::augment_args(Command::new("example")));
    let line = ["example", "--config", "/no/such/file", "--port", "x"];
    let given = lenient(command.clone()).try_get_matches_from(line).unwrap();
    let problems = load::<Example, ()>(&command, &given, &|_| None, |_| {
        Err(Problem::new("--auth is missing", "give it").into())
    });
    let whats: Vec<String> = problems.unwrap_err().0.into_iter().map(|problem| problem.what).collect();
    assert_eq!(whats.len(), 2, "{whats:?}");
    assert!(whats[0].contains("/no/such/file") && whats[1].contains("--port"), "{whats:?}");
}

#[derive(Debug, Clone, Args)]
struct Needy {
    /// A number
    #[arg(long, value_name = "N")]
    port: u16,
    /// A text
    #[arg(long, value_name = "TEXT")]
    name: String,
}

#[test]
fn a_value_that_is_wrong_is_not_missing_too() {
    let command = prepare(Needy::augment_args(Command::new("needy")));
    let whats = |line: &[&str]| -> Vec<String> {
        let given = lenient(command.clone()).try_get_matches_from(line).unwrap();
        let problems = load::<Needy, Needy>(&command, &given, &|_| None, Ok).unwrap_err();
        problems.0.into_iter().map(|problem| problem.what).collect()
    };
    let wrong = whats(&["needy", "--port", "x", "--name", "y"]);
    assert!(wrong.len() == 1 && wrong[0].contains("--port"), "{wrong:?}");
    let both = whats(&["needy", "--port", "x"]);
    assert_eq!(both[1..], ["required and not given: --name <TEXT>"], "{both:?}");
    assert_eq!(whats(&["needy"]), ["required and not given: --port <N>, --name <TEXT>"]);
}

#[test]
fn what_the_check_finds_is_added_to_what_the_layers_have_wrong() {
    let command = prepare(Example::augment_args(Command::new("example")));
    let given = lenient(command.clone()).try_get_matches_from(["example", "--port", "x"]).unwrap();
    let problems = load::<Example, ()>(&command, &given, &|_| None, |options| {
        assert_eq!(options.port, 8443, "a bad value leaves the default for the check");
        Err(Problem::new("contradiction", "choose").into())
    })
    .unwrap_err();
    assert_eq!(problems.0.len(), 2);
    assert_eq!(problems.0[1].what, "contradiction");
}

#[test]
fn effective_options_tell_their_origin_and_hide_secrets() {
    let loaded = Case::new().set("EX_PASSWORD", "hunter2").file("port: 9").load(&["--once"]).unwrap();
    let shown: Vec<String> = loaded.settings.iter().map(ToString::to_string).collect();
    assert!(shown.contains(&"password=*** ($EX_PASSWORD)".to_owned()), "{shown:?}");
    assert!(shown.contains(&"once=true (flag)".to_owned()), "{shown:?}");
    assert!(shown.contains(&"wait=5s (default)".to_owned()), "{shown:?}");
    assert!(
        shown.iter().any(|line| line.starts_with("port=9 (") && line.ends_with("options.yaml)")),
        "{shown:?}"
    );
    assert_eq!(loaded.value.password.as_deref(), Some("hunter2"));
}

#[test]
fn a_value_that_looks_like_a_flag_stays_a_value() {
    assert_eq!(Case::new().set("EX_NAME", "--port=1").load(&[]).unwrap().value.name, "--port=1");
}

proptest! {
    #[test]
    fn any_text_survives_every_layer_unchanged(text in "[^\u{0}\u{feff}]{1,30}") {
        let command = prepare(Example::augment_args(Command::new("example")));
        let given = lenient(command.clone()).try_get_matches_from(["example"]).unwrap();
        let environment = |name: &str| (name == "EX_NAME").then(|| OsString::from(&text));
        let value = load::<Example, _>(&command, &given, &environment, Ok).unwrap().value;
        prop_assert_eq!(&value.name, &text);
    }

    #[test]
    fn no_file_makes_the_loader_panic(text in "(?s).{0,80}") {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, text).unwrap();
        let _ = read_file(&path);
    }
}
