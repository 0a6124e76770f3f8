//! OpenTelemetry traces of what one side tells the other.
//!
//! A trace begins with a change that its owner's watch tells of, and the first span of it ends when the peer has
//! acknowledged it. It travels as `traceparent` in the event (CloudEvents' extension for it, as argocd-agent has it), so
//! that the peer's span of handling it hangs below. What an agent says about the resource next is the answer to it, and
//! belongs to the same trace. An untraced process does none of this.
//!
//! Spans wait for their batch to leave. The memory that they hold meanwhile is in the way of everybody else's, which costs
//! several times what making them does. So few wait, and what is the same for many is shared.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId,
    TraceState, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue, StringValue};
use opentelemetry_otlp::{SpanExporter, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfig, BatchConfigBuilder, BatchSpanProcessor, SdkTracer, SdkTracerProvider, Span,
};
use parking_lot::Mutex;

use super::pump::Outcome;
use super::transport::{self, DialOptions};
use crate::model::event::{Event, EventId, Payload, Target};
use crate::model::object::ObjectExt as _;
use crate::process::clock;
use crate::process::options::{Collector, Problem};
use crate::security::tls::{ClientTls, Material, Policy, Version};

/// The extension that carries a trace from one side to the other.
const TRACEPARENT: &str = "traceparent";
/// For how long what an agent says of a resource may be the answer to what it was told of it.
const ANSWER: Duration = Duration::from_secs(60);
/// Spans that may be open, and answers that may be awaited. Beyond, they are forgotten.
const OPEN: usize = 1024;
/// Spans that wait to be sent. Beyond, they are lost.
const WAITING: usize = 512;
/// Spans that are sent together.
const TOGETHER: usize = 128;
/// Attributes of a span, at most.
const ATTRIBUTES: usize = 8;

/// Why there are no traces.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The collector's address is none.
    #[error("traces cannot be sent: {0}")]
    Dial(#[from] transport::Error),
    /// The exporter does not like its configuration.
    #[error("traces cannot be sent: {0}")]
    Exporter(String),
}

/// Where spans go, if anywhere. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Traces {
    exported: Option<Arc<Exported>>,
}

#[derive(Debug)]
struct Exported {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl Traces {
    /// Sends the spans of `service` to a collector over OTLP. A collector that is away is tried again, and costs spans and
    /// nothing else. Must be called within the runtime.
    ///
    /// # Errors
    /// [`Error`] if it cannot begin.
    pub fn export(service: &'static str, collector: &DialOptions) -> Result<Self, Error> {
        let channel = transport::lazy(collector)?;
        let exporter = SpanExporter::builder().with_tonic().with_channel(channel).build();
        let exporter = exporter.map_err(|error| Error::Exporter(error.to_string()))?;
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = Resource::builder().with_service_name(service).with_attribute(version).build();
        let batches = BatchSpanProcessor::builder(exporter).with_batch_config(batches()).build();
        let provider =
            SdkTracerProvider::builder().with_span_processor(batches).with_resource(resource).build();
        let tracer = provider.tracer("tiphys");
        Ok(Self { exported: Some(Arc::new(Exported { provider, tracer })) })
    }

    /// Sends what was not sent yet, and no more. Blocks for up to five seconds.
    pub fn close(&self) {
        if let Some(exported) = &self.exported
            && let Err(error) = exported.provider.shutdown()
        {
            tracing::warn!(%error, "the last traces could not be sent");
        }
    }
}

/// Whether the environment wants no traces, whatever a peer wants.
fn are_off(variable: impl Fn(&str) -> Option<String>) -> bool {
    let is = |name, value: &str| variable(name).is_some_and(|it| it.trim().eq_ignore_ascii_case(value));
    is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_SAMPLER", "always_off")
}

/// How many spans wait and leave together, if the environment does not say. OpenTelemetry's own numbers take so much memory,
/// all of it in turns, that a processor's cache holds little else; that slows everything down.
fn batches() -> BatchConfig {
    let given = |name| std::env::var_os(name).is_some();
    let mut batches = BatchConfigBuilder::default();
    if !given("OTEL_BSP_MAX_QUEUE_SIZE") && !given("OTEL_BSP_MAX_EXPORT_BATCH_SIZE") {
        batches = batches.with_max_queue_size(WAITING).with_max_export_batch_size(TOGETHER);
    }
    batches.build()
}

/// Sends the spans of `service` to a collector as options name it. Without another word its certificate must lead to an
/// authority that this system trusts.
///
/// Where OpenTelemetry's own variables say that there shall be no traces, nothing is registered.
///
/// # Errors
/// What cannot be used, with what to do about it.
pub fn to_collector(service: &'static str, collector: &Collector) -> Result<Traces, Problem> {
    if are_off(|name| std::env::var(name).ok()) {
        return Ok(Traces::default());
    }
    let problem = |error: &dyn std::fmt::Display| {
        Problem::new(
            format!("traces cannot be sent to {}: {error}", collector.address),
            "see --otlp-address and --otlp-insecure",
        )
    };
    let tls = if collector.insecure {
        None
    } else {
        let policy = Policy { min_version: Version::Tls12, ..Policy::default() };
        Some(ClientTls::new(&Material::default(), policy, false).map_err(|error| problem(&error))?)
    };
    let address = &collector.address;
    let options = DialOptions::new(address.host.clone(), address.port, tls);
    Traces::export(service, &options).map_err(|error| problem(&error))
}

/// The traces of one stream of events and its successors.
#[derive(Debug, Default)]
pub struct Journeys {
    traces: Traces,
    /// The agent at one end.
    agent: Arc<str>,
    /// What is said next of a resource is the answer to what was heard of it.
    answers: bool,
    sent: Mutex<Bounded<EventId, Span>>,
    heard: Mutex<Bounded<About, (SpanContext, Instant)>>,
}

/// What is known for a while.
#[derive(Debug)]
struct Bounded<K, V>(HashMap<K, V>);

impl<K, V> Default for Bounded<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash, V> Bounded<K, V> {
    fn insert(&mut self, key: K, value: V) {
        if self.0.len() >= OPEN {
            self.0.clear();
        }
        self.0.insert(key, value);
    }
}

/// Which end of an event's way a span is of.
#[derive(Clone, Copy)]
enum Way {
    Tell,
    Handle,
}

impl Way {
    fn kind(self) -> SpanKind {
        match self {
            Self::Tell => SpanKind::Producer,
            Self::Handle => SpanKind::Consumer,
        }
    }

    /// How a span is called.
    fn name(self, event: &Event) -> String {
        let verb = match self {
            Self::Tell => "tell",
            Self::Handle => "handle",
        };
        format!("{verb} {} {}", event.target, event.kind)
    }
}

/// A span of an event that is handled.
#[derive(Debug)]
pub(super) struct Handling {
    span: Span,
    about: Option<About>,
}

/// Kind and name of a resource. Its namespace may be another on each side.
type About = (Target, Box<str>);

impl Journeys {
    /// Those of events to or from this agent. `answers` where what is said of a resource answers what was heard of it: at
    /// the agent.
    pub fn new(traces: Traces, agent: impl Into<Arc<str>>, answers: bool) -> Self {
        Self { traces, agent: agent.into(), answers, ..Self::default() }
    }

    /// An event is about to be sent for a change that was made then.
    pub(super) fn sending(&self, event: &mut Event, since: Option<Instant>) {
        let Some(exported) = &self.traces.exported else { return };
        let now = SystemTime::from(clock::now());
        let began = since.and_then(|since| now.checked_sub(elapsed(since))).unwrap_or(now);
        let parent = if self.answers { about(event).and_then(|about| self.answered(&about)) } else { None };
        let mut span = self.start(exported, event, Way::Tell, parent, Some(began));
        // That it is not wanted is said too, so that the peer does not begin a trace of its own.
        event.extensions.insert(TRACEPARENT.to_owned(), to_text(span.span_context()));
        if span.is_recording() {
            let waited = now.duration_since(began).unwrap_or_default();
            span.set_attribute(KeyValue::new("tiphys.outbox.seconds", waited.as_secs_f64()));
            self.sent.lock().insert(event.id.clone(), span);
        }
    }

    /// What was heard of a resource that now something is said of.
    fn answered(&self, about: &About) -> Option<SpanContext> {
        let (cause, heard) = self.heard.lock().0.remove(about)?;
        (elapsed(heard) < ANSWER).then_some(cause)
    }

    fn start(
        &self,
        exported: &Exported,
        event: &Event,
        way: Way,
        parent: Option<SpanContext>,
        began: Option<SystemTime>,
    ) -> Span {
        let parent = match parent {
            Some(parent) => Context::new().with_remote_span_context(parent),
            None => Context::new(),
        };
        let mut builder = SpanBuilder::from_name(way.name(event)).with_kind(way.kind());
        builder.start_time = began;
        builder.attributes = Some(Vec::with_capacity(ATTRIBUTES));
        let mut span = builder.start_with_context(&exported.tracer, &parent);
        if span.is_recording() {
            self.describe(&mut span, event);
        }
        span
    }

    /// The peer has acknowledged an event, or has refused it.
    pub(super) fn acknowledged(&self, id: &EventId, refused: Option<&str>) {
        if self.traces.exported.is_none() {
            return;
        }
        if let Some(mut span) = self.sent.lock().0.remove(id) {
            if let Some(reason) = refused {
                span.set_status(Status::error(reason.to_owned()));
            }
            span.end();
        }
    }

    /// An event of a trace is about to be handled.
    pub(super) fn handling(&self, event: &Event) -> Option<Handling> {
        let exported = self.traces.exported.as_ref()?;
        let parent = event.extensions.get(TRACEPARENT).and_then(|text| from_text(text))?;
        let span = self.start(exported, event, Way::Handle, Some(parent), None);
        Some(Handling { span, about: about(event).filter(|_| self.answers) })
    }

    /// It was handled.
    pub(super) fn handled(&self, handling: Option<Handling>, outcome: &Outcome) {
        let Some(Handling { mut span, about }) = handling else { return };
        match outcome {
            Outcome::Done => {
                if let Some(about) = about {
                    let heard = tokio::time::Instant::now().into_std();
                    self.heard.lock().insert(about, (span.span_context().clone(), heard));
                }
            }
            Outcome::Refused(reason) | Outcome::Later(reason) => {
                span.set_status(Status::error(reason.clone()))
            }
        }
        span.end();
    }

    /// What is worth knowing of an event. Only for spans that are kept.
    fn describe(&self, span: &mut Span, event: &Event) {
        let mut tell = |key, value: StringValue| span.set_attribute(KeyValue::new(key, value));
        tell("argocd.event.id", event.id.0.clone().into());
        let kind = event.kind.as_known().map(StringValue::from);
        tell("argocd.event.type", kind.unwrap_or_else(|| event.kind.to_string().into()));
        tell("argocd.event.target", event.target.label().into());
        if !self.agent.is_empty() {
            tell("argocd.agent.name", Arc::clone(&self.agent).into());
        }
        if let Payload::Object(object) = &event.payload {
            tell("k8s.resource.name", object.name().to_owned().into());
            tell("k8s.resource.namespace", object.namespace().to_owned().into());
            tell("k8s.resource.uid", object.uid().to_owned().into());
        }
    }
}

/// The resource that an event is about.
fn about(event: &Event) -> Option<About> {
    match &event.payload {
        Payload::Object(object) => Some((event.target.clone(), object.name().into())),
        _ => None,
    }
}

fn elapsed(since: Instant) -> Duration {
    tokio::time::Instant::from_std(since).elapsed()
}

fn to_text(span: &SpanContext) -> String {
    format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags().to_u8())
}

/// Reads what W3C's Trace Context says, of this version or a later one; a peer may have sent anything.
fn from_text(text: &str) -> Option<SpanContext> {
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |part: &str, length| {
        part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let well_formed =
        is_hex(version, 2) && version != "ff" && is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2);
    if !well_formed || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    Some(SpanContext::new(trace, span, flags, true, TraceState::default())).filter(SpanContext::is_valid)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_trace_travels_as_w3c_writes_it() {
        let span = from_text(EXAMPLE).unwrap();
        assert!(span.is_remote() && span.is_sampled());
        assert_eq!(to_text(&span), EXAMPLE);
        let later = from_text(&EXAMPLE.replacen("00", "01", 1)).unwrap();
        assert_eq!(later.trace_id(), span.trace_id());
    }

    #[test]
    fn what_is_no_trace_is_none() {
        for wrong in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(from_text(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_a_peer_sends_breaks_it(text in ".{0,80}") {
            _ = from_text(&text);
        }
    }

    #[test]
    fn the_environment_turns_traces_off() {
        let off = |name: &str, value: &str| are_off(|it| (it == name).then(|| value.to_owned()));
        assert!(off("OTEL_TRACES_SAMPLER", "always_off") && off("OTEL_SDK_DISABLED", "True"));
        assert!(!off("OTEL_TRACES_SAMPLER", "parentbased_always_off"), "a peer may want them");
        assert!(!off("OTEL_SDK_DISABLED", "false") && !are_off(|_| None));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut kept = Bounded::default();
        for n in 0..3 * OPEN {
            kept.insert(n, ());
            assert!(kept.0.len() <= OPEN);
        }
    }
}
