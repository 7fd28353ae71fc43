//! Owns every task: starts, stops and restarts them, and moves from one watch list to the next.
//!
//! Level, not edge: a reload computes what is wished for and moves to it. Whatever did not change goes on undisturbed.

mod tasks;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tracing::error;

use crate::board::{WatchState, WatchView};
use crate::config::watch_list::JobEntry;
use crate::config::{Config, TargetConfig};
use crate::core::job::WatchId;
use crate::omics::{Target, TargetError};
use crate::record::{CommitError, Remembered};
use crate::watcher::{RecordGone, Watcher, Workplace};
use tasks::{Ended, RESTARTS_MAX, Tasks};

/// How long tasks may take to stop: one commit, in the main. The unit gives the whole process 10 s.
const STOP_PATIENCE: Duration = Duration::from_secs(4);

/// The owner of every task.
#[derive(Debug)]
pub struct Supervisor {
    workplace: Workplace,
    seeds: fastrand::Rng,
    targets: BTreeMap<Arc<str>, (TargetConfig, Arc<Target>)>,
    config: Config,
    tasks: Tasks<WatchId, RecordGone>,
}

/// How a task ended that nobody had told to.
#[derive(Debug)]
pub struct TaskEnd(Ended<WatchId, RecordGone>);

/// A configuration that cannot be put in force.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A target cannot be built. The configuration before it stays in force.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The record does not answer, so nothing can be taken up or kept.
    #[error("the record: {0}")]
    Record(#[from] CommitError),
}

impl Supervisor {
    /// A supervisor of nothing yet. `seed` sets the jitter of every watch.
    #[must_use]
    pub fn new(workplace: Workplace, seed: u64) -> Self {
        Self {
            workplace,
            seeds: fastrand::Rng::with_seed(seed),
            targets: BTreeMap::new(),
            config: Config::new(PathBuf::new()),
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
        self.tasks.stop(difference.stop.iter().cloned(), STOP_PATIENCE).await;
        for id in &difference.stop {
            self.workplace.board.remove(id);
        }
        for gone in self.targets.keys().filter(|name| !targets.contains_key(*name)) {
            self.workplace.instruments.forget_target(gone);
        }
        self.targets = targets;
        self.config = config.clone();
        if !difference.start.is_empty() {
            let mut remembered = self.workplace.record.remembered().await?;
            for (id, entry) in difference.start {
                let remembered = remembered.remove(&id);
                self.start(id, &entry, remembered, 0);
            }
        }
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
            Ended::Failed(RecordGone) => return Err(CommitError::WriterGone.into()),
            Ended::Panicked { key: id, restarts } => {
                self.workplace.instruments.task_restarts.inc();
                // The panic may lie between a commit and its publication: the record knows, the board may not.
                let remembered = self.workplace.record.remembered().await?.remove(&id);
                if let Some(entry) = self.config.watch_list.jobs.get(&id).cloned() {
                    self.start(id, &entry, remembered, restarts);
                }
            }
            Ended::GivenUp(id) => self.give_up(&id),
        }
        Ok(())
    }

    /// Stops every task; commits that are under way end first.
    pub async fn stop(mut self) {
        self.tasks.stop_all(STOP_PATIENCE).await;
    }

    async fn build_targets(
        &self,
        config: &Config,
    ) -> Result<BTreeMap<Arc<str>, (TargetConfig, Arc<Target>)>, TargetError> {
        let mut targets = BTreeMap::new();
        let used = config.watch_list.jobs.keys().map(|id| &id.target);
        for name in used.collect::<BTreeSet<_>>() {
            let Some(wished) = config.targets.get(name) else { unreachable!("the configuration names its targets") };
            let target = match self.targets.get(name) {
                Some((standing, target)) if standing == wished => Arc::clone(target),
                Some(_) | None => {
                    Arc::new(Target::new(wished, self.workplace.clock, &self.workplace.instruments).await?)
                }
            };
            targets.insert(Arc::clone(name), (wished.clone(), target));
        }
        Ok(targets)
    }

    fn start(&mut self, id: WatchId, entry: &JobEntry, remembered: Option<Remembered>, restarts: u32) {
        let Some((_, target)) = self.targets.get(&id.target) else { unreachable!("targets are built before watches") };
        let (name, target, seed) = (Arc::clone(&entry.name), Arc::clone(target), self.seeds.u64(..));
        let watcher = Watcher::new(self.workplace.clone(), target, id.clone(), name, entry.policy, remembered, seed);
        self.tasks.start(id, restarts, |stop| watcher.run(stop));
    }

    fn give_up(&self, id: &WatchId) {
        error!(event = "watch_given_up", target = %id.target, job = %id.key, restarts = RESTARTS_MAX,
            "the task of this watch failed again and again: it is parked until the next reload that changes it");
        if let Some(view) = self.workplace.board.watch(id) {
            let state = WatchState::Parked(format!("a fault of refwatch: its task failed {RESTARTS_MAX} times over"));
            self.workplace.board.publish(WatchView { state, next_poll: None, ..(*view).clone() });
        }
    }
}
