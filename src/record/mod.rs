//! The record: the durable log of transitions, in SQLite.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::core::job::{Change, WatchId};
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
