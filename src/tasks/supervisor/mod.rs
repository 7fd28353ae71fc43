//! Owns every task: starts, stops and restarts them, and moves from one configuration to the next.
//!
//! A reload computes a plan from what runs and what is wanted; tasks that did not change go on undisturbed. This is the one
//! place that holds the running configuration. Which jobs are watched is in the registries of the stores, never in `state`.

mod tasks;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::{error, warn};

use crate::config::Config;
use crate::config::watch_list::JobEntry;
use crate::core::job::{StoreId, WatchId};
use crate::core::time::Timestamp;
use crate::core::tracker::{JobState, NextAction};
use crate::database::{CommitError, JobQuery};
use crate::healthomics::{ServiceFactory, Target, TargetError};
use crate::tasks::hints::StoreRegistry;
use crate::tasks::job_watcher::{JobWatcher, Poller, TaskContext, WriterStopped};
use crate::tasks::lister::{DiscoveredJobs, Lister, ListingPolicy};
use crate::tasks::plan::{Plan, Running, listers, plan};
use tasks::{RESTARTS_MAX, Tasks};
pub use tasks::{TaskEnd, TaskKey};

/// How long tasks may take to stop. The unit allows 10 s for the whole process.
const STOP_TIMEOUT: Duration = Duration::from_secs(4);

/// Attempts to read a failing database, and the pause between them. Then the process ends.
const READ_ATTEMPTS: u32 = 5;
const READ_PAUSE: Duration = Duration::from_secs(2);

/// Batches of discovered jobs that wait for the supervisor. A lister sends the next one when the last is handled.
const DISCOVERED_MAX: usize = 16;

/// How long the database may take to return what it holds of discovered jobs: an indexed read, after at most one commit.
const DISCOVERED_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Supervisor {
    context: Arc<TaskContext>,
    service_factory: Arc<dyn ServiceFactory>,
    seeds: fastrand::Rng,
    targets: Targets,
    config: Config,
    stores: BTreeMap<StoreId, Arc<StoreRegistry>>,
    tasks: Tasks<TaskKey, WriterStopped>,
    discovered: mpsc::Receiver<DiscoveredJobs>,
    discovered_sender: mpsc::Sender<DiscoveredJobs>,
}

type Targets = BTreeMap<Arc<str>, Arc<Target>>;

/// What the supervisor has to handle.
#[derive(Debug)]
pub enum Event {
    /// A task ended that was not stopped.
    Ended(TaskEnd<TaskKey, WriterStopped>),
    Discovered(DiscoveredJobs),
}

/// A configuration cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A target cannot be built. The running configuration goes on.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The database cannot be read. The running configuration goes on.
    #[error("the database cannot be read: {0}")]
    Database(CommitError),
    /// The database writer has ended, or stopped watches cannot go on because the database cannot be read.
    #[error("the database: {0}")]
    Lost(CommitError),
}

impl Supervisor {
    /// `seed` sets the jitter of every task.
    #[must_use]
    pub fn new(context: TaskContext, service_factory: Arc<dyn ServiceFactory>, seed: u64) -> Self {
        let (discovered_sender, discovered) = mpsc::channel(DISCOVERED_MAX);
        Self {
            context: Arc::new(context),
            service_factory,
            seeds: fastrand::Rng::with_seed(seed),
            targets: BTreeMap::new(),
            config: Config::new(PathBuf::new()),
            stores: BTreeMap::new(),
            tasks: Tasks::new(),
            discovered,
            discovered_sender,
        }
    }

    /// Moves from the running configuration to `config`.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub async fn apply(&mut self, config: &Config) -> Result<(), ApplyError> {
        let plan = plan(&self.running(), config);
        let targets = self.build_targets(config, &plan).await?;
        // Nothing may be stopped that could not be started again.
        let start = JobQuery::These(plan.start_jobs.keys().cloned().collect());
        let retained = plan.start_listers.iter().filter(|(_, policy)| policy.discovery.is_some());
        for jobs in [start.clone()].into_iter().chain(retained.map(|(store, _)| self.retained(store, config))) {
            self.context.database.restore(jobs).await.map_err(ApplyError::Database)?;
        }
        self.stop_tasks(&plan, config).await;
        for name in self.targets.keys().filter(|name| !targets.contains_key(*name)) {
            self.context.instruments.remove_target(name);
        }
        (self.targets, self.config) = (targets, config.clone());
        let mut restored = self.restore(start).await?;
        for (id, entry) in plan.start_jobs {
            let restored = restored.remove(&id);
            self.start_watch(id, &entry, restored, 0);
        }
        for (store, policy) in plan.start_listers {
            if policy.discovery.is_some() {
                // Live and retained jobs start at once: they may be too old to be discovered, and listing may fail. A job that
                // vanished is polled once more, because one 404 may have been wrong.
                let jobs = self.restore(self.retained(&store, &self.config)).await?;
                let jobs = jobs.into_iter().map(|(id, job)| (id, Some(job)));
                self.start_discovered(&store, jobs, |known| known.status.is_terminal());
            }
            self.start_lister(store, policy, 0);
        }
        let wanted = &self.config.watch_list;
        let wanted: BTreeSet<_> =
            wanted.jobs.keys().map(|id| id.store_id()).chain(wanted.stores.keys().cloned()).collect();
        self.stores.retain(|store, _| wanted.contains(store));
        self.publish_targets();
        Ok(())
    }

    fn running(&self) -> Running<'_> {
        let watched =
            self.stores.iter().flat_map(|(store, jobs)| jobs.watched().into_iter().map(|job| store.watch(job)));
        let discovered = watched.filter(|id| !self.config.watch_list.jobs.contains_key(id)).collect();
        let running =
            listers(&self.config).into_keys().filter(|store| self.tasks.runs(&TaskKey::Lister(store.clone())));
        Running { config: &self.config, discovered, listers: running.collect() }
    }

    /// Unchanged targets are kept, with the rate that they have found.
    async fn build_targets(&self, config: &Config, plan: &Plan) -> Result<Targets, TargetError> {
        let mut targets = self.targets.clone();
        targets.retain(|name, _| !plan.changed_targets.contains(name));
        for name in config.watch_list.targets() {
            let Some(wanted) = config.targets.get(name) else { unreachable!("the configuration names its targets") };
            if !targets.contains_key(name) {
                let TaskContext { clock, instruments, .. } = &*self.context;
                let target = Target::new(wanted, &*self.service_factory, *clock, instruments).await?;
                targets.insert(Arc::clone(name), Arc::new(target));
            }
        }
        Ok(targets)
    }

    async fn stop_tasks(&mut self, plan: &Plan, config: &Config) {
        let jobs = plan.stop_jobs.iter().cloned().map(TaskKey::Watch);
        self.tasks.stop(jobs.chain(plan.stop_listers.iter().cloned().map(TaskKey::Lister)), STOP_TIMEOUT).await;
        for id in &plan.stop_jobs {
            // A changed job or store stays visible until its new task publishes it.
            self.remove_watch(id, !plan.start_jobs.contains_key(id));
        }
        for store in self.config.watch_list.stores.keys().filter(|store| !config.watch_list.stores.contains_key(store))
        {
            self.context.board.remove_store(store);
        }
    }

    fn remove_watch(&self, id: &WatchId, hide: bool) {
        if hide {
            self.context.board.remove(id);
        }
        if let Some(store) = self.stores.get(&id.store_id()) {
            store.unsubscribe(&id.key.job);
        }
    }

    /// The jobs of a store that are live or still retained under `config`.
    fn retained(&self, store: &StoreId, config: &Config) -> JobQuery {
        let entry = config.watch_list.stores.get(store);
        let remove_after = entry.and_then(|entry| entry.each.remove_after).unwrap_or_default();
        let now = self.context.clock.now().wall;
        let ended_since = now.checked_sub(remove_after).unwrap_or(Timestamp::MIN);
        JobQuery::Recent { store: store.clone(), ended_since }
    }

    /// Readiness depends on a target only while live jobs or discovered stores use it: nothing else would end its outage.
    fn publish_targets(&self) {
        let live = self.stores.iter().filter(|(_, jobs)| jobs.has_live_jobs()).map(|(store, _)| store);
        let used: BTreeSet<_> = live.chain(self.config.watch_list.stores.keys()).map(|store| &store.target).collect();
        let used = self.targets.iter().filter(|(name, _)| used.contains(name));
        self.context.board.set_target_health(used.map(|(name, target)| (Arc::clone(name), target.health())).collect());
    }

    /// Returns the next event. Cancel safe.
    pub async fn next_event(&mut self) -> Event {
        tokio::select! {
            biased;
            end = self.tasks.next_end() => Event::Ended(end),
            Some(discovered) = self.discovered.recv() => Event::Discovered(discovered),
        }
    }

    /// # Errors
    /// The daemon cannot go on.
    pub async fn handle_event(&mut self, event: Event) -> Result<(), ApplyError> {
        match event {
            Event::Ended(end) => self.handle_end(end).await,
            Event::Discovered(discovered) => self.handle_discovered(discovered).await,
        }
    }

    async fn handle_end(&mut self, end: TaskEnd<TaskKey, WriterStopped>) -> Result<(), ApplyError> {
        match end {
            TaskEnd::Done(TaskKey::Lister(_)) => {}
            TaskEnd::Done(TaskKey::Watch(id)) => {
                // The retention of a discovered job has expired. Other jobs stay until they leave the configuration.
                if !self.config.watch_list.jobs.contains_key(&id) {
                    self.remove_watch(&id, true);
                }
            }
            TaskEnd::Failed(WriterStopped) => return Err(ApplyError::Lost(CommitError::WriterGone)),
            TaskEnd::Panicked { key: TaskKey::Lister(store), restarts } => {
                self.context.instruments.task_restarts.inc();
                if let Some(policy) = listers(&self.config).remove(&store) {
                    self.start_lister(store, policy, restarts);
                }
            }
            TaskEnd::Panicked { key: TaskKey::Watch(id), restarts } => {
                self.context.instruments.task_restarts.inc();
                // The panic may have come between a commit and its publication, so the task starts from the database.
                let restored = self.restore(JobQuery::These(vec![id.clone()])).await?.remove(&id);
                if let Some(entry) = self.config.watch_list.entry(&id).cloned() {
                    self.start_watch(id, &entry, restored, restarts);
                }
            }
            TaskEnd::FailedPermanently(key) => self.fail_permanently(&key),
        }
        Ok(())
    }

    /// Starts watches of the jobs that a lister discovered.
    async fn handle_discovered(
        &mut self,
        DiscoveredJobs { store, jobs, ack }: DiscoveredJobs,
    ) -> Result<(), ApplyError> {
        if ack.is_closed() {
            return Ok(());
        }
        let ids: Vec<Arc<WatchId>> = jobs.into_iter().map(|job| store.watch(job)).collect();
        let restored = self.context.database.restore(JobQuery::These(ids.clone()));
        // The other tasks must not wait for a disk that hangs.
        let handled = match tokio::time::timeout(DISCOVERED_TIMEOUT, restored).await {
            Ok(Ok(mut restored)) => {
                self.start_discovered(&store, ids.into_iter().map(|id| (id.clone(), restored.remove(&id))), |_| true);
                Ok(())
            }
            Ok(Err(error @ CommitError::WriterGone)) => return Err(ApplyError::Lost(error)),
            Ok(Err(error)) => Err(format!("the database cannot be read: {error}")),
            Err(_) => Err("the database did not respond in time".to_owned()),
        };
        // An error: the lister has ended meanwhile.
        let _ = ack.send(handled);
        Ok(())
    }

    /// Stops every task. Commits in progress end first.
    pub async fn stop(mut self) {
        self.tasks.stop_all(STOP_TIMEOUT).await;
    }

    /// Reads what the database holds of jobs whose tasks have ended, with retries: without it they cannot start again.
    async fn restore(&self, jobs: JobQuery) -> Result<BTreeMap<Arc<WatchId>, JobState>, ApplyError> {
        for _ in 0..READ_ATTEMPTS {
            match self.context.database.restore(jobs.clone()).await {
                Err(error @ (CommitError::Sqlite(_) | CommitError::Reopen(_))) => {
                    warn!(event = "database_unreadable", %error, "cannot read the database; retrying");
                    self.context.clock.sleep(READ_PAUSE).await;
                }
                result => return result.map_err(ApplyError::Lost),
            }
        }
        self.context.database.restore(jobs).await.map_err(ApplyError::Lost)
    }

    /// Starts watches of jobs of a store, except those that are watched. Jobs that are `droppable` and whose retention has expired
    /// are not started either.
    fn start_discovered(
        &mut self,
        store: &StoreId,
        jobs: impl Iterator<Item = (Arc<WatchId>, Option<JobState>)>,
        droppable: impl Fn(&JobState) -> bool,
    ) {
        let Some(entry) = self.config.watch_list.stores.get(store).map(|entry| entry.each.clone()) else { return };
        let now = self.context.clock.now().wall;
        for (id, restored) in jobs {
            let droppable = restored.as_ref().filter(|known| droppable(known));
            let remaining = droppable.and_then(|known| known.remaining_retention(entry.remove_after?, now));
            let watched = self.stores.get(store).is_some_and(|jobs| jobs.is_watched(&id.key.job));
            if remaining != Some(Duration::ZERO) && !watched {
                self.start_watch(id, &entry, restored, 0);
            }
        }
    }

    fn start_watch(&mut self, id: Arc<WatchId>, entry: &JobEntry, known: Option<JobState>, restarts: u32) {
        let Some(target) = self.targets.get(&id.target) else { unreachable!("targets are built before watches") };
        let hints = self.stores.entry(id.store_id()).or_default().subscribe(&id.key.job);
        let (target, seed) = (Arc::clone(target), self.seeds.u64(..));
        let poller = Poller::new(target, Arc::clone(&id), *entry.policy, known.map(Arc::new), hints, seed);
        let (context, name) = (Arc::clone(&self.context), Arc::clone(&entry.name));
        let watcher = JobWatcher::new(context, poller, Arc::clone(&id), name, entry.remove_after);
        self.tasks.start(TaskKey::Watch(id), restarts, |stop| watcher.run(stop));
    }

    fn start_lister(&mut self, store: StoreId, policy: ListingPolicy, restarts: u32) {
        let Some(target) = self.targets.get(&store.target) else { unreachable!("targets are built before listers") };
        let registry = Arc::clone(self.stores.entry(store.clone()).or_default());
        let (context, discovered) = (Arc::clone(&self.context), self.discovered_sender.clone());
        let (target, seed) = (Arc::clone(target), self.seeds.u64(..));
        let lister = Lister::new(context, discovered, target, store.clone(), registry, policy, seed);
        self.tasks.start(TaskKey::Lister(store), restarts, |stop| async {
            lister.run(stop).await;
            Ok(())
        });
    }

    fn fail_permanently(&self, key: &TaskKey) {
        let reason = format!("internal error: its task failed more than {RESTARTS_MAX} times");
        match key {
            TaskKey::Lister(store) => {
                error!(event = "lister_failed", target = %store.target, store_id = %store.store,
                    restarts = RESTARTS_MAX, "internal error: the lister of this store failed too often; its jobs are polled \
                    one by one and new jobs are not discovered until refwatch restarts");
                if let Some(registry) = self.stores.get(store) {
                    registry.set_safety_interval(None);
                }
                if self.config.watch_list.stores.contains_key(store) {
                    self.context.board.update_store(store, |view| view.error = Some(reason));
                }
            }
            TaskKey::Watch(id) => {
                error!(event = "watch_failed", target = %id.target, job = %id.key, restarts = RESTARTS_MAX,
                    "internal error: the task of this watch failed too often; it is parked until its entry changes");
                if let Some(registry) = self.stores.get(&id.store_id()) {
                    registry.subscribe(&id.key.job).report(NextAction::Parked(reason.clone()), None);
                }
                self.context.board.park(id, reason);
            }
        }
    }
}

#[cfg(test)]
mod tests;
