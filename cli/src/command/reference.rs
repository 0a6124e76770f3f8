//! The book's lists of options and metrics, made from what is in the program so that they cannot lie.

mod metrics;

mod manifests;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use clap::{Arg, Command};
use tiphys_shared::process::options;

use super::Program;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/src/options.md");

/// Set to write the page anew instead of comparing it.
const WRITE: &str = "TIPHYS_WRITE_DOCS";

fn page() -> String {
    let root = options::prepare(Program::Tiphys.command());
    let mut text = String::from(
        "# Every option\n\nMade from the program itself (`TIPHYS_WRITE_DOCS=1 cargo test -p tiphys reference`). How the values \
         of flags, environment\nand file come together is told in [Configuration](configuration.md).\n",
    );
    for (name, title) in [("principal", "tiphys principal"), ("agent", "tiphys agent")] {
        let command = root.find_subcommand(name).unwrap();
        _ = write!(text, "\n## {title}\n");
        for heading in headings(command) {
            _ = write!(
                text,
                "\n### {heading}\n\n| flag | environment variable | default | meaning |\n|---|---|---|---|\n"
            );
            for arg in command.get_arguments().filter(|arg| arg.get_help_heading() == Some(heading)) {
                text.push_str(&row(arg));
            }
        }
    }
    text
}

fn headings(command: &Command) -> Vec<&str> {
    let mut headings = Vec::new();
    for heading in command.get_arguments().filter_map(Arg::get_help_heading) {
        if !headings.contains(&heading) {
            headings.push(heading);
        }
    }
    headings
}

fn row(arg: &Arg) -> String {
    let short = arg.get_short().map(|short| format!("`-{short}`, ")).unwrap_or_default();
    let variable = arg.get_env().map(|name| format!("`{}`", name.to_string_lossy())).unwrap_or_default();
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let default = if defaults.is_empty() { String::new() } else { format!("`{}`", defaults.join(",")) };
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let values: Vec<_> =
        arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    let values = if values.is_empty() || arg.is_hide_possible_values_set() {
        String::new()
    } else {
        format!(" ({})", values.join(", "))
    };
    let long = arg.get_long().unwrap_or_default();
    format!("| {short}`--{long}` | {variable} | {default} | {}{values} |\n", help.replace('|', "\\|"))
}

/// Compares a page of the book with what it should be, or writes it.
fn keep(path: &str, page: &str) {
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(path, page).unwrap();
        return;
    }
    let written = std::fs::read_to_string(Path::new(path)).unwrap_or_default();
    assert!(written == page, "{path} is out of date: run {WRITE}=1 cargo test -p tiphys reference");
}

#[test]
fn the_book_lists_the_options_that_there_are() {
    keep(PAGE, &page());
}

#[test]
fn every_command_says_what_it_does_and_not_what_another_one_says() {
    fn check(command: &Command, path: &str) {
        let mut said = BTreeMap::new();
        for below in command.get_subcommands() {
            let path = format!("{path} {}", below.get_name());
            let about = below.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(!about.is_empty(), "{path} says nothing");
            if let Some(other) = said.insert(about, path.clone()) {
                panic!("{path} says the same as {other}");
            }
            check(below, &path);
        }
    }
    for program in [Program::Tiphys, Program::ArgocdAgent, Program::ArgocdAgentctl] {
        let root = program.command();
        let about = root.get_about().map(ToString::to_string);
        assert_eq!(about.as_deref(), Some("One Argo CD control plane for clusters that it cannot reach"));
        check(&root, program.name());
    }
}

#[test]
fn no_flag_or_variable_is_declared_twice() {
    let root = options::prepare(Program::Tiphys.command());
    for name in ["principal", "agent"] {
        let command = root.find_subcommand(name).unwrap();
        let mut variables: Vec<_> = command.get_arguments().filter_map(|arg| arg.get_env()).collect();
        let before = variables.len();
        variables.sort();
        variables.dedup();
        assert_eq!(variables.len(), before, "two options of {name} share a variable");
        command.clone().debug_assert();
    }
}

#[test]
fn no_link_in_the_book_leads_nowhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let pages = std::fs::read_dir(root.join("docs/src")).unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<_> = pages.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    let summary = std::fs::read_to_string(root.join("docs/src/SUMMARY.md")).unwrap();
    for page in &pages {
        let name = page.file_name().unwrap().to_str().unwrap();
        assert!(name == "SUMMARY.md" || summary.contains(&format!("({name})")), "no chapter leads to {name}");
    }
    pages.push(root.join("README.md"));
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            if !file.contains("://") && !file.is_empty() && !file.contains(' ') {
                let target = page.parent().unwrap().join(file);
                assert!(target.exists(), "{} links to {link}, which is not there", page.display());
            }
        }
    }
}

#[test]
fn every_flag_of_upstream_is_taken_with_its_variable_and_default() {
    let root = options::prepare(Program::ArgocdAgent.command());
    for line in include_str!("upstream-flags.txt").lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split(' ').collect();
        let [side, flag, variable, default] = fields[..] else { panic!("{line:?} has not four fields") };
        let command = root.find_subcommand(side).unwrap();
        let arg = command.get_arguments().find(|arg| arg.get_long() == Some(flag));
        let arg = arg.unwrap_or_else(|| panic!("{side} does not take --{flag}"));
        let ours = arg.get_env().map_or_else(|| "-".to_owned(), |name| name.to_string_lossy().into_owned());
        assert_eq!(ours, variable, "variable of {side} --{flag}");
        let ours: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        assert_eq!(
            if ours.is_empty() { "-".into() } else { ours.join(",") },
            default,
            "default of {side} --{flag}"
        );
    }
}
