//! Which representation a client gets, and which one it sent.

use super::present::Form;
use super::protobuf;
use super::table::Include;
use crate::patch::PatchKind;
use crate::status::Failure;
use crate::yaml;
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};
use serde_json::Value;

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Yaml,
}

impl Encoding {
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
        }
    }
}

/// One entry of an `Accept` header.
#[derive(Debug, Clone)]
pub(crate) struct Accepted {
    pub(crate) media: String,
    parameters: Vec<(String, String)>,
    weight: f32,
}

impl Accepted {
    pub(crate) fn parameter(&self, name: &str) -> &str {
        self.parameters.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }
}

/// The entries of `Accept`, best first.
pub(crate) fn accepted(headers: &HeaderMap) -> Vec<Accepted> {
    let mut all: Vec<Accepted> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|clause| {
            let mut parts = clause.split(';').map(str::trim);
            let media = parts.next().filter(|m| !m.is_empty())?.to_ascii_lowercase();
            let parameters: Vec<(String, String)> = parts
                .filter_map(|p| p.split_once('='))
                .map(|(k, v)| (k.trim().to_ascii_lowercase(), v.trim().trim_matches('"').to_owned()))
                .collect();
            let weight = parameters.iter().find(|(k, _)| k == "q").map_or(Some(1.0), |(_, q)| q.parse().ok());
            Some(Accepted { media, parameters, weight: weight.unwrap_or(1.0) })
        })
        .collect();
    all.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    all
}

fn encoding(media: &str) -> Option<Encoding> {
    match media {
        "application/json" | "*/*" | "application/*" => Some(Encoding::Json),
        "application/yaml" => Some(Encoding::Yaml),
        _ => None,
    }
}

/// The encoding alone: for answers that have one form.
pub(crate) fn plain(headers: &HeaderMap) -> Result<Encoding, Failure> {
    let accepted = accepted(headers);
    if accepted.is_empty() {
        return Ok(Encoding::Json);
    }
    accepted.iter().find_map(|a| encoding(&a.media)).ok_or_else(Failure::not_acceptable)
}

/// The encoding and the form of objects. `list` tells which of the two metadata forms is fitting.
pub(crate) fn objects(headers: &HeaderMap, include: &str, list: bool) -> Result<(Encoding, Form), Failure> {
    let accepted = accepted(headers);
    if accepted.is_empty() {
        return Ok((Encoding::Json, Form::Plain));
    }
    for one in &accepted {
        let Some(encoding) = encoding(&one.media) else { continue };
        let meta = one.parameter("g") == "meta.k8s.io" && one.parameter("v") == "v1";
        let form = match one.parameter("as") {
            "" => Form::Plain,
            "Table" if meta => {
                let include = Include::parse(include).ok_or_else(|| {
                    Failure::bad_request(format!("unrecognized includeObject value: {include:?}"))
                })?;
                Form::Table(include)
            }
            "PartialObjectMetadata" if meta && !list => Form::Metadata,
            "PartialObjectMetadataList" if meta && list => Form::Metadata,
            // Clients of metadata watches ask for either.
            "PartialObjectMetadata" | "PartialObjectMetadataList" if meta => Form::Metadata,
            _ => continue,
        };
        return Ok((encoding, form));
    }
    Err(Failure::not_acceptable())
}

/// The media type of a body, without parameters; JSON if nothing is said.
pub(crate) fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let media = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if media.is_empty() { "application/json".into() } else { media }
}

/// Reads a body that holds an object.
pub(crate) fn body(headers: &HeaderMap, bytes: &[u8]) -> Result<Value, Failure> {
    let bad = |why: String| Failure::bad_request(format!("the object provided is unrecognized: {why}"));
    match content_type(headers).as_str() {
        "application/json" => serde_json::from_slice(bytes).map_err(|e| bad(e.to_string())),
        "application/yaml" | "text/yaml" => {
            let text = std::str::from_utf8(bytes).map_err(|e| bad(e.to_string()))?;
            yaml::one(text).map_err(|e| bad(e.to_string()))
        }
        "application/vnd.kubernetes.protobuf" => protobuf::decode(bytes).map_err(|why| match why {
            protobuf::Error::UnknownKind(_) => {
                Failure::unsupported_media_type("application/json, application/yaml")
            }
            why => bad(why.to_string()),
        }),
        _ => Err(Failure::unsupported_media_type(
            "application/json, application/yaml, application/vnd.kubernetes.protobuf",
        )),
    }
}

/// The body is a configuration to apply.
pub(crate) fn is_apply(headers: &HeaderMap) -> bool {
    content_type(headers) == "application/apply-patch+yaml"
}

/// The patch language of a body.
pub(crate) fn patch_kind(headers: &HeaderMap, custom: bool) -> Result<PatchKind, Failure> {
    let refuse = || {
        let strategic = if custom { "" } else { ", application/strategic-merge-patch+json" };
        Failure::unsupported_media_type(&format!(
            "application/json-patch+json, application/merge-patch+json{strategic}"
        ))
    };
    match content_type(headers).as_str() {
        "application/json-patch+json" => Ok(PatchKind::Json),
        "application/merge-patch+json" => Ok(PatchKind::Merge),
        "application/strategic-merge-patch+json" if !custom => Ok(PatchKind::Strategic),
        _ => Err(refuse()),
    }
}

/// Writes a JSON text in the chosen encoding.
pub(crate) fn encode(encoding: Encoding, json: Vec<u8>) -> Result<Vec<u8>, Failure> {
    match encoding {
        Encoding::Json => Ok(json),
        Encoding::Yaml => {
            let value: Value = serde_json::from_slice(&json).map_err(Failure::internal)?;
            yaml::write(&value).map(String::into_bytes).map_err(Failure::internal)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(accept: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(ACCEPT, http::HeaderValue::from_static(accept))])
    }

    #[test]
    fn the_first_form_that_is_known_is_chosen() {
        const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert_eq!(
            objects(&headers(TABLE), "", true).unwrap(),
            (Encoding::Json, Form::Table(Include::Metadata))
        );
        const OLD: &str = "application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(objects(&headers(OLD), "", true).unwrap(), (Encoding::Json, Form::Plain));
        const PROTOBUF: &str = "application/vnd.kubernetes.protobuf,application/json;q=0.9";
        assert_eq!(objects(&headers(PROTOBUF), "", true).unwrap(), (Encoding::Json, Form::Plain));
        const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        assert_eq!(objects(&headers(METADATA), "", false).unwrap(), (Encoding::Json, Form::Metadata));
        assert_eq!(objects(&headers("application/yaml"), "", false).unwrap(), (Encoding::Yaml, Form::Plain));
        assert_eq!(objects(&HeaderMap::new(), "", false).unwrap(), (Encoding::Json, Form::Plain));
    }

    #[test]
    fn what_only_another_server_can_give_is_not_acceptable() {
        let refused = objects(&headers("application/vnd.kubernetes.protobuf"), "", true).unwrap_err();
        assert_eq!(refused.code, 406);
    }
}
