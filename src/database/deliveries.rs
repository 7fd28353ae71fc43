//! The queue of each sink: its cursor over the rows of jobs, the events that wait for delivery, and the failed ones.
//!
//! The events in the rows after a sink's cursor are added to the table `deliveries`, and the cursor moves on. A delivered event leaves
//! the table. Only the first waiting event of each job is due, so the events of a job are delivered in order. Each call is one
//! transaction of the writer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, Result, Row, ToSql, Transaction, named_params, params};
use serde_json::json;

use super::changes::{last_row_id, terminal_statuses};
use super::events::{self, Event};
use super::tables::millisecond_text;
use super::{Database, WriterError};
use crate::core::event::{EventFilter, EventType};
use crate::core::job::JobKey;
use crate::core::time::Timestamp;

/// Rows that one step moves the cursor over. It bounds how long a change of a job waits for the writer.
const ROWS_MAX: i64 = 1000;

/// One step of a sink: the outcomes of its requests since the last step, and the number of further events that it can send.
#[derive(Clone, Debug)]
pub struct DeliveryStep {
    pub sink: Arc<str>,
    pub filter: EventFilter,
    pub now: Timestamp,
    /// By [`Event::row`].
    pub outcomes: Vec<(i64, DeliveryOutcome)>,
    /// The rows of the events that are being sent.
    pub in_flight: BTreeSet<i64>,
    pub limit: usize,
    /// How many due events are passed over; past the last one, it goes on from the first. A sink that fails then tries another event.
    pub skip: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryOutcome {
    Delivered,
    Rejected {
        reason: String,
        /// When the event is sent again. `None`: the delivery has failed, and only a replay sends the event again.
        next_attempt_at: Option<Timestamp>,
    },
}

/// The queue of a sink after a step.
#[derive(Clone, Debug, Default)]
pub struct SinkQueue {
    /// Events to send now, at most [`DeliveryStep::limit`].
    pub due: Vec<DueEvent>,
    /// Whether the next step has work now: rows after the cursor are left, or an event has failed because it cannot be read, so the next
    /// event of its job may be due.
    pub has_more: bool,
    /// The earliest time at which an event becomes due after now.
    pub next_due: Option<Timestamp>,
    /// The events that wait for delivery, those in flight included.
    pub waiting: u32,
    pub failed: u32,
    /// When the oldest waiting event was observed.
    pub oldest: Option<Timestamp>,
    /// A disabled sink has no due events.
    pub disabled_at: Option<Timestamp>,
}

#[derive(Clone, Debug)]
pub struct DueEvent {
    pub event: Event,
    /// Rejected attempts so far. Attempts that paused the sink do not count.
    pub attempts: u32,
}

/// Selects the events that are sent again. All conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayFilter {
    /// Empty: all jobs.
    pub jobs: Vec<JobKey>,
    /// Observed at this time or later.
    pub since: Option<Timestamp>,
    /// Only failed deliveries.
    pub failed: bool,
}

impl Database {
    /// Makes the table of sinks equal to `sinks`, which are names and hashes of their configuration. A new sink starts after the last
    /// row. A sink that is not named loses its queue. A disabled sink is enabled if its configuration has changed.
    ///
    /// # Errors
    /// The database cannot be written, or the writer has stopped.
    pub async fn synchronize_sinks(
        &self,
        sinks: BTreeMap<Arc<str>, String>,
        now: Timestamp,
    ) -> std::result::Result<(), WriterError> {
        self.transaction(move |transaction| synchronize(transaction, &sinks, now)).await
    }

    /// Saves the outcomes, adds new events to the queue, and returns the queue.
    ///
    /// # Errors
    /// The database cannot be written, or the writer has stopped. The step may be repeated; an attempt may then be counted twice.
    pub async fn step_deliveries(&self, step: DeliveryStep) -> std::result::Result<SinkQueue, WriterError> {
        self.transaction(move |transaction| advance(transaction, &step)).await
    }

    /// Disables a sink: no event of it is due any more. Returns false if it is disabled already or has another configuration by now.
    ///
    /// # Errors
    /// The database cannot be written, or the writer has stopped.
    pub async fn disable_sink(
        &self,
        sink: Arc<str>,
        config_hash: String,
        at: Timestamp,
    ) -> std::result::Result<bool, WriterError> {
        let sql = "UPDATE sinks SET disabled_at = ? WHERE name = ? AND config_hash = ? AND disabled_at IS NULL";
        let values = (millisecond_text(at), sink, config_hash);
        Ok(self.transaction(move |transaction| transaction.execute(sql, values)).await? > 0)
    }

    /// Queues past events of a sink again, and wakes the sinks. Returns their number.
    ///
    /// # Errors
    /// The database cannot be written, or the writer has stopped.
    pub async fn replay_deliveries(
        &self,
        sink: Arc<str>,
        filter: EventFilter,
        replay: ReplayFilter,
    ) -> std::result::Result<usize, WriterError> {
        let queued = self.transaction(move |transaction| replay_events(transaction, &sink, &filter, &replay)).await?;
        self.commits.send_modify(|commits| *commits += 1);
        Ok(queued)
    }
}

fn synchronize(transaction: &Transaction<'_>, sinks: &BTreeMap<Arc<str>, String>, now: Timestamp) -> Result<()> {
    let mut query = transaction.prepare("SELECT name FROM sinks")?;
    let known = query.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>>>()?;
    for name in known.iter().filter(|name| !sinks.contains_key(name.as_str())) {
        transaction.execute("DELETE FROM deliveries WHERE sink = ?", [name])?;
        transaction.execute("DELETE FROM sinks WHERE name = ?", [name])?;
    }
    let last_row = last_row_id(transaction)?;
    for (name, config_hash) in sinks {
        transaction.execute(
            "INSERT INTO sinks (name, cursor, created_at, config_hash) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (name) DO UPDATE SET config_hash = ?4, disabled_at = NULL WHERE config_hash <> ?4",
            params![name, last_row, millisecond_text(now), config_hash],
        )?;
    }
    Ok(())
}

fn advance(transaction: &Transaction<'_>, step: &DeliveryStep) -> Result<SinkQueue> {
    let DeliveryStep { sink, filter, now, outcomes, in_flight, limit, skip } = step;
    for (row, outcome) in outcomes {
        save_outcome(transaction, sink, *row, outcome, *now)?;
    }
    let mut has_more = queue_new_events(transaction, sink, filter)?;
    let disabled_at = "SELECT disabled_at FROM sinks WHERE name = ?";
    let disabled_at = transaction.prepare_cached(disabled_at)?.query_row([sink], |row| Ok(optional_time(row, 0)));
    let disabled_at = disabled_at.optional()?.flatten();
    let limit = if disabled_at.is_some() { 0 } else { *limit };
    let mut rows = due_rows(transaction, sink, *now, limit + in_flight.len() + skip)?;
    rows.retain(|(row, _)| !in_flight.contains(row));
    let skipped = skip.checked_rem(rows.len()).unwrap_or_default();
    rows.rotate_left(skipped);
    let mut due = Vec::new();
    for (row, attempts) in rows.into_iter().take(limit) {
        if let Some(event) = events::load(transaction, row)? {
            due.push(DueEvent { event, attempts });
        } else {
            let reason = "its row in the database was deleted or cannot be read".to_owned();
            save_outcome(transaction, sink, row, &DeliveryOutcome::Rejected { reason, next_attempt_at: None }, *now)?;
            has_more = true;
        }
    }
    let sql = "SELECT count(next_attempt_at), count(*) - count(next_attempt_at),
            (SELECT observed_at FROM events WHERE id =
                (SELECT min(transition_id) FROM deliveries WHERE sink = ?1 AND next_attempt_at IS NOT NULL)),
            min(next_attempt_at) FILTER (WHERE next_attempt_at > ?2)
        FROM deliveries WHERE sink = ?1";
    let columns = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, optional_time(row, 2), optional_time(row, 3)));
    let (waiting, failed, oldest, next_due) =
        transaction.prepare_cached(sql)?.query_one(params![sink, millisecond_text(*now)], columns)?;
    Ok(SinkQueue { due, has_more, next_due, waiting, failed, oldest, disabled_at })
}

fn save_outcome(
    transaction: &Transaction<'_>,
    sink: &str,
    row: i64,
    outcome: &DeliveryOutcome,
    now: Timestamp,
) -> Result<()> {
    match outcome {
        DeliveryOutcome::Delivered => {
            let sql = "DELETE FROM deliveries WHERE sink = ? AND transition_id = ?";
            transaction.prepare_cached(sql)?.execute(params![sink, row])?;
        }
        DeliveryOutcome::Rejected { reason, next_attempt_at } => {
            let sql = "UPDATE deliveries SET attempts = attempts + 1, next_attempt_at = ?, reason = ?, at = ?
                WHERE sink = ? AND transition_id = ?";
            let next_attempt_at = next_attempt_at.map(millisecond_text);
            transaction.prepare_cached(sql)?.execute(params![
                next_attempt_at,
                reason,
                millisecond_text(now),
                sink,
                row
            ])?;
        }
    }
    Ok(())
}

/// Moves the cursor over new rows and queues the events that the sink wants. Returns whether rows are left.
fn queue_new_events(transaction: &Transaction<'_>, sink: &str, filter: &EventFilter) -> Result<bool> {
    let cursor = "SELECT cursor FROM sinks WHERE name = ?";
    let cursor: Option<i64> = transaction.prepare_cached(cursor)?.query_row([sink], |row| row.get(0)).optional()?;
    let last_row = last_row_id(transaction)?;
    // A reload may have removed the sink.
    let Some(cursor) = cursor.filter(|cursor| *cursor < last_row) else { return Ok(false) };
    let end = last_row.min(cursor + ROWS_MAX);
    // A job that ended before the sink was created is not new, although it was discovered afterwards. `julianday` makes numbers of times,
    // whose texts differ in their number of digits. A missing time makes the event a new one.
    let condition = format!(
        "id > :cursor AND id <= :end AND (is_first AND type IN ({}) AND julianday(completed_at)
            < (SELECT julianday(created_at) FROM sinks WHERE name = :sink)) IS NOT TRUE",
        terminal_statuses()
    );
    let values = named_params! { ":cursor": cursor, ":end": end, ":failed": false };
    queue_events(transaction, sink, filter, &condition, values)?;
    transaction.prepare_cached("UPDATE sinks SET cursor = ? WHERE name = ?")?.execute(params![end, sink])?;
    Ok(end < last_row)
}

fn replay_events(
    transaction: &Transaction<'_>,
    sink: &str,
    filter: &EventFilter,
    replay: &ReplayFilter,
) -> Result<usize> {
    let ReplayFilter { jobs, since, failed } = replay;
    let jobs: Vec<_> = jobs.iter().map(|JobKey { kind, store, job }| format!("{kind}/{store}/{job}")).collect();
    // Rows after the cursor are queued without a replay.
    let condition = "id <= (SELECT cursor FROM sinks WHERE name = :sink)
        AND (:since IS NULL OR observed_at >= :since)
        AND (:jobs = '[]' OR kind || '/' || store_id || '/' || job_id IN (SELECT value FROM json_each(:jobs)))";
    let values = named_params! {
        ":since": since.map(millisecond_text), ":jobs": json!(jobs).to_string(), ":failed": failed,
    };
    queue_events(transaction, sink, filter, condition, values)
}

/// Queues the events that match the SQL condition and that the filter selects. If the value `:failed` is true, queues instead those
/// that match the condition and whose delivery has failed, whatever the filter. They are due at once, also if the clock is set back.
/// Returns their number.
fn queue_events(
    transaction: &Transaction<'_>,
    sink: &str,
    filter: &EventFilter,
    condition: &str,
    values: &[(&str, &dyn ToSql)],
) -> Result<usize> {
    let types: Vec<_> = filter.types.iter().map(EventType::as_str).collect();
    // The other special characters of GLOB are escaped.
    let patterns = filter.watches.iter().map(|pattern| pattern.replace('[', "[[]").replace('?', "[?]"));
    let (types, patterns) = (json!(types).to_string(), json!(patterns.collect::<Vec<_>>()).to_string());
    let sql = format!(
        "INSERT OR REPLACE INTO deliveries
            (sink, transition_id, target, kind, store_id, job_id, attempts, next_attempt_at)
        SELECT :sink, id, target, kind, store_id, job_id, 0, :due_at_once FROM events
        WHERE {condition} AND CASE WHEN :failed
            THEN id IN (SELECT transition_id FROM failed_deliveries WHERE sink = :sink)
            ELSE type IN (SELECT value FROM json_each(:types)) AND (:patterns = '[]'
                OR EXISTS (SELECT 1 FROM json_each(:patterns) WHERE coalesce(watch, '') GLOB value)) END"
    );
    let common = named_params! {
        ":sink": sink, ":due_at_once": millisecond_text(Timestamp::UNIX_EPOCH), ":types": types, ":patterns": patterns,
    };
    transaction.prepare_cached(&sql)?.execute(&[common, values].concat()[..])
}

/// The rows and failed attempts of the first waiting event of each job, if it is due.
fn due_rows(connection: &Connection, sink: &str, now: Timestamp, limit: usize) -> Result<Vec<(i64, u32)>> {
    let sql = "SELECT transition_id, attempts FROM deliveries AS due WHERE sink = ? AND next_attempt_at <= ?
        AND NOT EXISTS (SELECT 1 FROM deliveries WHERE sink = due.sink AND store_id = due.store_id
            AND job_id = due.job_id AND kind = due.kind AND target = due.target
            AND next_attempt_at IS NOT NULL AND transition_id < due.transition_id)
        ORDER BY transition_id LIMIT ?";
    let mut query = connection.prepare_cached(sql)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    query.query_map(params![sink, millisecond_text(now), limit], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// `None` if the time is NULL, or is damaged.
fn optional_time(row: &Row<'_>, column: usize) -> Option<Timestamp> {
    row.get::<_, Option<Box<str>>>(column).ok()??.parse().ok()
}
