//! What a process costs, from /proc.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use serde::Serialize;

use super::latency::round;

/// The kernel's unit of processor time in /proc; 100 per second on every Linux that user space sees.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Resident memory, in kilobytes.
    pub resident_kb: u64,
    /// The most resident memory that it ever had, in kilobytes.
    pub peak_kb: u64,
    /// Processor time used so far.
    pub cpu: Duration,
}

/// Looks at the process `pid`.
pub fn sample(pid: u32) -> anyhow::Result<Sample> {
    let status = read(pid, "status")?;
    let stat = read(pid, "stat")?;
    Ok(Sample {
        resident_kb: kilobytes(&status, "VmRSS:")?,
        peak_kb: kilobytes(&status, "VmHWM:")?,
        cpu: cpu(&stat).ok_or_else(|| anyhow!("/proc/{pid}/stat has an unknown form"))?,
    })
}

/// Looks at this process.
pub fn sample_self() -> anyhow::Result<Sample> {
    sample(std::process::id())
}

fn read(pid: u32, file: &str) -> anyhow::Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path)
        .with_context(|| format!("cannot read {path}: is {pid} the pid of a running process?"))
}

fn kilobytes(status: &str, name: &str) -> anyhow::Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|number| number.trim().parse().ok())
        .ok_or_else(|| anyhow!("/proc/PID/status has no {name} line"))
}

/// The 14th and 15th field; the second one, the command, may hold anything between its parentheses.
fn cpu(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some(Duration::from_secs_f64((user + system) / TICKS_PER_SECOND))
}

/// How many files this process may have open.
pub fn open_files_limit() -> anyhow::Result<u64> {
    let limits = fs::read_to_string("/proc/self/limits").context("cannot read /proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|rest| rest.split_ascii_whitespace().next());
    match soft {
        Some("unlimited") => Ok(u64::MAX),
        Some(number) => number.parse().context("the limit of open files is not a number"),
        None => Err(anyhow!("/proc/self/limits names no limit of open files")),
    }
}

/// What a process cost between two moments.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// Resident memory at the end, in megabytes of 1,000,000 bytes.
    pub resident_mb: f64,
    /// The most resident memory ever, in the same unit.
    pub peak_mb: f64,
    /// Processor time used in between, in seconds.
    pub cpu_s: f64,
    /// The same as a share of one core.
    pub cpu_percent: f64,
}

impl Cost {
    /// Between `before` and `after`, which are `elapsed` apart.
    pub fn between(before: &Sample, after: &Sample, elapsed: Duration) -> Self {
        let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64();
        let megabytes = |kb: u64| round(kb as f64 * 1024.0 / 1_000_000.0);
        Self {
            resident_mb: megabytes(after.resident_kb),
            peak_mb: megabytes(after.peak_kb),
            cpu_s: round(cpu),
            cpu_percent: round(100.0 * cpu / elapsed.as_secs_f64().max(1e-9)),
        }
    }
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:.1} MB resident (peak {:.1} MB), {:.2} s of a processor = {:.1} % of a core",
            self.resident_mb, self.peak_mb, self.cpu_s, self.cpu_percent
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_processor_time() {
        let before = sample_self().unwrap();
        assert!(before.resident_kb > 100 && before.peak_kb >= before.resident_kb);
        assert!(open_files_limit().unwrap() > 0);
        let error = sample(u32::MAX).unwrap_err().to_string();
        assert!(error.contains("running process"), "{error}");
    }

    #[test]
    fn a_command_with_parentheses_does_not_confuse() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20";
        assert_eq!(cpu(stat), Some(Duration::from_secs(2)));
    }

    #[test]
    fn cost_is_what_lies_between() {
        let sample = |kb, secs| Sample { resident_kb: kb, peak_kb: kb, cpu: Duration::from_secs(secs) };
        let cost = Cost::between(&sample(1000, 1), &sample(2000, 3), Duration::from_secs(4));
        assert_eq!((cost.cpu_s, cost.cpu_percent, cost.resident_mb), (2.0, 50.0, 2.048));
    }
}
