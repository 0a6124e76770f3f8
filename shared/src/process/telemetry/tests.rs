use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tracing::level_filters::LevelFilter;

use super::*;
use crate::process::options::LogLevels;

#[derive(Clone, Default)]
struct Captured {
    lines: Arc<Mutex<Vec<String>>>,
    terminal: bool,
}

impl Output for Captured {
    fn is_terminal(&self, _: &Level) -> bool {
        self.terminal
    }

    fn write(&self, _: &Level, line: &str) {
        self.lines.lock().push(line.to_owned());
    }
}

fn capture(format: LogFormat, levels: &str, terminal: bool, log: impl FnOnce()) -> Vec<String> {
    let captured = Captured { terminal, ..Captured::default() };
    let levels = LogLevels::new(levels.split(',')).unwrap();
    let lines = Lines { format, output: captured.clone() };
    let subscriber = tracing_subscriber::registry().with(filter(&levels).unwrap()).with(lines);
    tracing::subscriber::with_default(subscriber, log);
    let lines = captured.lines.lock();
    lines.clone()
}

#[test]
fn a_json_line_has_level_timestamp_component_message_and_all_fields() {
    let lines = capture(LogFormat::Json, "info", false, || {
        let _outer = tracing::info_span!("session", agent = "a1", generation = 7).entered();
        tracing::warn!(target: "tiphys_shared::wire::pump", attempts = 3, agent = "a2", ok = false, "odd \"thing\"\n");
    });
    let line: Value = serde_json::from_str(&lines[0]).unwrap();
    let time: Timestamp = line["timestamp"].as_str().unwrap().parse().unwrap();
    assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
    assert!(time > Timestamp::UNIX_EPOCH);
    let mut rest = line;
    rest.as_object_mut().unwrap().remove("timestamp");
    assert_eq!(
        rest,
        json!({
            "level": "warning", "component": "wire.pump", "message": "odd \"thing\"\n",
            "attempts": 3, "agent": "a2", "ok": false, "generation": 7,
        })
    );
    assert!(lines[0].ends_with("}\n") && lines[0].matches('\n').count() == 1);
}

#[test]
fn a_text_line_is_one_line_of_keys_and_values() {
    let lines = capture(LogFormat::Text, "info", false, || {
        tracing::info!(component = "server", address = "127.0.0.1:8443", reason = "a b", "listening");
    });
    let (time, rest) = lines[0].split_once(' ').unwrap();
    assert!(time.starts_with("time=2") && time.ends_with('Z'), "{time}");
    assert_eq!(rest, "level=info component=server msg=\"listening\" address=127.0.0.1:8443 reason=\"a b\"\n");
}

#[test]
fn control_characters_do_not_reach_a_terminal() {
    let lines = capture(LogFormat::Text, "info", true, || tracing::info!("a\x1b[2Jb"));
    assert!(lines[0].contains("a [2Jb"), "{:?}", lines[0]);
}

#[test]
fn levels_hold_by_component() {
    let lines = capture(LogFormat::Text, "warn,grpc-event=debug", false, || {
        tracing::debug!(target: "tiphys_shared::wire::pump", "shown");
        tracing::info!(target: "tiphys_shared::kube", "hidden");
        tracing::info!(target: "h2", "hidden");
        tracing::error!(target: "tiphys_shared::kube", "shown too");
    });
    assert_eq!(lines.len(), 2, "{lines:?}");
}

#[test]
fn errors_are_logged_with_their_causes() {
    let error = std::io::Error::other(crate::process::admin::Error {
        address: ([127, 0, 0, 1], 1).into(),
        source: std::io::Error::from(std::io::ErrorKind::AddrInUse),
    });
    let lines = capture(LogFormat::Text, "info", false, || {
        tracing::error!(error = &error as &(dyn std::error::Error + 'static), "no");
    });
    assert!(lines[0].contains("cannot listen on 127.0.0.1:1"), "{lines:?}");
}

#[test]
fn warnings_and_errors_go_to_stderr_and_the_rest_to_stdout() {
    let standard = Standard::new(Destination::Split);
    assert!(standard.is_stderr(&Level::ERROR) && standard.is_stderr(&Level::WARN));
    assert!(!standard.is_stderr(&Level::INFO) && !standard.is_stderr(&Level::TRACE));
    assert!(Standard::new(Destination::Stderr).is_stderr(&Level::INFO));
    assert_eq!(LevelFilter::WARN, Level::WARN);
}
