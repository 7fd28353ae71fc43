//! What the simulator says was true, and what the daemon announced, against what it recorded.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use refwatch::core::job::JobStatus;
use refwatch::core::time::Timestamp;
use refwatch::core::transition::{Anomaly, Transition};
use refwatch::database::{DatabaseReader, Filter, Row};

use crate::process::json;

/// How long a request may take where a machine has much else to do. The status may change more than once meanwhile.
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
    fn from(Row { id, job, value }: Row<Transition>) -> Self {
        Self {
            id,
            target: job.target.to_string(),
            job_id: job.key.job.to_string(),
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

/// The transitions of a database; none while it does not exist.
pub(crate) fn transitions(database: &Path) -> Vec<TransitionRow> {
    let rows = DatabaseReader::new(database).rows(&Filter::default()).unwrap_or_default();
    rows.into_iter().map(TransitionRow::from).collect()
}

pub(crate) fn ended(rows: &[TransitionRow]) -> usize {
    rows.iter().filter(|row| JobStatus::from(row.to_status.as_str()).is_terminal()).count()
}

/// What the simulator says was true: for each job, the statuses it had and since when.
pub(crate) fn truth(simulator: SocketAddr) -> BTreeMap<String, Vec<(String, Timestamp)>> {
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

/// Every job was seen, and the rows of each are a chain, lead to its true end, and say what was true when it was seen.
#[track_caller]
pub(crate) fn assert_true(rows: Vec<TransitionRow>, simulator: SocketAddr) {
    assert_true_to(rows, &truth(simulator));
}

/// As [`assert_true`], against what was asked of the simulator before.
#[track_caller]
pub(crate) fn assert_true_to(rows: Vec<TransitionRow>, truth: &BTreeMap<String, Vec<(String, Timestamp)>>) {
    let mut seen: BTreeMap<String, Vec<TransitionRow>> = BTreeMap::new();
    for row in rows {
        seen.entry(row.job_id.clone()).or_default().push(row);
    }
    assert_eq!(seen.keys().collect::<Vec<_>>(), truth.keys().collect::<Vec<_>>());
    for (job, rows) in &seen {
        assert_follows(rows, &truth[job]);
    }
}

/// The rows of one job are a chain, lead to its true end, and each says what was true when it was seen.
fn assert_follows(rows: &[TransitionRow], truth: &[(String, Timestamp)]) {
    let mut last = None;
    for row in rows {
        assert_eq!(row.from_status, last, "{rows:#?}");
        let seen: Timestamp = row.observed_at.parse().expect("a time");
        let had = truth.iter().take_while(|(_, since)| *since <= seen).count();
        // The answer was made up to a request's time before it was taken in.
        let lately = seen - REQUEST;
        let could_be_seen = |place: usize| place + 2 >= had || truth[place + 1].1 >= lately;
        let seen_truly = (0..had).any(|place| truth[place].0 == row.to_status && could_be_seen(place));
        assert!(seen_truly, "{row:?} against {truth:?}");
        assert_eq!(row.anomaly, None);
        last = Some(row.to_status.clone());
    }
    assert_eq!(last.as_ref(), truth.last().map(|(status, _)| status));
}

/// A transition as the log tells it.
#[derive(Debug)]
struct TransitionEvent<'a> {
    job: &'a str,
    from: Option<&'a str>,
    to: &'a str,
    observed_at: &'a str,
}

impl<'a> TransitionEvent<'a> {
    /// `None` where a line tells something else.
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

/// What a daemon's log tells stands in the database, each transition once and a job's in their order, and the rows of each job are a
/// chain. Returns how many were told.
#[track_caller]
pub(crate) fn assert_announced(rows: &[TransitionRow], log: &str, what: &str) -> usize {
    let mut last: BTreeMap<&str, &str> = BTreeMap::new();
    for row in rows {
        let before = last.insert(&row.job_id, &row.to_status);
        assert_eq!(row.from_status.as_deref(), before, "{row:?}: {what}");
        assert_ne!(before, Some(&*row.to_status), "doubled: {row:?}: {what}");
    }
    // A kill may cut the last line off.
    let whole = log.rfind('\n').map_or("", |end| &log[..end]);
    let announced: Vec<TransitionEvent<'_>> = whole.lines().filter_map(TransitionEvent::read).collect();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for line in &announced {
        let found: Vec<usize> = (0..rows.len()).filter(|&place| line.is(&rows[place])).collect();
        assert_eq!(found.len(), 1, "how often {line:?} is in the database: {what}\n{log}");
        let before = places.insert(line.job, found[0]);
        assert!(before.is_none_or(|before| before < found[0]), "{line:?} is out of order: {what}\n{log}");
    }
    announced.len()
}
