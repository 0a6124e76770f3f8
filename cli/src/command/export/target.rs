//! The cluster that gets everything: looked at first, and changed only after all that can be known has been said.

use std::fmt;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::discovery::{ApiResource, Scope};
use kube::{Api, Client};

use super::objects::{self, Stage};
use super::outcome::{Outcome, compare};
use super::{Decision, Found};
use crate::failure::Failure;
use crate::output;

/// In whose name objects are applied.
const MANAGER: &str = "tiphys-export";
/// How long definitions may take to be served.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many objects are looked at at a time.
const AT_ONCE: usize = 8;

/// A cluster, reached.
pub(super) struct Target {
    pub(super) client: Client,
    /// Its API server's URL.
    pub(super) server: String,
}

/// An object that goes there.
struct Item<'a> {
    stage: Stage,
    resource: &'a ApiResource,
    scope: &'a Scope,
    object: &'a DynamicObject,
    /// Whether its kind or its namespace comes with it.
    follows: bool,
    verdict: Verdict,
}

/// What looking at an object has brought.
enum Verdict {
    /// What becomes of it, and the version of what is there.
    Known(Outcome, Option<String>),
    /// It cannot be tried before its kind or its namespace is there. So it is not there itself.
    Later,
    /// The cluster does not take it.
    Refused(kube::Error),
}

impl fmt::Display for Item<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let namespace = self.object.metadata.namespace.as_deref();
        let place = namespace.map(|namespace| format!("{namespace}/")).unwrap_or_default();
        write!(f, "{} {place}{}", self.resource.kind, self.name())
    }
}

impl Item<'_> {
    fn name(&self) -> &str {
        self.object.metadata.name.as_deref().unwrap_or_default()
    }

    fn is_new(&self) -> bool {
        matches!(self.verdict, Verdict::Known(Outcome::New, _) | Verdict::Later)
    }

    fn api(&self, target: &Target) -> Api<DynamicObject> {
        match (self.object.metadata.namespace.as_deref(), self.scope) {
            (Some(namespace), Scope::Namespaced) => {
                Api::namespaced_with(target.client.clone(), namespace, self.resource)
            }
            _ => Api::all_with(target.client.clone(), self.resource),
        }
    }

    /// Finds out what applying it would come to, without effect.
    async fn look(&self, target: &Target, may_follow: bool) -> Verdict {
        let api = self.api(target);
        let there = match api.get(self.name()).await {
            Ok(there) => Some(there),
            // A server that does not know the kind says so in a text.
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            Err(error) => return Verdict::Refused(error),
        };
        let parameters = PatchParams::apply(MANAGER).force().dry_run();
        match api.patch(self.name(), &parameters, &Patch::Apply(self.object)).await {
            Ok(then) => {
                let version = there.as_ref().and_then(|there| there.metadata.resource_version.clone());
                Verdict::Known(compare(there.as_ref(), &then), version)
            }
            // An object that is not there is no obstacle to applying it: the kind or the namespace is not there.
            Err(kube::Error::Api(status)) if status.code == 404 && may_follow && self.follows => {
                Verdict::Later
            }
            Err(error) => Verdict::Refused(error),
        }
    }

    /// Applies it, if what was seen is still there.
    async fn apply(&self, target: &Target) -> Result<(), Failure> {
        let version = match &self.verdict {
            Verdict::Known(Outcome::Same, _) => return Ok(()),
            Verdict::Known(_, version) => version.clone(),
            Verdict::Later | Verdict::Refused(_) => None,
        };
        let mut object = self.object.clone();
        object.metadata.resource_version = version;
        let api = self.api(target);
        let parameters = PatchParams::apply(MANAGER).force();
        let applied = api.patch(self.name(), &parameters, &Patch::Apply(&object)).await;
        applied.map_err(|error| {
            Failure::because(&format!("cannot apply {self}"), &error)
                .remedy("mend what the cluster says, and run it again: what is there already is no obstacle")
        })?;
        if self.stage == Stage::Definition { served(&api, self.name()).await } else { Ok(()) }
    }
}

/// Moves everything, after it has been looked at.
///
/// # Errors
/// An object is refused, a private key would be another one, or nobody agrees to a change: then nothing has been changed, but
/// for definitions and namespaces that had to be there before the rest could be looked at.
pub(super) async fn apply(target: &Target, found: &[Found], decision: Decision) -> Result<(), Failure> {
    let mut items = items(found);
    look(target, &mut items, true).await;
    for item in items.iter().filter(|item| item.is_new()) {
        output::say(&format!("would create {item}"));
    }
    let summary = judge(target, &items, decision, "nothing was changed")?;
    if decision.dry_run {
        output::say(&format!("nothing was changed at {}: {summary}", target.server));
        return Ok(());
    }
    let changes = changed(&items);
    if changes > 0 {
        let what = format!("this changes {changes} objects that are at {} already", target.server);
        decision.consent.obtain(&what).await?;
    }
    let total = items.len();
    let (first, rest): (Vec<_>, Vec<_>) = items.into_iter().partition(|item| item.stage < Stage::Declared);
    write(target, &first, 0, total).await?;
    let (mut later, known): (Vec<_>, Vec<_>) =
        rest.into_iter().partition(|item| matches!(item.verdict, Verdict::Later));
    look(target, &mut later, false).await;
    let state = "definitions and namespaces are there now, and nothing else was changed";
    judge(target, &later, decision, state)?;
    let surprises = changed(&later);
    if surprises > 0 && !decision.consent.yes {
        return Err(Failure::new(format!("{surprises} objects have come to be there meanwhile; {state}"))
            .remedy("run it again, which asks about them"));
    }
    let mut rest: Vec<_> = known.into_iter().chain(later).collect();
    rest.sort_by_key(|item| item.stage);
    write(target, &rest, first.len(), total).await?;
    output::say(&format!("{total} objects applied to {}: {summary}", target.server));
    Ok(())
}

fn items(found: &[Found]) -> Vec<Item<'_>> {
    let of_stage =
        |stage: Stage| found.iter().filter(move |kind| kind.stage == stage).flat_map(|kind| &kind.objects);
    let defines = |resource: &ApiResource| {
        of_stage(Stage::Definition).any(|definition| {
            let spec = &definition.data["spec"];
            spec["group"] == *resource.group && spec["names"]["plural"] == *resource.plural
        })
    };
    let brings = |namespace: Option<&String>| {
        namespace.is_some() && of_stage(Stage::Namespace).any(|one| one.metadata.name.as_ref() == namespace)
    };
    let mut items = Vec::new();
    for Found { stage, resource, capabilities, objects } in found {
        let is_defined = defines(resource);
        items.extend(objects.iter().map(|object| Item {
            stage: *stage,
            resource,
            scope: &capabilities.scope,
            object,
            follows: is_defined || brings(object.metadata.namespace.as_ref()),
            verdict: Verdict::Later,
        }));
    }
    items
}

async fn look(target: &Target, items: &mut [Item<'_>], may_follow: bool) {
    let looks = items.iter().map(|item| item.look(target, may_follow));
    let verdicts: Vec<Verdict> = stream::iter(looks).buffered(AT_ONCE).collect().await;
    for (item, verdict) in items.iter_mut().zip(verdicts) {
        item.verdict = verdict;
    }
}

/// Tells what would change, and ends it where that must not be. Returns what would be done in numbers.
fn judge(target: &Target, items: &[Item<'_>], decision: Decision, state: &str) -> Result<String, Failure> {
    let (mut refused, mut keys) = (0, Vec::new());
    for item in items {
        match &item.verdict {
            Verdict::Known(Outcome::New | Outcome::Same, _) | Verdict::Later => {}
            Verdict::Known(Outcome::Changed { keys: others }, _) => {
                output::say(&format!("would change {item}"));
                if !others.is_empty() {
                    keys.push(format!("{item} ({})", others.join(", ")));
                }
            }
            Verdict::Refused(error) => {
                refused += 1;
                output::say(&Failure::because(&format!("cannot apply {item}"), error).what());
            }
        }
    }
    let server = &target.server;
    if refused > 0 {
        return Err(Failure::new(format!("{server} refuses {refused} of {} objects; {state}", items.len()))
            .remedy("mend what the cluster says, and run it again: what is there already is no obstacle"));
    }
    if !keys.is_empty() && !decision.replace_keys {
        return Err(Failure::new(format!(
            "{server} has private keys of its own, which would be replaced: {}; {state}",
            keys.join("; ")
        ))
        .remedy(
            "name another cluster with --kubecontext; or give --replace-keys, if nobody who relies on those keys is to \
             be served any more",
        ));
    }
    let (new, changed) = (items.iter().filter(|item| item.is_new()).count(), changed(items));
    Ok(format!("{new} new, {changed} changed, {} the same", items.len() - new - changed))
}

/// How many objects are there and would change.
fn changed(items: &[Item<'_>]) -> usize {
    let changes = |item: &&Item<'_>| matches!(item.verdict, Verdict::Known(Outcome::Changed { .. }, _));
    items.iter().filter(changes).count()
}

async fn write(target: &Target, items: &[Item<'_>], before: usize, total: usize) -> Result<(), Failure> {
    for (done, item) in items.iter().enumerate() {
        item.apply(target).await.map_err(|failure| {
            failure.after(&format!("{} of {total} objects were applied", before + done))
        })?;
    }
    Ok(())
}

/// Waits until a definition is served.
async fn served(definitions: &Api<DynamicObject>, name: &str) -> Result<(), Failure> {
    let established =
        kube::runtime::wait::await_condition(definitions.clone(), name, |object: Option<&DynamicObject>| {
            object.is_some_and(objects::is_established)
        });
    match tokio::time::timeout(PATIENCE, established).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(Failure::because(&format!("cannot watch definition {name}"), &error)),
        Err(_) => Err(Failure::new(format!("the cluster does not serve {name}"))
            .remedy(format!("see why with kubectl describe crd {name}, and run it again"))),
    }
}
