//! What the control plane sends, as it is to be in this cluster. Pure.

use serde_json::{Value, json};
use tiphys_shared::kube::kinds::api_resource;
use tiphys_shared::model::argocd::{IN_CLUSTER, annotation};
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{Kind, Object};
use tiphys_shared::protocol::ownership;
use tiphys_shared::protocol::resync::digest::{self, Scope};

/// An object from the control plane as it is to be in this cluster, sealed. `remapped` says that its namespace is another
/// one here although namespaces are kept.
pub(crate) fn localise(
    kind: Kind,
    incoming: &Object,
    namespace: &str,
    principal_uid: Option<&str>,
    remapped: bool,
) -> Object {
    let mut local = Object::new(incoming.name(), &api_resource(kind));
    local.metadata.namespace = Some(namespace.to_owned());
    local.metadata.labels = incoming.metadata.labels.clone();
    local.metadata.finalizers = incoming.metadata.finalizers.clone();
    local.metadata.annotations = Some(ownership::followed_annotations(incoming));
    local.annotate(annotation::SOURCE_UID, incoming.origin().0);
    if let Some(uid) = principal_uid.filter(|uid| !uid.is_empty()) {
        local.annotate(annotation::PRINCIPAL_UID, uid);
    }
    if remapped {
        local.annotate(annotation::NAMESPACE_REMAPPED, "true");
    }
    local.set_field(kind.content_field(), incoming.field(kind.content_field()).cloned());
    match kind {
        Kind::Application => {
            if let Some(Value::Object(destination)) = local.data.pointer_mut("/spec/destination") {
                destination.insert("name".to_owned(), json!(IN_CLUSTER));
                destination.remove("server");
            }
        }
        Kind::Repository => local.set_field("type", incoming.field("type").cloned()),
        Kind::AppProject | Kind::GpgKey => {}
    }
    let owner = digest::digest(kind, Scope::Spec, incoming);
    digest::seal(kind, Scope::Spec, &mut local, owner);
    local
}

#[cfg(test)]
mod tests;
