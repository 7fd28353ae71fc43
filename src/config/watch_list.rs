//! What to watch, and the difference between two lists.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::core::job::WatchId;
use crate::core::watch::PollPolicy;

/// The jobs to watch. Two entries for one job cannot be: the configuration refuses them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WatchList {
    /// By target and job.
    pub jobs: BTreeMap<WatchId, JobEntry>,
}

/// One job of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobEntry {
    /// The `watch` label.
    pub name: Arc<str>,
    /// How often to poll.
    pub policy: PollPolicy,
}

/// What has to happen for one list to become another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Difference {
    /// Jobs to begin watching: new ones, and those whose entry changed.
    pub start: Vec<(WatchId, JobEntry)>,
    /// Jobs to stop watching: those that left, and those whose entry changed.
    pub stop: Vec<WatchId>,
}
