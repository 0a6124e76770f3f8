//! Keys under which Argo CD keeps in Redis what it knows of one Application.
//!
//! `app|resources-tree|NAME|1.8.3.gz`, where `NAME` is `NAMESPACE_NAME` for an Application that does not live beside Argo CD, and
//! perhaps a number of a part before the version. Channels are called the same, without the `.gz`.

/// What Argo CD keeps of an Application and changes all the time.
const KINDS: [&str; 2] = ["app|managed-resources|", "app|resources-tree|"];
/// Longer than any key of Argo CD.
const LONGEST: usize = 1024;

/// A key, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheKey<'a> {
    kind: &'static str,
    /// Where the Application is; none if that is where Argo CD lives.
    pub namespace: Option<&'a str>,
    /// Name of the Application.
    pub name: &'a str,
    rest: &'a str,
}

impl<'a> CacheKey<'a> {
    /// Takes a key apart. None if it is not about one Application, or of a form that Argo CD does not give it.
    pub fn parse(key: &'a str) -> Option<Self> {
        if key.len() > LONGEST {
            return None;
        }
        let (kind, text) = KINDS.iter().find_map(|kind| Some((*kind, key.strip_prefix(kind)?)))?;
        let (application, rest) = text.split_once('|')?;
        let is_rest = !rest.is_empty()
            && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'|'));
        // Neither namespaces nor names have underscores.
        let (namespace, name) = match application.split_once('_') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, application),
        };
        (is_rest && namespace.is_none_or(is_name) && is_name(name)).then_some(Self {
            kind,
            namespace,
            name,
            rest,
        })
    }

    /// The same for an Application of that namespace; none for where Argo CD lives.
    pub fn in_namespace(&self, namespace: Option<&str>) -> String {
        let Self { kind, name, rest, .. } = self;
        match namespace {
            Some(namespace) => format!("{kind}{namespace}_{name}|{rest}"),
            None => format!("{kind}{name}|{rest}"),
        }
    }
}

/// Whether Kubernetes could call something so.
fn is_name(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_of_applications_are_told_from_all_others() {
        let parts = |key| CacheKey::parse(key).map(|key| (key.namespace, key.name));
        assert_eq!(parts("app|managed-resources|edge_shop|1.8.3"), Some((Some("edge"), "shop")));
        assert_eq!(parts("app|resources-tree|shop|1.8.3.gz"), Some((None, "shop")));
        assert_eq!(parts("app|resources-tree|edge_shop|2|1.8.3.gz"), Some((Some("edge"), "shop")));
        for other in [
            "",
            "app|resources-tree|",
            "app|resources-tree|shop",
            "app|resources-tree|shop|",
            "app|resources-tree||1.8.3",
            "app|resources-tree|_shop|1.8.3",
            "app|resources-tree|edge_|1.8.3",
            "app|resources-tree|edge_a_b|1.8.3",
            "app|resources-tree|Edge_shop|1.8.3",
            "app|resources-tree|edge_shop|1.8.3\r\n",
            "app|resources-tree-of|edge_shop|1.8.3",
            "mfst|annotation:app.kubernetes.io/instance|edge_shop|abc|guestbook|1|1.8.3.gz",
            "cluster|info|https://kubernetes.default.svc|1.8.3.gz",
            "git-refs|https://example.com/a_b|1.8.3",
            "new-revoked-token",
        ] {
            assert_eq!(CacheKey::parse(other), None, "{other}");
        }
        assert_eq!(CacheKey::parse(&format!("app|resources-tree|a|{}", "1".repeat(1024))), None);
    }

    proptest! {
        #[test]
        fn a_key_that_is_moved_names_the_same_application_there(
            namespace in proptest::option::of("[a-z][a-z0-9-]{0,9}"),
            there in proptest::option::of("[a-z][a-z0-9-]{0,9}"),
            name in "[a-z][a-z0-9.-]{0,9}", tree in any::<bool>(), part in proptest::option::of(1_u8..9),
        ) {
            let application = namespace.iter().chain([&name]).map(String::as_str).collect::<Vec<_>>().join("_");
            let kind = if tree { "resources-tree" } else { "managed-resources" };
            let part = part.map(|part| format!("{part}|")).unwrap_or_default();
            let key = format!("app|{kind}|{application}|{part}1.8.3.gz");
            let parsed = CacheKey::parse(&key).unwrap();
            prop_assert_eq!((parsed.namespace, parsed.name), (namespace.as_deref(), name.as_str()));
            let moved = parsed.in_namespace(there.as_deref());
            prop_assert_eq!(CacheKey::parse(&moved).unwrap().namespace, there.as_deref());
            prop_assert_eq!(CacheKey::parse(&moved).unwrap().in_namespace(namespace.as_deref()), key);
        }

        #[test]
        fn whatever_is_taken_apart_can_be_put_together(key in "(app\\|(resources-tree|managed-resources)\\|)?[a-c_|.1]{0,12}") {
            if let Some(parsed) = CacheKey::parse(&key) {
                prop_assert_eq!(parsed.in_namespace(parsed.namespace), key);
            }
        }
    }
}
