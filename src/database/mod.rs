//! The database: the durable log of job changes and the queues of the sinks, in SQLite.
//!
//! [`Database`] appends changes and loads job states, both through one writer that owns the connection. [`DatabaseReader`] opens the file
//! itself, with or without a running daemon. The methods of both types for the queues of the sinks are in `deliveries`, the other methods
//! of the reader in `queries` and `ended`. Changes of jobs are added and, after the configured retention, deleted. They are never updated.
//!
//! - A target is an AWS region or endpoint with credentials. A store is a resource of AWS, such as a reference store. It has jobs, and a
//!   job has items. A [`TargetJob`] is a target, and the kind, store and id of a job: the rows of one job polled through two targets are
//!   separate. The column `transitions.watch` has the name of the entry of the configuration (`[[job]]` or `[[store]]`) because of which
//!   the job was watched.
//! - A change is what refwatch adds after one poll of a job, or when the task that polls the job stops: a transition of the job's status,
//!   transitions of its items, and details. A detail is any other observation, such as a new status message, or that AWS no longer knows
//!   the job (it vanished), or knows it again (it returned). A change is stored as a whole.
//! - Transitions of jobs and of items, and details, are rows of three tables. One sequence numbers them, in the order of writing.
//! - A sink receives notifications of events. An event is a transition of a job, or the detail that a job vanished. Its id is the id of its
//!   row. Each sink has a cursor: the events in rows after the cursor are not in the sink's queue yet.
//! - A delivery is an event that waits for a sink, or that has failed permanently. Only a replay sends a failed event again.
//!
//! A change is acknowledged once it is on disk: write-ahead log (WAL), `synchronous=FULL`. A commit that reported an error may have
//! reached the disk. The caller may repeat it: the writer skips a change that it finds stored.

mod changes;
mod deliveries;
mod ended;
mod errors;
mod events;
mod file;
mod location;
mod queries;
mod schema;
mod tables;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use rusqlite::Transaction;
use tokio::sync::{mpsc, oneshot, watch};

use crate::core::job::{TargetJob, TargetStore};
use crate::core::time::Timestamp;
use crate::core::tracker::JobState;
use crate::core::transition::Change;
use crate::instruments::Instruments;

pub use deliveries::{
    DeliveryOutcome, DeliveryStep, DueEvent, ReplayFilter, StepResult, UNREADABLE_ROW_REASON, UndeliveredEvent,
};
pub use errors::{FileError, ReadError, WriterError};
pub use events::Event;
pub use file::create_directory;
pub use location::inspect;
pub use queries::{DatabaseReader, Filter, RowLimit};
pub use tables::Row;

use writer::{QueuedChange, Reply, Request, TransactionWork, Writer};

/// Longest queue of requests to the writer. It bounds memory while the disk stalls; further callers wait.
const QUEUE_LENGTH: usize = 1024;

/// The writing side. Clones share one writer, which ends on [`Self::close`], or once all clones are dropped and the queue is empty.
#[derive(Clone, Debug)]
pub struct Database {
    requests: mpsc::Sender<Request>,
    health: watch::Receiver<Option<String>>,
    /// Increased after each committed group of changes and each replay, because sinks may have new events.
    sink_wakeups: watch::Sender<u64>,
}

/// Selects the jobs whose states are loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobQuery {
    These(Vec<Arc<TargetJob>>),
    /// The jobs of a store that have not ended, or whose end was observed at `ended_since` or later.
    Retained {
        target_store: TargetStore,
        ended_since: Timestamp,
    },
}

impl Database {
    /// Opens the database at `path`, migrates its schema and starts its writer. Creates a missing file. A damaged file is moved to
    /// quarantine first. Blocks on the disk.
    ///
    /// # Errors
    /// Another process holds a lock, the file is of another program or its schema is newer than this refwatch, the directory is missing,
    /// or the system or SQLite fails.
    pub fn open(path: &Path, instruments: &Instruments) -> Result<Self, FileError> {
        let (requests, receiver) = mpsc::channel(QUEUE_LENGTH);
        let writer = Writer::open(path, instruments)?;
        let (health, sink_wakeups) = (writer.health(), writer.sink_wakeups());
        writer.start(receiver)?;
        Ok(Self { requests, health, sink_wakeups })
    }

    /// Opens the database as [`Self::open`] does. Returns the writer as a future that the caller must run. For tests on paused time: the
    /// clock would advance while a thread commits.
    ///
    /// # Errors
    /// As with [`Self::open`].
    pub fn open_without_thread(
        path: &Path,
        instruments: &Instruments,
    ) -> Result<(Self, impl Future<Output = ()> + Send + use<>), FileError> {
        let (requests, receiver) = mpsc::channel(QUEUE_LENGTH);
        let writer = Writer::open(path, instruments)?;
        let (health, sink_wakeups) = (writer.health(), writer.sink_wakeups());
        Ok((Self { requests, health, sink_wakeups }, writer.run(receiver)))
    }

    /// Watches the error of the last commit or [`Self::probe`]. `None` after a success, and before the first commit.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Option<String>> {
        self.health.clone()
    }

    /// A counter that increases when sinks may have new events: after each commit of [`Self::append`], and after each replay.
    #[must_use]
    pub fn sink_wakeups(&self) -> watch::Receiver<u64> {
        self.sink_wakeups.subscribe()
    }

    /// Reads the last known state of jobs. Rows that cannot be read are skipped. Omits jobs without a readable transition and, for
    /// [`JobQuery::Retained`], jobs whose latest transition is unreadable.
    ///
    /// # Errors
    /// The database cannot be read, or the writer has stopped.
    pub async fn load_states(&self, jobs: JobQuery) -> Result<BTreeMap<Arc<TargetJob>, JobState>, WriterError> {
        if jobs == JobQuery::These(Vec::new()) {
            return Ok(BTreeMap::new());
        }
        self.request(|reply| Request::LoadStates { jobs, reply }).await
    }

    /// Adds a change of one job. Returns once it is on disk. Dropping the future does not cancel a queued change.
    ///
    /// # Errors
    /// The change may or may not be on disk. Appending it again before the job's next change does not duplicate it. After
    /// [`WriterError::Stopped`] every attempt fails.
    pub async fn append(&self, target_job: &TargetJob, change: &Change) -> Result<(), WriterError> {
        if change.is_empty() {
            return Ok(());
        }
        let queued = |reply| QueuedChange { target_job: target_job.clone(), change: change.clone(), reply };
        self.request(|reply| Request::Append(Box::new(queued(reply)))).await
    }

    /// Deletes the rows of every job whose end was observed before `cutoff`. Returns the number of jobs. It uses small transactions,
    /// so that changes can be committed between two of them. Jobs in `watched` keep their rows: without the rows, the next start would
    /// not know that the jobs have ended, and would poll them. The job with the highest row id keeps its rows, so that no id is used twice.
    /// A job with an event that still waits for delivery keeps its rows for 30 more days.
    ///
    /// # Errors
    /// The database cannot be written, or the writer has stopped. Earlier transactions stay committed.
    pub async fn delete_ended_before(
        &self,
        cutoff: Timestamp,
        watched: BTreeSet<Arc<TargetJob>>,
    ) -> Result<usize, WriterError> {
        let watched = Arc::new(watched);
        let mut jobs = 0;
        loop {
            let watched = Arc::clone(&watched);
            let delete = move |transaction: &Transaction<'_>| changes::delete_ended(transaction, cutoff, &watched);
            let deleted = self.transaction(delete).await?;
            jobs += deleted;
            if deleted < changes::DELETE_BATCH_JOBS {
                return Ok(jobs);
            }
        }
    }

    /// Tests whether the write lock can be taken. Also frees SQLite's page cache, which would stay in memory. Writes no rows, so a full
    /// disk may pass the test. Like every request, the probe first checks that the database, its WAL and the WAL's index are the files that
    /// SQLite opened. If the WAL or its index was deleted or replaced, or the database was deleted, the writer moves the content of the WAL
    /// into the database, copies a deleted database from the open file to its path, and opens it again. If the database was moved or
    /// replaced, the request fails. Any result but [`WriterError::Stopped`], even an error, shows that the writer is not stuck.
    ///
    /// # Errors
    /// The database cannot be opened or locked, or the writer has stopped.
    pub async fn probe(&self) -> Result<(), WriterError> {
        self.request(Request::Probe).await
    }

    /// Stops the writer. Returns once every queued request has its result and the file is closed. Later requests of any clone get
    /// [`WriterError::Stopped`].
    pub async fn close(self) {
        let (reply, closed) = oneshot::channel();
        if self.requests.send(Request::Close(reply)).await.is_ok() {
            // An error means that the writer has stopped without a reply.
            drop(closed.await);
        }
    }

    /// Runs `work` in a transaction of its own and commits it. Dropping the future does not cancel it.
    async fn transaction<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, WriterError> {
        self.request(|reply| Request::Transaction(TransactionWork::new(work, reply))).await
    }

    async fn request<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, WriterError> {
        let (reply, result) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| WriterError::Stopped)?;
        result.await.map_err(|_| WriterError::Stopped)?
    }
}

#[cfg(test)]
mod tests;
