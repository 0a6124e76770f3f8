//! Which resources are synchronised, and how one of them is named.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::event::Target;

/// The kinds of resources that travel between control plane and clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Argo CD Application.
    Application,
    /// Argo CD AppProject.
    AppProject,
    /// Secret with a repository, or with credentials for repositories.
    Repository,
    /// Config map with the GPG keys that commits may be signed by.
    GpgKey,
}

impl Kind {
    /// Every kind, in the order in which an agent needs them: what an Application refers to comes first.
    pub const ALL: [Self; 4] = [Self::GpgKey, Self::AppProject, Self::Repository, Self::Application];

    /// The kind's name in resync messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Application => "Application",
            Self::AppProject => "AppProject",
            Self::Repository => "Repository",
            Self::GpgKey => "GPGKey",
        }
    }

    /// The kind that a resync message names; none for a kind that is not synchronised.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// The target of events about this kind.
    pub fn target(self) -> Target {
        match self {
            Self::Application => Target::Application,
            Self::AppProject => Target::AppProject,
            Self::Repository => Target::Repository,
            Self::GpgKey => Target::GpgKey,
        }
    }

    /// The kind that events for `target` are about.
    pub fn of_target(target: &Target) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.target() == *target)
    }

    /// The top-level field that the owner declares and that is compared: `spec`, or `data` of a Secret.
    pub fn content_field(self) -> &'static str {
        match self {
            Self::Application | Self::AppProject => "spec",
            Self::Repository | Self::GpgKey => "data",
        }
    }
}

impl Serialize for Kind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a kind that is synchronised"))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Kind, namespace and name: what identifies a resource on one cluster at one time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceKey {
    /// Kind of the resource.
    pub kind: Kind,
    /// Namespace of the resource.
    pub namespace: String,
    /// Name of the resource.
    pub name: String,
}

impl ResourceKey {
    /// The key made of its three parts.
    pub fn new(kind: Kind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}
