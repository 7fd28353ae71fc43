//! What to watch, and the difference between two lists.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::TargetConfig;
use crate::core::job::{JobKey, WatchId};
use crate::core::watch::PollPolicy;

/// The jobs to watch. Two entries for one job cannot be: the configuration refuses them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WatchList {
    /// By target and job.
    pub jobs: BTreeMap<WatchId, JobEntry>,
}

/// One job of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobEntry {
    /// The `watch` label.
    pub name: Arc<str>,
    /// How often to poll.
    pub policy: PollPolicy,
}

/// What has to happen for one watch list to become another: first stop, then start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Difference {
    /// Jobs to stop watching: those that left, and those whose entry or target changed.
    pub stop: Vec<WatchId>,
    /// Jobs to begin watching: new ones, and those whose entry or target changed.
    pub start: Vec<(WatchId, JobEntry)>,
}

impl WatchList {
    /// A list of these jobs, read through the target `default` and named STORE/JOB.
    #[must_use]
    pub fn of_jobs(jobs: impl IntoIterator<Item = JobKey>, policy: PollPolicy) -> Self {
        let entry = |key: JobKey| {
            let name = key.to_string().into();
            (WatchId { target: TargetConfig::DEFAULT.into(), key }, JobEntry { name, policy })
        };
        Self { jobs: jobs.into_iter().map(entry).collect() }
    }

    /// What has to happen for this list to become `new`. A job whose target is not the same counts as changed.
    #[must_use]
    pub(super) fn difference(&self, new: &Self, same_target: impl Fn(&str) -> bool) -> Difference {
        let same = |id: &WatchId| self.jobs.get(id) == new.jobs.get(id) && same_target(&id.target);
        let stop = self.jobs.keys().filter(|id| !same(id)).cloned().collect();
        let start = new.jobs.iter().filter(|(id, _)| !same(id));
        let start = start.map(|(id, entry)| (id.clone(), entry.clone())).collect();
        Difference { stop, start }
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

    fn jobs<'a>(ids: impl IntoIterator<Item = &'a WatchId>) -> Vec<&'a str> {
        ids.into_iter().map(|id| id.key.job.as_str()).collect()
    }

    #[test]
    fn jobs_that_stay_as_they_were_are_left_alone() {
        let old = list(&["1000000001", "1000000002", "1000000003"]);
        let mut new = list(&["1000000002", "1000000003", "1000000004"]);
        let id = new.jobs.keys().nth(1).expect("a job").clone();
        new.jobs.get_mut(&id).expect("a job").name = "renamed".into();

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
}
