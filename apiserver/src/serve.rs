//! HTTP in, HTTP out: what a request means, and what it is answered with.

pub(crate) mod negotiate;
mod options;
pub(crate) mod present;
mod protobuf;
mod read;
mod request;
pub(crate) mod table;

use crate::auth::User;
use crate::discovery;
use crate::resource::{Behaviour, Resource, Scale, Verbs};
use crate::status::Failure;
use crate::write::{self, Answer, Call, Part, scale};
use crate::{Inner, auth, builtin, review, watch};
use bytes::Bytes;
use futures::StreamExt;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use negotiate::Encoding;
use present::{Form, Presenter};
use read::Scope;
use request::{Query, ResourcePath, Target};
use std::convert::Infallible;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The body of a response: whole, or events as they happen.
pub type ResponseBody = UnsyncBoxBody<Bytes, Infallible>;

/// The largest body that is read.
const BODY_LIMIT: usize = 3 * 1024 * 1024;

/// How a request came in.
#[derive(Clone)]
pub(crate) struct Arrival {
    /// From within the process: trusted unless it carries a token.
    pub(crate) in_process: bool,
    /// Ends watches.
    pub(crate) shutdown: CancellationToken,
}

/// Answers a request.
pub(crate) async fn handle<B>(
    server: Arc<Inner>,
    arrival: Arrival,
    request: Request<B>,
) -> Response<ResponseBody>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<tower::BoxError>,
{
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(body) => body.to_bytes(),
        Err(why) if why.is::<LengthLimitError>() => return refuse(&Failure::too_large(BODY_LIMIT)),
        Err(why) => return refuse(&Failure::bad_request(format!("unable to read the body: {why}"))),
    };
    let ticket = server.store.ticket();
    let answer = Exchange { server: &server, arrival: &arrival, head: &head, body: &body }.answer();
    // What a writer is told, be it a refusal, follows from what other writers did a moment ago.
    if !matches!(head.method, Method::GET | Method::HEAD)
        && let Err(trouble) = server.store.settled(ticket).await
    {
        return refuse(&Failure::not_kept(&trouble.message, trouble.is_full));
    }
    answer.unwrap_or_else(|failure| refuse(&failure))
}

fn full(code: u16, content_type: &'static str, body: impl Into<Bytes>) -> Response<ResponseBody> {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

fn refuse(failure: &Failure) -> Response<ResponseBody> {
    let mut response = full(failure.code, "application/json", failure.to_value().to_string());
    if let Some(seconds) = failure.retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.max(1).into());
    }
    if failure.code == 401 {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// Adds a warning for the person in front of the client.
fn warn(response: &mut Response<ResponseBody>, text: &str) {
    let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
    if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
        response.headers_mut().append(WARNING, value);
    }
}

/// The path leads nowhere: as the API server has it, this is not a `Status`.
fn nowhere() -> Response<ResponseBody> {
    full(404, "text/plain; charset=utf-8", "404 page not found\n")
}

/// One request, with everything that is needed to answer it.
struct Exchange<'a> {
    server: &'a Arc<Inner>,
    arrival: &'a Arrival,
    head: &'a http::request::Parts,
    body: &'a Bytes,
}

impl Exchange<'_> {
    fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    fn answer(&self) -> Result<Response<ResponseBody>, Failure> {
        let target = request::target(self.head.uri.path());
        let user = match auth::authenticate(self.server, self.headers(), self.arrival.in_process) {
            Ok(user) => user,
            // Probes need no token.
            Err(_) if matches!(target, Target::Health | Target::Version) => User::anonymous(),
            Err(failure) => return Err(failure),
        };
        let path = match target {
            Target::Resource(path) => path,
            Target::Unknown => return Ok(nowhere()),
            other => {
                if !matches!(self.head.method, Method::GET | Method::HEAD) {
                    return Err(Failure::method_not_allowed());
                }
                return self.document(&other);
            }
        };
        let Some(resource) = self.server.find(&path.group, &path.version, &path.plural) else {
            return if builtin::has_version(&path.group, &path.version) || path.group.is_empty() {
                Err(Failure::no_such_resource())
            } else {
                Ok(nowhere())
            };
        };
        let query = Query::parse(self.head.uri.query().unwrap_or_default())
            .ok_or_else(|| Failure::bad_request("the query cannot be decoded"))?;
        let mut response = self.resource(&resource, &path, &query, &user)?;
        if let Behaviour::Custom(version) = &resource.behaviour
            && let Some(text) = &version.deprecation
        {
            warn(&mut response, text);
        }
        Ok(response)
    }

    /// Ready is who takes changes.
    fn health(&self) -> Response<ResponseBody> {
        let asked = self.head.uri.path().starts_with("/readyz");
        match self.server.store.trouble().filter(|_| asked) {
            None => full(200, "text/plain; charset=utf-8", "ok"),
            Some(trouble) => {
                let text = format!("no change can be kept: {}\n", trouble.message);
                full(500, "text/plain; charset=utf-8", text)
            }
        }
    }

    /// Documents about the server and what it serves.
    fn document(&self, target: &Target) -> Result<Response<ResponseBody>, Failure> {
        let headers = self.headers();
        let aggregated = discovery::aggregated_version(&negotiate::accepted(headers));
        let value = match target {
            Target::Health => return Ok(self.health()),
            Target::Version => self.server.version.to_value(),
            Target::Index => discovery::index(self.server),
            Target::CoreVersions | Target::Groups => {
                let core = *target == Target::CoreVersions;
                if let Some(version) = aggregated {
                    let body = discovery::aggregated(self.server, core, version).to_string();
                    return Ok(full(200, version.content_type(), body));
                }
                if core { discovery::core_versions() } else { discovery::groups(self.server) }
            }
            Target::Group(group) => match discovery::group(self.server, group) {
                Some(value) => value,
                None => return Ok(nowhere()),
            },
            Target::Resources { group, version } => match discovery::resources(self.server, group, version) {
                Some(value) => value,
                None if group.is_empty() => return Err(Failure::no_such_resource()),
                None => return Ok(nowhere()),
            },
            Target::OpenApiV3 => discovery::openapi_v3_index(self.server),
            Target::OpenApiV3Group { group, version } => {
                match discovery::openapi_v3(self.server, group, version) {
                    Some(value) => value,
                    None => return Ok(nowhere()),
                }
            }
            Target::OpenApiV2 => {
                if negotiate::accepted(headers)
                    .iter()
                    .any(|one| one.media.starts_with(discovery::OPENAPI_V2_PROTOBUF))
                {
                    let body = discovery::openapi_v2_protobuf(&self.server.version.git_version);
                    return Ok(full(200, discovery::OPENAPI_V2_PROTOBUF_TYPE, body));
                }
                discovery::openapi_v2(self.server)
            }
            Target::Resource(_) | Target::Unknown => return Ok(nowhere()),
        };
        let encoding = negotiate::plain(headers)?;
        let body = negotiate::encode(encoding, value.to_string().into_bytes())?;
        Ok(full(200, encoding.content_type(), body))
    }

    fn resource(
        &self,
        resource: &Arc<Resource>,
        path: &ResourcePath,
        query: &Query,
        user: &User,
    ) -> Result<Response<ResponseBody>, Failure> {
        if path.namespace.is_some() && !resource.namespaced {
            return Ok(nowhere());
        }
        if resource.namespaced && path.namespace.is_none() && path.name.is_some() {
            return Ok(nowhere());
        }
        if resource.verbs == Verbs::Review {
            if self.head.method != Method::POST || path.name.is_some() {
                return Err(Failure::method_not_allowed());
            }
            return self.review(resource, user);
        }
        let namespace = path.namespace.as_deref().unwrap_or_default();
        let scope = Scope { server: self.server, resource, namespace };
        if let (Some("scale"), Some(paths), Some(name)) =
            (path.subresource.as_deref(), &resource.scale, &path.name)
        {
            return self.scale(&scope, query, paths, name);
        }
        let part = match path.subresource.as_deref() {
            None => Part::Whole,
            Some(name) if !resource.subresources().contains(&name) => {
                return Err(match path.name.as_deref().filter(|_| resource.is_custom()) {
                    Some(name) => Failure::not_found(&resource.group, &resource.plural, name),
                    None => Failure::no_such_resource(),
                });
            }
            Some("status") => Part::Status,
            Some(_) => Part::Finalize,
        };
        let everywhere = resource.namespaced && path.namespace.is_none();
        match (&self.head.method, path.name.as_deref()) {
            (&Method::GET, None) => self.collection(&scope, query),
            (&Method::GET, Some(name)) if part != Part::Finalize => {
                let (encoding, form) = negotiate::objects(self.headers(), query.get("includeObject"), false)?;
                self.send(200, encoding, read::get(&scope, name, query, form)?, &[])
            }
            (&Method::POST, None) if !everywhere => {
                let call = self.call(&scope, query, part, "")?;
                self.written(&call, query, |call| {
                    write::create(call, negotiate::body(self.headers(), self.body)?)
                })
            }
            (&Method::PUT, Some(name)) => {
                let call = self.call(&scope, query, part, name)?;
                self.written(&call, query, |call| {
                    write::update(call, negotiate::body(self.headers(), self.body)?)
                })
            }
            (&Method::PATCH, Some(name)) if part != Part::Finalize && negotiate::is_apply(self.headers()) => {
                let call = self.call(&scope, query, part, name)?;
                let force = query.flag("force").unwrap_or(false);
                self.written(&call, query, |call| write::apply::apply(call, self.body, force))
            }
            (&Method::PATCH, Some(name)) if part != Part::Finalize => {
                let kind = negotiate::patch_kind(self.headers(), resource.is_custom())?;
                let call = self.call(&scope, query, part, name)?;
                self.written(&call, query, |call| write::patch(call, kind, self.body))
            }
            (&Method::DELETE, Some(name)) if part == Part::Whole => {
                let (options, dry_run) = self.delete_options(query)?;
                let mut call = self.call(&scope, query, part, name)?;
                call.dry_run |= dry_run;
                self.written(&call, query, |call| write::delete(call, &options))
            }
            (&Method::DELETE, None) if !everywhere => self.delete_collection(&scope, query),
            _ => Err(Failure::method_not_allowed()),
        }
    }

    fn scale(
        &self,
        scope: &Scope<'_>,
        query: &Query,
        paths: &Scale,
        name: &str,
    ) -> Result<Response<ResponseBody>, Failure> {
        let encoding = negotiate::plain(self.headers())?;
        let mut call = self.call(scope, query, Part::Whole, name)?;
        call.subresource = "scale";
        let answer = match self.head.method {
            Method::GET => {
                let scale = scale::get(&call, paths)?;
                return self.send(200, encoding, scale.to_string().into_bytes(), &[]);
            }
            Method::PUT => scale::update(&call, paths, &negotiate::body(self.headers(), self.body)?)?,
            Method::PATCH => {
                let kind = negotiate::patch_kind(self.headers(), true)?;
                scale::patch(&call, paths, kind, self.body)?
            }
            _ => return Err(Failure::method_not_allowed()),
        };
        self.answered(&call, encoding, Form::Plain, answer)
    }

    fn review(&self, resource: &Arc<Resource>, user: &User) -> Result<Response<ResponseBody>, Failure> {
        let encoding = negotiate::plain(self.headers())?;
        let body = negotiate::body(self.headers(), self.body)?;
        let answer = review::answer(self.server, resource, body, user)?;
        self.send(201, encoding, answer.to_string().into_bytes(), &[])
    }

    fn send(
        &self,
        code: u16,
        encoding: Encoding,
        json: Vec<u8>,
        warnings: &[String],
    ) -> Result<Response<ResponseBody>, Failure> {
        let mut response = full(code, encoding.content_type(), negotiate::encode(encoding, json)?);
        for warning in warnings {
            warn(&mut response, warning);
        }
        Ok(response)
    }

    /// Carries out a write and sends what came of it.
    fn written(
        &self,
        call: &Call<'_>,
        query: &Query,
        write: impl FnOnce(&Call<'_>) -> Result<Answer, Failure>,
    ) -> Result<Response<ResponseBody>, Failure> {
        // Before anything is done, so that a refusal has no effect.
        let (encoding, form) = negotiate::objects(self.headers(), query.get("includeObject"), false)?;
        self.answered(call, encoding, form, write(call)?)
    }

    fn answered(
        &self,
        call: &Call<'_>,
        encoding: Encoding,
        form: Form,
        answer: Answer,
    ) -> Result<Response<ResponseBody>, Failure> {
        let json = match answer.body {
            write::Body::Object { content, revision } => {
                let presenter = Presenter::new(call.resource.clone(), form, self.server.now().as_second());
                presenter.object(&content, revision)
            }
            write::Body::Value(value) => value.to_string().into_bytes(),
        };
        self.send(answer.code, encoding, json, &answer.warnings)
    }

    fn collection(&self, scope: &Scope<'_>, query: &Query) -> Result<Response<ResponseBody>, Failure> {
        let (encoding, form) = negotiate::objects(self.headers(), query.get("includeObject"), true)?;
        if !query.flag("watch").unwrap_or(false) {
            return self.send(200, encoding, read::list(scope, query, form)?, &[]);
        }
        if encoding != Encoding::Json {
            return Err(Failure::not_acceptable());
        }
        let watch = read::watch(scope, query, form, self.arrival.shutdown.clone())?;
        let frames = watch::stream(watch).map(|chunk| Ok(http_body::Frame::data(chunk)));
        let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        Ok(response)
    }

    fn delete_collection(&self, scope: &Scope<'_>, query: &Query) -> Result<Response<ResponseBody>, Failure> {
        let (encoding, _) = negotiate::objects(self.headers(), "", true)?;
        let (options, dry_run) = self.delete_options(query)?;
        let page = read::page(scope, query)?;
        for stored in &page.items {
            let mut call = self.call(scope, query, Part::Whole, stored.key.name())?;
            call.dry_run |= dry_run;
            match write::delete(&call, &options) {
                Ok(_) => {}
                // Somebody else was faster.
                Err(failure) if failure.code == 404 => {}
                Err(failure) => return Err(failure),
            }
        }
        self.send(200, encoding, read::shown(scope, &page, Form::Plain), &[])
    }
}
