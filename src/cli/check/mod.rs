//! `refwatch check`: reports every problem of the configuration with its place, or that there are none.

mod online;

use std::path::Path;

use super::exit::{Exit, Failure, print, print_note};
use crate::config::{self, DatabaseConfig, Loaded};
use crate::core::sanitize::Sanitized;
use crate::database::{self, OpenError};
use crate::http::tls::Tls;

#[derive(Debug, Default, clap::Args)]
#[command(
    after_help = "Exit status: 0 no problems, and with --online no missing permissions; 1 with --online, a permission is missing; \
                  78 the configuration has a problem."
)]
pub struct Args {
    /// Also send requests to AWS: show each target's identity, and which operations it may call on each store
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
    loaded.http.tls.clone().map(Tls::load).transpose().map_err(|error| Failure::new(Exit::Config, error))?;
    check_database(&loaded.database)?;
    let targets = match loaded.watch_list.targets().len() {
        1 => "1 target".to_owned(),
        targets => format!("{targets} targets"),
    };
    let file = path.to_string_lossy();
    print(format_args!("{}: {} on {targets}, no problems\n", Sanitized(&file), loaded.watch_list))?;
    if let Some(warning) = loaded.http.exposure_warning() {
        print_note(format_args!("warning: {warning}"));
    }
    if args.online { Box::pin(online::run(&loaded)).await } else { Ok(Exit::Done) }
}

/// Checks the file of the database as the daemon does before it opens the file. Another user than the daemon's may not read it.
fn check_database(database: &DatabaseConfig) -> Result<(), Failure> {
    match database::inspect(&database.path) {
        Err(OpenError::MissingDirectory { .. }) if database.is_in_user_directory() => {}
        Err(error @ OpenError::SystemDenied { .. }) => print_note(format_args!("warning: not checked: {error}")),
        checked => checked.map_err(Failure::config)?,
    }
    Ok(())
}
