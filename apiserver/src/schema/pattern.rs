//! Regular expressions of schemas. They are written for RE2 as Go has it; ours is close but not the same.

use regex::Regex;

/// A compiled pattern together with its text, which messages show.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    pub(super) text: String,
    regex: Regex,
}

impl Pattern {
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let regex = Regex::new(&translate(text)).map_err(|error| match error {
            regex::Error::Syntax(message) => {
                message.lines().last().unwrap_or("syntax error").trim_start_matches("error: ").to_owned()
            }
            other => other.to_string(),
        })?;
        Ok(Self { text: text.to_owned(), regex })
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

/// RE2's classes `\d \w \s` and `\b` are ASCII, and within `[]` neither `[` nor `&&` nor `~~` mean anything.
fn translate(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut chars = text.chars().peekable();
    let mut in_class = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                let escaped = chars.next();
                let (class, alone) = match escaped {
                    Some('d') => ("0-9", "[0-9]"),
                    Some('w') => ("0-9A-Za-z_", "[0-9A-Za-z_]"),
                    Some('s') => (r"\t\n\x0C\r ", r"[\t\n\x0C\r ]"),
                    Some('D') => ("[^0-9]", "[^0-9]"),
                    Some('W') => ("[^0-9A-Za-z_]", "[^0-9A-Za-z_]"),
                    Some('S') => (r"[^\t\n\x0C\r ]", r"[^\t\n\x0C\r ]"),
                    Some('b') if !in_class => ("", r"(?-u:\b)"),
                    other => {
                        out.push('\\');
                        out.extend(other);
                        continue;
                    }
                };
                out.push_str(if in_class { class } else { alone });
            }
            '[' if !in_class => {
                in_class = true;
                out.push('[');
                if let Some(negation) = chars.next_if_eq(&'^') {
                    out.push(negation);
                }
                // A bracket right at the start is a member of the class.
                if chars.next_if_eq(&']').is_some() {
                    out.push_str(r"\]");
                }
            }
            '[' => {
                // `[:alpha:]` is a class of its own, any other bracket a plain member.
                out.push_str(if chars.peek() == Some(&':') { "[" } else { r"\[" });
                if chars.next_if_eq(&':').is_some() {
                    out.push(':');
                    while let Some(member) = chars.next_if(|c| *c != ']') {
                        out.push(member);
                    }
                    out.extend(chars.next());
                }
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn classes_are_ascii_as_in_re2() {
        let digits = Pattern::new(r"^\d+$").expect("compiles");
        assert!(digits.matches("123") && !digits.matches("٣"));
        let word = Pattern::new(r"^[\w.-]+$").expect("compiles");
        assert!(word.matches("a_1.b-c") && !word.matches("ä"));
        assert!(Pattern::new(r"^[^\W]$").expect("compiles").matches("a"));
        assert!(Pattern::new(r"\bfoo\b").expect("compiles").matches("a foo b"));
    }

    #[test]
    fn brackets_and_ampersands_in_a_class_are_plain_characters() {
        assert!(Pattern::new(r"^[[&&a]+$").expect("compiles").matches("[&a"));
        assert!(Pattern::new(r"^[]a]+$").expect("compiles").matches("]a"));
        assert!(Pattern::new(r"^[[:alpha:]]+$").expect("compiles").matches("abc"));
        assert!(Pattern::new(r"^[a~b]+$").expect("compiles").matches("a~"));
    }

    #[test]
    fn an_expression_that_does_not_compile_says_why() {
        let reason = Pattern::new("(").expect_err("unclosed");
        assert!(reason.contains("unclosed"), "{reason}");
    }
}
