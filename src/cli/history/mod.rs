//! `refwatch history`: prints the transitions in the database, whether the daemon runs or not.

mod cursor;
mod output;

use std::io::stdout;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::exit::{Failure, json_line, load, print_note, print_to_reader};
use super::{one_of, terminal};
use crate::clock::Clock;
use crate::core::job::{JobKey, JobStatus};
use crate::core::time::{InvalidTime, Timestamp, parse_time};
use crate::core::transition::Transition;
use crate::database::{DatabaseReader, Filter, ReadError, Row, RowLimit};

pub use output::table;

/// The pause before new transitions are read. A reading without new rows takes less than 1 ms.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(500);

/// Transitions that `--follow` reads at a time, about 400 kB of JSON. The cursor is saved after each reading.
const PAGE_ROWS: usize = 1000;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this job; KIND/STORE/JOB if it is not a reference import
    #[arg(value_name = "[KIND/]STORE/JOB")]
    job: Option<JobKey>,
    /// Only transitions observed since then: a duration ago (7d, 12h), a date (2026-01-30, in UTC) or an RFC 3339 time
    #[arg(long, value_name = "T", value_parser = time)]
    since: Option<Timestamp>,
    /// Only transitions observed before then
    #[arg(long, value_name = "T", value_parser = time, conflicts_with_all = ["follow", "cursor"])]
    until: Option<Timestamp>,
    /// Only transitions to this status; several are separated by commas
    #[arg(long, value_name = "S", value_delimiter = ',', ignore_case = true, value_parser = one_of(JobStatus::labels()))]
    status: Vec<&'static str>,
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

/// # Errors
/// Returns an error if the database or the cursor cannot be read, or if standard output or the cursor cannot be written.
pub async fn run(config: &Path, args: Args) -> Result<(), Failure> {
    let database = match &args.database {
        Some(database) => database.clone(),
        None => load(config)?.config.database.path,
    };
    let mut filter = Filter {
        since: args.since,
        until: args.until,
        statuses: args.status.clone(),
        limit: args.limit.map(|limit| RowLimit::Latest(limit as usize)),
        ..args.job.clone().map(Filter::of_job).unwrap_or_default()
    };
    let reader = DatabaseReader::new(&database);
    if let Some(file) = &args.cursor {
        let starts_at_present = filter.since.is_none() && filter.limit.is_none();
        filter.after = match cursor::read(file)? {
            None if starts_at_present => {
                let last = reader.last_id().map_err(Failure::running)?;
                cursor::save(file, last)?;
                Some(last)
            }
            position => position,
        };
        if filter.after.is_some() {
            (filter.since, filter.limit) = (None, args.follow.then_some(RowLimit::Oldest(PAGE_ROWS)));
        }
    }
    print_pages(&reader, filter, &args).await
}

/// Prints the transitions of the past, then with `--follow` those that are committed.
async fn print_pages(reader: &DatabaseReader, mut filter: Filter, args: &Args) -> Result<(), Failure> {
    let (clock, width, colours) = (Clock::system(), terminal::width(), terminal::shows_colours(&stdout()));
    let (mut has_read, mut has_header, mut error_shown) = (false, false, None);
    loop {
        match next_page(reader, &mut filter) {
            Ok((rows, position)) => {
                (has_read, error_shown) = (true, None);
                if rows.is_empty() && !args.follow {
                    print_note("no transition matches");
                }
                let text = match (args.json, args.follow) {
                    (true, true) => rows.iter().map(json_line).collect::<Result<String, Failure>>()?,
                    (true, false) => json_line(&rows)?,
                    (false, _) if has_header => output::lines(&rows, width, colours).body(),
                    (false, _) => output::lines(&rows, width, colours).text(),
                };
                has_header |= !rows.is_empty();
                if !print_to_reader(text)? {
                    return Ok(());
                }
                if let (Some(file), false) = (&args.cursor, rows.is_empty() && args.follow) {
                    cursor::save(file, position)?;
                }
                if args.follow && rows.len() == PAGE_ROWS {
                    continue;
                }
            }
            Err(error @ ReadError::UnknownRow { .. }) => {
                let message = match &args.cursor {
                    Some(file) => format!("{}: {error}: remove the file to start at the present", file.display()),
                    None => format!("{error}: start again"),
                };
                return Err(Failure::running(message));
            }
            // The daemon may restart, or restore the database.
            Err(error) if args.follow && has_read => {
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

/// Reads the next rows, none if there are no new ones, and the id up to which rows have been read. `filter` then selects the rows after
/// that id, so no transition is skipped or read twice. `filter.limit` is for the first page. Blocks on the disk.
fn next_page(reader: &DatabaseReader, filter: &mut Filter) -> Result<(Vec<Row<Transition>>, i64), ReadError> {
    // Read first: rows that are committed after this reading have higher ids.
    let last = reader.last_id()?;
    let rows = if filter.after == Some(last) { Vec::new() } else { reader.rows::<Transition>(filter)? };
    let is_full = matches!(filter.limit, Some(RowLimit::Oldest(limit)) if limit == rows.len());
    let position = match rows.last() {
        Some(row) if is_full => row.id,
        Some(row) => row.id.max(last),
        None => last,
    };
    filter.after = Some(position);
    filter.limit = Some(RowLimit::Oldest(PAGE_ROWS));
    Ok((rows, position))
}
