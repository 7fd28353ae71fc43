//! A change as rows, and how rows go in the end.

use std::collections::BTreeSet;
use std::sync::Arc;

use rusqlite::types::Value;
use rusqlite::{OptionalExtension as _, Result, Transaction, params_from_iter};

use super::chain::{self, Link};
use crate::core::job::{JobStatus, SourceStatus, WatchId};
use crate::core::time::Timestamp;
use crate::core::transition::{Anomaly, Change, Detail, SourceTransition, Transition};

/// Jobs deleted in one transaction. It bounds how long a transition waits for a deletion.
pub(super) const DELETED_JOBS_MAX: usize = 100;

/// A row, its id and hash aside: its columns in the table's order. The first three name the job.
struct Row {
    table: &'static str,
    columns: Vec<(&'static str, Value)>,
}

/// A time that refwatch took, as text that sorts as the times do. What the service said keeps all its digits instead:
/// it is compared with what the service says next.
pub(super) fn milliseconds(time: Timestamp) -> String {
    format!("{time:.3}")
}

/// Adds a change after the `last` row, unless it is there already from an attempt that failed late. Returns the last row of now.
pub(super) fn append(transaction: &Transaction<'_>, mut last: Link, id: &WatchId, change: &Change) -> Result<Link> {
    let rows = rows(id, change);
    // A change is there whole or not at all, and none that is new repeats the last of its kind: so its last row tells.
    if rows.last().map_or(Ok(true), |row| row.is_last(transaction))? {
        return Ok(last);
    }
    for row in &rows {
        let (link, hash) = last.next(row.table, row.values());
        row.insert(transaction, link.id, hash)?;
        last = link;
    }
    Ok(last)
}

/// Deletes the rows of at most [`DELETED_JOBS_MAX`] jobs whose end was seen before `instant` and that are not `watched`. Says
/// how many jobs it were.
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
    let mut deleted: Vec<(i64, i64)> = Vec::new();
    for table in chain::TABLES {
        let mut delete = transaction.prepare(&format!(
            "DELETE FROM {table} WHERE target = ? AND reference_store_id = ? AND import_job_id = ? RETURNING id, hash"
        ))?;
        for job in &jobs {
            let rows = delete.query_map(params_from_iter(*job), |row| Ok((row.get(0)?, row.get(1)?)))?;
            deleted.extend(rows.collect::<Result<Vec<_>>>()?);
        }
    }
    chain::close(transaction, &deleted)?;
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
    fn insert(&self, transaction: &Transaction<'_>, id: i64, hash: i64) -> Result<()> {
        let sql = format!("INSERT INTO {} ({}, id, hash) VALUES ({}, ?, ?)", self.table, self.names(), self.marks());
        let own = [id, hash].map(Value::from);
        transaction.prepare_cached(&sql)?.insert(params_from_iter(self.values().chain(&own)))?;
        Ok(())
    }

    /// Whether it stands as the last row of its job in its table.
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
