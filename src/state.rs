//! The latest published status of every job, every store and the daemon.
//!
//! Tasks write it; pages, metrics and commands read it. Polling never depends on it. The pruning of the database does: it keeps
//! the rows of published watches. The status of a job is committed to the database before it is published.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde::{Deserialize, Serialize, Serializer};
use tokio::sync::{broadcast, watch};

use crate::core::failure::FailureReason;
use crate::core::job::{Labels, TargetJob, TargetStore};
use crate::core::time::Timestamp;
use crate::core::tracker::JobState;
use crate::core::transition::Transition;

pub const RECENT_FAILURES_MAX: usize = 20;

/// Transitions buffered for a slow subscriber. A slower subscriber loses the oldest and receives the number of lost transitions.
const SUBSCRIBER_BACKLOG_MAX: usize = 1024;

/// Clones share the same data.
#[derive(Clone, Debug)]
pub struct SharedState {
    inner: Arc<RwLock<Inner>>,
    transitions: broadcast::Sender<Arc<TransitionEvent>>,
}

/// The health of the database or of a target: `None` while it works, otherwise the error.
pub type Health = watch::Receiver<Option<String>>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransitionEvent {
    /// The `watch` label.
    pub name: Arc<str>,
    pub id: Arc<TargetJob>,
    pub transition: Transition,
}

impl Default for SharedState {
    fn default() -> Self {
        Self { inner: Arc::default(), transitions: broadcast::Sender::new(SUBSCRIBER_BACKLOG_MAX) }
    }
}

#[derive(Debug, Default)]
struct Inner {
    watches: BTreeMap<Arc<TargetJob>, Arc<WatchStatus>>,
    stores: BTreeMap<TargetStore, Arc<StoreStatus>>,
    sinks: BTreeMap<Arc<str>, Arc<SinkStatus>>,
    daemon: DaemonStatus,
    database_health: Option<Health>,
    target_health: BTreeMap<Arc<str>, Health>,
}

/// The latest published status of one watch.
#[derive(Clone, Debug, PartialEq)]
pub struct WatchStatus {
    pub id: Arc<TargetJob>,
    /// The `watch` label.
    pub name: Arc<str>,
    /// The labels in the configuration.
    pub labels: Arc<Labels>,
    /// The target's AWS region; empty if the target has an endpoint and no region.
    pub aws_region: Arc<str>,
    pub state: WatchState,
    /// The state of the job; `None` before the first successful poll.
    pub known: Option<Arc<JobState>>,
    /// Whether the last poll succeeded; `None` before the first poll.
    pub up: Option<bool>,
    pub last_successful_poll: Option<Timestamp>,
    pub next_poll: Option<Timestamp>,
    /// At most [`RECENT_FAILURES_MAX`], the oldest first.
    pub recent_failures: VecDeque<FailedPoll>,
}

impl WatchStatus {
    #[must_use]
    pub fn new(id: Arc<TargetJob>, name: Arc<str>, labels: Arc<Labels>, aws_region: Arc<str>) -> Self {
        Self {
            id,
            name,
            labels,
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
    Finished,
    /// The job is not polled until the configuration changes. Contains the reason.
    Parked(String),
}

impl WatchState {
    pub const LABELS: [&'static str; 3] = ["live", "finished", "parked"];

    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Finished => "finished",
            Self::Parked(_) => "parked",
        }
    }
}

/// The latest published status of a sink, also as JSON in `/api/v1/sinks`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkStatus {
    pub name: String,
    /// Scheme, host and port only, or the file that contains the URL.
    pub url: String,
    pub state: SinkState,
    /// Events that wait for delivery.
    pub waiting: u32,
    /// Events whose delivery has failed.
    pub failed: u32,
    /// When the oldest waiting event was observed.
    #[serde(serialize_with = "with_milliseconds")]
    pub oldest_waiting_at: Option<Timestamp>,
    #[serde(serialize_with = "with_milliseconds")]
    pub paused_since: Option<Timestamp>,
    /// When a paused sink is probed next.
    #[serde(serialize_with = "with_milliseconds")]
    pub next_attempt_at: Option<Timestamp>,
    #[serde(serialize_with = "with_milliseconds")]
    pub disabled_at: Option<Timestamp>,
    #[serde(serialize_with = "with_milliseconds")]
    pub last_delivered_at: Option<Timestamp>,
    /// The last error while events wait or have failed.
    pub last_error: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SinkState {
    /// Accepts notifications.
    #[default]
    Up,
    /// Does not accept notifications at present.
    Paused,
    /// Responded with 410. Receives nothing until its configuration changes.
    Disabled,
}

impl SinkState {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Paused => "paused",
            Self::Disabled => "disabled",
        }
    }
}

#[expect(clippy::ref_option, reason = "the signature that serde calls")]
fn with_milliseconds<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| format!("{time:.3}")).serialize(serializer)
}

/// The latest published status of a store whose jobs are discovered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreStatus {
    pub id: TargetStore,
    /// The `watch` label of its jobs.
    pub name: Arc<str>,
    /// When the store was last listed completely.
    pub listed_at: Option<Timestamp>,
    /// Why new jobs cannot be discovered. May quote the service.
    pub error: Option<String>,
    /// Which limit excluded some jobs, and what to do. `None` if no limit did since the lister started.
    pub limit_message: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedPoll {
    pub at: Timestamp,
    pub reason: FailureReason,
    /// May quote the service.
    pub message: String,
}

/// The errors of the configuration that was last read. `/api/v1/daemon` returns it as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigError {
    /// A clause about the configuration that is used despite the errors: "the previous configuration is still used".
    pub in_use: String,
    /// The first error and the number of the others, on one line.
    pub summary: String,
    /// Every error, each with its location.
    pub details: String,
}

#[derive(Clone, Debug, Default)]
pub struct DaemonStatus {
    /// The main configuration file, absolute.
    pub config_file: PathBuf,
    pub database: PathBuf,
    /// When the running configuration was loaded; `None` before the first load.
    pub config_loaded_at: Option<Timestamp>,
    pub config_error: Option<ConfigError>,
    /// The running configuration as TOML, with secrets hidden.
    pub effective_config: Arc<str>,
    /// Why the database cannot be written; `None` while it can.
    pub database_error: Option<String>,
    /// The targets that are down, with the reason.
    pub targets_down: BTreeMap<Arc<str>, String>,
    /// When the certificate of `http.tls` expires; `None` without TLS.
    pub certificate_expires_at: Option<Timestamp>,
    pub stopping: bool,
}

impl DaemonStatus {
    /// # Errors
    /// The reason why the daemon is not ready.
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
    pub fn publish(&self, watch: impl Into<Arc<WatchStatus>>) {
        let watch = watch.into();
        self.write().watches.insert(Arc::clone(&watch.id), watch);
    }

    pub fn broadcast(&self, event: TransitionEvent) {
        // The error means that there is no subscriber.
        drop(self.transitions.send(Arc::new(event)));
    }

    /// Subscribes to the transitions that are published from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<TransitionEvent>> {
        self.transitions.subscribe()
    }

    pub fn remove(&self, id: &TargetJob) {
        self.write().watches.remove(id);
    }

    #[must_use]
    pub fn watch(&self, id: &TargetJob) -> Option<Arc<WatchStatus>> {
        self.read().watches.get(id).cloned()
    }

    /// A consistent snapshot of every watch, ordered by target, store and job.
    #[must_use]
    pub fn watches(&self) -> Vec<Arc<WatchStatus>> {
        self.read().watches.values().cloned().collect()
    }

    pub fn publish_store(&self, store: StoreStatus) {
        self.write().stores.insert(store.id.clone(), Arc::new(store));
    }

    /// Changes the published status of a store. A new store starts with an empty status.
    pub fn update_store(&self, id: &TargetStore, change: impl FnOnce(&mut StoreStatus)) {
        let mut inner = self.write();
        let new = || StoreStatus { id: id.clone(), name: "".into(), listed_at: None, error: None, limit_message: None };
        change(Arc::make_mut(inner.stores.entry(id.clone()).or_insert_with(|| Arc::new(new()))));
    }

    pub fn remove_store(&self, id: &TargetStore) {
        self.write().stores.remove(id);
    }

    /// A snapshot of every store whose jobs are discovered, ordered by target and store.
    #[must_use]
    pub fn stores(&self) -> Vec<Arc<StoreStatus>> {
        self.read().stores.values().cloned().collect()
    }

    pub fn publish_sink(&self, sink: SinkStatus) {
        self.write().sinks.insert(sink.name.as_str().into(), Arc::new(sink));
    }

    pub fn remove_sink(&self, name: &str) {
        self.write().sinks.remove(name);
    }

    /// A snapshot of every sink, ordered by name.
    #[must_use]
    pub fn sinks(&self) -> Vec<Arc<SinkStatus>> {
        self.read().sinks.values().cloned().collect()
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

    /// Sets the source of the database error that [`Self::daemon`] returns.
    pub fn set_database_health(&self, health: Health) {
        self.write().database_health = Some(health);
    }

    /// Sets the targets whose health [`Self::daemon`] returns. Replaces the previous targets.
    pub fn set_target_health(&self, health: BTreeMap<Arc<str>, Health>) {
        self.write().target_health = health;
    }

    pub fn update_daemon(&self, change: impl FnOnce(&mut DaemonStatus)) {
        change(&mut self.write().daemon);
    }

    // A poisoned lock is still usable: writers only assign fields.
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}
