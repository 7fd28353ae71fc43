//! Owns every task: starts, stops and restarts them, and moves from one watch list to the next.
//!
//! Level, not edge: a reload computes what is wished for and moves to it. Whatever did not change goes on undisturbed.

mod targets;
mod tasks;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::{error, warn};

use crate::config::watch_list::{JobEntry, StoreEntry, WatchList};
use crate::config::{Config, Difference, TargetConfig};
use crate::core::job::{StoreId, WatchId};
use crate::core::time::Timestamp;
use crate::core::tracker::Known;
use crate::database::{CommitError, Jobs, Remembered};
use crate::healthomics::{Connect, Target, TargetError};
use crate::state::{StoreView, WatchState, WatchView};
use crate::tasks::hints::StoreHints;
use crate::tasks::job_watcher::{Poller, RecordGone, Watcher, Workplace};
use crate::tasks::lister::{FindPolicy, Found, SweepPolicy, Sweeper};
use tasks::{Ended, RESTARTS_MAX, Tasks};

/// How long tasks may take to stop: one commit, in the main. The unit gives the whole process 10 s.
const STOP_PATIENCE: Duration = Duration::from_secs(4);

/// How often, and how long apart, a record that cannot be read is asked again before the process is left to its supervisor.
const RECORD_ATTEMPTS: u32 = 5;
const RECORD_PAUSE: Duration = Duration::from_secs(2);

/// Pages of found jobs that wait to be seen to. A sweeper waits for the answer to its last, so more come only where there are more
/// stores, and those wait their turn.
const FOUND_MAX: usize = 16;

/// How long the record may take to tell of found jobs: indexed reads, behind a commit at most.
const FOUND_PATIENCE: Duration = Duration::from_secs(1);

/// The owner of every task.
#[derive(Debug)]
pub struct Supervisor {
    workplace: Arc<Workplace>,
    connect: Arc<dyn Connect>,
    seeds: fastrand::Rng,
    targets: Targets,
    config: Config,
    stores: BTreeMap<StoreId, Arc<StoreHints>>,
    tasks: Tasks<TaskKey, RecordGone>,
    found: mpsc::Receiver<Found>,
    /// A sweeper's way to `found`.
    finds: mpsc::Sender<Found>,
}

/// What the supervisor has to see to.
#[derive(Debug)]
pub enum Event {
    /// A task ended that nobody had told to.
    Ended(TaskEnd),
    /// A sweeper found jobs.
    Found(Found),
}

/// How a task ended that nobody had told to.
#[derive(Debug)]
pub struct TaskEnd(Ended<TaskKey, RecordGone>);

/// The targets in use, by name, and what each was built from.
type Targets = BTreeMap<Arc<str>, (TargetConfig, Arc<Target>)>;

/// What a task is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum TaskKey {
    Watch(Arc<WatchId>),
    Sweep(Box<StoreId>),
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
        let (finds, found) = mpsc::channel(FOUND_MAX);
        Self {
            workplace: Arc::new(workplace),
            connect,
            seeds: fastrand::Rng::with_seed(seed),
            targets: BTreeMap::new(),
            config: Config::new(PathBuf::new()),
            stores: BTreeMap::new(),
            tasks: Tasks::new(),
            found,
            finds,
        }
    }

    /// Puts `config` in force.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub async fn apply(&mut self, config: &Config) -> Result<(), ApplyError> {
        let targets = self.build_targets(config).await?;
        let Difference { stop, start, stores } = self.config.difference(config);
        let jobs = &config.watch_list.jobs;
        // A job's own entry goes before its store's.
        let found = self.found().filter(|id| stores.contains(&id.store_id()) || jobs.contains_key(id));
        let stop: BTreeSet<Arc<WatchId>> = stop.into_iter().chain(found).collect();
        // Where jobs are looked for anew: in stores that changed, and where a job has lost the entry of its own.
        let left = stop.iter().filter(|id| !jobs.contains_key(*id)).map(|id| id.store_id());
        let mut anew: BTreeSet<StoreId> = left.chain(stores.iter().cloned()).collect();
        anew.retain(|store| config.watch_list.stores.contains_key(store));
        // Where the record cannot be read nothing could be taken up, so nothing may be stopped for it.
        let started = Jobs::These(start.iter().map(|(id, _)| id.clone()).collect());
        for taken_up in [started].into_iter().chain(anew.iter().map(|store| self.in_sight(store, config))) {
            self.workplace.record.remembered(taken_up).await.map_err(ApplyError::Record)?;
        }

        let sweeps = sweeps_of(config);
        let moved = |name: &str| self.targets.get(name).map(|(built_from, _)| built_from) != config.targets.get(name);
        let ended = sweeps_of(&self.config).into_iter().filter(|(store, policy)| {
            sweeps.get(store) != Some(policy) || moved(&store.target) || anew.contains(store)
        });
        let ended = ended.map(|(store, _)| TaskKey::Sweep(store.into()));
        let ended: Vec<TaskKey> = ended.chain(stop.iter().cloned().map(TaskKey::Watch)).collect();
        self.tasks.stop(ended, STOP_PATIENCE).await;
        for id in &stop {
            // One that only changed stays in sight until its successor takes its place.
            if !jobs.contains_key(id) {
                self.workplace.board.remove(id);
            }
            self.forget_hints(id);
        }
        // One that only changed stays in sight, with what is wrong with it.
        for store in stores.iter().filter(|store| !config.watch_list.stores.contains_key(store)) {
            self.workplace.board.remove_store(store);
        }
        for gone in self.targets.keys().filter(|name| !targets.contains_key(*name)) {
            self.workplace.instruments.forget_target(gone);
        }
        self.targets = targets;
        self.config = config.clone();
        self.start(start, sweeps).await
    }

    /// Starts these watches, and the sweeps that do not run yet.
    async fn start(
        &mut self,
        watches: Vec<(Arc<WatchId>, JobEntry)>,
        sweeps: BTreeMap<StoreId, SweepPolicy>,
    ) -> Result<(), ApplyError> {
        let ids = watches.iter().map(|(id, _)| id.clone()).collect();
        let mut remembered = self.remembered(Jobs::These(ids)).await?;
        for (id, entry) in watches {
            let remembered = remembered.remove(&id);
            self.start_watch(id, &entry, remembered, 0);
        }
        for (store, policy) in sweeps {
            if self.tasks.runs(&TaskKey::Sweep(store.clone().into())) {
                continue;
            }
            if policy.find.is_some() {
                // What goes on, or ended lately, is not left to be found: it may be too old for that, or listing may fail.
                let in_sight = self.remembered(self.in_sight(&store, &self.config)).await?;
                // Of one that vanished that may have been said once, and not have been so: it is asked for once more.
                let forgets = |known: &Known| known.status.is_terminal();
                self.start_found(&store, in_sight.into_iter().map(|(id, job)| (id, Some(job))), forgets);
            }
            self.start_sweep(store, policy, 0);
        }
        let WatchList { jobs, stores } = &self.config.watch_list;
        let stores: BTreeSet<StoreId> = jobs.keys().map(|id| id.store_id()).chain(stores.keys().cloned()).collect();
        self.stores.retain(|store, _| stores.contains(store));
        self.tell_targets();
        Ok(())
    }

    /// What the record knows of a store's jobs that are in sight if `config` is in force.
    fn in_sight(&self, store: &StoreId, config: &Config) -> Jobs {
        let entry = config.watch_list.stores.get(store);
        let forget_after = entry.and_then(|entry| entry.each.forget_after).unwrap_or_default();
        let now = self.workplace.clock.now().wall;
        let ended_since = now.checked_sub(forget_after).unwrap_or(Timestamp::MIN);
        Jobs::InSight { store: store.clone(), ended_since }
    }

    /// Starts watches of jobs of a store, but of those that are watched already, and of those that it `forgets` and whose time in sight
    /// is over.
    fn start_found(
        &mut self,
        store: &StoreId,
        jobs: impl Iterator<Item = (Arc<WatchId>, Option<Remembered>)>,
        forgets: impl Fn(&Known) -> bool,
    ) {
        let Some(entry) = self.config.watch_list.stores.get(store).map(|entry| entry.each.clone()) else { return };
        let now = self.workplace.clock.now().wall;
        for (id, remembered) in jobs {
            let known = remembered.as_ref().map(|job| &job.known).filter(|known| forgets(known));
            let left = known.and_then(|known| known.forgotten_in(entry.forget_after?, now));
            if left != Some(Duration::ZERO) && self.workplace.board.watch(&id).is_none() {
                self.start_watch(id, &entry, remembered, 0);
            }
        }
    }

    /// The next thing to see to. A caller that stops waiting loses nothing.
    pub async fn next_event(&mut self) -> Event {
        tokio::select! {
            biased;
            end = self.tasks.next_end() => Event::Ended(TaskEnd(end)),
            Some(found) = self.found.recv() => Event::Found(found),
        }
    }

    /// Sees to it.
    ///
    /// # Errors
    /// The daemon cannot go on.
    pub async fn handle_event(&mut self, event: Event) -> Result<(), ApplyError> {
        match event {
            Event::Ended(TaskEnd(end)) => self.handle_end(end).await,
            Event::Found(found) => self.watch_found(found).await,
        }
    }

    async fn handle_end(&mut self, end: Ended<TaskKey, RecordGone>) -> Result<(), ApplyError> {
        match end {
            Ended::Done(TaskKey::Sweep(_)) => {}
            Ended::Done(TaskKey::Watch(id)) => {
                // A job with an entry of its own stays in sight; one of a store has been there for long enough.
                if !self.config.watch_list.jobs.contains_key(&id) {
                    self.workplace.board.remove(&id);
                    self.forget_hints(&id);
                }
            }
            Ended::Failed(RecordGone) => return Err(ApplyError::Lost(CommitError::WriterGone)),
            Ended::Panicked { key: TaskKey::Sweep(store), restarts } => {
                self.workplace.instruments.task_restarts.inc();
                if let Some(policy) = sweeps_of(&self.config).remove(&store) {
                    self.start_sweep(*store, policy, restarts);
                }
            }
            Ended::Panicked { key: TaskKey::Watch(id), restarts } => {
                self.workplace.instruments.task_restarts.inc();
                // The panic may lie between a commit and its publication: the record knows, the board may not.
                let remembered = self.remembered(Jobs::These(vec![id.clone()])).await?.remove(&id);
                if let Some(entry) = self.config.watch_list.entry(&id).cloned() {
                    self.start_watch(id, &entry, remembered, restarts);
                }
            }
            Ended::GivenUp(key) => self.give_up(&key),
        }
        Ok(())
    }

    /// Starts watches of jobs that a sweep found.
    async fn watch_found(&mut self, Found { store, jobs, seen_to }: Found) -> Result<(), ApplyError> {
        if seen_to.is_closed() {
            return Ok(());
        }
        let ids: Vec<Arc<WatchId>> = jobs.into_iter().map(|job| store.watch(job)).collect();
        let asked = self.workplace.record.remembered(Jobs::These(ids.clone()));
        // A bound on a wait: the rest of the daemon must not wait for a disk that hangs.
        let seen = match tokio::time::timeout(FOUND_PATIENCE, asked).await {
            Ok(Ok(mut remembered)) => {
                self.start_found(&store, ids.into_iter().map(|id| (id.clone(), remembered.remove(&id))), |_| true);
                Ok(())
            }
            Ok(Err(error @ CommitError::WriterGone)) => return Err(ApplyError::Lost(error)),
            Ok(Err(error)) => Err(format!("the record cannot be read: {error}")),
            Err(_) => Err("the record does not answer".to_owned()),
        };
        // An error: the sweeper has just ended, and the next one finds these jobs on the board.
        let _ = seen_to.send(seen);
        Ok(())
    }

    /// Stops every task; commits that are under way end first.
    pub async fn stop(mut self) {
        self.tasks.stop_all(STOP_PATIENCE).await;
    }

    /// What the record knows, once tasks have ended that have to be started again. A record in trouble is asked again for a
    /// while, since without it nothing can go on.
    async fn remembered(&self, jobs: Jobs) -> Result<BTreeMap<Arc<WatchId>, Remembered>, ApplyError> {
        for _ in 0..RECORD_ATTEMPTS {
            match self.workplace.record.remembered(jobs.clone()).await {
                Err(error @ (CommitError::Sqlite(_) | CommitError::Reopen(_))) => {
                    warn!(event = "record_unreadable", %error, "the record is asked again");
                    self.workplace.clock.sleep(RECORD_PAUSE).await;
                }
                answer => return answer.map_err(ApplyError::Lost),
            }
        }
        self.workplace.record.remembered(jobs).await.map_err(ApplyError::Lost)
    }

    /// What is watched without an entry of its own.
    fn found(&self) -> impl Iterator<Item = Arc<WatchId>> {
        let watches = self.workplace.board.watches().into_iter().map(|watch| Arc::clone(&watch.id));
        watches.filter(|id| !self.config.watch_list.jobs.contains_key(id))
    }

    fn forget_hints(&self, id: &WatchId) {
        if let Some(hints) = self.stores.get(&id.store_id()) {
            hints.forget(&id.key.job);
        }
    }

    fn start_watch(&mut self, id: Arc<WatchId>, entry: &JobEntry, remembered: Option<Remembered>, restarts: u32) {
        let Some((_, target)) = self.targets.get(&id.target) else { unreachable!("targets are built before watches") };
        let hints = self.stores.entry(id.store_id()).or_default().listen(&id.key.job);
        let (known, transitions) = remembered.map(|job| (Arc::new(job.known), job.transitions)).unzip();
        let (target, seed) = (Arc::clone(target), self.seeds.u64(..));
        let poller = Poller::new(target, Arc::clone(&id), Arc::clone(&entry.policy), known, hints, seed);
        let (name, transitions) = (Arc::clone(&entry.name), transitions.unwrap_or_default());
        let workplace = Arc::clone(&self.workplace);
        let watcher = Box::new(Watcher::new(workplace, poller, Arc::clone(&id), name, transitions, entry.forget_after));
        self.tasks.start(TaskKey::Watch(id), restarts, |stop| watcher.run(stop));
    }

    fn start_sweep(&mut self, store: StoreId, policy: SweepPolicy, restarts: u32) {
        let Some((_, target)) = self.targets.get(&store.target) else { return };
        let (target, seed, finds) = (Arc::clone(target), self.seeds.u64(..), self.finds.clone());
        let hints = Arc::clone(self.stores.entry(store.clone()).or_default());
        let Workplace { clock, board, .. } = Workplace::clone(&self.workplace);
        let sweeper = Sweeper::new(clock, board, target, store.clone(), hints, policy, seed);
        self.tasks.start(TaskKey::Sweep(store.into()), restarts, |stop| async {
            sweeper.run(finds, stop).await;
            Ok(())
        });
    }

    fn give_up(&self, key: &TaskKey) {
        match key {
            TaskKey::Sweep(store) => {
                error!(event = "sweep_given_up", target = %store.target, reference_store_id = %store.store,
                    restarts = RESTARTS_MAX, "sweeping this store failed again and again: until the next reload its jobs are \
                    polled one by one, and none that is not watched yet is found");
                if let Some(hints) = self.stores.get(store) {
                    hints.set_safety_interval(None);
                }
                if let Some(view) = self.workplace.board.stores().iter().find(|view| view.id == **store) {
                    let trouble = Some(format!("a fault of refwatch: its task failed {RESTARTS_MAX} times over"));
                    self.workplace.board.publish_store(StoreView { trouble, ..(**view).clone() });
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

/// What is swept, and what for: stores of which every job is watched, and those that are worth it because they have more than
/// one watch.
fn sweeps_of(config: &Config) -> BTreeMap<StoreId, SweepPolicy> {
    let (replace_polls, WatchList { jobs, stores }) = (config.poll.sweep, &config.watch_list);
    let mut watches: BTreeMap<StoreId, u32> = BTreeMap::new();
    for id in jobs.keys().filter(|_| replace_polls) {
        *watches.entry(id.store_id()).or_default() += 1;
    }
    let several = watches.into_iter().filter(|(_, count)| *count > 1);
    let sweeps = several.map(|(store, _)| (store, SweepPolicy { replace_polls, find: None }));
    let finds = stores.iter().map(|(store, StoreEntry { since, each })| {
        let find = FindPolicy { name: Arc::clone(&each.name), since: *since, interval: config.poll.min_interval };
        (store.clone(), SweepPolicy { replace_polls, find: Some(find) })
    });
    sweeps.chain(finds).collect()
}

#[cfg(test)]
mod tests;
