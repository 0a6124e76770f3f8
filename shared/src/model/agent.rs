//! The name of an agent and the mode that it runs in.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Name of an agent: a DNS-1123 label, because it is also the name of a namespace at the control plane.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct AgentName(String);

/// Why a text is not the name of an agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("agent name {name:?} is not a DNS-1123 label (1 to 63 of a-z, 0-9 and -, neither first nor last -)")]
pub struct InvalidName {
    name: String,
}

impl AgentName {
    /// Checks `name` against the rules of a DNS-1123 label.
    pub fn new(name: impl Into<String>) -> Result<Self, InvalidName> {
        let name = name.into();
        let ok = (1..=63).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !name.starts_with('-')
            && !name.ends_with('-');
        if ok { Ok(Self(name)) } else { Err(InvalidName { name: name.chars().take(80).collect() }) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AgentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for AgentName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl<'de> Deserialize<'de> for AgentName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Which side owns the Argo CD resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The control plane owns specs, the cluster owns status.
    Managed,
    /// The cluster owns everything; the control plane holds a read-only copy.
    Autonomous,
}

impl Mode {
    /// The mode's name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Managed => "managed",
            Self::Autonomous => "autonomous",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names neither mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("mode {0:?} is neither \"managed\" nor \"autonomous\"")]
pub struct InvalidMode(String);

impl FromStr for Mode {
    type Err = InvalidMode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "managed" => Ok(Self::Managed),
            "autonomous" => Ok(Self::Autonomous),
            other => Err(InvalidMode(other.chars().take(80).collect())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_namespace_are_refused() {
        for bad in ["", "-a", "a-", "A", "a.b", "a/b", "a_b", "..", "a b", "ä", &"a".repeat(64)] {
            assert!(AgentName::new(bad).is_err(), "{bad:?} was accepted");
        }
        for good in ["a", "agent-managed", "0", &"a".repeat(63)] {
            assert_eq!(AgentName::new(good).unwrap().as_str(), good);
        }
    }
}
