//! Options from defaults, a file, the environment and flags.
//!
//! An option is declared once, as an argument of a [`clap::Args`] struct. [`load`] gathers its value from four
//! layers, each beating the one before it: the default, the file named by `--config`, the environment, the flags.
//! A key in the file is the long name of the flag. Whatever is wrong in any layer is collected and reported
//! together as [`Problems`], each with its remedy.
//!
//! The submodules hold the kinds of value that options have: parsed here, at the border, and trusted inside.

use std::fmt;

mod compatibility;
mod kubernetes;
mod listen;
mod load;
mod logging;
mod pattern;
mod redis;
mod selector;
mod tls;
mod traces;
mod value;

pub use compatibility::{Accepted, Effect, Kind, accept, review};
pub use kubernetes::check_access;
pub use listen::{HostPort, Listen, check_ports};
pub use load::{ConfigFile, Loaded, Origin, Setting, lenient, load, prepare};
pub use logging::{LogFormat, LogLevels, Logging};
pub use pattern::{NamePattern, namespace_name};
pub use redis::RedisOptions;
pub use selector::check_label_selector;
pub use tls::{KeyPair, check_certificates, check_key_pair, check_private_key, policy, read_text};
pub use traces::{Collector, collector};
pub use value::{Invalid, boolean, check_message_size, duration};

/// One mistake and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong, naming the option, file or object.
    pub what: String,
    /// What the reader can do about it.
    pub remedy: String,
}

impl Problem {
    /// A mistake and its remedy.
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  remedy: {}", self.what, self.remedy)
    }
}

impl std::error::Error for Problem {}

/// Every mistake that was found, in the order in which it was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// Takes the value out of `result`, or remembers what is wrong with it.
    pub fn keep<T>(&mut self, result: Result<T, Problem>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(problem) => {
                self.0.push(problem);
                None
            }
        }
    }

    /// Takes the value out of `result`, or remembers everything that is wrong with it.
    pub fn absorb<T>(&mut self, result: Result<T, Self>) -> Option<T> {
        result.map_err(|more| self.0.extend(more.0)).ok()
    }

    /// Adds one mistake.
    pub fn add(&mut self, what: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Problem::new(what, remedy));
    }

    /// Nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.0.as_slice() {
            return only.fmt(f);
        }
        write!(f, "{} problems", self.0.len())?;
        for (index, problem) in self.0.iter().enumerate() {
            write!(f, "\n{:>3}. {}\n     remedy: {}", index + 1, problem.what, problem.remedy)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_shown_with_its_remedy() {
        let mut problems = Problems::default();
        problems.add("a is wrong", "set a");
        assert_eq!(problems.to_string(), "a is wrong\n  remedy: set a");
        problems.add("b is wrong", "set b");
        assert_eq!(
            problems.to_string(),
            "2 problems\n  1. a is wrong\n     remedy: set a\n  2. b is wrong\n     remedy: set b"
        );
    }
}
