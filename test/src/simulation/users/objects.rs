//! What people create.

use serde_json::{Value, json};
use tiphys_shared::kube::kinds::api_resource;
use tiphys_shared::model::Object;

use super::{Person, Spot};

const FINALIZER: &str = "resources-finalizer.argocd.argoproj.io";

impl Person {
    pub(super) fn application(&mut self, spot: &Spot) -> Object {
        let revision = format!("r{}", self.world.ledger.lock().next());
        let mut object = Object::new(&spot.name, &api_resource(spot.kind));
        if self.rng.u8(0..3) == 0 {
            object.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
        }
        if self.rng.bool() {
            object.metadata.labels = Some([("team".to_owned(), revision.clone())].into());
        }
        let destination = if self.rng.bool() {
            json!({"name": "somewhere", "namespace": "guestbook"})
        } else {
            json!({"server": "https://somewhere.example", "namespace": "guestbook"})
        };
        let project = self.rng.choice(super::PROJECTS).unwrap_or("default");
        object.data = json!({"spec": {
            "project": project,
            "source": {"repoURL": "https://git.example/app.git", "targetRevision": revision},
            "destination": destination,
        }});
        object
    }

    pub(super) fn project(&mut self, spot: &Spot) -> Object {
        let mut object = Object::new(&spot.name, &api_resource(spot.kind));
        let destinations: Vec<Value> = (0..self.rng.usize(1..4))
            .map(|_| {
                let name = self.rng.choice(["edge", "edge-two", "far", "*", "edge*", "!edge", "elsewhere"]);
                json!({"name": name.unwrap_or("*"), "namespace": format!("ns{}", self.rng.u8(..))})
            })
            .collect();
        let sources = self.rng.choice([&["*"][..], &["edge", "far"], &["edge-*"], &[]]).unwrap_or(&["*"]);
        let line = format!("p, proj:{0}:reader, applications, get, {0}/*, allow", spot.name);
        object.data = json!({"spec": {
            "description": format!("d{}", self.world.ledger.lock().next()),
            "destinations": destinations,
            "sourceNamespaces": sources,
            "sourceRepos": ["*"],
            "roles": [{"name": "reader", "policies": [line]}],
        }});
        object
    }

    pub(super) fn repository(&mut self, spot: &Spot) -> Object {
        use base64::Engine as _;

        let mut object = Object::new(&spot.name, &api_resource(spot.kind));
        object.metadata.labels =
            Some([("argocd.argoproj.io/secret-type".to_owned(), "repository".to_owned())].into());
        let encoded = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let project = self.rng.choice(super::PROJECTS).unwrap_or("default");
        let url = format!("https://git.example/{}", self.world.ledger.lock().next());
        object.data = json!({"data": {"project": encoded(project), "url": encoded(&url)}, "type": "Opaque"});
        object
    }
}
