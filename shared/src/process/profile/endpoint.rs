//! Profiles over HTTP, under the paths that Go's programs have them at.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;

use crate::process::admin::{Page, Pages, Query};

/// The command of this program that looks at another process: `COMMAND PID SECONDS`. It waits for the end of its input, and
/// writes the profile as its output.
pub const COMMAND: &str = "sample";
/// How long a profile takes if nobody says how long.
const DEFAULT: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(120);
/// How much longer whoever looks may take.
const GRACE: Duration = Duration::from_secs(30);
/// What of its complaint is passed on, in bytes.
const COMPLAINT: u64 = 2048;

const INDEX: &str = "\
/debug/pprof/profile?seconds=30   where the processors' time goes, for go tool pprof

There are no other profiles.
";
/// What Go's programs have besides.
const OTHERS: [&str; 9] = [
    "/debug/pprof/allocs",
    "/debug/pprof/block",
    "/debug/pprof/cmdline",
    "/debug/pprof/goroutine",
    "/debug/pprof/heap",
    "/debug/pprof/mutex",
    "/debug/pprof/symbol",
    "/debug/pprof/threadcreate",
    "/debug/pprof/trace",
];

/// The pages: an index, the profile, and a word about what there is not.
pub fn pages() -> Pages {
    let turn = Arc::new(Semaphore::new(1));
    let index = || Page::text(StatusCode::OK, INDEX);
    let pages = Pages::new().page("/debug/pprof/", index).page("/debug/pprof", index);
    let pages = OTHERS.into_iter().fold(pages, |pages, path| {
        pages.page(path, || {
            Page::text(StatusCode::NOT_FOUND, "this is no Go program: only /debug/pprof/profile is here\n")
        })
    });
    pages.async_page("/debug/pprof/profile", move |query| {
        let seconds = seconds(query);
        let turn = Arc::clone(&turn);
        async move {
            let Ok(seconds) = seconds else {
                let longest = LONGEST.as_secs();
                return Page::text(
                    StatusCode::BAD_REQUEST,
                    format!("seconds must be a whole number from 1 to {longest}\n"),
                );
            };
            let Ok(_turn) = turn.try_acquire() else {
                return Page::text(
                    StatusCode::CONFLICT,
                    "a profile is being taken already: try again when it is done\n",
                );
            };
            take(seconds).await.unwrap_or_else(|reason| {
                tracing::warn!(reason, "no profile could be taken");
                Page::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{reason}\n"))
            })
        }
    })
}

fn seconds(query: &Query<'_>) -> Result<Duration, ()> {
    let Some(given) = query.value("seconds") else { return Ok(DEFAULT) };
    let given = Duration::from_secs(given.parse().map_err(drop)?);
    (given >= Duration::from_secs(1) && given <= LONGEST).then_some(given).ok_or(())
}

/// Has this process looked at. Whoever does it ends with the future.
async fn take(time: Duration) -> Result<Page, String> {
    tracing::info!(seconds = time.as_secs(), "a profile is taken");
    let mut child = Command::new("/proc/self/exe")
        // By its own name a program may have other commands.
        .arg0("tiphys")
        .args([COMMAND, &std::process::id().to_string(), &time.as_secs().to_string()])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("cannot start another process to look at this one: {error}"))?;
    let _admitted = Admitted::new(&child).map_err(|error| format!("cannot let a process look: {error}"))?;
    // Now it may begin.
    drop(child.stdin.take());
    match tokio::time::timeout(time + GRACE, outcome(&mut child)).await {
        Err(_) => Err("whoever looked at this process did not come to an end".to_owned()),
        Ok(Err(error)) => Err(format!("cannot read the profile: {error}")),
        Ok(Ok(outcome)) => outcome.map(|body| Page {
            status: StatusCode::OK,
            content_type: "application/octet-stream",
            body: Bytes::from(body),
        }),
    }
}

/// The profile, or the complaint.
async fn outcome(child: &mut Child) -> std::io::Result<Result<Vec<u8>, String>> {
    let (mut profile, mut complaint) = (Vec::new(), Vec::new());
    let (mut output, mut errors) = (child.stdout.take(), child.stderr.take());
    let all = async {
        if let Some(output) = &mut output {
            output.read_to_end(&mut profile).await?;
        }
        Ok::<_, std::io::Error>(())
    };
    let some = async {
        if let Some(errors) = &mut errors {
            errors.take(COMPLAINT).read_to_end(&mut complaint).await?;
        }
        Ok(())
    };
    tokio::try_join!(all, some)?;
    if child.wait().await?.success() {
        Ok(Ok(profile))
    } else {
        Ok(Err(String::from_utf8_lossy(&complaint).trim().to_owned()))
    }
}

/// Lets a process look at this one, where the kernel (Yama) has only parents look at their children. Ends when dropped.
struct Admitted;

impl Admitted {
    #[cfg(target_os = "linux")]
    fn new(child: &Child) -> std::io::Result<Self> {
        use rustix::process::{PTracer, Pid, set_ptracer};

        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let Some(pid) = pid else { return Ok(Self) };
        match set_ptracer(PTracer::ProcessID(pid)) {
            // Without Yama there is nothing to allow.
            Ok(()) | Err(rustix::io::Errno::INVAL) => Ok(Self),
            Err(errno) => Err(errno.into()),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn new(_: &Child) -> std::io::Result<Self> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

#[cfg(target_os = "linux")]
impl Drop for Admitted {
    fn drop(&mut self) {
        use rustix::process::{PTracer, set_ptracer};

        if let Err(error) = set_ptracer(PTracer::None)
            && error != rustix::io::Errno::INVAL
        {
            tracing::warn!(%error, "cannot withdraw a process's permission to look");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_bounded() {
        let given = |query| seconds(&Query::new(Some(query))).map(|time| time.as_secs());
        assert_eq!(seconds(&Query::new(None)), Ok(DEFAULT));
        assert_eq!((given("seconds=1"), given("x=2&seconds=120")), (Ok(1), Ok(120)));
        for wrong in [
            "seconds=0",
            "seconds=121",
            "seconds=-1",
            "seconds=1.5",
            "seconds=",
            "seconds",
            "seconds=9999999999999999999999",
        ] {
            assert_eq!(given(wrong), Err(()), "{wrong}");
        }
    }
}
