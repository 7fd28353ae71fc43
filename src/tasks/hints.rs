//! What the sweep of a store tells the watchers of its jobs: "this one looks changed, poll it now", and "all of them are looked
//! at". A hint never records anything; whoever gets one asks for itself.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::core::job::ImportJobId;

/// The sweeping side: one for each store. The default is that of a store that nobody sweeps yet.
#[derive(Debug, Default)]
pub struct StoreHints {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    safety_interval: Option<Duration>,
    // Ordered, and each with a bell of its own, so that watchers wake in the same order every time.
    jobs: BTreeMap<ImportJobId, Arc<Slot>>,
}

/// What is there to be told about one job.
#[derive(Debug, Default)]
struct Slot(Mutex<Said>);

#[derive(Debug, Default)]
struct Said {
    looks_changed: bool,
    rescheduled: bool,
    safety_interval: Option<Duration>,
    /// Wakes the one who listens. A plain waker: of a hundred thousand who wait, each would have room for a `Notified`.
    bell: Option<Waker>,
}

/// What a watcher is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// A listing differs from what is known of the job.
    LooksChanged,
    /// [`JobHints::safety_interval`] has become another.
    SafetyInterval,
}

/// The watching side: one for each job.
#[derive(Debug)]
pub struct JobHints(Arc<Slot>);

impl StoreHints {
    /// Begins to take hints for `job`.
    pub fn listen(&self, job: &ImportJobId) -> JobHints {
        let mut inner = self.inner();
        let safety_interval = inner.safety_interval;
        let slot = Arc::clone(inner.jobs.entry(job.clone()).or_default());
        slot.said().safety_interval = safety_interval;
        JobHints(slot)
    }

    /// Takes no more hints for `job`.
    pub fn forget(&self, job: &ImportJobId) {
        self.inner().jobs.remove(job);
    }

    /// Says that `job` looks changed. It holds until its watcher has heard it.
    pub fn hint(&self, job: &ImportJobId) {
        if let Some(slot) = self.inner().jobs.get(job) {
            slot.say(|said| said.looks_changed = true);
        }
    }

    /// Says whether the store is swept, and how long a job without a hint may then go without a poll.
    pub fn set_safety_interval(&self, interval: Option<Duration>) {
        let mut inner = self.inner();
        if mem::replace(&mut inner.safety_interval, interval) == interval {
            return;
        }
        for slot in inner.jobs.values() {
            slot.say(|said| (said.rescheduled, said.safety_interval) = (true, interval));
        }
    }

    // A panic while the lock was held leaves a whole map behind.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn say(&self, what: impl FnOnce(&mut Said)) {
        let mut said = self.said();
        what(&mut said);
        let bell = said.bell.take();
        drop(said);
        if let Some(bell) = bell {
            bell.wake();
        }
    }

    // A panic while the lock was held leaves whole values behind.
    fn said(&self) -> MutexGuard<'_, Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl JobHints {
    /// Of a job that no sweep looks at.
    #[must_use]
    pub fn none() -> Self {
        Self(Arc::default())
    }

    /// How long the job may go without a poll while its store is swept; `None` where it is not.
    #[must_use]
    pub fn safety_interval(&self) -> Option<Duration> {
        self.0.said().safety_interval
    }

    /// Returns when there is something new. Whoever stops waiting does not miss it.
    pub fn told(&mut self) -> impl Future<Output = Told> {
        poll_fn(|context| self.poll_told(context))
    }

    fn poll_told(&mut self, context: &Context) -> Poll<Told> {
        let mut said = self.0.said();
        if mem::take(&mut said.looks_changed) {
            return Poll::Ready(Told::LooksChanged);
        }
        if mem::take(&mut said.rescheduled) {
            return Poll::Ready(Told::SafetyInterval);
        }
        said.bell = Some(context.waker().clone());
        Poll::Pending
    }

    /// Returns once the job looks changed. Whoever stops waiting does not miss it.
    pub async fn looks_changed(&mut self) {
        while self.told().await != Told::LooksChanged {}
    }
}

/// A waker keeps the memory of its task, which may have ended long before hints for its job are forgotten.
impl Drop for JobHints {
    fn drop(&mut self) {
        self.0.said().bell = None;
    }
}
