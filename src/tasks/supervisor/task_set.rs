//! The running tasks by key. [`TaskSet`] starts and stops tasks and returns how they exit. It delays the start of a task that has
//! panicked; the supervisor does the restarts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinError;
use tokio_util::task::JoinMap;

use crate::clock::Clock;
use crate::core::job::{TargetJob, TargetStore};
use crate::core::time::Monotonic;

/// The delay of the first restart after a panic. It doubles with each further panic.
const RESTART_DELAY_INITIAL: Duration = Duration::from_secs(1);

/// The longest delay of a restart. A panic may recur while its cause lasts, such as an unexpected response.
const RESTART_DELAY_MAX: Duration = Duration::from_mins(5);

/// The run time after which the earlier restarts of a task no longer count.
const HEALTHY_AFTER: Duration = Duration::from_mins(10);

/// The delay before a restart: `restart_number` is 0 for the first start of a task, 1 for its first restart.
pub(super) fn restart_delay(restart_number: u32) -> Duration {
    let Some(doublings) = restart_number.checked_sub(1) else { return Duration::ZERO };
    RESTART_DELAY_INITIAL.saturating_mul(2_u32.saturating_pow(doublings)).min(RESTART_DELAY_MAX)
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskKey {
    JobWatcher(Arc<TargetJob>),
    Lister(TargetStore),
}

#[derive(Debug)]
pub(super) struct TaskSet<K, E> {
    clock: Clock,
    join_map: JoinMap<K, Result<(), E>>,
    /// The tasks that were not asked to stop, and whose exit was not received yet.
    handles: BTreeMap<K, TaskHandle>,
    /// Exits that [`Self::next_exit`] has not returned yet.
    pending_exits: VecDeque<TaskExit<K, E>>,
}

#[derive(Debug)]
struct TaskHandle {
    stop: oneshot::Sender<()>,
    restart_number: u32,
    /// When the task starts to run, after the delay of a restart. May be in the future.
    runs_from: Monotonic,
}

/// How a task exited. The exit of a stopped task is returned only if it is `Failed`.
#[derive(Debug, PartialEq, Eq)]
pub enum TaskExit<K, E> {
    Done(K),
    Failed(E),
    /// The task panicked. `restart_number` is that of its next start.
    Panicked {
        key: K,
        restart_number: u32,
    },
}

impl<K, E> TaskExit<K, E> {
    fn key(&self) -> Option<&K> {
        match self {
            Self::Done(key) | Self::Panicked { key, .. } => Some(key),
            Self::Failed(_) => None,
        }
    }
}

impl<K: Clone + Ord + Hash, E: Send + 'static> TaskSet<K, E> {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, join_map: JoinMap::new(), handles: BTreeMap::new(), pending_exits: VecDeque::new() }
    }

    /// Also true during the delay of a restart.
    pub(super) fn runs(&self, key: &K) -> bool {
        self.handles.contains_key(key)
    }

    /// Starts the task of `key` after [`restart_delay`]. Aborts a running task of the same key.
    pub(super) fn start<F>(
        &mut self,
        key: K,
        restart_number: u32,
        task: impl FnOnce(oneshot::Receiver<()>) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        // Drops the pending exit of an earlier task with this key.
        self.pending_exits.retain(|exit| exit.key() != Some(&key));
        let (stop, mut stop_receiver) = oneshot::channel();
        let runs_from = self.clock.now().monotonic + restart_delay(restart_number);
        if restart_number == 0 {
            // The block below would double the memory of the task: it has space for the closure `task` and for its future.
            self.join_map.spawn(key.clone(), task(stop_receiver));
        } else {
            let delay = self.clock.sleep_until(runs_from);
            self.join_map.spawn(key.clone(), async move {
                tokio::select! {
                    biased;
                    _ = &mut stop_receiver => return Ok(()),
                    () = delay => {}
                }
                task(stop_receiver).await
            });
        }
        self.handles.insert(key, TaskHandle { stop, restart_number, runs_from });
    }

    /// Waits for the next task to exit. Skips stopped tasks that returned no error. Cancel safe.
    pub(super) async fn next_exit(&mut self) -> TaskExit<K, E> {
        loop {
            if let Some(exit) = self.pending_exits.pop_front() {
                return exit;
            }
            match self.join_map.join_next().await {
                Some((key, exit)) => self.record_exit(key, exit),
                None => std::future::pending().await,
            }
        }
    }

    /// Stops the tasks of `keys` and waits until they have exited. Aborts those that run longer than `timeout`, without waiting for them.
    pub(super) async fn stop(&mut self, keys: impl IntoIterator<Item = K>, timeout: Duration) {
        let keys: BTreeSet<K> = keys.into_iter().collect();
        // Drops the pending exits of these tasks. An error has no key and is kept.
        self.pending_exits.retain(|exit| !exit.key().is_some_and(|key| keys.contains(key)));
        let mut waiting: Vec<K> = keys.into_iter().filter(|key| self.join_map.contains_key(key)).collect();
        for task in waiting.iter().filter_map(|key| self.handles.remove(key)) {
            // An error means that the task has exited.
            let _ = task.stop.send(());
        }
        let all_exited = tokio::time::timeout(timeout, async {
            while !waiting.is_empty() {
                let Some((key, exit)) = self.join_map.join_next().await else { return };
                waiting.retain(|other| *other != key);
                self.record_exit(key, exit);
            }
        });
        if all_exited.await.is_err() {
            for key in &waiting {
                self.join_map.abort(key);
            }
        }
    }

    pub(super) async fn stop_all(&mut self, timeout: Duration) {
        let all: Vec<K> = self.handles.keys().cloned().collect();
        self.stop(all, timeout).await;
    }

    fn record_exit(&mut self, key: K, exit: Result<Result<(), E>, JoinError>) {
        // A stopped task has no handle any more. Only an error that it returned is kept. `JoinMap` never returns a task that `start` has
        // replaced. So a `JoinError` with a handle is a panic, not an abort.
        let handle = self.handles.remove(&key);
        match (exit, handle) {
            (Ok(Err(error)), _) => self.pending_exits.push_back(TaskExit::Failed(error)),
            (Ok(Ok(())), Some(_)) => self.pending_exits.push_back(TaskExit::Done(key)),
            (Err(_), Some(TaskHandle { restart_number, runs_from, .. })) => {
                let was_healthy = self.clock.now().monotonic.since(runs_from) >= HEALTHY_AFTER;
                let restart_number = if was_healthy { 1 } else { restart_number.saturating_add(1) };
                self.pending_exits.push_back(TaskExit::Panicked { key, restart_number });
            }
            (Ok(Ok(())) | Err(_), None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than any stop should take.
    const LONG: Duration = Duration::from_mins(10);

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_restarted_for_ever_after_growing_delays() {
        let clock = Clock::system();
        let mut tasks: TaskSet<&str, &str> = TaskSet::new(clock);
        let mut delays = Vec::new();
        for restart_number in 0..12 {
            let before = clock.now().monotonic;
            tasks.start("a", restart_number, |_| async { panic!("a fault") });
            assert_eq!(tasks.next_exit().await, TaskExit::Panicked { key: "a", restart_number: restart_number + 1 });
            delays.push(clock.now().monotonic.since(before).as_secs());
        }
        assert_eq!(delays, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        tasks.start("a", 12, move |_| async move {
            clock.sleep(HEALTHY_AFTER).await;
            panic!("a fault")
        });
        assert_eq!(tasks.next_exit().await, TaskExit::Panicked { key: "a", restart_number: 1 });
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_waits_for_its_restart_stops_at_once() {
        let mut tasks: TaskSet<&str, &str> = TaskSet::new(Clock::system());
        tasks.start("a", 12, |_| std::future::pending());
        let before = tasks.clock.now().monotonic;
        tasks.stop_all(LONG).await;
        assert!(tasks.join_map.is_empty());
        assert!(tasks.clock.now().monotonic.since(before) < RESTART_DELAY_INITIAL);
    }

    #[tokio::test]
    async fn an_exit_during_the_stop_of_other_tasks_is_not_lost() {
        let mut tasks: TaskSet<&str, &str> = TaskSet::new(Clock::system());
        tasks.start("stopped", 0, |stop| async move {
            let _ = stop.await;
            Ok(())
        });
        tasks.start("panics", 0, |_| async { panic!("a fault") });
        tasks.start("fails", 0, |_| async { Err("no database") });
        tasks.start("runs", 0, |stop| async move {
            let _ = stop.await;
            Ok(())
        });
        tokio::task::yield_now().await;
        tasks.stop(["stopped"], LONG).await;
        let mut exits = [tasks.next_exit().await, tasks.next_exit().await];
        exits.sort_by_key(|exit| matches!(exit, TaskExit::Failed(_)));
        assert_eq!(exits, [TaskExit::Panicked { key: "panics", restart_number: 1 }, TaskExit::Failed("no database")]);
        tasks.stop_all(LONG).await;
        assert!(tasks.join_map.is_empty());
    }

    #[tokio::test]
    async fn a_pending_exit_of_a_stopped_task_is_dropped() {
        let mut tasks: TaskSet<&str, &str> = TaskSet::new(Clock::system());
        tasks.start("panics", 0, |_| async { panic!("a fault") });
        tasks.start("runs", 0, |stop| async move {
            let _ = stop.await;
            Ok(())
        });
        tokio::task::yield_now().await;
        tasks.stop(["runs"], LONG).await;
        tasks.stop(["panics"], LONG).await;
        assert!(tasks.pending_exits.is_empty(), "{:?}", tasks.pending_exits);
    }

    #[tokio::test]
    async fn a_pending_exit_is_dropped_when_a_task_with_its_key_starts() {
        let mut tasks: TaskSet<&str, &str> = TaskSet::new(Clock::system());
        tasks.start("panics", 0, |_| async { panic!("a fault") });
        tasks.start("runs", 0, |stop| async move {
            let _ = stop.await;
            Ok(())
        });
        tokio::task::yield_now().await;
        tasks.stop(["runs"], LONG).await;
        assert_eq!(tasks.pending_exits.len(), 1);
        tasks.start("panics", 0, |_| std::future::pending());
        assert!(tasks.pending_exits.is_empty(), "{:?}", tasks.pending_exits);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_stop_within_the_timeout_is_aborted() {
        let mut tasks: TaskSet<&str, &str> = TaskSet::new(Clock::system());
        tasks.start("deaf", 0, |_| std::future::pending());
        tasks.stop_all(LONG).await;
        assert!(
            tasks.join_map.join_next().await.is_some_and(|(_, exit)| exit.is_err_and(|error| error.is_cancelled()))
        );
    }
}
