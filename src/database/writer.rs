//! The one writer: a thread that owns the connection. It commits all waiting changes in one transaction, then acknowledges each.
//!
//! After any failure it closes the connection, and the next request opens and checks the file again: what SQLite held in memory when
//! a disk failed cannot be trusted. The caller decides whether to repeat a request. The writer publishes the health of the database.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use super::errors::{CommitError, OpenError};
use super::file::LockedFile;
use super::{JobQuery, queries, rows};
use crate::clock::Clock;
use crate::core::job::WatchId;
use crate::core::time::Timestamp;
use crate::core::tracker::JobState;
use crate::core::transition::Change;
use crate::instruments::Instruments;

/// Requests taken at once. It bounds how long the first of them waits for the last.
const GROUP_MAX: usize = 1024;

/// Where the result of a request goes. A caller that has gone changes nothing here.
pub(super) type Reply<T> = oneshot::Sender<Result<T, CommitError>>;

#[derive(Debug)]
pub(super) enum Request {
    Append(Box<Append>),
    Restore {
        jobs: JobQuery,
        done: Reply<BTreeMap<Arc<WatchId>, JobState>>,
    },
    /// Deletes the rows of at most [`rows::DELETED_JOBS_MAX`] jobs, and returns their number.
    DeleteEnded {
        before: Timestamp,
        watched: Arc<BTreeSet<Arc<WatchId>>>,
        done: Reply<usize>,
    },
    /// Tests whether the database can be written.
    Check(Reply<()>),
    /// Ends the writer once all queued requests are done.
    Close(oneshot::Sender<()>),
}

#[derive(Debug)]
pub(super) struct Append {
    pub(super) id: WatchId,
    pub(super) change: Change,
    pub(super) done: Reply<()>,
}

#[derive(Debug)]
pub(super) struct Writer {
    /// `None` after a failure, until the next request.
    connection: Option<Connection>,
    /// The file that the connection was opened on.
    identity: Option<(u64, u64)>,
    file: LockedFile,
    instruments: Instruments,
    health: watch::Sender<Option<String>>,
}

impl Writer {
    /// Takes the lock and opens the file. A damaged one is moved aside first, and a new one created.
    ///
    /// # Errors
    /// As [`super::Database::open`] says.
    pub(super) fn open(path: &Path, instruments: &Instruments) -> Result<Self, OpenError> {
        let mut file = LockedFile::lock(path)?;
        let mut connection = connect(&mut file);
        if let Err(OpenError::Damaged { .. }) = connection {
            // SQLite calls a file damaged whose disk fails to read, too.
            file.read_through()?;
            connection = connect(&mut file);
        }
        if let Err(OpenError::Damaged { path, reason }) = &connection {
            let aside = file.quarantine(Clock::system().now().wall)?;
            instruments.database_quarantined.inc();
            error!(event = "database_quarantined", database = %path.display(), moved_to = %aside.display(), %reason,
                "not a refwatch database, or damaged: moved to quarantine and replaced by a new one. To read its rows: \
                sqlite3 FILE .recover");
            connection = connect(&mut file);
        }
        let identity = file.identity();
        let connection = Some(connection?);
        Ok(Self { connection, identity, file, instruments: instruments.clone(), health: watch::Sender::new(None) })
    }

    pub(super) fn health(&self) -> watch::Receiver<Option<String>> {
        self.health.subscribe()
    }

    /// Starts the thread. It ends when all senders to `queue` are gone, or when it is told to, and the queue is empty.
    ///
    /// # Errors
    /// The system allows no more threads.
    pub(super) fn start(self, queue: mpsc::Receiver<Request>) -> Result<(), OpenError> {
        let path = self.file.path.clone();
        let run = || {
            // All that the thread needs of a runtime is to sleep while the queue is empty.
            let runtime = tokio::runtime::Builder::new_current_thread().build()?;
            thread::Builder::new().name("database".to_owned()).spawn(move || runtime.block_on(self.run(queue)))
        };
        run().map_err(|error| OpenError::System { path, operation: "start the writer thread", error })?;
        Ok(())
    }

    /// Handles requests until the queue ends. Blocks on the disk.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        let mut requests = Vec::new();
        let mut closing = Vec::new();
        while queue.recv_many(&mut requests, GROUP_MAX).await > 0 {
            let mut group: Vec<Append> = Vec::new();
            for request in requests.drain(..) {
                match request {
                    Request::Append(append) => group.push(*append),
                    Request::Restore { jobs, done } => {
                        // Changes that were queued before are part of the result.
                        self.append(mem::take(&mut group));
                        // One transaction, so that all jobs are read at one point in time.
                        let read = self.attempt(|connection| queries::restore(&*connection.transaction()?, jobs));
                        drop(done.send(read));
                    }
                    Request::DeleteEnded { before, watched, done } => {
                        drop(done.send(self.commit(|rows| rows::delete_ended(rows, before, &watched))));
                    }
                    Request::Check(done) => {
                        self.append(mem::take(&mut group));
                        drop(done.send(self.check()));
                    }
                    Request::Close(done) => {
                        queue.close();
                        closing.push(done);
                    }
                }
            }
            self.append(group);
        }
        // Closing the last connection moves the write-ahead log into the database.
        let closed = self.connection.take().map(|connection| connection.close().map_err(|(_, error)| error));
        let error = match closed {
            Some(Ok(())) => self.file.mark_closed().err().map(|error| error.to_string()),
            Some(Err(error)) => Some(error.to_string()),
            None => None,
        };
        if let Some(error) = error {
            warn!(
                event = "database_not_closed",
                error, "cannot close the database; the next start checks it, and no transition is lost"
            );
        }
        drop(self.file);
        for done in closing {
            let _ = done.send(());
        }
    }

    /// Adds a group of changes in one transaction. They succeed or fail together.
    fn append(&mut self, group: Vec<Append>) {
        if group.is_empty() {
            return;
        }
        let result = self.commit(|transaction| {
            let last_id = rows::last_id(transaction)?;
            let mut changes = group.iter();
            changes.try_fold(last_id, |last_id, append| rows::append(transaction, last_id, &append.id, &append.change))
        });
        for append in group {
            drop(append.done.send(result.clone().map(|_| ())));
        }
    }

    fn commit<T>(&mut self, work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T, CommitError> {
        let result = self.attempt(|connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(done)
        });
        match &result {
            Ok(_) => self.instruments.database_commits.inc(),
            Err(_) => self.instruments.database_failures.inc(),
        }
        self.publish_health(result.as_ref().err());
        result
    }

    /// Tests whether the file is the one that was opened and its write lock can be taken.
    fn check(&mut self) -> Result<(), CommitError> {
        let result = self.attempt(|connection| {
            connection.transaction_with_behavior(TransactionBehavior::Immediate)?.rollback()?;
            // The pages that the last commits left in memory: the system caches them, too.
            connection.execute_batch("PRAGMA shrink_memory")
        });
        self.publish_health(result.as_ref().err());
        result
    }

    fn attempt<T>(&mut self, work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Result<T, CommitError> {
        // A commit to a file that was moved or deleted would be lost with it.
        let present = self.connection.take().filter(|_| self.file.identity() == self.identity);
        let mut connection = if let Some(connection) = present {
            connection
        } else {
            let opened = connect(&mut self.file);
            self.identity = self.file.identity();
            opened.map_err(|error| CommitError::Reopen(Arc::new(error)))?
        };
        match work(&mut connection) {
            Ok(done) => {
                self.connection = Some(connection);
                Ok(done)
            }
            Err(error) => {
                self.file.mark_unclean();
                Err(CommitError::Sqlite(Arc::new(error)))
            }
        }
    }

    /// Publishes whether the database can be written. Logs each change once: every watch meets the same error.
    fn publish_health(&self, error: Option<&CommitError>) {
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

/// Opens the file, and tests that nobody has changed its tables by hand.
fn connect(file: &mut LockedFile) -> Result<Connection, OpenError> {
    let connection = file.connect()?;
    queries::probe(&connection).map_err(|error| OpenError::of_sqlite(&file.path, error))?;
    Ok(connection)
}
