//! The one loader: defaults < file < environment < flags.

use std::any::TypeId;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use clap::builder::ValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, parser::ValueSource};
use serde_json::{Map, Value};

use super::value::{self, Invalid};
use super::{Problem, Problems};

/// The flag that names the file of options. Flatten it into the options of a command.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigFile {
    /// Read options from a YAML or JSON file
    ///
    /// Each key is the long name of a flag without the dashes. Environment and flags beat the file. An unknown
    /// key is an error.
    #[arg(long = CONFIG, env = "TIPHYS_CONFIG", value_name = "FILE")]
    #[arg(help_heading = "Configuration")]
    pub config: Option<PathBuf>,
}

const CONFIG: &str = "config";

/// Where the value of an option comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// The command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "${name}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// The effective value of one option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Long name of the flag.
    pub key: String,
    /// Value as text; a secret shows as `***`.
    pub value: String,
    /// Where the value comes from.
    pub origin: Origin,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={} ({})", self.key, self.value, self.origin)
    }
}

/// Checked options, and where each of them came from.
#[derive(Debug, Clone)]
pub struct Loaded<S> {
    /// What the check made of the options.
    pub value: S,
    /// Every option with its effective value.
    pub settings: Vec<Setting>,
}

/// Gives boolean options the form that Go's flags have: `--x` and `--x=false`, never `--x false`.
///
/// To be applied to a command before it is shown or parsed.
pub fn prepare(command: Command) -> Command {
    command
        .mut_args(|arg| {
            if is_go_boolean(&arg) {
                arg.num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true")
                    .value_parser(value::boolean)
                    .value_name("BOOL")
                    .hide_possible_values(true)
            } else {
                arg
            }
        })
        .mut_subcommands(prepare)
}

/// The same command, taking any text for every value and requiring nothing, so that names are checked first and
/// values later, all together, by [`load`].
pub fn lenient(command: Command) -> Command {
    command
        .mut_args(|arg| {
            let arg = if arg.get_action().takes_values() {
                arg.value_parser(ValueParser::os_string())
            } else {
                arg
            };
            arg.required(false).env(None)
        })
        .mut_subcommands(lenient)
}

/// Gathers the options `T` of `command` and checks them with `check`.
///
/// `command` is the (sub)command that takes `T`, prepared; `given` is what [`lenient`] parsing found on the command
/// line for it; `environment` looks up a variable. An empty variable counts as not set, because manifests set
/// variables from config maps whose entries are empty; an empty flag or file entry means the default.
///
/// # Errors
/// Everything that is wrong in any layer, together with whatever `check` finds in the rest.
pub fn load<T: Args, S>(
    command: &Command,
    given: &ArgMatches,
    environment: &dyn Fn(&str) -> Option<OsString>,
    check: impl FnOnce(T) -> Result<S, Problems>,
) -> Result<Loaded<S>, Problems> {
    let command = command.clone().no_binary_name(true);
    let options: Vec<&Arg> = command.get_arguments().filter(|arg| arg.get_long().is_some()).collect();
    let probe = command.clone().mut_args(|arg| arg.required(false).env(None));
    let mut problems = Problems::default();

    let file = match config_path(given, environment, &options) {
        Some(path) => problems.keep(read_file(&path)).map(|entries| (path, entries)),
        None => None,
    };
    let is_complete = problems.is_empty();
    if let Some((path, entries)) = &file {
        let keys: Vec<&str> =
            options.iter().filter_map(|arg| arg.get_long()).filter(|key| *key != CONFIG).collect();
        for key in entries.keys().filter(|key| !keys.contains(&key.as_str())) {
            problems.0.push(unknown_key(path, key, &keys));
        }
    }

    let mut arguments: Vec<OsString> = Vec::new();
    let mut settings = Vec::new();
    let mut rejected = Vec::new();
    for arg in &options {
        let Some(long) = arg.get_long() else { continue };
        let chosen = flag(arg, given).or_else(|| variable(arg, environment)).or_else(|| {
            file.as_ref().and_then(|(path, entries)| entry(arg, path, entries.get(long)?, &mut problems))
        });
        let (origin, values) = chosen.unwrap_or((Origin::Default, Vec::new()));
        let mut good = Vec::new();
        for value in values {
            match check_value(&probe, arg, long, &value) {
                Ok(()) => good.push(value),
                Err(problem) => {
                    problems.0.push(located(problem, long, &origin));
                    rejected.push(format!("--{long}"));
                }
            }
        }
        settings.push(setting(arg, long, &good, origin));
        arguments.extend(good.into_iter().filter_map(|value| as_argument(arg, long, &value)));
    }

    // Good values of all layers become one command line. What is still missing is a required option.
    let strict = command.clone().mut_args(|arg| arg.env(None));
    let loaded = strict
        .try_get_matches_from(arguments)
        .and_then(|matches| T::from_arg_matches(&matches))
        .map_err(|error| Problems(from_clap(&error, &rejected).into_iter().collect()))
        .and_then(check);
    match loaded {
        Ok(value) if problems.is_empty() => Ok(Loaded { value, settings }),
        Ok(_) => Err(problems),
        // What a file that cannot be read would have said is not missing.
        Err(_) if !is_complete => Err(problems),
        Err(more) => {
            problems.0.extend(more.0);
            Err(problems)
        }
    }
}

fn is_go_boolean(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set) && arg.get_value_parser().type_id() == TypeId::of::<bool>()
}

fn is_text(arg: &Arg) -> bool {
    let kind = arg.get_value_parser().type_id();
    kind == TypeId::of::<String>() || kind == TypeId::of::<PathBuf>() || kind == TypeId::of::<OsString>()
}

fn is_boolean(arg: &Arg) -> bool {
    arg.get_value_parser().type_id() == TypeId::of::<bool>()
}

fn config_path(
    given: &ArgMatches,
    environment: &dyn Fn(&str) -> Option<OsString>,
    options: &[&Arg],
) -> Option<PathBuf> {
    let arg = options.iter().find(|arg| arg.get_long() == Some(CONFIG))?;
    let (_, values) = flag(arg, given).or_else(|| variable(arg, environment))?;
    values.into_iter().next().map(PathBuf::from)
}

/// What the command line says; an empty list where it says "empty".
fn flag(arg: &Arg, given: &ArgMatches) -> Option<(Origin, Vec<OsString>)> {
    let id = arg.get_id().as_str();
    if !given.try_contains_id(id).unwrap_or(false) || given.value_source(id) != Some(ValueSource::CommandLine)
    {
        return None;
    }
    let values = if arg.get_action().takes_values() {
        given.get_raw(id)?.filter(|value| !value.is_empty()).map(OsStr::to_owned).collect()
    } else {
        vec![OsString::from(if given.get_flag(id) { "true" } else { "false" })]
    };
    Some((Origin::Flag, values))
}

fn variable(arg: &Arg, environment: &dyn Fn(&str) -> Option<OsString>) -> Option<(Origin, Vec<OsString>)> {
    let name = arg.get_env()?.to_str()?;
    let value = environment(name)?;
    let values = match (arg.get_value_delimiter(), value.to_str()) {
        (Some(delimiter), Some(text)) => {
            text.split(delimiter).map(str::trim).filter(|part| !part.is_empty()).map(OsString::from).collect()
        }
        _ if value.is_empty() => Vec::new(),
        _ => vec![value],
    };
    (!values.is_empty()).then(|| (Origin::Environment(name.to_owned()), values))
}

/// What the file says. A value of the wrong kind is a problem, and the option counts as not given.
fn entry(arg: &Arg, path: &Path, value: &Value, problems: &mut Problems) -> Option<(Origin, Vec<OsString>)> {
    let origin = Origin::File(path.to_owned());
    let many = matches!(arg.get_action(), ArgAction::Append);
    let texts = match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) if many => items.iter().map(|item| scalar(arg, item)).collect(),
        Value::Array(_) => Err(Invalid::new("a list stands where one value is wanted", "write one value")),
        Value::String(text) if many => Ok(split(arg, text)),
        single => scalar(arg, single).map(|text| vec![text]),
    };
    match texts {
        Ok(texts) => {
            Some((origin, texts.into_iter().filter(|text| !text.is_empty()).map(OsString::from).collect()))
        }
        Err(invalid) => {
            let long = arg.get_long().unwrap_or_default();
            problems.0.push(located(invalid, long, &origin));
            None
        }
    }
}

fn split(arg: &Arg, text: &str) -> Vec<String> {
    match arg.get_value_delimiter() {
        Some(delimiter) => text.split(delimiter).map(|part| part.trim().to_owned()).collect(),
        None => vec![text.to_owned()],
    }
}

fn scalar(arg: &Arg, value: &Value) -> Result<String, Invalid> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(value) if is_boolean(arg) => Ok(value.to_string()),
        Value::Bool(value) => Err(Invalid::new(
            format!("{value} stands where a text or a number is wanted"),
            "put a text in quotes",
        )),
        Value::Number(number) if !is_text(arg) => Ok(number.to_string()),
        Value::Number(number) => Err(Invalid::new(
            format!("the number {number} stands where a text is wanted"),
            "put it in quotes",
        )),
        Value::Null => Ok(String::new()),
        Value::Array(_) => Err(Invalid::new("a list stands inside a list", "write a plain list")),
        Value::Object(_) => {
            Err(Invalid::new("a mapping stands where a value is wanted", "write flat keys, one per flag"))
        }
    }
}

fn read_file(path: &Path) -> Result<Map<String, Value>, Problem> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Problem::new(
            format!("configuration file {} cannot be read: {error}", path.display()),
            "check the path given with --config or $TIPHYS_CONFIG, and its permissions",
        )
    })?;
    let strict = serde_saphyr::options! { strict_booleans: true };
    match serde_saphyr::from_str_with_options(&text, strict) {
        Ok(Value::Object(entries)) => Ok(entries),
        Ok(Value::Null) => Ok(Map::new()),
        Ok(_) => Err(Problem::new(
            format!("configuration file {} is not a mapping", path.display()),
            "write one key: value per line, where each key is the long name of a flag",
        )),
        Err(error) => Err(Problem::new(
            format!("configuration file {} is not valid YAML or JSON: {error}", path.display()),
            "correct the file at the place named",
        )),
    }
}

fn unknown_key(path: &Path, key: &str, known: &[&str]) -> Problem {
    // Snake and camel case are the usual slips: compare without regard to them.
    let plain = |text: &str| text.to_ascii_lowercase().replace(['-', '_'], "");
    let nearest = known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(&plain(candidate), &plain(key)), candidate))
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .filter(|(likeness, _)| *likeness > 0.8);
    Problem::new(
        format!("{}: unknown key {key:?}", path.display()),
        match nearest {
            Some((_, candidate)) => format!("did you mean {candidate:?}?"),
            None => "use the long name of a flag without its dashes; --help lists them".to_owned(),
        },
    )
}

/// Asks the option's own parser about one value.
fn check_value(probe: &Command, arg: &Arg, long: &str, value: &OsStr) -> Result<(), Invalid> {
    if !arg.get_action().takes_values() {
        let text = value.to_str().unwrap_or_default();
        return value::boolean(text).map(drop);
    }
    let Err(error) = probe.clone().try_get_matches_from([join(long, value)]) else { return Ok(()) };
    match error.kind() {
        ErrorKind::ValueValidation | ErrorKind::InvalidValue | ErrorKind::InvalidUtf8 => {
            let inner = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<Invalid>());
            Err(inner.cloned().unwrap_or_else(|| foreign(arg, &error, value)))
        }
        // Whatever else is wrong with a line of one option is about other options.
        _ => Ok(()),
    }
}

/// A complaint of one of clap's own parsers, in our form.
fn foreign(arg: &Arg, error: &clap::Error, value: &OsStr) -> Invalid {
    let value = value.to_string_lossy();
    let kind = arg.get_value_parser().type_id();
    for (number, name) in
        [(TypeId::of::<u16>(), "a whole number up to 65535"), (TypeId::of::<u32>(), "a whole number")]
    {
        if kind == number && value.parse::<u128>().is_err() {
            return Invalid::new(format!("{value:?} is not a number"), format!("write {name}"));
        }
    }
    if let Some(ContextValue::Strings(valid)) = error.get(ContextKind::ValidValue) {
        return Invalid::new(
            format!("{value:?} is not one of its values"),
            format!("use one of {}", valid.join(", ")),
        );
    }
    let what = match std::error::Error::source(error) {
        Some(reason) => format!("{value:?} is not valid: {reason}"),
        None => format!("{value:?} is not valid"),
    };
    Invalid::new(what, "see --help for what the option takes")
}

fn located(invalid: Invalid, long: &str, origin: &Origin) -> Problem {
    let place = match origin {
        Origin::Default | Origin::Flag => format!("--{long}"),
        Origin::Environment(name) => format!("${name}"),
        Origin::File(path) => format!("{}: {long}", path.display()),
    };
    Problem::new(format!("{place}: {}", invalid.what), invalid.remedy)
}

/// What clap has to say; nothing if it only misses what was `rejected` before.
fn from_clap(error: &clap::Error, rejected: &[String]) -> Option<Problem> {
    const REMEDY: &str = "see --help for the options and what they take";
    if error.kind() == ErrorKind::MissingRequiredArgument
        && let Some(ContextValue::Strings(missing)) = error.get(ContextKind::InvalidArg)
    {
        // As clap shows them: `--name <TEXT>`.
        let is_rejected = |arg: &&String| {
            arg.split([' ', '=']).next().is_some_and(|it| rejected.iter().any(|name| name == it))
        };
        let missing: Vec<&str> = missing.iter().filter(|arg| !is_rejected(arg)).map(String::as_str).collect();
        let what = format!("required and not given: {}", missing.join(", "));
        return (!missing.is_empty()).then(|| Problem::new(what, REMEDY));
    }
    let text = error.to_string();
    let what: Vec<&str> = text
        .lines()
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"))
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    Some(Problem::new(what.join(" ").trim_start_matches("error: "), REMEDY))
}

fn setting(arg: &Arg, long: &str, values: &[OsString], origin: Origin) -> Setting {
    let (shown, origin): (Vec<&OsStr>, Origin) = if values.is_empty() {
        (arg.get_default_values().iter().map(AsRef::as_ref).collect(), Origin::Default)
    } else {
        (values.iter().map(AsRef::as_ref).collect(), origin)
    };
    let value = if arg.is_hide_env_values_set() && !shown.is_empty() {
        "***".to_owned()
    } else {
        shown.iter().map(|value| value.to_string_lossy()).collect::<Vec<_>>().join(",")
    };
    Setting { key: long.to_owned(), value, origin }
}

fn as_argument(arg: &Arg, long: &str, value: &OsStr) -> Option<OsString> {
    if arg.get_action().takes_values() {
        return Some(join(long, value));
    }
    // A switch that was set to false is one that is not there.
    let on = value.to_str().is_some_and(|text| value::boolean(text) == Ok(true));
    on.then(|| OsString::from(format!("--{long}")))
}

fn join(long: &str, value: &OsStr) -> OsString {
    let mut argument = OsString::from(format!("--{long}="));
    argument.push(value);
    argument
}

#[cfg(test)]
mod tests;
