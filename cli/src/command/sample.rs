//! `sample`: looks at another process of this program, for a profile of it.

use std::io::{Read as _, Write as _};
use std::str::FromStr;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command};
use jiff::Timestamp;
use tiphys_shared::process::clock;
use tiphys_shared::process::profile::{self, PERIOD, Sampler, endpoint};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::failure::Failure;
use crate::runtime;

/// Not for users: a process that is asked for a profile starts it, see [`endpoint`].
pub(super) fn command() -> Command {
    Command::new(endpoint::COMMAND)
        .hide(true)
        .about("Look at a process, and write a profile of it")
        .arg(Arg::new("pid").required(true).help("The process"))
        .arg(Arg::new("seconds").required(true).help("How long to look at it"))
}

pub(super) fn run(given: &ArgMatches) -> Result<(), Failure> {
    let (pid, time) = (number::<i32>(given, "pid")?, Duration::from_secs(number(given, "seconds")?));
    // Whoever started this says so when the kernel lets it look.
    std::io::stdin()
        .read_to_end(&mut Vec::new())
        .map_err(|error| Failure::because("cannot wait for permission", &error))?;
    let failed = |error: profile::Error| {
        let failure = Failure::because("cannot take a profile", &error);
        match error.is_denied() {
            true => failure.remedy(
                "allow ptrace between processes of one user: the seccomp profile of the pod, or kernel.yama.ptrace_scope of \
                 the node, forbids it",
            ),
            false => failure,
        }
    };
    runtime::run(1, async move |stop| {
        let mut sampler = Sampler::new(pid).map_err(failed)?;
        let began =
            Duration::try_from(clock::now().duration_since(Timestamp::UNIX_EPOCH)).unwrap_or_default();
        let start = Instant::now();
        let mut looks = interval(PERIOD);
        looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let end = sleep_until(start + time);
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => break,
                () = stop.cancelled() => break,
                _ = looks.tick() => sampler.look().map_err(failed)?,
            }
        }
        let packed = profile::pack(&sampler.profile(began, start.elapsed())).map_err(failed)?;
        std::io::stdout()
            .write_all(&packed)
            .map_err(|error| Failure::because("cannot write the profile", &error))
    })
}

fn number<T: FromStr>(given: &ArgMatches, name: &str) -> Result<T, Failure> {
    let text = given.get_raw(name).and_then(|mut values| values.next()?.to_str());
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| Failure::usage(format!("{name} must be a whole number")))
}
