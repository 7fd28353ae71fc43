//! `refwatch check`: reports every problem of the configuration with its place, then one summary line.

mod online;
mod report;
mod sinks;
mod warnings;

use std::path::Path;

use super::add::watched;
use super::exit::{Exit, Failure, print, print_note};
use crate::config::{self, Config, Loaded};
use crate::daemon::{PreflightError, preflight};
use report::Report;

#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Also send requests to AWS: show each target's identity, and which operations it may call on each store. Connect to each sink, but
    /// send it nothing
    #[arg(long)]
    online: bool,
    /// Print one JSON object: problems, warnings, and with --online the targets, their permissions and the sinks
    #[arg(long)]
    json: bool,
}

/// # Errors
/// Returns every problem of the configuration and its included files.
pub async fn run(path: &Path, args: Args) -> Result<Exit, Failure> {
    let mut report = Report::new(path);
    let Some(config) = check_files(path, &mut report, args.json).await? else {
        print(report.json()?)?;
        return Ok(Exit::Config);
    };
    if !args.json {
        for warning in &report.warnings {
            print_note(format_args!("warning: {warning}"));
        }
    }
    if args.online {
        report.targets = Box::pin(online::run(&config)).await;
        report.sinks = sinks::run(&config).await?;
        if !args.json {
            print(online::text(&report.targets) + &sinks::text(&report.sinks))?;
        }
    }
    print(if args.json { report.json()? } else { report.summary() + "\n" })?;
    Ok(if report.succeeded() { Exit::Done } else { Exit::Failed })
}

/// Checks everything but AWS. Returns `None` if there are problems and the report is printed as JSON.
async fn check_files(path: &Path, report: &mut Report, json: bool) -> Result<Option<Config>, Failure> {
    let (config, problems) = match config::load(path) {
        Ok(Loaded { config, problems, .. }) => (Some(config), problems),
        Err(problems) => (None, problems),
    };
    report.add_problems(&problems);
    let failed = |report: &Report, failure: Failure| {
        let message = format!("{}\n{}", failure.message, report.summary());
        if json { Ok(None) } else { Err(Failure { message, ..failure }) }
    };
    let Some(config) = config.filter(|_| problems.is_empty()) else {
        return failed(report, Failure::problems_with_source(&problems));
    };
    match preflight(&config, path.to_owned()).await {
        Ok(checked) => {
            report.watched = watched(&config);
            report.warnings = warnings::warnings(&config).chain(checked.readable_secrets).collect();
            Ok(Some(config))
        }
        Err(error) => {
            let failure = Failure::preflight(&error);
            let PreflightError::Config(errors) = error else { return Err(failure) };
            report.add_errors(errors);
            failed(report, failure)
        }
    }
}
