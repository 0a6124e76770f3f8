//! What users did, and so what must be true in the end.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tiphys_shared::model::Kind;

/// A resource as users know it: agent, kind, and the owner's name of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The agent.
    pub agent: String,
    /// The kind.
    pub kind: Kind,
    /// Its name at the owner's.
    pub name: String,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} of {}", self.kind, self.name, self.agent)
    }
}

/// What the owner's users left of a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owned {
    /// Its UID at the owner's; none since they deleted it.
    pub life: Option<String>,
    /// What they last wrote into it: a revision or description.
    pub content: String,
    /// What they last wrote into a label.
    pub label: String,
    /// What they last wrote into an annotation.
    pub note: String,
}

/// An operation that users asked for. Its content is its own alone.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Of which Application.
    pub place: Place,
    /// Of which life of it.
    pub life: String,
    /// How often the cluster started it.
    pub started: u32,
    /// Whether the cluster is through with it.
    pub finished: bool,
    /// Whether somebody deleted the Application on the other side meanwhile, and the request or the run with it.
    pub disturbed: bool,
    /// How often the Application was deleted on the other side since. What was taken is written on it: should the agent be
    /// killed too before it is heard, nobody knows any more that it was.
    pub deletions: u32,
}

/// Everything that users did.
#[derive(Debug, Default)]
pub struct Ledger {
    content: Mutex<Content>,
}

/// What a ledger holds.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// Changes made, on all sides.
    pub changes: u64,
    /// Resources that were ever there.
    pub owned: BTreeMap<Place, Owned>,
    /// Operations by content.
    pub operations: BTreeMap<String, Operation>,
    /// Starts of operations that nobody asked for.
    pub unknown: Vec<String>,
    serial: u64,
}

impl Ledger {
    /// Everything, as it is now.
    pub fn snapshot(&self) -> Content {
        self.content.lock().clone()
    }

    /// How many changes users have made.
    pub fn changes(&self) -> u64 {
        self.content.lock().changes
    }

    /// How many operations users have asked for.
    pub fn operations(&self) -> usize {
        self.content.lock().operations.len()
    }

    /// How many resources there are to be.
    pub fn resources(&self) -> usize {
        self.content.lock().owned.values().filter(|owned| owned.life.is_some()).count()
    }

    /// Something that was never written before.
    pub fn unique(&self, what: &str) -> String {
        let mut content = self.content.lock();
        content.serial += 1;
        format!("{what}-{}", content.serial)
    }

    /// What users left of a resource.
    pub fn owned(&self, place: &Place) -> Owned {
        self.content.lock().owned.get(place).cloned().unwrap_or_default()
    }

    /// The owner's users left a resource so.
    pub fn own(&self, place: &Place, owned: Owned) {
        let mut content = self.content.lock();
        content.changes += 1;
        content.owned.insert(place.clone(), owned);
    }

    /// Users changed something that is not theirs.
    pub fn note_meddling(&self) {
        self.content.lock().changes += 1;
    }

    /// Somebody deletes the copy, or the shown Application, with whatever was asked for on it.
    pub fn disturb(&self, place: &Place) {
        let mut content = self.content.lock();
        for operation in content.operations.values_mut() {
            if operation.place == *place {
                operation.disturbed |= !operation.finished;
                operation.deletions += 1;
            }
        }
    }

    /// Whether an operation of this life waits or runs.
    pub fn is_busy(&self, place: &Place, life: &str) -> bool {
        self.content
            .lock()
            .operations
            .values()
            .any(|it| it.place == *place && it.life == life && !it.finished && !it.disturbed)
    }

    /// Users are about to ask for an operation.
    pub fn ask(&self, content: &str, place: &Place, life: &str) {
        let operation = Operation {
            place: place.clone(),
            life: life.to_owned(),
            started: 0,
            finished: false,
            disturbed: false,
            deletions: 0,
        };
        let mut ledger = self.content.lock();
        ledger.changes += 1;
        ledger.operations.insert(content.to_owned(), operation);
    }

    /// The API server did not take it.
    pub fn take_back(&self, content: &str) {
        let mut ledger = self.content.lock();
        if ledger.operations.remove(content).is_some() {
            ledger.changes -= 1;
        }
    }

    /// A cluster started an operation.
    pub fn start(&self, content: &str) {
        let mut ledger = self.content.lock();
        match ledger.operations.get_mut(content) {
            Some(operation) => operation.started += 1,
            None => ledger.unknown.push(content.to_owned()),
        }
    }

    /// A cluster is through with an operation.
    pub fn finish(&self, content: &str) {
        if let Some(operation) = self.content.lock().operations.get_mut(content) {
            operation.finished = true;
        }
    }
}
