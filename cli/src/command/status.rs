//! `status` and `top`: the agents of a principal, once or all the time.

mod fleet;
mod screen;

use std::time::Duration;

use clap::{Args, Command, FromArgMatches};
use tiphys_shared::process::clock;
use tokio::time::{MissedTickBehavior, interval};

use self::fleet::{Fleet, Row};
use self::screen::{Screen, frame};
use crate::command::agents::known_agents;
use crate::failure::Failure;
use crate::operator;
use crate::operator::scrape::Source;
use crate::operator::targets::{Site, Targets};
use crate::output::{self, Format, Table};
use crate::runtime;

/// Lines of a terminal that does not tell how many it has.
const HEIGHT: usize = 25;

const EXAMPLES: &str = "\
Examples:
  tiphys status                                          by way of the API server, from the principal's pod
  tiphys status --metrics-url http://127.0.0.1:8000      from a principal that is reached directly
  tiphys status -o json | jq '.agents[] | select(.state != \"connected\")'";

#[derive(Debug, Args)]
struct Place {
    /// Page with the principal's metrics, instead of asking its pod by way of the API server
    #[arg(long, value_name = "URL")]
    metrics_url: Option<String>,
}

#[derive(Debug, Args)]
struct StatusOptions {
    #[command(flatten)]
    from: Place,
    /// Form of the answer
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

#[derive(Debug, Args)]
struct TopOptions {
    #[command(flatten)]
    from: Place,
    /// Time between two looks, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
}

pub(super) fn status_command() -> Command {
    StatusOptions::augment_args(Command::new("status"))
        .about("Show the agents of a principal: connection, lag, queues")
        .long_about(None::<&str>)
        .after_help(EXAMPLES)
}

pub(super) fn top_command() -> Command {
    TopOptions::augment_args(Command::new("top"))
        .about("Show the agents of a principal live, those that need a look first")
        .long_about(None::<&str>)
}

pub(super) fn run_status(given: &clap::ArgMatches, targets: Targets) -> Result<(), Failure> {
    let options = StatusOptions::from_arg_matches(given).map_err(Failure::Usage)?;
    operator::run(async move {
        let (source, site) = options.from.open(&targets).await?;
        let fleet = look(&source, site.as_ref(), None).await?;
        if options.output == Format::Table {
            output::line(&fleet.headline())?;
        }
        options.output.print(&fleet, || table(&fleet.agents))
    })
}

pub(super) fn run_top(given: &clap::ArgMatches, targets: Targets) -> Result<(), Failure> {
    let options = TopOptions::from_arg_matches(given).map_err(Failure::Usage)?;
    if !output::is_interactive() {
        return Err(Failure::usage("stdout is not a terminal").remedy("use `status`, or `status -o json`"));
    }
    runtime::run(1, async move |stop| {
        tokio::select! {
            failed = show(options, targets) => failed,
            // That is how one leaves it.
            () = stop.cancelled() => Ok(()),
        }
    })
}

/// Draws the fleet again and again.
async fn show(options: TopOptions, targets: Targets) -> Result<(), Failure> {
    let (mut source, mut site) = options.from.open(&targets).await?;
    let mut ticks = interval(Duration::from_secs(options.interval));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut fleet = look(&source, site.as_ref(), None).await?;
    let mut trouble = None;
    let mut screen = Screen::default();
    loop {
        let height = output::terminal_height().unwrap_or(HEIGHT);
        let frame = frame(&fleet, trouble.as_deref(), height, output::colours_on_stdout());
        output::text(&screen.draw(&frame))?;
        ticks.tick().await;
        trouble = match look(&source, site.as_ref(), Some(&fleet)).await {
            Ok(found) => {
                fleet = found;
                None
            }
            Err(failure) => {
                // A principal that was replaced is another pod.
                if let Ok(found) = options.from.open(&targets).await {
                    (source, site) = found;
                }
                Some(failure.what())
            }
        };
    }
}

impl Place {
    /// Where the figures come from, and the control plane if it is asked, too.
    async fn open(&self, targets: &Targets) -> Result<(Source, Option<Site>), Failure> {
        match self.metrics_url.as_deref().filter(|url| !url.is_empty()) {
            // Who has only the page sees what is on it.
            Some(url) => Ok((Source::at(url)?, None)),
            None => {
                let site = targets.control_plane().await?;
                Ok((Source::find(&site).await?, Some(site)))
            }
        }
    }
}

async fn look(source: &Source, site: Option<&Site>, before: Option<&Fleet>) -> Result<Fleet, Failure> {
    let samples = source.read().await?;
    let known = match site {
        Some(site) => known_agents(site).await?,
        None => Vec::new(),
    };
    Ok(Fleet::of(&samples, &known, clock::now(), before))
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&[
        "AGENT",
        "STATE",
        "MODE",
        "FOR",
        "QUEUE",
        "OLDEST",
        "LAG",
        "SENT",
        "RECEIVED",
        "PROXY",
        "CERTIFICATE",
    ]);
    for row in rows {
        table.row(row.cells());
    }
    table
}
