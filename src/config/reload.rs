//! Compares a new configuration with the running one: adds to the new one the entries that only the running one has, and finds changes
//! that require a restart.
//!
//! It does not decide which tasks are started and stopped: see `tasks::plan`.

use std::sync::Arc;

use super::{Config, LogConfig, TargetConfig};

impl Config {
    /// Adds the jobs, stores and targets of `running` that this new configuration lacks. Call this only if a file was left out: that file
    /// may have these entries, and an error in a file must not end a watch. Entries that were deleted on purpose are retained, too.
    pub fn add_missing_entries_of(&mut self, running: &Self) {
        let jobs = Arc::make_mut(&mut self.watch_list.jobs);
        for (id, entry) in &*running.watch_list.jobs {
            jobs.entry(Arc::clone(id)).or_insert_with(|| entry.clone());
        }
        for (id, entry) in &running.watch_list.stores {
            self.watch_list.stores.entry(id.clone()).or_insert_with(|| entry.clone());
        }
        for (name, target) in &running.targets {
            // The target `default` always exists. If only the running one has a region, profile, role or endpoint, a file that was left
            // out may set them.
            let is_lost = |new: &TargetConfig| {
                &**name == TargetConfig::DEFAULT && new.uses_sdk_defaults() && !target.uses_sdk_defaults()
            };
            if self.targets.get(name).is_none_or(is_lost) {
                self.targets.insert(Arc::clone(name), target.clone());
            }
        }
    }

    /// Returns the tables of this new configuration that differ from `running` and take effect only after a restart. `log.level` needs
    /// none.
    #[must_use]
    pub fn tables_needing_restart(&self, running: &Self) -> Vec<&'static str> {
        let log = LogConfig { level: running.log.level, ..self.log.clone() };
        let tables = [
            ("database", self.database != running.database),
            ("http", self.http != running.http),
            ("log", log != running.log),
        ];
        tables.into_iter().filter(|(_, differs)| *differs).map(|(table, _)| table).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::watch_list::{StoreSettings, WatchList};
    use crate::config::{PollConfig, TargetConfig};
    use crate::core::job::TargetStore;
    use crate::core::kind::JobKind;

    /// A configuration whose entries are all named `name`.
    fn config(name: &str, jobs: &[&str], stores: &[&str], targets: &[&str]) -> Config {
        let policy = PollConfig::default().policy();
        let jobs = jobs.iter().map(|job| format!("1234567890/{job}").parse().expect("a job"));
        let mut list = WatchList::of_jobs(jobs, policy);
        for entry in Arc::make_mut(&mut list.jobs).values_mut() {
            entry.name = name.into();
        }
        let id = |store: &&str| TargetStore {
            target: TargetConfig::DEFAULT.into(),
            store: store.parse().expect("an id"),
            kind: JobKind::ReferenceImport,
        };
        list.stores = stores.iter().map(|store| (id(store), StoreSettings::new(name.into(), policy))).collect();
        let target = |target: &&str| {
            let profile = Some(name.to_owned());
            ((*target).into(), TargetConfig { profile, ..TargetConfig::new(target) })
        };
        let targets = targets.iter().map(target).collect();
        Config { watch_list: list, targets, ..Config::new("refwatch.db".into()) }
    }

    #[test]
    fn missing_entries_are_retained_and_new_entries_replace_old_ones() {
        let targets = ["default", "eu", "us"];
        let before = config("before", &["1000000001", "1000000002"], &["1000000001", "1000000002"], &targets);
        let mut new = config("new", &["1000000002", "1000000003"], &["1000000002", "1000000003"], &["us", "jp"]);
        new.targets.insert("default".into(), TargetConfig::new(TargetConfig::DEFAULT));
        new.add_missing_entries_of(&before);
        let jobs: Vec<&str> = new.watch_list.jobs.values().map(|entry| &*entry.name).collect();
        assert_eq!(jobs, ["before", "new", "new"]);
        let stores: Vec<&str> = new.watch_list.stores.values().map(|entry| &*entry.job_settings.name).collect();
        assert_eq!(stores, ["before", "new", "new"]);
        let targets: Vec<_> = new.targets.iter().map(|(name, target)| (&**name, target.profile.as_deref())).collect();
        let expected = [("default", "before"), ("eu", "before"), ("jp", "new"), ("us", "new")];
        assert_eq!(targets, expected.map(|(name, profile)| (name, Some(profile))));
    }

    #[test]
    fn new_settings_of_a_default_target_that_no_file_defines_apply() {
        let before = Config::new("refwatch.db".into());
        let mut new = before.clone();
        let timeout = std::time::Duration::from_secs(7);
        new.targets.insert("default".into(), TargetConfig { timeout, ..TargetConfig::new(TargetConfig::DEFAULT) });
        new.add_missing_entries_of(&before);
        assert_eq!(new.targets[TargetConfig::DEFAULT].timeout, timeout);
    }
}
