//! The queue of each sink: its cursor over the rows of jobs, the events that wait for delivery, and the failed events.
//!
//! The events in the rows after a sink's cursor are added to the table `deliveries`, and the cursor moves on. A delivered event leaves
//! the table. Only the first waiting event of each job is due, so the events of a job are delivered in order.
//!
//! The task of a sink calls [`Database::step_deliveries`] repeatedly. In each step it reports the outcomes of its requests, and gets the
//! events to send next. A sink is *unavailable* if it does not respond, or responds that it cannot accept requests now. A request to an
//! unavailable sink has no outcome: its event stays due, and no rejection is counted. Each method of [`Database`] in this file is one
//! transaction of the writer.
//!
//! Columns of `deliveries`: `transition_id` is the id of the event. `attempts` counts its rejections by the receiver, and `at` is the time
//! of the last one. An event whose row cannot be read fails without a request, and counts as one rejection.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, ToSql, Transaction, named_params, params};
use serde_json::json;

use super::changes::{last_row_id, terminal_statuses};
use super::errors::ReadError;
use super::events::{self, Event};
use super::queries::DatabaseReader;
use super::tables::millisecond_text;
use super::{Database, WriterError};
use crate::core::event::{EventFilter, EventType};
use crate::core::job::JobKey;
use crate::core::time::Timestamp;

/// The clock counts as set back if the last rejection of an event is more than this in the future. The event is then due at once. Smaller
/// steps are normal: NTP corrects the clock all the time.
const CLOCK_STEP_MIN: Duration = Duration::from_mins(1);

/// Why an event of [`StepResult::unreadable`] has failed.
pub const UNREADABLE_ROW_REASON: &str = "its row in the database was deleted or cannot be read";

// The view `events` (`migrations/6.sql`) has all transitions, and the details `vanished`. The next two queries read the two tables instead:
// SQLite would scan the view for an id that comes from an outer query.

/// The numbers of waiting and failed events of a sink, when the oldest waiting event was observed, and the earliest `next_attempt_at` after
/// `?2` (now).
pub(super) const SELECT_COUNTS: &str = "SELECT waiting, failed,
        coalesce((SELECT observed_at FROM transitions WHERE id = oldest_id), (SELECT observed_at FROM details WHERE id = oldest_id)),
        next_due
    FROM (SELECT count(next_attempt_at) AS waiting, count(*) - count(next_attempt_at) AS failed,
            min(transition_id) FILTER (WHERE next_attempt_at IS NOT NULL) AS oldest_id,
            min(next_attempt_at) FILTER (WHERE next_attempt_at > ?2) AS next_due
        FROM deliveries WHERE sink = ?1)";

pub(super) const DELIVERIES_OF_JOB: &str = "SELECT sink, target,
        coalesce((SELECT to_status FROM transitions WHERE id = transition_id),
            (SELECT detail FROM details WHERE id = transition_id), ''),
        attempts, next_attempt_at IS NULL, reason
    FROM deliveries WHERE store_id = ? AND job_id = ? AND kind = ? ORDER BY sink, transition_id LIMIT ?";

/// One step of a sink: the outcomes of its requests since the last step, and the number of further events that it can send.
#[derive(Clone, Debug)]
pub struct DeliveryStep {
    pub sink: Arc<str>,
    /// The hash of the configuration that the requests used. [`DeliveryOutcome::Gone`] disables the sink only if this is unchanged.
    pub config_hash: String,
    pub filter: EventFilter,
    pub now: Timestamp,
    /// By [`Event::id`].
    pub outcomes: Vec<(i64, DeliveryOutcome)>,
    /// The ids of the events that are being sent.
    pub in_flight: BTreeSet<i64>,
    /// How many more events the sink can send now.
    pub limit: usize,
    /// How many times in a row the sink was unavailable. The due events that are not in flight are rotated by this number before `limit` is
    /// applied, so each attempt begins with another event. Otherwise the same event would always be sent first, because it stays due.
    pub rotation: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryOutcome {
    Delivered,
    /// The receiver responded with 410. The sink is disabled, unless its configuration has changed since the request. The event waits.
    Gone,
    Rejected {
        reason: String,
        /// When the event is sent again. `None`: the delivery has failed, and only a replay sends the event again.
        next_attempt_at: Option<Timestamp>,
    },
}

/// The state of a sink's queue after a step.
#[derive(Clone, Debug, Default)]
pub struct StepResult {
    /// Events to send now, at most [`DeliveryStep::limit`].
    pub due: Vec<DueEvent>,
    /// Due events that have failed in this step, because their rows were deleted or cannot be read.
    pub unreadable: usize,
    /// The earliest `next_attempt_at` after now: the caller must take a step then. It is [`DeliveryStep::now`] if an unreadable event has
    /// failed in this step, because the next event of its job may be due. Events that become due by a commit, a replay or an outcome do not
    /// count: the caller takes a step after each of these anyway. The caller may pause an unavailable sink for longer; this pause is not
    /// stored.
    pub next_due: Option<Timestamp>,
    /// The events that wait for delivery, those in flight included.
    pub waiting: u32,
    pub failed: u32,
    /// When the oldest waiting event was observed.
    pub oldest_observed_at: Option<Timestamp>,
    /// A disabled sink has no due events.
    pub disabled_at: Option<Timestamp>,
}

#[derive(Clone, Debug)]
pub struct DueEvent {
    pub event: Event,
    /// How often the event was rejected so far.
    pub rejections: u32,
}

/// Selects the events that are sent again. All conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayFilter {
    /// Empty: all jobs.
    pub jobs: Vec<JobKey>,
    /// Observed at this time or later.
    pub since: Option<Timestamp>,
    /// Only failed deliveries. The sink's filter is then ignored.
    pub failed: bool,
}

/// An event that waits for delivery, or whose delivery has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UndeliveredEvent {
    pub sink: String,
    pub target: String,
    /// The status, or `vanished`. Empty if its row was deleted.
    pub event_type: String,
    /// How often the event was rejected so far.
    pub rejections: u32,
    /// Only a replay sends it again.
    pub has_failed: bool,
    /// Why it was rejected last.
    pub reason: Option<String>,
}

impl DatabaseReader {
    /// Reads the undelivered events of a job over all targets, ordered by sink and age, at most `limit`.
    ///
    /// # Errors
    /// There is no database, its schema has another version, or it cannot be read.
    pub fn undelivered(&self, job: &JobKey, limit: usize) -> Result<Vec<UndeliveredEvent>, ReadError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.in_transaction(|connection| {
            let read = |row: &rusqlite::Row<'_>| {
                let (sink, target, event_type, rejections, has_failed, reason) = row.try_into()?;
                Ok(UndeliveredEvent { sink, target, event_type, rejections, has_failed, reason })
            };
            let values = params![job.store.as_str(), job.job.as_str(), job.kind.as_str(), limit];
            connection.prepare_cached(DELIVERIES_OF_JOB)?.query_map(values, read)?.collect()
        })
    }
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
    ) -> Result<(), WriterError> {
        self.transaction(move |transaction| synchronize(transaction, &sinks, now)).await
    }

    /// Saves the outcomes, adds new events to the queue, and returns the queue.
    ///
    /// # Errors
    /// The database cannot be written, or the writer has stopped. The step may be repeated; a rejection may then be counted twice.
    pub async fn step_deliveries(&self, step: DeliveryStep) -> Result<StepResult, WriterError> {
        self.transaction(move |transaction| step_queue(transaction, &step)).await
    }

    /// Queues past events of a sink again, and wakes the sinks. An event that still waits loses its rejections and is due at once. Returns
    /// the number of queued events.
    ///
    /// # Errors
    /// The database cannot be written, or the writer has stopped.
    pub async fn replay_deliveries(
        &self,
        sink: Arc<str>,
        filter: EventFilter,
        replay: ReplayFilter,
    ) -> Result<usize, WriterError> {
        let queued = self.transaction(move |transaction| replay_events(transaction, &sink, &filter, &replay)).await?;
        self.sink_wakeups.send_modify(|count| *count += 1);
        Ok(queued)
    }
}

fn synchronize(
    transaction: &Transaction<'_>,
    sinks: &BTreeMap<Arc<str>, String>,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let mut query = transaction.prepare("SELECT name FROM sinks")?;
    let known = query.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
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

fn step_queue(transaction: &Transaction<'_>, step: &DeliveryStep) -> rusqlite::Result<StepResult> {
    let DeliveryStep { sink, filter, now, outcomes, in_flight, limit, rotation, .. } = step;
    for (event_id, outcome) in outcomes {
        save_outcome(transaction, step, *event_id, outcome)?;
    }
    queue_new_events(transaction, sink, filter)?;
    let sql = "SELECT disabled_at FROM sinks WHERE name = ?";
    let found = transaction.prepare_cached(sql)?.query_row([sink], |row| Ok(optional_time(row, 0)));
    let disabled_at = found.optional()?.flatten();
    let limit = if disabled_at.is_some() { 0 } else { *limit };
    // More than `limit` events: those in flight are removed, then the first `rotation` of the others move to the end.
    let mut candidates = due_events(transaction, sink, *now, limit + in_flight.len() + rotation)?;
    candidates.retain(|(event_id, _)| !in_flight.contains(event_id));
    let first = rotation.checked_rem(candidates.len()).unwrap_or_default();
    candidates.rotate_left(first);
    let (mut due, mut unreadable) = (Vec::new(), 0);
    for (event_id, rejections) in candidates.into_iter().take(limit) {
        if let Some(event) = events::load_event(transaction, event_id)? {
            due.push(DueEvent { event, rejections });
        } else {
            let outcome = DeliveryOutcome::Rejected { reason: UNREADABLE_ROW_REASON.to_owned(), next_attempt_at: None };
            save_outcome(transaction, step, event_id, &outcome)?;
            unreadable += 1;
        }
    }
    let columns =
        |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, optional_time(row, 2), optional_time(row, 3)));
    let (waiting, failed, oldest_observed_at, next_due) =
        transaction.prepare_cached(SELECT_COUNTS)?.query_one(params![sink, millisecond_text(*now)], columns)?;
    let next_due = if unreadable > 0 { Some(*now) } else { next_due };
    Ok(StepResult { due, unreadable, next_due, waiting, failed, oldest_observed_at, disabled_at })
}

fn save_outcome(
    transaction: &Transaction<'_>,
    DeliveryStep { sink, config_hash, now, .. }: &DeliveryStep,
    event_id: i64,
    outcome: &DeliveryOutcome,
) -> rusqlite::Result<()> {
    let now = millisecond_text(*now);
    match outcome {
        DeliveryOutcome::Delivered => {
            let sql = "DELETE FROM deliveries WHERE sink = ? AND transition_id = ?";
            transaction.prepare_cached(sql)?.execute(params![sink, event_id])?;
        }
        DeliveryOutcome::Gone => {
            let sql = "UPDATE sinks SET disabled_at = ? WHERE name = ? AND config_hash = ? AND disabled_at IS NULL";
            transaction.prepare_cached(sql)?.execute(params![now, sink, config_hash])?;
        }
        DeliveryOutcome::Rejected { reason, next_attempt_at } => {
            let sql = "UPDATE deliveries SET attempts = attempts + 1, next_attempt_at = ?, reason = ?, at = ?
                WHERE sink = ? AND transition_id = ?";
            let next_attempt_at = next_attempt_at.map(millisecond_text);
            transaction.prepare_cached(sql)?.execute(params![next_attempt_at, reason, now, sink, event_id])?;
        }
    }
    Ok(())
}

/// Queues the events that the sink wants in the rows after its cursor, and moves the cursor to the last row. No limit is needed: a sink
/// takes a step after each commit, so these are few rows.
fn queue_new_events(transaction: &Transaction<'_>, sink: &str, filter: &EventFilter) -> rusqlite::Result<()> {
    let sql = "SELECT cursor FROM sinks WHERE name = ?";
    let cursor: Option<i64> = transaction.prepare_cached(sql)?.query_row([sink], |row| row.get(0)).optional()?;
    let last_row = last_row_id(transaction)?;
    // A reload has removed the sink, or there are no new rows.
    let Some(cursor) = cursor.filter(|cursor| *cursor < last_row) else { return Ok(()) };
    // If refwatch first sees a job after its end, and the end was before the sink was created, this first event is not queued. The texts of
    // the times differ in their number of digits, so they are compared as numbers (`julianday`). An event without a readable completion
    // time is queued.
    let condition = format!(
        "id > :cursor AND (is_first AND type IN ({}) AND julianday(completed_at)
            < (SELECT julianday(created_at) FROM sinks WHERE name = :sink)) IS NOT TRUE",
        terminal_statuses()
    );
    queue_events(transaction, sink, filter, false, &condition, named_params! { ":cursor": cursor })?;
    transaction.prepare_cached("UPDATE sinks SET cursor = ? WHERE name = ?")?.execute(params![last_row, sink])?;
    Ok(())
}

fn replay_events(
    transaction: &Transaction<'_>,
    sink: &str,
    filter: &EventFilter,
    replay: &ReplayFilter,
) -> rusqlite::Result<usize> {
    let ReplayFilter { jobs, since, failed } = replay;
    let jobs: Vec<_> = jobs.iter().map(|JobKey { kind, store, job }| format!("{kind}/{store}/{job}")).collect();
    // Rows after the cursor are queued without a replay.
    let condition = "id <= (SELECT cursor FROM sinks WHERE name = :sink)
        AND (:since IS NULL OR observed_at >= :since)
        AND (:jobs = '[]' OR kind || '/' || store_id || '/' || job_id IN (SELECT value FROM json_each(:jobs)))";
    let values = named_params! { ":since": since.map(millisecond_text), ":jobs": json!(jobs).to_string() };
    queue_events(transaction, sink, filter, *failed, condition, values)
}

/// Queues the events that match the SQL condition and the filter. With `failed`, the filter is ignored, and the delivery of the event must
/// have failed. The condition may contain `:sink` and the names in `values`. The queued events are due at once, also if the clock is set
/// back, and begin again without rejections. Returns their number.
fn queue_events(
    transaction: &Transaction<'_>,
    sink: &str,
    filter: &EventFilter,
    failed: bool,
    condition: &str,
    values: &[(&str, &dyn ToSql)],
) -> rusqlite::Result<usize> {
    let types: Vec<_> = filter.types.iter().map(EventType::as_str).collect();
    // Only `*` is special in a pattern, so the other special characters of GLOB are escaped.
    let escaped = |pattern: &String| pattern.replace('[', "[[]").replace('?', "[?]");
    let patterns: Vec<_> = filter.watches.iter().map(escaped).collect();
    let (types, patterns) = (json!(types).to_string(), json!(patterns).to_string());
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
        ":sink": sink, ":failed": failed, ":due_at_once": millisecond_text(Timestamp::UNIX_EPOCH), ":types": types, ":patterns": patterns,
    };
    transaction.prepare_cached(&sql)?.execute(&[common, values].concat()[..])
}

/// The id and rejections of the first waiting event of each job, if it is due. After the clock was set back, an event whose last rejection
/// is in the future is due at once.
fn due_events(connection: &Connection, sink: &str, now: Timestamp, limit: usize) -> rusqlite::Result<Vec<(i64, u32)>> {
    let sql =
        "SELECT transition_id, attempts FROM deliveries AS due WHERE sink = ?1 AND (next_attempt_at <= ?2 OR at > ?3)
            AND next_attempt_at IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM deliveries WHERE sink = due.sink AND store_id = due.store_id
            AND job_id = due.job_id AND kind = due.kind AND target = due.target
            AND next_attempt_at IS NOT NULL AND transition_id < due.transition_id)
        ORDER BY transition_id LIMIT ?4";
    let mut query = connection.prepare_cached(sql)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let latest_plausible_rejection = now.checked_add(CLOCK_STEP_MIN).unwrap_or(Timestamp::MAX);
    let values = params![sink, millisecond_text(now), millisecond_text(latest_plausible_rejection), limit];
    query.query_map(values, |row| row.try_into())?.collect()
}

/// `None` if the time is NULL, or is damaged.
fn optional_time(row: &rusqlite::Row<'_>, column: usize) -> Option<Timestamp> {
    row.get::<_, Option<Box<str>>>(column).ok()??.parse().ok()
}
