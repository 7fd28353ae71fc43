//! Inserts a change as rows, and deletes the rows of jobs whose retention has expired. Runs in transactions of the writer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Transaction, named_params, params_from_iter};
use tracing::warn;

use super::tables::{Stored, millisecond_text};
use crate::core::job::{JobKey, JobStatus, TargetJob};
use crate::core::time::Timestamp;
use crate::core::transition::{Change, Detail, ItemTransition, Transition};

/// Condition of the rows of one job, with the values of [`job_values`]. The columns are in the order of the indexes of [`TABLES`] and
/// `deliveries`.
pub(super) const OF_JOB: &str = "store_id = ? AND job_id = ? AND kind = ? AND target = ?";

/// The tables of changes, whose rows are numbered in one sequence.
const TABLES: [&str; 3] = [Transition::TABLE, ItemTransition::TABLE, Detail::TABLE];

/// Maximum of jobs deleted in one transaction. Not a LIMIT of the SQL, because watched jobs are filtered out after the query.
pub(super) const DELETE_BATCH_JOBS: usize = 100;

/// A condition of [`delete_ended`]'s query over `transitions AS ended`: no event of the job waits for delivery. It is true if no queued
/// event of the job waits, and if the cursor of every sink has reached two rows: `ended` (the job's last transition) and the job's last
/// detail `vanished`, if it has one. Failed deliveries do not count.
const NO_EVENT_WAITS: &str = "NOT EXISTS (SELECT 1 FROM sinks WHERE cursor < ended.id OR cursor < (
        SELECT max(id) FROM details WHERE store_id = ended.store_id AND job_id = ended.job_id
            AND kind = ended.kind AND target = ended.target AND detail = 'vanished'))
    AND NOT EXISTS (SELECT 1 FROM deliveries WHERE store_id = ended.store_id AND job_id = ended.job_id
        AND kind = ended.kind AND target = ended.target AND next_attempt_at IS NOT NULL)";

/// How long the rows of a job outlive their retention while a sink has not received an event of the job.
const UNDELIVERED_RETENTION: Duration = Duration::from_hours(30 * 24);

pub(super) fn job_values(target_job: &TargetJob) -> [&str; 4] {
    let TargetJob { target, key: JobKey { kind, store, job } } = target_job;
    [store.as_str(), job.as_str(), kind.as_str(), target]
}

/// The highest row id in all tables; 0 for an empty database.
pub(super) fn last_row_id(connection: &Connection) -> rusqlite::Result<i64> {
    let sql =
        format!("SELECT max({})", TABLES.map(|table| format!("coalesce((SELECT max(id) FROM {table}), 0)")).join(", "));
    connection.prepare_cached(&sql)?.query_one([], |row| row.get(0))
}

/// Inserts a change, unless it is stored already: an earlier commit may have reached the disk although it reported an error. `last_id`
/// is the highest row id so far. Returns the new one.
pub(super) fn insert(
    transaction: &Transaction<'_>,
    last_id: i64,
    target_job: &TargetJob,
    change: &Change,
) -> rusqlite::Result<i64> {
    let Change { transition, items, details } = change;
    // A change is stored as a whole or not at all, and callers repeat only the job's last change. So one row shows whether it is stored:
    // the last row of the change equals the job's last row in the same table, `observed_at` included.
    let is_stored = match (transition, items.last(), details.last()) {
        (_, _, Some(detail)) => is_last(transaction, target_job, detail)?,
        (_, Some(item), None) => is_last(transaction, target_job, item)?,
        (Some(transition), None, None) => is_last(transaction, target_job, transition)?,
        // An empty change has no rows.
        (None, None, None) => true,
    };
    if is_stored {
        return Ok(last_id);
    }
    let last_id = insert_all(transaction, last_id, target_job, transition.as_slice())?;
    let last_id = insert_all(transaction, last_id, target_job, items)?;
    insert_all(transaction, last_id, target_job, details)
}

/// Inserts a row for each value. Returns the new `last_id`.
fn insert_all<T: Stored>(
    transaction: &Transaction<'_>,
    last_id: i64,
    target_job: &TargetJob,
    values: &[T],
) -> rusqlite::Result<i64> {
    let mut last_id = last_id;
    for value in values {
        last_id += 1;
        let job: Vec<Value> = job_values(target_job).map(str::to_owned).map(Value::Text).into();
        let row = [vec![last_id.into()], job, value.values()].concat();
        let (table, columns, marks) = (T::TABLE, T::COLUMNS.join(", "), vec!["?"; row.len()].join(", "));
        let sql = format!("INSERT INTO {table} (id, store_id, job_id, kind, target, {columns}) VALUES ({marks})");
        transaction.prepare_cached(&sql)?.insert(params_from_iter(row))?;
    }
    Ok(last_id)
}

/// Whether the last row of the job in the table of `T` holds `value`.
fn is_last<T: Stored>(transaction: &Transaction<'_>, target_job: &TargetJob, value: &T) -> rusqlite::Result<bool> {
    let sql = format!("SELECT {} FROM {} WHERE {OF_JOB} ORDER BY id DESC LIMIT 1", T::COLUMNS.join(", "), T::TABLE);
    let mut query = transaction.prepare_cached(&sql)?;
    let read = |row: &rusqlite::Row<'_>| (0..T::COLUMNS.len()).map(|column| row.get(column)).collect();
    let last: Option<Vec<Value>> = query.query_row(job_values(target_job), read).optional()?;
    Ok(last == Some(value.values()))
}

/// The terminal statuses as a list of SQL texts.
pub(super) fn terminal_statuses() -> String {
    let terminal = JobStatus::DOCUMENTED.iter().filter(|status| status.is_terminal());
    terminal.map(|status| format!("'{status}'")).collect::<Vec<_>>().join(", ")
}

/// Deletes the rows of at most [`DELETE_BATCH_JOBS`] jobs, see [`super::Database::delete_ended_before`]. Keeps the job with the last row:
/// the id of a deleted last row would be used again, and clients that follow the rows by id would miss the new row. Returns the number of
/// jobs.
pub(super) fn delete_ended(
    transaction: &Transaction<'_>,
    cutoff: Timestamp,
    watched: &BTreeSet<Arc<TargetJob>>,
) -> rusqlite::Result<usize> {
    let mut query = transaction.prepare(&format!(
        "SELECT store_id, job_id, kind, target FROM transitions AS ended
         WHERE observed_at < :cutoff AND to_status IN ({}) AND NOT EXISTS (
             SELECT 1 FROM transitions WHERE id > ended.id AND store_id = ended.store_id
                 AND job_id = ended.job_id AND kind = ended.kind AND target = ended.target)
             AND (store_id, job_id, kind, target) NOT IN ({}) AND (observed_at < :undelivered_cutoff OR {NO_EVENT_WAITS})
         ORDER BY observed_at",
        terminal_statuses(),
        TABLES
            .map(|table| format!("SELECT store_id, job_id, kind, target FROM {table} WHERE id = :last_id"))
            .join(" UNION ALL "),
    ))?;
    let undelivered_cutoff = cutoff.checked_sub(UNDELIVERED_RETENTION).unwrap_or(Timestamp::MIN);
    let read = |row: &rusqlite::Row<'_>| Ok([row.get::<_, String>(0)?, row.get(1)?, row.get(2)?, row.get(3)?]);
    let values = named_params! {
        ":cutoff": millisecond_text(cutoff),
        ":undelivered_cutoff": millisecond_text(undelivered_cutoff),
        ":last_id": last_row_id(transaction)?,
    };
    let ended = query.query_map(values, read)?.collect::<rusqlite::Result<Vec<_>>>()?;
    let watched: BTreeSet<[&str; 4]> = watched.iter().map(|target_job| job_values(target_job)).collect();
    let unwatched = ended.iter().filter(|job| !watched.contains(&job.each_ref().map(String::as_str)));
    let jobs: Vec<&[String; 4]> = unwatched.take(DELETE_BATCH_JOBS).collect();
    let count_waiting = format!("SELECT count(next_attempt_at) FROM deliveries WHERE {OF_JOB}");
    for job in &jobs {
        let waiting: i64 = transaction.prepare_cached(&count_waiting)?.query_one(job.each_ref(), |row| row.get(0))?;
        if waiting > 0 {
            let [store_id, job_id, kind, target] = *job;
            warn!(event = "undelivered_deleted", %target, %kind, %store_id, %job_id, waiting,
                "notifications of this job were deleted before their delivery, 30 days after its retention");
        }
    }
    for table in TABLES.into_iter().chain(["deliveries"]) {
        let mut delete = transaction.prepare(&format!("DELETE FROM {table} WHERE {OF_JOB}"))?;
        for job in &jobs {
            delete.execute(job.each_ref())?;
        }
    }
    Ok(jobs.len())
}
