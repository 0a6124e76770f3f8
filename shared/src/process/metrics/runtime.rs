//! What the async runtime has to do.

use prometheus::{GaugeVec, Opts};
use tokio::runtime::Handle;

use super::{Error, Fresh, Register};

/// Registers figures of the runtime behind `handle`; of none they are described only.
///
/// # Errors
/// [`Error`] if they are there already.
pub fn runtime(registry: &impl Register, handle: Option<Handle>) -> Result<(), Error> {
    let gauge = |name: &str, help: &str| GaugeVec::new(Opts::new(name, help), &[]);
    let gauges = [
        gauge("tiphys_runtime_workers", "Number of threads that run tasks")?,
        gauge("tiphys_runtime_alive_tasks", "Number of tasks that have not ended")?,
        gauge("tiphys_runtime_queued_tasks", "Number of tasks that could run and wait for a thread")?,
    ];
    Fresh::register(registry, gauges, move |gauges| {
        let ([workers, alive, queued], Some(handle)) = (gauges, &handle) else { return };
        let (metrics, none) = (handle.metrics(), &[] as &[&str]);
        workers.with_label_values(none).set(metrics.num_workers() as f64);
        alive.with_label_values(none).set(metrics.num_alive_tasks() as f64);
        queued.with_label_values(none).set(metrics.global_queue_depth() as f64);
    })
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::super::render;
    use super::*;

    #[tokio::test]
    async fn the_tasks_that_there_are_are_counted() {
        let registry = Registry::new();
        runtime(&registry, Some(Handle::current())).unwrap();
        let task = tokio::spawn(std::future::pending::<()>());
        let text = render(&registry).unwrap();
        assert!(
            text.contains("tiphys_runtime_workers 1\n") && text.contains("tiphys_runtime_alive_tasks 1\n"),
            "{text}"
        );
        task.abort();
    }
}
