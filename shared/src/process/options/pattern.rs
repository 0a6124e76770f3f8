//! Patterns of names, in the two notations that Argo CD has for namespaces.

use std::fmt;

use regex::Regex;

use super::Problem;
use super::value::{self, Invalid};

/// A name, a glob (`*`, `?`, `[a-z]`, `[!a-z]`, `{a,b}`), or a regular expression between slashes.
#[derive(Debug, Clone)]
pub struct NamePattern {
    text: String,
    rule: Rule,
}

#[derive(Debug, Clone)]
enum Rule {
    Exact,
    Any,
    Expression(Regex),
}

impl NamePattern {
    /// Reads a pattern.
    pub fn new(text: &str) -> Result<Self, Invalid> {
        let rule = if let Some(inner) = text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')) {
            Rule::Expression(value::regex(inner)?)
        } else if text == "*" {
            Rule::Any
        } else if text.contains(['*', '?', '[', '{', '\\']) {
            Rule::Expression(glob(text).and_then(|pattern| Regex::new(&pattern).ok()).ok_or_else(|| {
                Invalid::new(
                    format!("{text:?} is not a glob"),
                    "close every [ and {; * is any text, ? one character, [a-z] a range",
                )
            })?)
        } else if is_name(text) {
            Rule::Exact
        } else {
            return Err(Invalid::new(
                format!("{text:?} is neither a name nor a pattern"),
                "write a name (a-z, 0-9, -), a glob such as team-*, or /regular expression/",
            ));
        };
        Ok(Self { text: text.to_owned(), rule })
    }

    /// Does `name` match?
    pub fn matches(&self, name: &str) -> bool {
        match &self.rule {
            Rule::Exact => self.text == name,
            Rule::Any => true,
            Rule::Expression(regex) => regex.is_match(name),
        }
    }

    /// The one name that matches, unless it is a true pattern.
    pub fn exact(&self) -> Option<&str> {
        matches!(self.rule, Rule::Exact).then_some(self.text.as_str())
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for NamePattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for NamePattern {}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Checks that `text` can be the name of a namespace (a DNS-1123 label).
pub fn namespace_name(option: &str, text: &str) -> Result<(), Problem> {
    if is_name(text) && text.len() <= 63 && !text.contains('.') {
        return Ok(());
    }
    Err(Problem::new(
        format!("{option}: {text:?} is not the name of a namespace"),
        "use 1 to 63 of a-z, 0-9 and -, neither first nor last a -",
    ))
}

fn is_name(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// The glob as an anchored regular expression; none when a bracket stays open.
fn glob(text: &str) -> Option<String> {
    let mut pattern = String::from("^(?s:");
    let mut chars = text.chars().peekable();
    let mut braces = 0usize;
    while let Some(c) = chars.next() {
        match c {
            '*' => pattern.push_str(".*"),
            '?' => pattern.push('.'),
            '{' => {
                braces += 1;
                pattern.push_str("(?:");
            }
            '}' if braces > 0 => {
                braces -= 1;
                pattern.push(')');
            }
            ',' if braces > 0 => pattern.push('|'),
            '[' => {
                pattern.push('[');
                if chars.next_if(|c| matches!(c, '!' | '^')).is_some() {
                    pattern.push('^');
                }
                let mut members = 0;
                loop {
                    match chars.next()? {
                        ']' if members > 0 => break,
                        '-' => pattern.push('-'),
                        other => pattern.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
                    }
                    members += 1;
                }
                pattern.push(']');
            }
            '\\' => pattern.push_str(&regex::escape(chars.next()?.encode_utf8(&mut [0; 4]))),
            other => pattern.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
        }
    }
    pattern.push_str(")$");
    (braces == 0).then_some(pattern)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn globs_expressions_and_names_match_what_they_say() {
        for (pattern, yes, no) in [
            ("argocd", "argocd", "argocd-2"),
            ("*", "anything", "\u{0}never"),
            ("team-*", "team-a", "my-team-a"),
            ("team-?", "team-a", "team-ab"),
            ("t[ab]", "ta", "tc"),
            ("t[!ab]", "tc", "ta"),
            ("t[0-9]", "t5", "tx"),
            ("{dev,prod}-*", "prod-1", "test-1"),
            ("/^team-[0-9]+$/", "team-12", "team-x"),
            ("/eam/", "team", "tea"),
            ("a.b*", "a.bc", "axbc"),
        ] {
            let parsed = NamePattern::new(pattern).unwrap();
            assert!(parsed.matches(yes), "{pattern} against {yes}");
            assert!(pattern == "*" || !parsed.matches(no), "{pattern} against {no}");
        }
        for bad in ["", "[a", "{a", "/(/", "A", "a b", "-a", "a\\"] {
            assert!(NamePattern::new(bad).is_err(), "{bad:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn no_pattern_makes_the_parser_panic(text in "[-a-zA-Z*?!^,./{}()\\[\\]\\\\]{0,20}", name in "[a-z-]{0,9}") {
            if let Ok(pattern) = NamePattern::new(&text) {
                let _ = pattern.matches(&name);
            }
        }

        #[test]
        fn a_plain_name_matches_itself_alone(name in "[a-z][a-z0-9]{0,9}", other in "[a-z][a-z0-9]{0,9}") {
            prop_assert_eq!(NamePattern::new(&name).unwrap().matches(&other), name == other);
        }
    }
}
