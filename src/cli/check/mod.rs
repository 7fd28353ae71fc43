//! `refwatch check`: says every problem of the configuration at once, each with its place, or that there is none.

mod online;

use std::path::Path;

use super::exit::{Exit, Failure, print, remark};
use crate::config::{self, Loaded};
use crate::core::sanitize::Sanitized;

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
pub async fn run(path: &Path, args: Args) -> Result<Exit, Failure> {
    let loaded = config::load(path).map_err(|problems| Failure::problems_with_source(&problems))?;
    let Loaded { config: loaded, problems, .. } = loaded;
    if !problems.is_empty() {
        return Err(Failure::problems_with_source(&problems));
    }
    let targets = match loaded.watch_list.targets().len() {
        1 => "1 target".to_owned(),
        targets => format!("{targets} targets"),
    };
    let file = path.to_string_lossy();
    print(format_args!("{}: {} on {targets}, no problems\n", Sanitized(&file), loaded.watch_list))?;
    if let Some(warning) = loaded.http.exposure_warning() {
        remark(format_args!("warning: {warning}"));
    }
    if args.online { Box::pin(online::run(&loaded)).await } else { Ok(Exit::Done) }
}
