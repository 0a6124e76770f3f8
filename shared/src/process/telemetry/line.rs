//! One line of a log.

use std::fmt::{self, Write as _};

use jiff::Timestamp;
use serde_json::Value;
use tracing::Level;
use tracing::field::{Field, Visit};

/// The fields of an event or a span, in order.
#[derive(Debug, Default)]
pub(super) struct Fields {
    message: String,
    component: Option<String>,
    rest: Vec<(&'static str, Value)>,
}

impl Fields {
    /// Adds what a span around says, unless it was said nearer to the event.
    pub(super) fn add_outer(&mut self, outer: &Self) {
        if self.component.is_none() {
            self.component.clone_from(&outer.component);
        }
        for (name, value) in &outer.rest {
            if self.rest.iter().all(|(known, _)| known != name) {
                self.rest.push((name, value.clone()));
            }
        }
    }

    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            ("component", Value::String(text)) => self.component = Some(text),
            (name, value) => match self.rest.iter_mut().find(|(known, _)| *known == name) {
                Some((_, old)) => *old = value,
                None => self.rest.push((name, value)),
            },
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, Value::String(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, Value::String(value.to_owned()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::Bool(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            // Many errors repeat their cause in their own text.
            if !text.contains(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            source = cause.source();
        }
        self.put(field, Value::String(text));
    }
}

/// One line of a log.
pub(super) struct Line<'a> {
    pub(super) timestamp: Timestamp,
    pub(super) level: &'a Level,
    pub(super) target: &'a str,
    pub(super) fields: Fields,
}

impl Line<'_> {
    fn level(&self) -> &'static str {
        match *self.level {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        }
    }

    fn component(&self) -> String {
        match &self.fields.component {
            Some(component) => component.clone(),
            // The crate's name says less than the module's.
            None => {
                let path = self.target.strip_prefix("tiphys_").unwrap_or(self.target);
                path.strip_prefix("shared::").unwrap_or(path).replace("::", ".")
            }
        }
    }

    fn timestamp(&self) -> String {
        format!("{:.3}", self.timestamp)
    }

    pub(super) fn json(&self) -> String {
        let mut line = String::with_capacity(256);
        let mut put = |name: &str, value: Value| {
            line.push(if line.is_empty() { '{' } else { ',' });
            // Values made of JSON always write as JSON.
            let _ = write!(line, "{}:{value}", Value::from(name));
        };
        put("timestamp", self.timestamp().into());
        put("level", self.level().into());
        put("component", self.component().into());
        put("message", self.fields.message.as_str().into());
        for (name, value) in &self.fields.rest {
            // A field may not pass itself off as one of the four.
            match *name {
                "timestamp" | "level" => put(&format!("field_{name}"), value.clone()),
                name => put(name, value.clone()),
            }
        }
        line.push_str("}\n");
        line
    }

    pub(super) fn text(&self) -> String {
        let mut line = format!(
            "time={} level={} component={} msg={}",
            quote(&self.timestamp()),
            self.level(),
            quote(&self.component()),
            quote_always(&self.fields.message),
        );
        self.push_fields(&mut line, "", "");
        line.push('\n');
        line
    }

    pub(super) fn coloured(&self) -> String {
        let (colour, level) = match *self.level {
            Level::ERROR => ("\x1b[31m", "ERROR"),
            Level::WARN => ("\x1b[33m", "WARN "),
            Level::INFO => ("\x1b[32m", "INFO "),
            Level::DEBUG => ("\x1b[34m", "DEBUG"),
            Level::TRACE => ("\x1b[35m", "TRACE"),
        };
        let mut line = format!(
            "\x1b[2m{}\x1b[0m {colour}{level}\x1b[0m \x1b[2m{}\x1b[0m {}",
            self.timestamp.strftime("%H:%M:%S%.3f"),
            self.component(),
            visible(&self.fields.message),
        );
        self.push_fields(&mut line, "\x1b[2m", "\x1b[0m");
        line.push('\n');
        line
    }

    fn push_fields(&self, line: &mut String, before: &str, after: &str) {
        for (name, value) in &self.fields.rest {
            let text = match value {
                Value::String(text) => quote(text),
                other => other.to_string(),
            };
            // Writing to a String cannot fail.
            let _ = write!(line, " {before}{name}={after}{text}");
        }
    }
}

/// In quotes where it would not read as one word.
fn quote(text: &str) -> String {
    let word = !text.is_empty()
        && text.chars().all(|c| {
            c.is_alphanumeric()
                || matches!(c, '-' | '.' | '_' | '/' | '@' | '^' | '+' | ':' | ',' | '[' | ']')
        });
    if word { text.to_owned() } else { quote_always(text) }
}

fn quote_always(text: &str) -> String {
    Value::from(text).to_string()
}

/// Without control characters, which could rewrite what a terminal shows.
fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
