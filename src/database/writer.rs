//! The one writer: a thread that owns the connection, takes what waits into one transaction, commits it, and only then
//! acknowledges each change. A burst of changes so costs one sync.
//!
//! After any failure the connection is closed, and opened anew with every check at the next request: what it held in
//! memory when a disk failed is not to be trusted. Whether to try again is up to whoever asked.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, warn};

use super::connection::{self, Locked};
use super::{CommitError, Jobs, OpenError, Remembered, chain, memory, rows};
use crate::clock::Clock;
use crate::core::job::WatchId;
use crate::core::time::Timestamp;
use crate::core::transition::Change;
use crate::instruments::Instruments;

/// Requests taken at once. It bounds how long the first of them waits for the last.
const GROUP_MAX: usize = 1024;

/// Where the answer to a request goes.
pub(super) type Answer<T> = oneshot::Sender<Result<T, CommitError>>;

/// What the writer is asked.
#[derive(Debug)]
pub(super) enum Request {
    /// To add a change.
    Append(Box<Append>),
    /// What is known of some jobs.
    Remembered { jobs: Jobs, done: Answer<BTreeMap<Arc<WatchId>, Remembered>> },
    /// To delete the rows of at most [`rows::DELETED_JOBS_MAX`] jobs, and to say how many it were.
    DeleteEnded { before: Timestamp, watched: Arc<BTreeSet<Arc<WatchId>>>, done: Answer<usize> },
    /// To answer, and to say whether the record could be written.
    Check(Answer<()>),
    /// To end when all that is queued is done.
    Close(oneshot::Sender<()>),
}

/// A change of one job, to be added.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) id: WatchId,
    pub(super) change: Change,
    pub(super) done: Answer<()>,
}

/// The thread's own.
#[derive(Debug)]
pub(super) struct Writer {
    /// `None` after a failure, until the next request.
    connection: Option<Connection>,
    /// Which file it is a connection to.
    identity: Option<(u64, u64)>,
    file: Locked,
    instruments: Instruments,
}

impl Writer {
    /// Takes the lock and opens the file. A damaged one is set aside first, and a new one made.
    ///
    /// # Errors
    /// As [`super::Record::open`] says.
    pub(super) fn open(path: &Path, instruments: &Instruments) -> Result<Self, OpenError> {
        let file = Locked::new(path)?;
        let open = || file.make().and_then(|()| connection::connect(&file));
        let connection = match open() {
            // SQLite calls a file damaged that a disk fails to read. So it is read past SQLite, and must be called so twice.
            Err(OpenError::NotARecord { .. }) => file.read().and_then(|()| open()),
            opened => opened,
        };
        let connection = match connection {
            Err(OpenError::NotARecord { path, reason }) => {
                let aside = file.set_aside(Clock::system().now().wall)?;
                instruments.record_set_aside.inc();
                error!(event = "record_set_aside", record = %path.display(), moved_to = %aside.display(), %reason,
                    "no record of refwatch, or a damaged one: a new one is begun. To read what is left of it: sqlite3 FILE .recover. \
                    To put a sound one back: stop refwatch, move it to its place, remove the .lock beside it");
                open()
            }
            opened => opened,
        }?;
        let identity = connection::identity(&file.path);
        Ok(Self { connection: Some(connection), identity, file, instruments: instruments.clone() })
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
            thread::Builder::new().name("record".to_owned()).spawn(move || runtime.block_on(self.run(queue)))
        };
        run().map_err(|error| OpenError::System { path, needed: "a thread must be started", error })?;
        Ok(())
    }

    /// Does what is asked, until the queue ends. Blocks on the disk.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        let mut requests = Vec::new();
        let mut ended = Vec::new();
        while queue.recv_many(&mut requests, GROUP_MAX).await > 0 {
            let mut group: Vec<Append> = Vec::new();
            for request in requests.drain(..) {
                match request {
                    Request::Append(append) => group.push(*append),
                    Request::Remembered { jobs, done } => {
                        // What was queued before is part of what is known.
                        self.append(mem::take(&mut group));
                        // One picture of all of them.
                        answer(done, self.attempt(|connection| memory::remembered(&*connection.transaction()?, jobs)));
                    }
                    Request::DeleteEnded { before, watched, done } => {
                        let unmarked = self.file.unmark().map_err(|error| CommitError::Reopen(Arc::new(error)));
                        let deleted =
                            unmarked.and_then(|()| self.commit(|rows| rows::delete_ended(rows, before, &watched)));
                        answer(done, deleted);
                    }
                    Request::Check(done) => {
                        self.append(mem::take(&mut group));
                        answer(done, self.check());
                    }
                    Request::Close(done) => {
                        queue.close();
                        ended.push(done);
                    }
                }
            }
            self.append(group);
        }
        // The last connection to be closed takes the write-ahead log into the file.
        match self.connection.take().map(Connection::close) {
            Some(Ok(())) => {
                if let Err(error) = self.file.seal() {
                    warn!(event = "record_not_sealed", %error, "the next start checks all of the record");
                }
            }
            Some(Err((_, error))) => {
                warn!(%error, "the record was not closed; nothing is lost, and the next start completes it");
            }
            None => {}
        }
        drop(self.file);
        for done in ended {
            answer(done, ());
        }
    }

    /// Adds a group of changes in one transaction. They share its fate.
    fn append(&mut self, group: Vec<Append>) {
        if group.is_empty() {
            return;
        }
        let result = self.commit(|rows| {
            // The last row is read once and then known: to read it before each change would cost as much as to add that.
            let last = chain::last(rows)?;
            group.iter().try_fold(last, |last, append| rows::append(rows, last, &append.id, &append.change))?;
            Ok(())
        });
        for append in group {
            answer(append.done, result.clone());
        }
    }

    fn commit<T>(&mut self, work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T, CommitError> {
        let result = self.attempt(|connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = work(&transaction)?;
            let last = chain::last(&transaction)?;
            transaction.commit()?;
            Ok((done, last))
        });
        match &result {
            Ok((_, last)) => {
                self.instruments.record_commits.inc();
                if let Err(error) = self.file.set_mark(*last) {
                    warn!(event = "record_not_marked", %error, "should these rows get lost, the next start may not notice");
                }
            }
            Err(_) => self.instruments.record_failures.inc(),
        }
        result.map(|(done, _)| done)
    }

    /// Whether the record could be written: the file is the one that was opened, and its write lock can be had. Pages that the last
    /// commits have left in memory, two mebibytes of them, are not kept until the next: the system has them, too.
    fn check(&mut self) -> Result<(), CommitError> {
        self.attempt(|connection| {
            connection.transaction_with_behavior(TransactionBehavior::Immediate)?.rollback()?;
            connection.execute_batch("PRAGMA shrink_memory")
        })
    }

    fn attempt<T>(&mut self, work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Result<T, CommitError> {
        // What is committed to a file that was moved or deleted is lost with it.
        let standing = self.connection.take().filter(|_| connection::identity(&self.file.path) == self.identity);
        let mut connection = if let Some(connection) = standing {
            connection
        } else {
            let reopened = connection::connect(&self.file);
            self.identity = connection::identity(&self.file.path);
            reopened.map_err(|error| CommitError::Reopen(Arc::new(error)))?
        };
        let done = work(&mut connection).map_err(|error| CommitError::Sqlite(Arc::new(error)))?;
        self.connection = Some(connection);
        Ok(done)
    }
}

/// Whoever asked may have gone, which changes nothing here.
fn answer<T>(done: oneshot::Sender<T>, result: T) {
    drop(done.send(result));
}
