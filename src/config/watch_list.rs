//! What to watch, and the difference between two lists.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::sync::Arc;
use std::time::Duration;

use super::TargetConfig;
use crate::core::job::{JobKey, StoreId, WatchId};
use crate::core::tracker::PollPolicy;

/// What to watch. Two entries for one job, or for one store, cannot be: the configuration refuses them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WatchList {
    /// Single jobs, by target and job. Shared: what is in force, what was read last and what is supervised are mostly the same.
    pub jobs: Arc<BTreeMap<Arc<WatchId>, JobEntry>>,
    /// Stores of which every job is watched, by target and store.
    pub stores: BTreeMap<StoreId, StoreEntry>,
}

/// How one job is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobEntry {
    /// The `watch` label.
    pub name: Arc<str>,
    /// How often to poll. Mostly they share one.
    pub policy: Arc<PollPolicy>,
    /// How long after its end the job stays in sight; `None`: for as long as it is on the list.
    pub remove_after: Option<Duration>,
}

/// How every job of a store is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreEntry {
    /// Which jobs count: those created at most so long before the search for them began.
    pub created_within: Duration,
    /// How each of them is watched. They share the store's name.
    pub each: JobEntry,
}

impl StoreEntry {
    pub(super) const CREATED_WITHIN: Duration = Duration::from_hours(7 * 24);
    pub(super) const REMOVE_AFTER: Duration = Duration::from_hours(24);

    /// A week of jobs, each in sight for a day after its end.
    #[must_use]
    pub fn new(name: Arc<str>, policy: impl Into<Arc<PollPolicy>>) -> Self {
        let policy = policy.into();
        Self {
            created_within: Self::CREATED_WITHIN,
            each: JobEntry { name, policy, remove_after: Some(Self::REMOVE_AFTER) },
        }
    }
}

/// "3 jobs and 1 store"
impl Display for WatchList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        let (jobs, stores) = (self.jobs.len(), self.stores.len());
        write!(f, "{jobs} job{}", plural(jobs))?;
        if stores == 0 { Ok(()) } else { write!(f, " and {stores} store{}", plural(stores)) }
    }
}

impl WatchList {
    /// A list of these jobs, read through the target `default` and named STORE/JOB.
    #[must_use]
    pub fn of_jobs(jobs: impl IntoIterator<Item = JobKey>, policy: PollPolicy) -> Self {
        let (target, policy): (Arc<str>, _) = (TargetConfig::DEFAULT.into(), Arc::new(policy));
        let entry = |key: JobKey| {
            let name = key.to_string().into();
            let id = WatchId { target: Arc::clone(&target), key };
            (Arc::new(id), JobEntry { name, policy: Arc::clone(&policy), remove_after: None })
        };
        Self { jobs: Arc::new(jobs.into_iter().map(entry).collect()), stores: BTreeMap::new() }
    }

    /// How a job is watched: its own entry goes before that of its store. `None`: not at all.
    #[must_use]
    pub fn entry(&self, id: &WatchId) -> Option<&JobEntry> {
        self.jobs.get(id).or_else(|| Some(&self.stores.get(&id.store_id())?.each))
    }

    /// The targets in use.
    #[must_use]
    pub fn targets(&self) -> BTreeSet<&Arc<str>> {
        self.jobs.keys().map(|id| &id.target).chain(self.stores.keys().map(|id| &id.target)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PollConfig;

    fn list(jobs: &[&str]) -> WatchList {
        let jobs = jobs.iter().map(|job| format!("1234567890/{job}").parse().expect("a job"));
        WatchList::of_jobs(jobs, PollConfig::default().policy())
    }

    #[test]
    fn the_entry_of_a_job_goes_before_that_of_its_store() {
        let mut list = list(&["1000000001"]);
        let id = list.jobs.keys().next().expect("a job").clone();
        let entry = StoreEntry::new("all".into(), PollConfig::default().policy());
        list.stores.insert(id.store_id(), entry);
        let name = |list: &WatchList, id| list.entry(id).map(|entry| entry.name.to_string());
        assert_eq!(name(&list, &id).as_deref(), Some("1234567890/1000000001"));
        let other = id.store_id().watch("1000000002".parse().expect("an id"));
        assert_eq!(name(&list, &other).as_deref(), Some("all"));
        list.stores.clear();
        assert_eq!(name(&list, &other), None);
    }
}
