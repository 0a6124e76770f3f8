//! The book's list of metrics.

use std::fmt::Write as _;

use tiphys_shared::process::metrics::{Description, process};

use super::keep;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/src/metrics.md");

const HEAD: &str = "\
# Metrics

Made from the program itself (`TIPHYS_WRITE_DOCS=1 cargo test -p tiphys reference`).

A principal serves `/metrics` on `--metrics-port` 8000, an agent on 8181, in Prometheus' text form. Times are in seconds and
points in time in seconds since 1970, but for `principal_agent_avg_connection_time`, which is in minutes as argocd-agent has
it. A metric whose name does not begin with `tiphys_` has the name, the labels and the type that it has in argocd-agent, so
that its dashboards go on working.

The values of a label are bounded: kinds, verbs and causes are fixed sets, and what a peer makes up is `unknown`; `agent_name`
is of agents that have proven who they are since the principal started. Series of an agent that has been away for a day are
dropped, and begin anew when it comes back.

What can be made of them: [Alarms and dashboard](observation.md).
";

const TAIL: &str = "
## Not there

argocd-agent has some metrics for which Tiphys has nothing to count:

| metric | why |
|---|---|
| `argocd_principal_appsets_created`, `_updated`, `_deleted` | ApplicationSets stay at the control plane, and the principal does not read them |
| `rest_client_rate_limiter_duration_seconds` | requests to the API server are not held back |
| `rest_client_request_retries_total` | a request that is tried again is counted as another one in `rest_client_requests_total` |
| `argocd_agent_workqueue_*`, `argocd_principal_workqueue_*` | there are no work queues; what waits is in `tiphys_principal_outbox_entries` and `tiphys_agent_outbox_entries` |
| `grpc_server_*`, `grpc_client_*` | there is one stream for each agent; see the figures about events |
| `argocd_agent_ha_*` | pairs of principals are not supported yet |
";

fn section(page: &mut String, title: &str, described: &[Description]) {
    _ = write!(page, "\n## {title}\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n");
    for Description { name, of, labels, help } in described {
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        let (of, labels, help) = (of.as_str(), labels.join(", "), help.replace('|', "\\|"));
        _ = writeln!(page, "| `{name}` | {of} | {labels} | {help} |");
    }
}

#[test]
fn the_book_lists_the_metrics_that_there_are() {
    let mut page = HEAD.to_owned();
    section(&mut page, "Principal", &tiphys_principal::metrics().unwrap());
    section(&mut page, "Agent", &tiphys_agent::metrics().unwrap());
    section(&mut page, "Both, about the process", &process().unwrap());
    page.push_str(TAIL);
    keep(PAGE, &page);
}
