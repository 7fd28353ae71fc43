//! Two configurations together: what a partly read one retains of the one before, and which changes need a restart.
//!
//! `tasks::plan` decides which tasks a reload starts and stops.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::Arc;

use super::Config;
use super::watch_list::{JobEntry, StoreEntry, WatchList};

impl Config {
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
    use super::*;
    use crate::config::{PollConfig, TargetConfig};
    use crate::core::job::StoreId;

    fn list(jobs: &[&str]) -> WatchList {
        let jobs = jobs.iter().map(|job| format!("1234567890/{job}").parse().expect("a job"));
        WatchList::of_jobs(jobs, PollConfig::default().policy())
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
