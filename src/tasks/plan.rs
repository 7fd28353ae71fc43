//! Compares the running tasks with a new configuration, and plans which tasks stop and which start.
//!
//! Pure: the supervisor stops and starts the tasks, and removes their views and metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::config::Config;
use crate::config::watch_list::{JobSettings, StoreSettings, WatchList};
use crate::core::job::{TargetJob, TargetStore};
use crate::tasks::lister::{DiscoveryPolicy, ListingPolicy};

/// The running configuration, the discovered jobs, and the stores whose listers run.
#[derive(Debug)]
pub(crate) struct RunningSet<'a> {
    pub(crate) config: &'a Config,
    pub(crate) discovered: BTreeSet<Arc<TargetJob>>,
    pub(crate) listers: BTreeSet<TargetStore>,
}

/// The tasks to stop, then the tasks to start. All other tasks keep running.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// Targets that were added, removed or changed.
    pub(crate) changed_targets: BTreeSet<Arc<str>>,
    /// Jobs whose entry or target was removed or changed. The entry of a discovered job is that of its store, until it gets its own.
    pub(crate) stop_jobs: BTreeSet<Arc<TargetJob>>,
    /// Jobs whose own entry or target is new or changed. Discovered jobs are started when their store's lister starts.
    pub(crate) start_jobs: BTreeMap<Arc<TargetJob>, JobSettings>,
    pub(crate) stop_listers: BTreeSet<TargetStore>,
    pub(crate) start_listers: BTreeMap<TargetStore, ListingPolicy>,
}

pub(crate) fn plan(running: &RunningSet<'_>, wanted: &Config) -> Plan {
    let (old, new) = (&running.config.watch_list, &wanted.watch_list);
    let targets = running.config.targets.keys().chain(wanted.targets.keys());
    let changed_targets: BTreeSet<Arc<str>> =
        targets.filter(|name| running.config.targets.get(*name) != wanted.targets.get(*name)).cloned().collect();
    let same_job = |id: &TargetJob| old.jobs.get(id) == new.jobs.get(id) && !changed_targets.contains(&id.target);
    let same_store =
        |id: &TargetStore| old.stores.get(id) == new.stores.get(id) && !changed_targets.contains(&id.target);

    let discovered_must_stop = |id: &Arc<TargetJob>| !same_store(&id.target_store()) || new.jobs.contains_key(id);
    let discovered_to_stop = running.discovered.iter().filter(|id| discovered_must_stop(id));
    let stop_jobs: BTreeSet<_> =
        old.jobs.keys().filter(|id| !same_job(id)).chain(discovered_to_stop).cloned().collect();
    let start_jobs = new.jobs.iter().filter(|(id, _)| !same_job(id));
    let start_jobs = start_jobs.map(|(id, entry)| (Arc::clone(id), entry.clone())).collect();

    // A job that loses its own entry becomes a discovered job if its store has an entry. `Supervisor::apply` starts the retained jobs in
    // the database only when it starts the store's lister, so the lister must restart. The condition also matches a discovered job that
    // stops because its store's entry or its target has changed. The match does no harm: the lister restarts anyway.
    let gains_discovered_job = |store: &TargetStore| {
        new.stores.contains_key(store)
            && stop_jobs.iter().any(|id| !new.jobs.contains_key(id) && id.target_store() == *store)
    };
    let (old_policies, new_policies) = (listing_policies(running.config), listing_policies(wanted));
    let keeps_running = |store: &&TargetStore| {
        old_policies.get(store) == new_policies.get(store) && same_store(store) && !gains_discovered_job(store)
    };
    let keep: BTreeSet<TargetStore> = running.listers.iter().filter(keeps_running).cloned().collect();
    let stop_listers = running.listers.difference(&keep).cloned().collect();
    let start_listers = new_policies.into_iter().filter(|(store, _)| !keep.contains(store)).collect();
    Plan { changed_targets, stop_jobs, start_jobs, stop_listers, start_listers }
}

/// The policies of the stores to list: stores whose jobs are discovered and, with `use_list`, stores with several jobs that have their own
/// entry.
pub(crate) fn listing_policies(config: &Config) -> BTreeMap<TargetStore, ListingPolicy> {
    let WatchList { jobs, stores } = &config.watch_list;
    let replaces_polls = config.poll.use_list;
    let mut policies = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for id in jobs.keys() {
        let is_first_of_store = seen.insert(id.target_store());
        if replaces_polls && !is_first_of_store {
            policies.insert(id.target_store(), ListingPolicy { replaces_polls, discovery: None });
        }
    }
    for (store, StoreSettings { created_within, job_settings }) in stores {
        let name = Arc::clone(&job_settings.name);
        let discovery = DiscoveryPolicy { name, created_within: *created_within, interval: config.poll.min_interval };
        policies.insert(store.clone(), ListingPolicy { replaces_polls, discovery: Some(discovery) });
    }
    policies
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{PollConfig, Quota, TargetConfig};
    use crate::core::job::Labels;
    use crate::core::kind::JobKind;

    /// Jobs with their own entries, as `STORE/JOB`, and stores whose jobs are discovered.
    fn config(jobs: &[&str], stores: &[&str]) -> Config {
        let policy = PollConfig::default().policy();
        let jobs = jobs.iter().map(|job| id(job).key.clone());
        let mut config = Config { watch_list: WatchList::of_jobs(jobs, policy), ..Config::new("refwatch.db".into()) };
        let stores = stores.iter().map(|store| (store_id(store), StoreSettings::new((*store).into(), policy)));
        config.watch_list.stores = stores.collect();
        config
    }

    /// `1/2` is job 1000000002 of store 1000000001.
    fn id(text: &str) -> Arc<TargetJob> {
        let (store, job) = text.split_once('/').expect("STORE/JOB");
        store_id(store).target_job(format!("100000000{job}").parse().expect("an id"))
    }

    fn store_id(text: &str) -> TargetStore {
        let store = format!("100000000{text}").parse().expect("an id");
        TargetStore { target: TargetConfig::DEFAULT.into(), store, kind: JobKind::ReferenceImport }
    }

    /// The plan as `-job -[lister] +job +[lister]`, while the jobs in `discovered` run.
    fn planned(old: &Config, discovered: &[&str], new: &Config) -> String {
        let discovered = discovered.iter().map(|text| id(text)).collect();
        let running = RunningSet { config: old, discovered, listers: listing_policies(old).into_keys().collect() };
        let plan = plan(&running, new);
        let digit = |id: &str| id.chars().last().expect("a digit");
        let job = |id: &Arc<TargetJob>| format!("{}/{}", digit(id.key.store.as_str()), digit(id.key.job.as_str()));
        let store = |id: &TargetStore| format!("[{}]", digit(id.store.as_str()));
        let stop = plan.stop_jobs.iter().map(job).chain(plan.stop_listers.iter().map(store));
        let start = plan.start_jobs.keys().map(job).chain(plan.start_listers.keys().map(store));
        let words = stop.map(|it| format!("-{it}")).chain(start.map(|it| format!("+{it}")));
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn only_new_removed_and_changed_entries_are_stopped_and_started() {
        let none: &[&str] = &[];
        // Old jobs and stores, discovered jobs, new jobs and stores.
        for (old, discovered, new, expected) in [
            ((none, none), none, (none, none), ""),
            ((&["1/1"], none), none, (&["1/1"], none), ""),
            ((none, none), none, (&["1/1"], none), "+1/1"),
            ((&["1/1", "1/2"], none), none, (&["1/2", "1/3"], none), "-1/1 +1/3"),
            ((&["1/1"], none), none, (&["1/1", "1/2"], none), "+1/2 +[1]"),
            ((&["1/1", "1/2"], none), none, (&["1/1", "2/2"], none), "-1/2 -[1] +2/2"),
            ((none, &["1"]), &["1/1", "1/2"], (none, &["1"]), ""),
            ((none, &["1", "2"]), &["1/1", "2/2"], (none, &["2", "3"]), "-1/1 -[1] +[3]"),
            // A job gains its own entry, then loses it.
            ((none, &["1"]), &["1/1", "1/2"], (&["1/1"], &["1"]), "-1/1 +1/1"),
            ((&["1/1"], &["1"]), &["1/2"], (none, &["1"]), "-1/1 -[1] +[1]"),
            ((&["1/1", "1/2"], none), none, (&["1/1", "1/2"], &["1"]), "-[1] +[1]"),
        ] {
            let plan = planned(&config(old.0, old.1), discovered, &config(new.0, new.1));
            assert_eq!(plan, expected, "{old:?} {discovered:?} {new:?}");
        }
    }

    #[test]
    fn a_changed_target_entry_or_policy_restarts_its_tasks() {
        let old = config(&["1/1", "2/1", "2/2"], &["3"]);
        let mut target = old.clone();
        target.targets.get_mut(TargetConfig::DEFAULT).expect("a target").quota =
            Quota { share: 0.5, ..Quota::default() };
        let all = "-1/1 -2/1 -2/2 -3/9 -[2] -[3] +1/1 +2/1 +2/2 +[2] +[3]";
        assert_eq!(planned(&old, &["3/9"], &target), all);

        let mut renamed = old.clone();
        Arc::make_mut(&mut renamed.watch_list.jobs).get_mut(&id("1/1")).expect("a job").name = "renamed".into();
        assert_eq!(planned(&old, &["3/9"], &renamed), "-1/1 +1/1");

        let mut labelled = old.clone();
        let labels: Arc<Labels> = Arc::new([("project".to_owned(), "atlas".to_owned())].into());
        Arc::make_mut(&mut labelled.watch_list.jobs).get_mut(&id("1/1")).expect("a job").labels = Arc::clone(&labels);
        labelled.watch_list.stores.get_mut(&store_id("3")).expect("a store").job_settings.labels = labels;
        assert_eq!(planned(&old, &["3/9"], &labelled), "-1/1 -3/9 -[3] +1/1 +[3]");

        let mut longer = old.clone();
        longer.watch_list.stores.get_mut(&store_id("3")).expect("a store").created_within = Duration::from_hours(1);
        assert_eq!(planned(&old, &["3/9"], &longer), "-3/9 -[3] +[3]");

        let mut polls = old.clone();
        polls.poll.use_list = false;
        assert_eq!(planned(&old, &["3/9"], &polls), "-[2] -[3] +[3]");
    }

    #[test]
    fn a_lister_that_does_not_run_is_started_at_the_next_reload() {
        let config = config(&[], &["1"]);
        let running = RunningSet { config: &config, discovered: BTreeSet::new(), listers: BTreeSet::new() };
        assert_eq!(plan(&running, &config).start_listers, listing_policies(&config));
    }
}
