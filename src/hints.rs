//! What the sweep of a store tells the watchers of its jobs: "this one looks changed, poll it now", and "all of them are looked
//! at". A hint never records anything; whoever gets one asks for itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::core::job::ImportJobId;

/// The sweeping side: one for each store.
#[derive(Debug)]
pub struct StoreHints {
    safety_interval: watch::Sender<Option<Duration>>,
    jobs: Mutex<BTreeMap<ImportJobId, Arc<Notify>>>,
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
pub struct JobHints {
    hint: Arc<Notify>,
    safety_interval: watch::Receiver<Option<Duration>>,
}

impl Default for StoreHints {
    /// Of a store that nobody sweeps yet.
    fn default() -> Self {
        Self { safety_interval: watch::Sender::new(None), jobs: Mutex::default() }
    }
}

impl StoreHints {
    /// Begins to take hints for `job`.
    pub fn listen(&self, job: &ImportJobId) -> JobHints {
        let hint = Arc::clone(self.jobs().entry(job.clone()).or_default());
        JobHints { hint, safety_interval: self.safety_interval.subscribe() }
    }

    /// Takes no more hints for `job`.
    pub fn forget(&self, job: &ImportJobId) {
        self.jobs().remove(job);
    }

    /// Says that `job` looks changed. It holds until its watcher has heard it.
    pub fn hint(&self, job: &ImportJobId) {
        if let Some(hint) = self.jobs().get(job) {
            hint.notify_one();
        }
    }

    /// Says whether the store is swept, and how long a job without a hint may then go without a poll.
    pub fn set_safety_interval(&self, interval: Option<Duration>) {
        self.safety_interval.send_if_modified(|current| std::mem::replace(current, interval) != interval);
    }

    // A panic while the lock was held leaves a whole map behind.
    fn jobs(&self) -> MutexGuard<'_, BTreeMap<ImportJobId, Arc<Notify>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl JobHints {
    /// Of a job that no sweep looks at.
    #[must_use]
    pub fn none() -> Self {
        let (sender, safety_interval) = watch::channel(None);
        drop(sender);
        Self { hint: Arc::default(), safety_interval }
    }

    /// How long the job may go without a poll while its store is swept; `None` where it is not.
    #[must_use]
    pub fn safety_interval(&self) -> Option<Duration> {
        *self.safety_interval.borrow()
    }

    /// Returns when there is something new. Whoever stops waiting does not miss it.
    pub async fn told(&mut self) -> Told {
        tokio::select! {
            biased;
            () = self.hint.notified() => Told::LooksChanged,
            // An error: nobody sweeps any more, and what was said last holds.
            Ok(()) = self.safety_interval.changed() => Told::SafetyInterval,
        }
    }
}
