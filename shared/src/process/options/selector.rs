//! The syntax of Kubernetes label selectors.

use super::value::Invalid;

/// Checks the syntax of a label selector, so that a typing error is found at start and not at the first watch.
pub fn check_label_selector(text: &str) -> Result<(), Invalid> {
    for requirement in split_requirements(text) {
        check_requirement(requirement.trim()).map_err(|reason| {
            Invalid::new(
                format!("{text:?} is not a label selector: {reason}"),
                "write requirements joined by commas, such as app=web,tier!=cache,env in (dev,test),!legacy",
            )
        })?;
    }
    Ok(())
}

/// Splits at the commas outside parentheses.
fn split_requirements(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0i32, 0);
    for (index, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth <= 0 => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn check_requirement(requirement: &str) -> Result<(), String> {
    if requirement.is_empty() {
        return Err("a requirement is empty".to_owned());
    }
    if let Some(key) = requirement.strip_prefix('!') {
        return check_key(key.trim());
    }
    if let Some((head, values)) = requirement.split_once('(') {
        let values = values.strip_suffix(')').ok_or_else(|| format!("{requirement:?} lacks a )"))?;
        let (key, operator) = head
            .trim()
            .rsplit_once(char::is_whitespace)
            .ok_or_else(|| format!("{requirement:?} lacks an operator"))?;
        if !matches!(operator, "in" | "notin") {
            return Err(format!("operator {operator:?} is neither in nor notin"));
        }
        check_key(key.trim())?;
        return values.split(',').try_for_each(|value| check_value(value.trim()));
    }
    for operator in ["==", "!=", "="] {
        if let Some((key, value)) = requirement.split_once(operator) {
            check_key(key.trim())?;
            return check_value(value.trim());
        }
    }
    for operator in ['>', '<'] {
        if let Some((key, value)) = requirement.split_once(operator) {
            check_key(key.trim())?;
            let value = value.trim();
            return value.parse::<i64>().map(drop).map_err(|_| format!("{value:?} is not an integer"));
        }
    }
    check_key(requirement)
}

fn check_key(key: &str) -> Result<(), String> {
    let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let prefix_ok = prefix.is_none_or(|prefix| {
        (1..=253).contains(&prefix.len())
            && prefix.split('.').all(|label| {
                !label.is_empty()
                    && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                    && !label.starts_with('-')
                    && !label.ends_with('-')
            })
    });
    if prefix_ok && !name.is_empty() && is_label_text(name) {
        Ok(())
    } else {
        Err(format!("{key:?} is not a label key"))
    }
}

fn check_value(value: &str) -> Result<(), String> {
    if value.is_empty() || is_label_text(value) {
        Ok(())
    } else {
        Err(format!("{value:?} is not a label value"))
    }
}

fn is_label_text(text: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    text.len() <= 63
        && edge(text.bytes().next())
        && edge(text.bytes().last())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_kubernetes_accepts_is_accepted_and_slips_are_named() {
        for good in [
            "app=web",
            "app==web",
            "app!=web",
            "app",
            "!app",
            "app=",
            "env in (dev,test)",
            "env notin (prod)",
            "env in (a,b),tier=x , !y",
            "example.com/a-b=C_d.e",
            "n>3",
            "n < 4",
        ] {
            assert_eq!(check_label_selector(good), Ok(()), "{good}");
        }
        for bad in [
            "app=web,",
            "=web",
            "app=a b",
            "env in dev",
            "env in (dev",
            "env has (dev)",
            "(a)",
            "a/b/c=1",
            "Ex.com/a=1",
            "app=-a",
            "n>x",
            "app=ä",
            &"k".repeat(64),
        ] {
            assert!(check_label_selector(bad).is_err(), "{bad:?} was accepted");
        }
        let invalid = check_label_selector("env has (dev)").unwrap_err();
        assert!(invalid.what.contains("operator \"has\" is neither in nor notin"), "{}", invalid.what);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_check_panic(text in "\\PC{0,40}") {
            let _ = check_label_selector(&text);
        }
    }
}
