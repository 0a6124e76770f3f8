//! Names of requests that came not long ago: a principal of the Go project that has not heard that one arrived says it again.

use std::collections::{BTreeSet, VecDeque};

/// How many names are known.
const KNOWN: usize = 1024;
/// Longest name that is kept.
const LONGEST: usize = 64;

/// The names that came last.
#[derive(Debug, Default)]
pub(super) struct Recent {
    order: VecDeque<String>,
    known: BTreeSet<String>,
}

impl Recent {
    /// Takes note of a name, and tells whether it is new.
    pub(super) fn is_new(&mut self, name: &str) -> bool {
        if name.len() > LONGEST {
            return true;
        }
        if !self.known.insert(name.to_owned()) {
            return false;
        }
        self.order.push_back(name.to_owned());
        if self.order.len() > KNOWN
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_new_once_and_not_all_names_are_kept() {
        let mut recent = Recent::default();
        assert!(recent.is_new("a"));
        assert!(!recent.is_new("a"));
        for number in 1..KNOWN {
            assert!(recent.is_new(&number.to_string()));
        }
        assert!(!recent.is_new("a"));
        assert!(recent.is_new("one more"));
        assert!(recent.is_new("a"), "the oldest was kept");
        assert_eq!((recent.order.len(), recent.known.len()), (KNOWN, KNOWN));
        let long = "x".repeat(LONGEST + 1);
        assert!(recent.is_new(&long) && recent.is_new(&long));
    }
}
