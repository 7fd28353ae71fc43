//! The latest published status of every job, every store and the daemon.
//!
//! Pages, metrics and commands read it. Tasks write it and never read it: no decision depends on it. Everything published here
//! is already committed to the database.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::{broadcast, watch};

use crate::core::failure::FailureReason;
use crate::core::job::{StoreId, WatchId};
use crate::core::time::Timestamp;
use crate::core::tracker::JobState;
use crate::core::transition::Transition;

/// Failed polls kept for each watch; the oldest is removed first.
pub const RECENT_FAILURES_MAX: usize = 20;

/// Transitions buffered for a slow subscriber. One that falls further behind receives the number that it missed.
const FOLLOWER_BACKLOG_MAX: usize = 1024;

/// The latest published status of everything. Clones share it.
#[derive(Clone, Debug)]
pub struct SharedState {
    inner: Arc<RwLock<Inner>>,
    transitions: broadcast::Sender<Arc<TransitionEvent>>,
}

/// The health that one part of the daemon publishes about itself: `None` while it works, else what is wrong.
pub type Health = watch::Receiver<Option<String>>;

/// A committed transition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransitionEvent {
    /// The `watch` label.
    pub name: Arc<str>,
    pub id: Arc<WatchId>,
    pub transition: Transition,
}

impl Default for SharedState {
    fn default() -> Self {
        Self { inner: Arc::default(), transitions: broadcast::Sender::new(FOLLOWER_BACKLOG_MAX) }
    }
}

#[derive(Debug, Default)]
struct Inner {
    watches: BTreeMap<Arc<WatchId>, Arc<WatchStatus>>,
    stores: BTreeMap<StoreId, Arc<StoreStatus>>,
    daemon: DaemonStatus,
    database_health: Option<Health>,
    target_health: BTreeMap<Arc<str>, Health>,
}

/// The latest published status of one watch.
#[derive(Clone, Debug, PartialEq)]
pub struct WatchStatus {
    pub id: Arc<WatchId>,
    /// The `watch` label.
    pub name: Arc<str>,
    /// The target's AWS region; empty if the target has an endpoint and no region.
    pub aws_region: Arc<str>,
    pub state: WatchState,
    /// `None` before the first successful poll.
    pub known: Option<Arc<JobState>>,
    /// Whether the last poll succeeded; `None` before the first one.
    pub up: Option<bool>,
    pub last_successful_poll: Option<Timestamp>,
    pub next_poll: Option<Timestamp>,
    /// The oldest first, at most [`RECENT_FAILURES_MAX`].
    pub recent_failures: VecDeque<FailedPoll>,
}

impl WatchStatus {
    /// A watch before its first poll.
    #[must_use]
    pub fn new(id: Arc<WatchId>, name: Arc<str>, aws_region: Arc<str>) -> Self {
        Self {
            id,
            name,
            aws_region,
            state: WatchState::Live,
            known: None,
            up: None,
            last_successful_poll: None,
            next_poll: None,
            recent_failures: VecDeque::new(),
        }
    }
}

/// Whether a watch is being polled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchState {
    Live,
    /// The job has ended.
    Finished,
    /// The job is not polled until the configuration changes, for this reason.
    Parked(String),
}

impl WatchState {
    pub const LABELS: [&'static str; 3] = ["live", "finished", "parked"];

    /// The metric label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Finished => "finished",
            Self::Parked(_) => "parked",
        }
    }
}

/// The latest published status of a store whose jobs are discovered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreStatus {
    pub id: StoreId,
    /// The `watch` label of its jobs.
    pub name: Arc<str>,
    /// When it was last listed completely.
    pub listed_at: Option<Timestamp>,
    /// Why new jobs cannot be discovered, if they cannot. It may quote the service.
    pub error: Option<String>,
    /// Why some jobs were not discovered and will not be.
    pub missed: Option<String>,
}

/// A poll that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedPoll {
    pub at: Timestamp,
    pub reason: FailureReason,
    /// It may quote the service.
    pub message: String,
}

/// The errors of the configuration that was last read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Which configuration runs despite the errors.
    pub in_force: &'static str,
    /// The first error and the number of the others, on one line.
    pub summary: String,
    /// Every error, each with its location.
    pub details: String,
}

#[derive(Clone, Debug, Default)]
pub struct DaemonStatus {
    /// When the running configuration was loaded; `None` before the first one.
    pub config_loaded_at: Option<Timestamp>,
    pub config_error: Option<ConfigError>,
    /// The running configuration as TOML, its secrets hidden.
    pub effective_config: Arc<str>,
    /// Why the database cannot be written; `None` while it can.
    pub database_error: Option<String>,
    /// The targets that are down, and why.
    pub targets_down: BTreeMap<Arc<str>, String>,
    pub stopping: bool,
}

impl DaemonStatus {
    /// The readiness of the daemon.
    ///
    /// # Errors
    /// Why it is not ready.
    pub fn ready(&self) -> Result<(), String> {
        if self.stopping {
            return Err("stopping".to_owned());
        }
        if let Some(error) = &self.database_error {
            return Err(format!("the database cannot be written: {error}"));
        }
        if let Some((target, reason)) = self.targets_down.first_key_value() {
            return Err(format!("target \"{target}\" is down: {reason}"));
        }
        match self.config_loaded_at {
            Some(_) => Ok(()),
            None => Err("no configuration has been applied yet".to_owned()),
        }
    }
}

impl SharedState {
    pub fn publish(&self, view: impl Into<Arc<WatchStatus>>) {
        let view = view.into();
        self.write().watches.insert(Arc::clone(&view.id), view);
    }

    /// Sends a transition to every subscriber.
    pub fn announce(&self, announced: TransitionEvent) {
        // An error means that there is no subscriber.
        drop(self.transitions.send(Arc::new(announced)));
    }

    /// Subscribes to every transition from now on.
    #[must_use]
    pub fn follow(&self) -> broadcast::Receiver<Arc<TransitionEvent>> {
        self.transitions.subscribe()
    }

    pub fn remove(&self, id: &WatchId) {
        self.write().watches.remove(id);
    }

    #[must_use]
    pub fn watch(&self, id: &WatchId) -> Option<Arc<WatchStatus>> {
        self.read().watches.get(id).cloned()
    }

    /// A consistent snapshot of every watch, ordered by target, store and job.
    #[must_use]
    pub fn watches(&self) -> Vec<Arc<WatchStatus>> {
        self.read().watches.values().cloned().collect()
    }

    pub fn publish_store(&self, view: StoreStatus) {
        self.write().stores.insert(view.id.clone(), Arc::new(view));
    }

    /// Changes the published status of one store. A store that was not published before starts with an empty status.
    pub fn update_store(&self, id: &StoreId, change: impl FnOnce(&mut StoreStatus)) {
        let mut inner = self.write();
        let new = || StoreStatus { id: id.clone(), name: "".into(), listed_at: None, error: None, missed: None };
        change(Arc::make_mut(inner.stores.entry(id.clone()).or_insert_with(|| Arc::new(new()))));
    }

    /// Shows that a watch is not polled any more, for this reason.
    pub fn park(&self, id: &WatchId, reason: String) {
        if let Some(watch) = self.write().watches.get_mut(id) {
            let watch = Arc::make_mut(watch);
            (watch.state, watch.next_poll) = (WatchState::Parked(reason), None);
        }
    }

    pub fn remove_store(&self, id: &StoreId) {
        self.write().stores.remove(id);
    }

    /// A snapshot of every store whose jobs are discovered, ordered by target and store.
    #[must_use]
    pub fn stores(&self) -> Vec<Arc<StoreStatus>> {
        self.read().stores.values().cloned().collect()
    }

    #[must_use]
    pub fn daemon(&self) -> DaemonStatus {
        let inner = self.read();
        let mut daemon = inner.daemon.clone();
        let error = |health: &Health| health.borrow().clone();
        daemon.database_error = inner.database_health.as_ref().and_then(error).or(daemon.database_error);
        let failing =
            inner.target_health.iter().filter_map(|(target, health)| Some((Arc::clone(target), error(health)?)));
        daemon.targets_down.extend(failing);
        daemon
    }

    /// Shows the health of the database from now on.
    pub fn set_database_health(&self, health: Health) {
        self.write().database_health = Some(health);
    }

    /// Shows the health of these targets, and of no others, from now on.
    pub fn set_target_health(&self, health: BTreeMap<Arc<str>, Health>) {
        self.write().target_health = health;
    }

    pub fn update_daemon(&self, change: impl FnOnce(&mut DaemonStatus)) {
        change(&mut self.write().daemon);
    }

    // A poisoned lock is still usable: each write is one assignment.
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}
