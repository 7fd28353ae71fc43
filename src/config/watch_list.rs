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
    pub forget_after: Option<Duration>,
}

/// How every job of a store is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreEntry {
    /// Which jobs count: those created at most so long before the search for them began.
    pub since: Duration,
    /// How each of them is watched. They share the store's name.
    pub each: JobEntry,
}

impl StoreEntry {
    pub(super) const SINCE: Duration = Duration::from_hours(7 * 24);
    pub(super) const FORGET_AFTER: Duration = Duration::from_hours(24);

    /// A week of jobs, each in sight for a day after its end.
    #[must_use]
    pub fn new(name: Arc<str>, policy: impl Into<Arc<PollPolicy>>) -> Self {
        let policy = policy.into();
        Self { since: Self::SINCE, each: JobEntry { name, policy, forget_after: Some(Self::FORGET_AFTER) } }
    }
}

/// What has to happen for one watch list to become another: first stop, then start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Difference {
    /// Jobs to stop watching: those that left, and those whose entry or target changed.
    pub stop: Vec<Arc<WatchId>>,
    /// Jobs to begin watching: new ones, and those whose entry or target changed.
    pub start: Vec<(Arc<WatchId>, JobEntry)>,
    /// Stores that came or left, and those whose entry or target changed: what was found in them is no longer watched, and the
    /// search begins anew where they are on the new list.
    pub stores: BTreeSet<StoreId>,
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
            (Arc::new(id), JobEntry { name, policy: Arc::clone(&policy), forget_after: None })
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

    /// Adds what `before` has and this list lacks, under its default name where its own is taken.
    pub(super) fn keep_of(&mut self, before: &Self) {
        let entries = self.jobs.values().chain(self.stores.values().map(|store| &store.each));
        let mut taken: BTreeSet<Arc<str>> = entries.map(|entry| Arc::clone(&entry.name)).collect();
        let mut kept = |entry: &JobEntry, default_name: &dyn Display| {
            let free = !taken.contains(&entry.name);
            let name = if free { Arc::clone(&entry.name) } else { default_name.to_string().into() };
            taken.insert(Arc::clone(&name));
            JobEntry { name, ..entry.clone() }
        };
        let jobs = Arc::make_mut(&mut self.jobs);
        for (id, entry) in &*before.jobs {
            jobs.entry(id.clone()).or_insert_with(|| kept(entry, &id.key));
        }
        for (id, entry) in &before.stores {
            let stays = || StoreEntry { each: kept(&entry.each, &id.store), ..entry.clone() };
            self.stores.entry(id.clone()).or_insert_with(stays);
        }
    }

    /// What has to happen for this list to become `new`. A job or store whose target is not the same counts as changed.
    #[must_use]
    pub(super) fn difference(&self, new: &Self, same_target: impl Fn(&str) -> bool) -> Difference {
        let same = |id: &WatchId| self.jobs.get(id) == new.jobs.get(id) && same_target(&id.target);
        let stop = self.jobs.keys().filter(|id| !same(id)).cloned().collect();
        let start = new.jobs.iter().filter(|(id, _)| !same(id));
        let start = start.map(|(id, entry)| (id.clone(), entry.clone())).collect();
        let same = |id: &StoreId| self.stores.get(id) == new.stores.get(id) && same_target(&id.target);
        let stores = self.stores.keys().chain(new.stores.keys()).filter(|id| !same(id)).cloned().collect();
        Difference { stop, start, stores }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, PollConfig, Quota};

    fn list(jobs: &[&str]) -> WatchList {
        let jobs = jobs.iter().map(|job| format!("1234567890/{job}").parse().expect("a job"));
        WatchList::of_jobs(jobs, PollConfig::default().policy())
    }

    fn config(watch_list: WatchList) -> Config {
        Config { watch_list, ..Config::new("refwatch.db".into()) }
    }

    fn target(config: &mut Config) -> &mut TargetConfig {
        config.targets.get_mut(TargetConfig::DEFAULT).expect("the default target")
    }

    fn jobs<'a>(ids: impl IntoIterator<Item = &'a Arc<WatchId>>) -> Vec<&'a str> {
        ids.into_iter().map(|id| id.key.job.as_str()).collect()
    }

    #[test]
    fn jobs_that_stay_as_they_were_are_left_alone() {
        let old = list(&["1000000001", "1000000002", "1000000003"]);
        let mut new = list(&["1000000002", "1000000003", "1000000004"]);
        let id = new.jobs.keys().nth(1).expect("a job").clone();
        Arc::make_mut(&mut new.jobs).get_mut(&id).expect("a job").name = "renamed".into();

        let difference = old.difference(&new, |_| true);
        assert_eq!(jobs(&difference.stop), ["1000000001", "1000000003"]);
        assert_eq!(jobs(difference.start.iter().map(|(id, _)| id)), ["1000000003", "1000000004"]);
        assert_eq!(&*difference.start[0].1.name, "renamed");
        assert_eq!(old.difference(&old, |_| true), Difference::default());
    }

    #[test]
    fn the_jobs_of_a_target_that_changed_are_started_anew() {
        let old = config(list(&["1000000001"]));
        let mut new = old.clone();
        target(&mut new).quota = Quota { share: 0.5, ..Quota::default() };

        let difference = old.difference(&new);
        assert_eq!(jobs(&difference.stop), ["1000000001"]);
        assert_eq!(jobs(difference.start.iter().map(|(id, _)| id)), ["1000000001"]);

        assert_eq!(old.difference(&old), Difference::default());
    }

    #[test]
    fn a_store_is_searched_anew_where_its_entry_or_target_came_left_or_changed() {
        let policy = PollConfig::default().policy();
        let store = |id: &str| StoreId { target: TargetConfig::DEFAULT.into(), store: id.parse().expect("an id") };
        let stores = |ids: &[&str]| WatchList {
            stores: ids.iter().map(|id| (store(id), StoreEntry::new((*id).into(), policy))).collect(),
            ..WatchList::default()
        };
        let old = stores(&["1000000001", "1000000002", "1000000003"]);
        let mut new = stores(&["1000000002", "1000000003", "1000000004"]);
        new.stores.get_mut(&store("1000000003")).expect("a store").since = Duration::from_hours(1);
        let difference = old.difference(&new, |_| true);
        assert_eq!(difference.stores, ["1000000001", "1000000003", "1000000004"].map(store).into());
        assert_eq!(old.difference(&old, |_| true), Difference::default());
        assert_eq!(old.difference(&old, |_| false).stores, old.stores.keys().cloned().collect());
    }

    #[test]
    fn what_stays_for_a_mistake_gives_its_name_up_to_whoever_has_it_by_now() {
        let store = |id: &str| StoreId { target: TargetConfig::DEFAULT.into(), store: id.parse().expect("an id") };
        let named = |jobs: &[(&str, &str)], stores: &[(&str, &str)]| {
            let mut named = list(&jobs.iter().map(|(id, _)| *id).collect::<Vec<_>>());
            for (entry, (_, name)) in Arc::make_mut(&mut named.jobs).values_mut().zip(jobs) {
                entry.name = (*name).into();
            }
            let policy = PollConfig::default().policy();
            let entry = |(id, name): &(&str, &str)| (store(id), StoreEntry::new((*name).into(), policy));
            WatchList { stores: stores.iter().map(entry).collect(), ..named }
        };
        let before = named(
            &[("1000000001", "a"), ("1000000002", "b"), ("1000000003", "c")],
            &[("1234567891", "d"), ("1234567892", "e"), ("1234567893", "f")],
        );
        let mut new =
            named(&[("1000000003", "d"), ("1000000004", "a")], &[("1234567893", "renamed"), ("1234567894", "c")]);
        new.keep_of(&before);
        let jobs =
            [("1000000001", "1234567890/1000000001"), ("1000000002", "b"), ("1000000003", "d"), ("1000000004", "a")];
        let stores =
            [("1234567891", "1234567891"), ("1234567892", "e"), ("1234567893", "renamed"), ("1234567894", "c")];
        assert_eq!(new, named(&jobs, &stores));
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
