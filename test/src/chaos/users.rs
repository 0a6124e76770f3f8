//! Users, who do at random what users do, right or wrong.

use std::sync::Arc;
use std::time::Duration;

use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tiphys_shared::model::argocd::annotation;
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{Kind, Mode, Object};
use tokio::time::Instant;

use super::controller::FINALIZER;
use super::ledger::{Ledger, Owned, Place};
use super::realm::Realm;

/// Applications and projects of each realm.
const APPLICATIONS: usize = 12;
const PROJECTS: usize = 4;
/// The label and annotation that the owner's users write.
pub const LABEL: &str = "team";
/// See [`LABEL`].
pub const NOTE: &str = "example.com/note";

/// Acts until then. Of all users of a realm each keeps to names of its own, so that it knows what it left there.
///
/// # Errors
/// If an API server, which is reached directly, fails.
pub async fn act(
    realm: Arc<Realm>,
    ledger: Arc<Ledger>,
    mut rng: fastrand::Rng,
    user: usize,
    users: usize,
    until: Instant,
) -> anyhow::Result<()> {
    while Instant::now() < until {
        let (kind, count) =
            if rng.u8(..8) == 0 { (Kind::AppProject, PROJECTS) } else { (Kind::Application, APPLICATIONS) };
        let number = rng.usize(..count / users) * users + user;
        let place = Place { agent: realm.agent.clone(), kind, name: realm.name(kind, number) };
        let user = User { realm: &realm, ledger: &ledger, place };
        user.something(&mut rng).await?;
        // Sometimes much at once.
        let pause = if rng.u8(..4) == 0 { 0 } else { rng.u64(20..500) };
        tokio::time::sleep_until(until.min(Instant::now() + Duration::from_millis(pause))).await;
    }
    Ok(())
}

struct User<'a> {
    realm: &'a Realm,
    ledger: &'a Ledger,
    place: Place,
}

/// Nothing, where the API server says that it is not there or has changed: then it was not done.
fn done<T>(result: kube::Result<T>) -> anyhow::Result<Option<T>> {
    match result {
        Ok(done) => Ok(Some(done)),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl User<'_> {
    fn owners(&self) -> Api<Object> {
        self.realm.at_owner(self.place.kind)
    }

    fn holders(&self) -> Api<Object> {
        self.realm.at_holder(self.place.kind)
    }

    fn held_name(&self) -> String {
        self.realm.held_name(self.place.kind, &self.place.name)
    }

    async fn something(&self, rng: &mut fastrand::Rng) -> anyhow::Result<()> {
        let is_there = self.ledger.owned(&self.place).life.is_some();
        let is_application = self.place.kind == Kind::Application;
        match rng.u8(..100) {
            0..50 if !is_there => self.create(rng).await,
            0..34 => self.edit(rng).await,
            34..40 => self.delete().await,
            40..46 => {
                self.delete().await?;
                self.create(rng).await
            }
            46..72 if is_application => self.operate(rng).await,
            72..78 if is_application => self.refresh(rng).await,
            78..92 => self.edit_wrongly(rng).await,
            92..98 => self.delete_wrongly().await,
            _ => Ok(()),
        }
    }

    async fn create(&self, rng: &mut fastrand::Rng) -> anyhow::Result<()> {
        let mut owned = Owned {
            life: None,
            content: self.ledger.unique("created"),
            label: self.ledger.unique("label"),
            note: self.ledger.unique("note"),
        };
        let mut object =
            Object::new(&self.place.name, &tiphys_shared::kube::kinds::api_resource(self.place.kind));
        object.metadata.labels = Some([(LABEL.to_owned(), owned.label.clone())].into());
        object.metadata.annotations = Some([(NOTE.to_owned(), owned.note.clone())].into());
        if self.place.kind == Kind::Application && rng.u8(..3) == 0 {
            object.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
        }
        object.data = json!({"spec": self.spec(&owned.content)});
        if let Some(created) = done(self.owners().create(&PostParams::default(), &object).await)? {
            owned.life = Some(created.uid().to_owned());
            self.ledger.own(&self.place, owned);
        }
        Ok(())
    }

    fn spec(&self, content: &str) -> Value {
        let agent = &self.place.agent;
        match self.place.kind {
            Kind::Application => json!({
                "project": "default",
                "source": {"repoURL": "https://git.invalid/app.git", "path": "deploy", "targetRevision": content},
                "destination": {"name": agent, "namespace": "guests"},
            }),
            _ => json!({
                "description": content,
                "sourceRepos": ["*"],
                "sourceNamespaces": [agent],
                "destinations": [{"name": agent, "server": "*", "namespace": "*"}],
            }),
        }
    }

    /// What makes `content` an object's.
    fn with_content(&self, content: &str) -> Value {
        match self.place.kind {
            Kind::Application => json!({"spec": {"source": {"targetRevision": content}}}),
            _ => json!({"spec": {"description": content}}),
        }
    }

    async fn edit(&self, rng: &mut fastrand::Rng) -> anyhow::Result<()> {
        let mut owned = self.ledger.owned(&self.place);
        let patch = match rng.u8(..5) {
            0 => {
                owned.label = self.ledger.unique("label");
                json!({"metadata": {"labels": {LABEL: owned.label}}})
            }
            1 => {
                owned.note = self.ledger.unique("note");
                json!({"metadata": {"annotations": {NOTE: owned.note}}})
            }
            _ => {
                owned.content = self.ledger.unique("edited");
                self.with_content(&owned.content)
            }
        };
        if self.merge(&self.owners(), &self.place.name, patch).await?.is_some() {
            self.ledger.own(&self.place, owned);
        }
        Ok(())
    }

    async fn merge(&self, api: &Api<Object>, name: &str, patch: Value) -> anyhow::Result<Option<Object>> {
        done(api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await)
    }

    async fn delete(&self) -> anyhow::Result<()> {
        if done(self.owners().delete(&self.place.name, &DeleteParams::background()).await)?.is_some() {
            let owned = self.ledger.owned(&self.place);
            self.ledger.own(&self.place, Owned { life: None, ..owned });
        }
        Ok(())
    }

    /// Asks for an operation where users of Argo CD do: at the control plane, or at an autonomous cluster itself.
    async fn operate(&self, rng: &mut fastrand::Rng) -> anyhow::Result<()> {
        let at_owner = self.realm.mode == Mode::Managed || rng.u8(..3) == 0;
        let (api, name) = if at_owner {
            (self.owners(), self.place.name.clone())
        } else {
            (self.holders(), self.held_name())
        };
        let Some(seen) = api.get_opt(&name).await? else { return Ok(()) };
        let life = if at_owner {
            seen.uid().to_owned()
        } else {
            seen.source_uid().map(|life| life.0).unwrap_or_default()
        };
        let owned = self.ledger.owned(&self.place);
        if seen.is_deleting() || owned.life.as_ref() != Some(&life) || self.ledger.is_busy(&self.place, &life)
        {
            return Ok(());
        }
        let content = self.ledger.unique("operation");
        // Before it is done: the cluster may be quick.
        self.ledger.ask(&content, &self.place, &life);
        let patch = json!({
            "metadata": {"uid": seen.uid()},
            "operation": {"sync": {"revision": content}, "initiatedBy": {"username": "chaos"}},
        });
        match self.merge(&api, &name, patch).await {
            Ok(Some(_)) => Ok(()),
            not_done => {
                self.ledger.take_back(&content);
                not_done.map(|_| ())
            }
        }
    }

    async fn refresh(&self, rng: &mut fastrand::Rng) -> anyhow::Result<()> {
        let how = if rng.bool() { "hard" } else { "normal" };
        let patch = json!({"metadata": {"annotations": {annotation::REFRESH: how}}});
        let api = self.realm.at_control(Kind::Application);
        if self.merge(&api, &self.place.name, patch).await?.is_some() {
            self.ledger.note_meddling();
        }
        Ok(())
    }

    /// Edits what is not the editor's: it must be undone.
    async fn edit_wrongly(&self, rng: &mut fastrand::Rng) -> anyhow::Result<()> {
        let content = self.ledger.unique("wrong");
        let managed_application = self.realm.mode == Mode::Managed && self.place.kind == Kind::Application;
        let patch = match rng.u8(..6) {
            0 => json!({"metadata": {"labels": {LABEL: content}}}),
            1 => json!({"metadata": {"labels": {LABEL: null}, "annotations": {NOTE: null}}}),
            // How things stand is the cluster's, wherever the rest belongs.
            2 if managed_application => {
                let patch = json!({"status": {"health": {"status": "Missing", "message": content}}});
                if self.merge(&self.owners(), &self.place.name, patch).await?.is_some() {
                    self.ledger.note_meddling();
                }
                return Ok(());
            }
            _ => self.with_content(&content),
        };
        if self.merge(&self.holders(), &self.held_name(), patch).await?.is_some() {
            self.ledger.note_meddling();
        }
        Ok(())
    }

    /// Deletes what is not the deleter's: it must come back.
    async fn delete_wrongly(&self) -> anyhow::Result<()> {
        // Before it is done: whoever asks for an operation meanwhile asks in vain.
        self.ledger.disturb(&self.place);
        if done(self.holders().delete(&self.held_name(), &DeleteParams::background()).await)?.is_some() {
            self.ledger.note_meddling();
        }
        Ok(())
    }
}
