//! Reading: get, list and the beginning of a watch.

use super::present::{Form, Presenter};
use super::request::Query;
use crate::Inner;
use crate::resource::Resource;
use crate::selector::Filter;
use crate::status::{Failure, cause};
use crate::store::{Key, OutOfRange, Stored};
use crate::watch::Watch;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long a watch lasts for which the client sets no time: half an hour and up to as much again.
const WATCH_AT_LEAST: u64 = 1800;

/// Where to look: a namespace of a resource, or all of it.
pub(crate) struct Scope<'a> {
    pub(crate) server: &'a Arc<Inner>,
    pub(crate) resource: &'a Arc<Resource>,
    /// Empty: all namespaces, or a cluster-wide kind.
    pub(crate) namespace: &'a str,
}

impl Scope<'_> {
    /// What the paths of all objects in it start with.
    pub(crate) fn prefix(&self) -> String {
        if self.namespace.is_empty() {
            format!("{}/", self.resource.storage)
        } else {
            format!("{}/{}/", self.resource.storage, self.namespace)
        }
    }

    fn filter(&self, query: &Query) -> Result<Filter, Failure> {
        Filter::parse(self.resource, query.get("labelSelector"), query.get("fieldSelector"))
    }

    fn presenter(&self, form: Form) -> Presenter {
        Presenter::new(self.resource.clone(), form, self.server.now().as_second())
    }
}

/// GET of one object.
pub(crate) fn get(scope: &Scope<'_>, name: &str, query: &Query, form: Form) -> Result<Vec<u8>, Failure> {
    if let Some(asked) = revision(query)?
        && asked > scope.server.store.revision()
    {
        return Err(Failure::too_large_revision(asked, scope.server.store.revision()));
    }
    let key = Key::new(&scope.resource.storage, scope.namespace, name);
    let stored = scope
        .server
        .store
        .read(&key)
        .ok_or_else(|| Failure::not_found(&scope.resource.group, &scope.resource.plural, name))?;
    Ok(scope.presenter(form).object(&stored.content, Some(stored.revision)))
}

/// The revision in a query; `None` if there is none, or 0, which means "any".
fn revision(query: &Query) -> Result<Option<u64>, Failure> {
    match query.get("resourceVersion") {
        "" => Ok(None),
        text => match text.parse::<u64>() {
            Ok(0) => Ok(None),
            Ok(revision) => Ok(Some(revision)),
            Err(_) => Err(Failure::bad_request(format!("invalid resource version: {}", unparsable(text)))),
        },
    }
}

fn unparsable(text: &str) -> String {
    format!("resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax")
}

/// How far a paged list has come. Revision 0: go on with whatever there is now.
#[derive(Serialize, Deserialize)]
struct Continue {
    v: String,
    rv: u64,
    start: String,
}

impl Continue {
    fn new(revision: u64, start: &str) -> Self {
        Self { v: "tiphys/v1".into(), rv: revision, start: start.into() }
    }

    fn token(&self) -> String {
        URL_SAFE_NO_PAD.encode(json!(self).to_string())
    }

    fn parse(token: &str) -> Result<Self, Failure> {
        let read = || {
            let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
            serde_json::from_slice::<Self>(&bytes).ok().filter(|c| c.v == "tiphys/v1")
        };
        read().ok_or_else(|| Failure::bad_request("invalid continue token: continue key is not valid"))
    }
}

/// The list of what is there, as selected, and where the next page starts.
pub(crate) struct Page {
    pub(crate) revision: u64,
    pub(crate) items: Vec<Arc<Stored>>,
    next: Option<String>,
    remaining: Option<usize>,
}

impl Page {
    fn metadata(&self) -> Value {
        let mut metadata = Map::new();
        metadata.insert("resourceVersion".into(), self.revision.to_string().into());
        if let Some(next) = &self.next {
            metadata.insert("continue".into(), next.clone().into());
        }
        if let Some(remaining) = self.remaining {
            metadata.insert("remainingItemCount".into(), remaining.into());
        }
        Value::Object(metadata)
    }
}

/// Reads a page.
pub(crate) fn page(scope: &Scope<'_>, query: &Query) -> Result<Page, Failure> {
    let filter = scope.filter(query)?;
    let prefix = scope.prefix();
    let limit = match query.get("limit") {
        "" => 0,
        text => {
            let limit = text.parse::<i64>();
            let limit = limit.map_err(|_| {
                Failure::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
            })?;
            usize::try_from(limit).unwrap_or(0)
        }
    };
    // A list from the cache comes whole.
    let limit = if query.get("resourceVersion") == "0" { 0 } else { limit };
    let asked = revision(query)?;
    let current = scope.server.store.revision();
    let (at, start) = match query.get("continue") {
        "" => (exact(query, asked, current)?, None),
        token => {
            if asked.is_some() {
                return Err(Failure::bad_request(
                    "specifying resource version is not allowed when using continue",
                ));
            }
            let token = Continue::parse(token)?;
            if !token.start.starts_with(&prefix) {
                return Err(Failure::bad_request("invalid continue token: it belongs to another list"));
            }
            ((token.rv > 0).then_some(token.rv), Some(token.start))
        }
    };
    let snapshot =
        scope.server.store.snapshot(&scope.resource.storage, at).map_err(|why| match (why, &start) {
            (OutOfRange::Old { .. }, Some(start)) => {
                Failure::continue_expired(Continue::new(0, start).token())
            }
            (OutOfRange::Old { oldest }, None) => Failure::expired(at.unwrap_or_default(), oldest),
            (OutOfRange::Future { current }, _) => {
                Failure::too_large_revision(at.unwrap_or_default(), current)
            }
        })?;
    let mut items = Vec::new();
    let mut matching = snapshot.range(&prefix, start.as_deref()).filter(|stored| filter.matches(stored));
    while limit == 0 || items.len() < limit {
        match matching.next() {
            Some(stored) => items.push(stored.clone()),
            None => break,
        }
    }
    let following = matching.next();
    let next = following.map(|stored| Continue::new(snapshot.revision, stored.key.path()).token());
    let remaining = (following.is_some() && filter.is_empty()).then(|| 1 + matching.count());
    Ok(Page { revision: snapshot.revision, items, next, remaining })
}

/// The revision at which to list, if it must be a certain one.
fn exact(query: &Query, asked: Option<u64>, current: u64) -> Result<Option<u64>, Failure> {
    let forbidden = |why: &str| {
        Err(Failure::invalid(
            "meta.k8s.io",
            "ListOptions",
            "",
            &[cause("resourceVersionMatch", "FieldValueForbidden", format!("Forbidden: {why}"))],
        ))
    };
    match query.get("resourceVersionMatch") {
        "" | "NotOlderThan" if asked.is_some_and(|asked| asked > current) => {
            Err(Failure::too_large_revision(asked.unwrap_or_default(), current))
        }
        "" => Ok(None),
        _ if query.get("resourceVersion").is_empty() => {
            forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided")
        }
        "NotOlderThan" => Ok(None),
        "Exact" if asked.is_none() => {
            forbidden("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"")
        }
        "Exact" => Ok(asked),
        other => Err(Failure::invalid(
            "meta.k8s.io",
            "ListOptions",
            "",
            &[cause(
                "resourceVersionMatch",
                "FieldValueNotSupported",
                format!("Unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\", \"\""),
            )],
        )),
    }
}

/// GET of a collection.
pub(crate) fn list(scope: &Scope<'_>, query: &Query, form: Form) -> Result<Vec<u8>, Failure> {
    let page = page(scope, query)?;
    let items = page.items.iter().map(|stored| (&stored.content, stored.revision));
    Ok(scope.presenter(form).list(page.metadata(), items))
}

/// The objects of a page as a list.
pub(crate) fn shown(scope: &Scope<'_>, page: &Page, form: Form) -> Vec<u8> {
    let items = page.items.iter().map(|stored| (&stored.content, stored.revision));
    scope.presenter(form).list(page.metadata(), items)
}

/// GET of a collection with `watch`.
pub(crate) fn watch(
    scope: &Scope<'_>,
    query: &Query,
    form: Form,
    shutdown: CancellationToken,
) -> Result<Watch, Failure> {
    let filter = scope.filter(query)?;
    let prefix = scope.prefix();
    let bookmarks = query.flag("allowWatchBookmarks").unwrap_or(false);
    let asked = revision(query)?;
    let send_initial = query.flag("sendInitialEvents");
    check_initial(query, send_initial)?;
    let current = scope.server.store.revision();
    if let Some(asked) = asked.filter(|asked| *asked > current) {
        return Err(Failure::too_large_revision(asked, current));
    }
    let with_initial = send_initial.unwrap_or_else(|| asked.is_none());
    let (initial, position) = if with_initial {
        let snapshot = scope
            .server
            .store
            .snapshot(&scope.resource.storage, None)
            .map_err(|_| Failure::internal("the present state is not available"))?;
        let objects: VecDeque<_> =
            snapshot.range(&prefix, None).filter(|stored| filter.matches(stored)).cloned().collect();
        (objects, snapshot.revision)
    } else {
        (VecDeque::new(), asked.unwrap_or(current))
    };
    Ok(Watch {
        server: scope.server.clone(),
        resource: scope.resource.clone(),
        prefix,
        filter,
        initial,
        mark_initial: send_initial == Some(true),
        position,
        bookmarks,
        timeout: timeout(query)?,
        form,
        shutdown,
    })
}

fn check_initial(query: &Query, send_initial: Option<bool>) -> Result<(), Failure> {
    let refuse = |field: &str, why: &str| {
        Err(Failure::invalid(
            "meta.k8s.io",
            "ListOptions",
            "",
            &[cause(field, "FieldValueForbidden", format!("Forbidden: {why}"))],
        ))
    };
    let matching = query.get("resourceVersionMatch");
    match send_initial {
        Some(_) if matching != "NotOlderThan" => refuse(
            "resourceVersionMatch",
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
        None if !matching.is_empty() => {
            let mut causes = vec![cause(
                "resourceVersionMatch",
                "FieldValueForbidden",
                "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            )];
            if matching != "NotOlderThan" {
                causes.push(cause(
                    "resourceVersionMatch",
                    "FieldValueNotSupported",
                    format!("Unsupported value: {matching:?}: supported values: \"NotOlderThan\""),
                ));
            }
            Err(Failure::invalid("meta.k8s.io", "ListOptions", "", &causes))
        }
        _ => Ok(()),
    }
}

fn timeout(query: &Query) -> Result<Duration, Failure> {
    match query.get("timeoutSeconds") {
        "" | "0" => Ok(Duration::from_secs(WATCH_AT_LEAST + fastrand::u64(0..WATCH_AT_LEAST))),
        text => text
            .parse()
            .map(Duration::from_secs)
            .map_err(|_| Failure::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))),
    }
}
