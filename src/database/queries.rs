//! Reads the database: the states that the daemon restores, and rows for pages, the API and `history`.
//!
//! Every row is read as a value of `crate::core`. A row that cannot be read is skipped and logged: damage that SQLite's check does not
//! find must not stop the daemon. A reader needs only read permission, and after a kill of the daemon also write permission for the
//! directory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rusqlite::types::Value;
use rusqlite::{Connection, Params, params_from_iter};
use tracing::warn;

use super::changes::{OF_JOB, job_values, last_row_id};
use super::errors::{FileError, ReadError};
use super::tables::{Row, Stored, millisecond_text};
use super::{JobQuery, file, schema};
use crate::core::job::{JobId, JobKey, JobStatus, StoreId, TargetJob, TargetStore, UNKNOWN_LABEL};
use crate::core::kind::JobKind;
use crate::core::time::Timestamp;
use crate::core::tracker::JobState;
use crate::core::transition::{Detail, DetailKind, ItemTransition, Transition};

/// Reads the database at a path. Every call opens the file, reads in one transaction and closes the file. A connection that stayed open
/// would go on reading a file that was replaced. Calls block on the disk.
#[derive(Clone, Debug)]
pub struct DatabaseReader {
    path: Arc<Path>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only rows with a higher id.
    pub after: Option<i64>,
    /// Observed at this time or later.
    pub since: Option<Timestamp>,
    /// Observed before this time.
    pub until: Option<Timestamp>,
    /// The wanted new statuses, by [`JobStatus::label`]: all statuses that AWS does not document share the name [`UNKNOWN_LABEL`]. Empty:
    /// all. Must be empty unless transitions are read: items have statuses of another type, and details have none.
    pub statuses: Vec<&'static str>,
    pub kind: Option<JobKind>,
    pub store_id: Option<StoreId>,
    pub job_id: Option<JobId>,
    /// `None`: all.
    pub limit: Option<RowLimit>,
}

/// The maximum number of rows. Rows that cannot be read do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowLimit {
    Oldest(usize),
    Latest(usize),
}

impl Filter {
    #[must_use]
    pub fn of_job(key: JobKey) -> Self {
        Self { kind: Some(key.kind), store_id: Some(key.store), job_id: Some(key.job), ..Self::default() }
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
    /// There is no database, its schema has another version, or it cannot be read; or `after` is higher than every id: `after` is then from
    /// a replaced database ([`ReadError::UnknownRow`]).
    pub fn rows<T: Stored>(&self, filter: &Filter) -> Result<Vec<Row<T>>, ReadError> {
        let Filter { after, since, until, statuses, kind, store_id, job_id, limit } = filter;
        let status_condition = status_condition();
        let (mut conditions, mut values) = (vec!["TRUE"], Vec::new());
        for (condition, value) in [
            ("id > ?", after.map(Value::Integer)),
            ("observed_at >= ?", since.map(|since| Value::Text(millisecond_text(since)))),
            ("observed_at < ?", until.map(|until| Value::Text(millisecond_text(until)))),
            (&*status_condition, Some(Value::Text(statuses.join(" "))).filter(|_| !statuses.is_empty())),
            ("kind = ?", kind.map(|kind| Value::Text(kind.to_string()))),
            ("store_id = ?", store_id.as_ref().map(|id| Value::Text(id.to_string()))),
            ("job_id = ?", job_id.as_ref().map(|id| Value::Text(id.to_string()))),
        ] {
            if let Some(value) = value {
                conditions.push(condition);
                values.push(value);
            }
        }
        let conditions = conditions.join(" AND ");
        let (order, limit) = match limit {
            None => ("ASC", usize::MAX),
            Some(RowLimit::Oldest(limit)) => ("ASC", *limit),
            Some(RowLimit::Latest(limit)) => ("DESC", *limit),
        };
        let clauses = format!("WHERE {conditions} ORDER BY id {order}");
        let (mut rows, last) = self.in_transaction(|connection| {
            Ok((select(connection, &clauses, params_from_iter(&values), limit)?, last_row_id(connection)?))
        })?;
        if let Some(after) = after.filter(|after| *after > last) {
            return Err(ReadError::UnknownRow { after, last });
        }
        rows.sort_by_key(|row: &Row<T>| row.id);
        Ok(rows)
    }

    /// Reads the latest transitions of each job, at most `limit` of each job. The transitions of a job are in the order written.
    ///
    /// # Errors
    /// As [`Self::rows`].
    pub fn latest_transitions(&self, jobs: &[Arc<TargetJob>], limit: usize) -> Result<Vec<Row<Transition>>, ReadError> {
        let clauses = format!("WHERE {OF_JOB} ORDER BY id DESC");
        self.in_transaction(|connection| {
            let mut rows = Vec::new();
            for target_job in jobs {
                rows.extend(select(connection, &clauses, job_values(target_job), limit)?.into_iter().rev());
            }
            Ok(rows)
        })
    }

    /// The id of the last row of all tables; 0 if there is none. Later rows have higher ids.
    ///
    /// # Errors
    /// As [`Self::rows`].
    pub fn last_id(&self) -> Result<i64, ReadError> {
        self.in_transaction(last_row_id)
    }

    pub(super) fn in_transaction<T>(&self, read: impl Fn(&Connection) -> rusqlite::Result<T>) -> Result<T, ReadError> {
        let result = file::read_only(&self.path, |connection, path| {
            let transaction = connection.unchecked_transaction()?;
            let version = schema::version(&transaction, path)?;
            if version < schema::VERSION {
                return Err(FileError::OlderSchema { path: path.into(), found: version, known: schema::VERSION }.into());
            }
            Ok(read(&transaction)?)
        });
        result.map_err(|error| match error {
            ReadError::Open(FileError::SystemDenied { path, .. } | FileError::SqliteDenied { path }) => {
                ReadError::Denied { path }
            }
            error => error,
        })
    }
}

/// An SQL condition with one parameter: the wanted [`JobStatus::label`]s, joined by spaces. It selects the rows whose new status has one
/// of them. The label of a status that AWS does not document is [`UNKNOWN_LABEL`].
fn status_condition() -> String {
    let documented = JobStatus::DOCUMENTED.map(|status| format!("'{}'", status.as_str())).join(", ");
    format!(
        "instr(' ' || ? || ' ', ' ' || CASE WHEN to_status IN ({documented}) THEN to_status ELSE '{UNKNOWN_LABEL}' END || ' ') > 0"
    )
}

/// Builds the last known state of jobs from their rows. Omits jobs without a readable transition.
pub(super) fn load_states(
    connection: &Connection,
    jobs: JobQuery,
) -> rusqlite::Result<BTreeMap<Arc<TargetJob>, JobState>> {
    let jobs = match jobs {
        JobQuery::These(jobs) => jobs,
        JobQuery::Retained { target_store, ended_since } => retained(connection, &target_store, ended_since)?,
    };
    let states =
        jobs.into_iter().map(|target_job| Ok(build_state(connection, &target_job)?.map(|state| (target_job, state))));
    states.filter_map(Result::transpose).collect()
}

/// The jobs of [`JobQuery::Retained`]. A job whose latest transition is unreadable is omitted.
fn retained(
    connection: &Connection,
    target_store: &TargetStore,
    ended_since: Timestamp,
) -> rusqlite::Result<Vec<Arc<TargetJob>>> {
    let latest_clause = "WHERE id IN (
        SELECT max(id) FROM transitions WHERE store_id = ? AND kind = ? AND target = ? GROUP BY job_id)";
    let TargetStore { target, kind, store } = target_store;
    let rows = select::<Transition>(connection, latest_clause, [store.as_str(), kind.as_str(), target], usize::MAX)?;
    let found = rows.into_iter().filter(|row| !row.value.to.is_terminal() || row.value.observed_at >= ended_since);
    Ok(found.map(|row| Arc::new(row.target_job)).collect())
}

/// The value of a row of any table.
enum Entry {
    Transition(Transition),
    Item(ItemTransition),
    Detail(Detail),
}

/// Applies the rows of a job in the order written.
fn build_state(connection: &Connection, target_job: &TargetJob) -> rusqlite::Result<Option<JobState>> {
    let mut by_id = load_entries(connection, target_job, Entry::Transition)?;
    by_id.extend(load_entries(connection, target_job, Entry::Item)?);
    by_id.extend(load_entries(connection, target_job, Entry::Detail)?);
    let mut state: Option<JobState> = None;
    for entry in by_id.into_values() {
        match (entry, state.as_mut()) {
            (Entry::Transition(transition), _) => state = Some(apply_transition(transition, state)),
            (Entry::Item(ItemTransition { key, to, observed_at, .. }), Some(state)) => {
                state.last_seen = observed_at;
                state.changes_towards_limit += 1;
                let items = Arc::make_mut(&mut state.items);
                match to {
                    Some(item) => items.insert(key, item),
                    None => items.remove(&key),
                };
            }
            (Entry::Detail(detail), Some(state)) => apply_detail(detail, state),
            // A job's first row is a transition. Here it is missing or unreadable.
            (Entry::Item(_) | Entry::Detail(_), None) => {}
        }
    }
    Ok(state)
}

/// Loads the rows of a job from the table of `T`, by id.
fn load_entries<T: Stored>(
    connection: &Connection,
    target_job: &TargetJob,
    wrap: fn(T) -> Entry,
) -> rusqlite::Result<BTreeMap<i64, Entry>> {
    let rows: Vec<Row<T>> = select(connection, &format!("WHERE {OF_JOB}"), job_values(target_job), usize::MAX)?;
    Ok(rows.into_iter().map(|row| (row.id, wrap(row.value))).collect())
}

/// Updates the state as `JobTracker` did at this transition: a response without a creation time keeps the earlier one, but a response
/// without a completion time clears it.
fn apply_transition(transition: Transition, before: Option<JobState>) -> JobState {
    let Transition { to, observed_at, status_message, created_at, completed_at, .. } = transition;
    let (earlier_created_at, items, transition_count, changes_towards_limit, ended_once) = before
        .map(|before| {
            (before.created_at, before.items, before.transition_count, before.changes_towards_limit, before.ended_once)
        })
        .unwrap_or_default();
    JobState {
        ended_once: ended_once || to.is_terminal(),
        status: to,
        status_message,
        created_at: created_at.or(earlier_created_at),
        completed_at,
        items,
        transition_count: transition_count + 1,
        changes_towards_limit,
        since: observed_at,
        last_seen: observed_at,
        // A transition comes from a response, so AWS knows the job.
        vanished_at: None,
    }
}

/// Updates the state as `JobTracker` did. `changes_towards_limit` (see `Limit::Changes`) counts item transitions, and these details: a new
/// message, a changed creation time, the return of a vanished job.
/// `last_seen` is when the status was last observed.
fn apply_detail(Detail { kind, value, observed_at }: Detail, state: &mut JobState) {
    match kind {
        DetailKind::StatusMessage => state.status_message = value,
        // A time that cannot be parsed becomes `None`.
        DetailKind::CreationTimeChanged => state.created_at = value.and_then(|value| value.parse().ok()),
        // Saved at a stop: when the status was last observed. Updates only `last_seen`, below.
        DetailKind::StillSeen => {}
        DetailKind::Vanished => state.vanished_at = Some(observed_at),
        DetailKind::Returned => state.vanished_at = None,
    }
    if matches!(kind, DetailKind::StatusMessage | DetailKind::CreationTimeChanged | DetailKind::Returned) {
        state.changes_towards_limit += 1;
    }
    // `Vanished`, a 404, has no status. `Returned` is the first response with a status after a 404. Its status may be outdated, for example
    // IN_PROGRESS although the job has ended, so `last_seen` does not move.
    if !matches!(kind, DetailKind::Vanished | DetailKind::Returned) {
        state.last_seen = observed_at;
    }
}

/// Fails if a table lacks one of its columns. No row is read.
pub(super) fn require_columns(connection: &Connection) -> rusqlite::Result<()> {
    select::<Transition>(connection, "", [], 0)?;
    select::<ItemTransition>(connection, "", [], 0)?;
    select::<Detail>(connection, "", [], 0)?;
    Ok(())
}

/// Returns at most `limit` rows. The SQL has no limit, because rows that cannot be read do not count.
pub(super) fn select<T: Stored>(
    connection: &Connection,
    clauses: &str,
    params: impl Params,
    limit: usize,
) -> rusqlite::Result<Vec<Row<T>>> {
    let columns = T::COLUMNS.join(", ");
    let sql = format!("SELECT id, target, kind, store_id, job_id, {columns} FROM {} {clauses}", T::TABLE);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params)?;
    let mut found = Vec::new();
    while found.len() < limit
        && let Some(row) = rows.next()?
    {
        match Row::read(row) {
            Ok(row) => found.push(row),
            Err(error) => {
                warn!(event = "row_unreadable", table = T::TABLE, %error, "a row cannot be read and is skipped");
            }
        }
    }
    Ok(found)
}
