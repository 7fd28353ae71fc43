//! The record: the durable log of transitions, in SQLite.
//!
//! One thread owns the one connection that writes ([`Record`]). Whoever wants to know what happened reads beside it
//! ([`RecordReader`]), whether a daemon runs or not. Rows are added and, long after a job's end, deleted; none is ever
//! changed.
//!
//! A change is acknowledged once it is on disk and not before: write-ahead log, `synchronous=FULL`. A change that
//! failed may be there all the same, where a disk failed late; so the same change can be appended again and is kept
//! once.

mod chain;
mod connection;
mod indexes;
mod memory;
mod reader;
mod rows;
mod schema;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::core::job::{StoreId, WatchId};
use crate::core::time::Timestamp;
use crate::core::tracker::Known;
use crate::core::transition::Change;
use crate::instruments::Instruments;

pub use reader::{DetailRow, Filter, ReadError, RecordReader, SourceTransitionRow, TransitionRow};

use writer::{Answer, Append, Request, Writer};

/// Requests that wait for the writer. A watch has at most one, so this bounds memory where a disk stalls under
/// thousands of watches; those beyond it wait with their change in hand.
const QUEUE_LENGTH: usize = 1024;

/// The writing side: one per process, held for as long as the process lives. Clones share one writer thread, which ends
/// when the last of them is dropped and everything queued is committed.
#[derive(Clone, Debug)]
pub struct Record {
    requests: mpsc::Sender<Request>,
}

/// Which jobs are asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Jobs {
    /// These.
    These(Vec<Arc<WatchId>>),
    /// Those of a store that go on, or ended lately.
    InSight {
        /// The store.
        store: StoreId,
        /// Ended lately is what was seen to end at this time or later.
        ended_since: Timestamp,
    },
}

/// What the record knows of one job.
#[derive(Clone, Debug, PartialEq)]
pub struct Remembered {
    /// The latest of it.
    pub known: Known,
    /// How many transitions there are, by the index of the status they lead to (`JobStatus::index`).
    pub transitions: [u32; 8],
}

/// The record cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is none, and a reader makes none.
    #[error("{path}: there is no record")]
    Missing {
        /// The record.
        path: PathBuf,
    },
    /// Another process writes it.
    #[error("{path}: the record is in use by {}", holder(*.pid))]
    InUse {
        /// The record.
        path: PathBuf,
        /// The other process; `None` where it did not get to say so.
        pid: Option<u32>,
    },
    /// A newer refwatch wrote it. The file is as it was.
    #[error(
        "{path}: its schema has version {found}, and this refwatch knows none above {known}: use the newer refwatch"
    )]
    NewerSchema {
        /// The record.
        path: PathBuf,
        /// The version of its schema.
        found: usize,
        /// The newest version that this program knows.
        known: usize,
    },
    /// An older refwatch wrote it. Only a reader says so; the daemon brings it up to date.
    #[error("{path}: its schema has version {found} of {known}: start the daemon once to bring it up to date")]
    OlderSchema {
        /// The record.
        path: PathBuf,
        /// The version of its schema.
        found: usize,
        /// The version that this program needs.
        known: usize,
    },
    /// It is no record, or a damaged one. The file is as it was. Only the start of a daemon sets it aside.
    #[error("{path}: no record of refwatch, or a damaged one: {reason}")]
    NotARecord {
        /// The file.
        path: PathBuf,
        /// How that shows.
        reason: String,
    },
    /// SQLite does not do what durability or safety needs, as on some network file systems.
    #[error("{path}: {setting} is {found:?} after it was set to {wanted:?}")]
    NotInForce {
        /// The record.
        path: PathBuf,
        /// The pragma.
        setting: &'static str,
        /// What it was set to.
        wanted: rusqlite::types::Value,
        /// What it reads as.
        found: rusqlite::types::Value,
    },
    /// The system refused something beside SQLite.
    #[error("{path}: {needed}: {error}")]
    System {
        /// The file or directory.
        path: PathBuf,
        /// What was needed of it.
        needed: &'static str,
        /// The refusal.
        #[source]
        error: io::Error,
    },
    /// Something belongs to another user.
    #[error("{path}: {needed}: {whose}: give it to that user with chown, or run as its owner")]
    NotOurs {
        /// The file or directory.
        path: PathBuf,
        /// What was needed of it.
        needed: &'static str,
        /// Who this process is, and who the owner.
        whose: String,
    },
    /// SQLite may not open it, or a file that goes with it.
    #[error(
        "{path}: cannot be opened: this user must be able to read it, \
         and to write its directory where a daemon was killed and has not been started since"
    )]
    NoAccess {
        /// The record.
        path: PathBuf,
    },
    /// SQLite failed.
    #[error("{path}: {error}")]
    Sqlite {
        /// The record.
        path: PathBuf,
        /// How.
        #[source]
        error: rusqlite::Error,
    },
}

/// The writer did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// The writer's thread has ended: closed, or dead by a fault of ours. It does not come back.
    #[error("the thread that writes the record has ended")]
    WriterGone,
    /// SQLite failed. The connection is opened anew at the next request, which may be the same one.
    #[error("{0}")]
    Sqlite(#[source] Arc<rusqlite::Error>),
    /// It failed before, and cannot be opened anew; or its lock file cannot be written.
    #[error("{0}")]
    Reopen(#[source] Arc<OpenError>),
}

impl OpenError {
    /// Whether it is a trouble of the disk, or a lock, that may pass without anybody's doing to this process or its files.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Sqlite { .. } => true,
            Self::System { error, .. } => {
                matches!(
                    error.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem
                ) || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
            }
            Self::Missing { .. }
            | Self::InUse { .. }
            | Self::NewerSchema { .. }
            | Self::OlderSchema { .. }
            | Self::NotARecord { .. }
            | Self::NotInForce { .. }
            | Self::NotOurs { .. }
            | Self::NoAccess { .. } => false,
        }
    }
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or("another process".to_owned(), |pid| format!("process {pid}"))
}

impl Record {
    /// Opens the record at `path`, creates it and its directory where there is none, brings its schema up to date, and
    /// starts its writer. A damaged one, or what is none, is first moved aside whole. Blocks on the disk.
    ///
    /// # Errors
    /// Another process has it open, it is the record of a newer version, or the disk does not allow it.
    pub fn open(path: &Path, instruments: &Instruments) -> Result<Self, OpenError> {
        let (requests, queue) = mpsc::channel(QUEUE_LENGTH);
        Writer::open(path, instruments)?.start(queue)?;
        Ok(Self { requests })
    }

    /// Opens the record as [`Self::open`] does, but leaves the writing to whoever awaits the future: a simulation, where time must
    /// not pass while a commit is under way.
    ///
    /// # Errors
    /// As with [`Self::open`].
    pub fn open_unwritten(
        path: &Path,
        instruments: &Instruments,
    ) -> Result<(Self, impl Future<Output = ()> + Send + use<>), OpenError> {
        let (requests, queue) = mpsc::channel(QUEUE_LENGTH);
        let writing = Writer::open(path, instruments)?.run(queue);
        Ok((Self { requests }, writing))
    }

    /// What is known of some jobs; one that the record does not know is left out.
    ///
    /// # Errors
    /// The record cannot be read, or its writer is gone.
    pub async fn remembered(&self, jobs: Jobs) -> Result<BTreeMap<Arc<WatchId>, Remembered>, CommitError> {
        if jobs == Jobs::These(Vec::new()) {
            return Ok(BTreeMap::new());
        }
        self.ask(|done| Request::Remembered { jobs, done }).await
    }

    /// Adds a change of one job. Returns once it is on disk. Dropping the future does not take the change back.
    ///
    /// # Errors
    /// It may or may not be on disk; appending the same change again keeps it once. [`CommitError::WriterGone`]: it
    /// never will.
    pub async fn append(&self, id: &WatchId, change: &Change) -> Result<(), CommitError> {
        if change.is_empty() {
            return Ok(());
        }
        let (id, change) = (id.clone(), change.clone());
        self.ask(|done| Request::Append(Box::new(Append { id, change, done }))).await
    }

    /// Deletes the rows of every job whose end was seen before `instant`, and says how many jobs that were. It goes in small
    /// transactions, so that transitions are recorded in between. A job that is still `watched` stays: at the next start it must
    /// not be polled again.
    ///
    /// # Errors
    /// The record cannot be written, or its writer is gone. What was deleted until then stays deleted.
    pub async fn delete_ended_before(
        &self,
        instant: Timestamp,
        watched: BTreeSet<Arc<WatchId>>,
    ) -> Result<usize, CommitError> {
        let watched = Arc::new(watched);
        let mut jobs = 0;
        loop {
            let deleted =
                self.ask(|done| Request::DeleteEnded { before: instant, watched: Arc::clone(&watched), done }).await?;
            jobs += deleted;
            if deleted < rows::DELETED_JOBS_MAX {
                return Ok(jobs);
            }
        }
    }

    /// Returns when the writer has got round to answering: no commit of its is stuck.
    ///
    /// # Errors
    /// The record could not be written now.
    pub async fn check(&self) -> Result<(), CommitError> {
        self.ask(Request::Check).await
    }

    /// Ends the writer, whoever else still holds a clone, and returns when all that was queued is committed and the
    /// file is closed. Later requests get [`CommitError::WriterGone`].
    pub async fn close(self) {
        let (done, ended) = oneshot::channel();
        if self.requests.send(Request::Close(done)).await.is_ok() {
            // Without an answer the thread has ended as well.
            drop(ended.await);
        }
    }

    async fn ask<T>(&self, request: impl FnOnce(Answer<T>) -> Request) -> Result<T, CommitError> {
        let (done, answer) = oneshot::channel();
        self.requests.send(request(done)).await.map_err(|_| CommitError::WriterGone)?;
        answer.await.map_err(|_| CommitError::WriterGone)?
    }
}

#[cfg(test)]
mod tests;
