//! Reads the database: for the daemon at its start, for pages, the API and `history`.
//!
//! Every row is read as a value of `core`. A row that cannot be read, as after damage that SQLite's check does not see, is skipped
//! and logged: it must not stop the daemon. A reader needs only the right to read, beside a running daemon or without one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, Params, Result, params_from_iter};
use tracing::warn;

use super::errors::OpenError;
use super::rows::{JOB, job_values};
use super::tables::{Row, Table, milliseconds};
use super::{JobQuery, file, schema};
use crate::core::job::{ImportJobId, JobKey, ReferenceStoreId, StoreId, WatchId};
use crate::core::time::Timestamp;
use crate::core::tracker::JobState;
use crate::core::transition::{Detail, DetailKind, SourceTransition, Transition};

/// Reads the database at a path. Every call opens the file, reads one consistent state and closes it: a connection that stays would
/// hold up the write-ahead log, or read a file that was replaced. Calls block on the disk.
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
    /// The latest so many; `None`: all.
    pub limit: Option<u32>,
}

impl Filter {
    #[must_use]
    pub fn of_job(key: JobKey) -> Self {
        Self { store: Some(key.store), job: Some(key.job), ..Self::default() }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the database cannot be read: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

impl DatabaseReader {
    /// A reader of the database at `path`, which need not exist yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.into() }
    }

    /// The rows that match, in the order written.
    ///
    /// # Errors
    /// There is no database, it is not of this version, or it cannot be read.
    pub fn rows<T: Table>(&self, filter: &Filter) -> std::result::Result<Vec<Row<T>>, ReadError> {
        let Filter { since, store, job, limit } = filter;
        let (mut conditions, mut values) = (vec!["TRUE"], Vec::new());
        for (condition, value) in [
            ("observed_at >= ?", since.map(milliseconds)),
            ("store_id = ?", store.as_ref().map(|store| store.as_str().to_owned())),
            ("job_id = ?", job.as_ref().map(|job| job.as_str().to_owned())),
        ] {
            if let Some(value) = value {
                conditions.push(condition);
                values.push(value);
            }
        }
        // SQLite takes a negative limit for none.
        let limit = limit.map_or(-1, i64::from);
        let condition = format!("WHERE {} ORDER BY id DESC LIMIT {limit}", conditions.join(" AND "));
        self.open(|connection| latest_last(select(connection, &condition, params_from_iter(&values))))
    }

    /// The latest transitions of each of these jobs, at most `each` of a job, in the order written.
    ///
    /// # Errors
    /// As [`Self::rows`].
    pub fn latest_transitions(
        &self,
        jobs: &[Arc<WatchId>],
        each: u32,
    ) -> std::result::Result<Vec<Row<Transition>>, ReadError> {
        let condition = format!("WHERE {JOB} ORDER BY id DESC LIMIT {each}");
        self.open(|connection| {
            let rows = jobs.iter().map(|id| latest_last(select(connection, &condition, job_values(id))));
            Ok(rows.collect::<Result<Vec<_>>>()?.concat())
        })
    }

    fn open<T>(&self, read: impl Fn(&Connection) -> Result<T>) -> std::result::Result<T, ReadError> {
        file::read_only(&self.path, |connection, path| {
            let version = schema::version(connection, path)?;
            if version < schema::VERSION {
                return Err(OpenError::OlderSchema { path: path.into(), found: version, known: schema::VERSION }.into());
            }
            Ok(read(connection)?)
        })
    }
}

/// Reads the state of jobs: their rows are replayed in the order written.
pub(super) fn restore(connection: &Connection, jobs: JobQuery) -> Result<BTreeMap<Arc<WatchId>, JobState>> {
    let jobs = match jobs {
        JobQuery::These(jobs) => jobs,
        JobQuery::Recent { store, ended_since } => recent_jobs(connection, &store, ended_since)?,
    };
    let known = jobs.into_iter().map(|id| Ok(replay(connection, &id)?.map(|known| (id, known))));
    known.filter_map(Result::transpose).collect()
}

/// The jobs of a store that have not ended, or that ended at `ended_since` or later.
fn recent_jobs(connection: &Connection, store: &StoreId, ended_since: Timestamp) -> Result<Vec<Arc<WatchId>>> {
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
    let condition = format!("WHERE {JOB}");
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
            // A job's first row is a transition: somebody deleted it, or it cannot be read.
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

/// A job that vanished or returned was not seen to have its status. These two leave `last_seen` alone, because a later change may
/// lie before them.
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
pub(super) fn probe(connection: &Connection) -> Result<()> {
    select::<Transition>(connection, "LIMIT 0", [])?;
    select::<SourceTransition>(connection, "LIMIT 0", [])?;
    select::<Detail>(connection, "LIMIT 0", [])?;
    Ok(())
}

fn select<T: Table>(connection: &Connection, condition: &str, values: impl Params) -> Result<Vec<Row<T>>> {
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

fn latest_last<T>(rows: Result<Vec<T>>) -> Result<Vec<T>> {
    rows.map(|mut rows| {
        rows.reverse();
        rows
    })
}
