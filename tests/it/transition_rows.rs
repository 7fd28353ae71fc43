//! Rows of the table `transitions`, compared with the simulator's timelines and with the daemon's log.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use refwatch::core::job::JobStatus;
use refwatch::core::time::Timestamp;
use refwatch::core::transition::{Anomaly, Transition};
use refwatch::database::{DatabaseReader, Filter, Row};

use crate::process::json;

/// Upper bound for a request on a busy machine. The status may change during the request.
const REQUEST: Duration = Duration::from_secs(5);

/// A row of the table `transitions`, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TransitionRow {
    pub(crate) id: i64,
    pub(crate) target: String,
    pub(crate) job_id: String,
    pub(crate) from_status: Option<String>,
    pub(crate) to_status: String,
    pub(crate) observed_at: String,
    pub(crate) not_before: Option<String>,
    pub(crate) created_at: Option<String>,
    pub(crate) completed_at: Option<String>,
    pub(crate) anomaly: Option<String>,
}

impl From<Row<Transition>> for TransitionRow {
    fn from(Row { id, target_job, value }: Row<Transition>) -> Self {
        Self {
            id,
            target: target_job.target.to_string(),
            job_id: target_job.key.job.to_string(),
            from_status: value.from.map(|from| from.to_string()),
            to_status: value.to.to_string(),
            observed_at: format!("{:.3}", value.observed_at),
            not_before: value.not_before.map(|at| format!("{at:.3}")),
            created_at: value.created_at.map(|at| at.to_string()),
            completed_at: value.completed_at.map(|at| at.to_string()),
            anomaly: value.anomaly.map(|anomaly| Anomaly::as_str(anomaly).to_owned()),
        }
    }
}

/// The transitions in a database; empty while it does not exist.
pub(crate) fn transitions(database: &Path) -> Vec<TransitionRow> {
    let rows = DatabaseReader::new(database).rows(&Filter::default()).unwrap_or_default();
    rows.into_iter().map(TransitionRow::from).collect()
}

pub(crate) fn ended(rows: &[TransitionRow]) -> usize {
    rows.iter().filter(|row| JobStatus::from(row.to_status.as_str()).is_terminal()).count()
}

/// The simulator's timelines: for each job its statuses and the times from which they hold.
pub(crate) fn timelines(simulator: SocketAddr) -> BTreeMap<String, Vec<(String, Timestamp)>> {
    let jobs = json(simulator, "/-/jobs");
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    jobs.as_array()
        .expect("an array")
        .iter()
        .map(|job| {
            let timeline = job["timeline"].as_array().expect("a timeline").iter();
            let timeline = timeline.map(|at| (text(&at["status"]), text(&at["at"]).parse().expect("a time")));
            (text(&job["id"]), timeline.collect())
        })
        .collect()
}

/// Checks that every job was observed, and that its rows form a chain, match its timeline and lead to its end.
#[track_caller]
pub(crate) fn assert_matches_simulator(rows: Vec<TransitionRow>, simulator: SocketAddr) {
    assert_matches_timelines(rows, &timelines(simulator));
}

/// Like [`assert_matches_simulator`], with timelines requested earlier.
#[track_caller]
pub(crate) fn assert_matches_timelines(
    rows: Vec<TransitionRow>,
    timelines: &BTreeMap<String, Vec<(String, Timestamp)>>,
) {
    let mut observed: BTreeMap<String, Vec<TransitionRow>> = BTreeMap::new();
    for row in rows {
        observed.entry(row.job_id.clone()).or_default().push(row);
    }
    assert_eq!(observed.keys().collect::<Vec<_>>(), timelines.keys().collect::<Vec<_>>());
    for (job, rows) in &observed {
        assert_job_matches(rows, &timelines[job]);
    }
}

/// Checks the rows of one job.
fn assert_job_matches(rows: &[TransitionRow], timelines: &[(String, Timestamp)]) {
    let mut last = None;
    for row in rows {
        assert_eq!(row.from_status, last, "{rows:#?}");
        let observed: Timestamp = row.observed_at.parse().expect("a time");
        let reached = timelines.iter().take_while(|(_, since)| *since <= observed).count();
        // The response was produced up to [`REQUEST`] earlier.
        let earliest = observed - REQUEST;
        let was_current = |index: usize| index + 2 >= reached || timelines[index + 1].1 >= earliest;
        let matches_timeline = (0..reached).any(|index| timelines[index].0 == row.to_status && was_current(index));
        assert!(matches_timeline, "{row:?} does not match {timelines:?}");
        assert_eq!(row.anomaly, None);
        last = Some(row.to_status.clone());
    }
    assert_eq!(last.as_ref(), timelines.last().map(|(status, _)| status));
}

/// A transition in the log.
#[derive(Debug)]
struct LoggedTransition<'a> {
    job: &'a str,
    from: Option<&'a str>,
    to: &'a str,
    observed_at: &'a str,
}

impl<'a> LoggedTransition<'a> {
    /// `None` for lines of other events.
    fn read(line: &'a str) -> Option<Self> {
        let field = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        let expected = |name: &str| field(name).unwrap_or_else(|| panic!("{name} in {line}"));
        line.contains("event=\"transition\"").then(|| Self {
            job: expected("job_id"),
            from: field("from_status"),
            to: expected("to_status"),
            observed_at: expected("observed_at"),
        })
    }

    fn is(&self, row: &TransitionRow) -> bool {
        let Self { job, from, to, observed_at } = *self;
        job == row.job_id && from == row.from_status.as_deref() && to == row.to_status && observed_at == row.observed_at
    }
}

/// Checks that each logged transition has exactly one row, that a job's transitions are in order, and that its rows form a chain.
/// Returns the number of logged transitions.
#[track_caller]
pub(crate) fn assert_log_matches(rows: &[TransitionRow], log: &str, context: &str) -> usize {
    let mut last: BTreeMap<&str, &str> = BTreeMap::new();
    for row in rows {
        let previous = last.insert(&row.job_id, &row.to_status);
        assert_eq!(row.from_status.as_deref(), previous, "{row:?}: {context}");
        assert_ne!(previous, Some(&*row.to_status), "duplicate: {row:?}: {context}");
    }
    // A kill may cut off the last line.
    let whole = log.rfind('\n').map_or("", |end| &log[..end]);
    let logged: Vec<LoggedTransition<'_>> = whole.lines().filter_map(LoggedTransition::read).collect();
    let mut positions: BTreeMap<&str, usize> = BTreeMap::new();
    for line in &logged {
        let matches: Vec<usize> = (0..rows.len()).filter(|&index| line.is(&rows[index])).collect();
        assert_eq!(matches.len(), 1, "number of rows for {line:?}: {context}\n{log}");
        let previous = positions.insert(line.job, matches[0]);
        assert!(previous.is_none_or(|previous| previous < matches[0]), "{line:?} is out of order: {context}\n{log}");
    }
    logged.len()
}
