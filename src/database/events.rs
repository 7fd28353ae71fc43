//! Reads one event of a job: a transition, or the detail that the job vanished.

use rusqlite::{Connection, OptionalExtension as _, Result, params};

use super::changes::{OF_JOB, job_values};
use super::queries::select;
use super::tables::{Row, millisecond_text};
use crate::core::event::EventType;
use crate::core::job::{Items, WatchId};
use crate::core::time::Timestamp;
use crate::core::transition::{ItemTransition, Transition};

/// An event with everything that a notification of it contains. The same id always has the same event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The id of its row, in the table of transitions or of details.
    pub id: i64,
    pub watch_id: WatchId,
    pub event_type: EventType,
    /// How many times the job has had an event of this type, this event included.
    pub occurrence: u32,
    pub observed_at: Timestamp,
    /// For a vanished job, its last transition.
    pub transition: Transition,
    /// The items of the job as they were then.
    pub items: Items,
}

/// Type, time and occurrence of an event. The occurrences are counted in the base tables: SQLite finds one id in the view `events` by
/// an index, but would scan the whole view to count.
pub(super) const SELECT_EVENT: &str = "SELECT type, observed_at,
        (SELECT count(*) FROM transitions WHERE store_id = event.store_id AND job_id = event.job_id
            AND kind = event.kind AND target = event.target AND id <= event.id AND to_status = type)
        + (SELECT count(*) FROM details WHERE store_id = event.store_id AND job_id = event.job_id
            AND kind = event.kind AND target = event.target AND id <= event.id AND detail = type)
    FROM events AS event WHERE id = ?";

pub(super) const SELECT_OBSERVED_AT: &str = "SELECT observed_at FROM events WHERE id = ?";

/// `None` if there is no such event, or its time cannot be read.
pub(super) fn observed_at(connection: &Connection, event_id: i64) -> Result<Option<Timestamp>> {
    let mut query = connection.prepare_cached(SELECT_OBSERVED_AT)?;
    let text = query.query_row([event_id], |row| Ok(row.get::<_, String>(0).ok())).optional()?;
    Ok(text.flatten().and_then(|text| text.parse().ok()))
}

/// `None` if there is no such event, or it cannot be read.
pub(super) fn load(connection: &Connection, event_id: i64) -> Result<Option<Event>> {
    let columns = |row: &rusqlite::Row<'_>| -> Result<(String, String, u32)> { row.try_into() };
    let found =
        connection.prepare_cached(SELECT_EVENT)?.query_row([event_id], |row| Ok(columns(row).ok())).optional()?;
    let Some((event_type, observed_at, occurrence)) = found.flatten() else { return Ok(None) };
    let (event_type, Ok(observed_at)) = (EventType::from(&*event_type), observed_at.parse()) else { return Ok(None) };
    let latest = "WHERE id <= ?1 AND (store_id, job_id, kind, target)
        = (SELECT store_id, job_id, kind, target FROM events WHERE id = ?1) ORDER BY id DESC";
    let Some(Row { id, watch_id, value: transition }) = select(connection, latest, [event_id], 1)?.into_iter().next()
    else {
        return Ok(None);
    };
    // `select` has skipped the event's own row, because it is unreadable.
    if id != event_id && event_type != EventType::Vanished {
        return Ok(None);
    }
    let items = items(connection, &watch_id, event_id, observed_at)?;
    Ok(Some(Event { id: event_id, watch_id, event_type, occurrence, observed_at, transition, items }))
}

/// The items of the job after the change that contains the event. The rows of items in that change have higher ids, and the same
/// `observed_at`.
fn items(connection: &Connection, watch_id: &WatchId, event_id: i64, observed_at: Timestamp) -> Result<Items> {
    let clauses = format!("WHERE {OF_JOB} AND (id < ? OR observed_at = ?) ORDER BY id");
    let [store, job, kind, target] = job_values(watch_id);
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
