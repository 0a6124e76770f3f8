//! `man`: manual pages, one per command.

use std::path::PathBuf;

use clap::{ArgMatches, Args, Command};
use clap_mangen::Man;

use crate::failure::Failure;
use crate::output;

#[derive(Debug, Args)]
struct Options {
    /// Folder that gets the pages
    #[arg(long, value_name = "FOLDER")]
    dir: PathBuf,
}

pub(super) fn command() -> Command {
    Options::augment_args(Command::new("man").about("Write the manual pages into a folder"))
}

pub(super) fn run(root: Command, command: &Command, given: &ArgMatches) -> Result<(), Failure> {
    let options: Options = super::load(command, given)?;
    let failed = |error: std::io::Error| {
        Failure::because(&format!("cannot write to {}", options.dir.display()), &error)
            .remedy("check the folder given with --dir")
    };
    std::fs::create_dir_all(&options.dir).map_err(failed)?;
    let mut root = root;
    root.build();
    let mut count = 0;
    let mut pages = vec![(root.get_name().to_owned(), root)];
    while let Some((name, command)) = pages.pop() {
        let below = command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help");
        pages.extend(below.map(|sub| (format!("{name}-{}", sub.get_name()), sub.clone())));
        let mut page = Vec::new();
        Man::new(command.display_name(name.clone())).title(name.clone()).render(&mut page).map_err(failed)?;
        std::fs::write(options.dir.join(format!("{name}.1")), page).map_err(failed)?;
        count += 1;
    }
    output::say(&format!("{count} pages are in {}", options.dir.display()));
    Ok(())
}
