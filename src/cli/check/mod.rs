//! `refwatch check`: reports every problem of the configuration with its place, or that there are none.

mod online;
mod sinks;
mod warnings;

use std::path::Path;

use super::exit::{Exit, Failure, print, print_note};
use crate::config::{self, Loaded};
use crate::core::sanitize::Sanitized;
use crate::daemon::preflight;

#[derive(Debug, Default, clap::Args)]
#[command(
    after_help = "Exit status: 0 no problems, and with --online no missing permissions and no unreachable sinks; 1 with --online, a \
                  permission is missing or a sink is unreachable; 78 the configuration has a problem."
)]
pub struct Args {
    /// Also send requests to AWS: show each target's identity, and which operations it may call on each store. Connect to each sink, but
    /// send it nothing
    #[arg(long)]
    online: bool,
}

/// # Errors
/// Returns every problem of the configuration and its included files.
pub async fn run(path: &Path, args: Args) -> Result<Exit, Failure> {
    let loaded = config::load(path).map_err(|problems| Failure::problems_with_source(&problems))?;
    let Loaded { config: loaded, problems, .. } = loaded;
    if !problems.is_empty() {
        return Err(Failure::problems_with_source(&problems));
    }
    let checked = preflight(&loaded, path.to_owned()).await?;
    let targets = match loaded.watch_list.targets().len() {
        1 => "1 target".to_owned(),
        targets => format!("{targets} targets"),
    };
    let file = path.to_string_lossy();
    print(format_args!("{}: {} on {targets}, no problems\n", Sanitized(&file), loaded.watch_list))?;
    for warning in warnings::warnings(&loaded).chain(checked.readable_secrets) {
        print_note(format_args!("warning: {warning}"));
    }
    if !args.online {
        return Ok(Exit::Done);
    }
    let targets = Box::pin(online::run(&loaded)).await?;
    let sinks = sinks::run(&loaded).await?;
    Ok(if targets == Exit::Done { sinks } else { targets })
}
