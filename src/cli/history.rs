//! `refwatch history`: prints the transitions in the database, whether the daemon runs or not.

use std::path::{Path, PathBuf};

use super::exit::{Failure, load, print, print_note};
use super::{table, terminal};
use crate::clock::Clock;
use crate::core::job::JobKey;
use crate::core::sanitize::{Sanitized, excerpt};
use crate::core::time::{Timestamp, parse_duration};
use crate::core::transition::{Anomaly, Transition};
use crate::database::{DatabaseReader, Filter, Row};

/// In characters. Longer text is cut in the table; `--json` has all of it.
const CELL_LENGTH_MAX: usize = 200;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this job; KIND/STORE/JOB if it is not a reference import
    #[arg(value_name = "[KIND/]STORE/JOB")]
    job: Option<JobKey>,
    /// A JSON array of objects, with the database's column names
    #[arg(long)]
    json: bool,
    /// Only transitions observed since then: a duration ago (7d, 12h) or an RFC 3339 time
    #[arg(long, value_name = "D", value_parser = |text: &str| parse_since(text, Clock::system().now().wall))]
    since: Option<Timestamp>,
    /// Read this database, not the one that the configuration names
    #[arg(long, value_name = "FILE")]
    database: Option<PathBuf>,
}

fn parse_since(text: &str, now: Timestamp) -> Result<Timestamp, &'static str> {
    if let Ok(ago) = parse_duration(text) {
        return Ok(now.checked_sub(ago).unwrap_or(Timestamp::MIN));
    }
    text.parse().map_err(|_| "must be a duration (7d, 12h 30min) or an RFC 3339 time (2026-01-31T12:00:00Z)")
}

/// # Errors
/// Returns an error if the database cannot be read or standard output cannot be written.
pub async fn run(config: &Path, args: Args) -> Result<(), Failure> {
    let database = match args.database {
        Some(database) => database,
        None => load(config)?.config.database.path,
    };
    let filter = Filter { since: args.since, ..args.job.map(Filter::of_job).unwrap_or_default() };
    let read = tokio::task::spawn_blocking(move || DatabaseReader::new(&database).rows::<Transition>(&filter));
    let rows = read.await.map_err(Failure::running)?.map_err(Failure::running)?;
    if rows.is_empty() {
        print_note("no transition matches");
    }
    print(if args.json { json(&rows)? } else { table(&rows, terminal::width()) })
}

/// One line per transition, and AWS's message under it. Untrusted text is sanitized.
#[must_use]
pub fn table(rows: &[Row<Transition>], width: usize) -> String {
    if rows.is_empty() {
        return String::new();
    }
    table::lines(["OBSERVED AT", "JOB", "STATUS"], rows.iter().map(cells), width)
}

/// The cells of a transition, and AWS's message.
fn cells(row: &Row<Transition>) -> ([String; 3], Option<String>) {
    let Transition { from, to, observed_at, status_message, anomaly, .. } = &row.value;
    let from = from.as_ref().map(|from| format!("{from} → ")).unwrap_or_default();
    let anomaly = anomaly.map(|anomaly| format!(" ({})", Anomaly::as_str(anomaly))).unwrap_or_default();
    let sanitized = |text: &str| Sanitized(&excerpt(text, CELL_LENGTH_MAX)).to_string();
    let cells = [format!("{observed_at:.3}"), row.watch_id.key.to_string(), sanitized(&format!("{from}{to}{anomaly}"))];
    (cells, status_message.as_deref().map(sanitized))
}

fn json(rows: &[Row<Transition>]) -> Result<String, Failure> {
    let json = serde_json::to_string(rows).map_err(Failure::running)?;
    Ok(format!("{}\n", Sanitized(&json)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::job::{JobStatus, WatchId};

    fn row(id: i64, value: Transition) -> Row<Transition> {
        let key = "1234567890/9876543210".parse().expect("two ids");
        Row { id, watch_id: WatchId { target: "default".into(), key }, value }
    }

    fn transition(to: &str, observed_at: &str) -> Transition {
        Transition {
            from: None,
            to: JobStatus::from(to),
            observed_at: observed_at.parse().expect("a time"),
            not_before: None,
            status_message: None,
            created_at: None,
            completed_at: None,
            anomaly: None,
            watch: None,
        }
    }

    fn rows() -> [Row<Transition>; 2] {
        let first = transition("SUBMITTED", "2026-01-31T12:00:00Z");
        let second = Transition {
            from: Some(first.to.clone()),
            not_before: Some(first.observed_at),
            status_message: Some("no such\nfile \u{1b}[31m".to_owned()),
            anomaly: Some(Anomaly::NoCompletionTime),
            ..transition("FAILED", "2026-01-31T12:00:05.25Z")
        };
        [row(1, first), row(2, second)]
    }

    #[test]
    fn the_table_has_one_sanitized_line_per_transition_and_one_per_message() {
        let expected = r"
OBSERVED AT               JOB                    STATUS
2026-01-31T12:00:00.000Z  1234567890/9876543210  SUBMITTED
2026-01-31T12:00:05.250Z  1234567890/9876543210  SUBMITTED → FAILED (no_completion_time)
   no such\u000afile \u001b[31m
";
        assert_eq!(table(&rows(), 80), &expected[1..]);
        assert_eq!(table(&[], 80), "");
        let status_message = Some("x".repeat(100_000));
        let long = Transition { status_message, ..transition("FAILED", "2026-01-31T12:00:00Z") };
        assert!(table(&[row(1, long)], usize::MAX).lines().all(|line| line.chars().count() < 300));
    }

    #[test]
    fn the_json_has_the_columns_of_the_database() {
        let shown = json(&rows()[1..]).expect("JSON");
        let expected = concat!(
            r#"[{"id":2,"target":"default","kind":"reference_import","store_id":"1234567890","job_id":"9876543210","#,
            r#""from_status":"SUBMITTED","to_status":"FAILED","observed_at":"2026-01-31T12:00:05.250Z","#,
            r#""not_before":"2026-01-31T12:00:00.000Z","status_message":"no such\nfile \u001b[31m","created_at":null,"#,
            r#""completed_at":null,"anomaly":"no_completion_time","region":null,"watch":null,"labels":null}]"#,
            "\n"
        );
        assert_eq!(shown, expected);
        assert_eq!(json(&[]).expect("JSON"), "[]\n");
    }

    #[test]
    fn since_is_a_duration_ago_or_a_time() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().expect("a time");
        let since = |text: &str| parse_since(text, now).map(|since| since.to_string());
        assert_eq!(since("7d").as_deref(), Ok("2026-01-24T12:00:00Z"));
        assert_eq!(since("1h 30min").as_deref(), Ok("2026-01-31T10:30:00Z"));
        assert_eq!(since("2026-01-30T01:00:00+01:00").as_deref(), Ok("2026-01-30T00:00:00Z"));
        assert_eq!(since("1000000 years"), Ok(Timestamp::MIN.to_string()));
        for wrong in ["", "7", "yesterday", "2026-01-30"] {
            assert!(since(wrong).expect_err(wrong).starts_with("must be a duration"), "{wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn fault_113_untrusted_text_in_history_is_sanitized(text in "(?s)(.|[\n\r\t\u{2028}\u{202e}\u{1b}]){0,20}") {
            let transition = Transition {
                from: Some(JobStatus::from(text.as_str())),
                status_message: Some(text.clone()),
                ..transition(&text, "2026-01-31T12:00:00Z")
            };
            let rows = [row(1, transition.clone()), row(2, transition)];
            let shown = table(&rows, usize::MAX);
            assert!(!shown.contains(|c: char| crate::core::sanitize::is_unsafe_to_display(c) && c != '\n'), "{shown:?}");
            assert_eq!(shown.matches('\n').count(), 5, "a header, two lines and two messages: {shown:?}");
            let parsed: serde_json::Value = serde_json::from_str(&json(&rows).expect("JSON")).expect("JSON");
            assert_eq!(parsed[0]["status_message"], text);
        }
    }
}
