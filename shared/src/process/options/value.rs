//! Values that are written as one word: booleans, durations, regular expressions.

use std::time::Duration;

use super::Problem;

/// Why a text is not a value of the kind that an option wants, and what would be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {remedy}")]
pub struct Invalid {
    /// What is wrong with the text.
    pub what: String,
    /// What a good text looks like.
    pub remedy: String,
}

impl Invalid {
    /// A complaint and its remedy.
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

/// Parses the words that Go's `strconv.ParseBool` takes.
pub fn boolean(text: &str) -> Result<bool, Invalid> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Invalid::new(format!("{text:?} is neither true nor false"), "write true or false")),
    }
}

/// Checks the largest gRPC message that was asked for, in bytes.
///
/// # Errors
/// No resource would fit into it.
pub fn check_message_size(bytes: u32) -> Result<(), Problem> {
    if bytes < 4096 {
        return Err(Problem::new(
            format!("--grpc-max-message-size {bytes} is too small for any resource"),
            "give at least 4096; the default is 209715200",
        ));
    }
    Ok(())
}

/// Parses a duration: Go's notation (`30s`, `1h30m`, `500ms`), or a bare number of seconds.
pub fn duration(text: &str) -> Result<Duration, Invalid> {
    let invalid = || {
        Invalid::new(
            format!("{text:?} is not a duration"),
            "write a number with a unit, such as 500ms, 30s, 5m or 1h30m; a number alone is seconds",
        )
    };
    if text.starts_with('-') {
        return Err(Invalid::new(
            format!("{text:?} is a negative duration"),
            "write a duration of 0 or more",
        ));
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut nanos: u128 = 0;
    if rest.is_empty() {
        return Err(invalid());
    }
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        // Eighteen digits of hours still fit into the sum; more is no duration that anybody means.
        if whole.len() + fraction.len() == 0 || whole.len() > 18 || fraction.len() > 18 {
            return Err(invalid());
        }
        let unit_len = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        let scale: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            // A bare number is seconds, but only when it is the whole text: "1h30" is a slip.
            "" if after.is_empty() && rest == text.strip_prefix('+').unwrap_or(text) => 1_000_000_000,
            _ => return Err(invalid()),
        };
        let number = |digits: &str| {
            if digits.is_empty() { Some(0) } else { digits.parse::<u128>().ok() }
        };
        let whole = number(whole).ok_or_else(invalid)?;
        let part = number(fraction).ok_or_else(invalid)?;
        nanos += whole * scale + part * scale / 10u128.pow(fraction.len() as u32);
        rest = after;
    }
    let seconds = u64::try_from(nanos / 1_000_000_000).map_err(|_| invalid())?;
    // i64 nanoseconds is what Go can hold; beyond it lie additions that overflow elsewhere.
    if seconds > i64::MAX as u64 / 1_000_000_000 {
        return Err(Invalid::new(format!("{text:?} is longer than 292 years"), "write a shorter duration"));
    }
    Ok(Duration::new(seconds, (nanos % 1_000_000_000) as u32))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// Compiles a regular expression.
pub(super) fn regex(text: &str) -> Result<regex::Regex, Invalid> {
    regex::Regex::new(text).map_err(|error| {
        // The crate draws the pattern with a caret on several lines; its last line says what is wrong.
        let message = error.to_string();
        let reason = message.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Invalid::new(
            format!("{text:?} is not a regular expression: {reason}"),
            "quote it so that the shell leaves it alone, and escape ( ) [ ] { } . * + ? that are meant literally",
        )
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them_and_bare_numbers_are_seconds() {
        let ms = Duration::from_millis;
        for (text, expected) in [
            ("0", ms(0)),
            ("10", ms(10_000)),
            ("1.5", ms(1_500)),
            ("30s", ms(30_000)),
            ("5m", ms(300_000)),
            ("1h30m", ms(5_400_000)),
            ("1h30m0.5s", ms(5_400_500)),
            ("500ms", ms(500)),
            (".5s", ms(500)),
            ("1.s", ms(1_000)),
            ("+2s", ms(2_000)),
            ("0s", ms(0)),
            ("2us", Duration::from_micros(2)),
            ("2µs", Duration::from_micros(2)),
            ("7ns", Duration::from_nanos(7)),
        ] {
            assert_eq!(duration(text), Ok(expected), "{text}");
        }
        for bad in
            ["", "-1s", "s", ".", "1d", "1h30", "30 1h", "1 s", "abc", "1..2s", "99999999999h", "+", "1sms"]
        {
            assert!(duration(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn booleans_are_those_of_go() {
        for yes in ["1", "t", "T", "true", "TRUE", "True"] {
            assert_eq!(boolean(yes), Ok(true));
        }
        for no in ["0", "f", "F", "false", "FALSE", "False"] {
            assert_eq!(boolean(no), Ok(false));
        }
        for bad in ["", "yes", "no", "tRUE", "2", "on"] {
            assert!(boolean(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_bad_regular_expression_says_why_in_one_line() {
        let invalid = regex("CN=([^,]+").unwrap_err();
        assert_eq!(invalid.what, "\"CN=([^,]+\" is not a regular expression: unclosed group");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_duration_parser_panic(text in "[-+0-9.a-zµ ]{0,40}") {
            let _ = duration(&text);
        }

        #[test]
        fn seconds_and_milliseconds_survive(seconds in 0u32.., millis in 0u32..1000) {
            let text = format!("{seconds}s{millis}ms");
            let expected = Duration::from_millis(u64::from(seconds) * 1000 + u64::from(millis));
            prop_assert_eq!(duration(&text), Ok(expected));
        }
    }
}
