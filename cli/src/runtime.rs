//! The async runtime and the signals that end it.

use std::future::Future;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;

/// Runs `work` until it ends by itself or a signal asks it to: SIGINT, SIGTERM and SIGHUP cancel the token, so
/// that work is drained; at a second one it is dropped as it is.
pub(crate) fn run<F>(workers: usize, work: impl FnOnce(CancellationToken) -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    raise_file_limit();
    let mut runtime = match workers {
        // What waits for others most of the time is woken faster without a second thread to hand it to.
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = runtime
        .worker_threads(workers)
        // Only name lookups and small files block; idle threads cost memory.
        .max_blocking_threads(8)
        .thread_keep_alive(Duration::from_secs(1))
        .thread_name("tiphys")
        .enable_all()
        .build()
        .map_err(|error| Failure::because("cannot start threads", &error))?;
    let result = runtime.block_on(async {
        let stop = CancellationToken::new();
        let signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = signals else {
            return Err(Failure::new("cannot listen for signals"));
        };
        let work = work(stop.clone());
        tokio::pin!(work);
        let mut asked = false;
        loop {
            tokio::select! {
                biased;
                result = &mut work => return result,
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            if asked {
                return Err(Failure::interrupted());
            }
            asked = true;
            stop.cancel();
        }
    });
    // What still blocks (a name lookup) must not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// Allows as many open files as the system lets us: every agent is one, and the usual limit is 1024.
fn raise_file_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // What cannot be raised stays; whoever runs into the limit will be told by the call that fails.
        _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}
