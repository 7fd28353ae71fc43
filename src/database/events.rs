//! Reads one event of a job: a transition, or the detail that the job vanished.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::changes::{OF_JOB, job_values};
use super::queries::select;
use super::tables::{Row, millisecond_text};
use crate::core::event::EventType;
use crate::core::job::{Items, TargetJob};
use crate::core::time::Timestamp;
use crate::core::transition::{ItemTransition, Transition, WatchInfo};

/// An event with everything that a notification of it contains. It never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The id of its row, in the table of transitions or of details.
    pub id: i64,
    pub target_job: TargetJob,
    pub event_type: EventType,
    /// How many times the job has had an event of this type, this event included.
    pub occurrence: u32,
    pub observed_at: Timestamp,
    /// For a vanished job, its last transition.
    pub transition: Transition,
    /// `transition.watch` without the `Option`. Its texts are empty for transitions that were saved before version 5 of the database.
    pub watch: Arc<WatchInfo>,
    /// The items of the job as they were then.
    pub items: Items,
}

/// Type, time and occurrence of an event. `type` is the new status, or `vanished` (view `events`, `migrations/6.sql`). The occurrences are
/// counted in the base tables: SQLite finds one id in the view `events` by an index, but would scan the whole view to count.
pub(super) const SELECT_EVENT: &str = "SELECT type, observed_at,
        (SELECT count(*) FROM transitions WHERE store_id = event.store_id AND job_id = event.job_id
            AND kind = event.kind AND target = event.target AND id <= event.id AND to_status = type)
        + (SELECT count(*) FROM details WHERE store_id = event.store_id AND job_id = event.job_id
            AND kind = event.kind AND target = event.target AND id <= event.id AND detail = type)
    FROM events AS event WHERE id = ?";

/// `None` if there is no such event, or it cannot be read.
pub(super) fn load_event(connection: &Connection, event_id: i64) -> rusqlite::Result<Option<Event>> {
    let columns = |row: &rusqlite::Row<'_>| -> rusqlite::Result<(String, String, u32)> { row.try_into() };
    let found =
        connection.prepare_cached(SELECT_EVENT)?.query_row([event_id], |row| Ok(columns(row).ok())).optional()?;
    let Some((event_type, observed_at, occurrence)) = found.flatten() else { return Ok(None) };
    let (event_type, Ok(observed_at)) = (EventType::from(&*event_type), observed_at.parse()) else { return Ok(None) };
    let latest_clause = "WHERE id <= ?1 AND (store_id, job_id, kind, target)
        = (SELECT store_id, job_id, kind, target FROM events WHERE id = ?1) ORDER BY id DESC";
    let Some(Row { id, target_job, value: mut transition }) =
        select::<Transition>(connection, latest_clause, [event_id], 1)?.into_iter().next()
    else {
        return Ok(None);
    };
    // An event `vanished` is in `details`, so the row is the job's last transition before the event. For any other event, another id means
    // that `select` has skipped the event's own row, because it is unreadable.
    if id != event_id && event_type != EventType::Vanished {
        return Ok(None);
    }
    let items = items(connection, &target_job, event_id, observed_at)?;
    let watch = Arc::clone(transition.watch.get_or_insert_default());
    Ok(Some(Event { id: event_id, target_job, event_type, occurrence, observed_at, transition, watch, items }))
}

/// The items of the job after the change that contains the event. The rows of items in that change have higher ids, so they are found by
/// `observed_at`, which is the same.
fn items(
    connection: &Connection,
    target_job: &TargetJob,
    event_id: i64,
    observed_at: Timestamp,
) -> rusqlite::Result<Items> {
    let clauses = format!("WHERE {OF_JOB} AND (id < ? OR observed_at = ?) ORDER BY id");
    let [store, job, kind, target] = job_values(target_job);
    let values = params![store, job, kind, target, event_id, millisecond_text(observed_at)];
    let mut items = Items::new();
    for Row { value: ItemTransition { key, to, .. }, .. } in
        select::<ItemTransition>(connection, &clauses, values, usize::MAX)?
    {
        match to {
            Some(item) => items.insert(key, item),
            None => items.remove(&key),
        };
    }
    Ok(items)
}
