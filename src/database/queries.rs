//! Reads the database: for the daemon at its start, for pages, the API and `history`.
//!
//! Every row is read as a value of `core`. A row that cannot be read is skipped and logged: damage that SQLite's check does not find
//! must not stop the daemon. A reader needs only read permission, and after a kill of the daemon also write permission for the
//! directory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, Params, Result, params_from_iter};
use tracing::warn;

use super::changes::{OF_JOB, job_values};
use super::errors::{OpenError, ReadError};
use super::tables::{Row, Stored, millisecond_text};
use super::{JobQuery, file, schema};
use crate::core::job::{ImportJobId, JobKey, ReferenceStoreId, TargetStore, WatchId};
use crate::core::time::Timestamp;
use crate::core::tracker::JobState;
use crate::core::transition::{Detail, DetailKind, SourceTransition, Transition};

/// Reads the database at a path. Every call opens the file, reads in one transaction and closes the file. A connection that stayed open
/// would go on reading a file that was replaced. Calls block on the disk.
#[derive(Clone, Debug)]
pub struct DatabaseReader {
    path: Arc<Path>,
}

/// Which rows to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Observed at this time or later.
    pub since: Option<Timestamp>,
    pub store: Option<ReferenceStoreId>,
    pub job: Option<ImportJobId>,
    /// At most this many, the latest. `None`: all.
    pub limit: Option<u32>,
}

impl Filter {
    #[must_use]
    pub fn of_job(key: JobKey) -> Self {
        Self { store: Some(key.store), job: Some(key.job), ..Self::default() }
    }
}

impl DatabaseReader {
    /// The file at `path` need not exist yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.into() }
    }

    /// Reads the rows that match, in the order written.
    ///
    /// # Errors
    /// There is no database, its schema has another version, or it cannot be read.
    pub fn rows<T: Stored>(&self, filter: &Filter) -> std::result::Result<Vec<Row<T>>, ReadError> {
        let Filter { since, store, job, limit } = filter;
        let (mut conditions, mut values) = (vec!["TRUE"], Vec::new());
        for (condition, value) in [
            ("observed_at >= ?", since.map(millisecond_text)),
            ("store_id = ?", store.as_ref().map(|store| store.as_str().to_owned())),
            ("job_id = ?", job.as_ref().map(|job| job.as_str().to_owned())),
        ] {
            if let Some(value) = value {
                conditions.push(condition);
                values.push(value);
            }
        }
        // SQLite treats a negative limit as no limit.
        let limit = limit.map_or(-1, i64::from);
        let condition = format!("WHERE {} ORDER BY id DESC LIMIT {limit}", conditions.join(" AND "));
        self.open(|connection| oldest_first(select(connection, &condition, params_from_iter(&values))))
    }

    /// Reads at most `each` transitions of each job, the latest. The transitions of a job are in the order written.
    ///
    /// # Errors
    /// As [`Self::rows`].
    pub fn latest_transitions(
        &self,
        jobs: &[Arc<WatchId>],
        each: u32,
    ) -> std::result::Result<Vec<Row<Transition>>, ReadError> {
        let condition = format!("WHERE {OF_JOB} ORDER BY id DESC LIMIT {each}");
        self.open(|connection| {
            let rows = jobs.iter().map(|id| oldest_first(select(connection, &condition, job_values(id))));
            Ok(rows.collect::<Result<Vec<_>>>()?.concat())
        })
    }

    fn open<T>(&self, read: impl Fn(&Connection) -> Result<T>) -> std::result::Result<T, ReadError> {
        file::read_only(&self.path, |connection, path| {
            let transaction = connection.unchecked_transaction()?;
            let version = schema::version(&transaction, path)?;
            if version < schema::VERSION {
                return Err(OpenError::OlderSchema { path: path.into(), found: version, known: schema::VERSION }.into());
            }
            Ok(read(&transaction)?)
        })
    }
}

/// Replays the rows of jobs in the order written. Returns the final state of each job that has rows.
pub(super) fn restore(connection: &Connection, jobs: JobQuery) -> Result<BTreeMap<Arc<WatchId>, JobState>> {
    let jobs = match jobs {
        JobQuery::These(jobs) => jobs,
        JobQuery::Recent { store, ended_since } => recent_jobs(connection, &store, ended_since)?,
    };
    let known = jobs.into_iter().map(|id| Ok(replay(connection, &id)?.map(|known| (id, known))));
    known.filter_map(Result::transpose).collect()
}

/// The jobs of [`JobQuery::Recent`].
fn recent_jobs(connection: &Connection, store: &TargetStore, ended_since: Timestamp) -> Result<Vec<Arc<WatchId>>> {
    let latest = "WHERE id IN (
        SELECT max(id) FROM transitions WHERE store_id = ? AND target = ? GROUP BY kind, job_id)";
    let rows: Vec<Row<Transition>> = select(connection, latest, [store.store.as_str(), &*store.target])?;
    let recent = rows.into_iter().filter(|row| !row.value.to.is_terminal() || row.value.observed_at >= ended_since);
    Ok(recent.map(|row| Arc::new(row.job)).collect())
}

/// A row of any table.
enum Entry {
    Transition(Transition),
    Source(SourceTransition),
    Detail(Detail),
}

fn replay(connection: &Connection, id: &WatchId) -> Result<Option<JobState>> {
    let condition = format!("WHERE {OF_JOB}");
    let mut entries: BTreeMap<i64, Entry> = BTreeMap::new();
    let rows = select(connection, &condition, job_values(id))?;
    entries.extend(rows.into_iter().map(|row| (row.id, Entry::Transition(row.value))));
    let rows = select(connection, &condition, job_values(id))?;
    entries.extend(rows.into_iter().map(|row| (row.id, Entry::Source(row.value))));
    let rows = select(connection, &condition, job_values(id))?;
    entries.extend(rows.into_iter().map(|row| (row.id, Entry::Detail(row.value))));
    let mut known: Option<JobState> = None;
    for entry in entries.into_values() {
        match (entry, &mut known) {
            (Entry::Transition(transition), before) => *before = Some(replay_transition(transition, before.take())),
            (Entry::Source(SourceTransition { key, to, observed_at, .. }), Some(known)) => {
                known.last_seen = observed_at;
                known.sources.insert(key, to);
            }
            (Entry::Detail(detail), Some(known)) => replay_detail(detail, known),
            // The first row of a job is a transition. It was deleted by hand, or cannot be read.
            (Entry::Source(_) | Entry::Detail(_), None) => {}
        }
    }
    Ok(known)
}

fn replay_transition(transition: Transition, before: Option<JobState>) -> JobState {
    let Transition { to, observed_at, status_message, created_at, completed_at, .. } = transition;
    let (created_before, sources) = before.map(|before| (before.created_at, before.sources)).unwrap_or_default();
    JobState {
        status: to,
        status_message,
        created_at: created_at.or(created_before),
        completed_at,
        sources,
        since: observed_at,
        last_seen: observed_at,
        vanished_at: None,
    }
}

/// Vanished and Returned do not confirm the status, so they do not move `last_seen`. Example: `IN_PROGRESS` at 10:00, a 404 at 10:05,
/// COMPLETED at 10:10. The job may have ended at 10:02, so the `not_before` of its end must be 10:00.
///
/// A creation time that cannot be parsed becomes `None`.
fn replay_detail(Detail { kind, value, observed_at }: Detail, known: &mut JobState) {
    match kind {
        DetailKind::StatusMessage => known.status_message = value,
        DetailKind::CreationTimeChanged => known.created_at = value.and_then(|value| value.parse().ok()),
        DetailKind::StillSeen => {}
        DetailKind::Vanished => return known.vanished_at = Some(observed_at),
        DetailKind::Returned => return known.vanished_at = None,
    }
    known.last_seen = observed_at;
}

/// Tests that every table has its columns.
pub(super) fn check_columns(connection: &Connection) -> Result<()> {
    select::<Transition>(connection, "LIMIT 0", [])?;
    select::<SourceTransition>(connection, "LIMIT 0", [])?;
    select::<Detail>(connection, "LIMIT 0", [])?;
    Ok(())
}

fn select<T: Stored>(connection: &Connection, condition: &str, values: impl Params) -> Result<Vec<Row<T>>> {
    let columns = T::COLUMNS.join(", ");
    let sql = format!("SELECT id, target, kind, store_id, job_id, {columns} FROM {} {condition}", T::NAME);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(values)?;
    let mut values = Vec::new();
    while let Some(row) = rows.next()? {
        match Row::read(row) {
            Ok(value) => values.push(value),
            Err(error) => {
                warn!(event = "row_unreadable", table = T::NAME, %error, "a row cannot be read and is skipped");
            }
        }
    }
    Ok(values)
}

fn oldest_first<T>(rows: Result<Vec<T>>) -> Result<Vec<T>> {
    rows.map(|rows| rows.into_iter().rev().collect())
}
