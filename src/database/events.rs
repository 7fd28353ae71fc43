//! Reads one event of a job: a transition, or the detail that the job vanished.

use rusqlite::{Connection, OptionalExtension as _, Result};

use super::changes::{OF_JOB, job_values};
use super::queries::select;
use super::tables::{Row, Stored, millisecond_text};
use crate::core::event::EventType;
use crate::core::job::{Sources, WatchId};
use crate::core::time::Timestamp;
use crate::core::transition::{Detail, DetailKind, SourceTransition, Transition};

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
    pub items: Sources,
}

/// `None` if there is no such row, or it cannot be read.
pub(super) fn load(connection: &Connection, row: i64) -> Result<Option<Event>> {
    if let Some(Row { watch_id, value: transition, .. }) = one::<Transition>(connection, row)? {
        let same = format!("SELECT count(*) FROM transitions WHERE {OF_JOB} AND id <= ? AND to_status = ?");
        let occurrence = count(connection, &same, &watch_id, row, transition.to.as_str())?;
        let (event_type, observed_at) = (EventType::Status(transition.to.clone()), transition.observed_at);
        let items = items(connection, &watch_id, row, observed_at)?;
        return Ok(Some(Event { row, watch_id, event_type, occurrence, observed_at, transition, items }));
    }
    let Some(Row { watch_id, value: Detail { kind: DetailKind::Vanished, observed_at, .. }, .. }) =
        one::<Detail>(connection, row)?
    else {
        return Ok(None);
    };
    let last = format!("WHERE {OF_JOB} AND id < {row} ORDER BY id DESC");
    let last = select::<Transition>(connection, &last, job_values(&watch_id), 1)?;
    let Some(Row { value: transition, .. }) = last.into_iter().next() else { return Ok(None) };
    let same = format!("SELECT count(*) FROM details WHERE {OF_JOB} AND id <= ? AND detail = ?");
    let occurrence = count(connection, &same, &watch_id, row, DetailKind::Vanished.as_str())?;
    let items = items(connection, &watch_id, row, observed_at)?;
    let event_type = EventType::Vanished;
    Ok(Some(Event { row, watch_id, event_type, occurrence, observed_at, transition, items }))
}

/// When the event was observed. `None` if there is no such row, or its time cannot be parsed.
pub(super) fn observed_at(connection: &Connection, row: i64) -> Result<Option<Timestamp>> {
    let sql =
        "SELECT observed_at FROM transitions WHERE id = ?1 UNION ALL SELECT observed_at FROM details WHERE id = ?1";
    let text: Option<String> = connection.prepare_cached(sql)?.query_row([row], |row| row.get(0)).optional()?;
    Ok(text.and_then(|text| text.parse().ok()))
}

fn one<T: Stored>(connection: &Connection, row: i64) -> Result<Option<Row<T>>> {
    Ok(select::<T>(connection, "WHERE id = ?", [row], 1)?.into_iter().next())
}

fn count(connection: &Connection, sql: &str, watch_id: &WatchId, row: i64, event_type: &str) -> Result<u32> {
    let [store, job, kind, target] = job_values(watch_id);
    let params = rusqlite::params![store, job, kind, target, row, event_type];
    connection.prepare_cached(sql)?.query_one(params, |row| row.get(0))
}

/// Replays the changes of items up to the event. The rows of one change follow each other: the transition, then the items.
fn items(connection: &Connection, watch_id: &WatchId, row: i64, observed_at: Timestamp) -> Result<Sources> {
    let clauses = format!("WHERE {OF_JOB} ORDER BY id");
    let rows = select::<SourceTransition>(connection, &clauses, job_values(watch_id), usize::MAX)?;
    let (mut items, mut last) = (Sources::new(), row);
    for Row { id, value: SourceTransition { key, to, observed_at: changed_at, .. }, .. } in rows {
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
