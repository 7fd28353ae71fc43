//! Writes a change as rows, and deletes the rows of jobs that ended long ago.

use std::collections::BTreeSet;
use std::sync::Arc;

use rusqlite::types::Value;
use rusqlite::{OptionalExtension as _, Result, Transaction, params_from_iter};

use crate::core::job::{JobStatus, SourceStatus, WatchId};
use crate::core::time::Timestamp;
use crate::core::transition::{Anomaly, Change, Detail, SourceTransition, Transition};

/// The rows of one job; an index serves it. The database may hold a year of jobs that nobody watches any more.
pub(super) const JOB: &str = "reference_store_id = ? AND import_job_id = ? AND target = ?";

/// Every table with rows of jobs.
const TABLES: [&str; 3] = ["transitions", "source_transitions", "details"];

/// Jobs deleted in one transaction. It bounds how long a transition waits for a deletion.
pub(super) const DELETED_JOBS_MAX: usize = 100;

/// A row without its id. The first three columns name the job.
struct Row {
    table: &'static str,
    columns: Vec<(&'static str, Value)>,
}

/// A time of refwatch's own, as text that sorts as the times do. Times of the service keep all their digits: they are compared
/// with those in its next response.
pub(super) fn milliseconds(time: Timestamp) -> String {
    format!("{time:.3}")
}

/// The id of the last row of all tables; 0 for an empty database.
pub(super) fn last_id(transaction: &Transaction<'_>) -> Result<i64> {
    let sql =
        format!("SELECT max({})", TABLES.map(|table| format!("coalesce((SELECT max(id) FROM {table}), 0)")).join(", "));
    transaction.prepare_cached(&sql)?.query_one([], |row| row.get(0))
}

/// Adds a change after the row `last_id`, unless it is there already from an attempt that failed late. Returns the new last id.
pub(super) fn append(transaction: &Transaction<'_>, last_id: i64, id: &WatchId, change: &Change) -> Result<i64> {
    let rows = rows(id, change);
    // A change is there whole or not at all, and no new change repeats the last row of its table: its last row decides.
    if rows.last().map_or(Ok(true), |row| row.is_last(transaction))? {
        return Ok(last_id);
    }
    rows.iter().try_fold(last_id, |last_id, row| {
        row.insert(transaction, last_id + 1)?;
        Ok(last_id + 1)
    })
}

/// Deletes the rows of at most [`DELETED_JOBS_MAX`] jobs whose end was observed before `instant` and that are not `watched`.
/// Returns the number of jobs.
pub(super) fn delete_ended(
    transaction: &Transaction<'_>,
    instant: Timestamp,
    watched: &BTreeSet<Arc<WatchId>>,
) -> Result<usize> {
    let ends: Vec<_> = JobStatus::KNOWN.iter().filter(|status| status.is_terminal()).map(JobStatus::as_str).collect();
    let mut ended = transaction.prepare(&format!(
        "SELECT target, reference_store_id, import_job_id FROM transitions AS ended
         WHERE observed_at < ? AND to_status IN ('{}') AND NOT EXISTS (
             SELECT 1 FROM transitions WHERE id > ended.id AND reference_store_id = ended.reference_store_id
                 AND import_job_id = ended.import_job_id AND target = ended.target)
         ORDER BY observed_at",
        ends.join("', '")
    ))?;
    let job = |row: &rusqlite::Row<'_>| Ok([row.get::<_, String>(0)?, row.get(1)?, row.get(2)?]);
    let ended = ended.query_map([milliseconds(instant)], job)?.collect::<Result<Vec<_>>>()?;
    let watched: BTreeSet<[&str; 3]> =
        watched.iter().map(|id| [&*id.target, id.key.store.as_str(), id.key.job.as_str()]).collect();
    let unwatched = ended.iter().filter(|job| !watched.contains(&job.each_ref().map(String::as_str)));
    let jobs: Vec<&[String; 3]> = unwatched.take(DELETED_JOBS_MAX).collect();
    for table in TABLES {
        let mut delete = transaction.prepare(&format!("DELETE FROM {table} WHERE {JOB}"))?;
        for [target, store, job] in &jobs {
            delete.execute([store, job, target])?;
        }
    }
    Ok(jobs.len())
}

/// The rows of a change, in the order in which they are written.
fn rows(id: &WatchId, change: &Change) -> Vec<Row> {
    let row = |table, columns: &[(&'static str, Value)]| {
        let job = [
            ("target", text(&id.target)),
            ("reference_store_id", text(id.key.store.as_str())),
            ("import_job_id", text(id.key.job.as_str())),
        ];
        Row { table, columns: [&job, columns].concat() }
    };
    let transition = change.transition.iter().map(|transition| row("transitions", &of_transition(transition)));
    let sources = change.sources.iter().map(|source| row("source_transitions", &of_source_transition(source)));
    let details = change.details.iter().map(|detail| row("details", &of_detail(detail)));
    transition.chain(sources).chain(details).collect()
}

fn of_transition(transition: &Transition) -> [(&'static str, Value); 8] {
    let Transition { from, to, observed_at, not_before, status_message, created_at, completed_at, anomaly } =
        transition;
    [
        ("from_status", from.as_ref().map(|from| from.as_str().to_owned()).into()),
        ("to_status", text(to.as_str())),
        ("observed_at", milliseconds(*observed_at).into()),
        ("not_before", not_before.map(milliseconds).into()),
        ("status_message", status_message.clone().into()),
        ("created_at", created_at.as_ref().map(Timestamp::to_string).into()),
        ("completed_at", completed_at.as_ref().map(Timestamp::to_string).into()),
        ("anomaly", anomaly.map(|anomaly| Anomaly::as_str(anomaly).to_owned()).into()),
    ]
}

fn of_source_transition(transition: &SourceTransition) -> [(&'static str, Value); 7] {
    let SourceTransition { key, from, to, observed_at } = transition;
    [
        ("name", text(&key.name)),
        ("source_file", text(&key.source_file)),
        ("nth", i64::from(key.nth).into()),
        ("from_status", from.as_ref().map(|from| SourceStatus::as_str(from).to_owned()).into()),
        ("to_status", text(to.status.as_str())),
        ("status_message", to.status_message.as_deref().map(str::to_owned).into()),
        ("observed_at", milliseconds(*observed_at).into()),
    ]
}

fn of_detail(detail: &Detail) -> [(&'static str, Value); 3] {
    let Detail { kind, value, observed_at } = detail;
    [("kind", text(kind.as_str())), ("value", value.clone().into()), ("observed_at", milliseconds(*observed_at).into())]
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

impl Row {
    fn insert(&self, transaction: &Transaction<'_>, id: i64) -> Result<()> {
        let sql = format!("INSERT INTO {} ({}, id) VALUES ({}, ?)", self.table, self.names(), self.marks());
        transaction.prepare_cached(&sql)?.insert(params_from_iter(self.values().chain(&[Value::from(id)])))?;
        Ok(())
    }

    /// Whether it is the last row of its job in its table.
    fn is_last(&self, transaction: &Transaction<'_>) -> Result<bool> {
        let sql = format!(
            "SELECT ({}) IS ({}) FROM {} WHERE target = ?1 AND reference_store_id = ?2 AND import_job_id = ?3
             ORDER BY id DESC LIMIT 1",
            self.names(),
            self.marks(),
            self.table
        );
        let mut last = transaction.prepare_cached(&sql)?;
        let same = last.query_row(params_from_iter(self.values()), |row| row.get(0)).optional()?;
        Ok(same.unwrap_or(false))
    }

    fn names(&self) -> String {
        self.columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }

    fn marks(&self) -> String {
        (1..=self.columns.len()).map(|number| format!("?{number}")).collect::<Vec<_>>().join(", ")
    }

    fn values(&self) -> impl Iterator<Item = &Value> {
        self.columns.iter().map(|(_, value)| value)
    }
}
