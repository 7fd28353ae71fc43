//! What the simulator says was true, against what the daemon recorded.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use refwatch::core::job::JobStatus;
use refwatch::core::time::Timestamp;
use refwatch::record::{Filter, RecordReader, TransitionRow};

use crate::process::json;

pub(crate) fn transitions(record: &Path) -> Vec<TransitionRow> {
    // Until the daemon has made it there is no record, and so nothing in it.
    RecordReader::new(record).transitions(&Filter::default()).unwrap_or_default()
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
        seen.entry(row.import_job_id.clone()).or_default().push(row);
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
        let had: Vec<&String> =
            truth.iter().take_while(|(_, since)| *since <= seen).map(|(status, _)| status).collect();
        // The answer was made up to a request's time before it was taken in.
        assert!(had.iter().rev().take(2).any(|status| **status == row.to_status), "{row:?} against {truth:?}");
        assert_eq!(row.anomaly, None);
        last = Some(row.to_status.clone());
    }
    assert_eq!(last.as_ref(), truth.last().map(|(status, _)| status));
}
