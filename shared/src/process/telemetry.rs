//! Logs: lines for people or for machines, warnings and errors apart from the rest.

mod line;

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::field::Visit;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use self::line::{Fields, Line};
use super::clock;
use super::options::{LogFormat, LogLevels, Logging};

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A level is not one.
    #[error("log levels cannot be used: {0}")]
    Levels(String),
    /// Somebody else was first.
    #[error("logging was set up twice: {0}")]
    Twice(String),
}

/// Where lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Warnings and errors to stderr, the rest to stdout, as upstream does: for servers.
    Split,
    /// Everything to stderr: for commands whose stdout is data.
    Stderr,
}

/// Sets up logging for the process.
///
/// A JSON line has `timestamp` (RFC 3339, UTC), `level`, `component`, `message`, and the fields of the event and
/// of the spans around it. A text line has the same as `key=value`, or, on a terminal, in a shorter form with
/// colours (unless `NO_COLOR` is set).
pub fn init(logging: &Logging, destination: Destination) -> Result<Levels, Error> {
    let (filter, handle) = reload::Layer::new(filter(&logging.levels)?);
    let lines = Lines { format: logging.format, output: Standard::new(destination) };
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()
        .map_err(|e| Error::Twice(e.to_string()))?;
    Ok(Levels { handle, current: Arc::new(Mutex::new(logging.levels.clone())) })
}

fn filter(levels: &LogLevels) -> Result<EnvFilter, Error> {
    EnvFilter::builder().parse(levels.directives()).map_err(|e| Error::Levels(e.to_string()))
}

/// Which lines are logged, and other levels while the process runs. Clones change the same.
#[derive(Clone, Debug)]
pub struct Levels {
    handle: reload::Handle<EnvFilter, Registry>,
    current: Arc<Mutex<LogLevels>>,
}

impl Levels {
    /// The levels in effect, as `--log-level` takes them.
    pub fn current(&self) -> String {
        self.current.lock().to_string()
    }

    /// Logs by these levels from now on: `info`, or `warn,grpc-event=debug`.
    ///
    /// # Errors
    /// [`Error::Levels`] if one is none; then nothing changes.
    pub fn set(&self, text: &str) -> Result<(), Error> {
        let levels = LogLevels::new(text.trim().split(',')).map_err(|invalid| {
            Error::Levels(
                invalid.iter().map(|it| format!("{}; {}", it.what, it.remedy)).collect::<Vec<_>>().join("; "),
            )
        })?;
        if let Some(unknown) = levels.unknown_components().next() {
            return Err(Error::Levels(format!("there is no component {unknown:?}")));
        }
        let mut current = self.current.lock();
        self.handle.reload(filter(&levels)?).map_err(|error| Error::Levels(error.to_string()))?;
        tracing::warn!(before = %current, now = %levels, "log levels were changed");
        *current = levels;
        Ok(())
    }
}

/// Takes whole lines.
trait Output: Send + Sync + 'static {
    /// Whether lines at this level are read by a person in front of a terminal that shows colours.
    fn is_terminal(&self, level: &Level) -> bool;
    /// Writes a line, with its end.
    fn write(&self, level: &Level, line: &str);
}

struct Standard {
    destination: Destination,
    stdout_terminal: bool,
    stderr_terminal: bool,
}

impl Standard {
    fn new(destination: Destination) -> Self {
        let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            destination,
            stdout_terminal: colours && io::stdout().is_terminal(),
            stderr_terminal: colours && io::stderr().is_terminal(),
        }
    }

    fn is_stderr(&self, level: &Level) -> bool {
        self.destination == Destination::Stderr || *level <= Level::WARN
    }
}

impl Output for Standard {
    fn is_terminal(&self, level: &Level) -> bool {
        if self.is_stderr(level) { self.stderr_terminal } else { self.stdout_terminal }
    }

    fn write(&self, level: &Level, line: &str) {
        // There is nowhere to report that logs cannot be written.
        let _ = if self.is_stderr(level) {
            io::stderr().lock().write_all(line.as_bytes())
        } else {
            io::stdout().lock().write_all(line.as_bytes())
        };
    }
}

struct Lines<O> {
    format: LogFormat,
    output: O,
}

impl<S, O> Layer<S> for Lines<O>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    O: Output,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut extensions = span.extensions_mut();
            if let Some(fields) = extensions.get_mut::<Fields>() {
                values.record(fields as &mut dyn Visit);
            }
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Fields>() {
                fields.add_outer(outer);
            }
        }
        let metadata = event.metadata();
        let level = metadata.level();
        let line = Line { timestamp: clock::now(), level, target: metadata.target(), fields };
        let text = match self.format {
            LogFormat::Json => line.json(),
            LogFormat::Text if self.output.is_terminal(level) => line.coloured(),
            LogFormat::Text => line.text(),
        };
        self.output.write(level, &text);
    }
}

#[cfg(test)]
mod tests;
