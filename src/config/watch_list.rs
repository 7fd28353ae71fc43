//! The jobs and stores to watch, each with its settings.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::sync::Arc;
use std::time::Duration;

use super::TargetConfig;
use crate::core::job::{JobKey, Labels, TargetJob, TargetStore};
use crate::core::tracker::PollPolicy;

/// The jobs and stores to watch, without duplicates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WatchList {
    /// In an `Arc`, because the list may be long and configurations are cloned.
    pub jobs: Arc<BTreeMap<Arc<TargetJob>, JobSettings>>,
    /// The stores whose jobs are discovered: one element for each store and kind of job.
    pub stores: BTreeMap<TargetStore, StoreSettings>,
}

/// The settings of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSettings {
    /// The value of the metric label `watch`.
    pub name: Arc<str>,
    pub labels: Arc<Labels>,
    pub policy: PollPolicy,
    /// How long the job stays on the page and in the metrics after its end. `None`: as long as it is in the watch list.
    pub remove_after: Option<Duration>,
}

/// The settings of a store's jobs of one kind. All kinds of a `[[store]]` have the same settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// The maximum age of a job at the time when the task that lists the store starts. Older jobs are not discovered.
    pub created_within: Duration,
    /// The settings of the store's jobs that have no entry of their own. These jobs share the store's name.
    pub job_settings: JobSettings,
}

impl StoreSettings {
    pub(super) const CREATED_WITHIN_DEFAULT: Duration = Duration::from_hours(7 * 24);
    pub(super) const REMOVE_AFTER_DEFAULT: Duration = Duration::from_hours(24);

    /// A store with the default durations.
    #[must_use]
    pub fn new(name: Arc<str>, policy: PollPolicy) -> Self {
        Self {
            created_within: Self::CREATED_WITHIN_DEFAULT,
            job_settings: JobSettings {
                name,
                labels: Arc::default(),
                policy,
                remove_after: Some(Self::REMOVE_AFTER_DEFAULT),
            },
        }
    }
}

/// "3 jobs and 1 store"
impl Display for WatchList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        let stores = self.store_count();
        let (jobs, stores) = (self.jobs.len(), stores);
        write!(f, "{jobs} job{}", plural(jobs))?;
        if stores == 0 { Ok(()) } else { write!(f, " and {stores} store{}", plural(stores)) }
    }
}

impl WatchList {
    /// A list of jobs of the target `default`, with their default names.
    #[must_use]
    pub fn of_jobs(jobs: impl IntoIterator<Item = JobKey>, policy: PollPolicy) -> Self {
        let target: Arc<str> = TargetConfig::DEFAULT.into();
        let entry = |key: JobKey| {
            let name = key.to_string().into();
            let id = TargetJob { target: Arc::clone(&target), key };
            (Arc::new(id), JobSettings { name, labels: Arc::default(), policy, remove_after: None })
        };
        Self { jobs: Arc::new(jobs.into_iter().map(entry).collect()), stores: BTreeMap::new() }
    }

    /// Returns the settings of a job. The job's own entry overrides its store's entry. `None`: the job is not watched.
    #[must_use]
    pub fn job_settings(&self, target_job: &TargetJob) -> Option<&JobSettings> {
        self.jobs.get(target_job).or_else(|| Some(&self.stores.get(&target_job.target_store())?.job_settings))
    }

    /// The number of stores, however many kinds of each are watched.
    #[must_use]
    pub fn store_count(&self) -> usize {
        self.stores.keys().map(|id| (&id.target, &id.store)).collect::<BTreeSet<_>>().len()
    }

    /// The targets of all jobs and stores.
    #[must_use]
    pub fn targets(&self) -> BTreeSet<&Arc<str>> {
        self.jobs.keys().map(|id| &id.target).chain(self.stores.keys().map(|id| &id.target)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PollConfig;
    use crate::core::kind::{JobKind, StoreType};

    fn list(jobs: &[&str]) -> WatchList {
        let jobs = jobs.iter().map(|job| format!("1234567890/{job}").parse().expect("a job"));
        WatchList::of_jobs(jobs, PollConfig::default().policy())
    }

    #[test]
    fn a_store_is_one_store_however_many_kinds_it_has() {
        let mut list = list(&["1000000001"]);
        let entry = StoreSettings::new("all".into(), PollConfig::default().policy());
        for kind in JobKind::of_store(StoreType::Sequence) {
            let store = "1234567890".parse().expect("an id");
            let id = TargetStore { target: TargetConfig::DEFAULT.into(), kind, store };
            list.stores.insert(id, entry.clone());
        }
        assert_eq!(list.to_string(), "1 job and 1 store");
    }

    #[test]
    fn the_entry_of_a_job_overrides_the_entry_of_its_store() {
        let mut list = list(&["1000000001"]);
        let id = list.jobs.keys().next().expect("a job").clone();
        let entry = StoreSettings::new("all".into(), PollConfig::default().policy());
        list.stores.insert(id.target_store(), entry);
        let name = |list: &WatchList, id| list.job_settings(id).map(|entry| entry.name.to_string());
        assert_eq!(name(&list, &id).as_deref(), Some("1234567890/1000000001"));
        let other = id.target_store().target_job("1000000002".parse().expect("an id"));
        assert_eq!(name(&list, &other).as_deref(), Some("all"));
        list.stores.clear();
        assert_eq!(name(&list, &other), None);
    }
}
