//! People: at the control plane and at each cluster, changing what is theirs, and what is not.

mod objects;

use std::sync::Arc;

use fastrand::Rng;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};
use tiphys_shared::model::argocd::{annotation, label};
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{Kind, Mode, Object, ResourceKey};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::journal::short;
use super::plan::pause;
use super::world::{Declared, NAMESPACE, Operation, Place, World};

/// Few names, so that lives of one name follow each other.
const APPLICATIONS: [&str; 4] = ["shop", "blog", "mail", "wiki"];
const PROJECTS: [&str; 3] = ["team-a", "team-b", "default"];
const REPOSITORIES: [&str; 2] = ["repo-a", "repo-b"];

/// Sets people to work, until the acting phase ends.
pub(crate) fn start(world: &Arc<World>, tasks: &mut JoinSet<()>) {
    let places = std::iter::once(Place::Control).chain((0..world.clusters.len()).map(Place::Cluster));
    for place in places {
        let rng = world.plan.rng(&format!("user at {place:?}"));
        let name = format!("user{}", world.name_of(place).replace("control", "*"));
        let person = Person { world: Arc::clone(world), place, rng, name };
        tasks.spawn(person.act());
    }
}

struct Person {
    world: Arc<World>,
    place: Place,
    rng: Rng,
    name: String,
}

/// A resource, and where.
#[derive(Clone)]
struct Spot {
    kind: Kind,
    namespace: String,
    name: String,
}

impl Person {
    async fn act(mut self) {
        let end = Instant::now() + self.world.plan.acting;
        loop {
            sleep(pause(&mut self.rng, self.world.plan.pace)).await;
            if Instant::now() >= end {
                return;
            }
            match self.place {
                Place::Control => self.act_at_control().await,
                Place::Cluster(index) => self.act_at_cluster(index).await,
            }
        }
    }

    async fn act_at_control(&mut self) {
        let index = self.rng.usize(0..self.world.plan.agents.len());
        let Some(agent) = self.world.plan.agents.get(index).cloned() else { return };
        let application = self.pick(Kind::Application, agent.name.as_str(), &APPLICATIONS);
        match (agent.mode, self.rng.u8(0..16)) {
            (Mode::Managed, 0..10) => self.own_application(application, index).await,
            // Upstream's protocol does not compare how things stand.
            (Mode::Managed, 10) if agent.compares() => self.scribble_status(&application).await,
            (Mode::Autonomous, 0..7) => self.request(&application, index).await,
            (Mode::Autonomous, 7..10) => self.meddle(&application, index).await,
            (Mode::Autonomous, 10) => {
                let name = format!("{}-{}", agent.name, self.rng.choice(PROJECTS).unwrap_or("default"));
                let project = Spot { kind: Kind::AppProject, namespace: NAMESPACE.to_owned(), name };
                self.meddle(&project, index).await;
            }
            (_, 11 | 12) => {
                let project = self.pick(Kind::AppProject, NAMESPACE, &PROJECTS);
                self.own(project, Self::project).await;
            }
            (_, 13 | 14) => {
                let repository = self.pick(Kind::Repository, NAMESPACE, &REPOSITORIES);
                self.own(repository, Self::repository).await;
            }
            _ => {
                let bystander = self.pick(Kind::Application, "bystanders", &APPLICATIONS);
                self.own(bystander, Self::application).await;
            }
        }
    }

    async fn act_at_cluster(&mut self, index: usize) {
        let Some(agent) = self.world.plan.agents.get(index).cloned() else { return };
        let application = self.pick(Kind::Application, NAMESPACE, &APPLICATIONS);
        match (agent.mode, self.rng.u8(0..12)) {
            (Mode::Managed, 0..6) => self.meddle(&application, index).await,
            (Mode::Managed, 6) => {
                let project = self.pick(Kind::AppProject, NAMESPACE, &PROJECTS);
                self.meddle(&project, index).await;
            }
            (Mode::Managed, 7) => {
                let repository = self.pick(Kind::Repository, NAMESPACE, &REPOSITORIES);
                self.meddle(&repository, index).await;
            }
            (Mode::Managed, 8) => {
                let local = self.pick(Kind::Application, NAMESPACE, &["local-a", "local-b"]);
                self.own(local, Self::application).await;
            }
            (Mode::Managed, 9) if self.rng.u8(0..4) == 0 => {
                // Perhaps there is an original of this name, or will be.
                let stranger = self.application(&application);
                self.create(&application, stranger, false).await;
            }
            (Mode::Autonomous, 0..9) => self.own_application(application, index).await,
            (Mode::Autonomous, 9..11) => {
                let project = self.pick(Kind::AppProject, NAMESPACE, &PROJECTS);
                self.own(project, Self::project).await;
            }
            _ => {}
        }
    }

    fn pick(&mut self, kind: Kind, namespace: &str, names: &[&str]) -> Spot {
        let name = self.rng.choice(names).copied().unwrap_or_default().to_owned();
        Spot { kind, namespace: namespace.to_owned(), name }
    }

    /// Something that the owner of an Application may do.
    async fn own_application(&mut self, spot: Spot, index: usize) {
        match self.rng.u8(0..16) {
            0..9 => self.own(spot, Self::application).await,
            9..14 => self.request(&spot, index).await,
            _ => {
                self.excuse(&spot, index);
                self.world.ledger.lock().hidden.insert((index, spot.name.clone()));
                self.change(&spot, "toggles ignore-sync", true, |object| {
                    let labels = object.metadata.labels.get_or_insert_default();
                    if labels.remove(label::IGNORE_SYNC).is_none() {
                        labels.insert(label::IGNORE_SYNC.to_owned(), "true".to_owned());
                    }
                    true
                })
                .await;
            }
        }
    }

    /// Creates, changes, deletes or replaces something that is one's own.
    async fn own(&mut self, spot: Spot, make: impl Fn(&mut Self, &Spot) -> Object) {
        let wanted = make(self, &spot);
        match self.rng.u8(0..10) {
            0..4 => {
                let field = spot.kind.content_field();
                let content = wanted.field(field).cloned();
                let changed = self.change(&spot, "edits", true, |object| {
                    object.set_field(field, content.clone());
                    true
                });
                if changed.await.is_none() {
                    self.create(&spot, wanted, true).await;
                }
            }
            4..7 => {
                let note = format!("n{}", self.rng.u16(..));
                let (on_label, remove) = (self.rng.bool(), self.rng.u8(0..3) == 0);
                let changed = self.change(&spot, "notes", true, |object| {
                    let map = if on_label {
                        object.metadata.labels.get_or_insert_default()
                    } else {
                        object.metadata.annotations.get_or_insert_default()
                    };
                    if remove {
                        map.remove("note");
                    } else {
                        map.insert("note".to_owned(), note.clone());
                    }
                    true
                });
                if changed.await.is_none() {
                    self.create(&spot, wanted, true).await;
                }
            }
            7 | 8 => self.delete(&spot, true).await,
            _ => {
                self.delete(&spot, true).await;
                self.create(&spot, wanted, true).await;
            }
        }
    }

    /// Asks the cluster for something: an operation, the end of one, another look.
    async fn request(&mut self, spot: &Spot, index: usize) {
        match self.rng.u8(0..8) {
            // Where two ask at once, at the control plane and at the cluster, Argo CD has room for one.
            0..5 if self.place == Place::Control => {
                let id = format!("op-{}", self.world.ledger.lock().next());
                let what = format!("starts {id}");
                let changed = self.change(spot, &what, false, |object| {
                    let busy = matches!(ownership_phase(object), Some("Running" | "Terminating"));
                    // As Argo CD's own API does.
                    if object.field("operation").is_some() || busy || object.is_deleting() {
                        return false;
                    }
                    object.set_field("operation", Some(json!({"sync": {"revision": id}})));
                    true
                });
                if let Some(object) = changed.await {
                    self.world.ledger.lock().operations.push(Operation {
                        id: id.clone(),
                        agent: index,
                        name: spot.name.clone(),
                        uid: object.origin().0,
                        excused: object.label(label::IGNORE_SYNC) == Some("true"),
                    });
                }
            }
            0..=6 => {
                let how = if self.rng.bool() { "normal" } else { "hard" };
                self.change(spot, "wants another look", false, |object| {
                    object.annotate(annotation::REFRESH, how);
                    true
                })
                .await;
            }
            _ => {
                let changed = self.change(spot, "terminates", false, |object| {
                    match object.data.pointer_mut("/status/operationState/phase") {
                        Some(phase) if *phase == "Running" => *phase = json!("Terminating"),
                        _ => return false,
                    }
                    true
                });
                if changed.await.is_some() {
                    self.excuse(spot, index);
                }
            }
        }
    }

    /// Changes what belongs to the other side.
    async fn meddle(&mut self, spot: &Spot, index: usize) {
        let field = spot.kind.content_field();
        match self.rng.u8(0..8) {
            0..3 => {
                let wanted = match spot.kind {
                    Kind::AppProject => self.project(spot),
                    Kind::Repository => self.repository(spot),
                    _ => self.application(spot),
                };
                let content = wanted.field(field).cloned();
                self.change(spot, "meddles with the content of", false, |object| {
                    object.set_field(field, content.clone());
                    object.source_uid().is_some()
                })
                .await;
            }
            3 => {
                self.change(spot, "meddles with the labels of", false, |object| {
                    object.metadata.labels = Some([("meddled".to_owned(), "yes".to_owned())].into());
                    object.source_uid().is_some()
                })
                .await;
            }
            4 => {
                self.change(spot, "meddles with the annotations of", false, |object| {
                    object.annotate("note", "meddled");
                    object.source_uid().is_some()
                })
                .await;
            }
            5 => self.scribble_status(spot).await,
            _ => {
                self.excuse(spot, index);
                self.delete(spot, false).await;
            }
        }
    }

    async fn scribble_status(&mut self, spot: &Spot) {
        if let (Kind::Application, Place::Control) = (spot.kind, self.place) {
            self.change(spot, "scribbles the status of", false, |object| {
                object.set_field("status", Some(json!({"sync": {"revision": "scribble"}})));
                true
            })
            .await;
        }
    }

    fn excuse(&self, spot: &Spot, index: usize) {
        if spot.kind == Kind::Application {
            self.world.ledger.lock().excuse(index, &spot.name);
        }
    }

    fn key(spot: &Spot) -> ResourceKey {
        ResourceKey::new(spot.kind, spot.namespace.as_str(), spot.name.as_str())
    }

    fn note(&self, what: &str, spot: &Spot, object: Option<&Object>) {
        let uid = object.map(|object| short(object.uid()).to_owned()).unwrap_or_default();
        self.world.journal.note(&self.name, format_args!("{what} {} {uid}", Self::key(spot)));
    }

    fn declare(&self, spot: &Spot, object: &Object) {
        // What is already on its way out is not declared any more.
        if object.is_deleting() {
            return;
        }
        let declared = Declared::of(spot.kind, object);
        self.world.ledger.lock().declared.insert((self.place, Self::key(spot)), declared);
    }

    /// Changes something that is there, if `change` says so. `own` tells that it is one's own.
    async fn change(
        &self,
        spot: &Spot,
        what: &str,
        own: bool,
        change: impl Fn(&mut Object) -> bool,
    ) -> Option<Object> {
        let api = self.world.site(self.place)?.api(spot.kind, &spot.namespace);
        loop {
            let before = api.get_opt(&spot.name).await.ok().flatten()?;
            let mut after = before.clone();
            if !change(&mut after) || after == before {
                return None;
            }
            match api.replace(&spot.name, &PostParams::default(), &after).await {
                Ok(written) => {
                    self.note(what, spot, Some(&written));
                    if own {
                        self.declare(spot, &written);
                    }
                    return Some(written);
                }
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => {
                    self.note(&format!("{what}, in vain ({error}),"), spot, None);
                    return None;
                }
            }
        }
    }

    async fn create(&self, spot: &Spot, object: Object, own: bool) {
        let Some(site) = self.world.site(self.place) else { return };
        match site.api(spot.kind, &spot.namespace).create(&PostParams::default(), &object).await {
            Ok(written) => {
                self.note("creates", spot, Some(&written));
                if own {
                    self.declare(spot, &written);
                }
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => self.note(&format!("creates, in vain ({error}),"), spot, None),
        }
    }

    async fn delete(&self, spot: &Spot, own: bool) {
        let Some(site) = self.world.site(self.place) else { return };
        let api = site.api(spot.kind, &spot.namespace);
        if let Ok(Some(object)) = api.get_opt(&spot.name).await {
            self.world.ledger.lock().deleted_by_users.insert(object.uid().to_owned());
        }
        match api.delete(&spot.name, &DeleteParams::default()).await {
            Ok(_) => {
                self.note("deletes", spot, None);
                if own {
                    self.world.ledger.lock().declared.remove(&(self.place, Self::key(spot)));
                }
            }
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => self.note(&format!("deletes, in vain ({error}),"), spot, None),
        }
    }
}

fn ownership_phase(object: &Object) -> Option<&str> {
    object.at(&["status", "operationState", "phase"]).and_then(Value::as_str)
}
