//! The fleet as the principal's metrics tell of it. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::operator::scrape::Sample;

/// All agents.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Fleet {
    /// Agents with an open stream.
    pub(super) connected: u64,
    /// Comparisons begun since the principal started.
    pub(super) resync_rounds: f64,
    /// Resources that they repaired.
    pub(super) resync_repaired: f64,
    pub(super) agents: Vec<Row>,
    #[serde(skip)]
    at: Timestamp,
}

/// One agent. What the principal does not tell is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    pub(super) agent: String,
    /// `connected`, `away`, `unknown` where the principal does not tell, or `never seen`.
    pub(super) state: &'static str,
    pub(super) mode: Option<String>,
    pub(super) connected_seconds: Option<f64>,
    /// Changes that it has yet to acknowledge.
    pub(super) outbox: Option<f64>,
    pub(super) oldest_seconds: Option<f64>,
    /// Mean time from a change to its acknowledgement: since the last look, or since the principal started.
    pub(super) lag_seconds: Option<f64>,
    pub(super) events_sent: Option<f64>,
    pub(super) events_received: Option<f64>,
    pub(super) proxy_requests: Option<f64>,
    pub(super) certificate_seconds: Option<f64>,
    #[serde(skip)]
    lag: (f64, f64),
}

impl Fleet {
    /// Reads figures. `known` are the agents that Argo CD knows, `before` is the last look.
    pub(super) fn of(samples: &[Sample], known: &[String], now: Timestamp, before: Option<&Self>) -> Self {
        let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
        for name in known {
            rows.entry(name).or_insert_with(|| Row { state: "never seen", ..Row::default() });
        }
        let (mut resync_rounds, mut resync_repaired, mut connected) = (0.0, 0.0, None);
        let seconds = now.as_second() as f64;
        for sample in samples {
            match sample.name.as_str() {
                "tiphys_principal_resync_rounds_total" => resync_rounds += sample.value,
                "tiphys_principal_resync_repaired_total" => resync_repaired += sample.value,
                "argocd_principal_connected_agents" => connected = Some(sample.value),
                _ => {}
            }
            let Some(agent) = sample.label("agent_name").filter(|agent| !agent.is_empty()) else { continue };
            let row = rows.entry(agent).or_insert_with(|| Row { state: "unknown", ..Row::default() });
            row.take(sample, seconds);
        }
        let mut agents: Vec<Row> =
            rows.into_iter().map(|(agent, row)| Row { agent: agent.to_owned(), ..row }).collect();
        for row in &mut agents {
            let last = before.and_then(|fleet| fleet.agents.iter().find(|last| last.agent == row.agent));
            row.lag_seconds =
                mean(row.lag, last.map_or((0.0, 0.0), |last| last.lag)).or_else(|| mean(row.lag, (0.0, 0.0)));
        }
        let counted = agents.iter().filter(|row| row.state == "connected").count();
        let connected = connected.map_or(counted as u64, |value| value as u64);
        Self { connected, resync_rounds, resync_repaired, agents, at: now }
    }

    /// All of it in a line.
    pub(super) fn headline(&self) -> String {
        // A sum of nothing would be -0.
        let queued = self.agents.iter().filter_map(|row| row.outbox).fold(0.0, |sum, queue| sum + queue);
        format!(
            "{} of {} agents connected, {queued} changes queued, {} comparisons, {} repairs, at {}",
            self.connected,
            self.agents.len(),
            self.resync_rounds,
            self.resync_repaired,
            self.at.strftime("%H:%M:%S")
        )
    }

    /// Those that are away, then those that are behind.
    pub(super) fn worst_first(&self) -> Vec<Row> {
        let mut rows = self.agents.clone();
        let behind = |row: &Row| row.oldest_seconds.unwrap_or_default();
        rows.sort_by(|one, other| {
            let away = |row: &Row| row.state == "connected";
            away(one).cmp(&away(other)).then_with(|| behind(other).total_cmp(&behind(one)))
        });
        rows
    }
}

/// The mean of what was counted between two looks at a histogram (sum, count).
fn mean(now: (f64, f64), before: (f64, f64)) -> Option<f64> {
    // A principal that has started anew counts from zero.
    let before = if now.1 < before.1 { (0.0, 0.0) } else { before };
    let count = now.1 - before.1;
    (count > 0.0).then(|| (now.0 - before.0) / count)
}

impl Row {
    fn take(&mut self, sample: &Sample, now: f64) {
        let value = sample.value;
        match sample.name.as_str() {
            "tiphys_principal_agent_connected" => {
                self.state = if value > 0.0 { "connected" } else { "away" };
                self.mode = sample.label("mode").map(str::to_owned);
            }
            "tiphys_principal_agent_connection_start_timestamp_seconds" => {
                self.connected_seconds = Some((now - value).max(0.0));
            }
            "tiphys_principal_agent_certificate_expiry_timestamp_seconds" => {
                self.certificate_seconds = Some(value - now);
            }
            "tiphys_principal_outbox_entries" => self.outbox = Some(value),
            "tiphys_principal_outbox_oldest_seconds" => self.oldest_seconds = Some(value),
            "tiphys_principal_agent_lag_seconds_sum" => self.lag.0 = value,
            "tiphys_principal_agent_lag_seconds_count" => self.lag.1 = value,
            // Go's principals and older ones of ours count events by agent under the names without a prefix.
            "tiphys_principal_agent_events_sent_total" | "principal_events_sent" => {
                self.events_sent = Some(value)
            }
            "tiphys_principal_agent_events_received_total" | "principal_events_received" => {
                self.events_received = Some(value);
            }
            "argocd_principal_resource_proxy_requests_total" => self.proxy_requests = Some(value),
            _ => {}
        }
    }

    /// For people.
    pub(super) fn cells(&self) -> [String; 11] {
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        let time = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), span);
        [
            self.agent.clone(),
            self.state.to_owned(),
            self.mode.clone().unwrap_or_else(|| "-".to_owned()),
            time(self.connected_seconds),
            number(self.outbox),
            time(self.oldest_seconds),
            time(self.lag_seconds),
            number(self.events_sent),
            number(self.events_received),
            number(self.proxy_requests),
            time(self.certificate_seconds),
        ]
    }
}

/// A time in one unit, or two.
fn span(seconds: f64) -> String {
    if seconds < 0.0 {
        return "over".to_owned();
    }
    let whole = seconds as u64;
    match whole {
        0 => format!("{:.0}ms", seconds * 1000.0),
        1..=9 => format!("{seconds:.1}s"),
        10..=119 => format!("{whole}s"),
        120..=7199 => format!("{}m", whole / 60),
        7200..=172_799 => format!("{}h", whole / 3600),
        _ => format!("{}d", whole / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::scrape::parse;

    const TEXT: &str = "\
argocd_principal_connected_agents 1
tiphys_principal_agent_connected{agent_name=\"edge-1\",mode=\"managed\"} 1
tiphys_principal_agent_connected{agent_name=\"edge-2\",mode=\"autonomous\"} 0
tiphys_principal_agent_connection_start_timestamp_seconds{agent_name=\"edge-1\"} 1000
tiphys_principal_outbox_entries{agent_name=\"edge-1\"} 3
tiphys_principal_outbox_oldest_seconds{agent_name=\"edge-1\"} 0.25
tiphys_principal_agent_lag_seconds_sum{agent_name=\"edge-1\"} 5
tiphys_principal_agent_lag_seconds_count{agent_name=\"edge-1\"} 10
tiphys_principal_resync_rounds_total 4
";

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn agents_are_told_of_with_what_is_known_and_the_worst_come_first() {
        let fleet = Fleet::of(&parse(TEXT), &["edge-3".to_owned()], at(1090), None);
        let states: Vec<_> = fleet.agents.iter().map(|row| (row.agent.as_str(), row.state)).collect();
        assert_eq!(states, [("edge-1", "connected"), ("edge-2", "away"), ("edge-3", "never seen")]);
        let cells = fleet.agents[0].cells();
        assert_eq!(cells[..7], ["edge-1", "connected", "managed", "90s", "3", "250ms", "500ms"]);
        assert_eq!(fleet.worst_first()[2].agent, "edge-1");
        assert!(fleet.headline().starts_with("1 of 3 agents connected, 3 changes queued, 4 comparisons"));
    }

    #[test]
    fn lag_is_that_since_the_last_look_also_when_the_principal_has_started_anew() {
        let first = Fleet::of(&parse(TEXT), &[], at(1090), None);
        let text = "tiphys_principal_agent_lag_seconds_sum{agent_name=\"edge-1\"} 7
tiphys_principal_agent_lag_seconds_count{agent_name=\"edge-1\"} 11\n";
        let second = Fleet::of(&parse(text), &[], at(1092), Some(&first));
        assert_eq!(second.agents[0].lag_seconds, Some(2.0));
        let anew = text.replace(" 7", " 1").replace(" 11", " 4");
        assert_eq!(second.agents[0].state, "unknown");
        assert!(second.headline().contains("0 of 1 agents connected, 0 changes queued"));
        assert_eq!(Fleet::of(&parse(&anew), &[], at(1094), Some(&second)).agents[0].lag_seconds, Some(0.25));
    }

    #[test]
    fn spans_are_short() {
        let texts: Vec<String> = [-1.0, 0.0042, 1.5, 60.0, 600.0, 7200.0, 400_000.0].map(span).into();
        assert_eq!(texts, ["over", "4ms", "1.5s", "60s", "10m", "2h", "4d"]);
    }
}
