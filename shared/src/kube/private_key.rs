//! Private keys in Secrets, which nobody can bring back once they are overwritten. Pure.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;

/// Whether an entry of this name holds a private key.
pub fn is_private_key(entry: &str) -> bool {
    entry.ends_with(".key")
}

/// The first private key in what is `there` that would not be in what takes its place.
pub fn lost<'a>(
    there: &'a BTreeMap<String, ByteString>,
    wanted: &BTreeMap<String, ByteString>,
) -> Option<&'a str> {
    there.keys().map(String::as_str).find(|name| is_private_key(name) && !wanted.contains_key(*name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(entries: &[(&str, &str)]) -> BTreeMap<String, ByteString> {
        let entries = entries.iter();
        entries.map(|(key, text)| ((*key).to_owned(), ByteString(text.as_bytes().to_vec()))).collect()
    }

    #[test]
    fn a_private_key_is_lost_where_the_new_one_has_none() {
        let ca = data(&[("tls.crt", "c"), ("tls.key", "k")]);
        assert_eq!(lost(&ca, &data(&[("ca.crt", "c")])), Some("tls.key"));
        assert_eq!(lost(&ca, &data(&[("tls.crt", "d"), ("tls.key", "l")])), None);
        assert_eq!(lost(&data(&[("ca.crt", "c")]), &data(&[])), None);
    }
}
