//! Compares what is there with what must be.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::api::ListParams;
use serde_json::Value;
use tiphys_shared::model::argocd::annotation;
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{Kind, Mode, Object};

use super::ledger::{Content, Ledger, Operation, Owned, Place};
use super::realm::{KINDS, Realm};
use super::users::{LABEL, NOTE};

/// What is wrong, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What an owner said and does not stand.
    pub lost: Vec<String>,
    /// What was done more often than it was asked for.
    pub duplicated: Vec<String>,
    /// What is there and belongs to nobody.
    pub orphaned: Vec<String>,
}

impl Verdict {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.all().next().is_none()
    }

    /// Everything that is wrong.
    pub fn all(&self) -> impl Iterator<Item = String> {
        let lists = [("lost", &self.lost), ("duplicated", &self.duplicated), ("orphaned", &self.orphaned)];
        lists.into_iter().flat_map(|(what, list)| list.iter().map(move |text| format!("{what}: {text}")))
    }
}

/// Looks at all API servers.
///
/// # Errors
/// If one of them, reached directly, fails.
pub async fn look(realms: &[Arc<Realm>], ledger: &Ledger) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict::default();
    for realm in realms {
        for kind in KINDS {
            let owners = list(realm, kind, true).await?;
            let holders = list(realm, kind, false).await?;
            judge(realm, kind, &ledger.snapshot(), &owners, &holders, &mut verdict);
        }
    }
    judge_operations(&ledger.snapshot(), &mut verdict);
    Ok(verdict)
}

type Objects = BTreeMap<String, Object>;

async fn list(realm: &Realm, kind: Kind, at_owner: bool) -> anyhow::Result<Objects> {
    let api = if at_owner { realm.at_owner(kind) } else { realm.at_holder(kind) };
    let objects = api.list(&ListParams::default()).await?.items;
    let mine = objects.into_iter().filter(|object| realm.is_of_realm(kind, object.name(), at_owner));
    Ok(mine.map(|object| (object.name().to_owned(), object)).collect())
}

fn judge(
    realm: &Realm,
    kind: Kind,
    ledger: &Content,
    owners: &Objects,
    holders: &Objects,
    verdict: &mut Verdict,
) {
    let place = |name: &str| Place { agent: realm.agent.clone(), kind, name: name.to_owned() };
    for (place, owned) in &ledger.owned {
        if place.agent != realm.agent || place.kind != kind {
            continue;
        }
        let there = owners.get(&place.name);
        match (&owned.life, there) {
            (None, None) => {}
            (None, Some(_)) => verdict.orphaned.push(format!("{place} was deleted and is at its owner's")),
            (Some(life), Some(there)) if there.uid() == life && !there.is_deleting() => {
                let held = holders.get(&realm.held_name(kind, &place.name));
                for what in differences(realm, kind, owned, there, held) {
                    verdict.lost.push(format!("{place}: {what}"));
                }
            }
            (Some(_), _) => verdict.lost.push(format!("{place} is gone, or another one, at its owner's")),
        }
    }
    for name in owners.keys() {
        if !ledger.owned.contains_key(&place(name)) {
            verdict.orphaned.push(format!("{} is at its owner's, and no user made it", place(name)));
        }
    }
    let names: BTreeMap<String, &String> =
        owners.keys().map(|name| (realm.held_name(kind, name), name)).collect();
    for name in holders.keys().filter(|name| !names.contains_key(*name)) {
        verdict.orphaned.push(format!("{} as {name} has no owner", place(name)));
    }
}

/// What of the owner's word does not stand.
fn differences(
    realm: &Realm,
    kind: Kind,
    owned: &Owned,
    there: &Object,
    held: Option<&Object>,
) -> Vec<String> {
    let mut found = Vec::new();
    let mut same = |what: &str, is: Option<&Value>, is_to_be: Option<&Value>| {
        if is != is_to_be {
            found.push(format!("{what} is {} instead of {}", text(is), text(is_to_be)));
        }
    };
    let value = |text: Option<&str>| text.map(|text| Value::String(text.to_owned()));
    let content = |object: &Object| match kind {
        Kind::Application => object.at(&["spec", "source", "targetRevision"]).cloned(),
        _ => object.at(&["spec", "description"]).cloned(),
    };
    let (to_be, label, note) =
        (value(Some(&owned.content)), value(Some(&owned.label)), value(Some(&owned.note)));
    for (where_, object) in [("the owner's", Some(there)), ("the holder's", held)] {
        let Some(object) = object else {
            found.push("there is no copy".to_owned());
            return found;
        };
        same(&format!("content at {where_}"), content(object).as_ref(), to_be.as_ref());
        same(&format!("label at {where_}"), value(object.label(LABEL)).as_ref(), label.as_ref());
        same(&format!("note at {where_}"), value(object.annotation(NOTE)).as_ref(), note.as_ref());
        same(&format!("operation at {where_}"), object.field("operation"), None);
        same(&format!("refresh at {where_}"), value(object.annotation(annotation::REFRESH)).as_ref(), None);
    }
    let Some(held) = held else { return found };
    let life = value(held.source_uid().as_ref().map(|life| life.0.as_str()));
    same("life of the copy", life.as_ref(), value(owned.life.as_deref()).as_ref());
    if kind == Kind::Application {
        same("status of the copy", held.field("status"), there.field("status"));
        same("spec of the copy", Some(&comparable(realm, held)), Some(&comparable(realm, there)));
    }
    if held.is_deleting() {
        found.push("the copy is being deleted".to_owned());
    }
    found
}

/// The part of a spec that is the same on both sides.
fn comparable(realm: &Realm, object: &Object) -> Value {
    let mut spec = object.field("spec").cloned().unwrap_or_default();
    if let Value::Object(fields) = &mut spec {
        fields.remove("destination");
        if realm.mode == Mode::Autonomous {
            fields.remove("project");
        }
    }
    spec
}

fn text(value: Option<&Value>) -> String {
    value.map_or_else(|| "nothing".to_owned(), ToString::to_string)
}

fn judge_operations(ledger: &Content, verdict: &mut Verdict) {
    for (content, operation) in &ledger.operations {
        let Operation { place, life, started, finished, disturbed, deletions } = operation;
        if *started > 1 + deletions {
            verdict
                .duplicated
                .push(format!("{content} of {place}, life {life}, was started {started} times"));
        }
        let lives = ledger.owned.get(place).is_some_and(|owned| owned.life.as_ref() == Some(life));
        if lives && !disturbed && !finished {
            verdict.lost.push(format!(
                "{content} of {place}, life {life}, was started {started} times and not finished"
            ));
        }
    }
    for content in &ledger.unknown {
        verdict.duplicated.push(format!("{content} was started, and nobody had asked for it"));
    }
}

#[cfg(test)]
mod tests;
