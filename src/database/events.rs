//! Reads one event of a job: a transition, or the detail that the job vanished.

use rusqlite::{Connection, OptionalExtension as _, Result};

use super::changes::{OF_JOB, job_values};
use super::queries::select;
use super::tables::{Row, millisecond_text};
use crate::core::event::EventType;
use crate::core::job::{Items, WatchId};
use crate::core::time::Timestamp;
use crate::core::transition::{ItemTransition, Transition};

/// An event with everything that a notification of it contains. The same row always has the same event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The id of its row, in the table of transitions or of details.
    pub row: i64,
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

/// `None` if there is no such event, or it cannot be read.
pub(super) fn load(connection: &Connection, row: i64) -> Result<Option<Event>> {
    let sql = "SELECT type, observed_at, (SELECT count(*) FROM events AS same WHERE store_id = event.store_id
            AND job_id = event.job_id AND kind = event.kind AND target = event.target AND type = event.type AND id <= event.id)
        FROM events AS event WHERE id = ?";
    let columns = |row: &rusqlite::Row<'_>| -> Result<(String, String, u32)> { row.try_into() };
    let found = connection.prepare_cached(sql)?.query_row([row], |row| Ok(columns(row).ok())).optional()?;
    let Some((event_type, observed_at, occurrence)) = found.flatten() else { return Ok(None) };
    let (event_type, Ok(observed_at)) = (EventType::from(&*event_type), observed_at.parse()) else { return Ok(None) };
    let latest = "WHERE id <= ?1 AND (store_id, job_id, kind, target)
        = (SELECT store_id, job_id, kind, target FROM events WHERE id = ?1) ORDER BY id DESC";
    let Some(Row { id, watch_id, value: transition }) = select(connection, latest, [row], 1)?.into_iter().next() else {
        return Ok(None);
    };
    // An unreadable row is skipped, and an earlier transition was read instead.
    if id != row && event_type != EventType::Vanished {
        return Ok(None);
    }
    let items = items(connection, &watch_id, row, observed_at)?;
    Ok(Some(Event { row, watch_id, event_type, occurrence, observed_at, transition, items }))
}

/// Replays the changes of items up to the event. The rows of one change follow each other: the transition, then the items.
fn items(connection: &Connection, watch_id: &WatchId, row: i64, observed_at: Timestamp) -> Result<Items> {
    let clauses = format!("WHERE {OF_JOB} ORDER BY id");
    let rows = select::<ItemTransition>(connection, &clauses, job_values(watch_id), usize::MAX)?;
    let (mut items, mut last) = (Items::new(), row);
    for Row { id, value: ItemTransition { key, to, observed_at: changed_at, .. }, .. } in rows {
        if id > last + 1 || (id > row && millisecond_text(changed_at) != millisecond_text(observed_at)) {
            break;
        }
        last = last.max(id);
        match to {
            Some(item) => items.insert(key, item),
            None => items.remove(&key),
        };
    }
    Ok(items)
}
