//! A store that is kept on disk: what is committed is staged, a thread writes it, and only then does anybody see it.
//!
//! Writers go on from what is staged, so many of them share one transaction, and one that is waiting for the disk
//! holds up nobody. If the disk refuses, everything staged is dropped: whoever waits is told, and what readers and
//! watchers have seen was never more than what is on disk.

use super::{Change, Objects, State, Stored};
use crate::disk::{Disk, Failed};
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::sync::watch;

/// How often a disk that refused is tried again while nobody writes.
const PROBE: Duration = Duration::from_secs(1);

/// What happened, in the order in which it is to be told.
pub(super) enum Step {
    Change(Change),
    /// Everything that watches this storage ends.
    Close(Box<str>),
}

/// The state as writers see it: ahead of what is on disk.
pub(super) struct Staged {
    /// Numbers are not given twice, not even those of what was lost.
    pub(super) revision: u64,
    pub(super) objects: Objects,
    /// What nobody is writing yet.
    pub(super) steps: Vec<Step>,
    /// Everything up to this revision is on disk or lost.
    decided: u64,
    /// How often something was lost.
    losses: u64,
    trouble: Option<Trouble>,
    closed: bool,
}

/// Why nothing can be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// For a person.
    pub(crate) message: Arc<str>,
    /// Room on the disk would help.
    pub(crate) is_full: bool,
}

impl Trouble {
    fn new(failed: &Failed) -> Self {
        Self { message: failed.to_string().into(), is_full: matches!(failed, Failed::Full { .. }) }
    }
}

/// From when on a writer wants to know what becomes of its changes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket {
    losses: u64,
}

impl Staged {
    pub(super) fn new(revision: u64, objects: Objects) -> Self {
        let (steps, trouble) = (Vec::new(), None);
        Self { revision, objects, steps, decided: revision, losses: 0, trouble, closed: false }
    }

    fn take(&mut self) -> Batch {
        let steps = std::mem::take(&mut self.steps);
        Batch { steps, objects: self.objects.clone(), revision: self.revision }
    }
}

/// Steps that are written together, and the state after them.
struct Batch {
    steps: Vec<Step>,
    objects: Objects,
    revision: u64,
}

impl Batch {
    fn changes(&self) -> impl Iterator<Item = &Change> {
        self.steps.iter().filter_map(|step| match step {
            Step::Change(change) => Some(change),
            Step::Close(_) => None,
        })
    }
}

/// What the thread does next.
enum Task {
    Write(Batch),
    Probe,
}

/// The store's end of it.
pub(super) struct Journal {
    state: Arc<Mutex<State>>,
    signal: Arc<Condvar>,
    /// Marked as changed whenever something was decided.
    decisions: watch::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Journal {
    /// Starts the thread. `on_loss` is called, without any lock, after staged changes were dropped.
    pub(super) fn start(
        state: Arc<Mutex<State>>,
        window: super::Window,
        disk: Disk,
        on_loss: impl Fn() + Send + 'static,
    ) -> std::io::Result<Self> {
        let signal = Arc::new(Condvar::new());
        let decisions = watch::Sender::new(());
        let writer =
            Writer { state: state.clone(), signal: signal.clone(), decisions: decisions.clone(), window };
        let thread = thread::Builder::new()
            .name("tiphys-disk".to_owned())
            .spawn(move || writer.run(disk, &on_loss))?;
        Ok(Self { state, signal, decisions, thread: Some(thread) })
    }

    /// Tells the thread that there is something to write.
    pub(super) fn wake(&self) {
        self.signal.notify_one();
    }

    pub(super) fn ticket(&self) -> Ticket {
        Ticket { losses: self.state.lock().staged.as_ref().map_or(0, |staged| staged.losses) }
    }

    /// Waits until everything that is staged now is on disk.
    ///
    /// # Errors
    /// Why something was lost since the ticket was taken.
    pub(super) async fn settled(&self, since: Ticket) -> Result<(), Trouble> {
        let mut decisions = self.decisions.subscribe();
        let mut until = None;
        loop {
            if let Some(outcome) = self.outcome(since, &mut until) {
                return outcome;
            }
            // The sender is here: it cannot be gone.
            _ = decisions.changed().await;
        }
    }

    fn outcome(&self, since: Ticket, until: &mut Option<u64>) -> Option<Result<(), Trouble>> {
        let state = self.state.lock();
        let Some(staged) = &state.staged else { return Some(Ok(())) };
        let until = *until.get_or_insert(staged.revision);
        if staged.losses != since.losses {
            // By now it may be over; that something was lost stays true.
            let passed = || Trouble { message: "the disk refused for a moment".into(), is_full: false };
            return Some(Err(staged.trouble.clone().unwrap_or_else(passed)));
        }
        (staged.decided >= until).then_some(Ok(()))
    }

    pub(super) fn decisions(&self) -> watch::Receiver<()> {
        self.decisions.subscribe()
    }

    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.state.lock().staged.as_ref()?.trouble.clone()
    }
}

impl Drop for Journal {
    /// Writes what is staged, and lets go of the file.
    fn drop(&mut self) {
        if let Some(staged) = &mut self.state.lock().staged {
            staged.closed = true;
        }
        self.signal.notify_one();
        let Some(thread) = self.thread.take() else { return };
        // The thread itself may be the last that holds the server.
        if thread.thread().id() != thread::current().id() && thread.join().is_err() {
            tracing::error!("the thread that writes to disk panicked");
        }
    }
}

/// The thread's end.
struct Writer {
    state: Arc<Mutex<State>>,
    signal: Arc<Condvar>,
    decisions: watch::Sender<()>,
    window: super::Window,
}

impl Writer {
    fn run(self, mut disk: Disk, on_loss: &dyn Fn()) {
        while let Some(task) = self.next() {
            match task {
                Task::Write(batch) => match write(&mut disk, &batch) {
                    Ok(()) => self.show(batch),
                    Err(failed) => {
                        let lost = self.drop_staged();
                        // First what follows from it, then those who ask whether it is so.
                        on_loss();
                        self.lose(lost, &failed);
                    }
                },
                Task::Probe => match disk.probe() {
                    Ok(()) => self.recover(&mut self.state.lock()),
                    Err(failed) => self.complain(&mut self.state.lock(), &failed),
                },
            }
            self.decisions.send_replace(());
        }
    }

    fn next(&self) -> Option<Task> {
        let mut state = self.state.lock();
        loop {
            let staged = state.staged.as_mut()?;
            if !staged.steps.is_empty() {
                return Some(Task::Write(staged.take()));
            }
            if staged.closed {
                return None;
            }
            if staged.trouble.is_none() {
                self.signal.wait(&mut state);
            } else if self.signal.wait_for(&mut state, PROBE).timed_out() {
                return Some(Task::Probe);
            }
        }
    }

    /// Lets everybody see what is on disk now.
    fn show(&self, batch: Batch) {
        let mut state = self.state.lock();
        state.revision = batch.revision;
        state.objects = batch.objects;
        for step in batch.steps {
            match step {
                Step::Change(change) => state.tell(change, self.window),
                Step::Close(storage) => state.close(&storage),
            }
        }
        if let Some(staged) = &mut state.staged {
            staged.decided = batch.revision;
        }
        self.recover(&mut state);
    }

    /// Drops what is staged, and tells up to which revision.
    fn drop_staged(&self) -> u64 {
        let mut state = self.state.lock();
        let (objects, revision) = (state.objects.clone(), state.revision);
        let Some(staged) = &mut state.staged else { return revision };
        staged.objects = objects;
        staged.steps.clear();
        staged.revision
    }

    fn lose(&self, lost: u64, failed: &Failed) {
        let mut state = self.state.lock();
        if let Some(staged) = &mut state.staged {
            staged.decided = lost;
            staged.losses += 1;
        }
        self.complain(&mut state, failed);
    }

    fn complain(&self, state: &mut State, failed: &Failed) {
        let Some(staged) = &mut state.staged else { return };
        let trouble = Trouble::new(failed);
        if staged.trouble.as_ref() != Some(&trouble) {
            tracing::error!(error = %failed, "changes are refused");
        }
        staged.trouble = Some(trouble);
    }

    fn recover(&self, state: &mut State) {
        let Some(staged) = &mut state.staged else { return };
        if staged.trouble.take().is_some() {
            tracing::info!("changes are taken again");
            // What observers did in the meantime is lost. They begin again.
            state.observers.clear();
        }
    }
}

fn write(disk: &mut Disk, batch: &Batch) -> Result<(), Failed> {
    if batch.changes().next().is_none() {
        return Ok(());
    }
    disk.write(batch.changes(), batch.revision)
}

impl State {
    /// The state from a disk.
    pub(super) fn loaded(revision: u64, objects: impl Iterator<Item = Stored>) -> Self {
        let objects: Objects = objects.map(|stored| (stored.key.path.clone(), Arc::new(stored))).collect();
        let mut state = Self::new(revision);
        state.staged = Some(Box::new(Staged::new(state.revision, objects.clone())));
        state.objects = objects;
        state
    }
}
