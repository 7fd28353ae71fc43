//! `refwatch history`: prints the transitions in the database, whether the daemon runs or not.

mod cursor;
mod output;
mod pages;

use std::io::stdout;
use std::path::{Path, PathBuf};

use super::exit::{Failure, load, print_note, print_to_reader};
use super::terminal;
use crate::clock::Clock;
use crate::core::job::{JobKey, JobStatus};
use crate::core::time::{InvalidTime, Timestamp, parse_time};
use crate::database::{DatabaseReader, Filter, ReadError, RowLimit};
use cursor::Cursor;
use pages::{FOLLOW_INTERVAL, PAGE_ROWS, Pages};

pub use output::table;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this job; KIND/STORE/JOB if it is not a reference import
    #[arg(value_name = "[KIND/]STORE/JOB")]
    job: Option<JobKey>,
    /// Only transitions observed since then: a duration ago (7d, 12h), a date (2026-01-30, in UTC) or an RFC 3339 time
    #[arg(long, value_name = "T", value_parser = time)]
    since: Option<Timestamp>,
    /// Only transitions observed before then
    #[arg(long, value_name = "T", value_parser = time, conflicts_with = "follow")]
    until: Option<Timestamp>,
    /// Only transitions to this status; several are separated by commas
    #[arg(long, value_name = "S", value_delimiter = ',', ignore_case = true, value_parser = clap::builder::PossibleValuesParser::new(JobStatus::labels()))]
    status: Vec<String>,
    /// Only the latest N transitions that match
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Go on with new transitions, each once it is committed, until Ctrl-C
    #[arg(long)]
    follow: bool,
    /// A JSON array of objects, with the database's column names; with --follow one object a line
    #[arg(long)]
    json: bool,
    /// Continue after the transition whose id is in this file, and save the last id there once its line is written. Without the file,
    /// start at the present, or with the transitions that --since and --limit select
    #[arg(long, value_name = "FILE")]
    cursor: Option<PathBuf>,
    /// Read this database, not the one that the configuration names
    #[arg(long, value_name = "FILE")]
    database: Option<PathBuf>,
}

fn time(text: &str) -> Result<Timestamp, InvalidTime> {
    parse_time(text, Clock::system().now().wall)
}

impl Args {
    fn filter(&self) -> Filter {
        let labels =
            JobStatus::labels().filter(|label| self.status.iter().any(|text| text.eq_ignore_ascii_case(label)));
        Filter {
            since: self.since,
            until: self.until,
            statuses: labels.collect(),
            limit: self.limit.map(|limit| RowLimit::Latest(limit as usize)),
            ..self.job.clone().map(Filter::of_job).unwrap_or_default()
        }
    }
}

/// # Errors
/// Returns an error if the database or the cursor cannot be read, or if standard output or the cursor cannot be written.
pub async fn run(config: &Path, args: Args) -> Result<(), Failure> {
    let database = match &args.database {
        Some(database) => database.clone(),
        None => load(config)?.config.database.path,
    };
    let cursor = args.cursor.as_deref().map(Cursor::new);
    let mut filter = args.filter();
    let reader = DatabaseReader::new(&database);
    if let Some(cursor) = &cursor {
        let starts_at_present = filter.since.is_none() && filter.limit.is_none();
        filter.after = match cursor.read()? {
            None if starts_at_present => {
                let last = pages::last_id(reader.clone()).await.map_err(Failure::running)?;
                cursor.save(last)?;
                Some(last)
            }
            position => position,
        };
        if filter.after.is_some() {
            (filter.since, filter.limit) = (None, args.follow.then_some(RowLimit::First(PAGE_ROWS)));
        }
    }
    print_pages(Pages::new(reader, filter), cursor, &args).await
}

/// Prints the transitions of the past, then with `--follow` those that are committed.
async fn print_pages(mut pages: Pages, cursor: Option<Cursor<'_>>, args: &Args) -> Result<(), Failure> {
    let (clock, width, colours) = (Clock::system(), terminal::width(), terminal::shows_colours(&stdout()));
    let (mut is_first, mut error_shown) = (true, None);
    loop {
        match pages.next().await {
            Ok((rows, position)) => {
                error_shown = None;
                if rows.is_empty() && !args.follow {
                    print_note("no transition matches");
                }
                let text = match (args.json, args.follow) {
                    (true, true) => output::json_lines(&rows)?,
                    (true, false) => output::json(&rows)?,
                    (false, _) if rows.is_empty() => String::new(),
                    (false, _) if is_first => output::lines(&rows, width, colours).text(),
                    (false, _) => output::lines(&rows, width, colours).rows.concat().join("\n") + "\n",
                };
                is_first &= rows.is_empty();
                if !print_to_reader(text)? {
                    return Ok(());
                }
                if let (Some(cursor), false) = (&cursor, rows.is_empty() && args.follow) {
                    cursor.save(position)?;
                }
                if args.follow && rows.len() == PAGE_ROWS {
                    continue;
                }
            }
            Err(error @ ReadError::UnknownRow { .. }) => {
                let cursor = cursor.as_ref().map(|cursor| format!("{cursor}: ")).unwrap_or_default();
                let advice = if cursor.is_empty() { "start again" } else { "remove the file to start at the present" };
                return Err(Failure::running(format_args!("{cursor}{error}: {advice}")));
            }
            // The daemon may restart, or restore the database.
            Err(error) if args.follow && !is_first => {
                let message = error.to_string();
                if error_shown.as_ref() != Some(&message) {
                    print_note(format_args!("warning: {message}: retrying"));
                    error_shown = Some(message);
                }
            }
            Err(error) => return Err(Failure::running(error)),
        }
        if !args.follow {
            return Ok(());
        }
        clock.sleep(FOLLOW_INTERVAL).await;
    }
}
