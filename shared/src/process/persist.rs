//! Trying again what may have failed for a passing reason.

use std::time::Duration;

use tokio::time::Instant;

/// Awaits `attempt` again and again while it fails in a way that may pass, for at most `limit` in all.
///
/// # Errors
/// The last failure.
pub async fn persist<T, E, F: Future<Output = Result<T, E>>>(
    limit: Duration,
    is_transient: impl Fn(&E) -> bool,
    mut attempt: impl FnMut() -> F,
) -> Result<T, E> {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(50);
    loop {
        match attempt().await {
            Err(error) if is_transient(&error) && Instant::now() + pause < deadline => {
                tokio::time::sleep(pause + pause.mul_f64(fastrand::f64() / 2.0)).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
            outcome => return outcome,
        }
    }
}
