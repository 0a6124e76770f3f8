//! The talk by which the holder of copies and their owner find what differs.
//!
//! The holder reports sums. Where a sum differs from the owner's, the owner asks for the parts; where few are left, the
//! holder names what it has, and the owner knows what to send and what to delete. The owner judges, because it alone
//! knows what there should be. Neither remembers anything between two messages, so a message that is lost, repeated or
//! late changes nothing but the time that it takes.

use serde::{Deserialize, Serialize};

use super::digest::Scope;
use super::tree::{Leaf, LeafName, Prefix, Sum, Tree};

/// A part with this many resources or fewer is named, not summed.
const FEW: u64 = 32;
/// A part with more resources than this is divided by 256 instead of 16.
const MANY: u64 = 1024;
/// Most resources that one report names.
const NAMED: usize = 512;
/// Most nodes that one query asks for, and that one report sums.
pub const NODES: usize = 256;

/// What a holder has below some nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What is compared.
    pub scope: Scope,
    /// Nodes, disjoint.
    pub nodes: Vec<Node>,
}

/// What a holder has below a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The node.
    pub at: Prefix,
    /// Number and sum of what is below it.
    #[serde(flatten)]
    pub sum: Sum,
    /// All that is below it, where it is few.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaves: Option<Vec<Leaf>>,
}

/// The nodes that an owner wants to see the parts of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// What is compared.
    pub scope: Scope,
    /// Nodes whose sums differ.
    pub nodes: Vec<Prefix>,
}

/// What an owner makes of a report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Nodes to be asked for; at most [`NODES`].
    pub ask: Vec<Prefix>,
    /// Resources that the holder lacks or has otherwise.
    pub differing: Vec<LeafName>,
    /// Resources that the holder has and the owner does not.
    pub unknown: Vec<Leaf>,
}

impl Verdict {
    /// Whether both sides hold the same, so far as the report told.
    pub fn is_equal(&self) -> bool {
        self.ask.is_empty() && self.differing.is_empty() && self.unknown.is_empty()
    }
}

/// The holder's first word: the sum of everything.
pub fn summary(scope: Scope, held: &Tree) -> Report {
    let root = Prefix::root();
    Report { scope, nodes: vec![Node { sum: held.sum(&root), at: root, leaves: None }] }
}

/// The holder's answer to a query, in messages of bounded size.
pub fn answer(held: &Tree, query: &Query) -> Vec<Report> {
    let mut reports = Vec::new();
    let mut nodes: Vec<Node> = Vec::new();
    let mut named = 0;
    for asked in disjoint(&query.nodes, |asked| asked) {
        let count = held.sum(asked).count;
        let parts = match count {
            0..=FEW => Vec::new(),
            _ => asked.children(if count > MANY { 2 } else { 1 }),
        };
        if parts.is_empty() {
            // Few; or below the leaves, where there is nothing to divide.
            let leaves: Vec<Leaf> = held.below(asked).take(NAMED).cloned().collect();
            named += leaves.len();
            nodes.push(Node { at: asked.clone(), sum: held.sum(asked), leaves: Some(leaves) });
        }
        for at in parts {
            nodes.push(Node { sum: held.sum(&at), at, leaves: None });
            if nodes.len() >= NODES {
                reports.push(Report { scope: query.scope, nodes: std::mem::take(&mut nodes) });
            }
        }
        if nodes.len() >= NODES || named >= NAMED {
            reports.push(Report { scope: query.scope, nodes: std::mem::take(&mut nodes) });
            named = 0;
        }
    }
    if !nodes.is_empty() {
        reports.push(Report { scope: query.scope, nodes });
    }
    reports
}

/// What the owner makes of a report. Whatever a report says, no more is looked at than a true one would hold.
pub fn compare(own: &Tree, report: &Report) -> Verdict {
    let mut verdict = Verdict::default();
    for node in disjoint(&report.nodes, |node| &node.at) {
        if own.sum(&node.at) == node.sum {
            continue;
        }
        match &node.leaves {
            Some(leaves) if leaves.len() <= NAMED => name_differences(own, &node.at, leaves, &mut verdict),
            _ => verdict.ask.push(node.at.clone()),
        }
    }
    verdict
}

/// The first [`NODES`], without those that overlap with one before them: whoever names a part twice gets no more said about
/// it than once.
fn disjoint<T>(nodes: &[T], at: impl Fn(&T) -> &Prefix) -> impl Iterator<Item = &T> {
    nodes.iter().take(NODES).enumerate().filter_map(move |(number, node)| {
        let earlier = nodes.iter().take(number);
        earlier.into_iter().all(|earlier| !at(earlier).overlaps(at(node))).then_some(node)
    })
}

fn name_differences(own: &Tree, at: &Prefix, held: &[Leaf], verdict: &mut Verdict) {
    for leaf in own.below(at) {
        if !held.contains(leaf) {
            verdict.differing.push(leaf.name.clone());
        }
    }
    verdict.unknown.extend(held.iter().filter(|leaf| own.get(&leaf.name).is_none()).cloned());
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::model::{Kind, SourceUid};
    use crate::protocol::resync::digest::Digest;

    type Set = BTreeMap<u32, u32>;

    fn leaf(n: u32, content: u32) -> Leaf {
        Leaf {
            name: LeafName { kind: Kind::Application, namespace: String::new(), name: format!("app-{n}") },
            uid: SourceUid(format!("uid-{n}")),
            digest: Digest::of(&[&content.to_be_bytes()]),
        }
    }

    fn tree(set: &Set) -> Tree {
        set.iter().map(|(n, content)| leaf(*n, *content)).collect()
    }

    struct Talk {
        messages: usize,
        bytes: usize,
        differing: Vec<LeafName>,
        unknown: Vec<LeafName>,
    }

    /// Lets a holder and an owner talk to the end.
    fn talk(held: &Tree, own: &Tree) -> Talk {
        let mut talk = Talk { messages: 0, bytes: 0, differing: Vec::new(), unknown: Vec::new() };
        let mut reports = vec![summary(Scope::Spec, held)];
        while let Some(report) = reports.pop() {
            // Each is acknowledged.
            talk.messages += 2;
            talk.bytes += serde_json::to_string(&report).unwrap().len();
            let verdict = compare(own, &report);
            talk.differing.extend(verdict.differing);
            talk.unknown.extend(verdict.unknown.into_iter().map(|leaf| leaf.name));
            if !verdict.ask.is_empty() {
                let query = Query { scope: report.scope, nodes: verdict.ask };
                talk.messages += 2;
                talk.bytes += serde_json::to_string(&query).unwrap().len();
                reports.extend(answer(held, &query));
            }
            assert!(talk.messages < 10_000, "it does not end");
        }
        talk.differing.sort();
        talk.unknown.sort();
        talk
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn exactly_what_differs_is_found(
            both in proptest::collection::btree_map(0_u32..3000, 0_u32..2, 0..1500),
            held_only in proptest::collection::btree_map(3000_u32..3100, 0_u32..2, 0..20),
            own_only in proptest::collection::btree_map(4000_u32..4100, 0_u32..2, 0..20),
            changed in proptest::collection::btree_set(0_u32..3000, 0..20),
        ) {
            let held: Set = both.clone().into_iter().chain(held_only.clone()).collect();
            let mut own: Set = both.into_iter().chain(own_only.clone()).collect();
            let mut differing: Vec<u32> = own_only.keys().copied().collect();
            for n in changed {
                if let Some(content) = own.get_mut(&n) {
                    *content += 5;
                    differing.push(n);
                }
            }
            let names = |numbers: Vec<u32>| {
                let mut names: Vec<LeafName> = numbers.into_iter().map(|n| leaf(n, 0).name).collect();
                names.sort();
                names
            };
            let talk = talk(&tree(&held), &tree(&own));
            prop_assert_eq!(talk.differing, names(differing));
            prop_assert_eq!(talk.unknown, names(held_only.into_keys().collect()));
        }
    }

    #[test]
    fn sides_that_agree_need_one_message_and_its_acknowledgement() {
        let set: Set = (0..10_000).map(|n| (n, 0)).collect();
        let talk = talk(&tree(&set), &tree(&set));
        assert_eq!(talk.messages, 2);
        assert!(talk.bytes < 200, "{} bytes", talk.bytes);
    }

    #[test]
    fn one_difference_in_ten_thousand_costs_its_logarithm() {
        let held: Set = (0..10_000).map(|n| (n, 0)).collect();
        for n in [0, 1, 77, 4096, 9_999] {
            let mut own = held.clone();
            own.insert(n, 1);
            let talk = talk(&tree(&held), &tree(&own));
            assert_eq!(talk.differing.len(), 1);
            assert!(talk.messages <= 3 * 14, "{} messages", talk.messages);
            assert!(talk.bytes <= 64 * 1024, "{} bytes", talk.bytes);
        }
    }

    #[test]
    fn a_fleet_without_anything_in_common_is_told_in_messages_of_bounded_size() {
        let held: Set = (0..5_000).map(|n| (n, 0)).collect();
        let own: Set = (0..5_000).map(|n| (n, 1)).collect();
        let talk = talk(&tree(&held), &tree(&own));
        assert_eq!(talk.differing.len(), 5_000);
        let all = Query { scope: Scope::Spec, nodes: Prefix::root().children(2) };
        for report in answer(&tree(&held), &all) {
            assert!(report.nodes.len() <= NODES);
            assert!(serde_json::to_string(&report).unwrap().len() < 256 * 1024);
        }
    }

    #[test]
    fn whoever_names_the_whole_over_and_over_gets_it_once() {
        let own = tree(&(0..5_000).map(|n| (n, 0)).collect());
        let root = Prefix::root();
        let nothing = Node { at: root.clone(), sum: Sum::default(), leaves: Some(Vec::new()) };
        let report = Report { scope: Scope::Spec, nodes: vec![nothing; NODES] };
        assert_eq!(compare(&own, &report).differing.len(), own.len());
        let query = Query { scope: Scope::Spec, nodes: [vec![root.clone(); 100], root.children(1)].concat() };
        let nodes: usize = answer(&own, &query).iter().map(|report| report.nodes.len()).sum();
        assert_eq!(nodes, 256);
    }

    #[test]
    fn a_liar_gets_no_more_questions_than_nodes() {
        let own = tree(&(0..100).map(|n| (n, 0)).collect());
        let lie = Node { at: Prefix::root(), sum: Sum { count: u64::MAX, sum: Digest(1) }, leaves: None };
        let report = Report { scope: Scope::Spec, nodes: vec![lie; 100_000] };
        assert!(compare(&own, &report).ask.len() <= NODES);
        let invented: Vec<Leaf> = (0..10_000).map(|n| leaf(n + 500, 0)).collect();
        let lie = Node { at: Prefix::root(), sum: Sum::default(), leaves: Some(invented) };
        let verdict = compare(&own, &Report { scope: Scope::Spec, nodes: vec![lie] });
        assert!(verdict.unknown.is_empty());
        assert_eq!(verdict.ask, [Prefix::root()]);
    }
}
