//! The registry of one store, shared by its lister and its job watchers.
//!
//! Job watchers report the state of their jobs here, and the lister reads which jobs are live. The lister sends hints back:
//! "this job looks changed, poll it now", and how rarely jobs without a hint need a poll. A hint never changes a status: the
//! job's own task polls. Each job has its own `Notify`, so tasks wake in a fixed order and a simulation can be replayed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::core::job::{ImportJobId, JobStatus};
use crate::core::listing::listings_replace_polls;
use crate::core::time::Timestamp;
use crate::core::tracker::{JobState, NextAction};

#[derive(Debug, Default)]
pub(crate) struct StoreRegistry {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    safety_interval: Option<Duration>,
    jobs: BTreeMap<ImportJobId, Arc<JobSlot>>,
}

/// What the lister and one job watcher share.
#[derive(Debug, Default)]
struct JobSlot {
    state: Mutex<SlotState>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct SlotState {
    looks_changed: bool,
    safety_interval: Option<Duration>,
    /// What the job's watcher reported last; `None` before the first report.
    report: Option<(NextAction, Option<Arc<JobState>>)>,
}

/// The job watcher's side of a [`JobSlot`].
#[derive(Debug, Default)]
pub(crate) struct JobHints(Arc<JobSlot>);

impl StoreRegistry {
    /// Adds `job` to the watched jobs, or takes it over from the task before.
    pub(crate) fn subscribe(&self, job: &ImportJobId) -> JobHints {
        let mut inner = lock(&self.inner);
        let safety_interval = inner.safety_interval;
        let slot = Arc::clone(inner.jobs.entry(job.clone()).or_default());
        lock(&slot.state).safety_interval = safety_interval;
        JobHints(slot)
    }

    pub(crate) fn unsubscribe(&self, job: &ImportJobId) {
        lock(&self.inner).jobs.remove(job);
    }

    pub(crate) fn is_watched(&self, job: &ImportJobId) -> bool {
        lock(&self.inner).jobs.contains_key(job)
    }

    /// Every watched job, ordered by id.
    pub(crate) fn watched(&self) -> Vec<ImportJobId> {
        lock(&self.inner).jobs.keys().cloned().collect()
    }

    /// Whether a watched job is still polled.
    pub(crate) fn has_live_jobs(&self) -> bool {
        lock(&self.inner).jobs.values().any(|slot| matches!(lock(&slot.state).report, Some((NextAction::PollAt(_), _))))
    }

    /// The live jobs that a listing can replace polls of, with their last known state.
    pub(crate) fn live(&self, now: Timestamp) -> BTreeMap<ImportJobId, Option<Arc<JobState>>> {
        self.collect(|next, known| {
            (matches!(next, NextAction::PollAt(_)) && listings_replace_polls(known.map(AsRef::as_ref), now))
                .then(|| known.cloned())
        })
    }

    /// The watched jobs that have ended, with their status.
    pub(crate) fn finished(&self) -> BTreeMap<ImportJobId, JobStatus> {
        self.collect(|next, _| if let NextAction::Finished(status) = next { Some(status.clone()) } else { None })
    }

    /// Asks the watcher of `job` to poll at once. The hint is kept until the watcher has received it.
    pub(crate) fn hint(&self, job: &ImportJobId) {
        if let Some(slot) = lock(&self.inner).jobs.get(job) {
            lock(&slot.state).looks_changed = true;
            slot.changed.notify_one();
        }
    }

    /// Sets how long a job without a hint may go without a poll; `None`: the store is not listed.
    pub(crate) fn set_safety_interval(&self, interval: Option<Duration>) {
        let mut inner = lock(&self.inner);
        if inner.safety_interval == interval {
            return;
        }
        inner.safety_interval = interval;
        for slot in inner.jobs.values() {
            lock(&slot.state).safety_interval = interval;
            slot.changed.notify_one();
        }
    }

    fn collect<T>(
        &self,
        select: impl Fn(&NextAction, Option<&Arc<JobState>>) -> Option<T>,
    ) -> BTreeMap<ImportJobId, T> {
        let inner = lock(&self.inner);
        let selected = inner.jobs.iter().filter_map(|(job, slot)| {
            let state = lock(&slot.state);
            let (next, known) = state.report.as_ref()?;
            Some((job.clone(), select(next, known.as_ref())?))
        });
        selected.collect()
    }
}

impl JobHints {
    /// Reports the state of the job to the lister.
    pub(crate) fn report(&self, next: NextAction, known: Option<Arc<JobState>>) {
        lock(&self.0.state).report = Some((next, known));
    }

    /// How long the job may go without a poll; `None` if its store is not listed.
    pub(crate) fn safety_interval(&self) -> Option<Duration> {
        lock(&self.0.state).safety_interval
    }

    /// Returns when there may be a hint or another safety interval. Cancel safe.
    pub(crate) async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// Takes the hint, if there is one.
    pub(crate) fn take_hint(&self) -> bool {
        std::mem::take(&mut lock(&self.0.state).looks_changed)
    }

    /// Returns when the job looks changed. Cancel safe.
    pub(crate) async fn looks_changed(&self) {
        while !self.take_hint() {
            self.changed().await;
        }
    }
}

// A poisoned lock is still usable: each write is one assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
