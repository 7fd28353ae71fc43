//! The board: the latest published state of every watch and of the daemon. Pages, metrics and commands read it and nothing
//! else; what stands here is already in the record.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::{broadcast, watch};

use crate::core::failure::FailureReason;
use crate::core::job::{ImportJobId, StoreId, WatchId};
use crate::core::time::Timestamp;
use crate::core::tracker::Known;
use crate::core::transition::Transition;

/// Failed polls kept for each watch. Old ones give way, so that a job in trouble for days costs no more than one in trouble
/// for minutes.
pub const RECENT_FAILURES_MAX: usize = 20;

/// Transitions held for a follower that is slow to read. One that falls further behind is told how many it missed.
const FOLLOWER_BACKLOG_MAX: usize = 1024;

/// The latest published state of everything. Cheap to clone: clones share one board.
#[derive(Clone, Debug)]
pub struct StatusBoard {
    inner: Arc<RwLock<Inner>>,
    transitions: broadcast::Sender<Arc<Announced>>,
}

/// The health that one part of the daemon publishes about itself: `None` while it works, else what is wrong.
pub type Health = watch::Receiver<Option<String>>;

/// A transition that is in the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// The `watch` label.
    pub name: Arc<str>,
    /// Which job, through which target.
    pub id: Arc<WatchId>,
    /// The transition.
    pub transition: Transition,
}

impl Default for StatusBoard {
    fn default() -> Self {
        Self { inner: Arc::default(), transitions: broadcast::Sender::new(FOLLOWER_BACKLOG_MAX) }
    }
}

#[derive(Debug, Default)]
struct Inner {
    watches: BTreeMap<Arc<WatchId>, Arc<WatchView>>,
    stores: BTreeMap<StoreId, Arc<StoreView>>,
    daemon: DaemonView,
    database_health: Option<Health>,
    target_health: BTreeMap<Arc<str>, Health>,
}

/// The latest published state of one watch.
#[derive(Clone, Debug, PartialEq)]
pub struct WatchView {
    /// Which job, through which target.
    pub id: Arc<WatchId>,
    /// The `watch` label.
    pub name: Arc<str>,
    /// The target's AWS region; empty where the configured endpoint stands for one.
    pub aws_region: Arc<str>,
    /// Whether it is being polled.
    pub state: WatchState,
    /// The latest that is known of the job; `None` before the first good answer.
    pub known: Option<Arc<Known>>,
    /// Whether the last poll succeeded; `None` before the first one.
    pub up: Option<bool>,
    /// When a poll last succeeded.
    pub last_successful_poll: Option<Timestamp>,
    /// When the next poll is due.
    pub next_poll: Option<Timestamp>,
    /// How many transitions the record holds, by the index of the status they lead to (`JobStatus::index`).
    pub transitions: [u32; 8],
    /// The latest failed polls, the oldest first, at most [`RECENT_FAILURES_MAX`].
    pub recent_failures: VecDeque<FailedPoll>,
}

impl WatchView {
    /// A watch of which nothing is known yet but how many transitions the record holds.
    #[must_use]
    pub fn new(id: Arc<WatchId>, name: Arc<str>, aws_region: Arc<str>, transitions: [u32; 8]) -> Self {
        Self {
            id,
            name,
            aws_region,
            state: WatchState::Live,
            known: None,
            up: None,
            last_successful_poll: None,
            next_poll: None,
            transitions,
            recent_failures: VecDeque::new(),
        }
    }
}

/// Whether a watch is being polled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchState {
    /// It is polled.
    Live,
    /// Its job has ended.
    Finished,
    /// It is not polled until the configuration changes, for this reason.
    Parked(String),
}

impl WatchState {
    /// Every label there is.
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

/// The latest published state of a store of which every job is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreView {
    /// Which store, through which target.
    pub id: StoreId,
    /// The `watch` label of its jobs.
    pub name: Arc<str>,
    /// When it was last listed; `None` before the first time.
    pub listed_at: Option<Timestamp>,
    /// Why no new job of it can be found; `None` while they can. It may quote the service.
    pub trouble: Option<String>,
    /// Why some jobs were not found and will not be; `None` where nothing speaks for it.
    pub missed: Option<String>,
}

/// A poll that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedPoll {
    /// When.
    pub at: Timestamp,
    /// Its class.
    pub reason: FailureReason,
    /// What happened. It may quote the service.
    pub message: String,
}

/// What is wrong with the configuration as it was last read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// What is in force all the same.
    pub in_force: &'static str,
    /// The first mistake and how many more there are, on one line.
    pub summary: String,
    /// A line for each mistake, with its place. It never holds a line of the file, which may have a password in it.
    pub details: String,
}

/// The state of the daemon itself.
#[derive(Clone, Debug, Default)]
pub struct DaemonView {
    /// When the configuration in force was loaded; `None` before the first one.
    pub config_loaded_at: Option<Timestamp>,
    /// What is wrong with the configuration as it was last read; `None` where nothing is.
    pub config_error: Option<ConfigError>,
    /// The configuration in force as TOML, without secrets.
    pub config_in_force: Arc<str>,
    /// Why the record cannot be written; `None` while it can.
    pub record_error: Option<String>,
    /// The targets through which AWS lets nothing be seen, and what it says.
    pub refused_targets: BTreeMap<Arc<str>, String>,
    /// Whether the daemon is on its way out.
    pub stopping: bool,
}

impl DaemonView {
    /// Whether the daemon does its work: a configuration is in force, the record can be written, AWS lets every target through, and it is
    /// not stopping.
    ///
    /// # Errors
    /// Why it does not.
    pub fn ready(&self) -> Result<(), String> {
        if self.stopping {
            return Err("stopping".to_owned());
        }
        if let Some(error) = &self.record_error {
            return Err(format!("the record cannot be written: {error}"));
        }
        if let Some((target, said)) = self.refused_targets.first_key_value() {
            return Err(format!("AWS refuses all that is asked through target \"{target}\": {said}"));
        }
        match self.config_loaded_at {
            Some(_) => Ok(()),
            None => Err("no configuration is in force yet".to_owned()),
        }
    }
}

impl StatusBoard {
    /// Publishes the state of one watch.
    pub fn publish(&self, view: impl Into<Arc<WatchView>>) {
        let view = view.into();
        self.write().watches.insert(Arc::clone(&view.id), view);
    }

    /// Tells whoever follows of a transition.
    pub fn announce(&self, announced: Announced) {
        // An error means that nobody follows.
        drop(self.transitions.send(Arc::new(announced)));
    }

    /// Every transition from now on.
    #[must_use]
    pub fn follow(&self) -> broadcast::Receiver<Arc<Announced>> {
        self.transitions.subscribe()
    }

    /// Takes a watch off the board.
    pub fn remove(&self, id: &WatchId) {
        self.write().watches.remove(id);
    }

    /// One watch.
    #[must_use]
    pub fn watch(&self, id: &WatchId) -> Option<Arc<WatchView>> {
        self.read().watches.get(id).cloned()
    }

    /// Every watch, ordered by target, store and job: one consistent picture.
    #[must_use]
    pub fn watches(&self) -> Vec<Arc<WatchView>> {
        self.read().watches.values().cloned().collect()
    }

    /// Every watch of a store, ordered by job.
    #[must_use]
    pub fn watches_of(&self, store: &StoreId) -> Vec<Arc<WatchView>> {
        let inner = self.read();
        let from = inner.watches.range(store.watch(ImportJobId::least())..);
        from.take_while(|(id, _)| id.is_of(store)).map(|(_, watch)| Arc::clone(watch)).collect()
    }

    /// One store.
    #[must_use]
    pub fn store(&self, id: &StoreId) -> Option<Arc<StoreView>> {
        self.read().stores.get(id).cloned()
    }

    /// Publishes the state of one store.
    pub fn publish_store(&self, view: StoreView) {
        self.write().stores.insert(view.id.clone(), Arc::new(view));
    }

    /// Takes a store off the board.
    pub fn remove_store(&self, id: &StoreId) {
        self.write().stores.remove(id);
    }

    /// Every store of which every job is watched, ordered by target and store.
    #[must_use]
    pub fn stores(&self) -> Vec<Arc<StoreView>> {
        self.read().stores.values().cloned().collect()
    }

    /// The state of the daemon.
    #[must_use]
    pub fn daemon(&self) -> DaemonView {
        let inner = self.read();
        let mut daemon = inner.daemon.clone();
        let error = |health: &Health| health.borrow().clone();
        daemon.record_error = inner.database_health.as_ref().and_then(error).or(daemon.record_error);
        let failing =
            inner.target_health.iter().filter_map(|(target, health)| Some((Arc::clone(target), error(health)?)));
        daemon.refused_targets.extend(failing);
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

    /// Takes note of whether the record can be written, and says whether that is news.
    #[must_use]
    pub fn record_stands(&self, error: Option<String>) -> bool {
        // Nearly always there is nothing new, and readers need not wait.
        if self.read().daemon.record_error == error {
            return false;
        }
        self.write().daemon.record_error = error;
        true
    }

    /// Takes note of why nothing can be seen through a target, if so.
    pub fn target_stands(&self, target: &Arc<str>, refused: Option<String>) {
        // Nearly always there is nothing new, and readers need not wait.
        if self.read().daemon.refused_targets.get(target) == refused.as_ref() {
            return;
        }
        let refused_targets = &mut self.write().daemon.refused_targets;
        match refused {
            Some(said) => drop(refused_targets.insert(Arc::clone(target), said)),
            None => drop(refused_targets.remove(target)),
        }
    }

    /// Changes the state of the daemon.
    pub fn update_daemon(&self, change: impl FnOnce(&mut DaemonView)) {
        change(&mut self.write().daemon);
    }

    // A panic while the lock was held leaves whole values behind: each write above is one assignment.
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}
