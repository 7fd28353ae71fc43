//! The registry of one store: its watched jobs. Shared by the supervisor, the store's lister and its job watchers.
//!
//! Job watchers report the known state and the next action of their jobs. The lister reads the reports, and sends hints and the
//! routine interval. Only a poll changes the known state of a job.
//!
//! Each job has its own `Notify`, so job watchers wake in the order of their hints. With one for the store the order would differ between
//! runs, and simulations would not be reproducible.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::core::job::{JobId, JobStatus};
use crate::core::listing::listing_can_replace_poll;
use crate::core::time::Timestamp;
use crate::core::tracker::{JobState, NextAction};

#[derive(Debug, Default)]
pub(crate) struct StoreRegistry {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Copied to each slot, because job watchers hold only their slot.
    routine_interval: Option<Duration>,
    jobs: BTreeMap<JobId, Arc<JobSlot>>,
}

#[derive(Debug, Default)]
struct JobSlot {
    data: Mutex<SlotData>,
    /// Notified after each hint and each change of the routine interval.
    wake: Notify,
}

#[derive(Debug, Default)]
struct SlotData {
    hinted: bool,
    routine_interval: Option<Duration>,
    /// The last report of the job watcher; `None` before the first report.
    report: Option<Report>,
}

#[derive(Debug)]
struct Report {
    next_action: NextAction,
    known: Option<Arc<JobState>>,
}

/// A job watcher's access to its [`JobSlot`].
#[derive(Debug, Default)]
pub(crate) struct WatcherSlot(Arc<JobSlot>);

impl StoreRegistry {
    /// Adds `job` to the watched jobs. After a panic, the new job watcher gets the slot of the previous one, with its hint.
    pub(crate) fn add(&self, job: &JobId) -> WatcherSlot {
        let Inner { routine_interval, jobs } = &mut *lock(&self.inner);
        let slot = Arc::clone(jobs.entry(job.clone()).or_default());
        lock(&slot.data).routine_interval = *routine_interval;
        WatcherSlot(slot)
    }

    pub(crate) fn remove(&self, job: &JobId) {
        lock(&self.inner).jobs.remove(job);
    }

    pub(crate) fn is_watched(&self, job: &JobId) -> bool {
        lock(&self.inner).jobs.contains_key(job)
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.inner).jobs.len()
    }

    pub(crate) fn watched(&self) -> Vec<JobId> {
        lock(&self.inner).jobs.keys().cloned().collect()
    }

    /// Whether the next action of any watched job is a poll.
    pub(crate) fn has_jobs_to_poll(&self) -> bool {
        lock(&self.inner).jobs.values().any(|slot| {
            lock(&slot.data).report.as_ref().is_some_and(|report| matches!(report.next_action, NextAction::PollAt(_)))
        })
    }

    /// The listable jobs, with their last known state.
    pub(crate) fn listable(&self, now: Timestamp) -> BTreeMap<JobId, Option<Arc<JobState>>> {
        self.select_reports(|Report { next_action, known }| {
            let is_listable =
                matches!(next_action, NextAction::PollAt(_)) && listing_can_replace_poll(known.as_deref(), now);
            is_listable.then(|| known.clone())
        })
    }

    /// The jobs whose next action is `Finished`, with their status.
    pub(crate) fn finished(&self) -> BTreeMap<JobId, JobStatus> {
        self.select_reports(|report| match &report.next_action {
            NextAction::Finished(status) => Some(status.clone()),
            NextAction::PollAt(_) | NextAction::Parked(_) => None,
        })
    }

    /// Asks the watcher of `job` to poll now. The hint is kept until the watcher takes it.
    pub(crate) fn hint(&self, job: &JobId) {
        if let Some(slot) = lock(&self.inner).jobs.get(job) {
            slot.hint();
        }
    }

    /// Sets the shortest time from a successful poll to the next routine poll; `None`: each job keeps its own interval. `Poller::due`
    /// decides which jobs it concerns.
    pub(crate) fn set_routine_interval(&self, interval: Option<Duration>) {
        let mut inner = lock(&self.inner);
        if inner.routine_interval == interval {
            return;
        }
        inner.routine_interval = interval;
        for slot in inner.jobs.values() {
            lock(&slot.data).routine_interval = interval;
            slot.wake.notify_one();
        }
    }

    /// Applies `select` to the last report of each job. Jobs without a report are left out.
    fn select_reports<T>(&self, select: impl Fn(&Report) -> Option<T>) -> BTreeMap<JobId, T> {
        let inner = lock(&self.inner);
        let selected = |slot: &JobSlot| select(lock(&slot.data).report.as_ref()?);
        inner.jobs.iter().filter_map(|(job, slot)| Some((job.clone(), selected(slot)?))).collect()
    }
}

impl JobSlot {
    fn hint(&self) {
        lock(&self.data).hinted = true;
        self.wake.notify_one();
    }
}

impl WatcherSlot {
    pub(crate) fn report(&self, next_action: NextAction, known: Option<Arc<JobState>>) {
        lock(&self.0.data).report = Some(Report { next_action, known });
    }

    pub(crate) fn routine_interval(&self) -> Option<Duration> {
        lock(&self.0.data).routine_interval
    }

    /// Hints the job of this slot.
    pub(crate) fn hint(&self) {
        self.0.hint();
    }

    /// Returns when there may be a hint or a new routine interval. Cancel safe.
    pub(crate) async fn woken(&self) {
        self.0.wake.notified().await;
    }

    /// Removes the hint. Returns whether there was one.
    pub(crate) fn take_hint(&self) -> bool {
        std::mem::take(&mut lock(&self.0.data).hinted)
    }

    /// Waits for a hint and removes it. Cancel safe.
    pub(crate) async fn next_hint(&self) {
        while !self.take_hint() {
            self.woken().await;
        }
    }
}

// No panic leaves the data half changed, so a poisoned lock is safe to use.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
