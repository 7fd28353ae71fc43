//! Owns every task: starts, stops and restarts them, and moves from one watch list to the next.
//!
//! Level, not edge: a reload computes what is wished for and moves to it. Whatever did not change goes on undisturbed.

mod tasks;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, warn};

use crate::board::{WatchState, WatchView};
use crate::config::watch_list::JobEntry;
use crate::config::{Config, TargetConfig};
use crate::core::job::{ReferenceStoreId, WatchId};
use crate::hints::StoreHints;
use crate::omics::{Connect, Target, TargetError};
use crate::record::{CommitError, Remembered};
use crate::sweeper::Sweeper;
use crate::watcher::{Poller, RecordGone, Watcher, Workplace};
use tasks::{Ended, RESTARTS_MAX, Tasks};

/// How long tasks may take to stop: one commit, in the main. The unit gives the whole process 10 s.
const STOP_PATIENCE: Duration = Duration::from_secs(4);

/// How often, and how long apart, a record that cannot be read is asked again before the process is left to its supervisor.
const RECORD_ATTEMPTS: u32 = 5;
const RECORD_PAUSE: Duration = Duration::from_secs(2);

/// The owner of every task.
#[derive(Debug)]
pub struct Supervisor {
    workplace: Workplace,
    connect: Arc<dyn Connect>,
    seeds: fastrand::Rng,
    targets: Targets,
    config: Config,
    stores: BTreeMap<StoreId, Arc<StoreHints>>,
    tasks: Tasks<TaskKey, RecordGone>,
}

/// How a task ended that nobody had told to.
#[derive(Debug)]
pub struct TaskEnd(Ended<TaskKey, RecordGone>);

/// The targets in use, by name, and what each was built from.
type Targets = BTreeMap<Arc<str>, (TargetConfig, Arc<Target>)>;

/// A store, as it is read through one target.
type StoreId = (Arc<str>, ReferenceStoreId);

/// What a task is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum TaskKey {
    Watch(WatchId),
    Sweep(StoreId),
}

/// A configuration that cannot be put in force.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A target cannot be built. The configuration before it stays in force.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The record cannot be read, so nothing could be taken up. The configuration before it stays in force.
    #[error("the record cannot be read: {0}")]
    Record(CommitError),
    /// The record is gone, or cannot be read for so long that what was stopped cannot go on.
    #[error("the record: {0}")]
    Lost(CommitError),
}

impl Supervisor {
    /// A supervisor of nothing yet, which reaches targets through `connect`. `seed` sets the jitter of every watch.
    #[must_use]
    pub fn new(workplace: Workplace, connect: Arc<dyn Connect>, seed: u64) -> Self {
        Self {
            workplace,
            connect,
            seeds: fastrand::Rng::with_seed(seed),
            targets: BTreeMap::new(),
            config: Config::new(PathBuf::new()),
            stores: BTreeMap::new(),
            tasks: Tasks::new(),
        }
    }

    /// Puts `config` in force.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub async fn apply(&mut self, config: &Config) -> Result<(), ApplyError> {
        let targets = self.build_targets(config).await?;
        let difference = self.config.difference(config);
        if !difference.start.is_empty() {
            // Where the record cannot be read nothing could be taken up, so nothing may be stopped for it.
            self.workplace.record.remembered().await.map_err(ApplyError::Record)?;
        }
        let sweeps = sweeps_of(config);
        let moved = |name: &str| self.targets.get(name).map(|(built_from, _)| built_from) != config.targets.get(name);
        let swept = sweeps_of(&self.config);
        let ended = swept.iter().filter(|store| !sweeps.contains(*store) || moved(&store.0)).cloned();
        let stop = ended.map(TaskKey::Sweep).chain(difference.stop.iter().cloned().map(TaskKey::Watch));
        self.tasks.stop(stop, STOP_PATIENCE).await;
        for id in &difference.stop {
            // One that only changed stays in sight until its successor takes its place.
            if !config.watch_list.jobs.contains_key(id) {
                self.workplace.board.remove(id);
            }
            if let Some(hints) = self.stores.get(&store_of(id)) {
                hints.forget(&id.key.job);
            }
        }
        for gone in self.targets.keys().filter(|name| !targets.contains_key(*name)) {
            self.workplace.instruments.forget_target(gone);
        }
        self.targets = targets;
        self.config = config.clone();
        if !difference.start.is_empty() {
            let mut remembered = self.remembered().await.map_err(ApplyError::Lost)?;
            for (id, entry) in difference.start {
                let remembered = remembered.remove(&id);
                self.start_watch(id, &entry, remembered, 0);
            }
        }
        for store in sweeps {
            if !self.tasks.runs(&TaskKey::Sweep(store.clone())) {
                self.start_sweep(store, 0);
            }
        }
        let stores: BTreeSet<StoreId> = self.config.watch_list.jobs.keys().map(store_of).collect();
        self.stores.retain(|store, _| stores.contains(store));
        Ok(())
    }

    /// The next task that ended of itself. A caller that stops waiting loses nothing.
    pub async fn next_end(&mut self) -> TaskEnd {
        TaskEnd(self.tasks.next_end().await)
    }

    /// Does what the end of a task asks for.
    ///
    /// # Errors
    /// The daemon cannot go on.
    pub async fn handle_end(&mut self, TaskEnd(end): TaskEnd) -> Result<(), ApplyError> {
        match end {
            Ended::Done => {}
            Ended::Failed(RecordGone) => return Err(ApplyError::Lost(CommitError::WriterGone)),
            Ended::Panicked { key: TaskKey::Sweep(store), restarts } => {
                self.workplace.instruments.task_restarts.inc();
                self.start_sweep(store, restarts);
            }
            Ended::Panicked { key: TaskKey::Watch(id), restarts } => {
                self.workplace.instruments.task_restarts.inc();
                // The panic may lie between a commit and its publication: the record knows, the board may not.
                let remembered = self.remembered().await.map_err(ApplyError::Lost)?.remove(&id);
                if let Some(entry) = self.config.watch_list.jobs.get(&id).cloned() {
                    self.start_watch(id, &entry, remembered, restarts);
                }
            }
            Ended::GivenUp(key) => self.give_up(&key),
        }
        Ok(())
    }

    /// Stops every task; commits that are under way end first.
    pub async fn stop(mut self) {
        self.tasks.stop_all(STOP_PATIENCE).await;
    }

    /// What the record knows, once tasks have ended that have to be started again. A record in trouble is asked again for a
    /// while, since without it nothing can go on.
    async fn remembered(&self) -> Result<BTreeMap<WatchId, Remembered>, CommitError> {
        for _ in 0..RECORD_ATTEMPTS {
            match self.workplace.record.remembered().await {
                Err(error @ (CommitError::Sqlite(_) | CommitError::Reopen(_))) => {
                    warn!(event = "record_unreadable", %error, "the record is asked again");
                    self.workplace.clock.sleep(RECORD_PAUSE).await;
                }
                answer => return answer,
            }
        }
        self.workplace.record.remembered().await
    }

    async fn build_targets(&self, config: &Config) -> Result<Targets, TargetError> {
        // One that nothing uses at present keeps its place under the quota all the same.
        let unchanged = self.targets.iter().filter(|(name, (standing, _))| config.targets.get(*name) == Some(standing));
        let mut targets: Targets = unchanged.map(|(name, target)| (Arc::clone(name), target.clone())).collect();
        let used = config.watch_list.jobs.keys().map(|id| &id.target);
        for name in used.collect::<BTreeSet<_>>() {
            let Some(wished) = config.targets.get(name) else { unreachable!("the configuration names its targets") };
            if !targets.contains_key(name) {
                let Workplace { clock, instruments, .. } = &self.workplace;
                let target = Arc::new(Target::new(wished, &*self.connect, *clock, instruments).await?);
                targets.insert(Arc::clone(name), (wished.clone(), target));
            }
        }
        Ok(targets)
    }

    fn start_watch(&mut self, id: WatchId, entry: &JobEntry, remembered: Option<Remembered>, restarts: u32) {
        let Some((_, target)) = self.targets.get(&id.target) else { unreachable!("targets are built before watches") };
        let hints = self.stores.entry(store_of(&id)).or_default().listen(&id.key.job);
        let (known, transitions) = remembered.map(|job| (job.known, job.transitions)).unzip();
        let (target, seed) = (Arc::clone(target), self.seeds.u64(..));
        let poller = Poller::new(self.workplace.clock, target, id.key.clone(), entry.policy, known, hints, seed);
        let (name, transitions) = (Arc::clone(&entry.name), transitions.unwrap_or_default());
        let watcher = Watcher::new(self.workplace.clone(), poller, id.clone(), name, transitions);
        self.tasks.start(TaskKey::Watch(id), restarts, |stop| watcher.run(stop));
    }

    fn start_sweep(&mut self, store: StoreId, restarts: u32) {
        let Some((_, target)) = self.targets.get(&store.0) else { return };
        let (target, seed) = (Arc::clone(target), self.seeds.u64(..));
        let hints = Arc::clone(self.stores.entry(store.clone()).or_default());
        let Workplace { clock, board, .. } = self.workplace.clone();
        let (target_name, id) = store.clone();
        let sweeper = Sweeper::new(clock, board, target, target_name, id, hints, seed);
        self.tasks.start(TaskKey::Sweep(store), restarts, |stop| async {
            sweeper.run(stop).await;
            Ok(())
        });
    }

    fn give_up(&self, key: &TaskKey) {
        match key {
            TaskKey::Sweep(store) => {
                error!(event = "sweep_given_up", target = %store.0, reference_store_id = %store.1, restarts = RESTARTS_MAX,
                    "sweeping this store failed again and again: its jobs are polled one by one until the next start");
                if let Some(hints) = self.stores.get(store) {
                    hints.set_safety_interval(None);
                }
            }
            TaskKey::Watch(id) => {
                error!(event = "watch_given_up", target = %id.target, job = %id.key, restarts = RESTARTS_MAX,
                    "the task of this watch failed again and again: it is parked until the next reload that changes it");
                if let Some(view) = self.workplace.board.watch(id) {
                    let state =
                        WatchState::Parked(format!("a fault of refwatch: its task failed {RESTARTS_MAX} times over"));
                    self.workplace.board.publish(WatchView { state, next_poll: None, ..(*view).clone() });
                }
            }
        }
    }
}

fn store_of(id: &WatchId) -> StoreId {
    (Arc::clone(&id.target), id.key.store.clone())
}

/// The stores that are worth a sweep: those with more than one watch.
fn sweeps_of(config: &Config) -> BTreeSet<StoreId> {
    let mut watches: BTreeMap<StoreId, u32> = BTreeMap::new();
    for id in config.watch_list.jobs.keys().filter(|_| config.poll.sweep) {
        *watches.entry(store_of(id)).or_default() += 1;
    }
    watches.into_iter().filter(|(_, count)| *count > 1).map(|(store, _)| store).collect()
}

#[cfg(test)]
mod tests;
