//! What Argo CD's cluster view shows of a cluster, in the form in which Argo CD keeps it in its cache.

use std::io::{Read as _, Write as _};

use flate2::Compression as Level;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The version of Argo CD's cache. What is kept under another one is none of ours.
const CACHE_VERSION: &str = "1.8.3";
/// Larger than any entry, and small enough to unpack.
const LARGEST: u64 = 1 << 20;

/// How entries of the cache are packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Compression {
    /// Argo CD's default.
    #[default]
    Gzip,
    /// Not at all.
    None,
}

/// Why an entry of the cache means nothing to us.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not packed as it should be.
    #[error("it cannot be unpacked: {0}")]
    Packed(#[from] std::io::Error),
    /// It is too large.
    #[error("it is larger than {LARGEST} bytes")]
    TooLarge,
    /// It is not what Argo CD writes.
    #[error("it is not a cluster's info: {0}")]
    Json(#[from] serde_json::Error),
}

/// What Argo CD keeps of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterInfo {
    /// Whether the cluster can be reached.
    pub connection_state: ConnectionState,
    /// What Argo CD has read of the cluster.
    pub cache_info: CacheInfo,
    /// Number of Applications there.
    pub applications_count: i64,
    /// What other versions of Argo CD keep besides.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// Whether a cluster can be reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnectionState {
    /// `Successful`, `Failed` or `Unknown`.
    pub status: String,
    /// For people.
    pub message: String,
    /// When that was found, to the second.
    #[serde(rename = "attemptedAt")]
    pub attempted_at: Option<String>,
}

/// What Argo CD has read of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CacheInfo {
    /// Number of resources.
    #[serde(skip_serializing_if = "is_zero")]
    pub resources_count: i64,
    /// Number of kinds of resources.
    #[serde(skip_serializing_if = "is_zero")]
    pub apis_count: i64,
    /// When it was last read as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_cache_sync_time: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(count: &i64) -> bool {
    *count == 0
}

/// The figures that an agent tells of its cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Counts {
    /// Number of Applications.
    pub applications_count: i64,
    /// Number of kinds of resources.
    pub apis_count: i64,
    /// Number of resources.
    pub resources_count: i64,
}

impl Counts {
    /// Whether these can be numbers of things.
    pub fn are_plausible(&self) -> bool {
        [self.applications_count, self.apis_count, self.resources_count].iter().all(|count| *count >= 0)
    }
}

impl ConnectionState {
    const SUCCESSFUL: &str = "Successful";
    const FAILED: &str = "Failed";

    /// An agent is connected, since then.
    pub fn connected(agent: &str, since: Timestamp) -> Self {
        Self::new(Self::SUCCESSFUL, format!("Agent: '{agent}' is connected with principal"), since)
    }

    /// An agent is not connected, as was found then.
    pub fn disconnected(agent: &str, found: Timestamp) -> Self {
        Self::new(Self::FAILED, format!("Agent: '{agent}' is disconnected with principal"), found)
    }

    fn new(status: &str, message: String, at: Timestamp) -> Self {
        let attempted_at = Some(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        Self { status: status.to_owned(), message, attempted_at }
    }

    /// Whether both say the same, whenever they found it.
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.status == other.status && self.message == other.message
    }
}

impl ClusterInfo {
    /// Where Argo CD keeps what it knows of the cluster with this server URL.
    pub fn key(server: &str, compression: Compression) -> String {
        let suffix = match compression {
            Compression::Gzip => ".gz",
            Compression::None => "",
        };
        format!("cluster|info|{server}|{CACHE_VERSION}{suffix}")
    }

    /// The figures of it.
    pub fn counts(&self) -> Counts {
        Counts {
            applications_count: self.applications_count,
            apis_count: self.cache_info.apis_count,
            resources_count: self.cache_info.resources_count,
        }
    }

    /// Takes over figures.
    pub fn set_counts(&mut self, counts: Counts) {
        self.applications_count = counts.applications_count;
        self.cache_info.apis_count = counts.apis_count;
        self.cache_info.resources_count = counts.resources_count;
    }

    /// Reads an entry of the cache.
    ///
    /// # Errors
    /// [`Error`] if Argo CD did not write it.
    pub fn decode(entry: &[u8], compression: Compression) -> Result<Self, Error> {
        let mut unpacked = Vec::new();
        let json = match compression {
            Compression::Gzip => {
                GzDecoder::new(entry).take(LARGEST + 1).read_to_end(&mut unpacked)?;
                &unpacked
            }
            Compression::None => entry,
        };
        if json.len() as u64 > LARGEST {
            return Err(Error::TooLarge);
        }
        Ok(serde_json::from_slice(json)?)
    }

    /// Writes an entry of the cache: what Go's encoder writes, which ends with a line break.
    ///
    /// # Errors
    /// [`Error`] if it cannot be written, which nothing in it leads to.
    pub fn encode(&self, compression: Compression) -> Result<Vec<u8>, Error> {
        let mut json = serde_json::to_vec(self)?;
        json.push(b'\n');
        match compression {
            Compression::None => Ok(json),
            Compression::Gzip => {
                let mut packed = GzEncoder::new(Vec::new(), Level::default());
                packed.write_all(&json)?;
                Ok(packed.finish()?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: &str = "https://argocd-agent-resource-proxy:9090?agentName=edge-1";

    #[test]
    fn an_entry_is_where_and_what_argocd_looks_for() {
        assert_eq!(
            ClusterInfo::key(SERVER, Compression::Gzip),
            "cluster|info|https://argocd-agent-resource-proxy:9090?agentName=edge-1|1.8.3.gz"
        );
        assert!(ClusterInfo::key(SERVER, Compression::None).ends_with("|1.8.3"));

        let since = "2026-11-21T15:04:05.987Z".parse().unwrap();
        let mut info = ClusterInfo {
            connection_state: ConnectionState::connected("edge-1", since),
            ..ClusterInfo::default()
        };
        assert_eq!(
            String::from_utf8(info.encode(Compression::None).unwrap()).unwrap(),
            "{\"connectionState\":{\"status\":\"Successful\",\
             \"message\":\"Agent: 'edge-1' is connected with principal\",\
             \"attemptedAt\":\"2026-11-21T15:04:05Z\"},\"cacheInfo\":{},\"applicationsCount\":0}\n"
        );
        info.set_counts(Counts { applications_count: 3, apis_count: 4, resources_count: 5 });
        let text = String::from_utf8(info.encode(Compression::None).unwrap()).unwrap();
        let figures = "\"cacheInfo\":{\"resourcesCount\":5,\"apisCount\":4},\"applicationsCount\":3}\n";
        assert!(text.ends_with(figures), "{text}");
    }

    #[test]
    fn what_argocd_wrote_is_read_packed_or_not_and_nothing_of_it_is_lost() {
        let written = br#"{"connectionState":{"status":"Successful","message":"","attemptedAt":null},"serverVersion":"1.33","cacheInfo":{"resourcesCount":431,"apisCount":62,"lastCacheSyncTime":"2026-11-21T15:00:00Z"},"applicationsCount":7,"apiVersions":["v1"]}
"#;
        let info = ClusterInfo::decode(written, Compression::None).unwrap();
        assert_eq!(info.counts(), Counts { applications_count: 7, apis_count: 62, resources_count: 431 });
        let packed = info.encode(Compression::Gzip).unwrap();
        assert_eq!(packed[..2], [0x1f, 0x8b]);
        let again = ClusterInfo::decode(&packed, Compression::Gzip).unwrap();
        assert_eq!(again, info);
        let same: Value = serde_json::from_slice(&again.encode(Compression::None).unwrap()).unwrap();
        assert_eq!(same, serde_json::from_slice::<Value>(written).unwrap());
    }

    #[test]
    fn what_is_no_entry_is_refused_and_never_unpacked_beyond_a_limit() {
        assert!(ClusterInfo::decode(b"{}", Compression::Gzip).is_err());
        assert!(ClusterInfo::decode(b"[]", Compression::None).is_err());
        let mut bomb = GzEncoder::new(Vec::new(), Level::best());
        bomb.write_all(&vec![b' '; 8 << 20]).unwrap();
        let bomb = bomb.finish().unwrap();
        assert!(matches!(ClusterInfo::decode(&bomb, Compression::Gzip), Err(Error::TooLarge)));
    }

    #[test]
    fn figures_travel_as_the_go_project_writes_them() {
        let counts = Counts { applications_count: 1, apis_count: 2, resources_count: 3 };
        let text = serde_json::to_string(&counts).unwrap();
        assert_eq!(text, r#"{"applicationsCount":1,"apisCount":2,"resourcesCount":3}"#);
        assert!(counts.are_plausible());
        assert!(!Counts { apis_count: -1, ..counts }.are_plausible());
    }
}
