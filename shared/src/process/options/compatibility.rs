//! Options that are accepted so that existing manifests start, for features that are not here yet.

use std::ffi::OsStr;

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::Problem;
use super::value;

const HEADING: &str = "Accepted for compatibility, not yet in effect";

/// One option that has no effect yet.
#[derive(Debug, Clone, Copy)]
pub struct Accepted {
    /// Long name of the flag.
    pub name: &'static str,
    /// Environment variable.
    pub variable: &'static str,
    /// Upstream's default.
    pub default: &'static str,
    /// What its values look like.
    pub kind: Kind,
    /// What the option is about.
    pub about: &'static str,
    /// What a value other than "off" leads to.
    pub effect: Effect,
}

/// What the values of an option look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Go's booleans.
    Switch,
    /// Any text.
    Text,
    /// Any text, never shown.
    Secret,
    /// Texts separated by commas.
    List,
    /// A port; 0 means none.
    Port,
    /// A whole number.
    Number,
    /// A duration.
    Duration,
}

/// What a value leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It only matters to a feature that another option turns on.
    Ignored,
    /// A value that turns the feature on is a mistake, with this remedy.
    Refused(&'static str),
    /// A value that turns the feature on is worth this line in the log.
    Noticed(&'static str),
}

/// Adds the options to a command.
pub fn accept(command: Command, table: &'static [Accepted]) -> Command {
    table.iter().fold(command, |command, accepted| {
        let mut arg = Arg::new(accepted.name)
            .long(accepted.name)
            .env(accepted.variable)
            .help(accepted.about)
            .help_heading(HEADING)
            .hide_short_help(true)
            .action(if accepted.kind == Kind::List { ArgAction::Append } else { ArgAction::Set });
        if !accepted.default.is_empty() {
            arg = arg.default_value(accepted.default);
        }
        command.arg(match accepted.kind {
            Kind::Switch => arg.value_parser(clap::value_parser!(bool)),
            Kind::Text => arg.value_name("TEXT"),
            Kind::Secret => arg.value_name("TEXT").hide_env_values(true),
            Kind::List => arg.value_delimiter(',').value_name("LIST"),
            Kind::Port => arg.value_parser(clap::value_parser!(u16)).value_name("PORT"),
            Kind::Number => arg.value_parser(clap::value_parser!(u32)).value_name("N"),
            Kind::Duration => arg.value_parser(ValueParser::from(value::duration)).value_name("DURATION"),
        })
    })
}

/// Says what the given values lead to: mistakes, and lines for the log.
pub fn review(matches: &ArgMatches, table: &'static [Accepted]) -> (Vec<Problem>, Vec<String>) {
    let (mut problems, mut notices) = (Vec::new(), Vec::new());
    for accepted in table {
        let on = is_on(matches, accepted);
        match accepted.effect {
            Effect::Refused(remedy) if on => problems.push(Problem::new(
                format!("--{} asks for something that this version does not have", accepted.name),
                remedy,
            )),
            Effect::Noticed(text) if on => notices.push(text.to_owned()),
            _ => {}
        }
    }
    (problems, notices)
}

fn is_on(matches: &ArgMatches, accepted: &Accepted) -> bool {
    let mut values = matches.get_raw(accepted.name).into_iter().flatten().filter_map(OsStr::to_str);
    match accepted.kind {
        Kind::Switch => values.any(|text| value::boolean(text) == Ok(true)),
        Kind::Port => values.any(|text| text.parse() != Ok(0u16)),
        Kind::Duration => values.any(|text| value::duration(text).is_ok_and(|duration| !duration.is_zero())),
        Kind::Text | Kind::Secret | Kind::List | Kind::Number => values.any(|text| text != accepted.default),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Accepted] = &[
        Accepted {
            name: "enable-x",
            variable: "X",
            default: "false",
            kind: Kind::Switch,
            about: "x",
            effect: Effect::Refused("leave it out"),
        },
        Accepted {
            name: "z-port",
            variable: "Z",
            default: "0",
            kind: Kind::Port,
            about: "z",
            effect: Effect::Noticed("z is not served"),
        },
    ];

    fn reviewed(line: &[&str]) -> (usize, Vec<String>) {
        let command = crate::process::options::prepare(accept(Command::new("x").no_binary_name(true), TABLE));
        let (problems, notices) = review(&command.try_get_matches_from(line).unwrap(), TABLE);
        (problems.len(), notices)
    }

    #[test]
    fn off_is_accepted_and_on_is_answered() {
        assert_eq!(reviewed(&[]), (0, vec![]));
        assert_eq!(reviewed(&["--enable-x=false", "--z-port=0"]), (0, vec![]));
        assert_eq!(reviewed(&["--enable-x"]), (1, vec![]));
        assert_eq!(reviewed(&["--z-port", "6060"]), (0, vec!["z is not served".to_owned()]));
    }
}
