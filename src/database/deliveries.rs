//! The queue of each sink: its cursor over the rows of jobs, the events that wait for delivery, and the failed ones.
//!
//! A sink's events are moved from the rows after its cursor to the table `deliveries`. A delivered event leaves the table. Only the
//! first waiting event of each job is due, so the events of a job are delivered in order. Each call is one transaction of the writer.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Debug};
use std::sync::Arc;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Result, Transaction, params, params_from_iter};

use super::changes::last_row_id;
use super::events::{self, Event};
use super::tables::millisecond_text;
use super::{Database, WriterError};
use crate::core::event::EventType;
use crate::core::job::{JobKey, JobStatus};
use crate::core::time::Timestamp;

/// Rows that one call moves from the tables of jobs to the queue. It bounds how long a change of a job waits for the writer.
const MOVED_MAX: usize = 256;

/// Whether a sink wants an event. The second argument is the name of the watch, which rows of earlier versions do not have.
#[derive(Clone)]
pub struct EventFilter(Arc<SelectsEvent>);

type SelectsEvent = dyn Fn(&EventType, Option<&str>) -> bool + Send + Sync;

impl EventFilter {
    #[must_use]
    pub fn new(selects: impl Fn(&EventType, Option<&str>) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(selects))
    }
}

impl Debug for EventFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventFilter")
    }
}

/// One step of a sink: the outcomes of its requests since the last step, and the number of further events that it can send.
#[derive(Clone, Debug)]
pub struct DeliveryStep {
    pub sink: Arc<str>,
    pub filter: EventFilter,
    pub now: Timestamp,
    pub outcomes: Vec<(i64, DeliveryOutcome)>,
    /// The rows of the events that are being sent.
    pub in_flight: BTreeSet<i64>,
    pub limit: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryOutcome {
    Delivered,
    /// The event is sent again at this time.
    Retry {
        reason: String,
        next_attempt_at: Timestamp,
    },
    /// The event is not sent again, unless a user replays it.
    Failed {
        reason: String,
    },
}

/// The queue of a sink after a step.
#[derive(Clone, Debug, Default)]
pub struct SinkQueue {
    /// Events to send now, at most [`DeliveryStep::limit`].
    pub due: Vec<DueEvent>,
    /// Whether rows after the cursor were left for the next step.
    pub has_more: bool,
    /// When the next event is due that is not due now.
    pub next_due: Option<Timestamp>,
    pub waiting: u32,
    pub failed: u32,
    /// When the oldest waiting event was observed.
    pub oldest: Option<Timestamp>,
}

#[derive(Clone, Debug)]
pub struct DueEvent {
    pub event: Event,
    /// Failed attempts so far.
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
    /// row. A sink that is not named loses its queue. A disabled sink is enabled if its configuration has changed. Returns when each
    /// disabled sink was disabled.
    ///
    /// # Errors
    /// The database cannot be written, or the writer has stopped.
    pub async fn synchronize_sinks(
        &self,
        sinks: BTreeMap<Arc<str>, String>,
        now: Timestamp,
    ) -> std::result::Result<BTreeMap<Arc<str>, Timestamp>, WriterError> {
        self.transaction(move |transaction| synchronize(transaction, &sinks, now)).await
    }

    /// Saves the outcomes, moves new events to the queue, and returns the queue.
    ///
    /// # Errors
    /// The database cannot be written, or the writer has stopped. The step may be repeated.
    pub async fn step_deliveries(&self, step: DeliveryStep) -> std::result::Result<SinkQueue, WriterError> {
        self.transaction(move |transaction| advance(transaction, &step)).await
    }

    /// # Errors
    /// The database cannot be written, or the writer has stopped.
    pub async fn disable_sink(&self, sink: Arc<str>, at: Timestamp) -> std::result::Result<(), WriterError> {
        let sql = "UPDATE sinks SET disabled_at = ? WHERE name = ?";
        self.transaction(move |transaction| transaction.execute(sql, params![millisecond_text(at), sink])).await?;
        Ok(())
    }

    /// Queues past events of a sink again. Returns their number.
    ///
    /// # Errors
    /// The database cannot be written, or the writer has stopped.
    pub async fn replay_deliveries(
        &self,
        sink: Arc<str>,
        filter: EventFilter,
        replay: ReplayFilter,
        now: Timestamp,
    ) -> std::result::Result<usize, WriterError> {
        self.transaction(move |transaction| requeue(transaction, &sink, &filter, &replay, now)).await
    }
}

fn synchronize(
    transaction: &Transaction<'_>,
    sinks: &BTreeMap<Arc<str>, String>,
    now: Timestamp,
) -> Result<BTreeMap<Arc<str>, Timestamp>> {
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
    let mut query = transaction.prepare("SELECT name, disabled_at FROM sinks WHERE disabled_at IS NOT NULL")?;
    let disabled = query.query_map([], |row| Ok((row.get::<_, Box<str>>(0)?.into(), time(row, 1)?)))?;
    disabled.collect()
}

fn advance(transaction: &Transaction<'_>, step: &DeliveryStep) -> Result<SinkQueue> {
    let DeliveryStep { sink, filter, now, outcomes, in_flight, limit } = step;
    for (row, outcome) in outcomes {
        save_outcome(transaction, sink, *row, outcome, *now)?;
    }
    let has_more = move_new_events(transaction, sink, filter, *now)?;
    let mut due = Vec::new();
    for (row, attempts) in due_rows(transaction, sink, *now, limit + in_flight.len())? {
        if in_flight.contains(&row) || due.len() == *limit {
            continue;
        }
        if let Some(event) = events::load(transaction, row)? {
            due.push(DueEvent { event, attempts });
        } else {
            let reason = "its row in the database was deleted or cannot be read".to_owned();
            save_outcome(transaction, sink, row, &DeliveryOutcome::Failed { reason }, *now)?;
        }
    }
    let counts = "SELECT count(next_attempt_at), count(*) - count(next_attempt_at),
            min(CASE WHEN next_attempt_at IS NOT NULL THEN transition_id END),
            min(CASE WHEN next_attempt_at > ?2 THEN next_attempt_at END)
        FROM deliveries WHERE sink = ?1";
    let (waiting, failed, oldest, next_due) =
        transaction.prepare_cached(counts)?.query_one(params![sink, millisecond_text(*now)], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get::<_, Option<i64>>(2)?, optional_time(row, 3)?))
        })?;
    let oldest = oldest.map(|row| events::observed_at(transaction, row)).transpose()?.flatten();
    Ok(SinkQueue { due, has_more, next_due, waiting, failed, oldest })
}

fn save_outcome(
    transaction: &Transaction<'_>,
    sink: &str,
    row: i64,
    outcome: &DeliveryOutcome,
    now: Timestamp,
) -> Result<()> {
    let (reason, next_attempt_at) = match outcome {
        DeliveryOutcome::Delivered => {
            let sql = "DELETE FROM deliveries WHERE sink = ? AND transition_id = ?";
            transaction.prepare_cached(sql)?.execute(params![sink, row])?;
            return Ok(());
        }
        DeliveryOutcome::Retry { reason, next_attempt_at } => (reason, Some(millisecond_text(*next_attempt_at))),
        DeliveryOutcome::Failed { reason } => (reason, None),
    };
    let sql = "UPDATE deliveries SET attempts = attempts + 1, next_attempt_at = ?, reason = ?, at = ?
        WHERE sink = ? AND transition_id = ?";
    transaction.prepare_cached(sql)?.execute(params![next_attempt_at, reason, millisecond_text(now), sink, row])?;
    Ok(())
}

/// Moves the cursor over new rows and queues the events that the sink wants. Returns whether rows are left.
fn move_new_events(transaction: &Transaction<'_>, sink: &str, filter: &EventFilter, now: Timestamp) -> Result<bool> {
    let sql = "SELECT cursor, created_at FROM sinks WHERE name = ?";
    let columns = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, time(row, 1)?));
    // A reload may have removed the sink.
    let Some((cursor, created_at)) = transaction.prepare_cached(sql)?.query_row([sink], columns).optional()? else {
        return Ok(false);
    };
    let last_row = last_row_id(transaction)?;
    if cursor >= last_row {
        return Ok(false);
    }
    let heads = heads(transaction, "id > ?", &[cursor.into()], Some(MOVED_MAX))?;
    for head in &heads {
        // The job ended before the sink was created, and was discovered afterwards.
        let is_old = head.is_first
            && matches!(&head.event_type, EventType::Status(status) if status.is_terminal())
            && head.completed_at.is_some_and(|completed_at| completed_at < created_at);
        if !is_old && (filter.0)(&head.event_type, head.watch.as_deref()) {
            head.queue(transaction, sink, now, None)?;
        }
    }
    let has_more = heads.len() == MOVED_MAX;
    let cursor = heads.last().filter(|_| has_more).map_or(last_row, |head| head.row);
    transaction.prepare_cached("UPDATE sinks SET cursor = ? WHERE name = ?")?.execute(params![cursor, sink])?;
    Ok(has_more)
}

/// The rows and failed attempts of the first waiting event of each job, if it is due.
fn due_rows(connection: &Connection, sink: &str, now: Timestamp, limit: usize) -> Result<Vec<(i64, u32)>> {
    let sql = "SELECT transition_id, attempts FROM deliveries AS first WHERE sink = ? AND next_attempt_at <= ?
        AND NOT EXISTS (SELECT 1 FROM deliveries WHERE sink = first.sink AND store_id = first.store_id
            AND job_id = first.job_id AND kind = first.kind AND target = first.target
            AND next_attempt_at IS NOT NULL AND transition_id < first.transition_id)
        ORDER BY transition_id LIMIT ?";
    let mut query = connection.prepare_cached(sql)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    query.query_map(params![sink, millisecond_text(now), limit], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// The part of an event that a filter reads, and the columns of its job.
struct EventHead {
    row: i64,
    job: [String; 4],
    event_type: EventType,
    /// Whether it is the first observation of the job.
    is_first: bool,
    completed_at: Option<Timestamp>,
    watch: Option<String>,
}

impl EventHead {
    fn queue(&self, transaction: &Transaction<'_>, sink: &str, now: Timestamp, reason: Option<&str>) -> Result<()> {
        let [target, kind, store_id, job_id] = &self.job;
        let sql = "INSERT OR REPLACE INTO deliveries
            (sink, transition_id, target, kind, store_id, job_id, attempts, next_attempt_at, reason, at)
            VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?, NULL)";
        transaction.prepare_cached(sql)?.execute(params![
            sink,
            self.row,
            target,
            kind,
            store_id,
            job_id,
            millisecond_text(now),
            reason
        ])?;
        Ok(())
    }
}

/// The first events that match, in the order of their rows.
fn heads(connection: &Connection, condition: &str, values: &[Value], limit: Option<usize>) -> Result<Vec<EventHead>> {
    let limit = limit.map(|limit| format!("LIMIT {limit}")).unwrap_or_default();
    let sql = format!(
        "SELECT id, target, kind, store_id, job_id, to_status, from_status IS NULL, completed_at, watch
         FROM transitions WHERE {condition}
         UNION ALL
         SELECT id, target, kind, store_id, job_id, NULL, FALSE, NULL, (SELECT watch FROM transitions AS latest
             WHERE store_id = details.store_id AND job_id = details.job_id AND kind = details.kind
                 AND target = details.target AND id < details.id ORDER BY id DESC LIMIT 1)
         FROM details WHERE detail = 'vanished' AND {condition}
         ORDER BY id {limit}"
    );
    let mut query = connection.prepare_cached(&sql)?;
    let read = |row: &rusqlite::Row<'_>| {
        let status = row.get::<_, Option<Box<str>>>(5)?;
        Ok(EventHead {
            row: row.get(0)?,
            job: [row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?],
            event_type: status.map_or(EventType::Vanished, |status| EventType::Status(JobStatus::from(&*status))),
            is_first: row.get(6)?,
            // A time that cannot be parsed makes the event a new one.
            completed_at: row.get::<_, Option<Box<str>>>(7)?.and_then(|text| text.parse().ok()),
            watch: row.get(8)?,
        })
    };
    let values = values.iter().chain(values).cloned();
    query.query_map(params_from_iter(values), read)?.collect()
}

fn requeue(
    transaction: &Transaction<'_>,
    sink: &str,
    filter: &EventFilter,
    replay: &ReplayFilter,
    now: Timestamp,
) -> Result<usize> {
    let ReplayFilter { jobs, since, failed } = replay;
    let cursor: Option<i64> =
        transaction.query_row("SELECT cursor FROM sinks WHERE name = ?", [sink], |row| row.get(0)).optional()?;
    // Rows after the cursor are queued without a replay.
    let (mut condition, mut values) = ("id <= ?".to_owned(), vec![Value::Integer(cursor.unwrap_or_default())]);
    if let Some(since) = since {
        condition += " AND observed_at >= ?";
        values.push(millisecond_text(*since).into());
    }
    if *failed {
        condition += " AND id IN (SELECT transition_id FROM failed_deliveries WHERE sink = ?)";
        values.push(Value::Text(sink.to_owned()));
    }
    let is_selected = |head: &EventHead| {
        let [_, kind, store_id, job_id] = head.job.each_ref().map(String::as_str);
        jobs.is_empty()
            || jobs
                .iter()
                .any(|job| (job.kind.as_str(), job.store.as_str(), job.job.as_str()) == (kind, store_id, job_id))
    };
    let mut queued = 0;
    for head in heads(transaction, &condition, &values, None)? {
        // A failed event is sent again, even if the sink has a new filter.
        if is_selected(&head) && (*failed || (filter.0)(&head.event_type, head.watch.as_deref())) {
            head.queue(transaction, sink, now, Some("replay"))?;
            queued += 1;
        }
    }
    Ok(queued)
}

fn time(row: &rusqlite::Row<'_>, column: usize) -> Result<Timestamp> {
    optional_time(row, column).map(|time| time.unwrap_or(Timestamp::MIN))
}

/// A time that was written by this file. `None` if it is NULL or was changed by hand to another text.
fn optional_time(row: &rusqlite::Row<'_>, column: usize) -> Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<Box<str>>>(column)?.and_then(|text| text.parse().ok()))
}
