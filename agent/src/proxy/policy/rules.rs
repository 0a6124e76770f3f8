//! An allow-list: rules as in a Kubernetes role, with globs, and with namespaces and names besides.

use serde::Deserialize;
use tiphys_shared::model::api_request::{ApiRequest, ResourcePath, Target};

/// Most rules that a list may have.
const MOST: usize = 1000;

/// Rules of which one must name a request. A list without rules allows nothing.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowList {
    rules: Vec<Rule>,
}

/// What is allowed. A field that is left out of a rule names everything, but for the two that tell what it is about.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Rule {
    verbs: Vec<Glob>,
    #[serde(default)]
    api_groups: Option<Vec<Glob>>,
    /// `pods` names the objects alone, `pods/log` one subresource, `pods/*` all of them.
    #[serde(default)]
    resources: Vec<Glob>,
    #[serde(default)]
    namespaces: Option<Vec<Glob>>,
    #[serde(default)]
    names: Option<Vec<Glob>>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<Glob>,
}

/// Why a text is no allow-list.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// Not YAML of this form.
    #[error("{0}")]
    Form(String),
    /// A rule about nothing.
    #[error("rule {0} names neither resources nor nonResourceURLs")]
    Nothing(usize),
    /// A rule with both.
    #[error("rule {0} names both resources and nonResourceURLs: make two of it")]
    Both(usize),
    /// Too many.
    #[error("{0} rules are more than {MOST}")]
    TooMany(usize),
}

impl AllowList {
    /// Reads a list from YAML or JSON.
    ///
    /// # Errors
    /// An error that says which if a rule is not one.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let list: Self = serde_saphyr::from_str(text).map_err(|error| Invalid::Form(error.to_string()))?;
        if list.rules.len() > MOST {
            return Err(Invalid::TooMany(list.rules.len()));
        }
        for (index, rule) in list.rules.iter().enumerate() {
            match (rule.resources.is_empty(), rule.non_resource_urls.is_empty()) {
                (true, true) => return Err(Invalid::Nothing(index + 1)),
                (false, false) => return Err(Invalid::Both(index + 1)),
                _ => {}
            }
        }
        Ok(list)
    }

    /// Whether one of the rules names the request.
    pub fn allows(&self, request: &ApiRequest) -> bool {
        self.rules.iter().any(|rule| rule.allows(request))
    }
}

impl Rule {
    fn allows(&self, request: &ApiRequest) -> bool {
        any(&self.verbs, request.verb)
            && match &request.target {
                Target::Other { path } => any(&self.non_resource_urls, path),
                Target::Resource(path) => self.names(path),
            }
    }

    fn names(&self, path: &ResourcePath) -> bool {
        let resource = if path.subresource.is_empty() {
            path.resource.clone()
        } else {
            format!("{}/{}", path.resource, path.subresource)
        };
        // A list of all namespaces, or of all names, is more than any of them.
        let within = |globs: &Option<Vec<Glob>>, text: &str| match globs {
            None => true,
            Some(globs) if text.is_empty() => globs.iter().any(Glob::is_everything),
            Some(globs) => any(globs, text),
        };
        self.resources.iter().any(|glob| glob.matches_resource(&resource))
            && self.api_groups.as_ref().is_none_or(|globs| any(globs, &path.group))
            && within(&self.namespaces, &path.namespace)
            && within(&self.names, &path.name)
    }
}

fn any(globs: &[Glob], text: &str) -> bool {
    globs.iter().any(|glob| glob.matches(text))
}

/// A text in which `*` stands for any other.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(transparent)]
struct Glob(String);

impl Glob {
    fn is_everything(&self) -> bool {
        self.0 == "*"
    }

    /// A star alone is everything; else one before the slash does not reach beyond it.
    fn matches_resource(&self, text: &str) -> bool {
        if self.is_everything() {
            return true;
        }
        match (self.0.split_once('/'), text.split_once('/')) {
            (None, None) => self.matches(text),
            (Some((resource, part)), Some((of, subresource))) => {
                Self(resource.to_owned()).matches(of) && Self(part.to_owned()).matches(subresource)
            }
            _ => false,
        }
    }

    fn matches(&self, text: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = text.strip_prefix(first) else { return false };
        let mut parts = parts.peekable();
        if parts.peek().is_none() {
            return rest.is_empty();
        }
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return rest.ends_with(part);
            }
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (glob, text, expected) in [
            ("*", "", true),
            ("*", "anything", true),
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab", true),
            ("*b", "ab", true),
            ("a*c", "ac", true),
            ("a*c", "abcd", false),
            ("a*b*c", "a-b-b-c", true),
            ("ab*b", "ab", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(Glob(glob.into()).matches(text), expected, "{glob:?} {text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_glob_matches_what_its_regular_expression_does(glob in "[ab*]{0,6}", text in "[ab]{0,8}") {
            let pattern = regex::Regex::new(&format!("^{}$", glob.replace('*', ".*"))).unwrap();
            prop_assert_eq!(Glob(glob).matches(&text), pattern.is_match(&text));
        }
    }
}
