//! What the record knows of a job: its rows in the three tables, read as the one log that they are, and played again.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use rusqlite::types::Type;
use rusqlite::{Connection, Result, Row};

use super::{Jobs, Remembered};
use crate::core::job::{JobStatus, Source, SourceKey, SourceStatus, StoreId, WatchId};
use crate::core::time::Timestamp;
use crate::core::tracker::Known;
use crate::core::transition::DetailKind;

/// Every row of one job, in the order written. SQLite finds them by index: the record may hold a year of jobs that nobody watches
/// any more.
pub(super) const LOG: &str = "
SELECT * FROM (
    SELECT id, target, reference_store_id, import_job_id, observed_at, 'transition' AS kind, to_status AS value,
        status_message, created_at, completed_at, NULL AS name, NULL AS source_file, NULL AS nth FROM transitions
    UNION ALL
    SELECT id, target, reference_store_id, import_job_id, observed_at, 'source', to_status,
        status_message, NULL, NULL, name, source_file, nth FROM source_transitions
    UNION ALL
    SELECT id, target, reference_store_id, import_job_id, observed_at, kind, value,
        NULL, NULL, NULL, NULL, NULL, NULL FROM details
)
WHERE reference_store_id = ? AND import_job_id = ? AND target = ?
ORDER BY id";

/// The latest status of every job of a store: `max` picks the row that the other columns are of.
const LATEST: &str = "
SELECT import_job_id, to_status AS value, observed_at, max(id) AS id FROM transitions
WHERE reference_store_id = ? AND target = ? GROUP BY import_job_id";

/// What is known of some jobs.
pub(super) fn remembered(connection: &Connection, jobs: Jobs) -> Result<BTreeMap<Arc<WatchId>, Remembered>> {
    let jobs = match jobs {
        Jobs::These(jobs) => jobs,
        Jobs::InSight { store, ended_since } => in_sight(connection, &store, ended_since)?,
    };
    let known = jobs.into_iter().map(|id| Ok(of_job(connection, &id)?.map(|job| (id, job))));
    known.filter_map(Result::transpose).collect()
}

fn in_sight(connection: &Connection, store: &StoreId, ended_since: Timestamp) -> Result<Vec<Arc<WatchId>>> {
    let mut jobs = Vec::new();
    let mut latest = connection.prepare(LATEST)?;
    let mut rows = latest.query([store.store.as_str(), &*store.target])?;
    while let Some(row) = rows.next()? {
        if !job_status(row)?.is_terminal() || parsed::<Timestamp>(row, "observed_at")? >= ended_since {
            jobs.push(store.watch(parsed(row, "import_job_id")?));
        }
    }
    Ok(jobs)
}

fn of_job(connection: &Connection, id: &WatchId) -> Result<Option<Remembered>> {
    let mut job: Option<Remembered> = None;
    let mut sources = BTreeMap::new();
    let mut log = connection.prepare_cached(LOG)?;
    let mut rows = log.query([id.key.store.as_str(), id.key.job.as_str(), &*id.target])?;
    while let Some(row) = rows.next()? {
        let kind: Box<str> = row.get("kind")?;
        match (&*kind, &mut job) {
            ("transition", job) => play_transition(row, job)?,
            ("source", Some(job)) => sources.extend([play_source(row, &mut job.known)?]),
            (kind, Some(job)) => play_detail(row, kind, &mut job.known)?,
            // All that is seen of a job is seen with or after its first transition: somebody has deleted that one by
            // hand.
            (_, None) => {}
        }
    }
    if let Some(job) = &mut job {
        job.known.sources = sources;
    }
    Ok(job)
}

fn play_transition(row: &Row<'_>, job: &mut Option<Remembered>) -> Result<()> {
    let observed_at = parsed(row, "observed_at")?;
    let mut known = Known {
        status: job_status(row)?,
        status_message: row.get("status_message")?,
        created_at: parsed_if_there(row, "created_at")?,
        completed_at: parsed_if_there(row, "completed_at")?,
        sources: BTreeMap::new(),
        since: observed_at,
        last_seen: observed_at,
        vanished_at: None,
    };
    let mut transitions = [0; 8];
    if let Some(before) = job.take() {
        known.created_at = known.created_at.or(before.known.created_at);
        transitions = before.transitions;
    }
    transitions[known.status.index()] += 1;
    *job = Some(Remembered { known, transitions });
    Ok(())
}

fn play_source(row: &Row<'_>, known: &mut Known) -> Result<(SourceKey, Source)> {
    let key = SourceKey { name: row.get("name")?, source_file: row.get("source_file")?, nth: row.get("nth")? };
    let status = SourceStatus::from(&*row.get::<_, Box<str>>("value")?);
    let source = Source { status, status_message: row.get("status_message")? };
    known.last_seen = parsed(row, "observed_at")?;
    Ok((key, source))
}

/// A kind that this version does not know tells it nothing. A job that vanished or returned was not thereby seen to
/// have its status, so those two leave `last_seen` alone: a change must not be said to lie between narrower bounds than
/// it does.
fn play_detail(row: &Row<'_>, kind: &str, known: &mut Known) -> Result<()> {
    match DetailKind::ALL.into_iter().find(|known| known.as_str() == kind) {
        Some(DetailKind::StatusMessage) => {
            known.status_message = row.get("value")?;
            known.last_seen = parsed(row, "observed_at")?;
        }
        Some(DetailKind::CreationTimeChanged) => {
            known.created_at = parsed_if_there(row, "value")?;
            known.last_seen = parsed(row, "observed_at")?;
        }
        Some(DetailKind::StillSeen) => known.last_seen = parsed(row, "observed_at")?,
        Some(DetailKind::Vanished) => known.vanished_at = Some(parsed(row, "observed_at")?),
        Some(DetailKind::Returned) => known.vanished_at = None,
        None => {}
    }
    Ok(())
}

fn job_status(row: &Row<'_>) -> Result<JobStatus> {
    Ok(JobStatus::from(&*row.get::<_, Box<str>>("value")?))
}

fn parsed<T: FromStr<Err: Display>>(row: &Row<'_>, column: &str) -> Result<T> {
    parse(row, column, &row.get::<_, Box<str>>(column)?)
}

fn parsed_if_there<T: FromStr<Err: Display>>(row: &Row<'_>, column: &str) -> Result<Option<T>> {
    row.get::<_, Option<Box<str>>>(column)?.map(|text| parse(row, column, &text)).transpose()
}

fn parse<T: FromStr<Err: Display>>(row: &Row<'_>, column: &str, text: &str) -> Result<T> {
    text.parse().map_err(|error| {
        let place = row.get::<_, i64>("id").map(|id| format!("row {id}, {column}: {error}"));
        place.map_or_else(|error| error, |what| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, what.into()))
    })
}
