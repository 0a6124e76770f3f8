//! What two Tiphys peers can do beyond the common protocol.
//!
//! The agent offers features in the metadata of `Subscribe`; the principal confirms those that it knows in the
//! response metadata. A peer that is not ours offers and confirms none.

use std::collections::BTreeSet;

/// Metadata key that offers and confirms features, as a comma-separated list.
pub const METADATA_KEY: &str = "tiphys-features";

/// One thing that both sides must know before either uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// An acknowledgement may say that the event was refused, and why.
    Refusals,
    /// What both sides hold is compared as a hash tree, all the time.
    Resync,
    /// The agent opens a tunnel through which its cluster's API is reached.
    Tunnel,
}

impl Feature {
    const ALL: [Self; 3] = [Self::Refusals, Self::Resync, Self::Tunnel];

    fn as_str(self) -> &'static str {
        match self {
            Self::Refusals => "refusals",
            Self::Resync => "resync",
            Self::Tunnel => "tunnel",
        }
    }
}

/// A set of features.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features(BTreeSet<Feature>);

impl Features {
    /// Everything that this version knows.
    pub fn all() -> Self {
        Self(Feature::ALL.into())
    }

    /// The features named in a metadata value that this version knows; the rest is the future's.
    pub fn parse(text: &str) -> Self {
        let names: Vec<&str> = text.split(',').map(str::trim).collect();
        Self(Feature::ALL.into_iter().filter(|feature| names.contains(&feature.as_str())).collect())
    }

    /// The set without `feature`.
    pub fn without(mut self, feature: Feature) -> Self {
        self.0.remove(&feature);
        self
    }

    /// What is in both sets.
    pub fn and(mut self, other: &Self) -> Self {
        self.0.retain(|feature| other.has(*feature));
        self
    }

    /// Whether `feature` is in the set.
    pub fn has(&self, feature: Feature) -> bool {
        self.0.contains(&feature)
    }

    /// The set as a metadata value.
    pub fn to_metadata(&self) -> String {
        self.0.iter().map(|feature| feature.as_str()).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_of_the_future_is_left_out_and_the_rest_confirmed() {
        let offered = Features::parse("time-travel, resync, refusals, tunnel");
        assert_eq!(offered, Features::all());
        assert_eq!(offered.to_metadata(), "refusals,resync,tunnel");
        assert!(!Features::parse("").has(Feature::Refusals));
    }
}
