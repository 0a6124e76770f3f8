//! What the manifests and the book say of parameters, made from the options: a key of the config map `argocd-agent-params`
//! for each environment variable.

use std::any::TypeId;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, Command};
use serde_json::{Map, Value, json};
use tiphys_shared::process::options;

use super::super::Program;
use super::WRITE;

const SIDES: [&str; 2] = ["principal", "agent"];
/// What comes from the Secret that Argo CD keeps it in.
const REDIS_PASSWORD: &str = "REDIS_PASSWORD";

struct Parameter<'a> {
    variable: String,
    key: String,
    arg: &'a Arg,
}

fn repository(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path)
}

/// The key that upstream's manifests have for a variable.
fn upstream_key(side: &str, variable: &str) -> Option<&'static str> {
    include_str!("../upstream-parameters.txt").lines().filter(|line| !line.starts_with('#')).find_map(
        |line| {
            let mut fields = line.split(' ');
            (fields.next() == Some(side) && fields.next() == Some(variable)).then(|| fields.next()).flatten()
        },
    )
}

/// The key for a variable: upstream's, or else one made of its words.
fn key(side: &str, variable: &str) -> String {
    upstream_key(side, variable).map_or_else(
        || {
            let words = variable.trim_start_matches("ARGOCD_").trim_start_matches("TIPHYS_").to_lowercase();
            let words = words.trim_start_matches(&format!("{side}_")).replace('_', "-");
            format!("{side}.{words}")
        },
        str::to_owned,
    )
}

fn parameters<'a>(command: &'a Command, side: &str) -> Vec<Parameter<'a>> {
    let with_variable = command.get_arguments().filter_map(|arg| Some((arg.get_env()?.to_str()?, arg)));
    with_variable
        .filter(|(variable, _)| *variable != REDIS_PASSWORD)
        .map(|(variable, arg)| Parameter { variable: variable.to_owned(), key: key(side, variable), arg })
        .collect()
}

/// The environment of a container.
fn environment(parameters: &[Parameter<'_>]) -> String {
    let mut text = String::from(
        "# Made from the options: TIPHYS_WRITE_DOCS=1 cargo test -p tiphys reference\n\
         - name: REDIS_PASSWORD\n  valueFrom:\n    secretKeyRef: {name: argocd-redis, key: auth, optional: true}\n",
    );
    for Parameter { variable, key, .. } in parameters {
        _ = write!(
            text,
            "- name: {variable}\n  valueFrom:\n    \
             configMapKeyRef: {{name: argocd-agent-params, key: {key}, optional: true}}\n"
        );
    }
    text.truncate(text.trim_end().len());
    text
}

/// What a parameter may be, as JSON Schema. An empty text is the default, as in the config map.
fn schema(arg: &Arg) -> Value {
    let kind = arg.get_value_parser().type_id();
    let named: Vec<String> =
        arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    let number = |largest: Option<u64>| {
        let mut integer = json!({"type": "integer", "minimum": 0});
        if let Some(largest) = largest {
            integer["maximum"] = largest.into();
        }
        json!({"anyOf": [integer, {"type": "string", "pattern": "^[0-9]*$"}]})
    };
    let mut schema = if kind == TypeId::of::<bool>() {
        json!({"enum": [true, false, "true", "false", ""]})
    } else if !named.is_empty() {
        json!({"enum": named.into_iter().chain([String::new()]).collect::<Vec<_>>()})
    } else if kind == TypeId::of::<u16>() {
        number(Some(u16::MAX.into()))
    } else if [TypeId::of::<u32>(), TypeId::of::<u64>(), TypeId::of::<usize>()].iter().any(|one| kind == *one)
    {
        number(None)
    } else if kind == TypeId::of::<Duration>() {
        let pattern = "^([0-9]+|([0-9]+([.][0-9]+)?(ns|us|ms|s|m|h))*)$";
        json!({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": pattern}]})
    } else {
        json!({"type": "string"})
    };
    schema["description"] = arg.get_help().map(ToString::to_string).unwrap_or_default().into();
    schema
}

/// The chart's schema with these parameters and no others.
fn with_parameters(chart: &str, parameters: &[Parameter<'_>]) -> String {
    let mut whole: Value = serde_json::from_str(chart).unwrap();
    let properties: Map<String, Value> =
        parameters.iter().map(|parameter| (parameter.key.clone(), schema(parameter.arg))).collect();
    whole["properties"]["params"]["properties"] = properties.into();
    serde_json::to_string_pretty(&whole).unwrap() + "\n"
}

fn page() -> String {
    let root = options::prepare(Program::Tiphys.command());
    let mut text = String::from(
        "# Parameters in manifests\n\nMade from the program itself (`TIPHYS_WRITE_DOCS=1 cargo test -p tiphys reference`). The \
         manifests and charts read each option from a\nkey of the config map `argocd-agent-params`; keys that argocd-agent's \
         manifests have are the same there. What an option does\nis told in [Every option](options.md). The password of Redis \
         comes from the Secret `argocd-redis`, key `auth`.\n",
    );
    for side in SIDES {
        _ = write!(text, "\n## {side}\n\n| key | option | environment variable |\n|---|---|---|\n");
        for Parameter { variable, key, arg } in parameters(root.find_subcommand(side).unwrap(), side) {
            _ = writeln!(text, "| `{key}` | `--{}` | `{variable}` |", arg.get_long().unwrap_or_default());
        }
    }
    text
}

fn check(path: &str, made: &str) {
    let path = repository(path);
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(path, made).unwrap();
        return;
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(
        written == made,
        "{} is out of date: run {WRITE}=1 cargo test -p tiphys reference, then hack/manifests.sh write",
        path.display()
    );
}

#[test]
fn the_manifests_have_every_option_that_there_is() {
    let root = options::prepare(Program::Tiphys.command());
    for side in SIDES {
        let parameters = parameters(root.find_subcommand(side).unwrap(), side);
        check(&format!("manifests/helm/tiphys-{side}/files/environment.yaml"), &environment(&parameters));
        let path = format!("manifests/helm/tiphys-{side}/values.schema.json");
        let chart = std::fs::read_to_string(repository(&path)).unwrap();
        check(&path, &with_parameters(&chart, &parameters));
    }
    check("docs/src/parameters.md", &page());
}

#[test]
fn no_two_options_share_a_key() {
    let root = options::prepare(Program::Tiphys.command());
    for side in SIDES {
        let mut keys: Vec<_> =
            parameters(root.find_subcommand(side).unwrap(), side).into_iter().map(|it| it.key).collect();
        let before = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), before, "two options of {side} share a key");
    }
}

#[test]
fn every_key_of_upstream_is_read() {
    let root = options::prepare(Program::Tiphys.command());
    for line in include_str!("../upstream-parameters.txt").lines().filter(|line| !line.starts_with('#')) {
        let [side, variable, key] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line:?} has not three fields")
        };
        let parameters = parameters(root.find_subcommand(side).unwrap(), side);
        let found = parameters.iter().find(|it| it.key == key);
        assert_eq!(found.map(|it| it.variable.as_str()), Some(variable), "{side} {key}");
    }
}

#[test]
fn the_charts_are_of_this_version() {
    for side in SIDES {
        let chart =
            std::fs::read_to_string(repository(&format!("manifests/helm/tiphys-{side}/Chart.yaml"))).unwrap();
        for field in ["version", "appVersion"] {
            let line = format!("{field}: {}", env!("CARGO_PKG_VERSION"));
            assert!(chart.lines().any(|it| it == line), "the chart of {side} has no line {line:?}");
        }
    }
}
