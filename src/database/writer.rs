//! The only writer: it owns the connection. It commits a group of waiting changes in one transaction, then acknowledges each change.
//!
//! After an error of SQLite it closes the connection, because the pages in memory may differ from the disk. The next request opens the file
//! again, with SQLite's `quick_check`. The caller decides whether to repeat a request. Health is the result of the last commit or probe.

use std::collections::BTreeMap;
use std::fmt;
use std::mem;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use super::errors::{FileError, WriterError};
use super::file::DatabaseFile;
use super::{JobQuery, changes, queries};
use crate::clock::Clock;
use crate::core::job::TargetJob;
use crate::core::tracker::JobState;
use crate::core::transition::Change;
use crate::instruments::Instruments;

/// Maximum of requests taken from the queue at once, and so of changes in a group. It bounds how long the first caller waits.
const GROUP_MAX: usize = 1024;

/// The WAL grows to this size only while a reader stays open: SQLite starts a checkpoint at 4 MiB.
const WAL_STALLED_BYTES: u64 = 64 << 20;

/// Sends the result of a request. The caller may have dropped the receiver.
pub(super) type Reply<T> = oneshot::Sender<Result<T, WriterError>>;

#[derive(Debug)]
pub(super) enum Request {
    Append(Box<QueuedChange>),
    LoadStates {
        jobs: JobQuery,
        reply: Reply<BTreeMap<Arc<TargetJob>, JobState>>,
    },
    /// Work that needs a transaction of its own. It sends its own reply.
    Transaction(TransactionWork),
    /// Tests whether the write lock can be taken, and frees SQLite's page cache.
    Probe(Reply<()>),
    /// Stops the writer after all queued requests.
    Close(oneshot::Sender<()>),
}

/// Calls [`Writer::commit`] with a closure and sends the result.
pub(super) struct TransactionWork(Box<dyn FnOnce(&mut Writer) + Send>);

impl TransactionWork {
    pub(super) fn new<T: Send + 'static>(
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
        reply: Reply<T>,
    ) -> Self {
        Self(Box::new(move |writer| drop(reply.send(writer.commit(work)))))
    }
}

impl fmt::Debug for TransactionWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TransactionWork")
    }
}

#[derive(Debug)]
pub(super) struct QueuedChange {
    pub(super) target_job: TargetJob,
    pub(super) change: Change,
    pub(super) reply: Reply<()>,
}

#[derive(Debug)]
pub(super) struct Writer {
    /// `None` if the file must be opened again.
    connection: Option<Connection>,
    file: DatabaseFile,
    /// Whether the WAL was larger than [`WAL_STALLED_BYTES`] when it was last measured.
    is_checkpoint_stalled: bool,
    instruments: Instruments,
    health: watch::Sender<Option<String>>,
    /// See [`super::Database::sink_wakeups`].
    sink_wakeups: watch::Sender<u64>,
}

impl Writer {
    /// Takes the lock and opens the file. Moves a damaged file to quarantine and creates a new one.
    ///
    /// # Errors
    /// As [`super::Database::open`].
    pub(super) fn open(path: &Path, instruments: &Instruments) -> Result<Self, FileError> {
        let mut file = DatabaseFile::acquire(path)?;
        let mut connection = connect_and_check_tables(&mut file);
        if let Err(FileError::Damaged { .. }) = connection {
            // A failing disk can look like damage. If `read_all` fails, no file is moved. Otherwise check once more: the first error may
            // have been temporary.
            file.read_all()?;
            connection = connect_and_check_tables(&mut file);
        }
        if let Err(FileError::Damaged { path, reason }) = &connection {
            let directory = file.quarantine(Clock::system().now().wall)?;
            instruments.database_quarantined.inc();
            error!(event = "database_quarantined", database = %path.display(), moved_to = %directory.display(), %reason,
                "the database is damaged: it was moved to quarantine and replaced by a new one. To read its rows: \
                sqlite3 FILE .recover");
            connection = connect_and_check_tables(&mut file);
        }
        let (connection, instruments) = (Some(connection?), instruments.clone());
        let (health, sink_wakeups) = (watch::Sender::new(None), watch::Sender::new(0));
        let mut writer = Self { connection, file, is_checkpoint_stalled: false, instruments, health, sink_wakeups };
        writer.measure_sizes();
        Ok(writer)
    }

    pub(super) fn health(&self) -> watch::Receiver<Option<String>> {
        self.health.subscribe()
    }

    pub(super) fn sink_wakeups(&self) -> watch::Sender<u64> {
        self.sink_wakeups.clone()
    }

    /// Starts a thread for [`Self::run`].
    ///
    /// # Errors
    /// The thread cannot be created.
    pub(super) fn start(self, queue: mpsc::Receiver<Request>) -> Result<(), FileError> {
        let path = self.file.path.clone();
        let started = thread::Builder::new().name("database".to_owned()).spawn(move || {
            // The tokio runtime is built here. If it were built before the thread and the thread could not start, it would be dropped
            // within the daemon's runtime, where tokio panics.
            match tokio::runtime::Builder::new_current_thread().build() {
                Ok(runtime) => runtime.block_on(self.run(queue)),
                Err(error) => {
                    error!(event = "database_thread_failed", %error, "the thread that writes the database cannot run");
                }
            }
        });
        started.map_err(|error| FileError::System { path, operation: "start the writer thread", error })?;
        Ok(())
    }

    /// Handles requests. Ends once the queue is empty after [`Request::Close`], or after all senders are gone. Blocks on the disk.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        let mut requests = Vec::new();
        let mut closing = Vec::new();
        while queue.recv_many(&mut requests, GROUP_MAX).await > 0 {
            let mut group: Vec<QueuedChange> = Vec::new();
            for request in requests.drain(..) {
                match request {
                    Request::Append(change) => group.push(*change),
                    Request::LoadStates { jobs, reply } => {
                        // The result must include the changes that were queued before.
                        self.commit_group(mem::take(&mut group));
                        // One transaction: SQLite takes its read lock once, not for every query.
                        let read = self.execute(|connection| queries::load_states(&*connection.transaction()?, jobs));
                        drop(reply.send(read));
                    }
                    Request::Transaction(TransactionWork(run)) => {
                        self.commit_group(mem::take(&mut group));
                        run(&mut self);
                    }
                    Request::Probe(reply) => {
                        // Commit first: the probe also frees SQLite's page cache, including the pages of this commit.
                        self.commit_group(mem::take(&mut group));
                        drop(reply.send(self.probe()));
                    }
                    Request::Close(reply) => {
                        queue.close();
                        closing.push(reply);
                    }
                }
            }
            self.commit_group(group);
        }
        self.close();
        for reply in closing {
            let _ = reply.send(());
        }
    }

    /// Closes the connection, then releases the locks. SQLite moves the WAL into the database if this is the last connection.
    fn close(mut self) {
        if self.connection.is_none() {
            // Closed after an error. The process id stays in the lock file, so the next start checks the database.
            return;
        }
        // An empty operation: `execute` saves all commits if a file was deleted since the last request.
        let saved = self.execute(|_| Ok(()));
        self.publish_health(saved.as_ref().err());
        let close_error = match self.connection.take().map(Connection::close) {
            Some(Err((_, error))) => Some(error.to_string()),
            // `execute` failed, and its error is published. It kept the connection if it could not save the commits, otherwise it dropped
            // the connection. The process id stays in the lock file, so the next start checks the database.
            Some(Ok(())) | None if saved.is_err() => None,
            Some(Ok(())) | None => self.file.empty_lock_file().err().map(|error| error.to_string()),
        };
        if let Some(error) = close_error {
            warn!(
                event = "database_not_closed",
                error, "cannot close the database; the next start checks it, and no committed transition is lost"
            );
        }
    }

    /// Commits a group of changes in one transaction. They succeed or fail together.
    fn commit_group(&mut self, group: Vec<QueuedChange>) {
        if group.is_empty() {
            return;
        }
        let result = self.commit(|transaction| {
            let start = changes::last_row_id(transaction)?;
            let mut changes = group.iter().map(|queued| (&queued.target_job, &queued.change));
            changes.try_fold(start, |last_id, (target_job, change)| {
                changes::insert(transaction, last_id, target_job, change)
            })
        });
        for queued in group {
            drop(queued.reply.send(result.clone().map(|_| ())));
        }
        if result.is_ok() {
            self.sink_wakeups.send_modify(|count| *count += 1);
        }
    }

    fn commit<T>(&mut self, work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T, WriterError> {
        let result = self.execute(|connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        });
        match &result {
            Ok(_) => self.instruments.database_commits.inc(),
            Err(_) => self.instruments.database_failures.inc(),
        }
        self.publish_health(result.as_ref().err());
        result
    }

    /// Takes the write lock and releases it, then frees SQLite's page cache.
    fn probe(&mut self) -> Result<(), WriterError> {
        let result = self.execute(|connection| {
            connection.transaction_with_behavior(TransactionBehavior::Immediate)?.rollback()?;
            // SQLite's page cache would stay in memory between commits. The kernel caches the same pages.
            connection.execute_batch("PRAGMA shrink_memory")
        });
        self.measure_sizes();
        self.publish_health(result.as_ref().err());
        result
    }

    /// Calls `work` with the connection. Opens the file first if the last operation failed. Before and after the work, restores a
    /// deleted file with all commits: a commit to a deleted file must not be acknowledged.
    fn execute<T>(&mut self, work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Result<T, WriterError> {
        let mut connection = match self.connection.take() {
            Some(connection) => self.reopen_if_changed(connection)?,
            None => self.connect()?,
        };
        match work(&mut connection) {
            Ok(value) => {
                self.connection = Some(self.reopen_if_changed(connection)?);
                Ok(value)
            }
            // The connection is dropped, which closes it.
            Err(error) => {
                self.file.require_check();
                Err(WriterError::Sqlite(Arc::new(error)))
            }
        }
    }

    /// Returns the connection. If the database, its WAL or the WAL's index (`-shm`) is no longer the file that SQLite opened, saves all
    /// commits and opens the database again. If the commits cannot be saved, the old connection is kept for the next request.
    fn reopen_if_changed(&mut self, connection: Connection) -> Result<Connection, WriterError> {
        if self.file.is_in_place() {
            return Ok(connection);
        }
        if let Err(error) = self.file.save_commits(&connection) {
            self.connection = Some(connection);
            return Err(WriterError::Reopen(Arc::new(error)));
        }
        drop(connection);
        let connection = self.connect()?;
        warn!(event = "database_reopened", database = %self.file.path.display(),
            "a file of the database was deleted or replaced; all commits were saved, and the database was opened again");
        Ok(connection)
    }

    fn connect(&mut self) -> Result<Connection, WriterError> {
        connect_and_check_tables(&mut self.file).map_err(|error| WriterError::Reopen(Arc::new(error)))
    }

    /// Sets the gauges of the sizes. Logs once while a reader prevents checkpoints.
    fn measure_sizes(&mut self) {
        let [database, wal] = self.file.sizes();
        let gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.instruments.database_size.set(gauge(database));
        self.instruments.database_wal.set(gauge(wal));
        let was_stalled = mem::replace(&mut self.is_checkpoint_stalled, wal > WAL_STALLED_BYTES);
        if self.is_checkpoint_stalled && !was_stalled {
            warn!(event = "checkpoint_stalled", database = %self.file.path.display(), wal_bytes = wal,
                "the write-ahead log grows, because another process stays in a read transaction: to find it, run `fuser -v` on the \
                database; then end it");
        }
    }

    /// Publishes the result of a commit or probe. Logs only when it differs from the last one: one failure affects many requests.
    fn publish_health(&self, error: Option<&WriterError>) {
        let error = error.map(ToString::to_string);
        let changed = self.health.send_if_modified(|health| {
            let changed = *health != error;
            health.clone_from(&error);
            changed
        });
        match error {
            Some(error) if changed => {
                warn!(event = "database_failed", %error, "cannot write to the database; polling is paused");
            }
            None if changed => info!(event = "database_recovered", "the database can be written again"),
            Some(_) | None => {}
        }
    }
}

/// Opens the file and requires every column of the tables of changes: SQLite's check accepts a table that was altered by hand.
fn connect_and_check_tables(file: &mut DatabaseFile) -> Result<Connection, FileError> {
    let connection = file.connect()?;
    queries::require_columns(&connection).map_err(|error| FileError::of_sqlite(&file.path, error))?;
    Ok(connection)
}
