//! What is told of resources in this cluster, to those who look at them.

use tiphys_shared::kube::reconciler::Undone;
use tiphys_shared::kube::recorder::{Event, Recorder, Regarding};
use tiphys_shared::model::{Kind, Object};

/// Tells.
#[derive(Clone, Debug)]
pub(crate) struct News(Recorder);

impl News {
    pub(crate) fn new(recorder: Recorder) -> Self {
        Self(recorder)
    }

    /// What the control plane wanted of a resource was refused here.
    pub(crate) fn refused(&self, kind: Kind, here: &Object, why: &str) {
        let note = format!("what the control plane wants of this was refused here: {why}");
        self.0
            .tell(Regarding::object(kind, here), Event::warning("ControlPlaneRefused", "Synchronize", &note));
    }

    /// Somebody has changed here what the control plane owns.
    pub(crate) fn undone(&self, kind: Kind, undone: &Undone) {
        let (object, note) = match undone {
            Undone::Change(object) => {
                (object, "a change made here was undone: the control plane owns this, change it there")
            }
            Undone::Deletion(object) => {
                (object, "this was deleted here and came back: the control plane owns it, delete it there")
            }
        };
        self.0.tell(Regarding::object(kind, object), Event::warning("ChangeUndone", "Revert", note));
    }
}
