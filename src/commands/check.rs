//! `refwatch check`: says every problem of the configuration at once, each with its place, or that there is none.

mod online;

use std::fmt::Display;
use std::path::Path;

use super::{Exit, Failure, load, print};
use crate::config::Loaded;
use crate::config::watch_list::WatchList;
use crate::core::text::Printable;

/// Its arguments.
#[derive(Debug, Default, clap::Args)]
#[command(
    after_help = "Exit status: 0 no problems, and with --online all that is needed is allowed; 1 with --online, something is not; \
                  78 the configuration has a problem."
)]
pub struct Args {
    /// Ask AWS, too: who the credentials of each target are, and which operations they may call on each store
    #[arg(long)]
    online: bool,
}

/// Runs it.
///
/// # Errors
/// Every problem of the configuration, included files counted in.
pub async fn run(config: &Path, args: Args) -> Result<Exit, Failure> {
    let Loaded { config: loaded, problems } = load(config)?;
    if !problems.is_empty() {
        return Err(Failure::problems(&problems));
    }
    let WatchList { jobs, stores } = &loaded.watch_list;
    let targets = count(loaded.watch_list.targets().len(), "target");
    let jobs = count(jobs.len(), "job");
    let stores = if stores.is_empty() { String::new() } else { format!(" and {}", count(stores.len(), "store")) };
    print(format_args!("{}: {jobs}{stores} on {targets}, no problems\n", Printable(&config.to_string_lossy())))?;
    if args.online { Box::pin(online::run(&loaded)).await } else { Ok(Exit::Done) }
}

fn count(number: usize, what: &str) -> impl Display {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
