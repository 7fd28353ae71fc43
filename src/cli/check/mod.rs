//! `refwatch check`: reports every problem of the configuration with its place, then one summary line.

mod online;
mod report;
mod sinks;
mod warnings;

use std::path::Path;

use serde_json::json;

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
    let config = match check_files(path, &mut report).await {
        Ok(config) => config,
        Err(Failure { exit, .. }) if args.json => {
            print(report.json()?)?;
            return Ok(exit);
        }
        Err(Failure { exit: Exit::Config, message }) => {
            return Err(Failure { exit: Exit::Config, message: format!("{message}\n{}", report.summary()) });
        }
        Err(failure) => return Err(failure),
    };
    if !args.json {
        for warning in &report.warnings {
            print_note(format_args!("warning: {warning}"));
        }
    }
    if args.online {
        report.targets = Box::pin(online::run(&config)).await;
        report.sinks = sinks::run(&config).await;
        if !args.json {
            print(online::text(&report.targets) + &sinks::text(&report.sinks))?;
        }
    }
    print(if args.json { report.json()? } else { report.summary() + "\n" })?;
    Ok(if report.succeeded() { Exit::Done } else { Exit::Failed })
}

/// Checks everything but AWS.
async fn check_files(path: &Path, report: &mut Report) -> Result<Config, Failure> {
    let (config, problems) = match config::load(path) {
        Ok(Loaded { config, problems, .. }) => (Some(config), problems),
        Err(problems) => (None, problems),
    };
    report.problems = problems.0.iter().map(|problem| json!(problem)).collect();
    let Some(config) = config.filter(|_| problems.is_empty()) else {
        return Err(Failure::problems_with_source(&problems));
    };
    let checked = preflight(&config, path.to_owned()).await.map_err(|error| {
        let messages = match &error {
            PreflightError::Config(errors) => errors.clone(),
            other => vec![other.to_string()],
        };
        report.problems = messages.iter().map(|message| json!({ "message": message })).collect();
        Failure::preflight(&error)
    })?;
    report.watched = watched(&config);
    report.warnings = warnings::warnings(&config).chain(checked.readable_secret_warnings).collect();
    Ok(config)
}
