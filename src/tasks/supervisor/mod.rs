//! The supervisor: starts, stops and restarts every task, and moves from one configuration to the next.
//!
//! A reload compares the new configuration with the running tasks and changes only the tasks that differ. The supervisor owns the
//! targets, the running configuration and the registries of the stores.

mod task_set;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::warn;

use crate::config::Config;
use crate::config::watch_list::{JobSettings, WatchList};
use crate::core::job::{TargetJob, TargetStore};
use crate::core::time::Timestamp;
use crate::core::tracker::JobState;
use crate::database::{JobQuery, WriterError};
use crate::healthomics::{ServiceFactory, Target, TargetError};
use crate::tasks::context::{TaskContext, WriterStopped};
use crate::tasks::job_watcher::{JobWatcher, Poller};
use crate::tasks::lister::{DiscoveredBatch, Lister, ListingPolicy};
use crate::tasks::plan::{Plan, RunningSet, listing_policies, plan};
use crate::tasks::registry::StoreRegistry;
pub use task_set::{TaskExit, TaskKey};
use task_set::{TaskSet, restart_delay};

/// How long tasks may take to stop. The systemd unit allows 10 s for the whole process.
const STOP_TIMEOUT: Duration = Duration::from_secs(4);

/// How many times a failed read of the database is retried when tasks start. If the last retry fails, the process ends.
const READ_RETRIES: u32 = 5;

const READ_RETRY_PAUSE: Duration = Duration::from_secs(2);

/// The capacity of the channel of discovered jobs. A lister sends one batch at a time.
const DISCOVERED_BATCHES_MAX: usize = 16;

/// The timeout for reading discovered jobs from the database. The supervisor handles nothing else meanwhile.
const DISCOVERED_READ_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Supervisor {
    context: Arc<TaskContext>,
    service_factory: Arc<dyn ServiceFactory>,
    seeds: fastrand::Rng,
    targets: Targets,
    config: Config,
    registries: BTreeMap<TargetStore, Arc<StoreRegistry>>,
    tasks: TaskSet<TaskKey, WriterStopped>,
    discovered_sender: mpsc::Sender<DiscoveredBatch>,
    discovered_receiver: mpsc::Receiver<DiscoveredBatch>,
}

type Targets = BTreeMap<Arc<str>, Arc<Target>>;

/// Whether to watch a job that is vanished and overdue according to the database. It may have expired already: expiry takes another 404,
/// and the database has only the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OverdueVanishedPolicy {
    /// Before a lister starts, for all jobs of the store in the database: poll them again, because the 404 may have been wrong. They
    /// expire after a poll that also returns 404.
    PollAgain,
    /// When a lister hands the job over: do not watch it. AWS may list a job although its polls return 404. The job would then expire
    /// after one poll, and its task would start again after the next listing, without end.
    Skip,
}

#[derive(Debug)]
pub enum SupervisorEvent {
    /// A task exited without being stopped, or a stopped task returned an error.
    TaskExited(TaskExit<TaskKey, WriterStopped>),
    Discovered(DiscoveredBatch),
}

/// A configuration cannot be applied, or the supervisor cannot continue.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// A target cannot be built. The running configuration stays.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The database could not be read before the configuration was changed. The error is a `WriterError`, because the writer also reads.
    /// No task was stopped, and the running configuration stays.
    #[error("the database cannot be read: {0}")]
    Unreadable(WriterError),
    /// The daemon cannot continue: the database writer has ended, or the database cannot be read to start tasks.
    #[error("the database failed: {0}")]
    Fatal(WriterError),
}

impl Supervisor {
    /// `seed` sets the jitter of every task.
    #[must_use]
    pub fn new(context: TaskContext, service_factory: Arc<dyn ServiceFactory>, seed: u64) -> Self {
        let (discovered_sender, discovered_receiver) = mpsc::channel(DISCOVERED_BATCHES_MAX);
        let tasks = TaskSet::new(context.clock);
        Self {
            context: Arc::new(context),
            service_factory,
            seeds: fastrand::Rng::with_seed(seed),
            targets: BTreeMap::new(),
            config: Config::new(PathBuf::new()),
            registries: BTreeMap::new(),
            tasks,
            discovered_sender,
            discovered_receiver,
        }
    }

    /// The running configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Moves from the running configuration to `config`.
    ///
    /// # Errors
    /// See [`SupervisorError`].
    pub async fn apply(&mut self, config: &Config) -> Result<(), SupervisorError> {
        let plan = plan(&self.running_set(), config);
        let targets = self.build_targets(config, &plan).await?;
        let start_query = JobQuery::These(plan.start_jobs.keys().cloned().collect());
        let discovering = plan.start_listers.iter().filter(|(_, policy)| policy.discovery.is_some());
        let retained_queries = discovering.map(|(store, _)| self.retained_query(store, config));
        // Before any task stops, checks that the database can be read. It is read again after that, because a stopping task may write.
        for query in [start_query.clone()].into_iter().chain(retained_queries) {
            self.context.database.load_states(query).await.map_err(|error| match error {
                WriterError::Stopped => SupervisorError::Fatal(error),
                WriterError::Sqlite(_) | WriterError::Reopen(_) => SupervisorError::Unreadable(error),
            })?;
        }
        self.stop_tasks(&plan, config).await;
        for name in self.targets.keys().filter(|name| !targets.contains_key(*name)) {
            self.context.instruments.remove_target(name);
        }
        (self.targets, self.config) = (targets, config.clone());
        let mut states = self.read_states(start_query).await?;
        for (id, entry) in plan.start_jobs {
            let known = states.remove(&id);
            self.start_job_watcher(id, &entry, known, 0);
        }
        for (store, policy) in plan.start_listers {
            if policy.discovery.is_some() {
                // Jobs in the database start before the first listing: they may be too old to be discovered, or listing may fail.
                let jobs = self.read_states(self.retained_query(&store, &self.config)).await?;
                let jobs = jobs.into_iter().map(|(id, job)| (id, Some(job)));
                self.start_discovered(&store, jobs, OverdueVanishedPolicy::PollAgain);
            }
            self.start_lister(store, policy, 0);
        }
        let WatchList { jobs, stores } = &self.config.watch_list;
        let wanted: BTreeSet<_> = jobs.keys().map(|id| id.target_store()).chain(stores.keys().cloned()).collect();
        self.registries.retain(|store, _| wanted.contains(store));
        self.publish_target_health();
        Ok(())
    }

    fn running_set(&self) -> RunningSet<'_> {
        let discovered = self.registries.iter().flat_map(|(store, registry)| {
            let watched = registry.watched().into_iter().map(|job| store.target_job(job));
            watched.filter(|id| !self.config.watch_list.jobs.contains_key(id))
        });
        let listers = listing_policies(&self.config).into_keys();
        let listers = listers.filter(|store| self.tasks.runs(&TaskKey::Lister(store.clone())));
        RunningSet { config: &self.config, discovered: discovered.collect(), listers: listers.collect() }
    }

    /// The targets that `config` uses. Unchanged targets are kept, with their adapted request rate and their circuit breakers.
    async fn build_targets(&self, config: &Config, plan: &Plan) -> Result<Targets, TargetError> {
        let mut targets = self.targets.clone();
        let used = config.watch_list.targets();
        targets.retain(|name, _| used.contains(name) && !plan.changed_targets.contains(name));
        for name in used {
            let Some(wanted) = config.targets.get(name) else { unreachable!("a job or store has a defined target") };
            if !targets.contains_key(name) {
                let TaskContext { clock, instruments, .. } = &*self.context;
                let target = Target::new(wanted, &*self.service_factory, *clock, instruments).await?;
                targets.insert(Arc::clone(name), Arc::new(target));
            }
        }
        Ok(targets)
    }

    async fn stop_tasks(&mut self, plan: &Plan, config: &Config) {
        let jobs = plan.stop_jobs.iter().cloned().map(TaskKey::JobWatcher);
        self.tasks.stop(jobs.chain(plan.stop_listers.iter().cloned().map(TaskKey::Lister)), STOP_TIMEOUT).await;
        for store in &plan.stop_listers {
            self.clear_routine_interval(store);
        }
        for id in &plan.stop_jobs {
            // The view of a job in `start_jobs` stays published until its new task replaces it.
            self.remove_job(id, !plan.start_jobs.contains_key(id));
        }
        for store in self.config.watch_list.stores.keys().filter(|store| !config.watch_list.stores.contains_key(store))
        {
            self.context.shared.remove_store(store);
        }
    }

    /// Removes the routine interval of a store whose lister has exited. The next lister sets it again.
    fn clear_routine_interval(&self, store: &TargetStore) {
        if let Some(registry) = self.registries.get(store) {
            registry.set_routine_interval(None);
        }
    }

    fn remove_job(&self, id: &TargetJob, remove_view: bool) {
        if remove_view {
            self.context.shared.remove(id);
        }
        if let Some(registry) = self.registries.get(&id.target_store()) {
            registry.remove(&id.key.job);
        }
    }

    /// Selects the jobs of a store that have not ended, or whose end was observed within the store's `remove_after` in `config`.
    fn retained_query(&self, store: &TargetStore, config: &Config) -> JobQuery {
        let entry = config.watch_list.stores.get(store);
        // Every store entry has a `remove_after`.
        let retention = entry.and_then(|entry| entry.job_settings.remove_after).unwrap_or_default();
        let now = self.context.clock.now().wall;
        let ended_since = now.checked_sub(retention).unwrap_or(Timestamp::MIN);
        JobQuery::Retained { target_store: store.clone(), ended_since }
    }

    /// Publishes the health of the targets that get requests: those of polled jobs and of stores with discovery. Targets without requests
    /// are left out: if one was down, no request could show its recovery, and the daemon would never be ready.
    ///
    /// Only `apply` sets which targets are published. For each target it publishes a receiver ([`Target::subscribe_down_message`]), so
    /// readers always see the current health. If the last polled job of a target ends, is parked or expires, the target stays published
    /// until the next `apply`. Each of these follows a response about the job, so the target is then up. One exception: an unseen job
    /// expires after a 403, and the target may stay down until another poll in that store succeeds.
    fn publish_target_health(&self) {
        let polled = self.registries.iter().filter(|(_, registry)| registry.has_jobs_to_poll()).map(|(store, _)| store);
        let used: BTreeSet<_> = polled.chain(self.config.watch_list.stores.keys()).map(|store| &store.target).collect();
        let used = self.targets.iter().filter(|(name, _)| used.contains(name));
        let receivers = used.map(|(name, target)| (Arc::clone(name), target.subscribe_down_message()));
        self.context.shared.set_target_health(receivers.collect());
    }

    /// Returns the next event. Cancel safe.
    pub async fn next_event(&mut self) -> SupervisorEvent {
        tokio::select! {
            biased;
            exit = self.tasks.next_exit() => SupervisorEvent::TaskExited(exit),
            Some(batch) = self.discovered_receiver.recv() => SupervisorEvent::Discovered(batch),
        }
    }

    /// # Errors
    /// The daemon cannot continue.
    pub async fn handle_event(&mut self, event: SupervisorEvent) -> Result<(), SupervisorError> {
        match event {
            SupervisorEvent::TaskExited(exit) => self.handle_exit(exit).await,
            SupervisorEvent::Discovered(batch) => self.handle_discovered(batch).await,
        }
    }

    async fn handle_exit(&mut self, exit: TaskExit<TaskKey, WriterStopped>) -> Result<(), SupervisorError> {
        match exit {
            // A discovered job has expired. A job with its own entry stays watched and published.
            TaskExit::Done(TaskKey::JobWatcher(id)) if !self.config.watch_list.jobs.contains_key(&id) => {
                self.remove_job(&id, true);
            }
            TaskExit::Done(_) => {}
            TaskExit::Failed(WriterStopped) => return Err(SupervisorError::Fatal(WriterError::Stopped)),
            TaskExit::Panicked { key: TaskKey::Lister(store), restart_number } => {
                self.context.instruments.task_restarts.inc();
                warn!(event = "task_panicked", target = %store.target, kind = %store.kind, store_id = %store.store,
                    "internal error: the task that lists this store failed and restarts in {:?}", restart_delay(restart_number));
                self.clear_routine_interval(&store);
                if self.config.watch_list.stores.contains_key(&store) {
                    let error = "internal error: the task that lists it failed and restarts".to_owned();
                    self.context.shared.update_store(&store, |view| view.error = Some(error));
                }
                if let Some(policy) = listing_policies(&self.config).remove(&store) {
                    self.start_lister(store, policy, restart_number);
                }
            }
            TaskExit::Panicked { key: TaskKey::JobWatcher(id), restart_number } => {
                self.context.instruments.task_restarts.inc();
                warn!(event = "task_panicked", target = %id.target, kind = %id.key.kind, store_id = %id.key.store,
                    job_id = %id.key.job, "internal error: the task that polls this job failed and restarts in {:?}",
                    restart_delay(restart_number));
                // The panic may have come between a commit and its publication, so the task starts from the database.
                let known = self.read_states(JobQuery::These(vec![id.clone()])).await?.remove(&id);
                if let Some(entry) = self.config.watch_list.job_settings(&id).cloned() {
                    self.start_job_watcher(id, &entry, known, restart_number);
                }
            }
        }
        Ok(())
    }

    async fn handle_discovered(&mut self, batch: DiscoveredBatch) -> Result<(), SupervisorError> {
        let DiscoveredBatch { store, jobs, ack } = batch;
        // The lister was stopped.
        if ack.is_closed() {
            return Ok(());
        }
        let ids: Vec<Arc<TargetJob>> = jobs.into_iter().map(|job| store.target_job(job)).collect();
        let restoring = self.context.database.load_states(JobQuery::These(ids.clone()));
        let handled = match tokio::time::timeout(DISCOVERED_READ_TIMEOUT, restoring).await {
            Ok(Ok(mut restored)) => {
                let jobs = ids.into_iter().map(|id| (id.clone(), restored.remove(&id)));
                self.start_discovered(&store, jobs, OverdueVanishedPolicy::Skip);
                Ok(())
            }
            Ok(Err(error @ WriterError::Stopped)) => return Err(SupervisorError::Fatal(error)),
            Ok(Err(error)) => Err(format!("the database cannot be read: {error}")),
            Err(_) => Err("the database did not respond in time".to_owned()),
        };
        // An error means that the lister has exited.
        let _ = ack.send(handled);
        Ok(())
    }

    /// Stops every task. Tasks that do not exit within `STOP_TIMEOUT` are aborted.
    pub async fn stop(mut self) {
        self.tasks.stop_all(STOP_TIMEOUT).await;
    }

    /// Reads the last known state of jobs that are about to start, with retries.
    async fn read_states(&self, jobs: JobQuery) -> Result<BTreeMap<Arc<TargetJob>, JobState>, SupervisorError> {
        for _ in 0..READ_RETRIES {
            match self.context.database.load_states(jobs.clone()).await {
                Err(error @ (WriterError::Sqlite(_) | WriterError::Reopen(_))) => {
                    warn!(event = "database_unreadable", %error, "cannot read the database; retrying");
                    self.context.clock.sleep(READ_RETRY_PAUSE).await;
                }
                result => return result.map_err(SupervisorError::Fatal),
            }
        }
        self.context.database.load_states(jobs).await.map_err(SupervisorError::Fatal)
    }

    /// Starts job watchers for discovered jobs of a store, except for watched jobs and overdue jobs. If `overdue_vanished` is
    /// `PollAgain`, overdue jobs that vanished are started nevertheless.
    fn start_discovered(
        &mut self,
        store: &TargetStore,
        jobs: impl Iterator<Item = (Arc<TargetJob>, Option<JobState>)>,
        overdue_vanished: OverdueVanishedPolicy,
    ) {
        let Some(entry) = self.config.watch_list.stores.get(store).map(|it| it.job_settings.clone()) else { return };
        let now = self.context.clock.now().wall;
        for (id, restored) in jobs {
            let is_overdue = |known: &JobState| {
                entry.remove_after.and_then(|retention| known.remaining_retention(retention, now))
                    == Some(Duration::ZERO)
            };
            let is_skipped = |known: &JobState| {
                is_overdue(known) && (known.status.is_terminal() || overdue_vanished == OverdueVanishedPolicy::Skip)
            };
            let watched = self.registries.get(store).is_some_and(|registry| registry.is_watched(&id.key.job));
            if !watched && !restored.as_ref().is_some_and(is_skipped) {
                self.start_job_watcher(id, &entry, restored, 0);
            }
        }
    }

    fn start_job_watcher(
        &mut self,
        id: Arc<TargetJob>,
        entry: &JobSettings,
        known: Option<JobState>,
        restart_number: u32,
    ) {
        let Some(target) = self.targets.get(&id.target) else { unreachable!("targets are built before job watchers") };
        let slot = self.registries.entry(id.target_store()).or_default().add(&id.key.job);
        let (target, seed) = (Arc::clone(target), self.seeds.u64(..));
        let poller = Poller::new(target, Arc::clone(&id), entry.policy, known.map(Arc::new), slot, seed);
        let context = Arc::clone(&self.context);
        let mut watcher = JobWatcher::new(context, poller, Arc::clone(&id), entry.clone());
        self.tasks.start(TaskKey::JobWatcher(id), restart_number, move |mut stop| async move {
            watcher.run(&mut stop).await
        });
    }

    fn start_lister(&mut self, store: TargetStore, policy: ListingPolicy, restart_number: u32) {
        let Some(target) = self.targets.get(&store.target) else { unreachable!("targets are built before listers") };
        let registry = Arc::clone(self.registries.entry(store.clone()).or_default());
        let (context, discovered_sender) = (Arc::clone(&self.context), self.discovered_sender.clone());
        let (target, seed) = (Arc::clone(target), self.seeds.u64(..));
        let lister = Lister::new(context, discovered_sender, target, store.clone(), registry, policy, seed);
        self.tasks.start(TaskKey::Lister(store), restart_number, |stop| async move {
            lister.run(stop).await;
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests;
