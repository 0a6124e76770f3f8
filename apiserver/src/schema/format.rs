//! `format`: the ones that a real server enforces and we do too.

use std::net::{Ipv4Addr, Ipv6Addr};

use base64::Engine as _;

use super::node::Kind;

/// A format that is enforced, with the name by which messages show it.
#[derive(Debug, Clone)]
pub(super) struct Format {
    pub(super) name: String,
    pub(super) rule: Rule,
}

/// What the format demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    Int32,
    Int64,
    Float,
    Text(Text),
}

/// What a format demands of a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Text {
    Byte,
    Cidr,
    Date,
    DateTime,
    Duration,
    Email,
    Hostname,
    Ipv4,
    Ipv6,
    Mac,
    /// Anything goes.
    Password,
    Uri,
    Uuid(Option<char>),
    ShortName,
    LongName,
}

/// Formats that a real server enforces and this one does not.
const UNSUPPORTED: &[&str] =
    &["bsonobjectid", "isbn", "isbn10", "isbn13", "creditcard", "ssn", "hexcolor", "rgbcolor"];

impl Format {
    /// The format of a schema of this type. Formats that nobody enforces are nothing; for one that only a real
    /// server enforces `unsupported` is called.
    pub(super) fn of(kind: Option<Kind>, name: &str, unsupported: impl FnOnce()) -> Option<Self> {
        let rule = match kind {
            Some(Kind::Integer) => match name {
                "int32" => Rule::Int32,
                "int64" => Rule::Int64,
                _ => return None,
            },
            Some(Kind::Number) => match name {
                "float" => Rule::Float,
                _ => return None,
            },
            None | Some(Kind::String) => {
                let plain = name.replace('-', "");
                if UNSUPPORTED.contains(&plain.as_str()) {
                    unsupported();
                    return None;
                }
                Rule::Text(match plain.as_str() {
                    "byte" => Text::Byte,
                    "cidr" => Text::Cidr,
                    "date" => Text::Date,
                    "datetime" => Text::DateTime,
                    "duration" => Text::Duration,
                    "email" => Text::Email,
                    "hostname" => Text::Hostname,
                    "ipv4" => Text::Ipv4,
                    "ipv6" => Text::Ipv6,
                    "mac" => Text::Mac,
                    "password" => Text::Password,
                    "uri" => Text::Uri,
                    "uuid" => Text::Uuid(None),
                    "uuid3" => Text::Uuid(Some('3')),
                    "uuid4" => Text::Uuid(Some('4')),
                    "uuid5" => Text::Uuid(Some('5')),
                    "k8sshortname" => Text::ShortName,
                    "k8slongname" => Text::LongName,
                    _ => return None,
                })
            }
            Some(Kind::Object | Kind::Array | Kind::Boolean) => return None,
        };
        Some(Self { name: name.to_owned(), rule })
    }
}

impl Text {
    pub(super) fn accepts(self, text: &str) -> bool {
        match self {
            Self::Password => true,
            Self::Byte => base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
            Self::Cidr => is_cidr(text),
            Self::Date => text.parse::<jiff::civil::Date>().is_ok() && is_plain_date(text),
            Self::DateTime => is_date_time(text),
            Self::Duration => is_duration(text),
            Self::Email => is_email(text),
            Self::Hostname => is_hostname(text),
            Self::Ipv4 => text.parse::<Ipv4Addr>().is_ok(),
            Self::Ipv6 => text.parse::<Ipv6Addr>().is_ok(),
            Self::Mac => is_mac(text),
            Self::Uri => is_uri(text),
            Self::Uuid(version) => is_uuid(text, version),
            Self::ShortName => is_dns_label(text),
            Self::LongName => text.len() <= 253 && text.split('.').all(is_dns_characters),
        }
    }
}

fn is_plain_date(text: &str) -> bool {
    text.len() == 10
        && text
            .bytes()
            .enumerate()
            .all(|(i, b)| if i == 4 || i == 7 { b == b'-' } else { b.is_ascii_digit() })
}

/// Date, `T`, time of day to at least seconds, and `Z` or an offset; leap seconds are not accepted.
fn is_date_time(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let Some((date, time)) = lower.split_once('t') else { return false };
    if !Text::Date.accepts(date) || time.len() < 9 || !time.is_ascii() {
        return false;
    }
    let (clock, rest) = time.split_at(8);
    let clock_fits =
        clock.bytes().enumerate().all(|(i, b)| if i % 3 == 2 { b == b':' } else { b.is_ascii_digit() })
            && &clock[0..2] <= "23"
            && &clock[3..5] <= "59"
            && &clock[6..8] <= "59";
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => {
            let zone = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
            if zone.len() == fraction.len() {
                return false;
            }
            zone
        }
        None => rest,
    };
    let zone_fits = zone == "z"
        || (zone.len() == 6
            && zone.starts_with(['+', '-'])
            && zone[1..]
                .bytes()
                .enumerate()
                .all(|(i, b)| if i == 2 { b == b':' } else { b.is_ascii_digit() }));
    clock_fits && zone_fits
}

/// A Go duration (`1h30m`, `-1.5s`), or numbers with written-out units (`3 days`).
fn is_duration(text: &str) -> bool {
    const UNITS: &[&str] = &[
        "ns",
        "us",
        "µs",
        "μs",
        "ms",
        "s",
        "m",
        "h",
        "d",
        "w",
        "nano",
        "nanos",
        "nanosecond",
        "nanoseconds",
        "micro",
        "micros",
        "microsecond",
        "microseconds",
        "milli",
        "millis",
        "millisecond",
        "milliseconds",
        "sec",
        "secs",
        "second",
        "seconds",
        "min",
        "mins",
        "minute",
        "minutes",
        "hr",
        "hour",
        "hours",
        "day",
        "days",
        "week",
        "weeks",
    ];
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let after = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let number = &rest[..rest.len() - after.len()];
        if number.parse::<f64>().is_err() {
            return false;
        }
        let after = after.trim_start();
        let next = after.trim_start_matches(char::is_alphabetic);
        let unit = after[..after.len() - next.len()].to_lowercase();
        if !UNITS.contains(&unit.as_str()) {
            return false;
        }
        rest = next.trim_start();
    }
    true
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let most: u8 = match (address.parse::<Ipv4Addr>(), address.parse::<Ipv6Addr>()) {
        (Ok(_), _) => 32,
        (_, Ok(_)) => 128,
        _ => return false,
    };
    bits.bytes().all(|b| b.is_ascii_digit()) && bits.parse::<u8>().is_ok_and(|bits| bits <= most)
}

fn is_mac(text: &str) -> bool {
    let lengths = [6, 8, 20];
    let pairs = |separator| {
        let parts: Vec<_> = text.split(separator).collect();
        lengths.contains(&parts.len())
            && parts.iter().all(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    let dotted = || {
        let parts: Vec<_> = text.split('.').collect();
        lengths.contains(&(parts.len() * 2))
            && parts.iter().all(|part| part.len() == 4 && part.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    pairs(':') || pairs('-') || dotted()
}

/// With or without dashes, in any case.
fn is_uuid(text: &str, version: Option<char>) -> bool {
    let groups = [8, 4, 4, 4, 12];
    let mut hex = String::with_capacity(32);
    let mut rest = text;
    for (index, length) in groups.into_iter().enumerate() {
        if index > 0 {
            rest = rest.strip_prefix('-').unwrap_or(rest);
        }
        let Some(group) = rest.get(..length) else { return false };
        if !group.bytes().all(|b| b.is_ascii_hexdigit()) {
            return false;
        }
        hex.push_str(group);
        rest = &rest[length..];
    }
    let variant_fits = || hex.chars().nth(16).is_some_and(|c| matches!(c, '8' | '9' | 'a' | 'b' | 'A' | 'B'));
    rest.is_empty()
        && match version {
            None => true,
            Some('3') => hex.chars().nth(12) == Some('3'),
            Some(version) => hex.chars().nth(12) == Some(version) && variant_fits(),
        }
}

fn is_hostname(text: &str) -> bool {
    let labels: Vec<_> = text.split('.').collect();
    let last_fits = labels.len() == 1 || labels.last().is_some_and(|last| last.chars().count() >= 2);
    last_fits
        && labels.iter().all(|label| {
            let length = label.chars().count();
            (1..=63).contains(&length)
                && label.chars().all(|c| c.is_alphanumeric() || c == '-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

/// An absolute URI or an absolute path.
fn is_uri(text: &str) -> bool {
    if text.is_empty() || text.chars().any(|c| c.is_control() || c == ' ') {
        return false;
    }
    if text.starts_with('/') {
        return true;
    }
    match text.split_once(':') {
        Some((scheme, _)) => {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
        }
        None => false,
    }
}

fn is_email(text: &str) -> bool {
    let address = match text.trim().strip_suffix('>').and_then(|named| named.rsplit_once('<')) {
        Some((_, address)) => address,
        None => text,
    };
    match address.rsplit_once('@') {
        Some((local, domain)) => {
            let plain = |part: &str| {
                !part.is_empty()
                    && part.split('.').all(|atom| !atom.is_empty())
                    && part.chars().all(|c| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c))
            };
            let quoted = local.len() > 2 && local.starts_with('"') && local.ends_with('"');
            (plain(local) || quoted) && plain(domain)
        }
        None => false,
    }
}

fn is_dns_characters(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.bytes().next().is_some_and(inner)
        && text.bytes().last().is_some_and(inner)
        && text.bytes().all(|b| inner(b) || b == b'-')
}

fn is_dns_label(text: &str) -> bool {
    text.len() <= 63 && is_dns_characters(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_format_takes_what_it_should_and_nothing_else() {
        let cases: &[(Text, &[&str], &[&str])] = &[
            (Text::Byte, &["", "aGk="], &["?", "aGk"]),
            (Text::Cidr, &["10.0.0.0/8", "fd00::/8"], &["10.0.0.0", "10.0.0.0/33", "x/8", "10.0.0.0/"]),
            (Text::Date, &["2026-11-21"], &["2026-13-01", "20261121", "2026-11-21T00:00:00Z"]),
            (
                Text::DateTime,
                &["2026-11-21T10:00:00Z", "2026-11-21t10:00:00.123456+01:00"],
                &[
                    "",
                    "2026-11-21",
                    "2026-11-21T10:00Z",
                    "2026-11-21T10:00:00",
                    "2026-11-21T24:00:00Z",
                    "2026-11-21Tä0:00:00Z",
                ],
            ),
            (Text::Duration, &["1h30m", "-1.5s", "0", "3 days"], &["", "1", "h", "1x"]),
            (Text::Email, &["a.b@example.com", "A <a@b.c>"], &["a", "@b", "a@", "a..b@c"]),
            (Text::Hostname, &["a", "a.example"], &["", "-a", "a..b", "a.b"]),
            (Text::Ipv4, &["127.0.0.1"], &["::1", "1.2.3"]),
            (Text::Ipv6, &["::1"], &["127.0.0.1"]),
            (Text::Mac, &["00:11:22:33:44:55", "0011.2233.4455"], &["00:11", "zz:11:22:33:44:55"]),
            (Text::Uri, &["https://a/b", "/a", "mailto:x"], &["", "a/b", "a b:c", ":x"]),
            (
                Text::Uuid(None),
                &["01234567-89ab-cdef-0123-456789abcdef", "0123456789ABCDEF0123456789abcdef"],
                &["", "01234567-89ab-cdef-0123-456789abcdef0", "ä1234567-89ab-cdef-0123-456789abcdef"],
            ),
            (
                Text::Uuid(Some('4')),
                &["01234567-89ab-4def-8123-456789abcdef"],
                &["01234567-89ab-3def-8123-456789abcdef"],
            ),
            (Text::ShortName, &["a-b"], &["", "A", "a.b", "-a"]),
            (Text::LongName, &["a-b.c"], &["a..b", ".a"]),
            (Text::Password, &["", "x"], &[]),
        ];
        for (format, good, bad) in cases {
            for text in *good {
                assert!(format.accepts(text), "{format:?} refuses {text:?}");
            }
            for text in *bad {
                assert!(!format.accepts(text), "{format:?} accepts {text:?}");
            }
        }
    }
}
