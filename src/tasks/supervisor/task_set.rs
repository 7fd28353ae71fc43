//! The running tasks by key. [`TaskSet`] starts and stops tasks and returns how they end. It decides when a task has panicked too
//! often; the supervisor does the restarts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinError;
use tokio_util::task::JoinMap;

use crate::core::job::{TargetStore, WatchId};

/// How often one task is restarted after panics.
pub(super) const RESTARTS_MAX: u32 = 5;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskKey {
    JobWatcher(Arc<WatchId>),
    Lister(TargetStore),
}

#[derive(Debug)]
pub(super) struct TaskSet<K, E> {
    join_map: JoinMap<K, Result<(), E>>,
    /// The tasks that were neither stopped nor joined.
    handles: BTreeMap<K, TaskHandle>,
    /// Ends of joined tasks that [`Self::next_end`] has not returned yet.
    pending_ends: VecDeque<TaskEnd<K, E>>,
}

#[derive(Debug)]
struct TaskHandle {
    stop: oneshot::Sender<()>,
    restarts: u32,
}

/// How a task ended. The end of a stopped task is returned only if it is `Failed`.
#[derive(Debug, PartialEq, Eq)]
pub enum TaskEnd<K, E> {
    Done(K),
    Failed(E),
    /// The task panicked. `restarts` includes the restart to come.
    Panicked {
        key: K,
        restarts: u32,
    },
    /// The task panicked more than `RESTARTS_MAX` times.
    PanickedTooOften(K),
}

impl<K, E> TaskEnd<K, E> {
    fn key(&self) -> Option<&K> {
        match self {
            Self::Done(key) | Self::Panicked { key, .. } | Self::PanickedTooOften(key) => Some(key),
            Self::Failed(_) => None,
        }
    }
}

impl<K: Clone + Ord + Hash, E: Send + 'static> TaskSet<K, E> {
    pub(super) fn new() -> Self {
        Self { join_map: JoinMap::new(), handles: BTreeMap::new(), pending_ends: VecDeque::new() }
    }

    pub(super) fn runs(&self, key: &K) -> bool {
        self.handles.contains_key(key)
    }

    /// Starts the task of `key`. `restarts` is the number of its restarts so far.
    pub(super) fn start<F>(&mut self, key: K, restarts: u32, task: impl FnOnce(oneshot::Receiver<()>) -> F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        self.join_map.spawn(key.clone(), task(stopped));
        self.handles.insert(key, TaskHandle { stop, restarts });
    }

    /// Waits for the next task to end. Skips stopped tasks that returned no error. Cancel safe.
    pub(super) async fn next_end(&mut self) -> TaskEnd<K, E> {
        loop {
            if let Some(end) = self.pending_ends.pop_front() {
                return end;
            }
            match self.join_map.join_next().await {
                Some((key, end)) => self.record_end(key, end),
                None => std::future::pending().await,
            }
        }
    }

    /// Stops the tasks of `keys` and waits until they have ended. After `timeout` they are aborted.
    pub(super) async fn stop(&mut self, keys: impl IntoIterator<Item = K>, timeout: Duration) {
        let keys: BTreeSet<K> = keys.into_iter().collect();
        // Drops the pending ends of these tasks. An error has no key and is kept.
        self.pending_ends.retain(|end| !end.key().is_some_and(|key| keys.contains(key)));
        let mut waiting: Vec<K> = keys.into_iter().filter(|key| self.join_map.contains_key(key)).collect();
        for task in waiting.iter().filter_map(|key| self.handles.remove(key)) {
            // An error means that the task has ended.
            let _ = task.stop.send(());
        }
        let all_ended = tokio::time::timeout(timeout, async {
            while !waiting.is_empty() {
                let Some((key, end)) = self.join_map.join_next().await else { return };
                waiting.retain(|other| *other != key);
                self.record_end(key, end);
            }
        });
        if all_ended.await.is_err() {
            for key in &waiting {
                self.join_map.abort(key);
            }
        }
    }

    pub(super) async fn stop_all(&mut self, timeout: Duration) {
        let all: Vec<K> = self.handles.keys().cloned().collect();
        self.stop(all, timeout).await;
    }

    fn record_end(&mut self, key: K, end: Result<Result<(), E>, JoinError>) {
        // A stopped task is not in `handles` any more. Only its error still counts.
        let restarts = self.handles.remove(&key).map(|task| task.restarts);
        match (end, restarts) {
            (Ok(Err(error)), _) => self.pending_ends.push_back(TaskEnd::Failed(error)),
            (Ok(Ok(())), Some(_)) => self.pending_ends.push_back(TaskEnd::Done(key)),
            (Err(_), Some(RESTARTS_MAX..)) => self.pending_ends.push_back(TaskEnd::PanickedTooOften(key)),
            (Err(_), Some(restarts)) => self.pending_ends.push_back(TaskEnd::Panicked { key, restarts: restarts + 1 }),
            (Ok(Ok(())) | Err(_), None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than any stop should take.
    const LONG: Duration = Duration::from_mins(10);

    #[tokio::test]
    async fn a_task_that_panics_is_restarted_until_it_has_panicked_too_often() {
        let mut tasks: TaskSet<&str, &str> = TaskSet::new();
        tasks.start("a", 0, |_| async { panic!("a fault") });
        for restarts in 1..=RESTARTS_MAX {
            assert_eq!(tasks.next_end().await, TaskEnd::Panicked { key: "a", restarts });
            tasks.start("a", restarts, |_| async { panic!("a fault") });
        }
        assert_eq!(tasks.next_end().await, TaskEnd::PanickedTooOften("a"));
    }

    #[tokio::test]
    async fn an_end_during_the_stop_of_other_tasks_is_not_lost() {
        let mut tasks: TaskSet<&str, &str> = TaskSet::new();
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
        let mut ends = [tasks.next_end().await, tasks.next_end().await];
        ends.sort_by_key(|end| matches!(end, TaskEnd::Failed(_)));
        assert_eq!(ends, [TaskEnd::Panicked { key: "panics", restarts: 1 }, TaskEnd::Failed("no database")]);
        tasks.stop_all(LONG).await;
        assert!(tasks.join_map.is_empty());
    }

    #[tokio::test]
    async fn a_pending_end_of_a_stopped_task_is_dropped() {
        let mut tasks: TaskSet<&str, &str> = TaskSet::new();
        tasks.start("panics", 0, |_| async { panic!("a fault") });
        tasks.start("runs", 0, |stop| async move {
            let _ = stop.await;
            Ok(())
        });
        tokio::task::yield_now().await;
        tasks.stop(["runs"], LONG).await;
        tasks.stop(["panics"], LONG).await;
        assert!(tasks.pending_ends.is_empty(), "{:?}", tasks.pending_ends);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_stop_within_the_timeout_is_aborted() {
        let mut tasks: TaskSet<&str, &str> = TaskSet::new();
        tasks.start("deaf", 0, |_| std::future::pending());
        tasks.stop_all(LONG).await;
        assert!(tasks.join_map.join_next().await.is_some_and(|(_, end)| end.is_err_and(|error| error.is_cancelled())));
    }
}
