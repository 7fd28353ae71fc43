//! What changes from one configuration to the next, as a pure function. No other module decides whether anything changed.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::Arc;

use super::Config;
use super::watch_list::{JobEntry, StoreEntry, WatchList};
use crate::core::job::{StoreId, WatchId};

/// The jobs to stop and then to start for one watch list to become another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Difference {
    /// Jobs that were removed, and those whose entry or target changed.
    pub stop: Vec<Arc<WatchId>>,
    /// Jobs that were added, and those whose entry or target changed.
    pub start: Vec<(Arc<WatchId>, JobEntry)>,
    /// Stores that were added or removed, and those whose entry or target changed. The jobs discovered in them are no longer watched.
    pub stores: BTreeSet<StoreId>,
}

impl Config {
    /// What has to be stopped and started for this configuration to become `new`.
    #[must_use]
    pub fn difference(&self, new: &Self) -> Difference {
        let same_target = |name: &str| self.targets.get(name) == new.targets.get(name);
        let (before, after) = (&self.watch_list, &new.watch_list);
        let same = |id: &WatchId| before.jobs.get(id) == after.jobs.get(id) && same_target(&id.target);
        let stop = before.jobs.keys().filter(|id| !same(id)).cloned().collect();
        let start = after.jobs.iter().filter(|(id, _)| !same(id));
        let start = start.map(|(id, entry)| (id.clone(), entry.clone())).collect();
        let same = |id: &StoreId| before.stores.get(id) == after.stores.get(id) && same_target(&id.target);
        let stores = before.stores.keys().chain(after.stores.keys()).filter(|id| !same(id)).cloned().collect();
        Difference { stop, start, stores }
    }

    /// Adds the jobs, stores and targets of `before` that this configuration lacks. An included file that was left out may have them,
    /// and an error in it must not end a watch.
    pub fn keep_of(&mut self, before: &Self) {
        retain_missing_from(&mut self.watch_list, &before.watch_list);
        for name in self.watch_list.targets() {
            if let (false, Some(target)) = (self.targets.contains_key(name), before.targets.get(name)) {
                self.targets.insert(Arc::clone(name), target.clone());
            }
        }
    }

    /// The tables in which `new` differs and that take effect only at the next start.
    #[must_use]
    pub fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        let tables =
            [("record", self.record != new.record), ("http", self.http != new.http), ("log", self.log != new.log)];
        tables.into_iter().filter(|(_, differs)| *differs).map(|(table, _)| table).collect()
    }
}

/// Adds the entries of `before` that `list` lacks, under their default names if their own are in use.
fn retain_missing_from(list: &mut WatchList, before: &WatchList) {
    let entries = list.jobs.values().chain(list.stores.values().map(|store| &store.each));
    let mut used: BTreeSet<Arc<str>> = entries.map(|entry| Arc::clone(&entry.name)).collect();
    let mut retained = |entry: &JobEntry, default_name: &dyn Display| {
        let is_free = !used.contains(&entry.name);
        let name = if is_free { Arc::clone(&entry.name) } else { default_name.to_string().into() };
        used.insert(Arc::clone(&name));
        JobEntry { name, ..entry.clone() }
    };
    let jobs = Arc::make_mut(&mut list.jobs);
    for (id, entry) in &*before.jobs {
        jobs.entry(id.clone()).or_insert_with(|| retained(entry, &id.key));
    }
    for (id, entry) in &before.stores {
        let store = || StoreEntry { each: retained(&entry.each, &id.store), ..entry.clone() };
        list.stores.entry(id.clone()).or_insert_with(store);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{PollConfig, Quota, TargetConfig};

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

        let difference = config(old.clone()).difference(&config(new.clone()));
        assert_eq!(jobs(&difference.stop), ["1000000001", "1000000003"]);
        assert_eq!(jobs(difference.start.iter().map(|(id, _)| id)), ["1000000003", "1000000004"]);
        assert_eq!(&*difference.start[0].1.name, "renamed");
        assert_eq!(config(old.clone()).difference(&config(old)), Difference::default());
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
        let difference = config(old.clone()).difference(&config(new.clone()));
        assert_eq!(difference.stores, ["1000000001", "1000000003", "1000000004"].map(store).into());
        assert_eq!(config(old.clone()).difference(&config(old)), Difference::default());
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
        retain_missing_from(&mut new, &before);
        let jobs =
            [("1000000001", "1234567890/1000000001"), ("1000000002", "b"), ("1000000003", "d"), ("1000000004", "a")];
        let stores =
            [("1234567891", "1234567891"), ("1234567892", "e"), ("1234567893", "renamed"), ("1234567894", "c")];
        assert_eq!(new, named(&jobs, &stores));
    }
}
