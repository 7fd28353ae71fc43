//! The reading side: what happened, for pages, commands and scripts. It works beside a running daemon and without one,
//! needs no more than the right to read, and makes no file.

use std::path::Path;
use std::sync::Arc;

use rusqlite::{Row, params_from_iter};
use serde::Serialize;

use super::rows::milliseconds;
use super::{OpenError, connection, schema};
use crate::core::job::{ImportJobId, JobKey, ReferenceStoreId, WatchId};
use crate::core::time::Timestamp;

/// Reads a record. Every call opens the file, reads one consistent picture and closes it: readers are few, and one that
/// stays would hold up the write-ahead log, or go on reading a file that was replaced. Calls block on the disk.
#[derive(Clone, Debug)]
pub struct RecordReader {
    path: Arc<Path>,
}

/// Which rows are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Seen at this time or later.
    pub since: Option<Timestamp>,
    /// Of this store.
    pub store: Option<ReferenceStoreId>,
    /// Of this job.
    pub job: Option<ImportJobId>,
    /// The latest so many; `None`: all.
    pub limit: Option<u32>,
}

impl Filter {
    /// All rows of one job.
    #[must_use]
    pub fn of_job(key: JobKey) -> Self {
        Self { store: Some(key.store), job: Some(key.job), ..Self::default() }
    }
}

macro_rules! row {
    ($(#[$doc:meta])* $name:ident { $($column:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
        #[expect(missing_docs, reason = "the columns have the names and the meaning of the fields in `core::transition`")]
        pub struct $name {
            $(pub $column: $type),*
        }

        impl $name {
            fn new(row: &Row<'_>) -> rusqlite::Result<Self> {
                Ok(Self { $($column: row.get(stringify!($column))?),* })
            }
        }
    };
}

row! {
    /// A row of the table `transitions`, as it stands: times are RFC 3339.
    TransitionRow {
        id: i64,
        target: String,
        reference_store_id: String,
        import_job_id: String,
        from_status: Option<String>,
        to_status: String,
        observed_at: String,
        not_before: Option<String>,
        status_message: Option<String>,
        created_at: Option<String>,
        completed_at: Option<String>,
        anomaly: Option<String>,
    }
}

row! {
    /// A row of the table `source_transitions`, as it stands.
    SourceTransitionRow {
        id: i64,
        target: String,
        reference_store_id: String,
        import_job_id: String,
        name: String,
        source_file: String,
        nth: u32,
        from_status: Option<String>,
        to_status: String,
        status_message: Option<String>,
        observed_at: String,
    }
}

row! {
    /// A row of the table `details`, as it stands.
    DetailRow {
        id: i64,
        target: String,
        reference_store_id: String,
        import_job_id: String,
        kind: String,
        value: Option<String>,
        observed_at: String,
    }
}

/// The record cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// SQLite failed.
    #[error("the record cannot be read: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

impl RecordReader {
    /// A reader of the record at `path`, which need not be there yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.into() }
    }

    /// The transitions that the filter lets through, in the order seen.
    ///
    /// # Errors
    /// There is no record, it is not of this version, or it cannot be read.
    pub fn transitions(&self, filter: &Filter) -> Result<Vec<TransitionRow>, ReadError> {
        self.rows("transitions", filter, TransitionRow::new)
    }

    /// The transitions of sources that the filter lets through, in the order seen.
    ///
    /// # Errors
    /// As [`Self::transitions`].
    pub fn source_transitions(&self, filter: &Filter) -> Result<Vec<SourceTransitionRow>, ReadError> {
        self.rows("source_transitions", filter, SourceTransitionRow::new)
    }

    /// What the filter lets through of all that was seen beside transitions, in the order seen.
    ///
    /// # Errors
    /// As [`Self::transitions`].
    pub fn details(&self, filter: &Filter) -> Result<Vec<DetailRow>, ReadError> {
        self.rows("details", filter, DetailRow::new)
    }

    /// The latest transitions of each of these jobs, so many `each` at most, in the order seen: what a table of jobs needs, in one
    /// reading.
    ///
    /// # Errors
    /// As [`Self::transitions`].
    pub fn latest_transitions(&self, jobs: &[Arc<WatchId>], each: u32) -> Result<Vec<TransitionRow>, ReadError> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "WITH job (store, job, target) AS (VALUES {}) SELECT transitions.* FROM job CROSS JOIN transitions WHERE id IN (
                 SELECT id FROM transitions WHERE reference_store_id = store AND import_job_id = job
                     AND transitions.target = job.target ORDER BY id DESC LIMIT {each}
             ) ORDER BY id",
            vec!["(?, ?, ?)"; jobs.len()].join(", ")
        );
        let of_job = |id: &Arc<WatchId>| [id.key.store.as_str(), id.key.job.as_str(), &id.target].map(str::to_owned);
        self.select(&sql, &jobs.iter().flat_map(of_job).collect::<Vec<_>>(), TransitionRow::new)
    }

    fn rows<T>(
        &self,
        table: &str,
        filter: &Filter,
        row: fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, ReadError> {
        let Filter { since, store, job, limit } = filter;
        let (mut conditions, mut values) = (vec!["TRUE"], Vec::new());
        for (condition, value) in [
            ("observed_at >= ?", since.map(milliseconds)),
            ("reference_store_id = ?", store.as_ref().map(|store| store.as_str().to_owned())),
            ("import_job_id = ?", job.as_ref().map(|job| job.as_str().to_owned())),
        ] {
            if let Some(value) = value {
                conditions.push(condition);
                values.push(value);
            }
        }
        let sql = format!(
            "SELECT * FROM (SELECT * FROM {table} WHERE {} ORDER BY id DESC LIMIT {}) ORDER BY id",
            conditions.join(" AND "),
            // SQLite takes a negative limit for none.
            limit.map_or(-1, i64::from)
        );
        self.select(&sql, &values, row)
    }

    fn select<T>(
        &self,
        sql: &str,
        values: &[String],
        row: fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, ReadError> {
        connection::read_only(&self.path, |connection, path| {
            let version = schema::version(connection, path)?;
            if version < schema::VERSION {
                return Err(OpenError::OlderSchema { path: path.into(), found: version, known: schema::VERSION }.into());
            }
            let mut select = connection.prepare(sql)?;
            let rows = select.query_map(params_from_iter(values), row)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }
}
