//! What went wrong of late, for people who look.

use std::collections::VecDeque;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;
use tiphys_shared::model::AgentName;
use tiphys_shared::process::clock;

/// How many are kept.
const KEPT: usize = 100;
/// Longest text that is kept, in characters: some of it is a peer's.
const TEXT: usize = 300;

/// Something that went wrong, once or again and again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    /// When it last did.
    pub(crate) last: Timestamp,
    /// How often.
    pub(crate) times: u64,
    /// With which agent, if that has been proven.
    pub(crate) agent: Option<AgentName>,
    /// What it was.
    pub(crate) what: String,
}

/// The last of them, newest last.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    kept: Mutex<VecDeque<Problem>>,
}

impl Problems {
    /// Takes note of one.
    pub(crate) fn note(&self, agent: Option<&AgentName>, what: &str) {
        let what: String = what.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT).collect();
        let mut kept = self.kept.lock();
        let same = kept.iter().position(|known| known.agent.as_ref() == agent && known.what == what);
        let times = same.and_then(|index| kept.remove(index)).map_or(0, |known| known.times);
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back(Problem {
            last: clock::now(),
            times: times.saturating_add(1),
            agent: agent.cloned(),
            what,
        });
    }

    /// All that are kept, newest first.
    pub(crate) fn recent(&self) -> Vec<Problem> {
        self.kept.lock().iter().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_repeats_itself_is_one_and_newer_than_what_does_not() {
        let problems = Problems::default();
        let agent = AgentName::new("edge").unwrap();
        problems.note(Some(&agent), "refused");
        problems.note(None, "refused");
        problems.note(Some(&agent), "refused");
        let recent = problems.recent();
        assert_eq!(recent.len(), 2);
        assert_eq!((recent[0].agent.as_ref(), recent[0].times), (Some(&agent), 2));
    }

    #[test]
    fn neither_their_number_nor_a_text_of_a_peer_grows_without_bound() {
        let problems = Problems::default();
        for n in 0..KEPT * 2 {
            problems.note(None, &format!("{n}\n{}", "x".repeat(2 * TEXT)));
        }
        let recent = problems.recent();
        assert_eq!(recent.len(), KEPT);
        assert!(
            recent.iter().all(|problem| problem.what.chars().count() == TEXT && !problem.what.contains('\n'))
        );
        assert!(recent[0].what.starts_with(&format!("{} ", KEPT * 2 - 1)));
    }
}
