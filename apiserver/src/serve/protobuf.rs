//! Objects in protobuf, as kubectl and other Go clients send them for built-in kinds.
//!
//! Only requests: every such client also reads JSON. The numbers of the fields are in `builtin/messages.txt`, a
//! message to a line, as Kubernetes publishes them in the `.proto` files of its API. There, names of fields are
//! those of JSON; a field marked `^` is, in JSON, part of the object around it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::LazyLock;

/// What a body starts with.
const MAGIC: &[u8] = b"k8s\0";

/// Why a body cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("the body is not protobuf as Kubernetes sends it")]
    NotKubernetes,
    #[error("the protobuf message is broken")]
    Broken,
    #[error("{0} is not known in protobuf here")]
    UnknownKind(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    One,
    List,
    Map,
    /// A message whose fields belong to the object around it.
    Inline,
}

#[derive(Debug)]
struct Field {
    name: &'static str,
    shape: Shape,
    kind: &'static str,
}

type Messages = HashMap<&'static str, HashMap<u64, Field>>;

static MESSAGES: LazyLock<Messages> = LazyLock::new(|| {
    include_str!("../builtin/messages.txt")
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let message = words.next()?;
            Some((message, words.filter_map(field).collect()))
        })
        .collect()
});

/// Reads `name=number:kind`.
fn field(text: &'static str) -> Option<(u64, Field)> {
    let (name, rest) = text.split_once('=')?;
    let (number, kind) = rest.split_once(':')?;
    let (shape, kind) = if let Some(kind) = kind.strip_prefix("list:") {
        (Shape::List, kind)
    } else if let Some(kind) = kind.strip_prefix("map:") {
        (Shape::Map, kind)
    } else if let Some(kind) = kind.strip_prefix('^') {
        (Shape::Inline, kind)
    } else {
        (Shape::One, kind)
    };
    Some((number.parse().ok()?, Field { name, shape, kind }))
}

/// One field on the wire.
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Result<u64, Error> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(Error::Broken)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Error::Broken)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Error::Broken)?;
        self.0 = rest;
        Ok(taken)
    }

    /// The next field, by its number.
    fn next(&mut self) -> Result<Option<(u64, Wire<'a>)>, Error> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().map_err(|_| Error::Broken)?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Error::Broken)?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().map_err(|_| Error::Broken)?)),
            _ => return Err(Error::Broken),
        };
        Ok(Some((tag >> 3, wire)))
    }
}

fn text(bytes: &[u8]) -> Result<String, Error> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Error::Broken)
}

/// Reads a body: an envelope with type and object.
pub(crate) fn decode(body: &[u8]) -> Result<Value, Error> {
    let mut envelope = Reader(body.strip_prefix(MAGIC).ok_or(Error::NotKubernetes)?);
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    while let Some((number, wire)) = envelope.next()? {
        match (number, wire) {
            (1, Wire::Bytes(bytes)) => {
                let mut type_meta = Reader(bytes);
                while let Some((number, wire)) = type_meta.next()? {
                    match (number, wire) {
                        (1, Wire::Bytes(bytes)) => api_version = text(bytes)?,
                        (2, Wire::Bytes(bytes)) => kind = text(bytes)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            // An encoding within the encoding.
            (3, Wire::Bytes(bytes)) if !bytes.is_empty() => return Err(Error::Broken),
            _ => {}
        }
    }
    let unknown = || Error::UnknownKind(format!("{kind} of {api_version}"));
    let name = message_name(&api_version, &kind).ok_or_else(unknown)?;
    let fields = MESSAGES.get(name.as_str()).ok_or_else(unknown)?;
    let mut object = message(fields, raw)?;
    object.insert("apiVersion".into(), api_version.into());
    object.insert("kind".into(), kind.into());
    Ok(Value::Object(object))
}

/// The line of the table for a kind.
fn message_name(api_version: &str, kind: &str) -> Option<String> {
    if kind == "DeleteOptions" {
        return Some("meta.DeleteOptions".into());
    }
    let group = match api_version {
        "v1" => "core",
        other => other.strip_suffix("/v1")?.split('.').next()?,
    };
    Some(format!("{group}.{kind}"))
}

fn message(fields: &HashMap<u64, Field>, bytes: &[u8]) -> Result<Map<String, Value>, Error> {
    let mut object = Map::new();
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.next()? {
        // Fields of later versions are of no use here.
        let Some(field) = fields.get(&number) else { continue };
        match field.shape {
            Shape::One => {
                if let Some(value) = value(field.kind, wire)?.filter(|value| *value != "") {
                    object.insert(field.name.into(), value);
                }
            }
            Shape::Inline => {
                if let Some(Value::Object(inner)) = value(field.kind, wire)? {
                    object.extend(inner);
                }
            }
            Shape::List => {
                let list = object.entry(field.name).or_insert_with(|| json!([]));
                if let (Some(list), Some(value)) = (list.as_array_mut(), value(field.kind, wire)?) {
                    list.push(value);
                }
            }
            Shape::Map => {
                let Wire::Bytes(bytes) = wire else { return Err(Error::Broken) };
                let (key, value) = entry(field.kind, bytes)?;
                let map = object.entry(field.name).or_insert_with(|| json!({}));
                if let Some(map) = map.as_object_mut() {
                    map.insert(key, value);
                }
            }
        }
    }
    Ok(object)
}

fn entry(kind: &'static str, bytes: &[u8]) -> Result<(String, Value), Error> {
    let mut key = String::new();
    // An entry may leave out what is empty.
    let mut found = value(kind, Wire::Bytes(&[])).unwrap_or(None).unwrap_or_else(|| json!(""));
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.next()? {
        match (number, wire) {
            (1, Wire::Bytes(bytes)) => key = text(bytes)?,
            (2, wire) => found = value(kind, wire)?.unwrap_or(found),
            _ => {}
        }
    }
    Ok((key, found))
}

fn value(kind: &'static str, wire: Wire<'_>) -> Result<Option<Value>, Error> {
    Ok(Some(match (kind, wire) {
        ("string", Wire::Bytes(bytes)) => text(bytes)?.into(),
        ("bytes", Wire::Bytes(bytes)) => STANDARD.encode(bytes).into(),
        ("bool", Wire::Varint(value)) => (value != 0).into(),
        // Negative numbers are sent in their two's complement.
        ("int", Wire::Varint(value)) => value.cast_signed().into(),
        ("double", Wire::Fixed64(bits)) => f64::from_bits(bits).into(),
        ("double", Wire::Fixed32(bits)) => f32::from_bits(bits).into(),
        ("meta.Time", Wire::Bytes(bytes)) => return time(bytes, false),
        ("meta.MicroTime", Wire::Bytes(bytes)) => return time(bytes, true),
        ("resource.Quantity", Wire::Bytes(bytes)) => {
            let mut quantity = String::from("0");
            let mut reader = Reader(bytes);
            while let Some((number, wire)) = reader.next()? {
                if let (1, Wire::Bytes(bytes)) = (number, wire) {
                    quantity = text(bytes)?;
                }
            }
            quantity.into()
        }
        ("intstr.IntOrString", Wire::Bytes(bytes)) => int_or_string(bytes)?,
        ("runtime.RawExtension", Wire::Bytes(bytes)) => {
            let mut reader = Reader(bytes);
            let mut raw = Value::Null;
            while let Some((number, wire)) = reader.next()? {
                if let (1, Wire::Bytes(bytes)) = (number, wire) {
                    raw = serde_json::from_slice(bytes).map_err(|_| Error::Broken)?;
                }
            }
            raw
        }
        ("authentication.ExtraValue" | "authorization.ExtraValue", Wire::Bytes(bytes)) => {
            let fields = MESSAGES.get("authentication.ExtraValue").ok_or(Error::Broken)?;
            message(fields, bytes)?.remove("items").unwrap_or_else(|| json!([]))
        }
        (kind, Wire::Bytes(bytes)) => {
            let fields = MESSAGES.get(kind).ok_or(Error::Broken)?;
            Value::Object(message(fields, bytes)?)
        }
        _ => return Err(Error::Broken),
    }))
}

/// A time; nothing for the zero time, which Go sends for "not set".
fn time(bytes: &[u8], micro: bool) -> Result<Option<Value>, Error> {
    const ZERO: i64 = -62_135_596_800;
    let (mut seconds, mut nanos) = (None, 0);
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.next()? {
        match (number, wire) {
            (1, Wire::Varint(value)) => seconds = Some(value.cast_signed()),
            (2, Wire::Varint(value)) => nanos = i32::try_from(value).map_err(|_| Error::Broken)?,
            _ => {}
        }
    }
    let Some(seconds) = seconds.filter(|s| *s != ZERO) else { return Ok(None) };
    let stamp = Timestamp::new(seconds, if micro { nanos } else { 0 }).map_err(|_| Error::Broken)?;
    Ok(Some(if micro { format!("{stamp:.6}") } else { stamp.to_string() }.into()))
}

fn int_or_string(bytes: &[u8]) -> Result<Value, Error> {
    let (mut is_text, mut number_value, mut text_value) = (false, 0, String::new());
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.next()? {
        match (number, wire) {
            (1, Wire::Varint(value)) => is_text = value == 1,
            (2, Wire::Varint(value)) => number_value = value.cast_signed(),
            (3, Wire::Bytes(bytes)) => text_value = text(bytes)?,
            _ => {}
        }
    }
    Ok(if is_text { text_value.into() } else { number_value.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A field of bytes.
    fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
        out.extend_from_slice(content);
        out
    }

    fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let type_meta = [bytes(1, api_version.as_bytes()), bytes(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), bytes(1, &type_meta), bytes(2, raw), bytes(3, b""), bytes(4, b"")].concat()
    }

    #[test]
    fn an_object_reads_as_the_json_it_stands_for() {
        let metadata = [
            bytes(1, b"s"),
            bytes(2, b""),
            bytes(8, &[]),
            bytes(11, &[bytes(1, b"app"), bytes(2, b"x")].concat()),
            bytes(14, b"example.com/a"),
            bytes(14, b"example.com/b"),
        ]
        .concat();
        let data = [bytes(1, b"k"), bytes(2, b"hello")].concat();
        let raw = [bytes(1, &metadata), bytes(2, &data), bytes(3, b"Opaque"), vec![5 << 3, 1]].concat();
        assert_eq!(
            decode(&envelope("v1", "Secret", &raw)).unwrap(),
            json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "s", "labels": {"app": "x"}, "finalizers": ["example.com/a", "example.com/b"]},
                "data": {"k": "aGVsbG8="},
                "type": "Opaque",
                "immutable": true,
            })
        );
    }

    #[test]
    fn times_numbers_and_alternatives_have_their_json_form() {
        // 2026-01-02T03:04:05.000006Z
        let seconds = [1 << 3, 0xa5, 0xeb, 0xdc, 0xca, 0x06];
        let renew = [seconds.as_slice(), &[2 << 3, 0xf0, 0x2e]].concat();
        let spec = [bytes(1, b"me"), vec![2 << 3, 15], bytes(4, &renew)].concat();
        let lease = decode(&envelope("coordination.k8s.io/v1", "Lease", &bytes(2, &spec))).unwrap();
        assert_eq!(
            lease["spec"],
            json!({"holderIdentity": "me", "leaseDurationSeconds": 15, "renewTime": "2026-01-02T03:04:05.000006Z"})
        );
        let port = |target: &[u8]| bytes(1, &[vec![3 << 3, 80], bytes(4, target)].concat());
        let service = decode(&envelope(
            "v1",
            "Service",
            &bytes(2, &[port(&[1 << 3, 1, 3 << 3 | 2, 1, b'w']), port(&[1 << 3, 0, 2 << 3, 81])].concat()),
        ))
        .unwrap();
        assert_eq!(
            service["spec"]["ports"],
            json!([{"port": 80, "targetPort": "w"}, {"port": 80, "targetPort": 81}])
        );
    }

    #[test]
    fn every_message_that_is_named_is_there() {
        let scalars = ["string", "bytes", "bool", "int", "double"];
        let special = [
            "meta.Time",
            "meta.MicroTime",
            "resource.Quantity",
            "intstr.IntOrString",
            "runtime.RawExtension",
            "authorization.ExtraValue",
        ];
        for (message, fields) in MESSAGES.iter() {
            assert!(!fields.is_empty() || *message == "authentication.SelfSubjectReview", "{message}");
            for field in fields.values() {
                let known = scalars.contains(&field.kind)
                    || special.contains(&field.kind)
                    || MESSAGES.contains_key(field.kind);
                assert!(known, "{message}.{}: {}", field.name, field.kind);
            }
        }
    }

    #[test]
    fn what_is_not_known_is_named() {
        assert_eq!(decode(b"{}"), Err(Error::NotKubernetes));
        let error = decode(&envelope("example.com/v1", "Thing", b"")).unwrap_err();
        assert_eq!(error.to_string(), "Thing of example.com/v1 is not known in protobuf here");
        assert_eq!(decode(&envelope("v1", "Secret", &[0x0a, 0xff])), Err(Error::Broken));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(raw in proptest::collection::vec(any::<u8>(), 0..120)) {
            for kind in ["Secret", "Pod", "Event", "DeleteOptions"] {
                let _ = decode(&envelope("v1", kind, &raw));
            }
        }
    }
}
