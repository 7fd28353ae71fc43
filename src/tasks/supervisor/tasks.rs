//! Tasks by key: each has one owner, can be told to stop, and may be started again where it panics.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::hash::Hash;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinError;
use tokio_util::task::JoinMap;

/// How often one task is started again. A fault that comes back this often does not go away by itself.
pub(super) const RESTARTS_MAX: u32 = 5;

/// The tasks of a supervisor.
#[derive(Debug)]
pub(super) struct Tasks<K, E> {
    set: JoinMap<K, Result<(), E>>,
    running: BTreeMap<K, Running>,
    /// Ends that came in while only others were waited for.
    ended: VecDeque<Ended<K, E>>,
}

#[derive(Debug)]
struct Running {
    /// Tells the task to stop, as dropping it does.
    stop: oneshot::Sender<()>,
    restarts: u32,
}

/// How a task ended that nobody had told to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended<K, E> {
    /// It has done what it was for.
    Done(K),
    /// It says that the daemon cannot go on.
    Failed(E),
    /// It panicked, and may be started again for the `restarts`th time.
    Panicked { key: K, restarts: u32 },
    /// It panicked once more than [`RESTARTS_MAX`] times.
    GivenUp(K),
}

impl<K, E> Ended<K, E> {
    /// Whose end asks for something.
    fn key(&self) -> Option<&K> {
        match self {
            Self::Done(key) | Self::Panicked { key, .. } | Self::GivenUp(key) => Some(key),
            Self::Failed(_) => None,
        }
    }
}

impl<K: Clone + Ord + Hash, E: Send + 'static> Tasks<K, E> {
    pub(super) fn new() -> Self {
        Self { set: JoinMap::new(), running: BTreeMap::new(), ended: VecDeque::new() }
    }

    /// Whether there is a task of `key`.
    pub(super) fn runs(&self, key: &K) -> bool {
        self.running.contains_key(key)
    }

    /// Starts the task of `key`; `restarts` says how often it has been started again.
    pub(super) fn start<F>(&mut self, key: K, restarts: u32, task: impl FnOnce(oneshot::Receiver<()>) -> F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        self.set.spawn(key.clone(), task(stopped));
        self.running.insert(key, Running { stop, restarts });
    }

    /// The next end of a task that nobody told to; never returns while there is none to end.
    pub(super) async fn next_end(&mut self) -> Ended<K, E> {
        loop {
            if let Some(ended) = self.ended.pop_front() {
                return ended;
            }
            match self.set.join_next().await {
                Some((key, end)) => self.take(key, end),
                None => std::future::pending().await,
            }
        }
    }

    /// Tells the tasks of `keys` to stop and waits for them, at most `patience`; what then runs on is cut off.
    pub(super) async fn stop(&mut self, keys: impl IntoIterator<Item = K>, patience: Duration) {
        let keys: BTreeSet<K> = keys.into_iter().collect();
        // Whoever stops a task wants no more of it, an end that is still to be told included.
        self.ended.retain(|ended| !ended.key().is_some_and(|key| keys.contains(key)));
        let mut waiting: Vec<K> = keys.into_iter().filter(|key| self.set.contains_key(key)).collect();
        for task in waiting.iter().filter_map(|key| self.running.remove(key)) {
            // An error: it has ended meanwhile.
            let _ = task.stop.send(());
        }
        // The patience is a bound on a wait, not a schedule: no one's turn depends on it.
        let all_ended = tokio::time::timeout(patience, async {
            while !waiting.is_empty() {
                let Some((key, end)) = self.set.join_next().await else { return };
                waiting.retain(|other| *other != key);
                self.take(key, end);
            }
        });
        if all_ended.await.is_err() {
            for key in &waiting {
                self.set.abort(key);
            }
        }
    }

    /// Stops every task.
    pub(super) async fn stop_all(&mut self, patience: Duration) {
        let all: Vec<K> = self.running.keys().cloned().collect();
        self.stop(all, patience).await;
    }

    fn take(&mut self, key: K, end: Result<Result<(), E>, JoinError>) {
        // A task that was told to stop is no longer among the running; only its word that nothing can go on still counts.
        let restarts = self.running.remove(&key).map(|task| task.restarts);
        match (end, restarts) {
            (Ok(Err(error)), _) => self.ended.push_back(Ended::Failed(error)),
            (Ok(Ok(())), Some(_)) => self.ended.push_back(Ended::Done(key)),
            (Err(_), Some(RESTARTS_MAX..)) => self.ended.push_back(Ended::GivenUp(key)),
            (Err(_), Some(restarts)) => self.ended.push_back(Ended::Panicked { key, restarts: restarts + 1 }),
            (Ok(Ok(())) | Err(_), None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Patience that no test runs out of.
    const LONG: Duration = Duration::from_mins(10);

    #[tokio::test]
    async fn a_task_that_panics_is_started_again_until_it_is_given_up() {
        let mut tasks: Tasks<&str, &str> = Tasks::new();
        tasks.start("a", 0, |_| async { panic!("a fault") });
        for restarts in 1..=RESTARTS_MAX {
            assert_eq!(tasks.next_end().await, Ended::Panicked { key: "a", restarts });
            tasks.start("a", restarts, |_| async { panic!("a fault") });
        }
        assert_eq!(tasks.next_end().await, Ended::GivenUp("a"));
    }

    #[tokio::test]
    async fn an_end_that_comes_while_others_are_stopped_is_not_lost() {
        let mut tasks: Tasks<&str, &str> = Tasks::new();
        tasks.start("stopped", 0, |stop| async move {
            let _ = stop.await;
            Ok(())
        });
        tasks.start("panics", 0, |_| async { panic!("a fault") });
        tasks.start("fails", 0, |_| async { Err("no record") });
        tasks.start("runs", 0, |stop| async move {
            let _ = stop.await;
            Ok(())
        });
        tokio::task::yield_now().await;
        tasks.stop(["stopped"], LONG).await;
        let mut ends = [tasks.next_end().await, tasks.next_end().await];
        ends.sort_by_key(|end| matches!(end, Ended::Failed(_)));
        assert_eq!(ends, [Ended::Panicked { key: "panics", restarts: 1 }, Ended::Failed("no record")]);
        tasks.stop_all(LONG).await;
        assert!(tasks.set.is_empty());
    }

    #[tokio::test]
    async fn an_end_that_is_still_to_be_told_dies_with_its_task() {
        let mut tasks: Tasks<&str, &str> = Tasks::new();
        tasks.start("panics", 0, |_| async { panic!("a fault") });
        tasks.start("runs", 0, |stop| async move {
            let _ = stop.await;
            Ok(())
        });
        tokio::task::yield_now().await;
        tasks.stop(["runs"], LONG).await;
        tasks.stop(["panics"], LONG).await;
        assert!(tasks.ended.is_empty(), "{:?}", tasks.ended);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_stop_in_time_is_cut_off() {
        let mut tasks: Tasks<&str, &str> = Tasks::new();
        tasks.start("deaf", 0, |_| std::future::pending());
        tasks.stop_all(LONG).await;
        assert!(tasks.set.join_next().await.is_some_and(|(_, end)| end.is_err_and(|error| error.is_cancelled())));
    }
}
