//! The database: the durable log of transitions, in SQLite.
//!
//! One thread owns the connection that writes ([`Database`]). Readers open the file beside it ([`DatabaseReader`]), whether a daemon runs
//! or not. Rows are added and, after the retention, deleted; they are not changed.
//!
//! A change is acknowledged once it is on disk: write-ahead log, `synchronous=FULL`. A commit that failed may be on disk all the
//! same, if the disk failed late. Appending is idempotent, so the caller repeats it.

mod errors;
mod file;
mod queries;
mod rows;
mod schema;
mod tables;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use crate::core::job::{StoreId, WatchId};
use crate::core::time::Timestamp;
use crate::core::tracker::JobState;
use crate::core::transition::Change;
use crate::instruments::Instruments;

pub use errors::{CommitError, OpenError};
pub use queries::{DatabaseReader, Filter, ReadError};
pub use tables::Row;

use writer::{Append, Reply, Request, Writer};

/// Requests that wait for the writer. A watch has at most one, so this bounds memory where a disk stalls under thousands of watches;
/// the others wait with their change.
const QUEUE_LENGTH: usize = 1024;

/// The writing side: one per process. Clones share one writer thread, which ends once the last of them is dropped and everything
/// queued is committed.
#[derive(Clone, Debug)]
pub struct Database {
    requests: mpsc::Sender<Request>,
    health: watch::Receiver<Option<String>>,
}

/// The jobs of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobQuery {
    These(Vec<Arc<WatchId>>),
    /// Those of a store that have not ended, or whose end was observed at `ended_since` or later.
    Recent {
        store: StoreId,
        ended_since: Timestamp,
    },
}

impl Database {
    /// Opens the database at `path`, creates it and its directory where there is none, migrates its schema, and starts its
    /// writer. A damaged file, or one that is no database, is moved aside first. Blocks on the disk.
    ///
    /// # Errors
    /// Another process has it open, it is of a newer version, or the system refuses.
    pub fn open(path: &Path, instruments: &Instruments) -> Result<Self, OpenError> {
        let (requests, queue) = mpsc::channel(QUEUE_LENGTH);
        let writer = Writer::open(path, instruments)?;
        let health = writer.health();
        writer.start(queue)?;
        Ok(Self { requests, health })
    }

    /// Opens the database as [`Self::open`] does, but leaves the writing to the caller, who awaits the future: a simulation, where
    /// time must not pass during a commit.
    ///
    /// # Errors
    /// As with [`Self::open`].
    pub fn open_unwritten(
        path: &Path,
        instruments: &Instruments,
    ) -> Result<(Self, impl Future<Output = ()> + Send + use<>), OpenError> {
        let (requests, queue) = mpsc::channel(QUEUE_LENGTH);
        let writer = Writer::open(path, instruments)?;
        let health = writer.health();
        Ok((Self { requests, health }, writer.run(queue)))
    }

    /// Whether the database can be written: `None`, or the last error.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Option<String>> {
        self.health.clone()
    }

    /// Reads the last known state of jobs. Jobs without rows are left out.
    ///
    /// # Errors
    /// The database cannot be read, or the writer has ended.
    pub async fn restore(&self, jobs: JobQuery) -> Result<BTreeMap<Arc<WatchId>, JobState>, CommitError> {
        if jobs == JobQuery::These(Vec::new()) {
            return Ok(BTreeMap::new());
        }
        self.request(|done| Request::Restore { jobs, done }).await
    }

    /// Adds a change of one job. Returns once it is on disk. Dropping the future does not take the change back.
    ///
    /// # Errors
    /// The change may or may not be on disk; appending it again keeps it once. [`CommitError::WriterGone`]: it never will be.
    pub async fn append(&self, id: &WatchId, change: &Change) -> Result<(), CommitError> {
        if change.is_empty() {
            return Ok(());
        }
        let (id, change) = (id.clone(), change.clone());
        self.request(|done| Request::Append(Box::new(Append { id, change, done }))).await
    }

    /// Deletes the rows of every job whose end was observed before `instant`, and returns the number of jobs. It uses small
    /// transactions, so that commits run in between. A job that is still `watched` stays: at the next start it must not be
    /// polled again.
    ///
    /// # Errors
    /// The database cannot be written, or the writer has ended. What was deleted until then stays deleted.
    pub async fn delete_ended_before(
        &self,
        instant: Timestamp,
        watched: BTreeSet<Arc<WatchId>>,
    ) -> Result<usize, CommitError> {
        let watched = Arc::new(watched);
        let mut jobs = 0;
        loop {
            let watched = Arc::clone(&watched);
            let deleted = self.request(|done| Request::DeleteEnded { before: instant, watched, done }).await?;
            jobs += deleted;
            if deleted < rows::DELETED_JOBS_MAX {
                return Ok(jobs);
            }
        }
    }

    /// Tests whether the database can be written. An answer, good or bad, shows that the writer is not stuck.
    ///
    /// # Errors
    /// The database cannot be written now.
    pub async fn check(&self) -> Result<(), CommitError> {
        self.request(Request::Check).await
    }

    /// Ends the writer and returns once all queued changes are committed and the file is closed. Later requests of any clone
    /// get [`CommitError::WriterGone`].
    pub async fn close(self) {
        let (done, ended) = oneshot::channel();
        if self.requests.send(Request::Close(done)).await.is_ok() {
            // Without an answer the thread has ended as well.
            drop(ended.await);
        }
    }

    async fn request<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, CommitError> {
        let (done, result) = oneshot::channel();
        self.requests.send(request(done)).await.map_err(|_| CommitError::WriterGone)?;
        result.await.map_err(|_| CommitError::WriterGone)?
    }
}

#[cfg(test)]
mod tests;
