//! The record: the durable log of transitions, in SQLite.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::core::job::{Change, ImportJobId, JobKey, ReferenceStoreId, WatchId};
use crate::core::time::Timestamp;
use crate::core::watch::Known;
use crate::instruments::Instruments;

/// The writing side: one per process, held for as long as the process lives. Clones share one writer thread.
#[derive(Clone, Debug)]
pub struct Record {}

/// What the record knows of one job.
#[derive(Clone, Debug, PartialEq)]
pub struct Remembered {
    /// The latest of it.
    pub known: Known,
    /// How many transitions there are, by the index of the status they lead to (`JobStatus::index`).
    pub transitions: [u64; 8],
}

/// The record cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {}

/// A commit failed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {}

impl Record {
    /// Opens the record at `path`, creates it where there is none, and brings its schema up to date.
    ///
    /// # Errors
    /// ...
    pub fn open(path: &Path, instruments: &Instruments) -> Result<Self, OpenError> {
        todo!()
    }

    /// What is known of every job in the record.
    ///
    /// # Errors
    /// ...
    pub async fn remembered(&self) -> Result<BTreeMap<WatchId, Remembered>, CommitError> {
        todo!()
    }

    /// Adds a change of one job. Returns once it is on disk.
    ///
    /// # Errors
    /// ...
    pub async fn append(&self, id: &WatchId, change: &Change) -> Result<(), CommitError> {
        todo!()
    }
}

/// The reading side. Reads block.
#[derive(Clone, Debug, Default)]
pub struct RecordReader {
    rows: Arc<[TransitionRow]>,
}

/// Which transitions are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Seen at this time or later.
    pub since: Option<Timestamp>,
    /// Of this store.
    pub store: Option<ReferenceStoreId>,
    /// Of this job.
    pub job: Option<ImportJobId>,
    /// The latest so many.
    pub limit: Option<u32>,
}

impl Filter {
    /// All rows of one job.
    #[must_use]
    pub fn of_job(key: JobKey) -> Self {
        Self { store: Some(key.store), job: Some(key.job), ..Self::default() }
    }
}

/// One row of the table `transitions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[allow(missing_docs, reason = "the columns")]
pub struct TransitionRow {
    pub target: String,
    pub reference_store_id: String,
    pub import_job_id: String,
    pub from_status: Option<String>,
    pub to_status: String,
    pub observed_at: String,
    pub not_before: Option<String>,
    pub status_message: Option<String>,
    pub created_at: Option<String>,
    pub completed_at: Option<String>,
    pub anomaly: Option<String>,
}

/// The record cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the record cannot be read: {0}")]
pub struct ReadError(pub String);

impl RecordReader {
    /// A reader of these rows.
    pub fn of(rows: impl IntoIterator<Item = TransitionRow>) -> Self {
        Self { rows: rows.into_iter().collect() }
    }

    /// The rows that the filter lets through, the oldest first.
    ///
    /// # Errors
    /// ...
    pub fn transitions(&self, filter: &Filter) -> Result<Vec<TransitionRow>, ReadError> {
        let wanted = |row: &&TransitionRow| {
            filter.store.as_ref().is_none_or(|store| store.as_str() == row.reference_store_id)
                && filter.job.as_ref().is_none_or(|job| job.as_str() == row.import_job_id)
                && filter.since.is_none_or(|since| row.observed_at.parse::<Timestamp>().is_ok_and(|at| at >= since))
        };
        let rows: Vec<_> = self.rows.iter().filter(wanted).cloned().collect();
        let skip = filter.limit.map_or(0, |limit| rows.len().saturating_sub(limit as usize));
        Ok(rows.into_iter().skip(skip).collect())
    }
}
